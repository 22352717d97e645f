//! The control socket: how `evenkeel status` and its kin speak with the running process.
//!
//! Not pure: sockets and files. One connection carries one question, a line of JSON ([`Request`]), and one answer, an
//! object of JSON: `{"ok": …}`, or `{"error": "…", "kind": "…"}`. `server` is the process's end, `client` the
//! commands'. Rules:
//!
//! - The socket is the configured one; else `/run/evenkeel/control.sock` where that directory can be had, else
//!   `$XDG_RUNTIME_DIR/evenkeel/control.sock`. Its directory is made with mode 0750, the socket has 0660.
//! - Whoever may open the socket may read (`status`, `explain`). What changes something (`flush`, `reload`, `freeze`,
//!   `thaw`, `release`) is for root and for the user that evenkeel runs as (SO_PEERCRED).
//! - A socket that a dead process left is replaced; one that answers is not.
//! - Not having the socket is no reason to end: it is tried again every 10 s.
//! - A request has at most 4096 bytes, a connection lasts at most 5 s, and there are at most 16 of them.

pub mod client;
pub mod server;

use std::env;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A question to the running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How are things?
    Status,
    /// Status and metrics for a bug report, without what was expanded in the configuration.
    Bundle,
    /// What would be done with this question?
    Explain {
        /// The name, in presentation format.
        name: String,
        /// The type, by number.
        qtype: u16,
    },
    /// Let go of cached answers.
    Flush {
        /// Which ones.
        what: FlushText,
    },
    /// Apply the configuration as it is at this moment.
    Reload,
    /// Give nothing good up for so many seconds.
    Freeze {
        /// Seconds.
        seconds: u64,
    },
    /// End the freeze.
    Thaw,
    /// End the holds on a name.
    Release {
        /// The name, in presentation format.
        name: String,
    },
}

/// What is flushed, as it goes over the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlushText {
    /// One name, in presentation format.
    Name(String),
    /// A name and all below it.
    Zone(String),
    /// Everything.
    All,
}

impl Request {
    /// Does it change something?
    fn changes(&self) -> bool {
        match self {
            Request::Status | Request::Bundle | Request::Explain { .. } => false,
            Request::Flush { .. }
            | Request::Reload
            | Request::Freeze { .. }
            | Request::Thaw
            | Request::Release { .. } => true,
        }
    }
}

/// The answer, as it goes over the socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", untagged)]
enum Answer {
    /// Done; what there is to say.
    Ok { ok: serde_json::Value },
    /// Not done; why.
    Error { error: String, kind: ErrorKind },
}

/// Whose fault it is that nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// What was sent is no request.
    Request,
    /// This user may not.
    Permission,
    /// The process looked at it and refused.
    Refused,
}

/// Where the socket is where none is configured, in the order in which places are tried.
pub fn default_places() -> Vec<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    std::iter::once(PathBuf::from("/run")).chain(runtime).map(|dir| dir.join("evenkeel/control.sock")).collect()
}

#[cfg(test)]
mod tests;
