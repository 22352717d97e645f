use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;
use crate::observe::event;

fn settings(to: To, sample: f64) -> QueryLogSettings {
    QueryLogSettings { to, sample, client_prefix: [32, 128] }
}

fn answered(reply: &[u8]) -> Answered<'_> {
    Answered {
        client: "192.0.2.7".parse().unwrap(),
        transport: Transport::Udp,
        query: b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01",
        reply,
        source: Source::Fresh,
        rcode: 0,
        took: Duration::ZERO,
    }
}

#[test]
fn it_takes_nothing_while_it_is_off_and_its_share_while_it_is_on() {
    let log = QueryLog::default();
    assert!(!log.is_on() && !log.takes(0) && !log.takes(u32::MAX));
    let directory = tempfile::tempdir().unwrap();
    let file = To::File(directory.path().join("queries"));
    log.apply(&settings(file.clone(), 1.0));
    assert!(log.takes(u32::MAX));
    log.apply(&settings(file.clone(), 0.25));
    assert!(log.takes(1 << 29) && !log.takes(1 << 31));
    log.apply(&settings(file, 0.0));
    assert!(!log.is_on());
}

#[test]
fn a_file_has_a_line_for_each_question_and_the_mode_0640() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queries");
    let log = QueryLog::default();
    log.apply(&settings(To::File(path.clone()), 1.0));
    for _ in 0..3 {
        log.offer(&answered(&[0; 12]));
    }
    log.finish();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().filter(|l| l.contains(r#""name":"www.""#)).count(), 3, "{text}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(log.status(), QueryLogStatus { written: 3, ..QueryLogStatus::default() });
}

#[test]
fn half_a_line_that_a_full_disk_left_does_not_swallow_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queries");
    for (left, lines) in [("", 1), ("{\"whole\":1}\n", 2), ("{\"half", 2)] {
        std::fs::write(&path, left).unwrap();
        let log = QueryLog::default();
        log.apply(&settings(To::File(path.clone()), 1.0));
        log.offer(&answered(&[0; 12]));
        log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), lines, "{text}");
        assert!(text.lines().last().is_some_and(|l| l.starts_with("{\"v\":1")), "{text}");
    }
}

#[test]
fn what_cannot_be_written_is_counted_and_nobody_waits() {
    let directory = tempfile::tempdir().unwrap();
    let log = QueryLog::default();
    log.apply(&settings(To::File(directory.path().join("not/there")), 1.0));
    log.offer(&answered(&[0; 12]));
    log.finish();
    assert_eq!(log.status(), QueryLogStatus { dropped_away: 1, ..QueryLogStatus::default() });
}

#[test]
fn a_place_that_is_mended_is_told_to_be_back_once_something_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("later/queries");
    let told = |word: &str| {
        let ours = |seen: &event::Seen| seen.event == word && seen.text.contains(path.to_str().unwrap());
        event::recent().into_iter().filter(ours).count()
    };
    let log = QueryLog::default();
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !is() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", log.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    // A mistake is told before the first question, and once, however often the settings are read again.
    (0..3).for_each(|_| log.apply(&settings(To::File(path.clone()), 1.0)));
    until("away", &|| told("query_log_away") == 1);
    log.offer(&answered(&[0; 12]));
    until("the drop", &|| log.status().dropped_away == 1);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    log.apply(&settings(To::File(path.clone()), 1.0));
    until("the file", &|| path.exists());
    assert_eq!(told("query_log_back"), 0, "nothing was written yet");
    log.offer(&answered(&[0; 12]));
    until("back", &|| told("query_log_back") == 1);
    log.finish();
    assert_eq!((told("query_log_away"), log.status().written), (1, 1));
}

#[test]
fn what_is_queued_when_it_is_switched_off_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queries");
    let log = QueryLog::default();
    log.apply(&settings(To::File(path.clone()), 1.0));
    (0..500).for_each(|_| log.offer(&answered(&[0; 12])));
    log.apply(&settings(To::Nowhere, 1.0));
    log.finish();
    assert_eq!(log.status(), QueryLogStatus { written: 500, ..QueryLogStatus::default() });
}

#[test]
fn settings_that_find_the_queue_full_hold_and_older_ones_behind_them_do_not() {
    let directory = tempfile::tempdir().unwrap();
    // A collector that nobody serves holds nothing up, and one that is silent for a second does.
    let _silent = std::os::unix::net::UnixListener::bind(directory.path().join("silent")).unwrap();
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    let log = QueryLog::default();
    log.apply(&settings(To::Dnstap(directory.path().join("silent")), 1.0));
    log.apply(&settings(To::File(old.clone()), 1.0));
    (0..=QUEUED_MAX).for_each(|_| log.offer(&answered(&[0; 12])));
    log.apply(&settings(To::File(new.clone()), 1.0));
    let begun = Instant::now();
    while log.status().dropped_full + log.status().written + log.status().dropped_away <= QUEUED_MAX as u64 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", log.status());
        std::thread::sleep(Duration::from_millis(5));
    }
    log.offer(&answered(&[0; 12]));
    log.finish();
    let last = std::fs::read_to_string(&new).unwrap_or_default();
    assert!(!last.is_empty(), "the last settings hold: {:?}", log.status());
}

#[test]
fn rights_beyond_those_of_the_group_are_taken_from_a_file_and_none_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queries");
    for (before, after) in [(0o644, 0o640), (0o600, 0o600), (0o666, 0o640), (0o640, 0o640)] {
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(before)).unwrap();
        let log = QueryLog::default();
        log.apply(&settings(To::File(path.clone()), 1.0));
        log.finish();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, after, "{before:o}");
    }
}

#[test]
fn evenkeels_own_question_is_no_clients() {
    let name: Name = HEALTH_NAME.parse().unwrap();
    let own = crate::wire::build::question(name.as_wire(), 16, false, false, false);
    let mut own = own.clone();
    own[3] = 0;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queries");
    let log = QueryLog::default();
    log.apply(&settings(To::File(path.clone()), 1.0));
    log.offer(&Answered { query: &own, client: "127.0.0.1".parse().unwrap(), ..answered(&[0; 12]) });
    log.offer(&Answered { query: &own, ..answered(&[0; 12]) });
    log.finish();
    assert_eq!(log.status().written, 1, "who asks for it from elsewhere is a client");
}

#[test]
fn a_collector_that_reads_nothing_costs_records_and_no_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("collector");
    // It accepts the handshake and then sits still.
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let collector = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut ready = Vec::new();
        dnstap::write_control(dnstap::Control::Ready, &mut ready);
        let mut read = vec![0; ready.len()];
        stream.read_exact(&mut read).unwrap();
        assert_eq!(read, ready);
        let mut accept = Vec::new();
        dnstap::write_control(dnstap::Control::Accept, &mut accept);
        std::io::Write::write_all(&mut stream, &accept).unwrap();
        stream
    });
    let log = QueryLog::default();
    log.apply(&settings(To::Dnstap(path), 1.0));
    let reply = [0; 1200];
    let begun = Instant::now();
    const OFFERED: u64 = 3 * QUEUED_MAX as u64;
    for _ in 0..OFFERED {
        log.offer(&answered(&reply));
    }
    // The writer waits a second for the collector; whoever offers does not.
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    let stream = collector.join().unwrap();
    log.finish();
    let status = log.status();
    assert!(status.dropped_full > 0, "{status:?}");
    assert!(status.written + status.dropped_full + status.dropped_away <= OFFERED, "{status:?}");
    drop(stream);
}

#[test]
fn a_message_that_is_too_long_is_not_carried() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queries");
    let log = QueryLog::default();
    log.apply(&settings(To::File(path.clone()), 1.0));
    log.offer(&answered(&[0; MESSAGE_BYTES_MAX + 1]));
    log.finish();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&format!(r#""bytes":{}"#, MESSAGE_BYTES_MAX + 1)), "{text}");
}
