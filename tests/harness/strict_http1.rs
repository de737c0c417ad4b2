//! The strictest HTTP/1 parser: every lenient parser reads what it accepts in the same way.
//!
//! It parses what the gateway sends to upstreams and to clients. It requires exact CRLF, no
//! obs-fold, one `Host`, at most one framing field in its plainest form, field names that no server
//! confuses with others, and a normalized path. It must share no code with the gateway.

/// A request or a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Method, target and version of a request; version, status and reason of a response.
    pub start: [String; 3],
    /// Names in lower case, in the order received.
    pub fields: Fields,
    /// The content, with the chunked coding removed.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Fields,
}

/// The result of parsing the bytes received so far.
#[derive(Debug)]
pub enum Parsed {
    /// A complete message and its length in bytes.
    Complete(Message, usize),
    /// The beginning of a message. Contains the header section, if complete, and the body so far.
    Partial(Option<Message>),
    /// Bytes that are not a valid message, and the reason.
    Invalid(String),
}

type Fallible<T> = Result<T, String>;
type Fields = Vec<(String, String)>;

/// Fields for framing, routing or authentication, which are not allowed in trailers (RFC 9110,
/// section 6.5.1).
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
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|field| field.0 == name).map(|field| field.1.as_str()).collect()
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        &self.start[1]
    }

    /// The status of a response; 0 for a request.
    pub fn status(&self) -> u16 {
        self.start[1].parse().unwrap_or(0)
    }
}

/// Parses one request.
pub fn request(bytes: &[u8]) -> Parsed {
    finish(parse_request(bytes))
}

/// Parses one response to `method`. `ended` means that the connection is closed, so no more bytes
/// follow.
pub fn response(bytes: &[u8], method: &str, ended: bool) -> Parsed {
    finish(parse_response(bytes, method, ended))
}

fn finish(result: Fallible<Parsed>) -> Parsed {
    result.unwrap_or_else(Parsed::Invalid)
}

fn parse_request(bytes: &[u8]) -> Fallible<Parsed> {
    let Some((message, at)) = head(bytes)? else { return Ok(Parsed::Partial(None)) };
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
    check_hop_by_hop(&message)?;
    body(bytes, message, at, Some(0))
}

fn parse_response(bytes: &[u8], method: &str, ended: bool) -> Fallible<Parsed> {
    let Some((message, at)) = head(bytes)? else { return Ok(Parsed::Partial(None)) };
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
        return Ok(Parsed::Complete(message, at));
    }
    body(bytes, message, at, ended.then_some(bytes.len() - at))
}

/// Parses the start line and the fields. Also returns where the body begins.
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

/// Parses fields up to the empty line.
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

/// Returns the line that begins at `at` and ends with CRLF, and where the next one begins.
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

/// The framing of the body: `Some(Some(length))`, `Some(None)` for chunked, or `None` if no field
/// says it.
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

/// Parses the body. Without a framing field it has `unframed` bytes; `None` means that its end is
/// still unknown.
fn body(bytes: &[u8], mut message: Message, at: usize, unframed: Option<usize>) -> Fallible<Parsed> {
    let length = match framing(&message)? {
        Some(None) => return chunks(bytes, message, at),
        Some(Some(length)) => Some(length),
        None => unframed,
    };
    match length.map(|length| at + length) {
        Some(end) if end <= bytes.len() => {
            message.body = bytes[at..end].to_vec();
            Ok(Parsed::Complete(message, end))
        }
        _ => {
            message.body = bytes[at..].to_vec();
            Ok(Parsed::Partial(Some(message)))
        }
    }
}

fn chunks(bytes: &[u8], mut message: Message, mut at: usize) -> Fallible<Parsed> {
    loop {
        let Some((size, next)) = line(bytes, at)? else { return Ok(Parsed::Partial(Some(message))) };
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
        let Some(data) = bytes.get(at..at + size) else { return Ok(Parsed::Partial(Some(message))) };
        message.body.extend_from_slice(data);
        at += size;
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(other) => return Err(format!("after a chunk: {}", other.escape_ascii())),
            None => return Ok(Parsed::Partial(Some(message))),
        }
    }
    let Some((trailers, end)) = fields(bytes, at)? else { return Ok(Parsed::Partial(Some(message))) };
    if let Some((name, _)) = trailers.iter().find(|field| NOT_IN_TRAILERS.contains(&field.0.as_str())) {
        return Err(format!("{name} in the trailer section"));
    }
    message.trailers = trailers;
    Ok(Parsed::Complete(message, end))
}

/// Checks for origin form that all parsers read alike: no dot segment, no empty segment, no encoded
/// unreserved byte, no `%00`.
fn check_target(method: &str, target: &str) -> Fallible<()> {
    let bad = |why: &str| Err(format!("target {target:?}: {why}"));
    if target == "*" && method == "OPTIONS" {
        return Ok(());
    }
    if !target.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#') {
        return bad("a byte that is not allowed in a URI");
    }
    let path = target.split('?').next().unwrap_or_default();
    let Some(segments) = path.strip_prefix('/') else { return bad("not origin form") };
    if path.contains('\\') {
        return bad("a backslash");
    }
    let segments: Vec<&str> = segments.split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        if matches!(*segment, "." | "..") || (segment.is_empty() && at + 1 < segments.len()) {
            return bad("not normalized");
        }
    }
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let Some(code) = rest.get(at + 1..at + 3).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))
        else {
            return bad("invalid percent-encoding");
        };
        let byte = u8::from_str_radix(code, 16).unwrap_or(0);
        if byte == 0 || byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            return bad("an encoded byte that must not be encoded");
        }
        rest = &rest[at + 3..];
    }
    Ok(())
}

/// Whether this is `uri-host [ ":" port ]` in its plainest form. It may be empty, for a request
/// that had no host.
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

/// Checks that the gateway removed the fields that apply to one connection.
fn check_hop_by_hop(message: &Message) -> Fallible<()> {
    for value in message.all("connection") {
        for token in value.split(',').map(|token| token.trim().to_ascii_lowercase()) {
            if !matches!(token.as_str(), "keep-alive" | "close" | "upgrade" | "te") {
                return Err(format!("connection {value:?} was forwarded"));
            }
        }
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        if message.field(name).is_some() {
            return Err(format!("{name} was forwarded"));
        }
    }
    match message.all("te")[..] {
        [] | ["trailers"] => {}
        ref other => return Err(format!("te {other:?} was forwarded")),
    }
    match message.all("upgrade")[..] {
        [] => Ok(()),
        [one] if !one.to_ascii_lowercase().contains("h2c") => Ok(()),
        ref other => Err(format!("upgrade {other:?} was forwarded")),
    }
}
