//! The command `polyglot-worker health`: it asks the worker on this machine whether it answers. Container platforms run
//! it as a health check, because the image has no other program that could.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use polyglot_runtime::config::{ConfigError, Environment};

/// Timeout of connecting, and of each read and write.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum bytes of an answer that are read; an answer is shorter.
const MAX_ANSWER_BYTES: u64 = 4096;

/// Requests `GET /health` of the worker on this machine.
///
/// # Errors
/// If the worker does not answer with status 200 in time, or `METRICS_PORT` is not set.
pub(crate) fn ask(env: &Environment) -> Result<(), Box<dyn std::error::Error>> {
    let address = crate::config::metrics_address(env)?.ok_or_else(|| ConfigError::Problem {
        name: "METRICS_PORT".to_owned(),
        problem: "not set, so the worker does not listen".to_owned(),
    })?;
    let answer = get(reachable(address))?;
    let head = answer.lines().next().unwrap_or_default();
    if head.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(format!("the worker answered {head:?}").into()) }
}

/// The address to connect to, where the worker listens on `address`: an unspecified one is no destination.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}
