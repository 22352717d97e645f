//! What is counted, and `/metrics`.
//!
//! Queries are counted in blocks of plain atomics ([`Tally`]): each UDP worker has a block that it alone writes, by a
//! load and a store, and everyone else shares one. [`Tally::answered`] is the only door, so that the sum over
//! `evenkeel_queries_total` is the sum over `evenkeel_answers_total`, and neither allocates nor waits.
//!
//! At a scrape the blocks are summed up: `page` writes what is exported.

mod page;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use page::{Kind, METRICS, Metric};

use crate::serve::Transport;
use crate::wire::rcode;

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cache, within its TTL.
    Fresh,
    /// The cache, past its TTL.
    Stale,
    /// An upstream, for this question.
    Upstream,
    /// Local data.
    Local,
    /// Nowhere: SERVFAIL, be it remembered.
    Failed,
    /// It was refused: who asks, what is asked, or a bound of ours.
    Refused,
    /// Nothing was sent.
    Dropped,
}

impl Source {
    /// All of them.
    pub const ALL: [Source; 7] = [
        Source::Fresh,
        Source::Stale,
        Source::Upstream,
        Source::Local,
        Source::Failed,
        Source::Refused,
        Source::Dropped,
    ];

    /// Its word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Source::Fresh => "fresh",
            Source::Stale => "stale",
            Source::Upstream => "upstream",
            Source::Local => "local",
            Source::Failed => "failed",
            Source::Refused => "refused",
            Source::Dropped => "dropped",
        }
    }
}

/// RCODEs that have a label of their own. What is not among them is "other", and what was not sent is "none".
const RCODES: [u16; 8] = [
    rcode::NOERROR,
    rcode::NXDOMAIN,
    rcode::SERVFAIL,
    rcode::REFUSED,
    rcode::FORMERR,
    rcode::NOTIMP,
    rcode::BADVERS,
    rcode::YXDOMAIN,
];
const RCODE_LABELS: usize = RCODES.len() + 2;
const RCODE_OTHER: usize = RCODES.len();
const RCODE_NONE: usize = RCODES.len() + 1;

fn rcode_label(index: usize) -> &'static str {
    match index {
        RCODE_NONE => "none",
        RCODE_OTHER => "other",
        index => rcode::word(RCODES[index]),
    }
}

const TRANSPORTS: [Transport; 2] = [Transport::Udp, Transport::Tcp];

const fn transport_word(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    }
}

const fn transport_index(transport: Transport) -> usize {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
    }
}

/// Upper ends of the buckets of `evenkeel_answer_seconds`.
pub const ANSWER_BOUNDS: [Duration; 12] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(5),
];
/// Upper ends of the buckets of `evenkeel_stale_age_seconds`.
const STALE_BOUNDS: [Duration; 9] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
    Duration::from_secs(3600),
    Duration::from_secs(6 * 3600),
    Duration::from_secs(86_400),
    Duration::from_secs(3 * 86_400),
];

//------------ Counting ----------------------------------------------------------------------------------------------

/// All blocks of counters.
#[derive(Debug, Default)]
pub struct Meters {
    own: Mutex<Vec<Arc<Hot>>>,
    shared: Arc<Hot>,
}

impl Meters {
    /// A tally with a block of its own, for one thread. Blocks stay for good: counters never go back.
    pub fn own(&self) -> Tally {
        let block = Arc::<Hot>::default();
        self.blocks().push(Arc::clone(&block));
        Tally { block, alone: true }
    }

    /// A tally of the block that everyone may write.
    pub fn shared(&self) -> Tally {
        Tally { block: Arc::clone(&self.shared), alone: false }
    }

    /// The sums of all blocks, for the history.
    pub fn totals(&self) -> Totals {
        let blocks = self.blocks().clone();
        let mut totals = Totals::default();
        for block in blocks.iter().chain([&self.shared]) {
            for (sum, rcodes) in totals.answers.iter_mut().zip(&block.answers) {
                *sum += rcodes.iter().map(|n| n.load(Relaxed)).sum::<u64>();
            }
            for (n, sum) in totals.within.iter_mut().enumerate() {
                *sum += block.seconds.iter().map(|of| of.buckets[n].load(Relaxed)).sum::<u64>();
            }
            totals.stale_micros += block.stale_age.micros.load(Relaxed);
        }
        totals
    }

    fn blocks(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Hot>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was answered since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answers by [`Source`].
    pub answers: [u64; Source::ALL.len()],
    /// Answers by the first of [`ANSWER_BOUNDS`] within which they came; the last are those beyond all of them.
    pub within: [u64; ANSWER_BOUNDS.len() + 1],
    /// How far past their TTL stale answers were, in microseconds, summed.
    pub stale_micros: u64,
}

/// Counts what one thread, or everyone, answers.
#[derive(Debug)]
pub struct Tally {
    block: Arc<Hot>,
    /// Is this the only writer of the block?
    alone: bool,
}

/// One block of counters, away from the cache lines of others.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hot {
    queries: [AtomicU64; TRANSPORTS.len()],
    answers: [[AtomicU64; RCODE_LABELS]; Source::ALL.len()],
    seconds: [Histogram<{ ANSWER_BOUNDS.len() + 1 }>; Source::ALL.len()],
    stale_age: Histogram<{ STALE_BOUNDS.len() + 1 }>,
}

#[derive(Debug)]
struct Histogram<const N: usize> {
    buckets: [AtomicU64; N],
    micros: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), micros: AtomicU64::new(0) }
    }
}

impl Tally {
    /// Counts a query and what became of it. To be called once for each packet that came.
    ///
    /// `rcode` means nothing where it was dropped, and no time is noted for it.
    pub fn answered(&self, transport: Transport, source: Source, rcode: u16, took: Duration) {
        let index = match source {
            Source::Dropped => RCODE_NONE,
            _ => RCODES.iter().position(|r| *r == rcode).unwrap_or(RCODE_OTHER),
        };
        self.add(&self.block.queries[transport_index(transport)], 1);
        self.add(&self.block.answers[source as usize][index], 1);
        if source != Source::Dropped {
            self.note(&self.block.seconds[source as usize], &ANSWER_BOUNDS, took);
        }
    }

    /// Notes how far past its TTL an answer was that was served stale.
    pub fn stale(&self, age: Duration) {
        self.note(&self.block.stale_age, &STALE_BOUNDS, age);
    }

    fn note<const N: usize>(&self, histogram: &Histogram<N>, bounds: &[Duration], value: Duration) {
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.add(&histogram.buckets[bucket], 1);
        self.add(&histogram.micros, value.as_micros() as u64);
    }

    fn add(&self, counter: &AtomicU64, n: u64) {
        if self.alone {
            counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
        } else {
            counter.fetch_add(n, Relaxed);
        }
    }
}
