//! RFC 8767: stale data.

use std::thread;
use std::time::Duration;

use super::zone;
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::{rcode, rtype};
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, wait_for};

/// An upstream whose names live for `ttl` seconds, and evenkeel on it with `more` in its configuration.
fn short(ttl: u32, more: &str) -> (Upstream, Daemon) {
    let upstream = Upstream::new(Zone::new(".").any_below("test.", ttl, "192.0.2.1"));
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], more));
    (upstream, daemon)
}

fn pass(seconds: u64) {
    thread::sleep(Duration::from_secs(seconds) + Duration::from_millis(200));
}

#[test]
fn section_5_stale_data_has_a_ttl_of_30_seconds_or_what_it_had() {
    let _busy = busy();
    for (ttl, want) in [(1, 1), (2, 2)] {
        let (upstream, daemon) = short(ttl, "");
        daemon.ask("www.test.", rtype::A);
        pass(ttl.into());
        upstream.behave(Behaviour::Silent);
        let reply = daemon.ask("www.test.", rtype::A);
        assert_eq!((reply.answers[0].ttl, reply.edes()), (want, vec![3]));
    }
}

#[test]
fn section_5_stale_data_older_than_the_maximum_is_not_served() {
    let _busy = busy();
    let (upstream, daemon) = short(1, "deadline = \"500ms\"\n\n[stale]\nmax_age = \"1s\"\n");
    daemon.ask("www.test.", rtype::A);
    upstream.behave(Behaviour::Silent);
    pass(1);
    assert_eq!(daemon.ask("www.test.", rtype::A).answers.len(), 1, "within the maximum");
    pass(1);
    assert_eq!(daemon.ask("www.test.", rtype::A).rcode, rcode::SERVFAIL, "past the maximum");
}

#[test]
fn section_5_the_pursuit_goes_on_behind_a_stale_answer() {
    let _busy = busy();
    let (upstream, daemon) = short(1, "\n[stale]\npatience = \"100ms\"\n");
    daemon.ask("www.test.", rtype::A);
    pass(1);
    upstream.know(zone().any_below("test.", 60, "192.0.2.1"));
    upstream.behave(Behaviour::Slow(Duration::from_millis(300)));
    assert_eq!(daemon.ask("www.test.", rtype::A).edes(), [3]);
    wait_for("the fresh answer behind it", Duration::from_secs(3), || {
        let reply = daemon.ask("www.test.", rtype::A);
        (reply.edes().is_empty() && reply.answers[0].ttl > 30).then_some(())
    });
    // The one before, and one pursuit's attempts.
    assert!(upstream.count("www.test.", rtype::A) <= 4);
}

#[test]
fn section_4_nxdomain_is_a_refresh_and_servfail_is_none() {
    let _busy = busy();
    let (upstream, daemon) = short(1, "");
    daemon.ask("www.test.", rtype::A);
    pass(1);
    upstream.behave(Behaviour::Fail(rcode::SERVFAIL, None));
    assert_eq!(daemon.ask("www.test.", rtype::A).edes(), [3]);
    upstream.behave(Behaviour::NxdomainToEverything);
    wait_for("the name to be gone", Duration::from_secs(40), || {
        (daemon.ask("www.test.", rtype::A).rcode == rcode::NXDOMAIN).then_some(())
    });
}

#[test]
fn section_4_a_ttl_with_its_top_bit_set_is_large_and_not_0() {
    let _busy = busy();
    let upstream = Upstream::new(Zone::new(".").a("odd.test.", 0x8000_0001, "192.0.2.1"));
    let daemon = Daemon::over(&[upstream.address()]);
    for _ in 0..2 {
        assert!(daemon.ask("odd.test.", rtype::A).answers[0].ttl > 3600);
    }
    assert_eq!(upstream.count("odd.test.", rtype::A), 1);
}

#[test]
fn section_5_data_of_ttl_0_is_never_stale() {
    let _busy = busy();
    let (upstream, daemon) = short(0, "deadline = \"500ms\"\n");
    assert_eq!(daemon.ask("www.test.", rtype::A).answers.len(), 1);
    upstream.behave(Behaviour::Silent);
    assert_eq!(daemon.ask("www.test.", rtype::A).rcode, rcode::SERVFAIL);
}
