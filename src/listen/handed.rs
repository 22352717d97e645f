//! Sockets that a supervisor hands over at start: those of a socket unit, and those that evenkeel left in its store.
//!
//! Not pure. The protocol is systemd's (sd_listen_fds(3)): descriptors from 3 on, their number in `$LISTEN_FDS`, their
//! names in `$LISTEN_FDNAMES`, for the process in `$LISTEN_PID` alone.
//!
//! - A name that begins with `kept-` is one that evenkeel gave when it put the socket into the store: the socket was
//!   its own, and `listen.dns` decides whether it still is.
//! - Any other name is of a socket unit. Its addresses stand in place of `listen.dns`: who wrote the unit has said
//!   where.
//! - What is no bound UDP socket and no listening TCP socket of the internet is told and left alone.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Instant;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

/// What names of stored sockets begin with.
const KEPT: &str = "kept-";

/// What was handed over.
#[derive(Debug, Default)]
pub struct Handed {
    /// By a socket unit.
    pub unit: Vec<(SocketAddr, HandedSocket)>,
    /// By the store.
    pub kept: Vec<(SocketAddr, HandedSocket)>,
    /// What was of no use, and why.
    pub remarks: Vec<String>,
    /// Until when the store may still hold sockets that are in the way of others ([`super::socket::let_go`]).
    pub(super) lets_go_until: Option<Instant>,
}

/// A socket of either kind.
#[derive(Debug)]
pub enum HandedSocket {
    /// Bound.
    Udp(UdpSocket),
    /// Bound and listening.
    Tcp(TcpListener),
}

impl Handed {
    /// Takes what the environment tells of, once: a second call finds nothing.
    ///
    /// Before the process has a second thread, since it changes the environment.
    pub fn take() -> Self {
        // Where it is for somebody else it stays for them.
        if !is_for(std::env::var("LISTEN_PID").ok().as_deref(), std::process::id()) {
            return Self::default();
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut handed = Self::default();
        for n in 0..given.len() {
            let name = names.next().unwrap_or_default();
            match take_one(&mut given, n) {
                Ok(socket) if name.starts_with(KEPT) => handed.kept.push(socket),
                Ok(socket) => handed.unit.push(socket),
                Err(why) => handed.remarks.push(format!("descriptor {} ({name}) is not used: {why}", n + 3)),
            }
        }
        handed
    }
}

/// Is what was handed over for the process of this number?
fn is_for(listen_pid: Option<&str>, own: u32) -> bool {
    listen_pid.is_some_and(|pid| pid.parse() == Ok(own))
}

fn take_one(given: &mut ListenFd, n: usize) -> Result<(SocketAddr, HandedSocket), String> {
    const NEITHER: &str = "it is no UDP socket and no TCP socket that listens";
    if let Ok(Some(socket)) = given.take_udp_socket(n) {
        let address = socket.local_addr().map_err(|e| e.to_string())?;
        return match address.port() {
            0 => Err("it has no port".to_owned()),
            _ if socket.peer_addr().is_ok() => Err("it is connected to somebody".to_owned()),
            _ => Ok((address, HandedSocket::Udp(socket))),
        };
    }
    let Ok(Some(listener)) = given.take_tcp_listener(n) else { return Err(NEITHER.to_owned()) };
    if !socket_acceptconn(&listener).unwrap_or(false) {
        return Err(NEITHER.to_owned());
    }
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    Ok((address, HandedSocket::Tcp(listener)))
}

/// The name under which sockets of `address` are stored: no colon may be in it.
pub fn kept_name(address: SocketAddr) -> String {
    format!("{KEPT}{}", address.to_string().replace(':', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stored_sockets_tell_addresses_apart_and_have_no_colon() {
        let of = |text: &str| kept_name(text.parse().unwrap());
        assert_eq!(of("127.0.0.1:53"), "kept-127.0.0.1_53");
        assert_eq!(of("[::1]:53"), "kept-[__1]_53");
        assert_ne!(of("[::1]:53"), of("[::]:153"));
    }

    #[test]
    fn what_is_for_another_process_is_not_taken() {
        for (pid, ours) in
            [(Some("7"), true), (Some("8"), false), (Some(""), false), (Some("x"), false), (None, false)]
        {
            assert_eq!(is_for(pid, 7), ours, "{pid:?}");
        }
    }
}
