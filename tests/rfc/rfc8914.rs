//! RFC 8914: extended errors. Those of stale answers are in [`super::rfc8767`].

use super::{over, zone};
use crate::support::busy;
use crate::support::client::ask;
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::{Question, rcode, rtype};
use crate::support::scripted::{Behaviour, Upstream};

#[test]
fn section_4_a_fresh_answer_has_none() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    for name in ["www.test.", "www.test.", "no.example.", "localhost."] {
        assert_eq!(daemon.ask(name, rtype::A).edes(), [0; 0], "{name}");
    }
}

#[test]
fn section_4_failures_say_what_kind_they_are() {
    let _busy = busy();
    for (behaviour, codes) in [
        (Behaviour::Silent, &[22, 23][..]),
        (Behaviour::CutBody, &[24, 22]),
        (Behaviour::Fail(rcode::SERVFAIL, None), &[22, 23, 24]),
        (Behaviour::Fail(rcode::SERVFAIL, Some(9)), &[9]),
    ] {
        let upstream = Upstream::behaving(zone(), behaviour.clone());
        let daemon = Daemon::start(&tiers(&[&[upstream.address()]], "deadline = \"1s\"\n"));
        let reply = daemon.ask("www.test.", rtype::A);
        assert_eq!(reply.rcode, rcode::SERVFAIL, "{behaviour:?}");
        assert!(reply.edes().iter().any(|e| codes.contains(e)), "{behaviour:?}: {:?}", reply.edes());
    }
}

#[test]
fn section_4_a_closed_port_is_a_network_error() {
    let _busy = busy();
    let mut upstream = Upstream::new(zone());
    upstream.close();
    let daemon = Daemon::over(&[upstream.address()]);
    let reply = daemon.ask("www.test.", rtype::A);
    assert_eq!(reply.rcode, rcode::SERVFAIL);
    assert!(reply.edes().iter().any(|e| [22, 23].contains(e)), "{:?}", reply.edes());
}

#[test]
fn section_3_a_client_without_edns_gets_none() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    let reply = ask(daemon.address(), &Question::new("unknown.test.", rtype::A).without_edns().flags(0));
    assert_eq!((reply.rcode, reply.edns), (rcode::REFUSED, None));
}

#[test]
fn section_6_texts_name_no_upstream_address() {
    let _busy = busy();
    let upstream = Upstream::behaving(zone(), Behaviour::Fail(rcode::REFUSED, None));
    let daemon = Daemon::over(&[upstream.address()]);
    let reply = daemon.ask("www.test.", rtype::A);
    let options = reply.edns.unwrap().options;
    assert!(!options.is_empty());
    let address = upstream.address().ip().to_string();
    assert!(options.iter().all(|(_, data)| !String::from_utf8_lossy(data).contains(&address)), "{options:?}");
}
