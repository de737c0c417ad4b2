//! `just bench`: compares witgate with other gateways that run the same filter, and with its
//! targets.
//!
//! Read in this order: `options`, `cases` (what is compared), `witgate` and `peers` (how gateways
//! start), `load` and `upstream` (what generates and receives requests), `machine` (CPU, memory,
//! cores), `memory`, `swap`, `scaling` and `telemetry` (measurements of witgate alone), `services`
//! (tokens and components), `transfers` and `generators` (bodies, HTTP/2 and idle connections),
//! `results`, `targets`, `report`, `plot`.
//!
//! The CPU of a gateway is the user and system time of its processes, divided by the number of
//! responses. The gateway has one core; load and upstream share another. Rounds alternate between
//! the cases, so that noise affects all of them. Only ratios within one run are meaningful.

mod cases;
mod generators;
mod load;
mod machine;
mod memory;
mod options;
mod peers;
mod plot;
mod progress;
mod report;
mod results;
mod scaling;
mod services;
mod swap;
mod targets;
mod telemetry;
mod transfers;
mod upstream;
mod witgate;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use clap::Parser as _;

use crate::cases::{CASES, RunningCase, Sandbox, minimum, percentile};
use crate::load::{CONNECTIONS, Driver, KEY, Target};
use crate::machine::{Cores, Noise};
use crate::options::{FULL, Lengths, Options, QUICK};
use crate::peers::{Environment, NOT_STARTED, PEERS, Peer};
use crate::progress::Progress;
use crate::results::Results;
use crate::witgate::Witgate;

const OPEN_CONNECTIONS: u32 = 32;
const OPEN_RATE: u32 = 1000;

/// What every measurement needs.
struct Bench {
    driver: Driver,
    upstream: SocketAddr,
    cores: Cores,
    lengths: Lengths,
    progress: Progress,
    results: Results,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let chosen = options.chosen()?;
    let lengths = if options.quick { QUICK } else { FULL };
    let cores = Cores::choose()?;
    let driver = Driver::new(cores.load)?;
    let upstream = driver.run(upstream::start())?;
    let rounds = (lengths.closed_rounds + 1 + lengths.open_rounds) * CASES.len();
    if options.services {
        let environment = Environment::new(harness::repository().join("target/bench"), upstream, cores)?;
        return services::measure(&environment, lengths);
    }
    if options.telemetry {
        return telemetry::measure(&driver, upstream, cores, lengths);
    }
    let steps = chosen.len() + 3 * lengths.swaps + 4 + rounds + if options.reloads { 10 } else { 0 };
    let load_before = machine::load_average();
    let noise = Noise::now();
    let mut bench =
        Bench { driver, upstream, cores, lengths, progress: Progress::new(steps), results: Results::default() };
    if options.transfers {
        bench.measure_transfers(&chosen);
        println!("{}", report::transfers(&bench.results));
        return Ok(());
    }
    let peers = bench.start_peers(&chosen)?;
    bench.measure_witgate(options.reloads);
    bench.compare(&peers)?;
    drop(peers);
    bench.measure_transfers(&chosen);
    bench.results.run.noise = bench.describe_noise(&load_before, noise);
    bench.results.run.seconds = bench.progress.seconds();
    bench.results.run.command = options.command();
    bench.results.run.machine = machine::describe(cores);
    bench.results.run.commit = commit();
    bench.progress.print("done");
    println!("{}", report::markdown(&bench.results));
    if !options.no_write {
        report::write(&bench.results)?;
    }
    Ok(())
}

impl Bench {
    /// Installs and starts the peers. If one cannot start, the results say why.
    fn start_peers(&mut self, chosen: &[&str]) -> Result<Vec<Peer>> {
        let environment = self.environment()?;
        let mut peers = vec![];
        for known in PEERS.iter().filter(|known| chosen.contains(&known.name)) {
            self.progress.step(&format!("installing and starting {}", known.name));
            match (known.start)(&environment) {
                Ok(peer) => {
                    self.results.versions.push(peer.version.clone());
                    peers.push(peer);
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    let why = if why.starts_with(NOT_STARTED) { why } else { format!("not installed: {why}") };
                    self.progress.print(&format!("{}: {why}", known.name));
                    for case in CASES.iter().filter(|case| case.gateway == known.name) {
                        self.results.missing.insert(case.id, why.clone());
                    }
                }
            }
        }
        Ok(peers)
    }

    fn environment(&self) -> Result<Environment> {
        Environment::new(harness::repository().join("target/bench"), self.upstream, self.cores)
    }

    /// Measures bodies, HTTP/2 and idle connections. If that fails, the results say why.
    fn measure_transfers(&mut self, chosen: &[&str]) {
        self.progress.expect(chosen.len() + (self.lengths.transfer_rounds + 1) * transfers::MEASURES.len());
        let measured = self
            .environment()
            .and_then(|environment| transfers::measure(&environment, chosen, self.lengths, &mut self.progress));
        match measured {
            Ok(transfers) => self.results.transfers = transfers,
            Err(error) => {
                self.progress.print(&format!("bodies and HTTP/2: {error:#}"));
                self.results.transfers.missing.push(format!("{error:#}"));
            }
        }
        self.results.transfers.missing.iter().for_each(|why| self.progress.print(why));
    }

    /// Measures what concerns witgate alone. If a part fails, the error is printed and the run goes
    /// on.
    fn measure_witgate(&mut self, with_reloads: bool) {
        let Self { driver, upstream, cores, lengths, progress, results } = self;
        progress.step("memory: idle, then 500 connections");
        let resting = memory::load(driver, *upstream, lengths.memory);
        let swaps = swap::swaps(driver, *upstream, *cores, lengths.swaps, |language| {
            progress.step(&format!("swaps of a filter in {language}"));
        });
        match swaps {
            Ok(swaps) => results.swaps = swaps,
            Err(error) => progress.print(&format!("swaps: {error:#}")),
        }
        if with_reloads {
            let growth = memory::growth(driver, *upstream, |reload| {
                if reload % 10 == 1 {
                    progress.step(&format!("reload {reload} of 100"));
                }
            });
            match growth {
                Ok(growth) => results.growth = Some(growth),
                Err(error) => progress.print(&format!("reloads: {error:#}")),
            }
        }
        progress.step("two workers");
        match scaling::scaling(cores.four, 3 * lengths.closed) {
            Ok(scaling) => results.scaling = Some(scaling),
            Err(error) => progress.print(&format!("two workers: {error:#}")),
        }
        progress.step("memory: half a minute after the load");
        match resting.and_then(memory::RestingGateway::finish) {
            Ok(memory) => results.memory = Some(memory),
            Err(error) => progress.print(&format!("memory: {error:#}")),
        }
    }

    /// Runs all rounds over all cases that work.
    fn compare(&mut self, peers: &[Peer]) -> Result<()> {
        self.progress.step("starting witgate");
        let Witgate { gateway, cases, missing } = witgate::start(self.upstream, self.cores.gateway, 1)?;
        self.results.missing.extend(missing);
        let mut running = vec![];
        for case in cases.iter().chain(peers.iter().flat_map(|peer| &peer.cases)) {
            match self.driver.run(check(case)) {
                Ok(()) => running.push(case.clone()),
                Err(error) => self.fail(case.id, &format!("does not do what the filter must do: {error:#}")),
            }
        }
        self.progress.expect((self.lengths.closed_rounds + 1 + self.lengths.open_rounds) * running.len());
        // The first round is a warm-up.
        for round in 0..=self.lengths.closed_rounds {
            self.round(
                &mut running,
                &format!("CPU, round {round} of {}", self.lengths.closed_rounds),
                |bench, case| bench.closed_loop(case, round > 0),
            );
        }
        for round in 1..=self.lengths.open_rounds {
            self.round(
                &mut running,
                &format!("latency, round {round} of {}", self.lengths.open_rounds),
                Self::open_loop,
            );
        }
        self.results.run.rounds = self.lengths.closed_rounds;
        drop(gateway);
        Ok(())
    }

    /// Measures every case once. A case that fails is left out of later rounds.
    fn round(
        &mut self,
        running: &mut Vec<RunningCase>,
        what: &str,
        measure: impl Fn(&mut Self, &RunningCase) -> Result<()>,
    ) {
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
        self.progress.print(&format!("{}: {why}", title(id)));
        self.results.readings.remove(id);
        self.results.missing.insert(id, why.to_owned());
    }

    /// Measures CPU and throughput in a closed loop. `counts` is false in the warm-up round.
    fn closed_loop(&mut self, case: &RunningCase, counts: bool) -> Result<()> {
        let target = Target::new(case.address, &case.path, KEY);
        let length = self.lengths.closed;
        let before = machine::cpu(case.process)?;
        let answered = self.driver.run(load::closed_loop(&target, CONNECTIONS, length, u64::MAX))?;
        let used = machine::cpu(case.process)? - before;
        ensure!(answered > 0 && used > 0.0, "the gateway gave no response");
        if counts {
            let readings = self.results.readings.entry(case.id).or_default();
            readings.cpu.push(used / answered as f64);
            readings.rate.push(answered as f64 / length.as_secs_f64());
        }
        Ok(())
    }

    /// Measures latency in an open loop.
    fn open_loop(&mut self, case: &RunningCase) -> Result<()> {
        let target = Target::new(case.address, &case.path, KEY);
        let stop = Arc::new(AtomicBool::new(false));
        let latencies = load::open_loop(&target, OPEN_CONNECTIONS, OPEN_RATE, self.lengths.open, stop);
        let latencies = self.driver.run(latencies)?;
        let readings = self.results.readings.entry(case.id).or_default();
        readings.p50.extend(percentile(&latencies.responses, 0.5));
        readings.p99.extend(percentile(&latencies.responses, 0.99));
        self.results.run.late.extend(percentile(&latencies.late, 0.99));
        Ok(())
    }

    /// Describes how noisy the machine was.
    fn describe_noise(&self, load_before: &str, noise: Noise) -> String {
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

/// Checks that a case does what the filter must do, by asking the upstream what it received.
async fn check(case: &RunningCase) -> Result<()> {
    let path = format!("{}?seen", case.path);
    let passed = load::single_request(&Target::new(case.address, &path, KEY)).await?;
    ensure!(passed.status == 200, "status {} with the right key", passed.status);
    let received = passed.body.to_ascii_lowercase();
    ensure!(received.contains("x-api-key: s3cret"), "the upstream did not receive the request's fields");
    if CASES.iter().any(|known| known.id == case.id && known.sandbox == Sandbox::Plain) {
        return Ok(());
    }
    for field in ["x-user: alice", "authorization: redacted", "cookie: redacted"] {
        ensure!(received.contains(field), "the upstream did not receive {field:?}");
    }
    let wrong = load::single_request(&Target::new(case.address, &path, "x-api-key: wrong\r\n")).await?;
    ensure!(wrong.status == 401, "status {} with a wrong key", wrong.status);
    Ok(())
}

fn title(id: &str) -> &'static str {
    CASES.iter().find(|case| case.id == id).map_or("", |case| case.title)
}

/// The commit of the sources, with `-dirty` after it if they were modified.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude", "*"]).current_dir(harness::repository());
    machine::first_line(&mut git).unwrap_or_else(|| "of unknown source".into())
}
