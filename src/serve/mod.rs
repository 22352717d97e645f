//! The checklist of a query.

pub mod admit;
pub mod local;

use std::net::IpAddr;

use crate::clock::Moment;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Over UDP.
    Udp,
    /// Over TCP.
    Tcp,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address that it asked from, an IPv4-mapped one as IPv4.
    pub address: IpAddr,
    /// How it asked.
    pub transport: Transport,
}

/// What becomes of a packet.
pub enum Outcome<O> {
    /// This many bytes of `out` are the reply.
    Reply(usize),
    /// The reply goes out, and behind it a stale name is asked again.
    ReplyAndOpen(usize, O),
    /// Nothing is sent.
    Drop,
    /// The question is still open: hand it over with the way back.
    Open(O),
}

/// The way back to a client. Sent at most once; dropped unsent, the client gets nothing.
pub trait ReplyTo: Send {
    /// Sends the reply. Never waits; a reply that cannot be sent is lost.
    fn send(self: Box<Self>, reply: &[u8]);
}

/// What a listener needs of the layers above it: one value for each UDP worker and each TCP connection.
///
/// `serve` is a plain function: it neither waits nor blocks.
pub trait Service: Send + 'static {
    /// A question that is still open.
    type Open: Send;

    /// Called once before the packets of a batch: picks up a policy that was swapped.
    fn begin_batch(&mut self);

    /// Answers `packet`. `out` holds at least 65,535 bytes for TCP and 1,232 for UDP.
    fn serve(&mut self, packet: &[u8], client: Client, out: &mut [u8], now: Moment) -> Outcome<Self::Open>;

    /// Takes an open question, never waiting: where the queue is full it answers by itself, at once. `reply_to` is
    /// `None` where the client has been answered.
    fn hand_over(&mut self, open: Self::Open, reply_to: Option<Box<dyn ReplyTo>>);
}
