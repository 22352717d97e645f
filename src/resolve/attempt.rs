//! One question to one server within a pursuit.
//!
//! Pure. An attempt may be sent more than once (over TCP after TC, without OPT after FORMERR): it is one attempt and
//! one piece of evidence all the same.

use std::time::Duration;

use super::vet::Fault;
use crate::clock::Moment;
use crate::upstream::ServerId;
use crate::upstream::group::AskKind;

/// An attempt's place in its pursuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptId(pub usize);

/// One question to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Names the attempt in [`on_verdict`](super::Pursuit::on_verdict). The same one comes again where it goes on over
    /// TCP or without OPT.
    pub attempt: AttemptId,
    /// Whom.
    pub server: ServerId,
    /// What for.
    pub kind: AskKind,
    /// Over TCP, whatever the server's own protocol.
    pub over_tcp: bool,
    /// With an OPT record?
    pub with_edns: bool,
    /// Listen until then.
    pub until: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    Out,
    Failed(Fault),
    Answered { took: Duration },
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) server: ServerId,
    pub(super) tier: usize,
    pub(super) kind: AskKind,
    pub(super) sent_at: Moment,
    pub(super) hedge_at: Moment,
    /// The same server may be asked again then: what was lost on the way is not waited for.
    pub(super) again_at: Moment,
    /// It is worth waiting for until then, where another answer is at hand.
    pub(super) try_until: Moment,
    pub(super) over_tcp: bool,
    pub(super) with_edns: bool,
    /// Was it refused with OPT, and asked again without?
    pub(super) opt_refused: bool,
    pub(super) overdue: bool,
    pub(super) judged: bool,
    pub(super) stage: Stage,
}

impl Attempt {
    pub(super) fn is_copy(&self) -> bool {
        self.kind == AskKind::Probe
    }

    pub(super) fn is_out(&self) -> bool {
        self.stage == Stage::Out
    }
}
