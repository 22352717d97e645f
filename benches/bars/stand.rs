//! What the scenarios stand on: the program over three scripted upstreams, one a tier; names; loads with acts beside
//! them; and a bare echo, which tells what the measuring client itself takes.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use super::support::client::{Load, Sample, quantile};
use super::support::daemon::{Daemon, tiers};
use super::support::scripted::Upstream;
use super::support::zone::Zone;

/// What every name has.
pub const ADDRESS: [u8; 4] = [192, 0, 2, 1];
/// What every name has after [`renumbered_zone`].
pub const NEW_ADDRESS: [u8; 4] = [192, 0, 2, 2];
/// A reply that comes later than this is lost to the client.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program, and its primary, secondary and tertiary.
pub struct Stand {
    pub daemon: Daemon,
    pub servers: [Upstream; 3],
    /// The p99 of the client alone, against a bare echo; taken off by [`Stand::p99`].
    client: Duration,
}

impl Stand {
    /// All upstreams answer from `zone`; `more` is put below the group's tiers.
    pub fn new(zone: &Zone, more: &str) -> Self {
        let servers = [(); 3].map(|()| Upstream::new(zone.clone()));
        let [a, b, c] = servers.each_ref().map(|s| [s.address()]);
        Self { daemon: Daemon::start(&tiers(&[&a, &b, &c], more)), servers, client: echo_p99() }
    }

    /// Killed with -9 and started again with what it left; `more` as before.
    pub fn killed_and_started_again(self, more: &str) -> Self {
        let Self { daemon, servers, client } = self;
        let [a, b, c] = servers.each_ref().map(|s| [s.address()]);
        let daemon = Daemon::start_in(daemon.kill(), &tiers(&[&a, &b, &c], more), &[]);
        Self { daemon, servers, client }
    }

    /// 100 questions a second from the usual client.
    pub fn load(&self) -> Load {
        Load { patience: PATIENCE, ..Load::on(self.daemon.address()) }
    }

    /// A quantile of what was answered, in ms, without what the client itself takes. Infinite where too few were.
    pub fn quantile<'a>(&self, samples: impl IntoIterator<Item = &'a Sample>, share: f64) -> f64 {
        quantile(samples, share).map_or(f64::INFINITY, |d| millis(d.saturating_sub(self.client)))
    }

    pub fn p99<'a>(&self, samples: impl IntoIterator<Item = &'a Sample>) -> f64 {
        self.quantile(samples, 0.99)
    }

    /// Shifts between tiers so far.
    pub fn shifts(&self) -> f64 {
        self.daemon.metric("evenkeel_tier_shifts_total")
    }

    /// Learns `names`, five times as fast as the usual load. Those that fail are asked again until none does, since it
    /// is only the beginning; how many failed at first is given back.
    ///
    /// # Panics
    ///
    /// Where some still fail after ten rounds.
    pub fn learn(&self, names: impl IntoIterator<Item = String>) -> usize {
        let mut open: Vec<String> = names.into_iter().collect();
        let mut failed_at_first = None;
        for _ in 0..10 {
            let samples = self.load().per_second(500).ask(open);
            open = samples.into_iter().filter(|s| !is_right(s)).map(|s| s.name).collect();
            let failed = *failed_at_first.get_or_insert(open.len());
            if open.is_empty() {
                return failed;
            }
            thread::sleep(secs(0.5));
        }
        panic!("{} names are not learned: {:?} …", open.len(), open[0]);
    }
}

/// Every name below `test.` has [`ADDRESS`] for a long time, every one below `brief.` for `ttl` seconds.
pub fn zone(ttl: u32) -> Zone {
    Zone::new(".").any_below("test.", 600, "192.0.2.1").any_below("brief.", ttl, "192.0.2.1")
}

/// [`zone`] with [`NEW_ADDRESS`].
pub fn renumbered_zone(ttl: u32) -> Zone {
    Zone::new(".").any_below("test.", 600, "192.0.2.2").any_below("brief.", ttl, "192.0.2.2")
}

/// `count` names in as many zones, as real traffic has them.
pub fn new_names(batch: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("{batch}{n}.z{n}.test."))
}

/// `count` questions for `names` names below `brief.`, in turn.
pub fn brief_names(names: usize, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("k{0}.z{0}.brief.", n % names))
}

/// Something that happens beside the loads, and when.
pub type Act<'a> = (Duration, &'a mut dyn FnMut());

/// Runs all `loads` at once and `acts` beside them, each at its time since the start. Gives the loads' samples, and
/// when each act was done.
pub fn play(loads: Vec<(Load, Vec<String>)>, acts: &mut [Act<'_>]) -> (Vec<Vec<Sample>>, Vec<Instant>) {
    thread::scope(|scope| {
        let running: Vec<_> = loads.into_iter().map(|(load, names)| scope.spawn(move || load.ask(names))).collect();
        let start = Instant::now();
        let mut done = Vec::new();
        for (at, act) in acts {
            thread::sleep((start + *at).saturating_duration_since(Instant::now()));
            act();
            done.push(Instant::now());
        }
        (running.into_iter().map(|l| l.join().expect("a load ends")).collect(), done)
    })
}

/// [`play`] with one load.
pub fn play_one(
    load: Load,
    names: impl IntoIterator<Item = String>,
    acts: &mut [Act<'_>],
) -> (Vec<Sample>, Vec<Instant>) {
    let (mut samples, done) = play(vec![(load, names.into_iter().collect())], acts);
    (samples.remove(0), done)
}

/// What was sent in `from..until`.
pub fn between(samples: &[Sample], from: Instant, until: Instant) -> impl Iterator<Item = &Sample> + Clone {
    samples.iter().filter(move |s| (from..until).contains(&s.at))
}

/// What was sent at `from` or later.
pub fn since(samples: &[Sample], from: Instant) -> impl Iterator<Item = &Sample> + Clone {
    samples.iter().filter(move |s| s.at >= from)
}

pub fn has(sample: &Sample, address: [u8; 4]) -> bool {
    sample.reply.as_ref().is_some_and(|r| r.addresses() == [address])
}

pub fn is_right(sample: &Sample) -> bool {
    has(sample, ADDRESS)
}

/// Does the reply say that it is stale (RFC 8914, 3 and 19)?
pub fn is_stale(sample: &Sample) -> bool {
    sample.reply.as_ref().is_some_and(|r| r.edes().iter().any(|e| [3, 19].contains(e)))
}

pub fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

pub fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

/// What a question takes that nothing works on: 300 of them, 300 a second.
fn echo_p99() -> Duration {
    const QUESTIONS: usize = 300;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let load = Load { patience: PATIENCE, ..Load::on(address) }.per_second(QUESTIONS as u32);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let echoing = thread::spawn(move || {
        let mut room = [0; 512];
        for _ in 0..QUESTIONS {
            let Ok((length, from)) = socket.recv_from(&mut room) else { return };
            let _ = socket.send_to(&room[..length], from);
        }
    });
    let samples = load.ask(new_names("echo", QUESTIONS));
    let _ = echoing.join();
    quantile(&samples, 0.99).expect("the echo answers")
}
