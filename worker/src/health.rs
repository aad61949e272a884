//! `polyglot-worker health`: asks the worker that runs here whether it answers, for whatever starts a worker again that does
//! not. The image has no other program that could.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use polyglot_runtime::config::{ConfigError, Environment};

const PATIENCE: Duration = Duration::from_secs(3);
/// An answer is shorter.
const ENOUGH: u64 = 4096;

/// # Errors
/// When it does not answer within three seconds, or `METRICS_PORT` is not set.
pub(crate) fn ask(env: &Environment) -> Result<(), Box<dyn std::error::Error>> {
    let port = crate::config::metrics_port(env)?.ok_or_else(|| ConfigError::Problem {
        name: "METRICS_PORT".to_owned(),
        problem: "not set, so the worker does not listen".to_owned(),
    })?;
    let answer = get(port)?;
    let head = answer.lines().next().unwrap_or_default();
    if head.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(format!("the worker answered {head:?}").into()) }
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ENOUGH).read_to_string(&mut answer)?;
    Ok(answer)
}
