//! A server that behaves as the test says, over UDP and TCP on one port of loopback.
//!
//! Its loops are its own, since it must send what no sound server would. What it does with a question is
//! [`Behaviour`], which can be changed while it runs; what it knows is its [`Zone`]. It keeps every question.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::message::{Question, flag, question_of, rcode, rtype, wire};
use super::runtime;
use super::zone::{Found, Zone, reply};

/// What a server does with a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// Answers from its zone.
    Answer,
    /// Takes questions and says nothing.
    Silent,
    /// Answers from its zone, so much later.
    Slow(Duration),
    /// Answers with this RCODE and, where asked with EDNS, this extended error.
    Fail(u16, Option<u16>),
    /// Says of every name that it does not exist, but for the root's, whose probes it passes.
    NxdomainToEverything,
    /// Answers from its zone with TC and without records over UDP, whole over TCP.
    Truncating,
    /// Sends bytes that are no message.
    Garbage,
    /// So many replies with another id, then the right one. As with the two below, not over TCP, where nobody who is not
    /// on the path can forge.
    WrongIdFirst(usize),
    /// So many replies to another name, then the right one.
    WrongQuestionFirst(usize),
    /// So many packets of noise, then the right reply.
    NoiseFirst(usize),
    /// The right header and question; the records are cut in the middle.
    CutBody,
    /// A header alone, with this RCODE.
    HeaderOnly(u16),
    /// FORMERR to what has an OPT record, answers from its zone without.
    FormErrToEdns,
    /// Answers from its zone so many times of a hundred, spread evenly, and is silent else.
    Lossy {
        /// Of a hundred questions.
        lost: u32,
    },
}

const LOOP: &[u8] = b"\x0devenkeel-loop";

/// A question as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub question: Question,
    pub over_tcp: bool,
    pub from: SocketAddr,
}

/// The server. It ends when dropped.
pub struct Upstream {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    loops: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Script {
    behaviour: Behaviour,
    zone: Zone,
    seen: Vec<Seen>,
    connections: usize,
}

impl Upstream {
    /// Answers from `zone`, on a free port.
    pub fn new(zone: Zone) -> Self {
        let script = Script { behaviour: Behaviour::Answer, zone, seen: Vec::new(), connections: 0 };
        let mut upstream =
            Self { address: super::free_address(), script: Arc::new(Mutex::new(script)), loops: Vec::new() };
        upstream.open();
        upstream
    }

    /// [`Upstream::new`] that behaves so from the start.
    pub fn behaving(zone: Zone, behaviour: Behaviour) -> Self {
        let upstream = Self::new(zone);
        upstream.behave(behaviour);
        upstream
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.script.lock().unwrap().behaviour = behaviour;
    }

    /// From here on.
    pub fn know(&self, zone: Zone) {
        self.script.lock().unwrap().zone = zone;
    }

    /// Closes its port: UDP is refused by ICMP, TCP by a reset; open connections end.
    pub fn close(&mut self) {
        for running in self.loops.drain(..) {
            running.abort();
            // Its sockets are closed only once the task is gone.
            let _ = runtime().block_on(running);
        }
    }

    /// Opens the port again after [`Upstream::close`].
    pub fn open(&mut self) {
        let (udp, tcp) = runtime().block_on(async {
            let tcp = TcpListener::bind(self.address).await.unwrap();
            (UdpSocket::bind(self.address).await.unwrap(), tcp)
        });
        self.loops.push(runtime().spawn(serve_udp(udp, self.script.clone())));
        self.loops.push(runtime().spawn(serve_tcp(tcp, self.script.clone())));
    }

    /// Every question since the start or [`Upstream::forget`], probes among them.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }

    pub fn forget(&self) {
        self.script.lock().unwrap().seen.clear();
    }

    /// How many times this was asked, over UDP and TCP.
    pub fn count(&self, name: &str, qtype: u16) -> usize {
        let name = wire(name);
        let same = |s: &&Seen| s.question.qtype == qtype && s.question.name.eq_ignore_ascii_case(&name);
        self.script.lock().unwrap().seen.iter().filter(same).count()
    }

    /// Questions that clients asked: all but the probes `. NS` and the names by which loops are found.
    pub fn live_count(&self) -> usize {
        let of_ours = |name: &[u8]| name == [0] || name.windows(LOOP.len()).any(|w| w == LOOP);
        self.script.lock().unwrap().seen.iter().filter(|s| !of_ours(&s.question.name)).count()
    }

    /// TCP connections so far.
    pub fn connections(&self) -> usize {
        self.script.lock().unwrap().connections
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.loops.iter().for_each(JoinHandle::abort);
    }
}

impl Script {
    /// Notes the question and says what is sent, and after what delay.
    fn on_question(&mut self, packet: &[u8], over_tcp: bool, from: SocketAddr) -> (Duration, Vec<Vec<u8>>) {
        let Some(question) = question_of(packet) else { return (Duration::ZERO, Vec::new()) };
        let nth = self.seen.len();
        self.seen.push(Seen { question: question.clone(), over_tcp, from });
        let delay = if let Behaviour::Slow(delay) = self.behaviour { delay } else { Duration::ZERO };
        (delay, self.replies(&question, over_tcp, nth))
    }

    fn replies(&self, question: &Question, over_tcp: bool, nth: usize) -> Vec<Vec<u8>> {
        let right = || self.fitting(question, over_tcp);
        let preceded = |count: usize, packet: Vec<u8>| {
            let mut all = vec![packet; count];
            all.push(right());
            all
        };
        match self.behaviour {
            Behaviour::Answer | Behaviour::Slow(_) => vec![right()],
            Behaviour::Silent => vec![],
            Behaviour::Fail(rcode, ede) => vec![reply(question, &Found { rcode, ..Found::default() }, ede)],
            Behaviour::NxdomainToEverything if question.name == [0] => vec![right()],
            Behaviour::NxdomainToEverything => {
                let authorities = vec![self.zone.soa()];
                vec![reply(question, &Found { rcode: rcode::NXDOMAIN, answers: vec![], authorities }, None)]
            }
            Behaviour::Truncating if over_tcp => vec![right()],
            Behaviour::Truncating => vec![truncated(question)],
            Behaviour::Garbage => vec![(0..40).map(|_| rand::random()).collect()],
            Behaviour::WrongIdFirst(_) | Behaviour::WrongQuestionFirst(_) | Behaviour::NoiseFirst(_) if over_tcp => {
                vec![right()]
            }
            Behaviour::WrongIdFirst(count) => {
                let mut forged = self.forged(question);
                forged[0] ^= 0x55;
                preceded(count, forged)
            }
            Behaviour::WrongQuestionFirst(count) => {
                let mut other = question.clone();
                other.name = [&b"\x01x"[..], &question.name].concat();
                preceded(count, self.forged(&other))
            }
            Behaviour::NoiseFirst(count) => preceded(count, vec![0xff; 30]),
            Behaviour::CutBody => {
                let mut cut = right();
                cut.truncate(12 + question.name.len() + 4 + 7);
                vec![cut]
            }
            Behaviour::HeaderOnly(rcode) => vec![header_only(question, rcode)],
            Behaviour::FormErrToEdns if question.edns.is_some() => vec![header_only(question, rcode::FORMERR)],
            Behaviour::FormErrToEdns => vec![right()],
            // 37 and 100 have no common divisor, so a hundred questions in a row meet each remainder once.
            Behaviour::Lossy { lost } if (nth as u32 * 37) % 100 < lost => vec![],
            Behaviour::Lossy { .. } => vec![right()],
        }
    }

    /// The zone's answer; where it is larger than what the question can take over UDP, TC.
    fn fitting(&self, question: &Question, over_tcp: bool) -> Vec<u8> {
        let whole = reply(question, &self.zone.find(question), None);
        let limit = question.edns.as_ref().map_or(512, |e| usize::from(e.payload).max(512));
        if over_tcp || whole.len() <= limit { whole } else { truncated(question) }
    }

    /// What an attacker would like to be believed.
    fn forged(&self, question: &Question) -> Vec<u8> {
        let evil = super::zone::Datum { rtype: rtype::A, ttl: 3600, data: vec![203, 0, 113, 66] };
        let answers = vec![(question.name.clone(), evil)];
        reply(question, &Found { rcode: 0, answers, authorities: vec![] }, None)
    }
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

async fn serve_udp(socket: UdpSocket, script: Arc<Mutex<Script>>) {
    let socket = Arc::new(socket);
    let mut room = vec![0; 65_535];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut room).await else { continue };
        let (delay, replies) = script.lock().unwrap().on_question(&room[..length], false, from);
        let socket = socket.clone();
        // Where nothing is delayed the order of packets is kept.
        let send = async move {
            for packet in replies {
                let _ = socket.send_to(&packet, from).await;
            }
        };
        if delay.is_zero() {
            send.await;
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                send.await;
            });
        }
    }
}

async fn serve_tcp(listener: TcpListener, script: Arc<Mutex<Script>>) {
    // Connections end with the loop that took them.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, from)) = listener.accept().await else { continue };
        script.lock().unwrap().connections += 1;
        let script = script.clone();
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let (mut reading, writing) = stream.into_split();
            let writing = Arc::new(tokio::sync::Mutex::new(writing));
            while let Some(packet) = read_message(&mut reading).await {
                let (delay, replies) = script.lock().unwrap().on_question(&packet, true, from);
                let writing = writing.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let mut writing = writing.lock().await;
                    for packet in replies {
                        let framed = [&(packet.len() as u16).to_be_bytes()[..], &packet].concat();
                        let _ = writing.write_all(&framed).await;
                    }
                });
            }
        });
    }
}

async fn read_message(stream: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::super::client::{ask, ask_tcp, exchange_udp};
    use super::super::message::Message;
    use super::*;

    #[test]
    fn each_behaviour_is_what_it_says() {
        let upstream = Upstream::new(Zone::new(".").a("www.test.", 60, "192.0.2.1").txt("big.test.", 60, 3000));
        let question = Question::new("www.test.", rtype::A);
        let right = |m: Message| m.addresses() == [[192, 0, 2, 1]];
        let short = Duration::from_millis(50);
        let first = |q: &Question| exchange_udp(upstream.address(), &q.to_bytes(), short);

        assert!(right(ask(upstream.address(), &question)) && right(ask_tcp(upstream.address(), &question)));
        assert!(ask(upstream.address(), &Question::new("big.test.", rtype::TXT)).has(flag::TC));
        assert!(ask_tcp(upstream.address(), &Question::new("big.test.", rtype::TXT)).len() > 3000);
        assert_eq!(upstream.count("WWW.test.", rtype::A), 2);

        upstream.behave(Behaviour::Silent);
        assert!(first(&question).is_err());
        upstream.behave(Behaviour::Fail(rcode::SERVFAIL, Some(6)));
        let failed = ask(upstream.address(), &question);
        assert_eq!((failed.rcode, failed.edes()), (rcode::SERVFAIL, vec![6]));
        upstream.behave(Behaviour::NxdomainToEverything);
        assert_eq!(ask(upstream.address(), &question).rcode, rcode::NXDOMAIN);
        assert_eq!(ask(upstream.address(), &Question::new(".", rtype::NS)).answers.len(), 1);
        upstream.behave(Behaviour::Truncating);
        assert!(ask(upstream.address(), &question).has(flag::TC) && right(ask_tcp(upstream.address(), &question)));
        upstream.behave(Behaviour::WrongIdFirst(1));
        assert_ne!(first(&question).unwrap()[..2], question.id.to_be_bytes());
        upstream.behave(Behaviour::CutBody);
        assert_eq!(first(&question).unwrap().len(), 12 + question.name.len() + 4 + 7);
        upstream.behave(Behaviour::HeaderOnly(rcode::REFUSED));
        assert_eq!(first(&question).unwrap().len(), 12);
        upstream.behave(Behaviour::FormErrToEdns);
        assert_eq!(first(&question).unwrap()[3] & 15, 1);
        assert!(right(ask(upstream.address(), &question.clone().without_edns())));
    }

    #[test]
    fn a_lossy_server_loses_as_many_as_it_says() {
        let upstream = Upstream::behaving(Zone::new("."), Behaviour::Lossy { lost: 20 });
        let mut script = upstream.script.lock().unwrap();
        let packet = Question::new("x.test.", rtype::A).to_bytes();
        let answered =
            (0..100).filter(|_| !script.on_question(&packet, false, upstream.address).1.is_empty()).count();
        assert_eq!(answered, 80);
    }

    #[test]
    fn a_closed_server_is_refused_and_opens_again() {
        let mut upstream = Upstream::new(Zone::new(".").a("www.test.", 60, "192.0.2.1"));
        let question = Question::new("www.test.", rtype::A);
        upstream.close();
        let refused = exchange_udp(upstream.address(), &question.to_bytes(), Duration::from_secs(2));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        upstream.open();
        assert_eq!(ask(upstream.address(), &question).addresses(), [[192, 0, 2, 1]]);
    }
}
