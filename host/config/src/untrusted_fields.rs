//! `untrusted_fields:`: request fields that only a proxy in front of the gateway may set.
//!
//! Upstreams trust such a field as if a proxy had set it: the client's address or certificate, its
//! scheme, the user that a proxy authenticated, or another target. From a peer that is not in
//! `trusted_proxies`, the client itself could have written it. The gateway writes
//! `x-forwarded-for`, `-proto` and `-host` itself, whatever this list says. This module does not
//! know: requests.

use http::HeaderName;
use witgate_http::semantics::fields::FieldNames;

use crate::yaml::Section;

/// The default. Each is read by a widely used proxy, framework or application.
const DEFAULT: &[&str] = &[
    "x-forwarded-*",
    "x-original-*",
    "x-rewrite-url",
    // The client's address.
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-*",
    "forwarded-for",
    "x-forwarded",
    "x-proxyuser-ip",
    "proxy-client-ip",
    "wl-proxy-*",
    "fly-client-ip",
    "do-connecting-ip",
    "x-nf-client-connection-ip",
    "x-vercel-*",
    "incap-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-azure-clientip",
    "x-appengine-user-ip",
    // The scheme and host that the client used.
    "front-end-https",
    "x-url-scheme",
    "x-scheme",
    "x-https",
    "x-host",
    "x-http-host-override",
    // The client's certificate (RFC 9440, and before it the names of products).
    "client-cert",
    "client-cert-*",
    "x-client-cert*",
    "x-client-verify",
    "x-client-dn",
    "x-ssl-client-*",
    "ssl-client-*",
    "x-ssl-cert",
    "ssl-cert",
    "x-arr-clientcert",
    "x-arr-ssl",
    // The user that a proxy authenticated.
    "remote-*",
    "x-remote-*",
    "x-consumer-*",
    "x-credential-identifier",
    "x-anonymous-consumer",
    "x-amzn-oidc-*",
    "x-ms-client-principal*",
    "x-ms-token-*",
    "cf-access-authenticated-user-email",
    "tailscale-user-*",
    "x-authentik-*",
    "x-pomerium-*",
    "x-vouch-*",
    "x-auth-request-*",
    "x-webauth-*",
    "x-authenticated-user*",
    "x-goog-authenticated-user-*",
    // CGI passes it as HTTP_PROXY (CVE-2016-5385).
    "proxy",
];

/// A list of names replaces the default; an empty one removes nothing.
pub(crate) fn read(top: &Section) -> FieldNames {
    let mut fields = FieldNames::default();
    if top.has("untrusted_fields") {
        top.list("untrusted_fields", name).iter().for_each(|name| fields.add(name));
    } else {
        DEFAULT.iter().for_each(|name| fields.add(name));
    }
    fields
}

/// A field name in lower case, with an optional `*` at its end.
fn name(text: &str) -> Result<String, String> {
    let (name, star) = text.strip_suffix('*').map_or((text, ""), |name| (name, "*"));
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if name == "host" => Err("every request has a host: remove it".into()),
        Ok(name) => Ok(format!("{}{star}", name.as_str().replace('_', "-"))),
        Err(_) => Err("is not a header name (RFC 9110, section 5.1), with * only at its end".into()),
    }
}
