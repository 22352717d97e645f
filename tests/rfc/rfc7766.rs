//! RFC 7766: TCP.

use std::thread;
use std::time::{Duration, Instant};

use super::{RIGHT, over, zone};
use crate::support::busy;
use crate::support::client::{Stream, ask_tcp};
use crate::support::message::{Message, Question, rtype};
use crate::support::scripted::Behaviour;

#[test]
fn section_5_what_is_answered_over_udp_is_answered_over_tcp() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    assert_eq!(ask_tcp(daemon.address(), &Question::new("www.test.", rtype::A)).addresses(), RIGHT);
}

#[test]
fn section_6_2_1_one_connection_serves_many_questions() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    let mut stream = Stream::connect(daemon.address());
    for id in 0..10 {
        stream.send(&Question { id, ..Question::new("www.test.", rtype::A) }.to_bytes());
        let reply = Message::read(&stream.receive().unwrap());
        assert_eq!((reply.id, reply.addresses()), (id, RIGHT.to_vec()));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn section_7_a_reply_that_is_ready_does_not_wait_for_one_that_is_not() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    daemon.ask("quick.test.", rtype::A);
    upstream.behave(Behaviour::Slow(Duration::from_millis(400)));
    let mut stream = Stream::connect(daemon.address());
    let start = Instant::now();
    stream.send(&Question { id: 1, ..Question::new("slow.test.", rtype::A) }.to_bytes());
    stream.send(&Question { id: 2, ..Question::new("quick.test.", rtype::A) }.to_bytes());
    assert_eq!(Message::read(&stream.receive().unwrap()).id, 2);
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
    let late = Message::read(&stream.receive().unwrap());
    assert_eq!((late.id, late.addresses()), (1, RIGHT.to_vec()));
}

#[test]
fn section_6_2_3_an_idle_connection_ends_and_is_not_ended_at_once() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    let mut stream = Stream::connect(daemon.address());
    thread::sleep(Duration::from_secs(2));
    stream.send(&Question::new("www.test.", rtype::A).to_bytes());
    assert_eq!(Message::read(&stream.receive().unwrap()).addresses(), RIGHT);
}

#[test]
fn section_8_a_message_of_length_0_or_without_a_header_harms_nobody_else() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone());
    for bytes in [&[0, 0][..], &[0, 5, 1, 2, 3, 4, 5], &[0xff, 0xff, 1], &[0]] {
        Stream::connect(daemon.address()).send_raw(bytes);
        assert_eq!(ask_tcp(daemon.address(), &Question::new("www.test.", rtype::A)).addresses(), RIGHT);
    }
}

#[test]
fn section_8_a_reply_may_have_64_kib() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone().txt("huge.example.", 60, 65_000));
    let reply = ask_tcp(daemon.address(), &Question::new("huge.example.", rtype::TXT));
    assert!(reply.len() > 65_000, "{} bytes", reply.len());
}
