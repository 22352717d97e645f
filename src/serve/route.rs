//! Which group answers for this name?
//!
//! Pure. Each zone belongs to one group; the longest match wins. Zones are names: `x` is x and every name below it.

use std::collections::HashMap;

use crate::wire::Name;
use crate::wire::name::suffixes;

/// Zones and their groups.
#[derive(Debug, Default)]
pub struct Routes {
    zones: HashMap<Box<[u8]>, usize>,
    root: Option<usize>,
}

impl Routes {
    /// From pairs of a zone and its group's index; of a zone that stands twice the first counts.
    pub fn new<'z>(zones: impl IntoIterator<Item = (&'z Name, usize)>) -> Self {
        let mut routes = Self::default();
        for (zone, group) in zones {
            if *zone == Name::root() {
                routes.root.get_or_insert(group);
            } else {
                routes.zones.entry(zone.as_wire().into()).or_insert(group);
            }
        }
        routes
    }

    /// The group of a folded name; `None` where no zone holds it.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        if self.zones.is_empty() {
            return self.root;
        }
        suffixes(name).find_map(|s| self.zones.get(s).copied()).or(self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_zone_wins() {
        let zones: Vec<Name> = [".", "example", "corp.example"].map(|z| z.parse().unwrap()).into();
        let routes = Routes::new(zones.iter().enumerate().map(|(i, z)| (z, i)));
        for (name, want) in [
            (".", 0),
            ("org", 0),
            ("example", 1),
            ("www.example", 1),
            ("corp.example", 2),
            ("a.b.corp.example", 2),
            ("xcorp.example", 1),
        ] {
            assert_eq!(routes.find(name.parse::<Name>().unwrap().as_wire()), Some(want), "{name}");
        }
    }

    #[test]
    fn without_the_root_other_names_have_no_group() {
        let zone = "example".parse().unwrap();
        let routes = Routes::new([(&zone, 0)]);
        assert_eq!(routes.find(b"\x03org\x00"), None);
    }
}
