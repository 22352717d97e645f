//! Years of bad days in seconds: a world with a seed around the pure core, and what must be so in it.
//!
//! [`faults`] says what is wrong with a world, [`servers`] and [`names`] what servers do, [`node`] does what the
//! program does around its core, [`world`] owns time and lets things happen, [`rules`] says what must be so. [`cases`]
//! are short worlds by script. A seed that breaks a rule is shown again by the command that its failure prints.

#[allow(dead_code)]
#[path = "../support/message.rs"]
mod message;

mod cases;
mod chance;
mod faults;
mod names;
mod node;
mod rate;
mod rules;
mod servers;
mod world;

use faults::Faults;
use world::World;

/// Seeds of `cargo test`.
const SEEDS: u64 = 200;
/// They are run in so many tests, side by side.
const PARTS: u64 = 4;

#[test]
fn seeds_of_the_first_part() {
    seeds(0);
}

#[test]
fn seeds_of_the_second_part() {
    seeds(1);
}

#[test]
fn seeds_of_the_third_part() {
    seeds(2);
}

#[test]
fn seeds_of_the_fourth_part() {
    seeds(3);
}

#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("EVENKEEL_SIM_SEED") else { return };
    run(seed.parse().expect("EVENKEEL_SIM_SEED is a number"));
}

#[test]
fn the_same_seed_gives_the_same_log_byte_for_byte() {
    for seed in 1000..1006 {
        let logs = [0, 1].map(|_| {
            let mut world = World::new(Faults::draw(seed));
            world.run();
            std::mem::take(&mut world.log)
        });
        assert!(logs[0] == logs[1], "seed {seed}");
        assert!(logs[0].len() > 1000, "seed {seed}: {}", logs[0]);
    }
}

fn seeds(part: u64) {
    let broken: Vec<u64> = (0..SEEDS / PARTS).map(|n| n * PARTS + part).filter(|seed| !is_sound(*seed)).collect();
    assert!(broken.is_empty(), "seeds {broken:?}");
}

fn is_sound(seed: u64) -> bool {
    std::panic::catch_unwind(|| run(seed)).is_ok()
}

/// Runs the world of a seed and panics where a rule is broken.
fn run(seed: u64) {
    let faults = Faults::draw(seed);
    let mut world = World::new(faults.clone());
    world.run();
    if let Some(what) = world.rules.broken() {
        let lines: Vec<&str> = world.log.lines().collect();
        let most = std::env::var("EVENKEEL_SIM_LINES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
        let tail = lines[lines.len().saturating_sub(most)..].join("\n");
        panic!(
            "{faults:#?}\n{tail}\nseed {seed}: {what}\nshow it again: EVENKEEL_SIM_SEED={seed} cargo test --test sim -- one_seed --nocapture"
        );
    }
}
