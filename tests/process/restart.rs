//! A cache that outlives its process: killed, ended, torn, flushed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::client::{load, percentile};
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::rtype;
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, quiet, wait_for};

const KNOWN: [[u8; 4]; 1] = [[192, 0, 2, 1]];
const STALE: u16 = 3;
const STALE_NXDOMAIN: u16 = 19;
const PATIENCE: Duration = Duration::from_secs(5);

/// Names below `brief.` run out while the process restarts, names below `test.` do not.
fn zone() -> Zone {
    Zone::new(".").negative_ttl(1).any_below("test.", 600, "192.0.2.1").any_below("brief.", 1, "192.0.2.1")
}

fn names() -> impl Iterator<Item = String> + Clone {
    (0..100).flat_map(|n| [format!("n{n}.test."), format!("n{n}.brief.")])
}

fn configuration(upstream: &Upstream) -> String {
    tiers(&[&[upstream.address()]], "")
}

fn learn(daemon: &Daemon) {
    for sample in load(daemon.address(), names(), rtype::A, 500, PATIENCE) {
        assert_eq!(sample.reply.unwrap().addresses(), KNOWN, "{}", sample.name);
    }
}

fn snapshot_in(directory: &TempDir) -> PathBuf {
    directory.path().join("state/cache.snapshot")
}

fn wait_for_log(daemon: &Daemon, what: &str) {
    wait_for(what, PATIENCE, || daemon.log().contains(what).then_some(()));
}

/// A directory with the snapshot of a process that knew [`names`], whose TTLs of a second have run out.
fn left_behind(upstream: &Upstream) -> TempDir {
    let daemon = Daemon::start(&configuration(upstream));
    learn(&daemon);
    let (ended, directory) = daemon.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(snapshot_in(&directory).exists(), "{}", ended.stderr);
    thread::sleep(Duration::from_millis(1200));
    directory
}

// Warmed, ended by SIGTERM, all upstreams fall silent, started, killed at once, started again.
#[test]
fn after_a_restart_in_an_outage_every_known_name_is_answered_at_once() {
    let _quiet = quiet();
    let upstream = Upstream::new(zone());
    let mut directory = left_behind(&upstream);
    upstream.behave(Behaviour::Silent);
    for round in ["after its end", "after kill -9"] {
        let daemon = Daemon::start_in(directory, &configuration(&upstream), &[]);
        let samples = load(daemon.address(), names(), rtype::A, 500, PATIENCE);
        for sample in &samples {
            let reply = sample.reply.as_ref().unwrap_or_else(|| panic!("{round}: {} got no answer", sample.name));
            assert_eq!(reply.addresses(), KNOWN, "{round}: {} {reply:?}", sample.name);
            assert_eq!(reply.edes().contains(&STALE), sample.name.ends_with("brief."), "{round}: {}", sample.name);
        }
        let p99 = percentile(&samples, 0.99);
        assert!(p99 < Duration::from_millis(100), "{round}: {p99:?}");
        wait_for_log(&daemon, "200 answers restored");
        directory = daemon.kill();
    }
    assert_eq!(fs::metadata(snapshot_in(&directory)).unwrap().permissions().mode() & 0o7777, 0o600);
    let left: Vec<_> =
        fs::read_dir(directory.path().join("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "cache.snapshot.new"), "{left:?}");
}

#[test]
fn killed_after_a_snapshot_beside_serving_nothing_of_it_is_lost() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let often = format!("{}\n[cache]\nsnapshot_every = \"1s\"\n", configuration(&upstream));
    let daemon = Daemon::start(&often);
    learn(&daemon);
    wait_for("a snapshot of all", PATIENCE, || (daemon.metric("evenkeel_snapshot_entries") >= 200.0).then_some(()));
    let written = daemon.metric("evenkeel_snapshot_last_success_timestamp_seconds");
    assert!(written > 1.7e9, "{written}");
    let directory = daemon.kill();
    upstream.behave(Behaviour::Silent);
    let daemon = Daemon::start_in(directory, &often, &[]);
    for name in names() {
        assert_eq!(daemon.ask(&name, rtype::A).addresses(), KNOWN, "{name}");
    }
    let status = daemon.command(&["status"]).stdout;
    assert!(status.contains("snapshot  200 answers"), "{status}");
    assert!(status.contains("200 restored at start"), "{status}");
    let (_, json) = daemon.get("/status");
    assert!(json.contains(r#""restored": 200"#), "{json}");
}

#[test]
fn stale_nxdomain_survives_too() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::start(&configuration(&upstream));
    daemon.ask("nothing.invalix.", rtype::A);
    let (_, directory) = daemon.terminate();
    thread::sleep(Duration::from_millis(1200));
    upstream.behave(Behaviour::Silent);
    let daemon = Daemon::start_in(directory, &configuration(&upstream), &[]);
    let reply = daemon.ask("nothing.invalix.", rtype::A);
    assert!(reply.edes().contains(&STALE_NXDOMAIN), "{reply:?}\n{}", daemon.log());
}

#[test]
fn what_other_servers_said_is_served_only_where_nobody_answers() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let directory = left_behind(&upstream);
    let other = Upstream::new(Zone::new(".").any_below("test.", 600, "192.0.2.2"));
    let daemon = Daemon::start_in(directory, &configuration(&other), &[]);
    wait_for_log(&daemon, "200 answers restored");
    // The group has answered by then: its word is waited for.
    daemon.ask("first.test.", rtype::A);
    wait_for("the new servers' answer", PATIENCE, || {
        (daemon.ask("n1.test.", rtype::A).addresses() == [[192, 0, 2, 2]]).then_some(())
    });
    other.behave(Behaviour::Silent);
    assert_eq!(daemon.ask("n2.test.", rtype::A).addresses(), KNOWN);
}

#[test]
fn a_file_that_cannot_be_trusted_is_a_cold_start_and_is_replaced() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let directory = left_behind(&upstream);
    let good = fs::read(snapshot_in(&directory)).unwrap();
    let path = |d: &Path| d.join("state/cache.snapshot");
    let write = move |d: &Path, bytes: &[u8]| {
        let _ = fs::remove_file(path(d));
        fs::write(path(d), bytes).unwrap();
        fs::set_permissions(path(d), fs::Permissions::from_mode(0o600)).unwrap();
    };
    let torn = good[..good.len() / 2].to_vec();
    let whole = good.clone();
    let mut other_machine = good.clone();
    other_machine[20] ^= 1;
    let mut directory = directory;
    type Spoil = Box<dyn Fn(&Path)>;
    let cases: [(&str, Spoil); 5] = [
        ("it is torn", Box::new(move |d| write(d, &torn))),
        ("another machine wrote it", Box::new(move |d| write(d, &other_machine))),
        ("it is no snapshot", Box::new(move |d| write(d, &[b'x'; 1000]))),
        ("it may be written by others", {
            let whole = whole.clone();
            Box::new(move |d| {
                write(d, &whole);
                fs::set_permissions(path(d), fs::Permissions::from_mode(0o666)).unwrap();
            })
        }),
        ("Too many levels of symbolic links", {
            Box::new(move |d| {
                fs::write(d.join("elsewhere"), &whole).unwrap();
                let _ = fs::remove_file(path(d));
                symlink(d.join("elsewhere"), path(d)).unwrap();
            })
        }),
    ];
    for (reason, spoil) in cases {
        spoil(directory.path());
        let daemon = Daemon::start_in(directory, &configuration(&upstream), &[]);
        wait_for_log(&daemon, "is not read, the cache begins empty");
        assert!(daemon.log().contains(reason), "{reason}: {}", daemon.log());
        let status = daemon.command(&["status"]).stdout;
        assert!(status.contains("was not read at start") && status.contains(reason), "{status}");
        upstream.forget();
        daemon.ask("n1.test.", rtype::A);
        assert_eq!(upstream.count("n1.test.", rtype::A), 1, "{reason}: a cold start asks");
        directory = daemon.terminate().1;
        let written = fs::symlink_metadata(snapshot_in(&directory)).unwrap();
        assert!(written.is_file() && written.permissions().mode() & 0o777 == 0o600, "{reason}");
        assert!(written.len() < good.len() as u64, "{reason}: what is written is the new cache");
    }
    let daemon = Daemon::start_in(directory, &configuration(&upstream), &[]);
    wait_for_log(&daemon, "answers restored");
}

#[test]
fn a_directory_that_others_may_write_is_neither_read_nor_written() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let directory = left_behind(&upstream);
    let state = directory.path().join("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    let daemon = Daemon::start_in(directory, &configuration(&upstream), &[]);
    wait_for_log(&daemon, "its directory may be written by others");
    daemon.ask("new.test.", rtype::A);
    let (ended, _) = daemon.terminate();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("is not written, the one before stays: its directory"), "{}", ended.stderr);
}

#[test]
fn what_is_flushed_does_not_come_back() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let directory = left_behind(&upstream);
    let daemon = Daemon::start_in(directory, &configuration(&upstream), &[]);
    wait_for_log(&daemon, "200 answers restored");
    assert_eq!(daemon.command(&["flush", "n1.test"]).code, Some(0));
    // Due at once, whatever `snapshot_every` says.
    wait_for("a snapshot without it", PATIENCE, || {
        (daemon.metric("evenkeel_snapshot_entries") == 199.0).then_some(())
    });
    let directory = daemon.kill();
    upstream.forget();
    let daemon = Daemon::start_in(directory, &configuration(&upstream), &[]);
    wait_for_log(&daemon, "199 answers restored");
    daemon.ask("n1.test.", rtype::A);
    daemon.ask("n2.test.", rtype::A);
    assert_eq!((upstream.count("n1.test.", rtype::A), upstream.count("n2.test.", rtype::A)), (1, 0));
}

#[test]
fn where_snapshots_are_off_the_file_is_left_alone_until_a_reload_turns_them_on() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let directory = left_behind(&upstream);
    let before = fs::read(snapshot_in(&directory)).unwrap();
    let with = |more: &str| format!("{}\n[cache]\n{more}\n", configuration(&upstream));
    let daemon = Daemon::start_in(directory, &with("snapshot = false"), &[]);
    upstream.forget();
    daemon.ask("n1.test.", rtype::A);
    assert_eq!(upstream.count("n1.test.", rtype::A), 1, "nothing was restored");
    assert_eq!(fs::read(daemon.directory().join("state/cache.snapshot")).unwrap(), before);
    daemon.write_configuration(&with("snapshot_every = \"1s\""));
    daemon.signal(Signal::HUP);
    wait_for("a snapshot of one", PATIENCE, || (daemon.metric("evenkeel_snapshot_entries") == 1.0).then_some(()));
}
