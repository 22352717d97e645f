//! Patterns of names, as the configuration writes them.
//!
//! Pure. `*.x` is every name below `x` at any depth, not `x` itself; `x` is `x` alone. Of several patterns that fit a
//! name the longest counts, and a name that is meant alone before any.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::Name;
use super::name::{NameError, suffixes};

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    name: Name,
    below: bool,
}

impl FromStr for Pattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("*.") {
            // "*." is every name but the root.
            Some(rest) => Ok(Self { name: if rest.is_empty() { Name::root() } else { rest.parse()? }, below: true }),
            None => Ok(Self { name: text.parse()?, below: false }),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.below {
            true if self.name == Name::root() => f.write_str("*."),
            true => write!(f, "*.{}", self.name),
            false => self.name.fmt(f),
        }
    }
}

/// What belongs to patterns, found by name.
#[derive(Clone, Debug)]
pub struct Patterns<T> {
    alone: HashMap<Box<[u8]>, T>,
    below: HashMap<Box<[u8]>, T>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { alone: HashMap::new(), below: HashMap::new() }
    }
}

impl<T> Patterns<T> {
    /// Of two equal patterns the first counts.
    pub fn new(patterns: impl IntoIterator<Item = (Pattern, T)>) -> Self {
        let mut all = Self::default();
        for (pattern, value) in patterns {
            let map = if pattern.below { &mut all.below } else { &mut all.alone };
            map.entry(pattern.name.as_wire().into()).or_insert(value);
        }
        all
    }

    /// What belongs to the pattern that fits a folded name best. At most one look-up a label.
    pub fn find(&self, name: &[u8]) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        self.alone.get(name).or_else(|| suffixes(name).skip(1).find_map(|suffix| self.below.get(suffix)))
    }

    /// Is there no pattern at all?
    pub fn is_empty(&self) -> bool {
        self.alone.is_empty() && self.below.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_every_name_below_and_a_name_is_that_name_alone() {
        let patterns = ["*.example.org", "www.example.org", "*.a.example.org", "*.example.org"];
        let all = Patterns::new(patterns.iter().enumerate().map(|(n, p)| (p.parse().unwrap(), n)));
        for (name, want) in [
            ("example.org", None),
            ("x.example.org", Some(0)),
            ("y.x.Example.ORG", Some(0)),
            ("www.example.org", Some(1)),
            ("x.www.example.org", Some(0)),
            ("a.example.org", Some(0)),
            ("b.a.example.org", Some(2)),
            ("xexample.org", None),
            (".", None),
        ] {
            let name: Name = name.parse().unwrap();
            assert_eq!(all.find(name.as_wire()).copied(), want, "{name}");
        }
        let all = Patterns::new([("*.".parse().unwrap(), ())]);
        assert!(all.find(&[0]).is_none() && all.find(b"\x03org\0").is_some());
    }

    #[test]
    fn a_pattern_is_shown_as_it_is_written() {
        for text in ["*.example.org.", "example.org.", "*.", "."] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        assert!("*.a..b".parse::<Pattern>().is_err() && "a.*..b".parse::<Pattern>().is_err());
    }
}
