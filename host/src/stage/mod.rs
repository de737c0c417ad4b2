//! The steps that an exchange passes, each with one job: they do not know each other, `serve/proxy.rs` puts them in order.

pub mod compress;
pub mod cors;
pub mod filters;
pub mod limits;
pub mod mirror;
pub mod redirect;
pub mod respond;
pub mod rewrite;
pub mod route;
pub mod tls;
pub mod upstream;
