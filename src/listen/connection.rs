//! One TCP connection: questions in, replies out, each when it is ready (RFC 7766 §6.2.1.1, §7).
//!
//! Framing (RFC 1035 §4.2.2) is hickory-net's `TcpStream`. It bounds nothing by itself, so it reads and writes through
//! a [`Paced`] stream that sees when a message begins and when all is written, and that can hold reading back; below
//! that is a [`Gathered`] one, which makes a pipeline of hits cost a read and a write for many questions. With that:
//!
//! - A connection that asks without end yields to others ([`super::gathered`]: a turn).
//! - At most [`TCP_PIPELINE_MAX`] questions are under way; reading pauses there. Nothing is read either while the
//!   client lets a write wait, so that one that does not read costs what is gathered and what is under way.
//! - A message that has begun is read whole within [`TCP_MESSAGE_DEADLINE`], replies written within the same, else
//!   the connection is closed. The time that a client does not read does not count against what it writes.
//! - Without a question under way it is closed after [`TCP_IDLE`]; with one, after [`UNDER_WAY_MAX`] without a reply.
//! - An empty message, or bytes that end within one, close it. A client that has ended its side gets its replies.
//! - At the end of the process, what is under way is answered and nothing more is read.

mod pace;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, MutexGuard};
use std::task::Poll;

use futures_util::StreamExt;
use hickory_net::proto::op::SerialMessage;
use hickory_net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_net::tcp::TcpStream;
use hickory_net::{BufDnsStreamHandle, DnsStreamHandle};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::pace::{Pace, Paced, Shared};
use super::gathered::Gathered;
use super::seats::Seat;
use crate::clock;
use crate::limits::{MESSAGE_BYTES_MAX, TCP_IDLE, TCP_PIPELINE_MAX};
use crate::serve::{Client, Gathering, Outcome, Prepared, ReplyTo, Service, Transport};

/// Serves `stream` until it ends, by the client's will, a deadline, or since `ending` turned true.
pub async fn converse<IO, S>(stream: IO, peer: SocketAddr, service: S, seat: Seat, mut ending: watch::Receiver<bool>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    S: Service,
{
    let pace = Shared::default();
    let paced = AsyncIoTokioAsStd(Paced { stream: Gathered::new(stream), pace: pace.clone() });
    let (mut frames, writer) = TcpStream::from_stream_with_buffer_size(paced, peer, TCP_PIPELINE_MAX);
    let (reply_to, mut replies) = mpsc::channel(TCP_PIPELINE_MAX);
    let mut talk = Talk { service, peer, writer, reply_to, under_way: 0, closing: false, pace: pace.clone() };
    let mut timer = pin!(sleep_until(Instant::now() + TCP_IDLE));
    let mut ended = pin!(async move {
        // A sender that is gone is an end as well.
        let _ = ending.wait_for(|&ending| ending).await;
    });
    loop {
        let (under_way, closing) = (talk.under_way, talk.closing);
        let event = poll_fn(|cx| {
            if let Poll::Ready(Some(reply)) = replies.poll_recv(cx) {
                return Poll::Ready(Event::Answered(reply));
            }
            match frames.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => return Poll::Ready(Event::Asked(message.into_parts().0)),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Event::Over),
                Poll::Ready(None) => return Poll::Ready(Event::Closing),
                Poll::Pending => {}
            }
            if !closing && ended.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Closing);
            }
            let (idle, deadline) = {
                let pace = pace.lock();
                (under_way == 0 && pace.all_written, pace.deadline(under_way))
            };
            if idle && closing {
                return Poll::Ready(Event::Over);
            }
            if idle {
                seat.idle()
            } else {
                seat.busy()
            }
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            timer.as_mut().poll(cx).map(|()| Event::Over)
        })
        .await;
        let goes_on = match event {
            Event::Answered(reply) => talk.on_answered(reply),
            Event::Asked(question) => talk.on_asked(&question),
            Event::Closing => {
                talk.on_closing();
                true
            }
            Event::Over => false,
        };
        if !goes_on {
            return;
        }
    }
}

enum Event {
    /// A question under way has its reply, or never will have one.
    Answered(Option<Vec<u8>>),
    /// A whole message came.
    Asked(Vec<u8>),
    /// Nothing more is read.
    Closing,
    /// The stream is broken, finished or late.
    Over,
}

struct Talk<S> {
    service: S,
    peer: SocketAddr,
    writer: BufDnsStreamHandle,
    /// Each question under way sends exactly one message by this: there is always room.
    reply_to: mpsc::Sender<Option<Vec<u8>>>,
    /// At most [`TCP_PIPELINE_MAX`].
    under_way: usize,
    closing: bool,
    pace: Shared,
}

impl<S: Service> Talk<S> {
    /// Says whether the connection goes on.
    fn on_answered(&mut self, reply: Option<Vec<u8>>) -> bool {
        self.under_way -= 1;
        self.pace().last_event = Instant::now();
        self.pace_reading();
        reply.is_none_or(|reply| self.write(reply))
    }

    fn on_asked(&mut self, question: &[u8]) -> bool {
        self.pace().on_read_whole();
        self.service.begin_batch();
        let client = Client { address: self.peer.ip().to_canonical(), transport: Transport::Tcp };
        // One room for replies a thread: `serve` does not wait, so it is never wanted twice.
        let (outcome, reply) = ROOM.with_borrow_mut(|room| {
            let outcome = self.service.serve(question, Prepared::default(), client, room, clock::now());
            let reply = match outcome {
                Outcome::Reply(bytes) | Outcome::ReplyAndOpen(bytes, _) => room.get(..bytes).map(<[u8]>::to_vec),
                Outcome::Drop | Outcome::Open(_) => None,
            };
            (outcome, reply)
        });
        if !reply.is_none_or(|reply| self.write(reply)) {
            return false;
        }
        match outcome {
            Outcome::Reply(_) | Outcome::Drop => {}
            Outcome::ReplyAndOpen(_, open) => self.service.hand_over(open, None),
            Outcome::Open(open) => {
                self.under_way += 1;
                self.pace_reading();
                let way_back = WayBack { to: Some(self.reply_to.clone()) };
                self.service.hand_over(open, Some(Box::new(way_back)));
            }
        }
        true
    }

    fn on_closing(&mut self) {
        self.closing = true;
        self.pace_reading();
        // What is read by half is not read on; that is not the client's delay.
        self.pace().read_began = None;
    }

    fn write(&mut self, reply: Vec<u8>) -> bool {
        // A longer one would be framed with a wrong length.
        if reply.is_empty() || reply.len() > MESSAGE_BYTES_MAX {
            return true;
        }
        self.pace().all_written = false;
        self.writer.send(SerialMessage::new(reply, self.peer)).is_ok()
    }

    fn pace_reading(&self) {
        self.pace().reading_rests = self.closing || self.under_way >= TCP_PIPELINE_MAX;
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock()
    }
}

/// The way back of one question under way. It sends exactly one message, `None` if it is dropped unsent.
struct WayBack {
    to: Option<mpsc::Sender<Option<Vec<u8>>>>,
}

impl ReplyTo for WayBack {
    fn send(mut self: Box<Self>, reply: &[u8]) -> Option<Arc<dyn Gathering>> {
        if let Some(to) = self.to.take() {
            // It fails where the connection is over, alone.
            let _ = to.try_send(Some(reply.to_vec()));
        }
        // Replies gather at the stream by themselves.
        None
    }
}

impl Drop for WayBack {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let _ = to.try_send(None);
        }
    }
}

thread_local! {
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; MESSAGE_BYTES_MAX].into_boxed_slice());
}

#[cfg(test)]
mod tests;
