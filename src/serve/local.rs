//! Do we own the answer?
//!
//! Pure. [`Local::new`] compiles settings and the texts of hosts files into a tree of names; [`Local::answer`] looks a
//! question up in it and writes the answer, without allocation. What is answered here (RULES "A question"):
//!
//! 1. Records win over zones, the longest match over shorter ones. Where several sources have records of one type at
//!    one name, the first of these has the say: `[[local]]`, hosts files, PTRs that follow from `[[local]]`
//!    addresses, what is built in.
//! 2. A name that has records, but none of the asked type: NODATA. A CNAME answers any type; its target is followed
//!    where that is local too.
//! 3. A zone answers for itself and every name below it as its action says; `*.x` is every name below x, at any
//!    depth, not x itself, for records and zones alike. A name with nothing but longer local names below it is NODATA
//!    where its zone says NXDOMAIN (RFC 8020 §2).
//! 4. Built in: localhost and below (RFC 6761 §6.3), the reverse of 127.0.0.0/8 and ::1, invalid (RFC 6761 §6.4),
//!    onion (RFC 7686), alt (RFC 9476), resolver.arpa (RFC 9462 §4: NODATA); where configured, private reverse zones
//!    (RFC 6303 §4, RFC 7793). And [`HEALTH_NAME`], for loopback clients alone.
//! 5. Loopback addresses of hosts files are for loopback clients; for others it is as if they were not in the file.
//! 6. Class CH: version.bind, version.server, id.server, hostname.bind (RFC 4892) by `identity`. Other classes than
//!    IN are REFUSED.
//!
//! Negative answers carry an SOA so that they can be cached (RFC 2308 §5). ANY gets HINFO (RFC 8482 §4.2).

mod compile;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::PathBuf;

use super::Client;
use crate::limits::{HEADER_BYTES, NAME_BYTES_MAX};
use crate::wire::build::{Builder, Section, negative_soa};
use crate::wire::name::suffixes;
use crate::wire::{CLASS_CH, CLASS_IN, Name, Query, rcode, rtype};

/// What is answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSettings {
    /// Answers to CH TXT id.server, version.bind and kin; `None` refuses them.
    pub identity: Option<String>,
    /// Are private reverse zones (RFC 6303) answered here with NXDOMAIN?
    pub private_reverse_nxdomain: bool,
    /// Records.
    pub records: Vec<LocalRecord>,
    /// Zones that are answered whole.
    pub zones: Vec<(Name, ZoneAction)>,
    /// Hosts files, in their order.
    pub hosts: Vec<PathBuf>,
}

/// One `[[local]]` record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRecord {
    /// Owner.
    pub name: Name,
    /// Type: A, AAAA, CNAME, PTR, TXT, MX or SRV.
    pub rtype: u16,
    /// Data in wire format, uncompressed.
    pub data: Vec<u8>,
    /// Seconds.
    pub ttl: u32,
}

/// What a local zone answers, for itself and every name below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneAction {
    /// NXDOMAIN.
    NxDomain,
    /// NOERROR without records.
    NoData,
    /// REFUSED.
    Refuse,
}

/// An answer that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAnswer {
    /// Bytes of it.
    pub len: usize,
    /// Its RCODE.
    pub rcode: u16,
    /// What it is.
    pub kind: LocalKind,
}

/// What a local answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalKind {
    /// Records of the asked type.
    Records,
    /// A CNAME whose target is not local, or has no records of the asked type here.
    Alias,
    /// The name is local and has no records of the asked type.
    NoData,
    /// The name lies in a local zone and does not exist.
    NxDomain,
    /// The name lies in a local zone that is refused, or the class is not served.
    Refused,
    /// Who evenkeel is.
    Identity,
}

impl LocalKind {
    /// Its word in logs and in `explain`.
    pub const fn word(self) -> &'static str {
        match self {
            LocalKind::Records => "records",
            LocalKind::Alias => "alias",
            LocalKind::NoData => "nodata",
            LocalKind::NxDomain => "nxdomain",
            LocalKind::Refused => "refused",
            LocalKind::Identity => "identity",
        }
    }
}

/// The name by which this process asks itself whether it answers: TXT "ok", for loopback clients.
pub const HEALTH_NAME: &str = "health.evenkeel.invalid";

/// TTL of negative answers.
const NEGATIVE_TTL: u32 = 60;
/// TTL of what is built in and never changes.
const BUILT_IN_TTL: u32 = 86_400;
/// CNAMEs that are followed within local data.
const ALIASES_MAX: usize = 8;

/// Local data, compiled. Immutable.
#[derive(Debug)]
pub struct Local {
    /// Every name that has something, and every name above one, by its folded wire format.
    names: Names,
    /// Is nothing said for every name at all? Then what is not under one of these top-level domains is not ours.
    by_top: bool,
    /// Character-string of the CH answers.
    identity: Option<Box<[u8]>>,
}

/// The keys are the operator's and no question adds one, so that a hash that is quick on short names may serve.
type Names = HashMap<Box<[u8]>, Node, BuildHasherDefault<NameHash>>;

/// Eight bytes a multiplication: byte by byte it was a twentieth of a hit.
#[derive(Debug, Default)]
struct NameHash(u64);

impl Hasher for NameHash {
    fn write(&mut self, bytes: &[u8]) {
        let mut add = |word: u64| self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| add(u64::from_le_bytes(*word)));
        add(rest.iter().fold(0, |word, b| word << 8 | u64::from(*b)));
    }

    fn write_usize(&mut self, _length: usize) {
        // A name says by itself where it ends.
    }

    fn finish(&self) -> u64 {
        // The map takes the low bits for the place, the high ones for the tag.
        self.0 ^ self.0 >> 32
    }
}

/// What stands at one name.
#[derive(Debug, Default)]
struct Node {
    /// Records of the name itself, those of one type side by side.
    own: Vec<Record>,
    /// Records of every name below.
    below: Vec<Record>,
    zone_own: Option<ZoneAction>,
    zone_below: Option<ZoneAction>,
    /// Has a longer name records of its own?
    parent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    rtype: u16,
    ttl: u32,
    data: Box<[u8]>,
    source: Source,
    loopback_only: bool,
}

/// Where a record comes from; the first has the say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Settings,
    Hosts,
    Follows,
    BuiltIn,
}

impl Local {
    /// Compiles settings and the texts of the hosts files; the remarks say what was left out of them.
    pub fn new(settings: &LocalSettings, hosts_texts: &[String]) -> (Local, Vec<String>) {
        compile::compile(settings, hosts_texts)
    }

    /// Writes the answer to `query`, for its folded `name`, into `out`, where it is ours to give.
    ///
    /// `turn`: by how many places several records of the type are turned.
    ///
    /// # Panics
    ///
    /// Where `out` is shorter than 512.
    pub fn answer(
        &self,
        query: &Query<'_>,
        name: &[u8],
        client: &Client,
        out: &mut [u8],
        turn: u32,
    ) -> Option<LocalAnswer> {
        if query.class() != CLASS_IN {
            return Some(self.answer_other_class(query, name, out));
        }
        let loopback = client.address.is_loopback();
        let first = self.find(name, query.qtype(), loopback)?;

        // The aliases are followed before anything is written, since the header's RCODE is that of their end.
        let mut aliases = [None; ALIASES_MAX];
        let mut count = 0;
        let mut last = Some(first);
        while let Some(Found::Alias(alias)) = last {
            if count == ALIASES_MAX {
                last = None;
                break;
            }
            aliases[count] = Some(alias);
            count += 1;
            last = self.find(&alias.data, query.qtype(), loopback);
        }
        let (rcode, kind) = match last {
            None | Some(Found::Alias(_)) => (rcode::NOERROR, LocalKind::Alias),
            Some(Found::Records(_)) => (rcode::NOERROR, LocalKind::Records),
            Some(Found::NoData { .. }) => (rcode::NOERROR, LocalKind::NoData),
            Some(Found::Zone { action: ZoneAction::NoData, .. }) => (rcode::NOERROR, LocalKind::NoData),
            Some(Found::Zone { action: ZoneAction::NxDomain, .. }) => (rcode::NXDOMAIN, LocalKind::NxDomain),
            Some(Found::Zone { action: ZoneAction::Refuse, .. }) => (rcode::REFUSED, LocalKind::Refused),
        };
        // Of an alias into a refused zone the alias is given.
        let (rcode, kind) = if count > 0 && rcode == rcode::REFUSED { (0, LocalKind::Alias) } else { (rcode, kind) };

        let mut builder = Builder::new(*query, rcode, None, &[], out);
        let mut owner = None;
        for alias in aliases.iter().flatten() {
            write(&mut builder, owner, alias);
            owner = Some(&*alias.data);
        }
        match last {
            Some(Found::Records(_)) if query.qtype() == rtype::ANY => {
                // RFC 8482 §4.2, with the text of that document in place of a machine's type.
                write_at(&mut builder, owner, rtype::HINFO, BUILT_IN_TTL, b"\x07RFC8482\x00");
            }
            Some(Found::Records(records)) => {
                let start = turn as usize % records.len();
                let (before, after) = records.split_at(start);
                let seen = |r: &&Record| loopback || !r.loopback_only;
                after.iter().chain(before).filter(seen).for_each(|record| write(&mut builder, owner, record));
            }
            Some(
                Found::NoData { zone_at }
                | Found::Zone { zone_at, action: ZoneAction::NoData | ZoneAction::NxDomain },
            ) if kind != LocalKind::Alias => {
                let soa = negative_soa(NEGATIVE_TTL);
                let zone_at = (HEADER_BYTES + zone_at) as u16 | 0xc000;
                match owner {
                    None => builder.record_at(
                        Section::Authority,
                        &zone_at.to_be_bytes(),
                        rtype::SOA,
                        CLASS_IN,
                        NEGATIVE_TTL,
                        &soa,
                    ),
                    // The offset is one in the alias's target, which stands uncompressed.
                    Some(target) => {
                        let zone = &target[usize::from(zone_at & 0x3fff) - HEADER_BYTES..];
                        builder.record_at(Section::Authority, zone, rtype::SOA, CLASS_IN, NEGATIVE_TTL, &soa);
                    }
                }
            }
            _ => {}
        }
        Some(LocalAnswer { len: builder.finish(), rcode, kind })
    }

    fn answer_other_class(&self, query: &Query<'_>, name: &[u8], out: &mut [u8]) -> LocalAnswer {
        let asked = query.class() == CLASS_CH
            && matches!(query.qtype(), rtype::TXT | rtype::ANY)
            && IDENTITY_NAMES.contains(&name);
        match &self.identity {
            Some(text) if asked => {
                let mut builder = Builder::new(*query, rcode::NOERROR, None, &[], out);
                builder.record(Section::Answer, rtype::TXT, CLASS_CH, 0, text);
                LocalAnswer { len: builder.finish(), rcode: rcode::NOERROR, kind: LocalKind::Identity }
            }
            _ => {
                let len = Builder::new(*query, rcode::REFUSED, None, &[], out).finish();
                LocalAnswer { len, rcode: rcode::REFUSED, kind: LocalKind::Refused }
            }
        }
    }

    /// Looks a folded name up, from the root towards it; most names end at their top-level domain.
    fn find(&self, name: &[u8], qtype: u16, loopback: bool) -> Option<Found<'_>> {
        if self.by_top && top(name).is_some_and(|top| !self.names.contains_key(top)) {
            return None;
        }
        let mut starts = [0u8; NAME_BYTES_MAX / 2 + 1];
        let mut labels = 0;
        for suffix in suffixes(name) {
            starts[labels] = (name.len() - suffix.len()) as u8;
            labels += 1;
        }
        let mut cover = None;
        let mut below: &[Record] = &[];
        let mut exists = false;
        for &start in starts[..labels].iter().rev() {
            let start = usize::from(start);
            let Some(node) = self.names.get(&name[start..]) else { break };
            if start == 0 {
                if let Some(found) = in_records(&node.own, qtype, loopback) {
                    return Some(found);
                }
                exists = node.parent;
                cover = node.zone_own.map(|action| (start, action)).or(cover);
                break;
            }
            cover = node.zone_below.map(|action| (start, action)).or(cover);
            if node.below.iter().any(|r| loopback || !r.loopback_only) {
                below = &node.below;
            }
        }
        if let Some(found) = in_records(below, qtype, loopback) {
            return Some(found);
        }
        let (zone_at, action) = cover?;
        match action {
            ZoneAction::NxDomain if exists => Some(Found::NoData { zone_at }),
            action => Some(Found::Zone { zone_at, action }),
        }
    }
}

const IDENTITY_NAMES: [&[u8]; 4] =
    [b"\x07version\x04bind\x00", b"\x07version\x06server\x00", b"\x02id\x06server\x00", b"\x08hostname\x04bind\x00"];

/// What is known of a name. `zone_at` is the offset of the zone in it.
#[derive(Clone, Copy, Debug)]
enum Found<'l> {
    /// At least one of these is for this client.
    Records(&'l [Record]),
    Alias(&'l Record),
    NoData {
        zone_at: usize,
    },
    Zone {
        zone_at: usize,
        action: ZoneAction,
    },
}

/// The top-level domain of a name; the root has none.
fn top(name: &[u8]) -> Option<&[u8]> {
    suffixes(name).filter(|suffix| suffix.len() > 1).last()
}

/// Looks for a type among a name's records; `None` where it has none for this client.
fn in_records(records: &[Record], qtype: u16, loopback: bool) -> Option<Found<'_>> {
    let seen = |r: &&Record| loopback || !r.loopback_only;
    let any = records.iter().find(seen)?;
    if qtype == rtype::ANY {
        return Some(Found::Records(std::slice::from_ref(any)));
    }
    let first = records.iter().position(|r| r.rtype == qtype);
    let run = first.map(|at| {
        let length = records[at..].iter().take_while(|r| r.rtype == qtype).count();
        &records[at..at + length]
    });
    if let Some(run) = run.filter(|run| run.iter().any(|r| seen(&r))) {
        return Some(Found::Records(run));
    }
    let alias = records.iter().filter(seen).find(|r| r.rtype == rtype::CNAME);
    Some(alias.map_or(Found::NoData { zone_at: 0 }, Found::Alias))
}

fn write(builder: &mut Builder<'_, '_>, owner: Option<&[u8]>, record: &Record) {
    write_at(builder, owner, record.rtype, record.ttl, &record.data);
}

fn write_at(builder: &mut Builder<'_, '_>, owner: Option<&[u8]>, rtype: u16, ttl: u32, data: &[u8]) {
    match owner {
        None => builder.record(Section::Answer, rtype, CLASS_IN, ttl, data),
        Some(owner) => builder.record_at(Section::Answer, owner, rtype, CLASS_IN, ttl, data),
    }
}

#[cfg(test)]
mod tests;
