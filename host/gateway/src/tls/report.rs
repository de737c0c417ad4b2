//! Log lines and metrics of certificates: loaded, rejected, and when they expire.
//!
//! This module does not know: when files are read.

use std::sync::Arc;
use std::time::SystemTime;

use super::certificate_info::{CertificateInfo, shown_names};
use super::pem::Reason;
use super::watched_files::{Change, FileContent, WatchedFiles};
use crate::telemetry::{
    CertificateFailureLabels, CertificateLabels, Metrics, UpstreamCertificateFailureLabels, UpstreamCertificateLabels,
};

/// The user of a certificate.
#[derive(Clone, Copy)]
pub(super) enum Owner<'a> {
    Listener(&'a str),
    Upstream(&'a str),
}

impl Owner<'_> {
    /// Checks files for changes, and reports new and rejected content. Returns whether new content
    /// is current.
    pub(super) fn check<T: FileContent>(
        self,
        files: &mut WatchedFiles<T>,
        report_again: bool,
        metrics: &Metrics,
    ) -> bool {
        match files.check(report_again) {
            Change::None => false,
            Change::Loaded => {
                self.announce(files);
                true
            }
            Change::Rejected(error) => {
                self.count(metrics, error.reason);
                let (listener, upstream) = self.fields();
                tracing::error!(
                    listener,
                    upstream,
                    file = %error.file.display(),
                    reason = error.reason.label(),
                    why = error.message,
                    "a new certificate file was refused; the previous one stays in service"
                );
                false
            }
        }
    }

    /// Logs that content is in service, with its warnings.
    pub(super) fn announce<T: FileContent>(self, files: &WatchedFiles<T>) {
        let (listener, upstream) = self.fields();
        let file = files.paths.first().map(|path| path.display().to_string());
        if let [info] = files.current.infos() {
            let until = httpdate::fmt_http_date(info.not_after);
            tracing::info!(listener, upstream, file, names = shown_names(info), until, "a certificate is in service");
        } else {
            tracing::info!(
                listener,
                upstream,
                file,
                count = files.current.infos().len(),
                "certificates are in service"
            );
        }
        for why in files.warnings() {
            tracing::warn!(listener, upstream, file, why, "a certificate needs attention");
        }
    }

    /// Logs a problem of all certificates together.
    pub(super) fn warn(self, why: &str) {
        let (listener, upstream) = self.fields();
        tracing::warn!(listener, upstream, why, "a certificate needs attention");
    }

    /// Reports that rustls refused new content.
    pub(super) fn fail(self, metrics: &Metrics, why: &str) {
        self.count(metrics, Reason::Unusable);
        let (listener, upstream) = self.fields();
        tracing::error!(listener, upstream, why, "new certificates are unusable; the previous ones stay in service");
    }

    /// Counts a refused file.
    pub(super) fn count(self, metrics: &Metrics, reason: Reason) {
        let reason = reason.label();
        match self {
            Self::Listener(name) => {
                let labels = CertificateFailureLabels { listener: name.into(), reason };
                metrics.certificate_failures.get_or_create(&labels).inc();
            }
            Self::Upstream(name) => {
                let labels = UpstreamCertificateFailureLabels { upstream: name.into(), reason };
                metrics.upstream_certificate_failures.get_or_create(&labels).inc();
            }
        }
    }

    /// Sets the metric of the first certificate that expires.
    pub(super) fn publish_expiry<T: FileContent>(self, files: &WatchedFiles<T>, metrics: &Metrics) {
        let Some(info) = files.current.infos().iter().min_by_key(|info| info.not_after) else { return };
        let (name, time) = (short_name(info), unix_seconds(info.not_after));
        match self {
            Self::Listener(listener) => {
                let labels = CertificateLabels { listener: listener.into(), name };
                metrics.certificate_expiry.get_or_create(&labels).set(time);
            }
            Self::Upstream(upstream) => {
                let labels = UpstreamCertificateLabels { upstream: upstream.into(), name };
                metrics.upstream_certificate_expiry.get_or_create(&labels).set(time);
            }
        }
    }

    /// The log fields `listener` and `upstream`.
    fn fields(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Listener(name) => (Some(name), None),
            Self::Upstream(name) => (None, Some(name)),
        }
    }
}

/// Removes the metrics of all certificates.
pub(super) fn clear_expiry(metrics: &Metrics) {
    metrics.certificate_expiry.clear();
    metrics.upstream_certificate_expiry.clear();
}

fn short_name(info: &CertificateInfo) -> Arc<str> {
    info.dns_names().next().unwrap_or(&info.subject).into()
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
