//! Lets a request pass only with an API key, and keeps credentials from the upstream. The same filter exists in TypeScript and Python:
//! the three are what benchmarks compare.

use witgate_filter::{Action, Request, config, reply_json};

fn on_request(request: &mut Request) -> Result<Action, String> {
    let key = request.header("x-api-key");
    let expected = config("key");
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

    fn run(fake: Fake) -> (Result<Action, String>, Fake) {
        fake.enter();
        let action = on_request(&mut Request::current());
        (action, Fake::leave())
    }

    #[test]
    fn without_a_key_the_answer_is_401() {
        let (action, _) = run(Fake::request(&[]));
        assert!(matches!(action, Ok(Action::Reply(reply)) if reply.status == 401));
    }

    #[test]
    fn a_wrong_key_is_none() {
        let (action, _) = run(Fake::request(&[("x-api-key", "a")]).with_config("key", "b"));
        assert!(matches!(action, Ok(Action::Reply(reply)) if reply.status == 401));
    }

    #[test]
    fn with_a_key_credentials_stay_here() {
        let (action, fake) = run(Fake::request(&[("x-api-key", "b"), ("cookie", "id=1")]).with_config("key", "b"));
        assert_eq!(action, Ok(Action::Proceed));
        assert_eq!(fake.request_header("x-user").as_deref(), Some("alice"));
        assert_eq!(fake.request_header("cookie").as_deref(), Some("REDACTED"));
        assert_eq!(fake.request_header("authorization"), None);
    }
}
