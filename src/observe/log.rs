//! Where log lines go: to stderr, by a bounded queue that nobody waits for.
//!
//! A thread of its own writes the lines; where stderr stands still the queue fills, and what comes then is dropped
//! and counted ([`Log::dropped`]). [`Log`] is held until the end: dropping it writes what is queued, for at most about
//! a second.
//!
//! - Our own lines are written from the configured level on. Lines of libraries are written from `debug` on only: they
//!   may hold DNS names, which never stand above debug.
//! - Text is "time level sentence field=value"; under journald, which adds the time itself, `<priority>sentence …`
//!   (sd-daemon(3)); JSON is one object a line. Control characters are escaped, so that one event is one line.
//! - Level and format follow a reload.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use super::{LogFormat, LogLevel, LogSettings};

/// Lines that wait for stderr.
const LINES_QUEUED_MAX: usize = 4096;

/// The log, while it is held.
#[derive(Debug)]
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
    shape: Arc<AtomicU8>,
    dropped: ErrorCounter,
    _writes_the_rest: WorkerGuard,
}

/// Starts the log of the process.
///
/// # Errors
///
/// Where it was started before.
pub fn start(settings: &LogSettings) -> Result<Log, tracing::subscriber::SetGlobalDefaultError> {
    let (log, subscriber) = build(settings, std::io::stderr());
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(log)
}

fn build(
    settings: &LogSettings,
    to: impl std::io::Write + Send + 'static,
) -> (Log, impl Subscriber + Send + Sync + 'static) {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_QUEUED_MAX).thread_name("log").finish(to);
    let dropped = writer.error_counter();
    let shape = Arc::new(AtomicU8::new(Shape::of(settings.format) as u8));
    let (filter_layer, filter) = reload::Layer::new(targets(settings.level));
    let lines = tracing_subscriber::fmt::layer::<_>()
        .event_format(Line { shape: Arc::clone(&shape) })
        .with_writer(move || -> NonBlocking { writer.clone() });
    let subscriber = tracing_subscriber::registry().with(filter_layer).with(lines);
    (Log { filter, shape, dropped, _writes_the_rest: guard }, subscriber)
}

impl Log {
    /// Takes other settings.
    pub fn apply(&self, settings: &LogSettings) {
        self.shape.store(Shape::of(settings.format) as u8, Ordering::Relaxed);
        // The only error is that the subscriber is gone, and then there is no log to filter.
        let _ = self.filter.reload(targets(settings.level));
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }

    /// A counter of dropped lines that may be kept elsewhere.
    pub fn dropped_counter(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.dropped_lines() as u64
    }
}

fn targets(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let libraries = if level >= LogLevel::Debug { LevelFilter::INFO } else { LevelFilter::OFF };
    Targets::new().with_target("evenkeel", own).with_default(libraries)
}

//------------ Lines -------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    Journald,
    Json,
}

impl Shape {
    fn of(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Shape::Text,
            LogFormat::Journald => Shape::Journald,
            LogFormat::Json => Shape::Json,
            LogFormat::Auto if stderr_is_journal() => Shape::Journald,
            LogFormat::Auto if std::io::stderr().is_terminal() => Shape::Text,
            LogFormat::Auto => Shape::Json,
        }
    }
}

/// $JOURNAL_STREAM is "device:inode" of the stream that journald reads. A child whose stderr leads elsewhere inherits
/// the variable too, so the file is compared (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

struct Line {
    shape: Arc<AtomicU8>,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &tracing::Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        let mut time = String::new();
        tracing_subscriber::fmt::time().format_time(&mut Writer::new(&mut time))?;
        match self.shape.load(Ordering::Relaxed) {
            shape if shape == Shape::Json as u8 => {
                let mut object = fields.rest;
                object.insert("time".into(), time.into());
                object.insert("level".into(), level_word(level).into());
                object.insert("message".into(), fields.message.into());
                writeln!(to, "{}", Value::Object(object))
            }
            shape => {
                if shape == Shape::Journald as u8 {
                    write!(to, "<{}>", priority(level))?;
                } else {
                    write!(to, "{time} {:5} ", level_word(level))?;
                }
                to.write_str(&escaped(&fields.message))?;
                for (key, value) in &fields.rest {
                    match value {
                        Value::String(text) => write!(to, " {key}={}", escaped(text))?,
                        value => write!(to, " {key}={value}")?,
                    }
                }
                to.write_char('\n')
            }
        }
    }
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The priority of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.rest.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn each_shape_writes_one_line_an_event() {
        let text = lines(LogFormat::Text, LogLevel::Info, || {
            tracing::warn!(target: "evenkeel", event = "server_down", n = 3, "a\nb");
        });
        assert!(text[0].ends_with(" warn  a\\nb event=server_down n=3\n"), "{text:?}");
        let text = lines(LogFormat::Journald, LogLevel::Info, || tracing::error!(target: "evenkeel::x", "broken"));
        assert_eq!(text, ["<3>broken\n"]);
        let text = lines(LogFormat::Json, LogLevel::Info, || {
            tracing::info!(target: "evenkeel", event = "started", "say \"hello\"\n");
        });
        let value: Value = serde_json::from_str(&text[0]).unwrap();
        assert_eq!((&value["message"], &value["event"]), (&"say \"hello\"\n".into(), &"started".into()));
        assert_eq!(text[0].matches('\n').count(), 1);
    }

    #[test]
    fn libraries_are_heard_from_debug_on_only() {
        let talk = || {
            tracing::error!(target: "hickory_net", "a name");
            tracing::info!(target: "evenkeel::serve", "ours");
            tracing::debug!(target: "evenkeel::serve", "a name of ours");
        };
        assert_eq!(lines(LogFormat::Journald, LogLevel::Info, talk), ["<6>ours\n"]);
        assert_eq!(lines(LogFormat::Journald, LogLevel::Error, talk), [""; 0]);
        assert_eq!(lines(LogFormat::Journald, LogLevel::Debug, talk).len(), 3);
    }

    #[test]
    fn level_and_format_follow_a_reload() {
        let text = lines_of(LogFormat::Text, LogLevel::Error, |log| {
            tracing::info!(target: "evenkeel", "unheard");
            log.apply(&LogSettings { level: LogLevel::Info, format: LogFormat::Journald });
            tracing::info!(target: "evenkeel", "heard");
        });
        assert_eq!(text, ["<6>heard\n"]);
    }

    #[test]
    fn nobody_waits_for_a_writer_that_stands_still() {
        struct Stuck(mpsc::Receiver<()>);
        impl std::io::Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (go, stuck) = mpsc::channel();
        let settings = LogSettings { level: LogLevel::Info, format: LogFormat::Text };
        let (log, subscriber) = build(&settings, Stuck(stuck));
        tracing::subscriber::with_default(subscriber, || {
            (0..2 * LINES_QUEUED_MAX).for_each(|n| tracing::info!(target: "evenkeel", n, "line"));
        });
        assert!(log.dropped() >= LINES_QUEUED_MAX as u64 - 2, "{}", log.dropped());
        assert_eq!(log.dropped(), log.dropped_counter()());
        drop(go);
    }

    fn lines(format: LogFormat, level: LogLevel, talk: impl Fn()) -> Vec<String> {
        lines_of(format, level, |_| talk())
    }

    fn lines_of(format: LogFormat, level: LogLevel, talk: impl Fn(&Log)) -> Vec<String> {
        struct Sent(mpsc::Sender<String>);
        impl std::io::Write for Sent {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (to, from) = mpsc::channel();
        let (log, subscriber) = build(&LogSettings { level, format }, Sent(to));
        tracing::subscriber::with_default(subscriber, || talk(&log));
        drop(log);
        from.iter().collect()
    }
}
