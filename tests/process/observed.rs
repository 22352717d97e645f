//! What dashboard, alerts and runbooks name is what the running program exports: metrics, their labels, and the values
//! of labels that they compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{Daemon, tiers};
use crate::support::message::{rcode, rtype};
use crate::support::peers::Peer;
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::zone::Zone;
use crate::support::{busy, wait_for};

/// By metric: its labels, and the values of each.
type Exported = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Labels that Prometheus adds.
const TARGET: [&str; 2] = ["job", "instance"];

#[test]
fn dashboard_alerts_and_runbooks_name_only_what_the_program_exports() {
    let _busy = busy();
    let text = scraped();
    let exported = read(&text);
    let mut expressions = dashboard();
    expressions
        .push(("alerts.yaml".into(), fs::read_to_string(root().join("packaging/prometheus/alerts.yaml")).unwrap()));
    for file in fs::read_dir(root().join("packaging/runbooks")).unwrap() {
        let file = file.unwrap().path();
        expressions.push((file.display().to_string(), fs::read_to_string(file).unwrap()));
    }
    let mut used = 0;
    for (place, text) in &expressions {
        for (metric, matchers) in selectors(text) {
            used += 1;
            let labels = exported.get(&metric).unwrap_or_else(|| panic!("{place}: there is no metric {metric}"));
            for (label, value) in matchers {
                if TARGET.contains(&label.as_str()) {
                    continue;
                }
                let known = labels.get(&label).unwrap_or_else(|| panic!("{place}: {metric} has no label {label}"));
                for value in value.split('|').filter(|v| !v.starts_with('$')) {
                    assert!(known.contains(value), "{place}: {label} of {metric} is never {value:?}: {known:?}");
                }
            }
        }
        let all: BTreeSet<&str> = exported.values().flat_map(|labels| labels.keys().map(String::as_str)).collect();
        for label in grouped_by(text) {
            let fine = TARGET.contains(&label.as_str()) || ["alertname", "le"].contains(&label.as_str());
            assert!(fine || all.contains(label.as_str()), "{place}: nothing has the label {label}");
        }
    }
    assert!(used > 80, "only {used} uses of metrics were found");
    let Some(promtool) = Peer::Promtool.path() else { return };
    let mut check = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = check.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    dashboard_parses(&promtool);
}

/// The page of a process that has answered, failed, kept a snapshot and asked a canary.
fn scraped() -> String {
    let upstream = Upstream::new(Zone::new("test.").a("www.test.", 60, "192.0.2.1"));
    let more = "[[canary]]\nname = \"www.test\"\nevery = \"1s\"\n[cache]\nsnapshot_every = \"1s\"\n";
    let daemon = Daemon::start(&tiers(&[&[upstream.address()]], more));
    let _ = daemon.ask("www.test.", rtype::A);
    upstream.behave(Behaviour::Fail(rcode::SERVFAIL, None));
    let _ = daemon.ask("other.test.", rtype::A);
    wait_for("a page with all that comes late", Duration::from_secs(20), || {
        let text = daemon.get("/metrics").1;
        let late =
            ["evenkeel_canary_success{", "evenkeel_snapshot_last_success_", "evenkeel_upstream_failures_total{"];
        late.iter().all(|name| text.lines().any(|l| l.starts_with(name))).then_some(text)
    })
}

fn read(text: &str) -> Exported {
    let mut exported = Exported::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let of_metric = exported.entry(name.to_owned()).or_default();
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        for label in labels.split("\",").filter(|l| !l.is_empty()) {
            let (label, value) = label.split_once("=\"").unwrap();
            of_metric.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    exported.insert("up".into(), BTreeMap::new());
    exported
}

/// Every metric that a text names, with what its labels are compared with.
fn selectors(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("evenkeel_").chain(text.match_indices("process_")) {
        if text[..at].ends_with(is_word) {
            continue;
        }
        let name: String = text[at..].chars().take_while(|c| is_word(*c)).collect();
        let rest = &text[at + name.len()..];
        let braces = rest.strip_prefix('{').and_then(|r| r.split('}').next()).unwrap_or_default();
        let matchers = braces.split("\",").filter(|m| !m.is_empty()).map(|m| {
            let (label, rest) = m.split_at(m.find(['=', '!']).unwrap_or_else(|| panic!("{m:?} in {braces}")));
            (label.trim().to_owned(), rest.trim_start_matches(['=', '!', '~']).trim_matches('"').to_owned())
        });
        found.push((name, matchers.collect()));
    }
    found
}

/// Labels behind `by` and `on`.
fn grouped_by(text: &str) -> Vec<String> {
    let lists = ["by (", "on ("].iter().flat_map(|word| text.split(word).skip(1));
    lists
        .flat_map(|rest| rest.split(')').next().unwrap_or_default().split(','))
        .map(|l| l.trim().to_owned())
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn dashboard_json() -> Value {
    let text = fs::read_to_string(root().join("packaging/grafana/evenkeel.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The dashboard's expressions, by panel.
fn dashboard() -> Vec<(String, String)> {
    let whole = dashboard_json();
    let mut found = Vec::new();
    for panel in whole["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for variable in whole["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            found.push((variable["name"].to_string(), query.to_owned()));
        }
    }
    found.push(("annotation".into(), whole["annotations"]["list"][0]["expr"].as_str().unwrap().to_owned()));
    found
}

/// Every expression is one to Prometheus.
fn dashboard_parses(promtool: &Path) {
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (n, (_, expression)) in dashboard().iter().filter(|(_, e)| !e.starts_with("label_values(")).enumerate() {
        let plain = expression.replace("$__rate_interval", "5m").replace("$__interval", "1m");
        writeln!(rules, "  - record: panel:n{n}\n    expr: '{}'", plain.replace('\'', "''")).unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("rules.yaml");
    fs::write(&file, rules).unwrap();
    let out = Command::new(promtool).args(["check", "rules"]).arg(&file).output().unwrap();
    let said = [out.stdout, out.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
    assert!(out.status.success(), "{said}");
}

#[test]
fn every_panel_has_its_place_a_unit_and_a_description_and_asks_the_chosen_source() {
    let whole = dashboard_json();
    let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in whole["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|k| panel["gridPos"][k].as_u64().unwrap());
        assert!(x + w <= 24, "{title} stands out");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title} lies over another");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().unwrap().len() > 20, "{title} is not described");
        assert!(!panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap().is_empty(), "{title} has no unit");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("job=~\"$job\",instance=~\"$instance\""), "{title}: {expression}");
        }
    }
    let names: Vec<&str> =
        whole["templating"]["list"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance", "group"]);
}
