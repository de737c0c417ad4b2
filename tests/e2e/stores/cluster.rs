//! A Redis Cluster of three masters with a replica each, and three Sentinels: `just redis-cluster`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::redis::Redis;
use harness::{Gateway, Setup, wait_until, wait_up_to};

use super::{is_up, send_all};

const NODES: usize = 6;

/// The nodes of a cluster, masters first.
fn start_cluster() -> Result<Vec<Redis>> {
    let options = "--cluster-enabled yes --cluster-node-timeout 1000 --repl-diskless-sync-delay 0";
    let nodes: Vec<Redis> = (0..NODES)
        .map(|_| {
            Redis::start_with(|port| {
                let words = options.split(' ').map(str::to_owned);
                ["--port".into(), port.to_string()].into_iter().chain(words).collect()
            })
        })
        .collect::<Result<_>>()?;
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(&addresses);
    let output = create.args(["--cluster-replicas", "1", "--cluster-yes"]).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    wait_up_to(Duration::from_secs(20), "the cluster is complete", || {
        nodes.iter().all(|node| cli(node, &["cluster", "info"]).is_ok_and(|text| text.contains("cluster_state:ok")))
    });
    Ok(nodes)
}

/// The output of a command. The harness reads the first line of a reply only.
fn cli(node: &Redis, words: &[&str]) -> Result<String> {
    let port = node.address.port().to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(words).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn start(store: &str, route: &str) -> Result<Gateway> {
    let filter = "source: f.wasm, timeout: 1s, capabilities: [keyvalue, limiter], keyvalue: {store: shared, keys: 4}, limiter: {store: shared}";
    let yaml = format!(
        "stores: {{shared: {{redis: {{{store}}}, on_failure: error}}}}\nupstreams: {{echo: {{builtin: echo}}}}\n\
         timeouts: {{filters: 2s}}\nfilters: {{f: {{{filter}}}}}\n\
         routes: [{{match: {{path: /f}}, filters: [f], upstream: echo}}, {{name: api, upstream: echo{route}}}]"
    );
    Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/services")?.start()
}

/// How long requests were refused after `fault`, until they pass again.
fn outage(gateway: &Gateway, fault: impl FnOnce() -> Result<()>) -> Result<Duration> {
    fault()?;
    let began = Instant::now();
    wait_up_to(Duration::from_secs(20), "the fault is noticed", || {
        gateway.get("/", &[]).is_ok_and(|response| response.status == 503)
    });
    wait_up_to(Duration::from_secs(60), "requests pass again", || {
        gateway.get("/", &[]).is_ok_and(|response| response.status != 503)
    });
    Ok(began.elapsed())
}

#[test]
#[ignore = "starts six servers"]
fn a_cluster_serves_all_operations_and_survives_the_loss_of_a_master() -> Result<()> {
    let mut nodes = start_cluster()?;
    let seeds: Vec<String> = nodes[3..].iter().map(|node| format!("\"{}\"", node.url())).collect();
    let store = format!("cluster: [\"redis://{}\", {}]", harness::refusing_address()?, seeds.join(", "));
    let limit = ", rate_limit: {key: {header: x-key}, limit: 500, window: 24h, store: shared}";
    let gateways = [start(&store, limit)?, start(&store, limit)?];
    wait_until("both are connected", || gateways.iter().all(is_up));
    let run = |query: &str| Ok::<_, anyhow::Error>(gateways[0].get(&format!("/f?{query}"), &[])?.text());
    for (query, expected) in [
        ("op=set&value=v", "{\"result\":null}"),
        ("op=get", "{\"result\":\"v\"}"),
        ("op=set&key=other&value=w", "{\"result\":null}"),
        ("op=get-many&key=k,absent,other", "{\"result\":[\"v\",null,\"w\"]}"),
        ("op=swap&expected=v&value=x", "{\"result\":true}"),
        ("op=increment&key=c&number=5&times=3", "{\"result\":15}"),
        ("op=delete&key=other", "{\"result\":true}"),
        ("op=take&number=3", "{\"result\":[true,2]}"),
    ] {
        assert_eq!(run(query)?.trim(), expected, "{query}");
    }
    let full = run("op=set&key=5&times=1").and_then(|_| run("op=set&key=6")).and_then(|_| run("op=set&key=7"))?;
    assert!(full.contains("error"), "the bound on keys holds over the cluster: {full}");
    let statuses = send_all(&gateways, 500);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 500, "exact over both gateways");
    let used: Vec<usize> =
        nodes[..3].iter().map(|node| Ok(cli(node, &["dbsize"])?.trim().parse()?)).collect::<Result<_>>()?;
    for number in 0..300 {
        gateways[number % 2].get("/", &[&format!("x-key: {number}")])?;
    }
    let spread = nodes[..3].iter().zip(used).all(|(node, before)| {
        cli(node, &["dbsize"]).is_ok_and(|size| size.trim().parse::<usize>().is_ok_and(|now| now > before + 30))
    });
    assert!(spread, "the counts of clients are on all masters");
    let took = outage(&gateways[0], || nodes[0].kill())?;
    println!("a master of the cluster was killed: requests pass again after {took:.1?}");
    wait_until("the other gateway is back", || is_up(&gateways[1]));
    assert_eq!(gateways[1].get("/", &["x-key: after"])?.status, 200);
    Ok(())
}

#[test]
#[ignore = "starts five servers"]
fn sentinels_name_the_new_master_after_a_failure() -> Result<()> {
    let mut master = Redis::start()?;
    let (host, port) = (master.address.ip().to_string(), master.address.port().to_string());
    let replica = Redis::start_with(|own| {
        let words = ["--port", &own.to_string(), "--replicaof", &host, &port, "--repl-diskless-sync-delay", "0"];
        words.map(str::to_owned).to_vec()
    })?;
    wait_until("the replica is in step", || {
        cli(&replica, &["info", "replication"]).is_ok_and(|text| text.contains("master_link_status:up"))
    });
    let folder = tempfile::tempdir()?;
    let sentinels: Vec<Redis> = (0..3)
        .map(|number| {
            let config = folder.path().join(format!("{number}.conf"));
            let text = format!(
                "sentinel monitor main {host} {port} 2\nsentinel down-after-milliseconds main 500\n\
                 sentinel failover-timeout main 3000\n"
            );
            std::fs::write(&config, text)?;
            let path = config.to_str().context("the path is text")?.to_owned();
            Redis::start_with(|own| [&path, "--sentinel", "--port", &own.to_string()].map(str::to_owned).to_vec())
        })
        .collect::<Result<_>>()?;
    wait_up_to(Duration::from_secs(20), "the Sentinels know each other and the replica", || {
        let knows = |sentinel: &Redis| {
            let text = cli(sentinel, &["sentinel", "master", "main"])?.replace('\n', " ");
            anyhow::Ok(text.contains("num-other-sentinels 2") && text.contains("num-slaves 1"))
        };
        sentinels.iter().all(|sentinel| knows(sentinel).unwrap_or(false))
    });
    let urls: Vec<String> = sentinels.iter().map(|sentinel| format!("\"{}\"", sentinel.url())).collect();
    let store = format!("sentinel: {{master: main, endpoints: [{}]}}", urls.join(", "));
    let gateway = start(&store, ", rate_limit: {limit: 1000, window: 24h, store: shared}")?;
    wait_until("the store is connected", || is_up(&gateway));
    assert_eq!(gateway.get("/", &[])?.status, 200);
    let took = outage(&gateway, || master.kill())?;
    println!("the master of the Sentinels was killed: requests pass again after {took:.1?}");
    assert!(cli(&replica, &["info", "replication"])?.contains("role:master"));
    Ok(())
}
