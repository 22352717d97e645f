//! RFC 8482: ANY.

use super::{over, zone};
use crate::support::busy;
use crate::support::message::{rcode, rtype};

#[test]
fn section_4_2_any_gets_one_hinfo_and_is_not_forwarded() {
    let _busy = busy();
    let (upstream, daemon) = over(zone());
    let reply = daemon.ask("www.test.", rtype::ANY);
    assert_eq!((reply.rcode, reply.answers.len(), reply.answers[0].rtype), (rcode::NOERROR, 1, rtype::HINFO));
    assert!(reply.answers[0].data.starts_with(b"\x07RFC8482"), "{:?}", reply.answers[0]);
    assert_eq!(upstream.live_count(), 0);
}
