//! Drills: scripted bad days in virtual time, played by the real pure core under the user's own configuration.
//!
//! Pure; files are read by `cli/drill.rs`. A scenario ([`script`], read by [`reading`]) says who asks, what goes wrong
//! and what must hold. A `world` plays it: `node` carries out what the core decides as the driver does, `servers`
//! stand for the upstreams of the configuration ([`stage`]), `measure` notes what clients get. `verdict` compares
//! that with the objectives, [`picture`] and [`report`] show it; [`mod@series`] shows what the program's metrics said
//! meanwhile.
//!
//! One file, one configuration: one result, byte for byte.

mod chance;
mod measure;
mod names;
mod node;
pub mod picture;
pub mod reading;
pub mod report;
pub mod script;
pub mod series;
mod servers;
pub mod stage;
mod verdict;
mod world;

use std::time::Duration;

use crate::config::Mistake;
use report::Report;
use script::Scenario;
use stage::Stage;
use world::World;

/// Plays a scenario under a configuration. A mistake is one that only both together show.
pub fn run(scenario: &Scenario, stage: &Stage) -> Result<Report, Vec<Mistake>> {
    let (tape, network, _) = World::new(scenario, stage)?.run();
    let judged = verdict::judge(scenario, stage, &network, &tape);
    Ok(Report::new(scenario, stage, &network, &tape, judged))
}

/// Plays it, and shows what a scrape of the metrics every so often would have seen, as input of promtool's rule tests.
pub fn series(scenario: &Scenario, stage: &Stage, every: Duration) -> Result<String, Vec<Mistake>> {
    let (_, _, scrapes) = World::new(scenario, stage)?.scraped(every).run();
    Ok(series::input(&scrapes))
}

/// A scenario that comes with the program.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// Its file.
    pub text: &'static str,
}

macro_rules! built_in {
    ($($name:literal)*) => {
        /// The scenarios that come with the program, from `conf/drills`.
        pub const BUILT_IN: &[BuiltIn] = &[
            $(BuiltIn { name: $name, text: include_str!(concat!("../../conf/drills/", $name, ".toml")) }),*
        ];
    };
}

built_in! {
    "primary-blackhole"
    "all-blackhole"
    "flapping-primary"
    "gray-primary"
    "slow-primary"
    "lossy-all"
    "servfail-primary"
    "emptied-zone"
    "other-view"
    "cold-start-in-outage"
    "flood-dead-zone"
    "hostile-tenant"
    "recovery-herd"
    "v6-broken"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_reads() {
        for built_in in BUILT_IN {
            if let Err(mistakes) = reading::parse(built_in.name, built_in.text) {
                panic!("{}", mistakes[0].shown(built_in.name));
            }
        }
    }

    #[test]
    fn every_file_beside_the_built_in_ones_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/drills");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
            .collect();
        names.sort();
        let mut known: Vec<&str> = BUILT_IN.iter().map(|b| b.name).collect();
        known.sort_unstable();
        assert_eq!(names, known);
    }
}
