//! Writes events as lines of the log, and keeps the last of them for status.
//!
//! Lines are limited where they are made: of one kind and subject (a server, a group, an address) at most
//! [`LINES_PER_MINUTE`] a minute. What is held back is counted, and the next line of the kind says how many.

use std::collections::{HashMap, VecDeque};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::{Event, LogLevel};
use crate::clock::{self, Moment};

/// Lines of one kind and subject in a minute.
pub const LINES_PER_MINUTE: u32 = 6;
/// Events that status shows.
pub const RECENT_MAX: usize = 100;
/// Kinds and subjects whose lines are counted; beyond it counting starts anew.
const SUBJECTS_MAX: usize = 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// An event as status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Seconds since 1970.
    pub unix: i64,
    /// Its level.
    pub level: &'static str,
    /// Its word.
    pub event: &'static str,
    /// Its sentence.
    pub text: String,
}

static REPORTER: LazyLock<Mutex<Reporter>> = LazyLock::new(Mutex::default);

/// Writes the event's line and keeps it for status, within its limit. Never waits for the log.
pub fn report(event: Event) {
    let line = reporter().admit(&event, clock::now(), clock::wall().0);
    let Some(line) = line else { return };
    let word = line.event;
    match event.level() {
        LogLevel::Error => tracing::error!(target: "evenkeel", event = word, "{}", line.text),
        LogLevel::Warn => tracing::warn!(target: "evenkeel", event = word, "{}", line.text),
        LogLevel::Info => tracing::info!(target: "evenkeel", event = word, "{}", line.text),
        LogLevel::Debug => tracing::debug!(target: "evenkeel", event = word, "{}", line.text),
        LogLevel::Trace => tracing::trace!(target: "evenkeel", event = word, "{}", line.text),
    }
}

/// The last events, the oldest first.
pub fn recent() -> Vec<Seen> {
    reporter().recent.iter().cloned().collect()
}

fn reporter() -> std::sync::MutexGuard<'static, Reporter> {
    // A panic between two lines leaves both tables whole.
    REPORTER.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Reporter {
    recent: VecDeque<Seen>,
    lines: HashMap<(&'static str, String), Lines>,
}

#[derive(Debug)]
struct Lines {
    since: Moment,
    written: u32,
    held_back: u32,
}

impl Reporter {
    /// The line to write; `None` where this kind has had its share of this minute.
    fn admit(&mut self, event: &Event, now: Moment, unix: i64) -> Option<Seen> {
        if self.lines.len() >= SUBJECTS_MAX {
            self.lines.clear();
        }
        let lines = self.lines.entry((event.word(), event.subject()));
        let lines = lines.or_insert(Lines { since: now, written: 0, held_back: 0 });
        if now.since(lines.since) >= MINUTE {
            (lines.since, lines.written) = (now, 0);
        }
        if lines.written >= LINES_PER_MINUTE {
            lines.held_back += 1;
            return None;
        }
        lines.written += 1;
        let mut text = event.to_string();
        if lines.held_back > 0 {
            text += &format!(" ({} lines like this were held back)", lines.held_back);
            lines.held_back = 0;
        }
        let seen = Seen { unix, level: event.level().word(), event: event.word(), text };
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(seen.clone());
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_lines_a_minute_are_written_and_a_seventh_is_counted() {
        let mut reporter = Reporter::default();
        let start = Moment::from_secs(1000);
        let written = |r: &mut Reporter, at| (0..9).filter(|_| r.admit(&down(), at, 0).is_some()).count();
        assert_eq!(written(&mut reporter, start), 6);
        assert_eq!(written(&mut reporter, start + Duration::from_secs(59)), 0);
        let line = reporter.admit(&down(), start + MINUTE, 0).unwrap();
        assert!(line.text.ends_with("(12 lines like this were held back)"), "{}", line.text);
        let line = reporter.admit(&down(), start + MINUTE, 0).unwrap();
        assert!(!line.text.contains("held back"));
    }

    #[test]
    fn one_server_does_not_silence_another() {
        let mut reporter = Reporter::default();
        (0..20).for_each(|_| drop(reporter.admit(&down(), Moment::ZERO, 0)));
        let other =
            Event::ServerSilent { group: "default".into(), server: "192.0.2.2".into(), last_answer_ago: None };
        assert!(reporter.admit(&other, Moment::ZERO, 0).is_some());
    }

    #[test]
    fn the_last_hundred_are_kept() {
        let mut reporter = Reporter::default();
        for n in 0..5000u32 {
            let remark = format!("remark {n}");
            assert!(reporter.admit(&Event::ConfigRemark { remark }, Moment::ZERO, n.into()).is_some());
        }
        assert_eq!(reporter.recent.len(), RECENT_MAX);
        assert_eq!(reporter.recent.back().map(|s| s.text.as_str()), Some("remark 4999"));
        assert!(reporter.lines.len() <= SUBJECTS_MAX);
    }

    #[test]
    fn what_is_reported_stands_in_recent() {
        report(Event::Flushed { entries: 4711 });
        assert!(recent().iter().any(|s| s.event == "flushed" && s.text.contains("4711")));
    }

    fn down() -> Event {
        Event::ServerDown {
            group: "default".into(),
            server: "192.0.2.1".into(),
            reason: "silent".into(),
            last_answer_ago: None,
        }
    }
}
