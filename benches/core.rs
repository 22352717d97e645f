//! Micro benches of the pure core: the hit path, reading packets, the store, the choice of a server.
//!
//! `cargo bench --bench core`. The hit path is the whole of it: door, admission, local names, route, front cache,
//! freshness, patching, counting. `moka alone` beside it is one look in the store, nothing else.
#![allow(missing_docs)]

#[path = "../tests/stand/mod.rs"]
#[allow(dead_code, reason = "a part of what the tests stand on")]
mod stand;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use evenkeel::cache::freshness::TtlSettings;
use evenkeel::cache::key::{Keys, Question};
use evenkeel::cache::store::{MokaStore, Store};
use evenkeel::clock::{Moment, WallTime};
use evenkeel::resolve::Pursuit;
use evenkeel::resolve::pursuit::{Brief, Waiter};
use evenkeel::resolve::vet::{self, Terms};
use evenkeel::upstream::{ClientHash, Group, GroupSettings, ServerSettings};
use evenkeel::wire::{query, reply};
use stand::{CLIENT, STAMP, STORED, TTL, door, entry, filled, name};

const BYTES: u64 = 64 << 20;

fn hit(c: &mut Criterion) {
    let mut group = c.benchmark_group("hit");
    for names in [1, 1_000, 20_000] {
        let cache = filled(Arc::new(MokaStore::new(BYTES)), names, 2);
        for (what, edns, now) in [
            ("fresh", true, STORED + Duration::from_secs(9)),
            ("fresh, no EDNS", false, STORED + Duration::from_secs(9)),
            ("stale in the dark", true, STORED + Duration::from_secs(u64::from(TTL) + 9)),
        ] {
            let queries: Vec<Vec<u8>> = (0..names).map(|n| stand::query(n, edns)).collect();
            let mut door = door(cache.clone(), BYTES);
            let mut out = [0; 1232];
            let mut n = 0;
            group.bench_function(BenchmarkId::new(what, names), |b| {
                b.iter(|| {
                    n = next(n, queries.len());
                    let _ = black_box(door.serve(&queries[n], CLIENT, &mut out, now));
                });
            });
        }
        let keys: Vec<_> = (0..names).map(|n| (name(n), ())).collect();
        let mut n = 0;
        group.bench_function(BenchmarkId::new("moka alone", names), |b| {
            b.iter(|| {
                n = next(n, keys.len());
                let question = Question { name: &keys[n].0, qtype: 1, dnssec_ok: false, cd: false };
                black_box(cache.look(cache.key(&question), &question))
            });
        });
    }
    group.finish();
}

/// Walks through names in no order that a cache line or a branch could learn.
fn next(n: usize, of: usize) -> usize {
    (n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 7) % of
}

fn parse(c: &mut Criterion) {
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
            wall: WallTime(0),
        };
        c.bench_function(&format!("parse/vet of {addresses}"), |b| {
            b.iter(|| black_box(vet::vet(black_box(&packet), &question, terms, STORED)));
        });
    }
}

fn store(c: &mut Criterion) {
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

fn plan(c: &mut Criterion) {
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

fn settings() -> GroupSettings {
    let server = |n: u8| ServerSettings::at(([192, 0, 2, n], 53).into());
    GroupSettings {
        tiers: [vec![server(1), server(2)], vec![server(3), server(4)], vec![server(5), server(6)]],
        ..GroupSettings::default()
    }
}

criterion_group! {
    name = core;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500));
    targets = hit, parse, store, plan
}
criterion_main!(core);
