//! A deterministic world around the pure core: it owns time, chance, network, clients and servers.
//!
//! Events lie in a queue by time and, at one time, by the order in which they were put there. A step takes the first,
//! lets it happen, and has the rules looked at ([`crate::rules`]). What the node does is in [`crate::node`]. Nothing
//! depends on the machine's clock, on addresses in memory or on the order of a hash map: one seed, one log.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use evenkeel::cache::freshness::Freeze;
use evenkeel::cache::key;
use evenkeel::clock::Moment;
use evenkeel::limits::{LOOP_PROBE_EVERY, LOOP_PROBE_SPAN};
use evenkeel::resolve::desk::PursuitId;
use evenkeel::upstream::group::Change;
use evenkeel::wire::Name;

use crate::chance::Chance;
use crate::faults::{BEGINS, Faults, Happening, Ill, Taste};
use crate::message::Question;
use crate::names;
use crate::node::{Node, SocketId};
use crate::rules::Rules;
use crate::servers::{Delivery, Network};

/// Something that happens at a time. What belongs to a process ends with it: `life` tells which.
#[derive(Debug)]
pub enum Event {
    /// A source asks.
    Asks(usize),
    /// A pursuit's timer.
    Wakes {
        life: u32,
        id: PursuitId,
        generation: u64,
    },
    /// Something comes for a socket.
    Arrives {
        socket: SocketId,
        what: Delivery,
    },
    /// A socket's deadline.
    GivesUp(SocketId),
    /// The prober's turn.
    Probes {
        life: u32,
        turn: u64,
    },
    Happens(Happening),
    /// The daemon sees that the clock jumped or the machine slept.
    Notices {
        jumped: bool,
    },
    Heals,
}

/// What a client got.
#[derive(Clone, Debug)]
pub struct Got {
    pub after: Duration,
    /// `fresh`, `stale`, `SERVFAIL`, `NXDOMAIN`, …
    pub what: String,
}

/// What a world came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub asked: u64,
    pub upstream: u64,
    pub stale: u64,
    pub failed: u64,
    pub shifts: u64,
    pub span: Duration,
}

pub struct World {
    pub now: Moment,
    pub faults: Faults,
    pub chance: Chance,
    pub network: Network,
    pub node: Node,
    pub rules: Rules,
    pub log: String,
    pub got: BTreeMap<u64, Got>,
    pub changes: Vec<(Moment, Change)>,
    pub totals: Totals,
    pub healed_at: Option<Moment>,
    queue: BTreeMap<(Moment, u64), Event>,
    sequence: u64,
    names_made: u64,
    /// Nobody asks any more.
    quiet: bool,
    frozen: Option<Freeze>,
    /// The last snapshot: it outlives the process.
    snapshot: Option<Vec<u8>>,
}

impl World {
    pub fn new(faults: Faults) -> Self {
        let chance = Chance::new(faults.seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let node = Node::new(&faults, 0, BEGINS);
        let mut world = Self {
            now: BEGINS,
            rules: Rules::new(&faults),
            chance,
            network: Network::default(),
            node,
            log: String::new(),
            got: BTreeMap::new(),
            changes: Vec::new(),
            totals: Totals::default(),
            healed_at: None,
            queue: BTreeMap::new(),
            sequence: 0,
            names_made: 0,
            quiet: false,
            frozen: None,
            snapshot: None,
            faults,
        };
        for (n, source) in world.faults.sources.clone().iter().enumerate() {
            let pause = world.chance.pause(source.per_second);
            world.at(source.from + pause, Event::Asks(n));
        }
        for (at, what) in world.faults.happenings.clone() {
            world.at(at, Event::Happens(what));
        }
        world.at(world.faults.heals_at, Event::Heals);
        world.at(BEGINS, Event::Probes { life: 0, turn: 0 });
        world
    }

    /// Puts an event into the queue.
    pub fn at(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    /// A line of the log.
    pub fn note(&mut self, line: std::fmt::Arguments<'_>) {
        let since = self.now.since(BEGINS);
        let _ = writeln!(self.log, "{:>7}.{:06} {line}", since.as_secs(), since.subsec_micros());
    }

    //------------ Time ----------------------------------------------------------------------------------------------

    /// Lets everything happen that is due until `end`.
    pub fn run_until(&mut self, end: Moment) {
        while self.rules.broken().is_none()
            && let Some(next) = self.queue.first_entry().filter(|e| e.key().0 <= end)
        {
            let ((at, _), event) = next.remove_entry();
            self.now = self.now.max(at);
            self.happen(event);
            self.rules.after_step(&self.node, self.now);
        }
        if self.rules.broken().is_none() {
            self.now = self.now.max(end);
        }
    }

    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// The whole of a seed: trouble, healing, the time after it, and what must be so at the end.
    pub fn run(&mut self) {
        self.run_until(self.faults.heals_at);
        while self.healed_at.is_none() && self.rules.broken().is_none() {
            self.run_for(Duration::from_secs(1));
        }
        self.run_for(LATE_EVIDENCE);
        let bound = self.rules.time_to_recover(&self.node, self.now);
        let end = self.now + bound;
        let best = self.faults.servers.iter().map(|s| s.tier).min().unwrap_or(0);
        while self.now < end && self.node.group().tier_in_use() != best && self.rules.broken().is_none() {
            self.run_for(Duration::from_secs(1));
        }
        // Without a question that was ever answered there is none to copy, and nothing acquits.
        if !self.faults.only_dead_zones_are_asked() {
            self.rules.the_best_tier_is_in_use_again(&self.node, best, self.now);
        }
        if self.faults.has_ill(Ill::Loops) {
            self.run_for(LOOP_PROBE_EVERY + LOOP_PROBE_SPAN);
        }
        self.rules.settled = true;
        self.run_for(Duration::from_secs(20));
        self.drain();
    }

    /// Nobody asks any more; everything that is under way ends.
    pub fn drain(&mut self) {
        self.quiet = true;
        self.run_for(self.faults.settings.deadline + Duration::from_secs(10));
        self.rules.at_the_end(&self.node, self.now);
        let shifts = self.node.group().shifts();
        self.totals.shifts = shifts[0] + shifts[1];
        self.totals.span = self.now.since(BEGINS);
        let t = self.totals;
        self.note(format_args!("end: {t:?}"));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Asks(n) => self.source_asks(n),
            Event::Wakes { life, id, generation } => {
                if life == self.node.life && self.node.is_woken_by(id, generation) {
                    self.pursue(id);
                }
            }
            Event::Arrives { socket, what } => self.arrive(socket, what),
            Event::GivesUp(socket) => self.give_up(socket),
            Event::Probes { life, turn } => {
                if life == self.node.life && turn == self.node.prober_turn {
                    self.prober();
                }
            }
            Event::Happens(what) => self.node_suffers(what),
            Event::Notices { jumped } => self.notice(jumped),
            Event::Heals => {
                self.note(format_args!("all faults end"));
                self.healed_at = Some(self.now);
                let now = self.now;
                for s in &mut self.faults.servers {
                    s.spells.iter_mut().for_each(|spell| spell.until = spell.until.min(now));
                }
            }
        }
    }

    //------------ Clients -------------------------------------------------------------------------------------------

    fn source_asks(&mut self, n: usize) {
        let source = &self.faults.sources[n];
        let (client, per_second) = (source.client, source.per_second);
        if self.quiet || self.now >= source.until {
            return;
        }
        let taste = self.taste(n);
        self.names_made += 1;
        let (name, qtype) = names::draw(taste, self.names_made, &mut self.chance);
        self.ask(client, &name, qtype);
        let pause = self.chance.pause(per_second);
        self.at(self.now + pause, Event::Asks(n));
    }

    fn taste(&mut self, n: usize) -> Taste {
        let all: f64 = self.faults.sources[n].tastes.iter().map(|t| t.0).sum();
        let mut at = self.chance.unit() * all;
        let tastes = &self.faults.sources[n].tastes;
        let found = tastes.iter().find(|(weight, _)| {
            at -= weight;
            at < 0.0
        });
        found.unwrap_or(&tastes[0]).1
    }

    /// A client asks. Gives the question's number, by which [`World::got`] tells what came of it.
    pub fn ask(&mut self, client: usize, name: &str, qtype: u16) -> u64 {
        // By its number a client speaks EDNS or does not, UDP or TCP: each kind is there.
        let mut question = Question::new(name, qtype);
        question.id = self.chance.next() as u16;
        if client == 3 {
            question = question.without_edns();
        }
        self.totals.asked += 1;
        let number = self.totals.asked;
        self.take(number, client, client == 2, question)
    }

    //------------ What happens to the node --------------------------------------------------------------------------

    fn node_suffers(&mut self, what: Happening) {
        self.note(format_args!("the node: {what:?}"));
        match what {
            Happening::Jump => {
                let notice = self.chance.millis(0, 1000);
                self.at(self.now + notice, Event::Notices { jumped: true });
            }
            Happening::Reroute => self.notice(false),
            Happening::Freeze(span) => self.freeze(Some(Freeze { since: self.now, until: self.now + span })),
            Happening::Thaw => self.freeze(None),
            Happening::Release(n) => {
                let (name, qtype) = names::known(n);
                let name: Name = name.parse().expect("a name");
                let released = self.node.cache.guards().release(name.as_wire(), self.now);
                self.note(format_args!("{name}: {released} released"));
                let question = key::Question { name: name.as_wire(), qtype, dnssec_ok: false, cd: false };
                if released > 0 {
                    self.rules.on_release(self.node.cache.key(&question));
                }
            }
            Happening::Restart => self.restart(),
            Happening::Snapshot => {
                self.rules.on_snapshot(self.node.cache.due_before());
                self.snapshot = Some(self.node.snapshot(self.now));
            }
            Happening::WarmRestart => {
                self.restart();
                if let Some(file) = &self.snapshot {
                    let restored = self.node.read_snapshot(file, self.now);
                    self.note(format_args!("{restored} answers restored"));
                    self.rules.on_restored();
                }
            }
            Happening::Sleep(span) => {
                // Packets on their way are lost; tokio's timers stand still while the machine does (CLOCK_MONOTONIC).
                let awake = self.now + span;
                let before = std::mem::take(&mut self.queue);
                for ((at, sequence), event) in before {
                    if !matches!(event, Event::Arrives { .. }) {
                        self.queue.insert((at + span, sequence), event);
                    } else if at >= awake {
                        self.queue.insert((at, sequence), event);
                    }
                }
                self.now = awake;
                self.rules.on_sleep(span, awake);
                let notice = self.chance.millis(0, 1000);
                self.at(self.now + notice, Event::Notices { jumped: false });
            }
        }
    }

    fn restart(&mut self) {
        self.node = Node::new(&self.faults, self.node.life + 1, self.now);
        self.rules.on_restart(&self.faults);
        // A freeze is kept in a file of its own.
        self.freeze(self.frozen);
        let life = self.node.life;
        self.at(self.now, Event::Probes { life, turn: 0 });
    }

    /// As the daemon does by command, and at its start.
    fn freeze(&mut self, freeze: Option<Freeze>) {
        self.frozen = freeze;
        self.rules.frozen = freeze;
        self.node.cache.set_freeze(freeze);
        self.with_desk(|desk| desk.group_mut().set_freeze(freeze));
    }

    /// As the daemon does where it looks around.
    fn notice(&mut self, jumped: bool) {
        let now = self.now;
        self.note(format_args!("the daemon notices a discontinuity"));
        if jumped {
            self.node.cache.make_due(now);
        }
        self.rules.on_discontinuity();
        self.with_desk(|desk| desk.group_mut().on_discontinuity(now));
    }
}

/// After healing, evidence from before it still comes in for so long.
pub const LATE_EVIDENCE: Duration = Duration::from_secs(35);
