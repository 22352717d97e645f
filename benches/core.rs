//! Micro benches of the pure core: the hit path, reading packets, the store, the choice of a server,
//! joining.
//!
//! `cargo bench --bench core`. The hit path is the whole of it: door, admission, local names, route, front cache,
//! freshness, patching, counting. `in batches` is the same as a worker under load does it: memory is fetched for 64
//! questions before the first is answered. `moka alone` beside it is one look in the store, nothing else.
//!
//! Times are those of the thread on a processor, so that what others run counts little.
#![allow(missing_docs)]

#[path = "../tests/stand/mod.rs"]
#[allow(dead_code, reason = "a part of what the tests stand on")]
mod stand;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use evenkeel::cache::Cache;
use evenkeel::cache::freshness::TtlSettings;
use evenkeel::cache::key::{Keys, Question};
use evenkeel::cache::store::{MokaStore, Store};
use evenkeel::clock::{self, Moment};
use evenkeel::limits::BATCH;
use evenkeel::resolve::Pursuit;
use evenkeel::resolve::desk::{Desk, Opened, Request};
use evenkeel::resolve::pursuit::{Brief, Waiter};
use evenkeel::resolve::vet::{self, Terms};
use evenkeel::serve::{Prepared, Step};
use evenkeel::upstream::{ClientHash, Group, GroupSettings, ServerSettings};
use evenkeel::wire::patch::{self, Ageing, Shape};
use evenkeel::wire::{query, reply};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rustix::time::{ClockId, clock_gettime};
use stand::{CLIENT, STAMP, STORED, TTL, door, entry, filled, name};

const BYTES: u64 = 64 << 20;
const FRESH: Moment = Moment::from_secs(1009);

fn hit(c: &mut Criterion<ThreadTime>) {
    let mut group = c.benchmark_group("hit");
    for names in [1, 1_000, 20_000] {
        let cache = filled(Arc::new(MokaStore::new(BYTES)), names, 2);
        let order = shuffled(names);
        for (what, edns, now) in [
            ("fresh", true, FRESH),
            ("fresh, no EDNS", false, FRESH),
            ("stale in the dark", true, STORED + Duration::from_secs(u64::from(TTL) + 9)),
        ] {
            let queries: Vec<Vec<u8>> = order.iter().map(|n| stand::query(*n, edns)).collect();
            let mut door = door(cache.clone(), BYTES);
            let mut out = [0; 1232];
            let mut round = queries.iter().cycle();
            group.bench_function(BenchmarkId::new(what, names), |b| {
                b.iter(|| {
                    let query = round.next().expect("a cycle");
                    let _ = black_box(door.serve(query, CLIENT, &mut out, now));
                });
            });
        }
        in_batches(&mut group, &cache, &order);
        let keys: Vec<_> = order.iter().map(|n| name(*n)).collect();
        let mut round = keys.iter().cycle();
        group.bench_function(BenchmarkId::new("moka alone", names), |b| {
            b.iter(|| {
                let name = round.next().expect("a cycle");
                let question = Question { name, qtype: 1, dnssec_ok: false, cd: false };
                black_box(cache.look(cache.key(&question), &question))
            });
        });
    }
    two_workers(&mut group);
    group.finish();
}

fn in_batches(group: &mut BenchmarkGroup<'_, ThreadTime>, cache: &Arc<Cache>, order: &[u64]) {
    let queries: Vec<Vec<u8>> = order.iter().map(|n| stand::query(*n, true)).collect();
    let mut door = door(cache.clone(), BYTES);
    let mut out = [0; 1232];
    let mut round = queries.iter().cycle();
    let mut prepared = [Prepared::default(); BATCH];
    let id = BenchmarkId::new("fresh, in batches", order.len());
    group.bench_function(id, |b| {
        b.iter_custom(|count| {
            let began = ThreadTime.start();
            let mut left = count as usize;
            while left > 0 {
                let batch = left.min(BATCH);
                let packets = round.clone();
                for (packet, prepared) in packets.clone().zip(&mut prepared[..batch]) {
                    *prepared = door.prepare(packet);
                }
                for step in [Step::Entry, Step::Bytes] {
                    prepared[..batch].iter().for_each(|prepared| door.fetch(*prepared, step));
                }
                for (packet, prepared) in packets.zip(&prepared[..batch]) {
                    let _ = black_box(door.serve_prepared(packet, *prepared, CLIENT, &mut out, FRESH));
                }
                round.nth(batch - 1);
                left -= batch;
            }
            ThreadTime.end(began)
        });
    });
}

/// One name that all clients of a node ask for at once: what a hit costs while another worker answers the same.
fn two_workers(group: &mut BenchmarkGroup<'_, ThreadTime>) {
    let cache = filled(Arc::new(MokaStore::new(BYTES)), 1, 2);
    let query = stand::query(0, true);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut door = door(cache.clone(), BYTES);
            let mut out = [0; 1232];
            while !over.load(Ordering::Relaxed) {
                let _ = black_box(door.serve(&query, CLIENT, &mut out, FRESH));
            }
        });
        let mut door = door(cache.clone(), BYTES);
        let mut out = [0; 1232];
        group.bench_function("fresh, two workers on one name", |b| {
            b.iter(|| {
                let _ = black_box(door.serve(&query, CLIENT, &mut out, FRESH));
            });
        });
        over.store(true, Ordering::Relaxed);
    });
}

/// Every number below `names` once, in no order that a cache line or a branch could learn.
fn shuffled(names: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..names).collect();
    order.shuffle(&mut StdRng::seed_from_u64(7));
    order
}

fn parse(c: &mut Criterion<ThreadTime>) {
    let packet = stand::query(7, true);
    c.bench_function("parse/query", |b| b.iter(|| black_box(query::check(black_box(&packet)))));
    for addresses in [1, 13] {
        let packet = stand::reply(&name(7), addresses);
        c.bench_function(&format!("parse/reply of {addresses}"), |b| {
            b.iter(|| black_box(reply::check(black_box(&packet))));
        });
        let name = name(7);
        let question = Question { name: &name, qtype: 1, dnssec_ok: false, cd: false };
        let terms = Terms {
            over_tcp: false,
            with_edns: true,
            trust_ad: false,
            ttl: TtlSettings::default(),
            wall: clock::WallTime(0),
        };
        c.bench_function(&format!("parse/vet of {addresses}"), |b| {
            b.iter(|| black_box(vet::vet(black_box(&packet), &question, terms, STORED)));
        });
    }
}

fn store(c: &mut Criterion<ThreadTime>) {
    let store = MokaStore::new(BYTES);
    let keys = Keys::new([7; 16]);
    let mut n = 0;
    c.bench_function("store/put of new names", |b| {
        b.iter(|| {
            n += 1;
            let name = name(n);
            let question = Question { name: &name, qtype: 1, dnssec_ok: false, cd: false };
            store.put(keys.key(&question), entry(&question, 1, STORED));
        });
    });
}

fn plan(c: &mut Criterion<ThreadTime>) {
    let mut group = Group::new(settings(), Moment::ZERO);
    let asked = [0; 6];
    let now = Moment::from_secs(1);
    c.bench_function("plan/first server of six", |b| {
        b.iter(|| black_box(group.plan(black_box(&asked), 0.3, 0.7, now)));
    });
    let name = name(1);
    let question = Question { name: &name, qtype: 1, dnssec_ok: false, cd: false };
    c.bench_function("plan/pursuit to its first question", |b| {
        b.iter(|| {
            let brief = Brief {
                question: question.to_owned(),
                client: ClientHash(1),
                group: STAMP,
                stale: None,
                guarded: None,
                refresh: false,
            };
            let mut pursuit = Pursuit::new(brief, &group, now);
            pursuit.join(Waiter { way: (), deadline: Moment::from_secs(5), stale_at: Moment::NEVER });
            let step = black_box(pursuit.next(&mut group, &mut || 0.5, now));
            pursuit.give_up(&mut group, now);
            step
        });
    });
}

/// A question that somebody else waits for already, beside 500 others that are open: one look-up and a place in a row.
fn join(c: &mut Criterion<ThreadTime>) {
    const OPEN: u64 = 500;
    const JOINERS: u64 = 500;
    let keys = Keys::new([7; 16]);
    let now = Moment::from_secs(1);
    let request = |n: u64| {
        let name = name(n);
        let question = Question { name: &name, qtype: 1, dnssec_ok: false, cd: false };
        Request {
            key: keys.key(&question),
            question: Arc::new(question.to_owned()),
            client: ClientHash(1),
            stale: None,
            guarded: None,
            ahead: false,
            waiter: Some(Waiter { way: (), deadline: Moment::from_secs(5), stale_at: Moment::NEVER }),
        }
    };
    c.bench_function("join/one of 500 open questions", |b| {
        b.iter_custom(|count| {
            let mut took = Duration::ZERO;
            for done in (0..count).step_by(JOINERS as usize) {
                let mut desk = Desk::new(Group::new(settings(), now), STAMP);
                (0..OPEN).for_each(|n| drop(desk.open(request(n), now)));
                let asked = 7 + done % 100;
                let requests: Vec<_> = (done..count.min(done + JOINERS)).map(|_| request(asked)).collect();
                let began = ThreadTime.start();
                for request in requests {
                    assert!(matches!(black_box(desk.open(request, now)), Opened::Joined(_)));
                }
                took += ThreadTime.end(began);
            }
            took
        });
    });
}

/// What a precomputed image of the whole reply could save: writing the answer from its entry, beside a bare copy.
fn answer(c: &mut Criterion<ThreadTime>) {
    let name = name(7);
    let question = Question { name: &name, qtype: 1, dnssec_ok: false, cd: false };
    let packet = stand::query(7, true);
    let query = query::check(&packet).expect("a query");
    for addresses in [1, 13] {
        let entry = entry(&question, addresses, STORED);
        let stored = entry.data().expect("an answer").stored();
        let shape = Shape { limit: 1232, ad: true, ede: None, turn: 0 };
        let mut out = [0; 1232];
        c.bench_function(&format!("answer/from the entry, {addresses} records"), |b| {
            b.iter(|| {
                black_box(patch::answer(&query, &stored, Ageing::Fresh { age: 9 }, shape, black_box(&mut out)))
            });
        });
        let n = patch::answer(&query, &stored, Ageing::Fresh { age: 9 }, shape, &mut out);
        let image = out[..n].to_vec();
        c.bench_function(&format!("answer/a ready image copied, {addresses} records"), |b| {
            b.iter(|| black_box(&mut out)[..n].copy_from_slice(black_box(&image)));
        });
    }
}

fn settings() -> GroupSettings {
    let server = |n: u8| ServerSettings::at(([192, 0, 2, n], 53).into());
    GroupSettings {
        tiers: [vec![server(1), server(2)], vec![server(3), server(4)], vec![server(5), server(6)]],
        ..GroupSettings::default()
    }
}

/// The time that this thread had a processor.
struct ThreadTime;

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn end(&self, began: Duration) -> Duration {
        self.start() - began
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group! {
    name = core;
    config = Criterion::default()
        .with_measurement(ThreadTime)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500));
    targets = hit, answer, parse, store, plan, join
}
criterion_main!(core);
