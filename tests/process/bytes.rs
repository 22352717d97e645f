//! What servers say reaches clients byte for byte, apart from id, flags, the question's spelling, TTLs, rotation and
//! OPT; shown with servers and clients that others wrote.

use std::net::SocketAddr;

use crate::support::busy;
use crate::support::client::{Stream, ask, ask_tcp};
use crate::support::daemon::{Daemon, tiers};
use crate::support::dig::dig;
use crate::support::message::{Message, Question, flag, rtype};
use crate::support::peers::{self, KINDS, KINDS_ORIGIN, Peer};

#[test]
fn every_kind_of_record_passes_from_nsd_byte_for_byte() {
    let _busy = busy();
    let Some(nsd) = peers::nsd() else { return };
    every_kind_passes_from(nsd.address());
}

#[test]
fn every_kind_of_record_passes_from_unbound_byte_for_byte() {
    let _busy = busy();
    let Some(nsd) = peers::nsd() else { return };
    let Some(unbound) = peers::unbound(nsd.address()) else { return };
    every_kind_passes_from(unbound.address());
}

fn every_kind_passes_from(server: SocketAddr) {
    let daemon = over_kinds(server);
    for (name, qtype) in KINDS {
        let question = Question::new(&format!("{name}.{KINDS_ORIGIN}"), *qtype);
        // As evenkeel asks: folded, with AD.
        let mut asked = question.clone().flags(flag::RD | flag::AD);
        asked.name.make_ascii_lowercase();
        let rotated = *qtype == rtype::A || *qtype == rtype::AAAA;
        let wanted = [ask(server, &asked), ask_tcp(server, &asked)].map(|m| m.kept_bytes(rotated));
        for what in ["from the server", "from the cache"] {
            let got = ask_tcp(daemon.address(), &question).kept_bytes(rotated);
            assert!(wanted.contains(&got), "{name} {qtype} {what}:\n{got:02x?}\n{:02x?}", wanted[1]);
        }
    }
}

#[test]
fn what_does_not_fit_into_a_datagram_is_truncated_and_comes_whole_over_tcp() {
    let _busy = busy();
    let Some(nsd) = peers::nsd() else { return };
    let daemon = over_kinds(nsd.address());
    for (name, qtype, whole_bytes) in [("many", rtype::A, 400 * 16), ("huge", rtype::TXT, 60 * 1024)] {
        let question = Question::new(&format!("{name}.{KINDS_ORIGIN}"), qtype);
        let cut = ask(daemon.address(), &question.clone().edns(|e| e.payload = 65_535));
        assert!(cut.has(flag::TC) && cut.len() <= 1232, "{name}: {} bytes", cut.len());
        let whole = ask_tcp(daemon.address(), &question);
        assert!(!whole.has(flag::TC) && whole.len() >= whole_bytes, "{name}: {} bytes", whole.len());
    }
}

#[test]
fn dig_and_kdig_read_what_they_asked_for() {
    let _busy = busy();
    let Some(nsd) = peers::nsd() else { return };
    let daemon = over_kinds(nsd.address());
    for peer in [Peer::Dig, Peer::Kdig] {
        for (name, qtype, want) in [
            ("a", "A", vec!["a.kinds.example. 300 IN A 192.0.2.1"]),
            ("srv", "SRV", vec!["srv.kinds.example. 300 IN SRV 0 5 5060 a.kinds.example."]),
            ("unknown", "TYPE65400", vec!["unknown.kinds.example. 300 IN TYPE65400 \\# 4 01020304"]),
            ("unknown-empty", "TYPE65400", vec!["unknown-empty.kinds.example. 300 IN TYPE65400 \\# 0"]),
        ] {
            // A fresh name each, so that TTLs have not run.
            let full = format!("{name}.{KINDS_ORIGIN}");
            let _ = daemon.command(&["flush", &full]);
            let Some(dug) = dig(peer, daemon.address(), &[&full, qtype]) else { break };
            assert_eq!(dug.status, "NOERROR", "{}", dug.text);
            let ttl = |line: &str| line.replacen(" 299 ", " 300 ", 1).trim_end().to_owned();
            assert_eq!(dug.answers.iter().map(|l| ttl(l)).collect::<Vec<_>>(), want, "{}", dug.text);
        }
        let Some(dug) = dig(peer, daemon.address(), &["huge.kinds.example", "TXT", "+tcp"]) else { continue };
        assert_eq!((dug.status.as_str(), dug.answers.len()), ("NOERROR", 4));
        let Some(dug) = dig(peer, daemon.address(), &["none.kinds.example", "A"]) else { continue };
        assert_eq!(dug.status, "NXDOMAIN");
    }
}

#[test]
fn many_large_replies_on_one_connection_come_whole() {
    let _busy = busy();
    let Some(nsd) = peers::nsd() else { return };
    let daemon = over_kinds(nsd.address());
    let question = Question::new(&format!("huge.{KINDS_ORIGIN}"), rtype::TXT);
    let _cached = ask_tcp(daemon.address(), &question);
    let mut stream = Stream::connect(daemon.address());
    for id in 0..40 {
        stream.send(&Question { id, ..question.clone() }.to_bytes());
    }
    let mut ids: Vec<u16> = (0..40).map(|_| Message::read(&stream.receive().unwrap()).id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<_>>());
}

fn over_kinds(server: SocketAddr) -> Daemon {
    // An authoritative server refuses ". NS", so the probe is what it knows.
    let probe = format!("\n[groups.default.health]\nprobes = [\"{KINDS_ORIGIN} SOA\"]\n");
    Daemon::start(&tiers(&[&[server]], &probe))
}
