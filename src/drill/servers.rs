//! The simulated servers and the network before them: what comes back for a question, and when.
//!
//! Pure. A server of the first tier is `latency` away, each lower tier half as much farther; one round trip in a
//! hundred takes several times that. It knows the names that are asked again and again; for others it asks their
//! authority first, which takes up to a tenth of a second. Of a dead authority it says SERVFAIL after half a second to
//! five. What goes wrong comes from the acts ([`super::script::Ill`]).

use std::time::Duration;

use super::chance::Chance;
use super::names::{self, NEGATIVE_TTL, Sort, Truth};
use super::script::{Ill, Scenario};
use super::stage::Stage;
use crate::config::Mistake;
use crate::wire::{build, flag, rcode, rtype};

/// What the node gets for a question that it sent.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Bytes.
    Packet(Vec<u8>),
    /// The port is closed.
    PortClosed,
    /// No route.
    Unreachable,
}

/// One question as it comes to a server.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// The group that asks.
    pub group: usize,
    /// The server's place in it.
    pub server: usize,
    /// Its id.
    pub id: u16,
    /// Folded, in wire format.
    pub name: &'q [u8],
    /// Its type.
    pub qtype: u16,
    /// Over TCP?
    pub over_tcp: bool,
    /// With OPT?
    pub with_edns: bool,
}

/// The servers of a drill.
pub struct Network {
    /// By group and place.
    servers: Vec<Vec<Server>>,
    /// By act, group and place.
    struck: Vec<Vec<Vec<bool>>>,
}

struct Server {
    away: Duration,
    /// Packets of the second at hand, for an act that limits them.
    second: u64,
    packets: u32,
}

impl Network {
    /// The servers of a configuration, under the acts of a scenario.
    pub fn new(scenario: &Scenario, stage: &Stage) -> Result<Self, Vec<Mistake>> {
        let struck = stage.struck(scenario)?;
        let mut servers: Vec<Vec<Server>> = stage.groups.iter().map(|_| Vec::new()).collect();
        for (group, tier, _) in stage.servers() {
            let away = scenario.latency.mul_f64(1.0 + 0.5 * tier as f64);
            servers[group].push(Server { away, second: 0, packets: 0 });
        }
        Ok(Self { servers, struck })
    }

    /// Does an act strike any server?
    pub fn is_struck(&self, act: usize) -> bool {
        self.struck[act].iter().flatten().any(|s| *s)
    }

    /// Does an act strike all servers of a group's tier in which the first of them is?
    pub fn strikes_all(&self, act: usize, group: usize) -> bool {
        self.struck[act][group].iter().all(|s| *s)
    }

    /// Does an act strike any server of a group?
    pub fn strikes_any(&self, act: usize, group: usize) -> bool {
        self.struck[act][group].iter().any(|s| *s)
    }

    /// What comes back for a question, and after how long; nothing where it never does.
    pub fn send(
        &mut self,
        scenario: &Scenario,
        q: Question<'_>,
        chance: &mut Chance,
        now: Duration,
    ) -> Option<(Duration, Delivery)> {
        let truth = names::truth(q.name, q.qtype);
        let is_probe = names::sort_of(q.name).is_none();
        let server = &mut self.servers[q.group][q.server];
        let mut took = round_trip(server.away, chance);
        if second_of(now) != server.second {
            (server.second, server.packets) = (second_of(now), 0);
        }
        server.packets += 1;
        let packets = server.packets;
        // What decides about the reply is drawn before it is asked what goes wrong: the same questions meet the same
        // luck in every act.
        if matches!(names::sort_of(q.name), Some((Sort::New | Sort::Absent, _))) {
            took += Duration::from_millis(100).mul_f64(chance.unit().powi(2));
        }
        if truth == Truth::Dead {
            took += chance.span(Duration::from_millis(500), Duration::from_secs(5));
        }
        if q.over_tcp {
            took *= 2;
        }
        let mut made = Made::True;
        for (act, struck) in scenario.acts.iter().zip(&self.struck) {
            let elsewhere = act.zone.as_ref().is_some_and(|zone| !names::is_in_zone(q.name, zone));
            if !struck[q.group][q.server] || !act.is_on(now) || elsewhere {
                continue;
            }
            // A packet may be lost on its way there and on its way back.
            let ways = if act.ill == Ill::Lossy { 2 } else { 1 };
            if !(0..ways).any(|_| chance.happens(act.share)) {
                continue;
            }
            match act.ill {
                // TCP sends again what was lost.
                Ill::Lossy if q.over_tcp => took += Duration::from_millis(200),
                Ill::Silent | Ill::Lossy => return None,
                Ill::Gray if !is_probe => return None,
                Ill::Gray => {}
                Ill::Limited(most) if packets > most => return None,
                Ill::Limited(_) => {}
                Ill::Slow(by) => took += chance.span(by, by.mul_f64(1.5)),
                Ill::PortClosed => return Some((took, Delivery::PortClosed)),
                Ill::Unreachable => return Some((Duration::ZERO, Delivery::Unreachable)),
                Ill::ServFail => made = Made::Code(rcode::SERVFAIL),
                Ill::Refused => made = Made::Code(rcode::REFUSED),
                Ill::OtherView if is_probe => {}
                Ill::OtherView | Ill::Vanished => made = Made::As(Truth::NxDomain),
                Ill::Emptied => made = Made::As(Truth::NoData),
                Ill::Truncated if q.over_tcp => {}
                Ill::Truncated => made = Made::Truncated,
                Ill::Noise => made = Made::Noise,
            }
        }
        Some((took, Delivery::Packet(reply(q, made, truth))))
    }
}

fn second_of(now: Duration) -> u64 {
    now.as_secs()
}

fn round_trip(away: Duration, chance: &mut Chance) -> Duration {
    let usual = away.mul_f64(0.85 + 0.3 * chance.unit());
    if chance.happens(0.01) { usual.mul_f64(2.0 + 4.0 * chance.unit()) } else { usual }
}

/// What a reply is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    True,
    As(Truth),
    Code(u16),
    Truncated,
    Noise,
}

fn reply(q: Question<'_>, made: Made, truth: Truth) -> Vec<u8> {
    match made {
        Made::Code(code) => with_opt(head(q, code, [0; 3]), q),
        Made::Truncated => {
            let mut out = head(q, rcode::NOERROR, [0; 3]);
            out[2] |= (flag::TC >> 8) as u8;
            with_opt(out, q)
        }
        Made::Noise => {
            let mut out = head(q, rcode::NOERROR, [1, 0, 0]);
            out.extend([0x55; 20]);
            out
        }
        Made::True => answer(q, truth),
        Made::As(truth) => answer(q, truth),
    }
}

fn answer(q: Question<'_>, truth: Truth) -> Vec<u8> {
    let out = match truth {
        Truth::Dead => head(q, rcode::SERVFAIL, [0; 3]),
        Truth::Address { address, ttl } => {
            let mut out = head(q, rcode::NOERROR, [1, 0, 0]);
            record(&mut out, &[0xc0, 12], rtype::A, ttl, &address);
            out
        }
        Truth::Other if q.qtype == rtype::SOA => {
            let mut out = head(q, rcode::NOERROR, [1, 0, 0]);
            record(&mut out, &[0xc0, 12], rtype::SOA, 300, &build::negative_soa(NEGATIVE_TTL));
            out
        }
        Truth::Other => {
            let mut out = head(q, rcode::NOERROR, [1, 0, 0]);
            let data: &[u8] = if q.qtype == rtype::NS { &[0] } else { &[192, 0, 2, 99] };
            record(&mut out, &[0xc0, 12], q.qtype, 300, data);
            out
        }
        Truth::NoData | Truth::NxDomain => {
            let code = if truth == Truth::NoData { rcode::NOERROR } else { rcode::NXDOMAIN };
            let mut out = head(q, code, [0, 1, 0]);
            record(&mut out, &[0], rtype::SOA, NEGATIVE_TTL, &build::negative_soa(NEGATIVE_TTL));
            out
        }
    };
    with_opt(out, q)
}

fn head(q: Question<'_>, code: u16, counts: [u16; 3]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    for word in [q.id, flag::QR | flag::RA | flag::RD | code, 1].into_iter().chain(counts) {
        out.extend(word.to_be_bytes());
    }
    out.extend(q.name);
    out.extend(q.qtype.to_be_bytes());
    out.extend([0, 1]);
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

fn with_opt(mut out: Vec<u8>, q: Question<'_>) -> Vec<u8> {
    if q.with_edns {
        out.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        out[11] = 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::drill::reading::parse;
    use crate::wire::Name;
    use crate::wire::reply::{Identity, check, identify, is_truncated};

    fn scenario(act: &str) -> Scenario {
        let text = format!(
            "title = \"x\"\nlength = \"1m\"\n[[load]]\nask = \"known\"\n[[act]]\nat = \"0s\"\nwho = \"all\"\n{act}\n\
             [[objective]]\nfresh = 0.0\n"
        );
        parse("x", &text).unwrap()
    }

    fn ask(act: &str, name: &str, qtype: u16, over_tcp: bool) -> Option<(Duration, Delivery)> {
        let scenario = scenario(act);
        let mut network = Network::new(&scenario, &Stage::new("x", &Config::default())).unwrap();
        let name: Name = name.parse().unwrap();
        let q = Question { group: 0, server: 0, id: 7, name: name.as_wire(), qtype, over_tcp, with_edns: true };
        network.send(&scenario, q, &mut Chance::new(1), Duration::from_secs(1))
    }

    #[test]
    fn every_ill_gives_what_its_word_says() {
        for (act, name, code, answers) in [
            ("what = \"slow\"\nby = \"1s\"", "n1.z1.test", 0, 1),
            ("what = \"servfail\"", "n1.z1.test", 2, 0),
            ("what = \"refused\"", "n1.z1.test", 5, 0),
            ("what = \"other-view\"", "n1.z1.test", 3, 0),
            ("what = \"emptied\"\nzone = \"z1\"", "n1.z1.test", 0, 0),
            ("what = \"emptied\"\nzone = \"z2\"", "n1.z1.test", 0, 1),
            ("what = \"vanished\"", "n1.z1.test", 3, 0),
            ("what = \"limited\"\npackets_per_second = 5", "n1.z1.test", 0, 1),
            ("what = \"silent\"\nshare = 0.0", "d1.z1.test", 2, 0),
        ] {
            let Some((_, Delivery::Packet(bytes))) = ask(act, name, rtype::A, false) else { panic!("{act}") };
            let of: Name = name.parse().unwrap();
            assert_eq!(identify(&bytes, 7, of.as_wire(), rtype::A), Identity::Ours, "{act}");
            let reply = check(&bytes).unwrap();
            assert_eq!((reply.rcode(), reply.answers().len()), (code, answers), "{act}");
        }
        for act in
            ["what = \"silent\"", "what = \"lossy\"", "what = \"gray\"", "what = \"limited\"\npackets_per_second = 0"]
        {
            assert!(ask(act, "n1.z1.test", rtype::A, false).is_none(), "{act}");
        }
        assert!(ask("what = \"gray\"", ".", rtype::NS, false).is_some());
        assert!(ask("what = \"lossy\"", "n1.z1.test", rtype::A, true).is_some(), "TCP sends again");
        let closed = ask("what = \"port-closed\"", "n1.z1.test", rtype::A, false);
        assert!(matches!(closed, Some((_, Delivery::PortClosed))));
        let unreachable = ask("what = \"unreachable\"", "n1.z1.test", rtype::A, false);
        assert!(matches!(unreachable, Some((Duration::ZERO, Delivery::Unreachable))));
        let Some((_, Delivery::Packet(cut))) = ask("what = \"truncated\"", "n1.z1.test", rtype::A, false) else {
            panic!()
        };
        assert!(is_truncated(&cut));
        let Some((_, Delivery::Packet(noise))) = ask("what = \"noise\"", "n1.z1.test", rtype::A, false) else {
            panic!()
        };
        assert!(check(&noise).is_err());
    }
}
