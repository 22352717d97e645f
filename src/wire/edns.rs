//! The OPT record that evenkeel sends (RFC 6891), and extended DNS errors (RFC 8914).
//!
//! Pure. OPT is hop-by-hop: a client gets ours, never the server's. Of a server's OPT only its extended errors are
//! kept, at most two, each with at most 64 bytes of text; they are stored encoded ([`keep`]) and appended as they are.

use super::u16_at;
use crate::limits::{EDE_KEPT_MAX, EDE_TEXT_BYTES_MAX, UDP_PAYLOAD_MAX};

/// An extended error with its text. The text names no upstream address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede {
    /// INFO-CODE (RFC 8914 §4).
    pub code: u16,
    /// EXTRA-TEXT, UTF-8.
    pub text: &'static str,
}

/// INFO-CODEs that evenkeel uses.
pub mod code {
    /// Other: a limit of our own.
    pub const OTHER: u16 = 0;
    /// Stale answer.
    pub const STALE: u16 = 3;
    /// Cached error.
    pub const CACHED_ERROR: u16 = 13;
    /// Not ready: no upstream yet.
    pub const NOT_READY: u16 = 14;
    /// Prohibited: the client may not ask.
    pub const PROHIBITED: u16 = 18;
    /// Stale NXDOMAIN answer.
    pub const STALE_NXDOMAIN: u16 = 19;
    /// Not authoritative: asked without recursion.
    pub const NOT_AUTHORITATIVE: u16 = 20;
    /// No reachable authority: all upstreams silent.
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// Network error: unreachable.
    pub const NETWORK_ERROR: u16 = 23;
    /// Invalid data: unusable reply.
    pub const INVALID_DATA: u16 = 24;
}

const OPTION_EDE: u16 = 15;
/// Root, type, class, TTL, RDLENGTH.
const OPT_BYTES: usize = 11;

/// Bytes that [`write()`] takes.
pub fn written_len(ede: Option<Ede>, kept: &[u8]) -> usize {
    OPT_BYTES + ede.map_or(0, |e| 6 + e.text.len()) + kept.len()
}

/// Writes our OPT record to the start of `out` and returns its length.
///
/// `extended` is the upper eight bits of the RCODE, `kept` is what [`keep`] gave.
///
/// # Panics
///
/// Where `out` is shorter than [`written_len`] says.
pub fn write(out: &mut [u8], dnssec_ok: bool, extended: u8, ede: Option<Ede>, kept: &[u8]) -> usize {
    let total = written_len(ede, kept);
    let [payload_high, payload_low] = (UDP_PAYLOAD_MAX as u16).to_be_bytes();
    let [length_high, length_low] = ((total - OPT_BYTES) as u16).to_be_bytes();
    let flags = if dnssec_ok { 0x80 } else { 0 };
    out[..OPT_BYTES].copy_from_slice(&[
        0,
        0,
        41,
        payload_high,
        payload_low,
        extended,
        0,
        flags,
        0,
        length_high,
        length_low,
    ]);
    let mut at = OPT_BYTES;
    if let Some(ede) = ede {
        at += write_ede(&mut out[at..], ede.code, ede.text.as_bytes());
    }
    out[at..total].copy_from_slice(kept);
    total
}

fn write_ede(out: &mut [u8], code: u16, text: &[u8]) -> usize {
    out[..2].copy_from_slice(&OPTION_EDE.to_be_bytes());
    out[2..4].copy_from_slice(&((2 + text.len()) as u16).to_be_bytes());
    out[4..6].copy_from_slice(&code.to_be_bytes());
    out[6..6 + text.len()].copy_from_slice(text);
    6 + text.len()
}

/// INFO-CODEs in the options of a server's OPT record, in their order; stops at what overruns.
pub fn ede_codes(options: &[u8]) -> impl Iterator<Item = u16> + '_ {
    edes(options).map(|(code, _)| code)
}

fn edes(mut options: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let (number, length) = (u16_at(options, 0)?, usize::from(u16_at(options, 2)?));
            let value = options.get(4..4 + length)?;
            options = &options[4 + length..];
            if number == OPTION_EDE
                && let Some(code) = u16_at(value, 0)
            {
                return Some((code, &value[2..]));
            }
        }
    })
}

/// The extended errors of a server's options, encoded for [`write()`]: the first two, their texts cut at a character's
/// end within 64 bytes, texts that are not UTF-8 left out.
pub fn keep(options: &[u8]) -> Box<[u8]> {
    let mut out = Vec::new();
    for (code, text) in edes(options).take(EDE_KEPT_MAX) {
        let text = std::str::from_utf8(text).unwrap_or("");
        let text = &text[..text.floor_char_boundary(EDE_TEXT_BYTES_MAX)];
        let at = out.len();
        out.resize(at + 6 + text.len(), 0);
        write_ede(&mut out[at..], code, text.as_bytes());
    }
    out.into()
}

/// An extended error without text, encoded, before those of `kept`.
pub fn with_code(code: u16, kept: &[u8]) -> Box<[u8]> {
    let mut out = vec![0; 6];
    write_ede(&mut out, code, &[]);
    out.extend_from_slice(kept);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_announced() {
        let ede = Some(Ede { code: code::STALE, text: "stale" });
        let kept = keep(&option(6, b"bogus"));
        let mut out = [0; 100];
        let n = write(&mut out, true, 0, ede, &kept);
        assert_eq!(n, written_len(ede, &kept));
        assert_eq!(&out[..11], &[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, (n - 11) as u8]);
        assert_eq!(ede_codes(&out[11..n]).collect::<Vec<_>>(), [3, 6]);
    }

    #[test]
    fn two_errors_are_kept_and_a_third_is_not() {
        let three = [option(1, b""), option(2, b""), option(3, b"")].concat();
        assert_eq!(ede_codes(&keep(&three)).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_text_is_cut_at_a_whole_character_within_64_bytes() {
        let long = format!("{}ä", "x".repeat(63));
        assert_eq!(keep(&option(1, long.as_bytes())).len(), 6 + 63);
        assert_eq!(keep(&option(1, "x".repeat(64).as_bytes())).len(), 6 + 64);
        assert_eq!(keep(&option(1, &[0xff, 0xfe])).len(), 6);
    }

    #[test]
    fn options_that_overrun_end_the_reading() {
        let mut o = option(1, b"");
        o.extend([0, 15, 0, 9, 0]);
        assert_eq!(ede_codes(&o).collect::<Vec<_>>(), [1]);
    }

    fn option(code: u16, text: &[u8]) -> Vec<u8> {
        let mut o = vec![0; 6 + text.len()];
        write_ede(&mut o, code, text);
        o
    }
}
