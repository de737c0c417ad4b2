//! Runs the examples of a filter, and compares what happens with what its author expects.
//!
//! An example is a request with the state in which it arrives (`witgate_manifest::Example`). The
//! filter runs as in the gateway: in the same runtime, under the limits that the operator set, in a
//! fresh instance for each call. Only the services are others: each example has a key-value store
//! and a limiter of its own, so that a run changes nothing outside of it.
//!
//! `run` makes an [`Outcome`] of an example, `compare` finds the differences to what is expected,
//! `changes` describes what differs between two outcomes. This crate does not know: files,
//! terminals, routes.

mod changes;
mod compare;
mod run;
mod services;

pub use changes::changes;
pub use compare::{Difference, compare};
pub use run::{Outcome, Runner, SeenRequest, SeenResponse};
pub use witgate_manifest::{
    Action, EXAMPLES_BYTES_MAX, EXAMPLES_MAX, EXAMPLES_SECTION, Example, ExampleClient, ExampleRequest,
    ExampleResponse, Expectation, ExpectedRequest, ExpectedResponse, FieldLines, Pattern,
};

/// The result of one example.
#[derive(Debug)]
pub struct Report {
    /// The name of the example.
    pub name: String,
    /// What happened, or why the example cannot be run.
    pub outcome: Result<Outcome, String>,
    /// What is not as expected. Empty if the example passed.
    pub differences: Vec<Difference>,
}

impl Report {
    /// Whether everything was as expected.
    pub fn passed(&self) -> bool {
        self.outcome.is_ok() && self.differences.is_empty()
    }
}

/// Runs examples one after the other.
pub async fn run_examples(runner: &Runner, examples: &[Example]) -> Vec<Report> {
    let mut reports = vec![];
    for example in examples {
        let outcome = runner.run(example).await;
        let differences = outcome.as_ref().map(|outcome| compare(&example.expect, outcome)).unwrap_or_default();
        reports.push(Report { name: example.name.clone(), outcome, differences });
    }
    reports
}
