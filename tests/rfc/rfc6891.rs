//! RFC 6891: EDNS.

use super::{RIGHT, over, raw, zone};
use crate::support::busy;
use crate::support::client::ask;
use crate::support::message::{Edns, Message, Question, rcode, rtype};

#[test]
fn section_6_1_1_opt_is_in_the_reply_only_where_it_was_in_the_question() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    for _from_server_then_cache in 0..2 {
        let with = daemon.ask("www.test.", rtype::A).edns.expect("no OPT");
        assert_eq!((with.payload, with.version, with.options.len()), (1232, 0, 0));
        let without = ask(daemon.address(), &Question::new("www.test.", rtype::A).without_edns());
        assert_eq!((without.edns, without.answers.len()), (None, 1));
    }
}

#[test]
fn section_6_1_1_two_opts_or_one_below_the_root_are_formerr() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    let question = Question::new("www.test.", rtype::A);
    let mut two = [question.to_bytes(), Edns::default().to_bytes()].concat();
    two[11] = 2;
    let mut below = question.clone().without_edns().to_bytes();
    below.extend([&b"\x01x"[..], &Edns::default().to_bytes()].concat());
    below[11] = 1;
    let overrun = question.clone().edns(|e| e.options.push((10, vec![0; 8]))).to_bytes();
    let mut overrun_at_end = overrun.clone();
    let length_at = overrun.len() - 9;
    overrun_at_end[length_at] = 9;
    for (what, packet) in [("two", two), ("below the root", below), ("an option that overruns", overrun_at_end)] {
        let reply = raw(&daemon, &packet).unwrap();
        assert_eq!(u16::from(reply[3] & 15), rcode::FORMERR, "{what}");
    }
}

#[test]
fn section_6_1_3_a_version_above_0_gets_badvers() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    for version in [1, 255] {
        let reply = ask(daemon.address(), &Question::new("www.test.", rtype::A).edns(|e| e.version = version));
        assert_eq!((reply.rcode, reply.edns.unwrap().version), (rcode::BADVERS, 0));
    }
    assert_eq!(upstream.live_count(), 0);
}

#[test]
fn section_6_2_5_a_payload_below_512_counts_as_512() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone().txt("text.example.", 60, 400));
    let reply = ask(daemon.address(), &Question::new("text.example.", rtype::TXT).edns(|e| e.payload = 100));
    assert!(reply.len() > 400, "{} bytes", reply.len());
}

#[test]
fn section_6_1_2_unknown_options_are_ignored_and_not_echoed() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    // A cookie, a client subnet, one that nobody knows.
    let options = [(10, vec![7; 8]), (8, vec![0, 1, 24, 0, 192, 0, 2]), (65_001, vec![1, 2, 3])];
    let reply = ask(daemon.address(), &Question::new("www.test.", rtype::A).edns(|e| e.options.extend(options)));
    assert_eq!((reply.addresses(), reply.edns.unwrap().options.len()), (RIGHT.to_vec(), 0));
    let seen = upstream.seen();
    assert!(seen.iter().all(|s| s.question.edns.as_ref().is_none_or(|e| e.options.is_empty())));
    assert!(seen.iter().all(|s| s.question.edns.as_ref().is_none_or(|e| e.payload == 1232)));
}

#[test]
fn section_7_a_question_without_opt_is_answered_without_and_forwarded_with() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    let packet = Question::new("www.test.", rtype::A).without_edns().to_bytes();
    assert_eq!(Message::read(&raw(&daemon, &packet).unwrap()).edns, None);
    assert!(upstream.seen().iter().any(|s| s.question.qtype == rtype::A && s.question.edns.is_some()));
}
