//! One request of the corpus as data: its bytes, the rule it tests and the reactions that are
//! correct.

/// A request and its expected handling.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The section that decides (of RFC 9110, 9112, 3986, …), or `bug reports` where real servers
    /// got it wrong.
    pub(crate) rule: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expect: Expect,
    /// Statuses that an error response may have. If empty: any 4xx, 501 and 505.
    pub(crate) statuses: &'static [u16],
    pub(crate) checks: Vec<Check>,
    /// Whether a second request follows in the same write. Its response shows where the gateway
    /// saw the end of the first request.
    pub(crate) canary: bool,
    /// One of many cases made by a loop. The printed table only counts them.
    pub(crate) sweep: bool,
}

/// The correct reactions to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The gateway refuses the request and closes the connection, because the end of the request
    /// is uncertain. Nothing reaches the upstream.
    Reject,
    /// The gateway answers by itself. Nothing reaches the upstream, and the connection may serve
    /// the next request.
    LocalReply,
    /// The gateway forwards the request in a form that all parsers read alike.
    Forward,
    /// `LocalReply` or `Forward`.
    Either,
    /// The body is invalid. The upstream may see the beginning of the request, but never its end.
    AbortBody,
}

/// A property of the forwarded request.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    /// The target is one of these.
    Target(Vec<&'static str>),
    Method(&'static str),
    Body(Vec<u8>),
    /// The field is not forwarded.
    Absent(&'static str),
    /// The field is forwarded once, with this value.
    Field(&'static str, &'static str),
    /// The same bytes contain another request, which has this target.
    Next(&'static str),
}

/// A case with a canary and without further checks.
pub(crate) fn new(expect: Expect, name: impl Into<String>, rule: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    Case {
        name: name.into(),
        rule,
        bytes: bytes.into(),
        expect,
        statuses: &[],
        checks: vec![],
        canary: true,
        sweep: false,
    }
}

pub(crate) fn reject(name: impl Into<String>, rule: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    new(Expect::Reject, name, rule, bytes)
}

pub(crate) fn local_reply(name: impl Into<String>, rule: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    new(Expect::LocalReply, name, rule, bytes)
}

pub(crate) fn forward(name: impl Into<String>, rule: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    new(Expect::Forward, name, rule, bytes)
}

pub(crate) fn either(name: impl Into<String>, rule: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    new(Expect::Either, name, rule, bytes)
}

pub(crate) fn abort_body(name: impl Into<String>, rule: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    new(Expect::AbortBody, name, rule, bytes)
}

impl Case {
    pub(crate) fn status(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    /// Sends no canary, because the bytes are not a complete request.
    pub(crate) fn without_canary(mut self) -> Self {
        self.canary = false;
        self
    }

    /// Marks the case as one of a sweep over all bytes.
    pub(crate) fn in_sweep(mut self) -> Self {
        self.sweep = true;
        self
    }

    pub(crate) fn target(self, target: &'static str) -> Self {
        self.targets(&[target])
    }

    pub(crate) fn targets(self, targets: &[&'static str]) -> Self {
        self.check(Check::Target(targets.to_vec()))
    }

    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        self.check(Check::Body(body.into()))
    }

    pub(crate) fn absent(self, name: &'static str) -> Self {
        self.check(Check::Absent(name))
    }

    pub(crate) fn field(self, name: &'static str, value: &'static str) -> Self {
        self.check(Check::Field(name, value))
    }

    pub(crate) fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// The method, as the case sends it.
    pub(crate) fn method(&self) -> String {
        String::from_utf8_lossy(self.bytes.split(|byte| *byte == b' ').next().unwrap_or_default()).into_owned()
    }
}

/// A GET with these field lines after `Host`.
pub(crate) fn get(lines: &[u8]) -> Vec<u8> {
    [b"GET /case HTTP/1.1\r\nHost: t.test\r\n", lines, b"\r\n"].concat()
}

/// A POST with these field lines after `Host`, and these bytes after the header section.
pub(crate) fn post(lines: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /case HTTP/1.1\r\nHost: t.test\r\n", lines, b"\r\n", body].concat()
}

/// A GET with this target.
pub(crate) fn target(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: t.test\r\n\r\n"].concat()
}
