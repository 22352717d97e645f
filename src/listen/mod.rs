//! Sockets, and the loops that read them.

pub mod alone;
pub mod mmsg;
pub mod socket;

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
