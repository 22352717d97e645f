//! Carries out what the machines decide.
//!
//! Not pure: tokio tasks, sockets, the clock. Nothing is decided here. An [`Opening`] goes to its group's desk
//! ([`crate::resolve::desk`]), which begins a pursuit, lets it join one, or refuses. What a pursuit wants done is
//! carried out at once by whoever has news for it (`pursuing`): it asks servers through the transport, has replies
//! vetted, stores, answers those who wait. A miss so costs no task, and of timers one push to a heap (`timers`).
//! Replies gather until all else is done that is to be done at the moment, and leave together.
//!
//! - A [`Cell`] is a desk with its servers' endpoints.
//! - No lock is held across an await. Their order is: a pursuit's, its desk's, then the list of pursuits and the times
//!   that are set; a port's under a pursuit's.
//! - A local refusal (no room, too many of one client) is answered, neither stored nor evidence.
//! - A task that panics ends the process: release builds abort, and the daemon's panic hook does so in others.
//!
//! Measured (`cargo bench --bench loopback -- misses`, CPU of a miss as a ratio to unbound's in the same run): a
//! task, a future and three timers for each pursuit and one sendmsg for each reply 0.76, this 0.50 and 0.45.

mod cell;
mod pursuing;
mod timers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::cache::Cache;
use crate::cache::entry::{Data, Entry, GroupStamp};
use crate::cache::freshness::StaleSettings;
use crate::cache::key::Question;
use crate::clock::{self, Moment};
use crate::limits::IN_FLIGHT_PER_CLIENT;
use crate::observe::event::{self, Event};
use crate::observe::metrics::{Source, Tally};
use crate::observe::query_log::{Answered, QueryLog};
use crate::resolve::desk::{Opened, PursuitId, Request};
use crate::resolve::pursuit::{Answer, Waiter};
use crate::serve::admit::ClientKey;
use crate::serve::reply::{self, Manner};
use crate::serve::{Client, Gathering, Opening, ReplyTo, Transport};
use crate::upstream::bulkhead::Bound;
use crate::wire::edns::code;
use crate::wire::query::OwnedQuery;
use crate::wire::rcode;

pub use cell::{Cell, adopt};
use pursuing::Running;
pub use pursuing::unanswered;

/// Who asks this soon after answers were restored may have missed them.
const OFFERED_OF_LATE: Duration = Duration::from_secs(2);

/// The way to one waiting client, and its query.
struct Way {
    query: OwnedQuery,
    client: Client,
    reply_to: Box<dyn ReplyTo>,
    received: Moment,
    turn: u32,
    group: GroupStamp,
    stale: StaleSettings,
    slot: Option<ClientKey>,
}

/// What carries questions out.
pub struct Driver {
    cache: Arc<Cache>,
    tally: Tally,
    log: Arc<QueryLog>,
    /// The cells in force, and those before them: a worker may still hand over what it judged by the policy before.
    cells: RwLock<[HashMap<GroupStamp, Arc<Cell>>; 2]>,
    in_flight_per_client: AtomicU32,
    /// When restored answers were offered last.
    offered_at: AtomicU64,
    clients: Mutex<HashMap<ClientKey, u32>>,
    /// Clients whose questions were handed over and that have no answer yet.
    waiting: AtomicUsize,
    /// Where replies have gathered.
    gathered: Mutex<Vec<Arc<dyn Gathering>>>,
    posted: Notify,
}

/// What the queue to the driver carries.
pub type HandedOver = (Box<Opening>, Option<Box<dyn ReplyTo>>);

impl Driver {
    /// A driver over `cache`. `tally` is one that many may write.
    pub fn new(cache: Arc<Cache>, tally: Tally, log: Arc<QueryLog>) -> Self {
        Self {
            cache,
            tally,
            log,
            cells: RwLock::default(),
            in_flight_per_client: AtomicU32::new(IN_FLIGHT_PER_CLIENT.default as u32),
            offered_at: AtomicU64::new(0),
            clients: Mutex::default(),
            waiting: AtomicUsize::new(0),
            gathered: Mutex::default(),
            posted: Notify::new(),
        }
    }

    /// Replaces the cells, and how many questions of one client may wait. Pursuits under way end with the cell that
    /// they began with.
    pub fn set_cells(&self, cells: &[Arc<Cell>], in_flight_per_client: u32) {
        let new = cells.iter().map(|c| (c.stamp, c.clone())).collect();
        let [current, before] = &mut *self.cells.write().unwrap_or_else(PoisonError::into_inner);
        *before = std::mem::replace(current, new);
        self.in_flight_per_client.store(in_flight_per_client, Ordering::Relaxed);
    }

    /// Answers of an earlier process were restored: questions that came before them are offered them. Any thread may
    /// call it.
    pub fn offer_restored(&self) {
        let cells: Vec<_> = {
            let [current, _] = &*self.cells.read().unwrap_or_else(PoisonError::into_inner);
            current.values().cloned().collect()
        };
        self.offered_at.store(clock::now().as_nanos(), Ordering::Relaxed);
        cells.iter().for_each(|cell| self.offer(cell, None));
    }

    fn offer(&self, cell: &Cell, one: Option<PursuitId>) {
        let (due_before, now) = (self.cache.due_before(), clock::now());
        let of = (cell.stamp, cell.with(|g| g.max_age(now)));
        let with_data = |key, q: &Question<'_>| self.cache.look(key, q).filter(|e| e.data().is_some());
        let look = |key, q: &Question<'_>| {
            // What was validated may serve who asks without validation, as at the door.
            let validated = Question { cd: false, ..*q };
            with_data(key, q).or_else(|| q.cd.then(|| with_data(self.cache.key(&validated), &validated)).flatten())
        };
        let guarded = |key, q: &Question<'_>| self.cache.look_protected(key, q, of, now);
        let offered = cell.with_desk(|desk| desk.offer_restored(one, (&look, &guarded), due_before, now));
        offered.into_iter().for_each(|id| cell.timers.tell(id));
    }

    /// Takes open questions from the workers until the queue's other ends are gone.
    pub async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<HandedOver>) {
        tokio::spawn(self.clone().give_out());
        while let Some((opening, reply_to)) = queue.recv().await {
            self.open(*opening, reply_to);
        }
    }

    /// A client begins to wait: its question is about to be put into the queue, or to be turned away.
    pub fn expect(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until every client that waits has its answer, at most for `bound`. What is asked for nobody's sake is not
    /// waited for.
    pub async fn until_answered(&self, bound: Duration) {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        let looks = bound.as_millis() / LOOK_EVERY.as_millis();
        for _ in 0..looks {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // What has gathered goes out.
        tokio::time::sleep(LOOK_EVERY).await;
    }

    /// Sends the replies that have gathered, whenever all that is to be done at the moment is done.
    async fn give_out(self: Arc<Self>) {
        let mut gathered = Vec::new();
        loop {
            self.posted.notified().await;
            tokio::task::yield_now().await;
            gathered.append(&mut lock(&self.gathered));
            gathered.drain(..).for_each(|at| at.flush());
        }
    }

    /// Takes one open question. Called within the tokio runtime; never waits.
    pub fn open(self: &Arc<Self>, opening: Opening, reply_to: Option<Box<dyn ReplyTo>>) {
        let now = clock::now();
        let cell = {
            let [current, before] = &*self.cells.read().unwrap_or_else(PoisonError::into_inner);
            current.get(&opening.group).or_else(|| before.get(&opening.group)).cloned()
        };
        let Some(way) = self.way(&opening, reply_to) else {
            if let Some(cell) = cell {
                cell.with(|g| g.on_rejected(Bound::Client));
            }
            return;
        };
        let Some(cell) = cell else {
            return self.refuse(way, opening.stale, code::NOT_READY, now);
        };
        let question = Arc::new(opening.question);
        let lacks_stale = opening.stale.is_none();
        let max_age = cell.max_age(now);
        let request = Request {
            key: opening.key,
            question: question.clone(),
            client: opening.client_hash,
            stale: opening.stale,
            guarded: self.cache.look_protected(opening.key, &question.view(), (cell.stamp, max_age), now),
            ahead: opening.ahead,
            waiter: way.map(|way| Waiter {
                way,
                deadline: opening.received + cell.deadline,
                stale_at: opening.stale_at,
            }),
        };
        let key = opening.key;
        // It is listed before anyone else can name it: another question may make it yield at once.
        let (opened, running) = cell.with_desk(|desk| {
            let opened = desk.open(request, now);
            let running = match &opened {
                Opened::Started(id, _) => Some(Arc::new(Running::new(cell.clone(), *id, key, question))),
                _ => None,
            };
            running.iter().for_each(|running| cell.list(running));
            (opened, running)
        });
        match opened {
            Opened::Joined(id) => cell.timers.tell(id),
            Opened::Started(id, yielded) => {
                // A worker may have looked just before it was restored.
                let offered_at = Moment::from_nanos(self.offered_at.load(Ordering::Relaxed));
                if lacks_stale && now.since(offered_at) < OFFERED_OF_LATE {
                    self.offer(&cell, Some(id));
                }
                yielded.into_iter().for_each(|other| cell.timers.tell(other));
                cell.wake();
                running.iter().for_each(|running| self.advance(running));
            }
            Opened::Refused(waiter, stale, ede) => self.refuse(waiter.map(|w| w.way), stale, ede, now),
        }
    }

    /// Answers a question for which the queue had no room.
    pub fn turn_away(&self, opening: Opening, reply_to: Option<Box<dyn ReplyTo>>, now: Moment) {
        let Some(reply_to) = reply_to else { return };
        let way = Way {
            query: opening.query,
            client: opening.client,
            reply_to,
            received: opening.received,
            turn: opening.turn,
            group: opening.group,
            stale: opening.stale_settings,
            slot: None,
        };
        self.refuse(Some(way), opening.stale, code::OTHER, now);
    }

    /// The way back, with the client's slot taken; `None` (answered already) where the client has too many waiting.
    #[expect(clippy::option_option, reason = "the outer is whether to go on, the inner whether anybody waits")]
    fn way(&self, opening: &Opening, reply_to: Option<Box<dyn ReplyTo>>) -> Option<Option<Way>> {
        let Some(reply_to) = reply_to else { return Some(None) };
        let slot = self.take_slot(opening.bound);
        let full = slot == Slot::Full;
        let way = Way {
            query: opening.query.clone(),
            client: opening.client,
            reply_to,
            received: opening.received,
            turn: opening.turn,
            group: opening.group,
            stale: opening.stale_settings,
            slot: if let Slot::Taken(key) = slot { Some(key) } else { None },
        };
        if full {
            self.refuse(Some(way), opening.stale.clone(), code::OTHER, clock::now());
            return None;
        }
        Some(Some(way))
    }

    fn take_slot(&self, client: Option<ClientKey>) -> Slot {
        let Some(key) = client else { return Slot::Unbound };
        let most = self.in_flight_per_client.load(Ordering::Relaxed);
        let mut clients = lock(&self.clients);
        let held = clients.entry(key).or_default();
        if *held >= most {
            return Slot::Full;
        }
        *held += 1;
        Slot::Taken(key)
    }

    fn give_slot(&self, slot: Option<ClientKey>) {
        let Some(key) = slot else { return };
        let mut clients = lock(&self.clients);
        if let Some(held) = clients.get_mut(&key) {
            *held -= 1;
            if *held == 0 {
                clients.remove(&key);
            }
        }
    }

    /// A limit of our own: the stale answer where there is one, else SERVFAIL. Neither stored nor evidence.
    fn refuse(&self, way: Option<Way>, stale: Option<Arc<Entry>>, ede: u16, now: Moment) {
        let Some(way) = way else { return };
        let answer = match stale {
            Some(entry) => Answer::Stale(entry),
            None => Answer::Failed { ede: Some(ede), kept_edes: [].into() },
        };
        let mut out = Vec::new();
        self.answer(way, &answer, &mut out, now);
    }

    /// Reports what has happened to guarded names.
    pub fn tell_of_guards(&self) {
        for change in self.cache.guards().take_changes() {
            event::report(Event::Guard(change));
        }
    }

    /// Sends one waiter its answer and counts it.
    fn answer(&self, way: Way, answer: &Answer, out: &mut Vec<u8>, now: Moment) {
        let query = way.query.view();
        let limit = reply::limit(&query, way.client.transport);
        out.resize(limit.max(out.len()), 0);
        let manner = Manner { limit, turn: way.turn };
        let out = &mut out[..limit];
        let failed = |ede: Option<u16>, kept: &[u8], out: &mut [u8]| {
            reply::error(query, rcode::SERVFAIL, ede.map(reply::ede), kept, out)
        };
        let (n, source) = match answer {
            Answer::Fresh(entry) | Answer::Stale(entry) if entry.data().is_none() => {
                (failed(Some(code::OTHER), &[], out), Source::Failed)
            }
            Answer::Fresh(entry) => {
                let n = entry.data().map_or(0, |d| reply::fresh(&query, d, manner, now, out));
                (n, Source::Upstream)
            }
            Answer::Stale(entry) => {
                let due = self.cache.due_before();
                let stale = |d: &Data| {
                    let standing = d.standing_in(way.group, way.stale.max_age, due, now);
                    reply::stale(&query, (d, entry.held(now).is_some()), standing, &way.stale, manner, now, out)
                };
                let (n, past) = entry.data().map(stale).unwrap_or_default();
                self.tally.stale(past);
                (n, Source::Stale)
            }
            Answer::Failed { ede, kept_edes } => (failed(*ede, kept_edes, out), Source::Failed),
            Answer::Truncated if way.client.transport == Transport::Udp => {
                (reply::truncated(query, out), Source::Upstream)
            }
            Answer::Truncated => (failed(Some(code::INVALID_DATA), &[], out), Source::Failed),
        };
        let rcode = u16::from(out[3] & 15);
        let took = now.since(way.received);
        self.tally.answered(way.client.transport, source, rcode, took);
        if self.log.is_on() && self.log.takes(rand::random()) {
            let Client { address: client, transport } = way.client;
            let (query, reply) = (&query.told_again(), &out[..n]);
            self.log.offer(&Answered { client, transport, query, reply, source, rcode, took });
        }
        self.give_slot(way.slot);
        // Who comes through no worker (a test) was not expected.
        let _ = self.waiting.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if let Some(first) = way.reply_to.send(&out[..n]) {
            lock(&self.gathered).push(first);
            self.posted.notify_one();
        }
    }
}

#[derive(PartialEq)]
enum Slot {
    Unbound,
    Taken(ClientKey),
    Full,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
