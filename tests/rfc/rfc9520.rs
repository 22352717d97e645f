//! RFC 9520: failures are remembered.

use std::thread;
use std::time::Duration;

use super::{RIGHT, zone};
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::{rcode, rtype};
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::{busy, wait_for};

fn failing() -> (Upstream, Daemon) {
    let upstream = Upstream::behaving(zone(), Behaviour::Fail(rcode::SERVFAIL, None));
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], ""));
    (upstream, daemon)
}

#[test]
fn section_3_2_a_failure_is_not_asked_again_within_a_second() {
    let _busy = busy();
    let (upstream, daemon) = failing();
    assert_eq!(daemon.ask("www.test.", rtype::A).rcode, rcode::SERVFAIL);
    let asked = upstream.count("www.test.", rtype::A);
    for _ in 0..20 {
        let reply = daemon.ask("www.test.", rtype::A);
        assert_eq!(reply.rcode, rcode::SERVFAIL);
        assert!(reply.edes().contains(&13), "cached error: {:?}", reply.edes());
    }
    assert_eq!(upstream.count("www.test.", rtype::A), asked);
}

#[test]
fn section_3_1_one_question_is_asked_a_bounded_number_of_times() {
    let _busy = busy();
    let (upstream, daemon) = failing();
    daemon.ask("www.test.", rtype::A);
    let asked = upstream.count("www.test.", rtype::A);
    assert!((1..=3).contains(&asked), "{asked} times");
}

#[test]
fn section_3_2_a_failure_is_of_its_type_alone() {
    let _busy = busy();
    let (upstream, daemon) = failing();
    daemon.ask("www.test.", rtype::AAAA);
    upstream.behave(Behaviour::Answer);
    assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), RIGHT);
}

#[test]
fn section_3_2_a_failure_is_forgotten_soon_after_it_ends() {
    let _busy = busy();
    let (upstream, daemon) = failing();
    daemon.ask("www.test.", rtype::A);
    thread::sleep(Duration::from_millis(100));
    upstream.behave(Behaviour::Answer);
    wait_for("the answer", Duration::from_secs(5), || {
        (daemon.ask("www.test.", rtype::A).addresses() == RIGHT).then_some(())
    });
}
