//! `evenkeel drill`: reads scenario and configuration, plays, prints.
//!
//! Not pure. What is asked for is the report, so it goes to stdout; what is wrong with a file goes to stderr.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use super::{EXIT_FAULT, EXIT_FINE, print, talk};
use crate::config::Mistake;
use crate::drill::script::Scenario;
use crate::drill::stage::Stage;
use crate::drill::{BUILT_IN, picture, reading, report, run, series};
use crate::upkeep::source::{ConfigSource, shown_path};

/// Bytes of a scenario's file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub list: bool,
    pub json: bool,
    /// The metrics so often, and nothing else.
    pub series: Option<Duration>,
}

/// Runs the drills that `what` means: a built-in one, a file, or all built-in ones.
pub(super) fn drill(what: Option<&str>, source: &ConfigSource, shape: Shape) -> u8 {
    let found = match what {
        Some(what) => find(what).map(|one| vec![one]),
        None => BUILT_IN.iter().map(|b| read(b.name, b.name, b.text)).collect(),
    };
    let scenarios = match found {
        Ok(scenarios) => scenarios,
        Err(why) => {
            talk(&why);
            return EXIT_FAULT;
        }
    };
    if shape.list {
        return print(&list(&scenarios, shape.json));
    }
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(refused) => {
            talk(&refused.to_string());
            return EXIT_FAULT;
        }
    };
    let stage = Stage::new(&shown_path(loaded.path.as_deref()), &loaded.config);
    if let (Some(every), [scenario]) = (shape.series, &scenarios[..]) {
        return match series(scenario, &stage, every) {
            Ok(text) => print(&text),
            Err(mistakes) => {
                talk(&shown(&mistakes, what.unwrap_or(&scenario.name)));
                EXIT_FAULT
            }
        };
    }
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut reports = Vec::new();
    for scenario in &scenarios {
        let report = match run(scenario, &stage) {
            Ok(report) => report,
            Err(mistakes) => {
                talk(&shown(&mistakes, what.unwrap_or(&scenario.name)));
                return EXIT_FAULT;
            }
        };
        // One alone is shown whole; of many each has a line, at once, and those that failed are shown behind.
        if !shape.json {
            let text = if what.is_some() { picture::whole(&report, colour) } else { picture::line(&report, colour) };
            match print(&text) {
                EXIT_FINE => {}
                exit => return exit,
            }
        }
        reports.push(report);
    }
    let passed = reports.iter().all(report::Report::passed);
    let rest = if shape.json {
        format!("{:#}\n", report::all_json(&stage.name, &reports))
    } else if what.is_none() {
        let failed = reports.iter().filter(|r| !r.passed()).map(|r| format!("\n{}", picture::whole(r, colour)));
        failed.chain([format!("{}\n", if passed { "passed" } else { "failed" })]).collect()
    } else {
        String::new()
    };
    match print(&rest) {
        EXIT_FINE if !passed => EXIT_FAULT,
        exit => exit,
    }
}

fn list(scenarios: &[Scenario], json: bool) -> String {
    if json {
        let all: Vec<serde_json::Value> =
            scenarios.iter().map(|s| serde_json::json!({ "scenario": s.name, "title": s.title })).collect();
        return format!("{:#}\n", serde_json::json!({ "version": report::JSON_VERSION, "drills": all }));
    }
    scenarios.iter().map(|s| format!("{:<22} {}\n", s.name, s.title)).collect()
}

/// A built-in scenario by its name, else the file of this path.
fn find(what: &str) -> Result<Scenario, String> {
    if let Some(built_in) = BUILT_IN.iter().find(|b| b.name == what) {
        return read(built_in.name, built_in.name, built_in.text);
    }
    let path = Path::new(what);
    if !path.exists() && !what.contains(['/', '.']) {
        return Err(format!(
            "no scenario is called {what:?}\n  hint: `evenkeel drill --list` names them; a file needs its path"
        ));
    }
    let text = file(path).map_err(|e| format!("{what}: {e}"))?;
    let name = path.file_stem().map_or_else(|| what.to_owned(), |stem| stem.to_string_lossy().into_owned());
    read(&name, what, &text)
}

fn read(name: &str, shown_as: &str, text: &str) -> Result<Scenario, String> {
    reading::parse(name, text).map_err(|mistakes| shown(&mistakes, shown_as))
}

fn shown(mistakes: &[Mistake], file: &str) -> String {
    let all: Vec<String> = mistakes.iter().map(|m| m.shown(file).to_string()).collect();
    all.join("\n")
}

fn file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("a scenario has at most 1 MiB"));
    }
    Ok(text)
}
