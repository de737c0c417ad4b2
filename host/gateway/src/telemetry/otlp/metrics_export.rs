//! Sends the metrics to the OTLP receiver at an interval, from a thread of its own.
//!
//! The thread reads the settings before each export, so a reload needs no other step. A failed
//! export loses nothing but time: values are cumulative. This module does not know: what is sent.

use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::client::OtlpClient;
use super::metric_data::{Times, export_request};
use super::resource::resource;
use witgate_config::Telemetry;

/// The time for the last export when the gateway ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The thread that exports metrics.
pub struct MetricsExport {
    finish: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// Where the thread gets what it needs.
pub struct MetricsSource<S, R> {
    /// The current settings.
    pub settings: S,
    /// The metrics as OpenMetrics text.
    pub read: R,
    /// Notified after each reload.
    pub reloaded: watch::Receiver<()>,
    /// Exports that the receiver accepted, and exports that failed.
    pub counters: [Counter; 2],
}

impl MetricsExport {
    /// Starts the thread. It does nothing while the settings have no receiver.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start<S, R>(source: MetricsSource<S, R>) -> std::io::Result<Self>
    where
        S: Fn() -> Telemetry + Send + 'static,
        R: Fn() -> String + Send + 'static,
    {
        let (finish, finished) = watch::channel(false);
        let thread = std::thread::Builder::new().name("metrics-export".into()).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(run(source, finished)),
                Err(error) => tracing::error!(%error, "metrics are not exported: the thread has no runtime"),
            }
        })?;
        Ok(Self { finish, thread })
    }

    /// Sends the last numbers, and ends. For at most two seconds.
    pub fn finish(self) {
        self.finish.send_replace(true);
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn run<S, R>(mut source: MetricsSource<S, R>, mut finished: watch::Receiver<bool>)
where
    S: Fn() -> Telemetry,
    R: Fn() -> String,
{
    let started = nanos();
    let mut receiver: Option<(Telemetry, OtlpClient)> = None;
    let mut has_failed = false;
    let mut last = Instant::now();
    loop {
        let settings = (source.settings)();
        if receiver.as_ref().is_some_and(|(known, _)| *known != settings) {
            receiver = None;
        }
        let Some(interval) = settings.metrics.filter(|_| settings.otlp.is_some()) else {
            tokio::select! {
                _ = source.reloaded.changed() => continue,
                _ = finished.wait_for(|is_finished| *is_finished) => return,
            }
        };
        let is_last = tokio::select! {
            () = tokio::time::sleep((last + interval).saturating_duration_since(Instant::now())) => false,
            _ = finished.wait_for(|is_finished| *is_finished) => true,
            _ = source.reloaded.changed() => continue,
        };
        last = Instant::now();
        let sent = match connect(&mut receiver, &settings) {
            Ok(client) => {
                let times = Times { start: started, now: nanos() };
                client.send_metrics(export_request(&(source.read)(), resource(&settings), times)).await
            }
            Err(why) => Err(why),
        };
        source.counters[usize::from(sent.is_err())].inc();
        let endpoint = settings.otlp.as_ref().map(|otlp| otlp.endpoint.as_str());
        match &sent {
            Err(error) if !has_failed => tracing::warn!(endpoint, error, "metrics cannot be exported"),
            Ok(_) if has_failed => tracing::info!(endpoint, "metrics are exported again"),
            Ok(rejected) if *rejected > 0 => tracing::warn!(endpoint, rejected, "data points of metrics were rejected"),
            _ => {}
        }
        has_failed = sent.is_err();
        if is_last {
            return;
        }
    }
}

fn connect<'r>(
    receiver: &'r mut Option<(Telemetry, OtlpClient)>,
    settings: &Telemetry,
) -> Result<&'r OtlpClient, String> {
    if receiver.is_none() {
        let otlp = settings.otlp.as_ref().ok_or("there is no receiver")?;
        *receiver = Some((settings.clone(), OtlpClient::new(otlp)?));
    }
    receiver.as_ref().map(|(_, client)| client).ok_or_else(|| "there is no receiver".into())
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
