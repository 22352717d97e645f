//! A group of servers in tiers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::cache::freshness::{StaleSettings, TtlSettings};
use crate::wire::Name;

/// Everything that the configuration says of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSettings {
    /// Its name in configuration, logs and metrics.
    pub name: String,
    /// The zones that it answers for; the longest match over all groups wins.
    pub zones: Vec<Name>,
    /// Primary, secondary, tertiary; a tier may be empty.
    pub tiers: [Vec<ServerSettings>; 3],
    /// Are negative answers of a lower tier as good as the primary's?
    pub same_view: bool,
    /// Who is first inside a tier.
    pub order: Order,
    /// Source address of questions.
    pub source: Option<IpAddr>,
    /// A question is answered, one way or the other, within this.
    pub deadline: Duration,
    /// Pursuits at once.
    pub in_flight_max: u32,
    /// Pursuits of one zone at once.
    pub per_zone_in_flight_max: u32,
    /// Judging by probes, and taking back.
    pub health: HealthSettings,
    /// The second question.
    pub hedge: HedgeSettings,
    /// Bounds of TTLs.
    pub ttl: TtlSettings,
    /// Stale answers.
    pub stale: StaleSettings,
}

/// Who is asked first inside a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Two at random, the better by latency and outstanding questions.
    Latency,
    /// As listed.
    Listed,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Its name in logs and metrics: as configured, or the address.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// May its AD bit reach clients?
    pub trust_ad: bool,
    /// Packets a second that it may be sent; 0 is no limit.
    pub packets_per_second: u32,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// UDP, and TCP where a reply is truncated.
    Udp,
    /// TCP alone.
    Tcp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        })
    }
}

/// Slow judgement and the way back.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthSettings {
    /// Probe questions: name and type.
    pub probes: Vec<(Name, u16)>,
    /// Pause between probes in doubt.
    pub every: Duration,
    /// Wait for a probe's answer.
    pub timeout: Duration,
    /// Failed probes in a row that convict.
    pub fall: u32,
    /// Passed probes in a row that acquit.
    pub rise: u32,
    /// A better tier must have been fit this long before it is used again.
    pub hold: Duration,
    /// Its share grows over this.
    pub ramp: Duration,
    /// Does each flap double the hold?
    pub damp: bool,
}

/// The second question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeSettings {
    /// Fixed delay; `None` follows the server's own latency.
    pub after: Option<Duration>,
    /// Second questions as a share of first ones.
    pub budget: f64,
}
