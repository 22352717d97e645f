//! The query log: what clients asked and got, sampled, to a file, the journal, or a dnstap collector. Off by default.
//!
//! Whoever answers a question asks [`QueryLog::takes`], which costs one load where the log is off, and hands over what
//! it takes ([`QueryLog::offer`]). From there a bounded queue leads to a thread that writes. Nobody waits for it: what
//! does not fit into the queue is dropped and counted, and so is what cannot be written at the time.
//!
//! | file | what it owns |
//! |---|---|
//! | [`mod@line`] | the form of a line of JSON; pure |
//! | [`dnstap`] | dnstap's messages and frames; pure |
//! | `writer` | the thread: it takes from the queue, and holds on to one place until another is configured |
//! | `place` | the places: file, journal, collector |
//!
//! Only what clients see is logged, once for each question; what evenkeel asks itself is not. It names names and
//! addresses, as no other output of evenkeel does: files have the mode 0640, and `query_log.client_prefix` cuts
//! addresses.

pub mod dnstap;
pub mod line;
mod place;
mod writer;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;

use super::metrics::Source;
use crate::clock;
use crate::serve::Transport;
use crate::serve::local::HEALTH_NAME;
use crate::wire::{Name, query};

/// Questions that wait to be written.
const QUEUED_MAX: usize = 4096;
/// Bytes of a message that are carried: the queue's memory is bounded by them. A longer one is logged without it.
const MESSAGE_BYTES_MAX: usize = 4096;
/// At the end what is queued is written within this time.
const ENDING: Duration = Duration::from_secs(1);

/// Where the log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum To {
    /// Nowhere: it is off.
    #[default]
    Nowhere,
    /// Lines of JSON behind what a file has.
    File(PathBuf),
    /// Lines of JSON to journald.
    Journal,
    /// Frame streams to the unix socket of a dnstap collector.
    Dnstap(PathBuf),
}

/// The settings.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryLogSettings {
    /// Where to.
    pub to: To,
    /// Which share of the questions, 0 to 1.
    pub sample: f64,
    /// Bits of an IPv4 and of an IPv6 client address that are kept.
    pub client_prefix: [u8; 2],
}

/// What is known of a question that has been answered, or dropped.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Who asked.
    pub client: IpAddr,
    /// How.
    pub transport: Transport,
    /// The query, as it came.
    pub query: &'a [u8],
    /// The reply, as it goes out; empty where none does.
    pub reply: &'a [u8],
    /// Where the answer came from.
    pub source: Source,
    /// The response code, with its upper bits.
    pub rcode: u16,
    /// From question to answer.
    pub took: Duration,
}

/// The same, on its way to the writer.
#[derive(Debug)]
struct Record {
    /// Since 1970, when it was answered.
    time: Duration,
    client: IpAddr,
    transport: Transport,
    query: Box<[u8]>,
    reply: Box<[u8]>,
    reply_bytes: usize,
    source: Source,
    rcode: u16,
    took: Duration,
}

/// What the log has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueryLogStatus {
    /// Questions that were written.
    pub written: u64,
    /// Dropped since the queue was full.
    pub dropped_full: u64,
    /// Dropped since the place could not be written.
    pub dropped_away: u64,
}

/// The way into the log, for everybody who answers.
#[derive(Default)]
pub struct QueryLog {
    /// A draw below this is taken; 0 is off.
    threshold: AtomicU32,
    queue: RwLock<Option<SyncSender<Queued>>>,
    shared: Arc<Shared>,
    /// How often settings were applied.
    turns: AtomicU64,
    /// Tells that the writer has ended.
    ended: Mutex<Option<mpsc::Receiver<()>>>,
}

enum Queued {
    Record(Box<Record>),
    /// What comes behind is to be written by these.
    Settings(Applied),
}

/// Settings, and which ones they are: of two the later ones hold, whichever way they come.
struct Applied {
    turn: u64,
    settings: Box<QueryLogSettings>,
}

/// What the writer shares with those who answer.
#[derive(Default)]
struct Shared {
    /// Settings that found the queue full: they hold at once.
    urgent: Mutex<Option<Applied>>,
    is_urgent: AtomicBool,
    /// Records in the queue.
    queued: AtomicUsize,
    written: AtomicU64,
    full: AtomicU64,
    away: AtomicU64,
}

impl QueryLog {
    /// Puts settings in force: the first that lead somewhere start the writer, which opens the place at once, a file
    /// anew. What is queued goes where it was to go; where the queue is full, to the new place.
    pub fn apply(&self, settings: &QueryLogSettings) {
        let is_on = settings.to != To::Nowhere;
        let mut queue = self.queue.write().unwrap_or_else(PoisonError::into_inner);
        if is_on && queue.is_none() {
            let (sender, receiver) = mpsc::sync_channel(QUEUED_MAX);
            let (ending, ended) = mpsc::channel();
            if writer::start(receiver, self.shared.clone(), ending).is_ok() {
                *queue = Some(sender);
                *lock(&self.ended) = Some(ended);
            }
        }
        let turn = self.turns.fetch_add(1, Relaxed) + 1;
        let applied = Queued::Settings(Applied { turn, settings: Box::new(settings.clone()) });
        if let Some(Err(TrySendError::Full(Queued::Settings(missed)))) = queue.as_ref().map(|q| q.try_send(applied)) {
            *lock(&self.shared.urgent) = Some(missed);
            self.shared.is_urgent.store(true, Relaxed);
        }
        let share = if is_on && queue.is_some() { settings.sample.clamp(0.0, 1.0) } else { 0.0 };
        self.threshold.store((share * f64::from(u32::MAX)) as u32, Relaxed);
    }

    /// Is anything taken at all?
    #[inline]
    pub fn is_on(&self) -> bool {
        self.threshold.load(Relaxed) != 0
    }

    /// Is the question of this draw, any number, taken?
    #[inline]
    pub fn takes(&self, draw: u32) -> bool {
        // A share of 1 takes the highest draw too.
        let threshold = self.threshold.load(Relaxed);
        threshold != 0 && draw <= threshold
    }

    /// Queues a question, unless it is one that evenkeel asks itself. Never waits.
    pub fn offer(&self, answered: &Answered<'_>) {
        if answered.client.is_loopback() && asks_for_health(answered.query) {
            return;
        }
        // Before anything is copied: a place that is blocked is to cost least.
        if self.shared.queued.fetch_add(1, Relaxed) >= QUEUED_MAX {
            self.shared.queued.fetch_sub(1, Relaxed);
            self.shared.full.fetch_add(1, Relaxed);
            return;
        }
        let carried = |message: &[u8]| -> Box<[u8]> {
            if message.len() <= MESSAGE_BYTES_MAX { message.into() } else { [].into() }
        };
        let record = Record {
            time: Duration::from_millis(clock::wall_millis()),
            client: answered.client,
            transport: answered.transport,
            query: carried(answered.query),
            reply: carried(answered.reply),
            reply_bytes: answered.reply.len(),
            source: answered.source,
            rcode: answered.rcode,
            took: answered.took,
        };
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        match queue.as_ref().map(|queue| queue.try_send(Queued::Record(Box::new(record)))) {
            Some(Ok(())) => {}
            sent => {
                self.shared.queued.fetch_sub(1, Relaxed);
                self.shared.full.fetch_add(u64::from(matches!(sent, Some(Err(TrySendError::Full(_))))), Relaxed);
            }
        }
    }

    /// What it has done so far.
    pub fn status(&self) -> QueryLogStatus {
        QueryLogStatus {
            written: self.shared.written.load(Relaxed),
            dropped_full: self.shared.full.load(Relaxed),
            dropped_away: self.shared.away.load(Relaxed),
        }
    }

    /// Takes nothing more, and waits until what is queued is written, for at most a second.
    pub fn finish(&self) {
        self.threshold.store(0, Relaxed);
        drop(self.queue.write().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(ended) = lock(&self.ended).take() {
            let _ = ended.recv_timeout(ENDING);
        }
    }
}

/// Is it the question of `/healthz` and the watchdog? No client's, and many on a quiet node.
fn asks_for_health(packet: &[u8]) -> bool {
    static NAME: LazyLock<Option<Name>> = LazyLock::new(|| HEALTH_NAME.parse().ok());
    let name = NAME.as_ref().map(Name::as_wire);
    query::check(packet).is_ok_and(|query| Some(query.name()) == name)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
