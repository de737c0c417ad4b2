//! `basic_auth` of a route: users with passwords.

use anyhow::Result;
use harness::{Client, Gateway, Setup, wait_until};

/// `htpasswd -B`: ada has the password `secret` (cost 4), bob `geheim:1` (cost 10).
const USERS: &str = "# staff\nada:$2y$04$0sSSJL0yTj361Glp7mtqceRCTW2wX5jsCpn.NQmYQKLrXIvKNgdsO\nbob:$2b$10$N.q6KbLM.mEV.wUFRYIFEe7/tBzo.E..b7fnSFpiBHrL15EZ4sqP2\n";
const ADA: &str = "authorization: Basic YWRhOnNlY3JldA==";
const ADA_WRONG: &str = "authorization: Basic YWRhOndyb25n";
const BOB: &str = "authorization: Basic Ym9iOmdlaGVpbTox";
const EVE: &str = "authorization: Basic ZXZlOnNlY3JldA==";

fn gateway(more: &str) -> Result<Gateway> {
    let yaml = format!(
        "upstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{upstream: echo, basic_auth: {{users: {{file: users}}, \
         user_header: x-user}}{more}}}]"
    );
    Setup::new(&yaml)?.with("users", USERS)?.start()
}

#[test]
fn only_users_with_their_password_pass_and_the_upstream_learns_who_they_are() -> Result<()> {
    let gateway = gateway("")?;
    for (fields, user) in [(&["x-user: root", ADA][..], "ada"), (&[BOB], "bob"), (&[ADA], "ada")] {
        let response = gateway.get("/", fields)?;
        assert_eq!((response.status, response.echoed("x-user").as_deref()), (200, Some(user)));
        assert_eq!(response.echoed("authorization"), None, "the upstream must not see the password");
    }
    for fields in [&[][..], &[ADA_WRONG], &[EVE], &[ADA, BOB], &["authorization: Bearer x"], &["x-user: ada"]] {
        let response = gateway.get("/", fields)?;
        assert_eq!(response.status, 401, "{fields:?}");
        assert_eq!(response.header("www-authenticate"), Some("Basic realm=\"restricted\", charset=\"UTF-8\""));
        assert_eq!(response.json()["error"], "valid credentials are required");
    }
    Ok(())
}

#[test]
fn a_changed_file_of_users_takes_effect_and_a_bad_one_does_not() -> Result<()> {
    let gateway = gateway("")?;
    assert_eq!(gateway.get("/", &[ADA])?.status, 200);
    gateway.replace("users", USERS.replace("ada:", "eve:"))?;
    wait_until("ada is no user any more", || gateway.get("/", &[ADA]).is_ok_and(|response| response.status == 401));
    assert_eq!(gateway.get("/", &[EVE])?.status, 200, "eve has ada's password");
    gateway.replace("users", "eve:$apr1$x$y")?;
    let refused = gateway.wait_logged("was refused", 1).join("");
    assert!(
        refused.contains("line 1: the password's hash is MD5 (apr1): create it again with `htpasswd -B`"),
        "{refused}"
    );
    assert_eq!(gateway.get("/", &[EVE])?.status, 200);
    Ok(())
}

#[test]
fn a_limit_by_address_bounds_how_many_passwords_a_client_tries() -> Result<()> {
    let gateway = gateway(", rate_limit: {limit: 3, window: 10m}")?;
    for (field, status) in [(ADA_WRONG, 401), (EVE, 401), (ADA, 200), (ADA, 429)] {
        assert_eq!(gateway.get("/", &[field])?.status, status, "{field}");
    }
    Ok(())
}

#[test]
fn many_wrong_passwords_do_not_delay_users_who_have_signed_in() -> Result<()> {
    let gateway = gateway("")?;
    assert_eq!(gateway.get("/", &[BOB])?.status, 200);
    let address = gateway.address;
    let guess = move |number: usize| -> Result<u16> {
        let (tens, ones) = (char::from(b'a' + (number / 16) as u8), char::from(b'a' + (number % 16) as u8));
        let field = format!("authorization: Basic YWRhOn{tens}{ones}");
        Ok(Client::connect(address)?.get("/", &[&field])?.status)
    };
    let guesses: Vec<_> = (0..150).map(|number| std::thread::spawn(move || guess(number))).collect();
    for _ in 0..50 {
        assert_eq!(gateway.get("/", &[BOB])?.status, 200, "a known password needs no check");
    }
    for guess in guesses {
        let status = guess.join().unwrap()?;
        assert!(status == 401 || status == 503, "{status}");
    }
    Ok(())
}
