//! What can be seen from outside.

pub mod control;
pub mod event;
pub mod metrics;

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// The admin listener and the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where HTTP listens; `None` is off.
    pub listen: Option<SocketAddr>,
    /// Who may ask besides loopback.
    pub allow: Vec<IpNet>,
    /// The control socket; `None` finds the default place.
    pub socket: Option<PathBuf>,
}

/// Logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Least level that is written.
    pub level: LogLevel,
    /// Shape of a line.
    pub format: LogFormat,
}

/// Levels, from the rarest line on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something is broken that evenkeel cannot mend.
    Error,
    /// Someone may want to be woken.
    Warn,
    /// Shifts, reloads, start and end.
    Info,
    /// Names appear from here on.
    Debug,
    /// Each query.
    Trace,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, text with `<priority>` under journald, JSON lines otherwise.
    Auto,
    /// Text.
    Text,
    /// Text with the priority that journald reads.
    Journald,
    /// One JSON object a line.
    Json,
}
