//! A small client: one question over UDP or TCP, several on one TCP connection, a steady load.
//!
//! Sockets of std, each wait bounded. A reply that is not to the question is a finding, not noise: it panics.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::message::{Message, Question, question_of, rtype};

/// Longest wait of the asking functions below: longer than the default deadline of 4 s.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// Asks over UDP.
///
/// # Panics
///
/// Where no reply comes within [`PATIENCE`], or one that is not to the question.
pub fn ask(server: SocketAddr, question: &Question) -> Message {
    try_ask(server, question).expect("no reply over UDP")
}

/// Asks over UDP; an error where no reply comes within [`PATIENCE`]. Panics where one comes that is not to the question.
pub fn try_ask(server: SocketAddr, question: &Question) -> io::Result<Message> {
    let reply = exchange_udp(server, &question.to_bytes(), PATIENCE)?;
    Ok(read_reply(question, &reply))
}

/// Asks over TCP. Panics as [`ask`].
pub fn ask_tcp(server: SocketAddr, question: &Question) -> Message {
    let mut stream = Stream::connect(server);
    stream.send(&question.to_bytes());
    read_reply(question, &stream.receive().expect("no reply over TCP"))
}

/// Sends any bytes over UDP and gives back what comes first, within `patience`.
pub fn exchange_udp(server: SocketAddr, packet: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let socket = udp_towards(server)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(packet)?;
    let mut room = vec![0; 65_535];
    let length = socket.recv(&mut room)?;
    room.truncate(length);
    Ok(room)
}

fn udp_towards(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" })?;
    socket.connect(server)?;
    Ok(socket)
}

fn read_reply(question: &Question, reply: &[u8]) -> Message {
    let message = Message::read(reply);
    assert_eq!(message.id, question.id, "another id");
    if !message.question.is_empty() {
        let tail = [question.qtype.to_be_bytes(), question.class.to_be_bytes()].concat();
        assert_eq!(message.question, [&question.name[..], &tail].concat(), "another question");
    }
    message
}

/// A TCP connection with messages on it.
pub struct Stream(TcpStream);

impl Stream {
    pub fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&server, PATIENCE).expect("TCP does not connect");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends a message behind its length.
    pub fn send(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        self.send_raw(&[&length[..], message].concat());
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server does not read");
    }

    /// The next message; an error where the connection ends or [`PATIENCE`] does.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        self.0.read_exact(&mut length)?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        self.0.read_exact(&mut message)?;
        Ok(message)
    }
}

/// What became of one question of a load.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    /// When it was sent.
    pub at: Instant,
    /// Until the reply; `None` where none came.
    pub took: Option<Duration>,
    pub reply: Option<Message>,
}

/// Questions at a steady pace from one UDP socket, whether or not earlier ones were answered: the times of sending are
/// fixed by the schedule, so that a slow server is not asked less. What is behind its schedule goes out at once, and
/// its time counts from when it did.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub server: SocketAddr,
    pub qtype: u16,
    pub per_second: u32,
    /// Each reply is waited for at least as long as this; a later one is none.
    pub patience: Duration,
    /// The client's own address.
    pub from: IpAddr,
}

impl Load {
    /// For A, 100 a second, with [`PATIENCE`], from the first address of loopback.
    pub fn on(server: SocketAddr) -> Self {
        let from = if server.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        Self { server, qtype: rtype::A, per_second: 100, patience: PATIENCE, from }
    }

    pub fn per_second(self, per_second: u32) -> Self {
        Self { per_second, ..self }
    }

    /// From 127.0.0.`n`: other clients than the usual one.
    pub fn from(self, n: u8) -> Self {
        Self { from: Ipv4Addr::new(127, 0, 0, n).into(), ..self }
    }

    /// Asks each of `names` in turn, and waits for what is still out.
    pub fn ask(self, names: impl IntoIterator<Item = String>) -> Vec<Sample> {
        let socket = UdpSocket::bind((self.from, 0)).unwrap();
        socket.connect(self.server).unwrap();
        socket.set_nonblocking(true).unwrap();
        let start = Instant::now();
        let mut samples: Vec<Sample> = Vec::new();
        let mut open: HashMap<u16, usize> = HashMap::new();
        for (n, name) in names.into_iter().enumerate() {
            let due = start + Duration::from_secs(1) * n as u32 / self.per_second;
            while collect(&socket, &mut samples, &mut open, due) {}
            let mut question = Question::new(&name, self.qtype);
            question.id = n as u16;
            let packet = question.to_bytes();
            open.insert(question.id, n);
            samples.push(Sample { name, at: Instant::now(), took: None, reply: None });
            // A refused port comes back at the next call: a sample without a reply.
            let _ = socket.send(&packet);
        }
        let last = samples.last().map_or(start, |s| s.at);
        while !open.is_empty() && collect(&socket, &mut samples, &mut open, last + self.patience) {}
        for sample in &mut samples {
            if sample.took.is_some_and(|t| t > self.patience) {
                (sample.took, sample.reply) = (None, None);
            }
        }
        samples
    }
}

/// [`Load`] in one call.
pub fn load(
    server: SocketAddr,
    names: impl IntoIterator<Item = String>,
    qtype: u16,
    per_second: u32,
    patience: Duration,
) -> Vec<Sample> {
    Load { qtype, per_second, patience, ..Load::on(server) }.ask(names)
}

/// Waits for a reply and takes it; false once `until` has come.
fn collect(socket: &UdpSocket, samples: &mut [Sample], open: &mut HashMap<u16, usize>, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return false;
    }
    // A socket's own time-out is as coarse as the kernel's ticks; this one is not.
    let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&Timespec::try_from(left).unwrap()));
    let mut room = [0; 4096];
    // Nothing yet, or a refused port: seen as a sample without a reply.
    let Ok(length) = socket.recv(&mut room) else { return true };
    let came_at = Instant::now();
    let reply = Message::read(&room[..length]);
    if let Some(n) = open.remove(&reply.id) {
        let sample = &mut samples[n];
        let asked = question_of(&room[..length]).map(|q| q.name);
        assert_eq!(asked, Some(super::message::wire(&sample.name)), "a reply to another question");
        sample.took = Some(came_at - sample.at);
        sample.reply = Some(reply);
    }
    true
}

/// The time within which `share` (0 to 1) of the samples were answered; `None` where fewer were answered at all, or
/// there are none.
pub fn quantile<'a>(samples: impl IntoIterator<Item = &'a Sample>, share: f64) -> Option<Duration> {
    let mut all: Vec<Duration> = samples.into_iter().map(|s| s.took.unwrap_or(Duration::MAX)).collect();
    all.sort_unstable();
    let rank = ((all.len() as f64 * share).ceil() as usize).clamp(1, all.len().max(1));
    all.get(rank - 1).copied().filter(|d| *d < Duration::MAX)
}

/// [`quantile`], where enough were answered.
///
/// # Panics
///
/// Where they were not.
pub fn percentile(samples: &[Sample], share: f64) -> Duration {
    quantile(samples, share).expect("too many questions without a reply")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(took_ms: Option<u64>) -> Sample {
        Sample { name: "x.test.".into(), at: Instant::now(), took: took_ms.map(Duration::from_millis), reply: None }
    }

    #[test]
    fn a_quantile_counts_what_was_lost_as_slowest() {
        let mut samples: Vec<Sample> = (1..=99).map(|n| sample(Some(n))).collect();
        samples.push(sample(None));
        for (share, want) in [(0.5, Some(50)), (0.99, Some(99)), (0.991, None), (1.0, None)] {
            assert_eq!(quantile(&samples, share), want.map(Duration::from_millis), "{share}");
        }
        assert_eq!(quantile(&[], 0.5), None);
    }

    // A server that answers 150 ms late is asked at the pace that was set, and each reply is timed from its question.
    #[test]
    fn a_load_keeps_its_pace_whatever_the_server_does_and_comes_from_where_it_says() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let slow = std::thread::spawn(move || {
            let mut room = [0; 512];
            for _ in 0..20 {
                let (length, from) = server.recv_from(&mut room).unwrap();
                assert_eq!(from.ip().to_string(), "127.0.0.77");
                let (server, mut reply) = (server.try_clone().unwrap(), room[..length].to_vec());
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(150));
                    reply[2] |= 0x80;
                    server.send_to(&reply, from).unwrap();
                });
            }
        });
        let names = (0..20).map(|n| format!("n{n}.test."));
        let samples = Load::on(address).from(77).per_second(200).ask(names);
        slow.join().unwrap();
        assert_eq!(samples.iter().filter(|s| s.took.is_some_and(|t| t >= Duration::from_millis(150))).count(), 20);
        // The last is due 95 ms after the first, before any reply; one that waited for replies would take 3 s.
        assert!(samples[19].at - samples[0].at >= Duration::from_millis(90));
        assert!(samples[19].at - samples[0].at < Duration::from_secs(1));
    }
}
