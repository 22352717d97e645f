//! RFC 1034 and 1035: the protocol.

use std::thread;
use std::time::Duration;

use super::{RIGHT, over, raw, zone};
use crate::support::busy;
use crate::support::client::{Stream, ask, ask_tcp};
use crate::support::message::{Message, Question, flag, rcode, rtype};

#[test]
fn section_4_1_1_a_response_and_a_packet_without_a_header_get_silence() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    let question = Question::new("www.test.", rtype::A);
    assert_eq!(raw(&daemon, &question.clone().flags(flag::QR | flag::RD).to_bytes()), None);
    assert_eq!(raw(&daemon, &question.to_bytes()[..11]), None);
    assert!(raw(&daemon, &question.to_bytes()).is_some());
}

#[test]
fn section_4_1_1_another_opcode_gets_notimp_in_a_header() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    for opcode in [1, 2, 4, 5, 6, 15] {
        let question = Question::new("www.test.", rtype::A).flags(opcode << 11);
        let reply = raw(&daemon, &question.to_bytes()).unwrap();
        assert_eq!((reply.len(), u16::from(reply[3] & 15)), (12, rcode::NOTIMP), "opcode {opcode}");
        assert_eq!(reply[..2], question.id.to_be_bytes(), "opcode {opcode}");
    }
    assert_eq!(upstream.live_count(), 0);
}

#[test]
fn section_4_1_1_ra_is_set_aa_is_clear_and_rd_is_as_asked() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    for _from_server_then_cache in 0..2 {
        let reply = daemon.ask("www.test.", rtype::A);
        assert!(reply.has(flag::QR) && reply.has(flag::RA) && reply.has(flag::RD));
        assert!(!reply.has(flag::AA) && !reply.has(flag::TC));
    }
    let reply = ask(daemon.address(), &Question::new("www.test.", rtype::A).flags(0));
    assert_eq!((reply.has(flag::RD), reply.addresses()), (false, RIGHT.to_vec()));
}

#[test]
fn section_4_1_1_without_rd_nothing_is_forwarded() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    let reply = ask(daemon.address(), &Question::new("unknown.test.", rtype::A).flags(0));
    assert_eq!((reply.rcode, reply.edes()), (rcode::REFUSED, vec![20]));
    assert_eq!(upstream.live_count(), 0);
}

#[test]
fn section_4_1_2_a_cut_or_compressed_question_gets_formerr() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    let whole = Question::new("www.test.", rtype::A).without_edns().to_bytes();
    let compressed = [&whole[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let noisy = [&whole[..], &[0]].concat();
    for (what, packet) in [("cut", &whole[..20]), ("compressed", &compressed), ("with noise behind", &noisy)] {
        let reply = raw(&daemon, packet).unwrap();
        assert_eq!(u16::from(reply[3] & 15), rcode::FORMERR, "{what}");
    }
}

#[test]
fn section_2_3_3_the_question_comes_back_as_it_was_spelled() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    for spelling in ["wWw.TeSt.", "WWW.test.", "www.test."] {
        // The asking function compares the question byte for byte.
        assert_eq!(daemon.ask(spelling, rtype::A).answers[0].name(), spelling);
    }
    assert_eq!(upstream.count("www.test.", rtype::A), 1);
}

#[test]
fn section_3_2_1_a_ttl_runs_down_while_it_is_in_the_cache() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    assert_eq!(daemon.ask("www.test.", rtype::A).answers[0].ttl, 60);
    thread::sleep(Duration::from_millis(2100));
    let ttl = daemon.ask("www.test.", rtype::A).answers[0].ttl;
    assert!((56..=58).contains(&ttl), "{ttl}");
}

#[test]
fn section_3_2_1_a_ttl_of_0_is_passed_on_and_not_kept() {
    let _busy = busy();
    let (upstream, daemon) = over(zone().a("zero.example.", 0, "192.0.2.5"));
    for _ in 0..3 {
        let reply = daemon.ask("zero.example.", rtype::A);
        assert_eq!((reply.addresses(), reply.answers[0].ttl), (vec![[192, 0, 2, 5]], 0));
    }
    assert_eq!(upstream.count("zero.example.", rtype::A), 3);
}

#[test]
fn section_4_2_1_a_client_without_edns_gets_at_most_512_bytes() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone().txt("text.example.", 60, 800));
    let question = Question::new("text.example.", rtype::TXT);
    let plain = ask(daemon.address(), &question.clone().without_edns());
    assert!(plain.has(flag::TC) && plain.len() <= 512 && plain.edns.is_none(), "{} bytes", plain.len());
    let with_edns = ask(daemon.address(), &question);
    assert!(!with_edns.has(flag::TC) && with_edns.len() > 800);
}

#[test]
fn section_4_2_2_two_messages_may_come_in_one_segment_and_one_in_pieces() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    let framed = |id| {
        let packet = Question { id, ..Question::new("www.test.", rtype::A) }.to_bytes();
        [&(packet.len() as u16).to_be_bytes()[..], &packet].concat()
    };
    let mut stream = Stream::connect(daemon.address());
    stream.send_raw(&[framed(1), framed(2)].concat());
    for piece in framed(3).chunks(7) {
        stream.send_raw(piece);
    }
    let mut ids: Vec<u16> = (0..3).map(|_| Message::read(&stream.receive().unwrap()).id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn section_3_2_4_a_class_other_than_in_is_never_forwarded() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    for class in [0, 3, 4, 254, 255] {
        let reply = ask(daemon.address(), &Question::new("version.bind.", rtype::TXT).class(class));
        assert!([rcode::REFUSED, rcode::NOTIMP].contains(&reply.rcode), "class {class}: {}", reply.rcode);
    }
    assert_eq!(upstream.live_count(), 0);
}

#[test]
fn section_3_2_3_transfers_and_opt_as_types_are_turned_away() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    for (qtype, want) in [
        (41, rcode::FORMERR),
        (249, rcode::REFUSED),
        (251, rcode::REFUSED),
        (252, rcode::REFUSED),
        (254, rcode::REFUSED),
    ] {
        let reply = ask_tcp(daemon.address(), &Question::new("www.test.", qtype));
        assert_eq!(reply.rcode, want, "type {qtype}");
    }
    assert_eq!(upstream.live_count(), 0);
}
