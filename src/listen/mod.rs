//! Sockets, and the loops that read them.
//!
//! Not pure. This room moves bytes between clients and a [`Service`](crate::serve::Service) and knows nothing of what
//! they say: it neither reads nor changes a message, and decides nothing about one.
//!
//! | file | what it owns |
//! |---|---|
//! | [`alone`] | the lock that keeps a second instance out |
//! | [`handed`] | sockets that a supervisor hands over at start |
//! | [`socket`] | opening: what to bind in which order, and what to tell the operator |
//! | [`mmsg`] | many datagrams a system call; the one file with `unsafe` |
//! | `line` | a UDP socket, and the way back by it from any thread |
//! | [`udp`] | workers: plain threads, each with its set of sockets |
//! | [`tcp`] | accept loops, drain |
//! | [`seats`] | who may have a TCP connection |
//! | `connection` | one TCP connection: pipelining and deadlines |
//! | `gathered` | its stream: many questions a read, many replies a write |
//!
//! Rules:
//!
//! - The clock is read once a batch over UDP and once a message over TCP, and handed down as `now`.
//! - `serve` is called in line. What it leaves open goes over with a way back ([`ReplyTo`](crate::serve::ReplyTo)) that
//!   sends by itself, from any thread, without waiting: there is no way back through the loop that read the question.
//! - A hit never waits for a miss: replies of a batch leave before its open questions are handed over.
//! - Every buffer, queue and wait has a bound: [`crate::limits`], "Listening".
//! - At the end what was received is answered: UDP sockets are read empty, TCP finishes what is under way.
//!
//! Order of calls: [`alone::Alone::take`] and [`socket::open`] before privileges are dropped and before the first
//! thread; [`udp::start`] and [`tcp::start`] once there is something to ask; at the end
//! [`tcp::TcpListeners::drain`], which takes as long as the drain does, then [`udp::Workers::stop`].

pub mod alone;
mod connection;
mod gathered;
pub mod handed;
mod line;
pub mod mmsg;
pub mod seats;
pub mod socket;
pub mod tcp;
pub mod udp;

use std::net::SocketAddr;
use std::time::Duration;

/// Where and how evenkeel listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    /// UDP and TCP on each.
    pub dns: Vec<SocketAddr>,
    /// UDP workers, at least 1 (0 in the file is resolved by [`workers`]).
    pub workers: usize,
    /// How long answers go on after SIGTERM.
    pub drain: Duration,
    /// TCP connections in all.
    pub tcp_connections: usize,
    /// TCP connections of one client.
    pub tcp_connections_per_client: usize,
    /// Bits of an IPv4 and of an IPv6 address that make one client.
    pub client_prefix: (u8, u8),
}

/// UDP workers for `configured`; 0 is what the process may really use (affinity and CPU quota), at most 4.
pub fn workers(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(crate::limits::WORKERS_AUTO_MAX)),
        n => n,
    }
}
