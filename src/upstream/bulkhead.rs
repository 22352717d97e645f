//! Bounds on what waits at once, so that one dead zone or one noisy client cannot take what the others need.
//!
//! Pure. A pursuit takes a [`Permit`] and gives it back; the bounds are per group, per zone within the group, and per
//! client. The zone is the name's last two labels (one where the name has only one); a zone in the sense of a
//! delegation is not known to a forwarder.
//!
//! Invariant: the sum over zones is the group's count, and an empty count has no place in the tables.

use std::collections::HashMap;

use super::ZoneHash;

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `in_flight_max`.
    Group,
    /// `per_zone_in_flight_max`.
    Zone,
}

impl Bound {
    /// The word in logs, metrics and explanations.
    pub fn word(self) -> &'static str {
        match self {
            Bound::Group => "group",
            Bound::Zone => "zone",
        }
    }
}

/// Room that a pursuit has taken. Given back by [`Bulkhead::leave`].
#[derive(Debug)]
#[must_use]
pub struct Permit {
    zone: ZoneHash,
}

/// Counts of what is under way.
#[derive(Debug, Default)]
pub struct Bulkhead {
    in_flight: u32,
    zones: HashMap<ZoneHash, u32>,
    rejected: [u64; 2],
}

impl Bulkhead {
    /// Takes room for one pursuit of `zone`.
    pub fn enter(&mut self, zone: ZoneHash, group_max: u32, zone_max: u32) -> Result<Permit, Bound> {
        let bound = if self.in_flight >= group_max {
            Some(Bound::Group)
        } else if self.zones.get(&zone).is_some_and(|n| *n >= zone_max) {
            Some(Bound::Zone)
        } else {
            None
        };
        if let Some(bound) = bound {
            self.rejected[bound as usize] += 1;
            return Err(bound);
        }
        self.in_flight += 1;
        *self.zones.entry(zone).or_default() += 1;
        Ok(Permit { zone })
    }

    /// Gives room back.
    pub fn leave(&mut self, permit: Permit) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(n) = self.zones.get_mut(&permit.zone) {
            *n -= 1;
            if *n == 0 {
                self.zones.remove(&permit.zone);
            }
        }
    }

    /// Pursuits under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Pursuits that found no room, by bound.
    pub fn rejected(&self) -> [(Bound, u64); 2] {
        [(Bound::Group, self.rejected[0]), (Bound::Zone, self.rejected[1])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_zone_leaves_room_for_others_and_permits_come_back() {
        let mut b = Bulkhead::default();
        let (dead, other) = (ZoneHash(1), ZoneHash(2));
        let taken: Vec<_> = (0..3).map(|_| b.enter(dead, 4, 3).unwrap()).collect();
        assert_eq!(b.enter(dead, 4, 3).unwrap_err(), Bound::Zone);
        let last = b.enter(other, 4, 3).unwrap();
        assert_eq!(b.enter(other, 4, 3).unwrap_err(), Bound::Group);
        b.leave(last);
        taken.into_iter().for_each(|p| b.leave(p));
        assert_eq!((b.in_flight(), b.zones.len()), (0, 0));
        assert_eq!(b.rejected(), [(Bound::Group, 1), (Bound::Zone, 1)]);
    }
}
