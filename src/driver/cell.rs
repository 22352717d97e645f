//! One group as it is in force: its desk, its servers' endpoints, its pursuits under way and their times.
//!
//! Not pure: sockets, the clock, the log. The desk's lock is held for one call of the pure core, and for telling what
//! the call changed: it is published ([`Outlook`]) and handed to the log's queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::pursuing::Running;
use super::timers::Timers;
use super::{Way, lock};
use crate::cache::entry::GroupStamp;
use crate::cache::freshness::TtlSettings;
use crate::clock::{self, Moment};
use crate::observe::event::{self, Event};
use crate::resolve::desk::{Desk, PursuitId};
use crate::resolve::vet::{Fault, Terms};
use crate::transport::Endpoint;
use crate::upstream::group::Change;
use crate::upstream::{Group, GroupSettings, Outlook, Protocol, ServerId};

/// A group and the way to its servers.
pub struct Cell {
    /// Marks its answers.
    pub stamp: GroupStamp,
    /// What the hit path sees of it.
    pub outlook: Arc<Outlook>,
    /// A probe is wanted before the prober's next turn.
    pub probe_wanted: Notify,
    /// The prober makes a long pause, since nobody asks and nothing is due.
    rests: AtomicBool,
    pub(super) timers: Timers,
    desk: Mutex<Desk<Way>>,
    /// The pursuits under way.
    running: Mutex<HashMap<PursuitId, Arc<Running>>>,
    servers: Vec<Server>,
    ttl: TtlSettings,
    /// How long a client waits at most.
    pub(super) deadline: Duration,
}

/// What does not change about a server while its cell lives, and what became of the attempts on it.
struct Server {
    endpoint: Endpoint,
    protocol: Protocol,
    trust_ad: bool,
    faults: [AtomicU64; Fault::ALL.len()],
}

impl Cell {
    /// A cell over `group`, which nobody else holds.
    pub fn new(stamp: GroupStamp, group: Group) -> Self {
        let settings = group.settings();
        let servers = group.servers().iter().map(|s| &s.settings).map(|server| Server {
            endpoint: Endpoint::new(server.address, settings.source),
            protocol: server.protocol,
            trust_ad: server.trust_ad,
            faults: Default::default(),
        });
        let outlook = Arc::new(Outlook::default());
        outlook.publish(&group);
        Self {
            stamp,
            outlook,
            probe_wanted: Notify::new(),
            rests: AtomicBool::new(false),
            timers: Timers::default(),
            servers: servers.collect(),
            ttl: settings.ttl,
            deadline: settings.deadline,
            desk: Mutex::new(Desk::new(group, stamp)),
            running: Mutex::default(),
        }
    }

    /// Calls `f` with the group; what changed is published and logged.
    pub fn with<T>(&self, f: impl FnOnce(&mut Group) -> T) -> T {
        self.with_desk(|desk| f(desk.group_mut()))
    }

    /// The same with the desk before it.
    pub(super) fn with_desk<T>(&self, f: impl FnOnce(&mut Desk<Way>) -> T) -> T {
        let mut desk = lock(&self.desk);
        let result = f(&mut desk);
        let group = desk.group_mut();
        self.outlook.publish(group);
        for change in group.take_changes() {
            // Who waits with a stale answer at hand gets it now.
            if change == Change::Dark {
                lock(&self.running).keys().for_each(|id| self.timers.tell(*id));
            }
            announce(change, group);
        }
        if group.wants_probes(clock::now()) {
            self.probe_wanted.notify_one();
        }
        result
    }

    /// Until when the prober may rest; whoever asks meanwhile wakes it (`wake`).
    pub fn rests_until(&self, now: Moment) -> Option<Moment> {
        // Before one looks: who begins after that sees it.
        self.rests.store(true, Ordering::SeqCst);
        let desk = lock(&self.desk);
        let until = desk.group().rests_until(now).filter(|_| desk.under_way() == 0);
        if until.is_none() {
            self.rests.store(false, Ordering::SeqCst);
        }
        until
    }

    /// Somebody asks: what comes of it is to be weighed in time.
    pub(super) fn wake(&self) {
        if self.rests.load(Ordering::SeqCst) && self.rests.swap(false, Ordering::SeqCst) {
            self.probe_wanted.notify_one();
        }
    }

    /// How long past its TTL an answer may serve now.
    pub(super) fn max_age(&self, now: Moment) -> Duration {
        lock(&self.desk).group().max_age(now)
    }

    /// A pursuit begins. Called under the desk's lock: another question may make it yield at once.
    pub(super) fn list(&self, running: &Arc<Running>) {
        lock(&self.running).insert(running.id, running.clone());
    }

    pub(super) fn unlist(&self, id: PursuitId) {
        lock(&self.running).remove(&id);
    }

    pub(super) fn running(&self, id: PursuitId) -> Option<Arc<Running>> {
        lock(&self.running).get(&id).cloned()
    }

    /// The way to a server.
    pub fn endpoint(&self, id: ServerId) -> &Endpoint {
        &self.server(id).endpoint
    }

    pub(super) fn protocol(&self, id: ServerId) -> Protocol {
        self.server(id).protocol
    }

    /// What counts for a server's replies.
    pub(super) fn terms(&self, id: ServerId, over_tcp: bool, with_edns: bool) -> Terms {
        Terms { over_tcp, with_edns, trust_ad: self.server(id).trust_ad, ttl: self.ttl, wall: clock::wall() }
    }

    fn server(&self, id: ServerId) -> &Server {
        &self.servers[usize::from(id.0)]
    }

    /// How often attempts on a server ended in each fault, by [`Fault::ALL`].
    pub fn faults(&self, id: ServerId) -> [u64; Fault::ALL.len()] {
        self.server(id).faults.each_ref().map(|n| n.load(Ordering::Relaxed))
    }

    pub(super) fn count(&self, id: ServerId, fault: Fault) {
        self.server(id).faults[fault as usize].fetch_add(1, Ordering::Relaxed);
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
