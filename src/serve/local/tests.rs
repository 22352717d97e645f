//! Tests of [`super`]: what is answered here, and how.

use std::net::IpAddr;

use proptest::prelude::*;

use super::compile::{LOOPBACK_V6_REVERSE, PRIVATE_REVERSE, REMARKS_MAX};
use super::*;
use crate::serve::Transport;
use crate::wire::{build, query, reply};

#[test]
fn names_that_are_answered_here_without_configuration() {
    let (local, remarks) = Local::new(&settings(), &[]);
    assert_eq!(remarks, Vec::<String>::new());
    for (name, qtype, want) in [
        ("localhost", rtype::A, "records 127.0.0.1"),
        ("LocalHost", rtype::AAAA, "records ::1"),
        ("a.b.localhost", rtype::A, "records 127.0.0.1"),
        ("localhost", 15, "nodata"),
        ("a.localhost", rtype::TXT, "nodata"),
        ("localhost", rtype::ANY, "records \\007RFC8482\\000"),
        ("1.0.0.127.in-addr.arpa", rtype::PTR, "records localhost."),
        ("2.0.0.127.in-addr.arpa", rtype::PTR, "nxdomain"),
        ("0.0.127.in-addr.arpa", rtype::PTR, "nodata"),
        ("127.in-addr.arpa", rtype::SOA, "nodata"),
        (LOOPBACK_V6_REVERSE, rtype::PTR, "records localhost."),
        ("invalid", rtype::A, "nxdomain"),
        ("a.invalid", rtype::A, "nxdomain"),
        ("abc.onion", rtype::A, "nxdomain"),
        ("x.y.alt", rtype::AAAA, "nxdomain"),
        ("resolver.arpa", rtype::NS, "nodata"),
        ("_dns.resolver.arpa", 64, "nodata"),
        ("health.evenkeel.invalid", rtype::TXT, "records \\002ok"),
        ("notlocalhost", rtype::A, "forwarded"),
        ("localhost.example", rtype::A, "forwarded"),
        ("arpa", rtype::NS, "forwarded"),
        ("in-addr.arpa", rtype::NS, "forwarded"),
        ("1.0.0.10.in-addr.arpa", rtype::PTR, "forwarded"),
        ("a.local", rtype::A, "forwarded"),
        ("home.arpa", rtype::A, "forwarded"),
        ("x.test", rtype::A, "forwarded"),
        ("svc.cluster.local", rtype::A, "forwarded"),
        (".", rtype::NS, "forwarded"),
    ] {
        assert_eq!(ask(&local, name, qtype, LOOPBACK), want, "{name} {qtype}");
    }
    assert_eq!(ask(&local, HEALTH_NAME, rtype::TXT, OTHER), "nxdomain");
}

#[test]
fn private_reverse_zones_are_answered_only_where_configured() {
    let private = LocalSettings { private_reverse_nxdomain: true, ..settings() };
    let (local, _) = Local::new(&private, &["10.0.0.5 printer".into()]);
    for (name, want) in [
        ("1.0.0.10.in-addr.arpa", "nxdomain"),
        ("5.0.0.10.in-addr.arpa", "records printer."),
        ("0.0.10.in-addr.arpa", "nodata"),
        ("15.172.in-addr.arpa", "forwarded"),
        ("16.172.in-addr.arpa", "nxdomain"),
        ("1.31.172.in-addr.arpa", "nxdomain"),
        ("32.172.in-addr.arpa", "forwarded"),
        ("127.100.in-addr.arpa", "nxdomain"),
        ("128.100.in-addr.arpa", "forwarded"),
        ("1.8.b.d.0.1.0.0.2.ip6.arpa", "nxdomain"),
        ("a.e.f.ip6.arpa", "nxdomain"),
        ("c.e.f.ip6.arpa", "forwarded"),
    ] {
        assert_eq!(ask(&local, name, rtype::PTR, OTHER), want, "{name}");
    }
    assert_eq!(PRIVATE_REVERSE.map(|z| z.parse::<Name>().is_ok()), [true; 16]);
}

#[test]
fn records_win_over_zones_and_longer_zones_over_shorter_ones() {
    let s = LocalSettings {
        records: vec![
            record("printer.lan", rtype::A, &[192, 0, 2, 7]),
            record("a.deep.lan", rtype::A, &[192, 0, 2, 8]),
            record("*.dev.lan", rtype::A, &[192, 0, 2, 9]),
            record("www.refused.example", rtype::A, &[192, 0, 2, 10]),
        ],
        zones: vec![
            zone("lan", ZoneAction::NxDomain),
            zone("ok.lan", ZoneAction::NoData),
            zone("refused.example", ZoneAction::Refuse),
            zone("*.below.example", ZoneAction::NxDomain),
            zone("onion", ZoneAction::Refuse),
        ],
        ..settings()
    };
    let (local, _) = Local::new(&s, &[]);
    for (name, qtype, want) in [
        ("printer.lan", rtype::A, "records 192.0.2.7"),
        ("PRINTER.Lan", rtype::AAAA, "nodata"),
        ("x.printer.lan", rtype::A, "nxdomain"),
        ("other.lan", rtype::A, "nxdomain"),
        ("deep.lan", rtype::A, "nodata"),
        ("lan", rtype::A, "nodata"),
        ("ok.lan", rtype::A, "nodata"),
        ("a.b.ok.lan", rtype::A, "nodata"),
        ("dev.lan", rtype::A, "nodata"),
        ("x.dev.lan", rtype::A, "records 192.0.2.9"),
        ("x.y.dev.lan", rtype::A, "records 192.0.2.9"),
        ("x.dev.lan", rtype::TXT, "nodata"),
        ("refused.example", rtype::A, "refused"),
        ("a.refused.example", rtype::A, "refused"),
        ("www.refused.example", rtype::A, "records 192.0.2.10"),
        ("below.example", rtype::A, "forwarded"),
        ("a.below.example", rtype::A, "nxdomain"),
        ("a.b.below.example", rtype::A, "nxdomain"),
        ("x.onion", rtype::A, "refused"),
        ("7.2.0.192.in-addr.arpa", rtype::PTR, "records printer.lan."),
        ("9.2.0.192.in-addr.arpa", rtype::PTR, "forwarded"),
        ("example", rtype::A, "forwarded"),
    ] {
        assert_eq!(ask(&local, name, qtype, OTHER), want, "{name} {qtype}");
    }
}

#[test]
fn an_alias_answers_any_type_and_is_followed_where_its_target_is_local() {
    let s = LocalSettings {
        records: vec![
            alias("www.lan", "host.lan"),
            record("host.lan", rtype::A, &[192, 0, 2, 7]),
            alias("out.lan", "www.example.org"),
            alias("gone.lan", "x.invalid"),
            alias("shut.lan", "shut.example"),
            alias("loop1.lan", "loop2.lan"),
            alias("loop2.lan", "loop1.lan"),
            record("loop1.lan", rtype::TXT, b"\x01x"),
        ],
        zones: vec![zone("shut.example", ZoneAction::Refuse)],
        ..settings()
    };
    let (local, _) = Local::new(&s, &[]);
    for (name, qtype, want) in [
        ("www.lan", rtype::A, "records host.lan. 192.0.2.7"),
        ("www.lan", rtype::CNAME, "records host.lan."),
        ("www.lan", rtype::AAAA, "nodata host.lan."),
        ("out.lan", rtype::A, "alias www.example.org."),
        ("out.lan", rtype::TXT, "alias www.example.org."),
        ("gone.lan", rtype::A, "nxdomain x.invalid."),
        ("shut.lan", rtype::A, "alias shut.example."),
        ("loop1.lan", rtype::TXT, "records \\001x"),
    ] {
        assert_eq!(ask(&local, name, qtype, OTHER), want, "{name} {qtype}");
    }
    assert!(ask(&local, "loop1.lan", rtype::A, OTHER).starts_with("alias loop2.lan. loop1.lan."));
}

#[test]
fn a_target_is_folded_and_one_that_is_no_name_is_left_out() {
    let s = LocalSettings {
        records: vec![
            record("up.lan", rtype::CNAME, b"\x04HOST\x03Lan\x00"),
            record("bad.lan", rtype::CNAME, b"\x04HOST"),
            record("host.lan", rtype::A, &[192, 0, 2, 7]),
        ],
        ..settings()
    };
    let (local, remarks) = Local::new(&s, &[]);
    assert_eq!(ask(&local, "up.lan", rtype::A, OTHER), "records host.lan. 192.0.2.7");
    assert_eq!(ask(&local, "bad.lan", rtype::A, OTHER), "forwarded");
    assert_eq!(remarks.len(), 1);
}

#[test]
fn hosts_files_give_addresses_and_the_reverse_of_the_first_name() {
    let s = LocalSettings {
        records: vec![record("set.lan", rtype::A, &[192, 0, 2, 1]), alias("alias.lan", "x.example")],
        hosts: vec!["/hosts".into()],
        ..settings()
    };
    let text = "# comment\n192.0.2.9  nas.lan nas # tail\n2001:db8::9 nas.lan\n192.0.2.9 later\n\
                127.0.1.1 myhost\n127.0.0.1 localhost extra\n0.0.0.0 ads.example\n192.0.2.66 set.lan alias.lan\n\
                192.0.2.66 evil.localhost *.lan\n\nnonsense here\n192.0.2.3 a..b fine\n";
    let (local, remarks) = Local::new(&s, &[text.into()]);
    for (name, qtype, client, want) in [
        ("nas.lan", rtype::A, OTHER, "records 192.0.2.9"),
        ("NAS", rtype::A, OTHER, "records 192.0.2.9"),
        ("nas.lan", rtype::AAAA, OTHER, "records 2001:db8::9"),
        ("nas.lan", rtype::TXT, OTHER, "nodata"),
        ("9.2.0.192.in-addr.arpa", rtype::PTR, OTHER, "records nas.lan."),
        ("later", rtype::A, OTHER, "records 192.0.2.9"),
        ("myhost", rtype::A, LOOPBACK, "records 127.0.1.1"),
        ("myhost", rtype::AAAA, LOOPBACK, "nodata"),
        ("myhost", rtype::A, OTHER, "forwarded"),
        ("myhost", rtype::AAAA, OTHER, "forwarded"),
        ("myhost", rtype::ANY, OTHER, "forwarded"),
        ("1.1.0.127.in-addr.arpa", rtype::PTR, LOOPBACK, "records myhost."),
        ("1.1.0.127.in-addr.arpa", rtype::PTR, OTHER, "nxdomain"),
        ("1.0.0.127.in-addr.arpa", rtype::PTR, LOOPBACK, "records localhost."),
        ("extra", rtype::A, LOOPBACK, "records 127.0.0.1"),
        ("localhost", rtype::A, OTHER, "records 127.0.0.1"),
        ("evil.localhost", rtype::A, OTHER, "records 127.0.0.1"),
        ("ads.example", rtype::A, OTHER, "records 0.0.0.0"),
        ("ads.example", rtype::AAAA, OTHER, "nodata"),
        ("set.lan", rtype::A, OTHER, "records 192.0.2.1"),
        ("alias.lan", rtype::A, OTHER, "alias x.example."),
        ("any.lan", rtype::A, OTHER, "forwarded"),
        ("fine", rtype::A, OTHER, "records 192.0.2.3"),
    ] {
        assert_eq!(ask(&local, name, qtype, client), want, "{name} {qtype}");
    }
    assert_eq!(remarks.len(), 2, "{remarks:?}");
    assert!(remarks[0].starts_with("/hosts:11: ") && remarks[1].starts_with("/hosts:12: "), "{remarks:?}");
}

#[test]
fn remarks_are_bounded() {
    let (_, remarks) = Local::new(&settings(), &["x\n".repeat(1000)]);
    assert_eq!(remarks.len(), REMARKS_MAX + 1);
    assert_eq!(remarks[REMARKS_MAX], "and 984 more like these");
}

#[test]
fn who_we_are_is_said_only_where_configured() {
    let (silent, _) = Local::new(&settings(), &[]);
    let named = LocalSettings { identity: Some("node-7".into()), ..settings() };
    let (named, _) = Local::new(&named, &[]);
    for (local, name, qtype, class, want) in [
        (&silent, "version.bind", rtype::TXT, CLASS_CH, LocalKind::Refused),
        (&named, "VERSION.bind", rtype::TXT, CLASS_CH, LocalKind::Identity),
        (&named, "id.server", rtype::TXT, CLASS_CH, LocalKind::Identity),
        (&named, "hostname.bind", rtype::TXT, CLASS_CH, LocalKind::Identity),
        (&named, "version.server", rtype::TXT, CLASS_CH, LocalKind::Identity),
        (&named, "version.bind", rtype::A, CLASS_CH, LocalKind::Refused),
        (&named, "authors.bind", rtype::TXT, CLASS_CH, LocalKind::Refused),
        (&named, "example.org", rtype::A, 4, LocalKind::Refused),
        (&named, "localhost", rtype::A, 255, LocalKind::Refused),
    ] {
        let mut packet = build::question(name.parse::<Name>().unwrap().as_wire(), qtype, false, false, true);
        let class_at = packet.len() - 11 - 2;
        packet[class_at..class_at + 2].copy_from_slice(&class.to_be_bytes());
        let mut out = [0; 512];
        let q = query::check(&packet).unwrap();
        let answer = answer(local, &q, OTHER, &mut out, 0).unwrap();
        assert_eq!(answer.kind, want, "{name} {class}");
        if want == LocalKind::Identity {
            let r = reply::check(&out[..answer.len]).unwrap();
            assert_eq!(r.data(&r.answers()[0]), b"\x06node-7");
            assert_eq!(r.answers()[0].class, CLASS_CH);
        }
    }
}

#[test]
fn several_addresses_are_turned() {
    let address = |n| record("many.lan", rtype::A, &[192, 0, 2, n]);
    let s = LocalSettings { records: vec![address(1), address(2), address(3), address(2)], ..settings() };
    let (local, _) = Local::new(&s, &[]);
    for (turn, want) in [
        (0, "records 192.0.2.1 192.0.2.2 192.0.2.3"),
        (1, "records 192.0.2.2 192.0.2.3 192.0.2.1"),
        (5, "records 192.0.2.3 192.0.2.1 192.0.2.2"),
    ] {
        assert_eq!(ask_turned(&local, "many.lan", rtype::A, OTHER, turn), want, "{turn}");
    }
}

#[test]
fn negative_answers_carry_the_soa_of_their_zone() {
    let s = LocalSettings {
        records: vec![alias("gone.lan", "x.y.dead.example")],
        zones: vec![zone("dead.example", ZoneAction::NxDomain)],
        ..settings()
    };
    let (local, _) = Local::new(&s, &[]);
    for (name, qtype, owner) in [
        ("a.b.dead.example", rtype::A, "dead.example."),
        ("gone.lan", rtype::A, "dead.example."),
        ("x.localhost", rtype::TXT, "x.localhost."),
        ("a.onion", rtype::A, "onion."),
    ] {
        let mut out = [0; 512];
        let packet = build::question(name.parse::<Name>().unwrap().as_wire(), qtype, false, false, false);
        let q = query::check(&packet).unwrap();
        let n = answer(&local, &q, OTHER, &mut out, 0).unwrap().len;
        let r = reply::check(&out[..n]).unwrap();
        let soa = r.authorities()[0];
        assert_eq!((soa.rtype, r.ttl(&soa)), (rtype::SOA, NEGATIVE_TTL), "{name}");
        assert_eq!(crate::wire::name::read(&out[..n], soa.owner_at).unwrap().0.to_string(), owner, "{name}");
    }
}

#[test]
fn what_does_not_fit_is_truncated() {
    let records = (0..100).map(|n| record("many.lan", rtype::A, &[192, 0, 2, n])).collect();
    let (local, _) = Local::new(&LocalSettings { records, ..settings() }, &[]);
    let packet = build::question(b"\x04many\x03lan\x00", rtype::A, false, false, true);
    for (limit, tc) in [(512, true), (1232, true), (4096, false)] {
        let mut out = [0; 4096];
        let n = answer(&local, &query::check(&packet).unwrap(), OTHER, &mut out[..limit], 0).unwrap().len;
        assert!(n <= limit);
        assert_eq!(out[2] & 2 != 0, tc, "{limit}");
    }
}

const LABELS: &str = "[a-c*]|localhost|invalid|lan|LAN|arpa|in-addr|127|0|1|resolver|[a-z]{63}";

proptest! {
    #[test]
    fn any_question_is_forwarded_or_answered_by_a_whole_reply(
        labels in proptest::collection::vec(LABELS, 0..6),
        qtype in prop_oneof![Just(1u16), Just(28), Just(5), Just(12), Just(16), Just(255), any::<u16>()],
        class in prop_oneof![4 => Just(1u16), 1 => any::<u16>()],
        edns in any::<bool>(), do_bit in any::<bool>(), loopback in any::<bool>(), turn in any::<u32>(),
        targets in proptest::collection::vec(("[a-c]", "[a-c]"), 0..4),
    ) {
        let mut s = settings();
        s.records = targets.iter().map(|(from, to)| alias(&format!("{from}.lan"), &format!("{to}.lan"))).collect();
        s.records.push(record("*.a.lan", rtype::A, &[192, 0, 2, 1]));
        s.records.push(record("b.lan", rtype::TXT, &[255; 256]));
        s.zones.push(zone("c.lan", ZoneAction::Refuse));
        let (local, _) = Local::new(&s, &["127.0.1.1 a.b.lan a\n192.0.2.4 b c.b.lan\n".into()]);
        let Ok(name) = labels.join(".").parse::<Name>() else { return Ok(()) };
        let mut packet = build::question(name.as_wire(), qtype, do_bit, false, edns);
        let class_at = 12 + name.as_wire().len() + 2;
        packet[class_at..class_at + 2].copy_from_slice(&class.to_be_bytes());
        let Ok(q) = query::check(&packet) else { return Ok(()) };
        let mut out = [0xaa; 512];
        if let Some(answer) = answer(&local, &q, if loopback { LOOPBACK } else { OTHER }, &mut out, turn) {
            let r = reply::check(&out[..answer.len]);
            prop_assert!(r.is_ok(), "{r:?}");
            let r = r.unwrap();
            prop_assert_eq!(r.rcode(), answer.rcode);
            prop_assert_eq!(&out[12..q.question_end()], &packet[12..q.question_end()]);
            let has_records = matches!(answer.kind, LocalKind::Records | LocalKind::Alias | LocalKind::Identity);
            if r.answers().is_empty() {
                prop_assert_eq!(out[2] & 2 != 0, has_records, "records are there, or TC says that they did not fit");
            }
        }
    }
}

const LOOPBACK: &str = "127.0.0.1";
const OTHER: &str = "192.0.2.200";

fn client(address: &str) -> Client {
    Client { address: address.parse().unwrap(), transport: Transport::Udp }
}

fn ask(local: &Local, name: &str, qtype: u16, from: &str) -> String {
    ask_turned(local, name, qtype, from, 0)
}

/// The kind of the answer and what its answer section holds, as text.
fn answer(local: &Local, query: &Query<'_>, from: &str, out: &mut [u8], turn: u32) -> Option<LocalAnswer> {
    local.answer(query, &query.name().to_ascii_lowercase(), &client(from), out, turn)
}

fn ask_turned(local: &Local, name: &str, qtype: u16, from: &str, turn: u32) -> String {
    let packet = build::question(name.parse::<Name>().unwrap().as_wire(), qtype, false, false, true);
    let mut out = [0; 1232];
    let q = query::check(&packet).unwrap();
    let Some(answer) = answer(local, &q, from, &mut out, turn) else { return "forwarded".into() };
    let r = reply::check(&out[..answer.len]).unwrap();
    assert_eq!(r.rcode(), answer.rcode);
    let mut text = answer.kind.word().to_owned();
    for record in r.answers() {
        let data = r.data(record);
        text += &match (record.rtype, data.len()) {
            (rtype::A, 4) => format!(" {}", IpAddr::from(<[u8; 4]>::try_from(data).unwrap())),
            (rtype::AAAA, 16) => format!(" {}", IpAddr::from(<[u8; 16]>::try_from(data).unwrap())),
            (rtype::CNAME | rtype::PTR, _) => format!(" {}", Name::from_wire(data).unwrap()),
            _ => format!(" {}", shown(data)),
        };
    }
    text
}

fn shown(data: &[u8]) -> String {
    data.iter().map(|b| if b.is_ascii_graphic() { (*b as char).to_string() } else { format!("\\{b:03}") }).collect()
}

fn settings() -> LocalSettings {
    LocalSettings { identity: None, private_reverse_nxdomain: false, records: vec![], zones: vec![], hosts: vec![] }
}

fn record(name: &str, rtype: u16, data: &[u8]) -> LocalRecord {
    LocalRecord { name: name.parse().unwrap(), rtype, data: data.to_vec(), ttl: 3600 }
}

fn alias(name: &str, target: &str) -> LocalRecord {
    record(name, rtype::CNAME, target.parse::<Name>().unwrap().as_wire())
}

fn zone(name: &str, action: ZoneAction) -> (Name, ZoneAction) {
    (name.parse().unwrap(), action)
}
