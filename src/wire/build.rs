//! Messages that are made, not stored: questions to servers, errors, local answers.
//!
//! Pure; does not allocate but for [`question`].

use super::edns::{self, Ede};
use super::query::Query;
use super::{flag, rtype};
use crate::limits::{HEADER_BYTES, UDP_PAYLOAD_MAX};

/// Writes a reply of the header alone to a packet of at least a header: its id, opcode and RD, and `rcode`.
///
/// # Panics
///
/// Where `packet` or `out` is shorter than a header.
pub fn header_only(packet: &[u8], rcode: u16, out: &mut [u8]) -> usize {
    let asked = u16::from_be_bytes([packet[2], packet[3]]);
    let flags = flag::QR | flag::RA | asked & (flag::OPCODE | flag::RD) | rcode & 15;
    out[..HEADER_BYTES].fill(0);
    out[..2].copy_from_slice(&packet[..2]);
    out[2..4].copy_from_slice(&flags.to_be_bytes());
    HEADER_BYTES
}

/// Writes BADVERS: the question, which ends at `question_end`, and an OPT record of version 0 (RFC 6891 §6.1.3).
///
/// # Panics
///
/// Where `packet` is shorter than `question_end` or `out` than that and 11 bytes.
pub fn bad_version(packet: &[u8], question_end: usize, out: &mut [u8]) -> usize {
    header_only(packet, 0, out);
    out[HEADER_BYTES..question_end].copy_from_slice(&packet[HEADER_BYTES..question_end]);
    out[5] = 1;
    out[11] = 1;
    question_end + edns::write(&mut out[question_end..], false, 1, None, &[])
}

/// A question to a server: id 0 (the transport sets it), RD and AD set, CD as given, `name` folded in wire format.
///
/// `edns`: with an OPT record (payload 1232), which carries the DO bit; without it DO cannot be asked for.
pub fn question(name: &[u8], qtype: u16, dnssec_ok: bool, cd: bool, edns: bool) -> Vec<u8> {
    let flags = flag::RD | flag::AD | if cd { flag::CD } else { 0 };
    let mut packet = Vec::with_capacity(HEADER_BYTES + name.len() + 4 + 11);
    packet.extend([0, 0]);
    packet.extend(flags.to_be_bytes());
    packet.extend([0, 1, 0, 0, 0, 0, 0, edns.into()]);
    packet.extend_from_slice(name);
    packet.extend(qtype.to_be_bytes());
    packet.extend([0, 1]);
    if edns {
        let at = packet.len();
        packet.resize(at + edns::written_len(None, &[]), 0);
        edns::write(&mut packet[at..], dnssec_ok, 0, None, &[]);
    }
    packet
}

/// Writes an answer record by record. What does not fit sets TC; the records before it stay.
pub struct Builder<'q, 'o> {
    query: Query<'q>,
    out: &'o mut [u8],
    at: usize,
    ede: Option<Ede>,
    kept: &'q [u8],
    full: bool,
}

/// Which section a record goes to; sections are filled in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The answer.
    Answer,
    /// The authority section.
    Authority,
}

impl<'q, 'o> Builder<'q, 'o> {
    /// Begins the answer to `query` with `rcode` and, where the client sent EDNS, the extended errors `ede` and
    /// `kept` (as [`edns::keep`] encodes them).
    ///
    /// # Panics
    ///
    /// Where `out` is shorter than 512 bytes.
    pub fn new(query: Query<'q>, rcode: u16, ede: Option<Ede>, kept: &'q [u8], out: &'o mut [u8]) -> Self {
        let flags = flag::QR | flag::RA | query.flags() & (flag::RD | flag::CD) | rcode & 15;
        let end = query.question_end();
        out[..HEADER_BYTES].fill(0);
        out[..2].copy_from_slice(&query.id().to_be_bytes());
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        out[5] = 1;
        out[HEADER_BYTES..end].copy_from_slice(&query.packet()[HEADER_BYTES..end]);
        Self { query, out, at: end, ede, kept, full: false }
    }

    fn opt_len(&self) -> usize {
        self.query.edns.map_or(0, |_| edns::written_len(self.ede, self.kept))
    }

    /// Adds a record of class `class` whose owner is the question's name.
    pub fn record(&mut self, section: Section, rtype: u16, class: u16, ttl: u32, data: &[u8]) {
        self.record_at(section, &[0xc0, HEADER_BYTES as u8], rtype, class, ttl, data);
    }

    /// Adds a record with another owner, uncompressed or a pointer to before it.
    pub fn record_at(&mut self, section: Section, owner: &[u8], rtype: u16, class: u16, ttl: u32, data: &[u8]) {
        let end = self.at + owner.len() + 10 + data.len();
        if self.full || end + self.opt_len() > self.out.len() {
            self.full = true;
            return;
        }
        let head = &mut self.out[self.at..end];
        let (name, rest) = head.split_at_mut(owner.len());
        name.copy_from_slice(owner);
        rest[..2].copy_from_slice(&rtype.to_be_bytes());
        rest[2..4].copy_from_slice(&class.to_be_bytes());
        rest[4..8].copy_from_slice(&ttl.to_be_bytes());
        rest[8..10].copy_from_slice(&(data.len() as u16).to_be_bytes());
        rest[10..].copy_from_slice(data);
        self.at = end;
        let count_at = if section == Section::Answer { 6 } else { 8 };
        let count = u16::from_be_bytes([self.out[count_at], self.out[count_at + 1]]) + 1;
        self.out[count_at..count_at + 2].copy_from_slice(&count.to_be_bytes());
    }

    /// Sets TC without a record having been left out: for a client that must ask over TCP.
    pub fn truncate(&mut self) {
        self.full = true;
    }

    /// Appends OPT where it is due and returns the length of the answer.
    pub fn finish(self) -> usize {
        let Self { query, out, mut at, ede, kept, full } = self;
        if full {
            out[2] |= (flag::TC >> 8) as u8;
        }
        if let Some(client) = query.edns {
            let kept = if at + edns::written_len(ede, kept) <= out.len() { kept } else { &[] };
            out[11] = 1;
            at += edns::write(&mut out[at..], client.dnssec_ok, 0, ede, kept);
        }
        at
    }
}

/// The SOA record's data that stands in the negative answers made here: RFC 2308 asks for one so that they can be
/// cached. MNAME and RNAME are the root, MINIMUM is `ttl`.
pub fn negative_soa(ttl: u32) -> [u8; 22] {
    let mut data = [0; 22];
    for (at, value) in [(2, 1u32), (6, 3600), (10, 600), (14, 86_400), (18, ttl)] {
        data[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    data
}

/// Is this a type that only a question may have, or a meta type (RFC 6895 §3.1: 128 to 255, and OPT)?
pub fn is_question_only(qtype: u16) -> bool {
    qtype == rtype::OPT || (128..=255).contains(&qtype)
}

const _: () = assert!(UDP_PAYLOAD_MAX >= 512);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{query, rcode, reply};

    #[test]
    fn a_question_is_one_that_our_own_door_takes() {
        let p = question(b"\x03www\x07example\x00", 28, true, true, true);
        let q = query::check(&p).unwrap();
        assert!(q.rd() && q.cd() && q.dnssec_ok() && q.wants_ad());
        assert_eq!((q.qtype(), q.name()), (28, &b"\x03www\x07example\x00"[..]));
        let p = question(b"\x00", 2, false, false, false);
        assert_eq!(query::check(&p).unwrap().edns, None);
        assert_eq!(p[2..4], [0x01, 0x20]);
    }

    #[test]
    fn header_only_keeps_id_opcode_and_rd() {
        let mut out = [9; 12];
        header_only(&[1, 2, 0x29, 0x30, 0, 9, 9, 9, 9, 9, 9, 9], rcode::NOTIMP, &mut out);
        assert_eq!(out, [1, 2, 0xa9, 0x84, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn badvers_has_the_question_and_an_opt_of_version_0() {
        let p = question(b"\x07example\x00", 1, false, false, false);
        let mut out = [0; 512];
        let n = bad_version(&p, p.len(), &mut out);
        let r = reply::check(&out[..n]).unwrap();
        assert_eq!(r.rcode(), rcode::BADVERS);
        assert_eq!(out[p.len() + 6], 0);
    }

    #[test]
    fn records_that_do_not_fit_set_tc() {
        let p = question(b"\x07example\x00", 1, false, false, true);
        for (records, want, tc) in [(29, 29, false), (30, 29, true)] {
            let mut out = [0; 512];
            let mut b = Builder::new(query::check(&p).unwrap(), 0, None, &[], &mut out);
            (0..records).for_each(|_| b.record(Section::Answer, 1, 1, 60, &[192, 0, 2, 1]));
            let n = b.finish();
            assert_eq!(reply::check(&out[..n]).unwrap().answers().len(), want, "{records}");
            assert_eq!(out[2] & 2 != 0, tc, "{records}");
        }
    }
}
