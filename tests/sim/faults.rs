//! Everything that is wrong with a world, in one struct of numbers, drawn from its seed.
//!
//! A world has trouble from its start to [`Faults::heals_at`]; after that nothing is wrong any more, and traffic goes
//! on. What a rule may ask of a world depends on what is wrong with it: that is read from here, never from the core.

use std::time::Duration;

use evenkeel::cache::freshness::{Patience, StaleSettings, TtlSettings};
use evenkeel::cache::guard::GuardSettings;
use evenkeel::clock::{BEFORE_BOOT, Moment};
use evenkeel::upstream::{GroupSettings, HealthSettings, HedgeSettings, Order, Protocol, ServerSettings};

use crate::chance::Chance;

/// When a world begins: a while after its machine did, which is not at zero either ([`evenkeel::clock::BEFORE_BOOT`]).
pub const BEGINS: Moment = Moment::from_secs(BEFORE_BOOT.as_secs() + 1000);

/// What is wrong with a server for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ill {
    /// Each packet, on either way, is lost by the spell's share.
    Loses,
    /// Nothing comes.
    Silent,
    /// ICMP: port unreachable; over TCP: refused.
    PortClosed,
    /// No route.
    NoRoute,
    ServFail,
    Refused,
    /// The header alone, with SERVFAIL.
    HeaderOnly,
    /// A reply whose body is noise.
    Noise,
    /// A reply that ends in its middle.
    Cut,
    /// It takes so many milliseconds more.
    Slow(u64),
    /// Probes are answered, questions not.
    Gray,
    /// NXDOMAIN to everything.
    OtherView,
    /// NXDOMAIN to one zone.
    OtherViewOfZone(u64),
    /// The names of one zone are there, and have nothing.
    Emptied(u64),
    /// They have an address that leads nowhere.
    LeadsNowhere(u64),
    /// TC over UDP, and TCP works.
    Truncates,
    /// TC over UDP, and TCP does not.
    TruncatesForGood,
    /// So many forged replies come first.
    Forged(u64),
    /// FORMERR to OPT.
    NoEdns,
    /// A referral.
    Lame,
    /// It forwards to us.
    Loops,
}

/// A while in which a server is ill.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    pub from: Moment,
    pub until: Moment,
    pub ill: Ill,
    /// Of questions, how many it hits.
    pub share: f64,
    /// Where it comes and goes: so long ill, so long well.
    pub period: Option<(Duration, Duration)>,
}

impl Spell {
    pub fn is_on(&self, now: Moment) -> bool {
        let within = self.from <= now && now < self.until;
        within
            && self.period.is_none_or(|(ill, well)| {
                now.since(self.from).as_nanos() % (ill + well).as_nanos().max(1) < ill.as_nanos()
            })
    }
}

/// One server and what is wrong with it.
#[derive(Clone, Debug)]
pub struct ServerFaults {
    pub tier: usize,
    pub v6: bool,
    pub protocol: Protocol,
    /// 0 is no limit.
    pub packets_per_second: u32,
    pub delay_ms: u64,
    pub jitter_ms: u64,
    pub spells: Vec<Spell>,
}

impl ServerFaults {
    pub fn sound(tier: usize) -> Self {
        Self {
            tier,
            v6: false,
            protocol: Protocol::Udp,
            packets_per_second: 0,
            delay_ms: 2,
            jitter_ms: 0,
            spells: Vec::new(),
        }
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Taste {
    /// Of so many names, some much more often than others.
    Known(u64),
    /// A name that nobody asked before.
    New,
    /// A name that does not exist.
    Absent,
    /// A type that a known name does not have.
    NoData,
    /// A random name in a zone that nobody answers for.
    Dead(u64),
    /// A name in one of so many zones that nobody answers for.
    Tenant(u64),
    /// A name whose DNSSEC is broken.
    Bogus,
    /// Too large for UDP.
    Big,
    /// TTL 0.
    Fleeting,
}

/// A client that asks for something, again and again, for a while.
#[derive(Clone, Debug)]
pub struct Source {
    pub client: usize,
    pub tastes: Vec<(f64, Taste)>,
    pub from: Moment,
    pub until: Moment,
    pub per_second: f64,
}

impl Source {
    /// Does it ask for a tenant's failing zones alone?
    pub fn is_tenant(&self) -> bool {
        self.tastes.iter().all(|t| matches!(t.1, Taste::Tenant(_)))
    }
}

/// What happens to the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Happening {
    /// The wall clock jumps ahead of ours.
    Jump,
    /// The machine is suspended.
    Sleep(Duration),
    /// Routes or addresses change.
    Reroute,
    /// The process ends, and another one begins.
    Restart,
    /// The cache is written to the disk.
    Snapshot,
    /// The process ends, and another one reads the last snapshot.
    WarmRestart,
    /// An operator freezes for so long.
    Freeze(Duration),
    /// An operator ends the freeze.
    Thaw,
    /// An operator ends the hold on a guarded name.
    Release(u64),
}

/// All that is wrong with a world.
#[derive(Clone, Debug)]
pub struct Faults {
    pub seed: u64,
    pub settings: GroupSettings,
    pub servers: Vec<ServerFaults>,
    pub sources: Vec<Source>,
    pub happenings: Vec<(Moment, Happening)>,
    /// When all records get other addresses.
    pub renumbered: Vec<Moment>,
    /// Are questions of dead zones not answered at all, or with SERVFAIL after a while?
    pub dead_are_silent: bool,
    /// Are the servers caches themselves: do they give what is left of a TTL that began for all at one moment?
    pub servers_are_caches: bool,
    pub in_flight_per_client: u32,
    /// Names of which zones must not vanish: `*.z3.test` by 3.
    pub guarded_zones: Vec<u64>,
    pub guard: GuardSettings,
    pub heals_at: Moment,
}

/// Clients with an address of their own; the first is the node itself.
pub const CLIENTS: usize = 6;

impl Faults {
    /// Nothing is wrong: sound servers in these tiers, default settings, nobody asks.
    pub fn none(tiers: &[usize]) -> Self {
        let mut faults = Self {
            seed: 0,
            settings: GroupSettings { order: Order::Listed, ..GroupSettings::default() },
            servers: tiers.iter().map(|t| ServerFaults::sound(*t)).collect(),
            sources: Vec::new(),
            happenings: Vec::new(),
            renumbered: Vec::new(),
            dead_are_silent: true,
            servers_are_caches: false,
            in_flight_per_client: 256,
            guarded_zones: Vec::new(),
            guard: GuardSettings::default(),
            heals_at: BEGINS,
        };
        faults.place_servers();
        faults
    }

    /// Fills the tiers of the settings from the servers. In the order of ids: tier by tier.
    pub fn place_servers(&mut self) {
        self.servers.sort_by_key(|s| s.tier);
        self.settings.tiers = Default::default();
        for (n, s) in self.servers.iter().enumerate() {
            let v4 = ([192, 0, 2, n as u8 + 1], 53).into();
            let v6 = ([0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16 + 1], 53).into();
            let settings = ServerSettings {
                protocol: s.protocol,
                packets_per_second: s.packets_per_second,
                ..ServerSettings::at(if s.v6 { v6 } else { v4 })
            };
            self.settings.tiers[s.tier].push(settings);
        }
    }

    /// The guards as a configuration has them.
    pub fn guards(&self) -> Vec<GuardSettings> {
        let pattern = |zone: &u64| format!("*.z{zone}.test").parse().expect("a pattern");
        let names = self.guarded_zones.iter().map(pattern).collect();
        vec![GuardSettings { names, ..self.guard.clone() }]
    }

    /// Is nothing wrong with any server, ever?
    pub fn servers_are_sound(&self) -> bool {
        self.servers.iter().all(|s| s.spells.is_empty())
    }

    /// Does a server ever have this fault?
    pub fn has_ill(&self, ill: Ill) -> bool {
        self.servers.iter().any(|s| s.spells.iter().any(|spell| spell.ill == ill))
    }

    /// Is it the only fault that the best tier comes and goes, away long enough for probes to see it, and each time
    /// back for less than the hold?
    pub fn only_flap_within_hold(&self) -> bool {
        let hold = self.settings.health.hold;
        let h = &self.settings.health;
        let seen = (h.every.mul_f64(1.1) + h.timeout) * h.fall + MARGIN;
        let flaps = |s: &Spell| {
            s.ill == Ill::Silent && s.period.is_some_and(|(ill, well)| well + MARGIN < hold && ill > seen)
        };
        let ill: Vec<_> = self.servers.iter().filter(|s| !s.spells.is_empty()).collect();
        !ill.is_empty()
            && ill.iter().all(|s| s.tier == 0 && s.spells.len() == 1 && flaps(&s.spells[0]))
            && self.servers.iter().any(|s| s.tier > 0)
            && self.happenings.is_empty()
            && !self.dead_zones_are_asked()
    }

    /// Does anybody ask for names that nobody answers?
    pub fn dead_zones_are_asked(&self) -> bool {
        let dead = |t: &(f64, Taste)| matches!(t.1, Taste::Dead(_) | Taste::Tenant(_));
        self.sources.iter().any(|s| s.tastes.iter().any(dead))
    }

    /// Does every question that is asked go to one dead zone?
    pub fn only_one_zone_is_flooded(&self) -> bool {
        let flood = |s: &Source| s.tastes.iter().all(|t| t.1 == Taste::Dead(0));
        !self.sources.is_empty() && self.sources.iter().all(flood)
    }

    /// Does every question that is asked go to dead zones?
    pub fn only_dead_zones_are_asked(&self) -> bool {
        self.sources.iter().all(|s| s.tastes.iter().all(|t| matches!(t.1, Taste::Dead(_) | Taste::Tenant(_))))
    }
}

impl Faults {
    /// Are bounds so narrow that the usual traffic feels them?
    pub fn is_tight(&self) -> bool {
        let s = &self.settings;
        let narrow = self.in_flight_per_client < 256 || s.in_flight_max < 4096 || s.per_zone_in_flight_max < 512;
        narrow || self.servers.iter().any(|s| s.packets_per_second > 0)
    }
}

/// What a rule about holds leaves for the way of packets.
const MARGIN: Duration = Duration::from_millis(500);

//------------ Drawing -----------------------------------------------------------------------------------------------

impl Faults {
    /// The world of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut c = Chance::new(seed);
        let trouble = Duration::from_secs_f64(c.spread(8.0, 240.0));
        let heals_at = BEGINS + trouble;
        let tiers =
            c.pick(&[vec![0, 1, 2], vec![0, 0, 1], vec![0, 1], vec![0], vec![0, 0], vec![1, 2], vec![0, 0, 1, 1, 2]]);
        let mut faults = Self { seed, heals_at, ..Self::none(&tiers) };
        faults.settings = settings(&mut c);
        faults.dead_are_silent = c.happens(0.6);
        faults.servers_are_caches = seed % 4 == 1;
        if c.happens(0.15) {
            faults.in_flight_per_client = c.pick(&[1, 4, 32]);
        }
        for s in &mut faults.servers {
            s.delay_ms = c.spread(1.0, 60.0) as u64;
            s.jitter_ms = c.below(s.delay_ms + 2);
            s.v6 = c.happens(0.3);
            if c.happens(0.1) {
                s.protocol = Protocol::Tcp;
            }
            if c.happens(0.15) {
                s.packets_per_second = c.pick(&[20, 50, 200]);
            }
        }
        // A sound server has time to answer a probe, over TCP too: less would be a configuration that fails by itself.
        let slowest = faults.servers.iter().map(|s| s.delay_ms + s.jitter_ms).max().unwrap_or(0);
        let timeout = &mut faults.settings.health.timeout;
        *timeout = (*timeout).max(Duration::from_millis(4 * slowest + 10));
        match c.below(10) {
            0 => faults.draw_flapping_primary(&mut c),
            1 => faults.draw_flood(&mut c),
            2 => faults.draw_tenant(&mut c),
            3 => {}
            _ => faults.draw_spells(&mut c),
        }
        if c.happens(0.25) {
            let count = 1 + c.below(3);
            faults.renumbered = (0..count).map(|_| faults.some_moment(&mut c)).collect();
            faults.renumbered.sort();
        }
        faults.place_servers();
        faults.draw_clients(&mut c);
        if c.happens(0.4) {
            faults.draw_last_known_good(&mut c);
        }
        faults
    }

    /// Authorities that take names away, guards, and an operator who freezes.
    fn draw_last_known_good(&mut self, c: &mut Chance) {
        for _ in 0..c.below(4) {
            let zone = c.below(4);
            let ill = c.pick(&[Ill::OtherViewOfZone(zone), Ill::Emptied(zone), Ill::LeadsNowhere(zone)]);
            let spell = Spell { period: None, ..self.spell(ill, 1.0, c) };
            self.servers.iter_mut().for_each(|s| s.spells.push(spell));
        }
        if c.happens(0.8) {
            self.guarded_zones = (0..4).filter(|_| c.happens(0.6)).collect();
            self.guard.hold = Duration::from_secs_f64(c.spread(2.0, 300.0));
            self.guard.min_good = Duration::from_secs_f64(c.pick(&[0.0, 2.0, 10.0, 60.0]));
        }
        for _ in 0..c.below(3) {
            let at = self.some_moment(c);
            let span = self.heals_at.since(at).mul_f64(c.unit());
            self.happenings.push((at, Happening::Freeze(span)));
            if c.happens(0.3) {
                self.happenings.push((at + span.mul_f64(c.unit()), Happening::Thaw));
            }
        }
        for _ in 0..c.below(4) {
            let at = self.some_moment(c);
            self.happenings.push((at, Happening::Release(c.below(40))));
        }
        if c.happens(0.5) {
            for _ in 0..1 + c.below(4) {
                let at = self.some_moment(c);
                self.happenings.push((at, Happening::Snapshot));
            }
            for _ in 0..1 + c.below(2) {
                let at = self.some_moment(c);
                self.happenings.push((at, Happening::WarmRestart));
            }
        }
        self.happenings.sort_by_key(|h| h.0);
    }

    fn some_moment(&self, c: &mut Chance) -> Moment {
        BEGINS + self.heals_at.since(BEGINS).mul_f64(c.unit())
    }

    fn spell(&self, ill: Ill, share: f64, c: &mut Chance) -> Spell {
        let (a, b) = (self.some_moment(c), self.some_moment(c));
        let (from, until) = if c.happens(0.2) { (BEGINS, self.heals_at) } else { (a.min(b), a.max(b)) };
        let period = c.happens(0.25).then(|| (c.millis(200, 8000), c.millis(200, 15_000)));
        Spell { from, until, ill, share, period }
    }

    fn draw_spells(&mut self, c: &mut Chance) {
        for i in 0..self.servers.len() {
            for _ in 0..c.below(4) {
                let share = if c.happens(0.5) { 1.0 } else { c.unit() };
                let ill = c.pick(&[
                    Ill::Loses,
                    Ill::Silent,
                    Ill::Silent,
                    Ill::Silent,
                    Ill::PortClosed,
                    Ill::NoRoute,
                    Ill::ServFail,
                    Ill::Refused,
                    Ill::HeaderOnly,
                    Ill::Noise,
                    Ill::Cut,
                    Ill::Slow(400),
                    Ill::Slow(1500),
                    Ill::Gray,
                    Ill::OtherView,
                    Ill::OtherViewOfZone(1),
                    Ill::Truncates,
                    Ill::TruncatesForGood,
                    Ill::Forged(3),
                    Ill::Forged(12),
                    Ill::NoEdns,
                    Ill::Lame,
                    Ill::Loops,
                ]);
                let share = if ill == Ill::Loses { c.between(0.02, 0.5) } else { share };
                let spell = self.spell(ill, share, c);
                self.servers[i].spells.push(spell);
            }
        }
        if c.happens(0.3) {
            // All at once: the way out is cut.
            let ill = c.pick(&[Ill::Silent, Ill::Silent, Ill::Loses, Ill::ServFail, Ill::Slow(700)]);
            let share = if ill == Ill::Loses { 0.3 } else { 1.0 };
            let spell = self.spell(ill, share, c);
            self.servers.iter_mut().for_each(|s| s.spells.push(spell));
        }
        if c.happens(0.15) {
            // One address family leads nowhere.
            let spell = self.spell(c.pick(&[Ill::Silent, Ill::NoRoute]), 1.0, c);
            self.servers.iter_mut().filter(|s| s.v6).for_each(|s| s.spells.push(spell));
        }
        if c.happens(0.3) {
            for _ in 0..1 + c.below(2) {
                let at = self.some_moment(c);
                let sleep = Duration::from_secs_f64(c.spread(2.0, 20_000.0));
                let what =
                    c.pick(&[Happening::Jump, Happening::Sleep(sleep), Happening::Reroute, Happening::Restart]);
                self.happenings.push((at, what));
            }
            self.happenings.sort_by_key(|h| h.0);
        }
    }

    fn draw_flapping_primary(&mut self, c: &mut Chance) {
        let hold = self.settings.health.hold;
        let well = hold.mul_f64(c.unit()).max(Duration::from_millis(200));
        let spell = Spell {
            from: BEGINS + c.millis(0, 5000),
            until: self.heals_at,
            ill: Ill::Silent,
            share: 1.0,
            period: Some((c.millis(300, 20_000), well)),
        };
        self.servers.iter_mut().filter(|s| s.tier == 0).for_each(|s| s.spells.push(spell));
    }

    fn draw_flood(&mut self, c: &mut Chance) {
        let per_second = c.spread(20.0, 400.0).min(4000.0 / self.heals_at.since(BEGINS).as_secs_f64());
        let clients = 1 + c.below(3) as usize;
        for client in 1..=clients {
            self.sources.push(Source {
                client,
                tastes: vec![(1.0, Taste::Dead(0))],
                from: BEGINS,
                until: self.heals_at,
                per_second: per_second / clients as f64,
            });
        }
    }

    fn draw_tenant(&mut self, c: &mut Chance) {
        let per_second = c.spread(20.0, 300.0).min(3000.0 / self.heals_at.since(BEGINS).as_secs_f64());
        let zones = c.spread(1.0, 1000.0) as u64;
        self.sources.push(Source {
            client: CLIENTS - 1,
            tastes: vec![(1.0, Taste::Tenant(zones))],
            // Where it were the first, it would be the only client, and zones alone would count.
            from: BEGINS + Duration::from_secs(3),
            until: self.heals_at,
            per_second,
        });
    }

    /// The usual traffic; it goes on after healing. A flood is alone now and then.
    fn draw_clients(&mut self, c: &mut Chance) {
        if !self.sources.is_empty() && c.happens(0.3) && self.only_dead_zones_are_asked() {
            return;
        }
        let span = self.heals_at.since(BEGINS).as_secs_f64();
        let per_second = (c.spread(2.0, 60.0)).min(1500.0 / span);
        let names = c.spread(3.0, 300.0) as u64;
        let clients = c.pick(&[1, 2, 4]);
        for client in 0..clients {
            let tastes = vec![
                (10.0 * c.unit(), Taste::Known(names)),
                (4.0 * c.unit(), Taste::New),
                (c.unit(), Taste::Absent),
                (c.unit(), Taste::NoData),
                (0.2 * c.unit(), Taste::Bogus),
                (0.2 * c.unit(), Taste::Big),
                (0.3 * c.unit(), Taste::Fleeting),
            ];
            let until = Moment::NEVER;
            self.sources.push(Source {
                client,
                tastes,
                from: BEGINS,
                until,
                per_second: per_second / clients as f64,
            });
        }
    }
}

fn settings(c: &mut Chance) -> GroupSettings {
    let health = HealthSettings {
        every: c.millis(200, 4000),
        timeout: c.millis(100, 1500),
        fall: 1 + c.below(4) as u32,
        rise: 1 + c.below(4) as u32,
        hold: Duration::from_secs_f64(c.pick(&[0.5, 2.0, 5.0, 10.0, 10.0, 30.0])),
        ramp: Duration::from_secs_f64(c.pick(&[0.0, 1.0, 10.0, 10.0, 20.0])),
        damp: c.happens(0.85),
        ..HealthSettings::default()
    };
    let stale = StaleSettings {
        max_age: Duration::from_secs(c.pick(&[0, 20, 600, 86_400, 86_400, 86_400])),
        reply_ttl: c.pick(&[1, 30, 30, 300]),
        patience: if c.happens(0.7) { Patience::Auto } else { Patience::Fixed(c.millis(0, 1800)) },
    };
    let ttl = TtlSettings {
        min: c.pick(&[0, 0, 0, 5]),
        max: c.pick(&[60, 3600, 86_400, 86_400]),
        negative_max: c.pick(&[0, 5, 30, 30]),
    };
    GroupSettings {
        same_view: c.happens(0.1),
        order: c.pick(&[Order::Listed, Order::Latency]),
        deadline: c.millis(500, 5000),
        in_flight_max: c.pick(&[4096, 4096, 4096, 200, 20]),
        per_zone_in_flight_max: c.pick(&[512, 512, 100, 5]),
        hedge: HedgeSettings {
            after: c.happens(0.1).then(|| c.millis(10, 300)),
            budget: c.pick(&[0.3, 0.3, 0.3, 0.0, 1.0]),
        },
        health,
        stale,
        ttl,
        ..GroupSettings::default()
    }
}
