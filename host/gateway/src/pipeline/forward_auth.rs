//! Asks an upstream whether a request may pass (nginx's `auth_request`, Traefik's `forwardAuth`).
//!
//! The question is a GET without a body and with the request's fields. A status of 2xx lets the
//! request pass, with the listed fields of the response. Any other response goes to the client. If
//! there is no response, the request fails: a policy that cannot be checked is not met. This module
//! does not know: how a request is sent, what the upstream decides by.

use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};

use crate::telemetry::UpstreamRecord;
use crate::upstream::{Cluster, SendOptions, UpstreamClient};
use witgate_config::ForwardAuth;
use witgate_http::body::{Body, ReadError};
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::fields::remove_with_lookalikes;
use witgate_http::semantics::fields::strip_connection_fields;
use witgate_runtime::exchange::{Exchange, Response};

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// The longest body of a response that refuses the request.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Fields that belong to the request's body or that would make the response depend on a cache.
const NOT_ASKED: [HeaderName; 10] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::EXPECT,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Returns none if the request may pass, otherwise the response for the client.
pub async fn ask(
    auth: &ForwardAuth,
    cluster: &Cluster,
    upstream: &UpstreamClient,
    exchange: &mut Exchange,
) -> Result<Option<Response>, Error> {
    let failed = |error: Error| Error::new(error.kind, format!("forward_auth: {}", error.detail));
    let question = question(auth, exchange)?;
    let mut record = UpstreamRecord::default();
    let client = exchange.client.address.ip();
    let budget = exchange.budget.as_ref();
    let options = SendOptions { client, timeout: None, interim: None, budget, trace: None, record: &mut record };
    let answer = upstream.send(cluster, options, question).await.map_err(failed)?;
    let (mut head, body) = answer.into_parts();
    // The body of a 2xx response is read, too, so that the connection can be used again.
    let body = tokio::time::timeout(cluster.settings.timeout, body.read(BODY_BYTES_MAX)).await;
    if head.status.is_success() {
        copy_fields(&auth.copy, &head.headers, &mut exchange.request.headers);
        return Ok(None);
    }
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(ReadError::Broken(error))) => return Err(failed(error)),
        Ok(Err(ReadError::TooLarge)) => {
            let detail = format!("forward_auth: the response is longer than {BODY_BYTES_MAX} bytes");
            return Err(Error::new(Kind::UpstreamProtocol, detail));
        }
        Err(_) => {
            return Err(Error::new(
                Kind::UpstreamTimeout,
                "forward_auth: the body of the response did not arrive in time",
            ));
        }
    };
    strip_connection_fields(&mut head.headers);
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(Some(Response { status: head.status, headers: head.headers, local: true, body: Some(body) }))
}

fn question(auth: &ForwardAuth, exchange: &Exchange) -> Result<http::Request<Body>, Error> {
    let own = &exchange.request;
    let invalid =
        |what: &str| Error::new(Kind::BadRequest, format!("forward_auth: the {what} is not a valid field value"));
    let path: PathAndQuery = auth
        .path
        .parse()
        .map_err(|_| Error::new(Kind::Internal, "forward_auth: the path is not a valid request target"))?;
    let mut request = http::Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = path.into();
    let mut headers = own.headers.clone();
    for name in &NOT_ASKED {
        headers.remove(name);
    }
    let method = HeaderValue::from_str(own.method.as_str()).map_err(|_| invalid("method"))?;
    let target = HeaderValue::from_str(own.target.as_str()).map_err(|_| invalid("target"))?;
    for (name, value) in [(X_FORWARDED_METHOD, method), (X_FORWARDED_URI, target)] {
        remove_with_lookalikes(&mut headers, &name);
        headers.insert(name, value);
    }
    *request.headers_mut() = headers;
    Ok(request)
}

/// The request gets these fields from the response, and only from there.
fn copy_fields(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        remove_with_lookalikes(to, name);
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_set_a_field_of_the_answer() {
        let user = HeaderName::from_static("x-user");
        let mut request = HeaderMap::from_iter([(user.clone(), HeaderValue::from_static("root"))]);
        copy_fields(std::slice::from_ref(&user), &HeaderMap::new(), &mut request);
        assert!(request.is_empty());
        let answer = HeaderMap::from_iter([(user.clone(), HeaderValue::from_static("ada"))]);
        copy_fields(std::slice::from_ref(&user), &answer, &mut request);
        assert_eq!(request.get(&user), Some(&HeaderValue::from_static("ada")));
    }
}
