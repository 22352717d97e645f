use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Context;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::pace::UNDER_WAY_MAX;
use super::*;
use crate::clock::Moment;
use crate::limits::{TCP_MESSAGE_DEADLINE, TCP_TURN_MAX, TCP_WRITE_BYTES};
use crate::listen::seats::{Seats, TcpLimits};

#[tokio::test(start_paused = true)]
async fn replies_go_out_as_they_are_ready() {
    let mut c = Conversation::open(65_536);
    c.ask(b"open 1").await;
    c.ask(b"open 2").await;
    c.ask(b"echo 3").await;
    c.ask(b"nothing").await;
    c.ask(b"both 4").await;
    assert_eq!([c.reply().await, c.reply().await], [b"echo 3", b"both 4"]);
    let (first, second) = (c.handed_over().await, c.handed_over().await);
    assert_eq!((&first.0[..], &second.0[..]), (&b"open 1"[..], &b"open 2"[..]));
    let third = c.handed_over().await;
    assert_eq!((&third.0[..], third.1.is_none()), (&b"both 4"[..], true));
    second.1.unwrap().send(b"late 2");
    assert_eq!(c.reply().await, b"late 2");
    first.1.unwrap().send(b"late 1");
    assert_eq!(c.reply().await, b"late 1");
}

#[tokio::test(start_paused = true)]
async fn questions_that_come_together_are_read_together_and_their_replies_leave_together() {
    let mut c = Conversation::open(65_536);
    let questions: Vec<_> = (0..100).map(|n| format!("echo {n}")).collect();
    c.ask_all(&questions).await;
    for question in &questions {
        assert_eq!(c.reply().await, question.as_bytes());
    }
    let (reads, writes) = (c.counts.reads.load(Relaxed), c.counts.writes.load(Relaxed));
    assert!((1..=2).contains(&reads) && (1..=2).contains(&writes), "{reads} reads, {writes} writes");
}

#[tokio::test(start_paused = true)]
async fn hits_do_not_wait_for_the_misses_among_them() {
    let mut c = Conversation::open(65_536);
    let questions: Vec<_> = (0..60).map(|n| format!("{} {n}", if n % 3 == 0 { "open" } else { "echo" })).collect();
    c.ask_all(&questions).await;
    let (misses, hits): (Vec<_>, Vec<_>) = questions.iter().partition(|q| q.starts_with("open"));
    for hit in hits {
        assert_eq!(c.reply().await, hit.as_bytes());
    }
    assert!(c.counts.writes.load(Relaxed) <= 2);
    for miss in misses {
        let (question, way) = c.handed_over().await;
        assert_eq!(question, miss.as_bytes());
        way.unwrap().send(&question);
        assert_eq!(c.reply().await, question);
    }
}

#[tokio::test(start_paused = true)]
async fn replies_keep_the_order_of_hits_where_neither_side_takes_much_at_a_time() {
    for buffer_bytes in [1, 7, 100] {
        let c = Conversation::open(buffer_bytes);
        let (mut replies, mut questions) = tokio::io::split(c.client);
        tokio::spawn(async move {
            for n in 0..300_u16 {
                questions.write_all(&[0, 3, b'e', (n >> 8) as u8, n as u8]).await.unwrap();
            }
        });
        for n in 0..300_u16 {
            let mut reply = [0; 5];
            replies.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply, [0, 3, b'e', (n >> 8) as u8, n as u8], "{buffer_bytes}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_on_and_never_reads_is_served_what_fits_and_no_more() {
    for (question, served_max) in [(&b"echo of some size"[..], TCP_WRITE_BYTES / 19 + 150), (b"large", 1)] {
        let mut c = Conversation::open(1000);
        let framed = [&(question.len() as u16).to_be_bytes(), question].concat().repeat(50);
        let asking = async { while c.client.write_all(&framed).await.is_ok() {} };
        assert!(tokio::time::timeout(TCP_MESSAGE_DEADLINE - MILLI, asking).await.is_err());
        let served = c.counts.served.load(Relaxed);
        assert!((1..=served_max).contains(&served), "{served}");
        sleep(MILLI * 2).await;
        assert!(c.task.is_finished());
    }
}

#[tokio::test]
async fn a_pipeline_without_end_leaves_others_their_turns() {
    let counts = Arc::new(Counts::default());
    let seats = Seats::new(TcpLimits { connections: 9, connections_per_client: 9, client_prefix: (32, 56) });
    let peer: SocketAddr = "127.0.0.1:40000".parse().unwrap();
    let (service, ending) =
        (Script { handed: mpsc::unbounded_channel().0, counts: counts.clone() }, watch::Sender::new(false));
    let seat = seats.take(peer.ip(), peer.ip()).unwrap();
    let endless = tokio::spawn(converse(Endless, peer, service, seat, ending.subscribe()));
    // In a task, since the runtime looks at the test itself more seldom.
    let other = tokio::spawn(async move {
        let mut c = Conversation::open(1000);
        for _ in 0..10 {
            let before = counts.served.load(Relaxed);
            c.ask(b"echo").await;
            assert_eq!(c.reply().await, b"echo");
            let meanwhile = counts.served.load(Relaxed) - before;
            assert!((1..=4 * TCP_TURN_MAX).contains(&meanwhile), "{meanwhile}");
        }
    });
    other.await.unwrap();
    endless.abort();
}

#[tokio::test(start_paused = true)]
async fn the_largest_reply_is_whole() {
    let mut c = Conversation::open(1000);
    c.ask(b"large").await;
    let reply = c.reply().await;
    assert_eq!((reply.len(), reply.iter().all(|&b| b == b'l')), (MESSAGE_BYTES_MAX, true));
}

#[tokio::test(start_paused = true)]
async fn reading_pauses_where_all_questions_of_the_pipeline_are_under_way() {
    let mut c = Conversation::open(65_536);
    for _ in 0..TCP_PIPELINE_MAX + 2 {
        c.ask(b"open").await;
    }
    let mut ways = Vec::new();
    for _ in 0..TCP_PIPELINE_MAX {
        ways.push(c.handed_over().await.1.unwrap());
    }
    sleep(Duration::from_secs(1)).await;
    assert!(c.open.try_recv().is_err());
    ways.pop().unwrap().send(b"late");
    ways.push(c.handed_over().await.1.unwrap());
    sleep(Duration::from_secs(1)).await;
    assert!(c.open.try_recv().is_err());
    // A way back that is dropped unsent gives its place back as well.
    ways.pop();
    ways.push(c.handed_over().await.1.unwrap());
    assert_eq!(c.reply().await, b"late");
    // All at once: there is room for each.
    ways.into_iter().for_each(|way| drop(way.send(b"late")));
    for _ in 0..TCP_PIPELINE_MAX {
        assert_eq!(c.reply().await, b"late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_question_under_way_is_closed_after_its_idle_time() {
    let mut c = Conversation::open(1000);
    let opened = Instant::now();
    sleep(TCP_IDLE - MILLI).await;
    c.ask(b"echo").await;
    assert_eq!(c.reply().await, b"echo");
    assert_eq!(c.closed().await - opened, TCP_IDLE - MILLI + TCP_IDLE);
}

#[tokio::test(start_paused = true)]
async fn a_question_under_way_keeps_the_connection_and_its_reply_begins_the_idle_time() {
    let mut c = Conversation::open(1000);
    c.ask(b"open").await;
    let (_, way) = c.handed_over().await;
    sleep(TCP_IDLE * 3).await;
    way.unwrap().send(b"late");
    assert_eq!(c.reply().await, b"late");
    let answered = Instant::now();
    assert_eq!(c.closed().await - answered, TCP_IDLE);
    assert_eq!(c.seats.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_way_back_that_nobody_uses_or_drops_does_not_keep_the_connection_for_ever() {
    let mut c = Conversation::open(1000);
    c.ask(b"open").await;
    let (asked, kept) = (Instant::now(), c.handed_over().await);
    assert_eq!(c.closed().await - asked, UNDER_WAY_MAX);
    kept.1.unwrap().send(b"too late");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_has_begun_comes_whole_within_its_deadline() {
    for (last_byte_after, answered) in
        [(TCP_MESSAGE_DEADLINE - MILLI * 2, true), (TCP_MESSAGE_DEADLINE + MILLI * 2, false)]
    {
        let mut c = Conversation::open(1000);
        sleep(Duration::from_secs(7)).await;
        let began = Instant::now();
        for byte in [0, 5, b'e', b'c', b'h', b'o'] {
            c.client.write_all(&[byte]).await.unwrap();
            sleep(last_byte_after / 7).await;
        }
        tokio::time::sleep_until(began + last_byte_after).await;
        assert_eq!(c.client.write_all(b"!").await.is_ok(), answered);
        if answered {
            assert_eq!(c.reply().await, b"echo!");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_closed_after_the_deadline_and_one_that_reads_late_is_not() {
    let mut c = Conversation::open(1000);
    c.ask(b"large").await;
    sleep(TCP_MESSAGE_DEADLINE - MILLI).await;
    assert_eq!(c.reply().await.len(), MESSAGE_BYTES_MAX);
    c.ask(b"large").await;
    sleep(TCP_MESSAGE_DEADLINE + MILLI).await;
    assert!(c.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn time_in_which_we_wait_for_the_client_to_read_does_not_count_against_its_question() {
    let mut c = Conversation::open(1000);
    c.ask(b"open").await;
    let (_, way) = c.handed_over().await;
    c.client.write_all(&[0, 4, b'e']).await.unwrap();
    sleep(MILLI).await;
    way.unwrap().send(&[b'x'; 5000]);
    sleep(TCP_MESSAGE_DEADLINE - MILLI * 10).await;
    assert_eq!(c.reply().await.len(), 5000);
    sleep(TCP_MESSAGE_DEADLINE - MILLI * 10).await;
    c.client.write_all(b"cho").await.unwrap();
    assert_eq!(c.reply().await, b"echo");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_closes_the_connection_at_once() {
    for (name, bytes, ends) in [
        ("an empty message", &[0, 0][..], false),
        ("an end within the length", &[0], true),
        ("an end within the message", &[0, 5, 1], true),
        ("an end before anything", &[], true),
    ] {
        let mut c = Conversation::open(1000);
        let began = Instant::now();
        c.client.write_all(bytes).await.unwrap();
        if ends {
            c.client.shutdown().await.unwrap();
        }
        assert_eq!(c.closed().await, began, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_ended_its_side_gets_its_replies() {
    let mut c = Conversation::open(1000);
    c.ask(b"open").await;
    c.ask(b"large").await;
    c.client.shutdown().await.unwrap();
    let (_, way) = c.handed_over().await;
    assert_eq!(c.reply().await.len(), MESSAGE_BYTES_MAX);
    sleep(Duration::from_secs(3)).await;
    way.unwrap().send(b"late");
    assert_eq!(c.reply().await, b"late");
    let answered = Instant::now();
    assert_eq!(c.closed().await, answered);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_an_idle_connection_is_closed_at_once_and_another_when_it_is_answered() {
    let mut idle = Conversation::open(1000);
    let mut half = Conversation::open(1000);
    half.client.write_all(&[0, 9, 1]).await.unwrap();
    let mut busy = Conversation::open(1000);
    busy.ask(b"open").await;
    let (_, way) = busy.handed_over().await;
    let end = Instant::now();
    for c in [&idle, &half, &busy] {
        c.ending.send_replace(true);
    }
    assert_eq!((idle.closed().await, half.closed().await), (end, end));
    sleep(Duration::from_secs(1)).await;
    busy.ask(b"echo").await;
    way.unwrap().send(b"late");
    assert_eq!(busy.reply().await, b"late");
    assert_eq!(busy.closed().await - end, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_keeps_its_seat_and_an_idle_one_gives_it_up() {
    let mut c = Conversation::open(1000);
    c.ask(b"open").await;
    let (_, way) = c.handed_over().await;
    sleep(MILLI).await;
    assert!(!c.seats.make_room());
    way.unwrap().send(b"late");
    assert_eq!(c.reply().await, b"late");
    sleep(MILLI).await;
    assert!(c.seats.make_room());
    c.closed().await;
}

/// A connection and the test's end of it.
struct Conversation {
    client: DuplexStream,
    counts: Arc<Counts>,
    open: mpsc::UnboundedReceiver<Handed>,
    ending: watch::Sender<bool>,
    seats: Arc<Seats>,
    task: JoinHandle<()>,
}

type Handed = (Vec<u8>, Option<Box<dyn ReplyTo>>);

impl Conversation {
    fn open(buffer_bytes: usize) -> Self {
        let (client, server) = duplex(buffer_bytes);
        let (handed, open) = mpsc::unbounded_channel();
        let seats = Seats::new(TcpLimits { connections: 9, connections_per_client: 9, client_prefix: (32, 56) });
        let peer: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        let seat = seats.take(peer.ip(), peer.ip()).unwrap();
        let (id, ending) = (seat.id(), watch::Sender::new(false));
        let counts = Arc::new(Counts::default());
        let service = Script { handed, counts: counts.clone() };
        let server = Counted { stream: server, counts: counts.clone() };
        let task = tokio::spawn(converse(server, peer, service, seat, ending.subscribe()));
        seats.occupy(id, task.abort_handle());
        Self { client, counts, open, ending, seats, task }
    }

    /// All in one write.
    async fn ask_all(&mut self, questions: &[String]) {
        let framed = questions.iter().flat_map(|q| [&(q.len() as u16).to_be_bytes(), q.as_bytes()].concat());
        self.client.write_all(&framed.collect::<Vec<u8>>()).await.unwrap();
    }

    async fn ask(&mut self, question: &[u8]) {
        let mut framed = (question.len() as u16).to_be_bytes().to_vec();
        framed.extend(question);
        self.client.write_all(&framed).await.unwrap();
    }

    async fn reply(&mut self) -> Vec<u8> {
        let bytes = self.client.read_u16().await.unwrap();
        let mut reply = vec![0; bytes.into()];
        self.client.read_exact(&mut reply).await.unwrap();
        reply
    }

    async fn handed_over(&mut self) -> Handed {
        self.open.recv().await.unwrap()
    }

    /// Waits for the end of the connection, which must say nothing more, and tells when that was.
    async fn closed(&mut self) -> Instant {
        assert_eq!(self.client.read(&mut [0; 16]).await.unwrap(), 0);
        Instant::now()
    }
}

/// Does what the first byte of a question says.
struct Script {
    handed: mpsc::UnboundedSender<Handed>,
    counts: Arc<Counts>,
}

/// What happened on a connection: reads and writes that moved bytes, and questions.
#[derive(Default)]
struct Counts {
    reads: AtomicUsize,
    writes: AtomicUsize,
    served: AtomicUsize,
}

struct Counted {
    stream: DuplexStream,
    counts: Arc<Counts>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.counts.reads.fetch_add(polled.is_ready().into(), Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.counts.writes.fetch_add(polled.is_ready().into(), Relaxed);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client that asks as fast as it is read, and reads as fast as it is answered.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let questions = b"\0\x04echo".repeat(buf.remaining() / 6);
        buf.put_slice(&questions);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Service for Script {
    type Open = Vec<u8>;

    fn begin_batch(&mut self) {}

    fn serve(&mut self, packet: &[u8], _: Prepared, client: Client, out: &mut [u8], _: Moment) -> Outcome<Vec<u8>> {
        assert!(client.transport == Transport::Tcp && out.len() >= MESSAGE_BYTES_MAX);
        self.counts.served.fetch_add(1, Relaxed);
        out[..packet.len()].copy_from_slice(packet);
        match packet[0] {
            b'e' => Outcome::Reply(packet.len()),
            b'b' => Outcome::ReplyAndOpen(packet.len(), packet.to_vec()),
            b'o' => Outcome::Open(packet.to_vec()),
            b'l' => {
                out[..MESSAGE_BYTES_MAX].fill(b'l');
                Outcome::Reply(MESSAGE_BYTES_MAX)
            }
            _ => Outcome::Drop,
        }
    }

    fn hand_over(&mut self, open: Vec<u8>, reply_to: Option<Box<dyn ReplyTo>>) {
        let _ = self.handed.send((open, reply_to));
    }
}

const MILLI: Duration = Duration::from_millis(1);
