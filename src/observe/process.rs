//! What the kernel knows of this process, for the `process_*` metrics.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// The kernel's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Seconds of processor time, of user and system.
    pub cpu_seconds: f64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// And how many there may be; `None` is no limit.
    pub max_fds: Option<u64>,
}

/// Reads them; what cannot be read is 0.
pub fn read() -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The directory that is being read is open too.
    let open_fds = fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1) as u64);
    Process {
        resident_bytes: field(&status, "VmRSS:") << 10,
        virtual_bytes: field(&status, "VmSize:") << 10,
        cpu_seconds: cpu_seconds(&stat),
        threads: field(&status, "Threads:"),
        open_fds,
        max_fds: getrlimit(Resource::Nofile).current,
    }
}

/// A number of /proc/self/status.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// utime and stime of /proc/self/stat. They follow the program's name, which may hold anything but stands in
/// parentheses.
fn cpu_seconds(stat: &str) -> f64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    let ticks: u64 = rest.split_ascii_whitespace().skip(11).take(2).filter_map(|w| w.parse::<u64>().ok()).sum();
    ticks as f64 / USER_HZ
}

/// Ticks a second in what the kernel tells programs: 100 on every architecture that Rust has a Linux target for.
const USER_HZ: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let p = read();
        assert!(p.resident_bytes > 1 << 20 && p.virtual_bytes >= p.resident_bytes, "{p:?}");
        assert!(p.threads >= 1 && p.open_fds >= 3, "{p:?}");
    }

    #[test]
    fn a_program_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let stat = "17 (a ) b) S 1 1 1 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 4 0 100 1000 200";
        assert_eq!(cpu_seconds(stat), 2.0);
        assert_eq!(cpu_seconds(""), 0.0);
    }
}
