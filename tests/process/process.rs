//! The process: how it starts, what it says when it cannot, how it is steered and how it ends.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{ask, ask_tcp, exchange_udp};
use crate::support::daemon::{Daemon, evenkeel, tiers};
use crate::support::message::{Question, rcode, rtype};
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, quiet, wait_for};

const RIGHT: [[u8; 4]; 1] = [[192, 0, 2, 1]];

fn zone() -> Zone {
    Zone::new(".").any_below("test.", 60, "192.0.2.1")
}

#[test]
fn it_answers_soon_after_its_start_and_is_small() {
    let _quiet = quiet();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), RIGHT);
    // The bars are those of a release build; a debug build has room.
    let (start_max, resident_max) = if cfg!(debug_assertions) { (1000, 40) } else { (100, 15) };
    assert!(daemon.started_in < Duration::from_millis(start_max), "{:?}", daemon.started_in);
    let resident = daemon.resident() >> 20;
    assert!(resident < resident_max, "{resident} MiB");
}

#[test]
fn it_says_where_it_listens_and_whom_it_asks() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    for address in [daemon.address(), upstream.address()] {
        let said = || daemon.log().contains(&address.to_string()).then_some(());
        wait_for(&format!("{address} in the log"), Duration::from_secs(5), said);
    }
}

// The client's socket is connected, so a reply from another address would not reach it.
#[test]
fn on_a_wildcard_address_the_reply_leaves_from_the_address_that_was_asked() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let listen = "\n[listen]\ndns = [\"0.0.0.0:{port}\"]\n[access]\nallow = [\"loopback\"]\n";
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], listen));
    for ip in [[127, 0, 0, 1], [127, 0, 0, 77], [127, 1, 2, 3]] {
        let address = (ip, daemon.address().port()).into();
        let question = Question::new("www.test.", rtype::A);
        assert_eq!(ask(address, &question).addresses(), RIGHT, "{ip:?}");
        assert_eq!(ask_tcp(address, &question).addresses(), RIGHT, "{ip:?}");
    }
}

#[test]
fn a_second_one_on_the_same_port_exits_3_and_says_why() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("second.toml");
    let place = directory.path().display();
    let text = format!(
        "[listen]\ndns = [\"{}\"]\n[admin]\nlisten = \"\"\nsocket = \"{place}/control.sock\"\n\
         [state]\ndirectory = \"{place}/state\"\n{}",
        daemon.address(),
        tiers(&[&[upstream.address()]], ""),
    );
    fs::write(&file, text).unwrap();
    let ended = evenkeel(&["serve", "--config", &file.display().to_string()]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains(&daemon.address().to_string()), "{ended:?}");
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_place_and_a_hint() {
    let _busy = busy();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.toml");
    fs::write(&file, "[cache]\nmin_ttl = \"1s\"\n\n[groups.default]\nprimray = [\"192.0.2.1\"]\n").unwrap();
    let path = file.display().to_string();
    for arguments in [&["check", &path][..], &["serve", "--strict", "--config", &path]] {
        let ended = evenkeel(arguments);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("5:1") && said.contains("primary"), "{arguments:?}: {said}");
    }
}

#[test]
fn the_default_configuration_passes_its_own_check() {
    let _busy = busy();
    let printed = evenkeel(&["default-config"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("default.toml");
    fs::write(&file, printed.stdout).unwrap();
    let checked = evenkeel(&["check", &file.display().to_string()]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn without_any_upstream_it_starts_and_says_so_in_its_answers() {
    let _busy = busy();
    let daemon = Daemon::start("[system]\nfiles = [\"/nonexistent/resolv.conf\"]\n");
    let reply = daemon.ask("www.test.", rtype::A);
    assert_eq!(reply.rcode, rcode::SERVFAIL);
    assert!(reply.edes().iter().any(|e| [14, 22].contains(e)), "{:?}", reply.edes());
}

#[test]
fn sighup_swaps_the_policy_and_keeps_the_cache() {
    let _busy = busy();
    let (before, after) = (Upstream::new(zone()), Upstream::new(Zone::new(".").any_below("test.", 60, "192.0.2.2")));
    let daemon = Daemon::over(&[before.address()]);
    assert_eq!(daemon.ask("old.test.", rtype::A).addresses(), RIGHT);
    daemon.write_configuration(&tiers(
        &[&[before.address()]],
        "[[local]]\nname = \"new.lan\"\ntype = \"A\"\nvalue = \"192.0.2.9\"\n",
    ));
    daemon.signal(Signal::HUP);
    wait_for("the new policy", Duration::from_secs(5), || {
        (daemon.ask("new.lan.", rtype::A).addresses() == [[192, 0, 2, 9]]).then_some(())
    });
    before.forget();
    assert_eq!(daemon.ask("old.test.", rtype::A).addresses(), RIGHT);
    assert_eq!(before.count("old.test.", rtype::A), 0, "asked again although it was in the cache");

    daemon.write_configuration(&tiers(&[&[after.address()]], ""));
    let reloaded = daemon.command(&["reload"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    assert_eq!(daemon.ask("fresh.test.", rtype::A).addresses(), [[192, 0, 2, 2]]);
}

#[test]
fn a_bad_file_is_refused_whole_and_the_old_policy_stays() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    daemon.write_configuration("[groups.default]\nprimary = [\"nonsense\"]\n");
    let reloaded = daemon.command(&["reload"]);
    assert_eq!(reloaded.code, Some(1), "{reloaded:?}");
    assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), RIGHT);
    assert_eq!(daemon.metric("evenkeel_config_last_reload_successful"), 0.0);
}

#[test]
fn sigterm_drains_and_ends_with_0() {
    let _busy = busy();
    let upstream = Upstream::behaving(zone(), Behaviour::Slow(Duration::from_millis(300)));
    let daemon = Daemon::over(&[upstream.address()]);
    let address = daemon.address();
    let asking = std::thread::spawn(move || ask(address, &Question::new("www.test.", rtype::A)).addresses());
    wait_for("the question upstream", Duration::from_secs(5), || (upstream.live_count() > 0).then_some(()));
    let (ended, _) = daemon.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(asking.join().unwrap(), RIGHT);
}

#[test]
fn udp_is_answered_for_the_whole_drain() {
    let _busy = busy();
    let daemon = Daemon::over(&[]);
    let address = daemon.address();
    let question = Question::new("localhost.", rtype::A).to_bytes();
    daemon.signal(Signal::TERM);
    // Nine tenths of `listen.drain`, whose default is 2 s.
    let end = Instant::now() + Duration::from_millis(1800);
    while Instant::now() < end {
        exchange_udp(address, &question, Duration::from_secs(1)).expect("an answer while draining");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(daemon.terminate().0.code, Some(0));
}

#[test]
fn health_is_of_this_process_and_not_of_its_upstreams() {
    let _busy = busy();
    let mut upstream = Upstream::new(zone());
    upstream.close();
    let daemon = Daemon::over(&[upstream.address()]);
    daemon.ask("www.test.", rtype::A);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(daemon.get(path).0, 200, "{path}");
    }
}

#[test]
fn questions_and_their_answers_are_counted_alike() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    for n in 0..10 {
        daemon.ask(&format!("n{}.test.", n % 5), rtype::A);
        ask_tcp(daemon.address(), &Question::new("tcp.test.", rtype::A));
    }
    assert!(daemon.metric("evenkeel_queries_total{transport=\"udp\"") >= 10.0);
    assert!(daemon.metric("evenkeel_queries_total{transport=\"tcp\"") >= 10.0);
    let fresh = daemon.metric("evenkeel_answers_total{source=\"fresh\"");
    assert!(fresh >= 14.0, "{fresh} from the cache");
    assert_eq!(daemon.metric("evenkeel_queries_total"), daemon.metric("evenkeel_answers_total"));
}

#[test]
fn the_control_commands_work_on_the_running_process() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::over(&[upstream.address()]);
    daemon.ask("www.test.", rtype::A);

    let status = daemon.command(&["status", "--json"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert!(status.to_string().contains(&upstream.address().to_string()), "{status}");

    let explained = daemon.command(&["explain", "www.test", "A"]);
    assert_eq!(explained.code, Some(0), "{explained:?}");
    assert!(explained.stdout.contains("fresh"), "{explained:?}");

    assert_eq!(daemon.command(&["flush", "www.test"]).code, Some(0));
    daemon.ask("www.test.", rtype::A);
    assert_eq!(upstream.count("www.test.", rtype::A), 2, "the flushed name was not asked again");
}

#[test]
fn a_client_command_without_a_process_exits_4() {
    let _busy = busy();
    let ended = evenkeel(&["status", "--socket", "/nonexistent/control.sock"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
}

#[test]
fn a_wrong_argument_exits_2() {
    let _busy = busy();
    assert_eq!(evenkeel(&["--no-such-flag"]).code, Some(2));
}
