//! What others do on the machine while something is measured.
//!
//! A build beside it takes the cores from server and asker by milliseconds: fewer answers, smaller batches and so more
//! CPU an answer, and quantiles that tell of the scheduler. A round in which that happened is better run again.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// From its making on.
pub struct Watch {
    at: Instant,
    busy: f64,
    ours: f64,
}

impl Watch {
    pub fn new() -> Self {
        Self { at: Instant::now(), busy: busy(), ours: ours() }
    }

    /// The share of all cores that neither this process nor its children took, and that was not idle.
    pub fn others(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).max(CORES_MEASURED) as f64;
        let others = (busy() - self.busy) - (ours() - self.ours);
        (others / (self.at.elapsed().as_secs_f64() * cores)).max(0.0)
    }
}

/// User and system time of a process's threads so far, to the nanosecond. The sum is what /proc/PID/stat has in ticks.
pub fn cpu_of(pid: u32) -> Duration {
    let ran = |task: PathBuf| fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok();
    Duration::from_nanos(tasks(pid).filter_map(ran).sum())
}

/// The same with its children.
pub fn cpu_of_all(pid: u32) -> Duration {
    let mut open = vec![pid];
    let mut sum = Duration::ZERO;
    while let Some(pid) = open.pop() {
        sum += cpu_of(pid);
        for task in tasks(pid) {
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            open.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        }
    }
    sum
}

fn tasks(pid: u32) -> impl Iterator<Item = PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks.filter_map(|task| Some(task.ok()?.path()))
}

/// Seconds in which the machine's cores were not idle, a virtual machine's stolen ones among them.
fn busy() -> f64 {
    let told = fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(all) = told.lines().next() else { return 0.0 };
    let ticks: Vec<f64> = all.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
    // user, nice, system, (idle, waiting,) interrupts, soft ones, stolen.
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&n| ticks.get(n)).sum::<f64>() / ticks_per_second()
}

/// Seconds that this process and its children took, those that have ended among them.
fn ours() -> f64 {
    let told = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = told.rsplit(") ").next().unwrap_or_default();
    let ended: f64 = fields.split(' ').skip(13).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    cpu_of_all(std::process::id()).as_secs_f64() + ended / ticks_per_second()
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// This thread is pinned to one core, and another one is the servers'.
const CORES_MEASURED: usize = 2;
