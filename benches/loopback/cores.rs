//! Which core does what.
//!
//! Servers have a core of their own; this process and the upstream share another one. Where two workers are compared
//! with one, all of them have both. On a machine with one core nothing is pinned.

use std::io;
use std::process::{Child, Command};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The core of the servers.
    Server,
    /// The core of this process and of the upstream.
    Asker,
    /// Both.
    Shared,
}

impl Place {
    /// Runs this thread here.
    pub fn take(self) {
        let Some([asker, server]) = pair() else { return };
        let mut set = CpuSet::new();
        if self != Self::Server {
            set.set(asker);
        }
        if self != Self::Asker {
            set.set(server);
        }
        sched_setaffinity(None, &set).expect("a core that was there at the start");
    }

    /// Starts a process here; this thread goes back to the asker's core.
    pub fn spawn(self, command: &mut Command) -> io::Result<Child> {
        // A process begins where the thread was that started it.
        self.take();
        let child = command.spawn();
        Self::Asker.take();
        child
    }
}

/// The asker's core and the servers', where there are two; as they were at the first call.
pub fn pair() -> Option<[usize; 2]> {
    static PAIR: std::sync::LazyLock<Option<[usize; 2]>> = std::sync::LazyLock::new(|| {
        let set = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
        Some([cores.next()?, cores.next()?])
    });
    *PAIR
}
