//! Who the gateway is for a registry: keys of gateway.yaml, or the configuration of docker.
//!
//! Credential helpers of docker are programs, and the gateway starts none. This module does not
//! know: requests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use serde::Deserialize;

use crate::process::regular_file::read_regular;
use crate::releases::remote::fetch_error::FetchError;
use witgate_config::SourceSettings;

const DOCKER_CONFIG_BYTES_MAX: u64 = 1 << 20;

/// A name and a password.
pub(in crate::releases::remote) type Login = (String, String);

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// The login for a registry. `None`: the registry is read without one.
pub(in crate::releases::remote) fn login(
    registry: &str,
    settings: &SourceSettings,
) -> Result<Option<Login>, FetchError> {
    if let Some((username, password)) = &settings.login {
        return Ok(Some((username.clone(), password.expose().to_owned())));
    }
    let Some(path) = docker_config().filter(|path| path.exists()) else { return Ok(None) };
    // The messages do not show the file, which contains secrets.
    let shown = path.display();
    let bytes = read_regular(&path, DOCKER_CONFIG_BYTES_MAX)
        .map_err(|error| FetchError::new(format_args!("{shown}: {error}")))?;
    let config: DockerConfig = serde_json::from_slice(&bytes)
        .map_err(|error| FetchError::new(format_args!("{shown}: line {} is not valid", error.line())))?;
    Ok(find(&config, registry))
}

fn find(config: &DockerConfig, registry: &str) -> Option<Login> {
    let own = |key: &String| {
        let host = key.trim_start_matches("https://").trim_start_matches("http://");
        host.split('/').next() == Some(registry)
    };
    let auth = config.auths.iter().find(|(key, _)| own(key)).map(|(_, auth)| auth)?;
    if let (Some(username), Some(password)) = (&auth.username, &auth.password) {
        return Some((username.clone(), password.clone()));
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(auth.auth.as_ref()?).ok()?;
    let (username, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

fn docker_config() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_found_by_the_host_of_its_key() -> anyhow::Result<()> {
        let config: DockerConfig = serde_json::from_str(
            r#"{"auths": {"https://a.example/v1/": {"auth": "dTpw"}, "b.example:5000": {"username": "x", "password": "y"}, "c.example": {}}}"#,
        )?;
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(find(&config, "a.example"), pair("u", "p"));
        assert_eq!(find(&config, "b.example:5000"), pair("x", "y"));
        assert_eq!(find(&config, "b.example"), None);
        assert_eq!(find(&config, "c.example"), None);
        Ok(())
    }
}
