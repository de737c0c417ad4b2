//! Accepts a request only with the API key, and hides the key from the upstream.

use witgate_filter::{Action, Request, config, reply_json};

/// `reply` answers the client. `Action::Proceed` lets the request continue.
fn on_request(request: &mut Request) -> Result<Action, String> {
    let key = request.header("x-api-key");
    if key.is_none() || key != config::get("key") {
        return Ok(reply_json(401, r#"{"error":"missing or wrong API key"}"#));
    }
    request.remove_header("x-api-key");
    request.set_header("x-authenticated", "yes");
    Ok(Action::Proceed)
}

witgate_filter::filter!(request: on_request);

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_filter::testing::Fake;

    #[test]
    fn the_key_is_hidden_from_the_upstream() {
        let fake = Fake::new().with_header("x-api-key", "s3cret").with_config("key", "s3cret");
        let (action, after) = fake.run_request(on_request);
        assert_eq!(action, Ok(Action::Proceed));
        assert_eq!(after.request_header("x-api-key"), None);
    }

    #[test]
    fn without_a_configured_key_nobody_is_let_in() {
        let (action, _) = Fake::new().with_header("x-api-key", "any").run_request(on_request);
        assert_ne!(action, Ok(Action::Proceed));
    }
}
