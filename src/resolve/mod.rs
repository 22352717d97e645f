//! The machine for a miss: what next?
//!
//! Pure. [`desk`] holds all pursuits of one group; [`pursuit`] is the machine: it is told what happened and answers
//! with steps; the driver carries them out. [`attempt`] is one question to one server within it, [`join`] lets
//! identical questions share one pursuit, [`patience`] says when a stale answer goes out, [`vet`] what a reply is
//! worth.

pub mod attempt;
pub mod desk;
pub mod join;
pub mod patience;
pub mod pursuit;
pub mod vet;

pub use desk::Desk;
pub use pursuit::Pursuit;

#[cfg(test)]
mod desk_scenarios;
#[cfg(test)]
mod scenarios;
