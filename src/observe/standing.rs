//! How a group stands, read off what it learned.
//!
//! Pure. The daemon reads its groups here for status and `/metrics`, a drill its own: both say the same of the same.

use std::time::Duration;

use super::status::{GroupStatus, Questions, Returns, ServerStatus};
use crate::clock::Moment;
use crate::resolve::vet::Fault;
use crate::upstream::{Group, ServerId, tier};
use crate::wire::Name;

/// Failures of one server, by [`Fault::ALL`].
pub type Faults = [u64; Fault::ALL.len()];

impl GroupStatus {
    /// Of a group that is called `name`; `faults` knows how attempts on each of its servers ended. `wall` is `now` in
    /// seconds since 1970.
    pub fn of(name: &str, group: &Group, faults: impl Fn(ServerId) -> Faults, (now, wall): (Moment, i64)) -> Self {
        let servers = (0..group.servers().len()).map(|i| ServerId(i as u16));
        Self {
            name: name.to_owned(),
            zones: group.settings().zones.iter().map(Name::to_string).collect(),
            tier_in_use: if group.servers().is_empty() { 0 } else { group.tier_in_use() as u8 + 1 },
            returns: group
                .returns(now)
                .map(|(tier, at)| Returns { tier: tier as u8 + 1, in_seconds: now.until(at).as_secs() }),
            belief: group.belief().word(),
            patience_ms: millis(group.patience()),
            in_flight: group.bulkhead().in_flight().into(),
            in_flight_max: group.settings().in_flight_max.into(),
            servers: servers.map(|id| ServerStatus::of(group, id, faults(id), (now, wall))).collect(),
            budget_denied: group.budget_denied(),
            bulkhead_rejected: group.bulkhead().rejected().map(|(bound, n)| (bound.word(), n)).into(),
            tier_shifts: [tier::Why::Unfit, tier::Why::Held]
                .map(|why| (why.word(), group.shifts()[why as usize]))
                .into(),
        }
    }
}

impl ServerStatus {
    fn of(group: &Group, id: ServerId, faults: Faults, (now, wall): (Moment, i64)) -> Self {
        let s = group.server(id);
        let (state, reason) = s.state();
        let suspected = group.is_suspected(id);
        let reason = if suspected { "says of many names that they are gone; others still have them" } else { reason };
        let [first, retry, hedge, probe, refresh] = *s.asked();
        Self {
            name: s.settings.name.clone(),
            address: s.settings.address.to_string(),
            protocol: s.settings.protocol.to_string(),
            tier: s.tier as u8 + 1,
            state,
            reason: reason.to_owned(),
            since_unix: s.unfit_since().map(|at| wall.saturating_sub_unsigned(now.since(at).as_secs())),
            last_answer_seconds: s.answered_at().map(|at| now.since(at).as_secs()),
            latency_ms: (s.latency().p50() > Duration::ZERO).then(|| millis(s.latency().p50())),
            hedge_ms: Some(millis(group.hedge_after(id))),
            questions: Questions { first, retry, hedge, probe, refresh },
            failures: Fault::ALL.iter().zip(faults).filter(|(_, n)| *n > 0).map(|(f, n)| (f.word(), n)).collect(),
        }
    }
}

/// In milliseconds, to the microsecond.
fn millis(d: Duration) -> f64 {
    d.as_micros() as f64 / 1e3
}
