//! RFC 6840 and 4035: the bits of DNSSEC that pass through.

use super::{over, zone};
use crate::support::busy;
use crate::support::client::ask;
use crate::support::message::{Question, flag, rtype};

#[test]
fn section_5_7_ad_is_asked_of_servers_and_not_given_on_untrusted() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    let reply = ask(daemon.address(), &Question::new("www.test.", rtype::A).flags(flag::RD | flag::AD));
    assert!(!reply.has(flag::AD));
    assert!(upstream.seen().iter().all(|s| s.question.flags & flag::AD != 0));
}

#[test]
fn section_5_9_cd_is_passed_on_and_kept_apart() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    let question = Question::new("www.test.", rtype::A);
    for flags in [flag::RD | flag::CD, flag::RD] {
        let reply = ask(daemon.address(), &question.clone().flags(flags));
        assert_eq!(reply.has(flag::CD), flags & flag::CD != 0);
    }
    let cd: Vec<bool> = upstream
        .seen()
        .iter()
        .filter(|s| s.question.qtype == rtype::A)
        .map(|s| s.question.flags & flag::CD != 0)
        .collect();
    assert_eq!(cd, [true, false]);
}

#[test]
fn rfc_4035_section_3_2_1_do_is_passed_on_and_kept_apart() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    let question = Question::new("www.test.", rtype::A);
    for dnssec_ok in [false, true, false, true] {
        let reply = ask(daemon.address(), &question.clone().edns(|e| e.dnssec_ok = dnssec_ok));
        assert_eq!(reply.edns.unwrap().dnssec_ok, dnssec_ok);
    }
    let seen = upstream.seen();
    let asked = seen.iter().filter(|s| s.question.qtype == rtype::A);
    let dnssec_ok: Vec<bool> = asked.map(|s| s.question.edns.as_ref().is_some_and(|e| e.dnssec_ok)).collect();
    assert_eq!(dnssec_ok, [false, true]);
}
