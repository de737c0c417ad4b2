//! Sets the usual security fields on every response and removes those that name the software.

use witgate_filter::{Action, Request, Response, config};

/// Name and default; the filter's configuration may give another value, or `off`.
const FIELDS: [(&str, &str); 5] = [
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'self'"),
];

fn on_response(response: &mut Response, _: &Request) -> Result<Action, String> {
    for (name, default) in FIELDS {
        let value = config(name);
        match value.as_deref().unwrap_or(default) {
            "off" => {}
            value => response.set_header(name, value),
        }
    }
    response.remove_header("server");
    response.remove_header("x-powered-by");
    Ok(Action::Proceed)
}

witgate_filter::filter!(response: on_response);

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_filter::testing::Fake;

    #[test]
    fn fields_are_set_overridden_and_switched_off() {
        let fake = Fake::response(&[("server", "x/1"), ("referrer-policy", "origin")]);
        fake.with_config("x-frame-options", "SAMEORIGIN").with_config("referrer-policy", "off").enter();
        assert_eq!(on_response(&mut Response::current(), &Request::current()), Ok(Action::Proceed));
        let fake = Fake::leave();
        assert_eq!(fake.response_header("x-frame-options").as_deref(), Some("SAMEORIGIN"));
        assert_eq!(fake.response_header("x-content-type-options").as_deref(), Some("nosniff"));
        assert_eq!(fake.response_header("referrer-policy").as_deref(), Some("origin"));
        assert_eq!(fake.response_header("server"), None);
    }
}
