//! The bars of the first version: start, size, and the plain faults in short. Nothing is taken off these figures.

use std::thread;
use std::time::Duration;

use super::board::Board;
use super::stand::{is_right, millis};
use super::support::client::{Sample, load, quantile};
use super::support::daemon::{Daemon, tiers};
use super::support::message::{Message, rcode, rtype};
use super::support::scripted::{Behaviour, Upstream};
use super::support::zone::Zone;

const PATIENCE: Duration = Duration::from_secs(5);

pub fn start_and_size(board: &mut Board) {
    let upstream = Upstream::new(zone(60));
    let mut starts: Vec<f64> = (0..5).map(|_| millis(Daemon::over(&[upstream.address()]).started_in)).collect();
    starts.sort_by(f64::total_cmp);
    board.at_most("start to first answer, median of 5, ms", starts[2], 100.0);
    let daemon = Daemon::over(&[upstream.address()]);
    thread::sleep(Duration::from_secs(2));
    board.at_most("RSS idle, MiB", daemon.resident() as f64 / f64::from(1 << 20), 15.0);
    let first = load(daemon.address(), ["first.test.".to_owned()], rtype::A, 1, PATIENCE);
    board.all("first name through an upstream is right", &first, is_right);
    board.at_most("first name through an upstream, ms", p(&first, 1.0), 1000.0);
}

pub fn silent_primary(board: &mut Board) {
    let (daemon, _servers) = three(60, [Behaviour::Silent, Behaviour::Answer, Behaviour::Answer]);
    let first = never_seen(&daemon, "a", 200);
    board.all("never-seen names, first 2 s", &first, is_right);
    board.at_most("  p99, ms", p(&first, 0.99), 250.0);
    let later = never_seen(&daemon, "b", 1500);
    board.all("once health has seen it, 15 s", &later, is_right);
    board.at_most("  p99 then, ms", p(&later, 0.99), 20.0);
}

pub fn all_silent(board: &mut Board) {
    let (daemon, servers) = three(2, [Behaviour::Answer, Behaviour::Answer, Behaviour::Answer]);
    let names = || (0..200).map(|n| format!("n{n}.test."));
    load(daemon.address(), names(), rtype::A, 400, PATIENCE);
    thread::sleep(Duration::from_millis(2300));
    servers.iter().for_each(|s| s.behave(Behaviour::Silent));
    let first = load(daemon.address(), names(), rtype::A, 200, PATIENCE);
    board.all("known names, first second", &first, is_right);
    // The group's patience is its least, 150 ms: twice its p95 is below that here.
    board.at_most("  slowest, ms", p(&first, 1.0), 200.0);
    thread::sleep(Duration::from_secs(1));
    let later = load(daemon.address(), (0..1500).map(|n| format!("n{}.test.", n % 200)), rtype::A, 300, PATIENCE);
    board.all("known names, later, 5 s", &later, is_right);
    board.at_most("  p99, ms", p(&later, 0.99), 5.0);

    let new = load(daemon.address(), (0..200).map(|n| format!("new{n}.test.")), rtype::A, 100, PATIENCE);
    let fails = |m: &Message| m.rcode == rcode::SERVFAIL && m.edes().iter().any(|c| matches!(c, 22 | 23));
    board.all("never-seen names: SERVFAIL with EDE 22 or 23", &new, |s| s.reply.as_ref().is_some_and(fails));
    board.at_most("  slowest of these, ms", p(&new, 1.0), 4000.0);
    board.at_most("  median of these, ms", p(&new, 0.5), 5.0);
}

pub fn other_view(board: &mut Board) {
    let nxdomain = Behaviour::NxdomainToEverything;
    let (daemon, servers) = three(2, [Behaviour::Answer, nxdomain.clone(), nxdomain]);
    let names = |count: usize| (0..count).map(|n| format!("n{}.test.", n % 100));
    load(daemon.address(), names(100), rtype::A, 100, PATIENCE);
    thread::sleep(Duration::from_millis(2300));
    for (what, behaviour) in [
        ("primary silent, 8 s: known names", Behaviour::Silent),
        ("primary 1.5 s slow, 8 s: known names", Behaviour::Slow(Duration::from_millis(1500))),
    ] {
        servers[0].behave(behaviour);
        let samples = load(daemon.address(), names(800), rtype::A, 100, PATIENCE);
        board.all(what, &samples, is_right);
    }
}

pub fn forged_replies(board: &mut Board) {
    for behaviour in [Behaviour::WrongIdFirst(3), Behaviour::WrongQuestionFirst(3), Behaviour::NoiseFirst(3)] {
        let what = format!("{behaviour:?} on all servers");
        let (daemon, _servers) = three(60, [behaviour.clone(), behaviour.clone(), behaviour]);
        board.all(&what, &never_seen(&daemon, "f", 300), is_right);
    }
}

pub fn identical_questions(board: &mut Board) {
    let slow = Behaviour::Slow(Duration::from_millis(15));
    let (daemon, servers) = three(60, [slow.clone(), slow.clone(), slow]);
    let names = std::iter::repeat_n("same.test.".to_owned(), 30);
    let samples = load(daemon.address(), names, rtype::A, 10_000, PATIENCE);
    board.all("30 of them", &samples, is_right);
    let upstream: usize = servers.iter().map(|s| s.count("same.test.", rtype::A)).sum();
    board.at_most("  upstream questions", upstream as f64, 2.0);
}

//------------ What they stand on ------------------------------------------------------------------------------------

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
    quantile(samples, share).map_or(f64::INFINITY, millis)
}
