//! The socket of one question.
//!
//! Against forged replies (RFC 5452 §9.2): a fresh socket for each question, on a port drawn over 1024–65535 and
//! with an id drawn over all 65,536, both from a CSPRNG: close to 32 unpredictable bits, good for one question and
//! its deadline. The port is not left to the kernel: its ephemeral range has 28,232 ports on a usual Linux, and an
//! operator may have made it smaller for other reasons. A port that is taken is drawn again, a few times.
//!
//! The socket is connected: the kernel drops what other addresses send, and an ICMP error about the question ends
//! the wait at once ([`Failure::Refused`]) where an unconnected socket would sit out the deadline. A fresh socket
//! also cannot be handed an error that an earlier question caused.
//!
//! The datagram is read by `async_io` with an interest in errors too: a socket that only has an ICMP error pending is
//! not readable for tokio.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::{Asked, Failure, Received};
use crate::limits::MISMATCHES_MAX;
use crate::wire::flag;
use crate::wire::reply::{Identity, identify};

/// Asks and waits, for ever where nothing comes: the deadline is the caller's.
pub(super) async fn ask(address: SocketAddr, source: Option<IpAddr>, asked: &Asked) -> Result<Received, Failure> {
    let socket = open(address, source)?;
    let id = rand::random();
    socket.send(&asked.with_id(id)).await?;
    let mut mismatches = 0;
    loop {
        let datagram = receive(&socket).await?;
        match identify(&datagram.bytes, id, &asked.name, asked.qtype) {
            Identity::Ours => {
                return Ok(Received { bytes: datagram.whole_or_truncated(asked), over_tcp: false, mismatches });
            }
            Identity::HeaderOnly(rcode) => return Err(Failure::HeaderOnly(rcode)),
            Identity::NotOurs => mismatches += 1,
        }
        if mismatches >= MISMATCHES_MAX {
            return Err(Failure::Mismatched);
        }
    }
}

/// A socket on a random port, connected.
fn open(address: SocketAddr, source: Option<IpAddr>) -> Result<UdpSocket, Failure> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), None)?;
    let source = source.unwrap_or(match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    });
    bind_somewhere(|port| socket.bind(&SockAddr::from(SocketAddr::new(source, port))))?;
    socket.connect(&address.into()).map_err(without_source)?;
    Ok(UdpSocket::from_std(socket.into())?)
}

/// The port is bound: what is not available is an address of ours from which the server can be reached, as where IPv6
/// is switched off. That is no limit of ours which passes, but no way to the server.
fn without_source(error: io::Error) -> Failure {
    match Errno::from_io_error(&error) {
        Some(Errno::ADDRNOTAVAIL) => Failure::Unreachable,
        _ => error.into(),
    }
}

/// Calls `bind` with ports until one is free.
fn bind_somewhere(mut bind: impl FnMut(u16) -> io::Result<()>) -> Result<(), Failure> {
    for _ in 0..PORT_TRIES {
        match bind(rand::random_range(PORT_MIN..=u16::MAX)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(Failure::Local)
}

struct Datagram {
    /// At most [`DATAGRAM_BYTES_MAX`].
    bytes: Vec<u8>,
    /// Was it longer than that?
    cut: bool,
}

impl Datagram {
    /// The bytes; where some are missing, header and question with TC, which is what TC means.
    fn whole_or_truncated(mut self, asked: &Asked) -> Vec<u8> {
        if self.cut {
            self.bytes.truncate(crate::limits::HEADER_BYTES + asked.name.len() + 4);
            self.bytes[2] |= (flag::TC >> 8) as u8;
            self.bytes[6..12].fill(0);
        }
        self.bytes
    }
}

async fn receive(socket: &UdpSocket) -> Result<Datagram, Failure> {
    let read = || {
        // The room stands on the stack of this call only, so that a waiting question is small.
        let mut room = [0; DATAGRAM_BYTES_MAX];
        let (read, length) = recv(socket, &mut room, RecvFlags::TRUNC)?;
        Ok(Datagram { bytes: room[..read].to_vec(), cut: length > read })
    };
    loop {
        match socket.async_io(Interest::READABLE | Interest::ERROR, read).await {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

const PORT_MIN: u16 = 1024;
/// With half of all ports taken, 16 tries fail once in 65,536 times.
const PORT_TRIES: usize = 16;
/// Read of one datagram. More than three times what a question offers; Linux hands over larger ones cut.
const DATAGRAM_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::testing::{asked, elapsed, reply_to, soon};
    use super::super::{Endpoint, Failure};
    use super::*;

    // complaint 27: where IPv6 is switched off, its servers were neither asked nor given up.
    #[test]
    fn a_server_that_no_address_of_ours_reaches_is_unreachable() {
        assert_eq!(without_source(Errno::ADDRNOTAVAIL.into()), Failure::Unreachable);
        assert_eq!(without_source(Errno::NOBUFS.into()), Failure::Local);
    }

    #[tokio::test]
    async fn a_reply_is_taken() {
        let server = Server::answering(|query| vec![reply_to(query, &[7; 4])]).await;
        let reply = server.ask(soon()).await.unwrap();
        assert_eq!(reply.bytes[reply.bytes.len() - 4..], [7; 4]);
        assert_eq!((reply.over_tcp, reply.mismatches), (false, 0));
    }

    #[tokio::test]
    async fn what_is_not_ours_is_ignored_and_the_right_reply_behind_it_taken() {
        let server = Server::answering(|query| {
            let right = reply_to(query, &[7; 4]);
            let changed = |at: usize| {
                let mut packet = right.clone();
                packet[at] ^= 1;
                packet
            };
            let name_end = query.len() - 11 - 4;
            vec![
                changed(0),            // another id
                changed(13),           // another name
                changed(name_end + 1), // another type
                changed(name_end + 3), // another class
                query.to_vec(),        // the question come back
                vec![],                // nothing at all
                right[..11].to_vec(),  // less than a header
                right,
            ]
        })
        .await;
        assert_eq!(server.ask(soon()).await.map(|r| r.mismatches), Ok(7));
    }

    #[tokio::test]
    async fn nine_wrong_replies_are_waited_past_and_ten_are_not() {
        for (wrong, want) in [(9, Ok(9)), (10, Err(Failure::Mismatched))] {
            let server = Server::answering(move |query| {
                let right = reply_to(query, &[]);
                let mut other = right.clone();
                other[13] ^= 1;
                let mut all = vec![other; wrong];
                all.push(right);
                all
            })
            .await;
            assert_eq!(server.ask(soon()).await.map(|r| r.mismatches), want, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_seen_at_once() {
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (outcome, took) = elapsed(Endpoint::new(gone, None).ask_udp(&asked(1), soon())).await;
        assert_eq!(outcome, Err(Failure::Refused));
        assert!(took < Duration::from_millis(500), "{took:?}");
    }

    #[tokio::test]
    async fn silence_lasts_until_the_deadline_and_no_longer() {
        let server = Server::answering(|_| vec![]).await;
        let short = Instant::now() + Duration::from_millis(60);
        let (outcome, took) = elapsed(server.ask(short)).await;
        assert_eq!(outcome, Err(Failure::TimedOut));
        assert!(took >= Duration::from_millis(60), "{took:?}");
    }

    #[tokio::test]
    async fn a_header_with_an_error_ends_the_wait() {
        let server = Server::answering(|query| {
            let mut packet = [query[0], query[1], 0x81, 5].to_vec();
            packet.resize(12, 0);
            vec![packet]
        })
        .await;
        assert_eq!(server.ask(soon()).await, Err(Failure::HeaderOnly(5)));
    }

    #[tokio::test]
    async fn a_datagram_of_4096_bytes_is_whole_and_one_byte_more_is_truncated() {
        for (length, whole) in [(4096, true), (4097, false)] {
            let server = Server::answering(move |query| {
                let mut packet = reply_to(query, &[]);
                packet.resize(length, 0xff);
                vec![packet]
            })
            .await;
            let bytes = server.ask(soon()).await.unwrap().bytes;
            assert_eq!(crate::wire::reply::is_truncated(&bytes), !whole, "{length}");
            assert_eq!(bytes.len(), if whole { 4096 } else { 12 + asked(1).name.len() + 4 }, "{length}");
        }
    }

    #[tokio::test]
    async fn the_source_address_is_the_one_that_was_set() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(server.local_addr().unwrap(), Some([127, 0, 0, 9].into()));
        let question = asked(1);
        let (_, from) =
            tokio::join!(endpoint.ask_udp(&question, Instant::now() + Duration::from_millis(30)), async {
                server.recv_from(&mut [0; 512]).await.unwrap().1.ip()
            });
        assert_eq!(from, IpAddr::from([127, 0, 0, 9]));
        let nowhere = Endpoint::new(endpoint.address(), Some([198, 51, 100, 1].into()));
        assert_eq!(nowhere.ask_udp(&question, soon()).await, Err(Failure::Local));
    }

    #[tokio::test]
    async fn a_server_on_ipv6_is_asked_from_ipv6() {
        let Ok(server) = UdpSocket::bind("[::1]:0").await else { return };
        let endpoint = Endpoint::new(server.local_addr().unwrap(), None);
        let question = asked(1);
        let (reply, ()) = tokio::join!(endpoint.ask_udp(&question, soon()), async {
            let mut packet = [0; 512];
            let (length, from) = server.recv_from(&mut packet).await.unwrap();
            server.send_to(&reply_to(&packet[..length], &[]), from).await.unwrap();
        });
        assert!(reply.is_ok());
    }

    #[tokio::test]
    async fn ports_and_ids_of_questions_differ() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(server.local_addr().unwrap(), None);
        let (mut ports, mut ids) = (HashSet::new(), HashSet::new());
        for _ in 0..50 {
            let question = asked(1);
            let mut packet = [0; 512];
            tokio::select! {
                _ = endpoint.ask_udp(&question, soon()) => unreachable!("nobody answers"),
                got = server.recv_from(&mut packet) => {
                    ports.insert(got.unwrap().1.port());
                    ids.insert([packet[0], packet[1]]);
                }
            }
        }
        // Of 50 draws over 64,512 ports two are alike once in 50 runs; five alike never.
        assert!(ports.len() > 45 && ids.len() > 45, "{} ports, {} ids", ports.len(), ids.len());
        assert!(ports.iter().any(|p| !(32768..61000).contains(p)), "all ports in the kernel's range");
    }

    #[test]
    fn a_taken_port_is_drawn_again_a_few_times() {
        for (taken, want, calls_want) in [(0, Ok(()), 1), (15, Ok(()), 16), (16, Err(Failure::Local), 16)] {
            let mut calls = 0;
            let outcome = bind_somewhere(|port| {
                assert!(port >= 1024);
                calls += 1;
                if calls > taken { Ok(()) } else { Err(Errno::ADDRINUSE.into()) }
            });
            assert_eq!((outcome, calls), (want, calls_want), "{taken} taken");
        }
        assert_eq!(bind_somewhere(|_| Err(Errno::MFILE.into())), Err(Failure::Local));
    }

    /// Sends what `answer` makes of each question.
    struct Server(Endpoint);

    impl Server {
        async fn answering(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let endpoint = Endpoint::new(socket.local_addr().unwrap(), None);
            tokio::spawn(async move {
                let mut packet = [0; 2048];
                while let Ok((n, from)) = socket.recv_from(&mut packet).await {
                    for reply in answer(&packet[..n]) {
                        let _ = socket.send_to(&reply, from).await;
                    }
                }
            });
            Self(endpoint)
        }

        async fn ask(&self, deadline: Instant) -> Result<Received, Failure> {
            self.0.ask_udp(&asked(1), deadline).await
        }
    }
}
