//! Opens the sockets that evenkeel listens on, or says what is in the way.
//!
//! Order, for all addresses together:
//!
//! 1. TCP, without SO_REUSEPORT: who has the TCP port is alone on it, so a second evenkeel fails here.
//! 2. A UDP socket without SO_REUSEPORT, closed again at once: it fails where anybody has the UDP port, also one that
//!    would share it by SO_REUSEPORT.
//! 3. UDP with SO_REUSEPORT, one socket a worker.
//!
//! What a supervisor handed over ([`super::handed`]) is used as it is, before anything is opened:
//!
//! - Sockets of a socket unit stand in place of `listen.dns`. Where a unit has UDP or TCP of an address alone, the
//!   other one is opened beside it, for both families where the first is: a resolver answers over both (RFC 7766 §5).
//! - Sockets out of the store are used where `listen.dns` still names their address; UDP sockets that are fewer than
//!   workers are joined by more. The rest is closed, and named by [`let_go`].
//!
//! Else:
//!
//! - An address that this machine does not have yet is bound ahead (IP_FREEBIND) and named in the remarks.
//! - An address of a family that this kernel lacks is left out, and named; if none is left, that is an error.
//! - An address twice, or under a wildcard of the same port, is listened on once, and named.
//! - Port 0 is a free port, the same for TCP and UDP.
//! - IPv6 sockets are for IPv6 alone; 0.0.0.0 is an address of its own.
//! - UDP replies are not fragmented and learn no path MTU from anybody (RFC 9715 §3.1: IP_PMTUDISC_OMIT; they are 1232
//!   bytes at most).

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Socket, Type};

use super::handed::{Handed, HandedSocket, kept_name};
use super::{ListenSettings, mmsg};
use crate::serve::Transport;

/// What is listened on.
#[derive(Debug, Default)]
pub struct Sockets {
    /// UDP: each address with its sockets.
    pub udp: Vec<(SocketAddr, Vec<UdpSocket>)>,
    /// TCP: each address with its listener.
    pub tcp: Vec<(SocketAddr, TcpListener)>,
    /// What the operator should know: addresses that were left out, or that are not there yet.
    pub remarks: Vec<String>,
    /// Second handles of what was opened here, with their names, for a supervisor's store.
    pub opened: Vec<(String, OwnedFd)>,
}

/// Lets go of sockets out of the store that are not listened on any more; gives back their names, for the store to let
/// go of them as well. To be called, and the store told, before [`open`]: what the store holds is bound still.
pub fn let_go(handed: &mut Handed, settings: &ListenSettings) -> Vec<String> {
    let mut wanted: Vec<SocketAddr> = handed.unit.iter().map(|(address, _)| *address).collect();
    if wanted.is_empty() {
        wanted = distinct(&settings.dns, &mut Vec::new());
    }
    let mut names: Vec<String> = Vec::new();
    handed.kept.retain(|(address, _)| {
        let stays = wanted.contains(address);
        if !stays && !names.contains(&kept_name(*address)) {
            names.push(kept_name(*address));
        }
        stays
    });
    handed.lets_go_until = (!names.is_empty()).then(|| Instant::now() + LETTING_GO);
    names
}

/// Takes what was handed over, and opens the rest: everything, or nothing.
///
/// # Errors
///
/// What is in the way of the first address that cannot be listened on.
pub fn open(settings: &ListenSettings, handed: Handed) -> Result<Sockets, OpenError> {
    let Handed { unit, kept, remarks, lets_go_until } = handed;
    let mut sockets = Sockets { remarks, ..Sockets::default() };
    let addresses = distinct(&settings.dns, &mut sockets.remarks);
    if unit.is_empty() {
        sockets.take_in(kept)?;
        sockets.open_rest(&addresses, settings.workers, lets_go_until)?;
    } else {
        sockets.take_in(unit)?;
        let missing = kept.into_iter().filter(|(address, socket)| match socket {
            HandedSocket::Tcp(_) => !sockets.tcp_at(*address),
            HandedSocket::Udp(_) => !sockets.udp.iter().any(|(a, _)| a == address),
        });
        let missing = missing.collect();
        sockets.take_in(missing)?;
        sockets.beside_unit(&addresses, lets_go_until)?;
    }
    if sockets.tcp.is_empty() && sockets.udp.is_empty() {
        return Err(OpenError::Nothing { remarks: sockets.remarks });
    }
    Ok(sockets)
}

impl Sockets {
    /// Takes in what was handed over.
    fn take_in(&mut self, given: Vec<(SocketAddr, HandedSocket)>) -> Result<(), OpenError> {
        for (address, socket) in given {
            match socket {
                HandedSocket::Udp(socket) => {
                    prepare(&socket, address).map_err(|e| OpenError::of(address, Transport::Udp, "prepare", e))?;
                    self.join_udp(address, vec![socket]);
                }
                HandedSocket::Tcp(_) if self.tcp_at(address) => {}
                HandedSocket::Tcp(listener) => self.tcp.push((address, listener)),
            }
        }
        Ok(())
    }

    /// A unit's sockets are there: opens their other halves, and tells where `configured` is something else.
    fn beside_unit(&mut self, configured: &[SocketAddr], lets_go_until: Option<Instant>) -> Result<(), OpenError> {
        let there = self.bound();
        let mut configured = configured.to_vec();
        configured.sort();
        if there != configured {
            let there: Vec<String> = there.iter().map(SocketAddr::to_string).collect();
            self.remarks
                .push(format!("a socket unit's addresses stand in place of listen.dns: {}", there.join(", ")));
        }
        // One UDP socket is what a unit has: all workers read it.
        there.into_iter().try_for_each(|address| self.open_rest(&[address], 1, lets_go_until))
    }

    /// The addresses of all sockets, in order.
    fn bound(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().map(|(address, _)| *address);
        let mut there: Vec<SocketAddr> = udp.chain(self.tcp.iter().map(|(address, _)| *address)).collect();
        there.sort();
        there.dedup();
        there
    }

    /// The addresses that are listened on: those of the sockets, and IPv4's wildcard where a socket unit's sockets at
    /// `[::]` are for it as well.
    pub fn listening(&self) -> Vec<SocketAddr> {
        let mut there = self.bound();
        let for_both = there.iter().filter(|at| self.is_for_both(**at));
        let more: Vec<SocketAddr> = for_both.map(|at| (Ipv4Addr::UNSPECIFIED, at.port()).into()).collect();
        there.extend(more);
        there
    }

    fn tcp_at(&self, address: SocketAddr) -> bool {
        self.tcp.iter().any(|(a, _)| *a == address)
    }

    /// Opens what is missing of `addresses`.
    fn open_rest(
        &mut self,
        addresses: &[SocketAddr],
        workers: usize,
        lets_go_until: Option<Instant>,
    ) -> Result<(), OpenError> {
        let mut tries = PORT_TRIES;
        let new = loop {
            match self.missing(addresses, workers) {
                // Somebody has the UDP port of the TCP port that the kernel chose: it may choose again.
                Err(OpenError::InUse { address, transport: Transport::Udp })
                    if tries > 1 && !addresses.contains(&address) =>
                {
                    tries -= 1;
                }
                // The store may hold what is in the way, for a moment still.
                Err(OpenError::InUse { .. }) if lets_go_until.is_some_and(|until| Instant::now() < until) => {
                    thread::sleep(LETTING_GO / 50);
                }
                result => break result?,
            }
        };
        self.remarks.extend(new.remarks);
        let kept = |address, fd: BorrowedFd<'_>| Some((kept_name(address), fd.try_clone_to_owned().ok()?));
        self.opened.extend(new.tcp.iter().filter_map(|(address, listener)| kept(*address, listener.as_fd())));
        self.tcp.extend(new.tcp);
        for (address, each) in new.udp {
            self.opened.extend(each.iter().filter_map(|socket| kept(address, socket.as_fd())));
            self.join_udp(address, each);
        }
        Ok(())
    }

    fn join_udp(&mut self, address: SocketAddr, more: Vec<UdpSocket>) {
        match self.udp.iter_mut().find(|(a, _)| *a == address) {
            Some((_, each)) => each.extend(more),
            None => self.udp.push((address, more)),
        }
    }

    /// Is what is here of this address IPv6's wildcard for IPv4 too, as a socket unit may have it?
    fn is_for_both(&self, address: SocketAddr) -> bool {
        let both = |fd: BorrowedFd<'_>| !sockopt::ipv6_v6only(fd).unwrap_or(true);
        let udp = self.udp.iter().filter(|(a, _)| *a == address).flat_map(|(_, each)| each).map(AsFd::as_fd);
        let tcp = self.tcp.iter().filter(|(a, _)| *a == address).map(|(_, listener)| listener.as_fd());
        address.is_ipv6() && address.ip().is_unspecified() && udp.chain(tcp).any(both)
    }

    /// What is missing of `addresses`, without touching what is there.
    fn missing(&self, addresses: &[SocketAddr], workers: usize) -> Result<Sockets, OpenError> {
        let (mut new, mut places) = (Sockets::default(), Vec::new());
        for &address in addresses {
            if self.tcp_at(address) {
                places.push(address);
                continue;
            }
            let Some(bound) = bind(address, Transport::Tcp, Sharing::Alone, self.is_for_both(address))? else {
                new.remarks.push(format!("{address} is left out: this kernel has no {}", family(address)));
                continue;
            };
            if bound.ahead {
                new.remarks.push(format!("{address} is not on this machine yet; it is answered as soon as it is"));
            }
            bound.socket.listen(BACKLOG).map_err(|e| OpenError::of(address, Transport::Tcp, "listen", e))?;
            let listener = TcpListener::from(bound.socket);
            let address = listener.local_addr().map_err(|e| OpenError::of(address, Transport::Tcp, "name", e))?;
            new.tcp.push((address, listener));
            places.push(address);
        }
        let there = |address| self.udp.iter().find(|(a, _)| *a == address).map_or(0, |(_, each)| each.len());
        for &address in places.iter().filter(|a| there(**a) == 0) {
            bind(address, Transport::Udp, Sharing::Alone, self.is_for_both(address))?;
        }
        for address in places {
            let mut each = Vec::with_capacity(workers);
            for _ in there(address)..workers.max(1) {
                let bound = match bind(address, Transport::Udp, Sharing::Shared, self.is_for_both(address)) {
                    Ok(Some(bound)) => bound,
                    Ok(None) => continue,
                    // Those that are there are read by all workers.
                    Err(_) if there(address) > 0 => break,
                    Err(e) => return Err(e),
                };
                let socket = UdpSocket::from(bound.socket);
                prepare(&socket, address).map_err(|e| OpenError::of(address, Transport::Udp, "prepare", e))?;
                each.push(socket);
            }
            new.udp.push((address, each));
        }
        Ok(new)
    }
}

/// Sets what a UDP socket needs that evenkeel reads, also one that somebody else opened.
///
/// # Errors
///
/// What the kernel says of an option without which replies would go wrong.
pub fn prepare(socket: &UdpSocket, bound: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if bound.ip().is_unspecified() {
        mmsg::tell_destination(socket.as_fd(), bound.ip())?;
    }
    let options = socket2::SockRef::from(socket);
    // The rest makes things better, and without it they still work: older kernels, and limits of a container.
    // SO_RCVBUFFORCE needs CAP_NET_ADMIN; the plain one is bounded by net.core.rmem_max.
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER_BYTES).is_err() {
        let _ = options.set_recv_buffer_size(BUFFER_BYTES);
    }
    let _ = options.set_send_buffer_size(BUFFER_BYTES);
    let _ = match bound {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::OMIT),
        SocketAddr::V6(_) => sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::OMIT),
    };
    let _ = mmsg::tell_drops(socket.as_fd());
    Ok(())
}

/// Why evenkeel cannot listen. Each says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// Somebody listens there.
    InUse {
        /// Where.
        address: SocketAddr,
        /// Over what.
        transport: Transport,
    },
    /// This process may not listen there.
    Forbidden {
        /// Where.
        address: SocketAddr,
        /// Over what.
        transport: Transport,
    },
    /// The kernel refused a step for a reason of its own.
    Refused {
        /// Where.
        address: SocketAddr,
        /// Over what.
        transport: Transport,
        /// What was tried: a verb.
        step: &'static str,
        /// Its reason.
        error: io::Error,
    },
    /// No address is left.
    Nothing {
        /// Why each was left out.
        remarks: Vec<String>,
    },
    /// Another evenkeel holds the lock.
    AnotherInstance {
        /// Its process, where it left a number.
        process: Option<u32>,
        /// The lock's file.
        lock: PathBuf,
    },
    /// The lock's file cannot be had.
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl OpenError {
    fn of(address: SocketAddr, transport: Transport, step: &'static str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, transport },
            io::ErrorKind::PermissionDenied => Self::Forbidden { address, transport },
            _ => Self::Refused { address, transport, step, error },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { address, transport } => write!(
                f,
                "another server listens on {address} ({}); find it with `ss -lntup`, or choose another address with \
                 `evenkeel serve --set 'listen.dns=[\"{}\"]'`",
                word(*transport),
                SocketAddr::new(address.ip(), elsewhere(address.port())),
            ),
            Self::Forbidden { address, transport } if address.port() < 1024 => write!(
                f,
                "no permission to listen on {address} ({}): ports below 1024 need CAP_NET_BIND_SERVICE; give it \
                 (AmbientCapabilities= in a systemd unit), or choose another address with \
                 `evenkeel serve --set 'listen.dns=[\"{}\"]'`",
                word(*transport),
                SocketAddr::new(address.ip(), elsewhere(address.port())),
            ),
            Self::Forbidden { address, transport } => write!(
                f,
                "no permission to listen on {address} ({}); a sandbox or security module of this machine forbids it",
                word(*transport),
            ),
            Self::Refused { address, transport, step, error } => {
                write!(f, "cannot {step} the socket of {address} ({}): {error}; see listen.dns", word(*transport))
            }
            Self::Nothing { remarks } if remarks.is_empty() => {
                write!(f, "there is no address to listen on; name one in listen.dns")
            }
            Self::Nothing { remarks } => {
                write!(f, "no address of listen.dns can be listened on: {}", remarks.join("; "))
            }
            Self::AnotherInstance { process, lock } => {
                write!(f, "another evenkeel is running")?;
                if let Some(process) = process {
                    write!(f, " (process {process})")?;
                }
                write!(f, "; end it first, or give this one another admin.socket (lock: {})", lock.display())
            }
            Self::Lock { path, error } => {
                write!(
                    f,
                    "cannot take the lock {}: {error}; its directory must be there and writable",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for OpenError {}

struct Bound {
    socket: Socket,
    /// The address is not on this machine yet.
    ahead: bool,
}

/// May others of this user bind the same port?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Shared,
}

/// `None` where the kernel lacks the address's family.
fn bind(
    address: SocketAddr,
    transport: Transport,
    sharing: Sharing,
    both_families: bool,
) -> Result<Option<Bound>, OpenError> {
    let failed = |step| move |e| OpenError::of(address, transport, step, e);
    for ahead in [false, true] {
        let socket = match socket(address, transport, both_families) {
            Ok(socket) => socket,
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => return Ok(None),
            Err(e) => return Err(failed("open")(e)),
        };
        if sharing == Sharing::Shared {
            socket.set_reuse_port(true).map_err(failed("share"))?;
        }
        if ahead {
            match address {
                SocketAddr::V4(_) => socket.set_freebind_v4(true),
                SocketAddr::V6(_) => socket.set_freebind_v6(true),
            }
            .map_err(failed("bind ahead"))?;
        }
        match socket.bind(&address.into()) {
            Ok(()) => return Ok(Some(Bound { socket, ahead })),
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable && !ahead => {}
            Err(e) => return Err(failed("bind")(e)),
        }
    }
    Err(failed("bind")(io::ErrorKind::AddrNotAvailable.into()))
}

fn socket(address: SocketAddr, transport: Transport, both_families: bool) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(!both_families)?;
    }
    if transport == Transport::Tcp {
        // A restart must not wait for the old connections' TIME_WAIT. Among listeners it lets nobody in.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `configured` without what is there twice, or below a wildcard: it would look like another server.
fn distinct(configured: &[SocketAddr], remarks: &mut Vec<String>) -> Vec<SocketAddr> {
    let covers = |wide: &SocketAddr, address: &SocketAddr| {
        wide.ip().is_unspecified()
            && wide != address
            && wide.is_ipv4() == address.is_ipv4()
            && wide.port() == address.port()
            && address.port() != 0
    };
    let mut kept: Vec<SocketAddr> = Vec::with_capacity(configured.len());
    for address in configured {
        if let Some(wide) = configured.iter().find(|wide| covers(wide, address)) {
            remarks.push(format!("{address} is left out: {wide} has it already"));
        } else if address.port() != 0 && kept.contains(address) {
            remarks.push(format!("{address} is listed twice"));
        } else {
            kept.push(*address);
        }
    }
    kept
}

fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    }
}

fn family(address: SocketAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// A port to propose where `port` cannot be had.
fn elsewhere(port: u16) -> u16 {
    if port == 1053 { 1153 } else { 1053 }
}

/// Tries for a free port that is free over TCP and UDP.
const PORT_TRIES: u32 = 16;
/// A store has let go of sockets within this time after it was told.
const LETTING_GO: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted; bounded by net.core.somaxconn.
const BACKLOG: i32 = 1024;
/// Receive and send buffer of a UDP socket: a few thousand questions, the burst of a restart.
const BUFFER_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_one_tcp_socket_and_a_udp_socket_a_worker_on_one_port() {
        let sockets = open(&settings(&["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"], 3), Handed::default()).unwrap();
        assert_eq!(sockets.remarks, [""; 0]);
        assert_eq!((sockets.tcp.len(), sockets.udp.len()), (3, 3));
        for ((tcp, listener), (udp, each)) in sockets.tcp.iter().zip(&sockets.udp) {
            assert_eq!((tcp, each.len()), (udp, 3));
            assert_eq!(listener.local_addr().unwrap(), *tcp);
            assert!(each.iter().all(|socket| socket.local_addr().unwrap() == *udp));
            assert_ne!(tcp.port(), 0);
        }
    }

    #[test]
    fn a_second_instance_fails_on_the_tcp_port() {
        let first = open(&settings(&["127.0.0.1:0"], 2), Handed::default()).unwrap();
        let address = first.tcp[0].0;
        let error = open(&settings(&[&address.to_string()], 2), Handed::default()).unwrap_err();
        assert!(matches!(error, OpenError::InUse { transport: Transport::Tcp, .. }), "{error}");
        let text = error.to_string();
        for part in ["another server", &address.to_string(), "ss -lntup", "--set"] {
            assert!(text.contains(part), "{text}");
        }
        drop(first);
        open(&settings(&[&address.to_string()], 2), Handed::default()).unwrap();
    }

    #[test]
    fn another_udp_server_is_seen_whether_it_shares_its_port_or_not() {
        for sharing in [Sharing::Alone, Sharing::Shared] {
            for bind_there in ["127.0.0.1:0", "0.0.0.0:0"] {
                let other = bind(bind_there.parse().unwrap(), Transport::Udp, sharing, false).unwrap().unwrap();
                let port = other.socket.local_addr().unwrap().as_socket().unwrap().port();
                let error = open(&settings(&[&format!("127.0.0.1:{port}")], 1), Handed::default()).unwrap_err();
                assert!(matches!(error, OpenError::InUse { transport: Transport::Udp, .. }), "{error}");
            }
        }
    }

    #[test]
    fn everything_or_nothing_is_opened() {
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let free = open(&settings(&["127.0.0.1:0"], 1), Handed::default()).unwrap().tcp[0].0;
        open(&settings(&[&free.to_string(), &other.local_addr().unwrap().to_string()], 1), Handed::default())
            .unwrap_err();
        open(&settings(&[&free.to_string()], 1), Handed::default()).unwrap();
    }

    #[test]
    fn an_address_that_is_not_there_yet_is_bound_ahead_and_named() {
        // RFC 5737 and RFC 3849: nobody has these.
        for address in ["192.0.2.53:0", "[2001:db8::53]:0"] {
            let sockets = open(&settings(&["127.0.0.1:0", address], 1), Handed::default()).unwrap();
            assert_eq!(sockets.tcp.len(), 2);
            assert_eq!(sockets.remarks.len(), 1);
            assert!(sockets.remarks[0].contains(address), "{:?}", sockets.remarks);
        }
    }

    #[test]
    fn an_address_twice_or_below_a_wildcard_is_listened_on_once() {
        let table: &[(&str, &[&str], &[&str], usize)] = &[
            ("two addresses", &["127.0.0.1:53", "[::1]:53"], &["127.0.0.1:53", "[::1]:53"], 0),
            ("twice", &["127.0.0.1:53", "127.0.0.1:53"], &["127.0.0.1:53"], 1),
            ("before the wildcard", &["127.0.0.1:53", "0.0.0.0:53"], &["0.0.0.0:53"], 1),
            ("behind it", &["0.0.0.0:53", "127.0.0.1:53"], &["0.0.0.0:53"], 1),
            ("the other family", &["0.0.0.0:53", "[::1]:53"], &["0.0.0.0:53", "[::1]:53"], 0),
            ("two wildcards", &["0.0.0.0:53", "[::]:53"], &["0.0.0.0:53", "[::]:53"], 0),
            ("another port", &["0.0.0.0:53", "127.0.0.1:54"], &["0.0.0.0:53", "127.0.0.1:54"], 0),
            ("free ports differ", &["127.0.0.1:0", "127.0.0.1:0"], &["127.0.0.1:0", "127.0.0.1:0"], 0),
        ];
        for (name, given, want, remarks_wanted) in table {
            let mut remarks = Vec::new();
            let kept = distinct(&settings(given, 1).dns, &mut remarks);
            assert_eq!(kept, settings(want, 1).dns, "{name}");
            assert_eq!(remarks.len(), *remarks_wanted, "{name}: {remarks:?}");
        }
    }

    #[test]
    fn no_address_at_all_is_an_error() {
        assert!(matches!(open(&settings(&[], 1), Handed::default()), Err(OpenError::Nothing { .. })));
    }

    #[test]
    fn no_permission_says_which_one() {
        let error = |address: &str| {
            let denied = io::Error::from(io::ErrorKind::PermissionDenied);
            OpenError::of(address.parse().unwrap(), Transport::Udp, "bind", denied).to_string()
        };
        assert!(error("127.0.0.1:53").contains("CAP_NET_BIND_SERVICE"));
        assert!(!error("127.0.0.1:1053").contains("CAP_NET_BIND_SERVICE"));
    }

    #[test]
    fn a_large_reply_may_leave_over_a_socket_that_omits_path_mtu() {
        let sockets = open(&settings(&["127.0.0.1:0", "[::1]:0"], 1), Handed::default()).unwrap();
        for (address, each) in &sockets.udp {
            let discover = match address {
                SocketAddr::V4(_) => sockopt::ip_mtu_discover(&each[0]).unwrap() == Ipv4PathMtuDiscovery::OMIT,
                SocketAddr::V6(_) => sockopt::ipv6_mtu_discover(&each[0]).unwrap() == Ipv6PathMtuDiscovery::OMIT,
            };
            assert!(discover, "{address}");
            assert!(address.is_ipv4() || socket2::SockRef::from(&each[0]).only_v6().unwrap());
        }
    }

    fn settings(dns: &[&str], workers: usize) -> ListenSettings {
        ListenSettings {
            dns: dns.iter().map(|address| address.parse().unwrap()).collect(),
            workers,
            drain: Duration::ZERO,
            tcp_connections: 8,
            tcp_connections_per_client: 8,
            client_prefix: (32, 56),
        }
    }
}
