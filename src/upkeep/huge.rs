//! Huge pages of memory: off, but while much of it is filled at once.
//!
//! Not pure: a flag of the process. With pages of 2 MiB a process that has little takes much; filling hundreds of
//! megabytes takes little more than half the time with them, and little is wasted then. So the process goes without
//! ([`off`]), and reading a large snapshot has them ([`while_filling`]). Where they were off before, they stay off.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

/// They are off by us.
static OURS: AtomicBool = AtomicBool::new(false);

/// From here on memory comes in small pages, where the kernel can be told.
pub fn off() {
    let others = transparent_huge_pages_are_disabled().unwrap_or(true);
    OURS.store(!others && disable_transparent_huge_pages(true).is_ok(), Ordering::Relaxed);
}

/// Calls `fill`, whose memory may come in huge pages, where the system gives them to who asks.
pub fn while_filling<T>(fill: impl FnOnce() -> T) -> T {
    if !OURS.load(Ordering::Relaxed) {
        return fill();
    }
    let _ = disable_transparent_huge_pages(false);
    let filled = fill();
    let _ = disable_transparent_huge_pages(true);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_off_but_while_much_is_filled() {
        let are_off = || transparent_huge_pages_are_disabled().unwrap();
        let were_off = are_off();
        while_filling(|| assert_eq!(are_off(), were_off, "nothing is changed that was not ours"));
        off();
        assert!(are_off());
        while_filling(|| assert_eq!(are_off(), were_off));
        assert!(are_off());
        let _ = disable_transparent_huge_pages(were_off);
        OURS.store(false, Ordering::Relaxed);
    }
}
