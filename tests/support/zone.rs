//! What a scripted upstream knows: records by name, and how a resolver would answer from them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::message::{Question, flag, rcode, rtype, wire};

/// One record without its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datum {
    pub rtype: u16,
    pub ttl: u32,
    pub data: Vec<u8>,
}

/// Records, all under one apex. Names are case-insensitive.
#[derive(Clone, Debug)]
pub struct Zone {
    apex: Vec<u8>,
    negative_ttl: u32,
    records: BTreeMap<Vec<u8>, Vec<Datum>>,
    /// What every name below these, that is not listed, has.
    below: Vec<(Vec<u8>, Vec<Datum>)>,
}

/// What a resolver answers with: sections of (owner, record).
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub rcode: u16,
    pub answers: Vec<(Vec<u8>, Datum)>,
    pub authorities: Vec<(Vec<u8>, Datum)>,
}

impl Zone {
    /// An empty zone but for the NS of the apex. `"."` is a view of the whole tree, which passes the probe `. NS`.
    pub fn new(apex: &str) -> Self {
        let zone = Self { apex: key(apex), negative_ttl: 60, records: BTreeMap::new(), below: Vec::new() };
        zone.with(apex, rtype::NS, 3600, &wire("ns.test."))
    }

    /// MINIMUM and TTL of the SOA in negative answers, in seconds. 60 unless set.
    pub fn negative_ttl(mut self, seconds: u32) -> Self {
        self.negative_ttl = seconds;
        self
    }

    pub fn with(mut self, name: &str, rtype: u16, ttl: u32, data: &[u8]) -> Self {
        self.records.entry(key(name)).or_default().push(Datum { rtype, ttl, data: data.to_vec() });
        self
    }

    pub fn a(self, name: &str, ttl: u32, address: &str) -> Self {
        self.with(name, rtype::A, ttl, &address.parse::<Ipv4Addr>().unwrap().octets())
    }

    pub fn aaaa(self, name: &str, ttl: u32, address: &str) -> Self {
        self.with(name, rtype::AAAA, ttl, &address.parse::<Ipv6Addr>().unwrap().octets())
    }

    pub fn cname(self, name: &str, ttl: u32, target: &str) -> Self {
        self.with(name, rtype::CNAME, ttl, &wire(target))
    }

    /// A TXT record of `length` bytes of text.
    pub fn txt(self, name: &str, ttl: u32, length: usize) -> Self {
        let text = vec![b'x'; length];
        let data: Vec<u8> = text.chunks(255).flat_map(|c| [&[c.len() as u8], c].concat()).collect();
        self.with(name, rtype::TXT, ttl, &data)
    }

    /// Every name below `suffix` that is not listed has this address.
    pub fn any_below(mut self, suffix: &str, ttl: u32, address: &str) -> Self {
        let data = address.parse::<Ipv4Addr>().unwrap().octets().to_vec();
        self.below.push((key(suffix), vec![Datum { rtype: rtype::A, ttl, data }]));
        self
    }

    /// The answer, with the whole chain of CNAMEs in it.
    pub fn find(&self, question: &Question) -> Found {
        let mut found = Found::default();
        let mut name = question.name.clone();
        for _ in 0..32 {
            let Some(data) = self.at(&name) else {
                found.rcode = rcode::NXDOMAIN;
                found.authorities.push(self.soa());
                return found;
            };
            let wanted: Vec<_> = data.iter().filter(|d| d.rtype == question.qtype).collect();
            found.answers.extend(wanted.iter().map(|d| (name.clone(), (*d).clone())));
            if !wanted.is_empty() {
                return found;
            }
            let Some(alias) = data.iter().find(|d| d.rtype == rtype::CNAME) else {
                found.authorities.push(self.soa());
                return found;
            };
            found.answers.push((name, alias.clone()));
            name = alias.data.clone();
        }
        found
    }

    fn at(&self, name: &[u8]) -> Option<&[Datum]> {
        let name = name.to_ascii_lowercase();
        let listed = self.records.get(&name);
        listed
            .or_else(|| self.below.iter().find(|(s, _)| is_below(&name, s)).map(|(_, data)| data))
            .map(Vec::as_slice)
    }

    /// The SOA of negative answers.
    pub fn soa(&self) -> (Vec<u8>, Datum) {
        let mut data = [wire("ns.test."), wire("host.test.")].concat();
        for value in [1, 3600, 600, 86_400, self.negative_ttl] {
            data.extend(value.to_be_bytes());
        }
        (self.apex.clone(), Datum { rtype: rtype::SOA, ttl: self.negative_ttl, data })
    }
}

fn key(name: &str) -> Vec<u8> {
    wire(&name.to_ascii_lowercase())
}

fn is_below(name: &[u8], suffix: &[u8]) -> bool {
    let mut at = 0;
    while name[at] != 0 {
        at += 1 + usize::from(name[at]);
        if name[at..] == *suffix {
            return true;
        }
    }
    false
}

/// Writes the reply to `question`: header, question as spelled, records, and OPT where the question had one.
///
/// Owners that are the question's name are a pointer to it, others are spelled out.
pub fn reply(question: &Question, found: &Found, ede: Option<u16>) -> Vec<u8> {
    let mut packet = Vec::new();
    let flags = flag::QR | flag::RA | question.flags & (flag::RD | flag::CD) | found.rcode & 15;
    let counts = [1, found.answers.len() as u16, found.authorities.len() as u16, question.edns.is_some().into()];
    for word in [question.id, flags].into_iter().chain(counts) {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(&question.name);
    packet.extend(question.qtype.to_be_bytes());
    packet.extend(question.class.to_be_bytes());
    for (owner, datum) in found.answers.iter().chain(&found.authorities) {
        if owner.eq_ignore_ascii_case(&question.name) {
            packet.extend([0xc0, 12]);
        } else {
            packet.extend(owner);
        }
        packet.extend(datum.rtype.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(datum.ttl.to_be_bytes());
        packet.extend(u16::try_from(datum.data.len()).unwrap().to_be_bytes());
        packet.extend(&datum.data);
    }
    if let Some(asked) = &question.edns {
        let options = ede.map(|code| (15, code.to_be_bytes().to_vec())).into_iter().collect();
        let edns = super::message::Edns {
            dnssec_ok: asked.dnssec_ok,
            options,
            extended: (found.rcode >> 4) as u8,
            ..Default::default()
        };
        packet.extend(edns.to_bytes());
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;

    #[test]
    fn a_zone_answers_as_a_resolver_would() {
        let zone = Zone::new("example.")
            .a("www.example.", 60, "192.0.2.1")
            .cname("alias.example.", 60, "next.example.")
            .cname("next.example.", 60, "www.example.")
            .cname("out.example.", 60, "elsewhere.test.")
            .any_below("many.example.", 5, "192.0.2.9");
        for (what, name, qtype, rcode_want, answers, negative) in [
            ("an address", "WWW.example.", rtype::A, rcode::NOERROR, 1, false),
            ("no such type", "www.example.", rtype::AAAA, rcode::NOERROR, 0, true),
            ("no such name", "no.example.", rtype::A, rcode::NXDOMAIN, 0, true),
            ("a chain", "alias.example.", rtype::A, rcode::NOERROR, 3, false),
            ("a chain that leads out", "out.example.", rtype::A, rcode::NXDOMAIN, 1, true),
            ("an unlisted name below", "x.y.many.example.", rtype::A, rcode::NOERROR, 1, false),
            ("the name itself", "many.example.", rtype::A, rcode::NXDOMAIN, 0, true),
        ] {
            let question = Question::new(name, qtype);
            let message = Message::read(&reply(&question, &zone.find(&question), None));
            assert_eq!((message.rcode, message.answers.len()), (rcode_want, answers), "{what}");
            assert_eq!(!message.authorities.is_empty(), negative, "{what}");
        }
    }
}
