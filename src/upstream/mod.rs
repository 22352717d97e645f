//! A group of servers in tiers: whom to ask, how long to wait, whom to trust with the next question.
//!
//! Pure. [`Group`] holds what was learned; its settings are swapped on reload ([`Group::adopt`]). [`choosing`] says
//! whom to ask, [`learning`] what follows from what came, [`probing`] who is asked without a client. The rooms under
//! it judge one thing each and do not know each other, and a [`server`] holds what they know of it: [`breaker`] judges
//! fast from live questions, [`health`] slowly, [`family`] where a whole address family leads nowhere, [`loops`] who
//! leads back here, [`zones`] whose fault it is where nobody answers; [`tier`] says which tier is in use, [`damp`]
//! what flapping costs, [`turned`] whose names vanish while others have them, [`latency`] and [`hedge`] when a second
//! question goes out, [`budget`] what it may cost and [`clients`] for whom, [`bulkhead`] how much waits at once.

pub mod breaker;
pub mod budget;
pub mod bulkhead;
pub mod change;
pub mod choosing;
pub mod clients;
pub mod damp;
pub mod family;
pub mod group;
pub mod health;
pub mod hedge;
pub mod latency;
pub mod learning;
pub mod loops;
pub mod outlook;
pub mod probing;
pub mod server;
pub mod tier;
pub mod turned;
pub mod zones;

pub use group::Group;
pub use outlook::Outlook;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::cache::freshness::{StaleSettings, TtlSettings};
use crate::limits;
use crate::wire::{Name, rtype};

/// A server's place in its group: stable for the life of a [`Group`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u16);

impl ServerId {
    /// The server at a place in its group's list.
    fn nth(index: usize) -> Self {
        Self(index as u16)
    }
}

/// The zone of a question as far as judging needs to tell zones apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ZoneHash(pub u32);

impl ZoneHash {
    /// The last two labels of a folded name, or the one that it has.
    pub fn of(name: &[u8]) -> Self {
        let mut suffixes = [&[][..]; 3];
        for s in crate::wire::name::suffixes(name) {
            suffixes = [s, suffixes[0], suffixes[1]];
        }
        // suffixes are root, one label, two labels; a shorter name leaves the later ones empty.
        let zone = suffixes.iter().rev().find(|s| !s.is_empty()).copied().unwrap_or_default();
        Self(fnv(zone))
    }
}

/// Who asked, as far as judging needs to tell clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientHash(pub u32);

impl ClientHash {
    /// Of a client's address, or of its prefix where that is what counts as one client.
    pub fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(a) => fnv(&a.octets()),
            IpAddr::V6(a) => fnv(&a.octets()),
        })
    }
}

/// FNV-1a: good enough to tell apart what nobody gains by confusing.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

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

//------------ Defaults ----------------------------------------------------------------------------------------------

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            probes: vec![(Name::root(), rtype::NS)],
            every: limits::PROBE_EVERY.default,
            timeout: limits::PROBE_TIMEOUT.default,
            fall: limits::FALL.default as u32,
            rise: limits::RISE.default as u32,
            hold: limits::HOLD.default,
            ramp: limits::RAMP.default,
            damp: true,
        }
    }
}

impl Default for HedgeSettings {
    fn default() -> Self {
        Self { after: None, budget: limits::BUDGET_SHARE.default }
    }
}

impl Default for GroupSettings {
    /// The group `default`, without servers.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            zones: vec![Name::root()],
            tiers: Default::default(),
            same_view: false,
            order: Order::Latency,
            source: None,
            deadline: limits::DEADLINE.default,
            in_flight_max: limits::IN_FLIGHT.default as u32,
            per_zone_in_flight_max: limits::PER_ZONE_IN_FLIGHT.default as u32,
            health: HealthSettings::default(),
            hedge: HedgeSettings::default(),
            ttl: TtlSettings::default(),
            stale: StaleSettings::default(),
        }
    }
}

impl ServerSettings {
    /// A server as an address alone says it: over UDP, not trusted, without a limit.
    pub fn at(address: SocketAddr) -> Self {
        Self { name: address.to_string(), address, protocol: Protocol::Udp, trust_ad: false, packets_per_second: 0 }
    }
}

#[cfg(test)]
mod tests;
