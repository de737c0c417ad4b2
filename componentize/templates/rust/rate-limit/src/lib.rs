//! Limits the requests of each client.

use witgate_filter::limiter::{Algorithm, Policy, take};
use witgate_filter::{Action, Reply, Request, config};

/// The gateway's limiter counts, because variables of a filter do not outlive a call.
fn on_request(request: &mut Request) -> Result<Action, String> {
    let limit = config::get("limit").and_then(|text| text.parse().ok()).unwrap_or(100);
    let policy = Policy { algorithm: Algorithm::SlidingWindow, limit, window_ms: 60_000, burst: 0 };
    let decision = take(&request.client().ip, 1, policy).map_err(|error| error.to_string())?;
    if decision.allowed {
        return Ok(Action::Proceed);
    }
    let seconds = decision.retry_after_ms.div_ceil(1000);
    Ok(Action::Reply(Reply::new(429).header("retry-after", &seconds.to_string()).body("too many requests\n")))
}

witgate_filter::filter!(request: on_request);

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_filter::testing::Fake;

    #[test]
    fn a_request_above_the_limit_is_refused() {
        let (first, after) = Fake::new().with_config("limit", "1").run_request(on_request);
        assert_eq!(first, Ok(Action::Proceed));
        let (second, _) = after.run_request(on_request);
        assert_ne!(second, Ok(Action::Proceed));
    }
}
