//! What may take the place of what: the last known good is not given up lightly.
//!
//! Pure. Rules (RULES "Tiers"):
//!
//! - A newer answer of the same tier or a better one takes the place of any.
//! - A lower tier's negative answer never takes the place of records that a better tier gave within `max_age`: the
//!   other tier may have another view of names.
//!   That they did is remembered where a lower tier's records have taken their place meanwhile: what that tier said
//!   after it, or a third one, does not undo it.
//! - Where the group is another one, its answer takes the place: an entry knows its group.
//!
//! - Of a guarded name ([`table`]) nothing negative takes the place of the last good answer before its hold is over.
//! - While everything is frozen nothing negative takes the place of anything good.
//!
//! Failures never come here: they stand beside the data.

pub mod table;

use std::time::Duration;

use super::entry::{Data, Entry, Kind};
use super::freshness::Standing;
use crate::clock::Moment;
use crate::wire::pattern::Pattern;

/// One `[[guard]]`: names that must not vanish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardSettings {
    /// Which names.
    pub names: Vec<Pattern>,
    /// How long a sudden negative answer is held off.
    pub hold: Duration,
    /// Only a name that had answers this long is guarded.
    pub min_good: Duration,
}

/// May `new` take the place of what `old` holds?
pub fn may_replace(old: &Entry, new: &Data, max_age: Duration, now: Moment) -> bool {
    let same_group = old.data().is_some_and(|d| d.group == new.group);
    !(new.kind.is_negative() && same_group && outweighs(old, new.tier, max_age, now))
}

/// Do the records of `old` outweigh a negative answer of `tier`: did a better tier give some within `max_age`?
pub fn outweighs(old: &Entry, tier: u8, max_age: Duration, now: Moment) -> bool {
    let Some(data) = old.data().filter(|d| d.kind == Kind::Positive) else { return false };
    data.standing(max_age, Moment::ZERO, now) != Standing::Gone
        && (data.tier < tier || old.vouched().is_some_and(|(better, until)| better < tier && now < until))
}

/// Is everything that `old` holds kept from `new` while the cache is frozen?
pub fn is_frozen_out(old: &Entry, new: &Data, max_age: Duration, now: Moment) -> bool {
    // Whichever group gave it: in a freeze the servers of a group are not to be replaced either.
    let good = old.data().filter(|d| d.good);
    !new.good && good.is_some_and(|d| d.standing(max_age, Moment::ZERO, now) != Standing::Gone)
}

/// What `new` must remember of `old`, whose place it takes: the best tier that gave records, and until when they count.
pub fn inherits(old: &Entry, new: &Data, max_age: Duration, now: Moment) -> Option<(u8, Moment)> {
    let had = old.data().filter(|d| d.kind == Kind::Positive && d.group == new.group)?;
    if new.kind != Kind::Positive {
        return None;
    }
    let own = (had.tier, had.stored + Duration::from_secs(had.ttl.into()) + max_age);
    old.vouched()
        .into_iter()
        .chain([own])
        .filter(|(tier, until)| *tier < new.tier && now < *until)
        .min_by_key(|v| v.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::{GroupStamp, Packed};
    use crate::cache::key::Question;

    #[test]
    fn a_lower_tiers_negative_answer_never_replaces_a_better_tiers_records_within_max_age() {
        use Kind::{NoData, NxDomain, Positive};
        let minute = Moment::from_secs(61);
        let day_later = Moment::from_secs(60 + 86_400);
        for (what, old, new, now, want) in [
            ("records by lower negative", (Positive, 0, 1), (NxDomain, 1, 1), minute, false),
            ("records by lower NODATA", (Positive, 0, 1), (NoData, 2, 1), minute, false),
            ("the same past max_age", (Positive, 0, 1), (NxDomain, 1, 1), day_later, true),
            ("records by own negative", (Positive, 1, 1), (NxDomain, 1, 1), minute, true),
            ("records by better negative", (Positive, 1, 1), (NxDomain, 0, 1), minute, true),
            ("records by lower records", (Positive, 0, 1), (Positive, 2, 1), minute, true),
            ("negative by lower negative", (NxDomain, 0, 1), (NoData, 2, 1), minute, true),
            ("another group's records", (Positive, 0, 1), (NxDomain, 1, 2), minute, true),
        ] {
            let (old, new) = (entry(data(old, Moment::ZERO)), data(new, now));
            assert_eq!(may_replace(&old, &new, Duration::from_secs(86_400), now), want, "{what}");
        }
    }

    #[test]
    fn a_better_tiers_records_are_remembered_where_a_lower_tiers_took_their_place() {
        use Kind::{NxDomain, Positive};
        let day = Duration::from_secs(86_400);
        let (first, later) = (entry(data((Positive, 0, 1), Moment::ZERO)), Moment::from_secs(100));
        let third = data((Positive, 2, 1), later);
        let (tier, until) = inherits(&first, &third, day, later).unwrap();
        assert_eq!((tier, until), (0, Moment::from_secs(60 + 86_400)));
        let third = entry(third);
        third.vouch(tier, until);
        assert!(!may_replace(&third, &data((NxDomain, 1, 1), later), day, later));
        assert!(may_replace(&third, &data((NxDomain, 0, 1), later), day, later), "the better tier's own word counts");
        let past = Moment::from_secs(60 + 86_400);
        assert!(may_replace(&third, &data((NxDomain, 1, 1), past), day, past), "within max_age");
        assert_eq!(inherits(&third, &data((Positive, 0, 1), later), day, later), None);
    }

    fn entry(data: Data) -> Entry {
        Entry::with_data(&Question { name: &[0], qtype: 1, dnssec_ok: false, cd: false }, data)
    }

    fn data((kind, tier, group): (Kind, u8, u32), now: Moment) -> Data {
        let packed = Packed::of_a_minute(kind);
        Data::new(packed, tier, GroupStamp(group), now)
    }
}
