//! `[[local]]`: records and zones that are answered here.
//!
//! Pure. An entry is either a record (`name`, `type`, `value`, `ttl`) or a zone (`zone`, `action`). A record's value
//! is one string or a list of them, each a record of its own: an address (A, AAAA), a name (CNAME, PTR), a text (TXT),
//! `10 mail.example` (MX), `0 5 5060 sip.example` (SRV). Addresses bring the PTR record of their name along, where
//! none is given; the first name of an address has it. A CNAME stands alone under its name (RFC 1034 §3.6.2).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::str::FromStr;

use hickory_proto::rr::RecordType;

use super::document::Value;
use super::key::{Key, Kind, Part, Reader};
use crate::limits;
use crate::serve::local::{LocalRecord, LocalSettings, ZoneAction};
use crate::wire::{Name, rtype};

/// What an entry says of a record.
#[derive(Default)]
pub(super) struct RecordDraft {
    name: Option<Name>,
    rtype: Option<u16>,
    values: Vec<(String, Range<usize>)>,
    ttl: u32,
}

/// What an entry says of a zone.
#[derive(Default)]
pub(super) struct ZoneDraft {
    zone: Option<Name>,
    action: Option<ZoneAction>,
}

/// The keys of a record.
pub(super) const LOCAL_RECORD: &[Key<RecordDraft>] = &[
    Key::new("name", "", Kind::Own("\"printer.lan\"", |d, r, v| d.name = name(r, v))),
    Key::new(
        "type",
        "A, AAAA, CNAME, PTR, TXT, MX or SRV",
        Kind::Own("\"A\"", |d, r, v| {
            d.rtype = r.word(
                v,
                &[
                    ("A", rtype::A),
                    ("AAAA", rtype::AAAA),
                    ("CNAME", rtype::CNAME),
                    ("PTR", rtype::PTR),
                    ("TXT", rtype::TXT),
                    ("MX", MX),
                    ("SRV", SRV),
                ],
            );
        }),
    ),
    Key::new(
        "value",
        "or a list of them, a record each",
        Kind::Own("\"192.0.2.7\"", |d, r, v| d.values = r.strings(v)),
    ),
    Key::new("ttl", "", Kind::Seconds(limits::LOCAL_TTL, |d, v| d.ttl = v)),
];

/// The keys of a zone.
pub(super) const LOCAL_ZONE: &[Key<ZoneDraft>] = &[
    Key::new("zone", "", Kind::Own("\"ads.example\"", |d, r, v| d.zone = name(r, v))),
    Key::new(
        "action",
        "\"nxdomain\", \"nodata\" or \"refuse\"",
        Kind::Own("\"nxdomain\"", |d, r, v| {
            d.action = r.word(
                v,
                &[("nxdomain", ZoneAction::NxDomain), ("nodata", ZoneAction::NoData), ("refuse", ZoneAction::Refuse)],
            );
        }),
    ),
];

const MX: u16 = 15;
const SRV: u16 = 33;
/// Bytes of one TXT record.
const TEXT_BYTES_MAX: usize = 8192;
/// Records, and zones, of one configuration.
const RECORDS_MAX: usize = 10_000;

/// The number of a record type: its mnemonic in any case, or `TYPE123` (RFC 3597 §5).
pub fn record_type(text: &str) -> Option<u16> {
    let text = text.to_ascii_uppercase();
    match text.strip_prefix("TYPE") {
        Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok(),
        _ => RecordType::from_str(&text).ok().map(u16::from),
    }
}

/// Reads every entry into `settings`.
pub(super) fn read(reader: &mut Reader<'_>, value: &Value<'_>, settings: &mut LocalSettings) {
    for entry in reader.items(value) {
        let before = reader.mistakes.len();
        let ttl = limits::LOCAL_TTL.default.as_secs() as u32;
        let (mut record, mut zone) = (RecordDraft { ttl, ..RecordDraft::default() }, ZoneDraft::default());
        reader.table(entry, &mut [&mut Part(LOCAL_RECORD, &mut record), &mut Part(LOCAL_ZONE, &mut zone)], &[]);
        if reader.mistakes.len() == before {
            take(reader, entry.span(), record, zone, settings);
        }
    }
    add_pointers(&mut settings.records);
}

fn take(
    reader: &mut Reader<'_>,
    span: Range<usize>,
    record: RecordDraft,
    zone: ZoneDraft,
    settings: &mut LocalSettings,
) {
    match (record.name, record.rtype, zone.zone, zone.action) {
        (Some(name), Some(rtype), None, None) if !record.values.is_empty() => {
            for (text, span) in record.values {
                match data(rtype, &text) {
                    Ok(data) => {
                        let record = LocalRecord { name: name.clone(), rtype, data, ttl: record.ttl };
                        add(reader, span, record, settings);
                    }
                    Err(hint) => reader.wrong(span, format!("{text:?} is no value of this type"), Some(hint)),
                }
            }
        }
        (None, None, Some(zone), Some(action)) if record.values.is_empty() => {
            if settings.zones.len() >= RECORDS_MAX {
                reader.wrong(span, "more than 10000 zones", None);
            } else if settings.zones.iter().any(|(known, _)| *known == zone) {
                reader.wrong(span, format!("the zone {zone} is given twice"), None);
            } else {
                settings.zones.push((zone, action));
            }
        }
        _ => {
            let hint = "a record has name, type and value (and ttl), a zone has zone and action";
            reader.wrong(span, "neither a record nor a zone", Some(hint));
        }
    }
}

fn add(reader: &mut Reader<'_>, span: Range<usize>, record: LocalRecord, settings: &mut LocalSettings) {
    if settings.records.len() >= RECORDS_MAX {
        return reader.wrong(span, "more than 10000 records", Some("a hosts file holds more of them"));
    }
    let mut clash = false;
    for other in settings.records.iter().filter(|other| other.name == record.name) {
        if other.rtype == record.rtype && other.data == record.data {
            return;
        }
        clash |= other.rtype == rtype::CNAME || record.rtype == rtype::CNAME;
    }
    if clash {
        let what = format!("{} has a CNAME record and another one", record.name);
        return reader.wrong(span, what, Some("a CNAME record stands alone under its name (RFC 1034 §3.6.2)"));
    }
    settings.records.push(record);
}

pub(super) fn name(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Name> {
    let text = reader.string(value)?;
    text.parse().map_err(|why| reader.wrong(value.span(), format!("{text:?}: {why}"), None)).ok()
}

/// A record's data in wire format, or how it is written.
fn data(rtype: u16, text: &str) -> Result<Vec<u8>, &'static str> {
    match rtype {
        rtype::A => text.parse().map(|ip: Ipv4Addr| ip.octets().to_vec()).map_err(|_| "write \"192.0.2.7\""),
        rtype::AAAA => text.parse().map(|ip: Ipv6Addr| ip.octets().to_vec()).map_err(|_| "write \"2001:db8::7\""),
        rtype::CNAME | rtype::PTR => wire_name(text).ok_or("write a name: \"host.example\""),
        rtype::TXT if text.len() <= TEXT_BYTES_MAX => Ok(character_strings(text)),
        rtype::TXT => Err("a text has at most 8192 bytes"),
        MX => numbers_and_name::<1>(text).ok_or("write preference and name: \"10 mail.example\""),
        _ => numbers_and_name::<3>(text).ok_or("write priority, weight, port and name: \"0 5 5060 sip.example\""),
    }
}

fn wire_name(text: &str) -> Option<Vec<u8>> {
    text.parse::<Name>().ok().map(|name| name.as_wire().to_vec())
}

/// A text as the character-strings of a TXT record: 255 bytes at most in each (RFC 1035 §3.3.14), at least one.
fn character_strings(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return vec![0];
    }
    text.as_bytes()
        .chunks(255)
        .flat_map(|chunk| std::iter::once(chunk.len() as u8).chain(chunk.iter().copied()))
        .collect()
}

fn numbers_and_name<const N: usize>(text: &str) -> Option<Vec<u8>> {
    let mut words = text.split_ascii_whitespace();
    let mut data = Vec::new();
    for _ in 0..N {
        data.extend(words.next()?.parse::<u16>().ok()?.to_be_bytes());
    }
    data.extend(wire_name(words.next()?)?);
    words.next().is_none().then_some(data)
}

/// Adds the PTR record of every address that has none.
fn add_pointers(records: &mut Vec<LocalRecord>) {
    let mut owners: HashSet<Name> =
        records.iter().filter(|r| r.rtype == rtype::PTR || r.rtype == rtype::CNAME).map(|r| r.name.clone()).collect();
    let mut pointers = Vec::new();
    for record in records.iter().filter(|r| r.name.as_wire().get(..2) != Some(b"\x01*")) {
        let Some(reverse) = address(record).and_then(reverse_name) else { continue };
        if owners.insert(reverse.clone()) {
            let data = record.name.as_wire().to_vec();
            pointers.push(LocalRecord { name: reverse, rtype: rtype::PTR, data, ttl: record.ttl });
        }
    }
    records.append(&mut pointers);
}

fn address(record: &LocalRecord) -> Option<IpAddr> {
    match record.rtype {
        rtype::A => <[u8; 4]>::try_from(record.data.as_slice()).ok().map(IpAddr::from),
        rtype::AAAA => <[u8; 16]>::try_from(record.data.as_slice()).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The name under which an address has its PTR record (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse_name(address: IpAddr) -> Option<Name> {
    let text = match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().map(|b| format!("{:x}.{:x}.", b & 15, b >> 4));
            nibbles.collect::<String>() + "ip6.arpa"
        }
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<LocalSettings, Vec<String>> {
        crate::config::tests::read_text(text).map(|config| config.local)
    }

    fn shown(settings: &LocalSettings) -> Vec<String> {
        settings.records.iter().map(|r| format!("{} {} {:02x?} {}", r.name, r.rtype, r.data, r.ttl)).collect()
    }

    #[test]
    fn an_address_brings_its_pointer_along() {
        let local = check("[[local]]\nname='a.lan'\ntype='A'\nvalue=['192.0.2.7']\nttl='1m'").unwrap();
        assert_eq!(
            shown(&local),
            ["a.lan. 1 [c0, 00, 02, 07] 60", "7.2.0.192.in-addr.arpa. 12 [01, 61, 03, 6c, 61, 6e, 00] 60",]
        );
        let v6 = check("[[local]]\nname='a'\ntype='AAAA'\nvalue='2001:db8::7'").unwrap();
        assert!(v6.records[1].name.to_string().starts_with("7.0.0.0.0.0."), "{:?}", v6.records[1].name);
        assert!(v6.records[1].name.to_string().ends_with(".8.b.d.0.1.0.0.2.ip6.arpa."));
    }

    #[test]
    fn a_given_pointer_is_kept_and_a_wildcard_has_none() {
        let given = check(
            "[[local]]\nname='a'\ntype='A'\nvalue='192.0.2.7'\n\
             [[local]]\nname='7.2.0.192.in-addr.arpa'\ntype='PTR'\nvalue='b'",
        );
        assert_eq!(given.unwrap().records.iter().filter(|r| r.rtype == rtype::PTR).count(), 1);
        let wildcard = check("[[local]]\nname='*.lan'\ntype='A'\nvalue='192.0.2.7'").unwrap();
        assert_eq!(wildcard.records.len(), 1);
    }

    #[test]
    fn every_type_is_written_in_its_wire_format() {
        for (rtype, value, data) in [
            (rtype::A, "192.0.2.7", Some(vec![192, 0, 2, 7])),
            (rtype::A, "2001:db8::1", None),
            (rtype::CNAME, "x", Some(vec![1, b'x', 0])),
            (rtype::CNAME, "x y", None),
            (rtype::TXT, "ab", Some(vec![2, b'a', b'b'])),
            (rtype::TXT, "", Some(vec![0])),
            (MX, "10 x", Some(vec![0, 10, 1, b'x', 0])),
            (MX, "x", None),
            (MX, "10 x y", None),
            (SRV, "0 5 5060 x", Some(vec![0, 0, 0, 5, 0x13, 0xc4, 1, b'x', 0])),
            (SRV, "0 5 x", None),
        ] {
            assert_eq!(data_of(rtype, value), data, "{rtype} {value}");
        }
        assert_eq!(data_of(rtype::TXT, &"a".repeat(256)).unwrap().len(), 258);
        assert_eq!(data_of(rtype::TXT, &"a".repeat(8193)), None);
    }

    fn data_of(rtype: u16, text: &str) -> Option<Vec<u8>> {
        data(rtype, text).ok()
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (text, what) in [
            ("[[local]]\nname='a'", "neither a record nor a zone"),
            ("[[local]]\nzone='a'", "neither a record nor a zone"),
            ("[[local]]\nzone='a'\naction='nxdomain'\nname='b'", "neither a record nor a zone"),
            ("[[local]]\nname='a'\ntype='A'\nvalue='x'", "is no value of this type"),
            ("[[local]]\nname='a'\ntype='NS'\nvalue='x'", "is none of \"A\""),
            (
                "[[local]]\nname='a'\ntype='CNAME'\nvalue='x'\n[[local]]\nname='a'\ntype='A'\nvalue='192.0.2.1'",
                "CNAME",
            ),
            (
                "[[local]]\nzone='a'\naction='refuse'\n[[local]]\nzone='a'\naction='nodata'",
                "the zone a. is given twice",
            ),
        ] {
            let mistakes = check(text).unwrap_err();
            assert!(mistakes.iter().any(|m| m.contains(what)), "{text}: {mistakes:?}");
        }
    }

    #[test]
    fn record_types_read_by_word_and_by_number() {
        for (text, number) in [
            ("a", Some(1)),
            ("AAAA", Some(28)),
            ("TYPE65", Some(65)),
            ("https", Some(65)),
            ("TYPE", None),
            ("x", None),
        ] {
            assert_eq!(record_type(text), number, "{text}");
        }
    }
}
