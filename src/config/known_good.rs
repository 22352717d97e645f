//! `[[guard]]`: names that must not vanish, and `[[canary]]`: names that are asked as a client would.
//!
//! Pure. A guard names patterns; where a name fits several, the longest pattern counts, and of equal ones the first.

use super::document::Value;
use super::key::{Key, Kind, Part, Reader, set_defaults};
use super::local::{name, record_type};
use crate::cache::guard::GuardSettings;
use crate::limits;
use crate::observe::{CanarySettings, Expected};
use crate::wire::Name;

/// Patterns of all guards.
const PATTERNS_MAX: usize = 10_000;

/// The keys of `[[guard]]`.
pub(super) const GUARD: &[Key<GuardSettings>] = &[
    Key::new(
        "names",
        "`*.x` is every name below x, `x` is x alone",
        Kind::Own("[\"*.example.org\"]", |g, r, v| {
            g.names.clear();
            for (text, span) in r.strings(v) {
                match text.parse() {
                    Ok(pattern) => g.names.push(pattern),
                    Err(why) => r.wrong(span, format!("{text:?}: {why}"), Some("write \"*.example.org\" or a name")),
                }
            }
        }),
    ),
    Key::new(
        "hold",
        "how long a sudden NXDOMAIN or empty answer is held off",
        Kind::Span(limits::GUARD_HOLD, |g, v| g.hold = v),
    ),
    Key::new(
        "min_good",
        "only a name that had answers this long is guarded",
        Kind::Span(limits::GUARD_MIN_GOOD, |g, v| g.min_good = v),
    ),
];

/// What an entry says of a canary.
pub(super) struct CanaryDraft {
    name: Option<Name>,
    qtype: u16,
    expect: Expected,
    every: std::time::Duration,
}

/// The keys of `[[canary]]`.
pub(super) const CANARY: &[Key<CanaryDraft>] = &[
    Key::new("name", "", Kind::Own("\"www.example.org\"", |d, r, v| d.name = name(r, v))),
    Key::new(
        "type",
        "",
        Kind::Own("\"A\"", |d, r, v| {
            let Some(text) = r.string(v) else { return };
            match record_type(&text).filter(|t| !matches!(t, 0 | 41 | 249..=255)) {
                Some(qtype) => d.qtype = qtype,
                None => r.wrong(v.span(), format!("{text:?} is no record type"), Some("write A, AAAA or TYPE65")),
            }
        }),
    ),
    Key::new(
        "expect",
        "\"records\", \"nodata\", \"nxdomain\", or the data of one of the records: \"192.0.2.7\"",
        Kind::Own("\"records\"", |d, r, v| {
            let Some(text) = r.string(v) else { return };
            d.expect = match text.as_str() {
                "records" => Expected::Records,
                "nodata" => Expected::NoData,
                "nxdomain" => Expected::NxDomain,
                "" => return r.wrong(v.span(), "nothing is expected", Some("write \"records\"")),
                _ => Expected::Data(text),
            };
        }),
    ),
    Key::new("every", "", Kind::Span(limits::CANARY_EVERY, |d, v| d.every = v)),
];

/// Reads every `[[guard]]`.
pub(super) fn read_guards(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<GuardSettings> {
    let mut guards = Vec::new();
    let mut patterns = 0;
    for entry in reader.items(value) {
        let mut guard = GuardSettings::default();
        set_defaults(GUARD, &mut guard);
        // Its names have no default: the one in the default file is an example.
        guard.names.clear();
        let before = reader.mistakes.len();
        reader.table(entry, &mut [&mut Part(GUARD, &mut guard)], &[]);
        patterns += guard.names.len();
        if patterns > PATTERNS_MAX {
            reader.wrong(entry.span(), "more than 10000 names in all guards", Some("`*.x` is every name below x"));
            return guards;
        }
        if guard.names.is_empty() && reader.mistakes.len() == before {
            reader.wrong(entry.span(), "the guard names nothing", Some("write names = [\"*.example.org\"]"));
        }
        guards.push(guard);
    }
    guards
}

/// Reads every `[[canary]]`.
pub(super) fn read_canaries(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<CanarySettings> {
    let mut canaries: Vec<CanarySettings> = Vec::new();
    for entry in reader.items(value) {
        let mut draft = CanaryDraft { name: None, qtype: 0, expect: Expected::Records, every: Default::default() };
        set_defaults(CANARY, &mut draft);
        draft.name = None;
        let before = reader.mistakes.len();
        reader.table(entry, &mut [&mut Part(CANARY, &mut draft)], &[]);
        let Some(name) = draft.name else {
            if reader.mistakes.len() == before {
                reader.wrong(entry.span(), "the canary has no name", Some("write name = \"www.example.org\""));
            }
            continue;
        };
        let canary = CanarySettings { name, qtype: draft.qtype, expect: draft.expect, every: draft.every };
        if canaries.iter().any(|c| (&c.name, c.qtype) == (&canary.name, canary.qtype)) {
            reader.wrong(entry.span(), "the same name and type have a canary already", None);
        } else if canaries.len() == limits::CANARIES_MAX {
            reader.wrong(entry.span(), format!("more than {} canaries", limits::CANARIES_MAX), None);
            break;
        } else {
            canaries.push(canary);
        }
    }
    canaries
}
