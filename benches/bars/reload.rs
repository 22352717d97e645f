//! Twenty reloads in a row under load, each with another configuration; and what an idle process takes.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::board::Board;
use super::stand::{Act, Stand, is_right, millis, play, secs, zone};
use super::support::client::{Sample, Stream, quantile};
use super::support::daemon::{Daemon, tiers};
use super::support::message::{Message, Question, rtype};
use super::support::scripted::Upstream;

/// Reloads in a row.
const RELOADS: u32 = 20;
/// From one to the next.
const APART: Duration = Duration::from_millis(250);
/// Questions a second, over UDP and over TCP each.
const PER_SECOND: u32 = 1000;
/// Connections that are open at once.
const CONNECTIONS: u32 = 10;
/// Questions on a connection, one after the other; then it is closed and a new one opened.
const ON_A_CONNECTION: u32 = 25;

pub fn twenty_in_a_row(board: &mut Board) {
    let stand = Stand::new(&zone(60), "");
    let known = |n: u32| format!("known{0}.z{0}.test.", n % 200);
    stand.learn((0..200).map(known));
    let seconds = APART * (RELOADS + 2);
    let count = PER_SECOND * seconds.as_millis() as u32 / 1000;
    // Every other name is in no cache.
    let names = |batch: &str| -> Vec<String> {
        (0..count).map(|n| if n.is_multiple_of(2) { known(n) } else { format!("{batch}{n}.z{n}.test.") }).collect()
    };
    let load = || stand.load().per_second(PER_SECOND);
    let server = stand.daemon.address();
    let both = |batch: &str, acts: &mut [Act<'_>]| {
        let over_tcp = names(&format!("{batch}-tcp"));
        thread::scope(|scope| {
            let streams = scope.spawn(move || ask_over_tcp(server, &over_tcp));
            let (mut udp, _) = play(vec![(load(), names(&format!("{batch}-udp")))], acts);
            (udp.remove(0), streams.join().expect("the streams end"))
        })
    };
    let calm = both("calm", &mut []);
    let refused = std::cell::Cell::new(0);
    let reload = |n: u32| {
        // Another policy each time: a group more or less, other bounds, a local name.
        let more = format!(
            "\n[cache]\nmax_ttl = \"{}s\"\n\n[[local]]\nname = \"n{n}.lan\"\ntype = \"A\"\nvalue = \"192.0.2.9\"\n{}",
            3600 + n,
            if n.is_multiple_of(2) {
                "\n[groups.other]\nzones = [\"other.example\"]\nprimary = [\"127.0.0.1:9\"]\n"
            } else {
                ""
            }
        );
        let [a, b, c] = stand.servers.each_ref().map(|s| [s.address()]);
        stand.daemon.write_configuration(&tiers(&[&a, &b, &c], &more));
        if stand.daemon.command(&["reload"]).code != Some(0) {
            refused.set(refused.get() + 1);
        }
    };
    let mut reloads: Vec<_> = (0..RELOADS).map(|n| (APART * (n + 1), move || reload(n))).collect();
    let mut acts: Vec<Act<'_>> = reloads.iter_mut().map(|(at, act)| (*at, act as &mut dyn FnMut())).collect();
    let reloaded = both("reloaded", &mut acts);
    board.at_most("reloads that were refused", f64::from(refused.get()), 0.0);
    for (over, calm, reloaded) in [("UDP", &calm.0, &reloaded.0), ("TCP", &calm.1, &reloaded.1)] {
        board.all(&format!("{over}, calm"), calm, is_right);
        board.all(&format!("{over}, over {RELOADS} reloads"), reloaded, is_right);
        let worst = |samples: &[Sample]| quantile(samples, 1.0).map_or(f64::INFINITY, millis);
        board.told(&format!("{over}, slowest, calm, ms"), worst(calm));
        board.told(&format!("{over}, slowest, over reloads, ms"), worst(reloaded));
        board.at_most(
            &format!("{over}: slower than the slowest of the calm, ms"),
            worst(reloaded) - worst(calm),
            50.0,
        );
    }
}

/// Asks `names`, [`PER_SECOND`] of them, over [`CONNECTIONS`] that are renewed all the time. A time counts from when
/// the question was due, with the connecting where one is new.
fn ask_over_tcp(server: SocketAddr, names: &[String]) -> Vec<Sample> {
    let start = Instant::now();
    let lane = |lane: u32| {
        let mut stream: Option<Stream> = None;
        let mut samples = Vec::new();
        let mine = (lane..names.len() as u32).step_by(CONNECTIONS as usize);
        for (turn, n) in mine.enumerate() {
            let at = start + Duration::from_secs(1) * n / PER_SECOND;
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if (turn as u32).is_multiple_of(ON_A_CONNECTION) {
                stream = None;
            }
            let stream = stream.get_or_insert_with(|| Stream::connect(server));
            let name = names[n as usize].clone();
            stream.send(&Question::new(&name, rtype::A).to_bytes());
            let reply = stream.receive().ok().map(|r| Message::read(&r));
            samples.push(Sample { name, at, took: reply.as_ref().map(|_| at.elapsed()), reply });
        }
        samples
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..CONNECTIONS).map(|n| scope.spawn(move || lane(n))).collect();
        lanes.into_iter().flat_map(|l| l.join().expect("a lane ends")).collect()
    })
}

/// A minute of nothing to do, with the default configuration's probes and look-outs and one upstream.
pub fn idle(board: &mut Board) {
    const SPAN: Duration = Duration::from_secs(60);
    let upstream = Upstream::new(zone(60));
    let daemon = Daemon::over(&[upstream.address()]);
    // Start, first probes and the first snapshot are not idling.
    thread::sleep(secs(10.0));
    let before = on_processor(daemon.pid());
    thread::sleep(SPAN);
    let took = on_processor(daemon.pid()).saturating_sub(before);
    board.at_most("CPU idle, % of a core", 100.0 * took.as_secs_f64() / SPAN.as_secs_f64(), 0.1);
    board.at_most("RSS idle, MiB", daemon.resident() as f64 / f64::from(1 << 20), 15.0);
}

/// What all threads have had of the processor, to the nanosecond (`/proc/PID/task/*/schedstat`, its first number).
fn on_processor(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of = |task: fs::DirEntry| -> u64 {
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.flatten().map(of).sum())
}
