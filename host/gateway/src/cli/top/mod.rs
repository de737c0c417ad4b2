//! `witgate top`: routes, filters and upstreams of a running gateway, refreshed every second.
//!
//! It reads what a scraper and the console read, and computes rates from two readings. `sample`
//! reads, `rows` computes, `view` draws. This module does not know: how the numbers are measured.

mod rows;
mod sample;
mod view;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};

use super::admin_client::{Target, TargetOptions};
use super::output;
use rows::Rows;
use sample::Sample;

const INTERVAL: Duration = Duration::from_secs(1);
/// The width of the output without a terminal.
const PLAIN_COLUMNS: u16 = 132;

/// The options of `top`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    gateway: TargetOptions,
    /// Print the numbers of one second and exit, as without a terminal
    #[arg(long)]
    once: bool,
}

pub(super) fn run(options: Options) -> Result<(), String> {
    let Options { gateway, once } = options;
    let target = gateway.target()?;
    let first = Sample::read(&target)?;
    if once || !std::io::stdout().is_terminal() {
        std::thread::sleep(INTERVAL);
        let rows = Rows::between(&first, &Sample::read(&target)?);
        return view::as_text(&rows, &target.endpoint.to_string(), PLAIN_COLUMNS).lines().try_for_each(output::print);
    }
    let mut terminal = ratatui::try_init().map_err(|error| format!("the terminal cannot be used: {error}"))?;
    let ended = refresh(&mut terminal, &target, first);
    ratatui::restore();
    ended
}

/// Draws until the user leaves. A gateway that does not answer is shown as such and asked again.
fn refresh(terminal: &mut ratatui::DefaultTerminal, target: &Target, first: Sample) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("the terminal cannot be used: {error}");
    let title = target.endpoint.to_string();
    let (mut last, mut rows, mut problem) = (first, Rows::default(), None);
    loop {
        terminal.draw(|frame| view::draw(frame, &rows, &title, problem.as_deref())).map_err(fail)?;
        let next = Instant::now() + INTERVAL;
        while event::poll(next.saturating_duration_since(Instant::now())).map_err(fail)? {
            if is_end(&event::read().map_err(fail)?) {
                return Ok(());
            }
            terminal.draw(|frame| view::draw(frame, &rows, &title, problem.as_deref())).map_err(fail)?;
        }
        match Sample::read(target) {
            Ok(sample) => {
                rows = Rows::between(&last, &sample);
                (last, problem) = (sample, None);
            }
            Err(why) => problem = Some(why),
        }
    }
}

/// `q`, Escape or ^C.
fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}
