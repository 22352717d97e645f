//! Clients beside a client: a flood under a dead zone, and a tenant whose zones fail, are no reason for others to wait,
//! to get old answers, or to be moved to other servers.

use std::thread;
use std::time::Duration;

use crate::support::client::{Load, Sample};
use crate::support::daemon::{Daemon, tiers};
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{quiet, wait_for};

const RIGHT: [[u8; 4]; 1] = [[192, 0, 2, 1]];
const STALE: u16 = 3;

/// Names below `test.` stay, those below `brief.` run out all the time.
fn zone() -> Zone {
    Zone::new(".").any_below("test.", 60, "192.0.2.1").any_below("brief.", 1, "192.0.2.1")
}

fn three() -> (Daemon, [Upstream; 3]) {
    let servers = [(); 3].map(|()| Upstream::new(zone()));
    let [a, b, c] = servers.each_ref().map(|s| [s.address()]);
    (Daemon::start(&tiers(&[&a, &b, &c], "deadline = \"1s\"\n")), servers)
}

/// All loads at once.
fn together(loads: Vec<(Load, Vec<String>)>) -> Vec<Vec<Sample>> {
    thread::scope(|scope| {
        let running: Vec<_> = loads.into_iter().map(|(load, names)| scope.spawn(move || load.ask(names))).collect();
        running.into_iter().map(|l| l.join().unwrap()).collect()
    })
}

fn spread(batch: &str, count: u32, zone: &str) -> Vec<String> {
    (0..count).map(|n| format!("{batch}{n}.z{n}.{zone}")).collect()
}

fn all_right_and_none_stale(what: &str, samples: &[Sample]) {
    for sample in samples {
        let reply = sample.reply.as_ref().unwrap_or_else(|| panic!("{what}: {} got no answer", sample.name));
        assert_eq!(reply.addresses(), RIGHT, "{what}: {} {reply:?}", sample.name);
        assert!(!reply.edes().contains(&STALE), "{what}: {} is stale", sample.name);
    }
}

// complaints 21 and 22: what waits for a dead zone takes the room of everything else.
#[test]
fn a_flood_under_a_dead_zone_costs_others_no_answer_and_moves_nobody() {
    let _quiet = quiet();
    let (daemon, servers) = three();
    servers.iter().for_each(|s| s.behave_below("dead.test.", Behaviour::Silent));
    let load = Load::on(daemon.address());
    all_right_and_none_stale("before", &load.ask(spread("known", 50, "test.")));
    let before = daemon.metric("evenkeel_tier_shifts_total");
    let resident = daemon.resident();
    let flood = (0..2000).map(|n| format!("r{n}.dead.test.")).collect();
    let samples = together(vec![
        (load.from(9).per_second(1000), flood),
        (load.from(2), spread("new", 200, "test.")),
        (load.from(3), [spread("known", 50, "test."), spread("known", 50, "test.")].concat()),
    ]);
    all_right_and_none_stale("new names", &samples[1]);
    all_right_and_none_stale("known names", &samples[2]);
    let told = samples[0].iter().filter(|s| s.reply.is_some()).count();
    assert_eq!(told, samples[0].len(), "each question of the flood is answered too, if only by SERVFAIL");
    assert_eq!(daemon.metric("evenkeel_tier_shifts_total"), before, "the tier moved");
    let grown = daemon.resident_peak().saturating_sub(resident);
    assert!(grown < 32 << 20, "{grown} bytes for what waits");
    wait_for("room to come back", Duration::from_secs(10), || {
        (daemon.metric("evenkeel_in_flight") == 0.0).then_some(())
    });
}

// complaint 15: a tenant whose zones fail moves a server. Half of the zones are silent on all servers, half are answered
// by the secondary alone.
#[test]
fn a_client_whose_zones_fail_gives_no_other_client_a_stale_answer() {
    let _quiet = quiet();
    let (daemon, servers) = three();
    for n in 0..100 {
        for (tier, server) in servers.iter().enumerate() {
            if n % 2 == 0 || tier != 1 {
                server.behave_below(&format!("t{n}.test."), Behaviour::Silent);
            }
        }
    }
    let load = Load::on(daemon.address());
    all_right_and_none_stale("before", &load.ask(spread("known", 50, "brief.")));
    let tenant = (0..1000).map(|n| format!("q{n}.t{}.test.", n % 100)).collect();
    let known: Vec<String> = (0..4).flat_map(|_| spread("known", 50, "brief.")).collect();
    let samples = together(vec![
        (load.from(9).per_second(500), tenant),
        (load.from(2), spread("new", 200, "test.")),
        (load.from(3), known),
    ]);
    all_right_and_none_stale("new names", &samples[1]);
    all_right_and_none_stale("names that ran out", &samples[2]);
}
