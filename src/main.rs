//! The program; all of it is in the library, this runs one command.
//!
//! Its allocator is mimalloc, chosen by measurement (`cargo bench --bench eviction`, `--bench snapshot`; one machine,
//! one hour): RSS of a cached name of 152 bytes 405 bytes, with glibc's 466, with jemalloc 394; a million names read at
//! start in 1.3 s, 1.75 s, 1.3 s. jemalloc would need make and a shell to build. Without huge pages,
//! with which an idle process took 22 MiB in place of 8. A full cache in which answers come and
//! go takes 0.97 to 1.03 times `max_bytes`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    evenkeel::cli::run()
}
