//! A listener on every address of this machine in front of a server that listens on the loopback address, with TLS or without.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

pub(super) struct Front {
    pub port: u16,
    /// Connections that were forwarded, after their handshake.
    forwarded: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Front {
    /// Forwards to `target`, a host and port.
    pub(super) async fn start(target: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (target, acceptor, forwarded) =
            (target.to_owned(), tls.map(TlsAcceptor::from), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&forwarded);
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (target, acceptor, count) = (target.clone(), acceptor.clone(), Arc::clone(&count));
                // Clients that refuse the certificate, and either side that goes away, are what tests are about.
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await?;
                    match acceptor {
                        Some(acceptor) => {
                            let mut client = acceptor.accept(client).await?;
                            count.fetch_add(1, Ordering::Relaxed);
                            copy_bidirectional(&mut client, &mut server).await
                        }
                        None => copy_bidirectional(&mut client, &mut server).await,
                    }
                });
            }
        });
        Self { port, forwarded, task: task.abort_handle() }
    }

    pub(super) fn forwarded(&self) -> usize {
        self.forwarded.load(Ordering::Relaxed)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}
