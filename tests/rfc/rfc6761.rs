//! RFC 6761, with 7686 and 9476: names that are not asked of anybody.

use super::{RIGHT, over, zone};
use crate::support::busy;
use crate::support::message::{rcode, rtype};

#[test]
fn section_6_3_localhost_and_names_below_are_this_machine() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    for name in ["localhost.", "LOCALHOST.", "a.b.localhost."] {
        assert_eq!(daemon.ask(name, rtype::A).addresses(), [[127, 0, 0, 1]], "{name}");
        let v6 = daemon.ask(name, rtype::AAAA);
        assert_eq!(v6.answers[0].data, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "{name}");
        let other = daemon.ask(name, rtype::MX);
        assert_eq!((other.rcode, other.answers.len()), (rcode::NOERROR, 0), "{name}");
    }
    assert_eq!(daemon.ask("1.0.0.127.in-addr.arpa.", rtype::PTR).rcode, rcode::NOERROR);
    assert_eq!(upstream.live_count(), 0);
}

#[test]
fn section_6_4_invalid_onion_and_alt_do_not_exist() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    for name in ["invalid.", "www.invalid.", "www.onion.", "www.alt."] {
        let reply = daemon.ask(name, rtype::A);
        assert_eq!((reply.rcode, reply.answers.len()), (rcode::NXDOMAIN, 0), "{name}");
    }
    assert_eq!(upstream.live_count(), 0);
}

#[test]
fn section_6_2_test_and_private_reverse_zones_are_forwarded() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), RIGHT);
    daemon.ask("1.0.0.10.in-addr.arpa.", rtype::PTR);
    assert_eq!(upstream.count("1.0.0.10.in-addr.arpa.", rtype::PTR), 1);
}

#[test]
fn rfc_9462_section_6_4_resolver_arpa_is_empty_and_not_forwarded() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    let reply = daemon.ask("_dns.resolver.arpa.", 64);
    assert_eq!((reply.rcode, reply.answers.len()), (rcode::NOERROR, 0));
    assert_eq!(upstream.live_count(), 0);
}
