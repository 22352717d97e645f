//! Names that nobody has asked: each answer is fetched from the upstream.
//!
//! The upstream shares the asker's core, so what is answered a second is of all three; CPU an answer is the server's.

use std::time::Duration;

use super::asker::{Load, Waiting};
use super::board::{Bars, Table, short};
use super::names::{Names, Shape};
use super::rounds::{Figures, Setup, best, in_turn, of};
use super::servers::Kind;

/// Numbers from here on were never asked.
const FIRST: u32 = 10_000_000;
/// What must be answered without a loss.
const RATE: f64 = 20_000.0;

pub fn run(setup: &Setup, bars: &mut Bars) {
    let upstream = setup.upstream();
    let fleet = setup.fleet(&[&[Kind::Evenkeel][..], &Kind::PEERS].concat(), &upstream, 100);
    let mut names: Vec<Names> = fleet.iter().map(|_| Names::new(FIRST)).collect();
    let full =
        in_turn(setup.rounds, &fleet, |n, s| Load::on(s.address, Shape::USUAL).flood(&mut names[n], setup.round));
    let half = in_turn(setup.rounds.min(3), &fleet, |n, s| {
        let rate = full[n].per_second() / 2.0;
        Load::on(s.address, Shape::USUAL).pace(&mut names[n], rate, setup.round, Waiting::Asleep)
    });
    let caching = best(&fleet, &full, &[Kind::Unbound, Kind::Knot], Figures::cpu, f64::min);
    let mut table = Table::new(&[
        "",
        "answered/s",
        "CPU µs",
        "to best caching",
        "half: CPU µs",
        "p50 µs",
        "p99 µs",
        "RSS MiB",
        "unanswered",
    ]);
    for (n, server) in fleet.iter().enumerate() {
        let (full, half) = (&full[n], &half[n]);
        let mut row = vec![server.kind.word().to_owned()];
        let resident = server.resident() / f64::from(1 << 20);
        let figures =
            [full.per_second(), full.cpu(), full.cpu() / caching, half.cpu(), half.p50(), half.p99(), resident];
        row.extend(figures.map(short));
        row.push((full.unanswered + half.unanswered).to_string());
        table.row(row);
    }
    table.print();
    let cpu = |kind| of(kind, &fleet, &full).map_or(f64::NAN, Figures::cpu);
    bars.at_most("CPU an answer, as a ratio to the best caching resolver's", cpu(Kind::Evenkeel) / caching, 0.5);
    bars.at_most("CPU an answer, as a ratio to dnsdist's", cpu(Kind::Evenkeel) / cpu(Kind::Dnsdist), 1.5);
    if let Some(at) = fleet.iter().position(|s| s.kind == Kind::Evenkeel) {
        let time = Duration::from_secs(setup.or_quick(5, 2));
        let tally = Load::on(fleet[at].address, Shape::USUAL).pace(&mut names[at], RATE, time, Waiting::Asleep);
        let what = format!("without a right answer at {} a second, of {}", short(RATE), tally.sent);
        bars.at_most(&what, (tally.lost() + tally.wrong) as f64, 0.0);
        bars.at_least("  of these asked in time", tally.sent as f64 / (RATE * time.as_secs_f64()), 0.95);
    }
}
