//! One request of the corpus as data: its bytes, why it is there, and which reactions are right.

/// A request, and what may become of it.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The section that decides (RFC 9110, 9112, 3986), or the kind of bug.
    pub(crate) why: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) want: Want,
    /// Statuses of a refusal; any 4xx, 501 and 505 where empty.
    pub(crate) statuses: &'static [u16],
    pub(crate) checks: Vec<Check>,
    /// A second request follows in the same write; its answer tells where the gateway saw the first one's end.
    pub(crate) canary: bool,
    /// One of many made by a loop: summed up in the printed table.
    pub(crate) sweep: bool,
}

/// The reactions that are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Refused, the connection closed, nothing sent upstream: where the request ends is in doubt.
    Reject,
    /// Answered by the gateway, nothing sent upstream; the connection may go on with the next request.
    Refuse,
    /// Sent on in a form that has one reading.
    Forward,
    /// `Refuse` or `Forward`.
    Either,
    /// The fault is in the body: the upstream may have seen the beginning of the request, never its end.
    Cut,
}

/// What a forwarded request must be.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    /// One of these targets.
    Target(Vec<&'static str>),
    Method(&'static str),
    Body(Vec<u8>),
    Absent(&'static str),
    Field(&'static str, &'static str),
    /// The target of one more request in the same bytes.
    Next(&'static str),
}

fn case(want: Want, name: impl Into<String>, why: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    Case {
        name: name.into(),
        why,
        bytes: bytes.into(),
        want,
        statuses: &[],
        checks: vec![],
        canary: true,
        sweep: false,
    }
}

pub(crate) fn of(want: Want, name: impl Into<String>, why: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    case(want, name, why, bytes)
}

pub(crate) fn reject(name: impl Into<String>, why: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    case(Want::Reject, name, why, bytes)
}

pub(crate) fn refuse(name: impl Into<String>, why: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    case(Want::Refuse, name, why, bytes)
}

pub(crate) fn forward(name: impl Into<String>, why: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    case(Want::Forward, name, why, bytes)
}

pub(crate) fn either(name: impl Into<String>, why: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    case(Want::Either, name, why, bytes)
}

pub(crate) fn cut(name: impl Into<String>, why: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    case(Want::Cut, name, why, bytes)
}

impl Case {
    pub(crate) fn status(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    /// Without a canary: the bytes do not end a request.
    pub(crate) fn alone(mut self) -> Self {
        self.canary = false;
        self
    }

    pub(crate) fn swept(mut self) -> Self {
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

    /// The method as it was sent.
    pub(crate) fn method(&self) -> String {
        String::from_utf8_lossy(self.bytes.split(|byte| *byte == b' ').next().unwrap_or_default()).into_owned()
    }
}

/// A GET with these field lines after `Host`.
pub(crate) fn get(lines: &[u8]) -> Vec<u8> {
    [b"GET /case HTTP/1.1\r\nHost: t.test\r\n", lines, b"\r\n"].concat()
}

/// A POST with these field lines after `Host`, and these bytes after the head.
pub(crate) fn post(lines: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /case HTTP/1.1\r\nHost: t.test\r\n", lines, b"\r\n", body].concat()
}

/// A GET with this target.
pub(crate) fn target(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: t.test\r\n\r\n"].concat()
}
