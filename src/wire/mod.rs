//! Views over packet bytes, checked once at the door and infallible after it.
//!
//! Pure, the lowest layer but clock and limits. [`query`] checks what a client sent, [`reply`] what a server sent;
//! [`edns`] reads and writes the OPT record, [`patch`] turns a stored reply into an answer, [`build`] makes what is
//! not stored: questions to servers, errors, local answers. [`name`] is the owned, folded name that settings use, and
//! [`pattern`] how settings mean many of them.

pub mod build;
pub mod edns;
pub mod name;
pub mod patch;
pub mod pattern;
pub mod query;
pub mod reply;

pub use edns::Ede;
pub use name::Name;
pub use query::Query;

/// Bits of the second 16-bit word of a header (RFC 1035 §4.1.1, RFC 4035 §3.2).
pub mod flag {
    /// A response.
    pub const QR: u16 = 0x8000;
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;
    /// Recursion available.
    pub const RA: u16 = 0x0080;
    /// Authentic data.
    pub const AD: u16 = 0x0020;
    /// Checking disabled.
    pub const CD: u16 = 0x0010;
    /// The opcode's bits.
    pub const OPCODE: u16 = 0x7800;
}

/// Response codes that evenkeel names (RFC 6895 §2.3).
pub mod rcode {
    /// No error.
    pub const NOERROR: u16 = 0;
    /// Format error.
    pub const FORMERR: u16 = 1;
    /// Server failure.
    pub const SERVFAIL: u16 = 2;
    /// Non-existent domain.
    pub const NXDOMAIN: u16 = 3;
    /// Not implemented.
    pub const NOTIMP: u16 = 4;
    /// Query refused.
    pub const REFUSED: u16 = 5;
    /// Name exists when it should not.
    pub const YXDOMAIN: u16 = 6;
    /// Bad OPT version.
    pub const BADVERS: u16 = 16;

    /// The mnemonic, for logs and labels; `"other"` for what has none here.
    pub const fn word(rcode: u16) -> &'static str {
        match rcode {
            NOERROR => "NOERROR",
            FORMERR => "FORMERR",
            SERVFAIL => "SERVFAIL",
            NXDOMAIN => "NXDOMAIN",
            NOTIMP => "NOTIMP",
            REFUSED => "REFUSED",
            YXDOMAIN => "YXDOMAIN",
            BADVERS => "BADVERS",
            _ => "other",
        }
    }
}

/// Record types that evenkeel treats apart (RFC 6895 §3.1). Every other type passes through unread.
pub mod rtype {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Name server.
    pub const NS: u16 = 2;
    /// Alias.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Pointer.
    pub const PTR: u16 = 12;
    /// Host information; what ANY gets (RFC 8482).
    pub const HINFO: u16 = 13;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Alias of a subtree.
    pub const DNAME: u16 = 39;
    /// EDNS (RFC 6891).
    pub const OPT: u16 = 41;
    /// Signature (RFC 4034).
    pub const RRSIG: u16 = 46;
    /// Transaction signature (RFC 8945).
    pub const TSIG: u16 = 250;
    /// Incremental transfer.
    pub const IXFR: u16 = 251;
    /// Transfer.
    pub const AXFR: u16 = 252;
    /// All types.
    pub const ANY: u16 = 255;
}

/// Class IN (RFC 1035 §3.2.4).
pub const CLASS_IN: u16 = 1;
/// Class CH, where version.bind lives.
pub const CLASS_CH: u16 = 3;

/// Big-endian 16 bits at `at`, where they are.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Big-endian 32 bits at `at`, where they are.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
