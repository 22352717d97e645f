//! unbound.conf: sections and `key: value` lines (unbound.conf(5)).
//!
//! Pure. A `forward-zone` or `stub-zone` is a group. Without one for the root unbound resolves by itself; evenkeel
//! forwards, so the system's resolvers are asked, which is said. Private reverse zones are answered by unbound unless
//! `unblock-lan-zones` says otherwise, and so they are here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::dnsmasq::{NOT_UNDERSTOOD, TEXT_BYTES_MAX};
use super::draft::{Draft, Group, Place, Server, seconds};
use super::overlap;
use super::print::below;
use super::words::{self, name, network};
use super::{Format, Unreadable};
use crate::limits;
use crate::wire::Name;

const SECTIONS: [&str; 13] = [
    "server",
    "forward-zone",
    "stub-zone",
    "remote-control",
    "auth-zone",
    "rpz",
    "view",
    "python",
    "dynlib",
    "dnscrypt",
    "cachedb",
    "ipset",
    "dnstap",
];

pub(super) fn read(text: &str) -> Result<Draft, Unreadable> {
    let mut file = File::default();
    let mut section = "";
    for (index, whole) in text.lines().enumerate() {
        let line = index + 1;
        let mut rest = words::without_comment(whole, &['"', '\'']);
        while !rest.is_empty() {
            let found = rest.split_once(':').filter(|(key, _)| {
                !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            });
            let Some((key, value)) = found else {
                let what = format!("{:?} is no `key: value`", words::shown(rest));
                let hint = "unbound.conf has one a line, behind a section such as `server:`; is this one?";
                return Err(Unreadable::new(line, what, hint));
            };
            if let Some(name) = SECTIONS.iter().find(|s| **s == key) {
                section = name;
                file.begin(line, name);
                // What follows on the same line belongs to the section.
                rest = value.trim();
                continue;
            }
            let Some(words) = words::split(value, &['"', '\'']) else {
                return Err(Unreadable::new(line, "a quote is not closed", "close it on its line"));
            };
            file.key(line, section, key, &words);
            rest = "";
        }
    }
    file.end_zone();
    Ok(file.finished())
}

#[derive(Default)]
struct File {
    draft: Draft,
    interfaces: Vec<(usize, String)>,
    port: Option<u16>,
    no_ip4: bool,
    no_ip6: bool,
    tcp: bool,
    tls: bool,
    message_cache: Option<u64>,
    rrset_cache: Option<u64>,
    expired: Option<bool>,
    unblock_lan: bool,
    redirects: Vec<(Place, Name)>,
    data: Vec<Datum>,
    /// Zones of `local-zone`, and whether names that are not there are forwarded. The first of a name counts.
    local_zones: HashMap<Name, Reach>,
    /// Zones that are not answered by default.
    no_default: Vec<(Place, Name)>,
    source: Option<IpAddr>,
    zone: Option<Zone>,
    zones: Vec<Zone>,
}

/// A record of `local-data`.
type Datum = (Place, Name, &'static str, String, Option<Duration>);

/// What becomes of names of a local-zone that are not there.
enum Reach {
    Forwarded(Place),
    Answered,
}

/// A forward-zone or stub-zone while it is read.
#[derive(Default)]
struct Zone {
    line: usize,
    stub: bool,
    name: Option<Name>,
    addresses: Vec<(usize, String)>,
    tls: bool,
    tcp: bool,
}

impl Zone {
    /// Its word in unbound.conf.
    fn word(&self) -> &'static str {
        if self.stub { "stub-zone" } else { "forward-zone" }
    }
}

impl File {
    fn begin(&mut self, line: usize, section: &str) {
        self.end_zone();
        if section == "forward-zone" || section == "stub-zone" {
            self.zone = Some(Zone { line, stub: section == "stub-zone", ..Zone::default() });
        }
    }

    fn end_zone(&mut self) {
        self.zones.extend(self.zone.take());
    }

    fn key(&mut self, line: usize, section: &str, key: &str, words: &[String]) {
        let whole = format!("{key}: {}", words.join(" "));
        match section {
            _ if key == "include" || key == "include-toplevel" => {
                let files = words.first().map_or("", String::as_str);
                let mut why = words::together(Format::Unbound, files);
                if !section.is_empty() && key == "include" {
                    why += &format!("; what is not in a section there belongs to `{section}:`");
                }
                self.draft.left(line, &whole, why);
            }
            "server" => self.server(line, &whole, key, words),
            "forward-zone" | "stub-zone" => self.zone_key(line, &whole, key, words),
            "remote-control" => {
                let why = "evenkeel has its control socket (admin.socket), for root and its own group";
                self.draft.left(line, &whole, why);
            }
            _ => self.draft.left(line, &whole, format!("{section}: evenkeel has nothing like it")),
        }
    }

    fn server(&mut self, line: usize, whole: &str, key: &str, words: &[String]) {
        let value = words.first().map_or("", String::as_str);
        let yes = value == "yes";
        let at = (line, whole);
        let draft = &mut self.draft;
        match key {
            "interface" | "ip-address" => self.interfaces.push((line, value.to_owned())),
            "interface-automatic" => {
                if yes {
                    self.interfaces.extend(["0.0.0.0", "::0"].map(|ip| (line, ip.to_owned())));
                }
            }
            "port" => self.port = value.parse().ok().filter(|p| *p != 0).or(self.port),
            "do-ip4" => self.no_ip4 = value == "no",
            "do-ip6" => self.no_ip6 = value == "no",
            "tcp-upstream" => self.tcp = yes,
            "tls-upstream" | "ssl-upstream" => self.tls = yes,
            "access-control" => self.access(at, value, words.get(1).map_or("", String::as_str)),
            "msg-cache-size" | "rrset-cache-size" => match size(value) {
                Some(bytes) if key == "msg-cache-size" => self.message_cache = Some(bytes),
                Some(bytes) => self.rrset_cache = Some(bytes),
                None => draft.left(line, whole, NOT_UNDERSTOOD),
            },
            "cache-max-ttl"
            | "cache-min-ttl"
            | "cache-max-negative-ttl"
            | "serve-expired-ttl"
            | "serve-expired-reply-ttl" => match seconds(value) {
                Some(span) => self.span(at, key, span),
                None => draft.left(line, whole, NOT_UNDERSTOOD),
            },
            "serve-expired-client-timeout" => match value.parse() {
                Ok(millis) => {
                    let span = draft.span(line, whole, Duration::from_millis(millis), &limits::PATIENCE);
                    draft.stale.patience = Some(span);
                }
                Err(_) => draft.left(line, whole, NOT_UNDERSTOOD),
            },
            "serve-expired" => self.expired = Some(yes),
            "prefetch" => draft.refresh_ahead = Some(yes),
            "rrset-roundrobin" => draft.rotate = Some(yes),
            "num-threads" => match value.parse() {
                Ok(n) => draft.workers = Some(draft.count(line, whole, n, &limits::WORKERS)),
                Err(_) => draft.left(line, whole, NOT_UNDERSTOOD),
            },
            "ip-ratelimit" => match value.parse() {
                Ok(n) => {
                    draft.queries_per_second = Some(draft.count(line, whole, n, &limits::QUERIES_PER_SECOND));
                }
                Err(_) => draft.left(line, whole, NOT_UNDERSTOOD),
            },
            "verbosity" => {
                draft.log_level = match value {
                    "0" => Some("error"),
                    "1" => None,
                    _ => Some("debug"),
                }
            }
            "identity" if value.len() <= 255 => draft.identity = Some(value.to_owned()).filter(|v| !v.is_empty()),
            "outgoing-interface" => match value.parse() {
                Ok(ip) if self.source.is_none() => self.source = Some(ip),
                _ => draft.left(line, whole, "one source address, for all questions of a group (groups.NAME.source)"),
            },
            "local-zone" => self.local_zone(at, words),
            "local-data" => {
                if self.local_data(at, words).is_none() {
                    self.draft.left(line, whole, "A, AAAA, CNAME, PTR, TXT, MX and SRV records can be given here");
                }
            }
            "local-data-ptr" => {
                if self.local_pointer(at, words).is_none() {
                    self.draft.left(line, whole, NOT_UNDERSTOOD);
                }
            }
            "unblock-lan-zones" => self.unblock_lan = yes,
            // What evenkeel does, or never does, anyway.
            "do-udp" | "do-tcp" if yes => {}
            "hide-identity" | "hide-version" | "do-daemonize" | "so-reuseport" | "minimal-responses" if yes => {}
            _ => draft.left(line, whole, why(key)),
        }
    }

    fn span(&mut self, (line, whole): (usize, &str), key: &str, span: Duration) {
        let draft = &mut self.draft;
        match key {
            "cache-max-ttl" => draft.ttl.max = Some(draft.span(line, whole, span, &limits::TTL_MAX)),
            "cache-min-ttl" => draft.ttl.min = Some(draft.span(line, whole, span, &limits::TTL_MIN)),
            "cache-max-negative-ttl" => {
                draft.ttl.max_negative = Some(draft.span(line, whole, span, &limits::TTL_NEGATIVE_MAX));
            }
            "serve-expired-ttl" => {
                // 0 is no bound.
                let span = if span.is_zero() { Duration::MAX } else { span };
                draft.stale.max_age = Some(draft.span(line, whole, span, &limits::STALE_AGE_MAX));
            }
            _ => draft.stale.reply_ttl = Some(draft.span(line, whole, span, &limits::STALE_REPLY_TTL)),
        }
    }

    fn access(&mut self, (line, whole): (usize, &str), net: &str, action: &str) {
        let Some(net) = network(net) else { return self.draft.left(line, whole, NOT_UNDERSTOOD) };
        match action {
            "allow" | "allow_snoop" | "allow_setrd" | "allow_cookie" => self.draft.allow(net),
            // Whoever is not allowed is refused; an exception within what is allowed cannot be said.
            _ if net.prefix_len() == 0 => {}
            _ => self.draft.left(line, whole, "who is not in access.allow is REFUSED; there are no exceptions in it"),
        }
    }

    fn local_zone(&mut self, at @ (line, whole): (usize, &str), words: &[String]) {
        let [zone, kind] = words else { return self.draft.left(line, whole, NOT_UNDERSTOOD) };
        let Some(zone) = name(zone) else { return self.draft.left(line, whole, "the zone is no name") };
        let place = Place { line, what: whole.to_owned() };
        match kind.as_str() {
            "nodefault" => self.no_default.push((place, zone.clone())),
            "transparent" | "typetransparent" | "always_transparent" | "inform" => {
                self.local_zones.entry(zone.clone()).or_insert(Reach::Forwarded(place));
            }
            _ => {
                self.local_zones.entry(zone.clone()).or_insert(Reach::Answered);
            }
        }
        match kind.as_str() {
            "static" | "always_nxdomain" | "inform_deny" | "deny" | "always_deny" => {
                if kind.ends_with("deny") {
                    self.draft.left(line, whole, "such names do not exist here; silence would make clients wait");
                }
                self.draft.zone(at, zone, "nxdomain");
            }
            "refuse" | "always_refuse" => self.draft.zone(at, zone, "refuse"),
            "always_nodata" => self.draft.zone(at, zone, "nodata"),
            "always_null" => {
                let text = zone.to_string();
                for owner in [text.trim_end_matches('.').to_owned(), format!("*.{}", text.trim_end_matches('.'))] {
                    for ip in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
                        self.draft.address(at, &owner, ip, None);
                    }
                }
            }
            "redirect" => self.redirects.push((Place { line, what: whole.to_owned() }, zone)),
            // Records win over what is forwarded, and other names are forwarded: as it is here.
            "transparent" | "typetransparent" | "always_transparent" | "nodefault" => {}
            _ => self.draft.left(line, whole, "evenkeel has nothing like this type of zone"),
        }
    }

    /// `name [ttl] [IN] type data`; `None` where it is not understood.
    fn local_data(&mut self, at: (usize, &str), words: &[String]) -> Option<()> {
        // The whole record is one quoted word; texts within it have quotes of the other kind.
        let whole = words.join(" ");
        let words = words::split(&whole, &['"', '\''])?;
        let mut rest = words.iter().map(String::as_str).peekable();
        let owner = rest.next()?;
        let ttl = rest.peek().and_then(|w| seconds(w));
        if ttl.is_some() {
            rest.next();
        }
        rest.next_if(|w| w.eq_ignore_ascii_case("IN"));
        let kind = rest.next()?.to_ascii_uppercase();
        let data: Vec<&str> = rest.collect();
        let (rtype, value) = match (kind.as_str(), data.as_slice()) {
            ("A", [ip]) => ("A", ip.parse::<Ipv4Addr>().ok()?.to_string()),
            ("AAAA", [ip]) => ("AAAA", ip.parse::<Ipv6Addr>().ok()?.to_string()),
            ("CNAME", [target]) => ("CNAME", name(target).map(|_| (*target).to_owned())?),
            ("PTR", [target]) => ("PTR", name(target).map(|_| (*target).to_owned())?),
            ("TXT", [text]) if text.len() <= TEXT_BYTES_MAX => ("TXT", (*text).to_owned()),
            ("MX", [preference, target]) => {
                preference.parse::<u16>().ok()?;
                name(target)?;
                ("MX", data.join(" "))
            }
            ("SRV", [numbers @ .., target]) if numbers.len() == 3 => {
                numbers.iter().try_for_each(|n| n.parse::<u16>().map(|_| ())).ok()?;
                name(target)?;
                ("SRV", data.join(" "))
            }
            _ => return None,
        };
        let owned = owner.parse::<Name>().ok()?;
        self.draft.record(at, owner, rtype, value.clone(), ttl);
        let place = Place { line: at.0, what: at.1.to_owned() };
        self.data.push((place, owned, rtype, value, ttl));
        Some(())
    }

    /// `address [ttl] name`.
    fn local_pointer(&mut self, at: (usize, &str), words: &[String]) -> Option<()> {
        let whole = words.join(" ");
        let words: Vec<&str> = whole.split_whitespace().collect();
        let (ip, ttl, target) = match words[..] {
            [ip, target] => (ip, None, target),
            [ip, ttl, target] => (ip, Some(seconds(ttl)?), target),
            _ => return None,
        };
        name(target)?;
        let zone = words::reverse_zones(ip.parse::<IpAddr>().ok()?.into()).pop()?;
        self.draft.record(at, zone.to_string().trim_end_matches('.'), "PTR", target.to_owned(), ttl);
        Some(())
    }

    fn zone_key(&mut self, line: usize, whole: &str, key: &str, words: &[String]) {
        let Some(zone) = &mut self.zone else { return };
        let value = words.first().map_or("", String::as_str);
        match key {
            "name" => zone.name = name(value),
            "forward-addr" | "stub-addr" => zone.addresses.push((line, value.to_owned())),
            "forward-tls-upstream" | "forward-ssl-upstream" | "stub-tls-upstream" | "stub-ssl-upstream" => {
                zone.tls = value == "yes";
            }
            "forward-tcp-upstream" | "stub-tcp-upstream" => zone.tcp = value == "yes",
            "forward-host" | "stub-host" => {
                self.draft.left(line, whole, "servers are written by address: names of servers are not looked up");
            }
            "forward-first" | "stub-first" if value == "yes" => {
                let why = "evenkeel does not resolve by itself: name other servers in groups.NAME.secondary";
                self.draft.left(line, whole, why);
            }
            "forward-first" | "stub-first" => {}
            _ => self.draft.left(line, whole, "evenkeel has nothing like it"),
        }
    }

    fn finished(mut self) -> Draft {
        self.listeners();
        if let (false, None) = (self.message_cache.is_none() && self.rrset_cache.is_none(), self.draft.max_bytes) {
            let bytes =
                self.message_cache.unwrap_or(UNBOUND_CACHE).saturating_add(self.rrset_cache.unwrap_or(UNBOUND_CACHE));
            self.draft.max_bytes = Some(bytes.clamp(limits::CACHE_BYTES.min, limits::CACHE_BYTES.max));
        }
        match self.expired {
            Some(false) => self.draft.stale.max_age = Some(Duration::ZERO),
            Some(true) => {}
            // Without it, what else is said of it has no effect there.
            None => self.draft.stale = Default::default(),
        }
        self.redirect();
        self.forwarded_beside_local();
        for zone in std::mem::take(&mut self.zones) {
            self.group(zone);
        }
        if !self.draft.groups.iter().any(|g| g.zones.contains(&Name::root())) {
            let why = "unbound resolves by itself; evenkeel forwards, here to the system's resolvers";
            self.draft.left(1, "no forward-zone for \".\"", why);
            let source = self.source;
            let root = Group { zones: vec![Name::root()], servers: vec![Server::System], source, ..Group::default() };
            self.draft.group((1, "."), root);
        }
        self.draft.groups.sort_by_key(|g| !g.zones.contains(&Name::root()));
        self.draft
    }

    /// All names below a redirected zone have its data, wherever that stands in the file; without data they are empty.
    fn redirect(&mut self) {
        let mut data: HashMap<&Name, Vec<&Datum>> = HashMap::new();
        self.data.iter().for_each(|datum| data.entry(&datum.1).or_default().push(datum));
        for (at, zone) in &self.redirects {
            match data.get(zone) {
                None => self.draft.zone((at.line, &at.what), zone.clone(), "nodata"),
                Some(data) => {
                    for (at, owner, rtype, value, ttl) in data {
                        self.draft.record((at.line, &at.what), &below(owner), rtype, value.clone(), *ttl);
                    }
                }
            }
        }
    }

    /// unbound answers from the longest local-zone before it asks anybody; only one that is open lets names within a
    /// closed one out. A private reverse zone is closed by default, which an operator who names its servers forgot.
    fn forwarded_beside_local(&mut self) {
        let mut open: Vec<(&Place, &Name)> = Vec::new();
        for (zone, reach) in &self.local_zones {
            if let Reach::Forwarded(at) = reach {
                open.push((at, zone));
            }
        }
        open.sort_by_key(|(at, _)| at.line);
        let names: Vec<Name> = open.iter().map(|(_, zone)| (*zone).clone()).collect();
        overlap::give_way(&mut self.draft, &names, |_, _| true);
        open.extend(self.no_default.iter().map(|(at, zone)| (at, zone)));

        let mut forwarded: Vec<(Place, Name)> =
            open.into_iter().map(|(at, zone)| (at.clone(), zone.clone())).collect();
        for zone in &self.zones {
            let Some(name) = &zone.name else { continue };
            let at = Place { line: zone.line, what: format!("{} {name}", zone.word()) };
            match overlap::and_above(name).find_map(|above| Some((self.local_zones.get(&above)?, above))) {
                Some((Reach::Answered, above)) => {
                    let why = format!("it is never asked, there as here: the local-zone {above} answers before it");
                    self.draft.left(at.line, &at.what, why);
                }
                _ => forwarded.push((at, name.clone())),
            }
        }
        self.draft.private_reverse = (!self.unblock_lan).then_some("nxdomain");
        let private = overlap::private_reverse_zones();
        if let Some((at, zone)) = forwarded.iter().find(|(_, zone)| private.iter().any(|p| zone.is_in(p))) {
            overlap::open_private_reverse(&mut self.draft, (at.line, &at.what), zone);
        }
    }

    fn listeners(&mut self) {
        let port = self.port.unwrap_or(53);
        if self.interfaces.is_empty() {
            self.interfaces = vec![(1, "127.0.0.1".to_owned()), (1, "::1".to_owned())];
        }
        for (line, word) in std::mem::take(&mut self.interfaces) {
            let (ip, at) = word.split_once('@').map_or((word.as_str(), None), |(ip, at)| (ip, Some(at)));
            let port = at.map_or(Some(port), |at| at.parse().ok());
            match (ip.parse::<IpAddr>(), port) {
                (Ok(ip), Some(_)) if ip.is_ipv4() && self.no_ip4 || ip.is_ipv6() && self.no_ip6 => {}
                (Ok(ip), Some(port)) if port != 0 && !ip.is_multicast() => {
                    self.draft.listen(line, &word, SocketAddr::new(ip, port));
                }
                _ => self.draft.left(line, &word, "evenkeel listens on addresses: name those of the interface"),
            }
        }
        // unbound lets its own machine ask, and nobody else, unless it is told otherwise.
        if !self.draft.allow.is_empty() || self.draft.listen.iter().any(|a| !a.ip().to_canonical().is_loopback()) {
            self.draft.allow.insert(0, "loopback".to_owned());
        }
    }

    fn group(&mut self, zone: Zone) {
        let what = zone.word();
        let Some(name) = zone.name else { return self.draft.left(zone.line, what, "its name is missing, or none") };
        let at = format!("{what} {name}");
        let mut group = Group { zones: vec![name.clone()], source: self.source, ..Group::default() };
        for (line, word) in zone.addresses {
            let (address, host) = word.split_once('#').map_or((word.as_str(), None), |(a, h)| (a, Some(h)));
            let tls = zone.tls || self.tls;
            let with_port = if tls && !address.contains('@') { format!("{address}@853") } else { address.to_owned() };
            let Some(server) = words::server(&with_port, '@') else {
                self.draft.left(line, &word, "servers are written by address: 192.0.2.1 or 192.0.2.1@53");
                continue;
            };
            if server.is_ipv6() && self.no_ip6 || server.is_ipv4() && self.no_ip4 {
                self.draft.left(line, &word, "its family is switched off (do-ip4, do-ip6)");
            } else if tls {
                let host = host.map_or(String::new(), |host| format!("#{}", words::shown(host)));
                group.later.push(format!("primary: tls://{server}{host}, once encrypted transports are there"));
                self.draft.left(line, &word, "encrypted upstreams are not in this version");
            } else if let Err(why) = group.server(Server::At { address: server, tcp: zone.tcp || self.tcp }) {
                self.draft.left(line, &word, why);
            }
        }
        if zone.stub {
            let why = "its servers are asked as resolvers are: they must answer for every name below it";
            self.draft.left(zone.line, &at, why);
        }
        self.draft.group((zone.line, &at), group);
    }
}

/// unbound's default of each of its two caches.
const UNBOUND_CACHE: u64 = 4 << 20;

fn size(word: &str) -> Option<u64> {
    let word = word.to_ascii_lowercase();
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = word.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn why(key: &str) -> &'static str {
    match key {
        "auto-trust-anchor-file" | "trust-anchor" | "trust-anchor-file" | "module-config" | "domain-insecure" => {
            "evenkeel does not validate; groups.NAME.trust_ad passes on the verdict of a resolver that does"
        }
        _ if key.starts_with("val-") => "evenkeel does not validate",
        "root-hints" | "qname-minimisation" | "private-address" | "private-domain" | "prefetch-key" => {
            "it is of a resolver; evenkeel forwards"
        }
        _ if key.starts_with("harden-") || key.starts_with("do-not-query-") || key.starts_with("infra-") => {
            "it is of a resolver; evenkeel forwards"
        }
        _ if key.starts_with("tls-") || key.starts_with("ssl-") || key.starts_with("https-") => {
            "encrypted transports are not in this version"
        }
        "log-queries" | "log-replies" => "its counterpart is [query_log], which is off: query_log.to says where to",
        "username" | "chroot" | "directory" | "pidfile" | "logfile" | "use-syslog" | "do-daemonize" => {
            "the service's unit says it"
        }
        _ => "evenkeel has nothing like it",
    }
}
