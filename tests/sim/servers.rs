//! The servers of a world and the network before them: what comes back for a packet, and when.
//!
//! Each answer bears the number of its making ([`Made`]): a positive one as the address of a record in its additional
//! section, a negative one as the serial of its SOA. So what a client gets tells where it came from, and when.

use std::time::Duration;

use evenkeel::clock::Moment;

use crate::chance::Chance;
use crate::faults::{BEGINS, Faults, Ill, Spell};
use crate::message::{self, Edns, Question, flag, rcode, rtype, wire};
use crate::names::{self, NEGATIVE_TTL, Truth};

/// What the node gets for a packet that it sent.
#[derive(Clone, Debug)]
pub enum Delivery {
    Packet(Vec<u8>),
    /// The port is closed.
    Refused,
    /// No route.
    Unreachable,
    /// The connection broke.
    Closed,
    /// The server asks us in turn.
    AsksUs(Vec<u8>),
}

/// An answer that a server made.
#[derive(Clone, Debug)]
pub struct Made {
    pub server: usize,
    pub tier: usize,
    /// Folded, in wire format.
    pub name: Vec<u8>,
    pub qtype: u16,
    pub rcode: u16,
    pub positive: bool,
    /// Has it what was asked for?
    pub good: bool,
    pub ttl: u32,
    pub version: usize,
    /// When it came to an attempt that was out.
    pub arrived: Option<Moment>,
    /// Did it come again by way of a server that forwards to us?
    pub looped: bool,
}

/// An address that leads nowhere.
pub const NOWHERE: [u8; 4] = [0, 0, 0, 0];

/// What servers have made so far.
#[derive(Debug, Default)]
pub struct Network {
    pub made: Vec<Made>,
    pub packets: u64,
}

impl Network {
    /// What comes back for a question to a server, and after how long.
    pub fn send(
        &mut self,
        f: &Faults,
        server: usize,
        packet: &[u8],
        over_tcp: bool,
        c: &mut Chance,
        now: Moment,
    ) -> Vec<(Duration, Delivery)> {
        self.packets += 1;
        let s = &f.servers[server];
        let question = message::question_of(packet).expect("what evenkeel asks is a question");
        let truth = names::truth(&question.name, question.qtype);
        let is_probe = truth == Truth::Root;
        let ills: Vec<Ill> = s.spells.iter().filter(|spell| hits(spell, c, now)).map(|spell| spell.ill).collect();
        let has = |ill: Ill| ills.contains(&ill);
        let mut took = Duration::from_micros(s.delay_ms * 1000 + c.below(s.jitter_ms * 1000 + 1));
        if ills.contains(&Ill::Loses) {
            if !over_tcp {
                return vec![];
            }
            took += Duration::from_millis(200);
        }
        if has(Ill::Silent) || has(Ill::Gray) && !is_probe {
            return vec![];
        }
        if has(Ill::NoRoute) {
            return vec![(Duration::ZERO, Delivery::Unreachable)];
        }
        if has(Ill::PortClosed) {
            return vec![(took, Delivery::Refused)];
        }
        if over_tcp {
            took *= 2;
            if has(Ill::TruncatesForGood) {
                return vec![(took, if c.happens(0.5) { Delivery::Closed } else { Delivery::Refused })];
            }
        }
        for ill in &ills {
            if let Ill::Slow(ms) = ill {
                took += c.millis(*ms, ms * 3 / 2);
            }
        }
        if has(Ill::Loops) {
            return vec![(took, Delivery::AsksUs(packet.to_vec()))];
        }
        let truncates = !over_tcp && (has(Ill::Truncates) || has(Ill::TruncatesForGood) || truth == Truth::Big);
        let reply = |rcode: u16| head(&question, rcode, [0; 3]);
        let out = match truth {
            _ if has(Ill::NoEdns) && question.edns.is_some() => reply(rcode::FORMERR),
            _ if has(Ill::ServFail) => with_opt(reply(rcode::SERVFAIL), &question, &[]),
            _ if has(Ill::Refused) => with_opt(reply(rcode::REFUSED), &question, &[]),
            _ if has(Ill::HeaderOnly) => {
                let mut out = reply(rcode::SERVFAIL)[..12].to_vec();
                out[5] = 0;
                out
            }
            Truth::Dead if f.dead_are_silent => return vec![],
            Truth::Dead => {
                took += c.millis(0, 2500);
                with_opt(reply(rcode::SERVFAIL), &question, &[])
            }
            Truth::Bogus => with_opt(reply(rcode::SERVFAIL), &question, &[6]),
            _ if truncates => {
                let mut out = reply(rcode::NOERROR);
                out[2] |= (flag::TC >> 8) as u8;
                out
            }
            _ if has(Ill::Noise) => {
                let mut out = head(&question, rcode::NOERROR, [1, 0, 0]);
                out.extend((0..30).map(|_| c.next() as u8 | 0x40));
                out
            }
            _ if has(Ill::Lame) => {
                let mut out = head(&question, rcode::NOERROR, [0, 1, 0]);
                record(&mut out, &[0], rtype::NS, 60, &wire("ns.elsewhere.test"));
                out
            }
            _ => {
                let other = has(Ill::OtherView) || ills.iter().any(|i| is_of_other_zone(*i, &question.name));
                let is_of = |n: u64| names::labels(&question.name).get(1).is_some_and(|z| *z == format!("z{n}"));
                let truth = match truth {
                    truth if is_probe => truth,
                    _ if other => Truth::NxDomain,
                    _ if ills.iter().any(|i| matches!(i, Ill::Emptied(n) if is_of(*n))) => Truth::NoData,
                    Truth::Addresses { ttl, .. }
                        if ills.iter().any(|i| matches!(i, Ill::LeadsNowhere(n) if is_of(*n))) =>
                    {
                        Truth::Nowhere { ttl }
                    }
                    truth => truth,
                };
                let mut out = self.answer(f, server, &question, truth, now);
                if has(Ill::Cut) {
                    out.truncate(12 + question.name.len() + 4 + 5);
                }
                out
            }
        };
        let mut all = Vec::new();
        let forged = ills.iter().find_map(|i| if let Ill::Forged(n) = i { Some(*n) } else { None });
        if let Some(n) = forged.filter(|_| !over_tcp) {
            let mut lie = self.answer(f, server, &question, Truth::Addresses { number: 0x7f_ffff, ttl: 86_400 }, now);
            lie[0] ^= 0x55;
            all.extend((0..n).map(|i| (took.mul_f64(0.5) + Duration::from_micros(i), Delivery::Packet(lie.clone()))));
        }
        all.push((took, Delivery::Packet(out)));
        all
    }

    /// A true answer, or what another view takes for one.
    fn answer(&mut self, f: &Faults, server: usize, question: &Question, truth: Truth, now: Moment) -> Vec<u8> {
        let version = f.renumbered.iter().filter(|at| **at <= now).count();
        let number = self.made.len() as u32;
        let rcode = if truth == Truth::NxDomain { rcode::NXDOMAIN } else { rcode::NOERROR };
        let ttl = match truth.ttl() {
            ttl @ 2.. if f.servers_are_caches && truth.is_positive() => {
                ttl - (now.since(BEGINS).as_secs() % u64::from(ttl)) as u32
            }
            ttl => ttl,
        };
        self.made.push(Made {
            server,
            tier: f.servers[server].tier,
            name: question.name.to_ascii_lowercase(),
            qtype: question.qtype,
            rcode,
            positive: truth.is_positive(),
            good: truth.is_positive() && !matches!(truth, Truth::Nowhere { .. }),
            ttl,
            version,
            arrived: None,
            looped: false,
        });
        let owner = [0xc0, 12];
        let mut out;
        match truth {
            Truth::Addresses { number: n, .. } => {
                out = head(question, rcode, [2, 0, 1]);
                for address in names::addresses(n, version) {
                    record(&mut out, &owner, rtype::A, ttl, &address);
                }
            }
            Truth::Nowhere { .. } => {
                out = head(question, rcode, [1, 0, 1]);
                record(&mut out, &owner, rtype::A, ttl, &NOWHERE);
            }
            Truth::Big => {
                out = head(question, rcode, [8, 0, 1]);
                let text = [&[250][..], &[b'x'; 250]].concat();
                (0..8).for_each(|_| record(&mut out, &owner, rtype::TXT, ttl, &text));
            }
            Truth::Root => {
                out = head(question, rcode, [1, 0, 1]);
                record(&mut out, &owner, rtype::NS, ttl, &wire("ns.test"));
            }
            _ => {
                out = head(question, rcode, [0, 1, 0]);
                let mut soa = vec![0, 0];
                for word in [number, 60, 60, 60, NEGATIVE_TTL] {
                    soa.extend(word.to_be_bytes());
                }
                record(&mut out, &[0], rtype::SOA, ttl, &soa);
            }
        }
        if truth.is_positive() {
            record(&mut out, &[0], rtype::A, ttl, &number.to_be_bytes());
        }
        with_opt(out, question, &[])
    }
}

/// The number under which an answer was made, read from what a client got; `None` where it bears none.
pub fn number_of(m: &message::Message) -> Option<usize> {
    let soa = m.authorities.iter().find(|r| r.rtype == rtype::SOA);
    let bytes = match soa {
        Some(soa) => soa.data.get(2..6)?,
        None => &m.additionals.iter().find(|r| r.rtype == rtype::A)?.data[..],
    };
    Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize)
}

fn hits(spell: &Spell, c: &mut Chance, now: Moment) -> bool {
    let both_ways = |c: &mut Chance| c.happens(spell.share) || spell.ill == Ill::Loses && c.happens(spell.share);
    spell.is_on(now) && (spell.share >= 1.0 || both_ways(c))
}

fn is_of_other_zone(ill: Ill, name: &[u8]) -> bool {
    let Ill::OtherViewOfZone(n) = ill else { return false };
    names::labels(name).get(1).is_some_and(|zone| *zone == format!("z{n}"))
}

fn head(question: &Question, rcode: u16, counts: [u16; 3]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let flags = flag::QR | flag::RA | question.flags & flag::RD | rcode;
    for word in [question.id, flags, 1].into_iter().chain(counts) {
        out.extend(word.to_be_bytes());
    }
    out.extend(&question.name);
    out.extend(question.qtype.to_be_bytes());
    out.extend(question.class.to_be_bytes());
    out
}

fn record(out: &mut Vec<u8>, owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) {
    out.extend(owner);
    out.extend(rtype.to_be_bytes());
    out.extend([0, 1]);
    out.extend(ttl.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
}

/// Appends OPT where the question had one, with these extended errors.
fn with_opt(mut out: Vec<u8>, question: &Question, edes: &[u8]) -> Vec<u8> {
    if question.edns.is_some() {
        let options = edes.iter().map(|code| (15, vec![0, *code])).collect();
        out.extend(Edns { options, ..Edns::default() }.to_bytes());
        let additionals = u16::from_be_bytes([out[10], out[11]]) + 1;
        out[10..12].copy_from_slice(&additionals.to_be_bytes());
    }
    out
}
