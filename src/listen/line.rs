//! A UDP socket, and the way back by it for questions that were still open when their batch was sent.
//!
//! Not pure. The way back owns the socket: a reply leaves by it, from the address that was asked, from whatever thread,
//! also when the worker that read the question has ended. Replies gather here, [`BATCH`] at most, until the driver has
//! nothing else to do at the moment ([`Gathering`]), and leave in one call: sent one by one they were a fifth of what a
//! miss costs (`benches/RESULTS.md`). The lock is not held while they are sent.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mmsg::{Leaving, Source, send_many};
use crate::limits::BATCH;
use crate::serve::{Gathering, ReplyTo};

/// A socket, shared by its readers and the open questions that came by it.
pub(super) struct Line {
    pub(super) socket: UdpSocket,
    /// Apart, since who reads the count must not keep the socket open.
    pub(super) drops: Arc<AtomicU32>,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// Where each reply ends in `bytes`, and its way.
    ways: Vec<(usize, SocketAddr, Option<Source>)>,
}

impl Line {
    pub(super) fn new(socket: UdpSocket) -> Self {
        Self { socket, drops: Arc::default(), gathered: Mutex::default() }
    }

    /// Adds a reply; says whether it is the first.
    fn add(&self, reply: &[u8], peer: SocketAddr, source: Option<Source>) -> bool {
        let mut gathered = self.gathered();
        gathered.bytes.extend_from_slice(reply);
        let end = gathered.bytes.len();
        gathered.ways.push((end, peer, source));
        let count = gathered.ways.len();
        drop(gathered);
        if count >= BATCH {
            self.flush();
        }
        count == 1
    }

    /// No holder can panic half-way through a change, so a poisoned one is whole.
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathering for Line {
    fn flush(&self) {
        let mut all = std::mem::take(&mut *self.gathered());
        let mut from = 0;
        let mut leaving = all.ways.iter().map(|&(end, peer, source)| {
            let bytes = &all.bytes[std::mem::replace(&mut from, end)..end];
            Leaving { bytes, peer, source }
        });
        // What cannot be sent is lost, as UDP may lose it; the client asks again.
        while leaving.len() > 0 {
            send_many(self.socket.as_fd(), leaving.by_ref());
        }
        all.bytes.clear();
        all.ways.clear();
        let mut gathered = self.gathered();
        if gathered.ways.is_empty() {
            // Their room is used again.
            *gathered = all;
        }
    }
}

/// Who ends before it was told that it is time has sent all the same.
impl Drop for Line {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The way back of one question.
pub(super) struct WayBack {
    pub(super) line: Arc<Line>,
    pub(super) peer: SocketAddr,
    pub(super) source: Option<Source>,
}

impl ReplyTo for WayBack {
    fn send(self: Box<Self>, reply: &[u8]) -> Option<Arc<dyn Gathering>> {
        let first = self.line.add(reply, self.peer, self.source);
        first.then_some(self.line as Arc<dyn Gathering>)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn replies_that_come_later_gather_and_leave_together() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let line = Arc::new(Line::new(socket));
        let clients: Vec<_> =
            (1..4).map(|n| SocketAddr::from(([127, 0, 0, n], port))).map(|asked| (client(), asked)).collect();
        let way_back = |(client, asked): &(UdpSocket, SocketAddr)| {
            let source = Some(Source { address: asked.ip(), interface: 0 });
            Box::new(WayBack { line: line.clone(), peer: client.local_addr().unwrap(), source })
        };
        let words = ["a", "bb", "ccc"];
        let sent: Vec<_> = clients.iter().zip(words).map(|(c, s)| way_back(c).send(s.as_bytes())).collect();
        assert_eq!(sent.iter().filter(|first| first.is_some()).count(), 1, "one is enough to tell");
        assert!(sent[0].is_some());
        // Loopback delivers within the sending call: nothing was sent.
        clients[0].0.set_nonblocking(true).unwrap();
        assert!(clients[0].0.recv(&mut [0; 16]).is_err());
        clients[0].0.set_nonblocking(false).unwrap();
        sent.into_iter().flatten().for_each(|first| first.flush());
        for ((client, asked), word) in clients.iter().zip(words) {
            assert_eq!(receive(client), (word.into(), *asked));
        }
        // As many as one call takes do not wait.
        (0..BATCH).for_each(|n| assert_eq!(way_back(&clients[0]).send(&[n as u8]).is_some(), n == 0));
        (0..BATCH).for_each(|n| assert_eq!(receive(&clients[0].0).0, [n as u8]));
        // Nor does what is there when the last one goes.
        drop(way_back(&clients[0]).send(b"last"));
        drop(line);
        assert_eq!(receive(&clients[0].0).0, b"last");
    }

    fn client() -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client
    }

    fn receive(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        let (bytes, from) = client.recv_from(&mut buffer).unwrap();
        (buffer[..bytes].to_vec(), from)
    }
}
