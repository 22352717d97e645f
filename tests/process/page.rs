//! The page at `/` of the admin listener, in a browser: an outage as a person on call sees it.
//!
//! EVENKEEL_SCREENSHOTS names a directory in which the pictures stay.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::client::load;
use crate::support::daemon::{Daemon, tiers};
use crate::support::message::rtype;
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, free_address, wait_for};

/// For what the page shows to change: polls, probes and holds are a few seconds together.
const PATIENCE: Duration = Duration::from_secs(60);
const QUICK: &str = "\n[groups.default.health]\nevery = \"200ms\"\nhold = \"1s\"\nramp = \"1s\"\ndamp = false\n";

struct Pictures {
    _kept: tempfile::TempDir,
    place: PathBuf,
}

impl Pictures {
    fn new() -> Self {
        let kept = tempfile::tempdir().unwrap();
        let place = std::env::var_os("EVENKEEL_SCREENSHOTS").map_or_else(|| kept.path().to_owned(), PathBuf::from);
        Self { _kept: kept, place }
    }

    /// In light and dark, wide and narrow: nothing sticks out, nothing is complained of.
    fn take(&self, browser: &Browser, what: &str) {
        for (width, dark) in [(1280, false), (1280, true), (390, false), (320, true)] {
            browser.look(width, dark);
            let wide = browser.value("document.documentElement.scrollWidth").as_u64().unwrap();
            assert!(wide <= width.into(), "{what}: {wide} px of {width}");
            let back = browser.value("getComputedStyle(document.body).backgroundColor").to_string();
            assert_eq!(back.contains("rgb(18, 24, 26)"), dark, "{what}: {back}");
            let shade = if dark { "dark" } else { "light" };
            browser.shoot(&self.place.join(format!("{what}-{width}-{shade}.png")));
        }
    }
}

#[test]
fn an_outage_is_seen_on_the_page_and_so_is_its_end() {
    let _busy = busy();
    let Some(browser) = Browser::start() else { return };
    let zone = || Zone::new(".").any_below("test.", 1, "192.0.2.1");
    let (first, second) = (Upstream::new(zone()), Upstream::new(zone()));
    let admin = free_address();
    let more = format!("{QUICK}[admin]\nlisten = \"{admin}\"\n");
    let text = tiers(&[&[first.address()], &[second.address()]], &more);
    let daemon = Daemon::start(&text);
    let url = format!("http://{admin}/");
    let asked = AtomicBool::new(true);
    let pictures = Pictures::new();
    let sees = |what: &str, sentence: &str| {
        wait_for(what, PATIENCE, || browser.text("#sentence").contains(sentence).then_some(()));
    };
    let state = |server: &Upstream| {
        let name = server.address().to_string();
        browser.value(&format!(
            "(document.querySelector('[data-server=\"{name}\"]') || {{dataset: {{}}}}).dataset.state"
        ))
    };
    let calm = |browser: &Browser| {
        let complaints: Vec<_> = browser.console();
        assert!(complaints.is_empty(), "{complaints:?}");
        let asked = browser.requests();
        assert!(asked.len() >= 2 && asked.keys().all(|to| to.starts_with(&url) || to == "data:,"), "{asked:?}");
    };
    std::thread::scope(|scope| {
        // As real traffic: the same fifty names, each in a zone of its own, again and again.
        let (dns, asking) = (daemon.address(), &asked);
        scope.spawn(move || {
            while asking.load(Ordering::Relaxed) {
                let names = (0..50).map(|n| format!("www.z{n}.test."));
                load(dns, names, rtype::A, 50, Duration::ZERO);
            }
        });
        let end = Ends(&asked);
        wait_for("the admin listener", PATIENCE, || std::net::TcpStream::connect(admin).ok());
        browser.open(&url);
        sees("all is well", "All is well. Answers come from tier 1.");
        assert_eq!(state(&first), "fit");
        pictures.take(&browser, "1-well");

        first.behave(Behaviour::Silent);
        sees("the primary is silent", "the secondary answers.");
        wait_for("its state", PATIENCE, || ["silent", "down"].iter().any(|s| state(&first) == *s).then_some(()));
        assert_eq!(state(&second), "fit");
        pictures.take(&browser, "2-secondary");

        second.behave(Behaviour::Silent);
        sees("nobody answers", "No upstream has answered for");
        wait_for("stale answers", PATIENCE, || {
            let stale = browser.text("[data-figure=Stale]");
            (!stale.starts_with("0 %") && !browser.text("[data-kind=stale]").is_empty()).then_some(())
        });
        assert_eq!(browser.value("document.documentElement.dataset.mood"), "trouble");
        pictures.take(&browser, "3-dark");

        [&first, &second].into_iter().for_each(|server| server.behave(Behaviour::Answer));
        sees("calm again", "All is well. Answers come from tier 1.");
        assert_eq!((state(&first), state(&second)), ("fit".into(), "fit".into()));
        assert!(browser.text("#events").contains("tier 2 → 1"), "{}", browser.text("#events"));
        pictures.take(&browser, "4-well-again");
        calm(&browser);
        drop(end);
    });

    // The process goes away and comes back; the page says so and goes on.
    let directory = daemon.kill();
    wait_for("the loss of contact", PATIENCE, || {
        let shown = browser.value("!document.querySelector('#lost').hidden");
        (shown == true && browser.text("#lost").contains("No contact for")).then_some(())
    });
    pictures.take(&browser, "5-lost");
    let _again = Daemon::start_in(directory, &text, &[]);
    wait_for("contact", PATIENCE, || browser.text("#age").contains("it was restarted").then_some(()));
    assert_eq!(browser.value("document.querySelector('#lost').hidden"), true);
}

#[test]
fn what_the_status_says_is_never_markup() {
    let _busy = busy();
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::new(Zone::new("."));
    let admin = free_address();
    let evil = "<img src=x onerror=document.title=1><b>";
    let daemon = Daemon::start(&format!(
        "[admin]\nlisten = \"{admin}\"\n[groups.default]\nprimary = [{{ address = \"{}\", name = '{evil}' }}]\n",
        upstream.address()
    ));
    wait_for("the admin listener", PATIENCE, || std::net::TcpStream::connect(admin).ok());
    browser.open(&format!("http://{admin}/"));
    wait_for("the server", PATIENCE, || (browser.text(".server b") == evil).then_some(()));
    wait_for("the event", PATIENCE, || browser.text("#events").contains(evil).then_some(()));
    assert_eq!(browser.value("document.querySelectorAll('img, b b').length"), 0);
    assert!(browser.value("document.title").as_str().unwrap().starts_with("evenkeel"), "{}", daemon.log());
}

// What a program may rely on stands in packaging/status.md, and nothing else is said.
#[test]
fn every_field_of_the_status_stands_in_its_page() {
    fn walk(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                // Counts by a word: the words are those of metrics.
                if !["bulkhead_rejected", "tier_shifts", "failures"].contains(&name.as_str()) {
                    walk(value, found);
                }
                found.insert(name.clone());
            }),
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let _busy = busy();
    let upstream = Upstream::new(Zone::new("."));
    let more = "[[canary]]\nname = \"www.test\"\n[[guard]]\nnames = [\"*.test\"]\n";
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], more));
    assert_eq!(daemon.command(&["freeze"]).code, Some(0));
    let said = daemon.command(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/status.md")).unwrap();
    assert!(page.contains(&format!("version {} of it", status["status_version"])));
    let mut found = std::collections::BTreeSet::new();
    walk(&status, &mut found);
    assert!(found.len() > 80, "{found:?}");
    for name in &found {
        assert!(page.contains(&format!("`{name}`")), "{name} does not stand in packaging/status.md");
    }
    let keys = status["config"]["keys"].as_array().unwrap();
    assert!(keys.iter().any(|k| k["key"] == "groups.default.primary" && k["by"] == "file"), "{keys:?}");
    let over_http: serde_json::Value = serde_json::from_str(&daemon.get("/status").1).unwrap();
    assert_eq!(over_http["config"]["keys"], serde_json::json!([]));
    assert!(over_http["history"].is_object());
}

/// Ends the asking also where the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
