//! Requests to one repository of a registry (OCI distribution specification), with its login.
//!
//! A registry answers 401 with a challenge: either the password itself, or a token that another
//! server gives for it. This module does not know: what a manifest means.

use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::digest::digest_of;
use super::login::{Login, login};
use crate::releases::remote::download::Download;
use crate::releases::remote::fetch_error::FetchError;
use crate::releases::remote::http::{Client, Get, basic, expect_success, read, save};
use crate::releases::remote::redirects::is_same_server;
use witgate_config::{OciReference, SourceSettings};

const MANIFEST_BYTES_MAX: u64 = 4 << 20;
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// The registry of docker.io has another name.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A repository, and the authorization for it.
pub(super) struct Registry {
    client: Client,
    base: Url,
    repository: String,
    login: Option<Login>,
    authorization: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    pub(super) fn new(reference: &OciReference, settings: &SourceSettings) -> Result<Self, FetchError> {
        let host = if reference.registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { &reference.registry };
        let scheme = if settings.plain_http { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/"));
        let base = base.map_err(|error| FetchError::new(format_args!("{}: {error}", reference.registry)))?;
        let login = login(&reference.registry, settings)?;
        let repository = reference.repository.clone();
        Ok(Self { client: Client::new(settings)?, base, repository, login, authorization: None })
    }

    /// A manifest by tag or digest. `None` if its digest is `known`.
    pub(super) async fn manifest(&mut self, wanted: &str, known: Option<&str>) -> Result<Option<Vec<u8>>, FetchError> {
        let quoted = known.map(|digest| format!("\"{digest}\""));
        let response = self.get(&format!("manifests/{wanted}"), Some(MANIFEST_TYPES), quoted.as_deref()).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return if known.is_some() { Ok(None) } else { Err(FetchError::unchanged()) };
        }
        let bytes = read(expect_success(response)?, MANIFEST_BYTES_MAX, "the manifest").await?;
        Ok(Some(bytes).filter(|bytes| known != Some(&*digest_of(bytes))))
    }

    /// A manifest by tag, if there is one.
    pub(super) async fn find_manifest(&mut self, tag: &str) -> Result<Option<Vec<u8>>, FetchError> {
        let response = self.get(&format!("manifests/{tag}"), Some(MANIFEST_TYPES), None).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        read(expect_success(response)?, MANIFEST_BYTES_MAX, "the manifest").await.map(Some)
    }

    /// Downloads a blob. Its digest is not checked.
    pub(super) async fn blob(&mut self, digest: &str, download: &mut Download) -> Result<(), FetchError> {
        let response = self.get(&format!("blobs/{digest}"), None, None).await?;
        save(expect_success(response)?, download).await
    }

    /// Reads a small blob and checks its digest.
    pub(super) async fn small_blob(&mut self, digest: &str, bytes_max: u64) -> Result<Vec<u8>, FetchError> {
        let response = self.get(&format!("blobs/{digest}"), None, None).await?;
        let bytes = read(expect_success(response)?, bytes_max, "the payload of a signature").await?;
        if digest_of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(FetchError::new(format_args!("the registry sent another blob than {digest}")))
        }
    }

    async fn get(&mut self, path: &str, accept: Option<&str>, known: Option<&str>) -> Result<Response, FetchError> {
        let url = self.base.join(&format!("v2/{}/{path}", self.repository));
        let url = url.map_err(|error| FetchError::new(format_args!("{path}: {error}")))?;
        let get = Get { accept, if_none_match: known, ..Get::new(url) };
        let response = self.client.get(get.with(self.authorization.as_ref())).await?;
        // A server that a redirect led to gets no password.
        if response.status() != StatusCode::UNAUTHORIZED || !is_same_server(&self.base, response.url()) {
            return Ok(response);
        }
        let authorization = self.authorize(&response).await?;
        self.authorization = authorization;
        self.client.get(get.with(self.authorization.as_ref())).await
    }

    /// Answers the challenge of a response.
    async fn authorize(&self, response: &Response) -> Result<Option<HeaderValue>, FetchError> {
        let challenges = response.headers().get_all(WWW_AUTHENTICATE);
        let challenges: Vec<&str> = challenges.iter().filter_map(|value| value.to_str().ok()).collect();
        let password = self.login.as_ref().and_then(|(name, password)| basic(name, password));
        let Some(parameters) = challenges.iter().find_map(|challenge| strip_scheme(challenge, "bearer")) else {
            return Ok(password);
        };
        let invalid = || FetchError::new("the registry asks for a token and does not say where to get it");
        let mut url = Url::parse(&parameter(parameters, "realm").ok_or_else(invalid)?).map_err(|_| invalid())?;
        // The registry chose this server, as by a redirect.
        self.client.check_redirect(&self.base, &url)?;
        let scope = format!("repository:{}:pull", self.repository);
        if let Some(service) = parameter(parameters, "service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        url.query_pairs_mut().append_pair("scope", &scope);
        let is_redirected = !is_same_server(&self.base, &url);
        let get = Get { is_redirected, authorization: password.as_ref(), ..Get::new(url) };
        let response = expect_success(self.client.get(get).await?)?;
        let bytes = read(response, TOKEN_BYTES_MAX, "the token").await?;
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        let token = token.and_then(|token| token.token.filter(|text| !text.is_empty()).or(token.access_token));
        let value = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let mut value = value.ok_or_else(|| FetchError::new("the registry's token server sent no token"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// The parameters of the challenge with this scheme, and what follows it. A field can have several
/// challenges, with commas in between (RFC 9110, section 11.6.1).
fn strip_scheme<'a>(field: &'a str, scheme: &str) -> Option<&'a str> {
    let mut is_quoted = false;
    let item_ends = |byte: u8| {
        is_quoted ^= byte == b'"';
        byte == b',' && !is_quoted
    };
    let ends = field.bytes().map(item_ends).collect::<Vec<bool>>();
    let begins = std::iter::once(0).chain((0..ends.len()).filter(|at| ends[*at]).map(|at| at + 1));
    begins.map(|at| field[at..].trim_start()).find_map(|item| {
        let (found, rest) = item.split_once(' ')?;
        found.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// A parameter such as `realm="…"` (RFC 9110, section 11.2).
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let (key, after) = rest.split_once('=')?;
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value.trim().to_owned());
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_a_challenge() {
        let challenge =
            r#"Bearer realm="https://auth.example/token?a=b,c",service=registry , scope="repository:a:pull""#;
        let parameters = strip_scheme(challenge, "bearer").unwrap_or_default();
        assert_eq!(parameter(parameters, "realm").as_deref(), Some("https://auth.example/token?a=b,c"));
        assert_eq!(parameter(parameters, "SERVICE").as_deref(), Some("registry"));
        assert_eq!(parameter(parameters, "scope").as_deref(), Some("repository:a:pull"));
        assert_eq!(parameter(parameters, "error"), None);
        assert_eq!(parameter("realm=\"open", "realm"), None);
        let several = r#"Basic realm="a, Bearer realm=b", BEARER realm="https://auth.example/token""#;
        let parameters = strip_scheme(several, "bearer").unwrap_or_default();
        assert_eq!(parameter(parameters, "realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(strip_scheme("Basic realm=\"Bearer x\"", "bearer"), None);
    }
}
