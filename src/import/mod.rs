//! From the configuration of another resolver to one of evenkeel.
//!
//! Pure: the text of a file in, the text of a file out. [`import`] reads a Corefile (CoreDNS, NodeLocal DNSCache), a
//! dnsmasq.conf or an unbound.conf. Each format has a file of its own, which knows its words and fills a
//! `draft::Draft`; `print` writes that as TOML. Rules:
//!
//! - What has a counterpart is translated, and its value brought within evenkeel's bounds, which is said where it
//!   changes the value. What evenkeel does anyway (`errors`, `loop`, `loadbalance`, `bind-interfaces`) is passed over.
//! - Everything else is a [`Left`]: the line, what stands there, and why it is left or what to do. It is a comment of
//!   the output and a line for stderr. Nothing is left silently.
//! - What the source forwards goes to its group: what is local above it gives way, and is left (`overlap`).
//! - What prints is accepted by `evenkeel check`, whatever was read: names, addresses and numbers are checked before
//!   they are taken, double ones are taken once, a server that evenkeel itself would be is left.
//! - What the source does not say gets evenkeel's default, not the default of the source, but where the source's
//!   default says who is asked and who may ask: those are part of what the operator has.
//! - Files that a source names (`include`, `conf-dir`, `import FILE`) are not read: each is a [`Left`].
//! - A file whose structure cannot be read (a brace that is not closed, a line without its colon) is refused whole.

mod corefile;
mod dnsmasq;
mod draft;
mod overlap;
mod print;
mod unbound;
mod words;

use std::fmt;

/// Bytes of a file that is read.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// CoreDNS and NodeLocal DNSCache.
    Corefile,
    /// dnsmasq.
    Dnsmasq,
    /// unbound.
    Unbound,
}

impl Format {
    /// As on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Format::Corefile => "corefile",
            Format::Dnsmasq => "dnsmasq",
            Format::Unbound => "unbound",
        }
    }
}

/// What came of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The configuration, as TOML.
    pub text: String,
    /// What it has no counterpart for, in the order of the lines.
    pub left: Vec<Left>,
}

/// A line, or a part of one, that has no counterpart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// From 1.
    pub line: usize,
    /// What stands there, on one line and without control characters.
    pub what: String,
    /// Why it is left, or what to do.
    pub why: String,
}

/// Why a file was refused whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// From 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl Unreadable {
    fn new(line: usize, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { line, what: what.into(), hint: hint.into() }
    }

    /// Shows it as `FILE:LINE: what`, and its hint on a line of its own.
    pub fn shown(&self, file: &str) -> String {
        let Self { line, what, hint } = self;
        let at = if *line == 0 { file.to_owned() } else { format!("{file}:{line}") };
        format!("{at}: {what}\n  hint: {hint}")
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.line, self.what, self.why)
    }
}

/// Translates `text`; `file` is what the output calls it.
///
/// # Errors
///
/// Where the file has more than [`FILE_BYTES_MAX`] bytes, or a structure that cannot be read.
pub fn import(format: Format, file: &str, text: &str) -> Result<Imported, Unreadable> {
    if text.len() > FILE_BYTES_MAX {
        let what = format!("more than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(Unreadable::new(0, what, "import it in parts; long lists of names belong into a hosts file"));
    }
    let draft = match format {
        Format::Corefile => corefile::read(text)?,
        Format::Dnsmasq => dnsmasq::read(text)?,
        Format::Unbound => unbound::read(text)?,
    };
    let (text, left) = print::print(draft, format, &words::shown(file));
    Ok(Imported { text, left })
}

#[cfg(test)]
mod tests;
