//! What a group has learned of its servers.
//!
//! Pure; behind one short lock. It is told what happens and draws its conclusions ([`super::learning`]), is asked whom
//! to ask ([`super::choosing`]), and queues what changed for the log ([`Group::take_changes`]).
//!
//! - A server is fit unless it is down ([`super::health`]) or silent ([`super::breaker`]); unknown is fit.
//! - A server that was silent for a second is down.
//! - The group is **dark** when no server is fit and none has spoken since it was found unfit. The first well-formed
//!   reply ends darkness at once; only the choice of the tier waits for `rise` and `hold`.
//! - In the dark every server is asked in turn: our own judgement may be what is broken. Once every server is down too,
//!   it is a few questions a second.

use std::collections::VecDeque;
use std::time::Duration;

use super::budget::Budget;
use super::bulkhead::Bulkhead;
use super::clients::Clients;
use super::latency::Latency;
use super::server::Server;
use super::tier::{Fitness, Pace, TIERS, Tiers};
use super::turned::Turned;
use super::zones::Zones;
use super::{GroupSettings, ServerId, hedge};

pub use super::change::Change;
pub use super::outlook::Belief;
pub use super::server::AskKind;
use crate::cache::freshness::{Freeze, Patience};
use crate::clock::Moment;
use crate::limits::PATIENCE_AUTO;
use crate::wire::Name;

/// A group of servers: what was learned, and the settings in force.
#[derive(Debug)]
pub struct Group {
    pub(super) settings: GroupSettings,
    pub(super) servers: Vec<Server>,
    pub(super) tiers: Tiers,
    pub(super) second_questions: Budget,
    pub(super) down_asks: Budget,
    pub(super) refreshes: Budget,
    pub(super) zones: Zones,
    pub(super) clients: Clients,
    /// Live questions that were answered of late, for copies where no client asks.
    pub(super) samples: VecDeque<(Name, u16)>,
    /// Is nothing coming from any server of IPv4, of IPv6?
    pub(super) broken_families: [bool; 2],
    pub(super) bulkhead: Bulkhead,
    /// Time that names not in cache took.
    pub(super) misses: Latency,
    pub(super) started: Moment,
    pub(super) weighed_at: Moment,
    pub(super) answered: bool,
    pub(super) dark: bool,
    pub(super) healings: u32,
    pub(super) turn: usize,
    pub(super) shifts: [u64; 2],
    pub(super) budget_denied: u64,
    pub(super) freeze: Option<Freeze>,
    pub(super) turned: Turned,
    pub(super) changes: Vec<Change>,
}

impl Group {
    /// A group about which nothing is known.
    pub fn new(settings: GroupSettings, now: Moment) -> Self {
        let servers: Vec<Server> = settings
            .tiers
            .iter()
            .enumerate()
            .flat_map(|(tier, list)| list.iter().map(move |s| Server::new(s.clone(), tier, now)))
            .collect();
        let mut group = Self {
            settings,
            servers,
            tiers: Tiers::new([Fitness::Empty; TIERS]),
            second_questions: Budget::second_questions(now),
            down_asks: Budget::down_asks(now),
            refreshes: Budget::refreshes(now),
            zones: Zones::default(),
            clients: Clients::default(),
            samples: VecDeque::new(),
            broken_families: [false; 2],
            bulkhead: Bulkhead::default(),
            misses: Latency::default(),
            started: now,
            weighed_at: now,
            answered: false,
            dark: false,
            healings: 0,
            turn: 0,
            shifts: [0; 2],
            budget_denied: 0,
            freeze: None,
            turned: Turned::default(),
            changes: Vec::new(),
        };
        group.tiers = Tiers::new(group.fitness());
        group
    }

    /// A group with new settings that keeps what `old` learned of the servers that stay. Says whether any stays.
    pub fn adopt(settings: GroupSettings, old: &mut Group, now: Moment) -> (Self, bool) {
        let mut new = Self::new(settings, now);
        new.freeze = old.freeze;
        let mut any = false;
        for server in &mut new.servers {
            let same = |s: &Server| {
                s.settings.address == server.settings.address && s.settings.protocol == server.settings.protocol
            };
            let Some(known) = old.servers.iter().find(|s| same(s)) else { continue };
            any = true;
            server.breaker = known.breaker.learned();
            server.health = known.health.clone();
            server.latency = known.latency.clone();
            server.silent_since = known.silent_since;
            server.announced_down = known.announced_down;
            server.unfit_at = known.unfit_at;
            server.answered_at = known.answered_at;
            server.heard_at = known.heard_at;
            server.unreachable_at = known.unreachable_at;
            server.left_out = known.left_out;
            server.loops = known.loops.clone();
            server.no_edns_until = known.no_edns_until;
            server.asked = known.asked;
        }
        if any {
            let shape = |g: &Group| g.settings.tiers.each_ref().map(|t| t.is_empty());
            if shape(&new) == shape(old) {
                new.tiers = old.tiers.clone();
            } else if new.is_frozen(now) {
                new.resume_tier(old.tier_in_use());
            }
            let by_address = |id: ServerId| {
                let was = &old.server(id).settings;
                let is = |s: &Server| (s.settings.address, s.settings.protocol) == (was.address, was.protocol);
                new.servers.iter().position(is).map(ServerId::nth)
            };
            new.turned = old.turned.moved(by_address);
            new.second_questions = old.second_questions.clone();
            new.down_asks = old.down_asks.clone();
            new.refreshes = old.refreshes.clone();
            new.zones = old.zones.clone();
            new.clients = old.clients.clone();
            new.samples = old.samples.clone();
            new.broken_families = old.broken_families;
            new.bulkhead.adopt_counters(&old.bulkhead);
            new.misses = old.misses.clone();
            (new.answered, new.dark) = (old.answered, old.dark);
            new.shifts = old.shifts;
            new.budget_denied = old.budget_denied;
            new.healings = old.healings;
            new.weigh(now);
        }
        (new, any)
    }

    /// The settings in force.
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// The servers, by [`ServerId`].
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server of an id that this group gave.
    pub fn server(&self, id: ServerId) -> &Server {
        &self.servers[usize::from(id.0)]
    }

    /// What is believed of the group as a whole.
    pub fn belief(&self) -> Belief {
        match () {
            () if self.dark && self.servers.iter().all(Server::is_given_up) => Belief::Down,
            () if self.dark => Belief::Silent,
            () if !self.answered => Belief::Untried,
            () => Belief::Healthy,
        }
    }

    /// Is no server fit, and has none spoken since?
    pub fn is_dark(&self) -> bool {
        self.dark
    }

    /// May a better tier than `tier` know names that this one denies?
    pub fn has_better_view(&self, tier: usize) -> bool {
        !self.settings.same_view && self.servers.iter().any(|s| s.tier < tier)
    }

    /// Is it asked little, each name once? When it is down. A group that is only silent may be one whose way has become
    /// long: while clients wait it is asked as ever; where none waits (`refresh`) there is no haste.
    pub fn is_spared(&self, refresh: bool) -> bool {
        if refresh { self.dark } else { self.belief() == Belief::Down }
    }

    /// Begins a freeze, or ends it: no tier moves up while it lasts, and nothing good is given up.
    pub fn set_freeze(&mut self, freeze: Option<Freeze>) {
        self.freeze = freeze;
    }

    /// Goes on with a tier that was in use in another life, where it has servers: in a freeze none moves up.
    pub fn resume_tier(&mut self, tier: usize) {
        self.tiers.resume(tier, self.fitness());
    }

    /// Is everything to stay as it is?
    pub fn is_frozen(&self, now: Moment) -> bool {
        self.freeze.is_some_and(|f| f.holds(now))
    }

    /// Does it say of many names that they are gone, which others still have?
    pub fn is_suspected(&self, id: ServerId) -> bool {
        self.turned.is_suspected(id)
    }

    /// How far past its TTL an answer may serve.
    pub fn max_age(&self, now: Moment) -> Duration {
        Freeze::max_age(self.freeze, self.settings.stale.max_age, now)
    }

    /// How often the group has come back from the dark. A failure remembered before that counts no more.
    pub fn healings(&self) -> u32 {
        self.healings
    }

    /// The tier in use, from 0.
    pub fn tier_in_use(&self) -> usize {
        self.tiers.in_use()
    }

    /// The hold in force: how long a better tier must be fit before it is used again.
    pub fn hold(&self, now: Moment) -> Duration {
        self.tiers.hold(self.pace(), now)
    }

    /// A better tier that is fit again, from 0, and when its hold is over.
    pub fn returns(&self, now: Moment) -> Option<(usize, Moment)> {
        (0..self.tier_in_use()).find_map(|tier| Some((tier, self.tiers.hold_ends(tier, self.pace(), now)?)))
    }

    /// Shifts so far: because a tier was unfit, because a better one held.
    pub fn shifts(&self) -> [u64; 2] {
        self.shifts
    }

    /// Second questions that the budget denied.
    pub fn budget_denied(&self) -> u64 {
        self.budget_denied
    }

    /// What is under way.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// How long a client with a stale answer waits for a fresh one while the group is believed healthy.
    pub fn patience(&self) -> Duration {
        match self.settings.stale.patience {
            Patience::Fixed(d) => d,
            Patience::Auto => {
                let (least, most) = PATIENCE_AUTO;
                self.misses.p95().map_or(least, |p95| (p95 * 2).clamp(least, most))
            }
        }
    }

    /// How long a question to a server waits before another server is asked too.
    pub fn hedge_after(&self, id: ServerId) -> Duration {
        hedge::after(&self.settings.hedge, &self.server(id).latency)
    }

    /// How long before the same server is asked again, where all others were asked.
    pub fn again_after(&self, id: ServerId) -> Duration {
        hedge::again_after(self.hedge_after(id))
    }

    /// How long an attempt is worth waiting for where another answer is at hand, or nobody is fit.
    pub fn try_timeout(&self, id: ServerId) -> Duration {
        hedge::try_timeout(self.hedge_after(id))
    }

    /// Should a question to this server carry OPT?
    pub fn takes_edns(&self, id: ServerId, now: Moment) -> bool {
        now >= self.server(id).no_edns_until
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub(super) fn fitness(&self) -> [Fitness; TIERS] {
        std::array::from_fn(|tier| {
            let mut servers = self.servers.iter().filter(|s| s.tier == tier);
            let Some(first) = servers.next() else { return Fitness::Empty };
            if first.is_fit() || servers.any(Server::is_fit) { Fitness::Fit } else { Fitness::Unfit }
        })
    }

    pub(super) fn pace(&self) -> Pace {
        let h = &self.settings.health;
        Pace { hold: h.hold, ramp: h.ramp, damp: h.damp }
    }

    pub(super) fn at(&mut self, id: ServerId) -> &mut Server {
        &mut self.servers[usize::from(id.0)]
    }
}
