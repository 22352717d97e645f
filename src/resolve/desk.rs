//! All pursuits of one group: who may begin, who joins, who must yield, when it is over.
//!
//! Pure. One [`Desk`] holds a [`Group`] and every pursuit that asks it, behind one short lock. The driver and the
//! simulation carry out the same steps; they differ only in where bytes and time come from:
//!
//! ```text
//! open ──▶ Joined  tell its task        next ──▶ steps of one pursuit, until Wait or Done
//!      ├─▶ Started begin a task         on_verdict ──▶ what came, then next
//!      └─▶ Refused answer, stale or not
//! ```
//!
//! - The same question asked twice is one pursuit with two waiters, while it can still be joined.
//! - While the group is down few names are asked ([`Group::allows_while_down`]); the others are refused at once.
//! - A bound that is full is first looked through for the oldest hopeless question: one that nobody has answered
//!   although a server was given its time. It yields its place and is answered as by a refusal. A zone that is known
//!   to fail has few places and no such claim.
//! - What is asked ahead of its end is asked only while all is well ([`Group::allows_ahead`]); nobody yields to it.
//! - A refusal is a limit of ours: it is neither remembered nor evidence.
//!
//! Invariant: a permit is held for exactly the pursuits that are open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::AttemptId;
use super::join::Joins;
use super::patience::{self, Circumstances};
use super::pursuit::{Brief, Pursuit, Step, Waiter};
use super::vet::Verdict;
use crate::cache::entry::{Entry, GroupStamp};
use crate::cache::freshness::Standing;
use crate::cache::key::{Key, OwnedQuestion, Question};
use crate::clock::Moment;
use crate::limits::{HOPELESS_AFTER_MIN, WAITERS_PER_PURSUIT_MAX};
use crate::upstream::bulkhead::{Bound, Permit};
use crate::upstream::{ClientHash, Group, ZoneHash};
use crate::wire::edns::code;

/// Finds an entry by its question.
pub type Look<'l> = &'l dyn Fn(Key, &Question<'_>) -> Option<Arc<Entry>>;

/// How long it is not looked again for a hopeless question where none was.
const BARREN_FOR: Duration = Duration::from_millis(5);

/// A pursuit's name at its desk; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PursuitId(pub u64);

/// An open question as it comes to the desk.
#[derive(Debug)]
pub struct Request<W> {
    /// Its key.
    pub key: Key,
    /// What is asked.
    pub question: Arc<OwnedQuestion>,
    /// Who asks.
    pub client: ClientHash,
    /// What can be served stale.
    pub stale: Option<Arc<Entry>>,
    /// The last good answer, where a guard protects it.
    pub guarded: Option<Arc<Entry>>,
    /// Is it asked ahead of the end of an answer that is fresh yet?
    pub ahead: bool,
    /// Who waits; none where the client was answered already.
    pub waiter: Option<Waiter<W>>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Opened<W> {
    /// It waits with others: the pursuit's next wake-up may be an earlier one.
    Joined(PursuitId),
    /// A pursuit begins. Where another one had to yield its place, that one has steps to take too.
    Started(PursuitId, Option<PursuitId>),
    /// A limit of ours: the waiter gets the stale answer, or a failure with this INFO-CODE. What is not waited for is
    /// dropped.
    Refused(Option<Waiter<W>>, Option<Arc<Entry>>, u16),
}

#[derive(Debug)]
struct Place<W> {
    key: Key,
    pursuit: Pursuit<W>,
    /// Held while the pursuit is open.
    permit: Option<Permit>,
}

/// A group and all that asks it.
#[derive(Debug)]
pub struct Desk<W> {
    group: Group,
    stamp: GroupStamp,
    joins: Joins<PursuitId>,
    /// In the order in which they began.
    places: BTreeMap<PursuitId, Place<W>>,
    next_id: u64,
    /// The bound under which nobody was hopeless a moment ago.
    barren: Option<(Bound, ZoneHash, Moment)>,
}

impl<W> Desk<W> {
    /// A desk before `group`, whose answers bear `stamp`.
    pub fn new(group: Group, stamp: GroupStamp) -> Self {
        Self { group, stamp, joins: Joins::default(), places: BTreeMap::new(), next_id: 0, barren: None }
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The group, to be told what happened.
    pub fn group_mut(&mut self) -> &mut Group {
        &mut self.group
    }

    /// Pursuits that can be joined.
    pub fn open_count(&self) -> usize {
        self.joins.len()
    }

    /// Pursuits under way, those among them that only listen for late replies.
    pub fn under_way(&self) -> usize {
        self.places.len()
    }

    /// Takes an open question.
    pub fn open(&mut self, request: Request<W>, now: Moment) -> Opened<W> {
        let question = request.question.view();
        if let Some(id) = self.joins.find(request.key, &question)
            && let Some(place) = self.places.get_mut(&id)
            && place.pursuit.is_open()
        {
            if let Some(waiter) = request.waiter {
                if place.pursuit.waiter_count() >= WAITERS_PER_PURSUIT_MAX {
                    return Opened::Refused(Some(waiter), request.stale, code::OTHER);
                }
                place.pursuit.offer_stale(request.stale);
                place.pursuit.join(waiter);
            }
            return Opened::Joined(id);
        }
        let Request { key, question, client, stale, guarded, ahead, waiter } = request;
        // A question of ours has gone round: an upstream leads back here.
        if self.group.on_came_in(question.view().name, now) {
            return Opened::Refused(waiter, None, code::OTHER);
        }
        if ahead && !self.group.allows_ahead(question.view().name, now) {
            return Opened::Refused(None, stale, code::OTHER);
        }
        let spared = self.group.is_spared(waiter.is_none());
        if self.group.servers().is_empty() || spared && !self.group.allows_while_down(now) {
            return Opened::Refused(waiter, stale, code::NO_REACHABLE_AUTHORITY);
        }
        if waiter.is_none() && !ahead && !self.group.allows_refresh(now) {
            return Opened::Refused(None, stale, code::OTHER);
        }
        let name = question.view().name;
        let (permit, yielded) = match self.group.enter(name, client, now) {
            Ok(permit) => (permit, None),
            // Who has time makes nobody yield.
            Err(_) if ahead => return Opened::Refused(None, stale, code::OTHER),
            Err(bound) => match self.make_room(bound, name, client, now) {
                Some((permit, yielded)) => (permit, Some(yielded)),
                None => {
                    self.group.on_rejected(bound);
                    return Opened::Refused(waiter, stale, code::OTHER);
                }
            },
        };
        let brief = Brief {
            question: OwnedQuestion::clone(&question),
            client,
            group: self.stamp,
            stale,
            guarded,
            refresh: waiter.is_none(),
        };
        let mut pursuit = Pursuit::new(brief, &self.group, now);
        if let Some(waiter) = waiter {
            pursuit.join(waiter);
        }
        let id = PursuitId(self.next_id);
        self.next_id += 1;
        self.joins.open(key, &question.view(), id);
        self.places.insert(id, Place { key, pursuit, permit: Some(permit) });
        Opened::Started(id, yielded)
    }

    /// Answers of an earlier process were restored: whoever has nothing to give is offered what `look` finds, and is
    /// told of what `guarded` protects; `one` alone, where it is given. Gives those that have steps to take.
    pub fn offer_restored(
        &mut self,
        one: Option<PursuitId>,
        (look, guarded): (Look<'_>, Look<'_>),
        due_before: Moment,
        now: Moment,
    ) -> Vec<PursuitId> {
        let (belief, patience) = (self.group.belief(), self.group.patience());
        let max_age = self.group.max_age(now);
        let mut offered = Vec::new();
        let (first, last) = one.map_or((PursuitId(0), PursuitId(u64::MAX)), |id| (id, id));
        for (id, place) in self.places.range_mut(first..=last) {
            place.pursuit.offer_guarded(|question| guarded(place.key, question));
            if !place.pursuit.lacks_stale() {
                continue;
            }
            let Some(entry) = look(place.key, &place.pursuit.question()) else { continue };
            let Some(data) = entry.data().filter(|d| d.group == self.stamp || !d.kind.is_negative()) else {
                continue;
            };
            let wait = match data.standing_in(self.stamp, max_age, due_before, now) {
                Standing::Fresh { .. } => Duration::ZERO,
                Standing::Stale { past } => {
                    patience::wait(Circumstances { belief, failed_of_late: false, patience, past, ttl: data.ttl })
                }
                Standing::Gone => continue,
            };
            place.pursuit.offer_restored(entry.clone(), wait);
            offered.push(*id);
        }
        offered
    }

    /// The oldest hopeless question under a full bound yields to a new one.
    fn make_room(
        &mut self,
        full: Bound,
        name: &[u8],
        client: ClientHash,
        now: Moment,
    ) -> Option<(Permit, PursuitId)> {
        let zone = self.group.zone_of(name, now);
        if zone.is_failing {
            return None;
        }
        let in_bound = |permit: &Permit| match full {
            Bound::Group => true,
            Bound::Zone => permit.zone() == zone.hash,
            Bound::ZoneOfClient | Bound::Client => false,
        };
        // A flood is refused by the ten thousand a second, behind one lock: who is young is not looked at, and who
        // found nobody does not look again at once.
        if self.barren.is_some_and(|(bound, of, at)| bound == full && of == zone.hash && now.since(at) < BARREN_FOR) {
            return None;
        }
        let Some((id, place)) = self
            .places
            .iter_mut()
            .take_while(|(_, p)| now.since(p.pursuit.started()) >= HOPELESS_AFTER_MIN)
            .filter(|(_, p)| p.permit.as_ref().is_some_and(in_bound))
            .find(|(_, p)| p.pursuit.is_hopeless(HOPELESS_AFTER_MIN, now))
        else {
            self.barren = Some((full, zone.hash, now));
            return None;
        };
        let id = *id;
        let old = place.permit.take()?;
        self.joins.close(place.key, |open| *open == id);
        self.group.leave(old);
        // Before the old one tells of its zone: the zone may be found failing by that, and have no room.
        let permit = self.group.enter(name, client, now);
        place.pursuit.give_way(&mut self.group, now);
        debug_assert!(permit.is_ok(), "{:?} is full though room was made under {full:?}", permit.as_ref().err());
        Some((permit.ok()?, id))
    }

    /// A reply to an attempt of a pursuit came and was vetted, or it ended without one.
    pub fn on_verdict(&mut self, id: PursuitId, attempt: AttemptId, verdict: Verdict, now: Moment) {
        if let Some(place) = self.places.get_mut(&id) {
            place.pursuit.on_verdict(attempt, verdict, &mut self.group, now);
        }
    }

    /// Everything that is to be done now for a pursuit; the last step is [`Step::Wait`] or [`Step::Done`]. After
    /// [`Step::Done`] the pursuit is gone: what is still out for it is given up. `draw` gives random numbers in 0..1.
    pub fn next(&mut self, id: PursuitId, draw: &mut dyn FnMut() -> f64, now: Moment) -> Vec<Step<W>> {
        let mut steps = Vec::new();
        let listens = self.places.len() <= self.listeners_max();
        loop {
            let Some(place) = self.places.get_mut(&id) else {
                steps.push(Step::Done);
                return steps;
            };
            let mut step = place.pursuit.next(&mut self.group, draw, now);
            if matches!(step, Step::Wait(_)) && !place.pursuit.is_open() && !listens {
                step = Step::Done;
            }
            let last = matches!(step, Step::Wait(_) | Step::Done);
            let done = matches!(step, Step::Done);
            let kept = if let Step::Keep(entry) = &step { Some(entry.clone()) } else { None };
            steps.push(step);
            if let Some(entry) = kept {
                let (key, question) = (place.key, place.pursuit.question());
                if let Some(other) = self.joins.find(key, &question).filter(|other| *other != id)
                    && let Some(waiting) = self.places.get_mut(&other)
                {
                    waiting.pursuit.on_kept(&entry, &mut self.group, now);
                    steps.push(Step::Tell(other));
                }
            }
            if !last {
                continue;
            }
            self.close_where_over(id);
            if done {
                self.remove(id, now);
            }
            return steps;
        }
    }

    /// Beyond so many under way nobody listens on for late replies: each has a socket.
    fn listeners_max(&self) -> usize {
        self.group.settings().in_flight_max as usize * 2
    }

    fn close_where_over(&mut self, id: PursuitId) {
        if let Some(place) = self.places.get_mut(&id).filter(|p| !p.pursuit.is_open()) {
            self.joins.close(place.key, |open| *open == id);
            if let Some(permit) = place.permit.take() {
                self.group.leave(permit);
            }
        }
    }

    fn remove(&mut self, id: PursuitId, now: Moment) {
        let Some(mut place) = self.places.remove(&id) else { return };
        debug_assert!(place.permit.is_none(), "{id:?} has ended and holds its permit");
        place.pursuit.give_up(&mut self.group, now);
    }
}
