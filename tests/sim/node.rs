//! The node: what `src/driver.rs`, `src/transport` and `src/upkeep/probe.rs` do, without sockets and tasks.
//!
//! Nothing is decided here. A packet goes to the [`Door`]; an open question to the [`Desk`]; its steps are carried out
//! as the driver carries them out; what comes back is identified and vetted by the code that does so in the program.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::cache::entry::{Data, Entry, GroupStamp};
use evenkeel::cache::freshness::StaleSettings;
use evenkeel::cache::key::{Key, Keys, OwnedQuestion};
use evenkeel::cache::snapshot::read::{Check, Records};
use evenkeel::cache::snapshot::write::{Times, Writer};
use evenkeel::cache::snapshot::{GroupRecord, Record, Since, Vetted};
use evenkeel::cache::{Cache, store::MapStore};
use evenkeel::clock::{Moment, WallTime};
use evenkeel::driver::unanswered;
use evenkeel::limits::{MISMATCHES_MAX, STALE_AGE_MAX};
use evenkeel::observe::metrics::Meters;
use evenkeel::resolve::desk::{Desk, Opened, PursuitId, Request};
use evenkeel::resolve::pursuit::{Answer, Ask, AttemptId, Step, Waiter};
use evenkeel::resolve::vet::{self, Terms, Verdict};
use evenkeel::serve::admit::{Admit, AdmitSettings, Allowed, ClientKey, OwnNetworks};
use evenkeel::serve::local::{Local, LocalSettings};
use evenkeel::serve::reply::{self, Manner};
use evenkeel::serve::route::Routes;
use evenkeel::serve::{Client, Door, GroupPolicy, Opening, Outcome, Policy, Transport};
use evenkeel::transport::Failure as Unanswered;
use evenkeel::upkeep::snapshot::Home;
use evenkeel::upkeep::{probe, snapshot};
use evenkeel::upstream::bulkhead::Bound;
use evenkeel::upstream::group::{AskKind, Change};
use evenkeel::upstream::health::Probe;
use evenkeel::upstream::probing::Probing;
use evenkeel::upstream::{Group, Outlook, Protocol, ServerId};
use evenkeel::wire::edns::code;
use evenkeel::wire::query::OwnedQuery;
use evenkeel::wire::reply::{Identity, identify};
use evenkeel::wire::{Name, build, rcode, rtype};

use crate::faults::Faults;
use crate::message::Question;
use crate::names;
use crate::rules::Asked;
use crate::servers::Delivery;
use crate::world::{Event, World};

pub const STAMP: GroupStamp = GroupStamp(1);
/// How often the prober weighs the group, as in `src/upkeep/probe.rs`.
const TURN: Duration = Duration::from_millis(200);

/// One question on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketId(pub u64);

/// Whose question it is.
#[derive(Clone, Debug)]
enum Purpose {
    Attempt { id: PursuitId, ask: Ask },
    Probe { probing: Probing, begun: Moment },
    Loop,
}

#[derive(Debug)]
struct Socket {
    purpose: Purpose,
    server: usize,
    name: Vec<u8>,
    qtype: u16,
    id: u16,
    over_tcp: bool,
    with_edns: bool,
    mismatches: u32,
}

/// The way to one waiting client.
#[derive(Debug)]
pub struct Way {
    number: u64,
    query: OwnedQuery,
    client: Client,
    turn: u32,
    group: GroupStamp,
    stale: StaleSettings,
    slot: Option<ClientKey>,
    /// A server that forwards to us waits: its socket.
    loop_of: Option<SocketId>,
}

#[derive(Debug)]
struct Task {
    key: Key,
    question: Arc<OwnedQuestion>,
    generation: u64,
}

/// One life of the process.
pub struct Node {
    pub life: u32,
    pub cache: Arc<Cache>,
    pub desk: Desk<Way>,
    pub outlook: Arc<Outlook>,
    pub prober_turn: u64,
    door: Door,
    tasks: BTreeMap<PursuitId, Task>,
    sockets: BTreeMap<SocketId, Socket>,
    slots: HashMap<ClientKey, u32>,
    generations: u64,
    prober_called: bool,
}

impl Node {
    pub fn new(faults: &Faults, life: u32, now: Moment) -> Self {
        let group = Group::new(faults.settings.clone(), now);
        let outlook = Arc::new(Outlook::default());
        outlook.publish(&group);
        let admit = AdmitSettings {
            allow: vec![Allowed::Private],
            client_prefix: (32, 56),
            queries_per_second: 0,
            in_flight_per_client: faults.in_flight_per_client,
        };
        let local = LocalSettings {
            identity: None,
            private_reverse_nxdomain: false,
            records: vec![],
            zones: vec![],
            hosts: vec![],
        };
        let policy = Policy {
            admit: Admit::new(&admit, &OwnNetworks::default()),
            local: Local::new(&local, &[]).0,
            routes: Routes::new([(&Name::root(), 0)]),
            groups: vec![GroupPolicy {
                name: "default".into(),
                stamp: STAMP,
                stale: group.settings().stale,
                outlook: outlook.clone(),
            }],
            rotate: true,
            refresh_ahead: true,
        };
        let cache = Arc::new(Cache::new(Arc::new(MapStore::default()), Keys::new([7; 16])));
        cache.guards().set(&faults.guards());
        let door = Door::new(Arc::new(policy), cache.clone(), None, Meters::default().own());
        Self {
            life,
            cache,
            desk: Desk::new(group, STAMP),
            outlook,
            prober_turn: 0,
            door,
            tasks: BTreeMap::new(),
            sockets: BTreeMap::new(),
            slots: HashMap::new(),
            generations: 0,
            prober_called: false,
        }
    }

    pub fn group(&self) -> &Group {
        self.desk.group()
    }

    pub fn is_woken_by(&self, id: PursuitId, generation: u64) -> bool {
        self.tasks.get(&id).is_some_and(|t| t.generation == generation)
    }

    /// Tasks of pursuits, and slots of clients, that are left.
    pub fn left(&self) -> (usize, usize) {
        (self.tasks.len(), self.slots.len())
    }

    //------------ A snapshot of the cache, as `src/upkeep/snapshot.rs` writes and reads it --------------------------

    fn home(&self, now: Moment) -> Home {
        let group = GroupRecord { stamp: STAMP, name: "default".into(), servers: vec!["one".into()] };
        let settings = self.group().settings();
        Home { group, ttl: settings.ttl, max_age: self.group().max_age(now), trust_ad: vec![false; 3] }
    }

    /// The file.
    pub fn snapshot(&self, now: Moment) -> Vec<u8> {
        let max_age = self.group().max_age(now);
        let times = Times { now, wall_ms: millis(now), due_before: self.cache.due_before(), max_age };
        let mut writer = Writer::new([7; 16], times);
        writer.group(&self.home(now).group);
        self.cache.guards().all().iter().for_each(|known| writer.guarded(known));
        self.cache.for_each(&mut |entry| {
            writer.entry(entry);
        });
        writer.finish()
    }

    /// Reads a file. Gives how many answers are there again.
    pub fn read_snapshot(&mut self, file: &[u8], now: Moment) -> usize {
        let mut check = Check::new(file.len() as u64, [7; 16]);
        check.feed(file).expect("a snapshot is whole");
        let head = check.finish().expect("a snapshot is whole");
        let (home, since) = (self.home(now), Since::new(head.written_at, millis(now), now));
        let mut count = 0;
        Records::new(&head, file.len() as u64).feed(file, |record| {
            let answer = match &record {
                Record::Guarded(guarded) => &guarded.entry,
                Record::Entry(entry) => entry,
                _ => return,
            };
            let mut room = [0; 255];
            let question = answer.question(&mut room).expect("a question of our own");
            let key = self.cache.key(&question);
            let vetted =
                snapshot::vetted(answer, &question, (&home, STAMP), WallTime(0), now).expect("our own answer");
            match record {
                Record::Guarded(guarded) => {
                    let vetted = Vetted { max_age: STALE_AGE_MAX.max, ..vetted };
                    if let Ok(known) = guarded.restored(&question, vetted, since) {
                        self.cache.restore_guarded(key, &question, known, home.max_age, now);
                    }
                }
                _ => {
                    if let Ok(entry) = answer.restored(&question, vetted, since) {
                        count += usize::from(self.cache.restore(key, &question, Arc::new(entry)));
                    }
                }
            }
        });
        count
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
        let held = self.slots.get_mut(&key).expect("a slot that was taken");
        *held -= 1;
        if *held == 0 {
            self.slots.remove(&key);
        }
    }
}

fn millis(now: Moment) -> u64 {
    now.as_nanos() / 1_000_000
}

fn address(client: usize) -> IpAddr {
    if client == 0 { Ipv4Addr::LOCALHOST.into() } else { Ipv4Addr::new(10, 0, 0, client as u8).into() }
}

impl World {
    //------------ A query comes in ----------------------------------------------------------------------------------

    /// A client's question comes to the door.
    pub fn take(&mut self, number: u64, client: usize, over_tcp: bool, question: Question) -> u64 {
        let group = self.node.group();
        let asked = Asked {
            number,
            client,
            at: self.now,
            deadline: self.now + group.settings().deadline,
            belief: group.belief(),
            patience: group.patience(),
            failed_of_late: false,
            over_tcp,
            question: question.clone(),
        };
        let shown = names::text(&question.name);
        self.note(format_args!("client {client} asks {number}: {shown} {}", question.qtype));
        self.rules.on_asked(asked, &self.node);
        let transport = if over_tcp { Transport::Tcp } else { Transport::Udp };
        let client = Client { address: address(client), transport };
        self.serve(number, client, &question.to_bytes(), None);
        number
    }

    fn serve(&mut self, number: u64, client: Client, packet: &[u8], loop_of: Option<SocketId>) {
        let mut out = vec![0; if client.transport == Transport::Tcp { 65_535 } else { 1232 }];
        match self.node.door.serve(packet, client, &mut out, self.now) {
            Outcome::Reply(n) => self.reply(number, loop_of, &out[..n]),
            Outcome::ReplyAndOpen(n, opening) => {
                self.reply(number, loop_of, &out[..n]);
                self.open(*opening, None);
            }
            Outcome::Drop => self.rules.fail(format!("question {number} was dropped")),
            Outcome::Open(opening) => self.open(*opening, Some((number, loop_of))),
        }
    }

    fn open(&mut self, opening: Opening, from: Option<(u64, Option<SocketId>)>) {
        let now = self.now;
        let mut waiter = None;
        if let Some((number, loop_of)) = from {
            let slot = self.node.take_slot(opening.bound, self.faults.in_flight_per_client);
            let way = Way {
                number,
                query: opening.query.clone(),
                client: opening.client,
                turn: opening.turn,
                group: opening.group,
                stale: opening.stale_settings,
                slot: slot.unwrap_or(None),
                loop_of,
            };
            if slot.is_err() {
                self.rules.on_trouble(opening.key, now);
                self.refuse(way, opening.stale, code::OTHER);
                self.with_desk(|desk| desk.group_mut().on_rejected(Bound::Client));
                return;
            }
            let deadline = opening.received + self.node.group().settings().deadline;
            waiter = Some(Waiter { way, deadline, stale_at: opening.stale_at });
        }
        let question = Arc::new(opening.question);
        let max_age = self.node.group().max_age(now);
        let request = Request {
            key: opening.key,
            question: question.clone(),
            client: opening.client_hash,
            stale: opening.stale,
            guarded: self.node.cache.look_protected(opening.key, &question.view(), (STAMP, max_age), now),
            ahead: opening.ahead,
            waiter,
        };
        let was_down = self.node.group().is_spared(false);
        if opening.ahead {
            self.note(format_args!("asks ahead"));
            self.rules.on_ahead(opening.key, self.node.group().belief(), now);
        }
        match self.with_desk(|desk| desk.open(request, now)) {
            Opened::Joined(id) => {
                self.note(format_args!("joins pursuit {}", id.0));
                self.pursue(id);
            }
            Opened::Started(id, yielded) => {
                self.node.tasks.insert(id, Task { key: opening.key, question, generation: 0 });
                let how = (was_down, opening.ahead);
                self.rules.on_started(id, opening.key, self.node.group().servers().len(), how, now);
                if let Some(other) = yielded {
                    if let Some(task) = self.node.tasks.get(&other) {
                        self.rules.on_trouble(task.key, now);
                    }
                    self.pursue(other);
                }
                self.pursue(id);
            }
            Opened::Refused(waiter, stale, ede) => {
                self.note(format_args!("refused with {ede}"));
                self.rules.on_trouble(opening.key, now);
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

    //------------ A pursuit's steps ---------------------------------------------------------------------------------

    /// Who waits with a stale answer at hand gets it now.
    fn wake_all(&mut self) {
        let life = self.node.life;
        let tasks: Vec<_> = self.node.tasks.iter().map(|(id, task)| (*id, task.generation)).collect();
        for (id, generation) in tasks {
            self.at(self.now, Event::Wakes { life, id, generation });
        }
    }

    /// Calls the desk; what changed is published and logged.
    pub fn with_desk<T>(&mut self, f: impl FnOnce(&mut Desk<Way>) -> T) -> T {
        let result = f(&mut self.node.desk);
        let told = self.node.cache.guards().take_changes();
        for change in told {
            self.note(format_args!("guard: {change:?}"));
            self.rules.on_guard(&change);
        }
        let group = self.node.desk.group_mut();
        self.node.outlook.publish(group);
        let changes = group.take_changes();
        let wants_probes = group.wants_probes(self.now);
        for change in changes {
            let belief = self.node.group().belief().word();
            self.note(format_args!("change: {change:?} ({belief})"));
            self.changes.push((self.now, change));
            if change == Change::Dark {
                self.wake_all();
            }
            self.rules.on_change(change, &self.faults, &self.node, self.now);
        }
        if wants_probes && !self.node.prober_called {
            self.node.prober_called = true;
            self.node.prober_turn += 1;
            let (life, turn) = (self.node.life, self.node.prober_turn);
            self.at(self.now, Event::Probes { life, turn });
        }
        result
    }

    /// Carries out what a pursuit says.
    pub fn pursue(&mut self, id: PursuitId) {
        let now = self.now;
        let was_down = self.node.group().is_spared(false);
        let mut chance = self.chance.clone();
        let steps = self.with_desk(|desk| desk.next(id, &mut || chance.unit(), now));
        self.chance = chance;
        for step in steps {
            let Some(task) = self.node.tasks.get(&id) else { return };
            let (key, question) = (task.key, task.question.clone());
            match step {
                Step::Ask(ask) => self.ask_server(id, ask, &question, was_down),
                Step::Reply(ways, answer) => {
                    if self.rules.may_fail_silently(id) {
                        self.rules.on_trouble(key, now);
                    }
                    ways.into_iter().for_each(|way| self.answer(way, &answer));
                }
                Step::Keep(entry) => {
                    let max_age = self.node.group().max_age(now);
                    let kept = self.node.cache.keep(key, &question.view(), entry.clone(), max_age, now);
                    self.rules.on_keep(key, &entry, kept, self.node.cache.is_frozen(now), now);
                }
                Step::Hold => {
                    self.rules.on_trouble(key, now);
                    self.node.cache.guards().hold(key, &question.view(), now);
                }
                Step::Remember(failed) => {
                    self.note(format_args!("pursuit {} failed: {:?}", id.0, failed.ede));
                    self.rules.on_trouble(key, now);
                    let healings = self.node.outlook.healings();
                    let what = (failed.ede, failed.kept_edes);
                    self.node.cache.remember(key, &question.view(), what, (STAMP, healings), now);
                }
                Step::Tell(other) => self.pursue(other),
                Step::Wait(at) => {
                    if at <= now {
                        self.rules.fail(format!("pursuit {} waits for what is past", id.0));
                    }
                    self.node.generations += 1;
                    let generation = self.node.generations;
                    if let Some(task) = self.node.tasks.get_mut(&id) {
                        task.generation = generation;
                    }
                    self.at(at, Event::Wakes { life: self.node.life, id, generation });
                }
                Step::Done => {
                    self.node.tasks.remove(&id);
                    self.node
                        .sockets
                        .retain(|_, s| !matches!(&s.purpose, Purpose::Attempt { id: of, .. } if *of == id));
                    self.rules.on_done(id);
                }
            }
        }
    }

    fn ask_server(&mut self, id: PursuitId, ask: Ask, question: &OwnedQuestion, was_down: bool) {
        let q = question.view();
        let server = usize::from(ask.server.0);
        let protocol = self.node.group().server(ask.server).settings.protocol;
        let over_tcp = ask.over_tcp || protocol == Protocol::Tcp;
        let way = if over_tcp { " over TCP" } else { "" };
        let shown = names::text(q.name);
        self.note(format_args!("pursuit {} asks server {server}{way}: {} {shown}", id.0, ask.kind.word()));
        self.rules.on_ask(id, &ask, &self.faults, was_down, self.now);
        let packet = build::question(q.name, q.qtype, q.dnssec_ok, q.cd, ask.with_edns);
        let socket = Socket {
            purpose: Purpose::Attempt { id, ask },
            server,
            name: q.name.to_vec(),
            qtype: q.qtype,
            id: 0,
            over_tcp,
            with_edns: ask.with_edns,
            mismatches: 0,
        };
        self.send(socket, packet, ask.until);
    }

    /// Sends one waiter its answer, as the driver does.
    fn answer(&mut self, way: Way, answer: &Answer) {
        let now = self.now;
        let query = way.query.view();
        let limit = reply::limit(&query, way.client.transport);
        let mut out = vec![0; limit];
        let manner = Manner { limit, turn: way.turn };
        let failed = |ede: Option<u16>, kept: &[u8], out: &mut [u8]| {
            reply::error(query, rcode::SERVFAIL, ede.map(reply::ede), kept, out)
        };
        let n = match answer {
            Answer::Fresh(entry) | Answer::Stale(entry) if entry.data().is_none() => {
                failed(Some(code::OTHER), &[], &mut out)
            }
            Answer::Fresh(entry) => entry.data().map_or(0, |d| reply::fresh(&query, d, manner, now, &mut out)),
            Answer::Stale(entry) => {
                let due = self.node.cache.due_before();
                let mut stale = |d: &Data| {
                    let standing = d.standing_in(way.group, way.stale.max_age, due, now);
                    reply::stale(&query, (d, entry.held(now).is_some()), standing, &way.stale, manner, now, &mut out)
                        .0
                };
                entry.data().map_or(0, &mut stale)
            }
            Answer::Failed { ede, kept_edes } => failed(*ede, kept_edes, &mut out),
            Answer::Truncated if way.client.transport == Transport::Udp => reply::truncated(query, &mut out),
            Answer::Truncated => failed(Some(code::INVALID_DATA), &[], &mut out),
        };
        self.node.give_slot(way.slot);
        self.reply(way.number, way.loop_of, &out[..n]);
    }

    /// Bytes go out to a client, or to a server that forwarded to us.
    fn reply(&mut self, number: u64, loop_of: Option<SocketId>, bytes: &[u8]) {
        if let Some(socket) = loop_of {
            self.at(self.now, Event::Arrives { socket, what: Delivery::Packet(bytes.to_vec()) });
            return;
        }
        let (what, after) = self.rules.on_reply(number, bytes, &self.network, &self.node, self.now);
        match what.as_str() {
            "stale" => self.totals.stale += 1,
            "SERVFAIL" => self.totals.failed += 1,
            _ => {}
        }
        self.note(format_args!("reply {number}: {what} after {} us", after.as_micros()));
        self.got.insert(number, crate::world::Got { after, what });
    }

    //------------ Sockets -------------------------------------------------------------------------------------------

    fn send(&mut self, mut socket: Socket, mut packet: Vec<u8>, until: Moment) {
        self.totals.upstream += 1;
        let id = SocketId(self.totals.upstream);
        socket.id = self.chance.next() as u16;
        packet[..2].copy_from_slice(&socket.id.to_be_bytes());
        let (server, over_tcp) = (socket.server, socket.over_tcp);
        let coming = self.network.send(&self.faults, server, &packet, over_tcp, &mut self.chance, self.now);
        self.node.sockets.insert(id, socket);
        for (after, what) in coming {
            self.at(self.now + after, Event::Arrives { socket: id, what });
        }
        self.at(until, Event::GivesUp(id));
    }

    /// Something comes for a socket, which may be closed.
    pub fn arrive(&mut self, id: SocketId, what: Delivery) {
        if let Delivery::AsksUs(packet) = what {
            // A server that forwards to us does so whoever waits.
            let client = Client { address: Ipv4Addr::new(10, 0, 0, 99).into(), transport: Transport::Udp };
            self.note(format_args!("a question comes back"));
            self.serve(0, client, &packet, Some(id));
            return;
        }
        let Some(socket) = self.node.sockets.get_mut(&id) else { return };
        let outcome = match what {
            Delivery::Packet(bytes) => match identify(&bytes, socket.id, &socket.name, socket.qtype) {
                Identity::Ours => Ok(bytes),
                Identity::HeaderOnly(rcode) => Err(Unanswered::HeaderOnly(rcode)),
                Identity::NotOurs => {
                    socket.mismatches += 1;
                    if socket.mismatches < MISMATCHES_MAX {
                        return;
                    }
                    Err(Unanswered::Mismatched)
                }
            },
            Delivery::Refused => Err(Unanswered::Refused),
            Delivery::Unreachable => Err(Unanswered::Unreachable),
            Delivery::Closed => Err(Unanswered::Closed),
            Delivery::AsksUs(_) => return,
        };
        self.end(id, outcome);
    }

    /// A socket's deadline is over.
    pub fn give_up(&mut self, id: SocketId) {
        if self.node.sockets.contains_key(&id) {
            self.end(id, Err(Unanswered::TimedOut));
        }
    }

    fn end(&mut self, id: SocketId, outcome: Result<Vec<u8>, Unanswered>) {
        let Some(socket) = self.node.sockets.remove(&id) else { return };
        match socket.purpose.clone() {
            Purpose::Attempt { id, ask } => self.end_attempt(id, ask, &socket, outcome),
            Purpose::Probe { probing, begun } => self.end_probe(&probing, begun, outcome),
            Purpose::Loop => {}
        }
    }

    fn end_attempt(&mut self, id: PursuitId, ask: Ask, socket: &Socket, outcome: Result<Vec<u8>, Unanswered>) {
        let now = self.now;
        let Some(task) = self.node.tasks.get(&id) else { return };
        let (key, question) = (task.key, task.question.clone());
        let verdict = match outcome {
            Ok(bytes) => {
                let settings = self.node.group().settings();
                let terms = Terms {
                    over_tcp: socket.over_tcp,
                    with_edns: socket.with_edns,
                    trust_ad: false,
                    ttl: settings.ttl,
                    wall: WallTime(0),
                };
                let verdict = vet::vet(&bytes, &question.view(), terms, now);
                if let Verdict::Answer { storable, .. } = &verdict {
                    self.rules.on_answer(id, &ask, &bytes, *storable, &mut self.network, now);
                }
                verdict
            }
            Err(failure) => unanswered(failure, socket.with_edns),
        };
        let shown = match &verdict {
            Verdict::Answer { packed, .. } => format!("{:?}", packed.kind),
            Verdict::Fault(fault) => fault.word().to_owned(),
            Verdict::Truncated => "truncated".into(),
            Verdict::NoEdns => "no EDNS".into(),
            Verdict::Broken(_) => "broken".into(),
        };
        if matches!(verdict, Verdict::Truncated) {
            self.rules.on_truncated(id);
        }
        if !matches!(verdict, Verdict::Answer { .. }) {
            self.rules.on_trouble(key, now);
        }
        let copy = if ask.kind == AskKind::Probe { ", a copy" } else { "" };
        self.note(format_args!("pursuit {} from server {}{copy}: {shown}", id.0, socket.server));
        let attempt: AttemptId = ask.attempt;
        self.with_desk(|desk| desk.on_verdict(id, attempt, verdict, now));
        self.pursue(id);
    }

    //------------ Probes --------------------------------------------------------------------------------------------

    /// The prober's turn, as in `src/upkeep/probe.rs`.
    pub fn prober(&mut self) {
        let now = self.now;
        self.node.prober_called = false;
        let mut chance = self.chance.clone();
        let (due, loops) = self.with_desk(|desk| {
            let group = desk.group_mut();
            group.weigh(now);
            (group.probes_due(chance.unit(), now), group.loop_probes_due(&mut || chance.next(), now))
        });
        self.chance = chance;
        for probing in due {
            let (server, name, qtype) = (probing.server, probing.name.clone(), probing.qtype);
            self.send_probe(Purpose::Probe { probing, begun: now }, server, &name, qtype);
        }
        for (server, name) in loops {
            self.send_probe(Purpose::Loop, server, &name, rtype::A);
        }
        self.node.prober_turn += 1;
        let (life, turn) = (self.node.life, self.node.prober_turn);
        self.at(now + TURN, Event::Probes { life, turn });
    }

    fn send_probe(&mut self, purpose: Purpose, server: ServerId, name: &Name, qtype: u16) {
        let now = self.now;
        let (timeout, with_edns, protocol) = self.with_desk(|desk| {
            let group = desk.group_mut();
            group.on_sent(server, AskKind::Probe, now);
            let settings = group.settings();
            (settings.health.timeout, group.takes_edns(server, now), group.server(server).settings.protocol)
        });
        self.note(format_args!("probe to server {}: {}", server.0, names::text(name.as_wire())));
        self.rules.on_probe_sent(usize::from(server.0), now);
        let packet = build::question(name.as_wire(), qtype, false, false, with_edns);
        let socket = Socket {
            purpose,
            server: usize::from(server.0),
            name: name.as_wire().to_vec(),
            qtype,
            id: 0,
            over_tcp: protocol == Protocol::Tcp,
            with_edns,
            mismatches: 0,
        };
        self.send(socket, packet, now + timeout);
    }

    fn end_probe(&mut self, probing: &Probing, begun: Moment, outcome: Result<Vec<u8>, Unanswered>) {
        let now = self.now;
        let probe = match outcome {
            Ok(bytes) => probe::judge(&bytes),
            Err(Unanswered::HeaderOnly(_)) => Probe::Inconclusive,
            Err(Unanswered::Local) => return,
            Err(_) => Probe::Failed,
        };
        let server = probing.server;
        self.note(format_args!("probe of server {}: {probe:?}", server.0));
        self.with_desk(|desk| {
            let group = desk.group_mut();
            match probing.is_copy {
                true => group.on_copy(server, (probe == Probe::Passed).then(|| now.since(begun)), now),
                false => group.on_probe(server, probe, begun, now),
            }
        });
    }
}
