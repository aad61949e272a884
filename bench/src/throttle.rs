//! A TCP proxy that limits the rate of every connection towards the client. It stands for a source database whose disks
//! or network limit an export.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// Time for which bytes may pass without a delay after a pause.
const BURST: Duration = Duration::from_millis(50);

/// Listens, prints the address, and forwards until the process is ended.
pub(crate) async fn run(listen: &str, target: &str, bytes_per_second: u64) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("{}", address_of(&listener)?);
    loop {
        let (client, _) = listener.accept().await?;
        let target = target.to_owned();
        tokio::spawn(async move {
            // When one side closes the connection, the other side is closed too; other connections are not affected.
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
        // Time at which everything that was forwarded would have passed at the limited rate.
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
