//! The names of a world, and the truth about them.
//!
//! `n7.z3.test` is a known name, `u7.z3.test` one that nobody asked before; `x…` does not exist, `o…` has TTL 0, `g…` is
//! too large for UDP. Zones: `z3` is sound, `dead0` and `t5` are answered by nobody, `bogus0`'s DNSSEC is broken. An
//! address tells its name's number and how often the records were renumbered by then.

use crate::chance::Chance;
use crate::faults::Taste;
use crate::message::rtype;

/// What is true of a name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// `. NS`.
    Root,
    /// It has addresses that depend on this number.
    Addresses {
        number: u32,
        ttl: u32,
    },
    /// It has an address that leads nowhere.
    Nowhere {
        ttl: u32,
    },
    /// A long text.
    Big,
    NoData,
    NxDomain,
    /// Nobody answers.
    Dead,
    /// SERVFAIL with extended error 6.
    Bogus,
}

/// TTL and MINIMUM of the SOA in negative answers.
pub const NEGATIVE_TTL: u32 = 60;
const TTLS: [u32; 8] = [2, 5, 10, 30, 60, 300, 3600, 86_400];
const UNIQUE: u32 = 0x80_0000;
/// TTL of a long text.
const BIG_TTL: u32 = 30;

/// Sound zones.
pub const ZONES: u64 = 7;

/// The truth about a name, folded, in wire format.
pub fn truth(name: &[u8], qtype: u16) -> Truth {
    let labels = labels(name);
    let [host, zone, "test"] = labels[..] else {
        return if labels.is_empty() && qtype == rtype::NS { Truth::Root } else { Truth::NxDomain };
    };
    if zone.starts_with("dead") || zone.starts_with('t') {
        return Truth::Dead;
    }
    if zone.starts_with("bogus") {
        return Truth::Bogus;
    }
    let number: u32 = host.get(1..).and_then(|n| n.parse().ok()).unwrap_or(0);
    match (host.as_bytes().first(), qtype) {
        (Some(b'n' | b'u' | b'o'), rtype::A) => {
            let unique = host.starts_with('u');
            let ttl =
                if host.starts_with('o') { 0 } else { TTLS[(number.wrapping_mul(2_654_435_761) >> 29) as usize] };
            Truth::Addresses { number: (number % UNIQUE) | if unique { UNIQUE } else { 0 }, ttl }
        }
        (Some(b'n' | b'u' | b'o'), _) => Truth::NoData,
        (Some(b'g'), rtype::TXT) => Truth::Big,
        _ => Truth::NxDomain,
    }
}

impl Truth {
    /// The TTL that servers give.
    pub fn ttl(self) -> u32 {
        match self {
            Truth::Addresses { ttl, .. } | Truth::Nowhere { ttl } => ttl,
            Truth::Big => BIG_TTL,
            Truth::Root => 3600,
            _ => NEGATIVE_TTL,
        }
    }

    /// Does it have records?
    pub fn is_positive(self) -> bool {
        matches!(self, Truth::Root | Truth::Addresses { .. } | Truth::Nowhere { .. } | Truth::Big)
    }
}

/// The addresses of a number after so many renumberings.
pub fn addresses(number: u32, version: usize) -> [[u8; 4]; 2] {
    let [_, a, b, c] = number.to_be_bytes();
    [[100 + version as u8, a, b, c], [150 + version as u8, a, b, c]]
}

/// What a client asks next: name and type. `count` makes new names.
pub fn draw(taste: Taste, count: u64, c: &mut Chance) -> (String, u16) {
    let zone = |n: u64| n % ZONES;
    let popular = |names: u64, c: &mut Chance| ((names as f64 + 1.0).powf(c.unit()) as u64 - 1).min(names - 1);
    match taste {
        Taste::Known(names) => known(popular(names, c)),
        Taste::New => (format!("u{count}.z{}.test", zone(count)), rtype::A),
        Taste::Absent => {
            let n = c.below(20);
            (format!("x{n}.z{}.test", zone(n)), rtype::A)
        }
        Taste::NoData => {
            let n = c.below(10);
            (format!("n{n}.z{}.test", zone(n)), rtype::AAAA)
        }
        Taste::Dead(n) => (format!("r{count}.dead{n}.test"), rtype::A),
        Taste::Tenant(zones) => (format!("q{count}.t{}.test", c.below(zones)), rtype::A),
        Taste::Bogus => (format!("b{}.bogus0.test", c.below(4)), rtype::A),
        Taste::Big => (format!("g{}.z1.test", c.below(4)), rtype::TXT),
        Taste::Fleeting => (format!("o{}.z2.test", c.below(4)), rtype::A),
    }
}

/// A known name by its number, and its type.
pub fn known(n: u64) -> (String, u16) {
    (format!("n{n}.z{}.test", n % ZONES), rtype::A)
}

/// A name as text.
pub fn text(name: &[u8]) -> String {
    if name == [0] { ".".into() } else { labels(name).join(".") }
}

/// The labels of a name; what is no text is left out.
pub fn labels(name: &[u8]) -> Vec<&str> {
    let mut labels = Vec::with_capacity(4);
    let mut at = 0;
    while name[at] != 0 {
        let end = at + 1 + usize::from(name[at]);
        labels.extend(std::str::from_utf8(&name[at + 1..end]));
        at = end;
    }
    labels
}
