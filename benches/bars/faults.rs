//! Servers that answer late, badly or in part while others do not, and networks that lose or forge.

use super::board::Board;
use super::stand::{Stand, is_right, new_names, play_one, secs, since, zone};
use super::support::client::Sample;
use super::support::message::rcode;
use super::support::scripted::{Behaviour, Upstream};

pub fn slow(board: &mut Board) {
    primary(board, |s| s.behave(Behaviour::Slow(secs(1.5))));
}

pub fn gray(board: &mut Board) {
    primary(board, |s| s.behave(Behaviour::Gray));
}

pub fn noise(board: &mut Board) {
    primary(board, |s| s.behave(Behaviour::Garbage));
}

pub fn cut(board: &mut Board) {
    primary(board, |s| s.behave(Behaviour::CutBody));
}

pub fn servfail(board: &mut Board) {
    primary(board, |s| s.behave(Behaviour::Fail(rcode::SERVFAIL, None)));
}

pub fn refused(board: &mut Board) {
    primary(board, |s| s.behave(Behaviour::Fail(rcode::REFUSED, None)));
}

pub fn closed(board: &mut Board) {
    primary(board, Upstream::close);
}

/// Two seconds of calm, then the primary fails in its way for 15.
fn primary(board: &mut Board, fault: impl Fn(&mut Upstream)) {
    let mut stand = Stand::new(&zone(60), "");
    let (load, first) = (stand.load(), &mut stand.servers[0]);
    let (samples, done) = play_one(load, new_names("n", 200 + 1500), &mut [(secs(2.0), &mut || fault(first))]);
    board.all("answered", since(&samples, done[0]), is_right);
    board.at_most("p99, ms", stand.p99(since(&samples, done[0])), 60.0);
    board.at_most("p99 after 5 s, ms", stand.p99(since(&samples, done[0] + secs(5.0))), 10.0);
}

pub fn loss(board: &mut Board) {
    let stand = Stand::new(&zone(60), "");
    stand.learn(new_names("warm", 200));
    for (seed, server) in stand.servers.iter().enumerate() {
        server.behave(Behaviour::Lossy { lost: 30, seed: seed as u64 });
    }
    let samples = stand.load().ask(new_names("n", 1500));
    let in_time = |s: &&Sample| is_right(s) && s.took.is_some_and(|t| t <= secs(1.0));
    let share = samples.iter().filter(in_time).count() as f64 / samples.len() as f64;
    board.at_least("answered within 1 s, share", share, 0.999);
    board.at_most("p99, ms", stand.p99(&samples), 150.0);
}

pub fn forged(board: &mut Board) {
    let stand = Stand::new(&zone(60), "");
    stand.servers.iter().for_each(|s| s.behave(Behaviour::ForgedFirst));
    board.all("right", &stand.load().ask(new_names("n", 1500)), is_right);
}

/// One question in ten is for a name of which the primary says that its DNSSEC is broken.
pub fn bogus_name(board: &mut Board) {
    const BOGUS: &str = "www.bogus.test.";
    let stand = Stand::new(&zone(60), "");
    stand.servers[0].behave_below("bogus.test.", Behaviour::Fail(rcode::SERVFAIL, Some(6)));
    let before = stand.shifts();
    let names = new_names("n", 1700).enumerate().map(|(n, name)| if n % 10 == 9 { BOGUS.into() } else { name });
    let samples = stand.load().ask(names);
    let (bogus, others): (Vec<Sample>, Vec<Sample>) = samples.into_iter().partition(|s| s.name == BOGUS);
    board.all("the name: SERVFAIL with EDE 6", &bogus, |s| {
        s.reply.as_ref().is_some_and(|r| r.rcode == rcode::SERVFAIL && r.edes().contains(&6))
    });
    board.all("other names", &others, is_right);
    board.at_most("tier shifts", stand.shifts() - before, 0.0);
}
