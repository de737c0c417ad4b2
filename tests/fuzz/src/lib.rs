//! The gateway's modules that turn untrusted bytes into values, by their source: they import nothing but each other, and so build without the runtime.

#[allow(missing_docs, dead_code)]
#[path = "../../../host/src"]
mod host {
    pub mod body;
    pub mod conduct;
    pub mod config;
    pub mod error;
    pub mod exchange;
    pub mod http1;
}

pub use host::{body, conduct, config, error, exchange, http1};
