//! RSS of a cached small answer: a name of thirty bytes with one A record, learned from the upstream like any other.

use super::board::{Bars, Table, short};
use super::cores::Place;
use super::names::Shape;
use super::rounds::Setup;
use super::servers::{Kind, Server};

/// Names that are there before, so that pools and buffers are not taken for them.
const FIRST: u32 = 5_000;

pub fn run(setup: &Setup, bars: &mut Bars) {
    let upstream = setup.upstream();
    let names = setup.or_quick(200_000, 30_000);
    let mut table = Table::new(&["", "bytes a name", "RSS MiB", "not answered"]);
    let mut own = f64::NAN;
    // dnsmasq keeps 10,000 names at most.
    for kind in [&[Kind::Evenkeel][..], &Kind::PEERS].concat().into_iter().filter(|k| *k != Kind::Dnsmasq) {
        let server = match Server::start(kind, upstream.address, 1, Place::Server) {
            Ok(server) => server,
            Err(why) => {
                println!("  {} {why}", kind.word());
                continue;
            }
        };
        server.warm(FIRST, Shape::USUAL);
        let before = server.resident();
        let missing = server.warm(names, Shape::USUAL);
        let after = server.resident();
        let each = (after - before) / f64::from(names - FIRST);
        if kind == Kind::Evenkeel {
            own = each;
        }
        let word = if kind == Kind::Knot { "knot-resolver (LMDB file besides)" } else { kind.word() };
        table.row(vec![word.into(), short(each), short(after / f64::from(1 << 20)), missing.to_string()]);
    }
    table.print();
    println!("  {} names", short(f64::from(names)));
    bars.at_most("RSS of a cached small answer, bytes", own, 550.0);
    println!("  better than that: at most 450{}", if own <= 450.0 { ", and it is" } else { "" });
}
