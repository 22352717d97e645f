//! What a client asks: a checked view over its packet.
//!
//! Pure. [`check`] is the door: after it no accessor can fail. Rules, in the order in which they are judged (RULES
//! "A question"):
//!
//! 1. less than a header, or a response: silence
//! 2. an opcode other than QUERY: NOTIMP, header only
//! 3. QDCOUNT other than 1 (RFC 9619), a compressed or cut question, an answer section, records that overrun,
//!    noise behind the last record, two OPTs, an OPT that is not at the root or whose options overrun: FORMERR,
//!    header only
//! 4. an EDNS version above 0: BADVERS (RFC 6891 §6.1.3)
//!
//! Unknown EDNS options are read over. Client subnet (RFC 7871) is one of them: it is neither forwarded, keyed nor
//! echoed.

use super::name::plain_end;
use super::{flag, rcode, rtype, u16_at};
use crate::limits::{HEADER_BYTES, UDP_PAYLOAD_MAX, UDP_PAYLOAD_PLAIN};

/// A query that passed the door. The question is the only one, uncompressed and whole.
#[derive(Clone, Copy, Debug)]
pub struct Query<'p> {
    packet: &'p [u8],
    name_end: usize,
    /// The client's OPT record, where it sent one.
    pub edns: Option<ClientEdns>,
}

/// What evenkeel reads of a client's OPT record (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientEdns {
    /// Largest UDP reply that the client takes, at least 512.
    pub payload: u16,
    /// The DO bit (RFC 3225).
    pub dnssec_ok: bool,
}

/// Why a packet is not a query that can be looked at, and what is due to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing is sent.
    Silence,
    /// A reply of the header alone with this RCODE.
    HeaderOnly(u16),
    /// The question and an OPT record with BADVERS; the question ends at this offset.
    BadVersion(usize),
}

const FORMERR: Refusal = Refusal::HeaderOnly(rcode::FORMERR);

/// Checks a packet from a client. Total on any bytes; does not allocate.
pub fn check(packet: &[u8]) -> Result<Query<'_>, Refusal> {
    if packet.len() < HEADER_BYTES {
        return Err(Refusal::Silence);
    }
    let flags = u16::from_be_bytes([packet[2], packet[3]]);
    if flags & flag::QR != 0 {
        return Err(Refusal::Silence);
    }
    if flags & flag::OPCODE != 0 {
        return Err(Refusal::HeaderOnly(rcode::NOTIMP));
    }
    let count = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    if count(4) != 1 || count(6) != 0 {
        return Err(FORMERR);
    }
    let name_end = plain_end(packet, HEADER_BYTES).ok_or(FORMERR)?;
    let mut at = name_end + 4;
    if at > packet.len() {
        return Err(FORMERR);
    }
    let mut edns = None;
    let mut version = 0;
    for n in 0..u32::from(count(8)) + u32::from(count(10)) {
        let in_additional = n >= u32::from(count(8));
        let record = RecordHead::read(packet, at).ok_or(FORMERR)?;
        if record.rtype == rtype::OPT {
            if edns.is_some() || !in_additional || !record.at_root {
                return Err(FORMERR);
            }
            if !options_are_whole(&packet[record.rdata_at..record.end]) {
                return Err(FORMERR);
            }
            version = packet[record.ttl_at + 1];
            edns = Some(ClientEdns {
                payload: record.class.max(UDP_PAYLOAD_PLAIN as u16),
                dnssec_ok: packet[record.ttl_at + 2] & 0x80 != 0,
            });
        }
        at = record.end;
    }
    if at != packet.len() {
        return Err(FORMERR);
    }
    if version > 0 {
        return Err(Refusal::BadVersion(name_end + 4));
    }
    Ok(Query { packet, name_end, edns })
}

struct RecordHead {
    at_root: bool,
    rtype: u16,
    class: u16,
    ttl_at: usize,
    rdata_at: usize,
    end: usize,
}

impl RecordHead {
    fn read(packet: &[u8], at: usize) -> Option<Self> {
        // A record at the root is by far the usual one (OPT), so it is read without the walk.
        let at_root = packet.get(at) == Some(&0);
        let owner_end = if at_root { at + 1 } else { super::name::walk(packet, at, |_| ())? };
        let length = usize::from(u16_at(packet, owner_end + 8)?);
        let rdata_at = owner_end + 10;
        let end = rdata_at + length;
        if end > packet.len() {
            return None;
        }
        Some(Self {
            at_root,
            rtype: u16_at(packet, owner_end)?,
            class: u16_at(packet, owner_end + 2)?,
            ttl_at: owner_end + 4,
            rdata_at,
            end,
        })
    }
}

fn options_are_whole(mut options: &[u8]) -> bool {
    while !options.is_empty() {
        let Some(length) = u16_at(options, 2) else { return false };
        match options.get(4 + usize::from(length)..) {
            Some(rest) => options = rest,
            None => return false,
        }
    }
    true
}

impl<'p> Query<'p> {
    /// The packet as it came.
    pub fn packet(&self) -> &'p [u8] {
        self.packet
    }

    /// The client's message id.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.packet[0], self.packet[1]])
    }

    /// The flags word.
    pub fn flags(&self) -> u16 {
        u16::from_be_bytes([self.packet[2], self.packet[3]])
    }

    /// The name in the client's spelling, uncompressed wire format.
    pub fn name(&self) -> &'p [u8] {
        &self.packet[HEADER_BYTES..self.name_end]
    }

    /// The type that is asked for.
    pub fn qtype(&self) -> u16 {
        u16::from_be_bytes([self.packet[self.name_end], self.packet[self.name_end + 1]])
    }

    /// The class that is asked for.
    pub fn class(&self) -> u16 {
        u16::from_be_bytes([self.packet[self.name_end + 2], self.packet[self.name_end + 3]])
    }

    /// Offset behind the question.
    pub fn question_end(&self) -> usize {
        self.name_end + 4
    }

    /// Recursion desired.
    pub fn rd(&self) -> bool {
        self.flags() & flag::RD != 0
    }

    /// Checking disabled (RFC 4035 §3.2.2).
    pub fn cd(&self) -> bool {
        self.flags() & flag::CD != 0
    }

    /// Does the client understand AD: it set AD (RFC 6840 §5.7) or DO?
    pub fn wants_ad(&self) -> bool {
        self.flags() & flag::AD != 0 || self.dnssec_ok()
    }

    /// The DO bit.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|e| e.dnssec_ok)
    }

    /// Largest reply that may go back over UDP: min(client's buffer, 1232), 512 without OPT.
    pub fn udp_limit(&self) -> usize {
        self.edns.map_or(UDP_PAYLOAD_PLAIN, |e| usize::from(e.payload).min(UDP_PAYLOAD_MAX))
    }

    /// A message that asks the same: header, question, and an OPT record without options where the client sent one. For
    /// logs of a query whose packet is gone.
    pub fn told_again(&self) -> Vec<u8> {
        let mut packet = self.packet[..self.question_end()].to_vec();
        packet[10..12].copy_from_slice(&u16::from(self.edns.is_some()).to_be_bytes());
        if let Some(edns) = self.edns {
            packet.extend([0, 0, 41]);
            packet.extend(edns.payload.to_be_bytes());
            packet.extend([0, 0, u8::from(edns.dnssec_ok) << 7, 0, 0, 0]);
        }
        packet
    }

    /// A copy that outlives the packet: header, question, and what was read of the OPT record.
    pub fn to_owned(&self) -> OwnedQuery {
        OwnedQuery { packet: self.packet[..self.question_end()].into(), name_end: self.name_end, edns: self.edns }
    }
}

/// A [`Query`] that outlives its packet. Holds the header and the question only.
#[derive(Clone, Debug)]
pub struct OwnedQuery {
    packet: Box<[u8]>,
    name_end: usize,
    edns: Option<ClientEdns>,
}

impl OwnedQuery {
    /// The view.
    pub fn view(&self) -> Query<'_> {
        Query { packet: &self.packet, name_end: self.name_end, edns: self.edns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_told_again_asks_the_same() {
        let opt = [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 4, 0, 10, 0, 0];
        for with in [&opt[..], &[]] {
            let mut packet = packet();
            packet[11] = u8::from(!with.is_empty());
            packet.extend(with);
            let query = check(&packet).unwrap();
            let again = query.to_owned().view().told_again();
            let read = check(&again).unwrap();
            assert_eq!((read.id(), read.name(), read.qtype()), (query.id(), query.name(), query.qtype()));
            assert_eq!((read.udp_limit(), read.dnssec_ok()), (query.udp_limit(), query.dnssec_ok()));
        }
    }

    #[test]
    fn each_fault_has_its_reply() {
        let ok = packet();
        let with = |f: &dyn Fn(&mut Vec<u8>)| {
            let mut p = ok.clone();
            f(&mut p);
            p
        };
        let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        for (what, packet, want) in [
            ("eleven bytes", ok[..11].to_vec(), Refusal::Silence),
            ("a response", with(&|p| p[2] |= 0x80), Refusal::Silence),
            ("NOTIFY", with(&|p| p[2] |= 0x20), Refusal::HeaderOnly(rcode::NOTIMP)),
            (
                "NOTIFY with no question",
                with(&|p| {
                    p[2] |= 0x20;
                    p[5] = 0
                }),
                Refusal::HeaderOnly(rcode::NOTIMP),
            ),
            ("no question", with(&|p| p[5] = 0), FORMERR),
            ("two questions", with(&|p| p[5] = 2), FORMERR),
            ("an answer", with(&|p| p[7] = 1), FORMERR),
            ("a compressed question", with(&|p| p[12] = 0xc0), FORMERR),
            ("a cut question", ok[..ok.len() - 1].to_vec(), FORMERR),
            ("noise behind", with(&|p| p.push(0)), FORMERR),
            ("a missing record", with(&|p| p[11] = 1), FORMERR),
            (
                "two OPTs",
                with(&|p| {
                    p[11] = 2;
                    p.extend(opt);
                    p.extend(opt)
                }),
                FORMERR,
            ),
            (
                "OPT in authority",
                with(&|p| {
                    p[9] = 1;
                    p.extend(opt)
                }),
                FORMERR,
            ),
            (
                "OPT not at the root",
                with(&|p| {
                    p[11] = 1;
                    p.extend([1, b'x']);
                    p.extend(opt)
                }),
                FORMERR,
            ),
            (
                "options overrun",
                with(&|p| {
                    p[11] = 1;
                    p.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 10, 0, 1])
                }),
                FORMERR,
            ),
            (
                "version 1",
                with(&|p| {
                    p[11] = 1;
                    p.extend([0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0])
                }),
                Refusal::BadVersion(ok.len()),
            ),
        ] {
            assert_eq!(check(&packet).map(|_| ()), Err(want), "{what}");
        }
    }

    #[test]
    fn a_query_is_read_as_it_stands() {
        let mut p = packet();
        p[2] |= 1;
        p[3] |= 0x30;
        p[11] = 1;
        p.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 5, 0, 10, 0, 1, 7]);
        let q = check(&p).unwrap();
        assert_eq!((q.id(), q.qtype(), q.class()), (0x1234, 1, 1));
        assert_eq!(q.name(), b"\x02Ab\x03org\x00");
        assert!(q.rd() && q.cd() && q.wants_ad() && q.dnssec_ok());
        assert_eq!(q.edns, Some(ClientEdns { payload: 4096, dnssec_ok: true }));
        assert_eq!(q.udp_limit(), 1232);
        assert_eq!(q.to_owned().view().name(), q.name());
    }

    #[test]
    fn a_buffer_below_512_counts_as_512() {
        let mut p = packet();
        p[11] = 1;
        p.extend([0, 0, 41, 0, 100, 0, 0, 0, 0, 0, 0]);
        assert_eq!(check(&p).unwrap().udp_limit(), 512);
        assert_eq!(check(&packet()).unwrap().udp_limit(), 512);
    }

    proptest! {
        #[test]
        fn noise_is_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
        }

        #[test]
        fn a_query_with_a_byte_changed_is_judged_without_panic(at in 0usize..40, to in any::<u8>()) {
            let mut p = packet();
            p[11] = 1;
            p.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 10, 0, 0]);
            let n = p.len();
            p[at % n] = to;
            if let Ok(q) = check(&p) {
                prop_assert!(q.question_end() <= p.len());
                let _ = (q.qtype(), q.class(), q.name(), q.udp_limit());
            }
        }
    }

    fn packet() -> Vec<u8> {
        let mut p = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        p.extend(b"\x02Ab\x03org\x00\x00\x01\x00\x01");
        p
    }
}
