//! What a snapshot costs: `cargo bench --bench snapshot`.
//!
//! - A million answers: seconds and bytes to write at once, seconds to read, and what a hit takes meanwhile on another
//!   core, beside what it takes alone. Hits go through the whole of the hit path.
//! - Bytes an hour that go to the disk at 100 changes a second, for the default size and for 20,000 names.
#![allow(clippy::print_stdout, missing_docs)]

#[path = "../tests/stand/mod.rs"]
#[allow(dead_code, reason = "a part of what the tests stand on")]
mod stand;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::cache::freshness::TtlSettings;
use evenkeel::cache::key::Question;
use evenkeel::cache::snapshot::GroupRecord;
use evenkeel::cache::store::{MokaStore, OVERHEAD_BYTES};
use evenkeel::cache::{Cache, CacheSettings};
use evenkeel::clock;
use evenkeel::limits;
use evenkeel::upkeep::snapshot::{Around, FILE, Home, Homes, Snapshotter};
use rustix::time::{ClockId, clock_gettime};
use stand::{CLIENT, STAMP, door, entry, name};

const LARGE: u64 = 2 << 30;
const ANSWERS: u64 = 1_000_000;
/// Names that are hit meanwhile: more than the caches of a core hold.
const HIT: u64 = 20_000;
const CHANGES_PER_SECOND: u64 = 100;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    // As the program does.
    evenkeel::upkeep::huge::off();
    a_million();
    an_hour("the default size", limits::CACHE_BYTES.default, u64::MAX);
    an_hour("20,000 names", limits::CACHE_BYTES.default, 20_000);
}

fn a_million() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = filled(LARGE, ANSWERS);
    let writer = snapshotter(directory.path(), &cache, LARGE);
    writer.read(&Alone);
    for _ in 0..3 {
        let began = Instant::now();
        writer.write_now(&Alone).expect("it is written");
        println!("written in {:.2} s", began.elapsed().as_secs_f64());
    }
    let bytes = file_bytes(directory.path());
    println!("{bytes} bytes, {:.0} a name", bytes as f64 / ANSWERS as f64);
    drop((writer, cache));

    for _ in 0..3 {
        let cache = filled(LARGE, 1);
        println!("nobody asks: {}", timed(&snapshotter(directory.path(), &cache, LARGE)));
    }
    let (mut alone, mut meanwhile) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        // The names that are hit came since the start.
        let cache = filled(LARGE, HIT);
        let reader = snapshotter(directory.path(), &cache, LARGE);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            alone.push(hits(&cache, &mut |round| round < 10));
            let hitting = scope.spawn(|| hits(&cache, &mut |_| !over.load(Ordering::Relaxed)));
            println!("while serving: {}", timed(&reader));
            over.store(true, Ordering::Relaxed);
            meanwhile.push(hitting.join().expect("hits end"));
        });
    }
    let (alone, meanwhile) = (median(alone), median(meanwhile));
    println!(
        "p99 of a hit: {alone} ns alone, {meanwhile} ns meanwhile, {:.2} times",
        meanwhile as f64 / alone as f64
    );
}

/// Reads on a thread of its own, since it lowers its priority.
fn timed(reader: &Snapshotter) -> String {
    let (took, busy) = thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let began = Instant::now();
            reader.read(&Alone);
            (began.elapsed(), clock_gettime(ClockId::ThreadCPUTime))
        });
        reading.join().expect("reading ends")
    });
    let busy = Duration::new(busy.tv_sec as u64, busy.tv_nsec as u32);
    format!("{} read in {took:.2?}, of which {busy:.2?} at work", reader.status().restored)
}

/// The p99 in ns of hits on all names in turn, at most 100,000 a second, once all were hit, while `goes_on`.
fn hits(cache: &Arc<Cache>, goes_on: &mut dyn FnMut(u32) -> bool) -> u64 {
    let queries: Vec<Vec<u8>> = (0..HIT).map(|n| stand::query(n.wrapping_mul(7919) % HIT, true)).collect();
    let mut door = door(cache.clone(), LARGE);
    let mut out = [0; 1232];
    let mut took = vec![0u64; 1 << 20];
    let mut round = 0;
    while goes_on(round) {
        for batch in queries.chunks(100) {
            if round > 0 && !goes_on(round) {
                break;
            }
            for query in batch {
                let began = Instant::now();
                let _ = black_box(door.serve(query, CLIENT, &mut out, clock::now()));
                let nanos = began.elapsed().as_nanos() as usize;
                took[nanos.min((1 << 20) - 1)] += u64::from(round > 0);
            }
            thread::sleep(Duration::from_millis(1));
        }
        round += 1;
    }
    let all: u64 = took.iter().sum();
    let mut seen = 0;
    let mut at = 0;
    while seen * 100 < all * 99 {
        seen += took[at];
        at += 1;
    }
    at as u64
}

fn an_hour(what: &str, max_bytes: u64, names: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let one = (entry(&question(&name(1)), 1, clock::now()).bytes() + OVERHEAD_BYTES) as u64;
    let names = names.min(max_bytes / one);
    let cache = filled(max_bytes, names);
    let writer = snapshotter(directory.path(), &cache, max_bytes);
    writer.read(&Alone);
    writer.write_now(&Alone).expect("it is written");
    // A pause is a twentieth shorter in the mean, and each has more changes than are passed over.
    let pause = limits::SNAPSHOT_EVERY.default.as_secs_f64() * 0.95;
    assert!(CHANGES_PER_SECOND as f64 * pause * 100.0 > names as f64);
    let (bytes, entries) = (file_bytes(directory.path()), writer.status().entries);
    let an_hour = bytes as f64 * 3600.0 / pause / f64::from(1 << 20);
    println!("{what}: {entries} answers, {bytes} bytes, {an_hour:.1} MiB an hour");
}

fn filled(max_bytes: u64, names: u64) -> Arc<Cache> {
    stand::filled_at(Arc::new(MokaStore::with_room(max_bytes, ANSWERS)), names, 1, clock::now())
}

fn snapshotter(directory: &Path, cache: &Arc<Cache>, max_bytes: u64) -> Snapshotter {
    Snapshotter::new(directory.to_owned(), [1; 16], cache.clone(), max_bytes)
}

fn file_bytes(directory: &Path) -> u64 {
    std::fs::metadata(directory.join(FILE)).expect("a snapshot").len()
}

fn question(name: &[u8]) -> Question<'_> {
    Question { name, qtype: 1, dnssec_ok: false, cd: false }
}

fn median(mut of: Vec<u64>) -> u64 {
    of.sort_unstable();
    of[of.len() / 2]
}

/// One group, and nobody who waits.
struct Alone;

impl Around for Alone {
    fn settings(&self) -> CacheSettings {
        CacheSettings {
            max_bytes: LARGE,
            rotate: true,
            refresh_ahead: false,
            snapshot: true,
            snapshot_every: limits::SNAPSHOT_EVERY.default,
        }
    }

    fn homes(&self) -> Homes {
        let group = GroupRecord { stamp: STAMP, name: "default".into(), servers: vec!["udp://192.0.2.1:53".into()] };
        let home =
            Home { group, ttl: TtlSettings::default(), max_age: Duration::from_secs(86_400), trust_ad: vec![false] };
        Homes { groups: vec![home], route: Box::new(|_| Some(0)) }
    }

    fn offer(&self) {}
}
