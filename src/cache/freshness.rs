//! Arithmetic of fresh, stale and failed.

use std::time::Duration;

/// Bounds of the time to live, in seconds. Whole messages are the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlSettings {
    /// A lower TTL is raised to this; 0 raises none.
    pub min: u32,
    /// A higher TTL is lowered to this.
    pub max: u32,
    /// The same for negative answers.
    pub negative_max: u32,
}

/// When and how stale answers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleSettings {
    /// How long past its TTL an answer may serve; zero is never.
    pub max_age: Duration,
    /// TTL of a stale answer, in seconds.
    pub reply_ttl: u32,
    /// How long a client waits for a fresh answer.
    pub patience: Patience,
}

/// How long a client with a stale answer at hand waits for a fresh one while the group is believed healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Twice the group's own p95 for names not in cache, within [`crate::limits::PATIENCE_AUTO`].
    Auto,
    /// This long.
    Fixed(Duration),
}
