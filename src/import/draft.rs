//! What a file of another resolver means, in evenkeel's words.
//!
//! Pure. A format fills it piece by piece; what it takes has been checked, so that the whole can be printed and is
//! accepted. What contradicts what is there already is left, with its reason.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::Left;
use super::words::shown;
use crate::config::human::show_span;
use crate::limits::{self, Bound};
use crate::wire::Name;

/// The whole.
#[derive(Default)]
pub(super) struct Draft {
    pub listen: Vec<SocketAddr>,
    pub workers: Option<u64>,
    pub drain: Option<Duration>,
    pub identity: Option<String>,
    /// `listen` of `[admin]`.
    pub admin: Option<SocketAddr>,
    pub allow: Vec<String>,
    pub queries_per_second: Option<u64>,
    pub system_files: Vec<String>,
    pub max_bytes: Option<u64>,
    pub refresh_ahead: Option<bool>,
    pub rotate: Option<bool>,
    pub ttl: Ttl,
    pub stale: Stale,
    pub groups: Vec<Group>,
    pub locals: Vec<Local>,
    pub hosts: Vec<String>,
    /// `private_reverse` of `[local_files]`.
    pub private_reverse: Option<&'static str>,
    pub log_level: Option<&'static str>,
    pub left: Vec<Left>,
    aliases: HashSet<Name>,
    owners: HashSet<Name>,
    zones: HashSet<Name>,
    records: usize,
}

/// Bounds of TTLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ttl {
    pub min: Option<Duration>,
    pub max: Option<Duration>,
    pub max_negative: Option<Duration>,
}

/// When stale answers go out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    pub max_age: Option<Duration>,
    pub reply_ttl: Option<Duration>,
    pub patience: Option<Duration>,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub zones: Vec<Name>,
    pub servers: Vec<Server>,
    /// Servers that cannot be written yet, as they will be: a comment beside `primary`.
    pub later: Vec<String>,
    pub listed: bool,
    pub trust_ad: bool,
    pub source: Option<IpAddr>,
    pub in_flight_max: Option<u64>,
    pub fall: Option<u64>,
    pub every: Option<Duration>,
    pub ttl: Ttl,
    pub stale: Stale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    System,
    At { address: SocketAddr, tcp: bool },
}

/// An entry of `[[local]]`, with the line that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Local {
    Record { name: String, rtype: &'static str, values: Vec<String>, ttl: Option<Duration>, at: Place },
    Zone { zone: Name, action: &'static str, at: Place },
}

/// Where something stands in the source, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    pub what: String,
}

/// Records and zones that the configuration takes (`config::local`).
const LOCALS_MAX: usize = 10_000;
const LISTEN_MAX: usize = 64;

impl Draft {
    /// Leaves what stands at `line`.
    pub fn left(&mut self, line: usize, what: &str, why: impl Into<String>) {
        self.left.push(Left { line, what: shown(what), why: why.into() });
    }

    /// A span within its bound; where that changes it, it is said.
    pub fn span(&mut self, line: usize, what: &str, span: Duration, bound: &Bound<Duration>) -> Duration {
        let within = span.clamp(bound.min, bound.max);
        if within != span {
            self.left(line, what, format!("beyond evenkeel's bounds: {} is written", show_span(within)));
        }
        within
    }

    /// [`Draft::span`] for a number.
    pub fn count(&mut self, line: usize, what: &str, count: u64, bound: &Bound<u64>) -> u64 {
        let within = count.clamp(bound.min, bound.max);
        if within != count {
            self.left(line, what, format!("beyond evenkeel's bounds: {within} is written"));
        }
        within
    }

    pub fn listen(&mut self, line: usize, what: &str, address: SocketAddr) {
        if self.listen.contains(&address) {
            return;
        }
        if self.listen.len() == LISTEN_MAX || address.port() == 0 {
            return self.left(line, what, "not an address, or one too many, to listen on");
        }
        self.listen.push(address);
    }

    pub fn allow(&mut self, net: IpNet) {
        let text = net.to_string();
        if !self.allow.contains(&text) {
            self.allow.push(text);
        }
    }

    /// Adds a record, whose value has been checked to be one of its type.
    pub fn record(
        &mut self,
        (line, what): (usize, &str),
        name: &str,
        rtype: &'static str,
        value: String,
        ttl: Option<Duration>,
    ) {
        let Ok(owner) = name.parse::<Name>() else {
            return self.left(line, what, format!("{:?} is no name", shown(name)));
        };
        let ttl = ttl.map(|ttl| self.span(line, what, ttl, &limits::LOCAL_TTL));
        if let Some(Local::Record { name: n, rtype: t, values, ttl: l, .. }) = self.locals.last_mut()
            && (n.as_str(), *t, *l) == (name, rtype, ttl)
            && values.contains(&value)
        {
            return;
        }
        let alone = rtype == "CNAME";
        if self.aliases.contains(&owner) || alone && self.owners.contains(&owner) {
            let why = "its name has a CNAME record and another one: an alias stands alone (RFC 1034 §3.6.2)";
            return self.left(line, what, why);
        }
        if self.records == LOCALS_MAX {
            return self.left(line, what, "more than 10000 local records: put them into a hosts file");
        }
        self.records += 1;
        if alone {
            self.aliases.insert(owner.clone());
        }
        self.owners.insert(owner);
        match self.locals.last_mut() {
            Some(Local::Record { name: n, rtype: t, values, ttl: l, .. })
                if (n.as_str(), *t, *l) == (name, rtype, ttl) =>
            {
                values.push(value);
            }
            _ => {
                let at = Place { line, what: what.to_owned() };
                self.locals.push(Local::Record { name: name.to_owned(), rtype, values: vec![value], ttl, at });
            }
        }
    }

    /// An address record of the family of `ip`.
    pub fn address(&mut self, at: (usize, &str), name: &str, ip: IpAddr, ttl: Option<Duration>) {
        self.record(at, name, if ip.is_ipv4() { "A" } else { "AAAA" }, ip.to_string(), ttl);
    }

    /// Adds a zone that is answered here.
    pub fn zone(&mut self, (line, what): (usize, &str), zone: Name, action: &'static str) {
        if self.zones.contains(&zone) {
            let same = |l: &Local| matches!(l, Local::Zone { zone: z, action: a, .. } if (z, *a) == (&zone, action));
            if !self.locals.iter().any(same) {
                self.left(line, what, "the zone is answered here already, in another way");
            }
            return;
        }
        if self.zones.len() == LOCALS_MAX {
            return self.left(line, what, "more than 10000 local zones");
        }
        self.zones.insert(zone.clone());
        self.locals.push(Local::Zone { zone, action, at: Place { line, what: what.to_owned() } });
    }

    /// Adds a group, or its zones to one that is otherwise the same: evidence about its servers is shared by them.
    /// Zones that have a group already are left.
    pub fn group(&mut self, (line, what): (usize, &str), mut group: Group) {
        let taken: Vec<Name> = self.groups.iter().flat_map(|g| g.zones.iter().cloned()).collect();
        let mut zones: Vec<Name> = Vec::new();
        for zone in std::mem::take(&mut group.zones) {
            if taken.contains(&zone) {
                self.left(line, what, format!("the zone {zone} has its servers already"));
            } else if !zones.contains(&zone) {
                zones.push(zone);
            }
        }
        if zones.is_empty() {
            return;
        }
        if let Some(same) = self.groups.iter_mut().find(|g| Group { zones: Vec::new(), ..(*g).clone() } == group) {
            same.zones.extend(zones);
        } else if self.groups.len() == limits::GROUPS_MAX - 1 {
            self.left(line, what, format!("more than {} groups of servers", limits::GROUPS_MAX - 1));
        } else {
            self.groups.push(Group { zones, ..group });
        }
    }

    /// The group of exactly this zone, made where there is none.
    pub fn group_of(&mut self, zone: &Name) -> &mut Group {
        let at = self.groups.iter().position(|g| g.zones.contains(zone)).unwrap_or_else(|| {
            self.groups.push(Group { zones: vec![zone.clone()], ..Group::default() });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }
}

impl Group {
    /// Adds a server, unless it is there or the tier is full.
    ///
    /// # Errors
    ///
    /// Where the tier is full.
    pub fn server(&mut self, server: Server) -> Result<(), String> {
        let same = |other: &Server| match (server, *other) {
            (Server::At { address: a, .. }, Server::At { address: b, .. }) => a == b,
            (a, b) => a == b,
        };
        if self.servers.iter().any(same) {
            return Ok(());
        }
        if self.servers.len() == limits::SERVERS_PER_TIER_MAX {
            return Err(format!("more than {} servers in one tier", limits::SERVERS_PER_TIER_MAX));
        }
        self.servers.push(server);
        Ok(())
    }
}

/// What may be said of a TTL or a span of whole seconds.
pub(super) fn seconds(word: &str) -> Option<Duration> {
    word.parse::<u32>().ok().map(|s| Duration::from_secs(s.into()))
}
