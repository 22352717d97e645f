//! dnstap messages (dnstap.pb, version 2) and the frame streams that carry them.
//!
//! Pure. Written by hand: a dozen fields, all of them varints, fixed32 or bytes. Every message is bounded by
//! [`MESSAGE_BYTES_MAX`], since a DNS message has at most 65,535 bytes.

use std::net::IpAddr;
use std::time::Duration;

/// Which side of an exchange a message shows; the number is dnstap's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client's question.
    ClientQuery = 5,
    /// Our answer to it.
    ClientResponse = 6,
}

/// A DNS message that was seen.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Which side.
    pub kind: Kind,
    /// Who asked, as far as it may be shown. The port is not known where answers are made.
    pub client: IpAddr,
    /// Over TCP; else over UDP.
    pub tcp: bool,
    /// Since 1970.
    pub time: Duration,
    /// The DNS message; what goes past 65,535 bytes is left out.
    pub message: &'a [u8],
}

/// A data frame with `seen`, behind what `out` has.
pub fn write_frame(seen: &Seen<'_>, identity: &str, version: &str, out: &mut Vec<u8>) {
    let mut inner = Vec::with_capacity(seen.message.len() + 64);
    number(1, seen.kind as u64, &mut inner);
    number(2, if seen.client.is_ipv4() { 1 } else { 2 }, &mut inner);
    number(3, if seen.tcp { 2 } else { 1 }, &mut inner);
    match seen.client {
        IpAddr::V4(ip) => bytes(4, &ip.octets(), &mut inner),
        IpAddr::V6(ip) => bytes(4, &ip.octets(), &mut inner),
    }
    let (seconds, nanos, message) = match seen.kind {
        Kind::ClientQuery => (8, 9, 10),
        Kind::ClientResponse => (12, 13, 14),
    };
    number(seconds, seen.time.as_secs(), &mut inner);
    varint(nanos << 3 | 5, &mut inner);
    inner.extend(seen.time.subsec_nanos().to_le_bytes());
    bytes(message, &seen.message[..seen.message.len().min(usize::from(u16::MAX))], &mut inner);

    let mut whole = Vec::with_capacity(inner.len() + 64);
    bytes(1, cut(identity), &mut whole);
    bytes(2, cut(version), &mut whole);
    bytes(14, &inner, &mut whole);
    number(15, 1, &mut whole);
    out.extend((whole.len() as u32).to_be_bytes());
    out.extend(whole);
}

/// A control frame of frame streams; the number is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The collector takes a content type.
    Accept = 1,
    /// Data frames follow.
    Start = 2,
    /// No data frame follows.
    Stop = 3,
    /// The writer offers a content type.
    Ready = 4,
    /// The collector has read all.
    Finish = 5,
}

/// Writes a control frame, with the content type where it has one.
pub fn write_control(control: Control, out: &mut Vec<u8>) {
    let typed = matches!(control, Control::Accept | Control::Start | Control::Ready);
    let length = 4 + if typed { 8 + CONTENT_TYPE.len() } else { 0 };
    out.extend([0; 4]);
    out.extend((length as u32).to_be_bytes());
    out.extend((control as u32).to_be_bytes());
    if typed {
        out.extend(1u32.to_be_bytes());
        out.extend((CONTENT_TYPE.len() as u32).to_be_bytes());
        out.extend(CONTENT_TYPE);
    }
}

/// Do the fields of an ACCEPT frame take [`CONTENT_TYPE`]? Without any they take all.
pub fn takes_our_type(mut fields: &[u8]) -> bool {
    if fields.is_empty() {
        return true;
    }
    while let Some((head, rest)) = fields.split_at_checked(8) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let Some((value, rest)) = rest.split_at_checked(length as usize) else { return false };
        if head[..4] == 1u32.to_be_bytes() && value == CONTENT_TYPE {
            return true;
        }
        fields = rest;
    }
    false
}

fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(LABEL_BYTES_MAX)]
}

fn number(field: u64, value: u64, out: &mut Vec<u8>) {
    varint(field << 3, out);
    varint(value, out);
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(field << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend(value);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What the frames hold.
pub const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
/// Longest data frame, with its length.
pub const MESSAGE_BYTES_MAX: usize = 65_535 + 2 * LABEL_BYTES_MAX + 128;
/// Longest identity and version.
const LABEL_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_bounded_and_says_its_length() {
        let mut out = Vec::new();
        write_frame(&seen(Kind::ClientQuery, &[7; 70_000]), &"i".repeat(999), &"v".repeat(999), &mut out);
        assert!(out.len() <= MESSAGE_BYTES_MAX, "{}", out.len());
        assert_eq!(u32::from_be_bytes(out[..4].try_into().unwrap()) as usize, out.len() - 4);
    }

    // Field numbers and wire types of dnstap.pb: written out once, so that they can be read beside it.
    #[test]
    fn a_frame_is_what_the_format_says() {
        let mut out = Vec::new();
        write_frame(&seen(Kind::ClientResponse, &[0xab, 0xcd]), "i", "v", &mut out);
        let inner = [
            &[0x08, 6][..],                        // type: CLIENT_RESPONSE
            &[0x10, 1],                            // socket_family: INET
            &[0x18, 1],                            // socket_protocol: UDP
            &[0x22, 4, 192, 0, 2, 77],             // query_address
            &[0x60, 0x80, 0xe2, 0xcf, 0xaa, 0x06], // response_time_sec
            &[0x6d, 5, 0, 0, 0],                   // response_time_nsec, fixed32
            &[0x72, 2, 0xab, 0xcd],                // response_message
        ]
        .concat();
        let whole = [&[0x0a, 1, b'i', 0x12, 1, b'v', 0x72, inner.len() as u8][..], &inner, &[0x78, 1]].concat();
        assert_eq!(out, [&(whole.len() as u32).to_be_bytes()[..], &whole].concat());
    }

    #[test]
    fn who_accepts_names_our_type_or_none() {
        let field =
            |kind: u32, value: &[u8]| [&kind.to_be_bytes()[..], &(value.len() as u32).to_be_bytes(), value].concat();
        for (fields, takes) in [
            (vec![], true),
            (field(1, CONTENT_TYPE), true),
            ([field(1, b"other"), field(1, CONTENT_TYPE)].concat(), true),
            (field(1, b"protobuf:dnstap.DnstapX"), false),
            (field(2, CONTENT_TYPE), false),
            (field(1, CONTENT_TYPE)[..20].to_vec(), false),
            (vec![0, 0, 0, 1], false),
        ] {
            assert_eq!(takes_our_type(&fields), takes, "{fields:?}");
        }
    }

    fn seen(kind: Kind, message: &[u8]) -> Seen<'_> {
        let client = "192.0.2.77".parse().unwrap();
        Seen { kind, client, tcp: false, time: Duration::new(1_700_000_000, 5), message }
    }
}
