//! dnsmasq.conf: one option a line, as its long options (dnsmasq(8)).
//!
//! Pure. `server=/zone/…` makes a group, `address=/name/…` records of the name and of all below it, `local=/zone/` a
//! zone that does not exist but for its records. Without `no-resolv` the servers of resolv.conf are asked beside those
//! that are named, as dnsmasq does. Who may ask are this machine's own networks, `access.allow` "local": more than that
//! is said to be left, and interfaces, whose addresses the file does not have, are not listened on but for lo.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::draft::{Draft, Group, Place, Server, seconds};
use super::overlap;
use super::print::{below, plain};
use super::words::{self, name, network, reverse_zones};
use super::{Format, Unreadable};
use crate::limits;
use crate::wire::Name;

pub(super) fn read(text: &str) -> Result<Draft, Unreadable> {
    let mut file = File {
        draft: Draft::default(),
        port: 53,
        resolv: true,
        hosts: true,
        local_ttl: None,
        reach: Reach::default(),
        bogus_priv: None,
        standard: Vec::new(),
        addresses: Vec::new(),
    };
    let lines: Vec<(usize, &str)> = text.lines().enumerate().map(|(i, l)| (i + 1, l)).collect();
    let mut options = Vec::new();
    for (line, whole) in lines {
        let bare = words::without_comment(whole, &['"']);
        if bare.is_empty() {
            continue;
        }
        let (key, value) = bare.split_once('=').unwrap_or((bare, ""));
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let hint = "dnsmasq.conf has one option a line, `name` or `name=value`; is this one?";
            return Err(Unreadable::new(line, format!("{:?} is no option", words::shown(bare)), hint));
        }
        if value.matches('"').count() % 2 == 1 {
            return Err(Unreadable::new(line, "a quote is not closed", "write the value between two \" characters"));
        }
        options.push((line, key, value));
    }
    // What others are read by.
    for (line, key, value) in &options {
        match *key {
            "port" => match value.parse() {
                Ok(port) if port != 0 => file.port = port,
                _ => file.draft.left(*line, &format!("port={value}"), "DNS is off, or the port is none: 53 is taken"),
            },
            "no-resolv" => file.resolv = false,
            "no-hosts" => file.hosts = false,
            "local-ttl" => file.local_ttl = seconds(value),
            "listen-address" => file.reach.addresses = true,
            "interface" if !value.is_empty() => file.reach.interfaces = true,
            "except-interface" if *value == "lo" => file.reach.without_loopback = true,
            "except-interface" if !value.is_empty() => file.reach.exceptions = true,
            "local-service" => file.reach.service = Some(*value),
            "auth-server" => file.reach.auth = true,
            _ => {}
        }
    }
    if file.hosts {
        file.draft.hosts.push("/etc/hosts".to_owned());
    }
    for (line, key, value) in options {
        file.option(line, key, value);
    }
    Ok(file.finished())
}

struct File<'t> {
    draft: Draft,
    port: u16,
    resolv: bool,
    hosts: bool,
    local_ttl: Option<Duration>,
    reach: Reach<'t>,
    bogus_priv: Option<usize>,
    /// Zones that are asked of the servers of all else (`#`).
    standard: Vec<(Place, Name)>,
    /// Names that have an address with all below them.
    addresses: Vec<(Place, Name)>,
}

/// What says where dnsmasq listens and whom it answers.
#[derive(Clone, Copy, Default)]
struct Reach<'t> {
    addresses: bool,
    interfaces: bool,
    /// Of other interfaces than lo.
    exceptions: bool,
    without_loopback: bool,
    /// The value of `local-service`, which has no effect beside any of the others.
    service: Option<&'t str>,
    auth: bool,
}

impl File<'_> {
    fn finished(mut self) -> Draft {
        self.listeners();
        let draft = &mut self.draft;
        let resolv = self.resolv;
        let root = draft.group_of(&Name::root());
        if resolv && root.servers.len() < limits::SERVERS_PER_TIER_MAX {
            root.servers.push(Server::System);
        }
        self.standard_zones();
        let root = self.draft.group_of(&Name::root());
        // What holds for all servers; groups of zones have been made before it could be known.
        let (listed, trust_ad, in_flight_max) = (root.listed, root.trust_ad, root.in_flight_max);
        for group in &mut self.draft.groups {
            (group.listed, group.trust_ad, group.in_flight_max) = (listed, trust_ad, in_flight_max);
        }
        // The root's own comes first.
        self.draft.groups.sort_by_key(|g| !g.zones.contains(&Name::root()));
        self.forwarded_beside_local();
        self.draft
    }

    /// Where dnsmasq listens and whom it answers, as far as addresses say it. With named interfaces it listens on lo as
    /// well, and what is narrower than that here, or wider, is said.
    fn listeners(&mut self) {
        let Reach { addresses, interfaces, exceptions, without_loopback, service, auth } = self.reach;
        let draft = &mut self.draft;
        let own_networks = service.filter(|_| !addresses && !interfaces && !exceptions && !without_loopback && !auth);
        let everywhere = !addresses && !interfaces && !exceptions && own_networks != Some("host");
        let loopback = (interfaces || !addresses) && !everywhere && !without_loopback;
        let (wide, own) = (
            [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()],
            [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()],
        );
        for (ips, listens) in [(wide, everywhere), (own, loopback)] {
            for ip in ips.into_iter().filter(|_| listens) {
                draft.listen(1, "the default", (ip, self.port).into());
            }
        }
        if draft.listen.iter().any(|a| !a.ip().to_canonical().is_loopback()) {
            draft.allow = vec!["loopback".to_owned(), "local".to_owned()];
            if own_networks.is_none() {
                let why = "dnsmasq answers whoever reaches it, unless it is started with --local-service, as Debian \
                           does; here this machine and its own networks (access.allow)";
                draft.left(1, "who may ask", why);
            }
        }
    }

    /// A zone of `#` is one of the root's group; dnsmasq asks no other servers for it, whatever else is said.
    fn standard_zones(&mut self) {
        for (at, zone) in std::mem::take(&mut self.standard) {
            let mut other = false;
            for group in self.draft.groups.iter_mut().filter(|g| !g.zones.contains(&Name::root())) {
                other |= group.zones.contains(&zone);
                group.zones.retain(|z| *z != zone);
            }
            self.draft.groups.retain(|g| !g.zones.is_empty());
            if other {
                let why = format!("other servers of {zone} are left out: dnsmasq asks those of all else for it");
                self.draft.left(at.line, &at.what, why);
            }
            let root = self.draft.group_of(&Name::root());
            if !root.zones.contains(&zone) {
                root.zones.push(zone);
            }
        }
    }

    /// dnsmasq takes the longest match of what is local and what has servers; of equal ones servers before
    /// "no such domain", and an address before servers.
    fn forwarded_beside_local(&mut self) {
        let draft = &mut self.draft;
        let served = |groups: &[Group], root_too: bool| -> Vec<Name> {
            let asked = groups.iter().filter(|g| !g.servers.is_empty());
            let asked = asked.filter(|g| root_too || !g.zones.contains(&Name::root()));
            asked.flat_map(|g| g.zones.iter().cloned()).collect()
        };
        overlap::give_way(draft, &served(&draft.groups, true), |_, _| true);
        let own = served(&draft.groups, false);
        for (at, name) in std::mem::take(&mut self.addresses) {
            if own.contains(&name) {
                let why = format!("{name} has servers too, which dnsmasq asks for other types: there are none here");
                draft.left(at.line, &at.what, why);
            }
        }
        if let Some(line) = self.bogus_priv {
            draft.private_reverse = Some("nxdomain");
            let private = overlap::private_reverse_zones();
            if let Some(open) = own.iter().find(|z| private.iter().any(|p| z.is_in(p) || p.is_in(z))) {
                overlap::open_private_reverse(draft, (line, "bogus-priv"), open);
            }
        }
    }

    fn option(&mut self, line: usize, key: &str, value: &str) {
        let whole = if value.is_empty() { key.to_owned() } else { format!("{key}={value}") };
        let at = (line, whole.as_str());
        let draft = &mut self.draft;
        match key {
            // Read before, or what evenkeel does anyway.
            "port" | "no-resolv" | "no-hosts" | "local-ttl" | "bind-interfaces" | "bind-dynamic"
            | "local-service" | "dns-loop-detect" | "no-poll" | "keep-in-foreground" | "no-daemon"
            | "no-round-robin" => {
                if key == "no-round-robin" {
                    draft.rotate = Some(false);
                }
            }
            "listen-address" => self.listen_addresses(at, value),
            "interface" if value == "lo" => {}
            "interface" => {
                let why = "evenkeel listens on addresses, and here on those of lo alone: add those of the interface to \
                           listen.dns";
                draft.left(line, &whole, why);
            }
            "except-interface" if value == "lo" && !self.reach.interfaces && !self.reach.addresses => {
                draft.left(
                    line,
                    &whole,
                    "evenkeel listens on all addresses, those of lo too: name them in listen.dns",
                );
            }
            "except-interface" => {
                let why = "evenkeel listens on addresses, and here on none of interfaces that are not named: add those \
                           of the others to listen.dns";
                draft.left(line, &whole, why);
            }
            "auth-server" => {
                draft.left(
                    line,
                    &whole,
                    "evenkeel has no zones of its own: give these a group that asks the servers",
                );
            }
            "server" => self.server(at, value),
            "local" => self.server(at, value),
            "rev-server" => self.rev_server(at, value),
            "address" => self.address(at, value),
            "host-record" | "cname" | "ptr-record" | "txt-record" | "mx-host" | "srv-host" => {
                if self.record(at, key, value).is_none() {
                    self.draft.left(line, &whole, "the record is not understood: write it as [[local]]");
                }
            }
            "cache-size" => match value.parse::<u64>() {
                Ok(0) => draft.left(line, &whole, "evenkeel always caches; cache.max_ttl = \"1s\" comes near it"),
                Ok(entries) => {
                    // The default has room for that many and more, unless it is very many.
                    let bytes = entries.saturating_mul(ENTRY_BYTES);
                    if bytes > limits::CACHE_BYTES.default {
                        draft.max_bytes = Some(draft.count(line, &whole, bytes, &limits::CACHE_BYTES));
                    }
                }
                Err(_) => draft.left(line, &whole, NOT_UNDERSTOOD),
            },
            "neg-ttl" | "max-cache-ttl" | "max-ttl" | "min-cache-ttl" => match seconds(value) {
                Some(span) if key == "neg-ttl" => {
                    draft.ttl.max_negative = Some(draft.span(line, &whole, span, &limits::TTL_NEGATIVE_MAX));
                }
                Some(span) if key == "min-cache-ttl" => {
                    draft.ttl.min = Some(draft.span(line, &whole, span, &limits::TTL_MIN));
                }
                Some(span) => {
                    let span = draft.span(line, &whole, span, &limits::TTL_MAX);
                    draft.ttl.max = Some(draft.ttl.max.map_or(span, |max| max.min(span)));
                }
                None => draft.left(line, &whole, NOT_UNDERSTOOD),
            },
            "no-negcache" => draft.ttl.max_negative = Some(Duration::ZERO),
            "use-stale-cache" => {
                // Without a number a day, and 0 is however old.
                let age = match value {
                    "" => Some(STALE_AGE),
                    value => seconds(value).map(|age| if age.is_zero() { Duration::MAX } else { age }),
                };
                match age {
                    Some(age) => {
                        draft.stale.max_age = Some(draft.span(line, &whole, age, &limits::STALE_AGE_MAX));
                    }
                    None => draft.left(line, &whole, NOT_UNDERSTOOD),
                }
            }
            "resolv-file" => absolute(&mut self.draft, at, value, |d| &mut d.system_files),
            "addn-hosts" => absolute(&mut self.draft, at, value, |d| &mut d.hosts),
            "strict-order" => draft.group_of(&Name::root()).listed = true,
            "proxy-dnssec" => draft.group_of(&Name::root()).trust_ad = true,
            "dns-forward-max" => match value.parse() {
                Ok(n) => {
                    let n = draft.count(line, &whole, n, &limits::IN_FLIGHT);
                    draft.group_of(&Name::root()).in_flight_max = Some(n);
                }
                Err(_) => draft.left(line, &whole, NOT_UNDERSTOOD),
            },
            "bogus-priv" => self.bogus_priv = Some(line),
            "conf-file" | "servers-file" => draft.left(line, &whole, words::together(Format::Dnsmasq, value)),
            // A pattern with a star is of the files that are read, one without of those that are not.
            "conf-dir" => {
                let (directory, patterns) = value.split_once(',').unwrap_or((value, ""));
                let first = patterns.split(',').next().filter(|p| p.starts_with('*')).unwrap_or("*");
                let files = format!("{}/{first}", directory.trim_end_matches('/'));
                draft.left(line, &whole, words::together(Format::Dnsmasq, &files));
            }
            _ => draft.left(line, &whole, why(key)),
        }
    }

    fn listen_addresses(&mut self, (line, whole): (usize, &str), value: &str) {
        for word in value.split(',').map(str::trim) {
            match word.parse::<IpAddr>() {
                Ok(ip) if !ip.is_multicast() => self.draft.listen(line, whole, (ip, self.port).into()),
                _ => self.draft.left(line, whole, format!("{:?} is no address", words::shown(word))),
            }
        }
    }

    /// `[/zone/…/][address[#port][@source]]`: zones, and what they are asked of.
    fn server(&mut self, at @ (line, whole): (usize, &str), value: &str) {
        let Some((zones, server)) = zones(value) else {
            return self.draft.left(line, whole, "its zones are not understood: evenkeel takes plain names");
        };
        if server.is_empty() {
            for zone in zones {
                self.draft.zone(at, zone, "nxdomain");
            }
            return;
        }
        self.ask(at, zones, server);
    }

    fn ask(&mut self, (line, whole): (usize, &str), zones: Vec<Name>, server: &str) {
        let draft = &mut self.draft;
        if server == "#" {
            let at = Place { line, what: whole.to_owned() };
            return self.standard.extend(zones.into_iter().map(|zone| (at.clone(), zone)));
        }
        let (address, source) = server.split_once('@').map_or((server, None), |(a, s)| (a, Some(s)));
        let Some(address) = words::server(address, '#') else {
            return draft.left(line, whole, "servers are written by address: names of servers are not looked up");
        };
        let source_ip = source.map(|s| s.split('#').next().unwrap_or("").parse::<IpAddr>());
        if let Some(Err(_)) = source_ip {
            draft.left(line, whole, "questions leave by the route, not by a named interface; the server is taken");
        }
        let zones = if zones.is_empty() { vec![Name::root()] } else { zones };
        for zone in zones {
            let known = draft.groups.len();
            if known >= limits::GROUPS_MAX - 1 && !draft.groups.iter().any(|g| g.zones.contains(&zone)) {
                return draft.left(line, whole, "more groups of servers than evenkeel takes");
            }
            let group = draft.group_of(&zone);
            if let Some(Ok(ip)) = source_ip {
                let shared = !group.servers.is_empty() && group.source != Some(ip);
                group.source = Some(ip);
                if shared {
                    draft.left(line, whole, "the source address holds for all servers of the zone");
                }
            }
            let group = draft.group_of(&zone);
            if let Err(why) = group.server(Server::At { address, tcp: false }) {
                draft.left(line, whole, why);
            }
        }
    }

    fn rev_server(&mut self, at @ (line, whole): (usize, &str), value: &str) {
        let found = value.split_once(',').and_then(|(net, server)| Some((network(net.trim())?, server.trim())));
        match found {
            Some((net, server)) if !server.is_empty() => self.ask(at, reverse_zones(net), server),
            Some((net, _)) => {
                for zone in reverse_zones(net) {
                    self.draft.zone(at, zone, "nxdomain");
                }
            }
            None => self.draft.left(line, whole, NOT_UNDERSTOOD),
        }
    }

    /// `/name/…/[ip]`: the name and all below it; without an address, or with `#`, see dnsmasq(8).
    fn address(&mut self, at @ (line, whole): (usize, &str), value: &str) {
        let Some((names, ip)) = zones(value).filter(|(names, _)| !names.is_empty()) else {
            return self.draft.left(line, whole, "its names are not understood: evenkeel takes plain names");
        };
        let ips: Vec<IpAddr> = match ip {
            "" => Vec::new(),
            "#" => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            ip => match ip.parse() {
                Ok(ip) => vec![ip],
                Err(_) => return self.draft.left(line, whole, format!("{:?} is no address", words::shown(ip))),
            },
        };
        for name in names {
            if ips.is_empty() {
                self.draft.zone(at, name, "nxdomain");
                continue;
            }
            for owner in [plain(&name), below(&name)] {
                for ip in &ips {
                    self.draft.address(at, &owner, *ip, self.local_ttl);
                }
            }
            self.addresses.push((Place { line, what: whole.to_owned() }, name));
        }
    }

    /// Records one by one; `None` where the value is not understood.
    fn record(&mut self, at: (usize, &str), key: &str, value: &str) -> Option<()> {
        // Texts of one record; evenkeel cuts one text where it must, and nowhere else.
        let bare: String = value.split('"').step_by(2).collect();
        let several = bare.matches(',').count() > 1;
        let value = value.replace('"', "");
        let mut parts: Vec<&str> = value.split(',').map(str::trim).collect();
        let draft = &mut self.draft;
        let mut ttl = self.local_ttl;
        if matches!(key, "host-record" | "cname")
            && parts.len() > 2
            && let Some(span) = parts.last().and_then(|p| seconds(p))
        {
            ttl = Some(span);
            parts.pop();
        }
        match key {
            "host-record" => {
                let (ips, names): (Vec<&str>, Vec<&str>) = parts.iter().partition(|p| p.parse::<IpAddr>().is_ok());
                if names.is_empty() || ips.is_empty() || names.iter().any(|n| name(n).is_none()) {
                    return None;
                }
                for owner in names {
                    for ip in &ips {
                        draft.address(at, owner, ip.parse().ok()?, ttl);
                    }
                }
            }
            "cname" => {
                let target = parts.pop().filter(|t| name(t).is_some())?;
                for alias in parts {
                    draft.record(at, alias, "CNAME", target.to_owned(), ttl);
                }
            }
            "ptr-record" => {
                let [owner, target] = parts[..] else { return None };
                name(target)?;
                draft.record(at, owner, "PTR", target.to_owned(), ttl);
            }
            "txt-record" => {
                let (owner, text) = value.split_once(',')?;
                if text.len() > TEXT_BYTES_MAX || several {
                    return None;
                }
                draft.record(at, owner.trim(), "TXT", text.to_owned(), ttl);
            }
            "mx-host" => {
                let target = parts.get(1).copied().filter(|t| name(t).is_some())?;
                let preference: u16 = parts.get(2).map_or(Some(1), |p| p.parse().ok())?;
                draft.record(at, parts[0], "MX", format!("{preference} {target}"), ttl);
            }
            _ => {
                let target = parts.get(1).copied().filter(|t| name(t).is_some())?;
                let number = |n: usize, d: u16| parts.get(n).map_or(Some(d), |p| p.parse::<u16>().ok());
                let (port, priority, weight) = (number(2, 1)?, number(3, 0)?, number(4, 0)?);
                draft.record(at, parts[0], "SRV", format!("{priority} {weight} {port} {target}"), ttl);
            }
        }
        Some(())
    }
}

/// `/a/b/rest` as names and rest; without a slash in front all is rest. `#` is the root, which is every name; other
/// patterns, and nothing, which is every name without a dot, are none: `None`.
fn zones(value: &str) -> Option<(Vec<Name>, &str)> {
    let Some(inner) = value.strip_prefix('/') else { return Some((Vec::new(), value)) };
    let (zones, rest) = inner.rsplit_once('/')?;
    let names = zones.split('/').map(|zone| match zone {
        "#" => Some(Name::root()),
        zone if zone.starts_with('*') => None,
        zone => name(zone.strip_prefix('.').unwrap_or(zone)),
    });
    Some((names.collect::<Option<Vec<_>>>()?, rest.trim()))
}

/// Adds a file that is written with its whole path.
pub(super) fn absolute(
    draft: &mut Draft,
    (line, whole): (usize, &str),
    path: &str,
    list: impl FnOnce(&mut Draft) -> &mut Vec<String>,
) {
    if !path.starts_with('/') || path.contains('\0') {
        return draft.left(line, whole, "the path is not whole: write it from / on");
    }
    let list = list(draft);
    if !list.iter().any(|known| known == path) {
        list.push(path.to_owned());
    }
}

fn why(key: &str) -> &'static str {
    match key {
        "hostsdir" | "dhcp-hostsdir" => "name each file in local_files.hosts",
        "all-servers" => "evenkeel asks a second server where the first is late, within a budget (groups.NAME.hedge)",
        "domain-needed" => "plain names are forwarded like others",
        "log-queries" => "its counterpart is [query_log], which is off: query_log.to says where to",
        "dnssec" | "dnssec-check-unsigned" | "trust-anchor" => {
            "evenkeel does not validate; groups.NAME.trust_ad passes on the verdict of a resolver that does"
        }
        "stop-dns-rebind" | "rebind-localhost-ok" | "rebind-domain-ok" => "answers are not filtered by address",
        "domain" | "expand-hosts" | "localise-queries" => "names of hosts are taken as they are written",
        "user" | "group" | "pid-file" => "the service's unit says it",
        _ if key.starts_with("dhcp") || key.starts_with("tftp") || key.starts_with("pxe") || key == "enable-tftp" => {
            "evenkeel does DNS alone: keep dnsmasq with port=0 for it"
        }
        _ => "evenkeel has nothing like it",
    }
}

pub(super) const NOT_UNDERSTOOD: &str = "its value is not understood";
/// Bytes of one text (`config::local`).
pub(super) const TEXT_BYTES_MAX: usize = 8192;
/// How old a stale answer of dnsmasq is at most, unless it is said.
const STALE_AGE: Duration = Duration::from_secs(86_400);
/// Bytes of one entry of the cache, generously (`main.rs` has what a name of 152 bytes takes).
const ENTRY_BYTES: u64 = 512;
