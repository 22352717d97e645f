//! A process that ends in an outage, and the one after it.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::cache::CacheSettings;
use evenkeel::cache::freshness::TtlSettings;
use evenkeel::cache::snapshot::GroupRecord;
use evenkeel::cache::store::MokaStore;
use evenkeel::clock;
use evenkeel::limits;
use evenkeel::upkeep::snapshot::{Around, Home, Homes, Snapshotter, machine};

use super::board::Board;
use super::core::{STAMP, filled_at};
use super::stand::{Stand, brief_names, has, is_right, is_stale, millis, secs, zone};
use super::support::client::{Load, quantile};
use super::support::daemon::{Daemon, tiers};
use super::support::message::rtype;
use super::support::scripted::{Behaviour, Upstream};
use super::support::wait_for;

const OFTEN: &str = "\n[cache]\nsnapshot_every = \"1s\"\n";

/// All upstreams fall silent, the process is killed with -9 and started again: every name of the last snapshot is
/// answered from the first second on.
pub fn killed_in_an_outage(board: &mut Board) {
    const NAMES: usize = 2000;
    const TTL: u32 = 2;
    let stand = Stand::new(&zone(TTL), OFTEN);
    stand.learn(brief_names(NAMES, NAMES));
    wait_for("a snapshot of all names", secs(10.0), || {
        (stand.daemon.metric("evenkeel_snapshot_entries") >= NAMES as f64).then_some(())
    });
    stand.servers.iter().for_each(|s| s.behave(Behaviour::Silent));
    thread::sleep(secs(f64::from(TTL)));
    let stand = stand.killed_and_started_again(OFTEN);
    board.told("start to first answer, ms", millis(stand.daemon.started_in));
    let first = stand.load().per_second(1000).ask(brief_names(NAMES, 1000));
    board.all("known names, first second", &first, |s| is_right(s) && is_stale(s));
    board.at_most("  p99, ms", stand.p99(&first), 10.0);
    board.told("  slowest, ms", stand.quantile(&first, 1.0));
    let later = stand.load().per_second(1000).ask(brief_names(NAMES, NAMES));
    board.all("known names, later", &later, is_right);
}

/// A million names are read while clients hit one that came since the start.
pub fn a_million_names(board: &mut Board) {
    const NAMES: u64 = 1_000_000;
    const LARGE: u64 = 2 << 30;
    let upstream = Upstream::new(zone(600));
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    leave_behind(&state, NAMES, LARGE, &format!("udp://{}", upstream.address()));
    let configuration = tiers(&[&[upstream.address()]], "\n[cache]\nmax_bytes = \"2GiB\"\n");
    let daemon = Daemon::start_in(directory, &configuration, &[]);
    let asked = |count: usize| {
        let load = Load { patience: secs(5.0), ..Load::on(daemon.address()) }.per_second(2000);
        load.ask(std::iter::repeat_n("live.test.".to_owned(), count))
    };
    daemon.ask("live.test.", rtype::A);
    let began = Instant::now();
    let mut meanwhile = Vec::new();
    while !daemon.log().contains("answers restored") && began.elapsed() < secs(30.0) {
        meanwhile.extend(asked(200));
    }
    let restored = daemon.log();
    let took = restored.split(" ago, in ").nth(1).and_then(|rest| rest.split(" event").next()).unwrap_or("?");
    println!("  the process says: read in {took}");
    board.at_most("seconds until all are there, as a client sees it", began.elapsed().as_secs_f64(), 2.0);
    let after = asked(meanwhile.len());
    board.all("answered meanwhile", &meanwhile, |s| has(s, super::stand::ADDRESS));
    let p99 = |samples: &[_]| quantile(samples, 0.99).map_or(f64::INFINITY, millis);
    board.told("p99 meanwhile, ms", p99(&meanwhile));
    board.told("p99 after, ms", p99(&after));
    board.at_most("  meanwhile as a multiple", p99(&meanwhile) / p99(&after), 2.0);
}

/// The snapshot of an earlier process that knew so many names.
fn leave_behind(state: &Path, names: u64, max_bytes: u64, server: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o700)).unwrap();
    let cache = filled_at(Arc::new(MokaStore::new(max_bytes)), names, 1, clock::now());
    let writer = Snapshotter::new(state.to_owned(), machine(), cache, max_bytes);
    let server = server.to_owned();
    writer.write_now(&Earlier { server }).expect("it is written");
}

struct Earlier {
    server: String,
}

impl Around for Earlier {
    fn settings(&self) -> CacheSettings {
        CacheSettings {
            max_bytes: limits::CACHE_BYTES.default,
            rotate: true,
            refresh_ahead: false,
            snapshot: true,
            snapshot_every: limits::SNAPSHOT_EVERY.default,
        }
    }

    fn homes(&self) -> Homes {
        let group = GroupRecord { stamp: STAMP, name: "default".into(), servers: vec![self.server.clone()] };
        let max_age = Duration::from_secs(86_400);
        let home = Home { group, ttl: TtlSettings::default(), max_age, trust_ad: vec![false] };
        Homes { groups: vec![home], route: Box::new(|_| Some(0)) }
    }

    fn offer(&self) {}
}
