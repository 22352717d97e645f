//! evenkeel: a DNS caching resolver for every node.

pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod driver;
pub mod limits;
pub mod listen;
pub mod observe;
pub mod resolve;
pub mod serve;
pub mod transport;
pub mod upkeep;
pub mod upstream;
pub mod wire;
