//! The network under the daemon changes. Each test runs itself again in a network namespace of its own, where it may.
//!
//! Where the machine lets no namespace be made, as many containers do not, that is said and the test is skipped, with
//! EVENKEEL_REQUIRE_PEERS=1 too: no package that is missing is the reason.

use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::client::{load, try_ask};
use crate::support::daemon::{Daemon, run, tiers};
use crate::support::message::{Message, Question, rcode, rtype};
use crate::support::namespace::{self, Room};
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::wait_for;
use crate::support::zone::Zone;

const PATIENCE: Duration = Duration::from_secs(3);
const SAID: &str = "the network changed (new: 192.0.2.7 on lo)";

fn zone() -> Zone {
    Zone::new(".").any_below("test.", 60, "192.0.2.1")
}

// The first of two servers is convicted at the start and is due to be probed again after a minute.
#[test]
fn a_server_that_is_down_is_probed_at_once_when_an_address_comes() {
    let Some(ip) =
        namespace::inside(Room::Network, "network::a_server_that_is_down_is_probed_at_once_when_an_address_comes")
    else {
        return;
    };
    let (first, second) = (Upstream::behaving(zone(), Behaviour::Silent), Upstream::new(zone()));
    let health = "\n[groups.default.health]\nevery = \"1m\"\ntimeout = \"200ms\"\nfall = 1\nrise = 1\ndamp = false\n";
    let daemon = Daemon::start(&tiers(&[&[first.address()], &[second.address()]], health));
    let said = |what: &str| {
        wait_for(&format!("{what:?} in the log"), PATIENCE, || daemon.log().contains(what).then_some(()));
    };
    said(&format!("{} is down", first.address()));
    first.behave(Behaviour::Answer);
    first.forget();
    // An address that leads nowhere else is a message of the kernel, and no change.
    add_address(&ip, "127.0.0.9/32");
    thread::sleep(Duration::from_millis(700));
    assert_eq!(first.seen().len(), 0, "{}", daemon.log());
    assert!(!daemon.log().contains("network"), "{}", daemon.log());

    add_address(&ip, "192.0.2.7/32");
    said(SAID);
    wait_for("a probe", PATIENCE, || (!first.seen().is_empty()).then_some(()));
    said(&format!("{} is up", first.address()));
}

#[test]
fn an_address_that_is_not_there_yet_is_no_fault_of_the_process() {
    const SELF: &str = "network::an_address_that_is_not_there_yet_is_no_fault_of_the_process";
    let Some(ip) = namespace::inside(Room::Network, SELF) else { return };
    let upstream = Upstream::new(zone());
    let listen = "\n[listen]\ndns = [\"0.0.0.0:{port}\", \"192.0.2.7:53\"]\n[access]\nallow = [\"local\"]\n";
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], listen));
    let waits = || daemon.get("/status").1.contains("it is not on this machine yet");
    wait_for("its health", PATIENCE, || (daemon.get("/healthz").0 == 200).then_some(()));
    assert!(waits());
    add_address(&ip, "192.0.2.7/32");
    wait_for("the address", PATIENCE, || (!waits()).then_some(()));
    assert_eq!(daemon.get("/healthz").0, 200);
    let there = SocketAddr::from(([192, 0, 2, 7], 53));
    try_ask(there, &Question::new("www.test.", rtype::A)).expect("it answers there");
}

// The package listens on [::1] too, and a machine with IPv6 switched off has no such address: with a watchdog it would
// be started again for ever.
#[test]
fn where_ipv6_is_switched_off_its_loopback_is_no_fault_of_the_process() {
    const SELF: &str = "network::where_ipv6_is_switched_off_its_loopback_is_no_fault_of_the_process";
    if namespace::inside(Room::Network, SELF).is_none() {
        return;
    }
    if !ipv6_is_switched_off() {
        return;
    }
    let upstream = Upstream::new(zone());
    let listen = "\n[listen]\ndns = [\"0.0.0.0:{port}\", \"[::1]:{port}\"]\n[access]\nallow = [\"local\"]\n";
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], listen));
    wait_for("its health", PATIENCE, || (daemon.get("/healthz").0 == 200).then_some(()));
    assert!(daemon.get("/status").1.contains("it is not on this machine yet"));
    std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0").unwrap();
    let there = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), daemon.address().port());
    let ask = || try_ask(there, &Question::new("www.test.", rtype::A)).ok();
    wait_for("an answer at ::1, which has come", PATIENCE, ask);
}

// An address whose link is down, or that another node has: the kernel lists it, and nobody is reached there. With a
// watchdog the process would be started again for ever, and loopback's clients with it.
#[test]
fn an_ipv6_address_that_is_not_usable_is_no_fault_of_the_process() {
    const SELF: &str = "network::an_ipv6_address_that_is_not_usable_is_no_fault_of_the_process";
    let Some(ip) = namespace::inside(Room::Network, SELF) else { return };
    let link = |arguments: &str| {
        let mut command = Command::new(&ip);
        command.args(arguments.split(' '));
        run(command).code == Some(0)
    };
    if !link("link add bridge0 type bridge") || !link("addr add 2001:db8::5/64 dev bridge0") {
        let _ = io::stderr().write_all(b"skipped: no link can be made here\n");
        return;
    }
    let upstream = Upstream::new(zone());
    let listen = "\n[listen]\ndns = [\"0.0.0.0:{port}\", \"[2001:db8::5]:53\"]\n[access]\nallow = [\"local\"]\n";
    for state in ["down", "up"] {
        assert!(link(&format!("link set bridge0 {state}")));
        let daemon = Daemon::start(&tiers(&[&[upstream.address()]], listen));
        wait_for("its health", PATIENCE, || (daemon.get("/healthz").0 == 200).then_some(()));
    }
}

#[test]
fn who_is_local_follows_the_addresses_of_the_node() {
    let Some(ip) = namespace::inside(Room::Network, "network::who_is_local_follows_the_addresses_of_the_node") else {
        return;
    };
    let upstream = Upstream::new(zone());
    let listen = "\n[listen]\ndns = [\"0.0.0.0:{port}\"]\n[access]\nallow = [\"local\"]\n";
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], listen));
    // Past the start's own look.
    thread::sleep(Duration::from_millis(300));
    add_address(&ip, "192.0.2.7/32");
    // The tests' usual clients ask from loopback, which may always.
    let client = UdpSocket::bind("192.0.2.7:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(("192.0.2.7", daemon.address().port())).unwrap();
    let question = Question::new("www.test.", rtype::A).to_bytes();
    let ask = || {
        client.send(&question).unwrap();
        let mut room = [0; 1500];
        let length = client.recv(&mut room).unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
        Message::read(&room[..length]).rcode
    };
    wait_for("an answer to who is local", PATIENCE, || (ask() == rcode::NOERROR).then_some(()));
    wait_for("the log", PATIENCE, || daemon.log().contains(SAID).then_some(()));
}

// complaint 27: where IPv6 is switched off, its servers are neither asked nor given up. The kernel says so by an error
// that elsewhere means a shortage of ours.
#[test]
fn where_ipv6_is_switched_off_its_servers_are_passed_over() {
    if namespace::inside(Room::Network, "network::where_ipv6_is_switched_off_its_servers_are_passed_over").is_none() {
        return;
    }
    if !ipv6_is_switched_off() {
        return;
    }
    let second = Upstream::new(zone());
    let daemon = Daemon::start(&tiers(&[&["[2001:db8::1]:53".parse().unwrap()], &[second.address()]], ""));
    let names = (0..100).map(|n| format!("www.z{n}.test."));
    for sample in load(daemon.address(), names, rtype::A, 100, Duration::from_secs(5)) {
        let reply = sample.reply.unwrap_or_else(|| panic!("{}: no answer\n{}", sample.name, daemon.log()));
        assert_eq!(reply.addresses(), [[192, 0, 2, 1]], "{}: {reply:?}\n{}", sample.name, daemon.log());
    }
    let (_, metrics) = daemon.get("/metrics");
    let in_use = metrics.lines().find(|l| l.starts_with("evenkeel_tier_in_use")).unwrap_or("none");
    assert!(in_use.ends_with(" 2"), "{in_use}\n{}", daemon.log());
}

/// Switches IPv6 off in this namespace; says so where that cannot be.
fn ipv6_is_switched_off() -> bool {
    let is_off = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").is_ok();
    if !is_off {
        let _ = io::stderr().write_all(b"skipped: IPv6 cannot be switched off here\n");
    }
    is_off
}

fn add_address(ip: &Path, address: &str) {
    let mut command = Command::new(ip);
    command.args(["addr", "add", address, "dev", "lo"]);
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
