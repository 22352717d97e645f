//! What a server answers: a whole check of its packet before anything of it is stored or passed on.
//!
//! Pure. Two doors. [`identify`] looks at header and question only: is this a reply to what was asked, whatever its
//! body is? [`check`] reads the body whole: counts against records, every owner name and every name in the RDATA of
//! the types that RFC 1035 and its successors allow to compress, no pointer that leads forward, no noise behind, at
//! most one OPT, at the root, in the additional section. No name may run through bytes that an answer from the cache
//! changes: the header, type and class of the question (they are the client's), the fixed fields of a record (TTL among
//! them), the data of an address. What is not understood is not refused: unknown types, an RDLENGTH of 0, unknown
//! classes and any order pass.
//!
//! [`Reply::cut_opt`] takes the OPT record out. Pointers behind it that lead behind it are moved along.

use std::ops::Range;

use super::name::{plain_end, walk_places};
use super::{edns, flag, rtype, u16_at, u32_at};
use crate::limits::{HEADER_BYTES, MESSAGE_BYTES_MAX};

/// Is a packet a reply to the question?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The question stands in it.
    Ours,
    /// No question at all, but an error RCODE: some servers refuse so.
    HeaderOnly(u16),
    /// Something else: another id, name, type or class, or no response.
    NotOurs,
}

/// Compares a packet with the question that was asked: `id`, folded `name`, `qtype`, class IN.
///
/// Total on any bytes; does not allocate. The body is not looked at.
pub fn identify(packet: &[u8], id: u16, name: &[u8], qtype: u16) -> Identity {
    let Some(header) = packet.get(..HEADER_BYTES) else { return Identity::NotOurs };
    let flags = u16::from_be_bytes([header[2], header[3]]);
    if header[..2] != id.to_be_bytes() || flags & flag::QR == 0 || flags & flag::OPCODE != 0 {
        return Identity::NotOurs;
    }
    match u16::from_be_bytes([header[4], header[5]]) {
        // Whatever else stands there, an OPT record say: without the question it is no answer.
        0 if flags & 15 != 0 => Identity::HeaderOnly(flags & 15),
        1 => {
            let tail = [(qtype >> 8) as u8, qtype as u8, 0, 1];
            let same = packet.get(12..12 + name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name))
                && packet.get(12 + name.len()..16 + name.len()) == Some(&tail);
            if same { Identity::Ours } else { Identity::NotOurs }
        }
        _ => Identity::NotOurs,
    }
}

/// Is TC set in a packet that [`identify`] took?
pub fn is_truncated(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|b| u16::from(*b) << 8 & flag::TC != 0)
}

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not one whole question behind a whole header.
    Question,
    /// A record's owner name is cut, too long or leads forward.
    Owner,
    /// A record is cut.
    Record,
    /// A name in a record's data is cut, too long or leads forward or out of its field.
    Data,
    /// Bytes behind the last record.
    Noise,
    /// Two OPTs, or one at the wrong place.
    Opt,
    /// More bytes than a message can have.
    Size,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Offset of its owner name.
    pub owner_at: usize,
    /// Offset of its TTL; type and class stand before it.
    pub ttl_at: usize,
    /// Offset behind it.
    pub end: usize,
    /// Its type.
    pub rtype: u16,
    /// Its class.
    pub class: u16,
}

impl Record {
    /// Offset of its data.
    pub fn data_at(&self) -> usize {
        self.ttl_at + 6
    }
}

/// A reply that was read whole.
#[derive(Debug)]
pub struct Reply<'p> {
    packet: &'p [u8],
    question_end: usize,
    answers: usize,
    authorities: usize,
    records: Vec<Record>,
    opt: Option<Record>,
}

/// Checks a packet from a server whole. Total on any bytes; allocates at most 40 bytes for each 11 of the packet.
pub fn check(packet: &[u8]) -> Result<Reply<'_>, Malformed> {
    if packet.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed::Size);
    }
    if packet.len() < HEADER_BYTES || u16_at(packet, 4) != Some(1) {
        return Err(Malformed::Question);
    }
    let question_end = plain_end(packet, HEADER_BYTES).ok_or(Malformed::Question)? + 4;
    if question_end > packet.len() {
        return Err(Malformed::Question);
    }
    let count = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let (answers, authorities, additionals) = (count(6), count(8), count(10));
    let mut changing = Changing::new(packet);
    changing.mark(question_end - 4..question_end);
    let mut records = Vec::with_capacity((answers + authorities + additionals).min(packet.len() / 11));
    let mut opt = None;
    let mut at = question_end;
    for n in 0..answers + authorities + additionals {
        let record = read_record(packet, at, &changing)?;
        if record.rtype == rtype::OPT {
            if opt.is_some() || n < answers + authorities || packet[record.owner_at] != 0 {
                return Err(Malformed::Opt);
            }
            opt = Some(record);
        } else {
            check_data(packet, &record, &changing).ok_or(Malformed::Data)?;
            records.push(record);
        }
        changing.add(&record);
        at = record.end;
    }
    if at != packet.len() {
        return Err(Malformed::Noise);
    }
    Ok(Reply { packet, question_end, answers, authorities, records, opt })
}

/// The bytes of a packet that an answer from the cache changes: a name that ran through them would become another.
struct Changing(Vec<u64>);

impl Changing {
    fn new(packet: &[u8]) -> Self {
        let mut changing = Self(vec![0; packet.len() / 64 + 1]);
        changing.mark(0..HEADER_BYTES);
        changing
    }

    fn add(&mut self, record: &Record) {
        self.mark(record.ttl_at - 4..record.data_at());
        if matches!(record.rtype, rtype::A | rtype::AAAA) {
            self.mark(record.data_at()..record.end);
        }
    }

    fn mark(&mut self, bytes: Range<usize>) {
        bytes.for_each(|at| self.0[at / 64] |= 1 << (at % 64));
    }

    fn spares(&self, bytes: Range<usize>) -> bool {
        bytes.into_iter().all(|at| self.0[at / 64] & 1 << (at % 64) == 0)
    }

    /// The offset behind the name at `at`, where it is one and runs through nothing that changes.
    fn name_end(&self, packet: &[u8], at: usize) -> Option<usize> {
        walk_places(packet, at, |place| self.spares(place))
    }
}

fn read_record(packet: &[u8], at: usize, changing: &Changing) -> Result<Record, Malformed> {
    let owner_end = changing.name_end(packet, at).ok_or(Malformed::Owner)?;
    let length = usize::from(u16_at(packet, owner_end + 8).ok_or(Malformed::Record)?);
    let end = owner_end + 10 + length;
    if end > packet.len() {
        return Err(Malformed::Record);
    }
    let field = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    Ok(Record { owner_at: at, ttl_at: owner_end + 4, end, rtype: field(owner_end), class: field(owner_end + 2) })
}

/// Names in the data of types that may be compressed (RFC 1035 §3.3; RFC 3597 §4 lists the later ones): the bytes
/// before the first name, and how many names follow.
fn names_in_data(rtype: u16) -> (usize, usize) {
    match rtype {
        2..=5 | 7..=9 | 12 | 39 => (0, 1), // NS MD MF CNAME, MB MG MR, PTR, DNAME
        6 | 14 | 17 => (0, 2),             // SOA, MINFO, RP
        15 | 18 | 21 | 36 => (2, 1),       // MX AFSDB RT KX
        26 => (2, 2),                      // PX
        33 => (6, 1),                      // SRV
        _ => (0, 0),
    }
}

fn check_data(packet: &[u8], record: &Record, changing: &Changing) -> Option<()> {
    let (skip, names) = names_in_data(record.rtype);
    // An RDLENGTH of 0 passes for any type: it is what RFC 2136 and APL, NULL and private types use.
    if names == 0 || record.end == record.data_at() {
        return Some(());
    }
    let mut at = record.data_at() + skip;
    for _ in 0..names {
        at = changing.name_end(packet, at)?;
        if at > record.end {
            return None;
        }
    }
    Some(())
}

impl Reply<'_> {
    /// The RCODE, extended by the OPT record's upper bits.
    pub fn rcode(&self) -> u16 {
        let extended = self.opt.map_or(0, |o| u16::from(self.packet[o.ttl_at]) << 4);
        extended | u16::from(self.packet[3] & 15)
    }

    /// The flags word.
    pub fn flags(&self) -> u16 {
        u16::from_be_bytes([self.packet[2], self.packet[3]])
    }

    /// Offset behind the question.
    pub fn question_end(&self) -> usize {
        self.question_end
    }

    /// The records but OPT, in their order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records of the answer section.
    pub fn answers(&self) -> &[Record] {
        &self.records[..self.answers]
    }

    /// The records of the authority section.
    pub fn authorities(&self) -> &[Record] {
        &self.records[self.answers..self.answers + self.authorities]
    }

    /// A record's TTL as it stands.
    pub fn ttl(&self, record: &Record) -> u32 {
        u32_at(self.packet, record.ttl_at).unwrap_or(0)
    }

    /// A record's data.
    pub fn data(&self, record: &Record) -> &[u8] {
        &self.packet[record.data_at()..record.end]
    }

    /// The packet.
    pub fn packet(&self) -> &[u8] {
        self.packet
    }

    /// The server's EDNS options; empty where it sent no OPT.
    pub fn options(&self) -> &[u8] {
        self.opt.map_or(&[], |o| &self.packet[o.data_at()..o.end])
    }

    /// The server's extended errors, ready to be kept. See [`edns::keep`].
    pub fn kept_edes(&self) -> Box<[u8]> {
        edns::keep(self.options())
    }

    /// The packet without its OPT record, and the offsets of the TTLs in it, in order.
    ///
    /// What stands behind OPT moves forward; pointers that lead there move along, which keeps them valid since they
    /// can only stand behind OPT too. `None` where one leads into the OPT record itself.
    pub fn cut_opt(&self) -> Option<(Vec<u8>, Vec<u16>)> {
        let ttl_at = |record: &Record| record.ttl_at as u16;
        let Some(opt) = self.opt else {
            return Some((self.packet.to_vec(), self.records.iter().map(ttl_at).collect()));
        };
        let removed = opt.end - opt.owner_at;
        let mut wire = Vec::with_capacity(self.packet.len() - removed);
        wire.extend_from_slice(&self.packet[..opt.owner_at]);
        wire.extend_from_slice(&self.packet[opt.end..]);
        let additionals = u16::from_be_bytes([wire[10], wire[11]]) - 1;
        wire[10..12].copy_from_slice(&additionals.to_be_bytes());
        let mut offsets = Vec::with_capacity(self.records.len());
        for record in &self.records {
            if record.owner_at < opt.owner_at {
                offsets.push(record.ttl_at as u16);
                continue;
            }
            offsets.push((record.ttl_at - removed) as u16);
            let mut pull = |at: usize| pull_pointer(&mut wire, self.packet, at, opt);
            pull(record.owner_at)?;
            let (skip, names) = names_in_data(record.rtype);
            if record.end > record.data_at() {
                let mut at = record.data_at() + skip;
                for _ in 0..names {
                    at = pull(at)?;
                }
            }
        }
        // Bytes behind OPT that look like a pointer, in data that is not read, may be led through by a name.
        if opt.end < self.packet.len() && check(&wire).is_err() {
            return None;
        }
        Some((wire, offsets))
    }
}

/// Moves the pointer that ends the name at `at` of `packet` where it leads behind the removed record; returns the
/// offset behind the name, or `None` where it leads into the removed record.
fn pull_pointer(wire: &mut [u8], packet: &[u8], at: usize, removed: Record) -> Option<usize> {
    let removed_len = removed.end - removed.owner_at;
    let mut i = at;
    loop {
        match packet[i] {
            0 => return Some(i + 1),
            length @ 1..=63 => i += 1 + usize::from(length),
            high => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(packet[i + 1]);
                if (removed.owner_at..removed.end).contains(&target) {
                    return None;
                }
                if target >= removed.end {
                    let moved = (target - removed_len) as u16 | 0xc000;
                    wire[i - removed_len..i - removed_len + 2].copy_from_slice(&moved.to_be_bytes());
                }
                return Some(i + 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &[u8] = b"\x03www\x07example\x00";

    #[test]
    fn a_reply_is_ours_only_if_id_name_type_and_class_are() {
        let ok = message(&[]);
        let with = |at: usize, to: u8| {
            let mut p = ok.clone();
            p[at] = to;
            p
        };
        for (what, packet, want) in [
            ("the same", ok.clone(), Identity::Ours),
            ("another spelling", with(13, b'W'), Identity::Ours),
            ("another id", with(0, 9), Identity::NotOurs),
            ("a query", with(2, 0x01), Identity::NotOurs),
            ("another opcode", with(2, 0xa0), Identity::NotOurs),
            ("another name", with(13, b'x'), Identity::NotOurs),
            ("another type", with(26, 28), Identity::NotOurs),
            ("another class", with(28, 3), Identity::NotOurs),
            ("two questions", with(5, 2), Identity::NotOurs),
            ("cut in the question", ok[..20].to_vec(), Identity::NotOurs),
            ("header with REFUSED", vec![1, 2, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0], Identity::HeaderOnly(5)),
            (
                "no question, OPT, FORMERR",
                vec![1, 2, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0],
                Identity::HeaderOnly(1),
            ),
            ("header with NOERROR", vec![1, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0], Identity::NotOurs),
        ] {
            assert_eq!(identify(&packet, 0x0102, NAME, 1), want, "{what}");
        }
    }

    #[test]
    fn a_body_is_read_whole_or_refused() {
        let a = record(&[0xc0, 12], 1, 60, &[192, 0, 2, 1]);
        let cname_loop = record(&[0xc0, 12], 5, 60, &[0xc0, 41]);
        let soa_overrun = record(&[0xc0, 12], 6, 60, &[0]);
        let empty_soa = record(&[0xc0, 12], 6, 60, &[]);
        let opt = record(&[0], 41, 0, &[]);
        for (what, packet, want) in [
            ("one record", message(&[&a]), Ok(1)),
            ("no data at all", message(&[&empty_soa]), Ok(1)),
            ("a name that leads to itself", message(&[&cname_loop]), Err(Malformed::Data)),
            ("a name that runs out of its field", message(&[&soa_overrun]), Err(Malformed::Data)),
            ("OPT among the answers", message(&[&opt]), Err(Malformed::Opt)),
            ("noise", [message(&[&a]), vec![0]].concat(), Err(Malformed::Noise)),
            ("cut", message(&[&a])[..40].to_vec(), Err(Malformed::Record)),
            ("an owner in the header", message(&[&record(&[0xc0, 2], 1, 60, &[1, 2, 3, 4])]), Err(Malformed::Owner)),
            ("an owner in the class", message(&[&record(&[0xc0, 23], 1, 60, &[1, 2, 3, 4])]), Err(Malformed::Owner)),
            ("an owner in a TTL", message(&[&a, &record(&[0xc0, 35], 1, 60, &[1; 4])]), Err(Malformed::Owner)),
            ("an owner in an address", message(&[&a, &record(&[0xc0, 42], 1, 60, &[1; 4])]), Err(Malformed::Owner)),
            (
                "an owner that leads forward",
                message(&[&record(&[0xc0, 60], 1, 60, &[1, 2, 3, 4])]),
                Err(Malformed::Owner),
            ),
        ] {
            assert_eq!(check(&packet).map(|r| r.records().len()), want, "{what}");
        }
    }

    #[test]
    fn opt_in_the_middle_is_cut_and_pointers_behind_it_move_along() {
        let opt = record(&[0], 41, 0, &[0, 15, 0, 2, 0, 6]);
        let first = record(b"\x02ns\x04test\x00", 1, 60, &[192, 0, 2, 1]);
        let mut packet = message(&[]);
        packet[11] = 3;
        packet.extend(&opt);
        let first_at = packet.len();
        packet.extend(&first);
        packet.extend(record(&[0xc0 | (first_at >> 8) as u8, first_at as u8], 28, 60, &[0; 16]));
        let reply = check(&packet).unwrap();
        assert_eq!(reply.rcode(), 0);
        assert_eq!(edns::ede_codes(reply.options()).collect::<Vec<_>>(), [6]);
        let (wire, ttls) = reply.cut_opt().unwrap();
        assert_eq!(wire.len(), packet.len() - opt.len());
        let again = check(&wire).unwrap();
        assert_eq!(again.records().len(), 2);
        assert_eq!(ttls, again.records().iter().map(|r| r.ttl_at as u16).collect::<Vec<_>>());
        let owner = |r: &Record| super::super::name::read(&wire, r.owner_at).unwrap().0.to_string();
        assert_eq!(again.records().iter().map(owner).collect::<Vec<_>>(), ["ns.test.", "ns.test."]);
    }

    #[test]
    fn a_name_that_leads_through_unread_data_behind_opt_is_whole_or_refused() {
        let opt = record(&[0], 41, 0, &[]);
        let data_at = message(&[]).len() + opt.len() + 12;
        // The data of the NULL record ends in a pointer to its own start; the next owner leads to that pointer.
        let null = record(&[0xc0, 12], 10, 60, &[1, b'x', 0, 0xc0, data_at as u8]);
        let owner = record(&[0xc0, data_at as u8 + 3], 28, 60, &[0; 16]);
        let mut packet = [message(&[]), opt, null, owner].concat();
        packet[11] = 3;
        let reply = check(&packet).unwrap();
        assert!(reply.cut_opt().is_none_or(|(wire, _)| check(&wire).is_ok()));
    }

    proptest! {
        #[test]
        fn noise_is_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = identify(&bytes, 0, NAME, 1);
            if let Ok(r) = check(&bytes) { let _ = (r.cut_opt(), r.rcode(), r.kept_edes()); }
        }

        #[test]
        fn a_reply_with_bytes_changed_is_judged_without_panic(changes in proptest::collection::vec((0usize..120, any::<u8>()), 1..6)) {
            let soa = record(&[0xc0, 12], 6, 60, &[vec![0xc0, 12, 0xc0, 16], vec![0; 20]].concat());
            let mut packet = message(&[&record(&[0xc0, 12], 1, 60, &[1; 4]), &soa]);
            packet[11] = 2;
            packet.extend(record(&[0], 41, 0, &[0, 15, 0, 2, 0, 6]));
            packet.extend(record(&[0xc0, 12], 2, 9, &[0xc0, 16]));
            let n = packet.len();
            for (at, to) in changes { packet[at % n] = to; }
            if let Ok(r) = check(&packet)
                && let Some((wire, ttls)) = r.cut_opt()
            {
                prop_assert_eq!(ttls.len(), r.records().len());
                prop_assert!(check(&wire).is_ok());
            }
        }
    }

    fn message(answers: &[&[u8]]) -> Vec<u8> {
        let mut p = vec![1, 2, 0x81, 0x80, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0];
        p.extend(NAME);
        p.extend([0, 1, 0, 1]);
        answers.iter().for_each(|a| p.extend(*a));
        p
    }

    fn record(owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut r = owner.to_vec();
        r.extend(rtype.to_be_bytes());
        r.extend([0, 1]);
        r.extend(ttl.to_be_bytes());
        r.extend((data.len() as u16).to_be_bytes());
        r.extend(data);
        r
    }
}
