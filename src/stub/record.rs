//! What was there and what was written, as it is kept while the stub is enabled.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::place::Place;

/// The version of this form. A record of another one is not used.
pub const RECORD_VERSION: u32 = 1;

/// Everything that disabling needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// What was at /etc/resolv.conf.
    pub original: Place,
    /// What was written there.
    pub written: String,
    /// What was written there before that, by an enabling at another address: a cut-off may have left it.
    #[serde(default)]
    pub earlier: Option<String>,
    /// What else was written.
    pub changes: Vec<Change>,
    /// Directories that were made for it, the outer ones first.
    #[serde(default)]
    pub made: Vec<PathBuf>,
}

impl Record {
    /// Is this what was written to /etc/resolv.conf?
    pub fn wrote(&self, place: &Place) -> bool {
        [Some(&self.written), self.earlier.as_ref()].into_iter().flatten().any(|text| place.says(text))
    }
}

/// Another file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// What was there.
    pub before: Place,
    /// What was written.
    pub written: String,
}
