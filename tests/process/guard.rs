//! Names that their authority empties, and an operator's word that nothing good is to be given up.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Load, Sample};
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::{rcode, rtype};
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, wait_for};

const KNOWN: [[u8; 4]; 1] = [[192, 0, 2, 1]];
const NEW: [[u8; 4]; 1] = [[192, 0, 2, 2]];
const STALE: u16 = 3;
/// Every test may wait this long for what takes seconds by design.
const PATIENCE: Duration = Duration::from_secs(15);

fn zone(address: &str) -> Zone {
    Zone::new(".").negative_ttl(1).any_below("guarded.test.", 1, address).any_below("other.test.", 1, address)
}

/// The names are there, and have nothing.
fn emptied() -> Zone {
    let names = names("guarded").chain(names("other"));
    names.fold(Zone::new(".").negative_ttl(1), |zone, name| zone.txt(&name, 1, 1))
}

fn names(zone: &str) -> impl Iterator<Item = String> {
    (0..20).map(move |n| format!("n{n}.{zone}.test."))
}

fn guard(hold: &str) -> String {
    format!("[[guard]]\nnames = [\"*.guarded.test\"]\nmin_good = \"1s\"\nhold = \"{hold}\"\n")
}

/// The program over three tiers that all have the names, which it has known for longer than `min_good`.
fn known(hold: &str) -> (Daemon, [Upstream; 3]) {
    let servers = [(); 3].map(|()| Upstream::new(zone("192.0.2.1")));
    let [a, b, c] = servers.each_ref().map(|s| [s.address()]);
    let daemon = Daemon::start(&tiers(&[&a, &b, &c], &guard(hold)));
    for zone in ["guarded", "other"] {
        all_have(&daemon, zone, KNOWN);
    }
    thread::sleep(Duration::from_millis(2200));
    (daemon, servers)
}

fn ask_all(daemon: &Daemon, zone: &str) -> Vec<Sample> {
    // Two second questions for each, at most, are within their budget.
    let samples = Load::on(daemon.address()).per_second(25).ask(names(zone));
    assert!(samples.iter().all(|s| s.reply.is_some()), "{}", daemon.log());
    samples
}

fn all_have(daemon: &Daemon, zone: &str, addresses: [[u8; 4]; 1]) -> Vec<Sample> {
    let samples = ask_all(daemon, zone);
    for sample in &samples {
        let reply = sample.reply.as_ref().unwrap();
        assert_eq!(reply.addresses(), addresses, "{}: {reply:?}\n{}", sample.name, daemon.log());
    }
    samples
}

fn all_are_gone(daemon: &Daemon, zone: &str, rcode: u16) {
    for sample in ask_all(daemon, zone) {
        let reply = sample.reply.unwrap();
        assert_eq!((reply.addresses().len(), reply.rcode), (0, rcode), "{}\n{}", sample.name, daemon.log());
    }
}

#[test]
fn guarded_names_that_all_upstreams_empty_or_deny_keep_their_addresses_through_their_hold_and_no_longer() {
    let _busy = busy();
    for (gone, rcode) in [(emptied(), rcode::NOERROR), (Zone::new(".").negative_ttl(1), rcode::NXDOMAIN)] {
        let (daemon, servers) = known("4s");
        servers.iter().for_each(|s| s.know(gone.clone()));
        let begun = Instant::now();
        all_are_gone(&daemon, "other", rcode);
        while begun.elapsed() < Duration::from_millis(2500) {
            for sample in all_have(&daemon, "guarded", KNOWN) {
                assert!(sample.reply.unwrap().edes().contains(&STALE), "{}", sample.name);
            }
        }
        assert_eq!(daemon.metric("evenkeel_guard_names"), 20.0);
        assert_eq!(daemon.metric("evenkeel_guard_held_total"), 20.0);
        let log = daemon.log();
        for name in names("guarded") {
            assert_eq!(log.matches(&format!("{name} has suddenly no good answer")).count(), 1, "{name}\n{log}");
        }
        assert!(!log.contains("n1.other.test"), "a name that is not guarded is not told");
        let explained = daemon.command(&["explain", "n1.guarded.test"]).stdout;
        assert!(explained.contains("guard: held for"), "{explained}");
        let status = daemon.command(&["status"]).stdout;
        assert!(status.contains("n1.guarded.test."), "{status}");
        for path in ["/", "/status"] {
            let (_, shown) = daemon.get(path);
            assert!(!shown.contains("guarded.test"), "clients asked for it: {path} names none\n{shown}");
        }

        let left = Duration::from_millis(6500).saturating_sub(begun.elapsed());
        thread::sleep(left);
        all_are_gone(&daemon, "guarded", rcode);
        assert_eq!(daemon.metric("evenkeel_guard_names"), 0.0);
        servers.iter().for_each(|s| s.know(zone("192.0.2.2")));
        wait_for("the names to come back", PATIENCE, || {
            (daemon.ask("n1.guarded.test.", rtype::A).addresses() == NEW).then_some(())
        });
    }
}

#[test]
fn a_release_ends_a_hold_at_once_and_only_that_of_its_name() {
    let _busy = busy();
    let (daemon, servers) = known("1h");
    servers.iter().for_each(|s| s.know(Zone::new(".").negative_ttl(1)));
    all_have(&daemon, "guarded", KNOWN);
    let released = daemon.command(&["release", "n1.guarded.test"]);
    assert_eq!((released.code, released.stdout.as_str()), (Some(0), "1 answer released\n"));
    let again = daemon.command(&["release", "n1.guarded.test"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("n1.guarded.test. is not held"), "{}", again.stderr);
    let reply = daemon.ask("n1.guarded.test.", rtype::A);
    assert_eq!((reply.rcode, reply.addresses().len()), (rcode::NXDOMAIN, 0));
    assert_eq!(daemon.ask("n2.guarded.test.", rtype::A).addresses(), KNOWN);
}

#[test]
fn where_another_tier_still_has_addresses_they_are_used_and_a_change_of_address_is_never_held() {
    let _busy = busy();
    let (daemon, servers) = known("1h");
    servers[0].know(Zone::new(".").negative_ttl(1));
    servers[1].know(Zone::new(".").negative_ttl(1).any_below("guarded.test.", 1, "0.0.0.0"));
    servers[2].know(zone("192.0.2.2"));
    for sample in all_have(&daemon, "guarded", NEW) {
        assert!(sample.reply.unwrap().edes().is_empty(), "{}", sample.name);
    }
    assert_eq!(daemon.metric("evenkeel_guard_held_total"), 0.0);
    thread::sleep(Duration::from_millis(1200));
    servers[2].know(Zone::new(".").negative_ttl(1));
    all_have(&daemon, "guarded", NEW);
    servers[0].know(zone("192.0.2.1"));
    // Held names are asked again every half minute only: what is new is taken when it comes.
    daemon.command(&["flush", "--zone", "guarded.test"]);
    all_have(&daemon, "guarded", KNOWN);
}

#[test]
fn a_server_that_denies_many_names_which_others_have_is_told_and_the_others_are_believed() {
    let _busy = busy();
    let good =
        || (0..5).fold(Zone::new(".").negative_ttl(1), |z, n| z.any_below(&format!("z{n}.test."), 1, "192.0.2.1"));
    let (first, second) = (Upstream::new(good()), Upstream::new(good()));
    let daemon = Daemon::over(&[first.address(), second.address()]);
    let ask = || Load::on(daemon.address()).per_second(200).ask((0..100).map(|n| format!("n{n}.z{}.test.", n % 5)));
    assert!(ask().iter().all(|s| s.reply.as_ref().is_some_and(|r| r.addresses() == KNOWN)));
    thread::sleep(Duration::from_millis(1200));
    first.behave(Behaviour::NxdomainToEverything);
    ask();
    assert!(daemon.log().contains(&format!("{} says of many names that they are gone", first.address())));
    let status = daemon.command(&["status"]).stdout;
    assert!(status.contains("others still have them"), "{status}");
    thread::sleep(Duration::from_millis(1200));
    // The first twenty were believed to be gone before anyone knew.
    let right = ask().iter().filter(|s| s.reply.as_ref().is_some_and(|r| r.addresses() == KNOWN)).count();
    assert!(right >= 75, "{right} of 100");
}

#[test]
fn a_freeze_keeps_what_is_good_and_the_tier_in_use_and_outlives_a_restart() {
    let _busy = busy();
    let quick = "\n[groups.default.health]\nevery = \"200ms\"\nhold = \"1s\"\nramp = \"0s\"\ndamp = false\n";
    let (mut first, second) = (Upstream::new(zone("192.0.2.1")), Upstream::new(zone("192.0.2.1")));
    let daemon = Daemon::start(&tiers(&[&[first.address()], &[second.address()]], quick));
    all_have(&daemon, "other", KNOWN);
    first.close();
    wait_for("the secondary to be used", PATIENCE, || {
        daemon.ask("n1.other.test.", rtype::A);
        (daemon.metric("evenkeel_tier_in_use") == 2.0).then_some(())
    });
    let frozen = daemon.command(&["freeze", "--for", "1h"]);
    assert_eq!((frozen.code, frozen.stdout.as_str()), (Some(0), "frozen for 1h; `evenkeel thaw` ends it\n"));
    assert_eq!(daemon.metric("evenkeel_frozen"), 1.0);
    all_have(&daemon, "other", KNOWN);
    first.open();
    second.know(Zone::new(".").negative_ttl(1));
    thread::sleep(Duration::from_millis(3500));
    assert_eq!(daemon.metric("evenkeel_tier_in_use"), 2.0, "no tier moves up");
    all_have(&daemon, "other", KNOWN);
    assert_eq!(daemon.ask("never.seen.", rtype::A).rcode, rcode::NXDOMAIN, "what was never good may be gone");
    let kept = || {
        let text = std::fs::read_to_string(daemon.directory().join("state/freeze.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let before = kept();
    assert_eq!(daemon.command(&["freeze", "--for", "2h"]).code, Some(0));
    // In whole seconds, of two clocks; the first began more than three seconds before.
    let moved = before["since_unix"].as_i64().unwrap() - kept()["since_unix"].as_i64().unwrap();
    assert!(moved.abs() <= 1, "a longer one counts from the beginning of the first: {moved} s off");
    assert!(before["until_unix"].as_i64() < kept()["until_unix"].as_i64());
    assert_eq!(kept()["tiers"]["default"], 2);

    let directory = daemon.kill();
    let daemon = Daemon::start_in(directory, &tiers(&[&[first.address()], &[second.address()]], quick), &[]);
    assert_eq!(daemon.metric("evenkeel_frozen"), 1.0);
    assert!(daemon.log().contains("as it was before the restart"), "{}", daemon.log());
    let status = daemon.command(&["status"]).stdout;
    assert!(status.contains("frozen"), "{status}");
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(daemon.metric("evenkeel_tier_in_use"), 2.0, "nor does a restart move one up");
    all_have(&daemon, "other", KNOWN);
    assert_eq!(daemon.command(&["thaw"]).stdout, "thawed\n");
    assert_eq!(daemon.metric("evenkeel_frozen"), 0.0);
    assert_eq!(daemon.command(&["thaw"]).stdout, "was not frozen\n");
    let directory = daemon.kill();
    let daemon = Daemon::start_in(directory, &tiers(&[&[first.address()], &[second.address()]], quick), &[]);
    assert_eq!(daemon.metric("evenkeel_frozen"), 0.0, "what was thawed stays so");
}

#[test]
fn a_freeze_ends_by_itself() {
    let _busy = busy();
    let upstream = Upstream::new(zone("192.0.2.1"));
    let daemon = Daemon::over(&[upstream.address()]);
    assert_eq!(daemon.command(&["freeze", "--for", "4s"]).code, Some(0));
    all_have(&daemon, "other", KNOWN);
    upstream.know(Zone::new(".").negative_ttl(1));
    thread::sleep(Duration::from_millis(1100));
    all_have(&daemon, "other", KNOWN);
    wait_for("the end of the freeze", PATIENCE, || {
        daemon.log().contains("the freeze has ended by itself").then_some(())
    });
    wait_for("the names to go", PATIENCE, || {
        (daemon.ask("n1.other.test.", rtype::A).rcode == rcode::NXDOMAIN).then_some(())
    });
}
