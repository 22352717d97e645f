//! The query log of the real program: lines in a file, frames at the collector that others ship, and nobody who waits.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::client::{Stream, load};
use crate::support::daemon::{Daemon, run, tiers};
use crate::support::message::{Question, rtype};
use crate::support::namespace::{self, Room};
use crate::support::peers::Peer;
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, wait_for};

const PATIENCE: Duration = Duration::from_secs(8);

fn upstream() -> Upstream {
    Upstream::new(Zone::new(".").any_below("test.", 60, "192.0.2.1"))
}

/// The text of a configuration that logs to `to`.
fn logging(upstream: &Upstream, to: &str) -> String {
    tiers(&[&[upstream.address()]], &format!("\n[query_log]\nto = \"{to}\"\n"))
}

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn each_question_is_a_line_in_a_file_that_is_opened_again_when_it_is_moved() {
    let _busy = busy();
    let (upstream, directory) = (upstream(), tempfile::tempdir().unwrap());
    let path = directory.path().join("queries.log");
    let daemon = Daemon::start(&logging(&upstream, &format!("file:{}", path.display())));
    daemon.ask("www.test.", rtype::A);
    daemon.ask("www.test.", rtype::A);
    let mut stream = Stream::connect(daemon.address());
    stream.send(&Question::new("www.test.", rtype::A).to_bytes());
    stream.receive().unwrap();
    upstream.behave(Behaviour::Silent);
    // What would end a line or a string stands in the name.
    daemon.ask("a\nb\"c.hostile.test.", rtype::AAAA);
    let of = |name: &str| -> Vec<Value> { lines(&path).into_iter().filter(|l| l["name"] == name).collect() };
    let hostile = wait_for("the failure's line", PATIENCE, || of("a\\010b\\\"c.hostile.test.").pop());
    assert_eq!(
        (&hostile["type"], &hostile["rcode"], &hostile["source"]),
        (&"AAAA".into(), &"SERVFAIL".into(), &"failed".into())
    );
    assert!(hostile["ede"].as_array().is_some_and(|codes| !codes.is_empty()), "{hostile}");
    let seen = wait_for("three lines", PATIENCE, || Some(of("www.test.")).filter(|seen| seen.len() == 3));
    let sources: Vec<&str> = seen.iter().filter_map(|l| l["source"].as_str()).collect();
    assert_eq!(sources, ["upstream", "fresh", "fresh"]);
    assert_eq!((seen[0]["transport"].as_str(), seen[2]["transport"].as_str()), (Some("udp"), Some("tcp")));
    assert!(seen[0]["us"].as_u64() > Some(0) && seen[0]["bytes"].as_u64() > Some(12), "{}", seen[0]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);

    // As logrotate does.
    let moved = directory.path().join("queries.log.1");
    fs::rename(&path, &moved).unwrap();
    assert_eq!(daemon.command(&["reload"]).code, Some(0));
    daemon.ask("www.test.", rtype::A);
    wait_for("a line in the new file", PATIENCE, || of("www.test.").pop());
    let before = lines(&moved).len();
    // Off again.
    daemon.write_configuration(&logging(&upstream, ""));
    assert_eq!(daemon.command(&["reload"]).code, Some(0));
    daemon.ask("off.test.", rtype::A);
    // On again: what is written then was not before it.
    daemon.write_configuration(&logging(&upstream, &format!("file:{}", path.display())));
    assert_eq!(daemon.command(&["reload"]).code, Some(0));
    daemon.ask("on.test.", rtype::A);
    wait_for("a line after that", PATIENCE, || of("on.test.").pop());
    assert_eq!((of("off.test.").len(), lines(&moved).len()), (0, before));
    assert!(daemon.metric("evenkeel_query_log_written_total") >= 5.0);
    assert_eq!(daemon.metric("evenkeel_query_log_dropped_total"), 0.0);
}

#[test]
fn a_full_disk_is_told_and_counted_and_what_was_there_stays_whole() {
    const SELF: &str = "query_log::a_full_disk_is_told_and_counted_and_what_was_there_stays_whole";
    if namespace::inside(Room::NetworkAndMounts, SELF).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(directory.path());
    if run(mount).code != Some(0) {
        let _ = writeln!(std::io::stderr(), "skipped: no disk can be mounted here");
        return;
    }
    let (upstream, path) = (upstream(), directory.path().join("queries.log"));
    let daemon = Daemon::start(&logging(&upstream, &format!("file:{}", path.display())));
    let dropped = || daemon.metric("evenkeel_query_log_dropped_total");
    let mut asked = 0.0;
    wait_for("the end of the disk", PATIENCE, || {
        (0..50).for_each(|n| drop(daemon.ask(&format!("n{n}.test."), rtype::A)));
        asked += 50.0;
        (dropped() > 0.0).then_some(())
    });
    // The start has asked for localhost as well.
    let counted = || daemon.metric("evenkeel_query_log_written_total") + dropped();
    wait_for("all to be counted", PATIENCE, || (counted() >= asked).then_some(()));
    assert_eq!(daemon.log().matches("event=query_log_away").count(), 1, "{}", daemon.log());
    let text = fs::read_to_string(&path).unwrap();
    let whole = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count();
    assert!(text.lines().count() - whole <= 1, "at most one line is cut");
    assert!(whole as f64 >= daemon.metric("evenkeel_query_log_written_total"), "what counts as written is there");
}

#[test]
fn the_collector_that_others_ship_reads_both_messages() {
    let _busy = busy();
    let (Some(capture), Some(reader)) = (Peer::FstrmCapture.path(), Peer::DnstapLdns.path()) else { return };
    let (upstream, directory) = (upstream(), tempfile::tempdir().unwrap());
    let (socket, file) = (directory.path().join("tap.sock"), directory.path().join("frames"));
    let mut command = Command::new(capture);
    command.args(["-t", "protobuf:dnstap.Dnstap", "-u"]).arg(&socket).arg("-w").arg(&file);
    let mut collector = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the collector", PATIENCE, || socket.exists().then_some(()));
    let daemon = Daemon::start(&logging(&upstream, &format!("dnstap:{}", socket.display())));
    for n in 0..20 {
        daemon.ask(&format!("n{n}.test."), rtype::A);
    }
    let mut stream = Stream::connect(daemon.address());
    stream.send(&Question::new("over-tcp.test.", rtype::A).to_bytes());
    stream.receive().unwrap();
    let (ended, _) = daemon.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    kill_process(Pid::from_child(&collector), Signal::TERM).unwrap();
    wait_for("the collector's end", PATIENCE, || collector.try_wait().unwrap());
    let mut read = Command::new(reader);
    read.arg("-y").arg("-r").arg(&file);
    let shown = run(read);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    for want in ["CLIENT_QUERY", "CLIENT_RESPONSE", "n19.test.", "over-tcp.test.", "socket_protocol: TCP", "127.0.0."]
    {
        assert!(shown.stdout.contains(want), "{want}: {}", shown.stdout);
    }
    let count = |kind: &str| shown.stdout.matches(&format!("type: {kind}\n")).count();
    assert!(count("CLIENT_QUERY") >= 21, "{}", shown.stdout);
    assert_eq!(count("CLIENT_QUERY"), count("CLIENT_RESPONSE"));
}

#[test]
fn a_collector_that_reads_nothing_or_is_not_there_keeps_nobody_waiting() {
    let _busy = busy();
    let (upstream, directory) = (upstream(), tempfile::tempdir().unwrap());
    let socket = directory.path().join("tap.sock");
    // It is there, and neither accepts nor reads.
    let _collector = UnixListener::bind(&socket).unwrap();
    let daemon = Daemon::start(&logging(&upstream, &format!("dnstap:{}", socket.display())));
    let names = (0..6000).map(|n| format!("n{}.test.", n % 50));
    let samples = load(daemon.address(), names, rtype::A, 3000, PATIENCE);
    assert!(samples.iter().all(|s| s.reply.is_some()), "{}", daemon.log());
    wait_for("a line in the log", PATIENCE, || daemon.log().contains("the query log is not written").then_some(()));
    let dropped = wait_for("drops", PATIENCE, || {
        Some(daemon.metric("evenkeel_query_log_dropped_total")).filter(|dropped| *dropped > 0.0)
    });
    assert!(dropped > 0.0);
    assert_eq!(daemon.log().matches("the query log is not written").count(), 1, "once: {}", daemon.log());
    // The file system says no: the same.
    daemon.write_configuration(&logging(&upstream, "file:/proc/queries.log"));
    assert_eq!(daemon.command(&["reload"]).code, Some(0));
    daemon.ask("n1.test.", rtype::A);
    wait_for("another line", PATIENCE, || daemon.log().contains("/proc/queries.log").then_some(()));
}

#[test]
fn bad_places_are_told_with_what_to_write() {
    let _busy = busy();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("e.toml");
    for (to, says) in [("syslog", "no place for a query log"), ("file:queries", "no absolute path")] {
        fs::write(&file, format!("[query_log]\nto = \"{to}\"\n")).unwrap();
        let ended = crate::support::daemon::evenkeel(&["check", file.to_str().unwrap()]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let said = ended.stdout + &ended.stderr;
        assert!(said.contains(says) && said.contains(":2:6"), "{said}");
    }
}

// The journal's socket is the machine's own: the test has one in a mount namespace.
#[test]
fn the_journal_gets_a_datagram_of_fields() {
    const SELF: &str = "query_log::the_journal_gets_a_datagram_of_fields";
    if namespace::inside(Room::NetworkAndMounts, SELF).is_none() {
        return;
    }
    let mounted = run({
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "tmpfs", "/run"]);
        mount
    });
    assert_eq!(mounted.code, Some(0), "{mounted:?}");
    fs::create_dir_all("/run/systemd/journal").unwrap();
    let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let upstream = upstream();
    let daemon = Daemon::start(&logging(&upstream, "journal"));
    daemon.ask("www.test.", rtype::A);
    let line = wait_for("the question", PATIENCE, || {
        let mut room = [0; 4096];
        let length = journal.recv(&mut room).unwrap();
        let text = String::from_utf8_lossy(&room[..length]).into_owned();
        assert!(text.starts_with("PRIORITY=7\nSYSLOG_IDENTIFIER=evenkeel-queries\nMESSAGE={"), "{text}");
        text.contains("www.test.").then_some(text)
    });
    let message = line.lines().find_map(|l| l.strip_prefix("MESSAGE=")).unwrap();
    let read: Value = serde_json::from_str(message).unwrap();
    assert_eq!(read["source"], "upstream");
    assert_eq!(line.lines().count(), 3, "{line}");
}
