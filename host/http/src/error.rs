//! The error of a failed exchange: a kind, which decides what the client learns, and a private
//! detail.
//!
//! All stages use one type, so that one function (`pipeline/respond.rs`) turns errors into
//! responses. The public message names no filter, address or version; the private detail may. This
//! module does not know: routes, WebAssembly, sockets.

use http::StatusCode;

/// A failed exchange.
#[derive(Debug)]
pub struct Error {
    /// What went wrong. It decides the status, the public message and the label of metrics.
    pub kind: Kind,
    /// For the log only: names, addresses, text from a filter.
    pub detail: String,
}

impl Error {
    /// Makes an error with its private detail.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.detail)
    }
}

impl std::error::Error for Error {}

/// What can go wrong with an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is not valid HTTP.
    BadRequest,
    /// A method that the gateway does not forward (CONNECT, TRACE).
    MethodNotAllowed,
    /// The request target is too long.
    UriTooLong,
    /// The request's head is too large, or it has too many fields.
    HeadTooLarge,
    /// An `Expect` that is not `100-continue`.
    ExpectationFailed,
    /// A major version of HTTP that the gateway does not support.
    Version,
    /// A transfer coding or feature that the gateway does not support.
    NotImplemented,
    /// The connection does not serve this host: SNI and authority differ.
    Misdirected,
    /// The request has passed this gateway before (a forwarding loop).
    Loop,
    /// No route matches the request.
    NoRoute,
    /// The client's address may not use the route.
    Forbidden,
    /// The request has no valid credentials for the route.
    Unauthorized,
    /// The request body is larger than the route or a filter allows.
    BodyTooLarge,
    /// The client was too slow.
    ClientTimeout,
    /// The client disconnected.
    ClientGone,
    /// The client has sent more requests than the route's rate limit allows.
    RateLimited,
    /// The store of the route's rate limit cannot be reached.
    StoreUnavailable,
    /// Too many exchanges, instances or buffered bytes at the same time.
    Saturated,
    /// The client has too many exchanges at the same time.
    ClientSaturated,
    /// A filter failed.
    Filter(FilterFailure),
    /// The connection to the upstream failed.
    UpstreamConnect,
    /// The connection to the upstream took too long.
    UpstreamConnectTimeout,
    /// The upstream's address is unreachable.
    UpstreamUnroutable,
    /// The upstream's name does not resolve to an address.
    UpstreamDns,
    /// The upstream's certificate is not trusted, expired or for another name.
    UpstreamCertificate,
    /// The TLS handshake with the upstream failed for another reason.
    UpstreamTls,
    /// The upstream closed the connection before the response was complete.
    UpstreamClosed,
    /// A filter's direct call would go to an address that is not public.
    UpstreamForbidden,
    /// No endpoint of the upstream is available.
    UpstreamUnavailable,
    /// All endpoints of the upstream are at their limit of requests or connections.
    UpstreamSaturated,
    /// The upstream sent invalid HTTP.
    UpstreamProtocol,
    /// The upstream was too slow.
    UpstreamTimeout,
    /// The upstream's protocol cannot carry the upgrade that the client asks for.
    UpgradeUnsupported,
    /// The response body is larger than a filter allows.
    ResponseTooLarge,
    /// A defect in the gateway.
    Internal,
}

/// How a filter call can fail: the `kind` label of `witgate_filter_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterFailure {
    /// The code trapped: unreachable instruction, out-of-bounds access, exhausted stack, …
    Trap,
    /// The filter exceeded its timeout or the budget of its phase.
    Deadline,
    /// The filter exceeded its memory limit.
    Memory,
    /// The filter exceeded another limit: edits, notes, bytes passed to the host, tables, handles.
    Limit,
    /// The filter set a header, status or path that HTTP does not allow or that the gateway itself
    /// sets.
    InvalidOutput,
    /// The filter returned `err`.
    Error,
    /// No instance was free.
    Saturated,
    /// The filter called another service for an exchange that several such calls led to.
    Loop,
}

impl FilterFailure {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::Limit,
        Self::InvalidOutput,
        Self::Error,
        Self::Saturated,
        Self::Loop,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Limit => "limit",
            Self::InvalidOutput => "invalid-output",
            Self::Error => "error",
            Self::Saturated => "saturated",
            Self::Loop => "loop",
        }
    }
}

impl Kind {
    /// The kinds that a client can see. `saturated` is the label of two of them. `Filter(Loop)` is
    /// left out, because it has the label and the status of `Loop`.
    pub const ALL: [Self; 40] = [
        Self::BadRequest,
        Self::MethodNotAllowed,
        Self::UriTooLong,
        Self::HeadTooLarge,
        Self::ExpectationFailed,
        Self::Version,
        Self::NotImplemented,
        Self::Misdirected,
        Self::Loop,
        Self::NoRoute,
        Self::Forbidden,
        Self::Unauthorized,
        Self::BodyTooLarge,
        Self::ClientTimeout,
        Self::ClientGone,
        Self::RateLimited,
        Self::StoreUnavailable,
        Self::Saturated,
        Self::ClientSaturated,
        Self::Filter(FilterFailure::Trap),
        Self::Filter(FilterFailure::Deadline),
        Self::Filter(FilterFailure::Memory),
        Self::Filter(FilterFailure::Limit),
        Self::Filter(FilterFailure::InvalidOutput),
        Self::Filter(FilterFailure::Error),
        Self::Filter(FilterFailure::Saturated),
        Self::UpstreamConnect,
        Self::UpstreamConnectTimeout,
        Self::UpstreamUnroutable,
        Self::UpstreamDns,
        Self::UpstreamCertificate,
        Self::UpstreamTls,
        Self::UpstreamClosed,
        Self::UpstreamUnavailable,
        Self::UpstreamSaturated,
        Self::UpstreamProtocol,
        Self::UpstreamTimeout,
        Self::UpgradeUnsupported,
        Self::ResponseTooLarge,
        Self::Internal,
    ];

    /// A short name for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::UriTooLong => "uri-too-long",
            Self::HeadTooLarge => "head-too-large",
            Self::ExpectationFailed => "expectation-failed",
            Self::Version => "version",
            Self::NotImplemented => "not-implemented",
            Self::Misdirected => "misdirected",
            Self::Loop => "loop",
            Self::NoRoute => "no-route",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::BodyTooLarge => "body-too-large",
            Self::ClientTimeout => "client-timeout",
            Self::ClientGone => "client-gone",
            Self::RateLimited => "rate-limited",
            Self::StoreUnavailable => "store-unavailable",
            Self::Saturated => "saturated",
            Self::ClientSaturated => "client-saturated",
            Self::Filter(failure) => failure.label(),
            Self::UpstreamConnect => "upstream-connect",
            Self::UpstreamConnectTimeout => "upstream-connect-timeout",
            Self::UpstreamUnroutable => "upstream-unroutable",
            Self::UpstreamDns => "upstream-dns",
            Self::UpstreamCertificate => "upstream-certificate",
            Self::UpstreamTls => "upstream-tls",
            Self::UpstreamClosed => "upstream-closed",
            Self::UpstreamForbidden => "upstream-forbidden",
            Self::UpstreamUnavailable => "upstream-unavailable",
            Self::UpstreamSaturated => "upstream-saturated",
            Self::UpstreamProtocol => "upstream-protocol",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::UpgradeUnsupported => "upgrade-unsupported",
            Self::ResponseTooLarge => "response-too-large",
            Self::Internal => "internal",
        }
    }

    /// The status of the response to the client. A failed filter gives 502, a filter that exceeded
    /// its time 504.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NotImplemented | Self::UpgradeUnsupported => StatusCode::NOT_IMPLEMENTED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Loop | Self::Filter(FilterFailure::Loop) => StatusCode::LOOP_DETECTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientTimeout | Self::ClientGone => StatusCode::REQUEST_TIMEOUT,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::StoreUnavailable
            | Self::Saturated
            | Self::Filter(FilterFailure::Saturated)
            | Self::UpstreamUnavailable
            | Self::UpstreamSaturated => StatusCode::SERVICE_UNAVAILABLE,
            Self::ClientSaturated => StatusCode::TOO_MANY_REQUESTS,
            Self::Filter(FilterFailure::Deadline) | Self::UpstreamTimeout | Self::UpstreamConnectTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Filter(_)
            | Self::UpstreamConnect
            | Self::UpstreamUnroutable
            | Self::UpstreamDns
            | Self::UpstreamCertificate
            | Self::UpstreamTls
            | Self::UpstreamClosed
            | Self::UpstreamForbidden
            | Self::UpstreamProtocol
            | Self::ResponseTooLarge => StatusCode::BAD_GATEWAY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The message to the client.
    pub const fn public_message(self) -> &'static str {
        match self {
            Self::BadRequest => "the request is not valid HTTP",
            Self::MethodNotAllowed => "this method is not allowed",
            Self::UriTooLong => "the request target is too long",
            Self::HeadTooLarge => "the request's header fields are too large",
            Self::ExpectationFailed => "the only expectation that can be met is 100-continue",
            Self::Version => "this HTTP version is not supported",
            Self::NotImplemented => "this transfer coding is not implemented",
            Self::Misdirected => "this connection does not serve that host",
            Self::Loop | Self::Filter(FilterFailure::Loop) => "the request was forwarded in a loop",
            Self::NoRoute => "no route for this request",
            Self::Forbidden => "access is not allowed",
            Self::Unauthorized => "valid credentials are required",
            Self::BodyTooLarge => "the request body is too large",
            Self::ClientTimeout | Self::ClientGone => "the request took too long to arrive",
            Self::RateLimited => "too many requests",
            Self::StoreUnavailable => "the gateway cannot count requests, try again",
            Self::Saturated | Self::Filter(FilterFailure::Saturated) => "the gateway is busy, try again",
            Self::ClientSaturated => "too many concurrent requests, try again",
            Self::Filter(FilterFailure::Deadline) => "a filter took too long",
            Self::Filter(_) => "a filter failed",
            Self::UpstreamConnect
            | Self::UpstreamConnectTimeout
            | Self::UpstreamUnroutable
            | Self::UpstreamDns
            | Self::UpstreamForbidden
            | Self::UpstreamUnavailable => "the upstream cannot be reached",
            Self::UpstreamCertificate => "the upstream's certificate is not accepted",
            Self::UpstreamTls => "the TLS handshake with the upstream failed",
            Self::UpstreamSaturated => "the upstream is busy, try again",
            Self::UpstreamClosed | Self::UpstreamProtocol => "the upstream did not send a complete, valid response",
            Self::UpstreamTimeout => "the upstream took too long",
            Self::UpgradeUnsupported => "the upstream does not support this upgrade",
            Self::ResponseTooLarge => "the upstream's response is too large",
            Self::Internal => "internal error",
        }
    }

    /// The error type of a `Proxy-Status` field (RFC 9209, section 2.3).
    pub const fn proxy_status(self) -> &'static str {
        match self {
            Self::BadRequest
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::ExpectationFailed
            | Self::Version
            | Self::NotImplemented
            | Self::Misdirected => "http_request_error",
            Self::MethodNotAllowed => "http_request_denied",
            Self::Loop | Self::Filter(FilterFailure::Loop) => "proxy_loop_detected",
            Self::NoRoute => "destination_not_found",
            Self::Forbidden | Self::Unauthorized | Self::BodyTooLarge | Self::RateLimited => "http_request_denied",
            Self::StoreUnavailable => "proxy_internal_error",
            Self::ClientTimeout | Self::ClientGone => "http_request_error",
            Self::Saturated | Self::Filter(FilterFailure::Saturated) => "connection_limit_reached",
            Self::ClientSaturated => "connection_limit_reached",
            Self::Filter(_) | Self::Internal => "proxy_internal_error",
            Self::UpstreamConnect => "connection_refused",
            Self::UpstreamConnectTimeout => "connection_timeout",
            Self::UpstreamUnroutable => "destination_ip_unroutable",
            Self::UpstreamDns => "dns_error",
            Self::UpstreamCertificate => "tls_certificate_error",
            Self::UpstreamTls => "tls_protocol_error",
            Self::UpstreamClosed => "connection_terminated",
            Self::UpstreamForbidden => "destination_ip_prohibited",
            Self::UpstreamUnavailable => "destination_unavailable",
            Self::UpstreamSaturated => "connection_limit_reached",
            Self::UpstreamProtocol => "http_protocol_error",
            Self::UpstreamTimeout => "http_response_timeout",
            Self::UpgradeUnsupported => "http_upgrade_failed",
            Self::ResponseTooLarge => "http_response_body_size",
        }
    }

    /// Whether the same request may succeed soon. The response then has a `Retry-After` field.
    pub const fn is_saturation(self) -> bool {
        matches!(
            self,
            Self::StoreUnavailable
                | Self::Saturated
                | Self::ClientSaturated
                | Self::Filter(FilterFailure::Saturated)
                | Self::UpstreamUnavailable
                | Self::UpstreamSaturated
        )
    }

    /// Whether the upstream or the network to it is at fault.
    pub const fn is_upstream(self) -> bool {
        matches!(
            self,
            Self::UpstreamConnect
                | Self::UpstreamConnectTimeout
                | Self::UpstreamUnroutable
                | Self::UpstreamDns
                | Self::UpstreamCertificate
                | Self::UpstreamTls
                | Self::UpstreamClosed
                | Self::UpstreamUnavailable
                | Self::UpstreamSaturated
                | Self::UpstreamProtocol
                | Self::UpstreamTimeout
                | Self::ResponseTooLarge
        )
    }
}
