//! `evenkeel top`: the status, live in the terminal.
//!
//! Not pure but for [`draw`]. A thread asks over the control socket once a second; the screen shows what came last, and
//! how old it is once the process is away. `q`, Escape and Ctrl-C end it, SIGTERM, SIGINT and SIGHUP too; the terminal
//! is as it was before, also after a panic (ratatui's hook).

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::render::{age, clock, scalar};
use super::{EXIT_FINE, EXIT_SYSTEM, EXIT_USAGE, talk};
use crate::observe::control::Request;
use crate::observe::control::client::ask;

const ASK_EVERY: Duration = Duration::from_secs(1);
/// A key is noticed, a signal too, within this.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is known of the process.
#[derive(Default)]
struct View {
    status: Option<Value>,
    seen: Option<Instant>,
    /// Why the last question got no answer.
    away: Option<String>,
}

pub(super) fn top(socket: Option<&Path>) -> u8 {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        talk("evenkeel: top needs a terminal\n  hint: `evenkeel status` writes the same once");
        return EXIT_USAGE;
    }
    let ended = Arc::new(AtomicBool::new(false));
    if let Err(e) = end_at_signals(ended.clone()) {
        talk(&format!("evenkeel: signals cannot be listened for: {e}"));
        return EXIT_SYSTEM;
    }
    let answers = ask_again_and_again(socket.map(Path::to_owned), ended.clone());
    let shown = ratatui::try_init().and_then(|mut terminal| {
        let mut view = View::default();
        while !ended.load(Ordering::Relaxed) {
            while let Ok(answer) = answers.try_recv() {
                view.take(answer);
            }
            let ago = view.seen.map(|at| at.elapsed().as_secs());
            terminal.draw(|frame| draw(frame, &view, ago))?;
            if event::poll(LOOK_EVERY)? && is_end(&event::read()?) {
                break;
            }
        }
        Ok(())
    });
    ratatui::restore();
    ended.store(true, Ordering::Relaxed);
    match shown {
        Ok(()) => EXIT_FINE,
        Err(e) => {
            talk(&format!("evenkeel: the terminal: {e}"));
            EXIT_SYSTEM
        }
    }
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}

fn end_at_signals(ended: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut hangup, mut interrupt) = {
        let _within = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = terminate.recv() => {} _ = hangup.recv() => {} _ = interrupt.recv() => {} }
        });
        ended.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn ask_again_and_again(socket: Option<PathBuf>, ended: Arc<AtomicBool>) -> Receiver<Result<Value, String>> {
    // One answer waits at most: who draws is faster than who asks.
    let (send, answers) = mpsc::sync_channel(1);
    thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            let answer = ask(socket.as_deref(), &Request::Status).map_err(|e| e.to_string());
            if send.send(answer).is_err() {
                return;
            }
            thread::sleep(ASK_EVERY);
        }
    });
    answers
}

impl View {
    fn take(&mut self, answer: Result<Value, String>) {
        match answer {
            Ok(status) => (self.status, self.seen, self.away) = (Some(status), Some(Instant::now()), None),
            Err(why) => self.away = Some(why),
        }
    }
}

//------------ Drawing -----------------------------------------------------------------------------------------------

/// Draws what is known; `ago` is how old it is in seconds.
fn draw(frame: &mut Frame<'_>, view: &View, ago: Option<u64>) {
    let area = frame.area();
    let mut lines = Vec::new();
    if let Some(why) = &view.away {
        let since = ago.map_or_else(String::new, |ago| format!(" What is shown is {} old.", age(ago)));
        lines.push(Line::styled(
            format!("No contact: {}.{since} Trying again; q quits.", plain(why)),
            Style::new().add_modifier(Modifier::REVERSED),
        ));
    }
    match &view.status {
        Some(status) => write_status(status, &mut lines, area.width.into()),
        None if view.away.is_none() => lines.push("asking evenkeel …".into()),
        None => {}
    }
    lines.truncate(area.height.into());
    frame.render_widget(Paragraph::new(lines), area);
}

fn write_status(s: &Value, lines: &mut Vec<Line<'static>>, width: usize) {
    let text = |value: &Value| scalar(value);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let color = match s["summary"]["mood"].as_str() {
        Some("calm") => Color::Green,
        Some("watch") => Color::Yellow,
        _ => Color::Red,
    };
    let up = age(s["uptime_seconds"].as_u64().unwrap_or(0));
    lines.push(format!("evenkeel {} on {}, up {up}    q quits", text(&s["version"]), text(&s["host"])).into());
    lines.push(Line::styled(text(&s["summary"]["sentence"]), bold.fg(color)));
    let more = s["summary"]["more"].as_array().into_iter().flatten();
    lines.extend(more.map(|sentence| Line::from(text(sentence))));
    lines.push(Line::default());

    let minute = &s["last_minute"];
    let count = |kind: &str| minute["answers"][kind].as_u64().unwrap_or(0);
    let all: u64 = minute["answers"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
    let share = |n: u64| if all == 0 { 0.0 } else { n as f64 * 100.0 / all as f64 };
    let rate = all as f64 / minute["seconds"].as_f64().unwrap_or(1.0).max(1.0);
    lines.push(
        format!(
            "answers   {rate:.1}/s   fresh {:.1} %   upstream {:.1} %   stale {:.1} %   failed {:.1} %",
            share(count("fresh")),
            share(count("upstream")),
            share(count("stale")),
            share(count("failed")),
        )
        .into(),
    );
    let room = width.saturating_sub(10);
    let sums: Vec<Option<f64>> = columns(&s["history"]["answers"]);
    lines.push(format!("          {}", spark(&sums, room)).into());
    let (bytes, most) = (s["cache"]["bytes"].as_u64().unwrap_or(0), s["cache"]["max_bytes"].as_u64().unwrap_or(0));
    lines.push(
        format!("cache     {} answers, {} of {} KiB", text(&s["cache"]["entries"]), bytes >> 10, most >> 10).into(),
    );
    for group in s["groups"].as_array().into_iter().flatten() {
        lines.push(Line::default());
        lines.push(Line::styled(
            format!(
                "{}: {}, tier {} in use",
                text(&group["name"]),
                text(&group["belief"]),
                text(&group["tier_in_use"])
            ),
            bold,
        ));
        for server in group["servers"].as_array().into_iter().flatten() {
            lines.push(server_line(s, group, server, width));
        }
    }
    lines.push(Line::default());
    for event in s["events"].as_array().into_iter().flatten().rev() {
        let at = clock(event["unix"].as_u64().unwrap_or(0));
        lines.push(format!("{at} {:5} {}", text(&event["level"]), text(&event["text"])).into());
    }
}

fn server_line(s: &Value, group: &Value, server: &Value, width: usize) -> Line<'static> {
    let named = |list: &'_ Value, name: &Value| -> Value {
        list.as_array().into_iter().flatten().find(|one| one["name"] == *name).cloned().unwrap_or_default()
    };
    let ring = named(&named(&s["history"]["groups"], &group["name"])["servers"], &server["name"]);
    let latency: Vec<Option<f64>> = ring["latency_ms"].as_array().into_iter().flatten().map(Value::as_f64).collect();
    let state = scalar(&server["state"]);
    let color = match state.as_str() {
        "fit" => Color::Green,
        "unknown" | "silent" => Color::Yellow,
        _ => Color::Red,
    };
    let ms = server["latency_ms"].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    let head = format!("  {} {:22} ", scalar(&server["tier"]), scalar(&server["name"]));
    let behind = format!(" {ms:>9}  {}", scalar(&server["reason"]));
    let room = width.saturating_sub(head.chars().count() + 8 + behind.chars().count() + 1);
    let line = spark(&latency, room.min(60));
    Line::from(vec![
        Span::raw(head),
        Span::styled(format!("{state:8}"), Style::new().fg(color)),
        Span::raw(behind),
        Span::raw(format!(" {line}")),
    ])
}

/// The sum over all kinds, a sample each.
fn columns(answers: &Value) -> Vec<Option<f64>> {
    let mut sums: Vec<Option<f64>> = Vec::new();
    for (_, column) in answers.as_object().into_iter().flatten() {
        for (n, count) in column.as_array().into_iter().flatten().enumerate() {
            if n >= sums.len() {
                sums.push(Some(0.0));
            }
            sums[n] = sums[n].map(|sum| sum + count.as_f64().unwrap_or(0.0));
        }
    }
    sums
}

/// The last values as a line of blocks, a blank where there is none.
fn spark(values: &[Option<f64>], room: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &values[values.len().saturating_sub(room)..];
    let top = shown.iter().flatten().copied().fold(0.0, f64::max);
    let block =
        |value: f64| if top > 0.0 { BLOCKS[((value / top * 7.0).round() as usize).min(7)] } else { BLOCKS[0] };
    shown.iter().map(|value| value.map_or(' ', block)).collect()
}

fn plain(text: &str) -> String {
    scalar(&Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    fn screen(view: &View, ago: Option<u64>, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view, ago)).unwrap();
        terminal.backend().to_string()
    }

    fn status() -> Value {
        json!({
            "version": "0.1.0", "host": "node1", "uptime_seconds": 93,
            "summary": { "mood": "watch", "sentence": "The primary has been silent for 4 s; the secondary answers.",
                         "more": ["12 % of the last minute's answers were stale."] },
            "last_minute": { "seconds": 60.0, "answers": { "fresh": 540, "stale": 60 } },
            "cache": { "entries": 7, "bytes": 2048, "max_bytes": 4096 },
            "history": {
                "answers": { "fresh": [1, 2, 4], "stale": [0, 0, 4] },
                "groups": [{ "name": "default", "servers": [{ "name": "b", "latency_ms": [1.0, null, 8.0] }] }],
            },
            "groups": [{ "name": "default", "belief": "healthy", "tier_in_use": 2, "servers": [
                { "name": "a", "tier": 1, "state": "silent", "reason": "questions overdue", "latency_ms": null },
                { "name": "b", "tier": 2, "state": "fit", "reason": "answers", "latency_ms": 8.0 },
            ] }],
            "events": [{ "unix": 3661, "level": "info", "text": "old" }, { "unix": 3662, "level": "warn", "text": "\u{1b}[2J" }],
        })
    }

    #[test]
    fn the_status_fits_on_80_by_24() {
        let view = View { status: Some(status()), ..View::default() };
        let shown = screen(&view, Some(0), (80, 24));
        for part in [
            "evenkeel 0.1.0 on node1, up 1m33s",
            "The primary has been silent for 4 s; the secondary answers.",
            "12 % of the last minute's answers were stale.",
            "answers   10.0/s   fresh 90.0 %   upstream 0.0 %   stale 10.0 %   failed 0.0 %",
            "▂▃█",
            "default: healthy, tier 2 in use",
            "  1 a                      silent           -  questions overdue",
            "  2 b                      fit         8.0 ms  answers ▂ █",
            "01:01:02Z warn  \\u{1b}[2J",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
    }

    #[test]
    fn a_process_that_is_away_is_told_with_the_age_of_what_is_shown() {
        let mut view = View { status: Some(status()), ..View::default() };
        view.take(Err("no running evenkeel found".into()));
        let shown = screen(&view, Some(12), (100, 24));
        assert!(shown.contains("No contact: no running evenkeel found. What is shown is 12s old."), "{shown}");
        assert!(shown.contains("The primary has been silent"), "{shown}");
        view.take(Ok(status()));
        assert!(!screen(&view, Some(0), (100, 24)).contains("No contact"));
    }

    #[test]
    fn any_size_and_any_status_are_drawn() {
        for status in [json!(null), json!({}), json!({ "groups": [3], "events": {}, "history": [] }), status()] {
            let view = View { status: Some(status), away: Some("x".into()), ..View::default() };
            for size in [(1, 1), (20, 5), (300, 80)] {
                screen(&view, None, size);
            }
        }
    }
}
