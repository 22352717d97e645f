//! Short worlds by script: each shows one complaint (by its number in the notes) that must not come back.

use std::time::Duration;

use evenkeel::cache::freshness::{Patience, StaleSettings};
use evenkeel::clock::Moment;
use evenkeel::upstream::group::{AskKind, Belief, Change};

use crate::faults::{BEGINS, Faults, Happening, Ill, Source, Spell, Taste};
use crate::message::rtype;
use crate::world::{Event, World};

const MS: fn(u64) -> Duration = Duration::from_millis;
const S: fn(u64) -> Duration = Duration::from_secs;

//------------ A. Stale --------------------------------------------------------------------------------------------------

#[test]
fn complaint_1_in_the_dark_a_known_name_is_stale_at_once() {
    let mut w = warm(&[0, 1, 2]);
    w.ill_on_all(Ill::Silent, S(60));
    w.load(1, Taste::New, 50.0, S(10));
    w.run_for(S(10));
    assert_eq!(w.belief(), Belief::Down);
    let n = w.ask(0, "n2.z2.test", rtype::A);
    assert_eq!(w.got[&n].what, "stale");
    assert!(w.got[&n].after.is_zero());
}

#[test]
fn complaint_2_no_change_of_servers_or_network_empties_the_cache() {
    let mut w = warm(&[0, 1]);
    w.ill(0, Ill::Silent, S(3000));
    w.load(1, Taste::New, 50.0, S(5));
    w.run_for(S(5));
    w.at(w.now, Event::Happens(Happening::Reroute));
    w.run_for(S(1));
    w.ill_on_all(Ill::Silent, S(3000));
    w.load(1, Taste::New, 50.0, S(10));
    w.run_for(S(10));
    let n = w.ask(0, "n2.z2.test", rtype::A);
    w.run_for(S(5));
    assert_eq!(w.got[&n].what, "stale");
}

#[test]
fn complaint_3_the_wait_for_a_fresh_answer_is_bounded_and_the_refresh_goes_on_behind_it() {
    let mut w = warm(&[0]);
    w.ill(0, Ill::Slow(700), S(60));
    w.run_for(S(20));
    let n = w.ask(0, "n2.z2.test", rtype::A);
    w.run_for(S(3));
    assert_eq!((w.got[&n].what.as_str(), w.got[&n].after), ("stale", MS(150)));
    let n = w.ask(0, "n2.z2.test", rtype::A);
    assert_eq!(w.got[&n].what, "fresh", "what came behind the stale answer was kept");
}

#[test]
fn complaint_4_while_all_is_well_nobody_gets_a_stale_answer() {
    let mut w = warm(&[0, 1]);
    w.faults.renumbered = vec![w.now + S(5)];
    w.load(1, Taste::Known(5), 50.0, S(30));
    w.run_for(S(40));
    assert!(w.got.values().all(|g| g.what == "fresh"), "{:?}", w.got.values().find(|g| g.what != "fresh"));
}

#[test]
fn complaint_5_what_is_older_than_max_age_is_served_to_nobody() {
    let stale = StaleSettings { max_age: S(100), ..StaleSettings::default() };
    let mut faults = Faults::none(&[0]);
    faults.settings.stale = stale;
    let mut w = warm_of(faults);
    w.ill(0, Ill::Silent, S(3000));
    w.run_for(S(60));
    let n = w.ask(0, "n2.z2.test", rtype::A);
    w.run_for(S(5));
    assert_eq!(w.got[&n].what, "stale");
    w.run_for(S(400));
    let n = w.ask(0, "n2.z2.test", rtype::A);
    w.run_for(S(5));
    assert_eq!(w.got[&n].what, "SERVFAIL");
}

#[test]
fn complaints_6_and_7_no_kind_of_failure_takes_the_place_of_what_was_good() {
    for ill in [Ill::ServFail, Ill::Refused, Ill::Silent, Ill::Noise, Ill::Cut, Ill::Lame, Ill::TruncatesForGood] {
        let mut w = warm(&[0, 1]);
        w.ill_on_all(ill, S(3000));
        for _ in 0..20 {
            w.run_for(S(13));
            let n = w.ask(0, "n2.z2.test", rtype::A);
            w.run_for(S(5));
            assert_eq!(w.got[&n].what, "stale", "{ill:?}");
        }
    }
}

//------------ B. Bad answers from a healthy server ------------------------------------------------------------------------

#[test]
fn complaint_10_a_lower_tiers_nxdomain_hides_nothing_that_the_primary_gave() {
    let mut w = warm(&[0, 1]);
    w.ill(0, Ill::Silent, S(3000));
    w.ill(1, Ill::OtherView, S(3000));
    w.load(1, Taste::New, 20.0, S(3000));
    for _ in 0..20 {
        w.run_for(S(15));
        let n = w.ask(0, "n2.z2.test", rtype::A);
        w.run_for(S(5));
        assert_eq!(w.got[&n].what, "stale");
    }
}

#[test]
fn complaint_11_a_lower_tiers_denial_does_not_outlive_five_seconds() {
    let mut w = warm(&[0, 1]);
    w.ill(0, Ill::Silent, S(5));
    w.ill(1, Ill::OtherView, S(3000));
    let n = w.ask(0, "u77.z1.test", rtype::A);
    w.run_for(S(4));
    assert_eq!(w.got[&n].what, "NXDOMAIN", "the only answer that there is");
    w.run_for(S(6));
    let n = w.ask(0, "u77.z1.test", rtype::A);
    w.run_for(S(4));
    assert_eq!(w.got[&n].what, "fresh");
}

//------------ C. Health ---------------------------------------------------------------------------------------------------

#[test]
fn complaint_12_one_lost_packet_counts_once_although_two_hundred_wait() {
    let mut w = warm(&[0, 1]);
    w.ill(0, Ill::Silent, MS(5));
    let asked: Vec<u64> = (0..200).map(|_| w.ask(0, "u99.z1.test", rtype::A)).collect();
    w.run_for(S(4));
    assert!(asked.iter().all(|n| w.got[n].what == "fresh"));
    assert!(w.changes.is_empty(), "{:?}", w.changes);
    assert_eq!(w.node.group().tier_in_use(), 0);
}

#[test]
fn complaint_13_a_server_comes_back_also_where_nobody_asks() {
    let mut w = warm(&[0, 1]);
    w.ill(0, Ill::Silent, S(60));
    w.load(1, Taste::New, 50.0, S(10));
    w.run_for(S(10));
    assert_eq!(w.node.group().tier_in_use(), 1);
    w.run_for(S(50) + S(30));
    assert_eq!(w.node.group().tier_in_use(), 0);
}

#[test]
fn complaint_14_servfail_to_every_probe_takes_no_server_away() {
    let mut w = warm(&[0, 1]);
    w.ill_on_all(Ill::ServFail, S(100));
    w.run_for(S(100));
    assert!(!w.changes.iter().any(|c| matches!(c.1, Change::Down(..))), "{:?}", w.changes);
}

#[test]
fn complaint_15_a_server_that_fails_is_passed_over_and_one_that_fails_one_name_is_not() {
    let mut w = warm(&[0, 1]);
    for _ in 0..200 {
        w.ask(0, "b1.bogus0.test", rtype::A);
        w.run_for(MS(50));
    }
    assert!(w.changes.is_empty(), "{:?}", w.changes);
    w.ill(0, Ill::ServFail, S(20));
    let begun = w.now;
    // One client alone of several would convict nobody.
    [1, 4, 5].into_iter().for_each(|client| w.load(client, Taste::New, 20.0, S(10)));
    w.run_for(S(10));
    let down = w.changes.iter().find(|c| matches!(c.1, Change::Down(id, _) if id.0 == 0)).expect("convicted");
    assert!(down.0.since(begun) <= S(1), "within a second under load: {:?}", down.0.since(begun));
}

#[test]
fn complaint_16_a_gray_server_does_not_come_back_by_passing_probes() {
    let mut w = warm(&[0, 1]);
    w.ill(0, Ill::Gray, S(120));
    w.load(1, Taste::New, 50.0, S(120));
    w.run_for(S(119));
    let shifts: Vec<_> = w.changes.iter().filter(|c| matches!(c.1, Change::Shift(_))).collect();
    assert_eq!(shifts.len(), 1, "{shifts:?}");
}

#[test]
fn complaint_17_start_waits_for_nobody_and_the_primary_is_returned_to() {
    let mut w = World::new(Faults::none(&[0, 1]));
    let n = w.ask(0, "n2.z2.test", rtype::A);
    w.run_for(S(1));
    assert_eq!((w.got[&n].what.as_str(), w.got[&n].after), ("fresh", MS(2)));
    w.ill(0, Ill::NoRoute, S(20));
    w.load(1, Taste::New, 50.0, S(60));
    w.run_for(S(10));
    assert_eq!(w.node.group().tier_in_use(), 1, "send errors are failures");
    w.run_for(S(10) + S(20));
    assert_eq!(w.node.group().tier_in_use(), 0);
}

#[test]
fn complaint_18_penalties_do_not_outlast_a_long_outage() {
    let mut w = warm(&[0]);
    w.ill(0, Ill::Silent, S(7200));
    w.load(1, Taste::New, 1.0, S(9000));
    w.run_for(S(7200));
    w.run_for(S(3));
    let n = w.ask(0, "u1.z1.test", rtype::A);
    w.run_for(S(1));
    assert_eq!(w.got[&n].what, "fresh");
}

#[test]
fn complaint_18_what_the_network_did_before_it_changed_counts_no_more() {
    let mut w = warm(&[0, 1]);
    let flapping =
        Spell { from: w.now, until: w.now + S(600), ill: Ill::Silent, share: 1.0, period: Some((S(10), S(20))) };
    w.faults.servers[0].spells.push(flapping);
    w.load(1, Taste::New, 50.0, S(700));
    w.run_for(S(600));
    w.faults.servers[0].spells.clear();
    assert!(w.node.group().hold(w.now) > S(10), "flaps have their price");
    w.at(w.now, Event::Happens(Happening::Reroute));
    w.run_for(S(15));
    assert_eq!(w.node.group().hold(w.now), S(10));
    assert_eq!(w.node.group().tier_in_use(), 0);
}

#[test]
fn complaint_19_one_good_probe_does_not_bring_a_server_back() {
    let mut w = warm(&[0, 1]);
    w.ill(0, Ill::Silent, S(20));
    w.load(1, Taste::New, 50.0, S(60));
    w.run_for(S(22));
    assert_eq!(w.node.group().tier_in_use(), 1, "two seconds are not enough");
    w.run_for(S(30));
    assert_eq!(w.node.group().tier_in_use(), 0);
}

//------------ D, E. Slow servers, storms ----------------------------------------------------------------------------------

#[test]
fn complaint_20_a_dead_primary_costs_one_hedge_delay_and_then_nothing() {
    let mut w = warm(&[0, 1]);
    w.ill(0, Ill::Silent, S(60));
    w.load(1, Taste::New, 50.0, S(10));
    let first = w.ask(0, "u1.z1.test", rtype::A);
    w.run_for(S(5));
    assert!(w.got[&first].after <= MS(25), "{:?}", w.got[&first]);
    let later = w.ask(0, "u2.z1.test", rtype::A);
    w.run_for(S(1));
    assert_eq!(w.got[&later].after, MS(2));
}

#[test]
fn complaint_21_behind_silent_servers_little_is_kept_waiting() {
    let mut w = warm(&[0]);
    w.ill(0, Ill::Silent, S(60));
    w.load(1, Taste::New, 500.0, S(10));
    w.run_for(S(8));
    assert!(w.node.group().bulkhead().in_flight() <= 64, "{}", w.node.group().bulkhead().in_flight());
}

#[test]
fn complaint_22_a_refusal_by_our_own_limit_is_not_remembered_and_permits_come_back() {
    let mut faults = Faults::none(&[0]);
    faults.settings.in_flight_max = 5;
    let mut w = warm_of(faults);
    w.ill(0, Ill::Slow(250), S(1));
    let asked: Vec<u64> = (0..10).map(|i| w.ask(0, &format!("u{i}.z1.test"), rtype::A)).collect();
    let refused: Vec<_> = asked.iter().filter(|n| w.got.get(n).is_some_and(|g| g.what == "SERVFAIL")).collect();
    assert_eq!(refused.len(), 5);
    w.run_for(S(2));
    let n = w.ask(0, "u9.z1.test", rtype::A);
    w.run_for(S(2));
    assert_eq!(w.got[&n].what, "fresh");
    assert_eq!(w.node.group().bulkhead().in_flight(), 0);
}

#[test]
fn complaint_23_a_failing_group_multiplies_nothing() {
    let mut w = warm(&[0, 1, 2]);
    w.ill_on_all(Ill::ServFail, S(60));
    let before = (w.totals.asked, w.totals.upstream);
    w.load(1, Taste::New, 200.0, S(30));
    w.run_for(S(30));
    let (asked, upstream) = (w.totals.asked - before.0, w.totals.upstream - before.1);
    let most = asked as f64 * 1.3 + 50.0 * 30.0 + 20.0 + 3.0 * 60.0;
    assert!((upstream as f64) < most, "{upstream} upstream for {asked}");
}

#[test]
fn complaint_24_a_limit_of_packets_binds_every_kind_of_question() {
    let mut faults = Faults::none(&[0, 1]);
    faults.servers[0].packets_per_second = 50;
    faults.place_servers();
    let mut w = warm_of(faults);
    w.load(1, Taste::New, 200.0, S(10));
    w.run_for(S(10));
    let sent: u64 = w.node.group().servers()[0].asked().iter().sum();
    assert!(sent <= 50 * 25, "{sent}");
}

#[test]
fn complaint_25_a_herd_of_stale_names_comes_back_at_a_bounded_rate() {
    let mut w = warm(&[0]);
    for i in 0..300 {
        w.ask(0, &format!("n{i}.z{}.test", i % 7), rtype::A);
        w.run_for(MS(5));
    }
    w.ill(0, Ill::Silent, S(120));
    w.load(1, Taste::Known(300), 100.0, S(200));
    w.run_for(S(120));
    let before = w.totals.upstream;
    w.run_for(S(1));
    assert!(w.totals.upstream - before < 400, "{}", w.totals.upstream - before);
}

//------------ Ahead of the end ----------------------------------------------------------------------------------------

/// A name whose TTL is a minute.
const POPULAR: &str = "n1.z1.test";

#[test]
fn a_popular_name_is_never_waited_for_again_and_costs_little_more_than_before() {
    let mut w = warm(&[0, 1]);
    let before = w.live_questions();
    for second in 0..3600 {
        let n = w.ask(0, POPULAR, rtype::A);
        w.run_for(S(1));
        let got = &w.got[&n];
        assert!(got.what == "fresh" && (second == 0 || got.after.is_zero()), "{second}: {got:?}");
    }
    let asked = w.live_questions() - before;
    assert!((60..=82).contains(&asked), "{asked} questions in 60 TTLs");
}

#[test]
fn a_name_that_is_asked_for_once_in_two_ttls_is_not_kept_alive() {
    let mut w = warm(&[0, 1]);
    for _ in 0..30 {
        let before = w.live_questions();
        w.ask(0, POPULAR, rtype::A);
        w.run_for(S(120));
        assert_eq!(w.live_questions() - before, 1);
    }
}

#[test]
fn behind_a_cache_a_popular_name_is_asked_for_at_most_twice_a_ttl_and_mostly_once() {
    let mut faults = Faults::none(&[0, 1]);
    faults.servers_are_caches = true;
    let mut w = warm_of(faults);
    let before = w.live_questions();
    for _ in 0..60 {
        let before = w.live_questions();
        for _ in 0..60 {
            let n = w.ask(0, POPULAR, rtype::A);
            w.run_for(S(1));
            assert_eq!(w.got[&n].what, "fresh");
        }
        assert!(w.live_questions() - before <= 2);
    }
    let asked = w.live_questions() - before;
    assert!(asked <= 70, "{asked} questions in 60 TTLs");
}

#[test]
fn what_fails_ahead_of_the_end_leaves_the_answer_fresh() {
    let mut w = warm(&[0]);
    w.ask(0, POPULAR, rtype::A);
    w.run_for(S(40));
    w.ill(0, Ill::ServFail, S(300));
    let mut whats = vec![];
    for _ in 0..30 {
        let n = w.ask(0, POPULAR, rtype::A);
        w.run_for(S(1));
        whats.push(w.got[&n].what.clone());
    }
    let fresh = whats.iter().position(|w| w == "stale").unwrap();
    assert!((19..=21).contains(&fresh), "{whats:?}");
    assert!(whats[fresh..].iter().all(|w| w == "stale"), "{whats:?}");
}

//------------ F, G. Families, loops ---------------------------------------------------------------------------------------

#[test]
fn complaint_27_where_ipv6_leads_nowhere_its_servers_are_left_out_together() {
    let mut faults = Faults::none(&[0, 0, 1, 2]);
    (0..3).for_each(|i| faults.servers[i].v6 = true);
    faults.place_servers();
    let mut w = warm_of(faults);
    (0..3).for_each(|i| w.ill(i, Ill::Silent, S(60)));
    w.load(1, Taste::New, 50.0, S(20));
    w.run_for(S(20));
    let broken = w.changes.iter().find(|c| c.1 == Change::FamilyBroken(true)).expect("IPv6 is broken");
    assert!(broken.0.since(BEGINS) < S(20));
    let n = w.ask(0, "u5.z1.test", rtype::A);
    w.run_for(S(1));
    assert_eq!(w.got[&n].after, MS(2));
}

#[test]
fn complaint_30_a_server_that_leads_back_here_is_left_out_and_nothing_ends_for_it() {
    let mut faults = Faults::none(&[0, 1]);
    let spell = Spell { from: BEGINS, until: BEGINS + S(100), ill: Ill::Loops, share: 1.0, period: None };
    faults.servers[0].spells.push(spell);
    faults.heals_at = BEGINS + S(100);
    let mut w = World::new(faults);
    w.run_for(S(2));
    let n = w.ask(0, "u5.z1.test", rtype::A);
    w.run_for(S(1));
    assert_eq!((w.got[&n].what.as_str(), w.got[&n].after), ("fresh", MS(2)));
    assert_eq!(w.node.group().servers()[0].state().0, "loops");
    w.run_for(S(200));
    assert_eq!(w.node.group().tier_in_use(), 0, "taken back once it does so no more");
}

#[test]
fn asleep_for_hours_nothing_is_down_and_what_was_known_is_served() {
    let mut w = warm(&[0, 1]);
    w.at(w.now + S(1), Event::Happens(Happening::Sleep(S(20_000))));
    w.run_until(w.now + S(20_003));
    let n = w.ask(0, "n2.z2.test", rtype::A);
    w.run_for(S(1));
    assert_eq!(w.got[&n].what, "fresh");
    assert!(!w.changes.iter().any(|c| matches!(c.1, Change::Down(..) | Change::Dark)), "{:?}", w.changes);
}

#[test]
fn a_clock_that_jumps_makes_everything_due_and_drops_nothing() {
    let mut w = warm(&[0]);
    w.ill(0, Ill::Silent, S(100));
    w.at(w.now, Event::Happens(Happening::Jump));
    w.run_for(S(2));
    let n = w.ask(0, "n2.z2.test", rtype::A);
    w.run_for(S(3));
    assert_eq!(w.got[&n].what, "stale");
}

//------------ The worlds --------------------------------------------------------------------------------------------------

/// A world in which every server has answered and `n2.z2.test` is known.
fn warm(tiers: &[usize]) -> World {
    warm_of(Faults::none(tiers))
}

fn warm_of(mut faults: Faults) -> World {
    faults.heals_at = Moment::from_secs(1 << 30);
    if faults.settings.stale == StaleSettings::default() {
        faults.settings.stale.patience = Patience::Fixed(MS(150));
    }
    let mut w = World::new(faults);
    for n in 0..20 {
        w.ask(0, &format!("u{}.z{}.test", 9000 + n, n % 7), rtype::A);
        w.run_for(MS(20));
    }
    w.ask(0, "n2.z2.test", rtype::A);
    w.run_for(MS(100));
    w
}

impl World {
    fn ill(&mut self, server: usize, ill: Ill, span: Duration) {
        let spell = Spell { from: self.now, until: self.now + span, ill, share: 1.0, period: None };
        self.faults.servers[server].spells.push(spell);
    }

    fn ill_on_all(&mut self, ill: Ill, span: Duration) {
        (0..self.faults.servers.len()).for_each(|server| self.ill(server, ill, span));
    }

    fn load(&mut self, client: usize, taste: Taste, per_second: f64, span: Duration) {
        let source =
            Source { client, tastes: vec![(1.0, taste)], from: self.now, until: self.now + span, per_second };
        self.faults.sources.push(source);
        self.at(self.now, Event::Asks(self.faults.sources.len() - 1));
    }

    /// Questions to servers that are no probes.
    fn live_questions(&self) -> u64 {
        let kinds = AskKind::ALL.iter().enumerate().filter(|(_, kind)| **kind != AskKind::Probe);
        let servers = self.node.group().servers();
        kinds.flat_map(|(n, _)| servers.iter().map(move |s| s.asked()[n])).sum()
    }

    fn belief(&self) -> Belief {
        self.node.group().belief()
    }
}

impl Drop for World {
    /// Every case keeps every rule.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.rules.broken(), None);
        }
    }
}
