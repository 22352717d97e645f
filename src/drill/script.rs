//! A scenario: who asks what, what goes wrong when, and what must hold all the same.
//!
//! Pure. [`super::reading`] makes one of a file; `conf/drills/README.md` describes the format for those who write one.
//! Times are spans since the drill's beginning, at which the node starts with nothing known.

use std::time::Duration;

use super::names::Sort;
use crate::config::Place;
use crate::limits::Bound;

/// A checked scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// How it is called on the command line.
    pub name: String,
    /// What it rehearses, in one line.
    pub title: String,
    /// How long it takes, in virtual time.
    pub length: Duration,
    /// Where its random numbers begin.
    pub seed: u64,
    /// Round trip to a primary; a lower tier is half as much farther away than the one before it.
    pub latency: Duration,
    /// Who asks.
    pub loads: Vec<Load>,
    /// What goes wrong.
    pub acts: Vec<Act>,
    /// What must hold.
    pub objectives: Vec<Objective>,
}

/// Clients that ask at a rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// How objectives call it.
    pub name: String,
    /// What it asks for.
    pub sort: Sort,
    /// Different names of a load of known or absent ones; few are asked often (Zipf).
    pub names: u64,
    /// The zones that its names are in.
    pub zones: Vec<String>,
    /// Questions a second, of all its clients together.
    pub per_second: f64,
    /// Clients.
    pub clients: u64,
    /// When they begin.
    pub from: Duration,
    /// When they end.
    pub until: Duration,
}

impl Load {
    /// Does it count where an objective names no load? What nobody can answer does not.
    pub fn counts(&self) -> bool {
        self.sort != Sort::Dead
    }
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// When it begins.
    pub at: Duration,
    /// When it ends.
    pub until: Duration,
    /// Which servers it strikes: those that any of these means.
    pub who: Vec<Who>,
    /// Only names of this zone.
    pub zone: Option<String>,
    /// What goes wrong.
    pub ill: Ill,
    /// Share of the questions that it strikes.
    pub share: f64,
    /// Spans of trouble and of quiet, in turn.
    pub turns: Option<(Duration, Duration)>,
    /// Where `who` stands in the file.
    pub place: Place,
}

impl Act {
    /// Is it on?
    pub fn is_on(&self, now: Duration) -> bool {
        if now < self.at || now >= self.until {
            return false;
        }
        self.turns.is_none_or(|(bad, good)| {
            let nanos = (now - self.at).as_nanos() % (bad + good).as_nanos().max(1);
            nanos < bad.as_nanos()
        })
    }

    /// What happens, in a few words.
    pub fn words(&self) -> String {
        let who: Vec<&str> = self.who.iter().map(Who::word).collect();
        let mut out = format!("{}: {}", who.join(", "), self.ill.words());
        if self.share < 1.0 {
            out += &format!(", {} % of questions", round(self.share * 100.0));
        }
        if let Some(zone) = &self.zone {
            out += &format!(", zone {zone}");
        }
        if let Some((bad, good)) = self.turns {
            let show = crate::config::human::show_span;
            out += &format!(", {} of every {}", show(bad), show(bad + good));
        }
        out
    }
}

/// A number with at most two decimals.
pub(super) fn round(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Servers that an act strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// All.
    All,
    /// Those of a tier, from 0.
    Tier(usize),
    /// Those with an IPv4 address.
    V4,
    /// Those with an IPv6 address.
    V6,
    /// The one that the configuration calls so.
    Server(String),
}

/// Words for servers, as files say them.
pub const WHO: [(&str, Who); 6] = [
    ("all", Who::All),
    ("primary", Who::Tier(0)),
    ("secondary", Who::Tier(1)),
    ("tertiary", Who::Tier(2)),
    ("v4", Who::V4),
    ("v6", Who::V6),
];

impl Who {
    fn word(&self) -> &str {
        match self {
            Who::Server(name) => name,
            word => WHO.iter().find(|(_, who)| who == word).map_or("", |(text, _)| text),
        }
    }
}

/// What goes wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// Nothing comes back.
    Silent,
    /// Packets are lost, each way with the act's share.
    Lossy,
    /// It answers probes for the root, and to the act's share of all else nothing.
    Gray,
    /// Replies come later by this, to one and a half times this.
    Slow(Duration),
    /// SERVFAIL.
    ServFail,
    /// REFUSED.
    Refused,
    /// The port is closed: an ICMP error comes back.
    PortClosed,
    /// There is no route.
    Unreachable,
    /// Every name is denied: another view.
    OtherView,
    /// Names lost their records: NODATA.
    Emptied,
    /// Names are gone: NXDOMAIN.
    Vanished,
    /// Every reply over UDP is truncated.
    Truncated,
    /// Replies whose body cannot be read.
    Noise,
    /// Of more packets a second than this the rest is dropped.
    Limited(u32),
}

/// Words for what goes wrong, as files say them; a span or a number stands beside it where one is needed.
pub const ILLS: [(&str, Ill); 14] = [
    ("silent", Ill::Silent),
    ("lossy", Ill::Lossy),
    ("gray", Ill::Gray),
    ("slow", Ill::Slow(Duration::ZERO)),
    ("servfail", Ill::ServFail),
    ("refused", Ill::Refused),
    ("port-closed", Ill::PortClosed),
    ("unreachable", Ill::Unreachable),
    ("other-view", Ill::OtherView),
    ("emptied", Ill::Emptied),
    ("vanished", Ill::Vanished),
    ("truncated", Ill::Truncated),
    ("noise", Ill::Noise),
    ("limited", Ill::Limited(0)),
];

impl Ill {
    fn words(self) -> String {
        match self {
            Ill::Slow(by) => format!("slow by {}", crate::config::human::show_span(by)),
            Ill::Limited(most) => format!("limited to {most} packets a second"),
            ill => ILLS.iter().find(|(_, i)| *i == ill).map_or("", |(word, _)| word).to_owned(),
        }
    }
}

/// Something that must hold over a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// What.
    pub want: Want,
    /// Questions from this time on.
    pub from: Duration,
    /// Until this.
    pub until: Duration,
    /// Of this load alone, by its place.
    pub of: Option<usize>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    /// At least this share gets what is true of the name, fresh or stale.
    Answered(f64),
    /// At least this share gets it fresh.
    Fresh(f64),
    /// At most this share gets it stale.
    StaleMax(f64),
    /// Half of all replies within this.
    P50(Duration),
    /// 99 of 100 replies within this.
    P99(Duration),
    /// Every question has its reply, whatever it says, within this; `None` is the group's `deadline`.
    Slowest(Option<Duration>),
    /// No known name is denied or answered with what is not its address.
    KeepAddresses,
    /// So many changes of the tier in use, of all groups.
    TierShiftsMax(u64),
    /// Another tier is in use so long after the beginning of the span.
    LeftWithin(Duration),
    /// The first tier is in use so long after the beginning of the span, and stays.
    BackWithin(Duration),
    /// The last question without an answer came so long after the beginning of the span.
    RecoveredWithin(Duration),
    /// At most so many questions upstream for one of a client.
    UpstreamRatioMax(f64),
    /// At most so many questions upstream in any second.
    UpstreamPeakMax(u64),
}

impl Want {
    /// Is it about the group as a whole, not about the questions of a load?
    pub fn is_of_all(self) -> bool {
        matches!(
            self,
            Want::TierShiftsMax(_)
                | Want::LeftWithin(_)
                | Want::BackWithin(_)
                | Want::UpstreamRatioMax(_)
                | Want::UpstreamPeakMax(_)
        )
    }
}

//------------ Bounds ------------------------------------------------------------------------------------------------

const fn span(default_secs: u64, min_millis: u64, max_secs: u64) -> Bound<Duration> {
    Bound {
        default: Duration::from_secs(default_secs),
        min: Duration::from_millis(min_millis),
        max: Duration::from_secs(max_secs),
    }
}

const fn count(default: u64, min: u64, max: u64) -> Bound<u64> {
    Bound { default, min, max }
}

/// Length of a drill.
pub const LENGTH: Bound<Duration> = span(600, 10_000, 86_400);
/// A time within a drill.
pub const TIME: Bound<Duration> = span(0, 0, 86_400);
/// A span of trouble or quiet, a delay, a limit of an objective.
pub const SPAN: Bound<Duration> = span(0, 1, 86_400);
/// Round trip to a primary.
pub const LATENCY: Bound<Duration> =
    Bound { default: Duration::from_millis(6), min: Duration::from_millis(1), max: Duration::from_secs(2) };
/// Questions a second of a load.
pub const PER_SECOND: Bound<f64> = Bound { default: 10.0, min: 0.01, max: 10_000.0 };
/// Clients of a load.
pub const CLIENTS: Bound<u64> = count(3, 1, 10_000);
/// Different names of a load.
pub const NAMES: Bound<u64> = count(200, 1, 100_000);
/// Zones of a load.
pub const ZONES: Bound<u64> = count(8, 1, 10_000);
/// A share.
pub const SHARE: Bound<f64> = Bound { default: 1.0, min: 0.0, max: 1.0 };
/// Questions upstream for one of a client.
pub const RATIO: Bound<f64> = Bound { default: 1.0, min: 0.0, max: 1000.0 };
/// Whatever is counted.
pub const COUNT: Bound<u64> = count(0, 0, 10_000_000);
/// Loads, acts and objectives, of each.
pub const LISTED_MAX: usize = 64;
/// Questions of all loads over the whole drill.
pub const QUESTIONS_MAX: u64 = 2_000_000;
/// Questions among them for names that are asked once: each takes its place in memory.
pub const NEW_NAMES_MAX: u64 = 300_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_in_turns_is_on_and_off() {
        let secs = Duration::from_secs;
        let act = Act {
            at: secs(10),
            until: secs(70),
            who: vec![Who::Tier(0), Who::V6],
            zone: None,
            ill: Ill::Silent,
            share: 0.5,
            turns: Some((secs(8), secs(12))),
            place: Place::Whole,
        };
        for (at, on) in [(9, false), (10, true), (17, true), (18, false), (29, false), (30, true), (70, false)] {
            assert_eq!(act.is_on(secs(at)), on, "{at}");
        }
        assert_eq!(act.words(), "primary, v6: silent, 50 % of questions, 8s of every 20s");
    }
}
