//! GET over HTTP with bounds: redirects, addresses, sizes.
//!
//! This module does not know: registries, buckets, what is fetched.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION};
use reqwest::{Certificate, Response, StatusCode, Url};

use super::download::Download;
use super::fetch_error::FetchError;
use super::redirects::{PublicAddresses, REDIRECTS_MAX, check, is_same_server};
use crate::process::regular_file::read_regular;
use witgate_config::SourceSettings;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CA_BYTES_MAX: u64 = 1 << 20;

/// Sends requests with the settings of one location.
pub(super) struct Client {
    /// For servers that the configuration names.
    direct: reqwest::Client,
    /// For servers that a server names. It connects to public addresses only, unless the settings
    /// allow others.
    redirected: reqwest::Client,
    private_addresses: bool,
}

/// A GET.
pub(super) struct Get<'a> {
    pub(super) url: Url,
    pub(super) accept: Option<&'a str>,
    /// Sent to the server of `url` only.
    pub(super) authorization: Option<&'a HeaderValue>,
    /// The entity tag that is known.
    pub(super) if_none_match: Option<&'a str>,
    /// Whether a server named `url`, rather than the configuration.
    pub(super) is_redirected: bool,
}

impl<'a> Get<'a> {
    pub(super) fn new(url: Url) -> Self {
        Self { url, accept: None, authorization: None, if_none_match: None, is_redirected: false }
    }

    /// The same request with this authorization.
    pub(super) fn with<'b>(&self, authorization: Option<&'b HeaderValue>) -> Get<'b>
    where
        'a: 'b,
    {
        let Get { url, accept, if_none_match, is_redirected, .. } = self;
        Get {
            url: url.clone(),
            accept: *accept,
            if_none_match: *if_none_match,
            is_redirected: *is_redirected,
            authorization,
        }
    }
}

impl Client {
    pub(super) fn new(settings: &SourceSettings) -> Result<Self, FetchError> {
        let direct = builder(settings)?.build()?;
        let private_addresses = settings.private_addresses;
        let redirected = if private_addresses {
            direct.clone()
        } else {
            builder(settings)?.dns_resolver(Arc::new(PublicAddresses)).build()?
        };
        Ok(Self { direct, redirected, private_addresses })
    }

    /// Sends a GET and follows redirects. Returns the response whatever its status is.
    pub(super) async fn get(&self, get: Get<'_>) -> Result<Response, FetchError> {
        let mut url = get.url.clone();
        let mut is_redirected = get.is_redirected;
        for _ in 0..=REDIRECTS_MAX {
            let client = if is_redirected { &self.redirected } else { &self.direct };
            let mut request = client.get(url.clone());
            if let Some(accept) = get.accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(authorization) = get.authorization.filter(|_| is_same_server(&get.url, &url)) {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(tag) = get.if_none_match {
                request = request.header(IF_NONE_MATCH, tag);
            }
            let response = request.send().await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let next = redirect_of(&response, &url)?;
            check(&url, &next, self.private_addresses).map_err(FetchError::new)?;
            is_redirected = get.is_redirected || !is_same_server(&get.url, &next);
            url = next;
        }
        let host = url.host_str().unwrap_or_default();
        Err(FetchError::new(format_args!(
            "more than {REDIRECTS_MAX} redirects; the last one leads to {host}{}",
            url.path()
        )))
    }

    /// Whether a server may send the gateway from one URL to the other.
    pub(super) fn check_redirect(&self, from: &Url, to: &Url) -> Result<(), FetchError> {
        check(from, to, self.private_addresses).map_err(FetchError::new)
    }
}

/// A client that follows no redirects by itself.
pub(super) fn builder(settings: &SourceSettings) -> Result<reqwest::ClientBuilder, FetchError> {
    let authorities = settings.ca.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let client = client.connect_timeout(CONNECT_TIMEOUT).user_agent(concat!("witgate/", env!("CARGO_PKG_VERSION")));
    Ok(client.tls_certs_merge(authorities))
}

/// The entity tag of a response.
pub(super) fn entity_tag(response: &Response) -> Option<String> {
    let tag = response.headers().get(ETAG)?.to_str().ok()?;
    (tag.len() <= 256).then(|| tag.to_owned())
}

/// Refuses a status other than success.
pub(super) fn expect_success(response: Response) -> Result<Response, FetchError> {
    if response.status().is_success() { Ok(response) } else { Err(FetchError::status(&response)) }
}

/// Writes the body of a response to a download.
pub(super) async fn save(mut response: Response, download: &mut Download) -> Result<(), FetchError> {
    if let Some(encoding) = response.headers().get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(FetchError::new(format_args!(
            "the server sent the encoding {encoding:?}, which was not asked for"
        )));
    }
    if let Some(length) = response.content_length() {
        Download::check_length(length)?;
    }
    while let Some(chunk) = response.chunk().await? {
        download.write(&chunk)?;
    }
    Ok(())
}

/// Reads a body of at most `bytes_max` bytes.
pub(super) async fn read(mut response: Response, bytes_max: u64, what: &str) -> Result<Vec<u8>, FetchError> {
    let too_large = || FetchError::new(format_args!("{what} is larger than {bytes_max} bytes"));
    if response.content_length().is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    let mut bytes = vec![];
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > bytes_max {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

/// The value of a header field that contains a name and a password.
pub(super) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// More authorities for the certificates of servers.
pub(super) fn certificates(file: &Path) -> Result<Vec<Certificate>, FetchError> {
    let fail = |why: String| FetchError::new(format_args!("{}: {why}", file.display()));
    let pem = read_regular(file, CA_BYTES_MAX).map_err(|error| fail(error.to_string()))?;
    Certificate::from_pem_bundle(&pem).map_err(|error| fail(error.to_string()))
}

fn redirect_of(response: &Response, url: &Url) -> Result<Url, FetchError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = location.and_then(|location| url.join(location).ok());
    next.ok_or_else(|| FetchError::new(format_args!("{} without a valid location", response.status())))
}
