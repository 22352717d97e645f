//! What can be seen from outside.
//!
//! [`event`] is every fact that is worth a line, [`log`] where the lines go, [`metrics`] what is counted, [`status`]
//! how things stand, [`standing`] how a group does, [`summary`] the same in a sentence, [`history`] the last hour,
//! [`admin`] the HTTP listener that shows all of it, [`page`] its page, [`liveness`] the question whether this process
//! still answers, [`process`] what the kernel knows of it, [`query_log`] the forms of a logged question.

pub mod admin;
pub mod control;
pub mod event;
pub mod history;
pub mod liveness;
pub mod log;
pub mod metrics;
pub mod page;
pub mod process;
pub mod query_log;
pub mod standing;
pub mod status;
pub mod summary;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::wire::Name;

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

/// A question that is asked as a client would ask it, to be seen in the metrics. It decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanarySettings {
    /// The name.
    pub name: Name,
    /// The type.
    pub qtype: u16,
    /// What a good answer says.
    pub expect: Expected,
    /// Pause between questions.
    pub every: Duration,
}

/// What a canary's good answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// At least one record of the type.
    Records,
    /// That the type does not exist.
    NoData,
    /// That the name does not exist.
    NxDomain,
    /// A record of the type with this data, in presentation format.
    Data(String),
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

impl LogLevel {
    /// Its word in configuration, logs and status.
    pub const fn word(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
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
