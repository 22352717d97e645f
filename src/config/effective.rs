//! Every key in effect, as an operator would write it.
//!
//! Pure. The defaults, with the file laid over them and `--set` over both. Values stand as they were written: what
//! `${NAME}` was expanded to is not in them. A group has the keys that it names; what it does not say is what
//! `groups.default` has by default.

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::document;
use super::mistake::Places;
use super::text::default_text;

/// A key, its value as TOML, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// The whole key: `cache.max_bytes`; items of a list of tables are numbered from 1: `guard.1.hold`.
    pub key: String,
    /// Its value.
    pub value: String,
    /// "default", "file" or "set".
    pub by: &'static str,
}

/// The keys in effect of a configuration that was accepted, by key.
pub fn effective(text: &str, sets: &[(String, String)]) -> Vec<Said> {
    let defaults = default_text();
    let mut said = flat(&defaults, &[], "default");
    let mut lay = |over: Vec<Said>| {
        for new in over {
            // A list of tables, or a table, takes the place of what stood under its key.
            let inner = format!("{}.", new.key);
            said.retain(|old| old.key != new.key && !old.key.starts_with(&inner));
            said.push(new);
        }
    };
    lay(flat(text, &[], "file"));
    lay(flat("", sets, "set"));
    said.sort_by(|a, b| a.key.cmp(&b.key));
    said
}

fn flat(text: &str, sets: &[(String, String)], by: &'static str) -> Vec<Said> {
    let (root, _) = document::read(text, sets, &Places::new(text, sets));
    let mut said = Vec::new();
    walk("", &root, by, &mut said);
    said
}

fn walk(path: &str, table: &DeTable<'_>, by: &'static str, said: &mut Vec<Said>) {
    for (name, value) in table {
        let key = format!("{path}{}", name_of(name.get_ref()));
        value_of(key, value.get_ref(), by, said);
    }
}

fn value_of(key: String, value: &DeValue<'_>, by: &'static str, said: &mut Vec<Said>) {
    match value {
        DeValue::Table(inner) => walk(&format!("{key}."), inner, by, said),
        // Servers are tables in a list too, and stand on one line.
        DeValue::Array(items) if TABLES.contains(&key.as_str()) && items.iter().all(|i| i.get_ref().is_table()) => {
            for (n, item) in items.iter().enumerate() {
                value_of(format!("{key}.{}", n + 1), item.get_ref(), by, said);
            }
        }
        plain => said.push(Said { key, value: shown(plain), by }),
    }
}

/// Lists of tables at the top level.
const TABLES: [&str; 3] = ["guard", "canary", "local"];

fn name_of(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// A JSON string is a TOML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn shown(value: &DeValue<'_>) -> String {
    let all = |items: Vec<String>, [open, close]: [&str; 2]| format!("{open}{}{close}", items.join(", "));
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) => all(items.iter().map(|item| shown(item.get_ref())).collect(), ["[", "]"]),
        DeValue::Table(table) => {
            let pair = |(name, value): (&toml::Spanned<_>, &document::Value<'_>)| {
                let name: &std::borrow::Cow<'_, str> = name.get_ref();
                format!("{} = {}", name_of(name), shown(value.get_ref()))
            };
            all(table.iter().map(pair).collect(), ["{ ", " }"])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    fn of(text: &str, sets: &[(&str, &str)]) -> impl Fn(&str) -> Option<(String, &'static str)> {
        let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let said = effective(text, &sets);
        move |key| said.iter().find(|s| s.key == key).map(|s| (s.value.clone(), s.by))
    }

    #[test]
    fn the_file_stands_over_the_defaults_and_a_set_over_both() {
        let text = "[listen]\ndns = \"127.0.0.1:53\"\nworkers = 3\n[groups.default]\n\
                    primary = [{ address = \"${HOST}\", name = \"a\" }]\n[groups.\"a.b\"]\nzones = [\"x\"]\n\
                    [[guard]]\nnames = [\"*.x\"]\n[[guard]]\nhold = \"1m\"\n";
        let of = of(text, &[("listen.workers", "2"), ("groups.default.hold", "x\"y")]);
        for (key, value, by) in [
            ("listen.dns", "\"127.0.0.1:53\"", "file"),
            ("listen.workers", "2", "set"),
            ("listen.drain", "\"2s\"", "default"),
            ("groups.default.primary", "[{ address = \"${HOST}\", name = \"a\" }]", "file"),
            ("groups.default.hold", "\"x\\\"y\"", "set"),
            ("groups.default.health.probes", "[\". NS\"]", "default"),
            ("groups.\"a.b\".zones", "[\"x\"]", "file"),
            ("guard.1.names", "[\"*.x\"]", "file"),
            ("guard.2.hold", "\"1m\"", "file"),
        ] {
            assert_eq!(of(key), Some((value.to_owned(), by)), "{key}");
        }
    }

    #[test]
    fn the_keys_in_effect_mean_the_same_as_what_they_are_from() {
        let text = "[cache]\nmax_bytes = \"8MiB\"\n[groups.default]\nprimary = [\"192.0.2.1\"]\n";
        let said = effective(text, &[("log.level".to_owned(), "debug".to_owned())]);
        let whole: String = said.iter().map(|s| format!("{} = {}\n", s.key, s.value)).collect();
        let (config, _) = parse(&whole, &|_| None, &[]).unwrap();
        let (wanted, _) = parse(text, &|_| None, &[("log.level".to_owned(), "debug".to_owned())]).unwrap();
        assert_eq!(config, wanted);
        assert_ne!(config, Config::default());
    }
}
