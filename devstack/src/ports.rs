//! Free TCP ports on the loopback address, and the ports that servers had in the last run. Nothing listens here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use rand::Rng;

use crate::error::{Error, Result};
use crate::stack_env;

/// Below the range that Linux uses for outgoing connections (32768 and up), so that no connection takes a port between the
/// choice and the server's bind, and without the well-known ports of the servers that are started here.
const RANGE: std::ops::RangeInclusive<u16> = 20_000..=24_999;

/// A port on 127.0.0.1 on which nothing listens now.
///
/// Another process may take it before it is used; the choice is random so that two callers at once rarely meet.
pub fn free_port() -> Result<u16> {
    free_ports(1).map(|ports| ports[0])
}

/// `count` different free ports.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let mut found = BTreeSet::new();
    let mut order = Vec::with_capacity(count);
    for _ in 0..10_000 {
        if order.len() == count {
            return Ok(order);
        }
        let port = rand::rng().random_range(RANGE);
        if is_free(port) && found.insert(port) {
            order.push(port);
        }
    }
    Err(Error::Refused(format!("no {count} free ports between {} and {} on 127.0.0.1", RANGE.start(), RANGE.end())))
}

/// Whether a server could listen on 127.0.0.1 at `port` now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The ports of one data folder, kept in a file so that addresses stay the same from run to run.
#[derive(Debug)]
pub struct RememberedPorts {
    file: PathBuf,
    ports: BTreeMap<String, String>,
}

impl RememberedPorts {
    /// Reads the file. A file that is missing or unreadable counts as empty.
    pub fn open(file: PathBuf) -> Self {
        let ports = stack_env::read(&file).unwrap_or_default();
        Self { file, ports }
    }

    /// The port that `name` had in the last run if it is still free, otherwise a new one.
    pub fn get(&mut self, name: &str) -> Result<u16> {
        let taken = |port: u16, ports: &BTreeMap<String, String>| {
            ports.iter().any(|(other, value)| other != name && value.parse() == Ok(port))
        };
        if let Some(port) = self.ports.get(name).and_then(|port| port.parse::<u16>().ok())
            && !taken(port, &self.ports)
            && is_free(port)
        {
            return Ok(port);
        }
        let mut port = free_port()?;
        while taken(port, &self.ports) {
            port = free_port()?;
        }
        self.ports.insert(name.to_owned(), port.to_string());
        stack_env::write(&self.file, self.ports.iter().map(|(name, port)| (name.as_str(), port.as_str())))?;
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch_dir::ScratchDir;

    #[test]
    fn ports_differ_and_can_be_bound() {
        let ports = free_ports(20).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 20);
        TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).unwrap();
    }

    #[test]
    fn a_port_is_kept_while_it_is_free() {
        let dir = ScratchDir::new("ports").unwrap();
        let file = dir.path().join("ports.env");
        let first = RememberedPorts::open(file.clone()).get("postgres").unwrap();
        let mut again = RememberedPorts::open(file.clone());
        assert_eq!(again.get("postgres").unwrap(), first);
        assert_ne!(again.get("rabbitmq").unwrap(), first);
        let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_ne!(RememberedPorts::open(file).get("postgres").unwrap(), first);
    }
}
