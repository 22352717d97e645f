//! Servers that turn against names which they had: one of them with a broken view, or zones torn down on purpose?
//!
//! Pure. Where a server says of twenty names in three zones within ten seconds that they are gone or empty, and they
//! were good before, what it says of such names is asked of another server too. Once others still have half of so many,
//! it is suspected, and a second question goes out for each of its negative answers about names that were good; the
//! other's records are taken. Where others say the same the zones are gone, and no more is asked for a while.
//!
//! A suspicion takes no server out: a zone that is torn down on purpose looks the same at first, and the second
//! question is all that is needed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{ServerId, ZoneHash, fnv};
use crate::clock::Moment;

/// Names that were good and are so no more, for a server to be asked about.
const NAMES_MIN: usize = 20;
/// Zones that they are in, at least.
const ZONES_MIN: usize = 3;
/// All of it within this.
const WINDOW: Duration = Duration::from_secs(10);
/// Turned names that are remembered.
const SEEN_MAX: usize = 512;
/// Names that are asked of others before it is said that they agree.
const ASKED_MIN: u32 = NAMES_MIN as u32;
/// How long a suspicion, or an acquittal, lasts.
const LASTS: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Turn {
    server: ServerId,
    name: u32,
    zone: ZoneHash,
    at: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Others are asked.
    Asking { asked: u32, good: u32, until: Moment },
    /// Others have what it has not.
    Suspected { until: Moment },
    /// Others say the same.
    Agreed { until: Moment },
}

/// What is held against the servers of a group.
#[derive(Clone, Debug, Default)]
pub struct Turned {
    seen: VecDeque<Turn>,
    stages: Vec<(ServerId, Stage)>,
}

impl Turned {
    /// A server turned against a folded name.
    pub fn on_turned(&mut self, server: ServerId, name: &[u8], now: Moment) {
        self.stages.retain(|(_, stage)| !matches!(stage, Stage::Agreed { until } if now >= *until));
        while self.seen.len() == SEEN_MAX || self.seen.front().is_some_and(|t| now.since(t.at) > WINDOW) {
            self.seen.pop_front();
        }
        self.seen.push_back(Turn { server, name: fnv(name), zone: ZoneHash::of(name), at: now });
        if self.stages.iter().any(|(id, _)| *id == server) {
            return;
        }
        let of = || self.seen.iter().filter(|t| t.server == server);
        let names: BTreeSet<u32> = of().map(|t| t.name).collect();
        let zones: BTreeSet<u32> = of().map(|t| t.zone.0).collect();
        if names.len() >= NAMES_MIN && zones.len() >= ZONES_MIN {
            self.stages.push((server, Stage::Asking { asked: 0, good: 0, until: now + LASTS }));
        }
    }

    /// Must what it says of names that were good be asked of another one too?
    pub fn wants_second_opinion(&self, server: ServerId, now: Moment) -> bool {
        self.stages.iter().any(|(id, stage)| {
            *id == server && matches!(stage, Stage::Asking { until, .. } | Stage::Suspected { until } if now < *until)
        })
    }

    /// Another server was asked: are its records good? Says whether that makes the first one suspected.
    pub fn on_second_opinion(&mut self, server: ServerId, is_good: bool, now: Moment) -> bool {
        let Some((_, stage)) = self.stages.iter_mut().find(|(id, _)| *id == server) else { return false };
        match stage {
            Stage::Asking { asked, good, .. } => {
                *asked += 1;
                *good += u32::from(is_good);
                if *good * 2 >= ASKED_MIN && *good * 2 >= *asked {
                    *stage = Stage::Suspected { until: now + LASTS };
                    return true;
                }
                if *asked >= ASKED_MIN && *good * 2 < *asked {
                    *stage = Stage::Agreed { until: now + LASTS };
                }
            }
            Stage::Suspected { until } if is_good => *until = now + LASTS,
            Stage::Suspected { .. } | Stage::Agreed { .. } => {}
        }
        false
    }

    /// Is it suspected?
    pub fn is_suspected(&self, server: ServerId) -> bool {
        self.stages.iter().any(|(id, stage)| *id == server && matches!(stage, Stage::Suspected { .. }))
    }

    /// The same under other ids; what is held against servers that are gone is forgotten.
    pub fn moved(&self, id: impl Fn(ServerId) -> Option<ServerId>) -> Self {
        let seen = self.seen.iter().filter_map(|t| Some(Turn { server: id(t.server)?, ..*t }));
        let stages = self.stages.iter().filter_map(|(server, stage)| Some((id(*server)?, *stage)));
        Self { seen: seen.collect(), stages: stages.collect() }
    }

    /// What time alone ends. Gives a server that is suspected no more.
    pub fn on_time(&mut self, now: Moment) -> Option<ServerId> {
        let over = |stage: &Stage| match stage {
            Stage::Asking { until, .. } | Stage::Suspected { until } | Stage::Agreed { until } => now >= *until,
        };
        let at = self.stages.iter().position(|(_, stage)| over(stage))?;
        let (server, stage) = self.stages.swap_remove(at);
        matches!(stage, Stage::Suspected { .. }).then_some(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ServerId = ServerId(0);

    /// `names` names in `zones` zones turn, one every `pause`.
    fn turn(t: &mut Turned, names: u64, zones: u64, pause: Duration) -> Moment {
        let mut now = Moment::from_secs(100);
        for n in 0..names {
            now = now + pause;
            let name: crate::wire::Name = format!("n{n}.z{}.test", n % zones).parse().unwrap();
            t.on_turned(SERVER, name.as_wire(), now);
        }
        now
    }

    #[test]
    fn twenty_names_in_three_zones_within_ten_seconds_are_asked_of_others() {
        let (quick, slow) = (Duration::from_millis(100), Duration::from_millis(600));
        for (names, zones, pause, want) in
            [(20, 3, quick, true), (19, 3, quick, false), (40, 2, quick, false), (40, 5, slow, false)]
        {
            let mut t = Turned::default();
            let now = turn(&mut t, names, zones, pause);
            assert_eq!(t.wants_second_opinion(SERVER, now), want, "{names} names in {zones} zones every {pause:?}");
            assert!(!t.wants_second_opinion(ServerId(1), now) && !t.is_suspected(SERVER));
        }
    }

    #[test]
    fn it_is_suspected_once_others_still_have_half_of_twenty() {
        let mut t = Turned::default();
        let now = turn(&mut t, 20, 4, Duration::from_millis(10));
        let told: Vec<bool> = (0..20).map(|n| t.on_second_opinion(SERVER, n % 2 == 0, now)).collect();
        assert_eq!(told.iter().position(|t| *t), Some(18), "the tenth of nineteen");
        assert!(t.is_suspected(SERVER) && t.wants_second_opinion(SERVER, now));
        let later = now + Duration::from_secs(50);
        t.on_second_opinion(SERVER, true, later);
        assert_eq!(t.on_time(now + Duration::from_secs(60)), None, "it goes on as long as it is so");
        assert_eq!(t.on_time(later + Duration::from_secs(60)), Some(SERVER));
        assert!(!t.wants_second_opinion(SERVER, later + Duration::from_secs(60)));
    }

    #[test]
    fn a_suspicion_goes_along_where_servers_get_other_ids_and_goes_with_them() {
        let mut t = Turned::default();
        let now = turn(&mut t, 20, 4, Duration::from_millis(10));
        assert!((0..20).any(|_| t.on_second_opinion(SERVER, true, now)));
        let moved = t.moved(|id| (id == SERVER).then_some(ServerId(3)));
        assert!(moved.is_suspected(ServerId(3)) && moved.wants_second_opinion(ServerId(3), now));
        assert!(!moved.is_suspected(SERVER) && !t.moved(|_| None).is_suspected(SERVER));
    }

    #[test]
    fn names_count_once_and_each_server_for_itself_and_what_is_seen_is_bounded() {
        let (mut repeated, mut two) = (Turned::default(), Turned::default());
        let now = Moment::from_secs(100);
        for n in 0..1000 {
            let name: crate::wire::Name = format!("n{}.z{}.test", n % 19, n % 19 % 4).parse().unwrap();
            repeated.on_turned(SERVER, name.as_wire(), now);
        }
        for n in 0..38u16 {
            let name: crate::wire::Name = format!("n{n}.z{}.test", n % 8).parse().unwrap();
            two.on_turned(ServerId((n % 2) as _), name.as_wire(), now);
        }
        assert!(!repeated.wants_second_opinion(SERVER, now));
        assert!(!two.wants_second_opinion(SERVER, now) && !two.wants_second_opinion(ServerId(1), now));
        assert_eq!(repeated.seen.len(), SEEN_MAX);
    }

    #[test]
    fn a_stage_is_over_at_its_end_though_nobody_has_looked() {
        let (mut suspected, mut agreed) = (Turned::default(), Turned::default());
        let now = turn(&mut suspected, 20, 4, Duration::from_millis(10));
        turn(&mut agreed, 20, 4, Duration::from_millis(10));
        for n in 0..20 {
            suspected.on_second_opinion(SERVER, true, now);
            agreed.on_second_opinion(SERVER, n == 0, now);
        }
        let end = now + Duration::from_secs(60);
        suspected.on_second_opinion(SERVER, false, now + Duration::from_secs(50));
        assert!(!suspected.wants_second_opinion(SERVER, end), "what others have not extends nothing");
        for n in 0..20 {
            let name: crate::wire::Name = format!("m{n}.z{}.test", n % 4).parse().unwrap();
            agreed.on_turned(SERVER, name.as_wire(), end);
        }
        assert!(agreed.wants_second_opinion(SERVER, end));
    }

    #[test]
    fn where_others_say_the_same_no_more_is_asked_for_a_while() {
        let mut t = Turned::default();
        let now = turn(&mut t, 20, 4, Duration::from_millis(10));
        assert!((0..20).all(|n| !t.on_second_opinion(SERVER, n % 3 == 0, now)));
        assert!(!t.wants_second_opinion(SERVER, now));
        turn(&mut t, 40, 4, Duration::from_millis(10));
        assert!(!t.wants_second_opinion(SERVER, now));
        assert_eq!(t.on_time(now + Duration::from_secs(60)), None);
        turn(&mut t, 20, 4, Duration::from_millis(10));
        assert!(t.wants_second_opinion(SERVER, now));
    }
}
