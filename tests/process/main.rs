//! The program as a process on loopback, asked by clients and standing on servers that behave well or badly.
//!
//! One test program, since all of it stands on `tests/support`. Tests that measure time hold [`support::quiet`], the
//! others [`support::busy`], so that nothing runs beside a measurement.

#[path = "../rfc/mod.rs"]
mod rfc;
#[path = "../support/mod.rs"]
mod support;

mod ahead;
mod bytes;
mod canary;
mod forward;
mod guard;
mod import;
mod neighbours;
mod network;
mod observed;
mod outage;
mod page;
mod process;
mod query_log;
mod restart;
mod stale;
mod stub;
mod systemd;
