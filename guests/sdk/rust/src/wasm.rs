//! The host's functions as they are inside the gateway. `fake.rs` has the same ones for tests.

use crate::bindings as raw;

pub(crate) fn config(key: &str) -> Option<String> {
    raw::config::get(key)
}
pub(crate) fn log(message: &str) {
    raw::log::write(raw::log::Level::Info, message);
}
pub(crate) fn note(name: &str) -> Option<String> {
    raw::exchange::note(name)
}
pub(crate) fn set_note(name: &str, value: &str) {
    raw::exchange::set_note(name, value);
}
pub(crate) fn client_ip() -> String {
    raw::exchange::client().ip
}
pub(crate) fn method() -> String {
    raw::request::method()
}
pub(crate) fn path() -> String {
    raw::request::path()
}
pub(crate) fn query() -> Option<String> {
    raw::request::query()
}
pub(crate) fn request_header(name: &str) -> Option<String> {
    raw::request::header(name)
}
pub(crate) fn request_headers() -> Vec<(String, String)> {
    raw::request::headers()
}
pub(crate) fn request_body() -> Vec<u8> {
    raw::request::body()
}
pub(crate) fn set_request_header(name: &str, value: &str) {
    raw::request_edit::set_header(name, value);
}
pub(crate) fn append_request_header(name: &str, value: &str) {
    raw::request_edit::append_header(name, value);
}
pub(crate) fn remove_request_header(name: &str) {
    raw::request_edit::remove_header(name);
}
pub(crate) fn set_path(path: &str) {
    raw::request_edit::set_path(path);
}
pub(crate) fn set_request_body(body: &[u8]) {
    raw::request_edit::set_body(body);
}
pub(crate) fn status() -> u16 {
    raw::response::status()
}
pub(crate) fn response_header(name: &str) -> Option<String> {
    raw::response::header(name)
}
pub(crate) fn response_headers() -> Vec<(String, String)> {
    raw::response::headers()
}
pub(crate) fn response_body() -> Vec<u8> {
    raw::response::body()
}
pub(crate) fn set_status(status: u16) {
    raw::response::set_status(status);
}
pub(crate) fn set_response_header(name: &str, value: &str) {
    raw::response::set_header(name, value);
}
pub(crate) fn append_response_header(name: &str, value: &str) {
    raw::response::append_header(name, value);
}
pub(crate) fn remove_response_header(name: &str) {
    raw::response::remove_header(name);
}
pub(crate) fn set_response_body(body: &[u8]) {
    raw::response::set_body(body);
}
