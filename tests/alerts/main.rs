//! Every alert fires in its scenario and in no other, and has its page.
//!
//! promtool plays `packaging/prometheus/alerts.yaml` against series. Where a drill can cause what an alert is about, they
//! are what the drill's own metrics said (`evenkeel drill --series`), in all built-in scenarios and in those beside this
//! file. What lies outside a drill (the process, its kernel, its files, an operator's commands, canaries) is written by
//! hand below, and says so. Each test wants exactly the alerts that it names: one more or one fewer is red.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const THREE: &str = "[groups.default]\nprimary = [\"192.0.2.1\"]\nsecondary = [\"192.0.2.2\"]\n\
     tertiary = [\"192.0.2.3\"]\n";
const WITH_V6: &str = "[groups.default]\nprimary = [\"2001:db8::1\", \"2001:db8::2\"]\nsecondary = [\"192.0.2.2\"]\n\
     tertiary = [\"192.0.2.3\"]\n";
const GUARDED: &str = "[groups.default]\nprimary = [\"192.0.2.1\"]\nsecondary = [\"192.0.2.2\"]\n\
     tertiary = [\"192.0.2.3\"]\n[[guard]]\nnames = [\"*.emptied.test\"]\nmin_good = \"30s\"\n";

/// Alerts that may fire in one outage and wake someone.
const PAGES_MAX: usize = 2;

/// A drill, the configuration that it is played under, how often its metrics are read, and what fires.
struct Day(&'static str, &'static str, &'static str, &'static [&'static str]);

macro_rules! days {
    ($($test:ident: $scenario:literal, $config:expr, $every:literal, $fires:expr;)*) => {
        $(#[test] fn $test() { fires_on(&Day($scenario, $config, $every, $fires)); })*
        const DAYS: &[Day] = &[$(Day($scenario, $config, $every, $fires)),*];
    };
}

days! {
    quiet_hours: "quiet-hours.toml", THREE, "30s", &[];
    primary_blackhole: "primary-blackhole", THREE, "15s", &["NotOnPrimary"];
    all_blackhole: "all-blackhole", THREE, "15s", &["AllTiersDown", "Failing"];
    flapping_primary: "flapping-primary", THREE, "15s", &["Flapping", "NotOnPrimary"];
    gray_primary: "gray-primary", THREE, "15s", &["Flapping"];
    slow_primary: "slow-primary", THREE, "15s", &[];
    lossy_all: "lossy-all", THREE, "15s", &[];
    servfail_primary: "servfail-primary", THREE, "15s", &[];
    emptied_zone: "emptied-zone", THREE, "15s", &[];
    emptied_zone_guarded: "emptied-zone", GUARDED, "15s", &["GuardHolding", "ServingStale"];
    other_view: "other-view", THREE, "15s", &["ServingStale"];
    cold_start_in_outage: "cold-start-in-outage", THREE, "15s", &["AllTiersDown"];
    flood_dead_zone: "flood-dead-zone", THREE, "15s", &["BulkheadFull"];
    hostile_tenant: "hostile-tenant", THREE, "15s", &["BudgetDry", "BulkheadFull"];
    recovery_herd: "recovery-herd", THREE, "15s", &["AllTiersDown", "Failing"];
    v6_broken: "v6-broken", WITH_V6, "15s", &[];
    a_long_outage: "long-outage.toml", THREE, "30s", &["AllTiersDown", "Failing", "StaleAgeHigh"];
    a_dead_zone_for_long: "dead-zone-for-long.toml", THREE, "15s", &["BulkheadFull", "Failing"];
    all_slow: "all-slow.toml", THREE, "15s", &["Flapping", "ServingStale"];
    emptied_then_dark: "emptied-then-dark.toml", GUARDED, "15s", &["AllTiersDown", "Failing", "GuardHolding"];
}

/// What it is, the series that differ from those of [`HEALTHY`], and what fires.
type ByHand = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

/// What no drill simulates, by hand: a scrape every 15 s, for three hours.
const BY_HAND: &[ByHand] = &[
    ("all is well, and evenkeel is restarted once", &[("up", "1+0x239 0+0x2 1+0x480")], &[]),
    ("the process is gone", &[("up", "1+0x239 0+0x480")], &["Down"]),
    (
        "the socket's buffer runs over, of a hundred questions a second one or two are lost",
        &[("evenkeel_udp_receive_drops_total", "0+0x100 1+20x100 2001+0x519")],
        &["ReceiveDrops"],
    ),
    ("a few datagrams are lost in all", &[("evenkeel_udp_receive_drops_total", "0+0x100 7+0x620")], &[]),
    ("a reload is refused", &[("evenkeel_config_last_reload_successful", "1+0x100 0+0x620")], &["ConfigRefused"]),
    (
        "it is refused, and repaired within minutes",
        &[("evenkeel_config_last_reload_successful", "1+0x100 0+0x15 1+0x604")],
        &[],
    ),
    (
        "the file is broken at start",
        &[("evenkeel_config_last_reload_successful", "0+0x720"), ("evenkeel_config_fallback", "1+0x720")],
        &["ConfigFallback"],
    ),
    (
        "no snapshot is written any more",
        &[("evenkeel_snapshot_last_success_timestamp_seconds", "0+15x100 1500+0x620")],
        &["SnapshotOld"],
    ),
    ("none was ever written", &[("evenkeel_snapshot_last_success_timestamp_seconds", "_x721")], &["SnapshotOld"]),
    ("somebody has frozen it and gone home", &[("evenkeel_frozen", "0+0x100 1+0x620")], &["FrozenLong"]),
    ("somebody has frozen it for an hour", &[("evenkeel_frozen", "0+0x100 1+0x240 0+0x378")], &[]),
    (
        "a canary fails",
        &[("evenkeel_canary_success{canary=\"www.example.org. A\"}", "1+0x100 0+0x620")],
        &["CanaryFailing"],
    ),
    (
        "a canary fails now and then",
        &[("evenkeel_canary_success{canary=\"www.example.org. A\"}", "1+0x100 0+0x3 1+0x10 0+0x5 1+0x599")],
        &[],
    ),
];
/// A node in health, for what a case does not say.
const HEALTHY: &[(&str, &str)] = &[
    ("up", "1+0x720"),
    ("process_start_time_seconds", "0+0x720"),
    ("evenkeel_queries_total{transport=\"udp\"}", "0+1500x720"),
    ("evenkeel_answers_total{source=\"fresh\",rcode=\"NOERROR\"}", "0+1497x720"),
    ("evenkeel_answers_total{source=\"failed\",rcode=\"SERVFAIL\"}", "0+3x720"),
    ("evenkeel_udp_receive_drops_total", "0+0x720"),
    ("evenkeel_config_last_reload_successful", "1+0x720"),
    ("evenkeel_config_fallback", "0+0x720"),
    ("evenkeel_snapshot_entries", "1000+0x720"),
    ("evenkeel_snapshot_last_success_timestamp_seconds", "0+15x720"),
    ("evenkeel_frozen", "0+0x720"),
    ("evenkeel_guard_names", "0+0x720"),
    ("evenkeel_canary_success{canary=\"www.example.org. A\"}", "1+0x720"),
    ("evenkeel_tier_in_use{group=\"default\"}", "1+0x720"),
    ("evenkeel_upstream_state{group=\"default\",server=\"192.0.2.1\",state=\"fit\"}", "1+0x720"),
];

#[test]
fn what_no_drill_simulates_fires_its_alert_alone() {
    let Some(promtool) = promtool() else { return };
    for (what, said, fires) in BY_HAND {
        let mut series = String::new();
        for (name, healthy) in HEALTHY {
            let values = said.iter().find(|(of, _)| of == name).map_or(*healthy, |(_, values)| *values);
            let target = "instance=\"node-1:9553\",job=\"evenkeel\"";
            let name = match name.strip_suffix('}') {
                Some(labelled) => format!("{labelled},{target}}}"),
                None => format!("{name}{{{target}}}"),
            };
            writeln!(series, "- series: '{name}'\n  values: '{values}'").unwrap();
        }
        assert!(said.iter().all(|(of, _)| HEALTHY.iter().any(|(name, _)| name == of)), "{what}");
        holds(&promtool, what, &series, "15s", "3h", fires);
    }
}

/// Plays a day and wants exactly its alerts.
fn fires_on(day: &Day) {
    let Some(promtool) = promtool() else { return };
    let Day(scenario, config, every, fires) = *day;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("evenkeel.toml");
    std::fs::write(&file, config).unwrap();
    let own = root().join("tests/alerts").join(scenario);
    let what = if own.exists() { own.display().to_string() } else { scenario.to_owned() };
    let out = evenkeel(&["drill", &what, "--config", file.to_str().unwrap(), "--series", every]);
    assert!(out.status.success(), "{scenario}: {}", String::from_utf8_lossy(&out.stderr));
    let series = String::from_utf8(out.stdout).unwrap();
    // Past a drill's end nothing is scraped, and soon nothing fires. Those that are read seldom are long.
    let end = if every == "15s" { "45m" } else { "3h10m" };
    holds(&promtool, scenario, &series, every, end, fires);
}

/// Has promtool hold that exactly these alerts fire at any time from the beginning to `end`.
fn holds(promtool: &Path, what: &str, series: &str, every: &str, end: &str, fires: &[&str]) {
    let severities = severities();
    let severity = |alert: &str| severities.iter().find(|(a, _)| a == alert).map(|(_, s)| s.as_str());
    let pages = fires.iter().filter(|a| severity(a) == Some("page")).count();
    let at_once = if fires.contains(&"GuardHolding") { PAGES_MAX + 1 } else { PAGES_MAX };
    assert!(pages <= at_once, "{what}: {pages} alerts page");
    let mut samples = String::new();
    for alert in fires {
        let severity = severity(alert).unwrap_or_else(|| panic!("no alert is called Evenkeel{alert}"));
        let labels = format!("{{alertname=\"Evenkeel{alert}\", severity=\"{severity}\"}}");
        writeln!(samples, "          - labels: '{labels}'\n            value: 1").unwrap();
    }
    let none = if fires.is_empty() { " []" } else { "" };
    let count = "count(count by (alertname) (ALERTS{alertstate=\"firing\",severity=\"page\"}))";
    let test = format!(
        "rule_files: [{rules}]\nevaluation_interval: {every}\ntests:\n  - interval: {every}\n    input_series:\n\
         {series}    promql_expr_test:\n      \
         - expr: group by (alertname, severity) (max_over_time(ALERTS{{alertstate=\"firing\"}}[1d]))\n        \
           eval_time: {end}\n        exp_samples:{none}\n{samples}      \
         - expr: max_over_time({count}[{end}:{every}]) > {PAGES_MAX}\n        eval_time: {end}\n        \
           exp_samples: []\n",
        rules = rules().display(),
        series = series.lines().map(|l| format!("      {l}\n")).collect::<String>(),
    );
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("test.yaml");
    std::fs::write(&file, test).unwrap();
    let out = Command::new(promtool).args(["test", "rules"]).arg(&file).output().unwrap();
    let said = [out.stdout, out.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
    assert!(out.status.success(), "{what}: {said}");
}

#[test]
fn every_alert_is_fired_above_and_has_its_page() {
    let alerts: BTreeSet<String> = severities().into_iter().map(|(alert, _)| alert).collect();
    let by_hand = BY_HAND.iter().flat_map(|(_, _, fires)| fires.iter());
    let fired: BTreeSet<String> =
        DAYS.iter().flat_map(|day| day.3.iter()).chain(by_hand).map(|alert| (*alert).to_owned()).collect();
    assert_eq!(fired, alerts);
    let pages: BTreeSet<String> = pages().into_keys().collect();
    assert_eq!(pages, alerts.iter().map(|a| format!("Evenkeel{a}")).collect());
    let text = std::fs::read_to_string(rules()).unwrap();
    for alert in &alerts {
        assert!(text.contains(&format!("runbook_url: runbooks/Evenkeel{alert}.md\n")), "{alert} leads to no page");
    }
    for part in ["expr:", "severity:", "summary:", "description:", "runbook_url:"] {
        assert_eq!(text.matches(&format!("  {part}")).count(), alerts.len(), "{part} of each alert");
    }
    assert!(severities().iter().all(|(_, s)| ["page", "ticket", "info"].contains(&s.as_str())));
}

#[test]
fn every_page_says_what_it_must_and_its_commands_parse() {
    for (name, text) in pages() {
        let heads: Vec<&str> = text.lines().filter(|l| l.starts_with('#')).collect();
        assert_eq!(heads[0], format!("# {name}"), "{name}");
        let parts = ["What it means", "What clients feel", "What to look at", "What to do", "What not to do"];
        assert_eq!(heads[1..], parts.map(|part| format!("## {part}")), "{name}");
        assert!(text.lines().count() <= 60, "{name} is long for three at night");
        assert!(text.lines().all(|l| l.chars().count() <= 120), "{name} has a long line");
        let mut any = false;
        // A line of code, or a span of it in a sentence.
        let lines = text.lines().filter_map(|l| l.strip_prefix("    "));
        let spans = text.split('`').skip(1).step_by(2);
        for command in lines.chain(spans).filter_map(|c| c.trim().strip_prefix("evenkeel ")) {
            any = true;
            // What follows a wide gap is a remark.
            let command = command.split("   ").next().unwrap_or_default();
            let words: Vec<&str> = command.split_ascii_whitespace().take_while(|w| *w != "|").collect();
            let words = words.iter().map(|w| if w.chars().all(|c| c.is_uppercase()) { "example.org" } else { w });
            let arguments: Vec<&str> = words.chain(["--help"]).collect();
            let out = evenkeel(&arguments);
            assert!(out.status.success(), "{name}: {command}: {}", String::from_utf8_lossy(&out.stderr));
        }
        assert!(any, "{name} has no command");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules() {
    let Some(promtool) = promtool() else { return };
    let out = Command::new(promtool).args(["check", "rules", "--lint-fatal"]).arg(rules()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

//------------ Helpers -----------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rules() -> PathBuf {
    root().join("packaging/prometheus/alerts.yaml")
}

/// The runbooks, by the alert that each is for.
fn pages() -> std::collections::BTreeMap<String, String> {
    let folder = std::fs::read_dir(root().join("packaging/runbooks")).unwrap();
    let files = folder.map(|file| file.unwrap().path());
    files
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(file).unwrap())
        })
        .collect()
}

/// Every alert without its prefix, and its severity, in the order of the file.
fn severities() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(rules()).unwrap();
    let alerts = text.split("- alert: Evenkeel").skip(1).map(|alert| {
        let severity = alert.split("severity: ").nth(1).and_then(|rest| rest.lines().next());
        (alert.lines().next().unwrap().to_owned(), severity.unwrap().to_owned())
    });
    alerts.collect()
}

fn evenkeel(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(arguments).output().unwrap()
}

/// Where promtool is; `None`, after a line that says so, where it is not installed.
fn promtool() -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&places).map(|p| p.join("promtool")).find(|p| p.is_file());
    if found.is_none() {
        let line = "skipped: promtool is not installed\n";
        assert!(std::env::var_os("EVENKEEL_REQUIRE_PEERS").is_none_or(|v| v != "1"), "{line}");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    found
}
