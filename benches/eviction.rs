//! What the cache keeps, and what it takes: `cargo bench --bench eviction`.
//!
//! - Hit ratios of both of moka's eviction policies on a Zipf(1.0) trace of names, alone and with a flood of random
//!   subdomains mixed in, which nobody asks twice.
//! - How soon a name that is new and becomes popular is kept.
//! - Bytes of RSS for a cached name.
//! - RSS of a full cache in which answers of one to thirteen records come and go, beside its `max_bytes`, each in a
//!   process of its own. A worker's front cache is in it.
#![allow(clippy::print_stdout, missing_docs)]

#[path = "../tests/stand/mod.rs"]
#[allow(dead_code, reason = "a part of what the tests stand on")]
mod stand;

use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use evenkeel::cache::Cache;
use evenkeel::cache::front::Front;
use evenkeel::cache::key::{Keys, Question};
use evenkeel::cache::store::{MokaStore, OVERHEAD_BYTES, Store};
use moka::policy::EvictionPolicy;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stand::{STORED, entry, name};

const NAMES: u64 = 200_000;
const ROOM: u64 = 20_000;
const QUESTIONS: u64 = 1_000_000;
/// Numbers of the flood's names begin here.
const FLOOD: u64 = 10_000_000;

/// Says to the process that runs for it how many MiB its cache has.
const CHURN: &str = "EVENKEEL_BENCH_CHURN";

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    if let Ok(mib) = std::env::var(CHURN) {
        return churn(mib.parse().expect("MiB"));
    }
    let zipf = Zipf::new(NAMES);
    println!("hit ratio of asked names, room for {ROOM} of {NAMES}, Zipf 1.0, {QUESTIONS} questions");
    println!("{:<28} {:>8} {:>8}", "flood among all questions", "TinyLFU", "LRU");
    for flood in [0.0, 0.1, 0.5, 0.9] {
        let ratio = |policy| hit_ratio(&zipf, policy, flood);
        let (lfu, lru) = (ratio(EvictionPolicy::tiny_lfu()), ratio(EvictionPolicy::lru()));
        println!("{:<28} {:>7.1}% {:>7.1}%", format!("{:.0} %", flood * 100.0), lfu * 100.0, lru * 100.0);
    }
    println!("questions until a new name is kept, once in 50 questions, in a cache that is full: median of 200");
    for (word, policy) in [("TinyLFU", EvictionPolicy::tiny_lfu()), ("LRU", EvictionPolicy::lru())] {
        println!("{word:<28} {}", newcomers(&zipf, policy));
    }
    bytes_per_name();
    println!("a full cache in which answers come and go:");
    for mib in [64, 256] {
        let program = std::env::current_exe().expect("this program");
        let done = Command::new(program).arg("--bench").env(CHURN, mib.to_string()).status();
        assert!(done.is_ok_and(|status| status.success()), "{mib} MiB");
    }
}

/// Fills a cache five times over, by two threads in turn as workers and the driver do.
fn churn(mib: u64) {
    let max = mib << 20;
    let before = resident();
    let cache = Arc::new(Cache::new(Arc::new(MokaStore::new(max)), Keys::new([7; 16])));
    let mut front = Front::new(max, 1);
    let names = 5 * max / 500;
    let mut most = 0;
    for part in 0..10 {
        let range = part * names / 10..(part + 1) * names / 10;
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in range.clone() {
                    let name = name(n);
                    let question = question(&name);
                    let addresses = 1 + (n.wrapping_mul(0x9e37_79b9) >> 7) % 13;
                    let entry = entry(&question, addresses as u8, STORED);
                    cache.keep(cache.key(&question), &question, entry, Duration::from_secs(86_400), STORED);
                    if n.is_multiple_of(64) {
                        cache.upkeep();
                    }
                }
            });
        });
        for n in range {
            let name = name(n);
            let _ = front.look(&cache, cache.key(&question(&name)), &question(&name));
        }
        most = most.max(resident() - before);
    }
    let census = cache.census();
    assert!(census.evicted > census.entries, "it was full: {census:?}");
    println!(
        "{mib} MiB: RSS {:.1} MiB at most, {:.2} times max_bytes, {} answers",
        most as f64 / f64::from(1 << 20),
        most as f64 / max as f64,
        census.entries
    );
}

fn hit_ratio(zipf: &Zipf, policy: EvictionPolicy, flood: f64) -> f64 {
    let cache = cache(policy);
    let mut random = StdRng::seed_from_u64(7);
    let (mut asked, mut hits) = (0u64, 0u64);
    for n in 0..QUESTIONS {
        if random.random::<f64>() < flood {
            ask(&cache, FLOOD + n);
            continue;
        }
        let hit = ask(&cache, zipf.draw(&mut random));
        // The first fifth fills the cache.
        if n > QUESTIONS / 5 {
            asked += 1;
            hits += u64::from(hit);
        }
    }
    hits as f64 / asked as f64
}

fn newcomers(zipf: &Zipf, policy: EvictionPolicy) -> u64 {
    let cache = cache(policy);
    let mut random = StdRng::seed_from_u64(8);
    for _ in 0..QUESTIONS / 2 {
        ask(&cache, zipf.draw(&mut random));
    }
    let mut until: Vec<u64> = (0..200)
        .map(|newcomer| {
            (1..=1000)
                .find(|_| {
                    for _ in 0..49 {
                        ask(&cache, zipf.draw(&mut random));
                    }
                    ask(&cache, FLOOD + newcomer)
                })
                .unwrap_or(1001)
        })
        .collect();
    until.sort_unstable();
    until[until.len() / 2]
}

fn cache(policy: EvictionPolicy) -> Cache {
    let one = entry(&question(&name(1)), 1, STORED).bytes() + OVERHEAD_BYTES;
    Cache::new(Arc::new(MokaStore::with_policy(ROOM * one as u64, policy)), Keys::new([7; 16]))
}

/// Asks for a name; what is not there is stored, as an answer from an upstream would be. Was it there?
fn ask(cache: &Cache, number: u64) -> bool {
    let name = name(number);
    let question = question(&name);
    let key = cache.key(&question);
    if cache.look(key, &question).is_some() {
        return true;
    }
    cache.keep(key, &question, entry(&question, 1, STORED), Duration::from_secs(86_400), STORED);
    if number.is_multiple_of(64) {
        cache.upkeep();
    }
    false
}

fn question(name: &[u8]) -> Question<'_> {
    Question { name, qtype: 1, dnssec_ok: false, cd: false }
}

fn bytes_per_name() {
    const COUNT: u64 = 300_000;
    let before = resident();
    let store = MokaStore::new(1 << 40);
    let keys = Keys::new([7; 16]);
    let mut own = 0;
    for n in 0..COUNT {
        let name = name(n);
        let question = question(&name);
        let entry = entry(&question, 1, STORED);
        own = entry.bytes();
        store.put(keys.key(&question), entry);
        if n % 256 == 0 {
            store.upkeep();
        }
    }
    store.upkeep();
    let each = (resident() - before) / COUNT;
    println!("RSS of a cached name (30 bytes, one A record): {each} bytes, {own} of them the entry's own;");
    println!("weighed as {} bytes", own + OVERHEAD_BYTES);
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = status.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Draws ranks by Zipf's law with exponent 1.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(names: u64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=names)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut StdRng) -> u64 {
        let at = random.random::<f64>() * self.0[self.0.len() - 1];
        self.0.partition_point(|sum| *sum < at) as u64
    }
}
