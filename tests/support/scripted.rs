//! A server that behaves as the test says, over UDP and TCP on one port of loopback.
//!
//! Its loops are its own, since it must send what no sound server would. What it does with a question is
//! [`Behaviour`], which can be changed while it runs, also for a part of the tree alone; what it knows is its [`Zone`].
//! It keeps every question.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

pub use super::behaviour::Behaviour;

use super::behaviour::Asked;
use super::message::{Question, question_of, wire};
use super::runtime;
use super::zone::Zone;

const LOOP: &[u8] = b"\x0devenkeel-loop";

/// A question as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub question: Question,
    pub over_tcp: bool,
    pub from: SocketAddr,
    pub at: Instant,
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
    /// Since when.
    since: Instant,
    /// What is done with names below these, by the suffix in wire format.
    below: HashMap<Vec<u8>, Behaviour>,
    zone: Zone,
    seen: Vec<Seen>,
    connections: usize,
}

impl Upstream {
    /// Answers from `zone`, on a free port.
    pub fn new(zone: Zone) -> Self {
        let script = Script {
            behaviour: Behaviour::Answer,
            since: Instant::now(),
            below: HashMap::new(),
            zone,
            seen: Vec::new(),
            connections: 0,
        };
        let script = Arc::new(Mutex::new(script));
        // A free port may be taken before it is bound, by a socket on all addresses: then another one.
        let taken_at_most = 20;
        for _ in 0..taken_at_most {
            let mut upstream = Self { address: super::free_address(), script: script.clone(), loops: Vec::new() };
            if upstream.try_open().is_ok() {
                return upstream;
            }
        }
        panic!("each of {taken_at_most} free ports was taken");
    }

    /// Answers from `zone` at `address`, in a namespace where nobody else has it.
    pub fn at(address: SocketAddr, zone: Zone) -> Self {
        let mut upstream = Self::new(zone);
        upstream.close();
        upstream.address = address;
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
        let mut script = self.script.lock().unwrap();
        script.behaviour = behaviour;
        script.since = Instant::now();
    }

    /// From here on for names below `zone`, whatever it does with others. The longest zone counts.
    pub fn behave_below(&self, zone: &str, behaviour: Behaviour) {
        self.script.lock().unwrap().below.insert(wire(zone), behaviour);
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
        super::wait_for("the port", Duration::from_secs(2), || self.try_open().ok());
    }

    fn try_open(&mut self) -> io::Result<()> {
        let (udp, tcp) = runtime().block_on(async {
            let tcp = TcpListener::bind(self.address).await?;
            Ok::<_, io::Error>((UdpSocket::bind(self.address).await?, tcp))
        })?;
        self.loops.push(runtime().spawn(serve_udp(udp, self.script.clone())));
        self.loops.push(runtime().spawn(serve_tcp(tcp, self.script.clone())));
        Ok(())
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
        let at = Instant::now();
        let asked = Asked { over_tcp, nth: self.seen.len(), since: at - self.since };
        self.seen.push(Seen { question: question.clone(), over_tcp, from, at });
        self.behaviour_for(&question.name).replies(&self.zone, &question, asked)
    }

    fn behaviour_for(&self, name: &[u8]) -> &Behaviour {
        let name = name.to_ascii_lowercase();
        let mut at = 0;
        while !self.below.is_empty() && name[at] != 0 {
            at += 1 + usize::from(name[at]);
            if let Some(behaviour) = self.below.get(&name[at..]) {
                return behaviour;
            }
        }
        &self.behaviour
    }
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
    use super::super::message::{Message, flag, rcode, rtype};
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
    fn what_is_done_below_a_zone_is_done_there_alone_and_the_longest_zone_counts() {
        let upstream = Upstream::new(Zone::new(".").any_below("test.", 60, "192.0.2.1"));
        upstream.behave_below("bad.test.", Behaviour::Fail(rcode::REFUSED, None));
        upstream.behave_below("worse.bad.test.", Behaviour::Fail(rcode::SERVFAIL, None));
        for (name, want) in [
            ("www.test.", rcode::NOERROR),
            ("bad.test.", rcode::NOERROR),
            ("www.BAD.test.", rcode::REFUSED),
            ("a.b.bad.test.", rcode::REFUSED),
            ("www.worse.bad.test.", rcode::SERVFAIL),
        ] {
            assert_eq!(ask(upstream.address(), &Question::new(name, rtype::A)).rcode, want, "{name}");
        }
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
