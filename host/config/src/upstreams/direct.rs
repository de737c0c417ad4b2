//! The upstream for direct calls of filters to an origin: one endpoint, public and allowed
//! addresses only, and the defaults of every other key.
//!
//! So pooling, TLS, limits and metrics of direct calls are those of upstreams. This module does not
//! know: which filters make calls.

use std::path::Path;

use witgate_http::semantics::origin::Origin;

use super::Upstream;
use super::endpoints::{AddressKind, EndpointAddress, EndpointConfig, UpstreamTarget};
use crate::outbound::Direct;
use crate::yaml::Section;

/// The upstream of an origin.
pub(crate) fn direct(direct: &Direct, top: &Section, base: &Path) -> Upstream {
    let Origin { tls, host, port } = direct.origin.clone();
    let address = EndpointAddress { kind: AddressKind::Host, host, port, tls };
    let target = UpstreamTarget::Endpoints(vec![EndpointConfig { address, weight: 1 }]);
    let allow = Some(direct.allow.clone());
    Upstream { public_or: allow, ..top.blank(|blank| Upstream::with_target(blank, base, target)) }
}
