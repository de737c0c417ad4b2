//! From a socket to an answered request. `listen` accepts, `connection` finds out who speaks what (after a `handshake` where there is TLS), `http1` (over `wire`) and `http2` (behind `guard`)
//! speak it, `intake` checks a request, `proxy` is one exchange. `worker` is what all of them have from their thread.

pub mod connection;
mod guard;
mod handshake;
mod http1;
mod http2;
mod intake;
pub mod listen;
pub mod proxy;
mod wire;
mod worker;
