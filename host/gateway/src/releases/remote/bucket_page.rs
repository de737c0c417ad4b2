//! An object in a bucket that several gateways read and write.
//!
//! A write names the version that was read, and the server refuses it if another one is there. An
//! unchanged object is not sent again. This module does not know: what the page says.

use tokio::sync::Mutex;

use super::bucket::{Bucket, ObjectVersion, Read};
use crate::releases::shared::Page;
use witgate_config::{ReleaseBucket, RemoteKind};

/// The largest page. It lists at most 64 gateways, each with a sentence of 1,000 characters.
const PAGE_BYTES_MAX: u64 = 512 << 10;

/// The page of one filter.
pub struct BucketPage {
    location: String,
    bucket: Bucket,
    /// What was read or written last, and its version. `None`: there is no object.
    known: Mutex<Option<(Page, ObjectVersion)>>,
}

impl BucketPage {
    /// A page at a location, which is not read yet.
    ///
    /// # Errors
    /// The settings of the location cannot be used.
    pub fn open(place: &ReleaseBucket) -> Result<Self, String> {
        let RemoteKind::Bucket(object) = &place.location.kind else { return Err("it is not in a bucket".into()) };
        let bucket = Bucket::open(object, &place.settings).map_err(|error| error.message)?;
        Ok(Self { location: place.location.text.clone(), bucket, known: Mutex::default() })
    }

    /// The location of the object.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Reads the page. It is empty if there is no object.
    ///
    /// # Errors
    /// Why the server did not answer, or what it answered.
    pub async fn read(&self) -> Result<Page, String> {
        let mut known = self.known.lock().await;
        let version = known.as_ref().map(|(_, version)| version);
        match self.bucket.read(version, PAGE_BYTES_MAX).await.map_err(|error| error.message)? {
            Read::Unchanged => {}
            Read::Missing => *known = None,
            Read::Found(bytes, version) => {
                let page = serde_json::from_slice(&bytes).map_err(|error| {
                    format!(
                        "{} is not a page of decisions ({error}): delete the object, or use another folder",
                        self.location
                    )
                })?;
                *known = Some((page, version));
            }
        }
        Ok(known.as_ref().map(|(page, _)| page.clone()).unwrap_or_default())
    }

    /// Writes the page in the place of the one that was read. Returns false if another gateway
    /// wrote since.
    ///
    /// # Errors
    /// Why the server did not take it.
    pub async fn write(&self, page: &Page) -> Result<bool, String> {
        let mut known = self.known.lock().await;
        let bytes = serde_json::to_vec(page).map_err(|error| error.to_string())?;
        let version = known.as_ref().map(|(_, version)| version);
        let written = self.bucket.replace(bytes, version).await.map_err(|error| error.message)?;
        let is_written = written.is_some();
        // After a refusal the version that is known is old.
        if let Some(version) = written {
            *known = Some((page.clone(), version));
        }
        Ok(is_written)
    }
}
