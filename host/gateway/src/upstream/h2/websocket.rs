//! A WebSocket to an upstream over one HTTP/2 stream: extended CONNECT (RFC 8441).
//!
//! The pipeline knows upgrades as HTTP/1.1 has them. So the request becomes a CONNECT, and its 200
//! becomes the 101 that the client waits for. This module does not know: connections, bodies.

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};

use super::session::StreamSlot;
use crate::upstream::websocket_accept::accept_value;
use witgate_http::body::Body;
use witgate_http::error::{Error, Kind};
use witgate_runtime::exchange::Upgrade;

/// A tunnel that the upstream may agree to.
pub(super) struct Tunnel {
    /// The key of the client; HTTP/2 has none.
    key: Option<HeaderValue>,
}

impl Tunnel {
    /// Checks that the upstream can be asked, and takes the fields that HTTP/2 does not have.
    pub(super) fn new(
        Upgrade(protocol): &Upgrade,
        slot: &StreamSlot,
        request: &mut http::Request<Body>,
    ) -> Result<Self, Error> {
        let refuse = |why: &str| Err(Error::new(Kind::UpgradeUnsupported, why));
        if !protocol.as_bytes().eq_ignore_ascii_case(b"websocket") {
            return refuse("HTTP/2 has no upgrades except WebSocket: use protocol: http1");
        }
        if !slot.send.is_extended_connect_protocol_enabled() {
            return refuse("its SETTINGS do not allow WebSocket over HTTP/2 (RFC 8441): use protocol: http1");
        }
        Ok(Self { key: request.headers_mut().remove(header::SEC_WEBSOCKET_KEY) })
    }

    /// Turns the head of a response that agrees into a 101. Returns whether it agrees.
    pub(super) fn begin(self, head: &mut http::response::Parts) -> bool {
        if !head.status.is_success() {
            return false;
        }
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Some(accept) = self.key.and_then(|key| HeaderValue::try_from(accept_value(key.as_bytes())).ok()) {
            head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        true
    }
}

/// Makes a request an extended CONNECT.
pub(super) fn into_connect(request: &mut http::Request<()>) {
    *request.method_mut() = Method::CONNECT;
    request.headers_mut().remove(header::TE);
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
}
