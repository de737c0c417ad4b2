//! Accepts a request only with an API key, and hides credentials from the upstream.
//!
//! The same filter exists in TypeScript and Python; the benchmarks compare the three.

use witgate_filter::{Action, Request, config, reply_json};

fn on_request(request: &mut Request) -> Result<Action, String> {
    let key = request.header("x-api-key");
    let expected = config::get("key");
    if key.is_none() || (expected.is_some() && key != expected) {
        return Ok(reply_json(401, r#"{"error":"missing or wrong api key"}"#));
    }
    request.set_header("x-user", "alice");
    for name in ["authorization", "cookie"] {
        if request.header(name).is_some() {
            request.set_header(name, "REDACTED");
        }
    }
    Ok(Action::Proceed)
}

witgate_filter::filter!(request: on_request);

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_filter::testing::Fake;

    #[test]
    fn a_request_without_a_key_or_with_a_wrong_key_is_answered_with_401() {
        for fake in [Fake::new(), Fake::new().with_header("x-api-key", "a").with_config("key", "b")] {
            let (action, _) = fake.run_request(on_request);
            assert_eq!(action, Ok(reply_json(401, r#"{"error":"missing or wrong api key"}"#)));
        }
    }

    #[test]
    fn any_key_is_accepted_if_none_is_configured() {
        let (action, _) = Fake::new().with_header("x-api-key", "a").run_request(on_request);
        assert_eq!(action, Ok(Action::Proceed));
    }

    #[test]
    fn a_request_with_the_key_passes_and_its_credentials_are_hidden_from_the_upstream() {
        let fake = Fake::new().with_header("x-api-key", "b").with_header("cookie", "id=1").with_config("key", "b");
        let (action, after) = fake.run_request(on_request);
        assert_eq!(action, Ok(Action::Proceed));
        assert_eq!(after.request_header("x-user").as_deref(), Some("alice"));
        assert_eq!(after.request_header("cookie").as_deref(), Some("REDACTED"));
        assert_eq!(after.request_header("authorization"), None);
    }
}
