//! What was known keeps being answered when nobody answers any more (RFC 8767), without a wait that can be spared.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Load, Sample, load, percentile};
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::{rcode, rtype};
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, quiet, wait_for};

const KNOWN: [[u8; 4]; 1] = [[192, 0, 2, 1]];
const RENUMBERED: [[u8; 4]; 1] = [[192, 0, 2, 2]];
const STALE: u16 = 3;
const STALE_NXDOMAIN: u16 = 19;

/// TTLs of a second, so that a test can wait them out.
fn zone() -> Zone {
    Zone::new(".").negative_ttl(1).any_below("test.", 1, "192.0.2.1")
}

fn names() -> impl Iterator<Item = String> + Clone {
    (0..100).map(|n| format!("n{n}.test."))
}

fn renumbered_zone() -> Zone {
    Zone::new(".").any_below("test.", 1, "192.0.2.2")
}

/// Asks for all names, and waits until their TTL has run out.
fn learn(daemon: &Daemon) {
    for sample in load(daemon.address(), names(), rtype::A, 500, Duration::from_secs(5)) {
        assert_eq!(sample.reply.unwrap().addresses(), KNOWN);
    }
    thread::sleep(Duration::from_millis(1200));
}

/// Some names one by one, so that the program knows how long a server takes.
fn learn_pace(daemon: &Daemon) {
    for n in 0..8 {
        assert_eq!(daemon.ask(&format!("pace{n}.test."), rtype::A).addresses(), KNOWN);
    }
}

fn all_stale(samples: &[Sample]) {
    for sample in samples {
        let reply = sample.reply.as_ref().unwrap_or_else(|| panic!("{} got no answer", sample.name));
        assert_eq!(reply.addresses(), KNOWN, "{}", sample.name);
        assert!(reply.edes().contains(&STALE), "{}: {:?}", sample.name, reply.edes());
    }
}

// The upstreams fall silent with names in cache. In the first second each client waits for at most its patience (150 ms
// where upstreams were quick); once health has seen it, for nothing.
#[test]
fn when_all_are_silent_known_names_are_answered_within_patience_and_later_at_once() {
    let _quiet = quiet();
    let (first, second) = (Upstream::new(zone()), Upstream::new(zone()));
    let daemon = Daemon::start(&tiers(&[&[first.address()], &[second.address()]], ""));
    learn(&daemon);
    first.behave(Behaviour::Silent);
    second.behave(Behaviour::Silent);
    let samples = load(daemon.address(), names(), rtype::A, 100, Duration::from_secs(5));
    all_stale(&samples);
    let slowest = percentile(&samples, 1.0);
    assert!(slowest <= Duration::from_millis(500), "first second: {slowest:?}");

    thread::sleep(Duration::from_secs(2));
    let samples = load(daemon.address(), names(), rtype::A, 100, Duration::from_secs(5));
    all_stale(&samples);
    let p99 = percentile(&samples, 0.99);
    assert!(p99 <= Duration::from_millis(100), "later: {p99:?}");
}

// Nobody answers a name that was never seen. The client is told so within the deadline, and soon at once.
#[test]
fn when_all_are_silent_unknown_names_are_servfail_within_the_deadline_and_soon_at_once() {
    let _quiet = quiet();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    learn(&daemon);
    upstream.behave(Behaviour::Silent);
    let (reply, took) = daemon.ask_timed("never1.test.", rtype::A);
    assert_eq!(reply.rcode, rcode::SERVFAIL);
    assert!(reply.edes().iter().any(|e| [22, 23].contains(e)), "{:?}", reply.edes());
    assert!(took <= Duration::from_millis(4100), "{took:?}");

    // Soon once its probes have told that it is down; until then a question waits for what may still come.
    wait_for("the server is found down", Duration::from_secs(15), || daemon.log().contains("is down:").then_some(()));
    let (reply, took) = daemon.ask_timed("never1.test.", rtype::A);
    assert_eq!(reply.rcode, rcode::SERVFAIL);
    assert!(took <= Duration::from_millis(500), "the same name again: {took:?}");
}

#[test]
fn when_all_ports_are_closed_known_names_are_answered_at_once() {
    let _quiet = quiet();
    let mut upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    learn(&daemon);
    upstream.close();
    let (reply, took) = daemon.ask_timed("n1.test.", rtype::A);
    assert_eq!((reply.addresses(), reply.edes()), (KNOWN.to_vec(), vec![STALE]));
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn a_failure_neither_replaces_nor_shadows_what_was_known() {
    let _busy = busy();
    for behaviour in [
        Behaviour::Fail(rcode::SERVFAIL, None),
        Behaviour::Fail(rcode::REFUSED, None),
        Behaviour::Garbage,
        Behaviour::CutBody,
        Behaviour::HeaderOnly(rcode::SERVFAIL),
    ] {
        let upstream = Upstream::new(zone());
        let daemon = Daemon::over(&[upstream.address()]);
        assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), KNOWN);
        thread::sleep(Duration::from_millis(1200));
        upstream.behave(behaviour.clone());
        for _ in 0..3 {
            let reply = daemon.ask("www.test.", rtype::A);
            assert_eq!(reply.addresses(), KNOWN, "{behaviour:?}");
            assert!(reply.edes().contains(&STALE), "{behaviour:?}: {:?}", reply.edes());
        }
    }
}

#[test]
fn when_a_server_comes_back_answers_are_fresh_again() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    learn(&daemon);
    upstream.behave(Behaviour::Silent);
    load(daemon.address(), names(), rtype::A, 50, Duration::from_secs(2));
    upstream.know(Zone::new(".").any_below("test.", 60, "192.0.2.2"));
    upstream.behave(Behaviour::Answer);
    wait_for("a fresh answer", Duration::from_secs(5), || {
        let reply = daemon.ask("n1.test.", rtype::A);
        (reply.edes().is_empty() && reply.addresses() == [[192, 0, 2, 2]]).then_some(())
    });
}

// complaint 25: refreshes that spin, and the herd that greets a server at its return.
#[test]
fn a_server_that_comes_back_is_not_met_by_a_herd() {
    let _quiet = quiet();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    learn(&daemon);
    upstream.behave(Behaviour::Silent);
    let silent = load(daemon.address(), names().cycle().take(150), rtype::A, 300, Duration::from_secs(5));
    assert!(silent.iter().all(|s| s.reply.as_ref().is_some_and(|r| r.addresses() == KNOWN)));
    upstream.know(renumbered_zone());
    upstream.behave(Behaviour::Answer);
    upstream.forget();
    load(daemon.address(), names().cycle().take(450), rtype::A, 400, Duration::from_secs(5));
    let came: Vec<Instant> = upstream.seen().iter().map(|s| s.at).collect();
    let within_a_second = |from: &Instant| came.iter().filter(|t| **t >= *from && **t - *from < SECOND).count();
    let most = came.iter().map(within_a_second).max().unwrap_or(0);
    assert!(most <= 200, "{most} questions in a second for 100 names");
}

const SECOND: Duration = Duration::from_secs(1);

// complaint 22: a failure that stays when its cause is gone.
#[test]
fn names_that_failed_while_all_were_silent_are_right_soon_after_a_server_is_back() {
    let _busy = busy();
    let (first, second) = (Upstream::new(zone()), Upstream::new(zone()));
    let daemon = Daemon::start(&tiers(&[&[first.address()], &[second.address()]], "deadline = \"1s\"\n"));
    assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), KNOWN);
    [&first, &second].into_iter().for_each(|s| s.behave(Behaviour::Silent));
    let new = || (0..100).map(|n| format!("new{n}.z{n}.test."));
    for sample in load(daemon.address(), new(), rtype::A, 100, Duration::from_secs(5)) {
        let reply = sample.reply.unwrap_or_else(|| panic!("{} got no answer", sample.name));
        assert_eq!((reply.rcode, reply.edes().is_empty()), (rcode::SERVFAIL, false), "{reply:?}");
    }
    second.behave(Behaviour::Answer);
    wait_for("all of them to be right", Duration::from_secs(10), || {
        let again = load(daemon.address(), new(), rtype::A, 500, Duration::from_secs(5));
        again.iter().all(|s| s.reply.as_ref().is_some_and(|r| r.addresses() == KNOWN)).then_some(())
    });
}

// complaint 4: old addresses although the servers are well.
#[test]
fn while_servers_are_well_no_old_address_is_given_after_its_ttl() {
    let _busy = busy();
    renumber_at(Duration::ZERO);
}

#[test]
fn while_servers_are_well_and_far_away_no_old_address_is_given_after_its_ttl() {
    let _busy = busy();
    renumber_at(Duration::from_millis(100));
}

/// The patience is long, so that a busy machine is no reason for an old answer.
fn renumber_at(latency: Duration) {
    let upstream = Upstream::behaving(zone(), Behaviour::Slow(latency));
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], "\n[stale]\npatience = \"1500ms\"\n"));
    learn_pace(&daemon);
    learn(&daemon);
    upstream.know(renumbered_zone());
    for sample in load(daemon.address(), names(), rtype::A, 200, Duration::from_secs(5)) {
        let reply = sample.reply.unwrap_or_else(|| panic!("{} got no answer", sample.name));
        assert_eq!((reply.addresses(), reply.edes()), (RENUMBERED.into(), vec![]), "{}", sample.name);
    }
}

// complaint 3: a wait for the fresh answer without a bound; complaint 4: and old answers again and again.
#[test]
fn where_a_fresh_answer_takes_longer_than_patience_the_old_one_is_given_once_a_name() {
    let _quiet = quiet();
    let upstream = Upstream::behaving(zone(), Behaviour::Slow(Duration::from_millis(100)));
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], "\n[stale]\npatience = \"50ms\"\n"));
    learn_pace(&daemon);
    learn(&daemon);
    upstream.know(Zone::new(".").any_below("test.", 60, "192.0.2.2"));
    // Each name twice, with half a second between, in which its refresh arrives.
    let asked = (0..2).flat_map(|_| names().take(50));
    let mut old: HashMap<String, u32> = HashMap::new();
    for sample in Load::on(daemon.address()).ask(asked) {
        let reply = sample.reply.unwrap_or_else(|| panic!("{} got no answer", sample.name));
        match reply.addresses()[..] {
            [address] if address == KNOWN[0] => {
                assert!(reply.edes().contains(&STALE), "{}: old, and does not say so", sample.name);
                *old.entry(sample.name).or_default() += 1;
            }
            _ => assert_eq!(reply.addresses(), RENUMBERED, "{}", sample.name),
        }
    }
    assert!(!old.is_empty(), "nobody was impatient");
    assert!(old.values().all(|n| *n == 1), "{old:?}");
}

#[test]
fn a_stale_nxdomain_is_served_and_says_so() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    assert_eq!(daemon.ask("no.example.", rtype::A).rcode, rcode::NXDOMAIN);
    thread::sleep(Duration::from_millis(1200));
    upstream.behave(Behaviour::Silent);
    let reply = daemon.ask("no.example.", rtype::A);
    assert_eq!((reply.rcode, reply.edes()), (rcode::NXDOMAIN, vec![STALE_NXDOMAIN]));
}

#[test]
fn with_stale_off_nothing_is_served_past_its_ttl() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let configuration = tiers(&[&[upstream.address()]], "deadline = \"1s\"\n\n[stale]\nmax_age = \"0s\"\n");
    let daemon = Daemon::start(&configuration);
    assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), KNOWN);
    thread::sleep(Duration::from_millis(1200));
    upstream.behave(Behaviour::Silent);
    assert_eq!(daemon.ask("www.test.", rtype::A).rcode, rcode::SERVFAIL);
}
