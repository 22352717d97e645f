//! The only place that reads the operating system's clocks.
//!
//! Everything else takes `now: Moment` as its last argument, so that a test or a simulation can hand in any time.
//!
//! A [`Moment`] counts nanoseconds of CLOCK_BOOTTIME: it never goes back and it goes on while the machine is
//! suspended, so a TTL runs out during a suspend as RFC 1035 §3.2.1 means it to. It begins [`BEFORE_BOOT`] before the
//! machine did, so that what was stored before a reboot has its moment too. Wall-clock time ([`WallTime`]) is
//! for people and files, never for a judgement.

use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long before the machine's start [`Moment::ZERO`] was: longer than anything is kept (the greatest TTL and the
/// greatest `max_age` together are 37 days).
pub const BEFORE_BOOT: Duration = Duration::from_secs(64 * 86_400);

/// A point in time: nanoseconds since [`BEFORE_BOOT`] before the machine was started, suspends included.
///
/// Arithmetic saturates at both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Before everything.
    pub const ZERO: Moment = Moment(0);
    /// After everything: a deadline that never comes.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// A moment `nanos` nanoseconds after [`Moment::ZERO`].
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A moment `millis` milliseconds after [`Moment::ZERO`].
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// A moment `secs` seconds after [`Moment::ZERO`].
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since [`Moment::ZERO`].
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero where `earlier` is not earlier.
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time from here until `later`; zero where `later` is past.
    pub const fn until(self, later: Moment) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, d: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, d: Duration) -> Moment {
        Moment(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Seconds since 1970 by the wall clock: for logs, files and status, never for a judgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub i64);

/// Reads CLOCK_BOOTTIME.
pub fn now() -> Moment {
    let t = clock_gettime(ClockId::Boottime);
    // Both fields are non-negative by the kernel's contract for this clock.
    Moment((t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64)) + BEFORE_BOOT
}

/// Microseconds of CLOCK_MONOTONIC, as systemd wants them of a reload (sd_notify(3), `MONOTONIC_USEC`).
pub fn monotonic_micros() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

/// Reads CLOCK_REALTIME.
pub fn wall() -> WallTime {
    WallTime(clock_gettime(ClockId::Realtime).tv_sec)
}

/// Reads CLOCK_REALTIME in milliseconds since 1970; a clock before that counts as that.
pub fn wall_millis() -> u64 {
    let t = clock_gettime(ClockId::Realtime);
    u64::try_from(t.tv_sec).unwrap_or(0).saturating_mul(1000).saturating_add(t.tv_nsec as u64 / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Moment::NEVER + Duration::from_secs(1), Moment::NEVER);
        assert_eq!(Moment::ZERO - Duration::from_secs(1), Moment::ZERO);
        assert_eq!(Moment::ZERO.since(Moment::from_secs(1)), Duration::ZERO);
        assert_eq!(Moment::from_secs(3).since(Moment::from_millis(1)), Duration::from_millis(2999));
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let a = now();
        assert!(now() >= a && a - BEFORE_BOOT > Moment::ZERO);
    }
}
