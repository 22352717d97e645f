//! The program as a process on loopback, asked by clients and standing on servers that behave well or badly.
//!
//! One test program, since all of it stands on `tests/support`; tests that measure time ask it for quiet.

#[path = "../support/mod.rs"]
mod support;
