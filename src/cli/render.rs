//! What the running process says, for people.
//!
//! Pure. Status and explanations are JSON whose fields grow with the program. The few that this file knows are laid
//! out; every other one is shown by its name, so that nothing that the process says is lost.
//!
//! Of a status it knows `version`, `summary{sentence, more[]}`, `uptime_seconds`, `listen[]`, `groups[{name,
//! tier_in_use, belief, servers[{name, address, tier, state, reason, latency_ms}]}]`, `canaries[]`, `cache{bytes,
//! max_bytes, entries}`, `snapshot{written_unix, entries, bytes, restored, left_out, reading}`, `config{file, hash,
//! age_seconds, fallback, needs_restart[], keys[{key, value, by}]}`, `events[{level, text, unix}]` and
//! `warnings[]`.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::config::human::{show_size, show_span};

/// The status page.
pub fn status(status: &Value) -> String {
    let Some(fields) = status.as_object() else { return format!("{}\n", scalar(status)) };
    let mut fields = fields.clone();
    let mut out = String::new();
    let version = fields.remove("version").map_or_else(|| "?".to_owned(), |v| scalar(&v));
    let _ = write!(out, "evenkeel {version}");
    if let Some(uptime) = fields.remove("uptime_seconds").as_ref().and_then(Value::as_u64) {
        let _ = write!(out, ", up {}", age(uptime));
    }
    out.push('\n');
    if let Some(Value::Object(summary)) = fields.remove("summary") {
        write_summary(summary, &mut out);
    }
    // What `--json` has for programs, and the charts of the page.
    ["status_version", "history", "answers"].iter().for_each(|known| drop(fields.remove(*known)));
    for warning in list(fields.remove("warnings")) {
        let _ = writeln!(out, "warning   {}", one_line(&warning));
    }
    for address in list(fields.remove("listen")) {
        let shown = match &address {
            Value::Object(fields) if fields.iter().all(|(k, v)| k == "address" || v.is_null()) => {
                fields.get("address").map_or_else(|| one_line(&address), scalar)
            }
            other => one_line(other),
        };
        let _ = writeln!(out, "listen    {shown}");
    }
    if let Some(Value::Object(config)) = fields.remove("config") {
        write_config(config, &mut out);
    }
    if let Some(Value::Object(cache)) = fields.remove("cache") {
        write_cache(cache, &mut out);
    }
    if let Some(Value::Object(snapshot)) = fields.remove("snapshot") {
        write_snapshot(snapshot, &mut out);
    }
    for group in list(fields.remove("groups")) {
        write_group(group, &mut out);
    }
    for canary in list(fields.remove("canaries")) {
        write_canary(canary, &mut out);
    }
    let events = list(fields.remove("events"));
    write_rest(&fields, 0, &mut out);
    for event in &events {
        write_event(event, &mut out);
    }
    out
}

fn write_summary(mut summary: Map<String, Value>, out: &mut String) {
    let mut label = "health";
    for sentence in list(summary.remove("sentence")).into_iter().chain(list(summary.remove("more"))) {
        let _ = writeln!(out, "{label:8}  {}", one_line(&sentence));
        label = "";
    }
}

fn write_event(event: &Value, out: &mut String) {
    let field = |name: &str| event.get(name).map_or_else(String::new, scalar);
    let at = clock(event.get("unix").and_then(Value::as_u64).unwrap_or(0));
    let _ = writeln!(out, "event     {at} {:5} {}", field("level"), field("text"));
}

/// The time of the day in UTC.
pub(super) fn clock(unix: u64) -> String {
    let seconds = unix % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn write_canary(canary: Value, out: &mut String) {
    let Value::Object(mut canary) = canary else { return };
    let mut field = |name: &str| canary.remove(name).filter(|v| !v.is_null());
    let name = field("canary").map_or_else(|| "?".to_owned(), |v| scalar(&v));
    let word = match field("success") {
        None => "",
        Some(Value::Bool(true)) => "fine: ",
        Some(_) => "failing: ",
    };
    let reason = field("reason").map_or_else(String::new, |v| scalar(&v));
    let _ = write!(out, "canary    {name}  {word}{reason}");
    if let Some(seconds) = field("seconds").as_ref().and_then(Value::as_f64) {
        let _ = write!(out, ", in {:.1} ms", seconds * 1e3);
    }
    for (name, words) in [("age_seconds", "ago"), ("failing_seconds", "since it began to fail")] {
        if let Some(seconds) = field(name).as_ref().and_then(Value::as_u64) {
            let _ = write!(out, ", {} {words}", age(seconds));
        }
    }
    out.push('\n');
    write_rest(&canary, 10, out);
}

/// What would be done with a question, and why.
pub fn explanation(explanation: &Value) -> String {
    let mut out = String::new();
    match explanation {
        Value::Object(fields) => write_rest(fields, 0, &mut out),
        other => {
            let _ = writeln!(out, "{}", one_line(other));
        }
    }
    out
}

fn write_config(mut config: Map<String, Value>, out: &mut String) {
    let file = match config.remove("file") {
        None | Some(Value::Null) => "(built-in defaults)".to_owned(),
        Some(file) => scalar(&file),
    };
    let _ = write!(out, "config    {file}");
    if let Some(hash) = config.remove("hash") {
        let _ = write!(out, ", id {}", scalar(&hash));
    }
    if let Some(seconds) = config.remove("age_seconds").as_ref().and_then(Value::as_u64) {
        let _ = write!(out, ", applied {} ago", age(seconds));
    }
    out.push('\n');
    if config.remove("fallback") == Some(Value::Bool(true)) {
        out.push_str("          the file is refused; this is the last accepted copy of it\n");
    }
    for key in list(config.remove("keys")) {
        let field = |name: &str| key.get(name).map_or_else(String::new, scalar);
        if field("by") != "default" {
            let _ = writeln!(out, "          {} = {}", field("key"), field("value"));
        }
    }
    for key in list(config.remove("needs_restart")) {
        let _ = writeln!(out, "          {} was changed and needs a restart", scalar(&key));
    }
    write_rest(&config, 10, out);
}

fn write_cache(mut cache: Map<String, Value>, out: &mut String) {
    let mut number = |name: &str| cache.remove(name).as_ref().and_then(Value::as_u64);
    let (bytes, max_bytes, entries) = (number("bytes"), number("max_bytes"), number("entries"));
    out.push_str("cache    ");
    if let Some(entries) = entries {
        let _ = write!(out, " {entries} answers");
    }
    if let Some(bytes) = bytes {
        let _ = write!(out, " in {}", rounded_size(bytes));
    }
    if let Some(max_bytes) = max_bytes {
        let _ = write!(out, " of {}", rounded_size(max_bytes));
    }
    out.push('\n');
    write_rest(&cache, 10, out);
}

fn write_snapshot(mut snapshot: Map<String, Value>, out: &mut String) {
    let mut number = |name: &str| snapshot.remove(name).as_ref().and_then(Value::as_u64);
    let (written, entries, bytes) = (number("written_unix"), number("entries"), number("bytes"));
    let (restored, left_out) = (number("restored"), number("left_out"));
    out.push_str("snapshot ");
    match written {
        None => out.push_str(" none yet"),
        Some(unix) => {
            let seconds = unix % 86_400;
            let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let (entries, bytes) = (entries.unwrap_or(0), rounded_size(bytes.unwrap_or(0)));
            let _ = write!(out, " {entries} answers in {bytes}, of {h:02}:{m:02}:{s:02}Z");
        }
    }
    if let Some(restored) = restored.filter(|n| *n > 0) {
        let _ = write!(out, ", {restored} restored at start");
    }
    if let Some(left_out) = left_out.filter(|n| *n > 0) {
        let _ = write!(out, ", {left_out} left out");
    }
    out.push('\n');
    // What is amiss stands among the warnings.
    ["good_unix", "refused", "failing"].iter().for_each(|known| drop(snapshot.remove(*known)));
    if snapshot.get("reading") == Some(&Value::Bool(false)) {
        snapshot.remove("reading");
    }
    write_rest(&snapshot, 10, out);
}

fn write_group(group: Value, out: &mut String) {
    let Value::Object(mut group) = group else { return };
    let name = group.remove("name").map_or_else(|| "?".to_owned(), |v| scalar(&v));
    let _ = write!(out, "group     {name}");
    if let Some(belief) = group.remove("belief") {
        let _ = write!(out, ": {}", one_line(&belief));
    }
    if let Some(tier) = group.remove("tier_in_use").filter(|tier| !tier.is_null()) {
        let _ = write!(out, ", tier {} in use", scalar(&tier));
    }
    out.push('\n');
    let mut rows = Vec::new();
    for server in list(group.remove("servers")) {
        let Value::Object(mut server) = server else { continue };
        let mut cell = |name: &str| server.remove(name).map_or_else(String::new, |v| scalar(&v));
        let (tier, name, address, state) = (cell("tier"), cell("name"), cell("address"), cell("state"));
        let (latency, reason) = (cell("latency_ms"), cell("reason"));
        let latency = if latency.is_empty() { latency } else { format!("{latency} ms") };
        let name = if address.is_empty() || address.contains(&name) { address } else { format!("{name} {address}") };
        rows.push([format!("tier {tier}"), name, state, latency, reason, one_line(&Value::Object(server))]);
    }
    write_table(&rows, out);
    write_rest(&group, 10, out);
}

fn write_table<const N: usize>(rows: &[[String; N]], out: &mut String) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let mut line = " ".repeat(10);
        for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Fields by their names, nested ones below them.
fn write_rest(fields: &Map<String, Value>, indent: usize, out: &mut String) {
    let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0).max(8);
    for (name, value) in fields {
        let name = name.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Object(inner) if !inner.is_empty() => {
                let _ = writeln!(out, "{:indent$}{name}", "");
                write_rest(inner, indent + 2, out);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let _ = writeln!(out, "{:indent$}{name}", "");
                for item in items {
                    let _ = writeln!(out, "{:indent$}  {}", "", one_line(item));
                }
            }
            Value::Array(items) if items.is_empty() => {}
            // Sentences stand on lines of their own.
            Value::Array(items) if items.iter().any(|i| i.as_str().is_some_and(|s| s.contains(' '))) => {
                for (n, item) in items.iter().enumerate() {
                    let name = if n == 0 { name.as_str() } else { "" };
                    let _ = writeln!(out, "{:indent$}{name:width$}  {}", "", one_line(item));
                }
            }
            other => {
                let _ = writeln!(out, "{:indent$}{name:width$}  {}", "", one_line(other));
            }
        }
    }
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => Vec::new(),
        Some(one) => vec![one],
    }
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(one_line).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let is_empty = |v: &Value| v.is_null() || v.as_object().is_some_and(Map::is_empty);
            let shown = fields.iter().filter(|(_, v)| !is_empty(v));
            shown
                .map(|(name, v)| format!("{} {}", name.replace('_', " "), one_line(v)))
                .collect::<Vec<_>>()
                .join(", ")
        }
        other => scalar(other),
    }
}

/// A value in itself. Control characters are escaped: what a terminal would obey may come from the network.
pub(super) fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
        Value::String(text) => {
            text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
        }
        other => other.to_string(),
    }
}

/// A span of whole seconds, in its two largest units.
pub(super) fn age(seconds: u64) -> String {
    let unit = [86_400, 3600, 60, 1].into_iter().find(|unit| seconds >= *unit).unwrap_or(1);
    let large = seconds / unit * unit;
    let next = match unit {
        86_400 => 3600,
        3600 => 60,
        _ => 1,
    };
    let small = (seconds - large) / next * next;
    let shown = show_span(Duration::from_secs(large));
    if small == 0 { shown } else { format!("{shown}{}", show_span(Duration::from_secs(small))) }
}

fn rounded_size(bytes: u64) -> String {
    let unit = [1 << 30, 1 << 20, 1 << 10].into_iter().find(|unit| bytes >= *unit).unwrap_or(1);
    show_size(bytes / unit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_laid_out_and_nothing_is_lost() {
        let shown = status(&json!({
            "version": "0.1.0",
            "uptime_seconds": 93_784,
            "listen": ["127.0.0.1:1053", { "address": "[::1]:1053", "state": "not there yet" }],
            "config": {
                "file": "/etc/evenkeel/evenkeel.toml", "hash": "00ff", "age_seconds": 61, "fallback": true,
                "needs_restart": ["listen.dns"],
            },
            "cache": { "bytes": 5_400_000, "max_bytes": 67_108_864, "entries": 1234, "evicted": 5 },
            "snapshot": {
                "file": "/s/cache.snapshot", "written_unix": 1_700_000_000, "good_unix": 1_700_000_000, "entries": 1200,
                "bytes": 140_000, "restored": 7, "left_out": 1, "reading": false, "refused": null, "failing": null,
            },
            "groups": [{
                "name": "default", "belief": "healthy", "tier_in_use": 1,
                "servers": [
                    { "name": "192.0.2.1", "address": "192.0.2.1:53", "tier": 1, "state": "fit", "latency_ms": 3 },
                    { "name": "far", "address": "192.0.2.22:53", "tier": 2, "state": "down", "reason": "3 probes failed",
                      "latency_ms": null, "last_answer_seconds": null, "outstanding": 2 },
                ],
            }],
            "canaries": [
                { "canary": "www.example.org. A", "success": false, "reason": "NXDOMAIN", "seconds": 0.0021,
                  "age_seconds": 3, "failing_seconds": 93 },
                { "canary": "x. AAAA", "success": null, "reason": "not asked yet", "seconds": null },
            ],
            "warnings": ["admin.listen is taken"],
            "rates": { "queries_per_second": 12.5 },
        }));
        let wanted = "\
evenkeel 0.1.0, up 1d2h
warning   admin.listen is taken
listen    127.0.0.1:1053
listen    address [::1]:1053, state not there yet
config    /etc/evenkeel/evenkeel.toml, id 00ff, applied 1m1s ago
          the file is refused; this is the last accepted copy of it
          listen.dns was changed and needs a restart
cache     1234 answers in 5MiB of 64MiB
          evicted   5
snapshot  1200 answers in 136KiB, of 22:13:20Z, 7 restored at start, 1 left out
          file      /s/cache.snapshot
group     default: healthy, tier 1 in use
          tier 1  192.0.2.1:53       fit   3 ms
          tier 2  far 192.0.2.22:53  down        3 probes failed  outstanding 2
canary    www.example.org. A  failing: NXDOMAIN, in 2.1 ms, 3s ago, 1m33s since it began to fail
canary    x. AAAA  not asked yet
rates
  queries per second  12.5
";
        assert_eq!(shown, wanted, "\n{shown}");
    }

    #[test]
    fn a_status_of_another_version_is_still_shown() {
        for value in [json!(null), json!("x"), json!({}), json!({ "groups": 3, "cache": [], "config": null })] {
            assert!(status(&value).ends_with('\n'), "{value}");
        }
    }

    #[test]
    fn an_explanation_is_shown_field_by_field() {
        let shown = explanation(&json!({
            "question": "example.org. A",
            "verdict": "stale",
            "why": ["the group is down", "the answer is 3m old"],
            "entry": { "ttl": 300 },
        }));
        assert!(shown.contains("verdict   stale\n"), "{shown}");
        assert!(shown.contains("why       the group is down\n          the answer is 3m old\n"), "{shown}");
        assert!(shown.contains("entry\n  ttl       300\n"), "{shown}");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert!(!explanation(&json!("\u{1b}[2J")).contains('\u{1b}'));
    }

    #[test]
    fn ages_have_two_units_at_most() {
        for (seconds, shown) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h"), (7325, "2h2m"), (93_784, "1d2h")]
        {
            assert_eq!(age(seconds), shown);
        }
    }
}
