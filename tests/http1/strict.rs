//! The strictest reading of HTTP/1 there is: what this parser takes, every lenient one takes for the same.
//!
//! It reads what the gateway sends, to upstreams and to clients. Exact CRLF, no folding, one `Host`, one framing field at most and in its plainest form,
//! names that nothing downstream could mistake for another, a normalised path. Written for the tests alone: it must share no code with the gateway.

/// A request or a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Method, target, version; or version, status, reason.
    pub(crate) start: [String; 3],
    /// Names in lower case, in order.
    pub(crate) fields: Fields,
    /// Without chunking.
    pub(crate) body: Vec<u8>,
    /// Fields after the last chunk.
    pub(crate) trailers: Fields,
}

/// What the bytes are so far.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A whole message and its length in bytes.
    Whole(Message, usize),
    /// The beginning of one; its head if that is whole, and the bytes of body so far.
    Part(Option<Message>),
    /// What no message may be.
    Bad(String),
}

type Fallible<T> = Result<T, String>;
type Fields = Vec<(String, String)>;

/// Fields that must not come in a trailer section: they frame, route or authenticate (RFC 9110, section 6.5.1).
const NOT_IN_TRAILERS: &[&str] = &[
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "content-encoding",
    "content-type",
    "content-range",
    "expect",
    "max-forwards",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

impl Message {
    /// A field's values.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|field| field.0 == name).map(|field| field.1.as_str()).collect()
    }

    /// A field's first value.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// A request's target.
    pub(crate) fn target(&self) -> &str {
        &self.start[1]
    }

    /// A response's status; 0 for a request.
    pub(crate) fn status(&self) -> u16 {
        self.start[1].parse().unwrap_or(0)
    }
}

/// Reads one request.
pub(crate) fn request(bytes: &[u8]) -> Parsed {
    finish(parse_request(bytes))
}

/// Reads one response to `method`; `ended` says that no more bytes will come.
pub(crate) fn response(bytes: &[u8], method: &str, ended: bool) -> Parsed {
    finish(parse_response(bytes, method, ended))
}

fn finish(result: Fallible<Parsed>) -> Parsed {
    result.unwrap_or_else(Parsed::Bad)
}

fn parse_request(bytes: &[u8]) -> Fallible<Parsed> {
    let Some((message, at)) = head(bytes)? else { return Ok(Parsed::Part(None)) };
    let [method, target, version] = &message.start;
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(format!("method {method:?}"));
    }
    if version != "HTTP/1.1" {
        return Err(format!("version {version:?}"));
    }
    check_target(method, target)?;
    match message.all("host")[..] {
        [host] if is_host(host) => {}
        ref hosts => return Err(format!("host {hosts:?}")),
    }
    check_hop(&message)?;
    body(bytes, message, at, Some(0))
}

fn parse_response(bytes: &[u8], method: &str, ended: bool) -> Fallible<Parsed> {
    let Some((message, at)) = head(bytes)? else { return Ok(Parsed::Part(None)) };
    let [version, status, _] = &message.start;
    if version != "HTTP/1.1" && version != "HTTP/1.0" {
        return Err(format!("version {version:?}"));
    }
    if status.len() != 3
        || !status.bytes().all(|byte| byte.is_ascii_digit())
        || !(100..=599).contains(&message.status())
    {
        return Err(format!("status {status:?}"));
    }
    let (status, framed) = (message.status(), message.field("content-length").or(message.field("transfer-encoding")));
    if (status < 200 || status == 204) && framed.is_some() {
        return Err(format!("status {status} with {framed:?}"));
    }
    if method == "HEAD" || status < 200 || status == 204 || status == 304 {
        framing(&message)?;
        return Ok(Parsed::Whole(message, at));
    }
    body(bytes, message, at, ended.then_some(bytes.len() - at))
}

/// The start line and the fields, and where the body begins.
fn head(bytes: &[u8]) -> Fallible<Option<(Message, usize)>> {
    let Some((start, mut at)) = line(bytes, 0)? else { return Ok(None) };
    let start = text(start)?;
    let mut parts = start.splitn(3, ' ').map(str::to_owned);
    let start = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let mut message = Message { start, ..Message::default() };
    match fields(bytes, at)? {
        Some((fields, next)) => {
            message.fields = fields;
            at = next;
        }
        None => return Ok(None),
    }
    for (name, _) in &message.fields {
        let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let real = match letters.as_str() {
            "contentlength" => "content-length",
            "transferencoding" => "transfer-encoding",
            "host" => "host",
            _ => continue,
        };
        if name != real {
            return Err(format!("{name:?} looks like {real}"));
        }
    }
    Ok(Some((message, at)))
}

/// Fields up to the empty line.
fn fields(bytes: &[u8], mut at: usize) -> Fallible<Option<(Fields, usize)>> {
    let mut fields = vec![];
    loop {
        let Some((line, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
        if line.is_empty() {
            return Ok(Some((fields, at)));
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(format!("no colon: {}", line.escape_ascii()))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(format!("field name {}", name.escape_ascii()));
        }
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let visible = |byte: &u8| *byte > b' ' && *byte != 0x7f;
        if !value.iter().all(|byte| visible(byte) || matches!(byte, b' ' | b'\t'))
            || !value.first().is_none_or(visible)
            || !value.last().is_none_or(visible)
        {
            return Err(format!("field value {}", value.escape_ascii()));
        }
        fields.push((text(name)?.to_ascii_lowercase(), String::from_utf8_lossy(value).into_owned()));
    }
}

/// A line that ends with exactly CRLF, and where the next begins.
fn line(bytes: &[u8], at: usize) -> Fallible<Option<(&[u8], usize)>> {
    let rest = &bytes[at..];
    let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Ok(None) };
    match (rest[end], rest.get(end + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some((&rest[..end], at + end + 2))),
        (b'\r', None) => Ok(None),
        (b'\r', _) => Err(format!("bare CR after {}", rest[..end].escape_ascii())),
        _ => Err(format!("bare LF after {}", rest[..end].escape_ascii())),
    }
}

fn text(bytes: &[u8]) -> Fallible<&str> {
    std::str::from_utf8(bytes).map_err(|_| format!("not ASCII: {}", bytes.escape_ascii()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Length of the body, `None` for chunked; a message without framing has `unframed`.
fn framing(message: &Message) -> Fallible<Option<Option<usize>>> {
    let (lengths, codings) = (message.all("content-length"), message.all("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([], ["chunked"]) => Ok(Some(None)),
        ([length], []) if *length == "0" || !length.starts_with('0') => {
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            let number = length.parse::<usize>().ok().filter(|number| digits && *number < 1 << 62);
            number.map(|number| Some(Some(number))).ok_or(format!("content-length {length:?}"))
        }
        _ => Err(format!("content-length {lengths:?}, transfer-encoding {codings:?}")),
    }
}

/// The body; without framing it has `unframed` bytes, `None` where its end is not known yet.
fn body(bytes: &[u8], mut message: Message, at: usize, unframed: Option<usize>) -> Fallible<Parsed> {
    let length = match framing(&message)? {
        Some(None) => return chunks(bytes, message, at),
        Some(Some(length)) => Some(length),
        None => unframed,
    };
    match length.map(|length| at + length) {
        Some(end) if end <= bytes.len() => {
            message.body = bytes[at..end].to_vec();
            Ok(Parsed::Whole(message, end))
        }
        _ => {
            message.body = bytes[at..].to_vec();
            Ok(Parsed::Part(Some(message)))
        }
    }
}

fn chunks(bytes: &[u8], mut message: Message, mut at: usize) -> Fallible<Parsed> {
    loop {
        let Some((size, next)) = line(bytes, at)? else { return Ok(Parsed::Part(Some(message))) };
        let digits = text(size)?;
        let plain = !digits.is_empty()
            && digits.len() <= 15
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            && (digits == "0" || !digits.starts_with('0'));
        let size = usize::from_str_radix(digits, 16).ok().filter(|_| plain).ok_or(format!("chunk size {digits:?}"))?;
        at = next;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at + size) else { return Ok(Parsed::Part(Some(message))) };
        message.body.extend_from_slice(data);
        at += size;
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(other) => return Err(format!("after a chunk: {}", other.escape_ascii())),
            None => return Ok(Parsed::Part(Some(message))),
        }
    }
    let Some((trailers, end)) = fields(bytes, at)? else { return Ok(Parsed::Part(Some(message))) };
    if let Some((name, _)) = trailers.iter().find(|field| NOT_IN_TRAILERS.contains(&field.0.as_str())) {
        return Err(format!("{name} in the trailers"));
    }
    message.trailers = trailers;
    Ok(Parsed::Whole(message, end))
}

/// Origin form with one reading: no dot segment, no empty segment, no encoded unreserved byte, no `%00`.
fn check_target(method: &str, target: &str) -> Fallible<()> {
    let bad = |why: &str| Err(format!("target {target:?}: {why}"));
    if target == "*" && method == "OPTIONS" {
        return Ok(());
    }
    if !target.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#') {
        return bad("a byte that no URI has");
    }
    let path = target.split('?').next().unwrap_or_default();
    let Some(segments) = path.strip_prefix('/') else { return bad("not origin form") };
    if path.contains('\\') {
        return bad("a backslash");
    }
    let segments: Vec<&str> = segments.split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        if matches!(*segment, "." | "..") || (segment.is_empty() && at + 1 < segments.len()) {
            return bad("not normalised");
        }
    }
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let Some(code) = rest.get(at + 1..at + 3).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))
        else {
            return bad("a bad percent-encoding");
        };
        let byte = u8::from_str_radix(code, 16).unwrap_or(0);
        if byte == 0 || byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            return bad("an encoded byte that must not be encoded");
        }
        rest = &rest[at + 3..];
    }
    Ok(())
}

/// `uri-host [ ":" port ]` in its plainest form; empty for a request that had none.
fn is_host(host: &str) -> bool {
    let port = |port: &str| port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        let literal = address.parse::<std::net::Ipv6Addr>().is_ok();
        return literal && (rest.is_empty() || rest.strip_prefix(':').is_some_and(port));
    }
    let (name, number) = host.split_once(':').map_or((host, None), |(name, number)| (name, Some(number)));
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte))
        && !name.contains(',')
        && number.is_none_or(|number| !name.is_empty() && port(number))
}

/// What belongs to one connection must not have crossed the gateway.
fn check_hop(message: &Message) -> Fallible<()> {
    for value in message.all("connection") {
        for token in value.split(',').map(|token| token.trim().to_ascii_lowercase()) {
            if !matches!(token.as_str(), "keep-alive" | "close" | "upgrade" | "te") {
                return Err(format!("connection {value:?} went on"));
            }
        }
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        if message.field(name).is_some() {
            return Err(format!("{name} went on"));
        }
    }
    match message.all("te")[..] {
        [] | ["trailers"] => {}
        ref other => return Err(format!("te {other:?} went on")),
    }
    match message.all("upgrade")[..] {
        [] => Ok(()),
        [one] if !one.to_ascii_lowercase().contains("h2c") => Ok(()),
        ref other => Err(format!("upgrade {other:?} went on")),
    }
}
