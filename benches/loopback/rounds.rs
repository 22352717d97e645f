//! Rounds over servers that take turns, and what they told of each.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use super::asker::Tally;
use super::board::median;
use super::calm::Watch;
use super::cores::Place;
use super::names::Shape;
use super::servers::{Kind, Server};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub rounds: usize,
    pub round: Duration,
    /// In two minutes, to see that it works.
    pub quick: bool,
}

impl Setup {
    /// `usual`, or `quick` where it is to be.
    pub fn or_quick<T>(&self, usual: T, quick: T) -> T {
        if self.quick { quick } else { usual }
    }

    /// The upstream: NSD, or the echo where that is not installed.
    pub fn upstream(&self) -> Server {
        let nowhere = "127.0.0.1:9".parse().expect("an address");
        Server::start(Kind::Nsd, nowhere, 1, Place::Asker).unwrap_or_else(|why| {
            println!("  nsd {why}; the echo is the upstream");
            Server::start(Kind::Echo, nowhere, 1, Place::Asker).expect("the echo starts")
        })
    }

    /// Those of `kinds` that answer, each with `names` warm names; a line for each that does not.
    pub fn fleet(&self, kinds: &[Kind], upstream: &Server, names: u32) -> Vec<Server> {
        let mut fleet = Vec::new();
        for &kind in kinds {
            match Server::start(kind, upstream.address, 1, Place::Server) {
                Ok(server) => {
                    let missing = if kind == Kind::Echo { 0 } else { server.warm(names, Shape::USUAL) };
                    if missing > 0 {
                        println!("  {}: {missing} of {names} names are not answered", kind.word());
                    }
                    fleet.push(server);
                }
                Err(why) => println!("  {} {why}", kind.word()),
            }
        }
        fleet
    }
}

/// What the rounds told of one server.
#[derive(Default)]
pub struct Figures {
    /// Answered a second.
    per_second: Vec<f64>,
    /// CPU an answer, in microseconds.
    cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Questions without a right answer.
    pub unanswered: u64,
}

impl Figures {
    pub fn note(&mut self, (mut tally, cpu): (Tally, Duration)) {
        self.per_second.push(tally.per_second());
        self.cpu.push(cpu.as_secs_f64() * 1e6 / tally.answered as f64);
        self.p50.push(tally.quantile(0.5));
        self.p99.push(tally.quantile(0.99));
        self.unanswered += tally.lost() + tally.wrong;
    }

    pub fn per_second(&self) -> f64 {
        median(self.per_second.iter().copied())
    }

    pub fn cpu(&self) -> f64 {
        median(self.cpu.iter().copied())
    }

    /// CPU an answer as a ratio to another's, round by round: a virtual core is not always as fast.
    pub fn cpu_to(&self, other: &Self) -> f64 {
        median(self.cpu.iter().zip(&other.cpu).map(|(own, others)| own / others))
    }

    pub fn p50(&self) -> f64 {
        median(self.p50.iter().copied())
    }

    pub fn p99(&self) -> f64 {
        median(self.p99.iter().copied())
    }
}

/// The share of all cores that others took in the rounds since this was asked last, as median and most.
pub fn others() -> Option<(f64, f64)> {
    let shares = std::mem::take(&mut *DISTURBED_BY.lock().expect("no thread but this"));
    let most = shares.iter().copied().reduce(f64::max)?;
    Some((median(shares), most))
}

/// The mean of runnable tasks of the last minute.
pub fn machine_load() -> String {
    let told = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ').next().unwrap_or_default().to_owned()
}

/// The figures of each server, by rounds in which they take turns. `ask` is told the server's place in the list.
///
/// A round that others disturbed is run again, up to a third as many as there are, and the calmer one counts.
pub fn in_turn(rounds: usize, servers: &[Server], mut ask: impl FnMut(usize, &Server) -> Tally) -> Vec<Figures> {
    let mut figures: Vec<Figures> = servers.iter().map(|_| Figures::default()).collect();
    let again_max = rounds * servers.len() / 3;
    let mut again = 0;
    for _ in 0..rounds {
        for (n, server) in servers.iter().enumerate() {
            let mut measure = || {
                let watch = Watch::new();
                let told = server.measured(|| ask(n, server));
                (watch.others(), told)
            };
            let mut calmest = measure();
            while calmest.0 > DISTURBED && again < again_max {
                again += 1;
                let (others, told) = measure();
                if others < calmest.0 {
                    calmest = (others, told);
                }
            }
            DISTURBED_BY.lock().expect("no thread but this").push(calmest.0);
            figures[n].note(calmest.1);
        }
    }
    figures
}

/// The better ones' `what` of the servers of `kinds`: of two, `better` says which. NaN where none runs.
pub fn best<'a>(
    servers: &[Server],
    figures: impl IntoIterator<Item = &'a Figures>,
    kinds: &[Kind],
    what: fn(&Figures) -> f64,
    better: fn(f64, f64) -> f64,
) -> f64 {
    let peers = servers.iter().zip(figures).filter(|(server, _)| kinds.contains(&server.kind));
    peers.map(|(_, figures)| what(figures)).fold(f64::NAN, better)
}

/// The figures of the one server of `kind`.
pub fn of<'f>(kind: Kind, servers: &[Server], figures: &'f [Figures]) -> Option<&'f Figures> {
    servers.iter().position(|s| s.kind == kind).map(|at| &figures[at])
}

/// The share of all cores that others may take in a round.
const DISTURBED: f64 = 0.05;
/// What others took in each round that counts.
static DISTURBED_BY: Mutex<Vec<f64>> = Mutex::new(Vec::new());
