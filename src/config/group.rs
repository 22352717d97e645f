//! `[groups]`: who answers for which zones.
//!
//! Pure. Rules over all groups:
//!
//! - A zone belongs to one group. A group other than `default` names its zones.
//! - The group `default` is there without being named, and has the root, unless another group took the root.
//! - `[groups.NAME.stale]` and `[groups.NAME.cache]` say what differs from `[stale]` and `[cache]`.
//! - Probes that are not set are `. NS` where the group has the root, the SOA of each of its zones otherwise.
//! - A server stands once in a group, and is none of the addresses that evenkeel listens on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::document::Value;
use super::key::{Key, Kind, Part, Reader, set_defaults};
use super::keys::{STALE, TTL};
use super::local::record_type;
use super::{GroupConfig, UpstreamConfig, upstream};
use crate::cache::freshness::{StaleSettings, TtlSettings};
use crate::limits;
use crate::upstream::{GroupSettings, HealthSettings, HedgeSettings, Order, ServerSettings};
use crate::wire::{Name, rtype};

/// A group while it is read.
pub(super) struct GroupDraft {
    pub config: GroupConfig,
    /// Where the group stands.
    span: Range<usize>,
    /// Where each of its zones stands; none where they are not set.
    zones_at: Option<Vec<Range<usize>>>,
    /// The servers of each tier, and where they stand.
    tiers: [Vec<(UpstreamConfig, Range<usize>)>; 3],
    probes_set: bool,
}

/// The keys of a group itself.
pub(super) const GROUP: &[Key<GroupDraft>] = &[
    Key::new("zones", "with every name below them", Kind::Own("[\".\"]", zones)),
    Key::new(
        "primary",
        "\"system\", \"192.0.2.1\", \"192.0.2.1:53\", \"tcp://…\"",
        Kind::Own("[\"system\"]", |g, r, v| tier(g, 0, r, v)),
    ),
    Key::new(
        "secondary",
        "or { address = \"…\", name = \"…\", packets_per_second = 900 }",
        Kind::Own("[]", |g, r, v| tier(g, 1, r, v)),
    ),
    Key::new("tertiary", "", Kind::Own("[]", |g, r, v| tier(g, 2, r, v))),
    Key::new(
        "trust_ad",
        "may AD of these servers reach clients: true, false or \"auto\"",
        Kind::Own("\"auto\"", |g, r, v| {
            g.config.trust_ad = match v.get_ref().as_str() {
                Some("auto") => None,
                _ => r.flag(v),
            }
        }),
    ),
    Key::new(
        "same_view",
        "true: negative answers of a lower tier are as good as the primary's",
        Kind::Flag(false, |g, v| g.config.settings.same_view = v),
    ),
    Key::new(
        "order",
        "inside a tier; \"listed\" keeps the order (\"system\" is always listed)",
        Kind::Own("\"latency\"", |g, r, v| {
            if let Some(order) = r.word(v, &[("latency", Order::Latency), ("listed", Order::Listed)]) {
                g.config.settings.order = order;
            }
        }),
    ),
    Key::new(
        "source",
        "source address for questions; \"\" leaves it to the system",
        Kind::Own("\"\"", |g, r, v| {
            let Some(text) = r.string(v) else { return };
            g.config.settings.source = match text.parse::<IpAddr>() {
                Ok(address) => Some(address),
                Err(_) if text.is_empty() => None,
                Err(_) => return r.wrong(v.span(), format!("{text:?} is no address"), Some("write \"192.0.2.1\"")),
            };
        }),
    ),
    Key::new(
        "deadline",
        "a question is answered, one way or the other, within this",
        Kind::Span(limits::DEADLINE, |g, v| g.config.settings.deadline = v),
    ),
    Key::new(
        "in_flight_max",
        "names asked at once",
        Kind::Count(limits::IN_FLIGHT, |g, v| g.config.settings.in_flight_max = v as u32),
    ),
    Key::new(
        "per_zone_in_flight_max",
        "of them in one zone",
        Kind::Count(limits::PER_ZONE_IN_FLIGHT, |g, v| g.config.settings.per_zone_in_flight_max = v as u32),
    ),
];

/// The keys of a group's `health`.
pub(super) const HEALTH: &[Key<GroupDraft>] = &[
    Key::new(
        "probes",
        "over the same transport as live questions; a group without \".\" asks its zones' SOA",
        Kind::Own("[\". NS\"]", probes),
    ),
    Key::new(
        "every",
        "in doubt; 10 s when fit and live answers are seen",
        Kind::Span(limits::PROBE_EVERY, |g, v| g.config.settings.health.every = v),
    ),
    Key::new("timeout", "", Kind::Span(limits::PROBE_TIMEOUT, |g, v| g.config.settings.health.timeout = v)),
    Key::new(
        "fall",
        "failed probes in a row that take a server out",
        Kind::Count(limits::FALL, |g, v| g.config.settings.health.fall = v as u32),
    ),
    Key::new(
        "rise",
        "passed probes in a row that take it back",
        Kind::Count(limits::RISE, |g, v| g.config.settings.health.rise = v as u32),
    ),
    Key::new(
        "hold",
        "a better tier must have been fit this long before it is used again",
        Kind::Span(limits::HOLD, |g, v| g.config.settings.health.hold = v),
    ),
    Key::new(
        "ramp",
        "and its share grows over this",
        Kind::Span(limits::RAMP, |g, v| g.config.settings.health.ramp = v),
    ),
    Key::new(
        "damp",
        "each flap doubles the hold, up to 10 minutes; it decays with quiet",
        Kind::Flag(true, |g, v| g.config.settings.health.damp = v),
    ),
];

/// The keys of a group's `hedge`.
pub(super) const HEDGE: &[Key<GroupDraft>] = &[
    Key::new(
        "after",
        "a high percentile of the server's own latency, within 10 and 300 ms; 20 ms while unknown",
        Kind::Own("\"auto\"", |g, r, v| {
            if let Some(after) = r.span_or_auto(v, &limits::HEDGE_AFTER) {
                g.config.settings.hedge.after = after;
            }
        }),
    ),
    Key::new(
        "budget",
        "second questions as a share of first ones, plus 50 a second",
        Kind::Share(limits::BUDGET_SHARE, |g, v| g.config.settings.hedge.budget = v),
    ),
];

/// Reads the table of all groups. `ttl` and `stale` are what groups have that say nothing else.
pub(super) fn read(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    ttl: TtlSettings,
    stale: StaleSettings,
) -> Vec<GroupDraft> {
    let Some(table) = value.get_ref().as_table() else {
        reader.wrong(value.span(), "a table of groups is wanted here", Some("write [groups.default]"));
        return Vec::new();
    };
    let mut groups = Vec::new();
    for (name, value) in table {
        let key = name.get_ref().as_ref();
        if groups.len() == limits::GROUPS_MAX {
            reader.wrong(name.span(), format!("more than {} groups", limits::GROUPS_MAX), None);
            break;
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if key.is_empty() || key.len() > 64 || !key.bytes().all(fits) {
            let hint = "a group's name has 1 to 64 letters, digits, dots, dashes or underscores";
            reader.wrong(name.span(), "this is no name of a group", Some(hint));
            continue;
        }
        let mut group = blank(key, ttl, stale, name.span());
        reader.within(key, |reader| one(reader, value, &mut group));
        groups.push(group);
    }
    groups
}

fn one(reader: &mut Reader<'_>, value: &Value<'_>, group: &mut GroupDraft) {
    let mut ttl = group.config.settings.ttl;
    let mut stale = group.config.settings.stale;
    reader.table(value, &mut [&mut Part(GROUP, group)], &["health", "hedge", "stale", "cache"]);
    let Some(table) = value.get_ref().as_table() else { return };
    if let Some(value) = table.get("health") {
        reader.within("health", |r| r.table(value, &mut [&mut Part(HEALTH, group)], &[]));
    }
    if let Some(value) = table.get("hedge") {
        reader.within("hedge", |r| r.table(value, &mut [&mut Part(HEDGE, group)], &[]));
    }
    if let Some(value) = table.get("stale") {
        reader.within("stale", |r| r.table(value, &mut [&mut Part(STALE, &mut stale)], &[]));
    }
    if let Some(value) = table.get("cache") {
        reader.within("cache", |r| {
            r.table(value, &mut [&mut Part(TTL, &mut ttl)], &[]);
            check_ttl(r, value, ttl);
        });
    }
    group.config.settings.ttl = ttl;
    group.config.settings.stale = stale;
}

/// The least TTL is not above the greatest.
pub(super) fn check_ttl(reader: &mut Reader<'_>, value: &Value<'_>, ttl: TtlSettings) {
    if ttl.min > ttl.max {
        let at = value.get_ref().get("min_ttl").or(value.get_ref().get("max_ttl")).unwrap_or(value);
        reader.wrong(at.span(), format!("min_ttl, {} s, is above max_ttl, {} s", ttl.min, ttl.max), None);
    }
}

/// Checks the groups against each other, adds `default`, and fills in what follows from the rest.
pub(super) fn finish(
    reader: &mut Reader<'_>,
    mut groups: Vec<GroupDraft>,
    listen: &[SocketAddr],
    ttl: TtlSettings,
    stale: StaleSettings,
) -> Vec<GroupConfig> {
    let root = Name::root();
    let rooted = groups.iter().any(|g| g.zones_at.is_some() && g.config.settings.zones.contains(&root));
    if !rooted && !groups.iter().any(|g| g.config.settings.name == "default") {
        groups.push(blank("default", ttl, stale, 0..0));
    }
    for group in &mut groups {
        let name = group.config.settings.name.clone();
        reader.within(&name, |r| {
            if group.zones_at.is_none() && name != "default" {
                r.wrong(group.span.clone(), "the group names no zones", Some("write zones = [\"corp.example\"]"));
            }
            check_servers(r, group, listen);
        });
    }
    check_zones(reader, &groups);
    groups.into_iter().map(settle).collect()
}

fn check_servers(reader: &mut Reader<'_>, group: &GroupDraft, listen: &[SocketAddr]) {
    let mut names: Vec<&str> = Vec::new();
    for (server, span) in group.tiers.iter().flatten() {
        let name = match server {
            UpstreamConfig::System => "system",
            UpstreamConfig::Server(server) => {
                if listen.iter().any(|here| points_back(*here, server.address)) {
                    let what = format!("{} is where evenkeel itself listens", server.address);
                    reader.wrong(span.clone(), what, None);
                }
                server.name.as_str()
            }
        };
        if names.contains(&name) {
            reader.wrong(span.clone(), format!("{name:?} is in the group twice"), None);
        }
        names.push(name);
    }
    if names.is_empty() {
        let what = format!("{}: the group has no server, so nothing can be asked", reader.path());
        reader.warn(group.span.clone(), what);
    }
}

fn points_back(here: SocketAddr, server: SocketAddr) -> bool {
    let (ip, to) = (here.ip().to_canonical(), server.ip().to_canonical());
    here.port() != 0 && here.port() == server.port() && (ip == to || (ip.is_unspecified() && to.is_loopback()))
}

fn check_zones(reader: &mut Reader<'_>, groups: &[GroupDraft]) {
    let mut owners: HashMap<&Name, &str> = HashMap::new();
    for group in groups {
        let name = group.config.settings.name.as_str();
        for (i, zone) in group.config.settings.zones.iter().enumerate() {
            if group.zones_at.is_none() && name != "default" {
                continue;
            }
            if let Some(other) = owners.insert(zone, name) {
                let span = group.zones_at.as_ref().and_then(|at| at.get(i)).unwrap_or(&group.span).clone();
                let what = format!("the zone {zone} is in two groups: {other} and {name}");
                let what = if other == name { format!("the zone {zone} is given twice") } else { what };
                reader.wrong(span, what, Some("a zone belongs to one group"));
            }
        }
    }
    if !owners.contains_key(&Name::root()) {
        let span = groups.first().map_or(0..0, |g| g.span.clone());
        reader.warn(span, "no group has the zone \".\": names outside of all zones are refused".to_owned());
    }
}

fn settle(group: GroupDraft) -> GroupConfig {
    let mut config = group.config;
    let settings = &mut config.settings;
    if !group.probes_set && !settings.zones.contains(&Name::root()) {
        settings.health.probes = settings.zones.iter().map(|zone| (zone.clone(), rtype::SOA)).collect();
    }
    // "auto" trusts encrypted transports, of which there is none here.
    let trust_ad = config.trust_ad.unwrap_or(false);
    config.tiers = group.tiers.map(|tier| tier.into_iter().map(|(server, _)| trusted(server, trust_ad)).collect());
    config
}

fn trusted(server: UpstreamConfig, trust_ad: bool) -> UpstreamConfig {
    match server {
        UpstreamConfig::Server(server) => UpstreamConfig::Server(ServerSettings { trust_ad, ..server }),
        UpstreamConfig::System => UpstreamConfig::System,
    }
}

fn blank(name: &str, ttl: TtlSettings, stale: StaleSettings, span: Range<usize>) -> GroupDraft {
    let zero = std::time::Duration::ZERO;
    let settings = GroupSettings {
        name: name.to_owned(),
        zones: Vec::new(),
        tiers: Default::default(),
        same_view: false,
        order: Order::Latency,
        source: None,
        deadline: zero,
        in_flight_max: 0,
        per_zone_in_flight_max: 0,
        health: HealthSettings {
            probes: Vec::new(),
            every: zero,
            timeout: zero,
            fall: 0,
            rise: 0,
            hold: zero,
            ramp: zero,
            damp: false,
        },
        hedge: HedgeSettings { after: None, budget: 0.0 },
        ttl,
        stale,
    };
    let config = GroupConfig { settings, tiers: Default::default(), trust_ad: None };
    let mut group = GroupDraft { config, span, zones_at: None, tiers: Default::default(), probes_set: false };
    set_defaults(GROUP, &mut group);
    set_defaults(HEALTH, &mut group);
    set_defaults(HEDGE, &mut group);
    // What the defaults set was not set by an operator.
    group.zones_at = None;
    group.probes_set = false;
    for (_, at) in group.tiers.iter_mut().flatten() {
        *at = group.span.clone();
    }
    group
}

fn zones(group: &mut GroupDraft, reader: &mut Reader<'_>, value: &Value<'_>) {
    let mut zones = Vec::new();
    let mut at = Vec::new();
    for (text, span) in reader.strings(value) {
        if text.starts_with("*.") {
            let hint = "a zone is written without \"*.\"; it has every name below it";
            reader.wrong(span, format!("{text:?} is no zone"), Some(hint));
            continue;
        }
        match text.parse() {
            Ok(zone) => {
                zones.push(zone);
                at.push(span);
            }
            Err(why) => reader.wrong(span, format!("{text:?}: {why}"), None),
        }
    }
    group.config.settings.zones = zones;
    group.zones_at = Some(at);
}

fn tier(group: &mut GroupDraft, index: usize, reader: &mut Reader<'_>, value: &Value<'_>) {
    let items = reader.items(value);
    if items.len() > limits::SERVERS_PER_TIER_MAX {
        let what = format!("more than {} servers in one tier", limits::SERVERS_PER_TIER_MAX);
        return reader.wrong(value.span(), what, None);
    }
    group.tiers[index] =
        items.into_iter().filter_map(|item| Some((upstream::read(reader, item)?, item.span()))).collect();
}

fn probes(group: &mut GroupDraft, reader: &mut Reader<'_>, value: &Value<'_>) {
    let mut probes = Vec::new();
    for (text, span) in reader.strings(value) {
        let probe = text.split_once(' ').and_then(|(name, qtype)| {
            Some((name.parse::<Name>().ok()?, record_type(qtype.trim()).filter(|t| *t < 128 && *t != rtype::OPT)?))
        });
        match probe {
            Some(probe) => probes.push(probe),
            None => reader.wrong(span, format!("{text:?} is no question"), Some("write name and type: \". NS\"")),
        }
    }
    if probes.len() > PROBES_MAX {
        return reader.wrong(value.span(), "more than 16 probes", None);
    }
    group.config.settings.health.probes = probes;
    group.probes_set = true;
}

const PROBES_MAX: usize = 16;
