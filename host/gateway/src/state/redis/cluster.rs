//! Finds the masters of a Redis Cluster and connects to each of them.
//!
//! A store is in service only with a connection to every master. So a master that fails takes the
//! store out of service until the cluster has a new one, and no operation meets a topology that is
//! half known. Price: for these seconds, keys of the other masters are served as `on_failure` says,
//! too. This module does not know: keys, operations.

use std::sync::Arc;

use redis::RedisConnectionInfo;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::connection::{CONNECT_TIMEOUT, Connected, SLOTS, connect_node, connect_to, is_host};
use crate::net::tls::ClientTls;
use witgate_config::RedisAddress;
use witgate_http::text::bounded;

/// The most masters.
const MASTERS_MAX: usize = 128;

/// A range of slots as `CLUSTER SLOTS` names it: first and last slot, then nodes, master first.
type Range = Vec<redis::Value>;

/// Asks the first node that answers for the masters, and connects to them.
pub(super) async fn connect(
    seeds: &[RedisAddress],
    tls: Option<&Arc<ClientTls>>,
    info: &RedisConnectionInfo,
) -> Result<Connected, String> {
    let mut last = "no node is configured".to_owned();
    for seed in seeds {
        match find_masters(seed, tls, info).await {
            Ok((masters, slots)) => {
                let (lost, mut nodes) = (Arc::new(Notify::new()), vec![]);
                for master in &masters {
                    nodes.push(connect_node(master, tls, info, &lost).await?);
                }
                return Ok(Connected { nodes, slots, lost });
            }
            Err(why) => last = why,
        }
    }
    Err(last)
}

async fn find_masters(
    seed: &RedisAddress,
    tls: Option<&Arc<ClientTls>>,
    info: &RedisConnectionInfo,
) -> Result<(Vec<RedisAddress>, Vec<u8>), String> {
    let connected = connect_to(seed, tls, info).await?;
    let mut ask = redis::cmd("CLUSTER");
    ask.arg("SLOTS");
    match timeout(CONNECT_TIMEOUT, ask.query_async::<Vec<Range>>(&mut connected.connection(""))).await {
        Ok(Ok(ranges)) => masters(&ranges, seed),
        Ok(Err(error)) => Err(bounded(format_args!("{seed}: {error}"))),
        Err(_) => Err(format!("{seed} did not name the masters within {CONNECT_TIMEOUT:?}")),
    }
}

/// The masters, and the index of the master of each slot.
fn masters(ranges: &[Range], seed: &RedisAddress) -> Result<(Vec<RedisAddress>, Vec<u8>), String> {
    let mut masters: Vec<RedisAddress> = vec![];
    let mut slots = vec![u8::MAX; SLOTS];
    for range in ranges {
        let (first, last, master) = parse(range, seed)
            .ok_or_else(|| format!("{seed} names invalid slots or an invalid address of a master"))?;
        let known = masters.iter().position(|own| *own == master);
        let index = known.unwrap_or_else(|| {
            masters.push(master);
            masters.len() - 1
        });
        let index = u8::try_from(index).ok().filter(|index| usize::from(*index) < MASTERS_MAX);
        let index = index.ok_or_else(|| format!("the cluster has more than {MASTERS_MAX} masters"))?;
        let range = slots.get_mut(first..=last);
        range.ok_or_else(|| format!("{seed} names slots that a cluster does not have"))?.fill(index);
    }
    if slots.contains(&u8::MAX) {
        return Err(format!("{seed}: some slots of the cluster have no master"));
    }
    Ok((masters, slots))
}

/// First and last slot, and the master. A node that does not know its own host is the one that was
/// asked.
fn parse(range: &Range, seed: &RedisAddress) -> Option<(usize, usize, RedisAddress)> {
    let [first, last, redis::Value::Array(master), ..] = &range[..] else { return None };
    let [host, port, ..] = &master[..] else { return None };
    // The library would cut a number that is too large.
    let number = |value: &redis::Value| u16::try_from(redis::from_redis_value::<i64>(value.clone()).ok()?).ok();
    let host: Option<String> = redis::from_redis_value(host.clone()).ok()?;
    let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| seed.host.clone());
    let port = number(port).filter(|port| *port > 0 && is_host(&host))?;
    Some((number(first)?.into(), number(last)?.into(), RedisAddress { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::Value;

    fn range(first: i64, last: i64, nodes: &[(&str, i64)]) -> Range {
        let node = |(host, port): &(&str, i64)| {
            Value::Array(vec![Value::BulkString((*host).into()), Value::Int(*port), Value::BulkString("id".into())])
        };
        [Value::Int(first), Value::Int(last)].into_iter().chain(nodes.iter().map(node)).collect()
    }

    #[test]
    fn each_slot_belongs_to_one_of_the_masters() -> Result<(), String> {
        let seed = RedisAddress { host: "seed".into(), port: 1 };
        let ranges = [
            range(0, 99, &[("10.0.0.1", 7000), ("10.0.0.9", 7000)]),
            range(100, 199, &[("", 7001)]),
            range(200, 16_383, &[("10.0.0.1", 7000)]),
        ];
        let (masters, slots) = masters(&ranges, &seed)?;
        let names: Vec<String> = masters.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["10.0.0.1:7000", "seed:7001"]);
        assert_eq!([slots[0], slots[99], slots[100], slots[199], slots[200], slots[16_383]], [0, 0, 1, 1, 0, 0]);
        Ok(())
    }

    #[test]
    fn a_cluster_that_lies_or_is_incomplete_is_refused() {
        let seed = RedisAddress { host: "seed".into(), port: 1 };
        for ranges in [
            vec![],
            vec![vec![]],
            vec![range(0, 16_382, &[("a", 1)])],
            vec![range(0, 16_384, &[("a", 1)])],
            vec![range(0, 70_000, &[("a", 1)])],
            vec![range(9, 3, &[("a", 1)])],
            vec![range(0, 16_383, &[])],
            vec![range(0, 16_383, &[("a b", 1)])],
            vec![range(0, 16_383, &[("a", 0)])],
            vec![range(0, 16_383, &[("a", 70_000)])],
            vec![vec![Value::Int(0), Value::Int(16_383), Value::Nil]],
            (0..200).map(|at| range(at, at, &[("a", at + 1)])).collect(),
        ] {
            assert!(masters(&ranges, &seed).is_err(), "{:?}", ranges.first());
        }
    }
}
