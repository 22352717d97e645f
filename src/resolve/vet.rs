//! Is the reply usable, what is it worth, and in what form is it kept?
//!
//! Pure. The transport has made sure that the packet is a reply to the question (source, id, name, type, class); here
//! its body is read whole and classified, by RULES "A reply":
//!
//! | reply | verdict |
//! |---|---|
//! | TC over UDP | [`Verdict::Truncated`]: the body is not looked at |
//! | body cannot be read, or answers something else | [`Fault::Malformed`] |
//! | NOERROR with records for the name or a chain from it | positive |
//! | NOERROR without, SOA | NODATA; without SOA: [`Fault::Lame`] where NS stand there, else passed on, not stored |
//! | NXDOMAIN | negative; without SOA passed on, not stored |
//! | YXDOMAIN | an answer |
//! | SERVFAIL with EDE 1, 2, 5–12 | [`Verdict::Broken`]: the name's DNSSEC is |
//! | FORMERR, NOTIMP to a question with OPT | [`Verdict::NoEdns`] |
//! | any other RCODE | [`Fault::Refused`] or [`Fault::ServFail`] |

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::cache::entry::{Kind, Packed};
use crate::cache::freshness::TtlSettings;
use crate::cache::key::Question;
use crate::clock::{Moment, WallTime};
use crate::limits::HEADER_BYTES;
use crate::wire::patch::Rotation;
use crate::wire::reply::{self, Record, Reply};
use crate::wire::{CLASS_IN, edns, flag, name, rcode, rtype};

/// Why a reply is none. The word is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing came in time.
    TimedOut,
    /// The server's port is closed.
    PortClosed,
    /// No way to the server.
    Unreachable,
    /// The connection broke.
    Closed,
    /// Too many packets that were not ours.
    Mismatched,
    /// The body cannot be read, or does not answer the question.
    Malformed,
    /// A referral: the server does not recurse for us.
    Lame,
    /// SERVFAIL.
    ServFail,
    /// REFUSED, or another RCODE that is no answer.
    Refused,
    /// A limit of our own. Never evidence.
    Local,
}

impl Fault {
    /// All of them, in the order of their counters.
    pub const ALL: [Fault; 10] = [
        Fault::TimedOut,
        Fault::PortClosed,
        Fault::Unreachable,
        Fault::Closed,
        Fault::Mismatched,
        Fault::Malformed,
        Fault::Lame,
        Fault::ServFail,
        Fault::Refused,
        Fault::Local,
    ];

    /// The word in logs, metrics and explanations.
    pub fn word(self) -> &'static str {
        match self {
            Fault::TimedOut => "timed_out",
            Fault::PortClosed => "port_closed",
            Fault::Unreachable => "unreachable",
            Fault::Closed => "closed",
            Fault::Mismatched => "mismatched",
            Fault::Malformed => "malformed",
            Fault::Lame => "lame",
            Fault::ServFail => "servfail",
            Fault::Refused => "refused",
            Fault::Local => "local",
        }
    }

    /// Did a packet of the server come with it?
    pub fn has_packet(self) -> bool {
        matches!(self, Fault::Malformed | Fault::Lame | Fault::ServFail | Fault::Refused | Fault::Mismatched)
    }

    /// Would the same server say the same again? What was lost on the way may not be lost a second time.
    pub fn is_final(self) -> bool {
        !matches!(self, Fault::TimedOut | Fault::Closed | Fault::Local)
    }

    /// The extended error that tells a client of it.
    pub fn ede(self) -> u16 {
        match self {
            Fault::TimedOut => edns::code::NO_REACHABLE_AUTHORITY,
            Fault::PortClosed | Fault::Unreachable | Fault::Closed => edns::code::NETWORK_ERROR,
            Fault::Local => edns::code::OTHER,
            _ => edns::code::INVALID_DATA,
        }
    }
}

/// What a reply is worth.
#[derive(Debug)]
pub enum Verdict {
    /// It answers the question. `storable` is false for TTL 0 and for negatives without SOA.
    Answer {
        /// The answer in its stored form.
        packed: Packed,
        /// May it be stored?
        storable: bool,
    },
    /// To be asked over TCP.
    Truncated,
    /// To be asked without OPT.
    NoEdns,
    /// SERVFAIL that is an answer about the name, with its extended errors encoded.
    Broken(Box<[u8]>),
    /// It is no answer.
    Fault(Fault),
}

/// What vetting needs to know beside the packet.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Did it come over TCP?
    pub over_tcp: bool,
    /// Did the question carry OPT?
    pub with_edns: bool,
    /// May the server's AD be believed?
    pub trust_ad: bool,
    /// Bounds of TTLs.
    pub ttl: TtlSettings,
    /// Wall-clock time, for the ends of signatures.
    pub wall: WallTime,
}

/// Judges a packet that is a reply to `question`.
pub fn vet(packet: &[u8], question: &Question<'_>, terms: Terms, now: Moment) -> Verdict {
    if reply::is_truncated(packet) && !terms.over_tcp {
        return Verdict::Truncated;
    }
    let Ok(reply) = reply::check(packet) else { return Verdict::Fault(unreadable(packet, terms)) };
    match reply.rcode() {
        rcode::NOERROR => positive_or_nodata(&reply, question, terms, now),
        rcode::NXDOMAIN => pack(&reply, Kind::NxDomain, question, terms, now),
        rcode::YXDOMAIN => pack(&reply, Kind::Positive, question, terms, now),
        rcode::SERVFAIL if edns::ede_codes(reply.options()).any(is_about_the_name) => {
            Verdict::Broken(reply.kept_edes())
        }
        rcode::FORMERR | rcode::NOTIMP if terms.with_edns => Verdict::NoEdns,
        rcode::SERVFAIL => Verdict::Fault(Fault::ServFail),
        _ => Verdict::Fault(Fault::Refused),
    }
}

/// A body that cannot be read is malformed, unless its RCODE says already that it is no answer.
fn unreadable(packet: &[u8], _terms: Terms) -> Fault {
    match u16::from(packet.get(3).copied().unwrap_or(0) & 15) {
        rcode::SERVFAIL => Fault::ServFail,
        rcode::REFUSED => Fault::Refused,
        _ => Fault::Malformed,
    }
}

/// INFO-CODEs that speak of the name's DNSSEC and so hold on any server (RFC 8914 §4).
fn is_about_the_name(code: u16) -> bool {
    matches!(code, 1 | 2 | 5..=12)
}

fn positive_or_nodata(reply: &Reply<'_>, question: &Question<'_>, terms: Terms, now: Moment) -> Verdict {
    if reply.answers().iter().any(|r| answers(reply, r, question)) {
        return pack(reply, Kind::Positive, question, terms, now);
    }
    if !reply.answers().is_empty() {
        return Verdict::Fault(Fault::Malformed);
    }
    let has = |t: u16| reply.authorities().iter().any(|r| r.rtype == t);
    if has(rtype::NS) && !has(rtype::SOA) {
        return Verdict::Fault(Fault::Lame);
    }
    pack(reply, Kind::NoData, question, terms, now)
}

/// Does a record of the answer section stand under the question's name, or alias it?
fn answers(reply: &Reply<'_>, record: &Record, question: &Question<'_>) -> bool {
    if record.class != CLASS_IN {
        return false;
    }
    if points_to_question(reply, record) {
        return record.rtype == question.qtype || matches!(record.rtype, rtype::CNAME | rtype::DNAME);
    }
    let Some((owner, _)) = name::read(reply.packet(), record.owner_at) else { return false };
    match record.rtype {
        rtype::DNAME => name::suffixes(question.name).any(|s| s == owner.as_wire()),
        t => (t == question.qtype || t == rtype::CNAME) && owner.as_wire() == question.name,
    }
}

/// Is a record's owner a pointer to the name of the question? Almost every one is, and need not be read.
fn points_to_question(reply: &Reply<'_>, record: &Record) -> bool {
    reply.packet()[record.owner_at..].starts_with(&[0xc0, HEADER_BYTES as u8])
}

fn pack(reply: &Reply<'_>, kind: Kind, question: &Question<'_>, terms: Terms, now: Moment) -> Verdict {
    let Some((mut wire, ttl_at)) = reply.cut_opt() else { return Verdict::Fault(Fault::Malformed) };
    let soa = reply.authorities().iter().find(|r| r.rtype == rtype::SOA);
    let reaches_type = reply.answers().iter().any(|r| r.rtype == question.qtype);
    // A chain that ends without the type is positive as it stands, but lives no longer than the denial at its end.
    let as_negative = kind.is_negative() || soa.is_some() && !reaches_type;
    let minimum = soa.and_then(|r| reply.data(r).last_chunk::<4>()).map_or(u32::MAX, |b| u32::from_be_bytes(*b));
    let mut least = u32::MAX;
    for (record, at) in reply.records().iter().zip(&ttl_at) {
        let had = reply.ttl(record);
        let ttl = match record.rtype {
            rtype::SOA if as_negative => terms.ttl.negative(had.min(minimum)),
            _ if as_negative => terms.ttl.negative(had),
            _ => terms.ttl.positive(had),
        };
        least = least.min(ttl);
        let at = usize::from(*at);
        wire[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
    }
    let ttl = if ttl_at.is_empty() { 0 } else { least };
    let ad = if terms.trust_ad { flag::AD } else { 0 };
    let flags = reply.flags() & (ad | 15);
    wire[..2].fill(0);
    wire[2..4].copy_from_slice(&flags.to_be_bytes());
    let packed = Packed {
        rotation: rotation(reply),
        kept_edes: reply.kept_edes(),
        signed_until: signed_until(reply, terms.wall, now),
        wire,
        ttl_at,
        kind,
        good: !kind.is_negative() && reply.answers().iter().any(|r| is_of_use(r.rtype, reply.data(r), question)),
        ttl,
    };
    Verdict::Answer { packed, storable: ttl > 0 && (!kind.is_negative() || soa.is_some()) }
}

/// Is it a record of the type that was asked for, and of an address one that can be routed?
fn is_of_use(rtype: u16, data: &[u8], question: &Question<'_>) -> bool {
    rtype == question.qtype
        && match (rtype, data) {
            (rtype::A, data) => <[u8; 4]>::try_from(data).is_ok_and(|a| is_routable_v4(a.into())),
            (rtype::AAAA, data) => <[u8; 16]>::try_from(data).is_ok_and(|a| is_routable_v6(a.into())),
            _ => true,
        }
}

/// What answers in the place of a name that is blocked or gone is none: this host, this link, many hosts, reserved
/// (RFC 6890). Private addresses are routable: many names have them.
fn is_routable_v4(a: Ipv4Addr) -> bool {
    !(a.octets()[0] == 0 || a.is_loopback() || a.is_link_local() || a.octets()[0] >= 224)
}

/// As [`is_routable_v4`], and the discard prefix (RFC 6666).
fn is_routable_v6(a: Ipv6Addr) -> bool {
    match a.to_ipv4_mapped() {
        Some(v4) => is_routable_v4(v4),
        None => {
            let discard = a.segments()[..4] == [0x100, 0, 0, 0];
            !(a.is_unspecified() || a.is_loopback() || a.is_unicast_link_local() || a.is_multicast() || discard)
        }
    }
}

/// The longest run of A or AAAA records of one owner in the answer section.
fn rotation(reply: &Reply<'_>) -> Option<Rotation> {
    let same = |a: &Record, b: &Record| {
        let owner = |r: &Record| name::read(reply.packet(), r.owner_at).map(|(n, _)| n);
        let size = |r: &Record| r.end - r.data_at();
        let both_question = points_to_question(reply, a) && points_to_question(reply, b);
        (a.rtype, a.class, size(a)) == (b.rtype, b.class, size(b)) && (both_question || owner(a) == owner(b))
    };
    let bytes_of = |r: &Record| match (r.rtype, r.end - r.data_at()) {
        (rtype::A, 4) => Some(4),
        (rtype::AAAA, 16) => Some(16),
        _ => None,
    };
    let mut best: Option<Rotation> = None;
    let answers = reply.answers();
    let mut first = 0;
    while first < answers.len() {
        let run = 1 + answers[first + 1..].iter().take_while(|r| same(&answers[first], r)).count();
        if let Some(bytes) = bytes_of(&answers[first])
            && run > best.map_or(1, |b| usize::from(b.count))
        {
            best = Some(Rotation { first: first as u16, count: run as u16, bytes });
        }
        first += run;
    }
    best
}

/// When the first of the signatures runs out (RFC 4034 §3.1.5: seconds since 1970 in serial arithmetic).
fn signed_until(reply: &Reply<'_>, wall: WallTime, now: Moment) -> Moment {
    let signatures = reply.answers().iter().chain(reply.authorities()).filter(|r| r.rtype == rtype::RRSIG);
    let left = signatures
        .filter_map(|r| reply.data(r).get(8..12)?.try_into().ok())
        .map(|expires| u32::from_be_bytes(expires).wrapping_sub(wall.0 as u32) as i32)
        .min();
    match left {
        None => Moment::NEVER,
        Some(left) => now + Duration::from_secs(u64::try_from(left).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"\x03www\x07example\x00";
    const NOW: Moment = Moment::from_secs(1000);

    #[test]
    fn each_reply_has_its_verdict() {
        let a = record(1, 60, &[192, 0, 2, 1]);
        let soa = soa(900, 300);
        let ns = record(2, 60, &[0]);
        let cname = record(5, 60, &[0]);
        let other = [&[0][..], &record(1, 60, &[1; 4])[2..]].concat();
        let ede = |code: u8| record_at(&[0], 41, 0, &[0, 15, 0, 2, 0, code]);
        for (what, packet, want) in [
            ("records", message(0, &[&a], &[], &[]), "Positive 60"),
            ("a chain that does not reach the type", message(0, &[&cname], &[], &[]), "Positive 60"),
            ("a chain that ends in a denial", message(0, &[&cname], &[&soa], &[]), "Positive 30"),
            ("records of another name", message(0, &[&other], &[], &[]), "Malformed"),
            ("NODATA", message(0, &[], &[&soa], &[]), "NoData 30"),
            ("a referral", message(0, &[], &[&ns], &[]), "Lame"),
            ("NS beside SOA", message(0, &[], &[&ns, &soa], &[]), "NoData 30"),
            ("nothing at all", message(0, &[], &[], &[]), "NoData 0 passed on"),
            ("NXDOMAIN", message(3, &[], &[&soa], &[]), "NxDomain 30"),
            ("NXDOMAIN without SOA", message(3, &[], &[], &[]), "NxDomain 0 passed on"),
            ("NXDOMAIN with records but no SOA", message(3, &[&cname], &[], &[]), "NxDomain 30 passed on"),
            ("YXDOMAIN", message(6, &[&cname], &[], &[]), "Positive 60"),
            ("TTL 0", message(0, &[&record(1, 0, &[1; 4])], &[], &[]), "Positive 0 passed on"),
            ("the top bit set", message(0, &[&record(1, u32::MAX, &[1; 4])], &[], &[]), "Positive 86400"),
            ("SERVFAIL", message(2, &[], &[], &[]), "ServFail"),
            ("SERVFAIL, DNSSEC bogus", message(2, &[], &[], &[&ede(6)]), "broken"),
            ("SERVFAIL, no reachable authority", message(2, &[], &[], &[&ede(22)]), "ServFail"),
            ("REFUSED", message(5, &[], &[], &[]), "Refused"),
            ("FORMERR", message(1, &[], &[], &[]), "no EDNS"),
            ("NOTIMP", message(4, &[], &[], &[]), "no EDNS"),
            (
                "a cut body",
                {
                    let mut p = message(0, &[&a], &[], &[]);
                    p.truncate(40);
                    p
                },
                "Malformed",
            ),
            (
                "a cut body of SERVFAIL",
                {
                    let mut p = message(2, &[&a], &[], &[]);
                    p.truncate(40);
                    p
                },
                "ServFail",
            ),
            (
                "TC with a cut body",
                {
                    let mut p = message(0, &[&a], &[], &[]);
                    p[2] |= 2;
                    p.truncate(40);
                    p
                },
                "truncated",
            ),
        ] {
            assert_eq!(shown(&vet(&packet, &question(), terms(), NOW)), want, "{what}");
        }
    }

    #[test]
    fn tc_over_tcp_is_read_like_any_other() {
        let mut p = message(0, &[&record(1, 60, &[1; 4])], &[], &[]);
        p[2] |= 2;
        let terms = Terms { over_tcp: true, ..terms() };
        assert_eq!(shown(&vet(&p, &question(), terms, NOW)), "Positive 60");
    }

    #[test]
    fn formerr_to_a_question_without_opt_is_a_refusal() {
        let terms = Terms { with_edns: false, ..terms() };
        assert_eq!(shown(&vet(&message(1, &[], &[], &[]), &question(), terms, NOW)), "Refused");
    }

    #[test]
    fn ad_is_kept_only_from_servers_that_are_trusted() {
        let mut p = message(0, &[&record(1, 60, &[1; 4])], &[], &[]);
        p[3] |= 0x20;
        for trust_ad in [true, false] {
            let Verdict::Answer { packed, .. } = vet(&p, &question(), Terms { trust_ad, ..terms() }, NOW) else {
                panic!("no answer")
            };
            assert_eq!(packed.wire[3] & 0x20 != 0, trust_ad);
        }
    }

    #[test]
    fn addresses_of_one_owner_may_turn_and_a_chain_before_them_stays() {
        let cname = record(5, 60, b"\x01x\x00");
        let x = |n: u8| record_at(b"\x01x\x00", 1, 60, &[192, 0, 2, n]);
        let p = message(0, &[&cname, &x(1), &x(2), &x(3)], &[], &[]);
        let Verdict::Answer { packed, .. } = vet(&p, &question(), terms(), NOW) else { panic!("no answer") };
        assert_eq!(packed.rotation, Some(Rotation { first: 1, count: 3, bytes: 4 }));
        let p = message(0, &[&cname, &x(1)], &[], &[]);
        let Verdict::Answer { packed, .. } = vet(&p, &question(), terms(), NOW) else { panic!("no answer") };
        assert_eq!(packed.rotation, None);
    }

    #[test]
    fn the_first_signature_that_runs_out_ends_it() {
        let rrsig = |expires: u32| {
            let mut data = vec![0; 18];
            data[8..12].copy_from_slice(&expires.to_be_bytes());
            data.push(0);
            record(46, 60, &data)
        };
        let wall = 1_700_000_000;
        for (expires, want) in [
            (vec![], Moment::NEVER),
            (vec![wall + 500, wall + 100], NOW + Duration::from_secs(100)),
            (vec![wall - 1], NOW),
        ] {
            let records: Vec<Vec<u8>> = expires.into_iter().map(rrsig).chain([record(1, 60, &[1; 4])]).collect();
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            let terms = Terms { wall: WallTime(wall.into()), ..terms() };
            let Verdict::Answer { packed, .. } = vet(&message(0, &records, &[], &[]), &question(), terms, NOW) else {
                panic!("no answer")
            };
            assert_eq!(packed.signed_until, want);
        }
    }

    #[test]
    fn good_is_what_has_records_of_the_type_and_an_address_that_can_be_routed() {
        let a = |address: [u8; 4]| record(1, 60, &address);
        let cname = record(5, 60, b"\x01x\x00");
        for (what, answers, want) in [
            ("an address", vec![a([192, 0, 2, 1])], true),
            ("a private one", vec![a([10, 0, 0, 1])], true),
            ("none but of this host", vec![a([127, 0, 0, 1]), a([0, 0, 0, 0])], false),
            ("of this link", vec![a([169, 254, 1, 1])], false),
            ("of many", vec![a([224, 0, 0, 1])], false),
            ("one of two", vec![a([0, 0, 0, 0]), a([192, 0, 2, 1])], true),
            ("an alias alone", vec![cname.clone()], false),
            ("another type behind it", vec![cname, record_at(b"\x01x\x00", 28, 60, &[1; 16])], false),
        ] {
            let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
            let Verdict::Answer { packed, .. } = vet(&message(0, &answers, &[], &[]), &question(), terms(), NOW)
            else {
                panic!("{what}: no answer")
            };
            assert_eq!(packed.good, want, "{what}");
        }
        for (address, want) in [
            ("2001:db8::1", true),
            ("fd00::1", true),
            ("::", false),
            ("::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("100::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:192.0.2.1", true),
        ] {
            assert_eq!(is_routable_v6(address.parse().unwrap()), want, "{address}");
        }
    }

    fn shown(v: &Verdict) -> String {
        match v {
            Verdict::Answer { packed, storable } => {
                format!("{:?} {}{}", packed.kind, packed.ttl, if *storable { "" } else { " passed on" })
            }
            Verdict::Truncated => "truncated".into(),
            Verdict::NoEdns => "no EDNS".into(),
            Verdict::Broken(_) => "broken".into(),
            Verdict::Fault(f) => format!("{f:?}"),
        }
    }

    fn terms() -> Terms {
        Terms { over_tcp: false, with_edns: true, trust_ad: false, ttl: TtlSettings::default(), wall: WallTime(0) }
    }

    fn question() -> Question<'static> {
        Question { name: NAME, qtype: 1, dnssec_ok: false, cd: false }
    }

    fn message(rcode: u8, answers: &[&[u8]], authorities: &[&[u8]], additionals: &[&[u8]]) -> Vec<u8> {
        let counts = [answers, authorities, additionals].map(|s| s.len() as u8);
        let mut p = vec![1, 2, 0x81, 0x80 | rcode, 0, 1, 0, counts[0], 0, counts[1], 0, counts[2]];
        p.extend(NAME);
        p.extend([0, 1, 0, 1]);
        [answers, authorities, additionals].concat().iter().for_each(|r| p.extend(*r));
        p
    }

    fn soa(ttl: u32, minimum: u32) -> Vec<u8> {
        record(6, ttl, &[&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat())
    }

    fn record(rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        record_at(&[0xc0, 12], rtype, ttl, data)
    }

    fn record_at(owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut r = owner.to_vec();
        r.extend(rtype.to_be_bytes());
        r.extend([0, 1]);
        r.extend(ttl.to_be_bytes());
        r.extend((data.len() as u16).to_be_bytes());
        r.extend(data);
        r
    }
}
