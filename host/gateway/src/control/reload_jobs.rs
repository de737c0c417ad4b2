//! Jobs that run beside each other, each on a thread of its own and at most once at a time.
//!
//! A slow job delays only itself: a filter that compiles for a minute delays neither the
//! certificates nor another filter. A request for a job that runs makes it run once more, because
//! its files may have changed after it read them.
//!
//! This module does not know: what the jobs do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Why the files are checked. Of two reasons, the greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// The interval elapsed.
    Interval,
    /// The file watcher reported a change.
    Watch,
    /// SIGHUP. It reloads unchanged files too, and reports known problems again.
    Signal,
}

/// The running jobs.
pub struct ReloadJobs {
    /// The names of the running jobs. The value is the trigger of the next run, if there is one.
    running: Mutex<HashMap<String, Option<Trigger>>>,
    count: watch::Sender<usize>,
}

impl Default for ReloadJobs {
    fn default() -> Self {
        Self { running: Mutex::default(), count: watch::channel(0).0 }
    }
}

impl ReloadJobs {
    /// Runs the job with this name, or once more if it runs already.
    pub fn start(self: &Arc<Self>, name: &str, trigger: Trigger, job: impl Fn(Trigger) + Send + 'static) {
        {
            let mut running = self.lock();
            if let Some(next) = running.get_mut(name) {
                *next = (*next).max(Some(trigger));
                return;
            }
            running.insert(name.to_owned(), None);
        }
        self.count.send_modify(|count| *count += 1);
        let running_job = RunningJob::new(self, name);
        let spawned = std::thread::Builder::new().name("reload".into()).spawn(move || running_job.run(trigger, job));
        if let Err(error) = spawned {
            tracing::error!(%error, job = name, "a reload cannot be started; the next change or interval tries again");
        }
    }

    /// Waits until no job runs.
    pub async fn wait_idle(&self) {
        // An error is impossible: `self` keeps the sender.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Option<Trigger>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running job. Its drop counts it as ended: after a panic, and if its thread did not start.
struct RunningJob {
    jobs: Arc<ReloadJobs>,
    name: String,
    /// Another job may have this name already.
    has_ended: bool,
}

impl RunningJob {
    fn new(jobs: &Arc<ReloadJobs>, name: &str) -> Self {
        Self { jobs: jobs.clone(), name: name.to_owned(), has_ended: false }
    }

    fn run(mut self, mut trigger: Trigger, job: impl Fn(Trigger)) {
        loop {
            job(trigger);
            let mut running = self.jobs.lock();
            match running.get_mut(&self.name).and_then(Option::take) {
                Some(next) => trigger = next,
                None => {
                    // Under the same lock, so that no request for another run is lost.
                    running.remove(&self.name);
                    self.has_ended = true;
                    return;
                }
            }
        }
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(job = self.name, "a reload ended with a panic; the previous state stays in service");
        }
        if !self.has_ended {
            self.jobs.lock().remove(&self.name);
        }
        self.jobs.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_slow_job_delays_only_itself_and_runs_once_more() -> anyhow::Result<()> {
        let jobs = Arc::new(ReloadJobs::default());
        let (started, runs) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let sender = started.clone();
        jobs.start("slow", Trigger::Watch, move |trigger| {
            let _ = sender.send(("slow", trigger));
            let _ = gate.recv();
        });
        assert_eq!(runs.recv()?, ("slow", Trigger::Watch));
        for trigger in [Trigger::Signal, Trigger::Interval] {
            jobs.start("slow", trigger, |_| {});
        }
        jobs.start("other", Trigger::Watch, move |trigger| {
            let _ = started.send(("other", trigger));
        });
        assert_eq!(runs.recv()?, ("other", Trigger::Watch));
        release.send(())?;
        assert_eq!(runs.recv()?, ("slow", Trigger::Signal), "the requests during a run are one more run");
        drop(release);
        jobs.wait_idle().await;
        assert!(runs.try_recv().is_err(), "no third run");
        Ok(())
    }

    #[tokio::test]
    async fn a_job_whose_thread_did_not_start_can_be_started_again() -> anyhow::Result<()> {
        let jobs = Arc::new(ReloadJobs::default());
        // What `start` leaves if the system has no thread.
        jobs.lock().insert("a".into(), None);
        jobs.count.send_modify(|count| *count += 1);
        drop(RunningJob::new(&jobs, "a"));
        jobs.wait_idle().await;
        let (sender, runs) = mpsc::channel();
        jobs.start("a", Trigger::Watch, move |_| {
            let _ = sender.send(());
        });
        Ok(runs.recv_timeout(std::time::Duration::from_secs(10))?)
    }

    #[tokio::test]
    async fn a_panic_ends_its_job_only() {
        let jobs = Arc::new(ReloadJobs::default());
        jobs.start("a", Trigger::Watch, |_| panic!("expected by this test"));
        jobs.wait_idle().await;
        let (sender, runs) = mpsc::channel();
        jobs.start("a", Trigger::Watch, move |_| {
            let _ = sender.send(());
        });
        assert!(runs.recv().is_ok());
    }
}
