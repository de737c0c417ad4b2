//! Unit tests of filters, without Wasm: a fake of the exchange.
//!
//! ```
//! use witgate_filter::{Action, Request, config, reply, testing::Fake};
//!
//! fn on_request(request: &mut Request) -> Result<Action, String> {
//!     request.set_header("x-hello", &config::get("whom").ok_or("config: whom is missing")?);
//!     Ok(Action::Proceed)
//! }
//!
//! let fake = Fake::new().with_header("host", "example.com").with_config("whom", "world");
//! let (action, after) = fake.run_request(on_request);
//! assert_eq!(action, Ok(Action::Proceed));
//! assert_eq!(after.request_header("x-hello").as_deref(), Some("world"));
//! ```
//!
//! As in the gateway, edits are kept only if the handler returns
//! [`Action::Proceed`](crate::Action::Proceed). A call that the gateway would not accept panics: a
//! field that only the gateway writes, for example, or a line break in a value. The clock does not
//! advance. The fake does not check bounds on number and size.
//!
//! This module does not know how the functions of the gateway are faked (`fake`).

pub use crate::fake::{Fake, Service};
use crate::{Action, OnRequest, OnResponse, Request, Response, fake};

impl Fake {
    /// Makes an exchange: `GET /` from 192.0.2.1 on route `test`, answered with status 200.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the method.
    #[must_use]
    pub fn with_method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    /// Sets the path and the query, which are separated by a `?`.
    #[must_use]
    pub fn with_path(mut self, path: &str) -> Self {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.into())));
        (self.path, self.query) = (path.into(), query);
        self
    }

    /// Adds a line to a header field of the request.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.request.append(name, value);
        self
    }

    /// Sets the body of the request, as with `body = "buffer"`. Without it, reading the body
    /// panics.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.request_body = Some(body.into());
        self
    }

    /// Sets the status of the response.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a line to a header field of the response.
    #[must_use]
    pub fn with_response_header(mut self, name: &str, value: &str) -> Self {
        self.response.append(name, value);
        self
    }

    /// Sets the body of the response, as with `body = "buffer"`. Without it, reading the body
    /// panics.
    #[must_use]
    pub fn with_response_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.response_body = Some(body.into());
        self
    }

    /// Sets a key of the configuration.
    #[must_use]
    pub fn with_config(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// Sets the IP address of the client.
    #[must_use]
    pub fn with_client_ip(mut self, ip: &str) -> Self {
        self.client.ip = ip.into();
        self
    }

    /// Responds to the calls of other services. Without it, each call is denied.
    #[must_use]
    pub fn with_http(mut self, service: Service) -> Self {
        self.http = Some(service);
        self
    }

    /// Advances the clock, so that keys of the key-value store can expire.
    #[must_use]
    pub fn advance_clock(mut self, milliseconds: u64) -> Self {
        self.now_ms += milliseconds;
        self
    }

    /// Calls the handler of the request phase. Returns its decision and the exchange after it.
    pub fn run_request(self, on_request: OnRequest) -> (Result<Action, String>, Self) {
        self.run(|| on_request(&mut { Request::CURRENT }))
    }

    /// Calls the handler of the response phase. Returns its decision and the exchange after it.
    pub fn run_response(self, on_response: OnResponse) -> (Result<Action, String>, Self) {
        self.run(|| on_response(&mut { Response::CURRENT }, &Request::CURRENT))
    }

    fn run(self, handler: impl FnOnce() -> Result<Action, String>) -> (Result<Action, String>, Self) {
        let before = self.clone();
        fake::enter(self);
        let action = handler();
        let after = fake::leave();
        let kept = match action {
            Ok(Action::Proceed) => after,
            Ok(Action::Reply(_)) => Self { notes: after.notes, log: after.log, store: after.store, counts: after.counts, ..before },
            Err(_) => Self { log: after.log, store: after.store, counts: after.counts, ..before },
        };
        (action, kept)
    }

    /// Returns the value of a header field of the request, lines joined.
    pub fn request_header(&self, name: &str) -> Option<String> {
        self.request.joined(name)
    }

    /// Returns the value of a header field of the response, lines joined.
    pub fn response_header(&self, name: &str) -> Option<String> {
        self.response.joined(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, config, keyvalue, limiter, log, random, reply};

    #[test]
    fn edits_are_visible_at_once_and_kept_only_if_the_filter_proceeds() {
        fn edit(request: &mut Request) -> Result<Action, String> {
            request.set_header("X-A", "1");
            request.append_header("x-a", "2");
            request.remove_header("x-gone");
            request.set_path("/new");
            request.set_query(None);
            request.set_body(b"new");
            assert_eq!(request.header("x-a").as_deref(), Some("1, 2"));
            assert_eq!((request.path(), request.query(), request.body()), ("/new".into(), None, b"new".into()));
            Ok(Action::Proceed)
        }
        fn edit_and_reply(request: &mut Request) -> Result<Action, String> {
            edit(request)?;
            request.set_note("a.b", "c");
            Ok(reply(403, "no"))
        }
        fn edit_and_fail(request: &mut Request) -> Result<Action, String> {
            edit(request)?;
            request.set_note("a.b", "c");
            Err("broken".into())
        }
        let fake = || Fake::new().with_path("/old?q").with_header("x-gone", "x");
        let (_, after) = fake().run_request(edit);
        assert_eq!((after.path.as_str(), after.request_header("x-gone")), ("/new", None));
        let (action, after) = fake().run_request(edit_and_reply);
        assert!(matches!(action, Ok(Action::Reply(reply)) if reply.status == 403));
        assert_eq!((after.path.as_str(), after.request_header("x-a")), ("/old", None));
        assert_eq!(after.notes.get("a.b").map(String::as_str), Some("c"));
        let (action, after) = fake().run_request(edit_and_fail);
        assert_eq!((action, after.notes.len()), (Err("broken".into()), 0));
    }

    #[test]
    fn lines_of_a_field_are_joined_as_in_the_gateway() {
        fn read(request: &mut Request) -> Result<Action, String> {
            assert_eq!(request.header("COOKIE").as_deref(), Some("a=1; b=2"));
            assert_eq!(request.header_values("cookie"), ["a=1", "b=2"]);
            assert_eq!(request.header_bytes("x-absent"), None);
            assert_eq!(request.authority(), "example.com");
            Ok(Action::Proceed)
        }
        let fake =
            Fake::new().with_header("Cookie", "a=1").with_header("cookie", "b=2").with_header("host", "example.com");
        assert_eq!(fake.run_request(read).0, Ok(Action::Proceed));
    }

    #[test]
    fn calls_that_the_gateway_would_not_accept_panic() {
        let rejected: [fn(&mut Request); 8] = [
            |request| request.set_header("content-length", "1"),
            |request| request.set_header("Via", "1.1 a"),
            |request| request.remove_header("http2-settings"),
            |request| request.set_header("x-a", "a\r\nb: c"),
            |request| request.set_header("x a", "a"),
            |request| request.set_path("no-slash"),
            |request| request.set_query(Some("a#b")),
            |request| drop(request.body()),
        ];
        for edit in rejected {
            let result = std::panic::catch_unwind(|| {
                crate::fake::enter(Fake::new());
                edit(&mut { Request::CURRENT });
            });
            assert!(result.is_err());
        }
    }

    #[test]
    fn a_counter_outlives_an_exchange_and_expires() {
        fn count(_: &mut Request) -> Result<Action, String> {
            let count = keyvalue::increment("n", 1, 1000).map_err(|error| error.to_string())?;
            keyvalue::set("text", b"x", 0).map_err(|error| error.to_string())?;
            assert!(matches!(keyvalue::increment("text", 1, 0), Err(keyvalue::Error::NotANumber)));
            assert!(matches!(keyvalue::get(""), Err(keyvalue::Error::TooLarge)));
            log::info(&count.to_string());
            Ok(Action::Proceed)
        }
        let (_, after) = Fake::new().run_request(count);
        let (_, after) = after.advance_clock(999).run_request(count);
        let (_, after) = after.advance_clock(1).run_request(count);
        assert_eq!(after.log, ["info: 1", "info: 2", "info: 1"]);
    }

    #[test]
    fn a_swap_needs_the_expected_value_and_several_keys_are_read_at_once() {
        fn swap(_: &mut Request) -> Result<Action, String> {
            let swap = |expected, value| keyvalue::compare_and_swap("k", expected, value, 0).ok();
            assert_eq!((swap(None, b"a"), swap(None, b"b"), swap(Some(b"a"), b"b")), (Some(true), Some(false), Some(true)));
            let keys = ["k".to_owned(), "absent".to_owned()];
            assert_eq!(keyvalue::get_many(&keys).ok(), Some(vec![Some(b"b".to_vec()), None]));
            assert!(matches!(keyvalue::get_many(&vec!["k".to_owned(); 65]), Err(keyvalue::Error::TooLarge)));
            Ok(Action::Proceed)
        }
        assert_eq!(Fake::new().run_request(swap).0, Ok(Action::Proceed));
    }

    #[test]
    fn a_limiter_takes_units_until_the_limit() {
        fn take(_: &mut Request) -> Result<Action, String> {
            let policy =
                |algorithm| limiter::Policy { algorithm, limit: 2, window_ms: 1000, burst: 4 };
            for (algorithm, cost) in [(limiter::Algorithm::SlidingWindow, 1), (limiter::Algorithm::TokenBucket, 2)] {
                let decision = limiter::take("k", cost, policy(algorithm)).map_err(|error| error.to_string())?;
                log::info(&format!("{} {} {}", decision.allowed, decision.remaining, decision.retry_after_ms));
            }
            let never = limiter::take("k", 3, policy(limiter::Algorithm::SlidingWindow));
            assert!(matches!(never, Err(limiter::Error::Invalid(_))));
            Ok(Action::Proceed)
        }
        let (_, after) = Fake::new().run_request(take);
        let (_, after) = after.run_request(take);
        let (_, after) = after.advance_clock(500).run_request(take);
        let (_, after) = after.advance_clock(500).run_request(take);
        let expected = [
            "true 1 0", "true 2 0", "true 0 0", "true 0 0", "false 0 500", "false 1 500", "true 1 0", "true 0 0",
        ];
        let lines: Vec<_> = after.log.iter().map(|line| line.trim_start_matches("info: ")).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_filter_can_use_the_services() {
        fn use_services(response: &mut Response, request: &Request) -> Result<Action, String> {
            assert_eq!((response.status(), response.local(), response.body()), (404, false, b"no".to_vec()));
            assert_eq!(config::keys(), ["a", "b"]);
            assert_eq!(clock::now().seconds, 1_700_000_000);
            assert_eq!(random::bytes(3).len(), 3);
            assert_ne!(random::bytes(16), random::bytes(16));
            assert_eq!((request.client().ip.as_str(), request.route().as_str()), ("203.0.113.9", "test"));
            response.set_status(200);
            response.append_header("set-cookie", "a=1");
            Ok(Action::Proceed)
        }
        let fake = Fake::new()
            .with_status(404)
            .with_response_body("no")
            .with_client_ip("203.0.113.9")
            .with_config("b", "2")
            .with_config("a", "1");
        let (_, after) = fake.with_response_header("x-a", "1").run_response(use_services);
        assert_eq!((after.status, after.response_header("set-cookie").as_deref()), (200, Some("a=1")));
    }
}
