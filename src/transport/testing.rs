//! What the tests of this room share: a question, a reply to one, a deadline.

use std::time::Duration;

use tokio::time::Instant;

use super::Asked;
use crate::wire::build::question;

/// A question for www.example and `qtype`.
pub(super) fn asked(qtype: u16) -> Asked {
    let name = *b"\x03www\x07example\x00";
    Asked { packet: question(&name, qtype, false, false, true), name: name.into(), qtype }
}

/// The reply to `query` without its OPT; `rest` stands behind the question, uncounted.
pub(super) fn reply_to(query: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut reply = query[..query.len() - 11].to_vec();
    reply[2] |= 0x80;
    reply[11] = 0;
    reply.extend(rest);
    reply
}

/// A deadline that no test should meet.
pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// What comes of `future`, and the time that it took.
pub(super) async fn elapsed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    (future.await, start.elapsed())
}
