//! The request of the commands `polyglot-api health` and `polyglot-worker health`: whether the process on this machine answers.
//! Container platforms run them as health checks, because the images have no other program that could.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Timeout of connecting, and of each read and write.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum bytes of an answer that are read; an answer is shorter.
const MAX_ANSWER_BYTES: u64 = 4096;

/// The reason why a process does not count as alive.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error("{address} does not answer")]
    Unreachable { address: SocketAddr, source: std::io::Error },
    #[error("{address} answered {head:?} to GET /health")]
    Answer { address: SocketAddr, head: String },
}

/// Requests `GET /health` of the process that listens on `address`, without TLS.
///
/// # Errors
/// If it does not answer with status 200 in time.
pub fn ask(address: SocketAddr) -> Result<(), HealthError> {
    let address = reachable(address);
    let answer = get(address).map_err(|source| HealthError::Unreachable { address, source })?;
    let head = answer.lines().next().unwrap_or_default();
    if head.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(HealthError::Answer { address, head: head.to_owned() })
    }
}

/// The address to connect to, where the process listens on `address`: an unspecified one is no destination.
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_an_answer_of_200_counts() {
        for (line, is_alive) in
            [("HTTP/1.1 200 OK", true), ("HTTP/1.1 503 Service Unavailable", false), ("SSH-2.0-x", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut client, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let length = client.read(&mut request).unwrap();
                client.write_all(format!("{line}\r\n\r\n").as_bytes()).unwrap();
                String::from_utf8_lossy(&request[..length]).into_owned()
            });
            // As it is configured: the address of all interfaces.
            let result = ask(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()));
            assert_eq!(result.is_ok(), is_alive, "{line}: {result:?}");
            assert!(server.join().unwrap().starts_with("GET /health HTTP/1.1\r\n"));
            // Nobody listens any more.
            assert!(matches!(ask(address), Err(HealthError::Unreachable { .. })));
        }
    }
}
