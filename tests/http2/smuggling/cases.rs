//! The requests of the smuggling test, grouped by the rule that they break.

use harness::frames::{block, frame, headers, kind};

use harness::strict_http1::Message;

/// The expected handling of a request.
#[derive(Clone, Copy)]
pub(super) enum Expect {
    /// The request violates a MUST. The gateway responds with RST_STREAM, GOAWAY or 4xx, and the
    /// upstream receives no complete request.
    Refused,
    /// The gateway refuses the request, responds by itself, or forwards an unambiguous form.
    Unambiguous,
    /// The gateway forwards the request, and this check holds for it.
    Forwarded(fn(&Message) -> bool),
}

/// One request. It is refused unless the case says otherwise.
pub(super) struct Case {
    pub(super) name: String,
    fields: Vec<(String, String)>,
    data: Option<Vec<String>>,
    trailers: Option<(Vec<(String, String)>, bool)>,
    pub(super) expect: Expect,
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn borrowed(fields: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn get(name: impl Into<String>) -> Case {
    let fields = owned(&[(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/case")]);
    Case { name: name.into(), fields, data: None, trailers: None, expect: Expect::Refused }
}

fn post(name: impl Into<String>, data: &[&str]) -> Case {
    let mut case = get(name).pseudo(":method", "POST");
    case.data = Some(data.iter().map(|part| (*part).to_owned()).collect());
    case
}

impl Case {
    fn pseudo(mut self, name: &str, value: &str) -> Self {
        if let Some(field) = self.fields.iter_mut().find(|field| field.0 == name) {
            value.clone_into(&mut field.1);
        }
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.fields.retain(|field| field.0 != name);
        self
    }

    fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    fn first(mut self, name: &str, value: &str) -> Self {
        self.fields.insert(0, (name.to_owned(), value.to_owned()));
        self
    }

    fn trailers(mut self, fields: &[(&str, &str)]) -> Self {
        self.trailers = Some((owned(fields), true));
        self
    }

    fn unambiguous(mut self) -> Self {
        self.expect = Expect::Unambiguous;
        self
    }

    fn forwarded(mut self, check: fn(&Message) -> bool) -> Self {
        self.expect = Expect::Forwarded(check);
        self
    }

    /// Whether the upstream may receive the beginning, because the error comes after the fields.
    pub(super) fn may_begin(&self) -> bool {
        self.data.is_some()
    }

    /// The frames of the request, on stream 1.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let ends = |more: bool| u8::from(!more);
        let mut bytes = headers(1, &block(borrowed(&self.fields)), self.data.is_none() && self.trailers.is_none());
        let data = self.data.iter().flatten().collect::<Vec<_>>();
        for (at, part) in data.iter().enumerate() {
            let more = at + 1 < data.len() || self.trailers.is_some();
            bytes.extend(frame(kind::DATA, ends(more), 1, part.as_bytes()));
        }
        if let Some((fields, end)) = &self.trailers {
            bytes.extend(headers(1, &block(borrowed(fields)), *end));
        }
        bytes
    }
}

/// Returns all cases.
pub(super) fn all() -> Vec<Case> {
    [valid(), values(), names(), pseudo(), connection(), lengths(), targets(), authorities(), trailers(), look_alikes()]
        .into_iter()
        .flatten()
        .collect()
}

/// Valid requests, most of which must be forwarded.
fn valid() -> Vec<Case> {
    let big = "v".repeat(8000);
    vec![
        get("plain GET").forwarded(|m| m.start[0] == "GET" && m.target() == "/case" && m.field("host") == Some("test")),
        post("plain POST", &["hello"]).forwarded(|m| m.body == b"hello"),
        post("POST with its length", &["hel", "lo"]).field("content-length", "5").forwarded(|m| m.body == b"hello"),
        post("empty POST", &[""]).forwarded(|m| m.body.is_empty()),
        post("a request in the body", &["GET /evil HTTP/1.1\r\nhost: evil\r\n\r\n"])
            .forwarded(|m| m.body.starts_with(b"GET /evil") && m.body.len() == 34),
        post("a last chunk in the body", &["0\r\n\r\n", "GET /evil HTTP/1.1\r\n\r\n"])
            .forwarded(|m| m.body.len() == 27),
        get("split cookies")
            .field("cookie", "a=1")
            .field("x-a", "1")
            .field("cookie", "b=2")
            .field("cookie", "c=3")
            .forwarded(|m| m.all("cookie") == ["a=1; b=2; c=3"] && m.field("x-a") == Some("1")),
        get("te: trailers").field("te", "trailers").forwarded(|m| matches!(m.all("te")[..], [] | ["trailers"])),
        get("a value of 8000 bytes")
            .field("x-a", &big)
            .forwarded(|m| m.field("x-a").is_some_and(|value| value.len() == 8000)),
        get("a path of 8000 bytes").pseudo(":path", &format!("/{big}")).forwarded(|m| m.target().len() == 8001),
        get("an empty value").field("x-a", "").forwarded(|m| m.field("x-a") == Some("")),
        get("tab inside a value").field("x-a", "a\tb").forwarded(|m| m.field("x-a") == Some("a\tb")),
        get("every token byte in a name").field("x!#$%&'*+-.^`|~9", "1").unambiguous(),
        get("host and no :authority")
            .without(":authority")
            .field("host", "test")
            .forwarded(|m| m.all("host") == ["test"]),
        get("host equal to :authority").field("host", "test").forwarded(|m| m.all("host") == ["test"]),
        get("OPTIONS *").pseudo(":method", "OPTIONS").pseudo(":path", "*").unambiguous(),
        get("expect without a body").field("expect", "100-continue").unambiguous(),
    ]
}

/// RFC 9113, section 8.2.1: a value contains no NUL, CR or LF, and no whitespace at its ends.
fn values() -> Vec<Case> {
    let values = [
        ("CRLF and a field", "1\r\nx-b: 2"),
        ("CRLF and a request", "1\r\n\r\nGET /evil HTTP/1.1\r\nhost: evil\r\n\r\n"),
        ("CRLF and transfer-encoding", "1\r\ntransfer-encoding: chunked"),
        ("LF", "1\nx-b: 2"),
        ("CR", "1\rx-b: 2"),
        ("NUL", "1\0a"),
        ("NUL at the end", "1\0"),
        ("a space before", " 1"),
        ("a space after", "1 "),
        ("a tab before", "\t1"),
        ("a tab after", "1\t"),
        ("only a space", " "),
        ("LF at the end", "1\n"),
    ];
    let mut cases: Vec<_> =
        values.iter().map(|(name, value)| get(format!("value with {name}")).field("x-a", value)).collect();
    cases.push(get("value with a control byte").field("x-a", "1\u{1}2").unambiguous());
    cases.push(get("value with DEL").field("x-a", "1\u{7f}2").unambiguous());
    cases.push(get("cookie with CRLF").field("cookie", "a=1\r\nx-b: 2"));
    cases
}

/// RFC 9113, section 8.2.1: a name is a token in lower case.
fn names() -> Vec<Case> {
    let names = [
        ("upper case", "X-A"),
        ("one upper-case letter", "x-aB"),
        ("no characters", ""),
        ("a space inside", "x a"),
        ("a space after", "x-a "),
        ("a space before", " x-a"),
        ("a tab after", "x-a\t"),
        ("a colon inside", "x:a"),
        ("a colon after", "x-a:"),
        ("a whole field in it", "x-a: 1\r\nx-b"),
        ("CRLF after", "x-a\r\n"),
        ("LF inside", "x\na"),
        ("NUL", "x\0a"),
        ("DEL", "x\u{7f}"),
        ("a byte above 127", "x-\u{e9}"),
        ("brackets", "x(a)"),
        ("a slash", "x/a"),
        ("transfer-encoding and a space", "transfer-encoding "),
        ("content-length and a colon", "content-length:"),
    ];
    names.iter().map(|(name, field)| get(format!("name with {name}")).field(field, "1")).collect()
}

/// RFC 9113, section 8.3: pseudo-header fields.
fn pseudo() -> Vec<Case> {
    let mut cases = vec![];
    for name in [":method", ":scheme", ":path"] {
        cases.push(get(format!("{name} twice")).first(name, if name == ":path" { "/other" } else { "GET" }));
        cases.push(get(format!("no {name}")).without(name));
        cases.push(get(format!("empty {name}")).pseudo(name, ""));
        cases.push(get(format!("{name} after a field")).first("x-a", "1"));
    }
    cases.push(get(":authority twice").first(":authority", "evil"));
    cases.push(get("an unknown pseudo-header").first(":evil", "1"));
    cases.push(get(":status in a request").first(":status", "200"));
    cases.push(get("only a colon").first(":", "1"));
    cases.push(get(":protocol without CONNECT").first(":protocol", "websocket"));
    for (name, method) in [
        ("a space", "GET /evil HTTP/1.1"),
        ("CRLF", "GET /evil HTTP/1.1\r\nhost: evil\r\n\r\nGET"),
        ("NUL", "GET\0"),
        ("a tab", "GET\t/evil"),
        ("a slash", "GET/"),
        ("a byte above 127", "G\u{c9}T"),
    ] {
        cases.push(get(format!(":method with {name}")).pseudo(":method", method));
    }
    cases.push(get(":method in lower case").pseudo(":method", "get").unambiguous());
    cases.push(get("TRACE").pseudo(":method", "TRACE"));
    for (name, scheme) in [
        ("CRLF", "http\r\nx-a: 1"),
        ("a space", "http x"),
        ("a path", "http://evil/a?"),
        ("a colon", "http:"),
        ("a digit first", "1http"),
        ("NUL", "http\0"),
    ] {
        cases.push(get(format!(":scheme with {name}")).pseudo(":scheme", scheme));
    }
    cases.push(get(":scheme ftp").pseudo(":scheme", "ftp").unambiguous());
    cases.push(get(":scheme https on a plain connection").pseudo(":scheme", "https").unambiguous());
    cases.push(get("CONNECT").pseudo(":method", "CONNECT").without(":path").without(":scheme"));
    cases.push(get("CONNECT with a path").pseudo(":method", "CONNECT"));
    cases.push(
        get("CONNECT with :protocol and no path")
            .pseudo(":method", "CONNECT")
            .without(":path")
            .first(":protocol", "websocket"),
    );
    cases.push(get("CONNECT with :protocol h2c").pseudo(":method", "CONNECT").first(":protocol", "h2c"));
    cases.push(
        get("CONNECT with CRLF in :protocol").pseudo(":method", "CONNECT").first(":protocol", "websocket\r\nx-a: 1"),
    );
    cases
}

/// RFC 9113, section 8.2.2: connection-specific fields.
fn connection() -> Vec<Case> {
    let fields = [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "x-a"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", "gzip, chunked"),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", "chunked"),
    ];
    let mut cases: Vec<_> =
        fields.iter().map(|(name, value)| get(format!("{name}: {value}")).field(name, value)).collect();
    cases.push(get("http2-settings").field("http2-settings", "AAMAAABkAAQAAP__").unambiguous());
    cases.push(
        post("transfer-encoding over a body", &["0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"])
            .field("transfer-encoding", "chunked"),
    );
    cases.push(
        post("transfer-encoding and content-length", &["0\r\n\r\n"])
            .field("transfer-encoding", "chunked")
            .field("content-length", "5"),
    );
    cases
}

/// RFC 9113, section 8.1.1: `content-length` equals the sum of the DATA frames.
fn lengths() -> Vec<Case> {
    let lengths = [
        ("more than DATA", "6"),
        ("less than DATA", "4"),
        ("zero with DATA", "0"),
        ("a sign", "+5"),
        ("a negative number", "-5"),
        ("hexadecimal", "0x5"),
        ("a list of two", "5, 6"),
        ("an empty value", ""),
        ("letters", "five"),
        ("a fraction", "5.0"),
        ("2^64 + 5", "18446744073709551621"),
        ("an inner space", "5 5"),
        ("an underscore", "0_5"),
    ];
    let mut cases: Vec<_> = lengths
        .iter()
        .map(|(name, value)| post(format!("content-length with {name}"), &["hello"]).field("content-length", value))
        .collect();
    cases.push(get("content-length and no DATA").pseudo(":method", "POST").field("content-length", "5"));
    cases.push(post("two lengths that differ", &["hello"]).field("content-length", "5").field("content-length", "6"));
    cases.push(
        post("two equal lengths", &["hello"]).field("content-length", "5").field("content-length", "5").unambiguous(),
    );
    cases.push(post("content-length with leading zeros", &["hello"]).field("content-length", "005").unambiguous());
    cases.push(
        post("less than DATA, in two frames", &["hello", " GET /evil HTTP/1.1\r\n\r\n"]).field("content-length", "5"),
    );
    cases
}

/// RFC 9113, section 8.3.1: `:path` begins with a slash. RFC 3986: the bytes that a path may
/// contain.
fn targets() -> Vec<Case> {
    let bad = [
        ("no slash", "case"),
        ("a space", "/a b"),
        ("a version", "/a HTTP/1.1\r\nhost: evil\r\n\r\nGET /evil"),
        ("CRLF", "/a\r\nx-b: 2"),
        ("LF", "/a\nb"),
        ("CR", "/a\rb"),
        ("NUL", "/a\0b"),
        ("a tab", "/a\tb"),
        ("DEL", "/a\u{7f}"),
        ("a space in the query", "/a?b c"),
        ("absolute form", "http://evil/a"),
        ("authority form", "evil:80"),
        ("an asterisk on GET", "*"),
        ("%00", "/a%00b"),
    ];
    let open = [
        ("a fragment", "/a#b"),
        ("bytes above 127", "/\u{c3}\u{a9}"),
        ("a backslash", "/a\\..\\b"),
        ("an invalid percent-encoding", "/a%zz"),
        ("a percent at the end", "/a%"),
        ("two slashes", "//evil/a"),
        ("encoded dots", "/a/%2e%2e/b"),
        ("an encoded slash", "/a%2f..%2fb"),
        ("CRLF encoded", "/a%0d%0ax-b:%202"),
        ("encoded letters", "/%61%64min"),
        ("a semicolon", "/a;x=1/b"),
    ];
    let mut cases: Vec<_> =
        bad.iter().map(|(name, path)| get(format!(":path with {name}")).pseudo(":path", path)).collect();
    cases.extend(open.iter().map(|(name, path)| get(format!(":path with {name}")).pseudo(":path", path).unambiguous()));
    cases.push(get(":path with dot segments").pseudo(":path", "/a/../b/./c").forwarded(|m| m.target() == "/b/c"));
    cases
}

/// RFC 9113, section 8.3.1, and RFC 9110, section 4.2: `:authority` and `host`.
fn authorities() -> Vec<Case> {
    let bad = [
        ("userinfo", "user@test"),
        ("userinfo and a password", "user:pass@test"),
        ("an empty value", ""),
        ("a space", "te st"),
        ("CRLF", "test\r\nx-a: 1"),
        ("NUL", "test\0"),
        ("a path", "test/evil"),
        ("a query", "test?a"),
        ("a fragment", "test#a"),
        ("a port of letters", "test:http"),
        ("two ports", "test:80:81"),
        ("a port too large", "test:65536"),
        ("a bracket left open", "[::1"),
        ("a backslash", "test\\evil"),
        ("only a port", ":80"),
        ("angle brackets", "<test>"),
    ];
    let mut cases: Vec<_> =
        bad.iter().map(|(name, host)| get(format!(":authority with {name}")).pseudo(":authority", host)).collect();
    cases.extend(
        bad[..11].iter().map(|(name, host)| get(format!("host with {name}")).without(":authority").field("host", host)),
    );
    cases.push(get("neither :authority nor host").without(":authority"));
    cases.push(get("host differs from :authority").field("host", "evil").unambiguous());
    cases.push(get("two hosts that differ").without(":authority").field("host", "test").field("host", "evil"));
    cases.push(get("two hosts beside :authority").field("host", "test").field("host", "evil"));
    cases.push(get("host in upper case letters").without(":authority").field("host", "TEST").unambiguous());
    cases
}

/// RFC 9110, section 6.5.1: fields for framing, routing or authentication are not allowed in
/// trailers.
fn trailers() -> Vec<Case> {
    let sent = |name: &str, fields: &[(&str, &str)]| post(format!("trailer with {name}"), &["hello"]).trailers(fields);
    let mut cases = vec![
        sent("a plain field", &[("x-checksum", "1")]).forwarded(|m| m.body == b"hello"),
        sent("a pseudo-header", &[(":path", "/evil")]),
        sent(":status", &[(":status", "200")]),
        sent("an upper-case name", &[("X-A", "1")]),
        sent("CRLF", &[("x-a", "1\r\nx-b: 2")]),
        sent("CRLF and a request", &[("x-a", "1\r\n\r\nGET /evil HTTP/1.1\r\nhost: evil\r\n\r\n")]),
        sent("NUL", &[("x-a", "1\0")]),
        sent("an empty name", &[("", "1")]),
        sent("connection", &[("connection", "close")]),
        sent("transfer-encoding", &[("transfer-encoding", "chunked")]),
    ];
    for name in [
        "content-length",
        "host",
        "authorization",
        "cookie",
        "content-encoding",
        "te",
        "trailer",
        "expect",
        "x-forwarded-for",
    ] {
        cases.push(sent(name, &[(name, "7")]).unambiguous());
    }
    cases.push(
        sent("a field, after content-length", &[("x-checksum", "1")])
            .field("content-length", "5")
            .forwarded(|m| m.body == b"hello"),
    );
    let mut open = sent("no END_STREAM", &[("x-a", "1")]);
    if let Some((_, end)) = &mut open.trailers {
        *end = false;
    }
    cases.push(open);
    cases
}

/// Names that CGI servers confuse with others, and field sections that are too large.
fn look_alikes() -> Vec<Case> {
    let mut cases: Vec<_> = [
        ("content_length", "5"),
        ("transfer_encoding", "chunked"),
        ("transfer.encoding", "chunked"),
        ("content-length_", "5"),
        ("_host", "evil"),
    ]
    .iter()
    .map(|(name, value)| get(*name).field(name, value).unambiguous())
    .collect();
    cases.push(post("content_length over a body", &["hello"]).field("content_length", "0").unambiguous());
    cases.push(get("a value of 100 kB").field("x-a", &"v".repeat(100_000)));
    let mut many = get("3000 fields of 60 bytes");
    for n in 0..3000 {
        many = many.field(&format!("x-{n}"), &"v".repeat(50));
    }
    cases.push(many);
    let mut cookies = get("3000 cookies of 30 bytes");
    for n in 0..3000 {
        cookies = cookies.field("cookie", &format!("name-{n}={}", "v".repeat(20)));
    }
    cases.push(cookies);
    cases.push(get("a path of 100 kB").pseudo(":path", &format!("/{}", "a".repeat(100_000))));
    cases
}
