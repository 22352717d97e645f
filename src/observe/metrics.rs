//! What is counted, and `/metrics`.
//!
//! Queries are counted in blocks of plain atomics ([`Tally`]): each UDP worker has a block that it alone writes, by a
//! load and a store, and everyone else shares one. [`Tally::answered`] is the only door, so that the sum over
//! `evenkeel_queries_total` is the sum over `evenkeel_answers_total`, and neither allocates nor waits.
//!
//! At a scrape [`Meters::render`] sums the blocks, adds what a [`Snapshot`] says of the rest, and has
//! metrics-exporter-prometheus write it. Its recorder is made anew each time, so that servers and groups that a reload
//! took away are gone from the page too. Histograms are written here: the recorder's own keep every sample until they
//! are rendered. `METRICS` is the list of all there is.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::process::{self, Process};
use super::status::{SERVER_STATES, Snapshot};
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

//------------ Rendering ---------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric: name, kind, help.
const METRICS: &[(&str, Kind, &str)] = &[
    ("evenkeel_queries_total", Kind::Counter, "Queries that came"),
    ("evenkeel_answers_total", Kind::Counter, "What became of them, by where the answer came from"),
    ("evenkeel_answer_seconds", Kind::Histogram, "Time from a query to its answer"),
    ("evenkeel_stale_age_seconds", Kind::Histogram, "How far past their TTL stale answers were"),
    ("evenkeel_cache_bytes", Kind::Gauge, "Bytes of the cache in use"),
    ("evenkeel_cache_max_bytes", Kind::Gauge, "Bytes that the cache may use"),
    ("evenkeel_cache_entries", Kind::Gauge, "Entries of the cache"),
    ("evenkeel_cache_evictions_total", Kind::Counter, "Entries that went for lack of room"),
    (
        "evenkeel_snapshot_last_success_timestamp_seconds",
        Kind::Gauge,
        "When the snapshot was last written, or found to differ by less than 1 %, since 1970",
    ),
    ("evenkeel_snapshot_entries", Kind::Gauge, "Entries of the snapshot"),
    ("evenkeel_in_flight", Kind::Gauge, "Questions that are being pursued"),
    ("evenkeel_in_flight_max", Kind::Gauge, "Questions that may be pursued at once"),
    ("evenkeel_upstream_questions_total", Kind::Counter, "Questions sent to a server, by why"),
    ("evenkeel_upstream_failures_total", Kind::Counter, "Questions that a server failed, by how"),
    ("evenkeel_upstream_seconds", Kind::Gauge, "A server's latency as estimated"),
    ("evenkeel_upstream_state", Kind::Gauge, "1 for the state that a server is in"),
    ("evenkeel_tier_in_use", Kind::Gauge, "The tier in use, from 1; 0 is none"),
    ("evenkeel_tier_shifts_total", Kind::Counter, "Shifts to another tier, by why"),
    ("evenkeel_guard_names", Kind::Gauge, "Names whose last known good answers are held"),
    ("evenkeel_guard_held_total", Kind::Counter, "Holds of last known good answers that began"),
    ("evenkeel_frozen", Kind::Gauge, "Is a freeze in force?"),
    ("evenkeel_budget_denied_total", Kind::Counter, "Second questions that the budget denied"),
    ("evenkeel_bulkhead_rejected_total", Kind::Counter, "Questions that a bound refused"),
    ("evenkeel_canary_success", Kind::Gauge, "1 where a canary's last answer was as expected"),
    ("evenkeel_canary_seconds", Kind::Gauge, "How long it took"),
    ("evenkeel_config_last_reload_successful", Kind::Gauge, "1 where the last reload was taken"),
    (
        "evenkeel_config_last_reload_success_timestamp_seconds",
        Kind::Gauge,
        "When a configuration was last taken, since 1970",
    ),
    ("evenkeel_config_fallback", Kind::Gauge, "1 while the last accepted copy is used"),
    ("evenkeel_udp_receive_drops_total", Kind::Counter, "Datagrams that the kernel dropped before they were read"),
    ("evenkeel_tcp_connections", Kind::Gauge, "Open TCP connections of clients"),
    ("evenkeel_log_dropped_total", Kind::Counter, "Log lines that were dropped"),
    ("evenkeel_build_info", Kind::Gauge, "1, with the version"),
    ("process_cpu_seconds_total", Kind::Counter, "Processor time, of user and system"),
    ("process_resident_memory_bytes", Kind::Gauge, "Bytes in memory"),
    ("process_virtual_memory_bytes", Kind::Gauge, "Bytes of address space"),
    ("process_open_fds", Kind::Gauge, "Open file descriptors"),
    ("process_max_fds", Kind::Gauge, "Open file descriptors that there may be"),
    ("process_threads", Kind::Gauge, "Threads"),
    ("process_start_time_seconds", Kind::Gauge, "Start, since 1970"),
];

impl Meters {
    /// The text of `/metrics`.
    pub fn render(&self, snapshot: &Snapshot) -> String {
        let page = Page::new();
        let blocks = self.blocks().clone();
        let sum = |of: &dyn Fn(&Hot) -> &AtomicU64| -> u64 {
            blocks.iter().chain([&self.shared]).map(|block| of(block).load(Relaxed)).sum()
        };

        for (index, transport) in TRANSPORTS.into_iter().enumerate() {
            let labels = [("transport", transport_word(transport))];
            page.counter("evenkeel_queries_total", &labels, sum(&|b| &b.queries[index]));
        }
        for source in Source::ALL {
            for index in 0..RCODE_LABELS {
                let count = sum(&|b| &b.answers[source as usize][index]);
                // One series of each source is always there, so that a rate can be taken of it; the others appear
                // with their first answer.
                let first = if source == Source::Dropped { RCODE_NONE } else { 0 };
                if count > 0 || index == first {
                    let labels = [("source", source.word()), ("rcode", rcode_label(index))];
                    page.counter("evenkeel_answers_total", &labels, count);
                }
            }
        }
        page.snapshot(snapshot);
        let kernel = process::read();
        page.process(&kernel, snapshot.started_unix);

        let mut text = page.recorder.handle().render();
        // The recorder's counters are whole numbers, and this one is not.
        write_head(&mut text, "process_cpu_seconds_total", "counter");
        let _ = writeln!(text, "process_cpu_seconds_total {}\n", kernel.cpu_seconds);
        let answering = Source::ALL.into_iter().filter(|source| *source != Source::Dropped);
        let series = answering.map(|source| {
            let buckets = (0..=ANSWER_BOUNDS.len()).map(|n| sum(&|b| &b.seconds[source as usize].buckets[n]));
            let micros = sum(&|b| &b.seconds[source as usize].micros);
            (format!("source=\"{}\"", source.word()), buckets.collect(), micros)
        });
        write_histogram(&mut text, "evenkeel_answer_seconds", &ANSWER_BOUNDS, series);
        let buckets = (0..=STALE_BOUNDS.len()).map(|n| sum(&|b| &b.stale_age.buckets[n])).collect();
        let series = [(String::new(), buckets, sum(&|b| &b.stale_age.micros))];
        write_histogram(&mut text, "evenkeel_stale_age_seconds", &STALE_BOUNDS, series);
        text
    }
}

struct Page {
    recorder: PrometheusRecorder,
}

const METADATA: Metadata<'static> = Metadata::new("evenkeel", Level::INFO, None);

impl Page {
    fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for (name, kind, help) in METRICS {
            let name = KeyName::from_const_str(name);
            match kind {
                Kind::Counter => recorder.describe_counter(name, None, (*help).into()),
                Kind::Gauge => recorder.describe_gauge(name, None, (*help).into()),
                Kind::Histogram => {}
            }
        }
        Self { recorder }
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &str)], value: u64) {
        self.recorder.register_counter(&key(name, labels), &METADATA).absolute(value);
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        self.recorder.register_gauge(&key(name, labels), &METADATA).set(value);
    }

    fn snapshot(&self, s: &Snapshot) {
        self.gauge("evenkeel_build_info", &[("version", &s.version)], 1.0);
        self.gauge("evenkeel_cache_bytes", &[], s.cache.bytes as f64);
        self.gauge("evenkeel_cache_max_bytes", &[], s.cache.max_bytes as f64);
        self.gauge("evenkeel_cache_entries", &[], s.cache.entries as f64);
        self.counter("evenkeel_cache_evictions_total", &[], s.cache.evictions);
        self.gauge("evenkeel_guard_names", &[], s.guard.names_held as f64);
        self.counter("evenkeel_guard_held_total", &[], s.guard.held_total);
        self.gauge("evenkeel_frozen", &[], f64::from(s.frozen.is_some()));
        if let Some(snapshot) = &s.snapshot {
            self.gauge("evenkeel_snapshot_entries", &[], snapshot.entries as f64);
            if let Some(good) = snapshot.good_unix {
                self.gauge("evenkeel_snapshot_last_success_timestamp_seconds", &[], good as f64);
            }
        }
        self.gauge("evenkeel_config_last_reload_successful", &[], s.config.last_reload_ok.into());
        let taken = s.config.last_reload_unix as f64;
        self.gauge("evenkeel_config_last_reload_success_timestamp_seconds", &[], taken);
        self.gauge("evenkeel_config_fallback", &[], s.config.fallback.into());
        self.counter("evenkeel_udp_receive_drops_total", &[], s.udp_receive_drops);
        self.gauge("evenkeel_tcp_connections", &[], s.tcp_connections as f64);
        self.counter("evenkeel_log_dropped_total", &[], s.log_dropped);
        for c in &s.canaries {
            let of_canary = [("canary", c.canary.as_str())];
            if let (Some(success), Some(seconds)) = (c.success, c.seconds) {
                self.gauge("evenkeel_canary_success", &of_canary, success.into());
                self.gauge("evenkeel_canary_seconds", &of_canary, seconds);
            }
        }
        for group in &s.groups {
            let of_group = [("group", group.name.as_str())];
            self.gauge("evenkeel_in_flight", &of_group, group.in_flight as f64);
            self.gauge("evenkeel_in_flight_max", &of_group, group.in_flight_max as f64);
            self.gauge("evenkeel_tier_in_use", &of_group, group.tier_in_use.into());
            self.counter("evenkeel_budget_denied_total", &of_group, group.budget_denied);
            for (why, count) in &group.tier_shifts {
                self.counter("evenkeel_tier_shifts_total", &[of_group[0], ("why", why)], *count);
            }
            for (bound, count) in &group.bulkhead_rejected {
                self.counter("evenkeel_bulkhead_rejected_total", &[of_group[0], ("bound", bound)], *count);
            }
            for server in &group.servers {
                let [g, n] = [of_group[0], ("server", server.name.as_str())];
                for (kind, count) in server.questions.by_kind() {
                    self.counter("evenkeel_upstream_questions_total", &[g, n, ("kind", kind)], count);
                }
                for (kind, count) in &server.failures {
                    self.counter("evenkeel_upstream_failures_total", &[g, n, ("kind", kind)], *count);
                }
                if let Some(ms) = server.latency_ms {
                    self.gauge("evenkeel_upstream_seconds", &[g, n], ms / 1000.0);
                }
                for state in SERVER_STATES {
                    let is = f64::from(state == server.state);
                    self.gauge("evenkeel_upstream_state", &[g, n, ("state", state)], is);
                }
            }
        }
    }

    fn process(&self, p: &Process, started_unix: i64) {
        self.gauge("process_resident_memory_bytes", &[], p.resident_bytes as f64);
        self.gauge("process_virtual_memory_bytes", &[], p.virtual_bytes as f64);
        self.gauge("process_open_fds", &[], p.open_fds as f64);
        self.gauge("process_threads", &[], p.threads as f64);
        self.gauge("process_start_time_seconds", &[], started_unix as f64);
        if let Some(max) = p.max_fds {
            self.gauge("process_max_fds", &[], max as f64);
        }
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(k, v)| Label::new(*k, (*v).to_owned())).collect();
    Key::from_parts(name, labels)
}

/// Appends HELP and TYPE. Writing to a String cannot fail.
fn write_head(text: &mut String, name: &str, kind: &str) {
    let help = METRICS.iter().find(|(n, ..)| *n == name).map_or("", |(_, _, help)| help);
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Appends a histogram; a series is its labels, the counts of its buckets, and the sum of its values in microseconds.
fn write_histogram(
    text: &mut String,
    name: &str,
    bounds: &[Duration],
    series: impl IntoIterator<Item = (String, Vec<u64>, u64)>,
) {
    write_head(text, name, "histogram");
    for (labels, buckets, micros) in series {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (n, count) in buckets.iter().enumerate() {
            total += count;
            let end = bounds.get(n).map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{end}\"}} {total}");
        }
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let sum = Duration::from_micros(micros).as_secs_f64();
        let _ = writeln!(text, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::tests::sample;

    /// INTERFACE "Metrics", without what has no machinery yet.
    const INTERFACE: &str = "queries_total answers_total answer_seconds stale_age_seconds cache_bytes cache_max_bytes \
        cache_entries cache_evictions_total snapshot_last_success_timestamp_seconds snapshot_entries in_flight \
        in_flight_max upstream_questions_total upstream_failures_total \
        upstream_seconds upstream_state tier_in_use tier_shifts_total budget_denied_total bulkhead_rejected_total \
        config_last_reload_successful config_last_reload_success_timestamp_seconds config_fallback \
        guard_names guard_held_total frozen udp_receive_drops_total tcp_connections log_dropped_total canary_success \
        canary_seconds build_info";

    #[test]
    fn the_page_has_each_metric_of_the_interface_and_no_other() {
        let text = Meters::default().render(&sample());
        let mut seen: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut want: Vec<String> = INTERFACE.split_ascii_whitespace().map(|n| format!("evenkeel_{n}")).collect();
        want.extend(METRICS.iter().filter(|m| m.0.starts_with("process_")).map(|m| m.0.to_owned()));
        // A process without a limit of descriptors has no such line.
        want.retain(|n| n != "process_max_fds" || seen.contains(&n.as_str()));
        seen.sort_unstable();
        want.sort_unstable();
        assert_eq!(seen, want, "each once");
    }

    #[test]
    fn every_sample_stands_behind_one_help_and_one_type() {
        let text = Meters::default().render(&sample());
        let mut known = Vec::new();
        for line in text.lines().filter(|l| !l.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let name = help.split(' ').next().unwrap();
                assert!(!known.contains(&name), "{name} twice");
                assert!(help.len() > name.len() + 1, "{name} has no help");
                known.push(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
                assert!(known.last() == Some(&name) || known.last() == Some(&base), "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn queries_and_answers_have_the_same_sum() {
        let meters = Meters::default();
        let (one, two, all) = (meters.own(), meters.own(), meters.shared());
        let mut sent = 0;
        for (n, source) in Source::ALL.into_iter().enumerate() {
            for rcode in [0, 1, 2, 3, 4, 5, 6, 16, 9] {
                for tally in [&one, &two, &all] {
                    let transport = TRANSPORTS[n % 2];
                    tally.answered(transport, source, rcode, Duration::from_millis(n as u64));
                    sent += 1;
                }
            }
        }
        let text = meters.render(&sample());
        let sum = |name: &str| values(&text, name).iter().sum::<f64>();
        assert_eq!(sum("evenkeel_queries_total"), f64::from(sent));
        assert_eq!(sum("evenkeel_answers_total"), f64::from(sent));
        assert_eq!(sum("evenkeel_answer_seconds_count"), f64::from(sent) * 6.0 / 7.0);
        for line in [
            "evenkeel_answers_total{source=\"dropped\",rcode=\"none\"} 27",
            "evenkeel_answers_total{source=\"fresh\",rcode=\"other\"} 3",
            "evenkeel_answers_total{source=\"fresh\",rcode=\"BADVERS\"} 3",
            "evenkeel_queries_total{transport=\"udp\"} 108",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_duration_falls_into_the_bucket_that_ends_at_or_after_it() {
        for (micros, bucket) in
            [(0, "0.0005"), (500, "0.0005"), (501, "0.001"), (4_000_001, "5"), (5_000_001, "+Inf")]
        {
            let meters = Meters::default();
            meters.own().answered(Transport::Udp, Source::Fresh, 0, Duration::from_micros(micros));
            let text = meters.render(&sample());
            let prefix = "evenkeel_answer_seconds_bucket{source=\"fresh\",le=\"";
            let first = text.lines().filter_map(|l| l.strip_prefix(prefix)).find(|l| l.ends_with(" 1")).unwrap();
            assert_eq!(first.split('"').next(), Some(bucket), "{micros}");
        }
        let meters = Meters::default();
        meters.shared().stale(Duration::from_secs(60));
        meters.shared().stale(Duration::from_secs(61));
        let text = meters.render(&sample());
        assert!(text.contains("evenkeel_stale_age_seconds_bucket{le=\"60\"} 1\n"), "{text}");
        assert!(text.contains("evenkeel_stale_age_seconds_sum 121\nevenkeel_stale_age_seconds_count 2\n"), "{text}");
    }

    #[test]
    fn a_server_is_in_exactly_one_state() {
        let text = Meters::default().render(&sample());
        assert_eq!(values(&text, "evenkeel_upstream_state").iter().sum::<f64>(), 2.0);
        assert_eq!(values(&text, "evenkeel_upstream_state").len(), 2 * SERVER_STATES.len());
        assert_eq!(values(&text, "evenkeel_upstream_seconds"), [0.0125]);
    }

    #[test]
    fn a_label_cannot_break_the_page() {
        let mut s = sample();
        s.groups[0].name = "a\"b\\c\nd".into();
        let text = Meters::default().render(&s);
        assert!(text.contains("evenkeel_tier_in_use{group=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
    }

    fn values(text: &str, name: &str) -> Vec<f64> {
        let of = |l: &str| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(|l| of(l)).filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect()
    }
}
