//! What the hit path must know of a group, without its lock.
//!
//! Pure. [`Belief`] is the word for it. Written by whoever held the group's lock, right after; read by workers that
//! have a stale answer at hand.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Group;

/// What is believed of a group as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// No server has answered anything since the start.
    Untried,
    /// It answers.
    Healthy,
    /// Nobody is fit, none has spoken since, and somebody is only silent yet.
    Silent,
    /// The same, and every server is down or left out.
    Down,
}

impl Belief {
    /// The word in logs, metrics and explanations.
    pub fn word(self) -> &'static str {
        match self {
            Belief::Untried => "untried",
            Belief::Healthy => "healthy",
            Belief::Silent => "silent",
            Belief::Down => "down",
        }
    }
}

/// A group's belief, patience and healings as of its last event.
#[derive(Debug, Default)]
pub struct Outlook {
    belief: AtomicU8,
    patience_nanos: AtomicU64,
    healings: AtomicU32,
}

impl Outlook {
    /// Takes over what the group holds.
    pub fn publish(&self, group: &Group) {
        self.belief.store(group.belief() as u8, Ordering::Relaxed);
        self.patience_nanos.store(group.patience().as_nanos() as u64, Ordering::Relaxed);
        self.healings.store(group.healings(), Ordering::Relaxed);
    }

    /// What is believed of the group.
    pub fn belief(&self) -> Belief {
        const ALL: [Belief; 4] = [Belief::Untried, Belief::Healthy, Belief::Silent, Belief::Down];
        ALL[usize::from(self.belief.load(Ordering::Relaxed)).min(3)]
    }

    /// The group's patience.
    pub fn patience(&self) -> Duration {
        Duration::from_nanos(self.patience_nanos.load(Ordering::Relaxed))
    }

    /// How often it came back from the dark.
    pub fn healings(&self) -> u32 {
        self.healings.load(Ordering::Relaxed)
    }
}
