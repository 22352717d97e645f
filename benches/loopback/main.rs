//! What an answer costs on loopback, beside a bare echo and the programs of others: `cargo bench --bench loopback`.
//!
//! Starts the release build, the echo ([`echo`]) and each peer that is installed, pinned alike ([`cores`]) and asked
//! alike ([`asker`]), all in one run. Rounds take turns over the servers, so that the machine's moods meet all of them,
//! and figures are medians of rounds. Absolute figures move with the machine; the ratios are what to compare.
//!
//! | section | what it measures |
//! |---|---|
//! | `hits` | cached answers over 10,000 names: answered a second, CPU an answer, p50 and p99 at half load, RSS |
//! | `misses` | names that were never asked, over NSD |
//! | `growth` | hits by names, client sockets, EDNS, size of answers, workers |
//! | `tcp` | hits pipelined on TCP connections |
//! | `memory` | RSS of a cached small answer |
//!
//! `-- hits tcp` runs these alone, `-- --rounds 3` as many rounds, `-- --quick` all of it in two minutes. Bars stand
//! beside the figures; where one is missed it says so, and the end is 1.
//!
//! The load generator is our own throughout: it does what dnsperf does not (names never repeated, Zipf, pipelined TCP,
//! times without its own stalls), and from one core it asks the echo 290,000 times a second where dnsperf asks 190,000,
//! so that it is the servers that are measured. Hits are measured by dnsperf as well where it is installed. Batches are
//! smaller then, and the echo waits for its questions: evenkeel took 4.4 µs an answer by ours and 4.7 by dnsperf where
//! the echo took 3.4 and 4.5.
//!
//! CPU an answer is user and system time of the server's process over the answers that were right. Loopback charges
//! the way of a packet into the receiver's socket to the sender, so the echo's figure is the kernel's share of any
//! server that batches as it does.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "a part is used here, and its own tests have no harness in a bench")]
mod support;

mod asker;
mod board;
mod calm;
mod cores;
mod echo;
mod growth;
mod hits;
mod memory;
mod misses;
mod names;
mod pipelined;
mod rounds;
mod servers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use board::Bars;
use cores::Place;
use rounds::Setup;

/// A name to choose it by, and what measures it.
type Section = (&'static str, fn(&Setup, &mut Bars));

const SECTIONS: &[Section] = &[
    ("hits", hits::run),
    ("misses", misses::run),
    ("growth", growth::run),
    ("tcp", pipelined::run),
    ("memory", memory::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, address, workers] = &arguments[..]
        && flag == "--echo"
    {
        let served = echo::serve(address.parse().expect("an address"), workers.parse().expect("a number"));
        eprintln!("{served:?}");
        return ExitCode::FAILURE;
    }
    if !arguments.iter().any(|a| a == "--bench") {
        return ExitCode::SUCCESS;
    }
    let (setup, sections) = match chosen(arguments.into_iter().filter(|a| a != "--bench")) {
        Ok(chosen) => chosen,
        Err(mistake) => {
            println!("{mistake}");
            return ExitCode::from(2);
        }
    };
    match cores::pair() {
        Some([asker, server]) => println!("servers on core {server}; load generator and upstream on core {asker}"),
        None => println!("one core: nothing is pinned, and figures are of a server that shares it with who asks"),
    }
    Place::Asker.take();
    let mut bars = Bars::default();
    for (name, measure) in sections {
        let start = Instant::now();
        println!("\n{name}");
        measure(&setup, &mut bars);
        let others = rounds::others().map_or(String::new(), |(median, most)| {
            let (median, most) = (median * 100.0, most * 100.0);
            format!("; others took {median:.0} % of the cores in the median round, {most:.0} % in the worst")
        });
        println!("  ({:.0} s, load {}{others})", start.elapsed().as_secs_f64(), rounds::machine_load());
    }
    println!("\n{} bars missed", bars.missed);
    if bars.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the command line asks for.
fn chosen(arguments: impl Iterator<Item = String>) -> Result<(Setup, Vec<Section>), String> {
    let mut setup = Setup { rounds: 5, round: Duration::from_secs(1), quick: false };
    let (mut sections, mut rounds) = (Vec::new(), None);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        if argument == "--rounds" {
            let count = arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            rounds = Some(count.ok_or("--rounds N, at least 1")?);
        } else if argument == "--quick" {
            setup = Setup { rounds: 1, round: Duration::from_millis(500), quick: true };
        } else if let Some(section) = SECTIONS.iter().find(|(name, _)| *name == argument) {
            sections.push(*section);
        } else {
            let all: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
            return Err(format!("loopback [--rounds N] [--quick] [{}]…", all.join("|")));
        }
    }
    setup.rounds = rounds.unwrap_or(setup.rounds);
    Ok((setup, if sections.is_empty() { SECTIONS.to_vec() } else { sections }))
}
