//! `evenkeel serve`: everything up to the daemon.

use super::{EXIT_FAULT, EXIT_FINE, talk};
use crate::daemon::{self, Start};
use crate::upkeep::source::ConfigSource;

pub(super) fn serve(mut source: ConfigSource, watch: bool, strict: bool) -> u8 {
    source.file = source.file.map(|file| std::path::absolute(&file).unwrap_or(file));
    let (loaded, refused) = match source.load_at_start(strict) {
        Ok(found) => found,
        Err(refused) => {
            talk(&refused.to_string());
            return EXIT_FAULT;
        }
    };
    match daemon::run(Start { source, loaded, refused, watch }) {
        Ok(()) => EXIT_FINE,
        Err(fatal) => {
            talk(&format!("evenkeel: {fatal}"));
            fatal.exit
        }
    }
}
