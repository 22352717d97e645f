//! `evenkeel serve`: everything up to the daemon, and what it may end with.

use std::fmt;

use super::source::{ConfigSource, Loaded, Refused};
use super::{EXIT_FAULT, EXIT_FINE, EXIT_SYSTEM, talk};

/// What the daemon starts with.
#[derive(Debug)]
pub struct Start {
    /// The configuration to serve by, with its warnings, file and hash.
    pub loaded: Loaded,
    /// Why the file itself was refused, where `loaded` is the last accepted copy: to be said loudly.
    pub refused: Option<Refused>,
    /// Where a reload reads from.
    pub source: ConfigSource,
    /// Is the file applied whenever it changes?
    pub watch: bool,
}

/// Why the daemon could not start, or ended other than by a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// The exit code.
    pub exit: u8,
    /// One line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Fatal {
    /// The system refused: a port in use, a permission.
    pub fn system(message: impl Into<String>, hint: Option<&str>) -> Self {
        Self { exit: EXIT_SYSTEM, message: message.into(), hint: hint.map(str::to_owned) }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fatal {}

pub(super) fn serve(mut source: ConfigSource, watch: bool, strict: bool) -> u8 {
    source.file = source.file.map(|file| std::path::absolute(&file).unwrap_or(file));
    let (loaded, refused) = match source.load_at_start(strict) {
        Ok(found) => found,
        Err(refused) => {
            talk(&refused.to_string());
            return EXIT_FAULT;
        }
    };
    match run_daemon(Start { loaded, refused, source, watch }) {
        Ok(()) => EXIT_FINE,
        Err(fatal) => {
            talk(&format!("evenkeel: {fatal}"));
            fatal.exit
        }
    }
}

// STUB: the one call of the daemon. To be `crate::daemon::run(start)`.
fn run_daemon(start: Start) -> Result<(), Fatal> {
    let listen = &start.loaded.config.listen.dns;
    Err(Fatal::system(format!("serving on {listen:?} is not built yet"), None))
}
