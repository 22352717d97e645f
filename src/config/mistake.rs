//! What is wrong with a configuration, where, and what to do about it.
//!
//! Pure. A mistake refuses the whole configuration; a warning goes with an accepted one. Both say where they stand:
//! a line and column of the file, or the `--set` that they came by.

use std::fmt;
use std::ops::Range;

/// One reason to refuse a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands.
    pub place: Place,
    /// What is wrong, the key first: `listen.drain: "90s" is more than 1m`.
    pub what: String,
    /// What to write instead, where that can be said.
    pub hint: Option<String>,
}

/// Something that an operator should know of a configuration that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it stands.
    pub place: Place,
    /// One line.
    pub what: String,
}

/// Where in the sources of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file as a whole: it could not be read.
    Whole,
    /// In the file.
    At {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// On the command line: `key=value` as it was given.
    Set(String),
}

impl Mistake {
    /// Shows the mistake as `FILE:LINE:COLUMN: what`, and its hint on a line of its own.
    pub fn shown<'m>(&'m self, file: &'m str) -> impl fmt::Display + 'm {
        Shown { file, place: &self.place, what: &self.what, hint: self.hint.as_deref() }
    }
}

impl Warning {
    /// Shows the warning as `FILE:LINE:COLUMN: what`.
    pub fn shown<'m>(&'m self, file: &'m str) -> impl fmt::Display + 'm {
        Shown { file, place: &self.place, what: &self.what, hint: None }
    }
}

struct Shown<'m> {
    file: &'m str,
    place: &'m Place,
    what: &'m str,
    hint: Option<&'m str>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Whole => write!(f, "{}: {}", self.file, self.what)?,
            Place::At { line, column } => write!(f, "{}:{line}:{column}: {}", self.file, self.what)?,
            Place::Set(set) => write!(f, "--set {set}: {}", self.what)?,
        }
        match self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Turns byte offsets into places. Offsets behind the file's text belong to the sets, one each, in their order.
#[derive(Debug)]
pub(crate) struct Places<'i> {
    text: &'i str,
    sets: Vec<String>,
}

impl<'i> Places<'i> {
    pub(crate) fn new(text: &'i str, sets: &[(String, String)]) -> Self {
        Self { text, sets: sets.iter().map(|(key, value)| format!("{key}={value}")).collect() }
    }

    /// The span that stands for the whole of set number `index`.
    pub(crate) fn set_span(&self, index: usize) -> Range<usize> {
        let at = self.text.len() + 1 + index;
        at..at
    }

    pub(crate) fn of(&self, span: &Range<usize>) -> Place {
        if let Some(set) = span.start.checked_sub(self.text.len() + 1) {
            return self.sets.get(set).map_or(Place::Whole, |set| Place::Set(set.clone()));
        }
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place::At {
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let places = Places::new("a = 1\nää = 2\n", &[("x".into(), "y".into())]);
        for (offset, line, column) in [(0, 1, 1), (4, 1, 5), (6, 2, 1), (11, 2, 4), (15, 3, 1)] {
            assert_eq!(places.of(&(offset..offset)), Place::At { line, column }, "{offset}");
        }
        assert_eq!(places.of(&places.set_span(0)), Place::Set("x=y".into()));
    }

    #[test]
    fn a_mistake_is_shown_as_compilers_show_theirs() {
        let mistake = Mistake {
            place: Place::At { line: 3, column: 7 },
            what: "listen.drain: \"2\" is no duration".into(),
            hint: Some("write \"2s\"".into()),
        };
        assert_eq!(
            mistake.shown("evenkeel.toml").to_string(),
            "evenkeel.toml:3:7: listen.drain: \"2\" is no duration\n  hint: write \"2s\""
        );
    }
}
