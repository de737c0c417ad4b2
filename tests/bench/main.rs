//! `just bench`: witgate and other gateways with the same filter, side by side in one run, and how far witgate is from its targets.
//!
//! Read in this order: `cases` (what is compared), `witgate` and `peers` (how it is started), `load` and `upstream` (what measures),
//! `machine` (CPU, memory, cores), `memory`, `swap`, `scaling` (the measures of witgate alone), `results`, `targets`, `report`, `plot`.
//!
//! A gateway's number is the CPU that its processes used (utime + stime) over what they answered. It has a core of its own; load and upstream
//! share another. Rounds alternate between the cases, so that noise of the machine falls on all. Ratios within a run count.

mod cases;
mod load;
mod machine;
mod memory;
mod peers;
mod plot;
mod progress;
mod report;
mod results;
mod scaling;
mod swap;
mod targets;
mod upstream;
mod witgate;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;

use crate::cases::{CASES, Running, Sandbox, minimum, percentile};
use crate::load::{Driver, KEY, Target};
use crate::machine::{Cores, Noise};
use crate::peers::{NOT_STARTED, PEERS, Peer, Place};
use crate::progress::Progress;
use crate::results::Results;
use crate::witgate::Ours;

const CONNECTIONS: usize = 64;
const OPEN_CONNECTIONS: u32 = 32;
const OPEN_RATE: u32 = 1000;

/// Compares witgate with other gateways; installs them below target/bench.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// Only these peers; `none` for witgate alone
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Short rounds, to see that all works: the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Print the tables only, and leave docs/ alone
    #[arg(long)]
    no_write: bool,
    /// Also reload a filter 100 times with 10,000 requests after each (minutes)
    #[arg(long)]
    reloads: bool,
}

/// How long all takes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    closed_rounds: usize,
    closed: Duration,
    open_rounds: usize,
    open: Duration,
    swaps: usize,
    memory: Duration,
}

const FULL: Pace = Pace {
    closed_rounds: 7,
    closed: Duration::from_millis(1500),
    open_rounds: 3,
    open: Duration::from_secs(3),
    swaps: 5,
    memory: Duration::from_secs(5),
};
const QUICK: Pace = Pace {
    closed_rounds: 1,
    closed: Duration::from_millis(300),
    open_rounds: 1,
    open: Duration::from_millis(800),
    swaps: 1,
    memory: Duration::from_secs(1),
};

/// What every measure needs.
struct Bench {
    driver: Driver,
    upstream: SocketAddr,
    cores: Cores,
    pace: Pace,
    progress: Progress,
    results: Results,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let chosen = options.chosen()?;
    let pace = if options.quick { QUICK } else { FULL };
    let cores = Cores::choose()?;
    let driver = Driver::new(cores.load)?;
    let upstream = driver.run(upstream::start())?;
    let rounds = (pace.closed_rounds + 1 + pace.open_rounds) * CASES.len();
    let steps = chosen.len() + 3 * pace.swaps + 4 + rounds + if options.reloads { 10 } else { 0 };
    let load_before = machine::load_average();
    let noise = Noise::now();
    let mut bench =
        Bench { driver, upstream, cores, pace, progress: Progress::new(steps), results: Results::default() };
    let peers = bench.peers(&chosen)?;
    bench.alone(options.reloads);
    bench.compare(&peers)?;
    bench.results.run.noise = bench.noise(&load_before, noise);
    bench.results.run.seconds = bench.progress.seconds();
    bench.results.run.command = options.command();
    bench.results.run.machine = machine::describe(cores);
    bench.results.run.commit = commit();
    bench.progress.note("done");
    println!("{}", report::markdown(&bench.results));
    if !options.no_write {
        report::write(&bench.results)?;
    }
    Ok(())
}

impl Options {
    /// Names of peers, all known.
    fn chosen(&self) -> Result<Vec<&'static str>> {
        let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        let Some(asked) = &self.peers else { return Ok(known) };
        let asked: Vec<&String> = asked.iter().filter(|name| *name != "none").collect();
        if let Some(unknown) = asked.iter().find(|name| !known.contains(&name.as_str())) {
            bail!("--peers {unknown}: there are {}", known.join(", "));
        }
        Ok(known.into_iter().filter(|name| asked.iter().any(|asked| asked == name)).collect())
    }

    /// What a person types to do it again.
    fn command(&self) -> String {
        let mut text = "npx -y rust-just bench".to_owned();
        if let Some(peers) = &self.peers {
            text.push_str(&format!(" --peers {}", peers.join(",")));
        }
        for (is_set, name) in [(self.quick, " --quick"), (self.reloads, " --reloads")] {
            text.push_str(if is_set { name } else { "" });
        }
        text
    }
}

impl Bench {
    /// Installs and starts the peers; one that does not come is noted.
    fn peers(&mut self, chosen: &[&str]) -> Result<Vec<Peer>> {
        let folder = harness::repository().join("target/bench");
        let place = Place { folder, upstream: self.upstream, cores: self.cores };
        let mut peers = vec![];
        for known in PEERS.iter().filter(|known| chosen.contains(&known.name)) {
            self.progress.step(&format!("installing and starting {}", known.name));
            match (known.start)(&place) {
                Ok(peer) => {
                    self.results.versions.push(peer.version.clone());
                    peers.push(peer);
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    let why = if why.starts_with(NOT_STARTED) { why } else { format!("not installed: {why}") };
                    self.progress.note(&format!("{}: {why}", known.name));
                    for case in CASES.iter().filter(|case| case.gateway == known.name) {
                        self.results.missing.insert(case.id, why.clone());
                    }
                }
            }
        }
        Ok(peers)
    }

    /// What is measured of witgate alone. A part that fails is noted, and the run goes on.
    fn alone(&mut self, with_reloads: bool) {
        let Self { driver, upstream, cores, pace, progress, results } = self;
        progress.step("memory: idle, then 500 connections");
        let resting = memory::load(driver, *upstream, pace.memory);
        let swaps = swap::swaps(driver, *upstream, *cores, pace.swaps, |language| {
            progress.step(&format!("swaps of a filter in {language}"));
        });
        match swaps {
            Ok(swaps) => results.swaps = swaps,
            Err(error) => progress.note(&format!("swaps: {error:#}")),
        }
        if with_reloads {
            let growth = memory::growth(driver, *upstream, |reload| {
                if reload % 10 == 1 {
                    progress.step(&format!("reload {reload} of 100"));
                }
            });
            match growth {
                Ok(growth) => results.growth = Some(growth),
                Err(error) => progress.note(&format!("reloads: {error:#}")),
            }
        }
        progress.step("two workers");
        match scaling::scaling(cores.four, 3 * pace.closed) {
            Ok(scaling) => results.scaling = Some(scaling),
            Err(error) => progress.note(&format!("two workers: {error:#}")),
        }
        progress.step("memory: half a minute after the load");
        match resting.and_then(memory::Resting::done) {
            Ok(memory) => results.memory = Some(memory),
            Err(error) => progress.note(&format!("memory: {error:#}")),
        }
    }

    /// The rounds over all cases that run.
    fn compare(&mut self, peers: &[Peer]) -> Result<()> {
        self.progress.step("starting witgate");
        let Ours { gateway, cases, missing } = witgate::start(self.upstream, self.cores.gateway, 1)?;
        self.results.missing.extend(missing);
        let mut running = vec![];
        for case in cases.iter().chain(peers.iter().flat_map(|peer| &peer.cases)) {
            match self.driver.run(check(case)) {
                Ok(()) => running.push(case.clone()),
                Err(error) => self.fail(case.id, &format!("does not do the filter's job: {error:#}")),
            }
        }
        self.progress.expect((self.pace.closed_rounds + 1 + self.pace.open_rounds) * running.len());
        // The first round only warms up.
        for round in 0..=self.pace.closed_rounds {
            self.round(&mut running, &format!("CPU, round {round} of {}", self.pace.closed_rounds), |bench, case| {
                bench.closed(case, round > 0)
            });
        }
        for round in 1..=self.pace.open_rounds {
            self.round(&mut running, &format!("latency, round {round} of {}", self.pace.open_rounds), Self::open);
        }
        self.results.run.rounds = self.pace.closed_rounds;
        drop(gateway);
        Ok(())
    }

    /// One measure over all cases; one that fails is left out from then on.
    fn round(&mut self, running: &mut Vec<Running>, what: &str, measure: impl Fn(&mut Self, &Running) -> Result<()>) {
        running.retain(|case| {
            self.progress.step(&format!("{what}: {}", title(case.id)));
            let measured = measure(self, case);
            if let Err(error) = &measured {
                self.fail(case.id, &format!("failed under load: {error:#}"));
            }
            measured.is_ok()
        });
    }

    fn fail(&mut self, id: &'static str, why: &str) {
        self.progress.note(&format!("{}: {why}", title(id)));
        self.results.readings.remove(id);
        self.results.missing.insert(id, why.to_owned());
    }

    fn closed(&mut self, case: &Running, counts: bool) -> Result<()> {
        let target = Target::new(case.address, &case.path, KEY);
        let length = self.pace.closed;
        let before = machine::cpu(case.process)?;
        let answered = self.driver.run(load::closed(&target, CONNECTIONS, length, u64::MAX))?;
        let used = machine::cpu(case.process)? - before;
        ensure!(answered > 0 && used > 0.0, "nothing was answered");
        if counts {
            let readings = self.results.readings.entry(case.id).or_default();
            readings.cpu.push(used / answered as f64);
            readings.rate.push(answered as f64 / length.as_secs_f64());
        }
        Ok(())
    }

    fn open(&mut self, case: &Running) -> Result<()> {
        let target = Target::new(case.address, &case.path, KEY);
        let stop = Arc::new(AtomicBool::new(false));
        let open = load::open(&target, OPEN_CONNECTIONS, OPEN_RATE, self.pace.open, stop);
        let seen = self.driver.run(open)?;
        let readings = self.results.readings.entry(case.id).or_default();
        readings.p50.extend(percentile(&seen.answers, 0.5));
        readings.p99.extend(percentile(&seen.answers, 0.99));
        self.results.run.late.extend(percentile(&seen.late, 0.99));
        Ok(())
    }

    /// What else ran, in words.
    fn noise(&self, load_before: &str, noise: Noise) -> String {
        let plain = self.results.readings.get("plain");
        let spread = plain.and_then(|readings| {
            let most = readings.cpu.iter().copied().max_by(f64::total_cmp)?;
            Some(100.0 * (most / minimum(&readings.cpu)? - 1.0))
        });
        format!(
            "load average {load_before} before the start, {:.1} % of the time stolen by the hypervisor, rounds of the plain proxy within {:.0} %",
            noise.stolen(),
            spread.unwrap_or_default()
        )
    }
}

/// A case does the job before it is measured: what the upstream sees is asked of the upstream.
async fn check(case: &Running) -> Result<()> {
    let path = format!("{}?seen", case.path);
    let passed = load::once(&Target::new(case.address, &path, KEY)).await?;
    ensure!(passed.status == 200, "status {} with the right key", passed.status);
    let seen = passed.body.to_ascii_lowercase();
    ensure!(seen.contains("x-api-key: s3cret"), "the upstream did not get the request's fields");
    if CASES.iter().any(|known| known.id == case.id && known.sandbox == Sandbox::Plain) {
        return Ok(());
    }
    for field in ["x-user: alice", "authorization: redacted", "cookie: redacted"] {
        ensure!(seen.contains(field), "the upstream did not get {field:?}");
    }
    let wrong = load::once(&Target::new(case.address, &path, "x-api-key: wrong\r\n")).await?;
    ensure!(wrong.status == 401, "status {} with a wrong key", wrong.status);
    Ok(())
}

fn title(id: &str) -> &'static str {
    CASES.iter().find(|case| case.id == id).map_or("", |case| case.title)
}

/// The source that was measured, as far as git knows.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude", "*"]).current_dir(harness::repository());
    machine::says(&mut git).context("no git").unwrap_or_else(|_| "of unknown source".into())
}
