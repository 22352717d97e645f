//! Which zones fail, learned from what nobody answers.
//!
//! Pure. A forwarder is not told where zones begin. It learns it from failures: a question that no server answered,
//! although one that it asked has spoken since, counts against every suffix of its name; an answer clears them all. A
//! suffix with [`CHILDREN_MIN`] failing children and no success is a **failing zone**, and of several the longest is
//! the one (a flood of random names below `dead.example` makes that one fail, and neither `example` nor each name).
//!
//! Questions of a failing zone are evidence against no server, cost no second question, and have few places
//! ([`super::bulkhead`]): the flood is confined to the zone.
//!
//! Invariants: at most [`SUFFIXES_MAX`] suffixes are kept, the root is none of them; what did not fail for
//! [`REMEMBERED`] is no zone any more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ZoneHash, fnv};
use crate::clock::Moment;
use crate::wire::name::suffixes;

/// Failing children that make a zone.
pub const CHILDREN_MIN: usize = 8;
/// How long a suffix is remembered after its last failure.
pub const REMEMBERED: Duration = Duration::from_secs(30);
/// Suffixes that are kept.
pub const SUFFIXES_MAX: usize = 1024;
/// Of a long name the suffixes next to the root count: what lies deeper is the flood's own.
const DEPTH_MAX: usize = 8;

/// The zone of a question, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Names it: the failing suffix, else the name's last two labels.
    pub hash: ZoneHash,
    /// Does nothing in it get an answer?
    pub is_failing: bool,
}

#[derive(Clone, Debug)]
struct Suffix {
    /// Hashes of different failing children.
    children: [u32; CHILDREN_MIN],
    count: usize,
    failed_at: Moment,
}

/// Suffixes under which questions failed of late.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    suffixes: BTreeMap<Box<[u8]>, Suffix>,
}

impl Zones {
    /// Nobody answered `name`, a folded name.
    pub fn on_failed(&mut self, name: &[u8], now: Moment) {
        for (parent, child) in steps(name) {
            let child = fnv(child);
            if let Some(known) = self.suffixes.get_mut(parent) {
                if now.since(known.failed_at) > REMEMBERED {
                    known.count = 0;
                }
                known.failed_at = now;
                if known.count < CHILDREN_MIN && !known.children[..known.count].contains(&child) {
                    known.children[known.count] = child;
                    known.count += 1;
                }
            } else {
                self.make_room(now);
                let mut children = [0; CHILDREN_MIN];
                children[0] = child;
                self.suffixes.insert(parent.into(), Suffix { children, count: 1, failed_at: now });
            }
        }
    }

    /// A full table forgets what is old, else what failed the longest ago.
    fn make_room(&mut self, now: Moment) {
        if self.suffixes.len() < SUFFIXES_MAX {
            return;
        }
        self.suffixes.retain(|_, s| now.since(s.failed_at) <= REMEMBERED);
        if self.suffixes.len() >= SUFFIXES_MAX
            && let Some(oldest) = self.suffixes.iter().min_by_key(|(_, s)| s.failed_at).map(|(n, _)| n.clone())
        {
            self.suffixes.remove(&oldest);
        }
    }

    /// `name` was answered, whatever the answer says.
    pub fn on_answered(&mut self, name: &[u8]) {
        if self.suffixes.is_empty() {
            return;
        }
        for (parent, _) in steps(name) {
            self.suffixes.remove(parent);
        }
    }

    /// Forgets everything: what failed while the servers were away says nothing of its zone.
    pub fn forget(&mut self) {
        self.suffixes.clear();
    }

    /// The zone of a folded name.
    pub fn of(&self, name: &[u8], now: Moment) -> Zone {
        if !self.suffixes.is_empty() {
            let fails = |s: &Suffix| s.count >= CHILDREN_MIN && now.since(s.failed_at) <= REMEMBERED;
            // The longest comes last.
            if let Some((suffix, _)) =
                steps(name).filter(|(parent, _)| self.suffixes.get(*parent).is_some_and(fails)).last()
            {
                return Zone { hash: ZoneHash(fnv(suffix)), is_failing: true };
            }
        }
        Zone { hash: ZoneHash::of(name), is_failing: false }
    }
}

/// Each suffix of a name but the root and the name itself, with the suffix that is one label longer; the shortest
/// first.
fn steps(name: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut near_root = [&[][..]; DEPTH_MAX + 1];
    let mut count = 0;
    for suffix in suffixes(name).filter(|s| s.len() > 1) {
        near_root.rotate_right(1);
        near_root[0] = suffix;
        count += 1;
    }
    let count = count.min(DEPTH_MAX + 1);
    (1..count).map(move |i| (near_root[i - 1], near_root[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Name;

    const NOW: Moment = Moment::from_secs(100);

    #[test]
    fn seven_failing_children_make_no_zone_but_eight_do_and_one_answer_ends_it() {
        let mut z = Zones::default();
        fail(&mut z, 0..7, "dead.example");
        assert!(!z.of(&wire("x.dead.example"), NOW).is_failing);
        fail(&mut z, 0..7, "dead.example");
        assert!(!z.of(&wire("x.dead.example"), NOW).is_failing, "the same seven");
        fail(&mut z, 7..8, "dead.example");
        assert!(z.of(&wire("x.dead.example"), NOW).is_failing);
        assert!(z.of(&wire("deep.er.dead.example"), NOW).is_failing);
        for other in ["dead.example", "www.example", "x.alive.example", "."] {
            assert!(!z.of(&wire(other), NOW).is_failing, "{other}");
        }
        z.on_answered(&wire("n9.dead.example"));
        assert!(!z.of(&wire("x.dead.example"), NOW).is_failing);
    }

    #[test]
    fn the_longest_suffix_with_many_failing_children_is_the_zone() {
        let mut z = Zones::default();
        for n in 0..8 {
            fail(&mut z, 0..8, &format!("z{n}.tenant.example"));
        }
        let (a, b) = (z.of(&wire("x.z1.tenant.example"), NOW), z.of(&wire("x.z2.tenant.example"), NOW));
        assert!(a.is_failing && b.is_failing && a.hash != b.hash);
        assert!(z.of(&wire("new.tenant.example"), NOW).is_failing, "all its children fail");
        z.on_answered(&wire("www.tenant.example"));
        assert!(z.of(&wire("x.z1.tenant.example"), NOW).is_failing);
        assert!(!z.of(&wire("new.tenant.example"), NOW).is_failing);
    }

    #[test]
    fn a_flood_of_deep_random_names_names_the_zone_above_it() {
        let mut z = Zones::default();
        for n in 0..8 {
            z.on_failed(&wire(&format!("a{n}.b{n}.c{n}.dead.example")), NOW);
        }
        assert_eq!(z.of(&wire("q.r.s.dead.example"), NOW).hash, ZoneHash(fnv(&wire("dead.example"))));
    }

    #[test]
    fn what_did_not_fail_for_30_s_is_no_zone_any_more() {
        let mut z = Zones::default();
        fail(&mut z, 0..8, "dead.example");
        assert!(z.of(&wire("x.dead.example"), NOW + REMEMBERED).is_failing);
        assert!(!z.of(&wire("x.dead.example"), NOW + REMEMBERED + Duration::from_millis(1)).is_failing);
    }

    #[test]
    fn the_table_is_bounded_and_the_newest_stay() {
        let mut z = Zones::default();
        for n in 0..3000u64 {
            z.on_failed(&wire(&format!("a.z{n}.example")), NOW + Duration::from_millis(n));
        }
        assert!(z.suffixes.len() <= SUFFIXES_MAX);
        assert!(z.suffixes.contains_key(&*wire("z2999.example")));
    }

    fn fail(z: &mut Zones, children: std::ops::Range<u32>, zone: &str) {
        children.for_each(|n| z.on_failed(&wire(&format!("n{n}.{zone}")), NOW));
    }

    fn wire(name: &str) -> Vec<u8> {
        name.parse::<Name>().unwrap().as_wire().to_vec()
    }
}
