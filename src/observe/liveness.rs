//! Does this process still answer?
//!
//! It depends on this process alone: no upstream's state may ever restart a process that can answer stale. [`check`]
//! asks [`HEALTH_NAME`] through our own listeners, over UDP and TCP, as a client would, and looks at the heartbeat of
//! every worker. Rules:
//!
//! - Each address must give a reply to our question within [`ASK_DEADLINE`], over UDP and over TCP, side by side. Any
//!   RCODE but SERVFAIL will do: from an address of this node that is not loopback the name does not exist, or the
//!   question is refused, and either answer has come the whole way through worker and `serve`.
//! - Where there are as many TCP connections as there may be, a new one is turned away, ours among them: that is a
//!   bound at work and no fault, and UDP alone decides. Clients and a silent upstream could else have us restarted.
//! - Over UDP the question is sent again every [`AGAIN`]: where a flood fills the buffers, most of them get nowhere.
//! - An address that this node cannot reach at all (no route, as where its link is down) is none that we listen on:
//!   loopback excepted, no process is at fault there.
//! - A watchdog, which ends what it finds dead, asks [`Liveness::check_over`] a span: who answered within it is alive.
//! - A wildcard address is asked at the loopback address of its family.
//! - No worker's last heartbeat may be older than [`HEARTBEAT_AGE_MAX`].
//!
//! [`check`]: Liveness::check

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{interval, timeout};

use crate::clock::{self, Moment};
use crate::limits::UDP_PAYLOAD_MAX;
use crate::serve::local::HEALTH_NAME;
use crate::wire::reply::{Identity, identify};
use crate::wire::{Name, build, rcode, rtype};

/// Within this an own listener answers.
pub const ASK_DEADLINE: Duration = Duration::from_millis(500);
/// Between two of one question over UDP.
pub const AGAIN: Duration = Duration::from_millis(50);
/// A worker gives a sign at least once a second; after this long it hangs.
pub const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(10);
/// Addresses that are asked in one check.
const ADDRESSES_MAX: usize = 64;

/// Judges whether this process still answers; the error is the reason in a sentence.
pub trait Liveness: Send + Sync {
    /// Judges by what answers now, within about a second.
    fn check(&self) -> Judging<'_> {
        self.check_over(Duration::ZERO)
    }

    /// Judges likewise, but what answered such a check within `span` before counts as answering.
    fn check_over(&self, span: Duration) -> Judging<'_>;
}

/// A judgement under way.
pub type Judging<'l> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'l>>;

/// Asks the own listeners, and looks at the workers' heartbeats.
pub struct OwnListeners {
    addresses: Box<dyn Fn() -> Vec<SocketAddr> + Send + Sync>,
    heartbeats: Box<dyn Fn() -> Vec<Duration> + Send + Sync>,
    is_tcp_full: Box<dyn Fn() -> bool + Send + Sync>,
    /// When an address answered last, over UDP and over TCP.
    answered: Mutex<HashMap<(SocketAddr, &'static str), Moment>>,
}

impl OwnListeners {
    /// `addresses`: those that are bound at this moment; `heartbeats`: time since each worker's last sign;
    /// `is_tcp_full`: are there as many TCP connections as there may be?
    pub fn new(
        addresses: impl Fn() -> Vec<SocketAddr> + Send + Sync + 'static,
        heartbeats: impl Fn() -> Vec<Duration> + Send + Sync + 'static,
        is_tcp_full: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let (addresses, heartbeats) = (Box::new(addresses), Box::new(heartbeats));
        Self { addresses, heartbeats, is_tcp_full: Box::new(is_tcp_full), answered: Mutex::default() }
    }

    /// Notes an answer, and lets one within `span` stand for the one that did not come.
    fn note(&self, at: SocketAddr, over: &'static str, came: io::Result<u16>, span: Duration) -> Result<(), String> {
        let why = match came {
            Ok(rcode::SERVFAIL) => "SERVFAIL".to_owned(),
            Err(e) if is_out_of_reach(&e) && !reachable(at).ip().is_loopback() => return Ok(()),
            Err(e) if e.kind() == ErrorKind::TimedOut => format!("no answer within {} ms", ASK_DEADLINE.as_millis()),
            Err(e) => e.to_string(),
            Ok(_) => {
                self.answered().insert((at, over), clock::now());
                return Ok(());
            }
        };
        let last = self.answered().get(&(at, over)).copied();
        let is_recent = last.is_some_and(|last| clock::now().since(last) < span);
        if is_recent { Ok(()) } else { Err(format!("{at} over {over}: {why}")) }
    }

    fn answered(&self) -> std::sync::MutexGuard<'_, HashMap<(SocketAddr, &'static str), Moment>> {
        // Nothing panics while it is held.
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Liveness for OwnListeners {
    fn check_over(&self, span: Duration) -> Judging<'_> {
        Box::pin(async move {
            for (worker, age) in (self.heartbeats)().into_iter().enumerate() {
                if age > HEARTBEAT_AGE_MAX {
                    return Err(format!("worker {worker} gave its last sign {} s ago", age.as_secs()));
                }
            }
            let addresses: Vec<_> = (self.addresses)().into_iter().take(ADDRESSES_MAX).collect();
            self.answered().retain(|(at, _), _| addresses.contains(at));
            let asks = addresses.into_iter().map(|bound| async move {
                let address = reachable(bound);
                let (udp, tcp) = tokio::join!(ask_within(ask_udp(address)), ask_within(ask_tcp(address)));
                self.note(bound, "UDP", udp, span)?;
                let bounded = tcp.is_err() && (self.is_tcp_full)();
                if bounded { Ok(()) } else { self.note(bound, "TCP", tcp, span) }
            });
            join_all(asks).await.into_iter().collect()
        })
    }
}

/// Where a bound address is reached from this node.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound.ip() {
        IpAddr::V4(a) if a.is_unspecified() => (Ipv4Addr::LOCALHOST, bound.port()).into(),
        IpAddr::V6(a) if a.is_unspecified() => (Ipv6Addr::LOCALHOST, bound.port()).into(),
        _ => bound,
    }
}

/// Any address of the same family.
pub fn any_beside(address: SocketAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

async fn ask_within(ask: impl Future<Output = io::Result<u16>>) -> io::Result<u16> {
    timeout(ASK_DEADLINE, ask).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Does the kernel know no way there?
fn is_out_of_reach(e: &io::Error) -> bool {
    use ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    matches!(e.kind(), AddrNotAvailable | HostUnreachable | NetworkDown | NetworkUnreachable)
}

/// A question of our own, and what its reply must show.
struct Asked {
    id: u16,
    name: Name,
    packet: Vec<u8>,
}

impl Asked {
    fn new() -> Self {
        let id = rand::random::<u16>();
        // The name is a constant that a test reads.
        let name = HEALTH_NAME.parse().unwrap_or_else(|_| Name::root());
        let mut packet = build::question(name.as_wire(), rtype::TXT, false, false, false);
        packet[..2].copy_from_slice(&id.to_be_bytes());
        Self { id, name, packet }
    }

    /// The RCODE of a reply that is ours; `None` for any other packet.
    fn rcode(&self, packet: &[u8]) -> Option<u16> {
        match identify(packet, self.id, self.name.as_wire(), rtype::TXT) {
            Identity::Ours => Some(u16::from(packet[3] & 15)),
            Identity::HeaderOnly(rcode) => Some(rcode),
            Identity::NotOurs => None,
        }
    }
}

async fn ask_udp(address: SocketAddr) -> io::Result<u16> {
    let socket = UdpSocket::bind((any_beside(address), 0)).await?;
    socket.connect(address).await?;
    let asked = Asked::new();
    let mut packet = [0; UDP_PAYLOAD_MAX];
    let mut turns = interval(AGAIN);
    loop {
        let length = tokio::select! {
            _ = turns.tick() => {
                socket.send(&asked.packet).await?;
                continue;
            }
            length = socket.recv(&mut packet) => length?,
        };
        if let Some(rcode) = asked.rcode(&packet[..length]) {
            return Ok(rcode);
        }
    }
}

async fn ask_tcp(address: SocketAddr) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let asked = Asked::new();
    let length = (asked.packet.len() as u16).to_be_bytes();
    stream.write_all(&[&length, &asked.packet[..]].concat()).await?;
    loop {
        let length = usize::from(stream.read_u16().await?);
        let mut packet = vec![0; length];
        stream.read_exact(&mut packet).await?;
        if let Some(rcode) = asked.rcode(&packet) {
            return Ok(rcode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::query;
    use tokio::net::TcpListener;

    #[test]
    fn the_name_that_is_asked_is_a_name() {
        assert!(HEALTH_NAME.parse::<Name>().is_ok());
    }

    #[test]
    fn a_wildcard_is_asked_at_loopback() {
        for (bound, asked) in
            [("0.0.0.0:53", "127.0.0.1:53"), ("[::]:53", "[::1]:53"), ("127.0.0.5:1053", "127.0.0.5:1053")]
        {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), asked);
        }
    }

    #[tokio::test]
    async fn who_answers_is_alive_whatever_the_rcode_but_servfail() {
        for (rcode, alive) in [(rcode::NOERROR, true), (rcode::NXDOMAIN, true), (rcode::REFUSED, true), (2, false)] {
            let address = listener(Some(rcode), Some(rcode)).await;
            assert_eq!(check(address, vec![]).await.is_ok(), alive, "{rcode}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_over_one_transport_is_not_alive() {
        let address = listener(None, Some(0)).await;
        assert!(check(address, vec![]).await.unwrap_err().ends_with("over UDP: no answer within 500 ms"));
        let address = listener(Some(0), None).await;
        assert!(check(address, vec![]).await.unwrap_err().ends_with("over TCP: no answer within 500 ms"));
    }

    #[tokio::test(start_paused = true)]
    async fn where_tcp_is_full_udp_alone_decides() {
        for (udp, alive) in [(Some(0), true), (None, false)] {
            let address = listener(udp, None).await;
            let check = OwnListeners::new(move || vec![address], Vec::new, || true);
            assert_eq!(check.check().await.is_ok(), alive, "{udp:?}");
        }
    }

    #[tokio::test]
    async fn the_question_is_sent_again_where_a_flood_swallows_it() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let answered = tokio::spawn(async move {
            let mut packet = [0; 512];
            for _ in 0..3 {
                udp.recv_from(&mut packet).await.unwrap();
            }
            let (length, from) = udp.recv_from(&mut packet).await.unwrap();
            let mut out = [0; 512];
            let query = query::check(&packet[..length]).unwrap();
            let length = build::Builder::new(query, 0, None, &[], &mut out).finish();
            udp.send_to(&out[..length], from).await.unwrap();
        });
        assert_eq!(ask_within(ask_udp(address)).await.unwrap(), 0);
        answered.await.unwrap();
    }

    #[tokio::test]
    async fn over_a_span_who_has_answered_in_it_is_alive() {
        let address = listener(Some(0), Some(0)).await;
        let addresses = std::sync::Arc::new(Mutex::new(vec![address]));
        let shown = addresses.clone();
        let own = OwnListeners::new(move || shown.lock().unwrap().clone(), Vec::new, || false);
        assert_eq!(own.check().await, Ok(()));
        let closed = SocketAddr::new(address.ip(), free_port().await);
        let answered = |at| own.answered().insert((at, "UDP"), clock::now());
        addresses.lock().unwrap()[0] = closed;
        answered(closed);
        own.answered().insert((closed, "TCP"), clock::now());
        assert!(own.check().await.is_err());
        assert_eq!(own.check_over(Duration::from_secs(3600)).await, Ok(()));
        own.answered().clear();
        assert!(own.check_over(Duration::from_secs(3600)).await.is_err());
    }

    #[test]
    fn only_what_has_no_way_to_it_is_out_of_reach() {
        for (kind, out) in [
            (ErrorKind::NetworkUnreachable, true),
            (ErrorKind::HostUnreachable, true),
            (ErrorKind::AddrNotAvailable, true),
            (ErrorKind::ConnectionRefused, false),
            (ErrorKind::TimedOut, false),
        ] {
            assert_eq!(is_out_of_reach(&kind.into()), out, "{kind}");
            let own = OwnListeners::new(Vec::new, Vec::new, || false);
            let judged = |at: &str| own.note(at.parse().unwrap(), "UDP", Err(kind.into()), Duration::ZERO).is_ok();
            assert_eq!(judged("[2001:db8::5]:53"), out, "{kind}");
            assert!(!judged("127.0.0.1:53") && !judged("[::]:53"), "{kind}: loopback is always in reach");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_not_alive() {
        let address = listener(Some(0), Some(0)).await;
        let closed = SocketAddr::new(address.ip(), free_port().await);
        assert!(check(closed, vec![]).await.is_err());
    }

    #[tokio::test]
    async fn a_worker_that_hangs_is_not_alive() {
        let address = listener(Some(0), Some(0)).await;
        let (fine, hangs) = (HEARTBEAT_AGE_MAX, HEARTBEAT_AGE_MAX + Duration::from_millis(1));
        assert_eq!(check(address, vec![fine, fine]).await, Ok(()));
        assert_eq!(check(address, vec![fine, hangs]).await, Err("worker 1 gave its last sign 10 s ago".into()));
    }

    async fn check(address: SocketAddr, heartbeats: Vec<Duration>) -> Result<(), String> {
        OwnListeners::new(move || vec![address], move || heartbeats.clone(), || false).check().await
    }

    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    /// Answers each question with an RCODE, after a packet that is not ours; `None` reads and is silent.
    async fn listener(udp: Option<u16>, tcp: Option<u16>) -> SocketAddr {
        let reply = |packet: &[u8], rcode: u16| {
            let mut out = [0; 512];
            let n = build::Builder::new(query::check(packet).unwrap(), rcode, None, &[], &mut out).finish();
            out[..n].to_vec()
        };
        let tcp_socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp_socket.local_addr().unwrap();
        let udp_socket = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((n, from)) = udp_socket.recv_from(&mut packet).await {
                if let Some(rcode) = udp {
                    udp_socket.send_to(&[1, 2, 3], from).await.unwrap();
                    udp_socket.send_to(&reply(&packet[..n], rcode), from).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = tcp_socket.accept().await {
                let mut packet = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut packet).await.unwrap();
                if let Some(rcode) = tcp {
                    let reply = reply(&packet, rcode);
                    stream.write_u16(reply.len() as u16).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
                held.push(stream);
            }
        });
        address
    }
}
