//! What must be so in every world, after every step and at its end.
//!
//! Each rule is a function that says it in its first line. A rule looks at what goes in and out of the node, and at
//! what the world knows of itself ([`Faults`], [`Made`](crate::servers::Made)); of the core it asks what an operator
//! can see too: belief, tier in use, counts. The first rule that is broken ends the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::cache::entry::Entry;
use evenkeel::cache::freshness::{Freeze, is_recent};
use evenkeel::cache::guard::table::GuardChange;
use evenkeel::cache::key::{self, Key};
use evenkeel::clock::Moment;
use evenkeel::limits::{
    ATTEMPTS_PER_SERVER, BUDGET_BURST, BUDGET_FLOOR_PER_SECOND, COPY_EVERY, DOWN_ASKS_PER_SECOND, HOLD_DAMPED_MAX,
    LOOP_PROBE_EVERY, LOOP_PROBE_SPAN, OTHER_VIEW_NEGATIVE_TTL, PATIENCE_OLD, STALE_AGE_MAX,
};
use evenkeel::resolve::desk::PursuitId;
use evenkeel::resolve::pursuit::Ask;
use evenkeel::upstream::group::{AskKind, Belief, Change};
use evenkeel::upstream::tier::Why;

use crate::faults::{Faults, Ill};
use crate::message::{self, Message, Question, flag, rcode};
use crate::names::{self, Truth};
use crate::node::{Node, STAMP};
use crate::rate::Rate;
use crate::servers::{NOWHERE, Network, number_of};

/// A client's question as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub number: u64,
    pub client: usize,
    pub at: Moment,
    pub deadline: Moment,
    pub belief: Belief,
    pub patience: Duration,
    pub failed_of_late: bool,
    pub over_tcp: bool,
    pub question: Question,
}

/// What was stored, as far as rules need to know.
#[derive(Clone, Copy, Debug)]
struct Kept {
    stored: Moment,
    ttl: u32,
    good: bool,
}

#[derive(Debug)]
struct Attempts {
    key: Key,
    by_server: Vec<u8>,
    seen: usize,
    begun: Moment,
    /// Did it begin while the group was down?
    while_down: bool,
    /// Is it asked ahead of the end of an answer?
    ahead: bool,
    /// TC came: its failure is told to nobody.
    truncated: bool,
    /// Its first usable answer came: what comes after that is taken from better tiers only.
    answered: bool,
}

/// The rules, and what they have seen.
pub struct Rules {
    broken: Option<String>,
    /// Recovery is over: nothing may be wrong for clients any more.
    pub settled: bool,
    open: BTreeMap<u64, Asked>,
    deadlines: BTreeSet<(Moment, u64)>,
    replied: BTreeSet<u64>,
    attempts: BTreeMap<PursuitId, Attempts>,
    second: Rate,
    packets: Vec<Option<Rate>>,
    dark: Rate,
    kept: BTreeMap<Key, Kept>,
    /// What was asked ahead: when its answer was stored.
    aheads: BTreeMap<Key, Moment>,
    /// Records by the tier that gave them.
    records: BTreeMap<Key, [Option<Kept>; 3]>,
    /// When a usable answer came for a question, and when something went wrong with it.
    answered: BTreeMap<Key, Moment>,
    trouble: BTreeMap<Key, Moment>,
    shifts: u64,
    slept_at: Option<Moment>,
    others_asked: BTreeMap<usize, Moment>,
    flaps: Flaps,
    /// The freeze in force.
    pub frozen: Option<Freeze>,
    snapshot: Option<Snapshot>,
    /// Has a snapshot been read? It knows ages to the millisecond.
    is_warm: bool,
    /// What was stored before the last jump of the clock that the cache, or the snapshot of it, has seen is due.
    due: Moment,
    good: BTreeMap<Key, Good>,
    /// Names whose hold has begun and not ended.
    held: BTreeSet<String>,
    /// Who is bound by what, from the world's own numbers.
    faults: Facts,
}

/// How long a guarded question has been good, and since when somebody says otherwise.
#[derive(Clone, Copy, Debug)]
struct Good {
    since: Moment,
    /// The end of the last good answer's TTL.
    until: Moment,
    /// The first answer since the last good one that says it is gone.
    denied: Option<Moment>,
    released: bool,
}

/// What rules knew of the cache when it was written to the disk.
#[derive(Clone)]
struct Snapshot {
    kept: BTreeMap<Key, Kept>,
    records: BTreeMap<Key, [Option<Kept>; 3]>,
    good: BTreeMap<Key, Good>,
    held: BTreeSet<String>,
    due: Moment,
}

/// What rules read of the world's faults, once.
#[derive(Clone, Debug)]
struct Facts {
    max_age: Duration,
    reply_ttl: u32,
    hold: Duration,
    damp: bool,
    same_view: bool,
    best: usize,
    slowest: Duration,
    /// Does each server forward to us at times?
    loops: Vec<bool>,
    flaps_within_hold: bool,
    flood_alone: bool,
    /// Is a bound so low that it is met?
    is_tight: bool,
    /// Do questions wait for a server's packets a second?
    waits_for_room: bool,
    tenant_alone: Option<usize>,
    guarded: Vec<String>,
    guard: (Duration, Duration),
    deadline: Duration,
}

impl Facts {
    fn of(f: &Faults) -> Self {
        let s = &f.settings;
        let calm = f.servers_are_sound() && f.happenings.is_empty();
        let tenants: Vec<usize> = f.sources.iter().filter(|s| s.is_tenant()).map(|s| s.client).collect();
        Self {
            max_age: s.stale.max_age,
            reply_ttl: s.stale.reply_ttl,
            hold: s.health.hold,
            damp: s.health.damp,
            same_view: s.same_view,
            best: f.servers.iter().map(|s| s.tier).min().unwrap_or(0),
            slowest: f
                .servers
                .iter()
                .map(|s| Duration::from_millis(s.delay_ms + s.jitter_ms))
                .max()
                .unwrap_or_default(),
            loops: f.servers.iter().map(|s| s.spells.iter().any(|spell| spell.ill == Ill::Loops)).collect(),
            flaps_within_hold: f.only_flap_within_hold(),
            is_tight: f.is_tight(),
            waits_for_room: f.servers.iter().any(|s| s.packets_per_second > 0),
            flood_alone: calm && f.only_one_zone_is_flooded(),
            guarded: f.guarded_zones.iter().map(|n| format!("z{n}")).collect(),
            guard: (f.guard.hold, f.guard.min_good),
            deadline: s.deadline,
            tenant_alone: tenants.first().copied().filter(|_| calm && !f.is_tight()),
        }
    }
}

impl Rules {
    pub fn new(f: &Faults) -> Self {
        let packets = f.servers.iter().map(|s| {
            let per_second = f64::from(s.packets_per_second);
            (per_second > 0.0).then(|| Rate::new(per_second, (per_second / 10.0).max(2.0)))
        });
        Self {
            broken: None,
            settled: false,
            open: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            replied: BTreeSet::new(),
            attempts: BTreeMap::new(),
            second: Rate::new(BUDGET_FLOOR_PER_SECOND, BUDGET_BURST),
            packets: packets.collect(),
            dark: Rate::new(DOWN_ASKS_PER_SECOND, DOWN_ASKS_PER_SECOND),
            kept: BTreeMap::new(),
            aheads: BTreeMap::new(),
            records: BTreeMap::new(),
            answered: BTreeMap::new(),
            trouble: BTreeMap::new(),
            shifts: 0,
            slept_at: None,
            others_asked: BTreeMap::new(),
            flaps: Flaps::default(),
            frozen: None,
            snapshot: None,
            is_warm: false,
            due: Moment::ZERO,
            good: BTreeMap::new(),
            held: BTreeSet::new(),
            faults: Facts::of(f),
        }
    }

    /// The first rule that was broken.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    /// Another life of the process: what the last one knew is gone, and who waited for it gets nothing.
    pub fn on_restart(&mut self, f: &Faults) {
        let broken = self.broken.take();
        let (settled, snapshot) = (self.settled, self.snapshot.take());
        *self = Self { broken, settled, snapshot, ..Self::new(f) };
    }

    /// The cache is written to the disk: what is known of it may come back.
    pub fn on_snapshot(&mut self, due: Moment) {
        let due = self.due.max(due);
        let (kept, records) = (self.kept.clone(), self.records.clone());
        let (good, held) = (self.good.clone(), self.held.clone());
        self.snapshot = Some(Snapshot { kept, records, good, held, due });
    }

    /// It has come back: every rule goes on from there.
    pub fn on_restored(&mut self) {
        self.is_warm = true;
        if let Some(Snapshot { kept, records, good, held, due }) = self.snapshot.clone() {
            (self.kept, self.records, self.good, self.held, self.due) = (kept, records, good, held, due);
        }
    }

    /// The machine slept: nobody's patience counts that time.
    pub fn on_sleep(&mut self, span: Duration, now: Moment) {
        self.slept_at = Some(now);
        self.deadlines = self.deadlines.iter().map(|(at, n)| (*at + span, *n)).collect();
        self.open.values_mut().for_each(|a| a.deadline = a.deadline + span);
    }

    pub fn on_discontinuity(&mut self) {
        self.flaps = Flaps::default();
    }

    pub fn on_trouble(&mut self, key: Key, now: Moment) {
        self.trouble.insert(key, now);
    }

    //------------ Replies -------------------------------------------------------------------------------------------

    pub fn on_asked(&mut self, mut asked: Asked, node: &Node) {
        let q = key_question(&asked.question);
        let key = node.cache.key(&q);
        let healings = node.group().healings();
        let off = |e: &Arc<Entry>| e.has_failed(STAMP, healings, asked.at) || e.held(asked.at).is_some();
        let held = node.cache.look_held(key, &q, STAMP, asked.at);
        asked.failed_of_late = held.is_some() || node.cache.look(key, &q).is_some_and(|e| off(&e));
        if truth_of(&asked.question) != Truth::Dead {
            self.others_asked.insert(asked.client, asked.at);
        }
        self.deadlines.insert((asked.deadline, asked.number));
        self.open.insert(asked.number, asked);
    }

    /// A reply goes out. Says in a word what it is, and how long it took.
    pub fn on_reply(
        &mut self,
        number: u64,
        bytes: &[u8],
        n: &Network,
        node: &Node,
        now: Moment,
    ) -> (String, Duration) {
        self.at_most_one_reply(number);
        let Some(asked) = self.open.remove(&number) else { return ("lost".into(), Duration::ZERO) };
        self.deadlines.remove(&(asked.deadline, number));
        let m = Message::read(bytes);
        self.it_is_a_reply_to_the_question(&asked, &m);
        let key = node.cache.key(&key_question(&asked.question));
        let what = match m.rcode {
            rcode::NOERROR if m.has(flag::TC) => {
                self.check(!asked.over_tcp, || format!("question {number}: TC over TCP"));
                "truncated".to_owned()
            }
            rcode::NOERROR | rcode::NXDOMAIN => self.judge_answer(&asked, key, &m, n, node, now),
            rcode::SERVFAIL => {
                self.no_servfail_while_something_servable_exists(&asked, key, node, now);
                self.it_says_why(&asked, &m);
                "SERVFAIL".to_owned()
            }
            other => {
                self.fail(format!("question {number}: RCODE {other}"));
                "wrong".to_owned()
            }
        };
        self.nothing_is_wrong_once_all_is_settled(&asked, &what, &m, node);
        self.a_tenant_is_not_felt_by_others(&asked, &what);
        (what, now.since(asked.at))
    }

    fn judge_answer(
        &mut self,
        asked: &Asked,
        key: Key,
        m: &Message,
        n: &Network,
        node: &Node,
        now: Moment,
    ) -> String {
        let number = asked.number;
        let Some(made) = number_of(m).and_then(|i| n.made.get(i)) else {
            // Our own reply to a server that forwards to us, cut to its size, has no number any more.
            if self.faults.loops.contains(&true) {
                return "looped".into();
            }
            self.fail(format!("question {number}: an answer that nobody made: {m:?}"));
            return "wrong".into();
        };
        let Some(arrived) = made.arrived else {
            self.fail(format!("question {number}: an answer that never came"));
            return "wrong".into();
        };
        let name = asked.question.name.to_ascii_lowercase();
        self.check(made.name == name && made.qtype == asked.question.qtype && made.rcode == m.rcode, || {
            format!("question {number}: the answer to another question: {made:?}")
        });
        if made.good || m.addresses() != [NOWHERE] {
            self.only_right_addresses(asked, m, made.version);
        }
        if made.looped {
            return "looped".into();
        }
        // The TTL that it had once it was stored.
        let ttl = self.ttl_of(made, node);
        self.due = self.due.max(node.cache.due_before());
        let due = self.due;
        let expires = arrived + Duration::from_secs(ttl.into());
        let is_due = arrived < due;
        // A lower tier's denial may have been held for better tiers: within that time it is given as it came.
        // So may what a server says that turned against many names, or against a guarded one.
        let held = if made.good { Duration::ZERO } else { HELD_MAX };
        let says_stale = m.edes().iter().any(|e| matches!(e, 3 | 19));
        let held = if !held.is_zero() && self.slept_at >= Some(arrived) { FOREVER } else { held };
        let fresh = now < expires && !is_due || now <= arrived + held && !says_stale;
        // Within what a snapshot does not tell it is either.
        let near = now.since(expires).max(expires.since(now)) <= Duration::from_millis(3);
        let fresh = if self.is_warm && near { !says_stale } else { fresh };
        if asked.question.edns.is_none() && !held.is_zero() {
            // Held or stale: without EDNS nobody can tell.
            return "NXDOMAIN".into();
        }
        if asked.question.edns.is_some() {
            self.check(fresh != says_stale, || {
                format!("question {number}: stale by its reply: {says_stale}, but its TTL ran out at {expires:?}")
            });
        }
        if fresh {
            let left = expires.since(now).as_secs() as u32 + 1 + u32::from(self.is_warm);
            let given = m.answers.iter().chain(&m.authorities).map(|r| r.ttl).max().unwrap_or(0);
            self.check(given <= left.max(ttl.saturating_sub(now.since(arrived).as_secs() as u32)), || {
                format!("question {number}: TTL {given} where {left} s are left")
            });
        } else {
            self.nothing_is_older_than_max_age(number, key, now.since(expires), is_due, now);
            self.a_stale_reply_has_its_ttl_and_says_so(asked, m, ttl);
            self.no_stale_answer_while_healthy_and_patient(asked, key, now.since(expires), ttl, node, now);
        }
        if !made.good {
            self.a_guarded_name_keeps_its_addresses(asked, key, now);
            self.a_freeze_keeps_what_is_good(asked, key, now);
        }
        if !made.positive {
            self.no_lower_tiers_denial_hides_records(number, key, made.tier, due, now);
        }
        let what = match (fresh, made.positive) {
            (false, _) => "stale",
            (true, true) => "fresh",
            (true, false) if m.rcode == rcode::NXDOMAIN => "NXDOMAIN",
            (true, false) => "NODATA",
        };
        what.to_owned()
    }

    fn ttl_of(&self, made: &crate::servers::Made, node: &Node) -> u32 {
        let bounds = node.group().settings().ttl;
        match made.positive {
            true => bounds.positive(made.ttl),
            false => {
                let ttl = bounds.negative(made.ttl);
                let other_view = made.tier > self.faults.best && !self.faults.same_view;
                if other_view { ttl.min(OTHER_VIEW_NEGATIVE_TTL) } else { ttl }
            }
        }
    }

    /// A question gets at most one reply.
    fn at_most_one_reply(&mut self, number: u64) {
        let first = self.replied.insert(number);
        self.check(first, || format!("question {number}: a second reply"));
    }

    /// A question gets its reply by its deadline.
    fn a_reply_by_the_deadline(&mut self, now: Moment) {
        if let Some((deadline, number)) = self.deadlines.first().copied() {
            self.check(now <= deadline, || format!("question {number}: no reply by its deadline"));
        }
    }

    /// A reply bears the question's id and the question itself, has QR and RA, and OPT only where the client sent it.
    fn it_is_a_reply_to_the_question(&mut self, asked: &Asked, m: &Message) {
        let q = &asked.question;
        let question = [&q.name[..], &q.qtype.to_be_bytes(), &q.class.to_be_bytes()].concat();
        let right = m.id == q.id && m.question == question && m.has(flag::QR) && m.has(flag::RA);
        self.check(right && m.edns.is_some() == q.edns.is_some(), || format!("question {}: {m:?}", asked.number));
    }

    /// Where the client sent EDNS, a failure has an extended error.
    fn it_says_why(&mut self, asked: &Asked, m: &Message) {
        let says = asked.question.edns.is_none() || !m.edes().is_empty();
        self.check(says, || format!("question {}: SERVFAIL without a reason", asked.number));
    }

    /// An address is one that a server gave for that name, at a time when it was right.
    fn only_right_addresses(&mut self, asked: &Asked, m: &Message, version: usize) {
        let truth = names::truth(&asked.question.name.to_ascii_lowercase(), asked.question.qtype);
        let given = m.addresses();
        if given.is_empty() {
            return;
        }
        let right = match truth {
            Truth::Addresses { number, .. } => {
                let mut right = names::addresses(number, version);
                right.sort_unstable();
                given == right
            }
            _ => false,
        };
        self.check(right, || format!("question {}: wrong addresses {given:?}", asked.number));
    }

    /// Nothing is served that is past its TTL by more than `max_age`.
    fn nothing_is_older_than_max_age(&mut self, number: u64, key: Key, past: Duration, is_due: bool, now: Moment) {
        let held = self.good.get(&key).is_some_and(|g| g.denied.is_some());
        let within = past < self.max_age(now) || is_due && past.is_zero() || held;
        self.check(within, || format!("question {number}: {past:?} past its TTL"));
    }

    /// A stale reply has a TTL of at least 1 s and at most `reply_ttl` and what it had, and extended error 3 or 19.
    fn a_stale_reply_has_its_ttl_and_says_so(&mut self, asked: &Asked, m: &Message, ttl: u32) {
        let most = self.faults.reply_ttl.min(ttl).max(1);
        let ttls = || m.answers.iter().chain(&m.authorities).map(|r| r.ttl);
        self.check(ttls().all(|t| (1..=most).contains(&t)), || {
            format!("question {}: stale with TTL {:?}, most {most}", asked.number, ttls().collect::<Vec<_>>())
        });
        let want = if m.rcode == rcode::NXDOMAIN { 19 } else { 3 };
        self.check(asked.question.edns.is_none() || m.edes().contains(&want), || {
            format!("question {}: stale without its extended error", asked.number)
        });
    }

    /// There is no SERVFAIL while something can be served under the key.
    fn no_servfail_while_something_servable_exists(&mut self, asked: &Asked, key: Key, node: &Node, now: Moment) {
        let Some(kept) = self.kept.get(&key).copied() else { return };
        let due = self.due.max(node.cache.due_before());
        let mut expires = kept.stored + Duration::from_secs(kept.ttl.into());
        if kept.stored < due {
            expires = expires.min(due);
        }
        let until = expires + self.max_age(now);
        self.check(now >= until, || format!("question {}: SERVFAIL though {kept:?} can be served", asked.number));
    }

    /// While the group is believed healthy, nobody gets a stale answer who has had an answer within patience; and
    /// nobody before patience is over unless something went wrong with the question.
    fn no_stale_answer_while_healthy_and_patient(
        &mut self,
        asked: &Asked,
        key: Key,
        past: Duration,
        ttl: u32,
        node: &Node,
        now: Moment,
    ) {
        if asked.belief != Belief::Healthy || asked.failed_of_late || asked.patience.is_zero() {
            return;
        }
        let answered = self.answered.get(&key).is_some_and(|at| *at >= asked.at);
        self.check(!answered, || format!("question {}: stale though the answer came in time", asked.number));
        let asked_past = past.saturating_sub(now.since(asked.at));
        let wait = if is_recent(asked_past, ttl) { asked.patience } else { PATIENCE_OLD.max(asked.patience) };
        // What fails by our own limits is told to nobody.
        let limited = self.faults.is_tight;
        let wrong = limited || self.trouble.get(&key).is_some_and(|at| *at >= asked.at) || node.group().is_dark();
        let early = now < (asked.at + wait).min(asked.deadline);
        self.check(wrong || !early, || {
            let took = now.since(asked.at);
            format!("question {}: stale after {took:?}, patience {wait:?}, {past:?} past TTL {ttl}", asked.number)
        });
    }

    /// A lower tier's negative answer never hides records that a better tier gave within `max_age`.
    fn no_lower_tiers_denial_hides_records(&mut self, number: u64, key: Key, tier: usize, due: Moment, now: Moment) {
        if self.faults.same_view {
            return;
        }
        let Some(records) = self.records.get(&key).copied() else { return };
        for (better, kept) in records.iter().enumerate().take(tier) {
            let Some(kept) = kept else { continue };
            let expires = kept.stored + Duration::from_secs(kept.ttl.into());
            // A jump of the clock makes what is older expire at that moment.
            let expires = if kept.stored < due { expires.min(due) } else { expires };
            let until = expires + self.faults.max_age;
            self.check(now >= until, || {
                format!("question {number}: tier {tier}'s denial hides the records of tier {better}: {kept:?}")
            });
        }
    }

    /// Some time after healing nobody gets a stale answer or a failure, but for broken names and by our own limits.
    fn nothing_is_wrong_once_all_is_settled(&mut self, asked: &Asked, what: &str, m: &Message, node: &Node) {
        if !self.settled {
            return;
        }
        let truth = names::truth(&asked.question.name, asked.question.qtype);
        let limits = m.edes().contains(&0) || asked.question.edns.is_none();
        match what {
            "SERVFAIL" => {
                let fine = limits || matches!(truth, Truth::Bogus | Truth::Dead);
                self.check(fine, || format!("question {}: SERVFAIL {:?} though all is well", asked.number, m.edes()));
            }
            "stale" => {
                let quick =
                    self.faults.slowest * 2 < asked.patience && truth != Truth::Big && !self.faults.waits_for_room;
                let key = node.cache.key(&key_question(&asked.question));
                let wrong = self.trouble.get(&key).is_some_and(|at| *at >= asked.at);
                let fine = !quick || asked.failed_of_late || wrong;
                self.check(fine, || format!("question {}: stale though all is well", asked.number));
            }
            _ => {}
        }
    }

    /// One client that asks for failing zones is not felt by others: no stale answer, no failure.
    fn a_tenant_is_not_felt_by_others(&mut self, asked: &Asked, what: &str) {
        let Some(tenant) = self.faults.tenant_alone.filter(|_| self.is_one_of_several(asked.at)) else { return };
        let truth = names::truth(&asked.question.name, asked.question.qtype);
        let sound = !matches!(truth, Truth::Dead | Truth::Bogus | Truth::Big);
        let quick = self.faults.slowest * 2 < asked.patience;
        if asked.client != tenant && sound && quick && matches!(what, "stale" | "SERVFAIL") {
            self.fail(format!("question {}: {what} while only a tenant's zones fail", asked.number));
        }
    }

    //------------ Last known good -----------------------------------------------------------------------------------

    /// How far past its TTL an answer may be served: a freeze stops the clock.
    fn max_age(&self, now: Moment) -> Duration {
        let frozen = self.frozen.filter(|f| now < f.until && !self.faults.max_age.is_zero());
        self.faults.max_age + frozen.map_or(Duration::ZERO, |f| now.since(f.since))
    }

    fn is_guarded(&self, name: &[u8]) -> bool {
        names::labels(name).get(1).is_some_and(|zone| self.faults.guarded.iter().any(|g| g == zone))
    }

    /// A guarded name that was good for `min_good` does not lose its addresses before it was denied for `hold`.
    fn a_guarded_name_keeps_its_addresses(&mut self, asked: &Asked, key: Key, now: Moment) {
        let (hold, min_good) = self.faults.guard;
        if !self.is_guarded(&asked.question.name) {
            return;
        }
        let Some(good) = self.good.get(&key).copied().filter(|g| !g.released) else { return };
        // Who joins a pursuit that began before is answered as it was then.
        let known = good.until.min(asked.at - self.faults.deadline * 2);
        let old = now >= good.until + self.faults.max_age.max(STALE_AGE_MAX.default) - self.faults.deadline * 2;
        let long = known.since(good.since) >= min_good && known > good.since && !old;
        let over = good.denied.is_some_and(|at| now >= at + hold);
        self.check(!long || over, || format!("question {}: a guarded name is gone: {good:?}", asked.number));
    }

    /// In a freeze nobody gets a negative answer where a good one could be served when it was asked.
    fn a_freeze_keeps_what_is_good(&mut self, asked: &Asked, key: Key, now: Moment) {
        let Some(freeze) = self.frozen.filter(|f| now < f.until) else { return };
        let begun = asked.at >= freeze.since + self.faults.deadline * 2;
        let Some(good) = self.good.get(&key).copied().filter(|_| begun) else { return };
        let Some(kept) = self.kept.get(&key).filter(|k| k.good) else { return };
        let servable = now < kept.stored + Duration::from_secs(kept.ttl.into()) + self.max_age(now);
        self.check(!servable, || format!("question {}: frozen, and gone all the same: {good:?}", asked.number));
    }

    /// A hold begins once; before it begins again the name was good, or gone, or released.
    pub fn on_guard(&mut self, change: &GuardChange) {
        match change {
            GuardChange::Held(name, _) => {
                let first = self.held.insert(name.to_string());
                self.check(first, || format!("{name} is held again though its hold never ended"));
            }
            GuardChange::Good(name) | GuardChange::Gone(name) | GuardChange::Released(name) => {
                self.held.remove(&name.to_string());
            }
        }
    }

    pub fn on_release(&mut self, key: Key) {
        self.good.entry(key).and_modify(|g| g.released = true);
    }

    //------------ Questions to servers ------------------------------------------------------------------------------

    /// A name is asked ahead once an answer, in the last quarter of its TTL, while the group is believed healthy.
    pub fn on_ahead(&mut self, key: Key, belief: Belief, now: Moment) {
        let Some(kept) = self.kept.get(&key).copied() else {
            return self.fail(format!("{key:?} is asked ahead of nothing"));
        };
        let ttl = Duration::from_secs(kept.ttl.into());
        let within = kept.stored + ttl * 3 / 4 <= now && now < kept.stored + ttl;
        let first = self.aheads.insert(key, kept.stored) != Some(kept.stored);
        let fine = within && first && belief == Belief::Healthy;
        self.check(fine, || format!("asked ahead of {kept:?}, first: {first}, the group {}", belief.word()));
    }

    pub fn on_started(
        &mut self,
        id: PursuitId,
        key: Key,
        servers: usize,
        (while_down, ahead): (bool, bool),
        now: Moment,
    ) {
        self.attempts.insert(
            id,
            Attempts {
                key,
                by_server: vec![0; servers],
                seen: 0,
                begun: now,
                while_down,
                ahead,
                truncated: false,
                answered: false,
            },
        );
    }

    pub fn on_truncated(&mut self, id: PursuitId) {
        if let Some(a) = self.attempts.get_mut(&id) {
            a.truncated = true;
        }
    }

    /// May it fail without a word: by a limit of ours that let no question out, or since its answer is too large?
    pub fn may_fail_silently(&self, id: PursuitId) -> bool {
        self.attempts.get(&id).is_none_or(|a| a.seen == 0 || a.truncated)
    }

    pub fn on_done(&mut self, id: PursuitId) {
        self.attempts.remove(&id);
    }

    pub fn on_ask(&mut self, id: PursuitId, ask: &Ask, f: &Faults, was_down: bool, now: Moment) {
        let server = usize::from(ask.server.0);
        self.packets_within_their_rate(server, now);
        let Some(attempts) = self.attempts.get_mut(&id) else { return self.fail(format!("{id:?} asks unasked")) };
        let again = ask.attempt.0 < attempts.seen;
        if again {
            return;
        }
        let first = attempts.seen == 0;
        attempts.seen = ask.attempt.0 + 1;
        if ask.kind == AskKind::Probe {
            return;
        }
        attempts.by_server[server] += 1;
        let (count, while_down, begun) = (attempts.by_server[server], attempts.while_down, attempts.begun);
        let ahead = attempts.ahead;
        self.at_most_three_attempts(id, server, count);
        self.second_questions_within_their_budget(ask.kind, ahead, f.settings.hedge.budget, now);
        // What made it down at the moment of its beginning came too late for it.
        if first && was_down && (while_down || begun < now) {
            self.few_names_while_down(now);
        }
        self.one_attempt_while_down(id, !first && was_down);
    }

    /// No server gets more than three attempts for one question.
    fn at_most_three_attempts(&mut self, id: PursuitId, server: usize, count: u8) {
        self.check(count <= ATTEMPTS_PER_SERVER, || format!("pursuit {}: {count} attempts on server {server}", id.0));
    }

    /// Over any window, second questions and those asked ahead are at most share × first ones + 50 × its length + 20.
    fn second_questions_within_their_budget(&mut self, kind: AskKind, ahead: bool, share: f64, now: Moment) {
        let within = match kind {
            AskKind::First => {
                self.second.allow(share);
                true
            }
            AskKind::Hedge | AskKind::Retry => self.second.count(now),
            AskKind::Refresh if ahead => self.second.count(now),
            AskKind::Probe | AskKind::Refresh => true,
        };
        self.check(within, || "more second questions than the budget has".into());
    }

    /// Over any window, packets to a server are at most `packets_per_second` × its length + a tenth of a second's.
    fn packets_within_their_rate(&mut self, server: usize, now: Moment) {
        let within = self.packets[server].as_mut().is_none_or(|rate| rate.count(now));
        self.check(within, || format!("more packets to server {server} than its limit"));
    }

    /// While the group is down a name is asked once: no second attempt goes out.
    fn one_attempt_while_down(&mut self, id: PursuitId, another: bool) {
        self.check(!another, || format!("pursuit {} asks again while the group is down", id.0));
    }

    /// While the group is down at most ten names a second are asked, beside probes.
    fn few_names_while_down(&mut self, now: Moment) {
        let within = self.dark.count(now);
        self.check(within, || "more names asked while the group is down than ten a second".into());
    }

    pub fn on_probe_sent(&mut self, server: usize, now: Moment) {
        self.packets_within_their_rate(server, now);
    }

    //------------ Answers -------------------------------------------------------------------------------------------

    /// A usable answer came for an attempt that was out.
    pub fn on_answer(
        &mut self,
        id: PursuitId,
        ask: &Ask,
        bytes: &[u8],
        storable: bool,
        network: &mut Network,
        now: Moment,
    ) {
        let m = Message::read(bytes);
        let Some(made) = number_of(&m).and_then(|i| network.made.get_mut(i)) else { return };
        // What went round by way of us has an age of its own.
        let server = usize::from(ask.server.0);
        let loops = self.faults.loops[server];
        made.looped |= loops && (made.server != server || made.arrived.is_some());
        made.arrived.get_or_insert(now);
        let other_view = !made.positive && made.tier > self.faults.best && !self.faults.same_view;
        let good = made.good;
        let Some(attempts) = self.attempts.get_mut(&id).filter(|_| ask.kind != AskKind::Probe) else { return };
        let known = self.good.get_mut(&attempts.key).filter(|_| !good);
        if let Some(known) = known {
            known.denied.get_or_insert(now);
            // It may be doubted.
            self.trouble.insert(attempts.key, now);
        } else if other_view {
            self.trouble.insert(attempts.key, now);
        } else if storable && !attempts.answered {
            self.answered.insert(attempts.key, now);
        }
        attempts.answered = true;
    }

    pub fn on_keep(&mut self, key: Key, entry: &Entry, kept: bool, is_frozen: bool, now: Moment) {
        let Some(data) = entry.data().filter(|_| kept) else { return };
        let new = Kept { stored: data.stored, ttl: data.ttl, good: data.good };
        if data.good {
            let until = now + Duration::from_secs(data.ttl.into());
            let first = Good { since: now, until, denied: None, released: false };
            let good = self.good.entry(key).or_insert(first);
            (good.until, good.denied, good.released) = (until, None, false);
        } else {
            self.good.remove(&key);
            let had = self.kept.get(&key).copied().filter(|k| k.good && is_frozen);
            let servable =
                had.is_some_and(|k| now < k.stored + Duration::from_secs(k.ttl.into()) + self.max_age(now));
            self.check(!servable, || format!("{had:?} is given up in a freeze"));
        }
        self.kept.insert(key, new);
        let records = self.records.entry(key).or_default();
        let tier = usize::from(data.tier);
        if data.kind.is_negative() {
            records[tier..].fill(None);
        } else {
            records[tier] = Some(new);
        }
    }

    //------------ Servers and tiers ---------------------------------------------------------------------------------

    pub fn on_change(&mut self, change: Change, f: &Faults, _node: &Node, now: Moment) {
        if self.faults.flood_alone {
            self.a_flood_alone_convicts_nobody(change);
        }
        if let (true, Change::Shift(shift)) = (self.is_one_of_several(now), change) {
            self.fail(format!("{shift:?} while only a tenant's zones fail"));
        }
        let Change::Shift(shift) = change else { return };
        self.shifts += 1;
        self.at_most_two_shifts_while_each_up_phase_is_short(f);
        let hold = (self.faults.hold, self.faults.damp);
        match shift.why {
            Why::Held => {
                let frozen = self.frozen.is_some_and(|f| now < f.until);
                self.check(!frozen, || format!("tier {} is used again in a freeze", shift.to));
                let (since, least) = self.flaps.on_held(shift.to, hold, now);
                self.check(since >= least, || {
                    format!("tier {} is used again {since:?} after it was left, hold {least:?}", shift.to)
                });
            }
            Why::Unfit => self.flaps.on_left(shift.from, shift.to, hold, now),
        }
    }

    /// Is the tenant one of several clients that asked of late? Alone, it counts like any other.
    fn is_one_of_several(&self, now: Moment) -> bool {
        let asked =
            |client: &usize| self.others_asked.iter().any(|(c, at)| c != client && now.since(*at) < SEEN_OF_LATE);
        self.faults.tenant_alone.as_ref().is_some_and(asked)
    }

    /// A flood of a dead zone, with no other traffic, convicts no server and moves no tier.
    fn a_flood_alone_convicts_nobody(&mut self, change: Change) {
        let convicts = matches!(change, Change::Down(..) | Change::Shift(_) | Change::Dark);
        self.check(!convicts, || format!("{change:?} by a dead zone's flood alone"));
    }

    /// Where every up phase of a flapping tier is shorter than the hold, an outage moves traffic at most twice.
    fn at_most_two_shifts_while_each_up_phase_is_short(&mut self, _f: &Faults) {
        let within = !self.faults.flaps_within_hold || self.shifts <= 2;
        self.check(within, || "a third tier shift in one outage".into());
    }

    //------------ Each step, and the end ----------------------------------------------------------------------------

    pub fn after_step(&mut self, node: &Node, now: Moment) {
        self.a_reply_by_the_deadline(now);
        self.permits_are_held_for_open_pursuits(node);
    }

    /// As many permits are out as pursuits are open.
    fn permits_are_held_for_open_pursuits(&mut self, node: &Node) {
        let (held, open) = (node.group().bulkhead().in_flight() as usize, node.desk.open_count());
        self.check(held == open, || format!("{held} permits for {open} open pursuits"));
    }

    /// How long the way back to the best tier may take: the hold in force, `rise` probes or copies, and the ramp.
    pub fn time_to_recover(&self, node: &Node, now: Moment) -> Duration {
        let h = &node.group().settings().health;
        let probe = (h.every.mul_f64(1.1) + h.timeout).max(COPY_EVERY * 2) + Duration::from_millis(400);
        // Loops are looked for once a minute.
        let loops =
            if self.faults.loops.contains(&true) { LOOP_PROBE_EVERY + LOOP_PROBE_SPAN } else { Duration::ZERO };
        node.group().hold(now) + probe * h.rise + h.ramp + loops + SLACK
    }

    /// After healing the best tier is in use within the hold in force, `rise` × `every` and the ramp.
    pub fn the_best_tier_is_in_use_again(&mut self, node: &Node, best: usize, _now: Moment) {
        let in_use = node.group().tier_in_use();
        let states: Vec<_> = node.group().servers().iter().map(|s| s.state().0).collect();
        self.check(in_use == best, || format!("tier {in_use} is still in use: {states:?}"));
    }

    /// At the end every question has its reply, and every permit, slot, task and pursuit is gone.
    pub fn at_the_end(&mut self, node: &Node, _now: Moment) {
        if let Some(number) = self.open.keys().next().copied() {
            self.fail(format!("question {number} has no reply"));
        }
        let left = (node.group().bulkhead().in_flight(), node.desk.under_way(), node.left());
        self.check(left == (0, 0, (0, 0)), || format!("left at the end: {left:?}"));
        if let Some((id, attempts)) = self.attempts.iter().next() {
            let what = format!("{id:?} never ended: {:?}", attempts.key);
            self.fail(what);
        }
    }
}

/// What is held when the machine falls asleep is given after it.
const FOREVER: Duration = Duration::from_secs(1 << 32);
/// A client that asked so long ago is one of several.
const SEEN_OF_LATE: Duration = Duration::from_secs(55);
/// A denial is held for better tiers no longer than a try time-out, and for others not much longer.
const HELD_MAX: Duration = Duration::from_secs(3);
/// For packets on their way and the prober's turns.
const SLACK: Duration = Duration::from_secs(10);

/// What flapping costs, told anew from RULES: each flap doubles the hold to 10 min, quiet of twice the hold takes one
/// doubling back.
#[derive(Clone, Debug, Default)]
struct Flaps {
    left: [Option<Moment>; 3],
    retaken: bool,
    count: u32,
    last: Moment,
}

impl Flaps {
    fn doubled(hold: Duration, count: u32) -> Duration {
        hold.saturating_mul(1 << count.min(16)).min(HOLD_DAMPED_MAX.max(hold))
    }

    fn count_at(&self, hold: Duration, now: Moment) -> u32 {
        let (mut count, mut at) = (self.count, self.last);
        while count > 0 && now >= at + Self::doubled(hold, count) * 2 {
            at = at + Self::doubled(hold, count) * 2;
            count -= 1;
        }
        count
    }

    /// How long ago a tier was left, and how long it must be at least.
    fn on_held(&mut self, to: usize, (hold, damp): (Duration, bool), now: Moment) -> (Duration, Duration) {
        self.retaken = true;
        let least = if damp { Self::doubled(hold, self.count_at(hold, now)) } else { hold };
        (self.left[to].map_or(Duration::MAX, |at| now.since(at)), least)
    }

    fn on_left(&mut self, from: usize, to: usize, (hold, _): (Duration, bool), now: Moment) {
        self.left[from] = Some(now);
        if self.retaken {
            self.count = (self.count_at(hold, now) + 1).min(16);
            self.last = now;
        }
        self.retaken = to < from;
    }
}

fn truth_of(q: &Question) -> Truth {
    names::truth(&q.name, q.qtype)
}

fn key_question(q: &Question) -> key::Question<'_> {
    // Names of the world are made in small letters.
    let dnssec_ok = q.edns.as_ref().is_some_and(|e| e.dnssec_ok);
    key::Question { name: &q.name, qtype: q.qtype, dnssec_ok, cd: q.flags & message::flag::CD != 0 }
}
