//! How things stand, as plain values.
//!
//! A [`Snapshot`] is everything that status, the page and `/metrics` show besides the counters of
//! [`super::metrics`]. The daemon makes one when asked ([`Gather`]); nothing here knows where the values come from.
//! Words (`state`, `belief`, `reason`) are those of the judges' own enums.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::event::{Seen, Span};

/// Makes a [`Snapshot`]. Called at each scrape and status, on a thread that may wait for short locks only.
pub trait Gather: Send + Sync {
    /// How things stand.
    fn gather(&self) -> Snapshot;
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// Version of the program.
    pub version: String,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Its start, in seconds since 1970.
    pub started_unix: i64,
    /// Is it ready, or draining?
    pub ready: bool,
    /// Where it listens, or tries to.
    pub listen: Vec<ListenStatus>,
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
    /// What an operator should look at, one sentence each.
    pub warnings: Vec<String>,
    /// The last events, the oldest first.
    pub events: Vec<Seen>,
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
    /// What is believed of the group as a whole, in a word.
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
    /// Why it is in that state.
    pub reason: String,
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
}

/// A page of the status that stands by itself.
pub fn page(s: &Snapshot) -> String {
    let mut body = String::new();
    let uptime = Span(std::time::Duration::from_secs(s.uptime_seconds));
    let state = if s.ready { "serving" } else { "ending" };
    // Writing to a String cannot fail.
    let _ = write!(body, "<h1>evenkeel {}</h1><p>{state}, up for {uptime}</p>", Html(&s.version));
    for warning in &s.warnings {
        let _ = write!(body, "<p class=w>{}</p>", Html(warning));
    }
    if let Some(frozen) = s.frozen {
        let left = Span(std::time::Duration::from_secs(frozen.left_seconds));
        let _ = write!(body, "<p class=w>frozen for {left} more: nothing good is given up</p>");
    }
    if s.guard.names_held > 0 {
        let _ = write!(
            body,
            "<p class=w>{} names are held at their last known good answers; \
             <code>evenkeel status</code> names them</p>",
            s.guard.names_held
        );
    }
    body += "<h2>Listening</h2><ul>";
    for l in &s.listen {
        let waiting = l.waiting.as_deref().map_or(String::new(), |why| format!(" not yet: {why}"));
        let _ = write!(body, "<li>{}{}</li>", Html(&l.address), Html(&waiting));
    }
    body += "</ul><h2>Upstreams</h2>";
    for group in &s.groups {
        let _ = write!(
            body,
            "<h3>{} <small>for {}</small></h3><p>tier {} in use, believed {}, patience {:.0} ms, {} of {} in flight</p>\
             <table><tr><th>tier<th>server<th>state<th>reason<th>latency<th>questions<th>failures</tr>",
            Html(&group.name),
            Html(&group.zones.join(", ")),
            group.tier_in_use,
            Html(group.belief),
            group.patience_ms,
            group.in_flight,
            group.in_flight_max,
        );
        for server in &group.servers {
            let latency = server.latency_ms.map_or("unknown".to_owned(), |ms| format!("{ms:.1} ms"));
            let questions: u64 = server.questions.by_kind().iter().map(|(_, n)| n).sum();
            let failures: u64 = server.failures.values().sum();
            let _ = write!(
                body,
                "<tr class={}><td>{}<td>{} ({})<td>{}<td>{}<td>{latency}<td>{questions}<td>{failures}</tr>",
                if matches!(server.state, "silent" | "down") { "w" } else { "ok" },
                server.tier,
                Html(&server.name),
                Html(&server.protocol),
                Html(server.state),
                Html(&server.reason),
            );
        }
        body += "</table>";
    }
    if !s.canaries.is_empty() {
        body += "<h2>Canaries</h2><table><tr><th>name and type<th>last answer<th>took<th>failing for</tr>";
    }
    for c in &s.canaries {
        let class = if c.success == Some(false) { "w" } else { "ok" };
        let took = c.seconds.map_or_else(String::new, |s| format!("{:.1} ms", s * 1e3));
        let failing = c.failing_seconds.map(|s| Span(std::time::Duration::from_secs(s)).to_string());
        let _ = write!(
            body,
            "<tr class={class}><td>{}<td>{}<td>{took}<td>{}</tr>",
            Html(&c.canary),
            Html(&c.reason),
            failing.unwrap_or_default(),
        );
    }
    if !s.canaries.is_empty() {
        body += "</table>";
    }
    let _ = write!(
        body,
        "<h2>Cache</h2><p>{} entries, {} of {} KiB{}</p><h2>Configuration</h2><p>{}, {} old{}</p><h2>Events</h2><ul>",
        s.cache.entries,
        s.cache.bytes >> 10,
        s.cache.max_bytes >> 10,
        s.snapshot.as_ref().map_or(String::new(), |snapshot| snapshot_line(snapshot, s)),
        Html(s.config.file.as_deref().unwrap_or("built-in defaults")),
        Span(std::time::Duration::from_secs(s.config.age_seconds)),
        if s.config.fallback { ", a fall-back: the file was refused" } else { "" },
    );
    for event in s.events.iter().rev() {
        let age = u64::try_from(s.started_unix.saturating_add_unsigned(s.uptime_seconds).saturating_sub(event.unix))
            .unwrap_or(0);
        let age = Span(std::time::Duration::from_secs(age));
        let _ = write!(body, "<li class={}>{age} ago: {}</li>", Html(event.level), Html(&event.text));
    }
    format!("{PAGE_HEAD}{body}</ul><p><a href=status>status</a> <a href=metrics>metrics</a></p>\n")
}

/// The snapshot, behind the cache.
fn snapshot_line(snapshot: &SnapshotStatus, s: &Snapshot) -> String {
    let now = s.started_unix.saturating_add_unsigned(s.uptime_seconds);
    let age = |unix: i64| Span(std::time::Duration::from_secs(u64::try_from(now.saturating_sub(unix)).unwrap_or(0)));
    let written = match snapshot.written_unix {
        None => "no snapshot yet".to_owned(),
        Some(unix) => {
            format!("snapshot of {} entries, {} KiB, {} old", snapshot.entries, snapshot.bytes >> 10, age(unix))
        }
    };
    format!("; {written}, {} restored at start", snapshot.restored)
}

const PAGE_HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>evenkeel</title>\
    <meta name=viewport content=\"width=device-width\"><meta name=color-scheme content=\"light dark\"><style>\
    body{font:15px/1.4 system-ui,sans-serif;max-width:60em;margin:1em auto;padding:0 1em}\
    table{border-collapse:collapse}td,th{text-align:left;padding:.2em .8em .2em 0;border-bottom:1px solid #8884}\
    .w,.warn,.error{color:#c40}</style>";

/// Text in a page, made harmless.
struct Html<'a>(&'a str);

impl std::fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn what_is_shown_on_the_page_is_harmless() {
        let mut s = sample();
        s.groups[0].servers[0].reason = "<script>\"&'".into();
        s.warnings.push("<b>".into());
        let page = page(&s);
        assert!(page.contains("&lt;script&gt;&quot;&amp;&#39;") && page.contains("&lt;b&gt;"));
        assert!(!page.contains("<script") && !page.contains("<b>"));
    }

    #[test]
    fn only_servers_that_do_not_answer_stand_out() {
        let page = page(&sample());
        assert!(
            page.contains("<tr class=ok><td>1<td>192.0.2.1 ") && page.contains("<tr class=w><td>2<td>192.0.2.2 ")
        );
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
            latency_ms: (tier == 1).then_some(12.5),
            hedge_ms: Some(30.0),
            questions: Questions { first: 7, retry: 1, hedge: 2, probe: 3, refresh: 4 },
            failures: BTreeMap::from([("timeout", 5)]),
        };
        Snapshot {
            version: "0.0.0".into(),
            uptime_seconds: 90,
            started_unix: 1_700_000_000,
            ready: true,
            listen: vec![ListenStatus { address: "127.0.0.1:53".into(), waiting: None }],
            groups: vec![GroupStatus {
                name: "default".into(),
                zones: vec![".".into()],
                tier_in_use: 1,
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
            warnings: vec![],
            events: vec![],
        }
    }
}
