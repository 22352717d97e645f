//! Forwarding: what counts as a reply, whom else to ask, and how often.

use std::thread;
use std::time::Duration;

use crate::support::authority::Authority;
use crate::support::busy;
use crate::support::client::{self, ask, load};
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::{Question, flag, rcode, rtype};
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;

const RIGHT: [[u8; 4]; 1] = [[192, 0, 2, 1]];

fn zone() -> Zone {
    Zone::new(".").any_below("test.", 60, "192.0.2.1")
}

#[test]
fn an_ordinary_zone_is_passed_on() {
    let _busy = busy();
    let server = Authority::new("zone.test.", "www IN A 192.0.2.1\nalias IN CNAME www\n");
    let daemon = Daemon::over(&[server.address()]);
    assert_eq!(daemon.ask("alias.zone.test.", rtype::A).addresses(), RIGHT);
    assert_eq!(daemon.ask("no.zone.test.", rtype::A).rcode, rcode::NXDOMAIN);
    let nodata = daemon.ask("www.zone.test.", rtype::AAAA);
    assert_eq!((nodata.rcode, nodata.answers.len(), nodata.authorities.len()), (rcode::NOERROR, 0, 1));
}

#[test]
fn an_answer_comes_from_the_cache_the_second_time() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    for spelling in ["www.test.", "WWW.test.", "www.TEST."] {
        let reply = daemon.ask(spelling, rtype::A);
        assert_eq!((reply.addresses(), reply.edes()), (RIGHT.to_vec(), vec![]), "{spelling}");
    }
    assert_eq!(upstream.count("www.test.", rtype::A), 1);
}

#[test]
fn what_is_no_reply_to_the_question_is_waited_past() {
    let _busy = busy();
    for behaviour in [
        Behaviour::WrongIdFirst(3),
        Behaviour::WrongQuestionFirst(3),
        Behaviour::NoiseFirst(3),
        Behaviour::WrongIdFirst(9),
    ] {
        let upstream = Upstream::behaving(zone(), behaviour.clone());
        let daemon = Daemon::over(&[upstream.address()]);
        for n in 0..20 {
            let name = format!("n{n}.test.");
            assert_eq!(daemon.ask(&name, rtype::A).addresses(), RIGHT, "{behaviour:?}");
        }
        assert!(upstream.seen().iter().all(|s| !s.over_tcp), "{behaviour:?}");
    }
}

#[test]
fn a_question_that_meets_a_flood_of_forged_replies_is_asked_over_tcp() {
    let _busy = busy();
    for behaviour in [Behaviour::WrongIdFirst(10), Behaviour::WrongQuestionFirst(30)] {
        let upstream = Upstream::behaving(zone(), behaviour.clone());
        let daemon = Daemon::over(&[upstream.address()]);
        assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), RIGHT, "{behaviour:?}");
        assert!(upstream.seen().iter().any(|s| s.over_tcp), "{behaviour:?}: never asked over TCP");
    }
}

#[test]
fn a_server_that_fails_a_question_has_it_asked_of_the_next() {
    let _busy = busy();
    for behaviour in [
        Behaviour::Fail(rcode::SERVFAIL, None),
        Behaviour::Fail(rcode::REFUSED, None),
        Behaviour::Silent,
        Behaviour::Garbage,
        Behaviour::CutBody,
        Behaviour::HeaderOnly(rcode::REFUSED),
    ] {
        let (first, second) = (Upstream::behaving(zone(), behaviour.clone()), Upstream::new(zone()));
        let daemon = Daemon::over(&[first.address(), second.address()]);
        let (reply, took) = daemon.ask_timed("www.test.", rtype::A);
        assert_eq!(reply.addresses(), RIGHT, "{behaviour:?}");
        assert!(took < Duration::from_secs(1), "{behaviour:?} took {took:?}");
    }
}

#[test]
fn a_closed_port_costs_no_time() {
    let _busy = busy();
    let (mut first, second) = (Upstream::new(zone()), Upstream::new(zone()));
    first.close();
    let daemon = Daemon::over(&[first.address(), second.address()]);
    assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), RIGHT);
}

#[test]
fn a_truncated_reply_is_asked_again_over_tcp() {
    let _busy = busy();
    let upstream = Upstream::behaving(zone().txt("big.test.", 60, 40_000), Behaviour::Truncating);
    let daemon = Daemon::over(&[upstream.address()]);
    assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), RIGHT);
    let big = client::ask_tcp(daemon.address(), &Question::new("big.test.", rtype::TXT));
    assert_eq!(big.answers[0].data.len(), 40_000 + 40_000_usize.div_ceil(255));
}

#[test]
fn a_server_that_dislikes_edns_is_asked_without_and_that_is_remembered() {
    let _busy = busy();
    let upstream = Upstream::behaving(zone(), Behaviour::FormErrToEdns);
    let daemon = Daemon::over(&[upstream.address()]);
    assert_eq!(daemon.ask("one.test.", rtype::A).addresses(), RIGHT);
    upstream.forget();
    assert_eq!(daemon.ask("two.test.", rtype::A).addresses(), RIGHT);
    let with_edns = upstream.seen().iter().filter(|s| s.question.edns.is_some() && s.question.name.len() > 1).count();
    assert_eq!(with_edns, 0);
}

#[test]
fn broken_dnssec_is_an_answer_and_no_other_server_is_asked() {
    let _busy = busy();
    let bogus = Behaviour::Fail(rcode::SERVFAIL, Some(6));
    let (first, second) = (Upstream::behaving(zone(), bogus), Upstream::new(zone()));
    let daemon = Daemon::over(&[first.address(), second.address()]);
    let reply = daemon.ask("www.test.", rtype::A);
    assert_eq!(reply.rcode, rcode::SERVFAIL);
    assert!(reply.edes().contains(&6), "{:?}", reply.edes());
    assert_eq!(second.live_count(), 0);
}

#[test]
fn thirty_identical_questions_at_once_are_at_most_two_upstream() {
    let _busy = busy();
    let upstream = Upstream::behaving(zone(), Behaviour::Slow(Duration::from_millis(100)));
    let daemon = Daemon::over(&[upstream.address()]);
    let address = daemon.address();
    let asking: Vec<_> = (0..30)
        .map(|_| thread::spawn(move || ask(address, &Question::new("www.test.", rtype::A)).addresses()))
        .collect();
    for reply in asking {
        assert_eq!(reply.join().unwrap(), RIGHT);
    }
    assert!(upstream.count("www.test.", rtype::A) <= 2, "{} questions", upstream.count("www.test.", rtype::A));
}

#[test]
fn a_tcp_server_is_asked_over_one_kept_connection() {
    let _busy = busy();
    let upstream = Upstream::behaving(zone(), Behaviour::Slow(Duration::from_millis(20)));
    let configuration = format!("[groups.default]\nprimary = [\"tcp://{}\"]\n", upstream.address());
    let daemon = Daemon::start(&configuration);
    let names = (0..100).map(|n| format!("n{n}.test."));
    let samples = load(daemon.address(), names, rtype::A, 200, Duration::from_secs(5));
    assert!(samples.iter().all(|s| s.reply.as_ref().is_some_and(|r| r.addresses() == RIGHT)));
    assert!(upstream.seen().iter().all(|s| s.over_tcp));
    assert!(upstream.connections() <= 2, "{} connections", upstream.connections());
}

#[test]
fn the_longest_zone_says_which_group_is_asked() {
    let _busy = busy();
    let everything = Upstream::new(zone());
    let inner = Upstream::new(Zone::new("corp.test.").any_below("corp.test.", 60, "192.0.2.2"));
    let group = format!("\n[groups.corp]\nzones = [\"corp.test\"]\nprimary = [\"{}\"]\n", inner.address());
    let daemon = Daemon::start(&tiers(&[&[everything.address()]], &group));
    assert_eq!(daemon.ask("www.corp.test.", rtype::A).addresses(), [[192, 0, 2, 2]]);
    assert_eq!(daemon.ask("www.notcorp.test.", rtype::A).addresses(), RIGHT);
    assert_eq!(everything.count("www.corp.test.", rtype::A), 0);
}

#[test]
fn ids_and_ports_of_upstream_questions_differ() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    for n in 0..50 {
        daemon.ask(&format!("n{n}.test."), rtype::A);
    }
    let seen = upstream.seen();
    let distinct = |mut all: Vec<u16>| {
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    let live = || seen.iter().filter(|s| s.question.name != [0]);
    // Sixteen ports are open at a time, and the first sixteen questions, probes among them, have one each.
    assert_eq!(distinct(seen.iter().take(16).map(|s| s.from.port()).collect()), 16);
    assert!(distinct(live().map(|s| s.question.id).collect()) > 45);
    assert!(live().all(|s| s.question.flags & (flag::RD | flag::AD) == flag::RD | flag::AD));
}

#[test]
fn addresses_turn_on_every_hit_and_all_of_them_stay() {
    let _busy = busy();
    let zone = (1..=3).fold(zone(), |zone, n| {
        zone.a("many.example.", 60, &format!("192.0.2.{n}")).aaaa("many.example.", 60, &format!("2001:db8::{n}"))
    });
    let upstream = Upstream::new(zone);
    let daemon = Daemon::over(&[upstream.address()]);
    for qtype in [rtype::A, rtype::AAAA] {
        let replies: Vec<Vec<Vec<u8>>> = (0..12)
            .map(|_| daemon.ask("many.example.", qtype).answers.into_iter().map(|r| r.data).collect())
            .collect();
        let mut firsts: Vec<&Vec<u8>> = replies.iter().map(|r| &r[0]).collect();
        firsts.sort();
        firsts.dedup();
        assert_eq!(firsts.len(), 3, "type {qtype}");
        for reply in &replies {
            let mut all = reply.clone();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 3, "type {qtype}");
        }
    }
}
