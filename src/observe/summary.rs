//! How things stand, in a sentence.
//!
//! Pure. What a person on call reads first: on the page, in `top` and in `status`. The worst group speaks; where all is
//! well in every group, and something else is not as it should be (a freeze, names that are held, a canary, a refused
//! configuration), that speaks. Everything else stands behind it, a sentence each.
//!
//! | mood | means |
//! |---|---|
//! | `calm` | nothing to do |
//! | `watch` | clients get their answers; something is not as it should be |
//! | `trouble` | names that are not known cannot be answered |
//!
//! Stale answers alone change no mood: they are what keeps clients going, and for a minute after an outage they are
//! still counted. No sentence names a DNS name but those of canaries.

use serde::Serialize;

use super::event::Span;
use super::status::{GroupStatus, ServerStatus, Snapshot};

/// How worried one should be, from not at all on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mood {
    /// Nothing to do.
    #[default]
    Calm,
    /// Clients get their answers; something is not as it should be.
    Watch,
    /// Names that are not known cannot be answered.
    Trouble,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How worried one should be.
    pub mood: Mood,
    /// The sentence.
    pub sentence: String,
    /// Since when it has been so, in seconds since 1970, where that is known.
    pub since_unix: Option<i64>,
    /// What else there is to say, a sentence each.
    pub more: Vec<String>,
}

/// The summary of a snapshot, whose own is not looked at.
pub fn of(s: &Snapshot) -> Summary {
    let several = s.groups.len() > 1;
    let mut verdicts: Vec<Verdict> = s.groups.iter().map(|group| of_group(group, s, several)).collect();
    // A stable sort: of equal moods the first group's comes first.
    verdicts.sort_by_key(|v| std::cmp::Reverse(v.mood));
    let beside = beside(s);
    let groups_are_calm = verdicts.first().is_none_or(|v| v.mood == Mood::Calm);
    let so_far = if beside.is_empty() { "All is well. " } else { "" };
    let all_well = Verdict::new(Mood::Calm, format!("{so_far}{}", answers_come(&s.groups)));
    let mut said = if groups_are_calm { vec![all_well] } else { verdicts };
    said.retain(|v| v.mood > Mood::Calm || groups_are_calm);
    // What is beside the groups speaks first only where they are calm.
    let at = if groups_are_calm && !beside.is_empty() { 0 } else { said.len() };
    said.splice(at..at, beside);
    let mut said = said.into_iter();
    let Some(first) = said.next() else { return Summary::default() };
    let mut more: Vec<String> = first.more.map(str::to_owned).into_iter().collect();
    more.extend(said.map(|v| v.sentence));
    more.extend(of_answers(s));
    Summary { mood: first.mood, sentence: first.sentence, since_unix: first.since_unix, more }
}

struct Verdict {
    mood: Mood,
    sentence: String,
    since_unix: Option<i64>,
    more: Option<&'static str>,
}

impl Verdict {
    fn new(mood: Mood, sentence: impl Into<String>) -> Self {
        Self { mood, sentence: sentence.into(), since_unix: None, more: None }
    }

    fn since(self, since_unix: Option<i64>) -> Self {
        Self { since_unix, ..self }
    }

    fn with(self, more: &'static str) -> Self {
        Self { more: Some(more), ..self }
    }
}

fn answers_come(groups: &[GroupStatus]) -> String {
    match groups {
        [] => "No group of upstreams is configured.".to_owned(),
        [group] => format!("Answers come from tier {}.", group.tier_in_use.max(1)),
        groups => format!("Answers come from the first tiers of all {} groups.", groups.len()),
    }
}

//------------ One group ---------------------------------------------------------------------------------------------

fn of_group(group: &GroupStatus, s: &Snapshot, several: bool) -> Verdict {
    let now = s.now_unix();
    let verdict = judge(group, s, now);
    let sentence = if several { format!("{}: {}", group.name, verdict.sentence) } else { verdict.sentence };
    Verdict { sentence, ..verdict }
}

fn judge(group: &GroupStatus, s: &Snapshot, now: i64) -> Verdict {
    let Some(first) = group.servers.iter().map(|server| server.tier).min() else {
        return Verdict::new(Mood::Trouble, "There is no upstream to ask.")
            .with("Local names and what is in the cache are answered.");
    };
    if matches!(group.belief, "silent" | "down" | "untried") {
        return nobody_answers(group, s, now);
    }
    let in_use = group.tier_in_use.max(first);
    let who_answers = || match tier(group, in_use).as_slice() {
        [_] => format!("the {} answers", WORDS[index(in_use)].0),
        _ => format!("the {} answer", WORDS[index(in_use)].1),
    };
    if in_use > first {
        let out = unfit(group, first);
        if out.len() == tier(group, first).len() {
            let (what, since) = phrase(&out, tier(group, first).len(), first, now);
            return Verdict::new(Mood::Watch, format!("{what}; {}.", who_answers())).since(since);
        }
        let again = match tier(group, first).as_slice() {
            [_] => format!("The {} answers again", WORDS[index(first)].0),
            _ => format!("Some of the {} answer again", WORDS[index(first)].1),
        };
        let until = match group.returns {
            _ if s.frozen.is_some() => "; while frozen no tier moves up, so".to_owned(),
            Some(back) if back.in_seconds > 0 => {
                format!(" and will be used again in {}; until then", span(back.in_seconds))
            }
            _ => " and will be used again soon; until then".to_owned(),
        };
        return Verdict::new(Mood::Watch, format!("{again}{until} {}.", who_answers()));
    }
    let mut tiers: Vec<u8> = group.servers.iter().map(|server| server.tier).collect();
    tiers.dedup();
    for tier_of in tiers {
        let (out, all) = (unfit(group, tier_of), tier(group, tier_of).len());
        if out.is_empty() {
            continue;
        }
        let (what, since) = phrase(&out, all, tier_of, now);
        let sentence = match tier_of == in_use {
            true if all - out.len() == 1 => format!("{what}; the other answers."),
            true => format!("{what}; the others answer."),
            false => format!("Answers come from tier {in_use}. {what}: a spare is missing."),
        };
        return Verdict::new(Mood::Watch, sentence).since(since);
    }
    Verdict::new(Mood::Calm, format!("answers come from tier {in_use}."))
}

fn nobody_answers(group: &GroupStatus, s: &Snapshot, now: i64) -> Verdict {
    let who = if group.servers.len() == 1 { "The only upstream has not" } else { "No upstream has" };
    let last = group.servers.iter().filter_map(|server| server.last_answer_seconds).min();
    match last {
        Some(ago) => Verdict::new(Mood::Trouble, format!("{who} answered for {}.", span(ago)))
            .since(Some(now.saturating_sub_unsigned(ago)))
            .with("Known names get stale answers, new ones fail. Asking goes on: the first reply ends this."),
        None if s.uptime_seconds < JUST_STARTED => {
            Verdict::new(Mood::Watch, format!("Just started. {who} answered yet."))
        }
        None => {
            Verdict::new(Mood::Trouble, format!("{who} answered since the start, {} ago.", span(s.uptime_seconds)))
                .since(Some(s.started_unix))
                .with("Restored and local names are answered. Asking goes on: the first reply ends this.")
        }
    }
}

/// Seconds within which nobody need have answered.
const JUST_STARTED: u64 = 10;

/// What a tier's servers are called: one, several.
const WORDS: [(&str, &str); 3] = [("primary", "primaries"), ("secondary", "secondaries"), ("tertiary", "tertiaries")];

fn index(tier: u8) -> usize {
    usize::from(tier.clamp(1, 3)) - 1
}

fn tier(group: &GroupStatus, tier: u8) -> Vec<&ServerStatus> {
    group.servers.iter().filter(|server| server.tier == tier).collect()
}

fn unfit(group: &GroupStatus, of: u8) -> Vec<&ServerStatus> {
    let mut servers = tier(group, of);
    servers.retain(|server| !matches!(server.state, "fit" | "unknown"));
    servers
}

/// "Both primaries have been silent for 4 min", and since when.
fn phrase(out: &[&ServerStatus], all: usize, tier: u8, now: i64) -> (String, Option<i64>) {
    let (one, several) = WORDS[index(tier)];
    let who = match (out.len(), all) {
        (1, 1) => format!("The {one}"),
        (2, 2) => format!("Both {several}"),
        (n, all) if n == all => format!("All {n} {several}"),
        (n, all) => format!("{n} of {all} {several}"),
    };
    let is_one = out.len() == 1;
    let has = if is_one { "has" } else { "have" };
    let first = out.first().map(|server| reason(server));
    let what = match first.filter(|reason| out.iter().all(|server| self::reason(server) == *reason)) {
        Some(Reason::Silent) => format!("{has} been silent"),
        Some(Reason::Probes) => format!("{has} answered no probe"),
        Some(Reason::Faults) => format!("{has} failed questions that others answer"),
        Some(Reason::LeftOut) => {
            format!("{has} been out of reach with {} address family", if is_one { "its" } else { "their" })
        }
        Some(Reason::Loops) => format!(
            "{} back to evenkeel and {} left out",
            if is_one { "leads" } else { "lead" },
            if is_one { "is" } else { "are" }
        ),
        None => format!("{has} been unfit"),
    };
    // The last of them to go.
    let since = out.iter().filter_map(|server| server.since_unix).max();
    let long = since.and_then(|at| u64::try_from(now - at).ok()).filter(|seconds| *seconds > 0);
    let long = match first {
        Some(Reason::Loops) => None,
        _ => long,
    };
    (format!("{who} {what}{}", long.map_or(String::new(), |seconds| format!(" for {}", span(seconds)))), since)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Silent,
    Probes,
    Faults,
    LeftOut,
    Loops,
}

fn reason(server: &ServerStatus) -> Reason {
    match server.state {
        "left_out" => Reason::LeftOut,
        "loops" => Reason::Loops,
        "down" if server.reason.starts_with("probes") => Reason::Probes,
        "down" if server.reason.starts_with("failed") => Reason::Faults,
        _ => Reason::Silent,
    }
}

//------------ Beside the groups -------------------------------------------------------------------------------------

fn beside(s: &Snapshot) -> Vec<Verdict> {
    let mut said = Vec::new();
    let mut watch =
        |sentence: String, since: Option<i64>| said.push(Verdict::new(Mood::Watch, sentence).since(since));
    if !s.ready {
        watch("This process is ending; what is asked is still answered.".into(), None);
    }
    if let Some(frozen) = s.frozen {
        let left = span(frozen.left_seconds);
        watch(format!("Frozen for {left} more: nothing good is given up."), Some(frozen.since_unix));
    }
    match s.guard.names_held {
        0 => {}
        1 => watch("1 guarded name is held at its last good answer.".into(), None),
        n => watch(format!("{n} guarded names are held at their last good answers."), None),
    }
    for canary in s.canaries.iter().filter(|canary| canary.success == Some(false)) {
        let since = canary.failing_seconds.map(|seconds| s.now_unix().saturating_sub_unsigned(seconds));
        watch(format!("The canary {} fails: {}.", canary.canary, canary.reason), since);
    }
    if s.config.fallback {
        watch("The configuration file is refused; its last accepted copy is in force.".into(), None);
    } else if !s.config.last_reload_ok {
        watch("The last reload was refused; the configuration before it stays in force.".into(), None);
    }
    let (failed, all) = (count(s, "failed"), answered(s));
    if failed >= FAILED_MIN && failed * 100 >= all {
        watch(format!("{} of the last minute's answers failed.", share(failed, all)), None);
    }
    said
}

/// Fewer failed answers a minute are names that are broken somewhere.
const FAILED_MIN: u64 = 5;

fn of_answers(s: &Snapshot) -> Option<String> {
    let (stale, all) = (count(s, "stale"), answered(s));
    if stale == 0 {
        return None;
    }
    let age = s.last_minute.stale_age_seconds.map_or(String::new(), |age| match age {
        0 => ", less than a second past their time".to_owned(),
        age => format!(", {} past their time on average", span(age)),
    });
    Some(format!("{} of the last minute's answers were stale{age}.", share(stale, all)))
}

fn count(s: &Snapshot, source: &str) -> u64 {
    s.last_minute.answers.get(source).copied().unwrap_or(0)
}

fn answered(s: &Snapshot) -> u64 {
    s.last_minute.answers.iter().filter(|(source, _)| **source != "dropped").map(|(_, n)| n).sum()
}

/// A share of what is more than nothing, never rounded to nothing or to all.
fn share(part: u64, all: u64) -> String {
    match (part as f64 * 100.0 / all as f64).round() as u64 {
        _ if part >= all => "All".to_owned(),
        0 => "Less than 1 %".to_owned(),
        100.. => "Over 99 %".to_owned(),
        percent => format!("{percent} %"),
    }
}

fn span(seconds: u64) -> Span {
    Span(std::time::Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::{CanaryStatus, FreezeStatus, Returns};
    use std::collections::BTreeMap;

    /// A server of a tier in a state: "fit", or "down probes failed", for so many seconds.
    fn server(tier: u8, standing: &str, seconds: u64) -> ServerStatus {
        let (state, reason) = standing.split_once(' ').unwrap_or((standing, ""));
        let state = crate::observe::status::SERVER_STATES.into_iter().find(|word| *word == state).unwrap();
        let unfit = !matches!(state, "fit" | "unknown");
        ServerStatus {
            name: format!("s{tier}"),
            tier,
            state,
            reason: reason.into(),
            since_unix: unfit.then_some(NOW - seconds as i64),
            last_answer_seconds: (state != "unknown").then_some(seconds),
            ..ServerStatus::default()
        }
    }

    const NOW: i64 = 1_700_001_000;

    fn world(tier_in_use: u8, belief: &'static str, servers: Vec<ServerStatus>) -> Snapshot {
        let mut s = Snapshot { ready: true, uptime_seconds: 1000, started_unix: NOW - 1000, ..Snapshot::default() };
        s.config.last_reload_ok = true;
        s.groups =
            vec![GroupStatus { name: "default".into(), tier_in_use, belief, servers, ..GroupStatus::default() }];
        s
    }

    #[test]
    fn a_group_is_told_in_one_sentence() {
        use Mood::{Calm, Trouble, Watch};
        let silent = "silent questions overdue, nothing came";
        for (tier_in_use, belief, servers, mood, sentence) in [
            (1, "healthy", vec![(1, "fit", 0), (2, "fit", 0)], Calm, "All is well. Answers come from tier 1."),
            (1, "healthy", vec![(1, "unknown", 0), (1, "fit", 0)], Calm, "All is well. Answers come from tier 1."),
            (2, "healthy", vec![(2, "fit", 0)], Calm, "All is well. Answers come from tier 2."),
            (
                2,
                "healthy",
                vec![(1, silent, 240), (2, "fit", 0)],
                Watch,
                "The primary has been silent for 4 min; the secondary answers.",
            ),
            (
                2,
                "healthy",
                vec![(1, silent, 240), (1, "down silent", 300), (2, "fit", 0), (2, "fit", 0)],
                Watch,
                "Both primaries have been silent for 4 min; the secondaries answer.",
            ),
            (
                3,
                "healthy",
                vec![(1, "down probes failed", 9), (1, "loops leads back", 30), (1, silent, 12), (3, "fit", 0)],
                Watch,
                "All 3 primaries have been unfit for 9 s; the tertiary answers.",
            ),
            (
                2,
                "healthy",
                vec![(1, "down failed what others answered", 60), (2, "fit", 0)],
                Watch,
                "The primary has failed questions that others answer for 60 s; the secondary answers.",
            ),
            (
                2,
                "healthy",
                vec![(1, "fit", 0), (2, "fit", 0)],
                Watch,
                "The primary answers again and will be used again soon; until then the secondary answers.",
            ),
            (
                1,
                "healthy",
                vec![(1, silent, 5), (1, "fit", 0), (2, "fit", 0)],
                Watch,
                "1 of 2 primaries has been silent for 5 s; the other answers.",
            ),
            (
                1,
                "healthy",
                vec![(1, "fit", 0), (2, "down probes failed", 7200)],
                Watch,
                "Answers come from tier 1. The secondary has answered no probe for 2 h: a spare is missing.",
            ),
            (
                1,
                "healthy",
                vec![(1, "fit", 0), (1, "left_out x", 30)],
                Watch,
                "1 of 2 primaries has been out of reach with its address family for 30 s; the other answers.",
            ),
            (
                1,
                "healthy",
                vec![(1, "fit", 0), (1, "loops x", 30)],
                Watch,
                "1 of 2 primaries leads back to evenkeel and is left out; the other answers.",
            ),
            (
                2,
                "silent",
                vec![(1, "down silent", 200), (2, silent, 20)],
                Trouble,
                "No upstream has answered for 20 s.",
            ),
            (1, "down", vec![(1, "down silent", 200)], Trouble, "The only upstream has not answered for 3 min."),
            (
                1,
                "untried",
                vec![(1, "unknown", 0)],
                Trouble,
                "The only upstream has not answered since the start, 16 min ago.",
            ),
            (0, "untried", vec![], Trouble, "There is no upstream to ask."),
        ] {
            let servers = servers.into_iter().map(|(tier, standing, long)| server(tier, standing, long)).collect();
            let said = of(&world(tier_in_use, belief, servers));
            assert_eq!((said.mood, said.sentence.as_str()), (mood, sentence));
        }
    }

    #[test]
    fn the_return_of_a_tier_is_told_with_its_time() {
        let mut s = world(2, "healthy", vec![server(1, "fit", 0), server(2, "fit", 0)]);
        s.groups[0].returns = Some(Returns { tier: 1, in_seconds: 8 });
        assert!(of(&s).sentence.starts_with("The primary answers again and will be used again in 8 s; until then"));
        s.frozen = Some(FreezeStatus { since_unix: NOW, left_seconds: 60 });
        assert_eq!(
            of(&s).sentence,
            "The primary answers again; while frozen no tier moves up, so the secondary answers."
        );
    }

    #[test]
    fn just_after_the_start_nobody_need_have_answered() {
        let mut s = world(1, "untried", vec![server(1, "unknown", 0), server(1, "unknown", 0)]);
        s.uptime_seconds = 9;
        assert_eq!(
            (of(&s).mood, of(&s).sentence.as_str()),
            (Mood::Watch, "Just started. No upstream has answered yet.")
        );
        s.uptime_seconds = 10;
        assert_eq!(of(&s).mood, Mood::Trouble);
    }

    #[test]
    fn the_worst_group_speaks_first_and_is_named() {
        let mut s = world(1, "healthy", vec![server(1, "fit", 0)]);
        let group = |name: &str, belief, standing| GroupStatus {
            name: name.into(),
            tier_in_use: 1,
            belief,
            servers: vec![server(1, standing, 7)],
            ..GroupStatus::default()
        };
        s.groups.push(group("corp", "healthy", "fit"));
        assert_eq!(of(&s).sentence, "All is well. Answers come from the first tiers of all 2 groups.");
        s.groups.push(group("lab", "down", "down silent"));
        let said = of(&s);
        assert_eq!(said.sentence, "lab: The only upstream has not answered for 7 s.");
        assert_eq!(said.more.len(), 1, "{said:?}");
        assert_eq!(said.since_unix, Some(NOW - 7));
    }

    #[test]
    fn what_is_beside_the_groups_speaks_where_they_are_calm() {
        let calm = world(1, "healthy", vec![server(1, "fit", 0)]);
        let canary = CanaryStatus {
            canary: "a. A".into(),
            success: Some(false),
            reason: "NXDOMAIN".into(),
            ..Default::default()
        };
        type Change<'a> = &'a dyn Fn(&mut Snapshot);
        let cases: [(&str, Change<'_>); 6] = [
            ("This process is ending; what is asked is still answered.", &|s| s.ready = false),
            ("Frozen for 5 min more: nothing good is given up.", &|s| {
                s.frozen = Some(FreezeStatus { since_unix: NOW, left_seconds: 300 });
            }),
            ("2 guarded names are held at their last good answers.", &|s| s.guard.names_held = 2),
            ("The canary a. A fails: NXDOMAIN.", &|s| s.canaries = vec![canary.clone()]),
            ("The last reload was refused; the configuration before it stays in force.", &|s| {
                s.config.last_reload_ok = false;
            }),
            ("5 % of the last minute's answers failed.", &|s| {
                s.last_minute.answers = BTreeMap::from([("fresh", 95), ("failed", 5), ("dropped", 900)]);
            }),
        ];
        for (sentence, change) in cases {
            let mut s = calm.clone();
            change(&mut s);
            let said = of(&s);
            assert_eq!((said.mood, said.sentence.as_str()), (Mood::Watch, sentence));
            assert!(said.more.iter().any(|more| more == "Answers come from tier 1."), "{said:?}");
            let mut dark = world(1, "down", vec![server(1, "down silent", 3)]);
            change(&mut dark);
            let said = of(&dark);
            assert_eq!((said.mood, said.more.contains(&sentence.to_owned())), (Mood::Trouble, true), "{said:?}");
        }
    }

    #[test]
    fn stale_answers_are_told_and_change_no_mood() {
        let mut s = world(1, "healthy", vec![server(1, "fit", 0)]);
        for (stale, fresh, told) in [
            (1, 0, "All of the last minute's answers were stale, 40 s past their time on average."),
            (1, 999, "Less than 1 % of the last minute's answers were stale, 40 s past their time on average."),
            (999, 1, "Over 99 % of the last minute's answers were stale, 40 s past their time on average."),
        ] {
            s.last_minute.answers = BTreeMap::from([("fresh", fresh), ("stale", stale)]);
            s.last_minute.stale_age_seconds = Some(40);
            let said = of(&s);
            assert_eq!((said.mood, said.more), (Mood::Calm, vec![told.to_owned()]));
        }
        s.last_minute.answers = BTreeMap::from([("fresh", 96), ("failed", 4)]);
        assert_eq!(of(&s).mood, Mood::Calm, "four are not enough");
    }
}
