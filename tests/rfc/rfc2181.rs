//! RFC 2181: clarifications.

use super::{over, zone};
use crate::support::busy;
use crate::support::client::ask;
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::{Question, flag, rtype};
use crate::support::scripted::Upstream;

#[test]
fn section_8_a_ttl_above_the_configured_one_is_capped() {
    let _busy = busy();
    let upstream = Upstream::new(zone().a("long.example.", 86_400, "192.0.2.5"));
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], "\n[cache]\nmax_ttl = \"1h\"\n"));
    assert!(daemon.ask("long.example.", rtype::A).answers[0].ttl <= 3600);
    assert!(daemon.ask("long.example.", rtype::A).answers[0].ttl <= 3600);
}

#[test]
fn section_9_truncation_is_said_only_where_records_of_the_answer_are_missing() {
    let _busy = busy();
    let addresses =
        |count: u8| (0..count).fold(zone(), |zone, n| zone.a("many.example.", 60, &format!("192.0.2.{n}")));
    for (count, truncated) in [(20, false), (100, true)] {
        let (_upstream, daemon) = over(addresses(count));
        let reply = ask(daemon.address(), &Question::new("many.example.", rtype::A));
        assert_eq!(reply.has(flag::TC), truncated, "{count} addresses");
        assert!(reply.len() <= 1232);
    }
}
