//! Shared stores: several gateways on one Redis server that works, fails, is slow, or lies.

mod cluster;
mod figures;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::redis::{DelayingProxy, Redis, lying_redis};
use harness::tls::Authority;
use harness::{Gateway, Setup, refusing_address, wait_until};

/// The time limit of an operation, and what a busy machine adds to a request.
const BUDGET: Duration = Duration::from_millis(50 + 450);

fn store(address: SocketAddr, keys: &str) -> String {
    format!(
        "stores: {{shared: {{redis: {{url: \"redis://{address}\"}}{keys}}}}}\nupstreams: {{echo: {{builtin: echo}}}}\n"
    )
}

/// A gateway whose route has a limit of 100 requests in a long window.
fn limited(address: SocketAddr, keys: &str) -> Result<Gateway> {
    limited_to(address, keys, "limit: 100")
}

/// The same with these keys of the limit.
fn limited_to(address: SocketAddr, keys: &str, limit: &str) -> Result<Gateway> {
    let route = format!("routes: [{{name: api, upstream: echo, rate_limit: {{window: 24h, store: shared, {limit}}}}}]");
    Setup::new(&format!("{}{route}", store(address, keys)))?.start()
}

/// Sends requests over all gateways, so many over each of six connections. Returns the statuses.
fn send_all(gateways: &[Gateway], requests: usize) -> Vec<u16> {
    std::thread::scope(|scope| {
        let send = move |gateway: &Gateway| -> Result<Vec<u16>> {
            let mut client = gateway.client()?;
            (0..requests).map(|_| Ok(client.get("/", &[])?.status)).collect()
        };
        let threads: Vec<_> = gateways.iter().cycle().take(6).map(|one| scope.spawn(move || send(one))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap().unwrap()).collect()
    })
}

/// A gateway with the fixture `services` of a language as the filters a and b.
fn services(language: &str, address: SocketAddr, keys: &str) -> Result<Gateway> {
    let filter =
        "timeout: 1s, capabilities: [keyvalue, limiter], keyvalue: {store: shared, keys: 4}, limiter: {store: shared}";
    let yaml = format!(
        "{}timeouts: {{filters: 2s}}\nfilters: {{a: {{source: f.wasm, {filter}}}, b: {{source: f.wasm, {filter}}}}}\n\
         routes: [{{match: {{path: /a}}, filters: [a], upstream: echo}}, {{filters: [b], upstream: echo}}]",
        store(address, keys)
    );
    Setup::new(&yaml)?.with_guest("f.wasm", &format!("tests/{language}/services"))?.start()
}

fn is_up(gateway: &Gateway) -> bool {
    gateway.metric("witgate_store_up{store=\"shared\"}").is_ok_and(|up| up == 1.0)
}

/// Status and duration of a request.
fn timed(gateway: &Gateway, path: &str) -> Result<(u16, Duration)> {
    let mut client = gateway.client()?;
    let began = Instant::now();
    let status = client.get(path, &[])?.status;
    Ok((status, began.elapsed()))
}

#[test]
fn gateways_that_share_a_store_allow_exactly_the_limit_together() -> Result<()> {
    let redis = Redis::start()?;
    let start = || limited_to(redis.address, "", "limit: 1000");
    let gateways = [start()?, start()?];
    wait_until("both are connected", || gateways.iter().all(is_up));
    let statuses = send_all(&gateways, 1700);
    let count = |status: u16| statuses.iter().filter(|own| **own == status).count();
    assert_eq!((count(200), count(429)), (1000, 9200));
    Ok(())
}

#[test]
fn gateways_with_leases_never_exceed_the_limit_and_ask_rarely() -> Result<()> {
    let redis = Redis::start()?;
    let start = || limited_to(redis.address, "", "limit: 1000, lease: 20");
    let gateways = [start()?, start()?];
    wait_until("both are connected", || gateways.iter().all(is_up));
    let statuses = send_all(&gateways, 500);
    let allowed = statuses.iter().filter(|status| **status == 200).count();
    // Each gateway may hold 19 units that nobody asks it for.
    assert!((1000 - 2 * 19..=1000).contains(&allowed), "{allowed}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)));
    let asked = |gateway: &Gateway| {
        gateway.metric("witgate_store_operations_total{store=\"shared\",operation=\"take\",result=\"ok\"}")
    };
    let questions = asked(&gateways[0])? + asked(&gateways[1])?;
    assert!(questions < 1500.0, "{questions} questions for 3000 requests");
    let refused = gateways[0].get("/", &[])?;
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (429, true));
    let yaml =
        |limit: &str| format!("upstreams: {{e: {{builtin: echo}}}}\nroutes: [{{upstream: e, rate_limit: {limit}}}]");
    for (limit, expected) in [
        ("{limit: 9, lease: 2}", "has no effect without store"),
        ("{limit: 9, lease: 2, store: s, algorithm: token_bucket}", "has no effect on a token bucket"),
        ("{limit: 9, lease: 1, store: s}", "lease"),
    ] {
        let (code, text) = Setup::new(&yaml(limit))?.check()?;
        assert!(code != Some(0) && text.contains(expected), "{limit}: {text}");
    }
    Ok(())
}

#[test]
fn the_services_behave_the_same_in_every_language_and_store() -> Result<()> {
    let redis = Redis::start()?;
    for (language, in_memory) in
        ["typescript", "python", "rust"].into_iter().flat_map(|one| [(one, false), (one, true)])
    {
        redis.command(&["FLUSHALL"])?;
        let address = if in_memory { refusing_address()? } else { redis.address };
        let gateway = services(language, address, ", on_failure: local")?;
        if !in_memory {
            wait_until("the store is connected", || is_up(&gateway));
        }
        let mut client = gateway.client()?;
        let mut run = |query: &str| -> Result<String> {
            let json = client.get(&format!("/a?{query}"), &[])?.json();
            Ok(json.get("result").or(json.get("error")).context("no result")?.to_string())
        };
        for (query, expected) in [
            ("op=get", "null"),
            ("op=set&value=v", "null"),
            ("op=get", "\"v\""),
            ("op=swap&value=w", "false"),
            ("op=swap&expected=x&value=w", "false"),
            ("op=swap&expected=v&value=w", "true"),
            ("op=swap&key=new&value=n", "true"),
            ("op=get-many&key=k,absent,new", "[\"w\",null,\"n\"]"),
            ("op=increment&key=c&number=5&times=3", "15"),
            ("op=get&key=c", "\"15\""),
            ("op=swap&key=c&expected=15&value=1", "true"),
            ("op=delete&key=new", "true"),
            ("op=delete&key=new", "false"),
            ("op=set&key=3&times=3", "null"),
            ("op=set&key=4", "null"),
            ("op=take&number=3", "[true,2]"),
            ("op=take&number=3&times=3", "[false,0]"),
        ] {
            assert_eq!(run(query)?, expected, "{language}, in memory: {in_memory}: {query}");
        }
        let refusals = [("op=set&key=5", "full"), ("op=increment", "not"), ("op=increment&key=c", "not")];
        for (query, expected) in refusals {
            let refusal = run(query)?.to_lowercase();
            assert!(refusal.contains(expected), "{language}, in memory: {in_memory}: {query}: {refusal}");
        }
    }
    Ok(())
}

#[test]
fn a_filter_cannot_see_the_entries_of_another() -> Result<()> {
    let redis = Redis::start()?;
    let gateway = services("rust", redis.address, "")?;
    wait_until("the store is connected", || is_up(&gateway));
    gateway.get("/a?op=set&value=of-a", &[])?;
    gateway.get("/b?op=set&key=b:k:k&value=x", &[])?;
    assert_eq!(gateway.get("/b?op=get", &[])?.text().trim(), r#"{"result":null}"#);
    assert_eq!(gateway.get("/a?op=get", &[])?.text().trim(), r#"{"result":"of-a"}"#);
    assert_eq!(gateway.get("/a?op=take&number=1", &[])?.text().trim(), r#"{"result":[true,0]}"#);
    assert_eq!(gateway.get("/b?op=take&number=1", &[])?.text().trim(), r#"{"result":[true,0]}"#);
    let filters = gateway.admin("/filters")?.json();
    assert_eq!((&filters[0]["keyvalue"], &filters[1]["limiter"]), (&"shared/a".into(), &"shared/b".into()));
    Ok(())
}

#[test]
fn a_store_that_fails_costs_each_request_at_most_its_budget_and_is_used_again_when_it_is_back() -> Result<()> {
    let mut redis = Redis::start()?;
    for (on_failure, expected) in [("error", 503), ("local", 200), ("open", 200)] {
        let gateway = limited(redis.address, &format!(", timeout: 50ms, on_failure: {on_failure}"))?;
        wait_until("the store is connected", || is_up(&gateway));
        let fails = |kind: &str| -> Result<()> {
            let mut slow = 0;
            for _ in 0..12 {
                let (status, took) = timed(&gateway, "/")?;
                assert_eq!(status, expected, "{on_failure}, {kind}");
                assert!(took < BUDGET, "{on_failure}, {kind}: {took:?}");
                slow += usize::from(took >= Duration::from_millis(50));
            }
            assert!(slow <= 8, "{on_failure}, {kind}: the breaker did not open");
            assert!(!is_up(&gateway), "{on_failure}, {kind}");
            Ok(())
        };
        redis.suspend()?;
        fails("suspended")?;
        redis.resume()?;
        wait_until("the store is used again", || is_up(&gateway));
        assert_eq!(timed(&gateway, "/")?.0, 200);
        redis.kill()?;
        wait_until("the end of the connection is noticed", || !is_up(&gateway));
        fails("killed")?;
        redis.restart()?;
        wait_until("the new server is used", || is_up(&gateway));
        assert_eq!(timed(&gateway, "/")?.0, 200);
        let count = |result: &str| {
            let line = "witgate_store_operations_total{store=\"shared\",operation=\"take\",result=";
            gateway.metric(&format!("{line}\"{result}\"}}"))
        };
        assert!(count("ok")? >= 2.0 && count("timeout")? >= 1.0 && count("refused")? >= 1.0);
    }
    Ok(())
}

#[test]
fn a_slow_store_is_out_of_service_until_it_answers_in_time() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = DelayingProxy::start(redis.address)?;
    let gateway = limited(proxy.address, ", timeout: 50ms, on_failure: error")?;
    wait_until("the store is connected", || is_up(&gateway));
    assert_eq!(timed(&gateway, "/")?.0, 200);
    proxy.set_delay(Duration::from_millis(200));
    for _ in 0..8 {
        let (status, took) = timed(&gateway, "/")?;
        assert!(status == 503 && took < BUDGET, "{status} {took:?}");
    }
    assert!(!is_up(&gateway));
    proxy.set_delay(Duration::ZERO);
    wait_until("the store is used again", || is_up(&gateway));
    assert_eq!(timed(&gateway, "/")?.0, 200);
    Ok(())
}

#[test]
fn a_lying_server_gets_an_error_and_no_memory() -> Result<()> {
    let lies: [(&'static [u8], bool); 8] = [
        (b":5\r\n", false),
        (b"$2\r\nxy\r\n", false),
        (b"*2\r\n:9\r\n:9\r\n", false),
        (b"*1000\r\n*1000\r\n", false),
        (b"-WRONGTYPE no\r\n", false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
        (b"$536870912\r\n", true),
        (b"+", true),
    ];
    for (lie, floods) in lies {
        let gateway = services("rust", lying_redis(lie, floods)?, ", timeout: 50ms")?;
        wait_until("the store is connected", || is_up(&gateway));
        let before = resident_bytes(&gateway)?;
        for query in ["op=get", "op=get-many&key=a,b", "op=set&value=v", "op=increment", "op=swap&value=v", "op=take"] {
            let response = gateway.get(&format!("/a?{query}"), &[])?;
            let text = response.text();
            assert_eq!(response.status, 200, "{query}: {text}");
            assert!(text.contains("error"), "{:?}: {query}: {text}", String::from_utf8_lossy(lie));
            assert!(text.len() < 1000, "{text}");
        }
        let more = resident_bytes(&gateway)?.saturating_sub(before);
        assert!(more < 48 << 20, "{:?}: {more} bytes", String::from_utf8_lossy(lie));
    }
    Ok(())
}

fn resident_bytes(gateway: &Gateway) -> Result<usize> {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", gateway.id()))?;
    Ok(text.split(' ').nth(1).context("statm")?.parse::<usize>()? * 4096)
}

#[test]
fn a_filter_that_calls_without_end_harms_only_itself() -> Result<()> {
    let redis = Redis::start()?;
    let gateway = services("rust", redis.address, "")?;
    wait_until("the store is connected", || is_up(&gateway));
    std::thread::scope(|scope| {
        let endless = scope.spawn(|| gateway.get("/a?op=increment&times=1000000", &[]).map(|response| response.status));
        for _ in 0..50 {
            let (status, took) = timed(&gateway, "/b?op=get")?;
            assert!(status == 200 && took < BUDGET, "{status} {took:?}");
        }
        assert_eq!(endless.join().unwrap()?, 504);
        anyhow::Ok(())
    })?;
    let key = "k".repeat(300);
    let refused = gateway.get(&format!("/a?op=get&key={key}"), &[])?.text();
    assert!(refused.to_lowercase().contains("large"), "{refused}");
    Ok(())
}

#[test]
fn a_login_and_a_database_are_used() -> Result<()> {
    let redis = Redis::start_with(|port| {
        let login = ["--user", "gate", "on", ">s3cret", "~witgate:*", "+@all"];
        login.iter().chain(&["--port", &port.to_string()]).map(|word| (*word).to_owned()).collect()
    })?;
    let route =
        "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo, rate_limit: {limit: 1, window: 1h, store: s}}]";
    let start = |password: &str| {
        let login = format!("username: gate, password: {password}, database: 3");
        Setup::new(&format!("stores: {{s: {{redis: {{url: \"{}\", {login}}}}}}}\n{route}", redis.url()))?.start()
    };
    let gateway = start("s3cret")?;
    wait_until("the store is connected", || gateway.metric("witgate_store_up{store=\"s\"}").is_ok_and(|up| up == 1.0));
    assert_eq!([gateway.get("/", &[])?.status, gateway.get("/", &[])?.status], [200, 429]);
    let gateway = start("wr0ng")?;
    let lines = gateway.wait_logged("the store cannot be reached", 1);
    assert!(lines[0].contains("authentication failed") && !lines[0].contains("wr0ng"), "{lines:?}");
    assert_eq!(gateway.get("/", &[])?.status, 503);
    Ok(())
}

#[test]
fn a_connection_with_tls_trusts_only_the_configured_authority() -> Result<()> {
    let (authority, other) = (Authority::new("stores")?, Authority::new("other")?);
    let issued = authority.issue(&["127.0.0.1"])?;
    let folder = tempfile::tempdir()?;
    for (name, text) in [("cert.pem", &issued.certificate), ("key.pem", &issued.key)] {
        std::fs::write(folder.path().join(name), text)?;
    }
    let file = |name: &str| folder.path().join(name).display().to_string();
    let redis = Redis::start_with(|port| {
        let words =
            ["--port 0 --tls-auth-clients no --tls-port", &port.to_string(), "--tls-cert-file", &file("cert.pem")];
        let words = words.join(" ") + " --tls-key-file " + &file("key.pem");
        words.split(' ').map(str::to_owned).collect()
    })?;
    let yaml = format!(
        "stores: {{s: {{redis: {{url: \"rediss://{}\", tls: {{ca: ca.pem}}}}}}}}\nupstreams: {{echo: {{builtin: echo}}}}\n\
         routes: [{{upstream: echo, rate_limit: {{limit: 1, window: 1h, store: s}}}}]",
        redis.address
    );
    let gateway = Setup::new(&yaml)?.with("ca.pem", authority.pem())?.start()?;
    wait_until("the store is connected", || gateway.metric("witgate_store_up{store=\"s\"}").is_ok_and(|up| up == 1.0));
    assert_eq!([gateway.get("/", &[])?.status, gateway.get("/", &[])?.status], [200, 429]);
    let gateway = Setup::new(&yaml)?.with("ca.pem", other.pem())?.start()?;
    let lines = gateway.wait_logged("the store cannot be reached", 1);
    assert!(lines[0].contains("TLS: invalid peer certificate"), "{lines:?}");
    assert_eq!(gateway.get("/", &[])?.status, 503);
    Ok(())
}

#[test]
fn a_check_shows_stores_and_refuses_mistakes() -> Result<()> {
    let yaml = store(refusing_address()?, ", on_failure: local")
        + "routes: [{upstream: echo, rate_limit: {limit: 1, store: RENAMED}}]";
    let (code, text) = Setup::new(&yaml.replace("RENAMED", "shared"))?.check()?;
    assert!(
        code == Some(0) && text.contains("store shared: Redis 127.0.0.1:") && text.contains("on failure local"),
        "{text}"
    );
    let (code, text) = Setup::new(&yaml.replace("RENAMED", "shard"))?.check()?;
    assert!(code != Some(0) && text.contains("there is no such store: did you mean shared?"), "{text}");
    Ok(())
}

#[test]
fn a_sentinel_names_the_server() -> Result<()> {
    let master = Redis::start()?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("sentinel.conf");
    let port = master.address.port();
    std::fs::write(&config, format!("sentinel monitor main 127.0.0.1 {port} 1\n"))?;
    let path = config.display().to_string();
    let sentinel =
        Redis::start_with(|port| [&path, "--sentinel", "--port", &port.to_string()].map(str::to_owned).to_vec())?;
    let sentinels =
        format!("sentinel: {{master: main, endpoints: [\"redis://{}\", \"{}\"]}}", refusing_address()?, sentinel.url());
    let route =
        "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo, rate_limit: {limit: 1, window: 1h, store: s}}]";
    let gateway = Setup::new(&format!("stores: {{s: {{redis: {{{sentinels}}}}}}}\n{route}"))?.start()?;
    wait_until("the store is connected", || gateway.metric("witgate_store_up{store=\"s\"}").is_ok_and(|up| up == 1.0));
    assert_eq!([gateway.get("/", &[])?.status, gateway.get("/", &[])?.status], [200, 429]);
    Ok(())
}

#[test]
fn the_example_filter_limits_clients_over_gateways() -> Result<()> {
    let redis = Redis::start()?;
    let filter = "source: f.wasm, timeout: 1s, capabilities: [limiter], limiter: {store: shared}, config: {limit: 3}";
    let yaml = format!(
        "{}timeouts: {{filters: 2s}}\nfilters: {{f: {{{filter}}}}}\nroutes: [{{filters: [f], upstream: echo}}]",
        store(redis.address, "")
    );
    let start = || Setup::new(&yaml)?.with_guest("f.wasm", "typescript/shared-rate-limit")?.start();
    let gateways = [start()?, start()?];
    wait_until("both are connected", || gateways.iter().all(is_up));
    let statuses: Vec<u16> = (0..5).map(|at| Ok(gateways[at % 2].get("/", &[])?.status)).collect::<Result<_>>()?;
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert!(gateways[0].get("/", &[])?.header("retry-after").is_some());
    Ok(())
}
