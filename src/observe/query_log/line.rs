//! A logged question as one line of JSON, version [`VERSION`].
//!
//! Pure. Names are in presentation format (RFC 1035 §5.1, RFC 4343 §2.1): what is not printable ASCII is `\DDD`, and
//! JSON escapes the rest, so that no name ends a line or a string. Client addresses are cut to their prefix where the
//! caller asks for it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::wire::name::Shown;

/// One question that was answered, or not.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When it was answered, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who asked.
    pub client: IpAddr,
    /// `udp` or `tcp`.
    pub transport: &'static str,
    /// The name in uncompressed wire format, checked, at most 255 bytes.
    pub name: &'a [u8],
    /// The type.
    pub qtype: u16,
    /// The class.
    pub class: u16,
    /// The response code; `None` where nothing was answered.
    pub rcode: Option<u16>,
    /// Where the answer came from: the words of `evenkeel_answers_total{source}`.
    pub source: &'static str,
    /// From question to answer, in microseconds.
    pub micros: u64,
    /// Bytes of the answer.
    pub bytes: usize,
    /// The first extended error (RFC 8914), where there is one.
    pub ede: Option<u16>,
    /// The upstream group, where one was asked.
    pub group: Option<&'a str>,
}

/// Writes `record` as one line, with its line feed, behind what `out` has. `prefix` is how many bits of an IPv4 and of
/// an IPv6 address are kept; more than the address has keeps it whole.
pub fn write(record: &Record<'_>, prefix: [u8; 2], out: &mut Vec<u8>) {
    let form = Form {
        v: VERSION,
        time_ms: record.time_ms,
        client: cut(record.client, prefix),
        transport: record.transport,
        name: Shown(record.name).to_string(),
        qtype: record.qtype,
        class: record.class,
        rcode: record.rcode,
        source: record.source,
        us: record.micros,
        bytes: record.bytes,
        ede: record.ede,
        group: record.group,
    };
    // A plain struct into memory cannot fail.
    let _ = serde_json::to_writer(&mut *out, &form);
    out.push(b'\n');
}

/// `address` with all bits behind its prefix zero.
pub fn cut(address: IpAddr, [v4, v6]: [u8; 2]) -> IpAddr {
    let bits = if address.is_ipv4() { v4 } else { v6 };
    IpNet::new(address, bits).map_or(address, |net| net.network())
}

/// Grows by one when a key changes its meaning or goes; a new key changes nothing.
pub const VERSION: u8 = 1;

#[derive(Serialize)]
struct Form<'a> {
    v: u8,
    time_ms: u64,
    client: IpAddr,
    transport: &'a str,
    name: String,
    #[serde(rename = "type")]
    qtype: u16,
    class: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    rcode: Option<u16>,
    source: &'a str,
    us: u64,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    ede: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_the_format_says() {
        let want = concat!(
            r#"{"v":1,"time_ms":1700000000123,"client":"192.0.2.0","transport":"udp","name":"Example.org.","type":1,"#,
            r#""class":1,"rcode":0,"source":"stale","us":42,"bytes":61,"ede":3,"group":"default"}"#,
            "\n"
        );
        assert_eq!(written(b"\x07Example\x03org\0"), want);
    }

    #[test]
    fn no_name_ends_a_line_or_a_string() {
        let text = written(b"\x0ba\n\"}\r\x00\xff\\.b\x1b\0");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.is_ascii() && text.trim_end().bytes().all(|b| (0x20..0x7f).contains(&b)), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let name: crate::wire::Name = read["name"].as_str().unwrap().parse().unwrap();
        assert_eq!(name.as_wire(), b"\x0ba\n\"}\r\x00\xff\\.b\x1b\0");
    }

    #[test]
    fn addresses_are_cut_to_their_prefix() {
        let table = [
            ("192.0.2.77", [24, 56], "192.0.2.0"),
            ("192.0.2.77", [32, 128], "192.0.2.77"),
            ("2001:db8:1:2ff::1", [24, 56], "2001:db8:1:200::"),
            ("192.0.2.77", [99, 56], "192.0.2.77"),
        ];
        for (address, prefix, want) in table {
            assert_eq!(cut(address.parse().unwrap(), prefix).to_string(), want);
        }
    }

    fn written(name: &[u8]) -> String {
        let record = Record {
            time_ms: 1_700_000_000_123,
            client: "192.0.2.77".parse().unwrap(),
            transport: "udp",
            name,
            qtype: 1,
            class: 1,
            rcode: Some(0),
            source: "stale",
            micros: 42,
            bytes: 61,
            ede: Some(3),
            group: Some("default"),
        };
        let mut out = Vec::new();
        write(&record, [24, 56], &mut out);
        String::from_utf8(out).unwrap()
    }
}
