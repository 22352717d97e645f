//! Silence: of all servers, of one, of two, of one again and again.

use std::thread;
use std::time::Instant;

use super::board::Board;
use super::stand::{
    ADDRESS, NEW_ADDRESS, Stand, between, brief_names, has, is_right, millis, new_names, play_one, renumbered_zone,
    secs, since, zone,
};
use super::support::client::Sample;
use super::support::message::rcode;
use super::support::scripted::{Behaviour, Upstream};

/// Nothing answers for 20 s; then everything does, with other addresses, so that what is fresh is told from what is not.
pub fn all_silent_known(board: &mut Board) {
    const NAMES: usize = 200;
    const TTL: u32 = 3;
    let stand = Stand::new(&zone(TTL), "");
    stand.learn(brief_names(NAMES, NAMES));
    thread::sleep(secs(f64::from(TTL) + 0.3));
    silence(&stand.servers);
    let fell = Instant::now();
    let mut asked = 0;
    let mut heal = || {
        asked = questions_since(&stand.servers, fell).len();
        stand.servers.iter().for_each(|s| s.know(renumbered_zone(TTL)));
        stand.servers.iter().for_each(|s| s.behave(Behaviour::Answer));
    };
    let load = stand.load().per_second(300);
    let (samples, done) = play_one(load, brief_names(NAMES, 26 * 300), &mut [(secs(20.0), &mut heal)]);
    let healed = done[0];
    let during = || between(&samples, fell, healed);
    board.all("answered while silent", during(), is_right);
    board.at_most("p99, ms", stand.p99(during()), 10.0);
    board.at_most("p99.9, ms: patience of 150 and 50", stand.quantile(during(), 0.999), 200.0);
    board.at_most("upstream questions a client question", asked as f64 / during().count() as f64, 0.05);
    board.all("answered after healing", since(&samples, healed), |s| is_right(s) || has(s, NEW_ADDRESS));
    let last_old = since(&samples, healed).filter(|s| has(s, ADDRESS)).map(|s| s.at - healed).max();
    board.at_most("last old answer after healing, s", last_old.unwrap_or_default().as_secs_f64(), 3.0);
    let most = most_in_a_second(&questions_since(&stand.servers, healed));
    board.at_most("most upstream questions in a second after healing", most as f64, 2.0 * NAMES as f64);
}

pub fn all_silent_new(board: &mut Board) {
    let stand = Stand::new(&zone(60), "");
    stand.learn(new_names("warm", 200));
    silence(&stand.servers);
    let mut heal = || stand.servers.iter().for_each(|s| s.behave(Behaviour::Answer));
    let (samples, done) = play_one(stand.load(), new_names("new", 2100), &mut [(secs(15.0), &mut heal)]);
    let healed = done[0];
    let says_why = |s: &Sample| s.reply.as_ref().is_some_and(|r| r.rcode == rcode::SERVFAIL && !r.edes().is_empty());
    let during = || samples.iter().filter(|s| s.at < healed);
    // What still waited at the healing may be answered.
    board.all("while silent: SERVFAIL with EDE", during(), |s| {
        says_why(s) || is_right(s) && s.took.is_some_and(|t| s.at + t > healed)
    });
    board.at_most("median, ms", stand.quantile(during(), 0.5), 1000.0);
    board.all("never-seen names from 3 s after healing", since(&samples, healed + secs(3.0)), is_right);
    // What failed during the silence is not held against the name.
    let again = stand.load().per_second(500).ask(new_names("new", 1500));
    board.all("the names that failed, after healing", &again, is_right);
}

pub fn primary(board: &mut Board) {
    let stand = Stand::new(&zone(60), "");
    let [first, ..] = &stand.servers;
    let (samples, done) = play_one(
        stand.load(),
        new_names("n", 200 + 1500 + 2500),
        &mut [
            (secs(2.0), &mut || first.behave(Behaviour::Silent)),
            // The way back takes the hold of 10 s and the ramp of 10 s.
            (secs(17.0), &mut || first.behave(Behaviour::Answer)),
        ],
    );
    let during = || between(&samples, done[0], done[1]);
    board.all("while silent", during(), is_right);
    board.at_most("p99, ms", stand.p99(during()), 60.0);
    board.at_most("p99 after 1 s, ms", stand.p99(between(&samples, done[0] + secs(1.0), done[1])), 10.0);
    board.all("at and after the return", since(&samples, done[1]), is_right);
    board.told("p99 at and after the return, ms", stand.p99(since(&samples, done[1])));
    board.told("tier shifts", stand.shifts());
}

pub fn primary_and_secondary(board: &mut Board) {
    let stand = Stand::new(&zone(60), "");
    let [first, second, _] = &stand.servers;
    let mut fall = || [first, second].into_iter().for_each(|s| s.behave(Behaviour::Silent));
    let (samples, done) = play_one(stand.load(), new_names("n", 200 + 1500), &mut [(secs(2.0), &mut fall)]);
    board.all("while silent", since(&samples, done[0]), is_right);
    board.at_most("p99, ms", stand.p99(since(&samples, done[0])), 120.0);
    board.at_most("p99 after 1 s, ms", stand.p99(since(&samples, done[0] + secs(1.0))), 10.0);
}

pub fn flapping(board: &mut Board) {
    let stand = Stand::new(&zone(60), "");
    let before = stand.shifts();
    let mut flap = || stand.servers[0].behave(Behaviour::Flapping { up: secs(1.5), down: secs(1.5) });
    let (samples, done) = play_one(stand.load(), new_names("n", 200 + 3000), &mut [(secs(2.0), &mut flap)]);
    board.all("answered", since(&samples, done[0]), is_right);
    board.at_most("p99, ms", stand.p99(since(&samples, done[0])), 60.0);
    board.at_most("tier shifts", stand.shifts() - before, 2.0);
}

//------------ What they stand on ------------------------------------------------------------------------------------

fn silence(servers: &[Upstream]) {
    servers.iter().for_each(|s| s.behave(Behaviour::Silent));
}

/// When a question came to any of `servers`, probes among them, in order.
fn questions_since(servers: &[Upstream], from: Instant) -> Vec<Instant> {
    let mut all: Vec<Instant> =
        servers.iter().flat_map(|s| s.seen()).map(|s| s.at).filter(|at| *at >= from).collect();
    all.sort_unstable();
    all
}

/// The most of `times`, which are in order, within any second.
fn most_in_a_second(times: &[Instant]) -> usize {
    let within = |n: usize| times[n..].iter().take_while(|t| millis(**t - times[n]) < 1000.0).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}
