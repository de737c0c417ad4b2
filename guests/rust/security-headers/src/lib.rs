//! Sets the usual security fields on every response, and removes the fields that name the software.

use witgate_filter::{Action, Request, Response, config};

/// Names and default values. The configuration may set another value, or `off` to leave the field
/// as the upstream sent it.
const FIELDS: [(&str, &str); 5] = [
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'self'"),
];

fn on_response(response: &mut Response, _: &Request) -> Result<Action, String> {
    for (name, default) in FIELDS {
        let value = config::get(name);
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
    fn security_fields_are_set_and_fields_that_name_the_software_are_removed() {
        let fake = Fake::new().with_response_header("server", "x/1").with_response_header("X-Powered-By", "y");
        let (action, after) = fake.run_response(on_response);
        assert_eq!(action, Ok(Action::Proceed));
        for (name, default) in FIELDS {
            assert_eq!(after.response_header(name).as_deref(), Some(default));
        }
        assert_eq!((after.response_header("server"), after.response_header("x-powered-by")), (None, None));
    }

    #[test]
    fn a_field_can_be_configured_or_left_to_the_upstream() {
        let fake = Fake::new().with_response_header("referrer-policy", "origin");
        let fake = fake.with_config("x-frame-options", "SAMEORIGIN").with_config("referrer-policy", "off");
        let (_, after) = fake.run_response(on_response);
        assert_eq!(after.response_header("x-frame-options").as_deref(), Some("SAMEORIGIN"));
        assert_eq!(after.response_header("referrer-policy").as_deref(), Some("origin"));
    }
}
