//! A drill for a terminal of 80 columns: a head, a row an interval, the verdict.
//!
//! Pure. Shares are drawn as blocks; what is there at all has at least one. Colour only repeats what the blocks say.

use std::fmt::Write;

use super::report::{Mark, Report, Row};
use super::verdict::{Amount, Judged, clock, span};
use crate::config::human;

/// Cells of a bar.
const BAR: usize = 36;

/// What a cell of a bar stands for: its sign, and its colour (SGR).
const FRESH: (char, &str) = ('█', "32");
const STALE: (char, &str) = ('▒', "33");
const DENIED: (char, &str) = ('░', "35");
const FAILED: (char, &str) = ('·', "31");

/// The whole of it: head, picture, verdict.
pub fn whole(report: &Report, colour: bool) -> String {
    let mut out = String::new();
    let p = Pen { colour };
    let _ = writeln!(out, "{}: {}", p.bold(&report.name), report.title);
    let (length, questions) = (human::show_span(report.length), report.questions);
    let _ = writeln!(out, "{length} of virtual time, {questions} questions, seed {}", report.seed);
    let (servers, groups) = (counted(report.servers, "server"), counted(report.groups.len(), "group"));
    let _ = writeln!(out, "{}: {servers} in {groups}\n", report.configuration);
    rows(report, p, &mut out);
    out.push('\n');
    for judged in &report.judged {
        objective(judged, p, &mut out);
    }
    for note in &report.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    let _ = writeln!(out, "{}", if report.passed() { p.paint("32", "passed") } else { p.paint("31", "failed") });
    out
}

/// One line, for where many drills were run.
pub fn line(report: &Report, colour: bool) -> String {
    let held = report.judged.iter().filter(|j| j.passed).count();
    let (asked, good) = report.rows.iter().fold((0, 0), |(a, g), r| (a + r.asked, g + r.fresh + r.stale));
    let share = Amount::Share(if asked == 0 { 1.0 } else { good as f64 / asked as f64 });
    format!(
        "{} {:<22} {:>9} answered, {held} of {}\n",
        mark(report.passed(), Pen { colour }),
        report.name,
        share.to_string(),
        counted(report.judged.len(), "objective"),
    )
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[derive(Clone, Copy)]
struct Pen {
    colour: bool,
}

impl Pen {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }
}

fn mark(passed: bool, p: Pen) -> String {
    if passed { p.paint("32", "✓") } else { p.paint("31", "✗") }
}

fn rows(report: &Report, p: Pen, out: &mut String) {
    let _ = writeln!(out, "{:>8}  {:<BAR$} {:>7} {:>7}  {:<5} {:>8}", "", "answered", "", "p99", "tier", "up/s");
    let mut marks = report.marks.iter().peekable();
    for row in &report.rows {
        while let Some(mark) = marks.next_if(|m| m.at <= row.at) {
            act(mark, p, out);
        }
        let _ = writeln!(
            out,
            "{:>8}  {} {:>7} {:>7}  {:<5} {:>8.1}",
            clock(row.at),
            bar(row, p),
            percent(row),
            span(row.p99),
            tiers(row),
            row.upstream_per_second,
        );
    }
    marks.for_each(|mark| act(mark, p, out));
    let sign = |(sign, colour): (char, &str)| p.paint(colour, &sign.to_string());
    let [fresh, stale, denied, failed] = [FRESH, STALE, DENIED, FAILED].map(sign);
    let signs = format!("{fresh} fresh  {stale} stale  {denied} denied  {failed} not answered");
    let _ = writeln!(out, "{:>8}  {signs}   * no server is fit", "");
    if report.groups.len() > 1 {
        let _ = writeln!(out, "{:>8}  tiers of {}, as one where they are alike", "", report.groups.join(", "));
    }
}

fn act(mark: &Mark, p: Pen, out: &mut String) {
    let text = format!("{} {}", if mark.begins { "begins:" } else { "ends:" }, mark.what);
    let _ = writeln!(out, "{:>8}  {}", clock(mark.at), p.bold(&text));
}

fn percent(row: &Row) -> String {
    if row.asked == 0 {
        return "–".to_owned();
    }
    let share = (row.fresh + row.stale) as f64 / row.asked as f64 * 100.0;
    // What is short of all must not be shown as all.
    let shown = if share < 100.0 { share.min(99.9) } else { share };
    format!("{shown:.1} %")
}

/// The tier of each group; a star where none of its servers is fit.
fn tiers(row: &Row) -> String {
    let one = |(tier, dark): &(usize, bool)| format!("{}{}", tier + 1, if *dark { "*" } else { "" });
    let mut all: Vec<String> = row.tiers.iter().map(one).collect();
    if all.len() > 1 && all.iter().all(|t| *t == all[0]) {
        all.truncate(1);
    }
    all.join(",")
}

fn bar(row: &Row, p: Pen) -> String {
    if row.asked == 0 {
        return " ".repeat(BAR);
    }
    let failed = row.asked - row.fresh - row.stale - row.denied;
    let mut cells = [row.fresh, row.stale, row.denied, failed]
        .map(|n| if n == 0 { 0 } else { ((n * BAR) as f64 / row.asked as f64).round().max(1.0) as usize });
    // Rounding makes it a few too long or short: the longest part bears that.
    let sum: usize = cells.iter().sum();
    if let Some(longest) = cells.iter_mut().rev().max_by_key(|n| **n) {
        *longest = (*longest + BAR).saturating_sub(sum);
    }
    let signs = [FRESH, STALE, DENIED, FAILED];
    signs.iter().zip(cells).map(|((sign, colour), n)| p.paint(colour, &sign.to_string().repeat(n))).collect()
}

fn objective(judged: &Judged, p: Pen, out: &mut String) {
    let of = judged.of.as_ref().map(|of| format!(" of {of}")).unwrap_or_default();
    let what = format!("{}{of}", judged.key.trim_end_matches("_max").replace('_', " "));
    let when = format!("{} to {}", clock(judged.from), clock(judged.until));
    let bound = if judged.at_most { "≤" } else { "≥" };
    let wanted = format!("{bound} {}", judged.wanted);
    let seen = judged.seen.to_string();
    let _ = writeln!(out, "{} {what:<30} {when:<16} {wanted:>11} {seen:>11}", mark(judged.passed, p));
    for why in &judged.why {
        let _ = writeln!(out, "    {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn row(fresh: usize, stale: usize, failed: usize) -> Row {
        denying(fresh, stale, 0, failed)
    }

    fn denying(fresh: usize, stale: usize, denied: usize, failed: usize) -> Row {
        Row {
            at: Duration::ZERO,
            asked: fresh + stale + denied + failed,
            fresh,
            stale,
            denied,
            p50: Duration::ZERO,
            p99: Duration::ZERO,
            asked_per_second: 0.0,
            upstream_per_second: 0.0,
            tiers: vec![(0, false)],
        }
    }

    #[test]
    fn a_bar_has_its_length_and_shows_what_is_there_at_all() {
        let plain = Pen { colour: false };
        for parts in [
            [1, 0, 0, 0],
            [1000, 1, 1, 1],
            [1, 1000, 1, 1],
            [1, 1, 1, 1000],
            [0, 0, 0, 5],
            [0, 3, 0, 3],
            [999, 0, 0, 1],
            [1, 1, 1, 1],
            [7, 7, 7, 7],
        ] {
            let [fresh, stale, denied, failed] = parts;
            let drawn = bar(&denying(fresh, stale, denied, failed), plain);
            assert_eq!(drawn.chars().count(), BAR, "{parts:?}: {drawn}");
            for ((sign, _), n) in [FRESH, STALE, DENIED, FAILED].iter().zip(parts) {
                assert_eq!(drawn.contains(*sign), n > 0, "{parts:?}: {drawn}");
            }
        }
        assert_eq!(percent(&row(99_999, 0, 1)), "99.9 %");
        assert_eq!(percent(&row(5, 5, 0)), "100.0 %");
    }

    #[test]
    fn colour_only_repeats_what_the_blocks_say() {
        let drawn = bar(&row(3, 3, 3), Pen { colour: true });
        assert!(drawn.contains("\x1b[33m▒"));
        let mut bare = drawn;
        for code in ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"] {
            bare = bare.replace(code, "");
        }
        assert_eq!(bare, bar(&row(3, 3, 3), Pen { colour: false }));
    }

    #[test]
    fn groups_that_use_the_same_tier_are_shown_as_one() {
        let mut two = row(1, 0, 0);
        two.tiers = vec![(0, false), (0, false)];
        assert_eq!(tiers(&two), "1");
        two.tiers[1] = (1, true);
        assert_eq!(tiers(&two), "1,2*");
    }
}
