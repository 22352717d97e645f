//! What a drill came to: rows over time, marks between them, objectives; and the same as JSON.
//!
//! Pure. `conf/drills/README.md` documents the JSON; its shape has a version, which changes where a key changes its
//! meaning or goes.

use std::time::Duration;

use serde_json::{Value, json};

use super::measure::{Got, Tape};
use super::script::Scenario;
use super::servers::Network;
use super::stage::Stage;
use super::verdict::{Amount, Judged};

/// Version of the JSON.
pub const JSON_VERSION: u32 = 1;
/// Rows of a picture at most.
const ROWS_MAX: u128 = 24;
/// Lengths of an interval, in seconds.
const INTERVALS: [u64; 14] = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600];

/// What a drill came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// What it rehearses.
    pub title: String,
    /// How the configuration is called.
    pub configuration: String,
    /// Names of its groups.
    pub groups: Vec<String>,
    /// Servers in them.
    pub servers: usize,
    /// Where random numbers began.
    pub seed: u64,
    /// Virtual time.
    pub length: Duration,
    /// Questions of clients.
    pub questions: usize,
    /// Length of a row.
    pub interval: Duration,
    /// What was measured, interval by interval.
    pub rows: Vec<Row>,
    /// Beginnings and ends of acts, in the order of time.
    pub marks: Vec<Mark>,
    /// The objectives.
    pub judged: Vec<Judged>,
    /// What should be known beside them.
    pub notes: Vec<String>,
}

/// One interval.
#[derive(Clone, Debug)]
pub struct Row {
    /// When it begins.
    pub at: Duration,
    /// Questions that count.
    pub asked: usize,
    /// Answered fresh.
    pub fresh: usize,
    /// Answered stale.
    pub stale: usize,
    /// Denied although the name is there.
    pub denied: usize,
    /// Half of the replies within this.
    pub p50: Duration,
    /// 99 of 100 within this.
    pub p99: Duration,
    /// Questions of all loads a second.
    pub asked_per_second: f64,
    /// Questions upstream a second.
    pub upstream_per_second: f64,
    /// Tier in use, from 0, and whether no server is fit, by group, at its end.
    pub tiers: Vec<(usize, bool)>,
}

/// An act begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Duration,
    /// Does it begin?
    pub begins: bool,
    /// What it does.
    pub what: String,
}

impl Report {
    /// Of what was measured and judged.
    pub fn new(scenario: &Scenario, stage: &Stage, network: &Network, tape: &Tape, judged: Vec<Judged>) -> Self {
        let interval = interval(scenario.length);
        let count = scenario.length.as_nanos().div_ceil(interval.as_nanos()) as u32;
        let rows = (0..count).map(|n| row(scenario, stage, tape, interval * n, interval)).collect();
        let mut marks = Vec::new();
        for act in &scenario.acts {
            marks.push(Mark { at: act.at, begins: true, what: act.words() });
            if act.until < scenario.length {
                marks.push(Mark { at: act.until, begins: false, what: act.words() });
            }
        }
        marks.sort_by_key(|m| m.at);
        Self {
            name: scenario.name.clone(),
            title: scenario.title.clone(),
            configuration: stage.name.clone(),
            groups: stage.groups.iter().map(|p| p.settings.name.clone()).collect(),
            servers: stage.servers().count(),
            seed: scenario.seed,
            length: scenario.length,
            questions: tape.asked.len(),
            interval,
            rows,
            marks,
            judged,
            notes: notes(scenario, stage, network),
        }
    }

    /// Does every objective hold?
    pub fn passed(&self) -> bool {
        self.judged.iter().all(|j| j.passed)
    }

    /// As one object.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        let marks: Vec<Value> =
            self.marks.iter().map(|m| json!({ "at": seconds(m.at), "begins": m.begins, "what": m.what })).collect();
        let objectives: Vec<Value> = self.judged.iter().map(objective_json).collect();
        json!({
            "scenario": self.name,
            "title": self.title,
            "seed": self.seed,
            "length": seconds(self.length),
            "questions": self.questions,
            "passed": self.passed(),
            "interval": seconds(self.interval),
            "intervals": rows,
            "acts": marks,
            "objectives": objectives,
            "notes": self.notes,
        })
    }

    fn row_json(&self, row: &Row) -> Value {
        let tiers: Vec<Value> = self
            .groups
            .iter()
            .zip(&row.tiers)
            .map(|(group, (tier, dark))| json!({ "group": group, "tier": tier + 1, "dark": dark }))
            .collect();
        json!({
            "at": seconds(row.at),
            "asked": row.asked,
            "fresh": row.fresh,
            "stale": row.stale,
            "denied": row.denied,
            "failed": row.asked - row.fresh - row.stale - row.denied,
            "p50": seconds(row.p50),
            "p99": seconds(row.p99),
            "asked_per_second": row.asked_per_second,
            "upstream_per_second": row.upstream_per_second,
            "tiers": tiers,
        })
    }
}

/// What `--json` prints: one object, however many drills there were.
pub fn all_json(configuration: &str, reports: &[Report]) -> Value {
    json!({
        "version": JSON_VERSION,
        "configuration": configuration,
        "passed": reports.iter().all(Report::passed),
        "drills": reports.iter().map(Report::to_json).collect::<Vec<Value>>(),
    })
}

fn objective_json(judged: &Judged) -> Value {
    json!({
        "objective": judged.key,
        "of": judged.of,
        "from": seconds(judged.from),
        "until": seconds(judged.until),
        "wanted": amount_json(judged.wanted),
        "seen": amount_json(judged.seen),
        "passed": judged.passed,
        "why": judged.why,
    })
}

fn amount_json(amount: Amount) -> Value {
    match amount {
        Amount::Share(x) | Amount::Ratio(x) => json!(x),
        Amount::Span(d) => json!(seconds(d)),
        Amount::Count(n) => json!(n),
        Amount::Never => Value::Null,
    }
}

/// Seconds, to the microsecond.
fn seconds(d: Duration) -> f64 {
    d.as_micros() as f64 / 1e6
}

fn interval(length: Duration) -> Duration {
    let fits = |secs: &&u64| length.as_nanos().div_ceil(Duration::from_secs(**secs).as_nanos()) <= ROWS_MAX;
    Duration::from_secs(*INTERVALS.iter().find(fits).unwrap_or(&3600))
}

fn row(scenario: &Scenario, stage: &Stage, tape: &Tape, at: Duration, interval: Duration) -> Row {
    let until = (at + interval).min(scenario.length);
    let counts = |load: u16| scenario.loads[usize::from(load)].counts();
    let sum = tape.sum(at, until, &|a| counts(a.load));
    let asked = tape.within(at, until);
    let secs = (until - at).as_secs_f64().max(1e-3);
    let sent: u64 = tape.sent(at, until).iter().map(|n| u64::from(*n)).sum();
    let end = until.saturating_sub(Duration::from_nanos(1));
    let tiers = (0..stage.groups.len()).map(|g| tape.using(g, end).map_or((0, false), |u| (u.tier, u.dark)));
    Row {
        at,
        asked: sum.asked,
        fresh: sum.fresh,
        stale: sum.stale,
        denied: asked.iter().filter(|a| counts(a.load) && a.got == Got::Denied).count(),
        p50: sum.quantile(0.5),
        p99: sum.quantile(0.99),
        asked_per_second: asked.len() as f64 / secs,
        upstream_per_second: sent as f64 / secs,
        tiers: tiers.collect(),
    }
}

fn notes(scenario: &Scenario, stage: &Stage, network: &Network) -> Vec<String> {
    let mut notes = Vec::new();
    for (i, act) in scenario.acts.iter().enumerate() {
        if !network.is_struck(i) {
            notes.push(format!("this configuration has no server that \"{}\" could strike", act.words()));
        }
    }
    for part in &stage.groups {
        if part.suffix.is_none() {
            let name = &part.settings.name;
            notes.push(format!("the group {name} is not asked: every name of its zones leads to another group"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_at_most_24_rows_of_a_round_length() {
        for (length, want) in [(10, 1), (24, 1), (25, 2), (600, 30), (900, 60), (86_400, 3600)] {
            assert_eq!(interval(Duration::from_secs(length)), Duration::from_secs(want), "{length}");
        }
    }
}
