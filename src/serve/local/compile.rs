//! From settings and hosts files to the tree of names that [`Local`] looks up in.
//!
//! Pure. Sources are taken in the order in which they have the say: `[[local]]`, hosts files, PTRs that follow from
//! `[[local]]` addresses, what is built in. Zones of the settings come last, so that they replace a built-in one of
//! the same name. What cannot be used is left out, with a remark; remarks are bounded.

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::path::PathBuf;

use super::{BUILT_IN_TTL, HEALTH_NAME, Local, LocalSettings, Names, Node, Record, Source, ZoneAction};
use crate::wire::name::{Shown, suffixes};
use crate::wire::{Name, rtype};

/// TTL of what hosts files say: they are re-read as they change, so it is short.
const HOSTS_TTL: u32 = 60;
/// Records of one name.
const RECORDS_PER_NAME_MAX: usize = 512;
/// Remarks on settings and hosts files; further ones are counted.
pub(super) const REMARKS_MAX: usize = 16;

/// Compiles settings and the texts of the hosts files, and says what was left out.
pub(super) fn compile(settings: &LocalSettings, hosts_texts: &[String]) -> (Local, Vec<String>) {
    let mut build = Build { names: Names::default(), remarks: Vec::new(), unsaid: 0 };
    for record in &settings.records {
        // Looked up as it stands when the alias is followed, so it must be one folded name.
        let target = (record.rtype == rtype::CNAME).then(|| Name::from_wire(&record.data));
        let data = match &target {
            Some(None) => {
                build.remark(format!("the target of {} is no name: left out", record.name));
                continue;
            }
            Some(Some(target)) => target.as_wire(),
            None => &record.data,
        };
        build.record(&record.name, Record::new(record.rtype, record.ttl, data, Source::Settings));
    }
    for (number, text) in hosts_texts.iter().enumerate() {
        build.hosts(settings.hosts.get(number), text);
    }
    build.reverse_of(settings);
    build.built_in(settings.private_reverse_nxdomain);
    for (zone, action) in &settings.zones {
        build.zone(zone, *action);
    }
    let identity = settings.identity.as_ref().map(|text| {
        let text = &text.as_bytes()[..text.len().min(255)];
        [&[text.len() as u8], text].concat().into()
    });
    build.finish(identity)
}

impl Record {
    fn new(rtype: u16, ttl: u32, data: &[u8], source: Source) -> Self {
        Self { rtype, ttl, data: data.into(), source, loopback_only: false }
    }

    /// The address that it holds, where it is an A or AAAA record.
    fn address(&self) -> Option<IpAddr> {
        match self.rtype {
            rtype::A => <[u8; 4]>::try_from(&*self.data).ok().map(IpAddr::from),
            rtype::AAAA => <[u8; 16]>::try_from(&*self.data).ok().map(IpAddr::from),
            _ => None,
        }
    }
}

struct Build {
    names: Names,
    remarks: Vec<String>,
    unsaid: usize,
}

impl Build {
    fn node(&mut self, name: &[u8]) -> &mut Node {
        for above in suffixes(name).skip(1) {
            if let Entry::Vacant(vacant) = self.names.entry(above.into()) {
                vacant.insert(Node::default());
            }
        }
        self.names.entry(name.into()).or_default()
    }

    fn record(&mut self, name: &Name, record: Record) {
        let (name, below) = pattern(name);
        // Loopback-only names are as if they were not there for everyone else, so nothing above them exists by them.
        if !record.loopback_only {
            for above in suffixes(name).skip(usize::from(!below)) {
                self.names.entry(above.into()).or_default().parent = true;
            }
        }
        let node = self.node(name);
        let records = if below { &mut node.below } else { &mut node.own };
        let outranked = |r: &Record| {
            r.source < record.source
                && (r.rtype == record.rtype || r.rtype == rtype::CNAME || record.rtype == rtype::CNAME)
        };
        if records.iter().any(outranked) || records.contains(&record) {
            return;
        }
        if records.len() >= RECORDS_PER_NAME_MAX {
            let name = Shown(name).to_string();
            self.remark(format!("{name} has more than {RECORDS_PER_NAME_MAX} records: left out"));
            return;
        }
        // One alias at a name, and nothing else of its source beside it would ever be found.
        if record.rtype == rtype::CNAME && records.iter().any(|r| r.rtype == rtype::CNAME) {
            let name = Shown(name).to_string();
            self.remark(format!("{name} has a second CNAME: left out"));
            return;
        }
        let at = records.iter().rposition(|r| r.rtype == record.rtype).map_or(records.len(), |at| at + 1);
        records.insert(at, record);
    }

    fn zone(&mut self, zone: &Name, action: ZoneAction) {
        let (name, only_below) = pattern(zone);
        let node = self.node(name);
        node.zone_below = Some(action);
        if !only_below {
            node.zone_own = Some(action);
        }
    }

    fn hosts(&mut self, path: Option<&PathBuf>, text: &str) {
        let shown = path.map_or_else(|| "hosts file".to_owned(), |p| p.display().to_string());
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split('#').next().unwrap_or("").split_ascii_whitespace();
            let Some(word) = words.next() else { continue };
            let Ok(address) = word.parse::<IpAddr>() else {
                self.remark(format!("{shown}:{}: the line does not begin with an address: left out", number + 1));
                continue;
            };
            let mut first = true;
            for word in words {
                match word.parse::<Name>() {
                    Ok(name) => {
                        self.host(&name, address, first);
                        first = false;
                    }
                    Err(e) => self.remark(format!("{shown}:{}: {e}: left out", number + 1)),
                }
            }
        }
    }

    fn host(&mut self, name: &Name, address: IpAddr, first: bool) {
        // The well-known names and addresses of loopback are not a file's to change (RFC 6761 §6.3).
        if suffixes(name.as_wire()).any(|s| s == b"\x09localhost\x00") || pattern(name).1 {
            return;
        }
        let loopback_only = address.is_loopback();
        let mut add = |name: &Name, rtype, data: &[u8]| {
            self.record(name, Record { loopback_only, ..Record::new(rtype, HOSTS_TTL, data, Source::Hosts) });
        };
        match address {
            IpAddr::V4(a) => add(name, rtype::A, &a.octets()),
            IpAddr::V6(a) => add(name, rtype::AAAA, &a.octets()),
        }
        let well_known = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16])].contains(&address);
        if first && !well_known && !address.is_unspecified() {
            self.pointer(address, name, HOSTS_TTL, Source::Hosts, loopback_only);
        }
    }

    /// The reverse of `[[local]]` addresses; the first name of an address has it.
    fn reverse_of(&mut self, settings: &LocalSettings) {
        for record in settings.records.iter().filter(|r| !pattern(&r.name).1) {
            if let Some(address) = Record::new(record.rtype, 0, &record.data, Source::Follows).address() {
                self.pointer(address, &record.name, record.ttl, Source::Follows, false);
            }
        }
    }

    fn pointer(&mut self, address: IpAddr, name: &Name, ttl: u32, source: Source, loopback_only: bool) {
        let owner = reverse_name(address);
        let known = self.names.get(owner.as_wire());
        if !known.is_some_and(|n| n.own.iter().any(|r| r.rtype == rtype::PTR)) {
            self.record(&owner, Record { loopback_only, ..Record::new(rtype::PTR, ttl, name.as_wire(), source) });
        }
    }

    fn built_in(&mut self, private_reverse: bool) {
        let v4 = Record::new(rtype::A, BUILT_IN_TTL, &[127, 0, 0, 1], Source::BuiltIn);
        let v6 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let v6 = Record::new(rtype::AAAA, BUILT_IN_TTL, &v6, Source::BuiltIn);
        let localhost = Record::new(rtype::PTR, BUILT_IN_TTL, b"\x09localhost\x00", Source::BuiltIn);
        let ok = Record { loopback_only: true, ..Record::new(rtype::TXT, 0, b"\x02ok", Source::BuiltIn) };
        let records = [
            ("localhost", &v4),
            ("localhost", &v6),
            ("*.localhost", &v4),
            ("*.localhost", &v6),
            ("1.0.0.127.in-addr.arpa", &localhost),
            (LOOPBACK_V6_REVERSE, &localhost),
            (HEALTH_NAME, &ok),
        ];
        for (name, record) in records {
            self.record(&known_name(name), record.clone());
        }
        for zone in ["127.in-addr.arpa", LOOPBACK_V6_REVERSE, "invalid", "onion", "alt"] {
            self.zone(&known_name(zone), ZoneAction::NxDomain);
        }
        self.zone(&known_name("resolver.arpa"), ZoneAction::NoData);
        if private_reverse {
            for zone in PRIVATE_REVERSE {
                self.zone(&known_name(zone), ZoneAction::NxDomain);
            }
            for n in 16..32 {
                self.zone(&known_name(&format!("{n}.172.in-addr.arpa")), ZoneAction::NxDomain);
            }
            for n in 64..128 {
                self.zone(&known_name(&format!("{n}.100.in-addr.arpa")), ZoneAction::NxDomain);
            }
        }
    }

    fn remark(&mut self, remark: String) {
        if self.remarks.len() < REMARKS_MAX {
            self.remarks.push(remark);
        } else {
            self.unsaid += 1;
        }
    }

    fn finish(mut self, identity: Option<Box<[u8]>>) -> (Local, Vec<String>) {
        if self.unsaid > 0 {
            self.remarks.push(format!("and {} more like these", self.unsaid));
        }
        self.names.shrink_to_fit();
        let by_top = self.names.get(&[0][..]).is_none_or(|root| root.below.is_empty() && root.zone_below.is_none());
        (Local { names: self.names, by_top, identity }, self.remarks)
    }
}

/// A name pattern: the name, and whether it stands for every name below it instead of itself.
fn pattern(name: &Name) -> (&[u8], bool) {
    match name.as_wire() {
        [1, b'*', rest @ ..] => (rest, true),
        wire => (wire, false),
    }
}

fn reverse_name(address: IpAddr) -> Name {
    let text = match address {
        IpAddr::V4(a) => {
            let [a, b, c, d] = a.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(a) => {
            let nibbles = a.octets().into_iter().rev().flat_map(|b| [b & 15, b >> 4]);
            nibbles.map(|n| format!("{n:x}.")).collect::<String>() + "ip6.arpa"
        }
    };
    known_name(&text)
}

/// A name that is written in this file, or made of numbers.
fn known_name(text: &str) -> Name {
    text.parse().unwrap_or_else(|_| Name::root())
}

pub(super) const LOOPBACK_V6_REVERSE: &str =
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa";

/// RFC 6303 §4 without 127.in-addr.arpa, ::1 and 172.16.0.0/12.
pub(super) const PRIVATE_REVERSE: [&str; 16] = [
    "10.in-addr.arpa",
    "168.192.in-addr.arpa",
    "0.in-addr.arpa",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "c.f.ip6.arpa",
    "d.f.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
];
