//! What goes on beside the way of a query: it keeps things as they should be, and no client waits for it.

pub mod canary;
pub mod freeze;
pub mod huge;
pub mod network;
pub mod probe;
pub mod snapshot;
pub mod source;
pub mod state;
pub mod supervisor;
pub mod system;
pub mod watch;
