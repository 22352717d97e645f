//! A stream that reads ahead and gathers what is written, below a framing that does one message at a time.
//!
//! hickory-net's framing asks for a length, then for a message, and writes and flushes each reply before it reads on.
//! Over a [`Gathered`] stream one read is many questions, and the replies to all that is at hand leave together: when
//! nothing more can be read, when they are [`TCP_WRITE_BYTES`], at the end of a turn, or at the end of the stream.
//!
//! - A turn ends after [`TCP_TURN_MAX`] messages: the task is woken again, behind those that wait.
//! - While the client lets a write wait, nothing is read and nothing more is gathered.
//! - Held: less than [`TCP_READ_BYTES`] read ahead, and less than [`TCP_WRITE_BYTES`] and one message to write. A
//!   stream with nothing at hand holds no memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::{TCP_READ_BYTES, TCP_TURN_MAX, TCP_WRITE_BYTES};

/// See above. A flush of it does nothing: [`poll_read`](AsyncRead::poll_read), which comes after, writes.
pub struct Gathered<IO> {
    stream: IO,
    ahead: Box<[u8]>,
    /// Of `ahead`, what is not handed on: `from <= to <= ahead.len()`.
    from: usize,
    to: usize,
    gathered: Vec<u8>,
    /// Of `gathered`, what is written: `written <= gathered.len()`.
    written: usize,
    /// A write waits for the client.
    waits: bool,
    /// Reads that this turn had.
    reads: usize,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Gathered<IO> {
    /// Over `stream`.
    pub fn new(stream: IO) -> Self {
        let (ahead, gathered) = (Box::default(), Vec::new());
        Self { stream, ahead, from: 0, to: 0, gathered, written: 0, waits: false, reads: 0 }
    }

    /// Is all written?
    pub fn all_written(&self) -> bool {
        self.gathered.is_empty()
    }

    /// Does a write wait for the client to read?
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Writes all that was gathered.
    pub fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waits = false;
        if self.gathered.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut stream = Pin::new(&mut self.stream);
        while let Some(rest @ [_, ..]) = self.gathered.get(self.written..) {
            match stream.as_mut().poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(bytes) => self.written += bytes?,
                Poll::Pending => {
                    self.waits = true;
                    return Poll::Pending;
                }
            }
        }
        self.waits = true;
        ready!(stream.poll_flush(cx))?;
        self.waits = false;
        self.gathered.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// The end of a turn: what was gathered goes out. Pending, or what is wrong.
    pub fn poll_end_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reads = 0;
        if let Poll::Ready(written) = self.poll_write_out(cx) {
            if let Err(error) = written {
                return Poll::Ready(Err(error));
            }
            self.gathered = Vec::new();
        }
        if self.from == self.to {
            self.ahead = Box::default();
            (self.from, self.to) = (0, 0);
        }
        Poll::Pending
    }

    fn make_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waits || self.gathered.len() >= TCP_WRITE_BYTES {
            self.poll_write_out(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.reads >= TCP_TURN_MAX * READS_A_MESSAGE {
            cx.waker().wake_by_ref();
            return this.poll_end_turn(cx);
        }
        this.reads += 1;
        ready!(this.make_room(cx))?;
        if buf.remaining() == 0 {
            // An empty message, which ends the connection: what is before it has its replies.
            return this.poll_write_out(cx);
        }
        if this.from == this.to {
            if this.ahead.is_empty() {
                this.ahead = vec![0; TCP_READ_BYTES].into_boxed_slice();
            }
            let mut room = ReadBuf::new(&mut this.ahead);
            let polled = Pin::new(&mut this.stream).poll_read(cx, &mut room);
            (this.from, this.to) = (0, room.filled().len());
            if polled.is_pending() {
                return this.poll_end_turn(cx);
            }
            ready!(polled)?;
            if this.to == 0 {
                // The end, perhaps within a message.
                return this.poll_write_out(cx);
            }
        }
        let bytes = buf.remaining().min(this.to - this.from);
        buf.put_slice(&this.ahead[this.from..this.from + bytes]);
        this.from += bytes;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.make_room(cx))?;
        self.gathered.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.make_room(cx))?;
        bufs.iter().for_each(|buf| self.gathered.extend_from_slice(buf));
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Its length and its bytes.
const READS_A_MESSAGE: usize = 2;
