//! Runs many seeds of the simulation, on all cores, and can be ended and begun again.
//!
//! ```text
//! cargo run --release --example soak -- --from 0 --seeds 20000 --state soak.state
//! ```
//!
//! With `--state`, the next seed is kept in that file, and a later run goes on there. Prints each seed that breaks a
//! rule with the command that shows it again, and totals at the end; ends with 1 where a rule was broken.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
// The cases of `cargo test` use more of these.
#![allow(dead_code)]

#[path = "../support/message.rs"]
mod message;

mod chance;
mod faults;
mod names;
mod node;
mod rate;
mod rules;
mod servers;
mod world;

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use faults::Faults;
use world::{Totals, World};

/// Seeds between two lines of progress, and between two writings of the state.
const STRIDE: u64 = 200;

struct Order {
    from: u64,
    seeds: u64,
    state: Option<PathBuf>,
}

#[derive(Default)]
struct Sum {
    next: u64,
    done: u64,
    broken: Vec<u64>,
    asked: u64,
    upstream: u64,
    stale: u64,
    failed: u64,
    shifts: u64,
    span: Duration,
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let order = match order(std::env::args().skip(1)) {
        Ok(order) => order,
        Err(what) => {
            eprintln!("{what}\nusage: soak [--from N] [--seeds M] [--state FILE]");
            return ExitCode::from(2);
        }
    };
    // A release build ends at a panic of the core: its seed is said before.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        println!("seed {} panics; {}", SEED.get(), again(SEED.get()));
        hook(info);
    }));
    let begun = Instant::now();
    let end = order.from + order.seeds;
    let sum = Mutex::new(Sum { next: order.from, ..Sum::default() });
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| work(&sum, end, &order, begun));
        }
    });
    let sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    keep(&order, end);
    println!(
        "{} seeds in {:.0} s: {} client questions, {} upstream questions, {} stale, {} failed, {} shifts, {:.1} virtual hours",
        sum.done,
        begun.elapsed().as_secs_f64(),
        sum.asked,
        sum.upstream,
        sum.stale,
        sum.failed,
        sum.shifts,
        sum.span.as_secs_f64() / 3600.0
    );
    if sum.broken.is_empty() {
        println!("no rule was broken");
        return ExitCode::SUCCESS;
    }
    println!("broken: {:?}", sum.broken);
    ExitCode::FAILURE
}

fn work(sum: &Mutex<Sum>, end: u64, order: &Order, begun: Instant) {
    let lock = || sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    loop {
        let seed = {
            let mut sum = lock();
            if sum.next >= end {
                return;
            }
            sum.next += 1;
            sum.next - 1
        };
        SEED.set(seed);
        let mut world = World::new(Faults::draw(seed));
        world.run();
        let mut sum = lock();
        sum.add(&world.totals);
        if let Some(what) = world.rules.broken() {
            println!("seed {seed}: {what}\n    {}", again(seed));
            sum.broken.push(seed);
        }
        if sum.done.is_multiple_of(STRIDE) {
            println!("{} seeds, {} broken, {:.0} s", sum.done, sum.broken.len(), begun.elapsed().as_secs_f64());
            // Those that other threads are at are done again.
            keep(order, seed.saturating_sub(STRIDE).max(order.from));
        }
    }
}

impl Sum {
    fn add(&mut self, t: &Totals) {
        self.done += 1;
        self.asked += t.asked;
        self.upstream += t.upstream;
        self.stale += t.stale;
        self.failed += t.failed;
        self.shifts += t.shifts;
        self.span += t.span;
    }
}

fn again(seed: u64) -> String {
    format!("EVENKEEL_SIM_SEED={seed} cargo test --test sim -- one_seed --nocapture")
}

fn keep(order: &Order, next: u64) {
    let Some(path) = &order.state else { return };
    if let Err(e) = std::fs::write(path, format!("{next}\n")) {
        eprintln!("{}: {e}", path.display());
    }
}

fn order(mut arguments: impl Iterator<Item = String>) -> Result<Order, String> {
    let mut order = Order { from: 0, seeds: 1000, state: None };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name}: a value is missing"))?;
        let number = || value.parse::<u64>().map_err(|e| format!("{name} {value}: {e}"));
        match name.as_str() {
            "--from" => order.from = number()?,
            "--seeds" => order.seeds = number()?,
            "--state" => order.state = Some(value.into()),
            _ => return Err(format!("{name}: unknown")),
        }
    }
    // What was done before is not done again.
    if let Some(kept) = order.state.as_ref().and_then(|p| std::fs::read_to_string(p).ok()) {
        let next: u64 = kept.trim().parse().map_err(|e| format!("the state: {e}"))?;
        let end = order.from + order.seeds;
        order.from = order.from.max(next);
        order.seeds = end.saturating_sub(order.from);
    }
    Ok(order)
}
