//! What may take the place of what: the last known good is not given up lightly.
//!
//! Pure. Rules (RULES "Tiers"):
//!
//! - A newer answer of the same tier or a better one takes the place of any.
//! - A lower tier's negative answer never takes the place of records that a better tier gave within `max_age`: the
//!   other tier may have another view of names.
//! - Where the group is another one, its answer takes the place: an entry knows its group.
//!
//! Failures never come here: they stand beside the data.

use std::time::Duration;

use super::entry::{Data, Kind};
use super::freshness::Standing;
use crate::clock::Moment;

/// May `new` take the place of `old`?
pub fn may_replace(old: &Data, new: &Data, max_age: Duration, now: Moment) -> bool {
    !(new.kind.is_negative() && outweighs(old, new.tier, max_age, now) && old.group == new.group)
}

/// Do the records of `old` outweigh a negative answer of `tier`: were they given by a better tier within `max_age`?
pub fn outweighs(old: &Data, tier: u8, max_age: Duration, now: Moment) -> bool {
    old.kind == Kind::Positive && old.tier < tier && old.standing(max_age, Moment::ZERO, now) != Standing::Gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::{GroupStamp, Packed};

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
            let (old, new) = (data(old, Moment::ZERO), data(new, now));
            assert_eq!(may_replace(&old, &new, Duration::from_secs(86_400), now), want, "{what}");
        }
    }

    fn data((kind, tier, group): (Kind, u8, u32), now: Moment) -> Data {
        let packed = Packed {
            wire: vec![0; 12],
            ttl_at: vec![],
            rotation: None,
            kept_edes: [].into(),
            kind,
            ttl: 60,
            signed_until: Moment::NEVER,
        };
        Data::new(packed, tier, GroupStamp(group), now)
    }
}
