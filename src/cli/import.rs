//! `evenkeel import`: reads a file of another resolver, prints the configuration that comes of it.
//!
//! Not pure. What is printed is read as the daemon would read it, so that a mistake of the translation itself does not
//! pass for a configuration.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use clap::ValueEnum;

use super::{EXIT_FAULT, print, talk};
use crate::config;
use crate::import::{FILE_BYTES_MAX, Format, import as translate};

/// The formats, as on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Word {
    /// CoreDNS, NodeLocal DNSCache
    Corefile,
    /// dnsmasq.conf
    Dnsmasq,
    /// unbound.conf
    Unbound,
}

/// Prints the configuration; 1 where the file cannot be read.
pub(super) fn import(format: Word, file: &Path) -> u8 {
    let format = match format {
        Word::Corefile => Format::Corefile,
        Word::Dnsmasq => Format::Dnsmasq,
        Word::Unbound => Format::Unbound,
    };
    let shown = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
    let text = match read(file) {
        Ok(text) => text,
        Err(why) => {
            talk(&format!("{shown}: {why}\n  hint: evenkeel import {} FILE, or - for stdin", format.word()));
            return EXIT_FAULT;
        }
    };
    let imported = match translate(format, &shown, &text) {
        Ok(imported) => imported,
        Err(unreadable) => {
            talk(&unreadable.shown(&shown));
            return EXIT_FAULT;
        }
    };
    for left in &imported.left {
        talk(&format!("{shown}:{left}"));
    }
    let code = print(&imported.text);
    match config::parse(&imported.text, &|_| None, &[]) {
        Ok(_) => code,
        Err(mistakes) => {
            for mistake in mistakes {
                talk(&format!("evenkeel: what was printed is refused: {}", mistake.shown("stdout")));
            }
            EXIT_FAULT
        }
    }
}

/// The text, with one byte more at most than is read, so that too long a file shows.
fn read(file: &Path) -> Result<String, String> {
    let limit = FILE_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    } else {
        let file = File::open(file).map_err(|e| e.to_string())?;
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            return Err("a directory: import its files one by one".to_owned());
        }
        file.take(limit).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    }
    // A cut behind the limit may be within a character: its length is judged, not its text.
    if bytes.len() > FILE_BYTES_MAX {
        return Ok(" ".repeat(bytes.len()));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        format!("line {line} is not UTF-8")
    })
}
