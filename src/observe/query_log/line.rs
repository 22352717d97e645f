//! A logged question as one line of JSON, version [`VERSION`].
//!
//! Pure. Names are in presentation format (RFC 1035 §5.1, RFC 4343 §2.1): what is not printable ASCII is `\DDD`, and
//! JSON escapes the rest, so that no name ends a line or a string. Client addresses are cut to their prefix where the
//! caller asks for it.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;
use ipnet::IpNet;
use serde::Serialize;

use super::Record;
use crate::serve::Transport;
use crate::wire::edns::ede_codes;
use crate::wire::name::Shown;
use crate::wire::{query, rcode, reply};

/// Writes `record` as one line, with its line feed, behind what `out` has. `prefix` is how many bits of an IPv4 and of
/// an IPv6 address are kept; more than the address has keeps it whole.
pub(super) fn write(record: &Record, prefix: [u8; 2], out: &mut Vec<u8>) {
    let question = query::check(&record.query).ok();
    let edes = reply::check(&record.reply).map(|reply| ede_codes(reply.options()).collect()).unwrap_or_default();
    let form = Form {
        v: VERSION,
        time_ms: record.time.as_millis() as u64,
        client: cut(record.client, prefix),
        transport: match record.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        },
        name: question.map(|q| Shown(q.name()).to_string()),
        qtype: question.map(|q| type_word(q.qtype())),
        class: question.map(|q| q.class()),
        rcode: (record.reply_bytes > 0).then(|| rcode_word(record.rcode)),
        source: record.source.word(),
        us: record.took.as_micros() as u64,
        bytes: record.reply_bytes,
        ede: edes,
    };
    // A plain struct into memory cannot fail.
    let _ = serde_json::to_writer(&mut *out, &form);
    out.push(b'\n');
}

/// The mnemonic, or `TYPE123` (RFC 3597 §5).
fn type_word(number: u16) -> String {
    match RecordType::from(number) {
        RecordType::Unknown(number) => format!("TYPE{number}"),
        known => known.to_string(),
    }
}

/// The mnemonic, or `RCODE11`.
fn rcode_word(number: u16) -> String {
    match rcode::word(number) {
        "other" => format!("RCODE{number}"),
        word => word.to_owned(),
    }
}

/// `address` with all bits behind its prefix zero.
pub fn cut(address: IpAddr, [v4, v6]: [u8; 2]) -> IpAddr {
    // At a socket for both families IPv4 comes in IPv6's clothes (RFC 4291 §2.5.5.2).
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { v4 } else { v6 };
    IpNet::new(address, bits).map_or(address, |net| net.network())
}

/// Grows by one when a key changes its meaning or goes; a new key changes nothing.
pub const VERSION: u8 = 1;

#[derive(Serialize)]
struct Form {
    v: u8,
    time_ms: u64,
    client: IpAddr,
    transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    qtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rcode: Option<String>,
    source: &'static str,
    us: u64,
    bytes: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ede: Vec<u16>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::metrics::Source;
    use crate::wire::build;

    #[test]
    fn a_line_is_what_the_format_says() {
        let want = concat!(
            r#"{"v":1,"time_ms":1700000000123,"client":"192.0.2.0","transport":"udp","name":"Example.org.","#,
            r#""type":"A","class":1,"rcode":"NOERROR","source":"stale","us":42,"bytes":12}"#,
            "\n"
        );
        assert_eq!(written(&asked(b"\x07Example\x03org\0", 1)), want);
        assert!(written(&asked(b"\0", 65_280)).contains(r#""name":".","type":"TYPE65280""#));
        let without = written(b"\x12\x34\x01");
        assert!(!without.contains("name") && !without.contains("type"), "{without}");
    }

    #[test]
    fn no_name_ends_a_line_or_a_string() {
        let name = b"\x0ba\n\"}\r\x00\xff\\.b\x1b\0";
        let text = written(&asked(name, 1));
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.is_ascii() && text.trim_end().bytes().all(|b| (0x20..0x7f).contains(&b)), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let read: crate::wire::Name = read["name"].as_str().unwrap().parse().unwrap();
        assert_eq!(read.as_wire(), name);
    }

    #[test]
    fn addresses_are_cut_to_their_prefix() {
        let table = [
            ("192.0.2.77", [24, 56], "192.0.2.0"),
            ("192.0.2.77", [32, 128], "192.0.2.77"),
            ("2001:db8:1:2ff::1", [24, 56], "2001:db8:1:200::"),
            ("192.0.2.77", [99, 56], "192.0.2.77"),
            ("::ffff:192.0.2.77", [24, 56], "192.0.2.0"),
        ];
        for (address, prefix, want) in table {
            assert_eq!(cut(address.parse().unwrap(), prefix).to_string(), want);
        }
    }

    fn asked(name: &[u8], qtype: u16) -> Vec<u8> {
        let mut packet = build::question(name, qtype, false, false, false);
        packet[3] = 0;
        packet
    }

    fn written(query: &[u8]) -> String {
        let record = Record {
            time: Duration::from_millis(1_700_000_000_123),
            client: "192.0.2.77".parse().unwrap(),
            transport: Transport::Udp,
            query: query.into(),
            reply: [0; 12].into(),
            reply_bytes: 12,
            rcode: 0,
            source: Source::Stale,
            took: Duration::from_micros(42),
        };
        let mut out = Vec::new();
        write(&record, [24, 56], &mut out);
        String::from_utf8(out).unwrap()
    }
}
