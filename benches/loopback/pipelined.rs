//! Hits pipelined on TCP connections, each with a window of questions out.
//!
//! dnsmasq ends a connection after a hundred questions and has a process for each: what was out then is unanswered.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::epoll;

use super::asker::{Desk, PATIENCE, Tally};
use super::board::{Bars, Table, short};
use super::names::{Names, Shape};
use super::rounds::{Figures, Setup, best, in_turn, of};
use super::servers::Kind;

const NAMES: u32 = 10_000;
const CONNECTIONS: usize = 8;
/// Questions that are out on a connection.
const WINDOW: usize = 32;

pub fn run(setup: &Setup, bars: &mut Bars) {
    let upstream = setup.upstream();
    let fleet = setup.fleet(&[&[Kind::Evenkeel][..], &Kind::PEERS].concat(), &upstream, NAMES);
    let mut names = Names::uniform(NAMES);
    let figures = in_turn(setup.rounds, &fleet, |_, s| {
        flood(s.address, &mut names, setup.round).unwrap_or_else(|why| {
            println!("  {}: {why}", s.kind.word());
            Tally::default()
        })
    });
    let most = best(&fleet, &figures, &Kind::PEERS, Figures::per_second, f64::max);
    let mut table = Table::new(&["", "answered/s", "to best peer", "CPU µs", "unanswered"]);
    for (server, figures) in fleet.iter().zip(&figures) {
        // Its children's is not measured.
        let cpu = if server.kind == Kind::Dnsmasq { f64::NAN } else { figures.cpu() };
        let mut row = vec![server.kind.word().to_owned()];
        row.extend([figures.per_second(), figures.per_second() / most, cpu].map(short));
        row.push(figures.unanswered.to_string());
        table.row(row);
    }
    table.print();
    println!("  {CONNECTIONS} connections, {WINDOW} questions out on each");
    let own = of(Kind::Evenkeel, &fleet, &figures).map_or(f64::NAN, Figures::per_second);
    bars.at_least("TCP: answered a second, as a ratio to the best peer's", own / most, 1.0);
}

/// As [`Load::flood`](super::asker::Load::flood), over TCP. A connection that ends is opened again, and what was out on
/// it is lost.
fn flood(server: SocketAddr, names: &mut Names, time: Duration) -> io::Result<Tally> {
    let mut desk = Desk::new(Shape::USUAL, names);
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut lines = Vec::new();
    for n in 0..CONNECTIONS {
        lines.push(Line::open(server, &ready, n, &mut desk)?);
    }
    let mut events = Vec::with_capacity(CONNECTIONS);
    loop {
        events.clear();
        epoll::wait(&ready, rustix::buffer::spare_capacity(&mut events), Some(&PATIENCE))?;
        let over = desk.now() >= time.as_nanos() as u64;
        if over && (desk.out == 0 || events.is_empty()) {
            return Ok(desk.tally);
        }
        if events.is_empty() {
            desk.give_up();
        }
        // Nothing came for long: all of them anew.
        let stuck = if events.is_empty() { 0..CONNECTIONS } else { 0..0 };
        for n in events.iter().map(|e| e.data.u64() as usize).chain(stuck.clone()) {
            if !stuck.is_empty() || !lines[n].turn(&mut desk, over)? {
                lines[n] = Line::open(server, &ready, n, &mut desk)?;
            }
        }
    }
}

/// A connection, and what of it is not a whole message or not yet written.
struct Line {
    stream: TcpStream,
    read: Vec<u8>,
    write: Vec<u8>,
}

impl Line {
    fn open(server: SocketAddr, ready: &impl std::os::fd::AsFd, n: usize, desk: &mut Desk<'_>) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(ready, &stream, epoll::EventData::new_u64(n as u64), epoll::EventFlags::IN)?;
        let mut line = Self { stream, read: Vec::with_capacity(1 << 16), write: Vec::new() };
        for _ in 0..WINDOW {
            line.ask(desk);
        }
        line.flush()?;
        Ok(line)
    }

    fn ask(&mut self, desk: &mut Desk<'_>) {
        let mut room = [0; 512];
        let now = desk.now();
        if let Some(bytes) = desk.ask(&mut room, now) {
            self.write.extend_from_slice(&(bytes as u16).to_be_bytes());
            self.write.extend_from_slice(&room[..bytes]);
        }
    }

    /// Takes what has come and asks as much again. Does the connection go on?
    fn turn(&mut self, desk: &mut Desk<'_>, over: bool) -> io::Result<bool> {
        let mut room = [0; 1 << 14];
        let read = match self.stream.read(&mut room) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Ok(false),
        };
        self.read.extend_from_slice(&room[..read]);
        let now = desk.now();
        let (mut at, mut ended) = (0, 0);
        while let Some(length) = self.read.get(at..at + 2) {
            let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            if end > self.read.len() {
                break;
            }
            ended += usize::from(desk.take(&self.read[at + 2..end], now));
            at = end;
        }
        self.read.drain(..at);
        for _ in 0..if over { 0 } else { ended } {
            self.ask(desk);
        }
        self.flush()
    }

    /// Writes what the kernel takes; the rest goes with the next turn. Does the connection go on?
    fn flush(&mut self) -> io::Result<bool> {
        match self.stream.write(&self.write) {
            Ok(written) => drop(self.write.drain(..written)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Ok(false),
        }
        Ok(true)
    }
}
