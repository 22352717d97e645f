//! What a connection is at, and the stream that notes it: when a message began, whether all is written, how long
//! nothing has happened.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::limits::{TCP_IDLE, TCP_MESSAGE_DEADLINE};
use crate::listen::gathered::Gathered;

/// Longest time without any reply while a question is under way. Each question has a deadline of its own, far below
/// (30 s at most): this one only sees to it that no mistake elsewhere keeps a connection for ever.
pub(super) const UNDER_WAY_MAX: Duration = Duration::from_secs(60);

/// What a connection is at.
pub(super) struct Pace {
    /// Nothing is read for the time being.
    pub(super) reading_rests: bool,
    /// Since when a message is read that is not whole.
    pub(super) read_began: Option<Instant>,
    /// Since when replies wait for the client to read.
    pub(super) write_began: Option<Instant>,
    /// No reply waits to be written: known when hickory has turned to reading.
    pub(super) all_written: bool,
    /// When something last came to its end: a message read or written, a question answered.
    pub(super) last_event: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            reading_rests: false,
            read_began: None,
            write_began: None,
            all_written: true,
            last_event: Instant::now(),
        }
    }
}

impl Pace {
    /// When the connection is closed if nothing happens.
    pub(super) fn deadline(&self, under_way: usize) -> Instant {
        match (self.write_began, self.read_began) {
            (Some(began), _) | (None, Some(began)) => began + TCP_MESSAGE_DEADLINE,
            (None, None) if under_way == 0 => self.last_event + TCP_IDLE,
            (None, None) => self.last_event + UNDER_WAY_MAX,
        }
    }

    pub(super) fn on_read_whole(&mut self) {
        self.read_began = None;
        self.last_event = Instant::now();
    }

    /// A write that waited is out.
    fn on_written(&mut self) {
        let now = Instant::now();
        if self.read_began.is_some() {
            self.read_began = Some(now);
        }
        (self.write_began, self.last_event) = (None, now);
    }
}

#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Pace>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Pace> {
        // One task holds it, for a moment, and nothing panics there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that notes what hickory's framing does on it.
pub(super) struct Paced<IO> {
    pub(super) stream: Gathered<IO>,
    pub(super) pace: Shared,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Paced<IO> {
    /// Notes how far writing is, after each step that may write.
    fn note_writes(&self) {
        let mut pace = self.pace.lock();
        if self.stream.waits() {
            pace.write_began.get_or_insert_with(Instant::now);
        } else if pace.write_began.is_some() {
            pace.on_written();
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Paced<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // What ends the rest is an event of the same task, which polls again after each.
        let rests = self.pace.lock().reading_rests;
        let before = buf.filled().len();
        let polled =
            if rests { self.stream.poll_end_turn(cx) } else { Pin::new(&mut self.stream).poll_read(cx, buf) };
        self.note_writes();
        let mut pace = self.pace.lock();
        pace.all_written = self.stream.all_written();
        if buf.filled().len() > before {
            pace.read_began.get_or_insert_with(Instant::now);
        }
        polled
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_writes();
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_writes();
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
