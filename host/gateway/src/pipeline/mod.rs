//! The life of one exchange: `exchange` is the sequence of steps, each other file is one step.
//!
//! The steps do not know each other, nor sockets; `snapshot` holds what an exchange reads.

pub mod compress;
pub mod cors;
pub mod exchange;
pub mod filters;
pub mod limits;
pub mod mirror;
pub mod normalize;
pub mod redirect;
pub mod respond;
pub mod rewrite;
pub mod route;
pub mod snapshot;
