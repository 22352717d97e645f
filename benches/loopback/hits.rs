//! Cached answers over 10,000 names, all of them asked alike.
//!
//! "upstream ms" is what the upstream took while a server was asked as fast as it answers: next to nothing, or hits
//! were none.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::asker::{Load, Tally, Waiting};
use super::board::{Bars, Table, short};
use super::names::{Names, Shape, text};
use super::rounds::{Figures, Setup, best, in_turn, of};
use super::servers::{Kind, Server, installed};

const NAMES: u32 = 10_000;

pub fn run(setup: &Setup, bars: &mut Bars) {
    let upstream = setup.upstream();
    let kinds = [&[Kind::Echo, Kind::Evenkeel][..], &Kind::PEERS].concat();
    let fleet = setup.fleet(&kinds, &upstream, NAMES);
    let mut names = Names::uniform(NAMES);
    let mut upstream_took = vec![Duration::ZERO; fleet.len()];
    let full = in_turn(setup.rounds, &fleet, |n, s| {
        let before = upstream.cpu_of_all();
        let tally = Load::on(s.address, Shape::USUAL).flood(&mut names, setup.round);
        upstream_took[n] += upstream.cpu_of_all().saturating_sub(before);
        tally
    });
    let half = in_turn(setup.rounds, &fleet, |n, s| {
        let rate = full[n].per_second() / 2.0;
        Load::on(s.address, Shape::USUAL).pace(&mut names, rate, setup.round, Waiting::Spinning)
    });
    let of_dnsperf = installed("dnsperf").map(|path| {
        let file = questions(&upstream);
        in_turn(setup.rounds.min(3), &fleet, |_, server| dnsperf(&path, &file, server))
    });
    print(&fleet, &full, &half, &upstream_took, of_dnsperf.as_deref());
    judge(&fleet, &full, "", bars);
    if let Some(figures) = &of_dnsperf {
        judge(&fleet, figures, ", by dnsperf", bars);
    }
    let p99 = |kind| of(kind, &fleet, &half).map_or(f64::NAN, Figures::p99);
    bars.at_most("p99 at half load, as a ratio to the echo's", p99(Kind::Evenkeel) / p99(Kind::Echo), 1.5);
}

fn judge(fleet: &[Server], figures: &[Figures], by: &str, bars: &mut Bars) {
    let (Some(echo), Some(own)) = (of(Kind::Echo, fleet, figures), of(Kind::Evenkeel, fleet, figures)) else {
        return;
    };
    let (least_cpu, most) = best_of_peers(fleet, figures);
    bars.at_most(&format!("CPU an answer, as a ratio to the echo's{by}"), own.cpu_to(echo), 1.15);
    bars.at_most(&format!("CPU an answer, as a ratio to the best peer's{by}"), own.cpu() / least_cpu, 1.0);
    bars.at_least(&format!("answered a second, as a ratio to the best peer's{by}"), own.per_second() / most, 1.0);
}

fn best_of_peers(fleet: &[Server], figures: &[Figures]) -> (f64, f64) {
    let least_cpu = best(fleet, figures, &Kind::PEERS, Figures::cpu, f64::min);
    (least_cpu, best(fleet, figures, &Kind::PEERS, Figures::per_second, f64::max))
}

fn print(
    fleet: &[Server],
    full: &[Figures],
    half: &[Figures],
    upstream_took: &[Duration],
    of_dnsperf: Option<&[Figures]>,
) {
    let mut table = Table::new(&[
        "",
        "version",
        "answered/s",
        "CPU µs",
        "to echo",
        "to peer",
        "half: CPU µs",
        "p50 µs",
        "p99 µs",
        "RSS MiB",
        "unanswered",
        "upstream ms",
        "dnsperf: answered/s",
        "CPU µs",
    ]);
    let echo = of(Kind::Echo, fleet, full);
    let (least_cpu, _) = best_of_peers(fleet, full);
    for (n, server) in fleet.iter().enumerate() {
        let (full, half) = (&full[n], &half[n]);
        let mut row = vec![server.kind.word().to_owned(), server.kind.version()];
        let figures = [
            full.per_second(),
            full.cpu(),
            echo.map_or(f64::NAN, |echo| full.cpu_to(echo)),
            full.cpu() / least_cpu,
            half.cpu(),
            half.p50(),
            half.p99(),
            server.resident() / f64::from(1 << 20),
        ];
        row.extend(figures.map(short));
        row.push((full.unanswered + half.unanswered).to_string());
        row.push(upstream_took[n].as_millis().to_string());
        row.extend(of_dnsperf.iter().flat_map(|all| [short(all[n].per_second()), short(all[n].cpu())]));
        table.row(row);
    }
    table.print();
}

//------------ dnsperf -----------------------------------------------------------------------------------------------

/// Writes as many questions as there are names, in no order, where `server` keeps its files.
fn questions(server: &Server) -> PathBuf {
    let mut names = Names::uniform(NAMES);
    let line = |_| names.next().map(|n| format!("{} A\n", text(n, Shape::USUAL)));
    let path = server.directory().join("questions");
    fs::write(&path, (0..NAMES * 4).filter_map(line).collect::<String>()).expect("a file among the server's own");
    path
}

/// A second of dnsperf, on this thread's core.
fn dnsperf(path: &PathBuf, questions: &PathBuf, server: &Server) -> Tally {
    let mut command = Command::new(path);
    command.args(["-e", "-l", "1", "-q", "128", "-c", "1", "-T", "1", "-s", &server.address.ip().to_string()]);
    command.args(["-p", &server.address.port().to_string(), "-d"]).arg(questions).stdin(Stdio::null());
    let told = command.output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let figure = |label: &str| {
        let line = told.lines().find_map(|l| l.trim_start().strip_prefix(label));
        line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN)
    };
    let answered = figure("Queries completed:");
    let seconds = answered / figure("Queries per second:");
    Tally { sent: figure("Queries sent:") as u64, answered: answered as u64, wrong: 0, seconds, times: Vec::new() }
}
