//! The node: what `driver.rs`, `transport` and `upkeep/probe.rs` do, without sockets and tasks.
//!
//! Pure. Nothing is decided here. A packet goes to the [`Door`]; an open question to its group's [`Desk`]; its steps
//! are carried out as the driver carries them out; what comes back is identified and vetted by the code that does so
//! in the program, and what happened is counted as it counts. The front cache is left out, and the store has no bound:
//! the scenario's questions have one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::measure::{self, Got, Using};
use super::names::Truth;
use super::servers::{self, Delivery};
use super::stage::Stage;
use super::world::{Event, World};
use crate::cache::entry::{Data, Entry, GroupStamp};
use crate::cache::freshness::StaleSettings;
use crate::cache::key::{Key, Keys, OwnedQuestion};
use crate::cache::{Cache, store::MapStore};
use crate::clock::{Moment, WallTime};
use crate::driver::unanswered;
use crate::observe::metrics::{Meters, Source, Tally};
use crate::observe::process::Process;
use crate::observe::standing::Faults;
use crate::observe::status::{CacheStatus, ConfigStatus, GroupStatus, GuardStatus, Snapshot};
use crate::resolve::desk::{Desk, Opened, PursuitId, Request};
use crate::resolve::pursuit::{Answer, Ask, Step, Waiter};
use crate::resolve::vet::{self, Terms, Verdict};
use crate::serve::admit::{Admit, ClientKey, OwnNetworks};
use crate::serve::local::Local;
use crate::serve::reply::{self, Manner};
use crate::serve::route::Routes;
use crate::serve::{Client, Door, GroupPolicy, Opening, Outcome, Policy, Transport};
use crate::transport::Failure as Unanswered;
use crate::upkeep::probe;
use crate::upstream::bulkhead::Bound;
use crate::upstream::group::{AskKind, Change};
use crate::upstream::health::Probe;
use crate::upstream::probing::Probing;
use crate::upstream::{Group, Outlook, Protocol, ServerId};
use crate::wire::edns::code;
use crate::wire::query::OwnedQuery;
use crate::wire::reply::{Identity, identify};
use crate::wire::{Name, rcode, rtype};

/// How often the prober weighs its group, as in `upkeep/probe.rs`.
const TURN: Duration = Duration::from_millis(200);

/// One question on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(u64);

/// Whose question it is.
#[derive(Clone, Debug)]
enum Purpose {
    Attempt { id: PursuitId, ask: Ask },
    Probe { probing: Probing, begun: Moment },
    Loop,
}

#[derive(Debug)]
struct Socket {
    group: usize,
    purpose: Purpose,
    server: ServerId,
    name: Box<[u8]>,
    qtype: u16,
    id: u16,
    over_tcp: bool,
    with_edns: bool,
}

/// The way to one waiting client.
#[derive(Debug)]
struct Way {
    index: usize,
    truth: Truth,
    query: OwnedQuery,
    client: Client,
    received: Moment,
    turn: u32,
    group: GroupStamp,
    stale: StaleSettings,
    slot: Option<ClientKey>,
}

#[derive(Debug)]
struct Task {
    key: Key,
    question: Arc<OwnedQuestion>,
    generation: u64,
    sockets: Vec<SocketId>,
}

/// A group with its pursuits and its prober.
struct Cell {
    stamp: GroupStamp,
    outlook: Arc<Outlook>,
    desk: Desk<Way>,
    tasks: HashMap<PursuitId, Task>,
    /// How attempts on each server ended.
    faults: Vec<Faults>,
    prober_turn: u64,
    prober_called: bool,
}

/// The process.
pub struct Node {
    cache: Arc<Cache>,
    door: Door,
    cells: Vec<Cell>,
    sockets: HashMap<SocketId, Socket>,
    slots: HashMap<ClientKey, u32>,
    meters: Meters,
    /// What is not answered at the door is counted here.
    tally: Tally,
    generations: u64,
    sent: u64,
    out: Vec<u8>,
}

impl Node {
    /// A node that knows nothing yet.
    pub fn new(stage: &Stage, now: Moment) -> Self {
        let mut cells = Vec::new();
        let mut groups = Vec::new();
        for (i, part) in stage.groups.iter().enumerate() {
            let group = Group::new(part.settings.clone(), now);
            let outlook = Arc::new(Outlook::default());
            outlook.publish(&group);
            let stamp = GroupStamp(i as u32 + 1);
            let stale = part.settings.stale;
            groups.push(GroupPolicy { name: part.settings.name.clone(), stamp, stale, outlook: outlook.clone() });
            let faults = vec![Faults::default(); group.servers().len()];
            let (desk, tasks) = (Desk::new(group, stamp), HashMap::new());
            cells.push(Cell { stamp, outlook, desk, tasks, faults, prober_turn: 0, prober_called: false });
        }
        let zones = stage.groups.iter().enumerate().flat_map(|(i, g)| g.settings.zones.iter().map(move |z| (z, i)));
        let hosts: Vec<String> = stage.local.hosts.iter().map(|_| String::new()).collect();
        let policy = Policy {
            admit: Admit::new(&stage.admit, &OwnNetworks::default()),
            local: Local::new(&stage.local, &hosts).0,
            routes: Routes::new(zones),
            groups,
            rotate: stage.rotate,
            refresh_ahead: stage.refresh_ahead,
        };
        let cache = Arc::new(Cache::new(Arc::new(MapStore::default()), Keys::new([7; 16])));
        cache.guards().set(&stage.guards);
        let meters = Meters::default();
        let door = Door::new(Arc::new(policy), cache.clone(), None, meters.own());
        let (sockets, slots, tally) = (HashMap::new(), HashMap::new(), meters.own());
        Self { cache, door, cells, sockets, slots, meters, tally, generations: 0, sent: 0, out: vec![0; 1232] }
    }

    /// What `/metrics` shows of it now.
    pub fn metrics(&self, now: Moment) -> String {
        let groups = self.cells.iter().map(|cell| {
            let group = cell.desk.group();
            GroupStatus::of(&group.settings().name, group, |id| cell.faults[usize::from(id.0)], (now, 0))
        });
        let (census, (names_held, held_total)) = (self.cache.census(), self.cache.guards().count(now));
        let snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            groups: groups.collect(),
            cache: CacheStatus { bytes: census.bytes, entries: census.entries, ..CacheStatus::default() },
            guard: GuardStatus { names_held, held_total, held: Vec::new() },
            config: ConfigStatus { last_reload_ok: true, ..ConfigStatus::default() },
            ..Snapshot::default()
        };
        self.meters.render_with(&snapshot, &Process::default())
    }

    /// Is this the timer that a pursuit set last?
    pub fn is_woken_by(&self, group: usize, id: PursuitId, generation: u64) -> bool {
        self.cells[group].tasks.get(&id).is_some_and(|t| t.generation == generation)
    }

    /// Is this the turn that a prober waits for?
    pub fn is_probers_turn(&self, group: usize, turn: u64) -> bool {
        self.cells[group].prober_turn == turn
    }

    fn group(&self, group: usize) -> &Group {
        self.cells[group].desk.group()
    }

    fn take_slot(&mut self, client: Option<ClientKey>, most: u32) -> Result<Option<ClientKey>, ()> {
        let Some(key) = client else { return Ok(None) };
        let held = self.slots.entry(key).or_default();
        if *held >= most {
            return Err(());
        }
        *held += 1;
        Ok(Some(key))
    }

    fn give_slot(&mut self, slot: Option<ClientKey>) {
        let Some(key) = slot else { return };
        if let Some(held) = self.slots.get_mut(&key) {
            *held -= 1;
            if *held == 0 {
                self.slots.remove(&key);
            }
        }
    }
}

impl World<'_> {
    //------------ A query comes in ----------------------------------------------------------------------------------

    /// A client's packet comes to the door.
    pub(super) fn take(&mut self, index: usize, address: IpAddr, packet: &[u8], truth: Truth) {
        let client = Client { address, transport: Transport::Udp };
        let mut out = std::mem::take(&mut self.node.out);
        match self.node.door.serve(packet, client, &mut out, self.now) {
            Outcome::Reply(n) => self.got(index, measure::judge(&out[..n], truth)),
            Outcome::ReplyAndOpen(n, opening) => {
                self.got(index, measure::judge(&out[..n], truth));
                self.open(*opening, None);
            }
            Outcome::Drop => self.got(index, Got::Nothing),
            Outcome::Open(opening) => self.open(*opening, Some((index, truth))),
        }
        self.node.out = out;
    }

    fn open(&mut self, opening: Opening, from: Option<(usize, Truth)>) {
        let now = self.now;
        let Some(group) = self.node.cells.iter().position(|c| c.stamp == opening.group) else { return };
        let mut waiter = None;
        if let Some((index, truth)) = from {
            let slot = self.node.take_slot(opening.bound, self.stage.admit.in_flight_per_client);
            let way = Way {
                index,
                truth,
                query: opening.query.clone(),
                client: opening.client,
                received: opening.received,
                turn: opening.turn,
                group: opening.group,
                stale: opening.stale_settings,
                slot: slot.unwrap_or(None),
            };
            if slot.is_err() {
                self.refuse(way, opening.stale, code::OTHER);
                self.with_desk(group, |desk| desk.group_mut().on_rejected(Bound::Client));
                return;
            }
            let deadline = opening.received + self.node.group(group).settings().deadline;
            waiter = Some(Waiter { way, deadline, stale_at: opening.stale_at });
        }
        let (key, question) = (opening.key, Arc::new(opening.question));
        let (client, stale) = (opening.client_hash, opening.stale);
        let of = (opening.group, self.node.group(group).max_age(now));
        let guarded = self.node.cache.look_protected(key, &question.view(), of, now);
        let ahead = opening.ahead;
        let request = Request { key, question: question.clone(), client, stale, guarded, ahead, waiter };
        match self.with_desk(group, |desk| desk.open(request, now)) {
            Opened::Joined(id) => self.pursue(group, id),
            Opened::Started(id, yielded) => {
                let task = Task { key, question, generation: 0, sockets: Vec::new() };
                self.node.cells[group].tasks.insert(id, task);
                yielded.into_iter().for_each(|other| self.pursue(group, other));
                self.pursue(group, id);
            }
            Opened::Refused(waiter, stale, ede) => {
                if let Some(waiter) = waiter {
                    self.refuse(waiter.way, stale, ede);
                }
            }
        }
    }

    fn refuse(&mut self, way: Way, stale: Option<Arc<Entry>>, ede: u16) {
        let answer = match stale {
            Some(entry) => Answer::Stale(entry),
            None => Answer::Failed { ede: Some(ede), kept_edes: [].into() },
        };
        self.answer(way, &answer);
    }

    /// Sends one waiter its answer.
    fn answer(&mut self, way: Way, answer: &Answer) {
        let now = self.now;
        let query = way.query.view();
        let limit = reply::limit(&query, way.client.transport);
        let mut out = vec![0; limit];
        let manner = Manner { limit, turn: way.turn };
        let failed = |ede: Option<u16>, kept: &[u8], out: &mut [u8]| {
            reply::error(query, rcode::SERVFAIL, ede.map(reply::ede), kept, out)
        };
        let (n, source) = match answer {
            Answer::Fresh(entry) | Answer::Stale(entry) if entry.data().is_none() => {
                (failed(Some(code::OTHER), &[], &mut out), Source::Failed)
            }
            Answer::Fresh(entry) => {
                (entry.data().map_or(0, |d| reply::fresh(&query, d, manner, now, &mut out)), Source::Upstream)
            }
            Answer::Stale(entry) => {
                let due = self.node.cache.due_before();
                let mut stale = |d: &Data| {
                    let standing = d.standing_in(way.group, way.stale.max_age, due, now);
                    let held = entry.held(now).is_some();
                    reply::stale(&query, (d, held), standing, &way.stale, manner, now, &mut out)
                };
                let (n, past) = entry.data().map(&mut stale).unwrap_or_default();
                self.node.tally.stale(past);
                (n, Source::Stale)
            }
            Answer::Failed { ede, kept_edes } => (failed(*ede, kept_edes, &mut out), Source::Failed),
            Answer::Truncated => (reply::truncated(query, &mut out), Source::Upstream),
        };
        self.node.tally.answered(way.client.transport, source, u16::from(out[3] & 15), now.since(way.received));
        self.node.give_slot(way.slot);
        self.got(way.index, measure::judge(&out[..n], way.truth));
    }

    //------------ A pursuit's steps ---------------------------------------------------------------------------------

    /// Calls the desk; what changed is published.
    fn with_desk<T>(&mut self, group: usize, f: impl FnOnce(&mut Desk<Way>) -> T) -> T {
        let cell = &mut self.node.cells[group];
        let result = f(&mut cell.desk);
        let learned = cell.desk.group_mut();
        cell.outlook.publish(learned);
        let changes = learned.take_changes();
        let calls = learned.wants_probes(self.now) && !cell.prober_called;
        if changes.contains(&Change::Dark) {
            self.wake_all(group);
        }
        if !changes.is_empty() {
            self.note_using(group);
        }
        if calls {
            let cell = &mut self.node.cells[group];
            cell.prober_called = true;
            cell.prober_turn += 1;
            let turn = cell.prober_turn;
            self.at(self.now, Event::Probes { group, turn });
        }
        result
    }

    /// Who waits with a stale answer at hand gets it now.
    fn wake_all(&mut self, group: usize) {
        let mut tasks: Vec<(PursuitId, u64)> =
            self.node.cells[group].tasks.iter().map(|(id, task)| (*id, task.generation)).collect();
        tasks.sort_unstable();
        for (id, generation) in tasks {
            self.at(self.now, Event::Wakes { group, id, generation });
        }
    }

    /// Notes how a group stands.
    pub(super) fn note_using(&mut self, group: usize) {
        let learned = self.node.group(group);
        let using = Using { at: self.since(), group, tier: learned.tier_in_use(), dark: learned.is_dark() };
        self.tape.on_using(using);
    }

    /// Carries out what a pursuit says.
    pub(super) fn pursue(&mut self, group: usize, id: PursuitId) {
        let now = self.now;
        let mut chance = self.chance.clone();
        let steps = self.with_desk(group, |desk| desk.next(id, &mut || chance.unit(), now));
        self.chance = chance;
        for step in steps {
            let cell = &self.node.cells[group];
            let Some(task) = cell.tasks.get(&id) else { return };
            let (key, question) = (task.key, task.question.clone());
            match step {
                Step::Ask(ask) => self.ask_server(group, id, ask, &question),
                Step::Reply(ways, answer) => ways.into_iter().for_each(|way| self.answer(way, &answer)),
                Step::Keep(entry) => {
                    let max_age = cell.desk.group().max_age(now);
                    self.node.cache.keep(key, &question.view(), entry, max_age, now);
                    // Nobody reads the log of a drill: what it would say is let go of.
                    self.node.cache.guards().take_changes();
                }
                Step::Hold => {
                    self.node.cache.guards().hold(key, &question.view(), now);
                    self.node.cache.guards().take_changes();
                }
                Step::Remember(failed) => {
                    let life = (cell.stamp, cell.outlook.healings());
                    self.node.cache.remember(key, &question.view(), (failed.ede, failed.kept_edes), life, now);
                }
                Step::Tell(other) => self.pursue(group, other),
                Step::Wait(at) => {
                    self.node.generations += 1;
                    let generation = self.node.generations;
                    if let Some(task) = self.node.cells[group].tasks.get_mut(&id) {
                        task.generation = generation;
                    }
                    self.at(at, Event::Wakes { group, id, generation });
                }
                Step::Done => {
                    let task = self.node.cells[group].tasks.remove(&id);
                    for socket in task.into_iter().flat_map(|t| t.sockets) {
                        self.node.sockets.remove(&socket);
                    }
                }
            }
        }
    }

    fn ask_server(&mut self, group: usize, id: PursuitId, ask: Ask, question: &OwnedQuestion) {
        let q = question.view();
        let protocol = self.node.group(group).server(ask.server).settings.protocol;
        let socket = Socket {
            group,
            purpose: Purpose::Attempt { id, ask },
            server: ask.server,
            name: q.name.into(),
            qtype: q.qtype,
            id: 0,
            over_tcp: ask.over_tcp || protocol == Protocol::Tcp,
            with_edns: ask.with_edns,
        };
        let socket = self.send(socket, ask.until);
        if let Some(task) = self.node.cells[group].tasks.get_mut(&id) {
            task.sockets.push(socket);
        }
    }

    //------------ Sockets -------------------------------------------------------------------------------------------

    fn send(&mut self, mut socket: Socket, until: Moment) -> SocketId {
        self.node.sent += 1;
        let key = SocketId(self.node.sent);
        let now = self.since();
        self.tape.on_sent(now);
        socket.id = self.luck.bits() as u16;
        let asked = servers::Question {
            group: socket.group,
            server: usize::from(socket.server.0),
            id: socket.id,
            name: &socket.name,
            qtype: socket.qtype,
            over_tcp: socket.over_tcp,
            with_edns: socket.with_edns,
        };
        let coming = self.network.send(self.scenario, asked, &mut self.luck, now);
        self.node.sockets.insert(key, socket);
        match coming {
            Some((after, what)) if self.now + after <= until => {
                self.at(self.now + after, Event::Arrives(key, what));
            }
            _ => self.at(until, Event::GivesUp(key)),
        }
        key
    }

    /// Something comes for a socket, which may be closed.
    pub(super) fn arrive(&mut self, key: SocketId, what: Delivery) {
        let Some(socket) = self.node.sockets.get(&key) else { return };
        let outcome = match what {
            Delivery::Packet(bytes) => match identify(&bytes, socket.id, &socket.name, socket.qtype) {
                Identity::Ours => Ok(bytes),
                Identity::HeaderOnly(rcode) => Err(Unanswered::HeaderOnly(rcode)),
                Identity::NotOurs => return,
            },
            Delivery::PortClosed => Err(Unanswered::Refused),
            Delivery::Unreachable => Err(Unanswered::Unreachable),
        };
        self.end(key, outcome);
    }

    /// A socket's deadline is over.
    pub(super) fn give_up(&mut self, key: SocketId) {
        self.end(key, Err(Unanswered::TimedOut));
    }

    fn end(&mut self, key: SocketId, outcome: Result<Vec<u8>, Unanswered>) {
        let Some(socket) = self.node.sockets.remove(&key) else { return };
        match socket.purpose.clone() {
            Purpose::Attempt { id, ask } => self.end_attempt(id, ask, &socket, outcome),
            Purpose::Probe { probing, begun } => self.end_probe(socket.group, &probing, begun, outcome),
            Purpose::Loop => {}
        }
    }

    fn end_attempt(&mut self, id: PursuitId, ask: Ask, socket: &Socket, outcome: Result<Vec<u8>, Unanswered>) {
        let (now, group) = (self.now, socket.group);
        let cell = &self.node.cells[group];
        let Some(task) = cell.tasks.get(&id) else { return };
        let verdict = match outcome {
            Ok(bytes) => {
                let learned = cell.desk.group();
                let terms = Terms {
                    over_tcp: socket.over_tcp,
                    with_edns: socket.with_edns,
                    trust_ad: learned.server(ask.server).settings.trust_ad,
                    ttl: learned.settings().ttl,
                    wall: WallTime(0),
                };
                vet::vet(&bytes, &task.question.view(), terms, now)
            }
            Err(failure) => unanswered(failure, ask.with_edns),
        };
        if let Verdict::Fault(fault) = &verdict {
            self.node.cells[group].faults[usize::from(ask.server.0)][*fault as usize] += 1;
        }
        self.with_desk(group, |desk| desk.on_verdict(id, ask.attempt, verdict, now));
        self.pursue(group, id);
    }

    //------------ Probes --------------------------------------------------------------------------------------------

    /// A prober's turn, as in `upkeep/probe.rs`.
    pub(super) fn prober(&mut self, group: usize) {
        let now = self.now;
        self.node.cells[group].prober_called = false;
        let mut chance = self.chance.clone();
        let (due, loops) = self.with_desk(group, |desk| {
            let learned = desk.group_mut();
            learned.weigh(now);
            (learned.probes_due(chance.unit(), now), learned.loop_probes_due(&mut || chance.bits(), now))
        });
        self.chance = chance;
        for probing in due {
            let (server, name, qtype) = (probing.server, probing.name.clone(), probing.qtype);
            self.send_probe(group, Purpose::Probe { probing, begun: now }, server, &name, qtype);
        }
        for (server, name) in loops {
            self.send_probe(group, Purpose::Loop, server, &name, rtype::NS);
        }
        let cell = &mut self.node.cells[group];
        cell.prober_turn += 1;
        let turn = cell.prober_turn;
        self.at(now + TURN, Event::Probes { group, turn });
    }

    fn send_probe(&mut self, group: usize, purpose: Purpose, server: ServerId, name: &Name, qtype: u16) {
        let now = self.now;
        let (timeout, with_edns, protocol) = self.with_desk(group, |desk| {
            let learned = desk.group_mut();
            learned.on_sent(server, AskKind::Probe, now);
            let settings = learned.settings();
            (settings.health.timeout, learned.takes_edns(server, now), learned.server(server).settings.protocol)
        });
        let over_tcp = protocol == Protocol::Tcp;
        let name = name.as_wire().into();
        self.send(Socket { group, purpose, server, name, qtype, id: 0, over_tcp, with_edns }, now + timeout);
    }

    fn end_probe(&mut self, group: usize, probing: &Probing, begun: Moment, outcome: Result<Vec<u8>, Unanswered>) {
        let now = self.now;
        let probe = match outcome {
            Ok(bytes) => probe::judge(&bytes),
            Err(Unanswered::HeaderOnly(_)) => Probe::Inconclusive,
            Err(Unanswered::Local) => return,
            Err(_) => Probe::Failed,
        };
        let server = probing.server;
        self.with_desk(group, |desk| {
            let learned = desk.group_mut();
            match probing.is_copy {
                true if probe == Probe::Inconclusive => {
                    learned.on_packet(server, now);
                    learned.on_copy(server, None, now);
                }
                true => learned.on_copy(server, (probe == Probe::Passed).then(|| now.since(begun)), now),
                false => learned.on_probe(server, probe, begun, now),
            }
        });
    }
}
