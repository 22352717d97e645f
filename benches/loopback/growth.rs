//! What a hit costs as things grow, beside the echo asked in the same way.

use super::asker::{Load, Tally};
use super::board::{Bars, Table, short};
use super::cores::Place;
use super::names::{Names, Shape};
use super::rounds::{Setup, in_turn};
use super::servers::{Kind, Server};

/// Records of an answer.
pub const RECORDS: &[u8] = &[1, 4, 15, 30, 60];
/// Client sockets.
const SOCKETS: &[usize] = &[1, 10, 100, 1000];
/// Warm names where it is not they that grow.
const NAMES: u32 = 10_000;

pub fn run(setup: &Setup, bars: &mut Bars) {
    let upstream = setup.upstream();
    let setup = Setup { rounds: setup.rounds.min(3), ..*setup };
    names(&setup, &upstream, bars);
    shapes(&setup, &upstream);
    workers(&setup, &upstream, bars);
}

/// More names, asked by Zipf's law: the hot ones stay, the tail grows.
fn names(setup: &Setup, upstream: &Server, bars: &mut Bars) {
    let counts = setup.or_quick(&[1_000, 10_000, 100_000, 1_000_000][..], &[1_000, 10_000, 100_000]);
    let mut servers = setup.fleet(&[Kind::Echo], upstream, 0);
    for &count in counts {
        servers.extend(setup.fleet(&[Kind::Evenkeel], upstream, count));
    }
    // The echo is asked for as many names as the first one: it knows none.
    let mut draws: Vec<Names> = counts[..1].iter().chain(counts).map(|&count| Names::zipf(count)).collect();
    let figures =
        in_turn(setup.rounds, &servers, |n, s| Load::on(s.address, Shape::USUAL).flood(&mut draws[n], setup.round));
    let mut table =
        Table::new(&["names, Zipf 1.0", "answered/s", "CPU µs", "to echo", "to fewest", "RSS MiB", "unanswered"]);
    let (echo, fewest) = (&figures[0], &figures[1]);
    for ((server, figures), count) in servers.iter().zip(&figures).skip(1).zip(counts) {
        let resident = server.resident() / f64::from(1 << 20);
        let mut row = vec![short(f64::from(*count))];
        let ratios = [figures.cpu_to(echo), figures.cpu_to(fewest)];
        row.extend([figures.per_second(), figures.cpu(), ratios[0], ratios[1], resident].map(short));
        row.push(figures.unanswered.to_string());
        table.row(row);
    }
    table.print();
    let last = figures.last().map_or(f64::NAN, |last| last.cpu_to(fewest));
    let what = format!("CPU a hit over {} names, as a ratio to that over {}", counts[counts.len() - 1], counts[0]);
    bars.at_most(&what, last, 1.25);
}

/// Client sockets, EDNS, records of an answer.
fn shapes(setup: &Setup, upstream: &Server) {
    let servers = setup.fleet(&[Kind::Echo, Kind::Evenkeel], upstream, NAMES);
    let [_, own] = &servers[..] else { return };
    let mut table = head("hits");
    for &sockets in SOCKETS {
        let ask = |s: &Server, names: &mut Names| {
            Load { sockets, window: sockets.max(128), ..Load::on(s.address, Shape::USUAL) }.flood(names, setup.round)
        };
        table.row(beside_echo(setup, &servers, &format!("{sockets} client sockets"), NAMES, ask));
    }
    for edns in [true, false] {
        let shape = Shape { edns, ..Shape::USUAL };
        let ask = |s: &Server, names: &mut Names| Load::on(s.address, shape).flood(names, setup.round);
        table.row(beside_echo(setup, &servers, if edns { "EDNS" } else { "no EDNS" }, NAMES, ask));
    }
    const FEW: u32 = 1_000;
    for &records in RECORDS {
        let shape = Shape { records, ..Shape::USUAL };
        let missing = own.warm(FEW, shape);
        let ask = |s: &Server, names: &mut Names| Load::on(s.address, shape).flood(names, setup.round);
        let what = format!("{records} records{}", if missing > 0 { ", not all known" } else { "" });
        table.row(beside_echo(setup, &servers, &what, FEW, ask));
    }
    table.print();
}

/// One and two workers, on both cores with who asks.
fn workers(setup: &Setup, upstream: &Server, bars: &mut Bars) {
    let mut table = head("on the asker's cores too");
    let mut ratios = Vec::new();
    for kind in [Kind::Echo, Kind::Evenkeel] {
        let servers: Result<Vec<Server>, String> =
            [1, 2].into_iter().map(|n| Server::start(kind, upstream.address, n, Place::Shared)).collect();
        let servers = match servers {
            Ok(servers) => servers,
            Err(why) => return println!("  {} {why}", kind.word()),
        };
        if kind == Kind::Evenkeel {
            for server in &servers {
                server.warm(NAMES, Shape::USUAL);
            }
        }
        Place::Shared.take();
        let mut names = Names::uniform(NAMES);
        // Many sockets, or the kernel gives all questions to one worker.
        let figures = in_turn(setup.rounds, &servers, |_, s| {
            Load { sockets: 64, window: 256, ..Load::on(s.address, Shape::USUAL) }.flood(&mut names, setup.round)
        });
        Place::Asker.take();
        for (n, figures) in figures.iter().enumerate() {
            let mut row = vec![format!("{}, {} workers", kind.word(), n + 1)];
            row.extend([figures.per_second(), figures.cpu(), f64::NAN, f64::NAN, f64::NAN].map(short));
            row.push(figures.unanswered.to_string());
            table.row(row);
        }
        ratios.push(figures[1].cpu_to(&figures[0]));
    }
    table.print();
    println!("  two workers to one, CPU an answer: the echo {}", short(ratios[0]));
    bars.at_most("two workers to one, CPU an answer", ratios[1], 1.25);
}

fn head(what: &str) -> Table {
    Table::new(&[what, "answered/s", "CPU µs", "echo: answered/s", "CPU µs", "CPU to echo", "unanswered"])
}

/// A row of what evenkeel and the echo take where both are asked by `ask`.
fn beside_echo(
    setup: &Setup,
    servers: &[Server],
    what: &str,
    names: u32,
    ask: impl Fn(&Server, &mut Names) -> Tally,
) -> Vec<String> {
    let mut names = Names::uniform(names);
    let figures = in_turn(setup.rounds, servers, |_, s| ask(s, &mut names));
    let (echo, own) = (&figures[0], &figures[1]);
    let mut row = vec![what.to_owned()];
    let ratio = own.cpu_to(echo);
    row.extend([own.per_second(), own.cpu(), echo.per_second(), echo.cpu(), ratio].map(short));
    row.push(own.unanswered.to_string());
    row
}
