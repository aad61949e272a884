//! A TCP proxy that gives every connection the same bounded rate towards the client, as a source database does whose
//! disks or network are what an export waits for.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// What may pass at once after a pause.
const BURST: Duration = Duration::from_millis(50);

/// Listens, says on which address, and forwards until the process is ended.
pub(crate) async fn run(listen: &str, target: &str, bytes_per_second: u64) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("{}", address_of(&listener)?);
    loop {
        let (client, _) = listener.accept().await?;
        let target = target.to_owned();
        tokio::spawn(async move {
            // An end that goes away ends the other one; nobody else is concerned.
            forward(client, &target, bytes_per_second).await.ok();
        });
    }
}

fn address_of(listener: &TcpListener) -> std::io::Result<SocketAddr> {
    listener.local_addr()
}

async fn forward(mut client: TcpStream, target: &str, bytes_per_second: u64) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        // When everything that has passed would have passed at the rate.
        let mut due = Instant::now();
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            to_client.write_all(&buffer[..read]).await?;
            let earliest = Instant::now().checked_sub(BURST).unwrap_or(due);
            due = due.max(earliest) + Duration::from_secs(1).mul_f64(share(read, bytes_per_second));
            sleep_until(due).await;
        }
    };
    let up = async {
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

#[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
fn share(part: usize, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
