//! What a group tells the log: each change once, as it happens.
//!
//! Pure.

use super::ServerId;
use super::health::Evidence;
use super::tier::Shift;

/// Something that changed and is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A server fell silent.
    Silent(ServerId),
    /// A silent server spoke.
    Spoke(ServerId),
    /// A server is down.
    Down(ServerId, Evidence),
    /// A server is up again.
    Up(ServerId),
    /// Another tier is in use.
    Shift(Shift),
    /// No server is fit.
    Dark,
    /// A server answered in the dark.
    Healed,
    /// A server leads back to us: it is left out.
    Loops(ServerId),
    /// It does so no more.
    LoopsNoMore(ServerId),
    /// A server says of many names that they are gone, and others still have them.
    Suspect(ServerId),
    /// It has not done so for a while.
    SuspectNoMore(ServerId),
    /// Nothing comes from any server of an address family: is it IPv6's?
    FamilyBroken(bool),
    /// Something came from it.
    FamilyWorks(bool),
}
