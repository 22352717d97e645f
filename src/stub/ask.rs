//! Asks evenkeel at an address as the machine's programs will: UDP, then TCP. Not pure; every wait is bounded.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::wire::{Name, build, rcode, reply};

/// For one answer: the 5 s that a stub resolver waits (resolv.conf(5), timeout).
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks over both transports. NOERROR and NXDOMAIN are answers.
///
/// # Errors
///
/// In words: what was asked, how, and what came of it.
pub fn through(server: SocketAddr, name: &Name, qtype: u16) -> Result<(), String> {
    let mut question = build::question(name.as_wire(), qtype, false, false, true);
    question[..2].copy_from_slice(&rand::random::<[u8; 2]>());
    for (transport, answer) in [("UDP", udp as fn(_, &_) -> _), ("TCP", tcp)] {
        let fault = |what: String| format!("{name} asked at {server} over {transport}: {what}");
        let answer: Vec<u8> = answer(server, &question).map_err(|e: io::Error| {
            let is_late = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            fault(if is_late { format!("no answer within {} s", PATIENCE.as_secs()) } else { e.to_string() })
        })?;
        let code = match reply::check(&answer) {
            Ok(reply) => reply.rcode(),
            Err(_) if reply::is_truncated(&answer) => u16::from(answer[3] & 15),
            Err(_) => return Err(fault("the answer is no DNS message".to_owned())),
        };
        if !matches!(code, rcode::NOERROR | rcode::NXDOMAIN) {
            return Err(fault(format!("the answer is {}", rcode_in_words(code))));
        }
    }
    Ok(())
}

fn rcode_in_words(code: u16) -> String {
    match code {
        rcode::SERVFAIL => "SERVFAIL: no upstream answers".to_owned(),
        rcode::REFUSED => "REFUSED: this client may not ask".to_owned(),
        code => format!("RCODE {code}"),
    }
}

fn udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut room = vec![0; 4096];
    let end = Instant::now() + PATIENCE;
    loop {
        socket.set_read_timeout(Some(left(end)?))?;
        let length = socket.recv(&mut room)?;
        if length >= 12 && room[..2] == question[..2] {
            room.truncate(length);
            return Ok(room);
        }
    }
}

fn tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut head = [0; 2];
    stream.set_read_timeout(Some(left(end)?))?;
    stream.read_exact(&mut head)?;
    let mut answer = vec![0; u16::from_be_bytes(head).into()];
    stream.set_read_timeout(Some(left(end)?))?;
    stream.read_exact(&mut answer)?;
    if answer.len() < 12 || answer[..2] != question[..2] {
        return Err(io::Error::other("it answers something else"));
    }
    Ok(answer)
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
