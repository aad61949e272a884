//! A TCP proxy that injects network faults: refused, broken, stalled and slow connections. For tests; it knows no protocol.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::error::{Error, Result};

/// Direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A listener on a free port of 127.0.0.1 that forwards to one target at a time. Dropping it disconnects everything.
///
/// Each fault lasts until another call changes it or [`Proxy::restore`] ends all of them. Faults add up.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    rules: watch::Sender<Rules>,
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<Counters>,
    server: AbortHandle,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    /// Where new connections lead.
    target: String,
    stall: bool,
    bytes_per_second: Option<u64>,
    /// Connections of an earlier generation are disconnected.
    generation: u64,
    disconnect_after: Option<DisconnectAfter>,
    stall_after: Option<StallAfter>,
}

/// Stalls a direction once so many bytes were forwarded in it since the proxy started.
#[derive(Clone, Copy, Debug)]
struct StallAfter {
    direction: Direction,
    total: u64,
}

impl Rules {
    fn stalls(&self, direction: Direction, counters: &Counters) -> bool {
        let spent =
            |it: StallAfter| it.direction == direction && counters.of(direction).load(Ordering::Relaxed) >= it.total;
        self.stall || self.stall_after.is_some_and(spent)
    }
}

/// Bytes that may still pass in one direction; shared by all connections.
#[derive(Clone, Debug)]
struct DisconnectAfter {
    direction: Direction,
    left: Arc<Mutex<u64>>,
}

#[derive(Debug)]
enum Command {
    Refuse(oneshot::Sender<()>),
    Accept(oneshot::Sender<io::Result<()>>),
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Counters {
    fn of(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

impl Proxy {
    /// Starts to forward to `target`, a `host:port`, on the current Tokio runtime. The target need not listen yet.
    pub fn start(target: impl Into<String>) -> Result<Self> {
        let target = target.into();
        let reservation = reserve().map_err(Error::io("find a port for a proxy"))?;
        let address = reservation.local_addr().map_err(Error::io("find the address of a proxy"))?;
        let listener = listen(address).map_err(Error::io(format!("listen on {address}")))?;
        let (rules, seen) = watch::channel(Rules { target, ..Rules::default() });
        let (commands, orders) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let server = tokio::spawn(serve(reservation, listener, seen, orders, Arc::clone(&counters))).abort_handle();
        Ok(Self { address, rules, commands, counters, server })
    }

    /// `127.0.0.1:port`: the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Refuses new connections (the port is closed); open ones stay. In effect when it returns.
    pub async fn refuse_new(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Refuse(done)).is_ok() {
            let _ = wait.await;
        }
    }

    /// Resets all open connections, on both sides. New ones are accepted.
    pub fn disconnect_all(&self) {
        self.rules.send_modify(|rules| rules.generation += 1);
    }

    /// Forwards new connections to another `host:port`, as an address does that follows a failover. Open ones stay.
    pub fn lead_to(&self, target: impl Into<String>) {
        self.rules.send_modify(|rules| rules.target = target.into());
    }

    /// Forwards nothing from now on, without closing anything. New connections are accepted and get no answer.
    pub fn stall(&self) {
        self.rules.send_modify(|rules| rules.stall = true);
    }

    /// Forwards at most this many bytes a second, in each direction of each connection.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.rules.send_modify(|rules| rules.bytes_per_second = Some(bytes_per_second.max(1)));
    }

    /// Forwards `bytes` more in this direction, counted over all connections, and then resets all connections, once.
    pub fn disconnect_after(&self, direction: Direction, bytes: u64) {
        let fault = DisconnectAfter { direction, left: Arc::new(Mutex::new(bytes)) };
        self.rules.send_modify(|rules| rules.disconnect_after = Some(fault));
    }

    /// Forwards about `bytes` more in this direction (and at most one read more), counted over all connections, and then
    /// nothing, without closing anything.
    pub fn stall_after(&self, direction: Direction, bytes: u64) {
        let total = self.forwarded(direction).saturating_add(bytes);
        self.rules.send_modify(|rules| rules.stall_after = Some(StallAfter { direction, total }));
    }

    /// Ends every fault: accepts, and forwards at full speed, also what was stalled.
    pub async fn restore(&self) -> Result<()> {
        self.rules.send_modify(|rules| {
            let target = std::mem::take(&mut rules.target);
            *rules = Rules { target, generation: rules.generation, ..Rules::default() };
        });
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Accept(done)).is_ok()
            && let Ok(result) = wait.await
        {
            result.map_err(Error::io(format!("listen on {} again", self.address)))?;
        }
        Ok(())
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// Bytes forwarded so far in this direction.
    pub fn forwarded(&self, direction: Direction) -> u64 {
        self.counters.of(direction).load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A socket that has a free address and does not listen. Other sockets share the address only with the option that
/// [`listen`] sets.
fn reserve() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    // Connections of the last listener may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// While the proxy refuses connections, `reservation` keeps its port, so that no other socket gets it in the meantime, such as
/// an outgoing connection.
async fn serve(
    reservation: TcpSocket,
    listener: TcpListener,
    rules: watch::Receiver<Rules>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    counters: Arc<Counters>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    // A connection that has used up a `disconnect_after` requests the reset of all connections.
    let (request_reset, mut reset_requests) = mpsc::unbounded_channel::<()>();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Refuse(done)) => {
                    listener = None;
                    let _ = done.send(());
                }
                Some(Command::Accept(done)) => {
                    let result = match listener {
                        Some(_) => Ok(()),
                        None => reservation.local_addr().and_then(listen).map(|bound| listener = Some(bound)),
                    };
                    let _ = done.send(result);
                }
            },
            accepted = async { match &listener { Some(listener) => listener.accept().await, None => std::future::pending().await } } => {
                if let Ok((client, _)) = accepted {
                    counters.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(forward_connection(client, rules.clone(), Arc::clone(&counters), request_reset.clone()));
                }
            }
            Some(()) = reset_requests.recv() => connections.abort_all(),
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Forwards one connection until a side closes it or it is disconnected. A side that is still open then is reset.
async fn forward_connection(
    mut client: TcpStream,
    rules: watch::Receiver<Rules>,
    counters: Arc<Counters>,
    request_reset: mpsc::UnboundedSender<()>,
) {
    // A zero linger makes every close a reset, also one after an orderly end, which is therefore waited for below.
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    let (born, target) = {
        let rules = rules.borrow();
        (rules.generation, rules.target.clone())
    };
    let mut older = rules.clone();
    let forward = async {
        let mut server = TcpStream::connect(&target).await?;
        server.set_zero_linger()?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_client, to_server, Direction::ToServer, rules.clone(), &counters);
        let down = pump(from_server, to_client, Direction::ToClient, rules, &counters);
        tokio::try_join!(up, down)?;
        // Both sides have finished: bytes in the buffers need time to arrive before the reset.
        tokio::time::sleep(Duration::from_millis(200)).await;
        io::Result::Ok(())
    };
    tokio::select! {
        ended = forward => {
            if ended.is_err_and(|error| error.kind() == io::ErrorKind::QuotaExceeded) {
                let _ = request_reset.send(());
            }
        }
        () = async { let _ = older.wait_for(|rules| rules.generation > born).await; } => {}
    }
}

/// Forwards one direction until its end, and passes the end on.
///
/// The halves are borrowed, because an owned one closes its direction in order when it is dropped, and a reset must not.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut rules: watch::Receiver<Rules>,
    counters: &Counters,
) -> io::Result<()> {
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let limit = rules.borrow().bytes_per_second;
        // At most the bytes of a tenth of a second, so that a throttled connection is a steady one.
        let piece =
            limit.map_or(buffer.len(), |rate| usize::try_from(rate / 10).unwrap_or(usize::MAX).clamp(1, buffer.len()));
        let read = from.read(&mut buffer[..piece]).await?;
        if rules.wait_for(|rules| !rules.stalls(direction, counters)).await.is_err() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        let allowed = take_allowance(&rules.borrow(), direction, read);
        to.write_all(&buffer[..allowed]).await?;
        counters.of(direction).fetch_add(allowed as u64, Ordering::Relaxed);
        if allowed < read {
            // The bytes need time to arrive before the reset.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if let Some(rate) = limit {
            tokio::time::sleep(Duration::from_secs(1).mul_f64(fraction(allowed as u64, rate))).await;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
fn fraction(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Number of `wanted` bytes that may pass: fewer than wanted once, when the allowance is used up, and all of them afterwards.
fn take_allowance(rules: &Rules, direction: Direction, wanted: usize) -> usize {
    /// Value of `left` once the connections were reset.
    const SPENT: u64 = u64::MAX;
    let Some(fault) = rules.disconnect_after.as_ref().filter(|fault| fault.direction == direction) else {
        return wanted;
    };
    let mut left = fault.left.lock().unwrap_or_else(PoisonError::into_inner);
    if *left == SPENT {
        return wanted;
    }
    match usize::try_from(*left) {
        Ok(allowed) if allowed < wanted => {
            *left = SPENT;
            allowed
        }
        _ => {
            *left -= wanted as u64;
            wanted
        }
    }
}
