//! Greets callers by name.

use witgate_filter::{Action, Request, config, log, reply_json};

/// `reply` answers the client. `Action::Proceed` lets the request continue.
fn on_request(request: &mut Request) -> Result<Action, String> {
    let Some(name) = request.header("x-name") else {
        return Ok(reply_json(400, r#"{"error":"send your name in x-name"}"#));
    };
    log::info(&format!("greeting {name}"));
    let greeting = config::get("greeting").unwrap_or_else(|| "hello".into());
    request.set_header("x-greeting", &format!("{greeting}, {name}"));
    Ok(Action::Proceed)
}

witgate_filter::filter!(request: on_request);

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_filter::testing::Fake;

    #[test]
    fn a_caller_is_greeted() {
        let fake = Fake::new().with_header("x-name", "Ann").with_config("greeting", "good morning");
        let (action, after) = fake.run_request(on_request);
        assert_eq!(action, Ok(Action::Proceed));
        assert_eq!(after.request_header("x-greeting").as_deref(), Some("good morning, Ann"));
    }
}
