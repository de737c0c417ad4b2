//! witgate: an API gateway whose filters are WebAssembly components.
//!
//! The layers, each of which imports only from those below it (a test checks this, and
//! ARCHITECTURE.md explains it): `cli` → [`Gateway`] → `admin` and `control` (changes of the state)
//! → `server` (connections) → `pipeline` (requests) → `releases`, `upstream`, `tls` → `state`,
//! `telemetry`, `net`, `process`. Below them are the crates of the runtime, HTTP and configuration.

pub mod admin;
pub mod cli;
pub mod clients;
pub mod control;
mod gateway;
pub mod net;
pub mod pipeline;
pub mod process;
pub mod releases;
pub mod server;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod upstream;

pub use gateway::{Gateway, StartError};
