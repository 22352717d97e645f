//! A small client: one question over UDP or TCP, several on one TCP connection, a steady load.
//!
//! Sockets of std, each wait bounded. A reply that is not to the question is a finding, not noise: it panics.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{Message, Question, question_of};

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
    /// Since the load began.
    pub sent_at: Duration,
    /// Until the reply; `None` where none came.
    pub took: Option<Duration>,
    pub reply: Option<Message>,
}

/// Asks each of `names` for `qtype`, `per_second`, from one UDP socket, whether or not earlier ones were answered;
/// then waits up to `patience` for the last.
pub fn load(
    server: SocketAddr,
    names: impl IntoIterator<Item = String>,
    qtype: u16,
    per_second: u32,
    patience: Duration,
) -> Vec<Sample> {
    let socket = udp_towards(server).unwrap();
    let start = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut open: HashMap<u16, usize> = HashMap::new();
    for (n, name) in names.into_iter().enumerate() {
        let due = start + Duration::from_secs(1) * n as u32 / per_second;
        while collect(&socket, start, &mut samples, &mut open, due) {}
        let mut question = Question::new(&name, qtype);
        question.id = n as u16;
        open.insert(question.id, n);
        samples.push(Sample { name, sent_at: start.elapsed(), took: None, reply: None });
        socket.send(&question.to_bytes()).unwrap();
    }
    let end = Instant::now() + patience;
    while !open.is_empty() && collect(&socket, start, &mut samples, &mut open, end) {}
    samples
}

/// Takes one reply; false once `until` has come.
fn collect(
    socket: &UdpSocket,
    start: Instant,
    samples: &mut [Sample],
    open: &mut HashMap<u16, usize>,
    until: Instant,
) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return false;
    }
    socket.set_read_timeout(Some(left)).unwrap();
    let mut room = [0; 4096];
    // A refused port, or the time-out: both are seen as samples without a reply.
    let Ok(length) = socket.recv(&mut room) else { return true };
    let came_at = start.elapsed();
    let reply = Message::read(&room[..length]);
    if let Some(n) = open.remove(&reply.id) {
        let sample = &mut samples[n];
        let asked = question_of(&room[..length]).map(|q| q.name);
        assert_eq!(asked, Some(super::message::wire(&sample.name)), "a reply to another question");
        sample.took = Some(came_at - sample.sent_at);
        sample.reply = Some(reply);
    }
    true
}

/// The time within which `share` (0 to 1) of the samples were answered.
///
/// # Panics
///
/// Where fewer were answered at all.
pub fn percentile(samples: &[Sample], share: f64) -> Duration {
    let mut all: Vec<Duration> = samples.iter().map(|s| s.took.unwrap_or(Duration::MAX)).collect();
    all.sort_unstable();
    let rank = ((all.len() as f64 * share).ceil() as usize).clamp(1, all.len());
    assert_ne!(all[rank - 1], Duration::MAX, "too many questions without a reply");
    all[rank - 1]
}
