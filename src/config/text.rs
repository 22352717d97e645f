//! The commented default file, from the definitions of the keys.
//!
//! Pure. Every key stands with its default and what it is; an example stands commented out, so that the file means
//! the same as an empty one.

use std::fmt::Write;

use super::keys::{Entry, Section, sections};

/// The default configuration as a file.
pub fn default_text() -> String {
    let mut out = String::from(HEAD);
    for section in sections() {
        write_section(&section, &mut out);
    }
    out
}

const HEAD: &str = "\
# evenkeel: every key with its default. Written by `evenkeel default-config`; an empty file means the same.
#
# Unknown keys are refused. Durations have a unit (\"150ms\", \"2s\", \"30m\", \"1d\"), so have sizes (\"64MiB\").
# ${NAME} in a string is taken from the environment; $${ stands for a plain ${.
# `evenkeel check` reads a file as the daemon would, `evenkeel reload` applies it.
";

/// Where comments behind values begin.
const COMMENT_COLUMN: usize = 42;

fn write_section(section: &Section, out: &mut String) {
    out.push('\n');
    for line in section.doc.lines() {
        let _ = writeln!(out, "# {line}");
    }
    let mark = if section.example { "# " } else { "" };
    let _ = writeln!(out, "{mark}{}", section.header);
    for entry in &section.keys {
        write_entry(entry, section.example, out);
    }
}

fn write_entry(entry: &Entry, example: bool, out: &mut String) {
    let mark = if example { "# " } else { "" };
    let mut line = format!("{mark}{} = {}", entry.name, entry.default);
    let mut comments = entry.doc.lines();
    let pad = COMMENT_COLUMN.saturating_sub(line.chars().count());
    if pad > 0
        && let Some(first) = comments.next()
    {
        let _ = write!(line, "{:pad$}# {first}", "");
    }
    out.push_str(&line);
    out.push('\n');
    for comment in comments {
        let _ = writeln!(out, "{:COMMENT_COLUMN$}# {comment}", "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    #[test]
    fn the_file_in_conf_is_the_generated_one() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/evenkeel.toml");
        let kept = std::fs::read_to_string(file).unwrap();
        assert_eq!(kept, default_text(), "write it anew: cargo run -- default-config > conf/evenkeel.toml");
    }

    #[test]
    fn the_default_file_means_the_same_as_an_empty_one() {
        let (config, warnings) = parse(&default_text(), &|_| None, &[]).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(warnings, []);
    }

    #[test]
    fn the_default_file_reads_with_its_examples_too() {
        let text: String = default_text()
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(code) if code.starts_with("[[") || code.contains(" = ") => format!("{code}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let (config, warnings) = parse(&text, &|_| None, &[]).unwrap();
        assert_eq!(config.local.records.len(), 2);
        assert_eq!(config.local.zones.len(), 1);
        assert_eq!((config.guards.len(), config.canaries.len()), (1, 1));
        assert_eq!(warnings, []);
    }
}
