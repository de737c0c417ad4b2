//! End-to-end tests: the real binary, real sockets, real filters. Each feature has its module.
//!
//! These tests do not know: the gateway's sources, which only `layering` and `words` read.
#![allow(clippy::unwrap_used, missing_docs)]

mod authors_differences;
mod authors_places;
mod authors_python;
mod authors_python_builds;
mod authors_rust;
mod authors_typescript;
mod chaos;
mod cli;
mod clients;
mod compile;
mod deploy;
mod drain;
mod filter_config;
mod filters;
mod guests;
mod handover;
mod hotload;
mod include;
mod isolation;
mod layering;
mod logs;
mod newcomer;
mod outbound;
mod pages;
mod policies;
mod proxy;
mod rate_limit;
mod releases;
mod reuse;
mod routes;
mod scrape;
mod signatures;
mod source_tools;
mod sources;
mod stores;
mod telemetry;
mod tls;
mod upstreams;
mod watched_folder;
mod words;
