//! Messages as the tests see them: a writer of questions and a reader of replies.
//!
//! Written apart from `evenkeel::wire` on purpose, so that a fault in one is not repeated in the other; and not
//! hickory's, which refuses messages that evenkeel must pass on. It reads whole messages only and panics on others:
//! in a test that is the finding.

use std::fmt;

/// A question to be sent.
#[derive(Clone, Debug)]
pub struct Question {
    pub id: u16,
    /// The flags word: RD unless changed.
    pub flags: u16,
    /// As spelled, in wire format.
    pub name: Vec<u8>,
    pub qtype: u16,
    pub class: u16,
    pub edns: Option<Edns>,
}

/// An OPT record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edns {
    pub payload: u16,
    /// Upper bits of the RCODE.
    pub extended: u8,
    pub version: u8,
    pub dnssec_ok: bool,
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Default for Edns {
    fn default() -> Self {
        Self { payload: 1232, extended: 0, version: 0, dnssec_ok: false, options: Vec::new() }
    }
}

impl Edns {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut options = Vec::new();
        for (code, data) in &self.options {
            options.extend(code.to_be_bytes());
            options.extend((data.len() as u16).to_be_bytes());
            options.extend(data);
        }
        let mut opt = vec![0, 0, 41];
        opt.extend(self.payload.to_be_bytes());
        opt.extend([self.extended, self.version, if self.dnssec_ok { 0x80 } else { 0 }, 0]);
        opt.extend((options.len() as u16).to_be_bytes());
        opt.extend(options);
        opt
    }

    /// INFO-CODEs of the extended errors (RFC 8914).
    pub fn edes(&self) -> Vec<u16> {
        let codes = self.options.iter().filter(|(code, _)| *code == 15);
        codes.map(|(_, data)| u16::from_be_bytes([data[0], data[1]])).collect()
    }
}

impl Question {
    /// With RD, EDNS and a random id, as `dig` asks.
    pub fn new(name: &str, qtype: u16) -> Self {
        Self { id: rand::random(), flags: flag::RD, name: wire(name), qtype, class: 1, edns: Some(Edns::default()) }
    }

    pub fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    pub fn class(mut self, class: u16) -> Self {
        self.class = class;
        self
    }

    pub fn without_edns(mut self) -> Self {
        self.edns = None;
        self
    }

    /// Changes the OPT record; one is added where there is none.
    pub fn edns(mut self, change: impl FnOnce(&mut Edns)) -> Self {
        change(self.edns.get_or_insert_default());
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        let counts = [1, 0, 0, self.edns.is_some().into()];
        for word in [self.id, self.flags].into_iter().chain(counts) {
            packet.extend(word.to_be_bytes());
        }
        packet.extend(&self.name);
        packet.extend(self.qtype.to_be_bytes());
        packet.extend(self.class.to_be_bytes());
        packet.extend(self.edns.iter().flat_map(Edns::to_bytes));
        packet
    }
}

/// Bits of the flags word.
pub mod flag {
    pub const QR: u16 = 0x8000;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
}

/// Record types by the names that tests use.
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    pub const ANY: u16 = 255;
}

/// Response codes by the names that tests use.
pub mod rcode {
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const BADVERS: u16 = 16;
}

/// A name in wire format, spelled as given. Knows no escapes.
pub fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|l| !l.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// The flags word, id and name of a packet that may be anything; `None` where it is no question.
pub fn question_of(packet: &[u8]) -> Option<Question> {
    if packet.len() < 12 || word(packet, 4) != 1 {
        return None;
    }
    let mut at = 12;
    while *packet.get(at)? != 0 {
        at += 1 + usize::from(packet[at]);
    }
    at += 1;
    packet.get(at + 3)?;
    let name = packet[12..at].to_vec();
    let edns = (word(packet, 10) > 0).then(|| Message::read(packet).edns).flatten();
    Some(Question {
        id: word(packet, 0),
        flags: word(packet, 2),
        name,
        qtype: word(packet, at),
        class: word(packet, at + 2),
        edns,
    })
}

/// A whole message.
#[derive(Clone)]
pub struct Message {
    pub id: u16,
    pub flags: u16,
    /// With the upper bits of OPT.
    pub rcode: u16,
    /// The question's bytes as they stand; empty where there is none.
    pub question: Vec<u8>,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    /// Without OPT.
    pub additionals: Vec<Record>,
    pub edns: Option<Edns>,
    bytes: Vec<u8>,
}

/// One record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Decompressed, as spelled, in wire format.
    pub owner: Vec<u8>,
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    /// As it stands.
    pub data: Vec<u8>,
    ttl_at: usize,
    end: usize,
}

impl Message {
    /// # Panics
    ///
    /// Where the message is not whole, or has noise behind it.
    pub fn read(packet: &[u8]) -> Self {
        assert!(packet.len() >= 12, "{} bytes are no message", packet.len());
        let mut at = 12;
        for _ in 0..word(packet, 4) {
            at = name_at(packet, at).1 + 4;
        }
        let question = packet[12..at].to_vec();
        let mut section = |count_at: usize| -> Vec<Record> {
            (0..word(packet, count_at)).map(|_| record_at(packet, &mut at)).collect()
        };
        let (answers, authorities, mut additionals) = (section(6), section(8), section(10));
        assert_eq!(at, packet.len(), "noise behind the message");
        let opts = additionals.iter().filter(|r| r.rtype == rtype::OPT).count();
        assert!(opts < 2, "{opts} OPTs");
        let edns = additionals.iter().position(|r| r.rtype == rtype::OPT).map(|n| edns_of(&additionals.remove(n)));
        let flags = word(packet, 2);
        let rcode = flags & 15 | edns.as_ref().map_or(0, |e| u16::from(e.extended) << 4);
        Self {
            id: word(packet, 0),
            flags,
            rcode,
            question,
            answers,
            authorities,
            additionals,
            edns,
            bytes: packet.to_vec(),
        }
    }

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// INFO-CODEs of the extended errors; empty without OPT.
    pub fn edes(&self) -> Vec<u16> {
        self.edns.iter().flat_map(Edns::edes).collect()
    }

    /// The addresses of its A records, sorted.
    pub fn addresses(&self) -> Vec<[u8; 4]> {
        let a = self.answers.iter().filter(|r| r.rtype == rtype::A);
        let mut all: Vec<_> = a.filter_map(|r| <[u8; 4]>::try_from(&r.data[..]).ok()).collect();
        all.sort_unstable();
        all
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The message without what a resolver may change: id, flags but the RCODE, the question's spelling, TTLs, OPT.
    /// Where `rotated`, the answers are put in order, since a resolver may turn A and AAAA.
    ///
    /// # Panics
    ///
    /// Where OPT is not the last record.
    pub fn kept_bytes(&self, rotated: bool) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].fill(0);
        bytes[2] = 0;
        bytes[3] &= 15;
        bytes[12..12 + self.question.len()].make_ascii_lowercase();
        let records = || self.answers.iter().chain(&self.authorities).chain(&self.additionals);
        for record in records() {
            bytes[record.ttl_at..record.ttl_at + 4].fill(0);
        }
        if self.edns.is_some() {
            let end = records().map(|r| r.end).max().unwrap_or(12 + self.question.len());
            assert!(bytes[end..].starts_with(&[0, 0, 41]), "OPT is not the last record");
            bytes.truncate(end);
            bytes[11] -= 1;
        }
        if rotated {
            let start = 12 + self.question.len();
            let mut slices: Vec<Vec<u8>> = Vec::new();
            let mut at = start;
            for record in &self.answers {
                slices.push(bytes[at..record.end].to_vec());
                at = record.end;
            }
            slices.sort();
            bytes.splice(start..at, slices.concat());
        }
        bytes
    }
}

impl Record {
    /// The owner as text.
    pub fn name(&self) -> String {
        let mut text = String::new();
        let mut at = 0;
        while self.owner[at] != 0 {
            let end = at + 1 + usize::from(self.owner[at]);
            text += &String::from_utf8_lossy(&self.owner[at + 1..end]);
            text.push('.');
            at = end;
        }
        text
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data: String = self.data.iter().take(40).map(|b| format!("{b:02x}")).collect();
        write!(f, "{} {} {} {data}", self.name(), self.ttl, self.rtype)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("rcode", &self.rcode)
            .field("flags", &format_args!("{:04x}", self.flags))
            .field("answers", &self.answers)
            .field("authorities", &self.authorities)
            .field("additionals", &self.additionals)
            .field("edes", &self.edes())
            .finish()
    }
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// The name at `at`, decompressed, and the offset behind it.
fn name_at(packet: &[u8], at: usize) -> (Vec<u8>, usize) {
    let (mut name, mut at, mut end) = (Vec::new(), at, None);
    for _ in 0..256 {
        let length = usize::from(packet[at]);
        if length == 0 {
            name.push(0);
            return (name, end.unwrap_or(at + 1));
        }
        if length >= 0xc0 {
            end.get_or_insert(at + 2);
            at = usize::from(word(packet, at) & 0x3fff);
        } else {
            assert!(length < 64, "label type {length:02x}");
            name.extend(&packet[at..=at + length]);
            at += 1 + length;
        }
    }
    panic!("a name that does not end");
}

fn record_at(packet: &[u8], at: &mut usize) -> Record {
    let (owner, head) = name_at(packet, *at);
    let length = usize::from(word(packet, head + 8));
    *at = head + 10 + length;
    Record {
        owner,
        rtype: word(packet, head),
        class: word(packet, head + 2),
        ttl: u32::from(word(packet, head + 4)) << 16 | u32::from(word(packet, head + 6)),
        data: packet[head + 10..*at].to_vec(),
        ttl_at: head + 4,
        end: *at,
    }
}

fn edns_of(record: &Record) -> Edns {
    let [extended, version, flags, _] = record.ttl.to_be_bytes();
    let mut options = Vec::new();
    let mut rest = &record.data[..];
    while !rest.is_empty() {
        let length = usize::from(word(rest, 2));
        options.push((word(rest, 0), rest[4..4 + length].to_vec()));
        rest = &rest[4 + length..];
    }
    Edns { payload: record.class, extended, version, dnssec_ok: flags & 0x80 != 0, options }
}
