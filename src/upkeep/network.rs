//! When the network under this node has become another one.
//!
//! Not pure: [`run`] has a netlink socket, reads what the kernel tells, and looks. What it goes by is pure:
//! `tells_of_change`, `Settle` and `Seen`. Rules:
//!
//! - A message that a link, an address, a default route or a route to a single address came, went or changed is a
//!   reason to look, and no more than that: the kernel also tells of lifetimes that every router advertisement renews
//!   (RFC 4861 §6.3.4). An overrun of the socket is such a reason too, since what was lost is not known.
//! - One looks when 200 ms were quiet, and after a second at the latest: addresses and routes come in bursts.
//! - What differs decides. Own addresses and default routes: [`Change::Reach`], at most once in 5 s. Only networks on
//!   our links, such as the route of a new pod: [`Change::Links`]. Anything else is not told.
//! - Left out of reach: addresses of the loopback and of a link alone, which every pod on a node brings and takes
//!   (resets at that pace would never let a better tier hold), and IPv6 addresses that are not usable yet (RFC 4862
//!   §5.4), so that the change is told when they are.
//! - Where there is no such socket, or it breaks, that is said once, and one looks every 10 s. Never fatal.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::{self, Moment};
use crate::observe::event::{Event, report};
use crate::serve::admit::OwnNetworks;
use crate::upkeep::system;

/// What a change of the network touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Own addresses or default routes; in words. What was learned of servers was learned by another way.
    Reach(String),
    /// Only the networks on our links: who is local.
    Links,
}

/// Tells of changes for as long as the process runs.
///
/// The first is [`Change::Links`], told at once: what changed between the start's own look and this one's socket.
pub async fn run(on_change: impl Fn(Change)) {
    let socket = listen();
    let mut watch = Watch { seen: Seen::look().ok(), on_change };
    (watch.on_change)(Change::Links);
    let broke = match socket {
        Ok(socket) => follow(&socket, &mut watch).await,
        Err(e) => e,
    };
    report(Event::NetworkUnwatched { reason: broke.to_string(), look_every: LOOK_EVERY });
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        watch.look();
    }
}

/// Looks whenever the socket gave reason to; ends with what broke it.
async fn follow(socket: &AsyncFd<OwnedFd>, watch: &mut Watch<impl Fn(Change)>) -> io::Error {
    let mut settle = Settle::default();
    loop {
        let due = settle.wake_at();
        tokio::select! {
            ready = socket.readable() => {
                let mut ready = match ready {
                    Ok(ready) => ready,
                    Err(e) => return e,
                };
                for _ in 0..MESSAGES_AT_ONCE {
                    match ready.try_io(|socket| hear(socket.get_ref())) {
                        Ok(Ok(Heard::Change)) => settle.on_change(clock::now()),
                        Ok(Ok(Heard::Nothing)) => {}
                        Ok(Err(e)) => return e,
                        Err(_empty) => break,
                    }
                }
            }
            () = tokio::time::sleep(clock::now().until(due)), if due != Moment::NEVER => {}
        }
        if clock::now() >= settle.wake_at() {
            let found = watch.look();
            settle.on_looked(found, clock::now());
        }
    }
}

//------------ The socket --------------------------------------------------------------------------------------------

// tokio wants `unsafe` from who could close the descriptor while it is registered; an OwnedFd cannot be.
#[allow(deprecated)]
fn listen() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, NETLINK_ROUTE)?;
    // Less is no harm: an overrun is a change.
    let _ = set_socket_recv_buffer_size(&socket, RECEIVE_BYTES);
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// What was in the socket.
enum Heard {
    Change,
    Nothing,
}

fn hear(socket: &OwnedFd) -> io::Result<Heard> {
    let mut room = [0u8; 4096];
    match recv(socket, &mut room, RecvFlags::empty()) {
        // One that does not fit is cut; its head, which says what it is, is there.
        Ok((length, _)) if tells_of_change(&room[..length]) => Ok(Heard::Change),
        Ok(_) | Err(Errno::INTR) => Ok(Heard::Nothing),
        Err(Errno::NOBUFS) => Ok(Heard::Change),
        Err(e) => Err(e.into()),
    }
}

/// Is there a message in this datagram that is a reason to look? netlink(7), rtnetlink(7).
fn tells_of_change(mut datagram: &[u8]) -> bool {
    while let Some(([l0, l1, l2, l3, k0, k1, ..], _)) = datagram.split_first_chunk::<MESSAGE_HEAD>() {
        let length = u32::from_ne_bytes([*l0, *l1, *l2, *l3]) as usize;
        let body = &datagram[MESSAGE_HEAD..length.clamp(MESSAGE_HEAD, datagram.len())];
        match u16::from_ne_bytes([*k0, *k1]) {
            RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => return true,
            // A router with a table of the whole internet tells of hundreds a second, and those are none of these.
            RTM_NEWROUTE | RTM_DELROUTE => match *body {
                [_, 0, ..] | [AF_INET, 32, ..] | [AF_INET6, 128, ..] | [] | [_] => return true,
                _ => {}
            },
            _ => {}
        }
        if length < MESSAGE_HEAD {
            return false;
        }
        datagram = datagram.get(length.saturating_add(3) & !3..).unwrap_or_default();
    }
    false
}

//------------ When to look ------------------------------------------------------------------------------------------

/// Makes one look of many reasons to.
#[derive(Clone, Debug, Default)]
struct Settle {
    /// The first and the last reason since the last look.
    burst: Option<(Moment, Moment)>,
    not_before: Moment,
}

impl Settle {
    fn on_change(&mut self, now: Moment) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
    }

    /// When it is time to look.
    fn wake_at(&self) -> Moment {
        match self.burst {
            None => Moment::NEVER,
            Some((first, last)) => (last + QUIET).min(first + BURST_MAX).max(self.not_before),
        }
    }

    fn on_looked(&mut self, found: Found, now: Moment) {
        let gap = if found == Found::Reach { REACH_GAP } else { LOOK_GAP };
        self.not_before = now + gap;
        // What could not be seen is looked for again.
        self.burst = (found == Found::NoSight).then_some((now, now));
    }
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Reach,
    Links,
    Same,
    NoSight,
}

//------------ What is looked at -------------------------------------------------------------------------------------

struct Watch<F> {
    /// `None` where the first look failed.
    seen: Option<Seen>,
    on_change: F,
}

impl<F: Fn(Change)> Watch<F> {
    fn look(&mut self) -> Found {
        let Ok(now) = Seen::look() else { return Found::NoSight };
        let Some(before) = self.seen.replace(now.clone()) else { return Found::Same };
        let Some(change) = before.change_to(&now) else { return Found::Same };
        let found = if change == Change::Links { Found::Links } else { Found::Reach };
        (self.on_change)(change);
        found
    }
}

/// The network as one look showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Own addresses and default routes, each in words, without what changes by itself.
    reach: BTreeSet<String>,
    own: OwnNetworks,
}

impl Seen {
    /// An error where the kernel was not to be asked, for want of a descriptor or the like: that is no change.
    fn look() -> io::Result<Self> {
        let held = interfaces()?.into_iter().map(|interface| Held {
            address: interface.ip(),
            running: interface.is_oper_up(),
            device: interface.name,
        });
        let reach = reach(
            &held.collect::<Vec<_>>(),
            &table("/proc/net/if_inet6")?,
            &table("/proc/net/route")?,
            &table("/proc/net/ipv6_route")?,
        );
        Ok(Self { reach, own: system::own_networks() })
    }

    fn change_to(&self, now: &Seen) -> Option<Change> {
        if self.reach == now.reach {
            return (self.own != now.own).then_some(Change::Links);
        }
        let listed = |what, of: Vec<&String>| match of.as_slice() {
            [] => None,
            [first] => Some(format!("{what}: {first}")),
            [first, rest @ ..] => Some(format!("{what}: {first} and {} more", rest.len())),
        };
        let come = listed("new", now.reach.difference(&self.reach).collect());
        let gone = listed("gone", self.reach.difference(&now.reach).collect());
        Some(Change::Reach([come, gone].into_iter().flatten().collect::<Vec<_>>().join("; ")))
    }
}

/// Where a sandbox forbids to ask, default routes are all that can be seen.
fn interfaces() -> io::Result<Vec<if_addrs::Interface>> {
    if_addrs::get_if_addrs().or_else(|e| match Errno::from_io_error(&e) {
        Some(Errno::PERM | Errno::ACCESS | Errno::AFNOSUPPORT) => Ok(Vec::new()),
        _ => Err(e),
    })
}

/// A kernel that lacks a protocol lacks its table.
fn table(path: &str) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// An address of an interface.
struct Held {
    address: IpAddr,
    device: String,
    /// Has the link a carrier?
    running: bool,
}

fn reach(held: &[Held], if_inet6: &str, route: &str, ipv6_route: &str) -> BTreeSet<String> {
    let unusable: Vec<Ipv6Addr> = unusable(if_inet6).collect();
    let of_a_link = |address: &IpAddr| match address {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local() || unusable.contains(a),
    };
    // What stands on a link that is down leads nowhere: kube-proxy keeps each Service's address on such a one.
    let usable = held.iter().filter(|h| h.running && !of_a_link(&h.address));
    let addresses = usable.map(|h| format!("{} on {}", h.address, h.device));
    let routes = default_routes_v4(route).chain(default_routes_v6(ipv6_route)).map(|(device, to)| {
        // A link whose cable was pulled keeps its addresses and routes.
        let dead = held.iter().any(|h| h.device == device) && !held.iter().any(|h| h.device == device && h.running);
        format!("default route{to} on {device}{}", if dead { " without carrier" } else { "" })
    });
    addresses.chain(routes).collect()
}

/// The addresses in the text of /proc/net/if_inet6 that another node may have, as far as is known.
pub(super) fn unusable(if_inet6: &str) -> impl Iterator<Item = Ipv6Addr> + '_ {
    if_inet6.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[address, _, _, _, flags, ..] = words.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let address = u128::from_str_radix(address, 16).ok()?;
        (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) != 0).then(|| Ipv6Addr::from_bits(address))
    })
}

/// Device, and gateway and metric in words, of the default routes in the text of /proc/net/route.
fn default_routes_v4(table: &str) -> impl Iterator<Item = (&str, String)> {
    table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[device, "00000000", gateway, flags, _, _, metric, "00000000", ..] = words.as_slice() else {
            return None;
        };
        // The table shows addresses as the machine's integers of network-order bytes.
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        let metric = metric.parse().ok()?;
        leads_somewhere(flags).then(|| (device, way(gateway.into(), metric)))
    })
}

/// The same of /proc/net/ipv6_route.
fn default_routes_v6(table: &str) -> impl Iterator<Item = (&str, String)> {
    table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[to, "00", _, _, gateway, metric, _, _, flags, device] = words.as_slice() else { return None };
        let gateway = Ipv6Addr::from_bits(u128::from_str_radix(gateway, 16).ok()?);
        let metric = u32::from_str_radix(metric, 16).ok()?;
        (to.bytes().all(|b| b == b'0') && leads_somewhere(flags)).then(|| (device, way(gateway.into(), metric)))
    })
}

fn way(gateway: IpAddr, metric: u32) -> String {
    let via = if gateway.is_unspecified() { String::new() } else { format!(" via {gateway}") };
    if metric == 0 { via } else { format!("{via} metric {metric}") }
}

/// RTF_UP without RTF_REJECT.
fn leads_somewhere(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 0x201 == 0x1)
}

//------------ Numbers -----------------------------------------------------------------------------------------------

/// So long without a message ends a burst.
const QUIET: Duration = Duration::from_millis(200);
/// A burst that goes on is looked at after this.
const BURST_MAX: Duration = Duration::from_secs(1);
/// Between changes of reach: each makes every server be probed.
const REACH_GAP: Duration = Duration::from_secs(5);
/// Between looks.
const LOOK_GAP: Duration = Duration::from_secs(1);
/// Between looks where nothing is told.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Asked for; the kernel doubles it.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Datagrams in a row, before others of the runtime have their turn.
const MESSAGES_AT_ONCE: usize = 64;

/// NETLINK_ROUTE: the family's protocol 0.
const NETLINK_ROUTE: Option<Protocol> = None;
/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Bytes of `struct nlmsghdr`.
const MESSAGE_HEAD: usize = 16;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
/// The first byte of `struct rtmsg`; the second is the length of the destination's prefix.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_addresses_and_routes_that_matter_are_reasons_to_look_and_nothing_else_is() {
        for (what, datagram, want) in [
            ("nothing", vec![], false),
            ("NLMSG_NOOP", message(1, &[]), false),
            ("NLMSG_ERROR", message(2, &[0; 4]), false),
            ("NLMSG_DONE", message(3, &[]), false),
            ("a link", message(RTM_NEWLINK, &[0; 16]), true),
            ("a link that went", message(RTM_DELLINK, &[0; 16]), true),
            ("RTM_GETLINK", message(18, &[0; 16]), false),
            ("an address", message(RTM_NEWADDR, &[0; 8]), true),
            ("an address that went", message(RTM_DELADDR, &[0; 8]), true),
            ("a default route", message(RTM_NEWROUTE, &[AF_INET, 0, 0, 0]), true),
            ("a default route that went", message(RTM_DELROUTE, &[AF_INET6, 0, 0, 0]), true),
            ("a pod's route", message(RTM_NEWROUTE, &[AF_INET, 32, 0, 0]), true),
            ("a pod's IPv6 route", message(RTM_NEWROUTE, &[AF_INET6, 128, 0, 0]), true),
            ("an IPv6 network of 32 bits", message(RTM_NEWROUTE, &[AF_INET6, 32, 0, 0]), false),
            ("a network", message(RTM_NEWROUTE, &[AF_INET, 24, 0, 0]), false),
            ("a route without its body", message(RTM_NEWROUTE, &[]), true),
            ("a neighbour", message(28, &[0; 12]), false),
            ("the second of two", [message(3, &[0; 5]), message(RTM_NEWADDR, &[0; 8])].concat(), true),
            ("cut in its head", message(RTM_NEWADDR, &[])[..15].to_vec(), false),
            ("cut after its head", message(RTM_NEWADDR, &[0; 8])[..16].to_vec(), true),
        ] {
            assert_eq!(tells_of_change(&datagram), want, "{what}");
        }
    }

    #[test]
    fn a_length_that_is_less_than_a_head_or_more_than_there_is_ends_the_reading() {
        for length in [0, 1, 15, 1000, u32::MAX - 3, u32::MAX] {
            let mut datagram = [message(3, &[0; 4]), message(RTM_NEWADDR, &[0; 8])].concat();
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(!tells_of_change(&datagram), "{length}");
        }
    }

    proptest! {
        #[test]
        fn noise_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = tells_of_change(&bytes);
        }

        #[test]
        fn a_change_behind_any_whole_messages_is_seen(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        ) {
            let mut datagram: Vec<u8> = bodies.iter().flat_map(|body| message(3, body)).collect();
            prop_assert!(!tells_of_change(&datagram));
            datagram.extend(message(RTM_NEWADDR, &[0; 8]));
            prop_assert!(tells_of_change(&datagram));
        }

        #[test]
        fn tables_of_noise_are_read_without_panic(text in "([0-9a-f]{0,33}|eth0| |\t|\n|é){0,60}") {
            let _ = reach(&[], &text, &text, &text);
        }

        #[test]
        fn every_reason_is_followed_by_a_look_within_a_second_and_a_gap(
            steps in proptest::collection::vec((0u64..3_000, 0u8..4), 1..100),
        ) {
            let mut settle = Settle::default();
            let (mut now, mut reached) = (Moment::from_secs(100), None);
            for (millis, what) in steps {
                let found = [Found::Reach, Found::Links, Found::Same, Found::NoSight][usize::from(what)];
                now = now + Duration::from_millis(millis);
                if settle.wake_at() <= now {
                    if found == Found::Reach {
                        prop_assert!(reached.is_none_or(|at| now.since(at) >= REACH_GAP));
                        reached = Some(now);
                    }
                    settle.on_looked(found, now);
                } else {
                    settle.on_change(now);
                    prop_assert!(now.until(settle.wake_at()) <= REACH_GAP.max(BURST_MAX));
                }
            }
        }
    }

    #[test]
    fn a_burst_is_looked_at_once_when_it_is_over() {
        let mut settle = Settle::default();
        assert_eq!(settle.wake_at(), Moment::NEVER);
        for millis in [10_000, 10_050, 10_249] {
            settle.on_change(ms(millis));
        }
        assert_eq!(settle.wake_at(), ms(10_449));
        settle.on_looked(Found::Same, ms(10_449));
        assert_eq!(settle.wake_at(), Moment::NEVER);
    }

    #[test]
    fn a_burst_that_does_not_end_is_looked_at_after_a_second() {
        let mut settle = Settle::default();
        for millis in (10_000..10_950).step_by(150) {
            settle.on_change(ms(millis));
            assert!(settle.wake_at() > ms(millis));
        }
        assert_eq!(settle.wake_at(), ms(11_000));
    }

    #[test]
    fn after_a_change_of_reach_the_next_look_waits_five_seconds_and_after_others_one() {
        for (found, wake_at) in [(Found::Reach, 15_000), (Found::Links, 11_000), (Found::Same, 11_000)] {
            let mut settle = Settle::default();
            settle.on_looked(found, ms(10_000));
            settle.on_change(ms(10_100));
            assert_eq!(settle.wake_at(), ms(wake_at), "{found:?}");
        }
    }

    #[test]
    fn a_look_that_showed_nothing_is_tried_again() {
        let mut settle = Settle::default();
        settle.on_change(ms(10_000));
        settle.on_looked(Found::NoSight, ms(10_200));
        assert_eq!(settle.wake_at(), ms(11_200));
    }

    const ROUTE: &str = "\
Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 010200C0 0003 0 0 100 00000000 0 0 0
eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0
ppp0 00000000 00000000 0001 0 0 200 00000000 0 0 0
* 00000000 00000000 0200 0 0 300 00000000 0 0 0
";

    const IPV6_ROUTE: &str = "\
20010db8000000000000000000000000 40 0 00 00000000000000000000000000000000 00000100 1 0 00000001 eth0
00000000000000000000000000000000 00 0 00 fe800000000000000000000000000001 00000400 2 0 00450003 eth0
00000000000000000000000000000000 00 0 00 00000000000000000000000000000000 ffffffff 1 0 00200200 lo
";

    #[cfg(target_endian = "little")]
    #[test]
    fn reach_is_own_addresses_and_default_routes_and_nothing_of_a_link_alone() {
        let held = [
            held("lo", "127.0.0.1"),
            held("lo", "::1"),
            held("lo", "198.51.100.1"),
            held("eth0", "192.0.2.7"),
            held("eth0", "fe80::7"),
            held("eth0", "169.254.3.4"),
            held("eth0", "2001:db8::7"),
            held("eth0", "2001:db8::8"),
        ];
        let if_inet6 = "20010db8000000000000000000000007 02 40 00 80 eth0\n\
                        20010db8000000000000000000000008 02 40 00 c0 eth0\n";
        let all = reach(&held, if_inet6, ROUTE, IPV6_ROUTE);
        let want = [
            "192.0.2.7 on eth0",
            "198.51.100.1 on lo",
            "2001:db8::7 on eth0",
            "default route metric 200 on ppp0",
            "default route via 192.0.2.1 metric 100 on eth0",
            "default route via fe80::1 metric 1024 on eth0",
        ];
        assert_eq!(all.iter().collect::<Vec<_>>(), want);
    }

    #[test]
    fn counters_and_lifetimes_are_no_change_and_a_pulled_cable_is() {
        let mut held = [held("eth0", "192.0.2.7")];
        let before = reach(&held, "", ROUTE, IPV6_ROUTE);
        // Uses, references, and the flag that says that a route has a lifetime.
        let route = ROUTE.replace("0003 0 0 100", "0003 7 9 100");
        let ipv6_route = IPV6_ROUTE.replace("00000400 2 0 00450003", "00000400 5 77 00050003");
        assert!(route != ROUTE && ipv6_route != IPV6_ROUTE);
        assert_eq!(reach(&held, "", &route, &ipv6_route), before);
        held[0].running = false;
        let pulled = reach(&held, "", ROUTE, IPV6_ROUTE);
        assert_eq!(pulled.iter().filter(|w| w.ends_with("on eth0 without carrier")).count(), 2, "{pulled:?}");
    }

    #[test]
    fn a_change_is_told_by_what_it_touches() {
        let pods = |links: &[&str]| OwnNetworks {
            addresses: vec![],
            links: links.iter().map(|net| net.parse().unwrap()).collect(),
        };
        let seen = |reach: &[&str], links: &[&str]| Seen {
            reach: reach.iter().map(|w| (*w).to_owned()).collect(),
            own: pods(links),
        };
        let before = seen(&["a", "b"], &["10.0.0.1/32"]);
        let reach = |what: &str| Some(Change::Reach(what.to_owned()));
        for (now, want) in [
            (before.clone(), None),
            (seen(&["a", "b"], &["10.0.0.2/32"]), Some(Change::Links)),
            (seen(&["a", "b", "c"], &["10.0.0.2/32"]), reach("new: c")),
            (seen(&["a"], &[]), reach("gone: b")),
            (seen(&["c", "d", "e"], &[]), reach("new: c and 2 more; gone: a and 1 more")),
        ] {
            assert_eq!(before.change_to(&now), want);
        }
    }

    /// A message as the kernel lays it out, padded to four bytes.
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(MESSAGE_HEAD + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn held(device: &str, address: &str) -> Held {
        Held { address: address.parse().unwrap(), device: device.to_owned(), running: true }
    }

    fn ms(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }
}
