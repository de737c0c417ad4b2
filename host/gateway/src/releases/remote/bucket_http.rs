//! The HTTP client of the library object_store: it follows no redirects and reads bounded bodies.
//!
//! Without it the library follows ten redirects to any address, and reads the text of an error
//! whatever its length. This module does not know: buckets, credentials.

use std::future::Future;
use std::pin::Pin;

use http_body_util::{BodyExt as _, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use super::fetch_error::FetchError;
use super::http;
use witgate_config::SourceSettings;
use witgate_runtime::component::FILE_BYTES_MAX;

const ERROR_BYTES_MAX: usize = 1 << 20;

/// A client without redirects.
#[derive(Debug, Clone)]
pub(super) struct BoundedHttp(reqwest::Client);

impl BoundedHttp {
    pub(super) fn new(settings: &SourceSettings) -> Result<Self, FetchError> {
        Ok(Self(http::builder(settings)?.build()?))
    }
}

impl HttpConnector for BoundedHttp {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for BoundedHttp {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let response = self.0.call(request).await?;
            let bytes_max = if response.status().is_success() { FILE_BYTES_MAX as usize } else { ERROR_BYTES_MAX };
            Ok(response.map(|body| {
                let limited = Limited::new(body, bytes_max);
                HttpResponseBody::new(limited.map_err(|error| HttpError::new_boxed(HttpErrorKind::Unknown, error)))
            }))
        })
    }
}
