//! What a guest can ask of the host: the functions of `wit/`, each a few lines over the exchange and its journal.
//!
//! A reader never blocks and never fails but for a broken contract (a body that was not declared, a response in the request phase), which
//! ends the call with a sentence. Must not know: how instances are made, what happens after the call.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use wasmtime::Result;
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::bindings::witgate::gateway as host;
use super::instance::{Call, Phase};
use super::store_limits::HostTrap;
use crate::exchange::{
    BODY_BYTES_MAX, Edit, Refusal, Response, checked_name, checked_status, checked_target, checked_value,
};
use crate::keyvalue::Refused;
use witgate_http::error::FilterFailure;

const LOG_LINES_MAX: u32 = 64;
const LOG_LINE_BYTES_MAX: usize = 4 << 10;
const RANDOM_BYTES_MAX: u32 = 64 << 10;

type Field = (String, String);

impl host::types::Host for Call {}

impl host::request::Host for Call {
    fn method(&mut self) -> Result<String> {
        Ok(self.exchange.request.method.as_str().to_owned())
    }

    fn scheme(&mut self) -> Result<String> {
        Ok(if self.exchange.request.tls { "https" } else { "http" }.to_owned())
    }

    fn authority(&mut self) -> Result<String> {
        Ok(self.exchange.request.authority().to_ascii_lowercase())
    }

    fn path(&mut self) -> Result<String> {
        Ok(self.journal.target(&self.exchange).path().to_owned())
    }

    fn query(&mut self) -> Result<Option<String>> {
        Ok(self.journal.target(&self.exchange).query().map(str::to_owned))
    }

    fn header(&mut self, name: String) -> Result<Option<String>> {
        Ok(self.request_lines(&name, joined))
    }

    fn header_values(&mut self, name: String) -> Result<Vec<String>> {
        Ok(self
            .request_lines(&name, |lines, _| Some(lines.iter().map(|line| text(line)).collect()))
            .unwrap_or_default())
    }

    fn header_bytes(&mut self, name: String) -> Result<Option<Vec<u8>>> {
        Ok(self.request_lines(&name, joined_bytes))
    }

    fn headers(&mut self) -> Result<Vec<Field>> {
        let edited = (self.phase == Phase::Request && self.journal.touches_headers())
            .then(|| self.journal.headers(&self.exchange));
        Ok(fields(edited.as_ref().unwrap_or(&self.exchange.request.headers)))
    }

    fn body(&mut self) -> Result<Vec<u8>> {
        if self.phase != Phase::Request || self.filter.request_body_limit().is_none() {
            return Err(undeclared("request"));
        }
        let body = self.journal.body().or(self.exchange.request.body.as_ref());
        Ok(body.map(|body| body.to_vec()).unwrap_or_default())
    }
}

impl host::request_edit::Host for Call {
    fn set_header(&mut self, name: String, value: String) -> Result<()> {
        self.edit(Phase::Request, |_| {
            let name = checked_name(&name)?;
            let value = checked_value(&name, &value)?;
            Ok(Edit::SetHeader(name, value))
        })
    }

    fn append_header(&mut self, name: String, value: String) -> Result<()> {
        self.edit(Phase::Request, |_| {
            let name = checked_name(&name)?;
            let value = checked_value(&name, &value)?;
            Ok(Edit::AppendHeader(name, value))
        })
    }

    fn remove_header(&mut self, name: String) -> Result<()> {
        self.edit(Phase::Request, |_| Ok(Edit::RemoveHeader(checked_name(&name)?)))
    }

    fn set_path(&mut self, path: String) -> Result<()> {
        self.edit(Phase::Request, |call| {
            let query = call.journal.target(&call.exchange).query();
            Ok(Edit::SetTarget(checked_target(&path, query)?))
        })
    }

    fn set_query(&mut self, query: Option<String>) -> Result<()> {
        self.edit(Phase::Request, |call| {
            let path = call.journal.target(&call.exchange).path();
            Ok(Edit::SetTarget(checked_target(path, query.as_deref())?))
        })
    }

    fn set_body(&mut self, body: Vec<u8>) -> Result<()> {
        self.edit(Phase::Request, |_| Ok(Edit::SetBody(checked_body(body)?)))
    }
}

impl host::response::Host for Call {
    fn status(&mut self) -> Result<u16> {
        let edited = self.journal.status();
        Ok(edited.unwrap_or(self.response()?.status).as_u16())
    }

    fn local(&mut self) -> Result<bool> {
        Ok(self.response()?.local)
    }

    fn header(&mut self, name: String) -> Result<Option<String>> {
        self.response_lines(&name, joined)
    }

    fn header_values(&mut self, name: String) -> Result<Vec<String>> {
        let values = self.response_lines(&name, |lines, _| Some(lines.iter().map(|line| text(line)).collect()))?;
        Ok(values.unwrap_or_default())
    }

    fn header_bytes(&mut self, name: String) -> Result<Option<Vec<u8>>> {
        self.response_lines(&name, joined_bytes)
    }

    fn headers(&mut self) -> Result<Vec<Field>> {
        let response = self.response()?;
        let edited = self.journal.touches_headers().then(|| self.journal.headers(&self.exchange));
        Ok(fields(edited.as_ref().unwrap_or(&response.headers)))
    }

    fn body(&mut self) -> Result<Vec<u8>> {
        let response = self.response()?;
        if self.filter.response_body_limit().is_none() {
            return Err(undeclared("response"));
        }
        let body = self.journal.body().or(response.body.as_ref());
        Ok(body.map(|body| body.to_vec()).unwrap_or_default())
    }

    fn set_status(&mut self, status: u16) -> Result<()> {
        self.edit(Phase::Response, |_| Ok(Edit::SetStatus(checked_status(status)?)))
    }

    fn set_header(&mut self, name: String, value: String) -> Result<()> {
        self.edit(Phase::Response, |_| {
            let name = checked_name(&name)?;
            let value = checked_value(&name, &value)?;
            Ok(Edit::SetHeader(name, value))
        })
    }

    fn append_header(&mut self, name: String, value: String) -> Result<()> {
        self.edit(Phase::Response, |_| {
            let name = checked_name(&name)?;
            let value = checked_value(&name, &value)?;
            Ok(Edit::AppendHeader(name, value))
        })
    }

    fn remove_header(&mut self, name: String) -> Result<()> {
        self.edit(Phase::Response, |_| Ok(Edit::RemoveHeader(checked_name(&name)?)))
    }

    fn set_body(&mut self, body: Vec<u8>) -> Result<()> {
        self.edit(Phase::Response, |_| Ok(Edit::SetBody(checked_body(body)?)))
    }
}

impl host::exchange::Host for Call {
    fn client(&mut self) -> Result<host::types::ClientInfo> {
        let address = self.exchange.client.address;
        let tls = self.exchange.client.tls.as_ref().map(|tls| host::types::Tls {
            version: tls.version.to_owned(),
            server_name: tls.server_name.clone(),
            alpn: tls.alpn.map(str::to_owned),
            peer: tls.peer.as_ref().map(|peer| host::types::Certificate {
                subject: peer.subject.clone(),
                alternative_names: peer.alternative_names.clone(),
                sha256: peer.sha256.clone(),
            }),
        });
        Ok(host::types::ClientInfo { ip: address.ip().to_canonical().to_string(), port: address.port(), tls })
    }

    fn route(&mut self) -> Result<String> {
        Ok(self.exchange.route.to_string())
    }

    fn id(&mut self) -> Result<String> {
        Ok(self.exchange.id_text())
    }

    fn note(&mut self, name: String) -> Result<Option<String>> {
        Ok(self.journal.note(&self.exchange, &name).map(str::to_owned))
    }

    fn set_note(&mut self, name: String, value: String) -> Result<()> {
        self.journal.set_note(&self.exchange, name, value).map_err(|refusal| HostTrap::from(refusal).into())
    }
}

impl host::log::Host for Call {
    fn write(&mut self, level: host::log::Level, message: String) -> Result<()> {
        self.log_lines += 1;
        if self.log_lines > LOG_LINES_MAX {
            self.log_lines_dropped += 1;
            return Ok(());
        }
        let mut end = message.len().min(LOG_LINE_BYTES_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let message = escaped(&message[..end]);
        let (filter, version, exchange) = (&*self.filter.settings.name, &*self.filter.version, self.exchange.id_text());
        match level {
            host::log::Level::Trace => tracing::trace!(target: "filter", filter, version, exchange, "{message}"),
            host::log::Level::Debug => tracing::debug!(target: "filter", filter, version, exchange, "{message}"),
            host::log::Level::Info => tracing::info!(target: "filter", filter, version, exchange, "{message}"),
            host::log::Level::Warn => tracing::warn!(target: "filter", filter, version, exchange, "{message}"),
            host::log::Level::Error => tracing::error!(target: "filter", filter, version, exchange, "{message}"),
        }
        Ok(())
    }
}

impl host::config::Host for Call {
    fn get(&mut self, key: String) -> Result<Option<String>> {
        Ok(self.config.get(&key).cloned())
    }

    fn keys(&mut self) -> Result<Vec<String>> {
        Ok(self.config.keys().cloned().collect())
    }
}

impl host::clock::Host for Call {
    fn now(&mut self) -> Result<host::clock::Datetime> {
        // A clock before 1970 reads as 1970: a guest cannot do anything sensible about it.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(host::clock::Datetime { seconds: since.as_secs() as u32, nanoseconds: since.subsec_nanos() })
    }

    fn ticks(&mut self) -> Result<u32> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Ok(START.elapsed().as_micros() as u32)
    }
}

impl host::random::Host for Call {
    fn bytes(&mut self, len: u32) -> Result<Vec<u8>> {
        if len > RANDOM_BYTES_MAX {
            return Err(HostTrap::new(
                FilterFailure::Limit,
                format!("it asked for {len} random bytes; at most {RANDOM_BYTES_MAX} at once"),
            )
            .into());
        }
        let mut bytes = vec![0; len as usize];
        getrandom::fill(&mut bytes).map_err(wasmtime::Error::new)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32> {
        getrandom::u32().map_err(wasmtime::Error::new)
    }
}

impl host::keyvalue::Host for Call {
    fn get(&mut self, key: String) -> Result<Result<Option<Vec<u8>>, host::keyvalue::Error>> {
        Ok(self.filter.settings.store.get(&key).map_err(Into::into))
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: u32) -> Result<Result<(), host::keyvalue::Error>> {
        Ok(self.filter.settings.store.set(&key, &value, ttl(ttl_ms)).map_err(Into::into))
    }

    fn delete(&mut self, key: String) -> Result<Result<bool, host::keyvalue::Error>> {
        Ok(self.filter.settings.store.delete(&key).map_err(Into::into))
    }

    fn increment(&mut self, key: String, delta: i32, ttl_ms: u32) -> Result<Result<i32, host::keyvalue::Error>> {
        Ok(self.filter.settings.store.increment(&key, delta, ttl(ttl_ms)).map_err(Into::into))
    }
}

impl From<Refused> for host::keyvalue::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLarge => Self::TooLarge,
            Refused::Full => Self::Full,
            Refused::NotANumber => Self::NotANumber,
        }
    }
}

impl WasiView for Call {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // Only linked where granted; a context that grants nothing is the answer even if that were ever wrong.
        let (ctx, table) = self.wasi.get_or_insert_with(Default::default);
        WasiCtxView { ctx, table }
    }
}

impl Call {
    /// Writes an edit down, where this phase may edit.
    fn edit(&mut self, phase: Phase, make: impl FnOnce(&Self) -> Result<Edit, Refusal>) -> Result<()> {
        if self.phase != phase {
            return Err(HostTrap::new(
                FilterFailure::InvalidOutput,
                format!("it edits the {} in the {} phase", phase.label(), self.phase.label()),
            )
            .into());
        }
        let edit = make(self).map_err(HostTrap::from)?;
        self.journal.push(edit).map_err(|refusal| HostTrap::from(refusal).into())
    }

    fn response(&self) -> Result<&Response> {
        match &self.exchange.response {
            Some(response) if self.phase == Phase::Response => Ok(response),
            _ => Err(HostTrap::new(FilterFailure::InvalidOutput, "it asks for the response in the request phase").into()),
        }
    }

    /// Looks at the lines of one request field; none where it is absent or the name is none.
    fn request_lines<T>(&self, name: &str, look: impl FnOnce(&[&HeaderValue], &HeaderName) -> Option<T>) -> Option<T> {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        if self.phase == Phase::Request {
            return look(&self.journal.header_lines(&self.exchange, &name), &name);
        }
        let lines: Vec<_> = self.exchange.request.headers.get_all(&name).iter().collect();
        look(&lines, &name)
    }

    fn response_lines<T>(
        &self,
        name: &str,
        look: impl FnOnce(&[&HeaderValue], &HeaderName) -> Option<T>,
    ) -> Result<Option<T>> {
        self.response()?;
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return Ok(None) };
        Ok(look(&self.journal.header_lines(&self.exchange, &name), &name))
    }
}

/// The lines of a field as one value (RFC 9110, section 5.3); `cookie` has its own separator (RFC 9113, section 8.2.3).
fn joined_bytes(lines: &[&HeaderValue], name: &HeaderName) -> Option<Vec<u8>> {
    let separator: &[u8] = if *name == header::COOKIE { b"; " } else { b", " };
    let (first, rest) = lines.split_first()?;
    let mut joined = first.as_bytes().to_vec();
    for line in rest {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(line.as_bytes());
    }
    Some(joined)
}

fn joined(lines: &[&HeaderValue], name: &HeaderName) -> Option<String> {
    match lines {
        [line] => Some(text(line)),
        lines => joined_bytes(lines, name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn fields(headers: &http::HeaderMap) -> Vec<Field> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn ttl(milliseconds: u32) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds.into()))
}

fn checked_body(body: Vec<u8>) -> Result<Bytes, Refusal> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Refusal::Limit(format!("a body of {} bytes is above the limit of {BODY_BYTES_MAX}", body.len())));
    }
    Ok(body.into())
}

fn undeclared(phase: &str) -> wasmtime::Error {
    HostTrap::new(
        FilterFailure::InvalidOutput,
        format!("it asks for the {phase} body in a phase that does not declare it: set `body = \"buffer\"` under [{phase}] in filter.toml"),
    )
    .into()
}

/// Control characters as `\u{…}`, so that a guest cannot forge lines of the log or drive a terminal.
fn escaped(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| if c.is_control() && c != '\t' { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}
