//! The UDP workers: plain threads that read, answer and send in batches.
//!
//! A worker serves a set of sockets. A turn is: poll (at most [`TURN_MAX`], so that its heart beats and it sees the
//! stop), then for each socket that has something: read a batch, answer each question in line with one reading of
//! the clock, send the replies in one call, and only then hand over what is still open. So no hit waits for a miss.
//!
//! - **Whose sockets**: anybody's. More sockets than workers are shared out, fewer are read by several workers
//!   ([`share_out`]); none is open and unread.
//! - **Fairness**: `BATCHES_PER_SOCKET` batches of one socket, then the next socket.
//! - **The way back** of an open question owns the socket (`line`), also when the worker has ended.
//! - **Heartbeat**: each turn writes its moment where [`Readings`] shows it.
//! - **No busy polling**: reading on for 20 or 100 µs before a wait made the mean latency at half load no shorter (23
//!   and 33 µs with none; 23 and 33, 26 and 27 with it; two rounds), for 1.5 to 3.2 times the CPU an answer.
//! - **Stop**: sockets are read empty and answered once more, at most for `EMPTYING_MAX`.
//! - **Panic**: a worker that panics ends the process. Its sockets would go on taking questions that nobody reads.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::line::{Line, WayBack};
use super::mmsg::Batch;
use crate::clock::{self, Moment};
use crate::limits::BATCH;
use crate::serve::{Client, Outcome, Prepared, ReplyTo, Service, Step, Transport};

/// Starts `workers` threads (at least 1) that read all of `sockets`; `service(n)` is what worker `n` asks.
///
/// Sockets must not block and should be [prepared](super::socket::prepare).
///
/// # Errors
///
/// What the kernel says where it has no descriptor or thread to give. Workers that run by then are stopped.
pub fn start<S: Service>(
    sockets: Vec<(SocketAddr, Vec<UdpSocket>)>,
    workers: usize,
    mut service: impl FnMut(usize) -> S,
) -> io::Result<Workers> {
    let workers = workers.max(1);
    let sockets: Vec<Vec<Arc<Line>>> = sockets
        .into_iter()
        .map(|(_, each)| each.into_iter().map(|socket| Arc::new(Line::new(socket))).collect())
        .collect();
    let counts: Vec<usize> = sockets.iter().map(Vec::len).collect();
    let readings = Readings {
        pulses: (0..workers).map(|_| Pulse::default()).collect(),
        drops: sockets.iter().flatten().map(|line| line.drops.clone()).collect(),
    };
    let (ended, ends) = mpsc::channel();
    let mut running = Workers {
        stop: Arc::new(Stop { asked: AtomicBool::new(false), wake: eventfd(0, EventfdFlags::CLOEXEC)? }),
        threads: Vec::with_capacity(workers),
        ends,
        readings,
    };
    for (number, share) in share_out(&counts, workers).into_iter().enumerate() {
        let worker = Worker {
            number,
            lines: share.into_iter().map(|(address, socket)| sockets[address][socket].clone()).collect(),
            service: service(number),
            stop: running.stop.clone(),
            readings: running.readings.clone(),
            batch: Batch::new(),
            open: Vec::with_capacity(BATCH),
        };
        worker.pulse().beat.store(clock::now().as_nanos(), Relaxed);
        let ended = ended.clone();
        let thread = thread::Builder::new().name(format!("udp-{number}")).spawn(move || {
            let guard = EndOnPanic;
            worker.run();
            drop(guard);
            // Nobody may listen any more.
            let _ = ended.send(());
        });
        match thread {
            Ok(thread) => running.threads.push(thread),
            Err(error) => {
                running.stop(EMPTYING_MAX);
                return Err(error);
            }
        }
    }
    Ok(running)
}

/// Who reads what: for each worker, the sockets as (address, socket), where `counts` is sockets an address.
///
/// Each socket has a reader, and each worker reads every address or at least one socket, as far as there are any.
pub fn share_out(counts: &[usize], workers: usize) -> Vec<Vec<(usize, usize)>> {
    let mut shares = vec![Vec::new(); workers];
    // Where an address has fewer or more sockets than workers, the next one begins with whom this one left out.
    let mut first = 0;
    for (address, &count) in counts.iter().enumerate() {
        for n in 0..if count == 0 { 0 } else { count.max(workers) } {
            shares[(first + n) % workers].push((address, n % count));
        }
        first += count;
    }
    shares
}

/// The workers that run.
pub struct Workers {
    stop: Arc<Stop>,
    threads: Vec<thread::JoinHandle<()>>,
    ends: mpsc::Receiver<()>,
    readings: Readings,
}

impl Workers {
    /// What they show of themselves.
    pub fn readings(&self) -> Readings {
        self.readings.clone()
    }

    /// Asks them to read their sockets empty and to end, waits for that at most `bound`, and says how many have not.
    pub fn stop(self, bound: Duration) -> usize {
        self.stop.asked.store(true, Relaxed);
        // Never read: it wakes every worker. The counter is far from full.
        let _ = rustix::io::write(&self.stop.wake, &1u64.to_ne_bytes());
        let until = Instant::now() + bound;
        let mut left = self.threads.len();
        while left > 0 && self.ends.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {
            left -= 1;
        }
        if left == 0 {
            for thread in self.threads {
                // All have said that they ended; a panic would have ended the process.
                let _ = thread.join();
            }
        }
        left
    }
}

/// What the workers show of themselves, readable from anywhere and after their end.
#[derive(Clone)]
pub struct Readings {
    pulses: Arc<[Pulse]>,
    drops: Arc<[Arc<AtomicU32>]>,
}

impl Readings {
    /// When each worker last began a turn. One that is well beats at least every [`TURN_MAX`].
    pub fn beats(&self) -> impl Iterator<Item = Moment> {
        self.pulses.iter().map(|pulse| Moment::from_nanos(pulse.beat.load(Relaxed)))
    }

    /// The beat of the worker that has not been heard of for longest.
    pub fn oldest_beat(&self) -> Moment {
        self.beats().min().unwrap_or(Moment::NEVER)
    }

    /// The sums over all workers.
    pub fn counts(&self) -> Counts {
        let sum = |of: fn(&Pulse) -> &AtomicU64| self.pulses.iter().map(|pulse| of(pulse).load(Relaxed)).sum();
        Counts {
            receive_drops: self.drops.iter().map(|drops| u64::from(drops.load(Relaxed))).sum(),
            cut: sum(|pulse| &pulse.cut),
            unsent: sum(|pulse| &pulse.unsent),
            receive_errors: sum(|pulse| &pulse.receive_errors),
        }
    }
}

/// What went wrong so far, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dropped by the kernel since a socket's buffer was full, as of the last datagram behind a drop.
    pub receive_drops: u64,
    /// Longer than a question may be.
    pub cut: u64,
    /// Replies of a batch that the kernel did not take.
    pub unsent: u64,
    /// Reads that failed.
    pub receive_errors: u64,
}

/// One worker's own line of cache, written by it alone.
#[derive(Default)]
#[repr(align(128))]
struct Pulse {
    beat: AtomicU64,
    cut: AtomicU64,
    unsent: AtomicU64,
    receive_errors: AtomicU64,
}

struct Stop {
    asked: AtomicBool,
    wake: OwnedFd,
}

struct Worker<S: Service> {
    number: usize,
    lines: Vec<Arc<Line>>,
    service: S,
    stop: Arc<Stop>,
    readings: Readings,
    batch: Batch,
    /// Of the batch in hand: what is still open, and the way back where the client waits.
    open: Vec<(S::Open, Option<WayBack>)>,
}

impl<S: Service> Worker<S> {
    fn run(mut self) {
        let (lines, stop) = (self.lines.clone(), self.stop.clone());
        let mut fds: Vec<PollFd<'_>> =
            lines.iter().map(|line| PollFd::from_borrowed_fd(line.socket.as_fd(), PollFlags::IN)).collect();
        fds.push(PollFd::from_borrowed_fd(stop.wake.as_fd(), PollFlags::IN));
        while !stop.asked.load(Relaxed) {
            let ready = poll(&mut fds, Some(&TURN));
            self.pulse().beat.store(clock::now().as_nanos(), Relaxed);
            match ready {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(_) => self.pause(),
            }
            for (line, fd) in lines.iter().zip(&fds) {
                if !fd.revents().is_empty() {
                    self.read(line, BATCHES_PER_SOCKET);
                }
            }
        }
        let until = Instant::now() + EMPTYING_MAX;
        let mut more = true;
        while more && Instant::now() < until {
            more = false;
            for line in &lines {
                more |= self.read(line, BATCHES_PER_SOCKET);
            }
        }
    }

    /// Serves at most `batches` batches of `line`; says whether there may be more.
    fn read(&mut self, line: &Arc<Line>, batches: usize) -> bool {
        for _ in 0..batches {
            match self.batch.receive(line.socket.as_fd()) {
                Ok(0) => return false,
                Ok(filled) => {
                    self.serve(line, filled);
                    if !self.batch.is_full() {
                        return false;
                    }
                }
                Err(_) => {
                    self.pause();
                    return false;
                }
            }
        }
        true
    }

    fn serve(&mut self, line: &Arc<Line>, filled: usize) {
        if let Some(drops) = self.batch.drops() {
            line.drops.fetch_max(drops, Relaxed);
        }
        let now = clock::now();
        self.service.begin_batch();
        // What one packet waits for in memory is fetched while others are looked at.
        let mut prepared = [Prepared::default(); BATCH];
        if filled >= PREPARED_FROM {
            for (slot, prepared) in prepared.iter_mut().enumerate().take(filled) {
                *prepared = self.batch.packet(slot).map(|packet| self.service.prepare(packet)).unwrap_or_default();
            }
            for step in [Step::Entry, Step::Bytes] {
                prepared[..filled].iter().for_each(|prepared| self.service.fetch(*prepared, step));
            }
        }
        for (slot, prepared) in prepared.into_iter().enumerate().take(filled) {
            let Some((question, out)) = self.batch.question(slot) else {
                if self.batch.is_cut(slot) {
                    add(&self.pulse().cut, 1);
                }
                continue;
            };
            let (peer, source) = (question.peer, question.source);
            let client = Client { address: peer.ip().to_canonical(), transport: Transport::Udp };
            match self.service.serve(question.bytes, prepared, client, out, now) {
                Outcome::Reply(bytes) => self.batch.set_reply(slot, bytes),
                Outcome::ReplyAndOpen(bytes, open) => {
                    self.batch.set_reply(slot, bytes);
                    self.open.push((open, None));
                }
                Outcome::Drop => {}
                Outcome::Open(open) => {
                    self.open.push((open, Some(WayBack { line: line.clone(), peer, source })));
                }
            }
        }
        let lost = self.batch.send(line.socket.as_fd()).lost;
        if lost > 0 {
            add(&self.pulse().unsent, lost as u64);
        }
        for (open, way_back) in self.open.drain(..) {
            self.service.hand_over(open, way_back.map(|way| Box::new(way) as Box<dyn ReplyTo>));
        }
    }

    /// What fails once fails again at once, for want of memory say: a worker must not turn on it without a pause.
    fn pause(&self) {
        add(&self.pulse().receive_errors, 1);
        thread::sleep(ERROR_PAUSE);
    }

    fn pulse(&self) -> &Pulse {
        &self.readings.pulses[self.number]
    }
}

/// Plain addition: the counter has one writer.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// Ends the process where a panic unwinds past it. With `panic = "abort"` it never has to.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Longest turn of a worker without anything to read: a sign of life a second, and an idle process wakes seldom.
pub const TURN_MAX: Duration = Duration::from_millis(900);
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: TURN_MAX.as_nanos() as _ };
/// Batches of one socket before the next one's turn.
const BATCHES_PER_SOCKET: usize = 4;
/// Packets of a batch from which on it pays to have memory fetched ahead.
const PREPARED_FROM: usize = 2;
/// Longest time for reading sockets empty at the end, where questions keep coming.
const EMPTYING_MAX: Duration = Duration::from_millis(500);
/// Pause after a read that failed.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::process::ExitStatusExt;
    use std::sync::Mutex;

    use super::*;
    use crate::limits::{UDP_PAYLOAD_MAX, UDP_QUERY_BYTES_MAX};
    use crate::listen::socket::prepare;

    #[test]
    fn every_socket_is_read_and_every_worker_reads() {
        type Shares = &'static [&'static [(usize, usize)]];
        let table: &[(&str, &[usize], usize, Shares)] = &[
            ("one each", &[2, 2], 2, &[&[(0, 0), (1, 0)], &[(0, 1), (1, 1)]]),
            ("more sockets than workers", &[3], 2, &[&[(0, 0), (0, 2)], &[(0, 1)]]),
            ("what is left over goes to the other", &[3, 1], 2, &[&[(0, 0), (0, 2), (1, 0)], &[(0, 1), (1, 0)]]),
            ("fewer sockets than workers", &[1, 2], 3, &[&[(0, 0), (1, 0)], &[(0, 0), (1, 0)], &[(0, 0), (1, 1)]]),
            ("an address without sockets", &[0, 1], 1, &[&[(1, 0)]]),
            ("nothing at all", &[], 2, &[&[], &[]]),
        ];
        for (name, counts, workers, want) in table {
            assert_eq!(share_out(counts, *workers), *want, "{name}");
        }
        for workers in 1..9 {
            for counts in [vec![1], vec![5, 1, 3], vec![8, 8], vec![0, 2], vec![1; 9]] {
                let shares = share_out(&counts, workers);
                let read: HashSet<_> = shares.iter().flatten().copied().collect();
                assert_eq!(read.len(), counts.iter().sum::<usize>(), "{counts:?} {workers}");
                assert!(shares.iter().all(|share| !share.is_empty()), "{counts:?} {workers}");
                let unique = shares.iter().all(|share| share.iter().collect::<HashSet<_>>().len() == share.len());
                assert!(unique, "no worker reads a socket twice: {counts:?} {workers}");
            }
        }
    }

    #[test]
    fn replies_come_back_to_the_one_who_asked_by_several_workers_of_several_addresses() {
        let (sockets, addresses) = sockets(&["127.0.0.1:0", "[::1]:0"]);
        let workers = start(sockets, 3, |_| Script::default()).unwrap();
        for (n, address) in addresses.iter().cycle().take(60).enumerate() {
            let client = client(*address);
            client.send_to(&[b'e', n as u8], address).unwrap();
            assert_eq!(receive(&client), (vec![b'e', n as u8], *address));
        }
        assert_eq!(workers.stop(Duration::from_secs(5)), 0);
    }

    #[test]
    fn an_open_question_is_handed_over_with_a_way_back_that_outlives_the_worker() {
        let (sockets, addresses) = sockets(&["0.0.0.0:0"]);
        let script = Script::default();
        let workers = start(sockets, 1, |_| script.clone()).unwrap();
        let ask = SocketAddr::from(([127, 0, 0, 9], addresses[0].port()));
        let client = client(ask);
        client.send_to(b"open", ask).unwrap();
        let (question, way_back) = script.next_handed_over();
        assert_eq!(question, b"open");
        assert_eq!(workers.stop(Duration::from_secs(5)), 0);
        way_back.unwrap().send(b"late").unwrap().flush();
        assert_eq!(receive(&client), (b"late".to_vec(), ask));
    }

    #[test]
    fn a_reply_goes_out_before_its_name_is_asked_again() {
        let (sockets, addresses) = sockets(&["127.0.0.1:0"]);
        let script = Script::default();
        let probe = Arc::new(client(addresses[0]));
        *script.at_hand_over.lock().unwrap() = Some(Box::new({
            let probe = probe.clone();
            // Loopback delivers within the sending call: a reply that was sent is there.
            move || assert_eq!(receive(&probe).0, b"both")
        }));
        let workers = start(sockets, 1, |_| script.clone()).unwrap();
        probe.send_to(b"both", addresses[0]).unwrap();
        let (question, way_back) = script.next_handed_over();
        assert_eq!((question.as_slice(), way_back.is_none()), (&b"both"[..], true));
        assert_eq!(workers.stop(Duration::from_secs(5)), 0);
    }

    #[test]
    fn what_was_sent_before_the_stop_is_answered() {
        let (sockets, addresses) = sockets(&["127.0.0.1:0", "127.0.0.2:0"]);
        let script = Script::default();
        let workers = start(sockets, 1, |_| script.clone()).unwrap();
        // The worker stands still in the first question, so that the rest is unread when the stop is asked for.
        let still = script.still.lock().unwrap();
        let client = client(addresses[0]);
        client.send_to(b"wait", addresses[0]).unwrap();
        for n in 0..200u8 {
            client.send_to(&[b'e', n], addresses[usize::from(n % 2)]).unwrap();
        }
        let stopping = thread::spawn(move || workers.stop(Duration::from_secs(5)));
        drop(still);
        assert_eq!(stopping.join().unwrap(), 0);
        let answers: HashSet<_> = (0..201).map(|_| receive(&client).0).collect();
        assert_eq!(answers.len(), 201);
    }

    #[test]
    fn a_worker_that_hangs_bounds_the_stop_and_its_beat_tells() {
        let (sockets, addresses) = sockets(&["127.0.0.1:0"]);
        let script = Script::default();
        let workers = start(sockets, 2, |_| script.clone()).unwrap();
        let readings = workers.readings();
        assert_eq!(readings.beats().count(), 2);
        let still = script.still.lock().unwrap();
        client(addresses[0]).send_to(b"wait", addresses[0]).unwrap();
        // The worker that is well goes on beating; the other one stays behind.
        let behind = || readings.beats().max().map_or(Duration::ZERO, |last| last.since(readings.oldest_beat()));
        let until = Instant::now() + Duration::from_secs(10);
        while behind() <= TURN_MAX * 2 {
            assert!(Instant::now() < until, "both beat");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(workers.stop(Duration::from_millis(50)), 1);
        drop(still);
    }

    #[test]
    fn a_question_that_is_too_long_is_dropped_and_counted_and_an_empty_one_is_served() {
        let (sockets, addresses) = sockets(&["127.0.0.1:0"]);
        let workers = start(sockets, 1, |_| Script::default()).unwrap();
        let readings = workers.readings();
        let client = client(addresses[0]);
        client.send_to(&[b'e'; UDP_QUERY_BYTES_MAX + 1], addresses[0]).unwrap();
        client.send_to(b"", addresses[0]).unwrap();
        client.send_to(b"e", addresses[0]).unwrap();
        assert_eq!([receive(&client).0, receive(&client).0], [&b"empty"[..], b"e"]);
        assert_eq!(workers.stop(Duration::from_secs(5)), 0);
        assert_eq!(readings.counts(), Counts { cut: 1, ..Counts::default() });
    }

    #[test]
    fn a_worker_that_panics_ends_the_process() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "listen::udp::tests::a_panicking_worker", "--ignored"])
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{child:?}");
    }

    /// The process that [`a_worker_that_panics_ends_the_process`] starts.
    #[test]
    #[ignore = "ends the process"]
    fn a_panicking_worker() {
        let (sockets, addresses) = sockets(&["127.0.0.1:0"]);
        let _workers = start(sockets, 1, |_| Script::default()).unwrap();
        let client = client(addresses[0]);
        client.send_to(b"panic", addresses[0]).unwrap();
        receive(&client);
    }

    /// Does what the first byte of a question says.
    #[derive(Clone, Default)]
    struct Script {
        still: Arc<Mutex<()>>,
        handed_over: Handed,
        at_hand_over: Arc<Mutex<Option<Look>>>,
    }

    type Look = Box<dyn Fn() + Send>;
    type Handed = Arc<(Mutex<Vec<(Vec<u8>, Option<Box<dyn ReplyTo>>)>>, std::sync::Condvar)>;

    impl Script {
        fn next_handed_over(&self) -> (Vec<u8>, Option<Box<dyn ReplyTo>>) {
            let (list, arrived) = &*self.handed_over;
            let bound = Duration::from_secs(5);
            let (mut list, _) = arrived.wait_timeout_while(list.lock().unwrap(), bound, |l| l.is_empty()).unwrap();
            list.pop().unwrap()
        }
    }

    impl Service for Script {
        type Open = Vec<u8>;

        fn begin_batch(&mut self) {}

        fn serve(
            &mut self,
            packet: &[u8],
            _: Prepared,
            client: Client,
            out: &mut [u8],
            now: Moment,
        ) -> Outcome<Vec<u8>> {
            assert!(out.len() >= UDP_PAYLOAD_MAX && client.address.is_loopback() && now > Moment::ZERO);
            let reply = if packet.is_empty() { b"empty" } else { packet };
            out[..reply.len()].copy_from_slice(reply);
            match packet {
                b"open" => Outcome::Open(packet.to_vec()),
                b"both" => Outcome::ReplyAndOpen(reply.len(), packet.to_vec()),
                b"wait" => {
                    drop(self.still.lock());
                    Outcome::Reply(reply.len())
                }
                b"panic" => panic!("as asked"),
                _ => Outcome::Reply(reply.len()),
            }
        }

        fn hand_over(&mut self, open: Vec<u8>, reply_to: Option<Box<dyn ReplyTo>>) {
            if let Some(look) = &*self.at_hand_over.lock().unwrap() {
                look();
            }
            self.handed_over.0.lock().unwrap().push((open, reply_to));
            self.handed_over.1.notify_all();
        }
    }

    fn sockets(addresses: &[&str]) -> (Vec<(SocketAddr, Vec<UdpSocket>)>, Vec<SocketAddr>) {
        let mut sockets = Vec::new();
        for address in addresses {
            let socket = UdpSocket::bind(address).unwrap();
            let address = socket.local_addr().unwrap();
            prepare(&socket, address).unwrap();
            sockets.push((address, vec![socket]));
        }
        let addresses = sockets.iter().map(|(address, _)| *address).collect();
        (sockets, addresses)
    }

    fn client(peer: SocketAddr) -> UdpSocket {
        let client = UdpSocket::bind(if peer.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client
    }

    fn receive(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        let (bytes, from) = client.recv_from(&mut buffer).unwrap();
        (buffer[..bytes].to_vec(), from)
    }
}
