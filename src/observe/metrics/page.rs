//! `/metrics`: what is exported, and how it is written.
//!
//! [`Meters::render`] has metrics-exporter-prometheus write what the blocks and a [`Snapshot`] say. Its recorder is
//! made anew each time, so that servers and groups that a reload took away are gone from the page too. Histograms are
//! written here: the recorder's own keep every sample until they are rendered. [`METRICS`] is the list of all there is.
//!
//! Every label set is bounded: by words of this program, or by what the configuration names (groups, servers,
//! canaries: [`crate::limits`]). No label holds a client, nor a name that clients ask for.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::{
    ANSWER_BOUNDS, Hot, Meters, RCODE_LABELS, RCODE_NONE, STALE_BOUNDS, Source, TRANSPORTS, rcode_label,
    transport_word,
};
use crate::observe::process::{self, Process};
use crate::observe::status::{SERVER_STATES, Snapshot};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes both ways.
    Gauge,
    /// Counts by the upper ends of buckets, with sum and count.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The labels of each of its series; a histogram's buckets have `le` besides.
    pub labels: &'static [&'static str],
    /// What it says, in a line.
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

/// Every metric.
pub const METRICS: &[Metric] = &[
    counter("evenkeel_queries_total", &["transport"], "Queries that came"),
    counter("evenkeel_answers_total", &["source", "rcode"], "What became of them, by where the answer came from"),
    histogram("evenkeel_answer_seconds", &["source"], "Time from a query to its answer"),
    histogram("evenkeel_stale_age_seconds", &[], "How far past their TTL stale answers were"),
    gauge("evenkeel_cache_bytes", &[], "Bytes of the cache in use"),
    gauge("evenkeel_cache_max_bytes", &[], "Bytes that the cache may use"),
    gauge("evenkeel_cache_entries", &[], "Entries of the cache"),
    counter("evenkeel_cache_evictions_total", &[], "Entries that went for lack of room"),
    gauge(
        "evenkeel_snapshot_last_success_timestamp_seconds",
        &[],
        "When the snapshot was last written, or found to differ by less than 1 %, since 1970",
    ),
    gauge("evenkeel_snapshot_entries", &[], "Entries of the snapshot"),
    gauge("evenkeel_in_flight", &["group"], "Questions that are being pursued"),
    gauge("evenkeel_in_flight_max", &["group"], "Questions that may be pursued at once"),
    counter("evenkeel_upstream_questions_total", &["group", "server", "kind"], "Questions sent to a server, by why"),
    counter(
        "evenkeel_upstream_failures_total",
        &["group", "server", "kind"],
        "Questions that a server failed, by how",
    ),
    gauge("evenkeel_upstream_seconds", &["group", "server"], "A server's latency as estimated"),
    gauge("evenkeel_upstream_state", &["group", "server", "state"], "1 for the state that a server is in"),
    gauge("evenkeel_tier_in_use", &["group"], "The tier in use, from 1; 0 is none"),
    counter("evenkeel_tier_shifts_total", &["group", "why"], "Shifts to another tier, by why"),
    gauge("evenkeel_guard_names", &[], "Names whose last known good answers are held"),
    counter("evenkeel_guard_held_total", &[], "Holds of last known good answers that began"),
    gauge("evenkeel_frozen", &[], "Is a freeze in force?"),
    counter("evenkeel_budget_denied_total", &["group"], "Second questions that the budget denied"),
    counter("evenkeel_bulkhead_rejected_total", &["group", "bound"], "Questions that a bound refused"),
    gauge("evenkeel_canary_success", &["canary"], "1 where a canary's last answer was as expected"),
    gauge("evenkeel_canary_seconds", &["canary"], "How long it took"),
    gauge("evenkeel_config_last_reload_successful", &[], "1 where the last reload was taken"),
    gauge(
        "evenkeel_config_last_reload_success_timestamp_seconds",
        &[],
        "When a configuration was last taken, since 1970",
    ),
    gauge("evenkeel_config_fallback", &[], "1 while the last accepted copy is used"),
    counter("evenkeel_udp_receive_drops_total", &[], "Datagrams that the kernel dropped before they were read"),
    gauge("evenkeel_tcp_connections", &[], "Open TCP connections of clients"),
    counter("evenkeel_log_dropped_total", &[], "Log lines that were dropped"),
    counter("evenkeel_query_log_written_total", &[], "Questions that were written to the query log"),
    counter("evenkeel_query_log_dropped_total", &["why"], "Questions that the query log took and did not write"),
    gauge("evenkeel_build_info", &["version"], "1, with the version"),
    counter("process_cpu_seconds_total", &[], "Processor time, of user and system"),
    gauge("process_resident_memory_bytes", &[], "Bytes in memory"),
    gauge("process_virtual_memory_bytes", &[], "Bytes of address space"),
    gauge("process_open_fds", &[], "Open file descriptors"),
    gauge("process_max_fds", &[], "Open file descriptors that there may be"),
    gauge("process_threads", &[], "Threads"),
    gauge("process_start_time_seconds", &[], "Start, since 1970"),
];

impl Meters {
    /// The text of `/metrics`.
    pub fn render(&self, snapshot: &Snapshot) -> String {
        self.render_with(snapshot, &process::read())
    }

    /// The same without a look at the kernel's numbers: those are given.
    pub fn render_with(&self, snapshot: &Snapshot, kernel: &Process) -> String {
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
        page.process(kernel, snapshot.started_unix);

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
        for metric in METRICS {
            let name = KeyName::from_const_str(metric.name);
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, metric.help.into()),
                Kind::Gauge => recorder.describe_gauge(name, None, metric.help.into()),
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
        self.counter("evenkeel_query_log_written_total", &[], s.query_log.written);
        self.counter("evenkeel_query_log_dropped_total", &[("why", "full")], s.query_log.dropped_full);
        self.counter("evenkeel_query_log_dropped_total", &[("why", "away")], s.query_log.dropped_away);
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
    let help = METRICS.iter().find(|m| m.name == name).map_or("", |m| m.help);
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
    use crate::serve::Transport;

    /// INTERFACE.md "Metrics", whole, but for `process_*`.
    const INTERFACE: &str = "queries_total answers_total answer_seconds stale_age_seconds cache_bytes cache_max_bytes \
        cache_entries cache_evictions_total in_flight in_flight_max upstream_questions_total \
        upstream_failures_total upstream_seconds upstream_state tier_in_use tier_shifts_total budget_denied_total \
        bulkhead_rejected_total guard_names guard_held_total frozen snapshot_last_success_timestamp_seconds \
        snapshot_entries config_last_reload_successful config_last_reload_success_timestamp_seconds \
        config_fallback udp_receive_drops_total tcp_connections log_dropped_total panics_total lease_held \
        canary_success canary_seconds build_info query_log_written_total query_log_dropped_total";
    /// Of them, what has no machinery yet: no lease, and a panic ends the process, so that it has none to tell of.
    const NOT_YET: [&str; 2] = ["evenkeel_lease_held", "evenkeel_panics_total"];

    #[test]
    fn the_page_has_each_metric_of_the_interface_and_no_other() {
        let text = Meters::default().render(&sample());
        let mut seen: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut want: Vec<String> = INTERFACE.split_ascii_whitespace().map(|n| format!("evenkeel_{n}")).collect();
        want.retain(|n| !NOT_YET.contains(&n.as_str()));
        want.extend(METRICS.iter().filter(|m| m.name.starts_with("process_")).map(|m| m.name.to_owned()));
        // A process without a limit of descriptors has no such line.
        want.retain(|n| n != "process_max_fds" || seen.contains(&n.as_str()));
        seen.sort_unstable();
        want.sort_unstable();
        assert_eq!(seen, want, "each once");
    }

    #[test]
    fn every_series_has_the_labels_of_its_metric() {
        let text = Meters::default().render(&sample());
        for metric in METRICS.iter().filter(|m| m.name != "process_max_fds") {
            assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, word(metric.kind))), "{metric:?}");
            let series = text.lines().filter(|l| {
                let name = l.split(['{', ' ']).next().unwrap_or_default();
                let parts = ["", "_bucket", "_sum", "_count"];
                parts.iter().any(|part| name.strip_prefix(metric.name).is_some_and(|rest| rest == *part))
            });
            let mut any = false;
            for line in series {
                any = true;
                let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
                let labels: Vec<&str> = labels.split(',').filter_map(|l| Some(l.split_once('=')?.0)).collect();
                let labels: Vec<&str> = labels.into_iter().filter(|l| *l != "le").collect();
                assert_eq!(labels, metric.labels, "{line}");
            }
            assert!(any, "{metric:?} has no series");
        }
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

    fn word(kind: Kind) -> &'static str {
        match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }

    fn values(text: &str, name: &str) -> Vec<f64> {
        let of = |l: &str| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(|l| of(l)).filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect()
    }
}
