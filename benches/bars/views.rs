//! Servers that say something else: of a name that only a better tier knows, and of records that have changed.

use std::collections::{HashMap, HashSet};
use std::thread;

use super::board::Board;
use super::stand::{
    ADDRESS, NEW_ADDRESS, Stand, between, brief_names, has, is_right, play, play_one, renumbered_zone, secs, since,
    zone,
};
use super::support::client::Sample;
use super::support::message::rcode;
use super::support::scripted::Behaviour;

/// A company's resolver, and two that know none of its names. The company's is silent for 8 s, then 1.5 s slow for 10 s,
/// then well again.
pub fn nxdomain(board: &mut Board) {
    let stand = Stand::new(&zone(2), "");
    let [first, second, third] = &stand.servers;
    [second, third].into_iter().for_each(|s| s.behave(Behaviour::NxdomainToEverything));
    stand.learn(brief_names(100, 100));
    let known = (stand.load(), brief_names(100, 3000).collect());
    // New names, ten a second; each is asked again two seconds later.
    const NEW: usize = 310;
    const AGAIN_AFTER: usize = 20;
    let nth = |n: usize| format!("new{n}.z{n}.test.");
    let new = (0..NEW).flat_map(|n| [Some(nth(n)), n.checked_sub(AGAIN_AFTER).map(nth)]).flatten();
    let new = (stand.load().per_second(20).from(2), new.collect());
    let (samples, done) = play(
        vec![known, new],
        &mut [
            (secs(1.0), &mut || first.behave(Behaviour::Silent)),
            (secs(9.0), &mut || first.behave(Behaviour::Slow(secs(1.5)))),
            (secs(19.0), &mut || first.behave(Behaviour::Answer)),
        ],
    );
    let (slow, well) = (done[1], done[2]);
    let [known, new] = samples.try_into().expect("two loads");
    board.all("known names keep their addresses", &known, is_right);
    let mut seen = HashSet::new();
    let (at_first, again): (Vec<Sample>, Vec<Sample>) =
        new.iter().cloned().partition(|s| seen.insert(s.name.clone()));
    board.all(
        "new names, asked again 2 s later, primary slow for 5 s or more",
        between(&again, slow + secs(5.0), well),
        is_right,
    );
    board.all(
        "new names, asked first from 5 s after the primary is well",
        since(&at_first, well + secs(5.0)),
        is_right,
    );
    let negative = |s: &&Sample| s.reply.as_ref().is_some_and(|r| r.rcode == rcode::NXDOMAIN);
    let ttls = new.iter().filter(negative).flat_map(|s| &s.reply.as_ref().expect("negative").authorities);
    board.at_most("greatest TTL of a negative answer, s", f64::from(ttls.map(|r| r.ttl).max().unwrap_or(0)), 5.0);
    thread::sleep(secs(5.1));
    let all = stand.load().ask((0..NEW).map(nth));
    board.all("every new name, once the last negative answer is 5 s old", &all, is_right);
    board.told("second questions that the budget denied", stand.daemon.metric("evenkeel_budget_denied_total"));
}

pub fn renumbered(board: &mut Board) {
    renumber_at(board, None);
}

pub fn renumbered_100_ms_away(board: &mut Board) {
    renumber_at(board, Some(0.1));
}

/// All records change. Names that ran out before are asked once each, and names that are asked all the time go on.
fn renumber_at(board: &mut Board, latency: Option<f64>) {
    const TTL: u32 = 2;
    let stand = Stand::new(&zone(TTL), "");
    if let Some(latency) = latency {
        stand.servers.iter().for_each(|s| s.behave(Behaviour::Slow(secs(latency))));
    }
    let idle = || (0..1500).map(|n| format!("idle{n}.z{n}.brief."));
    let failed = stand.learn(idle());
    board.told("names that failed when the program had just started", failed as f64);
    let (busy, done) = play_one(
        stand.load().from(2),
        brief_names(100, 1000),
        &mut [(secs(4.0), &mut || stand.servers.iter().for_each(|s| s.know(renumbered_zone(TTL))))],
    );
    let changed = done[0];
    let is_new = |s: &Sample| has(s, NEW_ADDRESS);
    // What was on its way at the change arrives within the latency, and lives its TTL from there.
    let run_out = changed + secs(f64::from(TTL) + latency.unwrap_or(0.0) + 0.05);
    board.all("names asked all the time, once their TTL is over", since(&busy, run_out), is_new);
    let idle = stand.load().ask(idle());
    board.all("names that ran out long before", &idle, is_new);
    board.told("p99, ms", stand.p99(&idle));
}

/// A fresh answer takes twice as long as clients wait for it.
pub fn renumbered_far_away(board: &mut Board) {
    const PATIENCE_MS: f64 = 150.0;
    let stand = Stand::new(&zone(3), "\n[stale]\npatience = \"150ms\"\n");
    let names = |rounds: usize| brief_names(500, 500 * rounds);
    stand.servers.iter().for_each(|s| s.behave(Behaviour::Slow(secs(2.0 * PATIENCE_MS / 1e3))));
    let failed = stand.learn(names(1));
    board.told("names that failed when the program had just started", failed as f64);
    thread::sleep(secs(3.3));
    stand.servers.iter().for_each(|s| s.know(renumbered_zone(3)));
    // Each name every five seconds, three times.
    let samples = stand.load().ask(names(3));
    board.all("answered", &samples, |s| has(s, ADDRESS) || has(s, NEW_ADDRESS));
    board.at_most("p99.9, ms: patience of 150 and 50", stand.quantile(&samples, 0.999), PATIENCE_MS + 50.0);
    let mut old: HashMap<&str, usize> = HashMap::new();
    samples.iter().filter(|s| has(s, ADDRESS)).for_each(|s| *old.entry(&s.name).or_default() += 1);
    board.at_most("old answers for one name", old.values().copied().max().unwrap_or(0) as f64, 1.0);
    board.told("names with an old answer", old.len() as f64);
}
