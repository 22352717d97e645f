//! The bars that clients feel, of the release build as a process on loopback with scripted upstreams.
//!
//! `cargo bench --bench bars` prints each figure beside its bar, and ends with 1 where one is missed. Each scenario is
//! run three times; a time is judged by its median, a count of wrong answers by its worst run. All of it takes about
//! half an hour; `-- --runs 1` a third of that, and `-- NAME…` runs those scenarios alone; an unknown name lists them.
//!
//! The clients share the machine with the program and its upstreams, so figures are upper bounds; what the clients
//! themselves take, as told by a bare echo in the same run, is taken off where a scenario says so ([`stand`]).
#![allow(clippy::print_stdout, missing_docs)]

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "a part is used here, and its own tests have no harness in a bench")]
mod support;

#[path = "../../tests/stand/mod.rs"]
#[allow(dead_code, reason = "a part of what the tests stand on")]
mod core;

mod board;
mod faults;
mod first;
mod neighbours;
mod reload;
mod restart;
mod silence;
mod stand;
mod vanished;
mod views;

use std::process::ExitCode;

use board::Board;

/// A name to choose it by, what clients live through, and what measures it.
type Scenario = (&'static str, &'static str, fn(&mut Board));

const SCENARIOS: &[Scenario] = &[
    ("start", "start, size and first name", first::start_and_size),
    ("cold-primary", "primary silent from the start", first::silent_primary),
    ("dark", "all silent, in short", first::all_silent),
    ("other-view", "others say NXDOMAIN to everything, in short", first::other_view),
    ("forged", "forged replies first, kind by kind", first::forged_replies),
    ("identical", "identical questions at once", first::identical_questions),
    ("blackout", "all silent for 20 s, 200 known names past their TTL, 300/s", silence::all_silent_known),
    ("blackout-new", "all silent for 15 s, never-seen names", silence::all_silent_new),
    ("primary-silent", "primary silent for 15 s, then back", silence::primary),
    ("two-silent", "primary and secondary silent", silence::primary_and_secondary),
    ("flap", "primary up 1.5 s, down 1.5 s, for 30 s", silence::flapping),
    ("slow", "primary answers 1.5 s late", faults::slow),
    ("gray", "primary answers probes only", faults::gray),
    ("noise", "primary answers with noise", faults::noise),
    ("cut", "primary's replies are cut short", faults::cut),
    ("servfail", "primary answers SERVFAIL", faults::servfail),
    ("refused", "primary answers REFUSED", faults::refused),
    ("closed", "primary's port is closed", faults::closed),
    ("loss", "all lose 30 %", faults::loss),
    ("spoof", "forged replies first, on all", faults::forged),
    ("bogus", "primary answers SERVFAIL with EDE 6 for one name", faults::bogus_name),
    ("nxdomain", "secondary says NXDOMAIN to everything; primary silent, then slow", views::nxdomain),
    ("renumbered", "all records renumbered, upstreams healthy", views::renumbered),
    ("renumbered-100", "the same with 100 ms of latency", views::renumbered_100_ms_away),
    ("renumbered-far", "the same with twice the patience of latency", views::renumbered_far_away),
    ("drip", "2,000/s random names under a dead zone", neighbours::dead_zone_flood),
    ("reload", "20 reloads at 1,000/s over UDP and 1,000/s over TCP", reload::twenty_in_a_row),
    ("idle", "a minute of nothing to do", reload::idle),
    ("restart", "killed with -9 in an outage and started again, 2,000 known names", restart::killed_in_an_outage),
    ("restart-large", "started with the snapshot of a million names", restart::a_million_names),
    ("emptied", "all upstreams empty 50 known names", vanished::emptied),
    ("vanished", "all upstreams deny 50 known names", vanished::denied),
    ("tenant", "one client asks 500/s over 1,000 failing zones", neighbours::failing_tenant),
];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs this too; measuring is not for it.
    let Some(bench) = arguments.iter().position(|a| a == "--bench") else {
        return ExitCode::SUCCESS;
    };
    arguments.remove(bench);
    let chosen = match Chosen::from(arguments) {
        Ok(chosen) => chosen,
        Err(mistake) => {
            println!("{mistake}");
            return ExitCode::from(2);
        }
    };
    let mut missed = 0;
    for (name, what, measure) in chosen.scenarios {
        println!("\n{name}: {what}");
        let mut board = Board::default();
        (0..chosen.runs).for_each(|_| measure(&mut board));
        missed += board.print();
    }
    println!("\n{missed} bars missed");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the command line asks for.
struct Chosen {
    runs: u32,
    scenarios: Vec<Scenario>,
}

impl Chosen {
    fn from(arguments: Vec<String>) -> Result<Self, String> {
        let (mut runs, mut scenarios) = (RUNS, Vec::new());
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--runs" {
                let count = arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                runs = count.ok_or("--runs N, at least 1")?;
            } else if let Some(scenario) = SCENARIOS.iter().find(|(name, ..)| *name == argument) {
                scenarios.push(*scenario);
            } else {
                let all: Vec<String> = SCENARIOS.iter().map(|(name, what, _)| format!("{name:<16}{what}")).collect();
                return Err(format!("bars [--runs N] [NAME…]\n{}", all.join("\n")));
            }
        }
        if scenarios.is_empty() {
            scenarios = SCENARIOS.to_vec();
        }
        Ok(Self { runs, scenarios })
    }
}

const RUNS: u32 = 3;
