//! The program; all of it is in the library, this runs one command.
//!
//! Its allocator is mimalloc, chosen by measurement (`cargo bench --bench eviction`, `--bench snapshot`): a cached name
//! of 152 bytes takes 402 bytes of RSS, with glibc's allocator 466, with jemalloc, which would need make and a shell to
//! build, 394. A full cache in which answers come and go takes 0.97 times `max_bytes`. It asks for huge pages, with
//! which an idle process took 22 MiB in place of 11: they are off but while much memory is filled at once
//! (`evenkeel::upkeep::huge`).

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    evenkeel::upkeep::huge::off();
    evenkeel::cli::run()
}
