//! Servers that fail while others do not: who is asked, how long clients wait, whose word counts.

use std::time::Duration;

use crate::support::client::{load, percentile};
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::{rcode, rtype};
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, quiet, wait_for};

const RIGHT: [[u8; 4]; 1] = [[192, 0, 2, 1]];

/// Health that moves within the patience of a test.
const QUICK: &str = "\n[groups.default.health]\nevery = \"200ms\"\nhold = \"1s\"\nramp = \"1s\"\ndamp = false\n";

fn zone() -> Zone {
    Zone::new(".").any_below("test.", 60, "192.0.2.1")
}

fn never_seen(batch: u32, count: u32) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("b{batch}n{n}.test."))
}

// Three tiers, the primary silent from the start. Clients ask for names that nobody has asked for, 100 a second.
#[test]
fn with_a_silent_primary_never_seen_names_are_answered_quickly_and_soon_at_once() {
    let _quiet = quiet();
    let servers = [Upstream::behaving(zone(), Behaviour::Silent), Upstream::new(zone()), Upstream::new(zone())];
    let [first, second, third] = [0, 1, 2].map(|n: usize| [servers[n].address()]);
    let daemon = Daemon::start(&tiers(&[&first, &second, &third], ""));
    let samples = load(daemon.address(), never_seen(0, 300), rtype::A, 100, Duration::from_secs(5));
    assert!(samples.iter().all(|s| s.reply.as_ref().is_some_and(|r| r.addresses() == RIGHT)));
    let p99 = percentile(&samples, 0.99);
    // What a time-out costs is seconds; the bar itself is measured by `cargo bench --bench bars`.
    assert!(p99 < Duration::from_millis(500), "first three seconds: {p99:?}");
    let asked = servers[0].live_count();

    let samples = load(daemon.address(), never_seen(1, 200), rtype::A, 100, Duration::from_secs(5));
    assert!(samples.iter().all(|s| s.reply.as_ref().is_some_and(|r| r.addresses() == RIGHT)));
    // No client waits for the silent server any more: it gets copies alone, at most one a second.
    let more = servers[0].live_count() - asked;
    assert!(more <= 10, "{more} of 200 questions went to the silent server");
}

// A company's resolver, then a public one that knows none of its names. The company's falls silent, then gets slow.
#[test]
fn a_secondary_with_another_view_takes_no_known_name_away() {
    let _quiet = quiet();
    let company = Upstream::new(Zone::new(".").any_below("corp.test.", 1, "192.0.2.1"));
    let public = Upstream::behaving(zone(), Behaviour::NxdomainToEverything);
    let daemon = Daemon::start(&tiers(&[&[company.address()], &[public.address()]], ""));
    let names = || (0..100).map(|n| format!("n{n}.corp.test."));
    let ask_all = |what: &str| {
        for sample in load(daemon.address(), names(), rtype::A, 100, Duration::from_secs(5)) {
            let reply = sample.reply.unwrap_or_else(|| panic!("{what}: {} got no answer", sample.name));
            assert_eq!(reply.addresses(), RIGHT, "{what}: {} {reply:?}", sample.name);
        }
    };
    ask_all("all well");
    company.behave(Behaviour::Silent);
    ask_all("silent, first second");
    ask_all("silent, second second");
    ask_all("silent, third second");
    company.behave(Behaviour::Slow(Duration::from_millis(1500)));
    ask_all("slow, first second");
    ask_all("slow, second second");
    ask_all("slow, third second");
}

#[test]
fn a_lower_tier_alone_may_say_that_a_name_does_not_exist_when_the_better_one_is_down() {
    let _busy = busy();
    let mut company = Upstream::new(zone());
    let public = Upstream::behaving(zone(), Behaviour::NxdomainToEverything);
    company.close();
    let daemon = Daemon::start(&tiers(&[&[company.address()], &[public.address()]], ""));
    assert_eq!(daemon.ask("never.test.", rtype::A).rcode, rcode::NXDOMAIN);
}

#[test]
fn a_better_tier_is_left_at_once_and_taken_again_late() {
    let _busy = busy();
    let (mut first, second) = (Upstream::new(zone()), Upstream::new(zone()));
    let daemon = Daemon::start(&tiers(&[&[first.address()], &[second.address()]], QUICK));
    let ask_some = |batch| {
        for sample in load(daemon.address(), never_seen(batch, 20), rtype::A, 100, Duration::from_secs(5)) {
            assert_eq!(sample.reply.unwrap().addresses(), RIGHT, "{batch}");
        }
    };
    ask_some(0);
    assert_eq!(second.live_count(), 0, "the secondary was asked although the primary answers");
    first.close();
    ask_some(1);
    assert!(second.live_count() >= 20);
    first.open();
    let mut batch = 2;
    wait_for("the primary to be taken again", Duration::from_secs(15), || {
        batch += 1;
        second.forget();
        ask_some(batch);
        (second.live_count() == 0).then_some(())
    });
}

#[test]
fn a_server_that_loses_a_fifth_of_its_questions_loses_no_answer() {
    let _quiet = quiet();
    let (first, second) = (Upstream::behaving(zone(), Behaviour::Lossy { lost: 20, seed: 1 }), Upstream::new(zone()));
    let daemon = Daemon::over(&[first.address(), second.address()]);
    let samples = load(daemon.address(), never_seen(0, 200), rtype::A, 100, Duration::from_secs(5));
    assert!(samples.iter().all(|s| s.reply.as_ref().is_some_and(|r| r.addresses() == RIGHT)));
    let p99 = percentile(&samples, 0.99);
    assert!(p99 < Duration::from_millis(250), "{p99:?}");
}

#[test]
fn a_down_group_is_not_flooded() {
    let _quiet = quiet();
    let upstream = Upstream::behaving(zone(), Behaviour::Silent);
    let daemon = Daemon::over(&[upstream.address()]);
    // Long enough to be seen as down, then two seconds of which the questions are counted.
    load(daemon.address(), never_seen(0, 300), rtype::A, 100, Duration::ZERO);
    upstream.forget();
    load(daemon.address(), never_seen(1, 200), rtype::A, 100, Duration::ZERO);
    // Ten questions a second and group, and probes at least once a second, with room for a try more of each.
    assert!(upstream.seen().len() <= 60, "{} questions in two seconds", upstream.seen().len());
}
