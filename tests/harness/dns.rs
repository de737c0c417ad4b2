//! A DNS server whose records a test changes while it runs. It answers A, AAAA and SRV over UDP.
//!
//! This module does not know: the gateway, how names are used.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

/// The time to live of every record, in seconds.
const TTL: u32 = 1;
const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

type Records = HashMap<(String, u16), Vec<Vec<u8>>>;

/// The server. It answers until the process ends.
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    records: Arc<Mutex<Records>>,
}

impl Dns {
    /// Starts without records.
    pub fn start() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let (address, records) = (socket.local_addr()?, Arc::<Mutex<Records>>::default());
        let served = records.clone();
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut query) {
                if let Some(answer) = answer(&query[..length], &served) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Ok(Self { address, records })
    }

    /// Replaces the addresses of a name.
    pub fn set_addresses(&self, name: &str, addresses: &[IpAddr]) {
        let of_kind = |is_v4: bool| addresses.iter().filter(move |ip| ip.is_ipv4() == is_v4);
        let bytes = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, is_v4) in [(A, true), (AAAA, false)] {
            records.insert((name.to_owned(), kind), of_kind(is_v4).map(bytes).collect());
        }
    }

    /// Replaces the services of a name: priority, weight, port and target of each.
    pub fn set_services(&self, name: &str, services: &[(u16, u16, u16, &str)]) {
        let bytes = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
            let mut data = [priority, weight, port].map(|number| number.to_be_bytes()).concat();
            for label in target.split('.') {
                data.push(label.len() as u8);
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            data
        };
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert((name.to_owned(), SRV), services.iter().map(bytes).collect());
    }
}

/// The answer to a query with one question (RFC 1035, section 4).
fn answer(query: &[u8], records: &Mutex<Records>) -> Option<Vec<u8>> {
    let (mut name, mut at) = (vec![], 12);
    while let Some(length @ 1..) = query.get(at).map(|length| usize::from(*length)) {
        name.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).to_ascii_lowercase());
        at += 1 + length;
    }
    let question = query.get(12..at + 5)?;
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let records = records.lock().unwrap_or_else(PoisonError::into_inner);
    let name = name.join(".");
    let found = records.get(&(name.clone(), kind)).cloned().unwrap_or_default();
    let exists = records.keys().any(|(known, _)| *known == name);
    let mut answer = query[..2].to_vec();
    answer.extend_from_slice(&[0x85, if exists { 0x80 } else { 0x83 }, 0, 1]);
    answer.extend_from_slice(&(found.len() as u16).to_be_bytes());
    answer.extend_from_slice(&[0; 4]);
    answer.extend_from_slice(question);
    for data in found {
        answer.extend_from_slice(&[0xc0, 12]);
        answer.extend_from_slice(&kind.to_be_bytes());
        answer.extend_from_slice(&[0, 1]);
        answer.extend_from_slice(&TTL.to_be_bytes());
        answer.extend_from_slice(&(data.len() as u16).to_be_bytes());
        answer.extend_from_slice(&data);
    }
    Some(answer)
}
