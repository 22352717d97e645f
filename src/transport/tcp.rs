//! The connection that questions to one server share.
//!
//! hickory-net frames the messages; ids and questions are ours ([`super::table`]), since its own multiplexer looks at
//! the id alone and drops what it cannot decode. Questions are pipelined (RFC 7766 §6.2.1.1).
//!
//! A task reads and writes; it ends, and with it the connection, when
//!
//! - the server closes, resets, or cuts a message; a message of length 0 counts as that,
//! - nothing was asked for [`TCP_IDLE`] (RFC 7766 §6.2.3),
//! - what was written stays unacknowledged, or cannot be written, for [`TCP_MESSAGE_DEADLINE`] (TCP_USER_TIMEOUT),
//! - its [`Connection`] is dropped.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use hickory_net::proto::op::SerialMessage;
use hickory_net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_net::tcp::TcpStream as Framed;
use hickory_net::xfer::{BufDnsStreamHandle, DnsStreamHandle};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::table::{Carrier, Outcome, Settled, Table, UNDER_WAY_MAX, Use};
use super::{Asked, Failure};
use crate::clock;
use crate::limits::{TCP_IDLE, TCP_MESSAGE_DEADLINE};

type Waits = Table<oneshot::Sender<Outcome>>;

/// An open connection, as long as [`Connection::takes_questions`] says.
pub(super) struct Connection {
    address: SocketAddr,
    outgoing: Mutex<BufDnsStreamHandle>,
    table: Arc<Mutex<Waits>>,
    carrier: AbortHandle,
}

impl Connection {
    /// Connects; waits as long as the kernel does, so the deadline is the caller's.
    pub(super) async fn open(address: SocketAddr, source: Option<IpAddr>) -> Result<Self, Failure> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.set_nodelay(true)?;
        SockRef::from(&socket).set_tcp_user_timeout(Some(TCP_MESSAGE_DEADLINE))?;
        let stream = socket.connect(address).await?;
        let (framed, outgoing) =
            Framed::from_stream_with_buffer_size(AsyncIoTokioAsStd(stream), address, UNDER_WAY_MAX);
        let table = Arc::new(Mutex::new(Table::new(Carrier::Connection, clock::now())));
        let carrier = tokio::spawn(carry(framed, table.clone())).abort_handle();
        Ok(Self { address, outgoing: Mutex::new(outgoing), table, carrier })
    }

    /// May it be given another question?
    pub(super) fn takes_questions(&self) -> bool {
        locked(&self.table).is_open()
    }

    /// Asks and waits, for ever where nothing comes: the deadline is the caller's.
    pub(super) async fn ask(&self, asked: &Asked) -> Outcome {
        let (to, outcome) = oneshot::channel();
        let entered = locked(&self.table).enter(asked, to, rand::random, clock::now());
        let id = entered.map_err(|(failure, _)| failure)?;
        let _place = Place { table: &self.table, id };
        let message = SerialMessage::new(asked.with_id(id), self.address);
        if locked(&self.outgoing).send(message).is_err() {
            // Full, or gone together with the carrier; the handle's error does not tell which.
            return Err(if self.takes_questions() { Failure::Local } else { Failure::Closed });
        }
        outcome.await.unwrap_or(Err(Failure::Closed))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A question's place in the table, given back when its asker is done or dropped.
struct Place<'c> {
    table: &'c Mutex<Waits>,
    id: u16,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        locked(self.table).on_leave(self.id, clock::now);
    }
}

async fn carry(mut framed: Framed<AsyncIoTokioAsStd<TcpStream>>, table: Arc<Mutex<Waits>>) {
    let mut settled = Vec::new();
    loop {
        // Polling for messages is also what writes the questions that wait to be sent.
        let ended = match timeout(TCP_IDLE, framed.next()).await {
            Ok(Some(Ok(message))) => {
                let message = message.into_parts().0;
                locked(&table).on_message(message, clock::now(), &mut settled) == Use::Ends
            }
            Ok(Some(Err(_)) | None) => true,
            Err(_) => locked(&table).is_idle(TCP_IDLE, clock::now()),
        };
        tell(&mut settled);
        if ended {
            break;
        }
    }
    locked(&table).fail(Failure::Closed, &mut settled);
    tell(&mut settled);
}

/// Who has gone is not told.
fn tell(settled: &mut Settled<oneshot::Sender<Outcome>>) {
    settled.drain(..).for_each(|(to, outcome)| drop(to.send(outcome)));
}

/// No holder of these locks can panic half-way through a change, so a poisoned one is whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::super::testing::{asked, elapsed, reply_to, soon};
    use super::super::{Endpoint, Failure};
    use super::*;

    #[tokio::test]
    async fn pipelined_questions_are_answered_out_of_order_on_one_connection() {
        let server = Server::new(async |mut stream, _| {
            let mut queries = Vec::new();
            for _ in 0..20 {
                queries.push(read(&mut stream).await.unwrap());
            }
            for query in queries.iter().rev() {
                write(&mut stream, &reply_to(query, &[])).await;
            }
            let _ = read(&mut stream).await;
        })
        .await;
        let endpoint = &server.endpoint;
        let questions: Vec<_> = (1..=20).map(asked).collect();
        let replies = futures_util::future::join_all(questions.iter().map(|q| endpoint.ask_tcp(q, soon()))).await;
        for (question, reply) in questions.iter().zip(replies) {
            let bytes = reply.unwrap().bytes;
            assert_eq!(bytes[bytes.len() - 3], question.qtype as u8);
        }
        assert_eq!(server.connections(), 1);
    }

    #[tokio::test]
    async fn a_wrong_question_under_the_right_id_is_ignored() {
        let server = Server::new(async |mut stream, _| {
            while let Some(query) = read(&mut stream).await {
                let right = reply_to(&query, &[]);
                let mut wrong = right.clone();
                wrong[13] ^= 1;
                write(&mut stream, &wrong).await;
                write(&mut stream, &right).await;
            }
        })
        .await;
        let reply = server.endpoint.ask_tcp(&asked(1), soon()).await.unwrap();
        assert_eq!((reply.mismatches, reply.over_tcp), (1, true));
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_is_opened_again() {
        let server = Server::new(async |mut stream, _| {
            let query = read(&mut stream).await.unwrap();
            write(&mut stream, &reply_to(&query, &[])).await;
        })
        .await;
        for _ in 0..3 {
            assert!(server.endpoint.ask_tcp(&asked(1), soon()).await.is_ok());
        }
        assert_eq!(server.connections(), 3);
    }

    #[tokio::test]
    async fn a_connection_that_closes_on_the_question_is_opened_again_once() {
        // The first answers and then closes on the second question; those behind it close at once.
        let server = Server::new(async |mut stream, n| {
            if n == 0 {
                let query = read(&mut stream).await.unwrap();
                write(&mut stream, &reply_to(&query, &[])).await;
            }
            let _ = read(&mut stream).await;
        })
        .await;
        assert!(server.endpoint.ask_tcp(&asked(1), soon()).await.is_ok());
        assert_eq!(server.endpoint.ask_tcp(&asked(1), soon()).await, Err(Failure::Closed));
        assert_eq!(server.connections(), 2);
    }

    #[tokio::test]
    async fn a_reply_that_is_cut_and_a_message_of_length_0_are_a_closed_connection() {
        for (what, bytes) in
            [("cut in its length", &[1][..]), ("cut in its body", &[0, 40, 1, 2, 3]), ("length 0", &[0, 0])]
        {
            let server = Server::new(async move |mut stream, _| {
                let _ = read(&mut stream).await;
                let _ = stream.write_all(bytes).await;
            })
            .await;
            assert_eq!(server.endpoint.ask_tcp(&asked(1), soon()).await, Err(Failure::Closed), "{what}");
        }
    }

    #[tokio::test]
    async fn a_reply_of_64_kib_comes_whole() {
        let server = Server::new(async |mut stream, _| {
            let query = read(&mut stream).await.unwrap();
            let mut reply = reply_to(&query, &[]);
            reply.resize(65_535, 0xab);
            write(&mut stream, &reply).await;
            let _ = read(&mut stream).await;
        })
        .await;
        let reply = server.endpoint.ask_tcp(&asked(1), soon()).await.unwrap();
        assert_eq!((reply.bytes.len(), reply.bytes[65_534]), (65_535, 0xab));
    }

    #[tokio::test]
    async fn silence_lasts_until_the_deadline_and_the_connection_stays() {
        let server = Server::new(async |mut stream, _| {
            let _unanswered = read(&mut stream).await.unwrap();
            let query = read(&mut stream).await.unwrap();
            write(&mut stream, &reply_to(&query, &[])).await;
            let _ = read(&mut stream).await;
        })
        .await;
        let short = Instant::now() + Duration::from_millis(60);
        let (outcome, took) = elapsed(server.endpoint.ask_tcp(&asked(1), short)).await;
        assert_eq!(outcome, Err(Failure::TimedOut));
        assert!(took >= Duration::from_millis(60), "{took:?}");
        assert!(server.endpoint.ask_tcp(&asked(28), soon()).await.is_ok());
        assert_eq!(server.connections(), 1);
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_and_one_that_opens_later_answers() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = Endpoint::new(gone, None);
        assert_eq!(endpoint.ask_tcp(&asked(1), soon()).await, Err(Failure::Refused));
        let opened = TcpListener::bind(gone).await.unwrap();
        let question = asked(1);
        let (reply, ()) = tokio::join!(endpoint.ask_tcp(&question, soon()), async {
            let mut stream = opened.accept().await.unwrap().0;
            let query = read(&mut stream).await.unwrap();
            write(&mut stream, &reply_to(&query, &[])).await;
        });
        assert!(reply.is_ok());
    }

    #[tokio::test]
    async fn an_address_that_answers_no_handshake_is_given_up_at_the_deadline() {
        // A listener whose backlog is full does not answer further handshakes.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(0).unwrap();
        let address = full.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        let endpoint = Endpoint::new(address, None);
        let _second = timeout(Duration::from_millis(50), TcpStream::connect(address)).await;
        let short = Instant::now() + Duration::from_millis(60);
        assert_eq!(endpoint.ask_tcp(&asked(1), short).await, Err(Failure::TimedOut));
    }

    #[tokio::test]
    async fn a_dropped_endpoint_closes_its_connection() {
        let (closed, seen) = tokio::sync::oneshot::channel();
        let closed = Mutex::new(Some(closed));
        let Server { endpoint, .. } = Server::new(move |mut stream, _| {
            let closed = locked(&closed).take();
            async move {
                let query = read(&mut stream).await.unwrap();
                write(&mut stream, &reply_to(&query, &[])).await;
                assert_eq!(read(&mut stream).await, None);
                let _ = closed.map(|c| c.send(()));
            }
        })
        .await;
        assert!(endpoint.ask_tcp(&asked(1), soon()).await.is_ok());
        drop(endpoint);
        assert!(timeout(Duration::from_secs(5), seen).await.unwrap().is_ok());
    }

    /// Hands each connection, with its number, to `serve`; one after the other.
    struct Server {
        endpoint: Endpoint,
        connections: Arc<AtomicUsize>,
    }

    impl Server {
        async fn new<F, W>(serve: F) -> Self
        where
            F: Fn(TcpStream, usize) -> W + Send + 'static,
            W: Future<Output = ()> + Send + 'static,
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = Endpoint::new(listener.local_addr().unwrap(), None);
            let connections = Arc::new(AtomicUsize::new(0));
            let count = connections.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    serve(stream, count.fetch_add(1, Ordering::SeqCst)).await;
                }
            });
            Self { endpoint, connections }
        }

        fn connections(&self) -> usize {
            self.connections.load(Ordering::SeqCst)
        }
    }

    async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
        let length = stream.read_u16().await.ok()?;
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await.ok()?;
        Some(message)
    }

    async fn write(stream: &mut TcpStream, message: &[u8]) {
        let framed = [&(message.len() as u16).to_be_bytes()[..], message].concat();
        stream.write_all(&framed).await.unwrap();
    }
}
