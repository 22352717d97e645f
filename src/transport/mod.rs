//! One question to one server: its bytes, or a failure that names its kind.
//!
//! Not pure: sockets and timers, on tokio. Beside the driver, which says whom to ask, how long to wait and what a
//! failure means. In here is no policy: no second try, no tier, no group, no cache, no judgement of what the bytes
//! say beyond "is this a reply to that question". Depends on `wire`, `clock`, `limits` and [`Protocol`] alone.
//!
//! What a caller may rely on:
//!
//! - A [`Received`] is a reply to the question: from the server's address, with the id, name, type and class that
//!   were asked (RFC 5452 §9.1). Its body is not looked at, TC included ([`crate::wire::reply::is_truncated`]).
//! - What is not such a reply is neither taken nor ends the wait; it is counted.
//!   [`MISMATCHES_MAX`](crate::limits::MISMATCHES_MAX) of them for one question are [`Failure::Mismatched`].
//! - One call sends one question, over TCP at most two: a kept connection that turns out closed is opened once more
//!   (RFC 7766 §6.2.4). Nothing is sent again behind the caller's back, so a budget of questions sees them all.
//! - A call ends at its deadline. Dropping it before then frees its id.
//!
//! `udp` has the ports of a server, `tcp` the connection to it, `table` the ids of the questions that share one.

mod table;
mod tcp;
#[cfg(test)]
mod testing;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustix::io::Errno;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::upstream::Protocol;
use tcp::Connection;
use udp::Ports;
pub use udp::{Heard, Place};

/// A question, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name that a reply must repeat, in wire format, folded.
    pub name: Box<[u8]>,
    /// The type that a reply must repeat.
    pub qtype: u16,
    /// The packet as [`crate::wire::build::question`] makes it, with id 0; each sending has an id of its own.
    pub packet: Vec<u8>,
}

impl Asked {
    fn set_id(&mut self, id: u16) {
        if let Some(place) = self.packet.get_mut(..2) {
            place.copy_from_slice(&id.to_be_bytes());
        }
    }

    /// The packet with its id.
    fn with_id(&self, id: u16) -> Vec<u8> {
        let mut asked = self.clone();
        asked.set_id(id);
        asked.packet
    }
}

/// A reply to the question that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message as it came, whatever its id. A datagram of more than 4096 bytes, which cannot have been meant
    /// for a question that offered 1232, is given as its header and question alone, with TC set.
    pub bytes: Vec<u8>,
    /// Did it come over TCP?
    pub over_tcp: bool,
    /// Messages that came before it and were no reply to the question.
    pub mismatches: u32,
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nobody listens there: the port is closed.
    Refused,
    /// No way to the server, or a firewall forbids it.
    Unreachable,
    /// Nothing that counts came until the deadline.
    TimedOut,
    /// [`MISMATCHES_MAX`](crate::limits::MISMATCHES_MAX) messages came that were no reply to the question.
    Mismatched,
    /// A header without a question, with this error RCODE.
    HeaderOnly(u16),
    /// The server closed the connection, a fresh one, before it answered.
    Closed,
    /// A limit of this machine: file descriptors, memory, ports, questions on one connection. Says nothing of the
    /// server and is never evidence.
    Local,
}

impl Failure {
    /// The word for logs and labels.
    pub const fn word(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::Unreachable => "unreachable",
            Failure::TimedOut => "timed_out",
            Failure::Mismatched => "mismatched",
            Failure::HeaderOnly(_) => "header_only",
            Failure::Closed => "closed",
            Failure::Local => "local",
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::CONNREFUSED => Failure::Refused,
            Errno::TIMEDOUT => Failure::TimedOut,
            Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE | Errno::NOTCONN => Failure::Closed,
            // ADDRNOTAVAIL is a source address that is not there, or no free port left towards the server.
            Errno::MFILE
            | Errno::NFILE
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::ADDRINUSE
            | Errno::ADDRNOTAVAIL
            | Errno::AGAIN => Failure::Local,
            _ => Failure::Unreachable,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            // Errors without a number are those of the framing: a message that was cut.
            None => Failure::Closed,
        }
    }
}

/// One server, for as long as it is configured: where it is, and the TCP connection that is kept to it.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    source: Option<IpAddr>,
    ports: Ports,
    /// Held while connecting, so that many questions make one handshake and not a herd.
    kept: Mutex<Option<Arc<Connection>>>,
}

impl Endpoint {
    /// A server at `address`, asked from `source` where that is of the same family. Opens nothing.
    pub fn new(address: SocketAddr, source: Option<IpAddr>) -> Self {
        let source = source.filter(|s| s.is_ipv4() == address.is_ipv4());
        Self { address, source, ports: Ports::default(), kept: Mutex::new(None) }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks over `protocol`.
    ///
    /// # Errors
    ///
    /// Every [`Failure`]; at `deadline` it is [`Failure::TimedOut`].
    pub async fn ask(&self, protocol: Protocol, asked: &Asked, deadline: Instant) -> Result<Received, Failure> {
        match protocol {
            Protocol::Udp => self.ask_udp(asked, deadline).await,
            Protocol::Tcp => self.ask_tcp(asked, deadline).await,
        }
    }

    /// Asks over UDP, from one of the ports that are open to the server.
    ///
    /// # Errors
    ///
    /// Every [`Failure`] but [`Failure::Closed`]; at `deadline` it is [`Failure::TimedOut`].
    pub async fn ask_udp(&self, asked: &Asked, deadline: Instant) -> Result<Received, Failure> {
        let (to, outcome) = oneshot::channel();
        let _place = self.send_udp(&mut asked.clone(), Box::new(move |heard| drop(to.send(heard))))?;
        match timeout_at(deadline, outcome).await {
            Ok(heard) => heard.unwrap_or(Err(Failure::Local)),
            Err(_) => Err(Failure::TimedOut),
        }
    }

    /// The same without a wait: `heard` is told what became of it, once, unless the place is dropped before. Nothing
    /// ends it but that and what comes. The packet gets its id. Called within the tokio runtime.
    ///
    /// # Errors
    ///
    /// Nothing was sent, and `heard` is told nothing: [`Failure::Local`], [`Failure::Unreachable`],
    /// [`Failure::Refused`].
    pub fn send_udp(&self, asked: &mut Asked, heard: Heard) -> Result<Place, Failure> {
        self.ports.ask(self.address, self.source, asked, heard)
    }

    /// Asks over TCP, on the kept connection or on a fresh one that is kept.
    ///
    /// # Errors
    ///
    /// Every [`Failure`]; at `deadline`, connecting included, it is [`Failure::TimedOut`].
    pub async fn ask_tcp(&self, asked: &Asked, deadline: Instant) -> Result<Received, Failure> {
        timeout_at(deadline, self.ask_on_connection(asked)).await.unwrap_or(Err(Failure::TimedOut))
    }

    async fn ask_on_connection(&self, asked: &Asked) -> Result<Received, Failure> {
        let (connection, was_kept) = self.connection().await?;
        match connection.ask(asked).await {
            // A server may close a connection at any time; that a kept one was closed is not its failure.
            Err(Failure::Closed) if was_kept => self.connection().await?.0.ask(asked).await,
            outcome => outcome,
        }
    }

    /// The kept connection, or a fresh one; and whether it had been kept.
    async fn connection(&self) -> Result<(Arc<Connection>, bool), Failure> {
        let mut kept = self.kept.lock().await;
        if let Some(connection) = kept.as_ref().filter(|c| c.takes_questions()) {
            return Ok((connection.clone(), true));
        }
        *kept = None;
        let fresh = Arc::new(Connection::open(self.address, self.source).await?);
        *kept = Some(fresh.clone());
        Ok((fresh, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_named_by_whose_fault_it_is() {
        for (errno, want) in [
            (Errno::CONNREFUSED, Failure::Refused),
            (Errno::NETUNREACH, Failure::Unreachable),
            (Errno::HOSTUNREACH, Failure::Unreachable),
            (Errno::PERM, Failure::Unreachable),
            (Errno::CONNRESET, Failure::Closed),
            (Errno::TIMEDOUT, Failure::TimedOut),
            (Errno::MFILE, Failure::Local),
            (Errno::ADDRNOTAVAIL, Failure::Local),
        ] {
            assert_eq!(Failure::from(io::Error::from(errno)), want, "{errno:?}");
        }
        assert_eq!(Failure::from(io::Error::new(io::ErrorKind::BrokenPipe, "cut")), Failure::Closed);
    }

    #[test]
    fn a_source_of_the_other_family_is_left_out() {
        let v4: IpAddr = [127, 0, 0, 1].into();
        assert_eq!(Endpoint::new("[::1]:53".parse().unwrap(), Some(v4)).source, None);
        assert_eq!(Endpoint::new("127.0.0.2:53".parse().unwrap(), Some(v4)).source, Some(v4));
    }
}
