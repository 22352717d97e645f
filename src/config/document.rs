//! The sources of a configuration as one document: the file's TOML, with what `--set` gave laid over it.
//!
//! Pure. Every value keeps the span that it came from; a value of a set has the set's own span ([`Places`]).
//!
//! A set is `key=value`. The key is dotted as in TOML (`groups.default.primary`, `groups."a.b".zones`). The value is
//! read as TOML (`["192.0.2.1"]`, `3`, `true`); where it is none it is taken as a string (`2s`, `127.0.0.1:5353`). It
//! stands in the place of what the file has under this key.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::mistake::{Mistake, Place, Places};

/// A value and where it stands.
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// The tables, as far as they could be read, and every mistake of syntax, in their order, one a line.
pub(crate) fn read<'i>(
    text: &'i str,
    sets: &'i [(String, String)],
    places: &Places<'_>,
) -> (DeTable<'i>, Vec<Mistake>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut root = root.into_inner();
    let mut mistakes: Vec<Mistake> = errors.iter().map(|e| syntax(e, places)).collect();
    // What follows the first mistake of a line is mostly about the same slip.
    mistakes.sort_by(|a, b| a.place.cmp(&b.place));
    mistakes.dedup_by(|b, a| line(a).is_some() && line(a) == line(b));
    for (index, (key, value)) in sets.iter().enumerate() {
        let span = places.set_span(index);
        match path(key) {
            Some(path) => lay_over(&mut root, &path, set_value(value, &span), &span),
            None => mistakes.push(Mistake {
                place: places.of(&span),
                what: format!("{key:?} is no key"),
                hint: Some("write --set section.key=value".to_owned()),
            }),
        }
    }
    (root, mistakes)
}

fn syntax(error: &Error, places: &Places<'_>) -> Mistake {
    Mistake {
        place: error.span().map_or(Place::Whole, |span| places.of(&span)),
        what: error.message().trim_end().replace('\n', ", "),
        hint: None,
    }
}

fn line(mistake: &Mistake) -> Option<usize> {
    match mistake.place {
        Place::At { line, .. } => Some(line),
        _ => None,
    }
}

/// The parts of a dotted key: TOML reads it, with a value behind it that is always fine.
fn path(key: &str) -> Option<Vec<String>> {
    if key.contains(['\n', '\r', '=', '#']) || key.trim_start().starts_with('[') {
        return None;
    }
    let text = format!("{key} = 0");
    let root = DeTable::parse(&text).ok()?.into_inner();
    let mut path = Vec::new();
    let mut table = &root;
    loop {
        let (name, value) = table.iter().next()?;
        path.push(name.get_ref().to_string());
        match value.get_ref().as_table() {
            Some(inner) => table = inner,
            None => return Some(path),
        }
    }
}

fn set_value<'i>(text: &'i str, span: &Range<usize>) -> Value<'i> {
    match DeValue::parse(text) {
        Ok(value) => moved(value.into_inner(), span),
        Err(_) => Spanned::new(span.clone(), DeValue::String(Cow::Borrowed(text))),
    }
}

/// `value` with `span` on it and on everything in it.
fn moved<'i>(value: DeValue<'i>, span: &Range<usize>) -> Value<'i> {
    let value = match value {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| moved(item.into_inner(), span)).collect())
        }
        DeValue::Table(table) => DeValue::Table(
            table
                .into_iter()
                .map(|(k, v)| (Spanned::new(span.clone(), k.into_inner()), moved(v.into_inner(), span)))
                .collect(),
        ),
        other => other,
    };
    Spanned::new(span.clone(), value)
}

fn lay_over<'i>(table: &mut DeTable<'i>, path: &[String], value: Value<'i>, span: &Range<usize>) {
    let Some((name, rest)) = path.split_first() else { return };
    let key = Spanned::new(span.clone(), Cow::Owned(name.clone()));
    if rest.is_empty() {
        // Removed first, since an insert would keep the key's old span.
        table.remove(name.as_str());
        table.insert(key, value);
        return;
    }
    if !table.get(name.as_str()).is_some_and(|v| v.get_ref().is_table()) {
        table.remove(name.as_str());
        table.insert(key, Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
    }
    if let Some(DeValue::Table(inner)) = table.get_mut(name.as_str()).map(Spanned::get_mut) {
        lay_over(inner, rest, value, span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, key: &str, value: &str) -> Option<String> {
        let sets = [(key.to_owned(), value.to_owned())];
        let (root, mistakes) = read(text, &sets, &Places::new(text, &sets));
        if mistakes.is_empty() { Some(show(&DeValue::Table(root))) } else { None }
    }

    fn show(value: &DeValue<'_>) -> String {
        match value {
            DeValue::Table(t) => {
                let parts: Vec<_> = t.iter().map(|(k, v)| format!("{}={}", k.get_ref(), show(v.get_ref()))).collect();
                format!("{{{}}}", parts.join(","))
            }
            DeValue::Array(a) => format!("{:?}", a.iter().map(|v| show(v.get_ref())).collect::<Vec<_>>()),
            DeValue::String(s) => format!("'{s}'"),
            DeValue::Integer(i) => i.to_string(),
            other => other.type_str().to_owned(),
        }
    }

    #[test]
    fn a_set_stands_in_the_place_of_what_the_file_says() {
        for (text, key, value, result) in [
            ("", "a.b", "2s", Some("{a={b='2s'}}")),
            ("[a]\nb = 1\nc = 2", "a.b", "7", Some("{a={b=7,c=2}}")),
            ("", "a.b", "[\"x\"]", Some("{a={b=[\"'x'\"]}}")),
            ("", "a.\"x.y\".b", "1", Some("{a={x.y={b=1}}}")),
            ("a = 1", "a.b", "1", Some("{a={b=1}}")),
            ("", "a.b", "127.0.0.1:53", Some("{a={b='127.0.0.1:53'}}")),
            ("", "", "1", None),
            ("", "a b", "1", None),
            ("", "a=1\nb", "1", None),
            ("", "[a]", "1", None),
        ] {
            assert_eq!(set(text, key, value).as_deref(), result, "{key} = {value} over {text:?}");
        }
    }

    #[test]
    fn what_a_set_gave_stands_where_the_set_stands() {
        let sets = [("a.b".to_owned(), "[1, 2]".to_owned())];
        let text = "[a]\nc = 1";
        let places = Places::new(text, &sets);
        let (root, _) = read(text, &sets, &places);
        let a = root["a"].get_ref();
        assert_eq!(places.of(&a["b"].get_ref()[1].span()), Place::Set("a.b=[1, 2]".into()));
        assert_eq!(places.of(&a["c"].span()), Place::At { line: 2, column: 5 });
    }

    #[test]
    fn every_mistake_of_syntax_is_reported() {
        let text = "a = \nb = 1\nc == 2\n";
        let (_, mistakes) = read(text, &[], &Places::new(text, &[]));
        let places: Vec<_> = mistakes.into_iter().map(|m| m.place).collect();
        assert_eq!(places, [Place::At { line: 1, column: 5 }, Place::At { line: 3, column: 4 }]);
    }
}
