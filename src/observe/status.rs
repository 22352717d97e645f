//! How things stand, as plain values.
//!
//! A [`Snapshot`] is everything that status, the page and `/metrics` show besides the counters of
//! [`super::metrics`]. The daemon makes one when asked ([`Gather`]); nothing here knows where the values come from.
//! Words (`state`, `belief`, `reason`) are those of the judges' own enums.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::event::Seen;
use super::history::{HistoryStatus, LastMinute};
use super::query_log::QueryLogStatus;
use super::summary::Summary;
use crate::config::Said;

/// Makes a [`Snapshot`]. Called at each scrape and status, on a thread that may wait for short locks only.
pub trait Gather: Send + Sync {
    /// How things stand, without the history and the keys of the configuration.
    fn gather(&self) -> Snapshot;

    /// The last hour.
    fn history(&self) -> HistoryStatus;
}

/// The version of this form. It grows by one where a field goes or changes its meaning; new fields leave it as it is.
pub const STATUS_VERSION: u32 = 1;

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// [`STATUS_VERSION`].
    pub status_version: u32,
    /// Version of the program.
    pub version: String,
    /// How things stand, in a sentence.
    pub summary: Summary,
    /// The machine's name.
    pub host: String,
    /// The process's number.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Its start, in seconds since 1970.
    pub started_unix: i64,
    /// Is it ready, or draining?
    pub ready: bool,
    /// Where it listens, or tries to.
    pub listen: Vec<ListenStatus>,
    /// Answers since the start, by where they came from.
    pub answers: BTreeMap<&'static str, u64>,
    /// Answers of the last minute.
    pub last_minute: LastMinute,
    /// Groups of upstreams.
    pub groups: Vec<GroupStatus>,
    /// Canaries.
    pub canaries: Vec<CanaryStatus>,
    /// The cache.
    pub cache: CacheStatus,
    /// Names that are held.
    pub guard: GuardStatus,
    /// The freeze, where one is in force.
    pub frozen: Option<FreezeStatus>,
    /// The cache's snapshot; `None` where none is kept.
    pub snapshot: Option<SnapshotStatus>,
    /// The configuration in use.
    pub config: ConfigStatus,
    /// Open TCP connections of clients.
    pub tcp_connections: u64,
    /// Datagrams that the kernel dropped since workers were too slow.
    pub udp_receive_drops: u64,
    /// Log lines that were dropped.
    pub log_dropped: u64,
    /// The query log.
    pub query_log: QueryLogStatus,
    /// What an operator should look at, one sentence each.
    pub warnings: Vec<String>,
    /// The last events, the oldest first.
    pub events: Vec<Seen>,
    /// The last hour; `None` where it was not asked for.
    pub history: Option<HistoryStatus>,
}

/// One listening address.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ListenStatus {
    /// The address as configured.
    pub address: String,
    /// Why it is not bound; `None` where it is.
    pub waiting: Option<String>,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Its zones.
    pub zones: Vec<String>,
    /// The tier in use, from 1; 0 is none.
    pub tier_in_use: u8,
    /// A better tier that is fit again, and when it is used again.
    pub returns: Option<Returns>,
    /// What is believed of the group as a whole, in a word: "untried", "healthy", "silent" or "down".
    pub belief: &'static str,
    /// How long a client waits for a fresh answer while there is a stale one.
    pub patience_ms: f64,
    /// Pursuits under way.
    pub in_flight: u64,
    /// And how many there may be.
    pub in_flight_max: u64,
    /// Its servers, best tier first.
    pub servers: Vec<ServerStatus>,
    /// Second questions that the budget denied.
    pub budget_denied: u64,
    /// Questions that a bound refused, by the bound's word.
    pub bulkhead_rejected: BTreeMap<&'static str, u64>,
    /// Shifts of tier, by the reason's word.
    pub tier_shifts: BTreeMap<&'static str, u64>,
}

/// A better tier on its way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Returns {
    /// The tier, from 1.
    pub tier: u8,
    /// Seconds until its hold is over; it must answer then.
    pub in_seconds: u64,
}

/// One server of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServerStatus {
    /// Its name in the group.
    pub name: String,
    /// Its address.
    pub address: String,
    /// How it is spoken to.
    pub protocol: String,
    /// Its tier, from 1.
    pub tier: u8,
    /// Its state: one of [`SERVER_STATES`].
    pub state: &'static str,
    /// Why it is in that state, in words.
    pub reason: String,
    /// Since when it gets no first questions, in seconds since 1970; `None` while it does.
    pub since_unix: Option<i64>,
    /// Seconds since its last well-formed reply; `None` where there was none.
    pub last_answer_seconds: Option<u64>,
    /// Its latency as estimated; `None` while unknown.
    pub latency_ms: Option<f64>,
    /// When the second question goes out after one to it.
    pub hedge_ms: Option<f64>,
    /// Questions that it was sent.
    pub questions: Questions,
    /// Its failures, by their word.
    pub failures: BTreeMap<&'static str, u64>,
}

/// The states of a server, in the words of metrics and status.
pub const SERVER_STATES: [&str; 6] = ["unknown", "fit", "silent", "down", "left_out", "loops"];

/// Questions to a server by why they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Questions {
    /// The first of a pursuit.
    pub first: u64,
    /// After a failure.
    pub retry: u64,
    /// Beside one that is overdue.
    pub hedge: u64,
    /// To judge it.
    pub probe: u64,
    /// Ahead of or behind an answer, for no client.
    pub refresh: u64,
}

impl Questions {
    /// The numbers with their words.
    pub fn by_kind(self) -> [(&'static str, u64); 5] {
        [
            ("first", self.first),
            ("retry", self.retry),
            ("hedge", self.hedge),
            ("probe", self.probe),
            ("refresh", self.refresh),
        ]
    }
}

/// One canary.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CanaryStatus {
    /// Its name and type.
    pub canary: String,
    /// Was its last answer as expected? `None` before the first.
    pub success: Option<bool>,
    /// What its last answer was, in words.
    pub reason: String,
    /// How long that took.
    pub seconds: Option<f64>,
    /// Seconds since then.
    pub age_seconds: Option<u64>,
    /// Seconds since it began to fail; `None` where it does not.
    pub failing_seconds: Option<u64>,
}

/// The cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheStatus {
    /// Bytes in use, overhead included.
    pub bytes: u64,
    /// Bytes that it may use.
    pub max_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Entries that went for lack of room.
    pub evictions: u64,
}

/// Names whose last known good answers are held.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GuardStatus {
    /// How many names.
    pub names_held: u64,
    /// Holds that began since the start.
    pub held_total: u64,
    /// The holds, the oldest first, at most a hundred; none over HTTP.
    pub held: Vec<HoldStatus>,
}

/// One hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HoldStatus {
    /// The name.
    pub name: String,
    /// The type, by number.
    pub qtype: u16,
    /// When it began, in seconds since 1970.
    pub since_unix: i64,
    /// Seconds to its end.
    pub left_seconds: u64,
}

/// A freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FreezeStatus {
    /// When it began, in seconds since 1970.
    pub since_unix: i64,
    /// Seconds to its end.
    pub left_seconds: u64,
}

/// The snapshot of the cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SnapshotStatus {
    /// Its file.
    pub file: String,
    /// When it was written, in seconds since 1970; `None` where there is none.
    pub written_unix: Option<i64>,
    /// When it was last written, or found to differ by less than 1 %.
    pub good_unix: Option<i64>,
    /// Answers in it.
    pub entries: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Answers that were restored at the start.
    pub restored: u64,
    /// Answers that were not: too old, without room, or they did not pass.
    pub left_out: u64,
    /// Is the one of an earlier process still being read?
    pub reading: bool,
    /// Why that one was not read, until another took its place.
    pub refused: Option<String>,
    /// What was in the way of the last write.
    pub failing: Option<String>,
}

/// The configuration in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ConfigStatus {
    /// Its file; `None` is the built-in defaults.
    pub file: Option<String>,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
    /// Seconds since it was taken.
    pub age_seconds: u64,
    /// Is it the last accepted copy, since the file was refused at start?
    pub fallback: bool,
    /// Was the last reload taken?
    pub last_reload_ok: bool,
    /// When a configuration was last taken, in seconds since 1970.
    pub last_reload_unix: i64,
    /// Keys that were changed in the file and hold only after a restart.
    pub needs_restart: Vec<String>,
    /// Every key in effect, as it was written: `${NAME}` stands as that. None over HTTP.
    pub keys: Vec<Said>,
}

impl Snapshot {
    /// The moment of this snapshot, in seconds since 1970.
    pub fn now_unix(&self) -> i64 {
        self.started_unix.saturating_add_unsigned(self.uptime_seconds)
    }
}

/// Changes every text in a status, and no name of a field.
pub fn for_each_text(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| for_each_text(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|value| for_each_text(value, change)),
        _ => {}
    }
}

/// A status as JSON for people and programs: objects over several lines, a list of numbers or words on one.
pub fn pretty(status: &Value) -> String {
    let mut out = String::new();
    write_pretty(status, 0, &mut out);
    out.push('\n');
    out
}

fn write_pretty(value: &Value, indent: usize, out: &mut String) {
    let is_long =
        |v: &Value| v.as_object().is_some_and(|o| !o.is_empty()) || v.as_array().is_some_and(|a| !a.is_empty());
    let inner = indent + 2;
    // Writing to a String cannot fail.
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (n, (name, value)) in fields.iter().enumerate() {
                let _ = write!(out, "{}\n{:inner$}{}: ", if n == 0 { "{" } else { "," }, "", json!(name));
                write_pretty(value, inner, out);
            }
            let _ = write!(out, "\n{:indent$}}}", "");
        }
        Value::Array(items) if items.iter().any(is_long) => {
            for (n, item) in items.iter().enumerate() {
                let _ = write!(out, "{}\n{:inner$}", if n == 0 { "[" } else { "," }, "");
                write_pretty(item, inner, out);
            }
            let _ = write!(out, "\n{:indent$}]", "");
        }
        flat => {
            let _ = write!(out, "{flat}");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_for_people_and_still_the_same() {
        let value = json!({ "a": { "b": [1, null, 3], "c": {}, "d": [] }, "e": [{ "f": "\"" }, [1]], "g": 1.5 });
        let text = pretty(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(text.starts_with("{\n  \"a\": {\n    \"b\": [1,null,3],\n"), "{text}");
    }

    /// A snapshot with something everywhere.
    pub(crate) fn sample() -> Snapshot {
        let server = |name: &str, tier, state| ServerStatus {
            name: name.into(),
            address: format!("{name}:53"),
            protocol: "udp".into(),
            tier,
            state,
            reason: "answers".into(),
            since_unix: (tier == 2).then_some(1_700_000_080),
            last_answer_seconds: Some(3),
            latency_ms: (tier == 1).then_some(12.5),
            hedge_ms: Some(30.0),
            questions: Questions { first: 7, retry: 1, hedge: 2, probe: 3, refresh: 4 },
            failures: BTreeMap::from([("timeout", 5)]),
        };
        Snapshot {
            status_version: STATUS_VERSION,
            version: "0.0.0".into(),
            summary: Summary { sentence: "All is well.".into(), more: vec!["More.".into()], ..Summary::default() },
            host: "node1".into(),
            pid: 4711,
            uptime_seconds: 90,
            started_unix: 1_700_000_000,
            ready: true,
            listen: vec![ListenStatus { address: "127.0.0.1:53".into(), waiting: None }],
            answers: BTreeMap::from([("fresh", 9)]),
            last_minute: LastMinute {
                seconds: 62.5,
                answers: BTreeMap::from([("fresh", 9)]),
                stale_age_seconds: Some(4),
                p50_ms: Some(0.5),
                p99_ms: Some(20.0),
            },
            groups: vec![GroupStatus {
                name: "default".into(),
                zones: vec![".".into()],
                tier_in_use: 1,
                returns: Some(Returns { tier: 1, in_seconds: 8 }),
                belief: "healthy",
                patience_ms: 150.0,
                in_flight: 3,
                in_flight_max: 4096,
                servers: vec![server("192.0.2.1", 1, "fit"), server("192.0.2.2", 2, "down")],
                budget_denied: 1,
                bulkhead_rejected: BTreeMap::from([("group", 2)]),
                tier_shifts: BTreeMap::from([("down", 3)]),
            }],
            canaries: vec![CanaryStatus {
                canary: "www.example.org. A".into(),
                success: Some(true),
                reason: "1 A record".into(),
                seconds: Some(0.002),
                age_seconds: Some(3),
                failing_seconds: None,
            }],
            cache: CacheStatus { bytes: 10, max_bytes: 100, entries: 1, evictions: 2 },
            guard: GuardStatus { names_held: 1, held_total: 2, held: vec![HoldStatus::default()] },
            frozen: Some(FreezeStatus::default()),
            snapshot: Some(SnapshotStatus {
                file: "/var/lib/evenkeel/cache.snapshot".into(),
                written_unix: Some(1_700_000_060),
                good_unix: Some(1_700_000_060),
                entries: 3,
                bytes: 2048,
                restored: 2,
                left_out: 1,
                ..SnapshotStatus::default()
            }),
            config: ConfigStatus { last_reload_ok: true, ..ConfigStatus::default() },
            tcp_connections: 4,
            udp_receive_drops: 5,
            log_dropped: 6,
            query_log: QueryLogStatus { written: 70, dropped_full: 2, dropped_away: 1 },
            warnings: vec![],
            events: vec![],
            history: None,
        }
    }
}
