//! From a scenario's file to a checked [`Scenario`].
//!
//! Pure; every mistake at once, each with its place and, where that can be said, a hint. The keys are defined as the
//! configuration's are (`config/key.rs`).

use std::ops::Range;
use std::time::Duration;

use super::names::Sort;
use super::script::{self, Act, ILLS, Ill, Load, Objective, Scenario, WHO, Want, Who};
use crate::config::document::{self, Value};
use crate::config::key::{Key, Keys, Kind, Part, REPORTED_MAX, Reader, nearest, set_defaults};
use crate::config::mistake::Places;
use crate::config::{Mistake, human};

/// Reads a scenario that is called `name`. At most 100 mistakes are reported, in the order of the file.
pub fn parse(name: &str, text: &str) -> Result<Scenario, Vec<Mistake>> {
    let places = Places::new(text, &[]);
    let (root, mistakes) = document::read(text, &[], &places);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut reader = Reader::new(&places, &|_| None);
    let mut draft = Draft::default();
    set_defaults(HEAD, &mut draft);
    let mut lists = [const { Vec::new() }; 3];
    for (key, value) in &root {
        let word = key.get_ref().as_ref();
        match LISTS.iter().position(|list| *list == word) {
            Some(list) => lists[list] = reader.within(word, |reader| listed(reader, value)),
            None => one_key(&mut reader, &mut Part(HEAD, &mut draft), word, key.span(), value, &LISTS),
        }
    }
    if draft.title.is_empty() && !root.contains_key("title") {
        reader.wrong(0..0, "the scenario has no title", Some("say in a line what it rehearses: title = \"…\""));
    }
    let end = draft.length;
    let [load_values, act_values, objective_values] = lists;
    let loads: Vec<Load> =
        load_values.iter().filter_map(|v| reader.within("load", |r| load(r, v, draft.length))).collect();
    if load_values.is_empty() {
        reader.wrong(0..0, "nobody asks anything", Some("write at least one [[load]]"));
    }
    for (i, twin) in loads.iter().enumerate().filter(|(i, l)| loads[..*i].iter().any(|o| o.name == l.name)) {
        reader.wrong(load_values[i].span(), format!("two loads are called {:?}", twin.name), Some("name them"));
    }
    let acts: Vec<Act> =
        act_values.iter().filter_map(|v| reader.within("act", |r| act(r, v, &places, draft.length))).collect();
    let last_end = acts.iter().map(|a| a.until).max().unwrap_or_default();
    let mut objectives = Vec::new();
    for value in &objective_values {
        reader.within("objective", |r| objective(r, value, &loads, (end, last_end), &mut objectives));
    }
    if objective_values.is_empty() {
        reader.wrong(0..0, "nothing must hold", Some("write at least one [[objective]]"));
    }
    few_enough(&mut reader, &loads);
    let mut mistakes = reader.mistakes;
    if !mistakes.is_empty() {
        mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        mistakes.truncate(REPORTED_MAX);
        return Err(mistakes);
    }
    let Draft { title, length, seed, latency } = draft;
    Ok(Scenario { name: name.to_owned(), title, length, seed, latency, loads, acts, objectives })
}

const LISTS: [&str; 3] = ["load", "act", "objective"];

#[derive(Default)]
struct Draft {
    title: String,
    length: Duration,
    seed: u64,
    latency: Duration,
}

const HEAD: &[Key<Draft>] = &[
    Key::new(
        "title",
        "what it rehearses, in one line",
        Kind::Own("\"\"", |d, r, v| {
            let Some(text) = r.string(v) else { return };
            if text.chars().count() > TITLE_CHARS_MAX || text.chars().any(char::is_control) {
                r.wrong(v.span(), "a title is one line of at most 100 characters", None);
            }
            d.title = text;
        }),
    ),
    Key::new("length", "of the whole drill", Kind::Span(script::LENGTH, |d, v| d.length = v)),
    Key::new("seed", "", Kind::Count(SEED, |d, v| d.seed = v)),
    Key::new("latency", "round trip to a primary", Kind::Span(script::LATENCY, |d, v| d.latency = v)),
];

const TITLE_CHARS_MAX: usize = 100;
const SEED: crate::limits::Bound<u64> = crate::limits::Bound { default: 1, min: 0, max: u64::MAX };

/// The tables of a list.
fn listed<'v, 'i>(reader: &mut Reader<'_>, value: &'v Value<'i>) -> Vec<&'v Value<'i>> {
    let mut items = reader.items(value);
    if items.len() > script::LISTED_MAX {
        reader.wrong(value.span(), format!("more than {} of them", script::LISTED_MAX), None);
        items.truncate(script::LISTED_MAX);
    }
    items
}

/// Reads the keys of a table; what is unknown is reported with the nearest name.
fn table(reader: &mut Reader<'_>, part: &mut dyn Keys, value: &Value<'_>) {
    let Some(table) = value.get_ref().as_table() else {
        return reader.type_mismatch(value, "a table");
    };
    for (name, value) in table {
        one_key(reader, part, name.get_ref(), name.span(), value, &[]);
    }
}

fn one_key(
    reader: &mut Reader<'_>,
    part: &mut dyn Keys,
    key: &str,
    span: Range<usize>,
    value: &Value<'_>,
    others: &[&str],
) {
    if !reader.within(key, |reader| part.read(key, value, reader)) {
        let names = part.names();
        let hint = nearest(key, names.iter().copied().chain(others.iter().copied()))
            .map(|name| format!("did you mean `{name}`?"));
        let shown: String = key.chars().take(64).collect();
        reader.wrong(span, format!("unknown key `{shown}`"), hint.as_deref());
    }
}

/// A word among `words`, with the nearest as a hint.
fn word<V: Clone>(reader: &mut Reader<'_>, value: &Value<'_>, words: &[(&str, V)]) -> Option<V> {
    let text = reader.string(value)?;
    if let Some((_, v)) = words.iter().find(|(word, _)| *word == text) {
        return Some(v.clone());
    }
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let hint = match nearest(&text, all.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("one of {}", all.join(", ")),
    };
    let shown: String = text.chars().take(64).collect();
    reader.wrong(value.span(), format!("{shown:?} is not known"), Some(&hint));
    None
}

fn label(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let text = reader.string(value)?;
    let fine = (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fine {
        reader.wrong(value.span(), "a name here has 1 to 32 of a-z, 0-9 and -", None);
    }
    fine.then_some(text)
}

//------------ Loads -------------------------------------------------------------------------------------------------

#[derive(Default)]
struct LoadDraft {
    name: Option<String>,
    sort: Option<(&'static str, Sort)>,
    names: u64,
    zone: Option<String>,
    zones: u64,
    per_second: f64,
    clients: u64,
    from: Duration,
    until: Option<Duration>,
}

type SortWord = (&'static str, Sort);
const SORTS: [(&str, SortWord); 4] = [
    ("known", ("known", Sort::Known)),
    ("new", ("new", Sort::New)),
    ("absent", ("absent", Sort::Absent)),
    ("dead", ("dead", Sort::Dead)),
];

const LOAD: &[Key<LoadDraft>] = &[
    Key::new("name", "how objectives call it", Kind::Own("\"load\"", |d, r, v| d.name = label(r, v))),
    Key::new("ask", "known, new, absent or dead", Kind::Own("\"known\"", |d, r, v| d.sort = word(r, v, &SORTS))),
    Key::new("names", "different ones", Kind::Count(script::NAMES, |d, v| d.names = v)),
    Key::new("zone", "that all are in", Kind::Own("\"z0\"", |d, r, v| d.zone = label(r, v))),
    Key::new("zones", "that they are spread over", Kind::Count(script::ZONES, |d, v| d.zones = v)),
    Key::new("per_second", "questions", Kind::Share(script::PER_SECOND, |d, v| d.per_second = v)),
    Key::new("clients", "that ask", Kind::Count(script::CLIENTS, |d, v| d.clients = v)),
    Key::new("from", "when they begin", Kind::Span(script::TIME, |d, v| d.from = v)),
    Key::new("until", "when they end", Kind::Span(script::TIME, |d, v| d.until = Some(v))),
];

fn load(reader: &mut Reader<'_>, value: &Value<'_>, length: Duration) -> Option<Load> {
    let mut draft = LoadDraft::default();
    set_defaults(LOAD, &mut draft);
    (draft.name, draft.sort, draft.zone, draft.until) = (None, None, None, None);
    table(reader, &mut Part(LOAD, &mut draft), value);
    let Some((word, sort)) = draft.sort else {
        if value.get_ref().as_table().is_some_and(|t| !t.contains_key("ask")) {
            reader.wrong(
                value.span(),
                "the load asks nothing",
                Some("write ask = \"known\", \"new\", \"absent\" or \"dead\""),
            );
        }
        return None;
    };
    let until = draft.until.unwrap_or(length).min(length);
    if draft.from >= until {
        reader.wrong(value.span(), "the load ends before it begins, or begins after the drill's end", None);
    }
    let zones = match draft.zone {
        Some(zone) => vec![zone],
        None => (0..draft.zones).map(|n| format!("z{n}")).collect(),
    };
    Some(Load {
        name: draft.name.unwrap_or_else(|| word.to_owned()),
        sort,
        names: draft.names,
        zones,
        per_second: draft.per_second,
        clients: draft.clients,
        from: draft.from,
        until,
    })
}

/// A drill ends, and fits into memory.
fn few_enough(reader: &mut Reader<'_>, loads: &[Load]) {
    let count = |of: &dyn Fn(&Load) -> bool| {
        loads
            .iter()
            .filter(|l| of(l))
            .map(|l| l.per_second * l.until.saturating_sub(l.from).as_secs_f64())
            .sum::<f64>()
    };
    for (what, asked, most) in [
        ("questions", count(&|_| true), script::QUESTIONS_MAX),
        (
            "questions for names that are asked once",
            count(&|l| matches!(l.sort, Sort::New | Sort::Dead)),
            script::NEW_NAMES_MAX,
        ),
    ] {
        if asked > most as f64 {
            let what = format!("the loads come to {asked:.0} {what}, which is more than {most}");
            reader.wrong(0..0, what, Some("a lower per_second or a shorter length"));
        }
    }
}

//------------ Acts --------------------------------------------------------------------------------------------------

#[derive(Default)]
struct ActDraft {
    at: Option<Duration>,
    lasts: Option<Duration>,
    who: Vec<Who>,
    who_at: Option<Range<usize>>,
    ill: Option<Ill>,
    by: Option<Duration>,
    per_second: Option<u64>,
    zone: Option<String>,
    share: f64,
    on: Option<Duration>,
    off: Option<Duration>,
}

const ACT: &[Key<ActDraft>] = &[
    Key::new("at", "when it begins", Kind::Span(script::TIME, |d, v| d.at = Some(v))),
    Key::new("for", "how long it lasts", Kind::Span(script::SPAN, |d, v| d.lasts = Some(v))),
    Key::new("who", "the servers that it strikes", Kind::Own("\"all\"", who)),
    Key::new("what", "what goes wrong", Kind::Own("\"silent\"", |d, r, v| d.ill = word(r, v, &ILLS))),
    Key::new("by", "how slow", Kind::Span(script::SPAN, |d, v| d.by = Some(v))),
    Key::new("packets_per_second", "how limited", Kind::Count(script::COUNT, |d, v| d.per_second = Some(v))),
    Key::new("zone", "only names of this one", Kind::Own("\"z0\"", |d, r, v| d.zone = label(r, v))),
    Key::new("share", "of questions", Kind::Share(script::SHARE, |d, v| d.share = v)),
    Key::new("on", "span of trouble, in turn with `off`", Kind::Span(script::SPAN, |d, v| d.on = Some(v))),
    Key::new("off", "span of quiet, in turn with `on`", Kind::Span(script::SPAN, |d, v| d.off = Some(v))),
];

fn who(draft: &mut ActDraft, reader: &mut Reader<'_>, value: &Value<'_>) {
    draft.who = reader
        .strings(value)
        .into_iter()
        .map(|(text, _)| WHO.iter().find(|(word, _)| *word == text).map_or(Who::Server(text), |(_, who)| who.clone()))
        .collect();
    draft.who_at = Some(value.span());
    if draft.who.is_empty() {
        reader.wrong(value.span(), "nobody is named", Some("\"all\", a tier, \"v4\", \"v6\" or a server's name"));
    }
}

fn act(reader: &mut Reader<'_>, value: &Value<'_>, places: &Places<'_>, length: Duration) -> Option<Act> {
    let mut draft = ActDraft { share: 1.0, ..ActDraft::default() };
    let before = reader.mistakes.len();
    table(reader, &mut Part(ACT, &mut draft), value);
    let fine = reader.mistakes.len() == before;
    let mut missing = |key: &str, hint: &str| {
        if fine {
            reader.wrong(value.span(), format!("the act has no `{key}`"), Some(hint));
        }
    };
    let at = draft.at.or_else(|| {
        missing("at", "when it begins: at = \"2m\"");
        None
    })?;
    let ill = draft.ill.or_else(|| {
        missing("what", "what goes wrong: what = \"silent\"");
        None
    })?;
    if draft.who.is_empty() {
        missing("who", "which servers: who = \"primary\"");
        return None;
    }
    let ill = match ill {
        Ill::Slow(_) => Ill::Slow(draft.by.or_else(|| {
            missing("by", "how slow: by = \"800ms\"");
            None
        })?),
        Ill::Limited(_) => Ill::Limited(draft.per_second.or_else(|| {
            missing("packets_per_second", "packets_per_second = 100");
            None
        })? as u32),
        ill => ill,
    };
    let until = draft.lasts.map_or(length, |lasts| at.saturating_add(lasts).min(length));
    if at >= length {
        let what = format!("the act begins after the drill's end at {}", human::show_span(length));
        reader.wrong(value.span(), what, Some("a later length, or an earlier at"));
    }
    let turns = match (draft.on, draft.off) {
        (Some(on), Some(off)) => Some((on, off)),
        (None, None) => None,
        _ => {
            reader.wrong(value.span(), "`on` and `off` stand together", Some("on = \"20s\", off = \"20s\""));
            None
        }
    };
    let place = places.of(&draft.who_at.unwrap_or_else(|| value.span()));
    Some(Act { at, until, who: draft.who, zone: draft.zone, ill, share: draft.share, turns, place })
}

//------------ Objectives --------------------------------------------------------------------------------------------

#[derive(Default)]
struct ObjectiveDraft {
    wants: Vec<Want>,
    from: Option<Duration>,
    until: Option<Duration>,
    of: Option<(String, Range<usize>)>,
}

macro_rules! want {
    ($name:literal, $kind:ident, $bound:expr, $want:expr) => {
        Key::new($name, "", Kind::$kind($bound, |d: &mut ObjectiveDraft, v| d.wants.push($want(v))))
    };
}

const OBJECTIVE: &[Key<ObjectiveDraft>] = &[
    Key::new("from", "", Kind::Span(script::TIME, |d, v| d.from = Some(v))),
    Key::new("until", "", Kind::Span(script::TIME, |d, v| d.until = Some(v))),
    Key::new(
        "of",
        "a load's name",
        Kind::Own("\"known\"", |d, r, v| d.of = r.string(v).map(|text| (text, v.span()))),
    ),
    want!("answered", Share, script::SHARE, Want::Answered),
    want!("fresh", Share, script::SHARE, Want::Fresh),
    want!("stale_max", Share, script::SHARE, Want::StaleMax),
    want!("p50", Span, script::SPAN, Want::P50),
    want!("p99", Span, script::SPAN, Want::P99),
    want!("tier_shifts_max", Count, script::COUNT, Want::TierShiftsMax),
    want!("left_within", Span, script::SPAN, Want::LeftWithin),
    want!("back_within", Span, script::SPAN, Want::BackWithin),
    want!("recovered_within", Span, script::SPAN, Want::RecoveredWithin),
    want!("upstream_ratio_max", Share, script::RATIO, Want::UpstreamRatioMax),
    want!("upstream_peak_max", Count, script::COUNT, Want::UpstreamPeakMax),
    Key::new(
        "slowest",
        "\"deadline\" is the group's",
        Kind::Own("\"deadline\"", |d, r, v| {
            if v.get_ref().as_str() == Some("deadline") {
                d.wants.push(Want::Slowest(None));
            } else if let Some(span) = r.span(v, &script::SPAN) {
                d.wants.push(Want::Slowest(Some(span)));
            }
        }),
    ),
    Key::new(
        "known_keep_addresses",
        "",
        Kind::Own("true", |d, r, v| match r.flag(v) {
            Some(true) => d.wants.push(Want::KeepAddresses),
            Some(false) => r.wrong(v.span(), "leave it out where it need not hold", None),
            None => {}
        }),
    ),
];

fn objective(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    loads: &[Load],
    (length, last_end): (Duration, Duration),
    found: &mut Vec<Objective>,
) {
    let mut draft = ObjectiveDraft::default();
    let before = reader.mistakes.len();
    table(reader, &mut Part(OBJECTIVE, &mut draft), value);
    let of = draft.of.and_then(|(name, span)| {
        let at = loads.iter().position(|l| l.name == name);
        if at.is_none() {
            let all: Vec<&str> = loads.iter().map(|l| l.name.as_str()).collect();
            let hint = format!("one of {}", all.join(", "));
            reader.wrong(span, format!("no load is called {name:?}"), Some(&hint));
        }
        at
    });
    let until = draft.until.unwrap_or(length).min(length);
    for want in &draft.wants {
        if of.is_some() && want.is_of_all() {
            let hint = "tiers and questions upstream are of all loads: write an [[objective]] of its own";
            reader.wrong(value.span(), "`of` does not go with what is wanted here", Some(hint));
            break;
        }
        // What follows an outage is measured from its end unless the file says otherwise.
        let after = matches!(want, Want::RecoveredWithin(_) | Want::BackWithin(_));
        let from = draft.from.unwrap_or(if after { last_end } else { Duration::ZERO });
        if from >= until {
            reader.wrong(value.span(), "its span is empty", Some("`from` lies before `until` and the drill's end"));
            break;
        }
        if let Want::RecoveredWithin(d) | Want::BackWithin(d) | Want::LeftWithin(d) = want
            && from + *d >= until
        {
            let what = format!("the drill ends before {} have passed", human::show_span(*d));
            reader.wrong(value.span(), what, Some("a later length, or a shorter span"));
            break;
        }
        found.push(Objective { want: *want, from, until, of });
    }
    if draft.wants.is_empty() && reader.mistakes.len() == before {
        reader.wrong(value.span(), "nothing is wanted", Some("write answered = 0.999, p99 = \"50ms\", …"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = r#"
title = "a short one"
length = "5m"
[[load]]
ask = "known"
[[act]]
at = "1m"
for = "2m"
who = ["primary", "10.0.0.1"]
what = "slow"
by = "800ms"
[[objective]]
answered = 0.999
p99 = "50ms"
of = "known"
[[objective]]
recovered_within = "30s"
"#;

    #[test]
    fn a_file_reads_with_what_it_does_not_say() {
        let read = parse("x", FINE).unwrap();
        let secs = Duration::from_secs;
        assert_eq!((read.seed, read.latency, read.loads[0].clients), (1, Duration::from_millis(6), 3));
        assert_eq!((read.loads[0].name.as_str(), read.loads[0].until), ("known", secs(300)));
        assert_eq!(read.acts[0].ill, Ill::Slow(Duration::from_millis(800)));
        assert_eq!(read.acts[0].who, [Who::Tier(0), Who::Server("10.0.0.1".into())]);
        assert_eq!(read.acts[0].until, secs(180));
        let wants: Vec<Want> = read.objectives.iter().map(|o| o.want).collect();
        let p99 = Want::P99(Duration::from_millis(50));
        assert_eq!(wants, [Want::Answered(0.999), p99, Want::RecoveredWithin(secs(30))]);
        assert_eq!((read.objectives[0].from, read.objectives[2].from), (Duration::ZERO, secs(180)));
        assert_eq!((read.objectives[0].of, read.objectives[2].of), (Some(0), None));
    }

    #[test]
    fn every_mistake_has_its_place_and_its_hint() {
        for (old, new, place, what, hint) in [
            ("title = \"a short one\"", "", "1:1", "the scenario has no title", "say in a line"),
            (
                "length = \"5m\"",
                "length = \"5\"",
                "3:10",
                "length: \"5\" is no duration",
                "write a number with its unit",
            ),
            ("length = \"5m\"", "lenght = \"5m\"", "3:1", "unknown key `lenght`", "did you mean `length`?"),
            ("length = \"5m\"", "length = \"30d\"", "3:10", "length: 30d is not within 10s and 1d", ""),
            (
                "ask = \"known\"",
                "ask = \"knwon\"",
                "5:7",
                "load.ask: \"knwon\" is not known",
                "did you mean \"known\"?",
            ),
            ("ask = \"known\"", "", "4:1", "load: the load asks nothing", "write ask"),
            ("ask = \"known\"", "ask = \"new\"\nper_second = 9999", "1:1", "the loads come to", "a lower per_second"),
            ("at = \"1m\"", "", "6:1", "act: the act has no `at`", "when it begins"),
            (
                "at = \"1m\"",
                "at = \"6m\"",
                "6:1",
                "act: the act begins after the drill's end at 5m",
                "a later length",
            ),
            ("by = \"800ms\"", "", "6:1", "act: the act has no `by`", "how slow"),
            (
                "what = \"slow\"",
                "what = \"silnt\"",
                "10:8",
                "act.what: \"silnt\" is not known",
                "did you mean \"silent\"?",
            ),
            ("by = \"800ms\"", "by = \"800ms\"\non = \"2s\"", "6:1", "act: `on` and `off` stand together", "on ="),
            ("of = \"known\"", "of = \"nobody\"", "15:6", "objective: no load is called \"nobody\"", "one of known"),
            ("answered = 0.999\np99 = \"50ms\"", "", "12:1", "objective: nothing is wanted", "write answered"),
            (
                "p99 = \"50ms\"",
                "tier_shifts_max = 1",
                "12:1",
                "objective: `of` does not go with",
                "tiers and questions",
            ),
            ("answered = 0.999", "answered = 1.2", "13:12", "objective.answered: 1.2 is not within 0 and 1", ""),
            ("\"30s\"", "\"3m\"", "16:1", "objective: the drill ends before 3m have passed", "a later length"),
            ("answered = 0.999", "answered = ", "13:12", "", ""),
        ] {
            let text = FINE.replacen(old, new, 1);
            let mistakes = parse("x", &text).unwrap_err();
            let shown = mistakes[0].shown("f").to_string();
            assert!(shown.starts_with(&format!("f:{place}: {what}")) && shown.contains(hint), "{new}: {shown}");
            assert_eq!(hint.is_empty(), mistakes[0].hint.is_none(), "{new}: {shown}");
        }
    }

    #[test]
    fn too_many_of_anything_is_a_mistake() {
        let many = FINE.to_owned() + &"[[objective]]\nfresh = 0.1\n".repeat(script::LISTED_MAX);
        assert!(parse("x", &many).unwrap_err()[0].what.contains("more than 64"));
        let twins = FINE.to_owned() + "[[load]]\nask = \"known\"\n";
        assert!(parse("x", &twins).unwrap_err()[0].what.contains("two loads are called \"known\""));
    }

    #[test]
    fn noise_is_refused_without_panic() {
        for text in ["", "[", "load = 3", "act = [1]", "[[load]]\nask = 1", "[load]\n[load.ask]", "length = [[]]"] {
            assert!(parse("x", text).is_err(), "{text}");
        }
    }
}
