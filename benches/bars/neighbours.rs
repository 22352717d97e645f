//! What one client does to others: a flood under a dead zone, and a tenant whose zones fail.

use super::board::Board;
use super::stand::{Stand, brief_names, is_right, is_stale, new_names, play, zone};
use super::support::client::Sample;
use super::support::scripted::Behaviour;

/// Random names under a zone that no upstream has an answer for; others ask for names in cache and for new ones.
pub fn dead_zone_flood(board: &mut Board) {
    let stand = Stand::new(&zone(60), "");
    stand.servers.iter().for_each(|s| s.behave_below("dead.test.", Behaviour::Silent));
    let known = |count: usize| (0..count).map(|n| format!("known{0}.z{0}.test.", n % 200));
    stand.learn(known(200));
    let others = |batch: &str, seconds: usize| {
        vec![
            (stand.load().from(2).per_second(200), known(200 * seconds).collect()),
            (stand.load().from(3), new_names(batch, 100 * seconds).collect::<Vec<String>>()),
        ]
    };
    let (calm, _) = play(others("calm", 5), &mut []);
    let before = stand.daemon.resident();
    let mut loads = others("flooded", 15);
    let random = (0..32_000).map(|_| format!("r{:016x}.dead.test.", rand::random::<u64>()));
    loads.push((stand.load().from(9).per_second(2000), random.collect()));
    let (flooded, _) = play(loads, &mut []);
    let grown = stand.daemon.resident_peak().saturating_sub(before);
    let [calm_p99, flooded_p99] = [&calm, &flooded].map(|l| stand.p99(&l[0]));
    board.all("known names", &flooded[0], is_right);
    board.told("known names, p99 without the flood, ms", calm_p99);
    board.told("known names, p99 with it, ms", flooded_p99);
    board.at_most("  above twice that without it, ms", flooded_p99 - 2.0 * calm_p99, 2.0);
    board.all("new names", &flooded[1], is_right);
    board.told("new names, p99 without the flood, ms", stand.p99(&calm[1]));
    board.at_most("new names, p99, ms", stand.p99(&flooded[1]), 60.0);
    board.at_most("RSS grown, MiB", grown as f64 / f64::from(1 << 20), 32.0);
    let answered = flooded[2].iter().filter(|s| s.reply.is_some()).count();
    board.told("share of the flood that was told something", answered as f64 / flooded[2].len() as f64);
}

/// Of the tenant's zones half are silent on every server; the other half only the secondary answers, as a tenant can
/// arrange whose own servers answer whom they like.
pub fn failing_tenant(board: &mut Board) {
    const ZONES: usize = 1000;
    let stand = Stand::new(&zone(2), "");
    for n in 0..ZONES {
        for (tier, server) in stand.servers.iter().enumerate() {
            if n % 2 == 0 || tier != 1 {
                server.behave_below(&format!("t{n}.test."), Behaviour::Silent);
            }
        }
    }
    stand.learn(brief_names(100, 100));
    let before = stand.shifts();
    let tenant = (0..7500).map(|n| format!("q{n}.t{}.test.", n % ZONES));
    let (mut samples, _) = play(
        vec![
            (stand.load().from(9).per_second(500), tenant.collect()),
            (stand.load().from(2), new_names("n", 1500).collect()),
            // Their TTL runs out all the time: what is stale would be served.
            (stand.load().from(3).per_second(50), brief_names(100, 750).collect()),
            (stand.load().from(4).per_second(50), brief_names(100, 750).map(|n| format!("x{n}")).collect()),
        ],
        &mut [],
    );
    samples.remove(0);
    let others: Vec<Sample> = samples.concat();
    board.all("other clients: answered", &others, is_right);
    board.all("other clients: not stale", &others, |s| !is_stale(s));
    board.at_most("tier shifts", stand.shifts() - before, 0.0);
    board.at_most("other clients: p99, ms", stand.p99(&others), 60.0);
}
