//! A drill's world: time, chance, clients, and the queue of what happens when.
//!
//! Pure. Events lie in a queue by time and, at one time, by the order in which they were put there; one after the other
//! happens. What the node does is in [`super::node`], what servers do in [`super::servers`]. Nothing depends on the
//! machine's clock, on addresses in memory or on the order of a hash map: one file and one configuration, one drill.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::chance::Chance;
use super::measure::{Asked, Got, Tape};
use super::names::{self, Sort};
use super::node::{Node, SocketId};
use super::script::{Load, Scenario};
use super::servers::{Delivery, Network};
use super::stage::Stage;
use crate::clock::Moment;
use crate::config::Mistake;
use crate::resolve::desk::PursuitId;
use crate::wire::{build, rtype};

/// When a drill begins: any moment that has enough before it.
const BEGINS: Moment = Moment::from_secs(100 * 86_400);

/// Something that happens at a time.
#[derive(Debug)]
pub enum Event {
    /// A load's next question.
    Asks(usize),
    /// A pursuit's timer, unless it was set anew.
    Wakes { group: usize, id: PursuitId, generation: u64 },
    /// Something comes for a socket.
    Arrives(SocketId, Delivery),
    /// A socket's deadline.
    GivesUp(SocketId),
    /// A prober's turn.
    Probes { group: usize, turn: u64 },
    /// The metrics are looked at.
    Scraped,
}

struct Queued {
    at: Moment,
    sequence: u64,
    event: Event,
}

/// Everything of a drill.
pub struct World<'d> {
    pub(super) now: Moment,
    pub(super) scenario: &'d Scenario,
    pub(super) stage: &'d Stage,
    pub(super) network: Network,
    pub(super) node: Node,
    pub(super) tape: Tape,
    /// For what the node draws.
    pub(super) chance: Chance,
    /// For what servers and network do.
    pub(super) luck: Chance,
    /// For what clients ask, so that they ask the same whatever is configured.
    taste: Chance,
    queue: BinaryHeap<Queued>,
    sequence: u64,
    names_made: u64,
    playable: Vec<usize>,
    /// Pause between looks at the metrics, and what they showed.
    scrape_every: Option<Duration>,
    scrapes: Vec<String>,
}

impl<'d> World<'d> {
    /// A world at its beginning.
    pub fn new(scenario: &'d Scenario, stage: &'d Stage) -> Result<Self, Vec<Mistake>> {
        let network = Network::new(scenario, stage)?;
        let seed = scenario.seed;
        let mut world = Self {
            now: BEGINS,
            scenario,
            stage,
            network,
            node: Node::new(stage, BEGINS),
            tape: Tape::new(scenario.length),
            chance: Chance::new(seed),
            luck: Chance::new(seed.wrapping_add(1)),
            taste: Chance::new(seed.wrapping_add(2)),
            queue: BinaryHeap::new(),
            sequence: 0,
            names_made: 0,
            playable: (0..stage.groups.len()).filter(|g| stage.groups[*g].suffix.is_some()).collect(),
            scrape_every: None,
            scrapes: Vec::new(),
        };
        for (n, load) in scenario.loads.iter().enumerate() {
            let pause = world.taste.pause(load.per_second);
            world.at(BEGINS + load.from + pause, Event::Asks(n));
        }
        for group in 0..stage.groups.len() {
            world.note_using(group);
            world.at(BEGINS, Event::Probes { group, turn: 0 });
        }
        Ok(world)
    }

    /// Time since the beginning.
    pub(super) fn since(&self) -> Duration {
        self.now.since(BEGINS)
    }

    /// Puts an event into the queue.
    pub(super) fn at(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.queue.push(Queued { at: at.max(self.now), sequence: self.sequence, event });
    }

    /// Looks at the metrics at the beginning, and then so often to the end. It changes nothing of what happens.
    pub fn scraped(mut self, every: Duration) -> Self {
        self.scrape_every = Some(every);
        self.at(BEGINS, Event::Scraped);
        self
    }

    /// Plays the drill, and after it until every question had its deadline. What was measured, the network, and what
    /// the metrics showed at each look.
    pub fn run(mut self) -> (Tape, Network, Vec<String>) {
        let longest = self.stage.groups.iter().map(|p| p.settings.deadline).max().unwrap_or_default();
        let end = BEGINS + self.scenario.length + longest + AFTER_DEADLINE;
        while let Some(next) = self.queue.pop().filter(|next| next.at <= end) {
            self.now = next.at;
            self.happen(next.event);
        }
        (self.tape, self.network, self.scrapes)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Asks(n) => self.load_asks(n),
            Event::Wakes { group, id, generation } => {
                if self.node.is_woken_by(group, id, generation) {
                    self.pursue(group, id);
                }
            }
            Event::Arrives(socket, what) => self.arrive(socket, what),
            Event::GivesUp(socket) => self.give_up(socket),
            Event::Probes { group, turn } => {
                if self.node.is_probers_turn(group, turn) {
                    self.prober(group);
                }
            }
            Event::Scraped => self.scrape(),
        }
    }

    fn scrape(&mut self) {
        let Some(every) = self.scrape_every.filter(|_| self.since() <= self.scenario.length) else { return };
        self.scrapes.push(self.node.metrics(self.now));
        self.at(self.now + every, Event::Scraped);
    }

    //------------ Clients -------------------------------------------------------------------------------------------

    fn load_asks(&mut self, n: usize) {
        let scenario = self.scenario;
        let load = &scenario.loads[n];
        if self.since() >= load.until {
            return;
        }
        let pause = self.taste.pause(load.per_second);
        self.at(self.now + pause, Event::Asks(n));
        let first: u64 = scenario.loads[..n].iter().map(|l| l.clients).sum();
        let client = client_address(first + self.taste.below(load.clients));
        let (number, zone, draw) = self.draw(load);
        if self.playable.is_empty() {
            return;
        }
        let group = self.playable[(draw % self.playable.len() as u64) as usize];
        let Some(suffix) = &self.stage.groups[group].suffix else { return };
        let Some(name) = names::wire(load.sort, number, &load.zones[zone], suffix) else { return };
        let mut packet = build::question(&name, rtype::A, false, false, true);
        let id = self.taste.bits() as u16;
        packet[..2].copy_from_slice(&id.to_be_bytes());
        let (at, index) = (self.since(), self.tape.asked.len());
        let (load, group) = (n as u16, group as u16);
        self.tape.asked.push(Asked { at, took: Duration::ZERO, load, group, got: Got::Nothing });
        self.take(index, client, &packet, names::truth(&name, rtype::A));
    }

    /// What a load asks for next: number, zone, and a number that decides about the group. A known name is always of
    /// the same group and zone.
    fn draw(&mut self, load: &Load) -> (u64, usize, u64) {
        let zones = load.zones.len() as u64;
        match load.sort {
            Sort::Known | Sort::Absent => {
                // Zipf's law with exponent 1, by its continuous inverse.
                let n = ((load.names as f64 + 1.0).powf(self.taste.unit()) as u64).clamp(1, load.names) - 1;
                (n, (n % zones) as usize, n / zones)
            }
            Sort::New | Sort::Dead => {
                self.names_made += 1;
                (self.names_made, self.taste.below(zones) as usize, self.taste.bits() >> 8)
            }
        }
    }

    /// A reply came to a client.
    pub(super) fn got(&mut self, index: usize, got: Got) {
        let now = self.since();
        if let Some(asked) = self.tape.asked.get_mut(index) {
            (asked.got, asked.took) = (got, now.saturating_sub(asked.at));
        }
    }
}

/// The last questions have their replies by then.
const AFTER_DEADLINE: Duration = Duration::from_secs(1);

/// The first client is a program of this node, the others are elsewhere.
fn client_address(n: u64) -> IpAddr {
    if n == 0 { Ipv4Addr::LOCALHOST.into() } else { Ipv4Addr::from(0x0a4d_0000 + n as u32).into() }
}

impl Ord for Queued {
    /// The earliest is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Queued {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse as parse_config};
    use crate::drill::reading::parse;

    const TEXT: &str = r#"
title = "x"
length = "1m"
[[load]]
ask = "known"
[[load]]
ask = "new"
[[act]]
at = "20s"
for = "20s"
who = "all"
what = "silent"
[[objective]]
fresh = 0.0
"#;

    fn play(text: &str, config: &str) -> Tape {
        let config =
            if config.is_empty() { Config::default() } else { parse_config(config, &|_| None, &[]).unwrap().0 };
        let (scenario, stage) = (parse("x", text).unwrap(), Stage::new("x", &config));
        World::new(&scenario, &stage).unwrap().run().0
    }

    #[test]
    fn clients_ask_the_same_whatever_is_configured_and_whatever_goes_wrong() {
        let asked = |tape: Tape| tape.asked.iter().map(|a| (a.at, a.load)).collect::<Vec<_>>();
        let first = asked(play(TEXT, ""));
        assert!((1000..1500).contains(&first.len()), "{}", first.len());
        assert_eq!(first, asked(play(TEXT, "[groups.default]\nprimary = [\"192.0.2.1\"]\n")));
        assert_eq!(first, asked(play(&TEXT.replace("silent", "servfail"), "")));
        assert_ne!(first, asked(play(&TEXT.replace("title", "seed = 2\ntitle"), "")));
    }

    #[test]
    fn the_metrics_say_what_clients_got_and_looking_at_them_changes_nothing() {
        let (scenario, config) = (parse("x", TEXT).unwrap(), Config::default());
        let stage = Stage::new("x", &config);
        let (tape, _, scrapes) = World::new(&scenario, &stage).unwrap().scraped(Duration::from_secs(15)).run();
        assert_eq!(scrapes.len(), 5, "at the beginning, and every 15 s to the end");
        let seen = |t: &Tape| t.asked.iter().map(|a| (a.at, a.took, a.got)).collect::<Vec<_>>();
        assert_eq!(seen(&tape), seen(&play(TEXT, "")));
        // The outage is from 20 s to 40 s.
        let (text, at) = (&scrapes[3], Duration::from_secs(45));
        let sum = |source: &str| -> usize {
            let prefix = format!("evenkeel_answers_total{{source=\"{source}\"");
            let lines = text.lines().filter(|l| l.starts_with(&prefix));
            lines.map(|l| l.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
        };
        let got = |what: Got| tape.asked.iter().filter(|a| a.at + a.took <= at && a.got == what).count();
        assert_eq!(sum("stale"), got(Got::Stale));
        assert_eq!(sum("failed"), got(Got::Failed));
        assert_eq!(sum("fresh") + sum("upstream"), got(Got::Fresh));
        assert!(["failed", "upstream", "fresh"].iter().all(|source| sum(source) > 0), "{text}");
        let down = "evenkeel_upstream_state{group=\"default\",server=\"192.0.2.251:53\",state=\"down\"} 1";
        assert!(scrapes[2].lines().any(|l| l == down), "{}", scrapes[2]);
    }

    #[test]
    fn every_question_has_its_reply_and_the_outage_is_seen() {
        let tape = play(TEXT, "");
        assert!(tape.asked.iter().all(|a| a.got != Got::Nothing));
        let secs = Duration::from_secs;
        let fresh = |from, until| tape.sum(secs(from), secs(until), &|_| true);
        assert_eq!(fresh(0, 19).answered(), 1.0);
        let dark = fresh(22, 40);
        assert!(dark.stale > 0 && dark.answered() < 0.9, "{dark:?}");
        assert!(tape.using.iter().any(|u| u.dark));
    }
}
