//! Canaries: asked as a client would ask, to be seen and to decide nothing.

use std::time::Duration;

use crate::support::daemon::{Daemon, tiers};
use crate::support::message::rtype;
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, wait_for};

const CANARIES: &str = "[[canary]]\nname = \"www.test\"\nexpect = \"192.0.2.1\"\nevery = \"1s\"\n\
     [[canary]]\nname = \"gone.test\"\nexpect = \"nxdomain\"\nevery = \"1s\"\n\
     [[canary]]\nname = \"large.test\"\ntype = \"TXT\"\nevery = \"1s\"\n\
     [cache]\nmax_ttl = \"1s\"\nmax_negative_ttl = \"1s\"\n[stale]\nmax_age = \"0s\"\n";

fn zone() -> Zone {
    Zone::new("test.").negative_ttl(1).a("www.test.", 1, "192.0.2.1").txt("large.test.", 1, 3000)
}

/// Waits until a canary is told to succeed, or to fail.
fn wait_until(daemon: &Daemon, canary: &str, success: f64) {
    let series = format!("evenkeel_canary_success{{canary=\"{canary}\"}} {success}");
    wait_for(&series, Duration::from_secs(20), || {
        daemon.get("/metrics").1.lines().any(|l| l == series).then_some(())
    });
}

fn status_line(daemon: &Daemon, canary: &str) -> String {
    let status = daemon.command(&["status"]).stdout;
    let is_its = |l: &&str| l.starts_with("canary ") && l.contains(canary);
    status.lines().find(is_its).unwrap_or_else(|| panic!("no {canary} in {status}")).to_owned()
}

#[test]
fn a_canary_shows_what_a_client_would_see_and_decides_nothing() {
    let _busy = busy();
    let upstream = Upstream::new(zone());
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], CANARIES));
    for canary in ["www.test. A", "gone.test. A", "large.test. TXT"] {
        wait_until(&daemon, canary, 1.0);
    }
    assert!(daemon.metric("evenkeel_canary_seconds{canary=\"www.test. A\"") < 1.0);
    assert!(status_line(&daemon, "www.test. A").contains("fine: 1 A record, 192.0.2.1 among them"));

    upstream.behave(Behaviour::NxdomainToEverything);
    wait_until(&daemon, "www.test. A", 0.0);
    wait_until(&daemon, "gone.test. A", 1.0);
    let line = status_line(&daemon, "www.test. A");
    assert!(line.contains("failing: NXDOMAIN"), "{line}");
    assert_eq!([daemon.get("/healthz").0, daemon.get("/readyz").0], [200, 200]);

    upstream.behave(Behaviour::Silent);
    wait_until(&daemon, "gone.test. A", 0.0);
    assert!(status_line(&daemon, "gone.test. A").contains("failing: SERVFAIL (extended error 2"));

    upstream.behave(Behaviour::Answer);
    wait_until(&daemon, "www.test. A", 1.0);
    let log = daemon.log();
    let told = |line: &str| assert!(log.contains(line), "{line}\n{log}");
    told("the canary www.test. A fails: NXDOMAIN");
    told("the canary www.test. A succeeds, after ");
}

#[test]
fn a_reload_takes_canaries_away_and_brings_new_ones() {
    let _busy = busy();
    let upstream = Upstream::new(Zone::new("test.").a("www.test.", 60, "192.0.2.1"));
    let with =
        |name: &str| tiers(&[&[upstream.address()]], &format!("[[canary]]\nname = \"{name}\"\nevery = \"1s\"\n"));
    let daemon = Daemon::start(&with("www.test"));
    wait_until(&daemon, "www.test. A", 1.0);
    daemon.write_configuration(&with("absent.test"));
    assert_eq!(daemon.command(&["reload"]).code, Some(0));
    wait_until(&daemon, "absent.test. A", 0.0);
    assert!(!daemon.get("/metrics").1.contains("www.test."));
    assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), [[192, 0, 2, 1]]);
}
