//! Names: the owned, folded form that settings and keys use, and walks over names in packets.
//!
//! Pure. A [`Name`] is kept in wire format (length-prefixed labels, root label at the end), ASCII letters folded to
//! lower case (RFC 4343 §3), so that comparing names is comparing bytes and a suffix of labels is a suffix of bytes.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::limits::NAME_BYTES_MAX;

/// A domain name, folded, in wire format. At most [`NAME_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing at all; the root is written ".".
    Empty,
    /// Two dots in a row, or a dot in front.
    EmptyLabel,
    /// A label of more than 63 bytes (RFC 1035 §2.3.4).
    LongLabel,
    /// More than 255 bytes (RFC 1035 §2.3.4).
    Long,
    /// A backslash that escapes nothing.
    BadEscape,
    /// A blank or control character, or one outside ASCII; international names are written in their A-label form.
    BadCharacter,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::Empty => "the name is empty; the root is written \".\"",
            NameError::EmptyLabel => "the name has an empty label",
            NameError::LongLabel => "a label has more than 63 bytes",
            NameError::Long => "the name has more than 255 bytes",
            NameError::BadEscape => "a backslash stands before neither a character nor three digits",
            NameError::BadCharacter => {
                "the name has a blank, a control character or one outside ASCII; write international names as xn--…"
            }
        })
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// Takes a name in wire format, uncompressed; `None` where it is not exactly one name.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        if plain_end(wire, 0)? != wire.len() {
            return None;
        }
        Some(Self(wire.to_ascii_lowercase().into()))
    }

    /// The folded wire format.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// Is this name `zone` or below it?
    pub fn is_in(&self, zone: &Name) -> bool {
        suffixes(&self.0).any(|s| *s == *zone.0)
    }

    /// Number of labels, the root's not counted.
    pub fn label_count(&self) -> usize {
        suffixes(&self.0).count() - 1
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads presentation format (RFC 1035 §5.1), with or without the last dot.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "." {
            return Ok(Self::root());
        }
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let mut wire = vec![0u8];
        let mut label_at = 0;
        let mut rest = text.bytes();
        let mut ended = false;
        while let Some(b) = rest.next() {
            if b == b'.' {
                if wire.len() == label_at + 1 {
                    return Err(NameError::EmptyLabel);
                }
                label_at = wire.len();
                wire.push(0);
                ended = true;
                continue;
            }
            ended = false;
            let b = match b {
                b'\\' => unescape(&mut rest)?,
                b if b.is_ascii_graphic() => b,
                _ => return Err(NameError::BadCharacter),
            };
            if wire[label_at] == 63 {
                return Err(NameError::LongLabel);
            }
            wire[label_at] += 1;
            wire.push(b.to_ascii_lowercase());
        }
        if !ended {
            wire.push(0);
        }
        if wire.len() > NAME_BYTES_MAX {
            return Err(NameError::Long);
        }
        Ok(Self(wire.into()))
    }
}

fn unescape(rest: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = rest.next().ok_or(NameError::BadEscape)?;
    if !first.is_ascii_digit() {
        return if first.is_ascii_graphic() { Ok(first) } else { Err(NameError::BadEscape) };
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let d = rest.next().filter(u8::is_ascii_digit).ok_or(NameError::BadEscape)?;
        value = value * 10 + u32::from(d - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::BadEscape)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(&self.0, f)
    }
}

/// Shows a name in wire format as text.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(self.0, f)
    }
}

fn write_name(wire: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if wire.first() == Some(&0) {
        return f.write_str(".");
    }
    let mut rest = wire;
    while let Some((&len, tail)) = rest.split_first() {
        let len = usize::from(len);
        if len == 0 || len > tail.len() {
            break;
        }
        for &b in &tail[..len] {
            match b {
                b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => write!(f, "\\{}", b as char)?,
                b if b.is_ascii_graphic() => write!(f, "{}", b as char)?,
                b => write!(f, "\\{b:03}")?,
            }
        }
        f.write_str(".")?;
        rest = &tail[len..];
    }
    Ok(())
}

/// The suffixes of a name in uncompressed wire format, from the name itself to the root (`[0]`).
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(wire);
    std::iter::from_fn(move || {
        let this = rest?;
        let len = usize::from(*this.first()?);
        rest = if len == 0 { None } else { this.get(1 + len..) };
        Some(this)
    })
}

/// Where the uncompressed name that begins at `at` ends: the offset behind its root label.
///
/// `None` where it is compressed, runs over the packet's end, or has more than [`NAME_BYTES_MAX`] bytes.
pub fn plain_end(packet: &[u8], at: usize) -> Option<usize> {
    let mut i = at;
    loop {
        let len = usize::from(*packet.get(i)?);
        if len == 0 {
            return (i + 1 - at <= NAME_BYTES_MAX).then_some(i + 1);
        }
        if len > 63 {
            return None;
        }
        i += 1 + len;
        if i - at >= NAME_BYTES_MAX {
            return None;
        }
    }
}

/// Walks the name at `at`, which may be compressed, and hands each label to `each`. See [`walk_places`].
pub fn walk<'p>(packet: &'p [u8], at: usize, mut each: impl FnMut(&'p [u8])) -> Option<usize> {
    walk_places(packet, at, |place| {
        if (1..=63).contains(&packet[place.start]) {
            each(&packet[place.start + 1..place.end]);
        }
        true
    })
}

/// Walks the name at `at`, which may be compressed, and hands the place of each part to `each`: of a label with its
/// length, of the root label, of a pointer. `each` may end the walk by false.
///
/// Returns the offset behind the name where it stands. Every pointer must lead to before the labels from which it
/// was reached, so no loop is possible (RFC 1035 §4.1.4), and what it leads to must end there: a prior name does, and
/// labels that ran on would be made of whatever stands behind. A walk ends after at most 127 labels and as many
/// pointers: thousands of records that each lead through thousands of pointers would cost a server's time. `None`
/// where the name is cut, leads forward, uses a label type that does not exist, or has more than [`NAME_BYTES_MAX`]
/// bytes.
pub fn walk_places(packet: &[u8], at: usize, mut each: impl FnMut(Range<usize>) -> bool) -> Option<usize> {
    let mut i = at;
    let mut segment = at;
    let mut limit = packet.len();
    let mut end = None;
    let mut total = 1;
    let mut pointers = 0;
    loop {
        let len = usize::from(*packet.get(i)?);
        let place = match len {
            0 => i..i + 1,
            1..=63 => i..i + 1 + len,
            192..=255 => i..i + 2,
            _ => return None,
        };
        if place.end > limit || !each(place.clone()) {
            return None;
        }
        match len {
            0 => return Some(end.unwrap_or(i + 1)),
            1..=63 => {
                total += 1 + len;
                if total > NAME_BYTES_MAX {
                    return None;
                }
                i = place.end;
            }
            _ => {
                let target = (len & 0x3f) << 8 | usize::from(packet[i + 1]);
                pointers += 1;
                if target >= segment || pointers > POINTERS_MAX {
                    return None;
                }
                end.get_or_insert(i + 2);
                limit = segment;
                segment = target;
                i = target;
            }
        }
    }
}

/// Pointers in one name. A name has at most 127 labels, and one pointer for each is more than any encoder writes.
const POINTERS_MAX: usize = 127;

/// The name at `at`, decompressed and folded, and the offset behind it. Errors as [`walk`].
pub fn read(packet: &[u8], at: usize) -> Option<(Name, usize)> {
    let mut wire = Vec::with_capacity(64);
    let end = walk(packet, at, |label| {
        wire.push(label.len() as u8);
        wire.extend(label.iter().map(u8::to_ascii_lowercase));
    })?;
    wire.push(0);
    Some((Name(wire.into()), end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_read_and_shown_are_the_same() {
        for (text, shown) in [
            (".", "."),
            ("example.org", "example.org."),
            ("EXAMPLE.org.", "example.org."),
            ("a\\.b.example", "a\\.b.example."),
            ("a\\032b.example", "a\\032b.example."),
            ("_dmarc.example.org", "_dmarc.example.org."),
        ] {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        let long_label = "a".repeat(64);
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
        for (text, why) in [
            ("", NameError::Empty),
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            (long_label.as_str(), NameError::LongLabel),
            (long.as_str(), NameError::Long),
            ("a\\", NameError::BadEscape),
            ("a\\25", NameError::BadEscape),
            ("a\\256", NameError::BadEscape),
            ("a b", NameError::BadCharacter),
            ("ä.example", NameError::BadCharacter),
        ] {
            assert_eq!(text.parse::<Name>(), Err(why), "{text}");
        }
    }

    #[test]
    fn the_longest_name_fits_and_one_byte_more_does_not() {
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        assert_eq!(longest.parse::<Name>().unwrap().as_wire().len(), 255);
    }

    #[test]
    fn a_name_is_in_its_zones_and_in_no_other() {
        let n: Name = "a.b.example.".parse().unwrap();
        for (zone, is) in [
            (".", true),
            ("example", true),
            ("b.example", true),
            ("a.b.example", true),
            ("xample", false),
            ("x.a.b.example", false),
        ] {
            assert_eq!(n.is_in(&zone.parse().unwrap()), is, "{zone}");
        }
    }

    #[test]
    fn a_pointer_that_leads_forward_or_to_itself_ends_the_walk() {
        assert_eq!(walk(&[0xc0, 0], 0, |_| ()), None);
        assert_eq!(walk(&[1, b'a', 0xc0, 0], 0, |_| ()), None);
        assert_eq!(walk(&[1, b'a', 0, 0xc0, 0], 3, |_| ()), Some(5));
        assert_eq!(walk(&[0xc0, 2, 0xc0, 0], 2, |_| ()), None);
        // The fuzzer found it: a pointer into other bytes that are read as labels up to the pointer itself and on.
        assert_eq!(walk(&[9, 1, 0xc0, 1, 0], 2, |_| ()), None);
        assert_eq!(walk(&[1, b'a', 0, 1, b'b', 0xc0, 0], 3, |_| ()), Some(7));
    }

    #[test]
    fn a_name_leads_through_127_pointers_and_no_more() {
        let mut packet = vec![0];
        for n in 0..128u16 {
            let target = if n == 0 { 0 } else { 2 * n - 1 };
            packet.extend((0xc000 | target).to_be_bytes());
        }
        let at = |pointers: usize| 2 * pointers - 1;
        assert_eq!(walk(&packet, at(127), |_| ()), Some(at(127) + 2));
        assert_eq!(walk(&packet, at(128), |_| ()), None);
    }

    proptest! {
        #[test]
        fn walks_of_noise_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            if let Some((name, end)) = read(&bytes, at) {
                prop_assert!(end <= bytes.len());
                prop_assert!(name.as_wire().len() <= 255);
                prop_assert_eq!(Name::from_wire(name.as_wire()), Some(name));
            }
        }

        #[test]
        fn a_shown_name_reads_back(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..6)) {
            let mut wire = Vec::new();
            for l in &labels { wire.push(l.len() as u8); wire.extend(l); }
            wire.push(0);
            let n = Name::from_wire(&wire).unwrap();
            prop_assert_eq!(n.to_string().parse::<Name>().unwrap(), n);
        }
    }
}
