//! What a scripted server does with a question: the packets that it sends, and when.
//!
//! Pure: the question, what the server knows and the time in; packets out. The sockets are in `scripted.rs`.

use std::time::Duration;

use super::message::{Question, flag, rcode, rtype};
use super::zone::{Datum, Found, Zone, reply};

/// What a server does with a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// Answers from its zone.
    Answer,
    /// Takes questions and says nothing.
    Silent,
    /// Answers from its zone, so much later.
    Slow(Duration),
    /// Answers from its zone for `up`, says nothing for `down`, and so on, from the moment it is told to.
    Flapping {
        /// How long it answers.
        up: Duration,
        /// How long it is silent.
        down: Duration,
    },
    /// Answers questions for the root, which probes are, and says nothing to others.
    Gray,
    /// Answers with this RCODE and, where asked with EDNS, this extended error.
    Fail(u16, Option<u16>),
    /// Says of every name that it does not exist, but for the root's, whose probes it passes.
    NxdomainToEverything,
    /// Answers from its zone with TC and without records over UDP, whole over TCP.
    Truncating,
    /// Sends bytes that are no message.
    Garbage,
    /// So many replies with another id, then the right one. As with the three below, not over TCP, where nobody who is
    /// not on the path can forge.
    WrongIdFirst(usize),
    /// So many replies to another name, then the right one.
    WrongQuestionFirst(usize),
    /// So many packets of noise, then the right reply.
    NoiseFirst(usize),
    /// One of each of the three above, then the right reply.
    ForgedFirst,
    /// The right header and question; the records are cut in the middle.
    CutBody,
    /// A header alone, with this RCODE.
    HeaderOnly(u16),
    /// FORMERR to what has an OPT record, answers from its zone without.
    FormErrToEdns,
    /// Says nothing to so many of a hundred questions, drawn from `seed`, and answers the others from its zone.
    Lossy {
        /// Of a hundred questions.
        lost: u64,
        /// The same seed loses the same questions.
        seed: u64,
    },
}

/// A question's circumstances.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub over_tcp: bool,
    /// How many questions came before it.
    pub nth: usize,
    /// How long the server has behaved so.
    pub since: Duration,
}

impl Behaviour {
    /// What is sent, in this order, and after what delay.
    pub fn replies(&self, zone: &Zone, question: &Question, asked: Asked) -> (Duration, Vec<Vec<u8>>) {
        let delay = if let Self::Slow(delay) = self { *delay } else { Duration::ZERO };
        (delay, self.packets(zone, question, asked))
    }

    fn packets(&self, zone: &Zone, question: &Question, asked: Asked) -> Vec<Vec<u8>> {
        let right = || fitting(zone, question, asked.over_tcp);
        let answered = |so: bool| if so { vec![right()] } else { vec![] };
        let after = |mut others: Vec<Vec<u8>>| {
            others.push(right());
            others
        };
        match *self {
            Self::Answer | Self::Slow(_) => vec![right()],
            Self::Silent => vec![],
            Self::Flapping { up, down } => {
                answered(asked.since.as_micros() % (up + down).as_micros() < up.as_micros())
            }
            Self::Gray => answered(question.name == [0]),
            Self::Fail(rcode, ede) => vec![reply(question, &Found { rcode, ..Found::default() }, ede)],
            Self::NxdomainToEverything if question.name == [0] => vec![right()],
            Self::NxdomainToEverything => {
                let authorities = vec![zone.soa()];
                vec![reply(question, &Found { rcode: rcode::NXDOMAIN, answers: vec![], authorities }, None)]
            }
            Self::Truncating if asked.over_tcp => vec![right()],
            Self::Truncating => vec![truncated(question)],
            Self::Garbage => vec![(0..40).map(|_| rand::random()).collect()],
            Self::WrongIdFirst(_) | Self::WrongQuestionFirst(_) | Self::NoiseFirst(_) | Self::ForgedFirst
                if asked.over_tcp =>
            {
                vec![right()]
            }
            Self::WrongIdFirst(count) => after(vec![wrong_id(question); count]),
            Self::WrongQuestionFirst(count) => after(vec![wrong_question(question); count]),
            Self::NoiseFirst(count) => after(vec![NOISE.to_vec(); count]),
            Self::ForgedFirst => after(vec![wrong_id(question), wrong_question(question), NOISE.to_vec()]),
            Self::CutBody => {
                let mut cut = right();
                cut.truncate(12 + question.name.len() + 4 + 7);
                vec![cut]
            }
            Self::HeaderOnly(rcode) => vec![header_only(question, rcode)],
            Self::FormErrToEdns if question.edns.is_some() => vec![header_only(question, rcode::FORMERR)],
            Self::FormErrToEdns => vec![right()],
            Self::Lossy { lost, seed } => answered(drawn(seed, asked.nth as u64) % 100 >= lost),
        }
    }
}

const NOISE: [u8; 30] = [0xff; 30];

/// The zone's answer; where it is larger than what the question can take over UDP, TC.
fn fitting(zone: &Zone, question: &Question, over_tcp: bool) -> Vec<u8> {
    let whole = reply(question, &zone.find(question), None);
    let limit = question.edns.as_ref().map_or(512, |e| usize::from(e.payload).max(512));
    if over_tcp || whole.len() <= limit { whole } else { truncated(question) }
}

fn wrong_id(question: &Question) -> Vec<u8> {
    let mut forged = forged(question);
    forged[0] ^= 0x55;
    forged
}

fn wrong_question(question: &Question) -> Vec<u8> {
    let mut other = question.clone();
    other.name = [&b"\x01x"[..], &question.name].concat();
    forged(&other)
}

/// What an attacker would like to be believed.
fn forged(question: &Question) -> Vec<u8> {
    let evil = Datum { rtype: rtype::A, ttl: 3600, data: vec![203, 0, 113, 66] };
    let answers = vec![(question.name.clone(), evil)];
    reply(question, &Found { rcode: 0, answers, authorities: vec![] }, None)
}

fn truncated(question: &Question) -> Vec<u8> {
    let mut packet = reply(question, &Found::default(), None);
    packet[2] |= (flag::TC >> 8) as u8;
    packet
}

fn header_only(question: &Question, rcode: u16) -> Vec<u8> {
    let mut packet = [question.id.to_be_bytes(), (flag::QR | flag::RD | rcode).to_be_bytes()].concat();
    packet.resize(12, 0);
    packet
}

/// The `nth` number of a seed (SplitMix64).
fn drawn(seed: u64, nth: u64) -> u64 {
    let mut z = seed.wrapping_add((nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(behaviour: &Behaviour, name: &str, nth: usize, since_ms: u64) -> usize {
        let zone = Zone::new(".").any_below("test.", 60, "192.0.2.1");
        let asked = Asked { over_tcp: false, nth, since: Duration::from_millis(since_ms) };
        behaviour.replies(&zone, &Question::new(name, rtype::A), asked).1.len()
    }

    #[test]
    fn a_gray_server_answers_probes_and_nothing_else() {
        assert_eq!(sent(&Behaviour::Gray, ".", 0, 0), 1);
        assert_eq!(sent(&Behaviour::Gray, "www.test.", 0, 0), 0);
    }

    #[test]
    fn a_flapping_server_is_up_then_down_then_up_again() {
        let flapping = Behaviour::Flapping { up: Duration::from_millis(300), down: Duration::from_millis(200) };
        for (at, want) in [(0, 1), (299, 1), (300, 0), (499, 0), (500, 1), (799, 1), (800, 0)] {
            assert_eq!(sent(&flapping, "www.test.", 0, at), want, "{at} ms");
        }
    }

    #[test]
    fn a_lossy_server_loses_about_as_many_as_it_says_and_the_same_ones_each_time() {
        let answers = |seed| (0..2000).map(move |n| sent(&Behaviour::Lossy { lost: 30, seed }, "www.test.", n, 0));
        let answered: usize = answers(7).sum();
        assert!((1330..=1470).contains(&answered), "{answered} of 2000");
        assert!(answers(7).eq(answers(7)) && !answers(7).eq(answers(8)));
        // Losses come in runs too, unlike evenly spaced ones: of three in a row about 2.7 % are all lost.
        let all: Vec<usize> = answers(7).collect();
        assert!(all.windows(3).filter(|w| w == &[0, 0, 0]).count() > 20);
    }

    #[test]
    fn forgeries_come_before_the_right_reply() {
        assert_eq!(sent(&Behaviour::ForgedFirst, "www.test.", 0, 0), 4);
        assert_eq!(sent(&Behaviour::NoiseFirst(2), "www.test.", 0, 0), 3);
    }
}
