//! Every built-in drill by the program itself: on the default configuration with three upstreams given it passes; under
//! a configuration that gives something up it fails, and says why.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

const THREE: &str = r#"
[groups.default]
primary = ["192.0.2.1"]
secondary = ["192.0.2.2"]
tertiary = ["192.0.2.3"]
"#;
const WITH_V6: &str = r#"
[groups.default]
primary = ["2001:db8::1", "2001:db8::2"]
secondary = ["192.0.2.2"]
tertiary = ["192.0.2.3"]
"#;
const ONE_TIER: &[&str] = &["groups.default.secondary=[]", "groups.default.tertiary=[]"];

/// Runs a built-in scenario as it should pass, and, where `sabotage` gives something up, as it must miss `key`.
fn rehearse(name: &str, config: &str, sabotage: &[&str], key: &str) {
    let place = tempfile::tempdir().unwrap();
    let config = written(place.path(), "evenkeel.toml", config);
    let (exit, report) = json(&config, name, &[]);
    assert!(misses(&report).is_empty(), "{report:#}");
    assert_eq!(exit, 0);
    has_its_shape(&report, name);
    if sabotage.is_empty() {
        return;
    }
    let (exit, report) = json(&config, name, sabotage);
    assert_eq!(exit, 1, "{name} holds under {sabotage:?}");
    assert!(misses(&report).contains(&key), "{name} under {sabotage:?}: {report:#}");
    let objectives = report["objectives"].as_array().unwrap();
    let missed = objectives.iter().find(|o| o["objective"] == key && o["passed"] == false).unwrap();
    assert!(!missed["why"].as_array().unwrap().is_empty(), "{name} fails without a reason: {missed}");
}

macro_rules! rehearsals {
    ($($test:ident: $name:literal, $config:expr, $sabotage:expr, $key:literal;)*) => {
        $(#[test] fn $test() { rehearse($name, $config, $sabotage, $key); })*

        #[test]
        fn every_built_in_scenario_is_rehearsed_here() {
            let listed = stdout(&evenkeel(&["drill", "--list"]));
            let names: Vec<&str> = listed.lines().filter_map(|l| l.split(' ').next()).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

rehearsals! {
    primary_blackhole: "primary-blackhole", THREE, ONE_TIER, "left_within";
    all_blackhole: "all-blackhole", THREE, &["stale.max_age=0s"], "answered";
    flapping_primary: "flapping-primary", THREE, &["groups.default.health.damp=false"], "tier_shifts_max";
    gray_primary: "gray-primary", THREE, ONE_TIER, "p99";
    slow_primary: "slow-primary", THREE, &[], "";
    lossy_all: "lossy-all", THREE, ONE_TIER, "p99";
    servfail_primary: "servfail-primary", THREE, ONE_TIER, "answered";
    emptied_zone: "emptied-zone", THREE, &["cache.max_negative_ttl=5m"], "recovered_within";
    other_view: "other-view", THREE, &["groups.default.same_view=true"], "answered";
    cold_start_in_outage: "cold-start-in-outage", THREE, &[], "";
    flood_dead_zone: "flood-dead-zone", THREE, &[], "";
    hostile_tenant: "hostile-tenant", THREE, &["groups.default.in_flight_max=16"], "answered";
    recovery_herd: "recovery-herd", THREE, &[], "";
    v6_broken: "v6-broken", WITH_V6, ONE_TIER, "answered";
}

#[test]
fn one_file_and_one_configuration_give_one_result_byte_for_byte() {
    let place = tempfile::tempdir().unwrap();
    let config = written(place.path(), "evenkeel.toml", THREE);
    let file = written(place.path(), "short.toml", SHORT);
    for more in [&[][..], &["--json"]] {
        let run = || stdout(&drill(&config, file.to_str().unwrap(), more));
        let first = run();
        assert_eq!(first, run());
        assert!(first.contains("short"));
    }
}

const SHORT: &str = r#"title = "short"
length = "1m"
[[load]]
ask = "known"
[[load]]
ask = "new"
[[act]]
at = "20s"
for = "20s"
who = "primary"
what = "silent"
[[objective]]
answered = 0.99
"#;

#[test]
fn a_picture_fits_80_columns_and_ends_with_the_verdict() {
    let place = tempfile::tempdir().unwrap();
    let config = written(place.path(), "e.toml", THREE);
    let file = written(place.path(), "short.toml", SHORT);
    let shown = drill(&config, file.to_str().unwrap(), &[]);
    let text = stdout(&shown);
    assert_eq!(shown.status.code(), Some(0), "{text}");
    assert_eq!(text.lines().last(), Some("passed"));
    assert!(!text.contains('\x1b'), "colour although this is no terminal");
    // A path has the length that it has.
    for line in text.lines().filter(|l| !l.starts_with('/')) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let places: Vec<usize> = ["0:15", "begins: primary: silent", "ends: primary: silent", "✓ answered"]
        .iter()
        .map(|part| text.find(part).unwrap_or_else(|| panic!("no {part} in {text}")))
        .collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn a_broken_file_is_reported_with_its_place_and_a_hint() {
    let place = tempfile::tempdir().unwrap();
    let config = written(place.path(), "e.toml", THREE);
    for (old, new, at, hint) in [
        ("\"silent\"", "\"silnt\"", ":11:8: act.what: \"silnt\" is not known", "hint: did you mean \"silent\"?"),
        ("length", "lenght", ":2:1: unknown key `lenght`", "hint: did you mean `length`?"),
        ("\"primary\"", "\"192.0.2.77\"", ":10:7: act.who: no server of", "or one of 192.0.2.1, 192.0.2.2"),
        ("title = ", "title ", ":1:7: ", ""),
    ] {
        let file = written(place.path(), "broken.toml", &SHORT.replace(old, new));
        let out = drill(&config, file.to_str().unwrap(), &[]);
        let said = String::from_utf8(out.stderr.clone()).unwrap();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(out.stdout.is_empty());
        assert!(said.starts_with(&format!("{}{at}", file.display())) && said.contains(hint), "{said}");
    }
}

#[test]
fn what_is_not_there_and_what_makes_no_sense_have_their_exit_codes() {
    for (arguments, exit, said) in [
        (&["drill", "all-blackhloe"][..], 1, "no scenario is called \"all-blackhloe\""),
        (&["drill", "/nowhere/x.toml"], 1, "/nowhere/x.toml: "),
        (&["drill", "all-blackhole", "--config", "/nowhere/e.toml"], 1, "/nowhere/e.toml: "),
        (&["drill", "all-blackhole", "--set", "stale.max_age=2"], 1, "stale.max_age"),
        (&["drill", "--frobnicate"], 2, "--frobnicate"),
        (&["drill", "one", "two"], 2, "two"),
    ] {
        let out = evenkeel(arguments);
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(exit), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn every_group_is_rehearsed_and_one_without_a_second_tier_is_named() {
    let place = tempfile::tempdir().unwrap();
    let two = format!("{THREE}[groups.corp]\nzones = [\"corp.example\"]\nprimary = [\"192.0.2.10\"]\n");
    let config = written(place.path(), "e.toml", &two);
    let file = written(place.path(), "short.toml", SHORT);
    let out = drill(&config, file.to_str().unwrap(), &[]);
    let text = stdout(&out);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("the group corp has one tier: nothing can take over"), "{text}");
    assert!(!text.contains("the group default has"), "{text}");
}

#[test]
fn a_guarded_zone_that_is_emptied_keeps_its_addresses() {
    let place = tempfile::tempdir().unwrap();
    let guard = |good: &str| format!("{THREE}[[guard]]\nnames = [\"*.emptied.test\"]\nmin_good = \"{good}\"\n");
    let denied = |name: &str, text: &str| {
        let config = written(place.path(), name, text);
        let (_, report) = json(&config, "emptied-zone", &[]);
        report["intervals"].as_array().unwrap().iter().map(|row| row["denied"].as_u64().unwrap()).sum::<u64>()
    };
    assert!(denied("without.toml", THREE) > 500);
    // The shortest TTL of the drill's names: whatever was asked once in time has been good for so long.
    assert_eq!(denied("with.toml", &guard("30s")), 0);
    // Names of that TTL that are seldom asked have not been good for a minute on end.
    let seldom = denied("longer.toml", &guard("1m"));
    assert!((1..100).contains(&seldom), "{seldom}");
}

#[test]
fn the_files_own_examples_read() {
    let guide = std::fs::read_to_string(root().join("conf/drills/README.md")).unwrap();
    let example = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let config = written(place.path(), "e.toml", THREE);
    let file = written(place.path(), "example.toml", example);
    let out = drill(&config, file.to_str().unwrap(), &["--list"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The bar is two seconds for ten minutes of outage, in a release build:
/// `cargo test --release --test drill -- --ignored --nocapture`.
#[test]
#[ignore = "measures: for a release build"]
#[expect(clippy::print_stderr, reason = "the figures are what it is run for")]
fn ten_minutes_of_outage_take_under_two_seconds() {
    let place = tempfile::tempdir().unwrap();
    let config = written(place.path(), "evenkeel.toml", THREE);
    for name in stdout(&evenkeel(&["drill", "--list"])).lines().filter_map(|l| l.split(' ').next()) {
        let begun = Instant::now();
        let _ = drill(&config, name, &["--json"]);
        let took = begun.elapsed();
        eprintln!("{name:<22} {took:?}");
        assert!(took.as_secs() < 2, "{name} took {took:?}");
    }
}

//------------ Helpers -----------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn written(place: &Path, name: &str, text: &str) -> PathBuf {
    let path = place.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn evenkeel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(arguments).output().unwrap()
}

fn drill(config: &Path, what: &str, more: &[&str]) -> Output {
    evenkeel(&[&["drill", what, "--config", config.to_str().unwrap()], more].concat())
}

fn stdout(out: &Output) -> String {
    String::from_utf8(out.stdout.clone()).unwrap()
}

/// Exit code and the one drill of `--json`.
fn json(config: &Path, name: &str, sets: &[&str]) -> (i32, Value) {
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let out = drill(config, name, &[&["--json"], &sets[..]].concat());
    let said = String::from_utf8_lossy(&out.stderr);
    let whole: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {said}"));
    assert_eq!((&whole["version"], whole["drills"].as_array().unwrap().len()), (&Value::from(1), 1));
    assert_eq!(whole["passed"], whole["drills"][0]["passed"]);
    (out.status.code().unwrap(), whole["drills"][0].clone())
}

fn misses(report: &Value) -> Vec<&str> {
    let objectives = report["objectives"].as_array().unwrap().iter();
    objectives.filter(|o| o["passed"] == false).map(|o| o["objective"].as_str().unwrap()).collect()
}

fn has_its_shape(report: &Value, name: &str) {
    assert_eq!(report["scenario"], name);
    let number = |v: &Value| v.as_f64().unwrap_or_else(|| panic!("{name}: {v} is no number"));
    let rows = report["intervals"].as_array().unwrap();
    assert!((5..=24).contains(&rows.len()), "{name}: {} rows", rows.len());
    assert!(number(&report["interval"]) * rows.len() as f64 >= number(&report["length"]));
    let mut asked = 0;
    for row in rows {
        let count = |key: &str| row[key].as_u64().unwrap_or_else(|| panic!("{name}: {key} of {row}"));
        assert_eq!(count("asked"), ["fresh", "stale", "denied", "failed"].map(count).iter().sum::<u64>());
        asked += count("asked");
        for key in ["at", "p50", "p99", "asked_per_second", "upstream_per_second"] {
            number(&row[key]);
        }
        assert_eq!(row["tiers"][0]["group"], "default");
        assert!((1..=3).contains(&row["tiers"][0]["tier"].as_u64().unwrap()));
    }
    assert!(asked > 1000 && asked <= report["questions"].as_u64().unwrap());
    for objective in report["objectives"].as_array().unwrap() {
        assert!(objective["wanted"].is_number(), "{name}: {objective}");
        assert!(number(&objective["from"]) < number(&objective["until"]), "{name}: {objective}");
    }
}
