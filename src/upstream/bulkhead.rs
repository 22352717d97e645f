//! Bounds on what waits at once, so that one dead zone or one noisy client cannot take what the others need.
//!
//! Pure. A pursuit takes a [`Permit`] and gives it back; the bounds are per group and per zone within the group. The
//! zone is the one that was found failing ([`super::zones`]), else the name's last two labels. A failing zone has few
//! places, and each client few of those: whoever else asks there still gets a turn, and the first answer makes it a
//! zone like any other again.
//!
//! Invariant: the sum over zones is the group's count, and an empty count has no place in the tables.

use std::collections::HashMap;

use super::zones::Zone;
use super::{ClientHash, ZoneHash};
use crate::limits::{FAILING_ZONE_IN_FLIGHT_MAX, FAILING_ZONE_IN_FLIGHT_PER_CLIENT_MAX};

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `in_flight_max`.
    Group,
    /// `per_zone_in_flight_max`, or the few places of a failing zone.
    Zone,
    /// One client's places in a failing zone.
    ZoneOfClient,
    /// `limits.in_flight_per_client`, over all groups: the driver holds it.
    Client,
}

impl Bound {
    /// All of them, in the order of their counters.
    pub const ALL: [Bound; 4] = [Bound::Group, Bound::Zone, Bound::ZoneOfClient, Bound::Client];

    /// The word in logs, metrics and explanations.
    pub fn word(self) -> &'static str {
        match self {
            Bound::Group => "group",
            Bound::Zone => "zone",
            Bound::ZoneOfClient => "zone_client",
            Bound::Client => "client",
        }
    }
}

/// Room that a pursuit has taken. Given back by [`Bulkhead::leave`].
#[derive(Debug)]
#[must_use]
pub struct Permit {
    zone: ZoneHash,
    /// Set where it is a place in a failing zone.
    client: Option<ClientHash>,
}

impl Permit {
    /// The zone that it counts for.
    pub fn zone(&self) -> ZoneHash {
        self.zone
    }
}

/// Counts of what is under way.
#[derive(Debug, Default)]
pub struct Bulkhead {
    in_flight: u32,
    zones: HashMap<ZoneHash, u32>,
    clients: HashMap<(ZoneHash, ClientHash), u32>,
    rejected: [u64; Bound::ALL.len()],
}

impl Bulkhead {
    /// Takes room for one pursuit. What is full is not counted yet: see [`Bulkhead::on_rejected`].
    pub fn enter(&mut self, zone: Zone, client: ClientHash, group_max: u32, zone_max: u32) -> Result<Permit, Bound> {
        let zone_max = if zone.is_failing { zone_max.min(FAILING_ZONE_IN_FLIGHT_MAX) } else { zone_max };
        let seat = (zone.hash, client);
        // The narrowest first: room made under it is room under the wider one.
        if self.zones.get(&zone.hash).is_some_and(|n| *n >= zone_max) {
            return Err(Bound::Zone);
        }
        if zone.is_failing && self.clients.get(&seat).is_some_and(|n| *n >= FAILING_ZONE_IN_FLIGHT_PER_CLIENT_MAX) {
            return Err(Bound::ZoneOfClient);
        }
        if self.in_flight >= group_max {
            return Err(Bound::Group);
        }
        self.in_flight += 1;
        *self.zones.entry(zone.hash).or_default() += 1;
        if zone.is_failing {
            *self.clients.entry(seat).or_default() += 1;
        }
        Ok(Permit { zone: zone.hash, client: zone.is_failing.then_some(client) })
    }

    /// A question was turned away for lack of room.
    pub fn on_rejected(&mut self, bound: Bound) {
        self.rejected[bound as usize] += 1;
    }

    /// Gives room back.
    pub fn leave(&mut self, permit: Permit) {
        self.in_flight = self.in_flight.saturating_sub(1);
        one_less(&mut self.zones, permit.zone);
        if let Some(client) = permit.client {
            one_less(&mut self.clients, (permit.zone, client));
        }
    }

    /// Pursuits under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Pursuits that found no room, by bound.
    pub fn rejected(&self) -> [(Bound, u64); Bound::ALL.len()] {
        Bound::ALL.map(|bound| (bound, self.rejected[bound as usize]))
    }

    /// Takes over what another life of the group counted of refusals.
    pub(super) fn adopt_counters(&mut self, old: &Self) {
        self.rejected = old.rejected;
    }
}

fn one_less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) {
    if let Some(n) = counts.get_mut(&key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientHash = ClientHash(1);

    fn zone(n: u32, is_failing: bool) -> Zone {
        Zone { hash: ZoneHash(n), is_failing }
    }

    #[test]
    fn a_full_zone_leaves_room_for_others_and_permits_come_back() {
        let mut b = Bulkhead::default();
        let taken: Vec<_> = (0..3).map(|_| b.enter(zone(1, false), CLIENT, 4, 3).unwrap()).collect();
        assert_eq!(b.enter(zone(1, false), CLIENT, 4, 3).unwrap_err(), Bound::Zone);
        let last = b.enter(zone(2, false), CLIENT, 4, 3).unwrap();
        assert_eq!(b.enter(zone(2, false), CLIENT, 4, 3).unwrap_err(), Bound::Group);
        assert_eq!(b.enter(zone(1, false), CLIENT, 4, 3).unwrap_err(), Bound::Zone, "the narrowest is named");
        b.leave(last);
        taken.into_iter().for_each(|p| b.leave(p));
        assert_eq!((b.in_flight(), b.zones.len()), (0, 0));
    }

    #[test]
    fn a_failing_zone_has_few_places_and_each_client_few_of_them() {
        let mut b = Bulkhead::default();
        let mut taken = Vec::new();
        for client in 0..4 {
            for _ in 0..FAILING_ZONE_IN_FLIGHT_PER_CLIENT_MAX {
                taken.push(b.enter(zone(1, true), ClientHash(client), 4096, 512).unwrap());
            }
            assert!(b.enter(zone(1, true), ClientHash(client), 4096, 512).is_err());
        }
        assert_eq!(taken.len() as u32, FAILING_ZONE_IN_FLIGHT_MAX);
        assert_eq!(b.enter(zone(1, true), ClientHash(9), 4096, 512).unwrap_err(), Bound::Zone);
        b.leave(taken.pop().unwrap());
        taken.push(b.enter(zone(1, true), ClientHash(9), 4096, 512).unwrap());
        taken.into_iter().for_each(|p| b.leave(p));
        assert_eq!((b.in_flight(), b.zones.len(), b.clients.len()), (0, 0, 0));
    }
}
