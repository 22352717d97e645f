//! How a key is defined, and how a table is read against such definitions.
//!
//! Pure. A [`Key`] is the one place that knows a key's name, what it says to operators, its default and how it is
//! read. The reader, the hints at unknown keys and the commented default file all come from it (`keys.rs` has the
//! definitions).

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use toml::de::DeValue;

use super::document::Value;
use super::human;
use super::mistake::{Mistake, Places, Warning};
use crate::limits::Bound;

/// One key that sets something of a `T`.
pub(crate) struct Key<T: 'static> {
    pub name: &'static str,
    /// What it is, for operators; each line is a comment of the default file.
    pub doc: &'static str,
    pub kind: Kind<T>,
}

/// What a key's values are, where their bounds and default come from, and where they go.
pub(crate) enum Kind<T: 'static> {
    /// A duration.
    Span(Bound<Duration>, fn(&mut T, Duration)),
    /// A duration in whole seconds.
    Seconds(Bound<Duration>, fn(&mut T, u32)),
    /// A size in bytes.
    Size(Bound<u64>, fn(&mut T, u64)),
    /// A whole number.
    Count(Bound<u64>, fn(&mut T, u64)),
    /// A fraction.
    Share(Bound<f64>, fn(&mut T, f64)),
    /// Yes or no.
    Flag(bool, fn(&mut T, bool)),
    /// Anything else: the default as TOML, and a function that reads, reports what is wrong, and sets.
    Own(&'static str, fn(&mut T, &mut Reader<'_>, &Value<'_>)),
}

impl<T> Key<T> {
    pub(crate) const fn new(name: &'static str, doc: &'static str, kind: Kind<T>) -> Self {
        Self { name, doc, kind }
    }

    /// The default as TOML.
    pub(crate) fn default(&self) -> String {
        match &self.kind {
            Kind::Span(bound, _) | Kind::Seconds(bound, _) => format!("{:?}", human::show_span(bound.default)),
            Kind::Size(bound, _) => format!("{:?}", human::show_size(bound.default)),
            Kind::Count(bound, _) => bound.default.to_string(),
            Kind::Share(bound, _) => format!("{:?}", bound.default),
            Kind::Flag(default, _) => default.to_string(),
            Kind::Own(default, _) => (*default).to_owned(),
        }
    }

    fn read(&self, target: &mut T, reader: &mut Reader<'_>, value: &Value<'_>) {
        match &self.kind {
            Kind::Span(bound, set) => {
                if let Some(v) = reader.span(value, bound) {
                    set(target, v);
                }
            }
            Kind::Seconds(bound, set) => {
                if let Some(v) = reader.seconds(value, bound) {
                    set(target, v);
                }
            }
            Kind::Size(bound, set) => {
                if let Some(v) = reader.size(value, bound) {
                    set(target, v);
                }
            }
            Kind::Count(bound, set) => {
                if let Some(v) = reader.count(value, bound) {
                    set(target, v);
                }
            }
            Kind::Share(bound, set) => {
                if let Some(v) = reader.share(value, bound) {
                    set(target, v);
                }
            }
            Kind::Flag(_, set) => {
                if let Some(v) = reader.flag(value) {
                    set(target, v);
                }
            }
            Kind::Own(_, read) => read(target, reader, value),
        }
    }
}

/// Sets every key of `target` to its default.
pub(crate) fn set_defaults<T>(keys: &[Key<T>], target: &mut T) {
    for key in keys {
        let text = key.default();
        let Ok(value) = DeValue::parse(&text) else { continue };
        let places = Places::new(&text, &[]);
        key.read(target, &mut Reader::new(&places, &|_| None), &value);
    }
}

/// Some keys of a table, and what they set.
pub(crate) struct Part<'t, T: 'static>(pub &'static [Key<T>], pub &'t mut T);

/// A [`Part`] of whatever type.
pub(crate) trait Keys {
    fn names(&self) -> Vec<&'static str>;
    /// Reads `value` as the key `name`; false where there is no such key.
    fn read(&mut self, name: &str, value: &Value<'_>, reader: &mut Reader<'_>) -> bool;
}

impl<T> Keys for Part<'_, T> {
    fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|key| key.name).collect()
    }

    fn read(&mut self, name: &str, value: &Value<'_>, reader: &mut Reader<'_>) -> bool {
        let Some(key) = self.0.iter().find(|key| key.name == name) else { return false };
        key.read(self.1, reader, value);
        true
    }
}

/// Where reading stands: the path of the key at hand, and what was found wrong.
pub(crate) struct Reader<'r> {
    places: &'r Places<'r>,
    env: &'r dyn Fn(&str) -> Option<String>,
    path: Vec<String>,
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<Warning>,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(places: &'r Places<'r>, env: &'r dyn Fn(&str) -> Option<String>) -> Self {
        Self { places, env, path: Vec::new(), mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// The path of the key at hand: `groups.default.health.every`.
    pub(crate) fn path(&self) -> String {
        self.path.join(".")
    }

    /// Reports that the value at `span` is wrong.
    pub(crate) fn wrong(&mut self, span: Range<usize>, what: impl AsRef<str>, hint: Option<&str>) {
        if self.mistakes.len() >= REPORTED_MAX {
            return;
        }
        let what = what.as_ref();
        let what = if self.path.is_empty() { what.to_owned() } else { format!("{}: {what}", self.path()) };
        self.mistakes.push(Mistake { place: self.places.of(&span), what, hint: hint.map(str::to_owned) });
    }

    pub(crate) fn warn(&mut self, span: Range<usize>, what: String) {
        if self.warnings.len() < REPORTED_MAX {
            self.warnings.push(Warning { place: self.places.of(&span), what });
        }
    }

    /// Runs `read` with `name` at the end of the path.
    pub(crate) fn within<R>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(name.to_owned());
        let result = read(self);
        self.path.pop();
        result
    }

    /// Reads the keys of a table, leaving out `nested` ones. What no part knows is reported, with the nearest name.
    pub(crate) fn table(&mut self, value: &Value<'_>, parts: &mut [&mut dyn Keys], nested: &[&str]) {
        let Some(table) = value.get_ref().as_table() else {
            return self.type_mismatch(value, "a table");
        };
        for (name, value) in table {
            let key = name.get_ref().as_ref();
            if nested.contains(&key) {
                continue;
            }
            let known = self.within(key, |reader| parts.iter_mut().any(|part| part.read(key, value, reader)));
            if !known {
                let names = parts.iter().flat_map(|part| part.names()).chain(nested.iter().copied());
                self.unknown(name.span(), key, names);
            }
        }
    }

    /// Reports an unknown key, with the nearest of `names`, or the section that has one of its name.
    pub(crate) fn unknown<'n>(&mut self, span: Range<usize>, key: &str, names: impl Iterator<Item = &'n str>) {
        let hint = nearest(key, names)
            .map(|name| format!("did you mean `{name}`?"))
            .or_else(|| super::keys::section_of(key).map(|section| format!("`{key}` stands in [{section}]")));
        let shown: String = key.chars().take(KEY_SHOWN_MAX).collect();
        self.wrong(span, format!("unknown key `{shown}`"), hint.as_deref());
    }

    pub(crate) fn type_mismatch(&mut self, value: &Value<'_>, wanted: &str) {
        self.wrong(
            value.span(),
            format!("{wanted} is wanted here, not {}", article(value.get_ref().type_str())),
            None,
        );
    }

    //------------ Values --------------------------------------------------------------------------------------------

    /// A string, with what it names of the environment put in.
    pub(crate) fn string(&mut self, value: &Value<'_>) -> Option<String> {
        let Some(text) = value.get_ref().as_str() else {
            self.type_mismatch(value, "a string");
            return None;
        };
        match expand(text, self.env) {
            Ok(text) => Some(text.into_owned()),
            Err(what) => {
                self.wrong(value.span(), what, Some("`$${` stands for a plain `${`"));
                None
            }
        }
    }

    /// The items of a list; one value alone is a list of one.
    pub(crate) fn items<'v, 'i>(&mut self, value: &'v Value<'i>) -> Vec<&'v Value<'i>> {
        match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        }
    }

    /// A list of strings, or one alone, each with its span.
    pub(crate) fn strings(&mut self, value: &Value<'_>) -> Vec<(String, Range<usize>)> {
        let items = self.items(value);
        items.into_iter().filter_map(|item| Some((self.string(item)?, item.span()))).collect()
    }

    /// One of `words`.
    pub(crate) fn word<V: Copy>(&mut self, value: &Value<'_>, words: &[(&str, V)]) -> Option<V> {
        let text = self.string(value)?;
        if let Some((_, v)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*v);
        }
        let all: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.wrong(value.span(), format!("{text:?} is none of {}", all.join(", ")), None);
        None
    }

    pub(crate) fn flag(&mut self, value: &Value<'_>) -> Option<bool> {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.type_mismatch(value, "true or false");
        }
        flag
    }

    pub(crate) fn span(&mut self, value: &Value<'_>, bound: &Bound<Duration>) -> Option<Duration> {
        if value.get_ref().is_integer() || value.get_ref().is_float() {
            self.wrong(value.span(), "a duration has a unit", Some(human::SPAN_HINT));
            return None;
        }
        let text = self.string(value)?;
        let Some(span) = human::span(&text) else {
            self.wrong(value.span(), format!("{text:?} is no duration"), Some(human::SPAN_HINT));
            return None;
        };
        self.bounded(value, span, bound, |span| human::show_span(*span))
    }

    pub(crate) fn seconds(&mut self, value: &Value<'_>, bound: &Bound<Duration>) -> Option<u32> {
        let span = self.span(value, bound)?;
        if span.subsec_nanos() != 0 {
            self.wrong(value.span(), "a time to live is in whole seconds", None);
            return None;
        }
        u32::try_from(span.as_secs()).ok()
    }

    /// A duration, or `"auto"`, which is `None`.
    pub(crate) fn span_or_auto(&mut self, value: &Value<'_>, bound: &Bound<Duration>) -> Option<Option<Duration>> {
        if value.get_ref().as_str() == Some("auto") {
            return Some(None);
        }
        self.span(value, bound).map(Some)
    }

    pub(crate) fn size(&mut self, value: &Value<'_>, bound: &Bound<u64>) -> Option<u64> {
        let bytes = match value.get_ref() {
            DeValue::Integer(_) => self.integer(value)?,
            _ => {
                let text = self.string(value)?;
                let Some(bytes) = human::size(&text) else {
                    self.wrong(value.span(), format!("{text:?} is no size"), Some(human::SIZE_HINT));
                    return None;
                };
                bytes
            }
        };
        self.bounded(value, bytes, bound, |bytes| human::show_size(*bytes))
    }

    pub(crate) fn count(&mut self, value: &Value<'_>, bound: &Bound<u64>) -> Option<u64> {
        let number = self.integer(value)?;
        self.bounded(value, number, bound, u64::to_string)
    }

    fn integer(&mut self, value: &Value<'_>) -> Option<u64> {
        let Some(digits) = value.get_ref().as_integer() else {
            self.type_mismatch(value, "a whole number");
            return None;
        };
        let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok();
        if number.is_none() {
            self.wrong(value.span(), format!("{digits} is below 0 or has more than 64 bits"), None);
        }
        number
    }

    pub(crate) fn share(&mut self, value: &Value<'_>, bound: &Bound<f64>) -> Option<f64> {
        let number: Option<f64> = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(int) if int.radix() == 10 => int.as_str().parse().ok(),
            _ => None,
        };
        let Some(number) = number.filter(|n| n.is_finite()) else {
            self.type_mismatch(value, "a number");
            return None;
        };
        self.bounded(value, number, bound, f64::to_string)
    }

    fn bounded<V: PartialOrd>(
        &mut self,
        value: &Value<'_>,
        v: V,
        bound: &Bound<V>,
        show: impl Fn(&V) -> String,
    ) -> Option<V> {
        if v >= bound.min && v <= bound.max {
            return Some(v);
        }
        let ends = format!("{} is not within {} and {}", show(&v), show(&bound.min), show(&bound.max));
        self.wrong(value.span(), ends, None);
        None
    }
}

/// Mistakes, and warnings, that are reported of one configuration.
pub(crate) const REPORTED_MAX: usize = 100;

/// Characters that are shown of an unknown key.
const KEY_SHOWN_MAX: usize = 64;

fn article(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {type_name}")
}

/// Puts in what `${NAME}` names; `$${` stands for `${`.
fn expand<'t>(text: &'t str, env: &dyn Fn(&str) -> Option<String>) -> Result<Cow<'t, str>, String> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some((name, behind)) = rest[at + 2..].split_once('}') else {
            return Err("`${` has no `}`".to_owned());
        };
        out.push_str(&env(name).ok_or_else(|| format!("${{{name}}} is not set in the environment"))?);
        rest = behind;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// The name that `key` may have been meant as.
pub(crate) fn nearest<'n>(key: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if key.len() > KEY_SHOWN_MAX {
        return None;
    }
    names
        .map(|name| (strsim::damerau_levenshtein(key, name), name))
        .min()
        // One slip in three characters is a slip; more is another word.
        .filter(|(slips, name)| *slips <= name.len().max(3) / 3)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_put_in_where_it_is_named() {
        let env = |name: &str| (name == "HOST").then(|| "192.0.2.1".to_owned());
        for (text, result) in [
            ("plain", Ok("plain")),
            ("${HOST}:53", Ok("192.0.2.1:53")),
            ("a${HOST}b${HOST}", Ok("a192.0.2.1b192.0.2.1")),
            ("$${HOST}", Ok("${HOST}")),
            ("$HOST", Ok("$HOST")),
            ("${NONE}", Err("${NONE} is not set in the environment")),
            ("${HOST", Err("`${` has no `}`")),
        ] {
            let got = expand(text, &env);
            assert_eq!(got.as_deref().map_err(String::as_str), result, "{text}");
        }
    }

    #[test]
    fn a_slip_has_a_hint_and_another_word_has_none() {
        let names = ["max_bytes", "min_ttl", "max_ttl", "rotate"];
        for (key, hint) in [
            ("max_byte", Some("max_bytes")),
            ("maxttl", Some("max_ttl")),
            ("rotat", Some("rotate")),
            ("colour", None),
        ] {
            assert_eq!(nearest(key, names.into_iter()), hint, "{key}");
        }
    }
}
