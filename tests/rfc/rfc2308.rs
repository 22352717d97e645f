//! RFC 2308: negative answers.

use std::thread;
use std::time::Duration;

use super::{over, zone};
use crate::support::busy;
use crate::support::message::{rcode, rtype};

#[test]
fn section_5_nxdomain_is_kept_for_every_type_that_was_asked_and_has_its_soa() {
    let _busy = busy();
    let (upstream, daemon) = over(zone().negative_ttl(20));
    for _ in 0..3 {
        let reply = daemon.ask("no.example.", rtype::A);
        assert_eq!((reply.rcode, reply.authorities[0].rtype), (rcode::NXDOMAIN, rtype::SOA));
        assert!(reply.authorities[0].ttl <= 20);
    }
    assert_eq!(upstream.count("no.example.", rtype::A), 1);
}

#[test]
fn section_5_nodata_is_kept_for_the_type_alone() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    for _ in 0..3 {
        let reply = daemon.ask("www.test.", rtype::AAAA);
        assert_eq!((reply.rcode, reply.answers.len()), (rcode::NOERROR, 0));
    }
    assert_eq!(daemon.ask("www.test.", rtype::A).answers.len(), 1);
    assert_eq!(upstream.count("www.test.", rtype::AAAA), 1);
}

#[test]
fn section_5_a_negative_answer_ends_with_the_minimum_of_its_soa() {
    let _busy = busy();
    let (upstream, daemon) = over(zone().negative_ttl(1));
    daemon.ask("no.example.", rtype::A);
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(daemon.ask("no.example.", rtype::A).rcode, rcode::NXDOMAIN);
    assert_eq!(upstream.count("no.example.", rtype::A), 2);
}

#[test]
fn section_5_a_large_minimum_is_cut_to_the_configured_30_seconds() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone().negative_ttl(10_000));
    for _ in 0..2 {
        assert!(daemon.ask("no.example.", rtype::A).authorities[0].ttl <= 30);
    }
}
