//! The TCP listeners: accept, give a seat, let the two talk.
//!
//! An accept loop for each address and a task for each connection, on tokio. Bounds are in [`super::seats`], what a
//! connection may do in `connection`.
//!
//! - Out of file descriptors (EMFILE, ENFILE) or memory: the longest idle connection is ended and the loop pauses for
//!   [`ACCEPT_PAUSE`]. Without a pause it would turn at full speed, since the connection stays in the queue.
//! - Drain: connections are accepted and answered as ever for the most of it; in its last quarter nothing is accepted
//!   or read, idle connections are closed, questions under way are answered. What is left then is cut off.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::connection::converse;
use super::seats::Seats;
pub use super::seats::TcpLimits;
use crate::limits::ACCEPT_PAUSE;
use crate::serve::Service;

/// Starts to accept on all of `listeners`, on `runtime`; `service` makes what each connection asks.
///
/// # Errors
///
/// What the kernel says where a listener cannot be watched. None accepts then.
pub fn start<S, F>(
    runtime: &Handle,
    listeners: Vec<(SocketAddr, StdListener)>,
    limits: TcpLimits,
    service: F,
) -> io::Result<TcpListeners>
where
    S: Service,
    F: Fn() -> S + Send + Sync + 'static,
{
    let _entered = runtime.enter();
    let listeners = listeners.into_iter().map(|(_, listener)| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    let listeners = listeners.collect::<io::Result<Vec<TcpListener>>>()?;
    let door = Arc::new(Door { seats: Seats::new(limits), ending: watch::Sender::new(false), service });
    let accepting =
        listeners.into_iter().map(|listener| runtime.spawn(accept(listener, door.clone())).abort_handle());
    Ok(TcpListeners { accepting: accepting.collect(), seats: door.seats.clone(), ending: door.ending.clone() })
}

/// The listeners that accept, and their connections. Dropped without [`drain`](Self::drain), they go on.
pub struct TcpListeners {
    accepting: Vec<AbortHandle>,
    seats: Arc<Seats>,
    ending: watch::Sender<bool>,
}

impl TcpListeners {
    /// How many connections are open, readable from anywhere.
    pub fn connections(&self) -> Connections {
        Connections(self.seats.clone())
    }

    /// Goes on for the most of `drain`, then ends what is idle and finishes what is not, all within `drain`. Says how
    /// many connections were cut off with something under way.
    pub async fn drain(self, drain: Duration) -> usize {
        let finish = drain / 4;
        sleep(drain - finish).await;
        self.accepting.iter().for_each(AbortHandle::abort);
        self.ending.send_replace(true);
        if timeout(finish, self.seats.all_free()).await.is_ok() { 0 } else { self.seats.dismiss_all() }
    }
}

/// How many connections are open.
#[derive(Clone)]
pub struct Connections(Arc<Seats>);

impl Connections {
    /// At this moment.
    pub fn open(&self) -> usize {
        self.0.taken()
    }

    /// Are there as many as there may be?
    pub fn are_all(&self) -> bool {
        self.0.are_all_taken()
    }
}

struct Door<F> {
    seats: Arc<Seats>,
    ending: watch::Sender<bool>,
    service: F,
}

async fn accept<S: Service, F: Fn() -> S + Send + Sync + 'static>(listener: TcpListener, door: Arc<Door<F>>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Ok(local) = stream.local_addr() else { continue };
                // Without a seat the connection is closed, by its drop.
                let Ok(seat) = door.seats.take(peer.ip(), local.ip()) else { continue };
                // Replies that are ready leave in one write: nothing is gained by waiting for more (RFC 7766 §8).
                let _ = stream.set_nodelay(true);
                let (id, ending) = (seat.id(), door.ending.subscribe());
                let task = tokio::spawn(converse(stream, peer, (door.service)(), seat, ending));
                door.seats.occupy(id, task.abort_handle());
            }
            Err(error) => match cause(&error) {
                Cause::Connection => {}
                Cause::Shortage => {
                    door.seats.make_room();
                    sleep(ACCEPT_PAUSE).await;
                }
                Cause::Unknown => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
}

/// Why accept failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// That one connection is at fault, and gone: accept(2) hands on errors of the network.
    Connection,
    /// This machine lacks something; the connection stays in the queue.
    Shortage,
    /// None that accept(2) names.
    Unknown,
}

fn cause(error: &io::Error) -> Cause {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Cause::Shortage,
        Some(
            Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PERM
            | Errno::PROTO
            | Errno::TIMEDOUT,
        ) => Cause::Connection,
        _ => Cause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::clock::Moment;
    use crate::serve::{Client, Outcome, Prepared, ReplyTo};

    #[tokio::test]
    async fn each_address_accepts_and_each_connection_is_counted() {
        let (listeners, addresses, _) = start_on(&["127.0.0.1:0", "[::1]:0"], 8);
        let connections = listeners.connections();
        let mut open = Vec::new();
        for (n, address) in addresses.iter().cycle().take(6).enumerate() {
            let mut client = TcpStream::connect(address).await.unwrap();
            assert_eq!(echo(&mut client).await, b"echo");
            open.push(client);
            assert_eq!(connections.open(), n + 1);
        }
        drop(open);
        connections.0.all_free().await;
        assert_eq!(connections.open(), 0);
    }

    #[tokio::test]
    async fn where_all_seats_are_taken_the_longest_idle_connection_ends() {
        let (listeners, addresses, _) = start_on(&["127.0.0.1:0"], 2);
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = TcpStream::connect(addresses[0]).await.unwrap();
            assert_eq!(echo(&mut client).await, b"echo");
            clients.push(client);
        }
        assert_eq!(clients[0].read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!([echo(&mut clients[1]).await, echo(&mut clients[2]).await], [b"echo", b"echo"]);
        assert_eq!(listeners.connections().open(), 2);
    }

    #[tokio::test]
    async fn where_all_seats_are_busy_a_new_connection_is_closed() {
        let (_listeners, addresses, open) = start_on(&["127.0.0.1:0"], 1);
        let mut busy = TcpStream::connect(addresses[0]).await.unwrap();
        busy.write_all(b"\0\x04open").await.unwrap();
        let way = next(&open).await;
        let mut other = TcpStream::connect(addresses[0]).await.unwrap();
        assert_eq!(other.read(&mut [0; 1]).await.unwrap_or(0), 0);
        way.send(b"late");
        assert_eq!(reply(&mut busy).await, b"late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_answers_what_is_under_way_and_closes_the_rest() {
        let (listeners, addresses, open) = start_on(&["127.0.0.1:0"], 8);
        let mut idle = TcpStream::connect(addresses[0]).await.unwrap();
        let mut busy = TcpStream::connect(addresses[0]).await.unwrap();
        busy.write_all(b"\0\x04open").await.unwrap();
        let way = next(&open).await;
        let drain = tokio::spawn(listeners.drain(Duration::from_secs(4)));
        // Answers go on at first.
        tokio::task::yield_now().await;
        assert_eq!(echo(&mut idle).await, b"echo");
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(TcpStream::connect(addresses[0]).await.is_err());
        way.send(b"late");
        assert_eq!(reply(&mut busy).await, b"late");
        assert_eq!(busy.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(drain.await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_cuts_off_what_is_not_answered_in_time() {
        let (listeners, addresses, open) = start_on(&["127.0.0.1:0"], 8);
        let mut busy = TcpStream::connect(addresses[0]).await.unwrap();
        busy.write_all(b"\0\x04open").await.unwrap();
        let _way = next(&open).await;
        assert_eq!(listeners.drain(Duration::from_secs(2)).await, 1);
        assert_eq!(busy.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }

    #[test]
    fn a_shortage_is_told_from_a_broken_connection() {
        for (errno, want) in [
            (Errno::MFILE, Cause::Shortage),
            (Errno::NFILE, Cause::Shortage),
            (Errno::CONNABORTED, Cause::Connection),
            (Errno::PERM, Cause::Connection),
            (Errno::BADF, Cause::Unknown),
        ] {
            assert_eq!(cause(&errno.into()), want, "{errno}");
        }
        assert_eq!(cause(&io::ErrorKind::Other.into()), Cause::Unknown);
    }

    type Ways = Arc<Mutex<Vec<Box<dyn ReplyTo>>>>;

    fn start_on(addresses: &[&str], connections: usize) -> (TcpListeners, Vec<SocketAddr>, Ways) {
        let mut listeners = Vec::new();
        for address in addresses {
            let listener = StdListener::bind(address).unwrap();
            listeners.push((listener.local_addr().unwrap(), listener));
        }
        let addresses = listeners.iter().map(|(address, _)| *address).collect();
        let limits = TcpLimits { connections, connections_per_client: 1, client_prefix: (32, 56) };
        let ways = Ways::default();
        let service = {
            let ways = ways.clone();
            move || Script(ways.clone())
        };
        (start(&Handle::current(), listeners, limits, service).unwrap(), addresses, ways)
    }

    async fn next(ways: &Ways) -> Box<dyn ReplyTo> {
        loop {
            if let Some(way) = ways.lock().unwrap().pop() {
                return way;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn echo(client: &mut TcpStream) -> Vec<u8> {
        client.write_all(b"\0\x04echo").await.unwrap();
        reply(client).await
    }

    async fn reply(client: &mut TcpStream) -> Vec<u8> {
        let mut reply = vec![0; client.read_u16().await.unwrap().into()];
        client.read_exact(&mut reply).await.unwrap();
        reply
    }

    /// Answers all but "open", which it keeps.
    struct Script(Ways);

    impl Service for Script {
        type Open = ();

        fn begin_batch(&mut self) {}

        fn serve(&mut self, packet: &[u8], _: Prepared, client: Client, out: &mut [u8], _: Moment) -> Outcome<()> {
            assert!(client.address.is_loopback());
            out[..packet.len()].copy_from_slice(packet);
            if packet == b"open" { Outcome::Open(()) } else { Outcome::Reply(packet.len()) }
        }

        fn hand_over(&mut self, (): (), reply_to: Option<Box<dyn ReplyTo>>) {
            self.0.lock().unwrap().extend(reply_to);
        }
    }
}
