//! Upstream servers as an operator writes them.
//!
//! Pure. `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1`, `[2001:db8::1]:53`, each also behind `udp://` or `tcp://`; or a
//! table with `address`, `name` and `packets_per_second`; or the word `system`. Without a scheme it is UDP, with TCP
//! where a reply is truncated; without a port it is 53. Host names are not looked up: what would look them up is us.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use super::UpstreamConfig;
use super::document::Value;
use super::key::{Key, Kind, Part, Reader, set_defaults};
use crate::limits;
use crate::upstream::{Protocol, ServerSettings};

/// What stands in a server's table.
#[derive(Default)]
pub(super) struct ServerDraft {
    address: Option<(String, Protocol, SocketAddr)>,
    name: Option<String>,
    packets_per_second: u32,
}

/// The keys of a server's table.
pub(super) const SERVER: &[Key<ServerDraft>] = &[
    Key::new(
        "address",
        "as it would stand alone",
        Kind::Own("\"\"", |d, r, v| d.address = r.string(v).and_then(|text| address(r, v, text))),
    ),
    Key::new(
        "name",
        "in logs and metrics; the address where it has none",
        Kind::Own("\"\"", |d, r, v| {
            d.name = r.string(v).filter(|name| !name.is_empty());
        }),
    ),
    Key::new(
        "packets_per_second",
        "sent to it at most; 0 is no limit",
        Kind::Count(limits::PACKETS_PER_SECOND, |d, v| d.packets_per_second = v as u32),
    ),
];

/// Reads one entry of a tier.
pub(super) fn read(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<UpstreamConfig> {
    let mut draft = ServerDraft::default();
    if let DeValue::Table(_) = value.get_ref() {
        set_defaults(SERVER, &mut draft);
        let before = reader.mistakes.len();
        reader.table(value, &mut [&mut Part(SERVER, &mut draft)], &[]);
        if draft.address.is_none() && reader.mistakes.len() == before {
            reader.wrong(value.span(), "the server has no address", Some("write { address = \"192.0.2.1\" }"));
        }
    } else {
        let text = reader.string(value)?;
        if text == "system" {
            return Some(UpstreamConfig::System);
        }
        draft.address = address(reader, value, text);
    }
    let (text, protocol, address) = draft.address?;
    let name = draft.name.unwrap_or(text);
    if name.chars().count() > NAME_CHARS_MAX || name.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        reader.wrong(value.span(), "a name has at most 64 characters, and no quotes or backslashes", None);
        return None;
    }
    Some(UpstreamConfig::Server(ServerSettings {
        name,
        address,
        protocol,
        trust_ad: false,
        packets_per_second: draft.packets_per_second,
    }))
}

const NAME_CHARS_MAX: usize = 64;

fn address(reader: &mut Reader<'_>, value: &Value<'_>, text: String) -> Option<(String, Protocol, SocketAddr)> {
    match parse(&text) {
        Ok((protocol, address)) => Some((text, protocol, address)),
        Err((what, hint)) => {
            reader.wrong(value.span(), format!("{text:?} {what}"), hint);
            None
        }
    }
}

fn parse(text: &str) -> Result<(Protocol, SocketAddr), (String, Option<&'static str>)> {
    let (protocol, rest) = match text.split_once("://") {
        None => (Protocol::Udp, text),
        Some(("udp", rest)) => (Protocol::Udp, rest),
        Some(("tcp", rest)) => (Protocol::Tcp, rest),
        Some(("tls" | "https" | "quic", _)) => {
            return Err((
                "needs an encrypted transport, which is not in this version".to_owned(),
                Some("use udp:// or tcp://"),
            ));
        }
        Some((scheme, _)) => return Err((format!("has the unknown scheme {scheme}://"), Some("udp:// or tcp://"))),
    };
    let bare = rest.strip_prefix('[').and_then(|r| r.strip_suffix(']')).unwrap_or(rest);
    let address = rest.parse().or_else(|_| bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53))).map_err(|_| {
        (
            "is no address of a server".to_owned(),
            Some("write \"192.0.2.1\", \"192.0.2.1:53\" or \"[2001:db8::1]:53\"; names of servers are not looked up"),
        )
    })?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        return Err(("is not the address of one server".to_owned(), None));
    }
    Ok((protocol, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_in_every_form() {
        for (text, shown) in [
            ("192.0.2.1", Ok("udp 192.0.2.1:53")),
            ("192.0.2.1:5353", Ok("udp 192.0.2.1:5353")),
            ("2001:db8::1", Ok("udp [2001:db8::1]:53")),
            ("[2001:db8::1]", Ok("udp [2001:db8::1]:53")),
            ("[2001:db8::1]:5353", Ok("udp [2001:db8::1]:5353")),
            ("udp://192.0.2.1", Ok("udp 192.0.2.1:53")),
            ("tcp://[2001:db8::1]:53", Ok("tcp [2001:db8::1]:53")),
            ("tls://192.0.2.1#dns.example", Err("needs an encrypted transport, which is not in this version")),
            ("https://dns.example/dns-query", Err("needs an encrypted transport, which is not in this version")),
            ("ftp://192.0.2.1", Err("has the unknown scheme ftp://")),
            ("dns.example", Err("is no address of a server")),
            ("192.0.2.1:99999", Err("is no address of a server")),
            ("", Err("is no address of a server")),
            ("0.0.0.0", Err("is not the address of one server")),
            ("224.0.0.1", Err("is not the address of one server")),
            ("192.0.2.1:0", Err("is not the address of one server")),
        ] {
            let got = parse(text).map(|(p, a)| format!("{p} {a}")).map_err(|(what, _)| what);
            assert_eq!(got.as_deref().map_err(String::as_str), shown, "{text}");
        }
    }
}
