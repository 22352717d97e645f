//! The verdict: each objective with what was wanted and what was seen, and for a miss the reason in words.
//!
//! Pure. A reason has two parts: what was measured (which questions, from when on), and what in the configuration makes
//! it so where that can be said: one tier alone, stale answers off, a hold that is longer than what was wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::measure::{Asked, Got, Tape, Using};
use super::script::{Objective, Scenario, Want, round};
use super::servers::Network;
use super::stage::{Part, Stage};
use crate::cache::freshness::Patience;
use crate::config::human;

/// An amount, wanted or seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A share of questions.
    Share(f64),
    /// Time.
    Span(Duration),
    /// A number of something.
    Count(u64),
    /// Questions upstream for one of a client.
    Ratio(f64),
    /// It did not come to pass.
    Never,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What is short of all must not be shown as all.
            Amount::Share(x) if *x < 1.0 && *x > 0.9999 => f.write_str("> 99.99 %"),
            Amount::Share(x) => write!(f, "{} %", round(x * 100.0)),
            Amount::Span(d) => f.write_str(&span(*d)),
            Amount::Count(n) => write!(f, "{n}"),
            Amount::Ratio(x) => f.write_str(&round(*x)),
            Amount::Never => f.write_str("never"),
        }
    }
}

/// A span as people read it: whole milliseconds below a second, tenths of a second below a minute.
pub(super) fn span(d: Duration) -> String {
    match d.as_secs_f64() {
        0.0 => "0 ms".to_owned(),
        s if s < 0.001 => "< 1 ms".to_owned(),
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 60.0 => format!("{s:.1} s"),
        s => human::show_span(Duration::from_secs(s.round() as u64)),
    }
}

/// A time within a drill: `2:05`, from an hour on `1:02:05`.
pub fn clock(at: Duration) -> String {
    let (h, m, s) = (at.as_secs() / 3600, at.as_secs() / 60 % 60, at.as_secs() % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}

/// An objective, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The key that asks for it.
    pub key: &'static str,
    /// The load that it is about, where it is about one.
    pub of: Option<String>,
    /// Its span.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
    /// At most what was wanted, or at least?
    pub at_most: bool,
    /// What was wanted.
    pub wanted: Amount,
    /// What was seen.
    pub seen: Amount,
    /// Does it hold?
    pub passed: bool,
    /// Why it does not.
    pub why: Vec<String>,
}

/// Judges every objective of a scenario.
pub fn judge(scenario: &Scenario, stage: &Stage, network: &Network, tape: &Tape) -> Vec<Judged> {
    let court = Court { scenario, stage, network, tape };
    scenario.objectives.iter().map(|objective| court.judge(objective)).collect()
}

struct Court<'d> {
    scenario: &'d Scenario,
    stage: &'d Stage,
    network: &'d Network,
    tape: &'d Tape,
}

/// Key, at most or at least, wanted, seen.
type Finding = (&'static str, bool, Amount, Amount);

impl Court<'_> {
    fn judge(&self, o: &Objective) -> Judged {
        let (key, at_most, wanted, seen) = self.find(o);
        let passed = match (wanted, seen) {
            (_, Amount::Never) => false,
            (Amount::Share(w) | Amount::Ratio(w), Amount::Share(s) | Amount::Ratio(s)) => {
                if at_most {
                    s <= w
                } else {
                    s >= w
                }
            }
            (Amount::Span(w), Amount::Span(s)) => s <= w,
            (Amount::Count(w), Amount::Count(s)) => s <= w,
            _ => false,
        };
        Judged {
            key,
            of: o.of.map(|load| self.scenario.loads[load].name.clone()),
            from: o.from,
            until: o.until,
            at_most,
            wanted,
            seen,
            passed,
            why: if passed { Vec::new() } else { self.why(o) },
        }
    }

    fn find(&self, o: &Objective) -> Finding {
        let sum = || self.tape.sum(o.from, o.until, &|a| self.is_about(o, a));
        let share = Amount::Share;
        match o.want {
            Want::Answered(w) => ("answered", false, share(w), share(sum().answered())),
            Want::Fresh(w) => {
                let sum = sum();
                ("fresh", false, share(w), share(sum.share(sum.fresh)))
            }
            Want::StaleMax(w) => {
                let sum = sum();
                let seen = if sum.asked == 0 { 0.0 } else { sum.share(sum.stale) };
                ("stale_max", true, share(w), share(seen))
            }
            Want::P50(w) => ("p50", true, Amount::Span(w), Amount::Span(sum().quantile(0.5))),
            Want::P99(w) => ("p99", true, Amount::Span(w), Amount::Span(sum().quantile(0.99))),
            Want::Slowest(w) => {
                ("slowest", true, Amount::Span(w.unwrap_or_else(|| self.deadline())), self.slowest(o))
            }
            Want::KeepAddresses => {
                let denied = self.asked(o).filter(|a| a.got == Got::Denied).count();
                ("known_keep_addresses", true, Amount::Count(0), Amount::Count(denied as u64))
            }
            Want::TierShiftsMax(w) => ("tier_shifts_max", true, Amount::Count(w), Amount::Count(self.shifts(o))),
            Want::LeftWithin(w) => ("left_within", true, Amount::Span(w), self.left(o)),
            Want::BackWithin(w) => ("back_within", true, Amount::Span(w), self.back(o)),
            Want::RecoveredWithin(w) => {
                let last = self.asked(o).filter(|a| !a.got.is_answer()).map(|a| a.at - o.from).max();
                ("recovered_within", true, Amount::Span(w), Amount::Span(last.unwrap_or_default()))
            }
            Want::UpstreamRatioMax(w) => {
                let sent: u64 = self.tape.sent(o.from, o.until).iter().map(|n| u64::from(*n)).sum();
                let asked = self.tape.within(o.from, o.until).len().max(1);
                ("upstream_ratio_max", true, Amount::Ratio(w), Amount::Ratio(sent as f64 / asked as f64))
            }
            Want::UpstreamPeakMax(w) => {
                let peak = self.tape.sent(o.from, o.until).iter().max().copied().unwrap_or_default();
                ("upstream_peak_max", true, Amount::Count(w), Amount::Count(peak.into()))
            }
        }
    }

    fn is_about(&self, o: &Objective, asked: &Asked) -> bool {
        match o.of {
            Some(load) => usize::from(asked.load) == load,
            None => self.scenario.loads[usize::from(asked.load)].counts(),
        }
    }

    fn asked(&self, o: &Objective) -> impl Iterator<Item = &Asked> {
        self.tape.within(o.from, o.until).iter().filter(move |a| self.is_about(o, a))
    }

    fn deadline(&self) -> Duration {
        self.stage.groups.iter().map(|p| p.settings.deadline).max().unwrap_or_default()
    }

    fn slowest(&self, o: &Objective) -> Amount {
        if self.asked(o).any(|a| a.got == Got::Nothing) {
            return Amount::Never;
        }
        Amount::Span(self.asked(o).map(|a| a.took).max().unwrap_or_default())
    }

    //------------ Tiers ---------------------------------------------------------------------------------------------

    fn first_tier(&self, group: usize) -> usize {
        self.stage.groups[group].settings.tiers.iter().position(|t| !t.is_empty()).unwrap_or(0)
    }

    /// Groups of which some server is struck by any act.
    fn struck_groups(&self) -> impl Iterator<Item = usize> {
        let acts = 0..self.scenario.acts.len();
        (0..self.stage.groups.len()).filter(move |g| acts.clone().any(|a| self.network.strikes_any(a, *g)))
    }

    fn shifts(&self, o: &Objective) -> u64 {
        let of = |group: usize| {
            let mut tiers = self.tape.using.iter().filter(|u| u.group == group && u.at < o.until).peekable();
            let mut shifts = 0;
            while let Some(before) = tiers.next() {
                shifts +=
                    u64::from(tiers.peek().is_some_and(|after| after.tier != before.tier && after.at >= o.from));
            }
            shifts
        };
        (0..self.stage.groups.len()).map(of).sum()
    }

    /// When the last of the groups that are struck left its first tier.
    fn left(&self, o: &Objective) -> Amount {
        let mut latest = Duration::ZERO;
        for group in self.struck_groups() {
            let away = |tier: usize| tier != self.first_tier(group);
            if self.tape.using(group, o.from).is_some_and(|u| away(u.tier)) {
                continue;
            }
            let left = self.tape.using.iter().find(|u| u.group == group && u.at >= o.from && away(u.tier));
            match left.filter(|u| u.at < o.until) {
                Some(using) => latest = latest.max(using.at - o.from),
                None => return Amount::Never,
            }
        }
        Amount::Span(latest)
    }

    /// When the last group came to its first tier, to stay.
    fn back(&self, o: &Objective) -> Amount {
        let mut latest = Duration::ZERO;
        for group in 0..self.stage.groups.len() {
            let first = self.first_tier(group);
            let in_span = self.tape.using.iter().filter(|u| u.group == group && u.at >= o.from && u.at < o.until);
            let start = self.tape.using(group, o.from).map(|u| (Duration::ZERO, u.tier));
            let mut since = None;
            for (at, tier) in start.into_iter().chain(in_span.map(|u| (u.at - o.from, u.tier))) {
                since = if tier == first { since.or(Some(at)) } else { None };
            }
            match since {
                Some(at) => latest = latest.max(at),
                None => return Amount::Never,
            }
        }
        Amount::Span(latest)
    }

    //------------ Why -----------------------------------------------------------------------------------------------

    fn why(&self, o: &Objective) -> Vec<String> {
        let mut why: Vec<String> = self.measured(o).into_iter().collect();
        for group in 0..self.stage.groups.len() {
            self.why_of_group(o, group, &mut why);
        }
        why
    }

    /// What was measured, in a line.
    fn measured(&self, o: &Objective) -> Option<String> {
        match o.want {
            Want::Answered(_) | Want::RecoveredWithin(_) => {
                self.counted(o, |a| (!a.got.is_answer()).then(|| a.got.word()))
            }
            Want::Fresh(_) => self.counted(o, |a| (a.got != Got::Fresh).then(|| a.got.word())),
            Want::StaleMax(_) => self.counted(o, |a| (a.got == Got::Stale).then(|| a.got.word())),
            Want::KeepAddresses => self.counted(o, |a| (a.got == Got::Denied).then(|| a.got.word())),
            Want::P50(w) | Want::P99(w) | Want::Slowest(Some(w)) => self.counted(o, |a| slower(a, w)),
            Want::Slowest(None) => self.counted(o, |a| slower(a, self.deadline())),
            Want::UpstreamRatioMax(_) => {
                let sent: u64 = self.tape.sent(o.from, o.until).iter().map(|n| u64::from(*n)).sum();
                Some(format!("{sent} questions upstream for {} of clients", self.tape.within(o.from, o.until).len()))
            }
            Want::UpstreamPeakMax(_) => {
                let (second, most) = self.tape.sent(o.from, o.until).iter().enumerate().max_by_key(|(_, n)| **n)?;
                let at = Duration::from_secs(o.from.as_secs() + second as u64);
                Some(format!("{most} questions upstream in the second from {}", clock(at)))
            }
            Want::LeftWithin(_) | Want::BackWithin(_) => {
                let tier = |group: usize| self.tape.using(group, o.until).map_or(0, |u| u.tier) + 1;
                let of = |(group, part): (usize, &Part)| format!("{} used tier {}", part.settings.name, tier(group));
                let all: Vec<String> = self.stage.groups.iter().enumerate().map(of).collect();
                Some(format!("at {} {}", clock(o.until), all.join(", ")))
            }
            Want::TierShiftsMax(_) => None,
        }
    }

    /// The questions of an objective that `word` has a word for, by load and word.
    fn counted(&self, o: &Objective, word: impl Fn(&Asked) -> Option<&'static str>) -> Option<String> {
        let mut kinds: BTreeMap<(u16, &str), u64> = BTreeMap::new();
        let mut span = None;
        for asked in self.asked(o) {
            if let Some(word) = word(asked) {
                *kinds.entry((asked.load, word)).or_default() += 1;
                span = Some((span.map_or(asked.at, |(first, _)| first), asked.at));
            }
        }
        let (first, last) = span?;
        let name = |load: u16| &self.scenario.loads[usize::from(load)].name;
        let kinds: Vec<String> =
            kinds.iter().map(|((load, word), n)| format!("{n} of {} {word}", name(*load))).collect();
        Some(format!("{}; from {} to {}", kinds.join(", "), clock(first), clock(last)))
    }

    fn why_of_group(&self, o: &Objective, group: usize, why: &mut Vec<String>) {
        let settings = &self.stage.groups[group].settings;
        let name = &settings.name;
        let tiers = self.stage.tiers_of(group);
        if tiers == 0 {
            why.push(format!("the group {name} has no server"));
            return;
        }
        let overlaps = |at: Duration, until: Duration| at < o.until && until >= o.from;
        let acts = || {
            let all = self.scenario.acts.iter().enumerate();
            all.filter(|(i, a)| self.network.strikes_any(*i, group) && overlaps(a.at, a.until))
        };
        let about_tiers = matches!(o.want, Want::LeftWithin(_) | Want::BackWithin(_) | Want::TierShiftsMax(_));
        let whole = acts().any(|(i, _)| self.network.strikes_all(i, group));
        if tiers == 1 && acts().next().is_some() && (whole || matches!(o.want, Want::LeftWithin(_))) {
            why.push(format!("the group {name} has one tier: nothing can take over"));
        } else if whole && !about_tiers && !matches!(o.want, Want::RecoveredWithin(_)) {
            why.push(format!("no server of the group {name} is spared"));
        }
        let stale = &settings.stale;
        let about_answers = matches!(o.want, Want::Answered(_) | Want::RecoveredWithin(_));
        if about_answers && acts().next().is_some() && stale.max_age < Duration::from_secs(3600) {
            let age = human::show_span(stale.max_age);
            why.push(format!("the group {name} serves no answer that is staler than {age} (stale.max_age)"));
        }
        let denied = || self.asked(o).any(|a| usize::from(a.group) == group && a.got == Got::Denied);
        if tiers > 1 && settings.same_view && denied() {
            why.push(format!("in {name} what a lower tier denies counts as denied by the first (same_view)"));
        }
        if let Want::RecoveredWithin(w) = o.want
            && Duration::from_secs(settings.ttl.negative_max.into()) > w
            && denied()
        {
            let longest = human::show_span(Duration::from_secs(settings.ttl.negative_max.into()));
            why.push(format!("negative answers of {name} live up to {longest} (cache.max_negative_ttl)"));
        }
        let dead: f64 = self.scenario.loads.iter().filter(|l| !l.counts()).map(|l| l.per_second).sum();
        if about_answers && f64::from(settings.in_flight_max) < dead * settings.deadline.as_secs_f64() {
            why.push(format!("{name} has room for {} questions at once (in_flight_max)", settings.in_flight_max));
        }
        if let (Want::P50(w) | Want::P99(w), Patience::Fixed(patience)) = (o.want, stale.patience)
            && patience > w
        {
            why.push(format!("clients of {name} wait {} for a fresh answer (stale.patience)", span(patience)));
        }
        if let Want::BackWithin(w) | Want::RecoveredWithin(w) = o.want
            && settings.health.hold >= w
        {
            why.push(format!("a better tier of {name} must be fit for {} (health.hold)", span(settings.health.hold)));
        }
        if matches!(o.want, Want::TierShiftsMax(_)) {
            let first = self.first_tier(group);
            let taken = |u: &&Using| u.group == group && u.tier == first && u.at >= o.from && u.at < o.until;
            let again = self.tape.using.iter().filter(|u| u.at > Duration::ZERO).filter(taken).count();
            let hold = human::show_span(settings.health.hold);
            let damped = if settings.health.damp { "" } else { ", and flaps do not lengthen it (health.damp)" };
            why.push(format!("{name} took its first tier again {again} times; health.hold is {hold}{damped}"));
        }
    }
}

fn slower(asked: &Asked, than: Duration) -> Option<&'static str> {
    match asked.got {
        Got::Nothing => Some(asked.got.word()),
        _ if asked.took > than => Some("slower"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse as parse_config};
    use crate::drill::reading::parse;

    const TIERED: &str = "[groups.default]\nprimary = [\"192.0.2.1\"]\nsecondary = [\"192.0.2.2\"]\n";

    /// One known question a second for a minute, `got` as told by its second; an act from 10 s to 30 s.
    fn judged(objective: &str, config: &str, got: impl Fn(u64) -> Got, using: &[(u64, usize)]) -> Judged {
        let text = format!(
            "title = \"x\"\nlength = \"1m\"\n[[load]]\nask = \"known\"\n[[load]]\nask = \"dead\"\n\
             [[act]]\nat = \"10s\"\nfor = \"20s\"\nwho = \"primary\"\nwhat = \"silent\"\n[[objective]]\n{objective}\n"
        );
        let scenario = parse("x", &text).unwrap();
        let config =
            if config.is_empty() { Config::default() } else { parse_config(config, &|_| None, &[]).unwrap().0 };
        let stage = Stage::new("x", &config);
        let network = Network::new(&scenario, &stage).unwrap();
        let mut tape = Tape::new(scenario.length);
        for s in 0..60 {
            let (at, took) = (Duration::from_secs(s), Duration::from_millis(s));
            tape.asked.push(Asked { at, took, load: 0, group: 0, got: got(s) });
            tape.asked.push(Asked { at, took: Duration::from_secs(9), load: 1, group: 0, got: Got::Failed });
            tape.on_sent(at);
        }
        for (at, tier) in [&[(0, 0)], using].concat() {
            tape.on_using(Using { at: Duration::from_secs(at), group: 0, tier, dark: false });
        }
        judge(&scenario, &stage, &network, &tape).remove(0)
    }

    #[test]
    fn every_objective_holds_at_its_bound_and_fails_behind_it() {
        let outage = |s: u64| if (10..25).contains(&s) { Got::Failed } else { Got::Fresh };
        let stale = |s: u64| if s < 15 { Got::Stale } else { Got::Fresh };
        let denied = |s: u64| if s == 40 { Got::Denied } else { Got::Fresh };
        let fine = |_: u64| Got::Fresh;
        let away: &[(u64, usize)] = &[(12, 1), (45, 0)];
        for (holds, fails, got, using) in [
            ("answered = 0.75", "answered = 0.76", &outage as &dyn Fn(u64) -> Got, away),
            ("fresh = 0.75", "fresh = 0.76", &stale, away),
            ("stale_max = 0.25", "stale_max = 0.24", &stale, away),
            ("p50 = \"29ms\"", "p50 = \"28ms\"", &fine, away),
            ("p99 = \"59ms\"", "p99 = \"58ms\"", &fine, away),
            ("slowest = \"59ms\"", "slowest = \"58ms\"", &fine, away),
            ("slowest = \"deadline\"", "slowest = \"deadline\"\nof = \"dead\"", &fine, away),
            ("known_keep_addresses = true\nuntil = \"40s\"", "known_keep_addresses = true", &denied, away),
            ("tier_shifts_max = 2", "tier_shifts_max = 1", &fine, away),
            ("tier_shifts_max = 0\nuntil = \"12s\"", "tier_shifts_max = 0\nuntil = \"13s\"", &fine, away),
            ("left_within = \"2s\"\nfrom = \"10s\"", "left_within = \"1s\"\nfrom = \"10s\"", &fine, away),
            ("back_within = \"15s\"", "back_within = \"14s\"", &fine, away),
            ("back_within = \"15s\"", "back_within = \"13s\"\nuntil = \"45s\"\n", &fine, away),
            (
                "recovered_within = \"14s\"\nfrom = \"10s\"",
                "recovered_within = \"13s\"\nfrom = \"10s\"",
                &outage,
                away,
            ),
            ("upstream_ratio_max = 0.5", "upstream_ratio_max = 0.49", &fine, away),
            ("upstream_peak_max = 1", "upstream_peak_max = 0", &fine, away),
        ] {
            let fine = judged(holds, TIERED, got, using);
            assert!(fine.passed, "{holds}: {fine:?}");
            assert!(fine.why.is_empty());
            assert!(!judged(fails, TIERED, got, using).passed, "{fails}");
        }
    }

    #[test]
    fn a_miss_says_why() {
        let outage = |s: u64| if (10..30).contains(&s) { Got::Failed } else { Got::Fresh };
        let one = judged("answered = 0.99", "", outage, &[]);
        assert_eq!(
            one.why,
            ["20 of known SERVFAIL; from 0:10 to 0:29", "the group default has one tier: nothing can take over"]
        );
        let left = judged("left_within = \"5s\"\nfrom = \"10s\"", "", outage, &[]);
        assert_eq!(left.seen, Amount::Never);
        assert_eq!(left.why[0], "at 1:00 default used tier 1");
        for (objective, reason) in [
            ("p99 = \"40ms\"", "19 of known slower; from 0:41 to 0:59"),
            ("fresh = 0.99", "20 of known SERVFAIL; from 0:10 to 0:29"),
            ("upstream_ratio_max = 0.1", "60 questions upstream for 120 of clients"),
            ("upstream_peak_max = 0\nfrom = \"5s\"", "1 questions upstream in the second from 0:59"),
            ("tier_shifts_max = 1", "default took its first tier again 1 times; health.hold is 10s"),
        ] {
            assert_eq!(judged(objective, TIERED, outage, &[(12, 1), (45, 0)]).why, [reason]);
        }
        let off = judged("answered = 0.99", &format!("[stale]\nmax_age = \"0s\"\n{TIERED}"), outage, &[]);
        assert!(off.why[1].contains("stale.max_age"), "{:?}", off.why);
    }

    #[test]
    fn amounts_are_shown_as_people_read_them() {
        for (amount, text) in [
            (Amount::Share(0.999), "99.9 %"),
            (Amount::Share(0.999_99), "> 99.99 %"),
            (Amount::Share(1.0), "100 %"),
            (Amount::Span(Duration::from_micros(300)), "< 1 ms"),
            (Amount::Span(Duration::from_millis(34)), "34 ms"),
            (Amount::Span(Duration::from_millis(4050)), "4.0 s"),
            (Amount::Span(Duration::from_secs(600)), "10m"),
            (Amount::Ratio(0.25), "0.25"),
            (Amount::Never, "never"),
        ] {
            assert_eq!(amount.to_string(), text);
        }
        assert_eq!(
            (clock(Duration::from_secs(65)), clock(Duration::from_secs(3665))),
            ("1:05".into(), "1:01:05".into())
        );
    }
}
