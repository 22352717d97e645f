//! The door as a function from bytes to bytes: what is in the cache, what is asked, what comes out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::admit::{AdmitSettings, Allowed, OwnNetworks};
use super::local::LocalSettings;
use super::*;
use crate::cache::entry::{Failure, Kind, Packed};
use crate::cache::freshness::Freeze;
use crate::cache::guard::GuardSettings;
use crate::cache::key::Keys;
use crate::cache::store::{MapStore, Store};
use crate::observe::metrics::Meters;
use crate::upstream::{Group, GroupSettings, ServerId, ServerSettings};
use crate::wire::{Name, edns, flag, reply};

const NAME: &[u8] = b"\x03www\x07example\x00";
const STAMP: GroupStamp = GroupStamp(1);
const TTL: u32 = 60;
/// Longer than `max_age`.
const HOLD: u64 = 172_800;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn a_fresh_answer_is_given_and_an_unknown_name_is_open() {
    let world = World::healthy();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    assert_eq!(world.ask(10, &Ask::default()), "NOERROR 1 ttl 50");
    assert_eq!(world.ask(10, &Ask { name: b"\x01x\x00", ..Ask::default() }), "open");
}

#[test]
fn past_its_ttl_an_answer_waits_for_patience_while_the_group_is_healthy() {
    let world = World::healthy();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    assert_eq!(world.ask(59, &Ask::default()), "NOERROR 1 ttl 1");
    assert_eq!(world.ask(60, &Ask::default()), "open, stale after 150 ms");
    assert_eq!(world.ask(60 + 301, &Ask::default()), "open, stale after 1800 ms");
}

#[test]
fn in_the_dark_the_stale_answer_goes_out_at_once_and_the_name_is_asked_again_every_30_seconds() {
    for (kind, want) in [
        (Kind::Positive, "NOERROR 1 ttl 30 ede 3"),
        (Kind::NoData, "NOERROR 0 ttl 30 ede 3"),
        (Kind::NxDomain, "NXDOMAIN 0 ttl 30 ede 19"),
    ] {
        let world = World::untried();
        world.know(kind, Bits::NONE, STAMP);
        assert_eq!(world.ask(100, &Ask::default()), format!("{want}, open"), "{kind:?}");
        assert_eq!(world.ask(129, &Ask::default()), want, "{kind:?}");
        // Up to a tenth later, so that what went stale together does not come back together.
        assert_eq!(world.ask(133, &Ask::default()), format!("{want}, open"), "{kind:?}");
    }
}

#[test]
fn older_than_max_age_nothing_is_served() {
    let world = World::untried();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    assert_eq!(world.ask(60 + 86_399, &Ask::default()), "NOERROR 1 ttl 30 ede 3, open");
    assert_eq!(world.ask(60 + 86_400, &Ask::default()), "open");
}

#[test]
fn a_remembered_failure_gives_the_stale_answer_at_once_or_servfail_and_asks_nobody() {
    let world = World::healthy();
    world.fail(Bits::NONE);
    assert_eq!(world.ask(1, &Ask::default()), "SERVFAIL 0 ede 13 22");
    assert_eq!(world.ask(5, &Ask::default()), "open", "it is forgotten at its end");
    world.know(Kind::Positive, Bits::NONE, STAMP);
    world.fail(Bits::NONE);
    assert_eq!(world.ask(1, &Ask::default()), "NOERROR 1 ttl 59", "a failure never shadows what is fresh");
    let old = World::healthy();
    old.know(Kind::Positive, Bits::NONE, STAMP);
    old.fail_until(Bits::NONE, 100);
    assert_eq!(old.ask(70, &Ask::default()), "NOERROR 1 ttl 30 ede 3");
}

//------------ Ahead of the end --------------------------------------------------------------------------------------

#[test]
fn a_name_that_is_asked_twice_near_its_end_is_asked_again_once_behind_the_fresh_answer() {
    let world = World::healthy();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    let seen = [1, 2, 44, 55, 56, 57].map(|s| world.ask(s, &Ask::default()));
    let want = ["ttl 59", "ttl 58", "ttl 16", "ttl 5", "ttl 4, open", "ttl 3"].map(|w| format!("NOERROR 1 {w}"));
    assert_eq!(seen, want);
}

#[test]
fn what_is_opened_ahead_says_so_and_bears_the_answer_that_it_had() {
    let world = World::healthy();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    let mut out = [0; 1232];
    let Outcome::Reply(_) = world.serve(55, &Ask::default(), &mut out) else { panic!("the first hit only marks") };
    let Outcome::ReplyAndOpen(_, opening) = world.serve(56, &Ask::default(), &mut out) else { panic!("not opened") };
    assert!(opening.ahead && opening.stale.is_some() && opening.stale_at == Moment::NEVER);
}

#[test]
fn nothing_is_asked_ahead_in_doubt_nor_without_recursion_nor_of_what_does_not_exist_nor_where_it_is_off() {
    let asked = Ask::default();
    for (what, mut world, kind, ask) in [
        ("in doubt", World::untried(), Kind::Positive, &asked),
        ("without recursion", World::healthy(), Kind::Positive, &Ask { rd: false, ..Ask::default() }),
        ("NXDOMAIN", World::healthy(), Kind::NxDomain, &asked),
        ("off", World::healthy(), Kind::Positive, &asked),
    ] {
        Arc::get_mut(&mut world.policy).unwrap().refresh_ahead = what != "off";
        world.know(kind, Bits::NONE, STAMP);
        for at in 55..60 {
            assert!(!world.ask(at, ask).contains("open"), "{what}");
        }
    }
}

#[test]
fn a_front_cache_sees_it_too() {
    let world = World::healthy();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    let front = Some(Front::new(1 << 20, 1));
    let mut door = Door::new(world.policy.clone(), world.cache.clone(), front, Meters::default().own());
    let client = Client { address: LOOPBACK, transport: Transport::Udp };
    let packet = build::question(NAME, 1, false, false, true);
    let opened = |s| matches!(door.serve(&packet, client, &mut [0; 1232], at(s)), Outcome::ReplyAndOpen(..));
    assert_eq!([1, 55, 56, 57].map(opened), [false, false, true, false]);
}

#[test]
fn a_failure_to_ask_ahead_leaves_the_answer_fresh() {
    let world = World::healthy();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    assert_eq!([55, 56].map(|s| world.ask(s, &Ask::default())), ["NOERROR 1 ttl 5", "NOERROR 1 ttl 4, open"]);
    world.fail_until(Bits::NONE, 58);
    assert_eq!(world.ask(57, &Ask::default()), "NOERROR 1 ttl 3");
    assert_eq!(world.ask(60, &Ask::default()), "open, stale after 150 ms");
}

//------------ What a guard holds ------------------------------------------------------------------------------------

#[test]
fn what_is_held_goes_out_at_once_whatever_its_age_and_is_asked_again_every_half_minute() {
    let world = World::healthy();
    world.hold(STAMP);
    for (at, opens) in [(60, true), (89, false), (94, true), (100_000, true), (100_001, false)] {
        let want = format!("NOERROR 1 ttl 30 ede 3{}", if opens { ", open" } else { "" });
        assert_eq!(world.ask(at, &Ask::default()), want, "{at}");
    }
    let mut out = [0; 1232];
    world.serve(100_002, &Ask::default(), &mut out);
    assert!(out.windows(15).any(|w| w == b"last known good"), "it says why");
    assert_eq!(world.ask(HOLD, &Ask::default()), "open", "it is over");
}

#[test]
fn what_is_held_is_served_though_the_cache_has_lost_it_and_never_for_another_group() {
    let (world, lost) = (World::healthy(), World::healthy());
    world.hold(STAMP);
    lost.guard();
    for known in world.cache.guards().all() {
        assert!(lost.cache.guards().restore(lost.cache.key(&Bits::NONE.question()), known, at(100)));
    }
    assert_eq!(lost.ask(100, &Ask::default()), "NOERROR 1 ttl 30 ede 3, open");
    let other = World::healthy();
    other.hold(GroupStamp(9));
    assert_eq!(other.ask(100, &Ask::default()), "open, stale after 150 ms");
}

#[test]
fn in_a_freeze_what_could_be_served_when_it_began_is_served_to_its_end() {
    let world = World::untried();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    world.cache.set_freeze(Some(Freeze { since: at(86_000), until: at(100_000) }));
    assert_eq!(world.ask(99_999, &Ask::default()), "NOERROR 1 ttl 30 ede 3, open");
    assert_eq!(world.ask(100_000, &Ask::default()), "open");
}

//------------ Whose answer ------------------------------------------------------------------------------------------

// A review found it: upstreams that deny and then fall silent took a held name away.
#[test]
fn what_a_guard_holds_is_given_whatever_the_cache_has_of_it() {
    let world = World::healthy();
    let guard = |names: &[&str]| {
        let names = names.iter().map(|n| n.parse().unwrap()).collect();
        world.cache.guards().set(&[GuardSettings {
            names,
            hold: Duration::from_secs(3600),
            min_good: Duration::ZERO,
        }]);
    };
    guard(&["www.example"]);
    world.know(Kind::Positive, Bits::NONE, STAMP);
    let question = Question { name: NAME, qtype: 1, dnssec_ok: false, cd: false };
    world.cache.guards().hold(world.cache.key(&question), &question, at(61));
    assert_eq!(world.ask(62, &Ask::default()), "NOERROR 1 ttl 30 ede 3, open");
    assert_eq!(world.ask(63, &Ask::default()), "NOERROR 1 ttl 30 ede 3", "it is asked every half minute");
    world.fail_until(Bits::NONE, 1000);
    assert_eq!(world.ask(100, &Ask::default()), "NOERROR 1 ttl 30 ede 3, open");
    let lost = |e: &Entry| e.name() == NAME;
    world.store.remove_if(&lost);
    world.fail_until(Bits::NONE, 1000);
    assert_eq!(world.ask(140, &Ask::default()), "NOERROR 1 ttl 30 ede 3, open", "a failure alone is in the cache");
    let unchecked = Ask { cd: true, ..Ask::default() };
    assert_eq!(world.ask(141, &unchecked), "NOERROR 1 ttl 30 ede 3");
    guard(&[]);
    assert_eq!(world.ask(142, &Ask::default()), "SERVFAIL 0 ede 13 22");
}

#[test]
fn of_another_groups_answers_the_negative_are_void_and_the_positive_expired() {
    for (kind, want) in [(Kind::Positive, "open, stale after 150 ms"), (Kind::NxDomain, "open")] {
        let world = World::healthy();
        world.know(kind, Bits::NONE, GroupStamp(9));
        assert_eq!(world.ask(1, &Ask::default()), want, "{kind:?}");
    }
}

#[test]
fn another_groups_answer_goes_out_as_stale_though_its_ttl_is_not_over() {
    let world = World::untried();
    world.know(Kind::Positive, Bits::NONE, GroupStamp(9));
    assert_eq!(world.ask(1, &Ask::default()), "NOERROR 1 ttl 30 ede 3, open");
}

#[test]
fn do_and_cd_keep_answers_apart_but_validated_data_may_serve_cd_once_it_is_stale() {
    let signed = Ask { dnssec_ok: true, ..Ask::default() };
    let unchecked = Ask { cd: true, ..Ask::default() };
    let world = World::healthy();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    assert_eq!(world.ask(1, &signed), "open", "DO=0 never serves DO=1");
    assert_eq!(world.ask(70, &unchecked), "open, stale after 150 ms");
    let world = World::healthy();
    world.know(Kind::Positive, Bits { dnssec_ok: false, cd: true }, STAMP);
    assert_eq!(world.ask(70, &Ask::default()), "open", "CD=1 data never serves CD=0");
    assert_eq!(world.ask(1, &unchecked), "NOERROR 1 ttl 59");
}

#[test]
fn without_recursion_only_what_is_fresh_is_given() {
    let world = World::untried();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    let ask = Ask { rd: false, ..Ask::default() };
    assert_eq!(world.ask(1, &ask), "NOERROR 1 ttl 59");
    assert_eq!(world.ask(60, &ask), "REFUSED 0 ede 20");
}

#[test]
fn what_is_never_forwarded_is_answered_here() {
    let world = World::healthy();
    for (qtype, want) in [
        (rtype::OPT, "FORMERR, header only"),
        (rtype::AXFR, "REFUSED 0"),
        (rtype::IXFR, "REFUSED 0"),
        (249, "REFUSED 0"),
        (254, "REFUSED 0"),
        (rtype::ANY, "NOERROR 1 ttl 3600"),
        (248, "open"),
        (256, "open"),
        (65_400, "open"),
    ] {
        assert_eq!(world.ask(1, &Ask { qtype, ..Ask::default() }), want, "{qtype}");
    }
    assert_eq!(world.ask(1, &Ask { class: 3, ..Ask::default() }), "REFUSED 0");
}

#[test]
fn who_may_not_ask_is_refused_with_its_reason() {
    let world = World::healthy();
    let ask = Ask { from: "192.0.2.1".parse().unwrap(), ..Ask::default() };
    assert_eq!(world.ask(1, &ask), "REFUSED 0 ede 18");
}

#[test]
fn what_the_wall_clock_jumped_over_is_due_and_still_served() {
    let world = World::healthy();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    world.cache.make_due(Moment::from_secs(1010));
    assert_eq!(world.ask(11, &Ask::default()), "open, stale after 150 ms");
}

#[test]
fn ad_reaches_who_understands_it_and_no_other() {
    let world = World::healthy();
    world.know(Kind::Positive, Bits::NONE, STAMP);
    for (ad, want) in [(true, true), (false, false)] {
        let mut out = [0; 1232];
        let ask = Ask { ad, ..Ask::default() };
        let Outcome::Reply(_) = world.serve(1, &ask, &mut out) else { panic!("no reply") };
        let flags = u16::from_be_bytes([out[2], out[3]]);
        assert_eq!(flags & flag::AD != 0, want);
        assert_eq!(flags & flag::AA, 0);
        assert_ne!(flags & flag::RA, 0);
    }
}

//------------ The world ---------------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
struct Bits {
    dnssec_ok: bool,
    cd: bool,
}

impl Bits {
    const NONE: Bits = Bits { dnssec_ok: false, cd: false };

    fn question(self) -> Question<'static> {
        Question { name: NAME, qtype: 1, dnssec_ok: self.dnssec_ok, cd: self.cd }
    }
}

struct Ask {
    name: &'static [u8],
    qtype: u16,
    class: u16,
    rd: bool,
    ad: bool,
    cd: bool,
    dnssec_ok: bool,
    from: IpAddr,
}

impl Default for Ask {
    fn default() -> Self {
        Self { name: NAME, qtype: 1, class: 1, rd: true, ad: false, cd: false, dnssec_ok: false, from: LOOPBACK }
    }
}

struct World {
    cache: Arc<Cache>,
    store: Arc<MapStore>,
    policy: Arc<Policy>,
}

impl World {
    /// The group has answered.
    fn healthy() -> Self {
        let mut group = group();
        group.on_sent(ServerId(0), crate::upstream::group::AskKind::First, Moment::ZERO);
        group.on_reply(ServerId(0), Duration::from_millis(1), true, Moment::ZERO);
        Self::over(&group)
    }

    /// Nothing has come from the group since the start.
    fn untried() -> Self {
        Self::over(&group())
    }

    fn over(group: &Group) -> Self {
        let outlook = Arc::new(Outlook::default());
        outlook.publish(group);
        let admit = AdmitSettings {
            allow: vec![Allowed::Loopback],
            client_prefix: (32, 56),
            queries_per_second: 0,
            in_flight_per_client: 256,
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
                outlook,
            }],
            rotate: true,
            refresh_ahead: true,
        };
        let store = Arc::new(MapStore::default());
        let cache = Cache::new(store.clone(), Keys::new([1; 16]));
        Self { cache: Arc::new(cache), store, policy: Arc::new(policy) }
    }

    fn know(&self, kind: Kind, bits: Bits, group: GroupStamp) {
        let question = bits.question();
        let data = Data::new(packed(kind), 0, group, at(0));
        let entry = Arc::new(Entry::with_data(&question, data));
        self.cache.keep(self.cache.key(&question), &question, entry, Duration::from_secs(86_400), at(0));
    }

    fn guard(&self) {
        let hold = Duration::from_secs(HOLD);
        let names = vec!["www.example".parse().unwrap()];
        self.cache.guards().set(&[GuardSettings { names, hold, min_good: Duration::ZERO }]);
    }

    /// Knows the name, and holds it from the moment 0 on.
    fn hold(&self, group: GroupStamp) {
        self.guard();
        self.know(Kind::Positive, Bits::NONE, group);
        let question = Bits::NONE.question();
        self.cache.guards().hold(self.cache.key(&question), &question, at(0));
    }

    fn fail(&self, bits: Bits) {
        self.fail_until(bits, 5);
    }

    fn fail_until(&self, bits: Bits, seconds: u64) {
        let question = bits.question();
        let failure = Failure {
            until: at(seconds),
            group: STAMP,
            count: 1,
            healings: self.policy.groups[0].outlook.healings(),
            ede: 22,
            kept_edes: edns::with_code(22, &[]),
        };
        self.cache.fail(self.cache.key(&question), &question, failure);
    }

    fn serve(&self, seconds: u64, ask: &Ask, out: &mut [u8]) -> Outcome<Box<Opening>> {
        let mut packet = build::question(ask.name, ask.qtype, ask.dnssec_ok, ask.cd, true);
        packet[2] = ask.rd.into();
        packet[3] = packet[3] & !0x20 | if ask.ad { 0x20 } else { 0 };
        packet[12 + ask.name.len() + 3] = ask.class as u8;
        let client = Client { address: ask.from, transport: Transport::Udp };
        let mut door = Door::new(self.policy.clone(), self.cache.clone(), None, Meters::default().own());
        door.serve(&packet, client, out, at(seconds))
    }

    /// Asks so many seconds after the answer was stored, and shows what comes out.
    fn ask(&self, seconds: u64, ask: &Ask) -> String {
        let mut out = [0; 1232];
        let now = at(seconds);
        match self.serve(seconds, ask, &mut out) {
            Outcome::Reply(n) => shown(&out[..n]),
            Outcome::ReplyAndOpen(n, _) => format!("{}, open", shown(&out[..n])),
            Outcome::Drop => "silence".into(),
            Outcome::Open(o) if o.stale.is_some() => {
                format!("open, stale after {} ms", now.until(o.stale_at).as_millis())
            }
            Outcome::Open(_) => "open".into(),
        }
    }
}

fn at(seconds: u64) -> Moment {
    Moment::from_secs(1000 + seconds)
}

fn shown(packet: &[u8]) -> String {
    if packet.len() == 12 {
        return format!("{}, header only", rcode::word(u16::from(packet[3] & 15)));
    }
    let reply = reply::check(packet).expect("what goes out is whole");
    let ttl = reply.records().first().map_or(String::new(), |r| format!(" ttl {}", reply.ttl(r)));
    let edes: Vec<String> = edns::ede_codes(reply.options()).map(|c| c.to_string()).collect();
    let edes = if edes.is_empty() { String::new() } else { format!(" ede {}", edes.join(" ")) };
    format!("{} {}{ttl}{edes}", rcode::word(reply.rcode()), reply.answers().len())
}

/// One A record, or a SOA.
fn packed(kind: Kind) -> Packed {
    let negative = kind.is_negative();
    let code = if kind == Kind::NxDomain { 3 } else { 0 };
    let mut wire = vec![0, 0, 0, 0x20 | code, 0, 1, 0, u8::from(!negative), 0, u8::from(negative), 0, 0];
    wire.extend(NAME);
    wire.extend([0, 1, 0, 1]);
    let data = if negative { build::negative_soa(TTL).to_vec() } else { vec![192, 0, 2, 1] };
    wire.extend([0xc0, 12, 0, if negative { 6 } else { 1 }, 0, 1]);
    let ttl_at = vec![wire.len() as u16];
    wire.extend(TTL.to_be_bytes());
    wire.extend((data.len() as u16).to_be_bytes());
    wire.extend(data);
    let (rotation, kept_edes, signed_until) = (None, [].into(), Moment::NEVER);
    Packed { wire, ttl_at, rotation, kept_edes, kind, good: !negative, ttl: TTL, signed_until }
}

fn group() -> Group {
    let server = ServerSettings::at(([192, 0, 2, 53], 53).into());
    let settings = GroupSettings { tiers: [vec![server], vec![], vec![]], ..GroupSettings::default() };
    Group::new(settings, Moment::ZERO)
}
