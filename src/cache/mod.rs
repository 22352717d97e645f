//! What was answered before, and how long that may be said again.

pub mod freshness;

/// How the cache is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Bytes of all entries, overhead included.
    pub max_bytes: u64,
    /// Do the addresses of one RRset turn on every hit?
    pub rotate: bool,
}
