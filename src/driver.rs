//! Carries out what the machines decide: `loop { wait → apply }`.
//!
//! Not pure: tokio tasks, sockets, the clock. Nothing is decided here. An [`Opening`] goes to its group's desk
//! ([`crate::resolve::desk`]), which begins a pursuit, lets it join one, or refuses; one task carries out the steps of
//! each pursuit: it asks servers through the transport, has replies vetted, stores, answers those who wait.
//!
//! - A [`Cell`] is a desk with its servers' endpoints. Its lock is held for one call of the pure core, and for telling
//!   what the call changed: it is published ([`Outlook`]) and handed to the log's queue.
//! - No lock is held across an await, and none while another is taken, but for the list of tasks under the desk's.
//! - A local refusal (no room, too many of one client) is answered, neither stored nor evidence.
//! - A task that panics ends the process: release builds abort, and the daemon's panic hook does so in others.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::cache::Cache;
use crate::cache::entry::{Data, Entry, GroupStamp};
use crate::cache::freshness::StaleSettings;
use crate::cache::key::{Key, OwnedQuestion, Question};
use crate::clock::{self, Moment};
use crate::limits::IN_FLIGHT_PER_CLIENT;
use crate::observe::event::{self, Event};
use crate::observe::metrics::{Source, Tally};
use crate::resolve::desk::{Desk, Opened, PursuitId, Request};
use crate::resolve::pursuit::{Answer, Ask, AttemptId, Failed, Step, Waiter};
use crate::resolve::vet::{self, Fault, Terms, Verdict};
use crate::serve::admit::ClientKey;
use crate::serve::reply::{self, Manner};
use crate::serve::{Client, Opening, ReplyTo, Transport};
use crate::transport::{Asked, Endpoint, Failure as Unanswered};
use crate::upstream::bulkhead::Bound;
use crate::upstream::group::Change;
use crate::upstream::{Group, GroupSettings, Outlook, Protocol, ServerId};
use crate::wire::edns::code;
use crate::wire::query::OwnedQuery;
use crate::wire::{build, rcode};

/// Who asks this soon after answers were restored may have missed them.
const OFFERED_OF_LATE: Duration = Duration::from_secs(2);

/// A group and the way to its servers.
pub struct Cell {
    /// Marks its answers.
    pub stamp: GroupStamp,
    /// What the hit path sees of it.
    pub outlook: Arc<Outlook>,
    /// A probe is wanted before the prober's next turn.
    pub probe_wanted: Notify,
    desk: Mutex<Desk<Way>>,
    /// Wakes the task of each pursuit.
    tasks: Mutex<HashMap<PursuitId, Arc<Notify>>>,
    endpoints: Vec<Endpoint>,
    faults: Vec<[AtomicU64; Fault::ALL.len()]>,
}

impl Cell {
    /// A cell over `group`, which nobody else holds.
    pub fn new(stamp: GroupStamp, group: Group) -> Self {
        let source = group.settings().source;
        let endpoints: Vec<Endpoint> =
            group.servers().iter().map(|s| Endpoint::new(s.settings.address, source)).collect();
        let outlook = Arc::new(Outlook::default());
        outlook.publish(&group);
        let faults = endpoints.iter().map(|_| Default::default()).collect();
        Self {
            stamp,
            outlook,
            probe_wanted: Notify::new(),
            desk: Mutex::new(Desk::new(group, stamp)),
            tasks: Mutex::default(),
            endpoints,
            faults,
        }
    }

    /// Calls `f` with the group; what changed is published and logged.
    pub fn with<T>(&self, f: impl FnOnce(&mut Group) -> T) -> T {
        self.with_desk(|desk| f(desk.group_mut()))
    }

    /// The same with the desk before it.
    fn with_desk<T>(&self, f: impl FnOnce(&mut Desk<Way>) -> T) -> T {
        let mut desk = lock(&self.desk);
        let result = f(&mut desk);
        let group = desk.group_mut();
        self.outlook.publish(group);
        for change in group.take_changes() {
            // Who waits with a stale answer at hand gets it now.
            if change == Change::Dark {
                lock(&self.tasks).values().for_each(|task| task.notify_one());
            }
            announce(change, group);
        }
        if group.wants_probes(clock::now()) {
            self.probe_wanted.notify_one();
        }
        result
    }

    fn wake(&self, id: PursuitId) {
        if let Some(task) = lock(&self.tasks).get(&id) {
            task.notify_one();
        }
    }

    /// The way to a server.
    pub fn endpoint(&self, id: ServerId) -> &Endpoint {
        &self.endpoints[usize::from(id.0)]
    }

    /// How often attempts on a server ended in each fault, by [`Fault::ALL`].
    pub fn faults(&self, id: ServerId) -> [u64; Fault::ALL.len()] {
        self.faults[usize::from(id.0)].each_ref().map(|n| n.load(Ordering::Relaxed))
    }

    fn count(&self, id: ServerId, fault: Fault) {
        self.faults[usize::from(id.0)][fault as usize].fetch_add(1, Ordering::Relaxed);
    }
}

fn announce(change: Change, group: &Group) {
    let name = group.settings().name.clone();
    let server = |id: ServerId| group.server(id).settings.name.clone();
    let now = clock::now();
    let last_answer = |id: ServerId| group.server(id).answered_at().map(|at| now.since(at));
    event::report(match change {
        Change::Silent(id) => {
            Event::ServerSilent { group: name, server: server(id), last_answer_ago: last_answer(id) }
        }
        Change::Spoke(id) => Event::ServerSpoke { group: name, server: server(id) },
        Change::Down(id, by) => Event::ServerDown {
            group: name,
            server: server(id),
            reason: by.word().to_owned(),
            last_answer_ago: last_answer(id),
        },
        Change::Up(id) => Event::ServerUp { group: name, server: server(id), down_for: None },
        Change::Shift(shift) => {
            let left = group.servers().iter().filter(|s| s.tier == shift.from).filter_map(|s| s.answered_at()).max();
            Event::TierShift {
                group: name,
                from: shift.from as u8 + 1,
                to: shift.to as u8 + 1,
                why: shift.why.word().to_owned(),
                last_answer_ago: left.map(|at| now.since(at)),
            }
        }
        Change::Dark => Event::GroupDark { group: name },
        Change::Healed => Event::GroupHealed { group: name },
        Change::Loops(id) => Event::ServerLoops { group: name, server: server(id) },
        Change::Suspect(id) => Event::ServerSuspect { group: name, server: server(id) },
        Change::SuspectNoMore(id) => Event::ServerSuspectNoMore { group: name, server: server(id) },
        Change::LoopsNoMore(id) => Event::ServerLoopsNoMore { group: name, server: server(id) },
        Change::FamilyBroken(v6) => Event::FamilyBroken { group: name, family: family(v6) },
        Change::FamilyWorks(v6) => Event::FamilyWorks { group: name, family: family(v6) },
    });
}

fn family(v6: bool) -> String {
    if v6 { "IPv6" } else { "IPv4" }.to_owned()
}

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

/// A pursuit under way, for its task.
struct Running {
    cell: Arc<Cell>,
    id: PursuitId,
    key: Key,
    question: Arc<OwnedQuestion>,
    nudge: Arc<Notify>,
}

/// What carries questions out.
pub struct Driver {
    cache: Arc<Cache>,
    tally: Tally,
    /// The cells in force, and those before them: a worker may still hand over what it judged by the policy before.
    cells: RwLock<[HashMap<GroupStamp, Arc<Cell>>; 2]>,
    in_flight_per_client: AtomicU32,
    /// When restored answers were offered last.
    offered_at: AtomicU64,
    clients: Mutex<HashMap<ClientKey, u32>>,
}

/// What the queue to the driver carries.
pub type HandedOver = (Box<Opening>, Option<Box<dyn ReplyTo>>);

impl Driver {
    /// A driver over `cache`. `tally` is one that many may write.
    pub fn new(cache: Arc<Cache>, tally: Tally) -> Self {
        Self {
            cache,
            tally,
            cells: RwLock::default(),
            in_flight_per_client: AtomicU32::new(IN_FLIGHT_PER_CLIENT.default as u32),
            offered_at: AtomicU64::new(0),
            clients: Mutex::default(),
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
        offered.into_iter().for_each(|id| cell.wake(id));
    }

    /// Takes open questions from the workers until the queue's other ends are gone.
    pub async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<HandedOver>) {
        while let Some((opening, reply_to)) = queue.recv().await {
            self.open(*opening, reply_to);
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
        let max_age = cell.with(|g| g.max_age(now));
        let request = Request {
            key: opening.key,
            question: question.clone(),
            client: opening.client_hash,
            stale: opening.stale,
            guarded: self.cache.look_protected(opening.key, &question.view(), (cell.stamp, max_age), now),
            ahead: opening.ahead,
            waiter: way.map(|way| Waiter {
                way,
                deadline: opening.received + cell.with(|g| g.settings().deadline),
                stale_at: opening.stale_at,
            }),
        };
        let nudge = Arc::new(Notify::new());
        // The task is listed before anyone else can name it: another question may make it yield at once.
        let opened = cell.with_desk(|desk| {
            let opened = desk.open(request, now);
            if let Opened::Started(id, _) = &opened {
                lock(&cell.tasks).insert(*id, nudge.clone());
            }
            opened
        });
        match opened {
            Opened::Joined(id) => cell.wake(id),
            Opened::Started(id, yielded) => {
                // A worker may have looked just before it was restored.
                let offered_at = Moment::from_nanos(self.offered_at.load(Ordering::Relaxed));
                if lacks_stale && now.since(offered_at) < OFFERED_OF_LATE {
                    self.offer(&cell, Some(id));
                }
                yielded.into_iter().for_each(|other| cell.wake(other));
                let running = Running { cell, id, key: opening.key, question, nudge };
                tokio::spawn(self.clone().pursue(Arc::new(running)));
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

    /// Drives one pursuit to its end.
    async fn pursue(self: Arc<Self>, running: Arc<Running>) {
        let mut asking: FuturesUnordered<Asking> = FuturesUnordered::new();
        let mut out = Vec::new();
        loop {
            let now = clock::now();
            let steps = running.cell.with_desk(|desk| desk.next(running.id, &mut rand::random::<f64>, now));
            let mut wake = None;
            for step in steps {
                match step {
                    Step::Ask(ask) => asking.push(Self::ask(&running, ask)),
                    Step::Reply(ways, answer) => {
                        ways.into_iter().for_each(|w| self.answer(w, &answer, &mut out, clock::now()));
                    }
                    Step::Keep(entry) => self.keep(&running, entry),
                    Step::Hold => self.hold(&running),
                    Step::Remember(failed) => self.remember(&running, failed),
                    Step::Tell(other) => running.cell.wake(other),
                    Step::Wait(at) => wake = Some(at),
                    Step::Done => {}
                }
            }
            let Some(wake) = wake else { break };
            tokio::select! {
                Some((attempt, server, verdict)) = asking.next(), if !asking.is_empty() => {
                    if let Verdict::Fault(fault) = &verdict {
                        running.cell.count(server, *fault);
                    }
                    running.cell.with_desk(|desk| desk.on_verdict(running.id, attempt, verdict, clock::now()));
                }
                () = running.nudge.notified() => {}
                () = tokio::time::sleep(clock::now().until(wake)) => {}
            }
        }
        lock(&running.cell.tasks).remove(&running.id);
    }

    fn ask(running: &Arc<Running>, ask: Ask) -> Asking {
        let running = running.clone();
        Box::pin(async move {
            let verdict = ask_once(&running.cell, &running.question.view(), ask).await;
            (ask.attempt, ask.server, verdict)
        })
    }

    fn keep(&self, running: &Running, entry: Arc<Entry>) {
        let now = clock::now();
        let max_age = running.cell.with(|g| g.max_age(now));
        self.cache.keep(running.key, &running.question.view(), entry, max_age, now);
        self.tell_of_guards();
    }

    fn hold(&self, running: &Running) {
        self.cache.guards().hold(running.key, &running.question.view(), clock::now());
        self.tell_of_guards();
    }

    /// Reports what has happened to guarded names.
    pub fn tell_of_guards(&self) {
        for change in self.cache.guards().take_changes() {
            event::report(Event::Guard(change));
        }
    }

    fn remember(&self, running: &Running, failed: Failed) {
        let (stamp, healings) = (running.cell.stamp, running.cell.outlook.healings());
        let question = running.question.view();
        self.cache.remember(running.key, &question, (failed.ede, failed.kept_edes), (stamp, healings), clock::now());
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
        self.tally.answered(way.client.transport, source, rcode, now.since(way.received));
        self.give_slot(way.slot);
        way.reply_to.send(&out[..n]);
    }
}

#[derive(PartialEq)]
enum Slot {
    Unbound,
    Taken(ClientKey),
    Full,
}

type Asking = Pin<Box<dyn Future<Output = (AttemptId, ServerId, Verdict)> + Send>>;

/// Asks one server once and has its reply vetted.
async fn ask_once(cell: &Cell, question: &Question<'_>, ask: Ask) -> Verdict {
    let (protocol, trust_ad, ttl) = cell.with(|g| {
        let s = &g.server(ask.server).settings;
        (if ask.over_tcp { Protocol::Tcp } else { s.protocol }, s.trust_ad, g.settings().ttl)
    });
    let asked = Asked {
        name: question.name.into(),
        qtype: question.qtype,
        packet: build::question(question.name, question.qtype, question.dnssec_ok, question.cd, ask.with_edns),
    };
    let deadline = Instant::now() + clock::now().until(ask.until);
    match cell.endpoint(ask.server).ask(protocol, &asked, deadline).await {
        Ok(received) => {
            let terms =
                Terms { over_tcp: received.over_tcp, with_edns: ask.with_edns, trust_ad, ttl, wall: clock::wall() };
            vet::vet(&received.bytes, question, terms, clock::now())
        }
        Err(failure) => unanswered(failure, ask.with_edns),
    }
}

/// What the transport's failure means to a pursuit.
pub fn unanswered(failure: Unanswered, with_edns: bool) -> Verdict {
    Verdict::Fault(match failure {
        Unanswered::Refused => Fault::PortClosed,
        Unanswered::Unreachable => Fault::Unreachable,
        Unanswered::TimedOut => Fault::TimedOut,
        Unanswered::Mismatched => Fault::Mismatched,
        Unanswered::HeaderOnly(rcode::FORMERR | rcode::NOTIMP) if with_edns => return Verdict::NoEdns,
        Unanswered::HeaderOnly(rcode::SERVFAIL) => Fault::ServFail,
        Unanswered::HeaderOnly(_) => Fault::Refused,
        Unanswered::Closed => Fault::Closed,
        Unanswered::Local => Fault::Local,
    })
}

/// A group's cell under new settings, with what the old one learned where a server of it stays.
pub fn adopt(settings: GroupSettings, old: Option<&Cell>, fresh_stamp: GroupStamp, now: Moment) -> Cell {
    match old {
        None => Cell::new(fresh_stamp, Group::new(settings, now)),
        Some(old) => {
            let (group, any) = Group::adopt(settings, lock(&old.desk).group_mut(), now);
            Cell::new(if any { old.stamp } else { fresh_stamp }, group)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
