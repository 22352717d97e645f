//! Corefile: server blocks with plugins (coredns.io/manual, the README of each plugin), and the placeholders of
//! NodeLocal DNSCache's manifest.
//!
//! Pure. A block's `forward` makes a group of the block's zones, with the TTLs of its `cache`. Without `bind` a block
//! listens everywhere. Snippets (`(name) { … }` and `import name`) are put in where they are imported.
//!
//! Placeholders (`__PILLAR__…__`) are filled by whoever installs NodeLocal DNSCache, and by the program at its start:
//! `__PILLAR__LOCAL__DNS__` is 169.254.20.10 by convention, `__PILLAR__DNS__DOMAIN__` cluster.local, and
//! `__PILLAR__UPSTREAM__SERVERS__` the node's resolvers unless the cluster says otherwise: these are taken, and said.
//! `__PILLAR__DNS__SERVER__` and `__PILLAR__CLUSTER__DNS__` are addresses that only the cluster knows: they are left,
//! with the command that prints them, and the groups that need them have no server until they are written in.

mod structure;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use self::structure::{Block, Directive, blocks};
use super::Unreadable;
use super::dnsmasq::{NOT_UNDERSTOOD, absolute};
use super::draft::{Draft, Group, Server, Stale, Ttl, seconds};
use super::overlap;
use super::words::{self, name, network, one_server, reverse_zones};
use crate::config::human;
use crate::limits;
use crate::wire::Name;

pub(super) fn read(text: &str) -> Result<Draft, Unreadable> {
    let blocks = blocks(text)?;
    let mut draft = Draft::default();
    let said: Vec<Said> = blocks.iter().map(|block| self::block(&mut draft, block)).collect();
    forwarded_beside_local(&mut draft, &said);
    let first = said.iter().find_map(|s| s.ports.first());
    if let Some(at) = said.iter().position(|s| s.ports.iter().any(|port| Some(port) != first)) {
        let why = "the zones of a block are answered on all of listen.dns, whatever their ports";
        draft.left(blocks[at].line, &blocks[at].keys.join(" "), why);
    }
    if draft.listen.iter().any(|a| !a.ip().is_loopback()) && draft.allow.is_empty() {
        draft.allow = ["loopback", "local", "private"].map(str::to_owned).to_vec();
        let what = "who may ask";
        draft.left(1, what, "CoreDNS answers anybody; here this node, its pods and private networks (access.allow)");
    }
    draft.groups.sort_by_key(|g| !g.zones.contains(&Name::root()));
    Ok(draft)
}

/// A name is in the block of the longest zone, and there a template answers before `forward` does. What `except` names
/// is for the other `forward` of the block.
fn forwarded_beside_local(draft: &mut Draft, said: &[Said]) {
    let blocks: HashSet<&Name> = said.iter().flat_map(|s| &s.zones).collect();
    let mut templates: HashMap<Name, &[Name]> = HashMap::new();
    for said in said {
        said.templates.iter().for_each(|zone| _ = templates.entry(zone.clone()).or_insert(&said.zones));
    }
    let asked = draft.groups.iter().filter(|g| !g.servers.is_empty() || !g.later.is_empty());
    let forwarded: Vec<Name> = asked.flat_map(|g| g.zones.iter().cloned()).collect();
    overlap::give_way(draft, &forwarded, |local, open| {
        let Some(own) = templates.get(local) else { return true };
        !overlap::and_above(open).find(|above| blocks.contains(above)).is_some_and(|block| own.contains(&block))
    });
}

//------------ Blocks ------------------------------------------------------------------------------------------------

/// What the plugins of a block say together.
#[derive(Default)]
struct Said {
    zones: Vec<Name>,
    ports: Vec<u16>,
    ttl: Ttl,
    stale: Stale,
    /// Zones that a template answers for.
    templates: Vec<Name>,
    bound: bool,
    forwards: Vec<(usize, String, Vec<Name>, Group)>,
}

fn block(draft: &mut Draft, block: &Block) -> Said {
    let mut said = Said::default();
    for key in &block.keys {
        let plain = key.strip_prefix("dns://").unwrap_or(key);
        if let Some((scheme, _)) = plain.split_once("://") {
            let why = format!("evenkeel does not listen for {}: only UDP and TCP", words::shown(scheme));
            draft.left(block.line, key, why);
            continue;
        }
        let (zone, port) = match plain.rsplit_once(':') {
            Some((zone, at)) if at.bytes().all(|b| b.is_ascii_digit()) && !at.is_empty() => (zone, at.parse().ok()),
            _ => (plain, Some(53)),
        };
        match port.filter(|port| *port != 0) {
            Some(port) if !said.ports.contains(&port) => said.ports.push(port),
            Some(_) => {}
            None => draft.left(block.line, key, "its port is none"),
        }
        match zones_of(draft, block.line, if zone.is_empty() { "." } else { zone }) {
            zones if zones.is_empty() => draft.left(block.line, key, "its zone is not understood"),
            zones => said.zones.extend(zones),
        }
    }
    for directive in &block.directives {
        plugin(draft, &mut said, directive);
    }
    if !said.bound {
        for port in &said.ports {
            draft.listen(block.line, &block.keys.join(" "), (Ipv4Addr::UNSPECIFIED, *port).into());
            draft.listen(block.line, &block.keys.join(" "), (Ipv6Addr::UNSPECIFIED, *port).into());
        }
    }
    for (line, whole, zones, group) in std::mem::take(&mut said.forwards) {
        let zones = if zones.is_empty() { said.zones.clone() } else { zones };
        draft.group((line, &whole), Group { zones, ttl: said.ttl.clone(), stale: said.stale.clone(), ..group });
    }
    said
}

/// A zone as blocks and plugins name it: a name, a network in the place of its reverse zones, a placeholder.
fn zones_of(draft: &mut Draft, line: usize, word: &str) -> Vec<Name> {
    if word == "__PILLAR__DNS__DOMAIN__" {
        draft.left(line, word, "cluster.local is written: correct it where the cluster has another domain");
        return "cluster.local".parse().into_iter().collect();
    }
    if word.contains('/') {
        return network(word).map(reverse_zones).unwrap_or_default();
    }
    if word.contains("__PILLAR__") { Vec::new() } else { name(word).into_iter().collect() }
}

fn plugin(draft: &mut Draft, said: &mut Said, directive: &Directive) {
    let (line, whole) = (directive.line, directive.shown());
    match directive.word() {
        // evenkeel does so anyway: errors are logged, loops found, addresses turned, ANY refused (RFC 8482).
        "errors" | "loop" | "loadbalance" | "any" | "local" | "minimal" | "metadata" => {}
        "bind" => bind(draft, said, directive),
        "forward" => forward(draft, said, directive),
        "cache" => cache(draft, said, directive),
        "hosts" => hosts(draft, directive),
        "template" => template(draft, said, directive),
        "acl" => acl(draft, directive),
        "health" | "ready" => {
            let path = if directive.word() == "health" { "/healthz" } else { "/readyz" };
            draft.left(line, &whole, format!("{path} of admin.listen (127.0.0.1:9553) is what to probe"));
            for inner in &directive.inner {
                match (inner.word(), inner.arguments().first().and_then(|w| span(w))) {
                    ("lameduck", Some(span)) => {
                        draft.drain = Some(draft.span(inner.line, &inner.shown(), span, &limits::DRAIN));
                    }
                    _ => draft.left(inner.line, &inner.shown(), NOTHING_LIKE_IT),
                }
            }
        }
        "prometheus" => prometheus(draft, directive),
        "reload" => {
            draft.left(line, &whole, "`evenkeel serve --watch` does so; SIGHUP and `evenkeel reload` do always")
        }
        "chaos" | "nsid" if !directive.arguments().is_empty() => {
            let identity = directive.arguments()[0].clone();
            if identity.len() <= 255 {
                draft.identity = Some(identity);
            }
        }
        "import" => draft.left(line, &whole, "the files it names are not read: import each by itself"),
        word => {
            let why = match word {
                "kubernetes" => {
                    "evenkeel does not read the Kubernetes API: give these zones a group whose primary is the \
                     cluster's DNS service"
                }
                "log" | "dnstap" => "its counterpart is [query_log], which is off: query_log.to says where to",
                "file" | "auto" | "secondary" | "etcd" | "route53" | "clouddns" | "azure" | "k8s_external" => {
                    "evenkeel has no zones of its own: give these a group that asks the servers that do"
                }
                "bufsize" => "1232 bytes are offered, always",
                _ => NOTHING_LIKE_IT,
            };
            draft.left(line, &whole, why);
            for inner in &directive.inner {
                draft.left(inner.line, &inner.shown(), format!("as {} is left", words::shown(word)));
            }
        }
    }
}

const NOTHING_LIKE_IT: &str = "evenkeel has nothing like it";

fn bind(draft: &mut Draft, said: &mut Said, directive: &Directive) {
    said.bound = true;
    let (line, whole) = (directive.line, directive.shown());
    let listen = |draft: &mut Draft, ip: IpAddr| {
        said.ports.iter().for_each(|port| draft.listen(line, &whole, SocketAddr::new(ip, *port)));
    };
    for word in directive.arguments() {
        match (word.as_str(), word.parse::<IpAddr>()) {
            (_, Ok(ip)) if !ip.is_multicast() => listen(draft, ip),
            ("__PILLAR__LOCAL__DNS__", _) => {
                listen(draft, LOCAL_DNS.into());
                draft.left(line, word, "169.254.20.10, as by convention, is written: correct it where it is another");
            }
            ("__PILLAR__DNS__SERVER__", _) => {
                let why = "add to listen.dns what this prints: kubectl -n kube-system get service kube-dns \
                           -o jsonpath={.spec.clusterIP}";
                draft.left(line, word, why);
            }
            _ => draft.left(line, word, "evenkeel listens on addresses: name those of the interface in listen.dns"),
        }
    }
    for inner in &directive.inner {
        draft.left(inner.line, &inner.shown(), NOTHING_LIKE_IT);
    }
}

const LOCAL_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);

fn forward(draft: &mut Draft, said: &mut Said, directive: &Directive) {
    let (line, whole) = (directive.line, directive.shown());
    let Some((from, to)) = directive.arguments().split_first() else {
        return draft.left(line, &whole, NOT_UNDERSTOOD);
    };
    let mut group = Group::default();
    let tcp = directive.inner.iter().any(|d| d.word() == "force_tcp");
    for word in to {
        let plain = word.strip_prefix("dns://").unwrap_or(word);
        let address =
            plain.parse::<SocketAddr>().ok().or_else(|| plain.parse::<IpAddr>().ok().map(|ip| (ip, 53).into()));
        if let Some(address) = address.and_then(one_server) {
            if let Err(why) = group.server(Server::At { address, tcp }) {
                draft.left(line, word, why);
            }
        } else if plain.starts_with('/') {
            let _ = group.server(Server::System);
            // /etc/resolv.conf is among evenkeel's own, behind files that know more.
            if plain != "/etc/resolv.conf" {
                absolute(draft, (line, &whole), plain, |d| &mut d.system_files);
            }
            if tcp {
                draft.left(line, "force_tcp", "the servers of a resolv.conf are asked over UDP first");
            }
        } else if plain == "__PILLAR__UPSTREAM__SERVERS__" {
            let _ = group.server(Server::System);
            draft.left(line, word, "the node's own resolvers (\"system\") are written, as they are its default");
        } else if plain == "__PILLAR__CLUSTER__DNS__" {
            let why = "write into primary what this prints: kubectl -n kube-system get service kube-dns-upstream \
                       -o jsonpath={.spec.clusterIP}";
            draft.left(line, word, why);
            let scheme = if tcp { "tcp://" } else { "" };
            group
                .later
                .push(format!("primary = [\"{scheme}ADDRESS\"], the address of the service kube-dns-upstream"));
        } else if plain.starts_with("tls://") {
            group.later.push(format!("primary: {}, once encrypted transports are there", words::shown(word)));
            draft.left(line, word, "encrypted upstreams are not in this version");
        } else {
            draft.left(line, word, "servers are written by address: names of servers are not looked up");
        }
    }
    for inner in &directive.inner {
        forward_option(draft, &mut group, inner);
    }
    let zones = if from == "." { Vec::new() } else { zones_of(draft, line, from) };
    if zones.is_empty() && from != "." {
        return draft.left(line, &whole, "the zone that it forwards is not understood");
    }
    said.forwards.push((line, whole, zones, group));
}

fn forward_option(draft: &mut Draft, group: &mut Group, option: &Directive) {
    let (line, whole) = (option.line, option.shown());
    let first = option.arguments().first().map_or("", String::as_str);
    match option.word() {
        // UDP first is what evenkeel does.
        "force_tcp" | "prefer_udp" => {}
        "policy" if first == "sequential" => group.listed = true,
        "policy" => draft.left(line, &whole, "inside a tier the fastest server is asked first (order = \"latency\")"),
        "max_fails" => match first.parse::<u64>() {
            Ok(0) => draft.left(line, &whole, "health is always watched; where all servers look down one is asked"),
            Ok(n) => group.fall = Some(draft.count(line, &whole, n, &limits::FALL)),
            Err(_) => draft.left(line, &whole, NOT_UNDERSTOOD),
        },
        "health_check" => match span(first) {
            Some(span) => {
                group.every = Some(draft.span(line, &whole, span, &limits::PROBE_EVERY));
                if option.arguments().len() > 1 {
                    draft.left(line, &whole, "probes are questions of their own: groups.NAME.health.probes");
                }
            }
            None => draft.left(line, &whole, NOT_UNDERSTOOD),
        },
        "max_concurrent" => match first.parse() {
            Ok(n) => group.in_flight_max = Some(draft.count(line, &whole, n, &limits::IN_FLIGHT)),
            Err(_) => draft.left(line, &whole, NOT_UNDERSTOOD),
        },
        "except" => {
            for word in option.arguments() {
                match zones_of(draft, line, word) {
                    zones if zones.is_empty() => draft.left(line, word, "the zone is not understood"),
                    zones => zones.into_iter().for_each(|zone| draft.zone((line, &whole), zone, "refuse")),
                }
            }
        }
        "expire" | "max_idle_conns" => {
            draft.left(line, &whole, "connections to a server are kept and given up by evenkeel's own rules");
        }
        "tls" | "tls_servername" => draft.left(line, &whole, "encrypted upstreams are not in this version"),
        "next" | "failover" => {
            draft.left(line, &whole, "SERVFAIL and REFUSED go to the next server; other answers are taken");
        }
        "failfast_all_unhealthy_upstreams" => draft.left(line, &whole, "where all servers look down one is asked"),
        _ => draft.left(line, &whole, NOTHING_LIKE_IT),
    }
}

fn cache(draft: &mut Draft, said: &mut Said, directive: &Directive) {
    let (line, whole) = (directive.line, directive.shown());
    let mut arguments = directive.arguments().iter().peekable();
    if let Some(ttl) = arguments.peek().and_then(|w| seconds(w)) {
        arguments.next();
        said.ttl.max = Some(draft.span(line, &whole, ttl, &limits::TTL_MAX));
        said.ttl.max_negative = Some(draft.span(line, &whole, ttl, &limits::TTL_NEGATIVE_MAX));
    }
    if arguments.next().is_some() {
        draft.left(line, &whole, "its TTLs hold for all zones of the block");
    }
    for option in &directive.inner {
        cache_option(draft, said, option);
    }
}

fn cache_option(draft: &mut Draft, said: &mut Said, option: &Directive) {
    let (line, whole) = (option.line, option.shown());
    let first = option.arguments().first().map_or("", String::as_str);
    match option.word() {
        kind @ ("success" | "denial") => {
            draft.left(line, &whole, "the cache is bounded in bytes (cache.max_bytes), not in answers");
            let ttl = option.arguments().get(1).and_then(|w| seconds(w));
            match (kind, ttl) {
                ("success", Some(ttl)) => said.ttl.max = Some(draft.span(line, &whole, ttl, &limits::TTL_MAX)),
                (_, Some(ttl)) => {
                    said.ttl.max_negative = Some(draft.span(line, &whole, ttl, &limits::TTL_NEGATIVE_MAX));
                }
                _ => {}
            }
            if let Some(ttl) = option.arguments().get(2).and_then(|w| seconds(w)) {
                match kind {
                    "success" => said.ttl.min = Some(draft.span(line, &whole, ttl, &limits::TTL_MIN)),
                    _ => draft.left(line, &whole, "negative answers have no least TTL"),
                }
            }
        }
        "prefetch" => {
            draft.refresh_ahead = Some(first != "0");
            draft.left(line, &whole, "what is asked twice near the end of its TTL is asked ahead; no other numbers");
        }
        "serve_stale" => {
            let given = option.arguments().iter().find_map(|w| span(w));
            let age = given.unwrap_or(Duration::from_secs(3600));
            said.stale.max_age = Some(draft.span(line, &whole, age, &limits::STALE_AGE_MAX));
            if option.arguments().iter().any(|w| w == "immediate") || option.arguments().len() < 2 {
                let why = "stale answers go out first only while upstreams are down; else after stale.patience";
                draft.left(line, &whole, why);
            }
        }
        "servfail" => draft.left(line, &whole, "failures are remembered for 1 s, doubling to 30 s"),
        "disable" => draft.left(line, &whole, "nothing is kept out of the cache; a short max_ttl comes near it"),
        _ => draft.left(line, &whole, NOTHING_LIKE_IT),
    }
}

fn hosts(draft: &mut Draft, directive: &Directive) {
    let (line, whole) = (directive.line, directive.shown());
    let file = directive.arguments().first().filter(|w| w.starts_with('/')).map_or("/etc/hosts", String::as_str);
    absolute(draft, (line, &whole), file, |d| &mut d.hosts);
    if draft.listen.iter().any(|a| !a.ip().is_loopback()) || draft.listen.is_empty() {
        draft.left(
            line,
            &whole,
            "hosts files are read only where all of listen.dns is loopback; [[local]] always is",
        );
    }
    let ttl = directive.inner.iter().filter(|d| d.word() == "ttl").find_map(|d| seconds(d.arguments().first()?));
    // What the plugin says of its own names.
    let ttl = Some(ttl.unwrap_or(Duration::from_secs(3600)));
    let mut through = false;
    for inner in &directive.inner {
        let at = (inner.line, inner.shown());
        match (inner.word(), inner.word().parse::<IpAddr>()) {
            (_, Ok(ip)) => {
                for host in inner.arguments() {
                    draft.address((at.0, &at.1), host, ip, ttl);
                }
            }
            ("ttl" | "reload", _) => {}
            ("fallthrough", _) => {
                through = true;
                if !inner.arguments().is_empty() {
                    draft.left(at.0, &at.1, "all names that are not there are forwarded");
                }
            }
            _ => draft.left(at.0, &at.1, NOTHING_LIKE_IT),
        }
    }
    if !through {
        draft.left(line, &whole, "without fallthrough other names do not exist; here they are forwarded");
    }
}

/// A zone that does not exist, is empty, or is refused; anything else is left.
fn template(draft: &mut Draft, said: &mut Said, directive: &Directive) {
    let (line, whole) = (directive.line, directive.shown());
    let at = (line, whole.as_str());
    let arguments = directive.arguments();
    let any = |n: usize, or: &str| arguments.get(n).is_some_and(|w| w == "ANY" || w == or);
    let rcode = directive.inner.iter().find(|d| d.word() == "rcode").and_then(|d| d.arguments().first());
    let action = match rcode.map(|r| r.to_ascii_uppercase()).as_deref() {
        Some("NXDOMAIN") => Some("nxdomain"),
        Some("REFUSED") => Some("refuse"),
        Some("NOERROR") => Some("nodata"),
        _ => None,
    };
    let simple = directive.inner.iter().all(|d| matches!(d.word(), "rcode" | "authority"));
    let mut zones: Vec<Name> = Vec::new();
    for word in arguments.get(2..).unwrap_or(&[]) {
        zones.extend(zones_of(draft, line, word));
    }
    if arguments.len() <= 2 {
        zones.clone_from(&said.zones);
    }
    match action {
        Some(action) if any(0, "IN") && any(1, "ANY") && simple && !zones.contains(&Name::root()) => {
            for zone in zones {
                said.templates.push(zone.clone());
                draft.zone(at, zone, action);
            }
        }
        _ => {
            let why = "only whole zones that do not exist, are empty or are refused can be said ([[local]])";
            draft.left(line, &whole, why);
            for inner in &directive.inner {
                draft.left(inner.line, &inner.shown(), "as template is left");
            }
        }
    }
}

/// The first rule that matches decides, and whom none matches may ask: only behind a last rule that keeps everybody out
/// do those before it say who may. Rules behind one that is for everybody are never reached.
fn acl(draft: &mut Draft, directive: &Directive) {
    let (line, whole) = (directive.line, directive.shown());
    let everybody = |rule: &Directive| matches!(rule_of(rule), Some((_, nets)) if everyone(&nets));
    let end = directive.inner.iter().position(everybody);
    let closed = end.is_some_and(|at| directive.inner[at].word() != "allow");
    if closed {
        draft.left(line, &whole, "access.allow holds for all zones, not for those of a block");
    } else {
        let why =
            "access.allow is not narrowed by it: without a last `block` an acl lets everybody in whom no rule names";
        draft.left(line, &whole, why);
    }
    let end = end.unwrap_or(directive.inner.len());
    for (at, rule) in directive.inner.iter().enumerate() {
        let (line, whole) = (rule.line, rule.shown());
        match rule_of(rule) {
            _ if at > end => draft.left(line, &whole, "no question reaches it: a rule before it is for everybody"),
            _ if at == end => {}
            Some(("allow", nets)) if closed => nets.into_iter().for_each(|net| draft.allow(net)),
            Some(("allow", _)) => {}
            _ => draft.left(line, &whole, "who is not in access.allow is REFUSED; there are no exceptions in it"),
        }
    }
    if closed && draft.allow.is_empty() {
        draft.allow.push("loopback".to_owned());
        draft.left(line, &whole, "nobody is allowed there; here loopback always is");
    }
}

/// What a rule of an acl does, and to whom; `None` where it is for some types, or is not understood.
fn rule_of(rule: &Directive) -> Option<(&str, Vec<IpNet>)> {
    let mut nets = Vec::new();
    let mut words = rule.arguments().iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let mut values = Vec::new();
        while let Some(value) = words.next_if(|w| !matches!(*w, "net" | "type")) {
            values.push(value);
        }
        match word {
            "type" | "net" if values == ["*"] => {}
            "net" if !values.is_empty() => {
                for value in values {
                    nets.push(network(value)?);
                }
            }
            _ => return None,
        }
    }
    if nets.is_empty() {
        nets = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()]
            .into_iter()
            .filter_map(|ip| IpNet::new(ip, 0).ok())
            .collect();
    }
    matches!(rule.word(), "allow" | "block" | "filter" | "drop").then(|| (rule.word(), nets))
}

fn everyone(nets: &[IpNet]) -> bool {
    let all = |v4: bool| nets.iter().any(|net| net.prefix_len() == 0 && net.addr().is_ipv4() == v4);
    all(true) && all(false)
}

fn prometheus(draft: &mut Draft, directive: &Directive) {
    let (line, whole) = (directive.line, directive.shown());
    let word = directive.arguments().first().map_or("localhost:9153", String::as_str);
    match word.replace("localhost", "127.0.0.1").parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() && draft.admin.is_none_or(|a| a == address) => {
            draft.admin = Some(address);
        }
        _ => {
            let why = "/metrics is on admin.listen (127.0.0.1:9553); beyond loopback it needs admin.allow as well";
            draft.left(line, &whole, why);
        }
    }
}

/// A span as Go writes it, as far as evenkeel writes it so: `5s`, `1h30m`, no fractions.
fn span(word: &str) -> Option<Duration> {
    human::span(word)
}
