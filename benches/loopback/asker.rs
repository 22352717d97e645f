//! The load generator: one thread that asks over UDP, and looks at every answer.
//!
//! - [`Load::flood`] keeps a window of questions out: each answer that comes is followed by the next question, in
//!   batches, by the program's own [`Batch`]. It measures what a server can.
//! - [`Load::pace`] asks at a rate, whether or not it is answered, and measures times. A time counts from the sending.
//!   Where this thread was kept off its core for longer than [`STALL`], the answers to what was out then are counted,
//!   but their times are not: they are its own.
//!
//! An answer counts if its id is out, its question is the one that was asked with this id, and it is NOERROR, whole,
//! with as many records as the name has. Anything else is `wrong`; what does not come is `lost`.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use evenkeel::listen::mmsg::Batch;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::names::{NAME_BYTES, Names, Shape, set_number};

/// How one server is asked.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub server: SocketAddr,
    pub shape: Shape,
    /// Client sockets.
    pub sockets: usize,
    /// Questions that are out at once, of all sockets; at least one a socket.
    pub window: usize,
}

/// What became of the questions.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub answered: u64,
    pub wrong: u64,
    /// From the first question to the last answer.
    pub seconds: f64,
    /// Of each answer whose time counts, in nanoseconds.
    pub times: Vec<u32>,
}

impl Tally {
    pub fn lost(&self) -> u64 {
        self.sent - self.answered - self.wrong
    }

    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// A quantile of the times, in microseconds.
    pub fn quantile(&mut self, share: f64) -> f64 {
        self.times.sort_unstable();
        let at = ((self.times.len() as f64 * share) as usize).min(self.times.len().saturating_sub(1));
        self.times.get(at).map_or(f64::NAN, |t| f64::from(*t) / 1e3)
    }
}

/// Who waits for an answer before the next question goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nobody: the thread looks at the clock all the time. The server is on another core.
    Spinning,
    /// The thread sleeps meanwhile, since an upstream has the same core.
    Asleep,
}

impl Load {
    /// One client with a window that keeps a server busy.
    pub fn on(server: SocketAddr, shape: Shape) -> Self {
        Self { server, shape, sockets: 1, window: 128 }
    }

    pub fn flood(self, names: &mut Names, time: Duration) -> Tally {
        let each = (self.window / self.sockets).max(1);
        let sockets: Vec<UdpSocket> = (0..self.sockets).map(|_| socket()).collect();
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        for (n, socket) in sockets.iter().enumerate() {
            let data = epoll::EventData::new_u64(n as u64);
            epoll::add(&ready, socket, data, epoll::EventFlags::IN).expect("epoll takes a socket");
        }
        let mut desk = Desk::new(self.shape, names);
        let mut batch = Batch::new();
        let mut events = Vec::with_capacity(64);
        desk.fill(&sockets, self.server, each);
        loop {
            events.clear();
            epoll::wait(&ready, rustix::buffer::spare_capacity(&mut events), Some(&PATIENCE)).expect("epoll waits");
            let over = desk.now() >= time.as_nanos() as u64;
            if events.is_empty() {
                // Nothing came for long: what is out is lost.
                if over || desk.names_ended || !desk.give_up() {
                    break;
                }
                desk.fill(&sockets, self.server, each);
            }
            for event in &events {
                let socket = &sockets[event.data.u64() as usize];
                let filled = batch.receive(socket.as_fd()).expect("a socket of ours reads");
                let now = desk.now();
                for slot in 0..filled {
                    let Some((reply, room)) = batch.question(slot) else { continue };
                    if desk.take(reply.bytes, now)
                        && !over
                        && let Some(bytes) = desk.ask(room, now)
                    {
                        batch.set_reply(slot, bytes);
                    }
                }
                batch.send(socket.as_fd());
            }
            if desk.out == 0 && (over || desk.names_ended) {
                break;
            }
        }
        desk.tally
    }

    pub fn pace(self, names: &mut Names, rate: f64, time: Duration, waiting: Waiting) -> Tally {
        let socket = socket();
        let mut desk = Desk::new(self.shape, names);
        let mut batch = Batch::new();
        let mut room = [0; 512];
        let gap = 1e9 / rate;
        let end = time.as_nanos() as u64;
        let patience = if waiting == Waiting::Asleep { LATE_MAX } else { LATE_HIT_MAX };
        let (mut due, mut last) = (0.0, 0);
        loop {
            let now = desk.now();
            if now - last > STALL.as_nanos() as u64 && waiting == Waiting::Spinning {
                // What should have gone out meanwhile is left out: it would arrive as a burst.
                desk.times_since = now;
                due = now as f64;
            }
            last = now;
            if now < end {
                while due <= now as f64 {
                    if let Some(bytes) = desk.ask(&mut room, desk.now()) {
                        // What the kernel does not take is lost, and counted so.
                        let _ = socket.send_to(&room[..bytes], self.server);
                    }
                    due += gap;
                    if waiting == Waiting::Spinning {
                        break;
                    }
                }
            } else if desk.out == 0 || now > end + patience.as_nanos() as u64 {
                break;
            }
            if waiting == Waiting::Asleep {
                let until = Timespec { tv_sec: 0, tv_nsec: (due - now as f64).clamp(50_000.0, 1e6) as i64 };
                let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&until));
            }
            let filled = batch.receive(socket.as_fd()).expect("a socket of ours reads");
            let now = desk.now();
            for slot in 0..filled {
                if let Some((reply, _)) = batch.question(slot) {
                    desk.take(reply.bytes, now);
                }
            }
        }
        desk.tally
    }
}

/// What is out, whoever carries it.
pub struct Desk<'n> {
    names: &'n mut Names,
    /// All of `names` were asked.
    pub names_ended: bool,
    question: Vec<u8>,
    records: u16,
    asked: Vec<Asked>,
    next_id: u16,
    /// Questions that wait for an answer.
    pub out: usize,
    start: Instant,
    /// Times of questions that were sent before this are not counted.
    times_since: u64,
    pub tally: Tally,
}

/// A question by its id; `at` is 0 where none is out.
#[derive(Clone, Copy, Default)]
struct Asked {
    at: u64,
    number: u32,
}

impl<'n> Desk<'n> {
    pub fn new(shape: Shape, names: &'n mut Names) -> Self {
        Self {
            names,
            names_ended: false,
            question: shape.question(),
            records: shape.records.into(),
            asked: vec![Asked::default(); 1 << 16],
            next_id: 0,
            out: 0,
            start: Instant::now(),
            times_since: 0,
            tally: Tally::default(),
        }
    }

    /// Nanoseconds since the start, never 0.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64 + 1
    }

    /// Writes the next question; `None` where there are no more names.
    pub fn ask(&mut self, room: &mut [u8], now: u64) -> Option<usize> {
        let Some(number) = self.names.next() else {
            self.names_ended = true;
            return None;
        };
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        set_number(&mut self.question, number);
        self.question[..2].copy_from_slice(&id.to_be_bytes());
        room[..self.question.len()].copy_from_slice(&self.question);
        // What has been out for 65,536 questions is lost.
        let before = std::mem::replace(&mut self.asked[usize::from(id)], Asked { at: now, number });
        self.out += usize::from(before.at == 0);
        self.tally.sent += 1;
        Some(self.question.len())
    }

    /// Judges what came. Does it end a question?
    pub fn take(&mut self, reply: &[u8], now: u64) -> bool {
        let question = HEADER_BYTES..HEADER_BYTES + NAME_BYTES + 4;
        let Some(body) = reply.get(question.clone()) else { return false };
        let asked = &mut self.asked[usize::from(u16::from_be_bytes([reply[0], reply[1]]))];
        set_number(&mut self.question, asked.number);
        if asked.at == 0 || reply[2] & QR == 0 || body != &self.question[question] {
            return false;
        }
        let right =
            reply[2] & TC == 0 && reply[3] & RCODE == 0 && u16::from_be_bytes([reply[6], reply[7]]) == self.records;
        if right {
            self.tally.answered += 1;
            self.tally.seconds = now as f64 / 1e9;
            if asked.at > self.times_since {
                self.tally.times.push((now - asked.at).min(u64::from(u32::MAX)) as u32);
            }
        } else {
            self.tally.wrong += 1;
        }
        asked.at = 0;
        self.out -= 1;
        true
    }

    /// Nothing is out; was there anything?
    pub fn give_up(&mut self) -> bool {
        self.asked.fill(Asked::default());
        std::mem::take(&mut self.out) > 0
    }

    fn fill(&mut self, sockets: &[UdpSocket], server: SocketAddr, each: usize) {
        let mut room = [0; 512];
        for _ in 0..each {
            for socket in sockets {
                let Some(bytes) = self.ask(&mut room, self.now()) else { return };
                let _ = socket.send_to(&room[..bytes], server);
            }
        }
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
    socket.set_nonblocking(true).expect("a socket need not block");
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    socket
}

/// Nothing at all within this: what is out is lost. Longer than the time-outs after which servers ask again.
pub const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
/// How long the last answers of a pace are waited for: longer than resolvers try, and for hits not as long.
const LATE_MAX: Duration = Duration::from_secs(5);
const LATE_HIT_MAX: Duration = Duration::from_millis(300);
/// A turn of the loop takes some microseconds.
const STALL: Duration = Duration::from_micros(200);
const HEADER_BYTES: usize = 12;
const QR: u8 = 0x80;
const TC: u8 = 0x02;
const RCODE: u8 = 0x0f;
