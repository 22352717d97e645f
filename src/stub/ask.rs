//! Asks evenkeel at an address as the machine's programs will: UDP, then TCP. Not pure; every wait is bounded.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::observe::liveness::any_beside;
use crate::wire::reply::{Identity, identify};
use crate::wire::{Name, build, rcode, reply, rtype};

/// For one answer: the 5 s that a stub resolver waits (resolv.conf(5), timeout).
const PATIENCE: Duration = Duration::from_secs(5);
/// For a sign of life.
const BRIEFLY: Duration = Duration::from_secs(1);

/// Asks over both transports. NOERROR and NXDOMAIN are answers.
///
/// # Errors
///
/// In words: what was asked, how, and what came of it.
pub fn through(server: SocketAddr, name: &Name, qtype: u16) -> Result<(), String> {
    let id = rand::random::<u16>();
    let mut question = build::question(name.as_wire(), qtype, false, false, true);
    question[..2].copy_from_slice(&id.to_be_bytes());
    let is_ours = |packet: &[u8]| identify(packet, id, name.as_wire(), qtype) != Identity::NotOurs;
    for (transport, answer) in [("UDP", udp as fn(_, &_, IsOurs<'_>, _) -> _), ("TCP", tcp)] {
        let fault = |what: String| format!("{name} asked at {server} over {transport}: {what}");
        let answer: Vec<u8> = answer(server, &question, &is_ours, PATIENCE).map_err(|e: io::Error| {
            let is_late = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            fault(if is_late { format!("no answer within {} s", PATIENCE.as_secs()) } else { e.to_string() })
        })?;
        let code = match (identify(&answer, id, name.as_wire(), qtype), reply::check(&answer)) {
            (Identity::HeaderOnly(code), _) => code,
            (_, Ok(reply)) => reply.rcode(),
            (_, Err(_)) if reply::is_truncated(&answer) => u16::from(answer[3] & 15),
            (_, Err(_)) => return Err(fault("the answer is no DNS message".to_owned())),
        };
        if !matches!(code, rcode::NOERROR | rcode::NXDOMAIN) {
            return Err(fault(format!("the answer is {}", rcode_in_words(code))));
        }
    }
    Ok(())
}

/// Does it answer anything at all, over UDP, within a second?
pub fn is_there(server: SocketAddr) -> bool {
    let id = rand::random::<u16>();
    let mut question = build::question(Name::root().as_wire(), rtype::NS, false, false, true);
    question[..2].copy_from_slice(&id.to_be_bytes());
    let is_ours = |packet: &[u8]| identify(packet, id, Name::root().as_wire(), rtype::NS) != Identity::NotOurs;
    udp(server, &question, &is_ours, BRIEFLY).is_ok()
}

/// Does a packet answer what was asked?
type IsOurs<'a> = &'a dyn Fn(&[u8]) -> bool;

fn rcode_in_words(code: u16) -> String {
    match code {
        rcode::SERVFAIL => "SERVFAIL: no upstream answers".to_owned(),
        rcode::REFUSED => "REFUSED: this client may not ask".to_owned(),
        code => format!("RCODE {code}"),
    }
}

fn udp(server: SocketAddr, question: &[u8], is_ours: IsOurs<'_>, patience: Duration) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((any_beside(server), 0))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut room = vec![0; 4096];
    let end = Instant::now() + patience;
    loop {
        socket.set_read_timeout(Some(left(end)?))?;
        let length = socket.recv(&mut room)?;
        if is_ours(&room[..length]) {
            room.truncate(length);
            return Ok(room);
        }
    }
}

fn tcp(server: SocketAddr, question: &[u8], is_ours: IsOurs<'_>, patience: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_write_timeout(Some(patience))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut head = [0; 2];
    stream.set_read_timeout(Some(left(end)?))?;
    stream.read_exact(&mut head)?;
    let mut answer = vec![0; u16::from_be_bytes(head).into()];
    stream.set_read_timeout(Some(left(end)?))?;
    stream.read_exact(&mut answer)?;
    if !is_ours(&answer) {
        return Err(io::Error::other("it answers something else"));
    }
    Ok(answer)
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::wire::query;

    #[test]
    fn only_what_answers_the_question_is_an_answer() {
        let (ours, others) = (|packet: &[u8]| packet.to_vec(), of_another_name as fn(&[u8]) -> Vec<u8>);
        // The first answer over UDP is to another question of the same id: it is passed over.
        assert_eq!(asked(vec![others, ours], ours, rcode::NOERROR), Ok(()));
        assert_eq!(asked(vec![ours], ours, rcode::NXDOMAIN), Ok(()));
        let refused = asked(vec![ours], ours, rcode::REFUSED).unwrap_err();
        assert!(refused.ends_with("over UDP: the answer is REFUSED: this client may not ask"), "{refused}");
        let refused = asked(vec![ours], others, rcode::NOERROR).unwrap_err();
        assert!(refused.ends_with("over TCP: it answers something else"), "{refused}");
    }

    #[test]
    fn a_refusal_of_a_header_alone_is_understood() {
        let header = |packet: &[u8]| [&packet[..2], &[0x80, 5], &[0; 8]].concat();
        let refused = answered(vec![header], header).unwrap_err();
        assert!(refused.ends_with("over UDP: the answer is REFUSED: this client may not ask"), "{refused}");
    }

    fn of_another_name(packet: &[u8]) -> Vec<u8> {
        let mut other = packet.to_vec();
        other[13] = b'x';
        other
    }

    type Turn = fn(&[u8]) -> Vec<u8>;

    /// Asks a server that answers with `rcode` what the turns make of the question.
    fn asked(udp: Vec<Turn>, tcp: Turn, rcode: u16) -> Result<(), String> {
        answered_by(udp, tcp, move |question| {
            let mut room = [0; 512];
            let length = build::Builder::new(query::check(question).unwrap(), rcode, None, &[], &mut room).finish();
            room[..length].to_vec()
        })
    }

    fn answered(udp: Vec<Turn>, tcp: Turn) -> Result<(), String> {
        answered_by(udp, tcp, |packet| packet.to_vec())
    }

    fn answered_by(
        udp: Vec<Turn>,
        tcp: Turn,
        reply: impl Fn(&[u8]) -> Vec<u8> + Clone + Send + 'static,
    ) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(server).unwrap();
        let of_tcp = reply.clone();
        thread::spawn(move || {
            let mut room = [0; 512];
            let (length, from) = socket.recv_from(&mut room).unwrap();
            for turn in udp {
                socket.send_to(&reply(&turn(&room[..length])), from).unwrap();
            }
        });
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 2];
            stream.read_exact(&mut head).unwrap();
            let mut question = vec![0; u16::from_be_bytes(head).into()];
            stream.read_exact(&mut question).unwrap();
            let answer = of_tcp(&tcp(&question));
            stream.write_all(&[&(answer.len() as u16).to_be_bytes(), &answer[..]].concat()).unwrap();
        });
        through(server, &"db.test.".parse().unwrap(), rtype::A)
    }
}
