//! What is asked often is asked again before it runs out, so that nobody waits for it again.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::busy;
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::rtype;
use crate::support::scripted::Upstream;
use crate::support::zone::Zone;

const NAME: &str = "www.test.";

/// Asks for [`NAME`] twenty times a second, and says how often.
fn ask_for(daemon: &Daemon, span: Duration) -> f64 {
    let end = Instant::now() + span;
    let mut count = 0.0;
    while Instant::now() < end {
        assert_eq!(daemon.ask(NAME, rtype::A).addresses(), [[192, 0, 2, 1]]);
        count += 1.0;
        thread::sleep(Duration::from_millis(50));
    }
    count
}

fn upstream() -> Upstream {
    Upstream::new(Zone::new(".").any_below("test.", 5, "192.0.2.1"))
}

#[test]
fn a_popular_name_is_asked_ahead_and_every_answer_after_the_first_is_fresh() {
    let _busy = busy();
    let upstream = upstream();
    let daemon = Daemon::over(&[upstream.address()]);
    let asked = ask_for(&daemon, Duration::from_secs(16));
    let source = |word: &str| daemon.metric(&format!("evenkeel_answers_total{{source=\"{word}\""));
    assert_eq!((source("upstream"), source("stale")), (1.0, 0.0));
    assert_eq!(source("fresh"), asked - 1.0);
    // Of five seconds each lives between 3.75 and 4.5, and a little.
    let refreshes = upstream.count(NAME, rtype::A) - 1;
    assert!((3..=4).contains(&refreshes), "{refreshes}");
    let (_, metrics) = daemon.get("/metrics");
    let counted = metrics.lines().find(|l| l.contains("upstream_questions") && l.contains("kind=\"refresh\""));
    assert!(counted.is_some_and(|l| l.ends_with(&format!(" {refreshes}"))), "{counted:?}");
}

#[test]
fn where_it_is_turned_off_a_popular_name_is_asked_at_its_end() {
    let _busy = busy();
    let upstream = upstream();
    let off = "[cache]\nrefresh_ahead = false\n";
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], off));
    ask_for(&daemon, Duration::from_secs(6));
    assert_eq!(daemon.metric("evenkeel_answers_total{source=\"upstream\""), 2.0);
}
