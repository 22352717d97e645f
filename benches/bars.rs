//! The bars that clients feel, of the release build as a process on loopback with scripted upstreams.
//!
//! `cargo bench --bench bars` prints each figure beside its bar, and ends with 1 where one is missed. Takes about a
//! minute. A measuring client of its own thread shares the machine with the program and its upstreams: figures are
//! upper bounds.
#![allow(clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "a part of what the tests stand on")]
mod support;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use support::client::{Sample, load, percentile};
use support::daemon::{Daemon, tiers};
use support::message::{Message, rcode, rtype};
use support::scripted::{Behaviour, Upstream};
use support::zone::Zone;

const PATIENCE: Duration = Duration::from_secs(5);
const RIGHT: [[u8; 4]; 1] = [[192, 0, 2, 1]];

fn main() -> ExitCode {
    // `cargo test --benches` runs this too; measuring is not for it.
    if !std::env::args().any(|a| a == "--bench") {
        return ExitCode::SUCCESS;
    }
    let mut board = Board { missed: 0 };
    start_and_size(&mut board);
    silent_primary(&mut board);
    all_silent(&mut board);
    other_view(&mut board);
    forged_replies(&mut board);
    identical_questions(&mut board);
    match board.missed {
        0 => ExitCode::SUCCESS,
        n => {
            println!("{n} bars missed");
            ExitCode::FAILURE
        }
    }
}

fn start_and_size(board: &mut Board) {
    let upstream = Upstream::new(zone(60));
    let mut starts: Vec<f64> = (0..5).map(|_| millis(Daemon::over(&[upstream.address()]).started_in)).collect();
    starts.sort_by(f64::total_cmp);
    board.at_most("start to first answer, median of 5, ms", starts[2], 100.0);
    let daemon = Daemon::over(&[upstream.address()]);
    thread::sleep(Duration::from_secs(2));
    board.at_most("RSS idle, MiB", daemon.resident() as f64 / f64::from(1 << 20), 15.0);
    let (reply, took) = daemon.ask_timed("first.test.", rtype::A);
    board.all("first name through an upstream is right", &[reply.addresses() == RIGHT]);
    board.at_most("first name through an upstream, ms", millis(took), 1000.0);
}

fn silent_primary(board: &mut Board) {
    let (daemon, _servers) = three(60, [Behaviour::Silent, Behaviour::Answer, Behaviour::Answer]);
    let first = never_seen(&daemon, "a", 200);
    board.answered("primary silent, never-seen names, first 2 s", &first);
    board.at_most("  p99, ms", p(&first, 0.99), 250.0);
    let later = never_seen(&daemon, "b", 1500);
    board.answered("primary silent, once health has seen it, 15 s", &later);
    board.at_most("  p99, ms", p(&later, 0.99), 20.0);
}

fn all_silent(board: &mut Board) {
    let (daemon, servers) = three(2, [Behaviour::Answer, Behaviour::Answer, Behaviour::Answer]);
    let names = || (0..200).map(|n| format!("n{n}.test."));
    load(daemon.address(), names(), rtype::A, 400, PATIENCE);
    thread::sleep(Duration::from_millis(2300));
    servers.iter().for_each(|s| s.behave(Behaviour::Silent));
    let first = load(daemon.address(), names(), rtype::A, 200, PATIENCE);
    board.answered("all silent, known names, first second", &first);
    // The group's patience is its least, 150 ms: twice its p95 is below that here.
    board.at_most("  slowest, ms", p(&first, 1.0), 200.0);
    thread::sleep(Duration::from_secs(1));
    let later = load(daemon.address(), (0..1500).map(|n| format!("n{}.test.", n % 200)), rtype::A, 300, PATIENCE);
    board.answered("all silent, known names, later, 5 s", &later);
    board.at_most("  p99, ms", p(&later, 0.99), 5.0);

    let new = load(daemon.address(), (0..200).map(|n| format!("new{n}.test.")), rtype::A, 100, PATIENCE);
    let fails = |m: &Message| m.rcode == rcode::SERVFAIL && m.edes().iter().any(|c| matches!(c, 22 | 23));
    let failed: Vec<bool> = new.iter().map(|s| s.reply.as_ref().is_some_and(fails)).collect();
    board.all("all silent, never-seen names: SERVFAIL with EDE 22 or 23", &failed);
    board.at_most("  slowest, ms", p(&new, 1.0), 4000.0);
    board.at_most("  median, ms", p(&new, 0.5), 5.0);
}

fn other_view(board: &mut Board) {
    let nxdomain = Behaviour::NxdomainToEverything;
    let (daemon, servers) = three(2, [Behaviour::Answer, nxdomain.clone(), nxdomain]);
    let names = |count: usize| (0..count).map(|n| format!("n{}.test.", n % 100));
    load(daemon.address(), names(100), rtype::A, 100, PATIENCE);
    thread::sleep(Duration::from_millis(2300));
    for (what, behaviour) in [
        ("others say NXDOMAIN, primary silent, 8 s: known names", Behaviour::Silent),
        ("others say NXDOMAIN, primary 1.5 s slow, 8 s: known names", Behaviour::Slow(Duration::from_millis(1500))),
    ] {
        servers[0].behave(behaviour);
        let samples = load(daemon.address(), names(800), rtype::A, 100, PATIENCE);
        board.answered(what, &samples);
    }
}

fn forged_replies(board: &mut Board) {
    for behaviour in [Behaviour::WrongIdFirst(3), Behaviour::WrongQuestionFirst(3), Behaviour::NoiseFirst(3)] {
        let what = format!("{behaviour:?} on all servers");
        let (daemon, _servers) = three(60, [behaviour.clone(), behaviour.clone(), behaviour]);
        board.answered(&what, &never_seen(&daemon, "f", 300));
    }
}

fn identical_questions(board: &mut Board) {
    let slow = Behaviour::Slow(Duration::from_millis(15));
    let (daemon, servers) = three(60, [slow.clone(), slow.clone(), slow]);
    let names = std::iter::repeat_n("same.test.".to_owned(), 30);
    let samples = load(daemon.address(), names, rtype::A, 10_000, PATIENCE);
    board.answered("30 identical questions at once", &samples);
    let upstream: usize = servers.iter().map(|s| s.count("same.test.", rtype::A)).sum();
    board.at_most("  upstream questions", upstream as f64, 2.0);
}

//------------ What the scenarios stand on ---------------------------------------------------------------------------

fn zone(ttl: u32) -> Zone {
    Zone::new(".").any_below("test.", ttl, "192.0.2.1")
}

fn three(ttl: u32, behaviours: [Behaviour; 3]) -> (Daemon, [Upstream; 3]) {
    let servers = behaviours.map(|b| Upstream::behaving(zone(ttl), b));
    let [a, b, c] = servers.each_ref().map(|s| [s.address()]);
    (Daemon::start(&tiers(&[&a, &b, &c], "")), servers)
}

fn never_seen(daemon: &Daemon, batch: &str, count: usize) -> Vec<Sample> {
    load(daemon.address(), (0..count).map(|n| format!("{batch}{n}.test.")), rtype::A, 100, PATIENCE)
}

fn p(samples: &[Sample], share: f64) -> f64 {
    millis(percentile(samples, share))
}

fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

struct Board {
    missed: usize,
}

impl Board {
    fn at_most(&mut self, what: &str, is: f64, bar: f64) {
        self.line(what, &format!("{is:.2} (bar {bar})"), is <= bar);
    }

    fn answered(&mut self, what: &str, samples: &[Sample]) {
        let right: Vec<bool> =
            samples.iter().map(|s| s.reply.as_ref().is_some_and(|r| r.addresses() == RIGHT)).collect();
        self.all(what, &right);
    }

    fn all(&mut self, what: &str, right: &[bool]) {
        let n = right.iter().filter(|r| **r).count();
        self.line(what, &format!("{n} of {} right", right.len()), n == right.len());
    }

    fn line(&mut self, what: &str, figure: &str, held: bool) {
        self.missed += usize::from(!held);
        println!("{what:<62} {figure}{}", if held { "" } else { "  MISSED" });
    }
}
