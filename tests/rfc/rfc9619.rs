//! RFC 9619: one question.

use super::{over, raw, zone};
use crate::support::busy;
use crate::support::message::{Question, rcode, rtype};

#[test]
fn section_4_a_query_with_another_number_of_questions_than_one_gets_formerr() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    let one = Question::new("www.test.", rtype::A).without_edns().to_bytes();
    let mut none = one[..12].to_vec();
    none[5] = 0;
    let mut two = [&one[..], &one[12..]].concat();
    two[5] = 2;
    let mut very_many = one.clone();
    very_many[4..6].fill(0xff);
    for (what, packet) in [("none", none), ("two", two), ("65,535", very_many)] {
        let reply = raw(&daemon, &packet).unwrap();
        assert_eq!((reply.len(), u16::from(reply[3] & 15)), (12, rcode::FORMERR), "{what}");
    }
    assert_eq!(upstream.live_count(), 0);
}
