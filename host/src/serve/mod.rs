//! From a socket to an answered request. `listen` accepts, `connection` speaks HTTP, `proxy` is one exchange.

pub mod connection;
pub mod listen;
pub mod proxy;
