//! Rewrites the path and the host of the upstream's request.
//!
//! Rewriting is the last step before the upstream, so that filters and their rules see the path and
//! host that the client sent. The new path is normalized again, because an expression could join
//! parts of the client's path to a dot segment.
//! This module does not know: upstreams, filters.

use http::Uri;
use http::header::HOST;
use http::uri::PathAndQuery;

use witgate_config::{PathMatch, PathRewrite, Pattern, Rewrite};
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::path::{Slashes, normalize_with};

/// Rewrites the request. `path_match` is how the route matches the path.
pub fn apply<B>(
    rewrite: &Rewrite,
    path_match: Option<&PathMatch>,
    slashes: Slashes,
    request: &mut http::Request<B>,
) -> Result<(), Error> {
    if let Some(path) = &rewrite.path {
        let uri = request.uri();
        let new = match path {
            PathRewrite::Prefix(prefix) => with_prefix(uri.path(), path_match, prefix),
            PathRewrite::Regex(pattern, replace) => {
                if uri.path().len() > Pattern::TEXT_BYTES_MAX {
                    return Err(Error::new(
                        Kind::UriTooLong,
                        "the path is too long for the expression of rewrite.path",
                    ));
                }
                pattern.0.is_match(uri.path()).then(|| pattern.0.replace(uri.path(), replace).into_owned())
            }
        };
        if let Some(new) = new {
            *request.uri_mut() = with_path(uri, &new, slashes)?;
        }
    }
    if let Some(host) = &rewrite.host {
        request.headers_mut().insert(HOST, host.clone());
    }
    Ok(())
}

/// `path` with `new` instead of the matched prefix. None if the path does not begin with that
/// prefix (a filter may have changed it).
pub fn with_prefix(path: &str, path_match: Option<&PathMatch>, new: &str) -> Option<String> {
    let matched = match path_match {
        None => "",
        Some(PathMatch::Prefix(prefix)) => prefix.trim_end_matches('/'),
        Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => return None,
    };
    match path.strip_prefix(matched)? {
        "" => Some(new.to_owned()),
        rest if rest.starts_with('/') => Some(format!("{}{rest}", new.trim_end_matches('/'))),
        _ => None,
    }
}

fn with_path(uri: &Uri, new: &str, slashes: Slashes) -> Result<Uri, Error> {
    let wrong = |why: &str| Error::new(Kind::BadRequest, format!("the rewritten path {new:?}: {why}"));
    let path = normalize_with(new, slashes).map_err(wrong)?;
    let target = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(&*path),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.map_err(|error| wrong(&error.to_string()))?);
    Uri::from_parts(parts).map_err(|error| wrong(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(rewrite: &Rewrite, path_match: Option<&PathMatch>, uri: &str) -> Result<String, Error> {
        let mut request = http::Request::new(());
        *request.uri_mut() = uri.parse().unwrap_or_default();
        apply(rewrite, path_match, Slashes::Merge, &mut request)?;
        Ok(request.uri().to_string())
    }

    #[test]
    fn the_matched_prefix_is_replaced() -> Result<(), Error> {
        for (matched, new, path, expected) in [
            ("/v1", "/new", "/v1/x?q=1", "/new/x?q=1"),
            ("/v1", "/new", "/v1", "/new"),
            ("/v1", "/", "/v1/x", "/x"),
            ("/v1", "/", "/v1", "/"),
            ("/v1", "/new/", "/v1/", "/new/"),
            ("/v1/", "/new", "/v1/x", "/new/x"),
            ("/", "/new", "/x", "/new/x"),
            ("/", "/new", "/", "/new/"),
            ("/v1", "/new", "/edited", "/edited"),
            ("/v1", "/new", "/v10", "/v10"),
        ] {
            let rewrite = Rewrite { path: Some(PathRewrite::Prefix(new.into())), host: None };
            let matched = PathMatch::Prefix(matched.into());
            assert_eq!(rewritten(&rewrite, Some(&matched), path)?, expected, "{matched:?} {new} {path}");
        }
        Ok(())
    }

    #[test]
    fn the_result_of_an_expression_is_normalized() -> Result<(), Error> {
        let rule = |regex: &str, replace: &str| Rewrite {
            path: regex::Regex::new(regex).ok().map(|regex| PathRewrite::Regex(Pattern(regex), replace.into())),
            host: None,
        };
        assert_eq!(rewritten(&rule("^/v[0-9]+/(.*)", "/$1"), None, "/v12/a/b?q")?, "/a/b?q");
        assert_eq!(rewritten(&rule("^/v[0-9]+/(.*)", "/$1"), None, "/w/a")?, "/w/a");
        assert_eq!(
            rewritten(&rule("^/x/(.*)y/(.*)", "/$1$2"), None, "/x/.y/./a")?,
            "/a",
            "dots that meet are a dot segment"
        );
        assert!(rewritten(&rule("^/x/(.*)", "$1"), None, "/x/a").is_err());
        Ok(())
    }
}
