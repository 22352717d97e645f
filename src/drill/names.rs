//! The names of a drill, and the truth about them.
//!
//! Pure. `n7.z3.test` is a known name, `u7.z3.test` one that nobody asked before, `x7.z3.test` does not exist, and of
//! `d7.z3.test` the authority is dead. The first label tells which; what stands behind it is the zone and the group's
//! suffix. Whatever has another first label exists: what a configuration probes for.

use crate::wire::name::suffixes;
use crate::wire::{Name, rtype};

/// What is true of a name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It has this address.
    Address {
        /// The address of its A record.
        address: [u8; 4],
        /// Its TTL in seconds.
        ttl: u32,
    },
    /// It has a record of a type that nobody looks into.
    Other,
    /// It exists without records of the type.
    NoData,
    /// It does not exist.
    NxDomain,
    /// Its authority does not answer.
    Dead,
}

/// TTL and MINIMUM of the SOA in negative answers, in seconds.
pub const NEGATIVE_TTL: u32 = 60;
/// TTLs of known names, in seconds: a minute in the middle, as providers and content networks give them.
const TTLS: [u32; 8] = [30, 30, 60, 60, 60, 300, 300, 3600];
/// TTL of names that are asked once, in seconds.
const NEW_TTL: u32 = 300;

/// First labels of what loads ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Exists, asked again and again.
    Known,
    /// Exists, asked once.
    New,
    /// Does not exist.
    Absent,
    /// Its authority is dead.
    Dead,
}

impl Sort {
    const ALL: [(Sort, u8); 4] = [(Sort::Known, b'n'), (Sort::New, b'u'), (Sort::Absent, b'x'), (Sort::Dead, b'd')];

    fn letter(self) -> u8 {
        Self::ALL.iter().find(|(sort, _)| *sort == self).map_or(b'n', |(_, letter)| *letter)
    }
}

/// A name of a drill in wire format; `None` where `zone` and `suffix` leave no room.
pub fn wire(sort: Sort, number: u64, zone: &str, suffix: &Name) -> Option<Vec<u8>> {
    let host = format!("{}{number}", sort.letter() as char);
    let mut out = Vec::with_capacity(host.len() + zone.len() + 2 + suffix.as_wire().len());
    for label in [host.as_str(), zone] {
        out.push(u8::try_from(label.len()).ok().filter(|len| *len < 64)?);
        out.extend(label.as_bytes());
    }
    out.extend(suffix.as_wire());
    (out.len() <= crate::limits::NAME_BYTES_MAX).then_some(out)
}

/// The truth about a name, folded, in wire format.
pub fn truth(name: &[u8], qtype: u16) -> Truth {
    let Some((sort, number)) = sort_of(name) else {
        return Truth::Other;
    };
    match sort {
        Sort::Dead => Truth::Dead,
        Sort::Absent => Truth::NxDomain,
        Sort::Known | Sort::New if qtype != rtype::A => Truth::NoData,
        Sort::Known => Truth::Address { address: address(0, number), ttl: TTLS[(mixed(number) >> 29) as usize] },
        Sort::New => Truth::Address { address: address(128, number), ttl: NEW_TTL },
    }
}

/// Sort and number of a name that a load asks for.
pub fn sort_of(name: &[u8]) -> Option<(Sort, u32)> {
    let len = usize::from(*name.first()?);
    let (letter, digits) = name.get(1..=len)?.split_first()?;
    let (sort, _) = Sort::ALL.into_iter().find(|(_, l)| l == letter)?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((sort, number))
}

/// Is `zone` the second label of a name?
pub fn is_in_zone(name: &[u8], zone: &str) -> bool {
    let Some(rest) = suffixes(name).nth(1) else { return false };
    rest.split_first().is_some_and(|(len, rest)| rest.get(..usize::from(*len)) == Some(zone.as_bytes()))
}

fn address(top: u8, number: u32) -> [u8; 4] {
    let [_, a, b, c] = number.to_be_bytes();
    // 198.18.0.0/15 is for tests (RFC 2544); what has more names goes on behind it.
    [198, 18 + (a & 1) + top / 2, b, c]
}

fn mixed(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_label_tells_the_truth() {
        for (text, qtype, want) in [
            ("x1.z1.test", rtype::A, Truth::NxDomain),
            ("d1.z1.test", rtype::A, Truth::Dead),
            ("n1.z1.test", rtype::AAAA, Truth::NoData),
            ("dns.example", rtype::A, Truth::Other),
            (".", rtype::NS, Truth::Other),
        ] {
            assert_eq!(truth(name(text).as_wire(), qtype), want, "{text}");
        }
        assert!(matches!(truth(name("n1.z1.test").as_wire(), rtype::A), Truth::Address { .. }));
    }

    #[test]
    fn a_made_name_reads_back() {
        let made = wire(Sort::New, 17, "z3", &name("corp.example")).unwrap();
        assert_eq!(Name::from_wire(&made), Some(name("u17.z3.corp.example")));
        assert_eq!(sort_of(&made), Some((Sort::New, 17)));
        assert!(is_in_zone(&made, "z3") && !is_in_zone(&made, "z") && !is_in_zone(&[0], "z3"));
    }

    #[test]
    fn known_and_new_names_do_not_share_addresses() {
        assert_ne!(address(0, 5), address(128, 5));
    }
}
