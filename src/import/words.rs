//! Words that all formats share: addresses, networks, spans, names, quoted words.
//!
//! Pure. Each reads one word and gives `None` for anything else.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Format;
use crate::wire::Name;

/// Characters of a line that are shown.
const SHOWN_MAX: usize = 160;

/// A text of others on one line, without control characters, cut where it is long.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown.trim().to_owned()
}

/// Why files that a source names are left, and how to import them with it.
pub(super) fn together(format: Format, files: &str) -> String {
    // What goes into a shell is written only where it is a plain path or pattern.
    let bare = !files.is_empty() && files.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-*".contains(&b));
    let (files, format) = (if bare { files } else { "ITS-FILES" }, format.word());
    format!("the files it names are not read: import all in one, `cat MAIN {files} | evenkeel import {format} -`")
}

/// The words of a line. Quotes hold words together and go; a `#` that begins a word, and all behind it, is a comment
/// and goes. `None` where a quote is not closed.
pub(super) fn split(line: &str, quotes: &[char]) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if quotes.contains(&c) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c == '#' && word.is_none() => break,
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// The line without its comment, which begins at a `#` outside of quotes with a blank, or nothing, before it.
pub(super) fn without_comment<'l>(line: &'l str, quotes: &[char]) -> &'l str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if quotes.contains(&c) => quote = Some(c),
            None if c == '#' && before.is_whitespace() => return line[..at].trim(),
            None => {}
        }
        before = c;
    }
    line.trim()
}

/// A server's address with its port: `192.0.2.1`, and behind `mark` the port where it is not 53.
pub(super) fn server(word: &str, mark: char) -> Option<SocketAddr> {
    let (ip, port) = word.split_once(mark).map_or((word, None), |(ip, port)| (ip, Some(port)));
    let port = port.map_or(Some(53), |port| port.parse().ok()).filter(|port| *port != 0)?;
    one_server(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port))
}

/// The address, where it can be that of one server.
pub(super) fn one_server(address: SocketAddr) -> Option<SocketAddr> {
    let ip = address.ip();
    (!ip.is_unspecified() && !ip.is_multicast() && address.port() != 0).then_some(address)
}

/// A network or one address.
pub(super) fn network(word: &str) -> Option<IpNet> {
    word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from)).map(|net| net.trunc()).ok()
}

/// A name, where it is one and no pattern.
pub(super) fn name(word: &str) -> Option<Name> {
    word.parse::<Name>().ok().filter(|name| name.as_wire().get(..2) != Some(b"\x01*"))
}

/// The reverse zones that make up a network: one where its prefix ends at a label (RFC 1035 §3.5, RFC 3596 §2.5), else
/// those of the next longer prefix that does, at most 128.
pub(super) fn reverse_zones(net: IpNet) -> Vec<Name> {
    let step = if net.addr().is_ipv4() { 8 } else { 4 };
    let prefix = net.prefix_len().div_ceil(step) * step;
    let Ok(subnets) = net.subnets(prefix) else { return Vec::new() };
    subnets.filter_map(|net| reverse_zone(net).parse().ok()).collect()
}

fn reverse_zone(net: IpNet) -> String {
    let prefix = usize::from(net.prefix_len());
    match net.addr() {
        IpAddr::V4(ip) => {
            let labels = ip.octets()[..prefix / 8].iter().rev().map(|b| format!("{b}.")).collect::<String>();
            labels + "in-addr.arpa"
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().flat_map(|b| [b >> 4, b & 15]).take(prefix / 4).collect::<Vec<_>>();
            nibbles.iter().rev().map(|n| format!("{n:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_people_quote_them() {
        for (line, words) in [
            ("a  b#c # d", Some(vec!["a", "b#c"])),
            ("\"a b\" c", Some(vec!["a b", "c"])),
            ("\"\" x", Some(vec!["", "x"])),
            ("a\"b c\"d", Some(vec!["ab cd"])),
            ("\"a", None),
            ("# a", Some(vec![])),
        ] {
            let words = words.map(|w: Vec<&str>| w.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(split(line, &['"']), words, "{line}");
        }
        assert_eq!(without_comment("a \"b # c\" # d", &['"']), "a \"b # c\"");
    }

    #[test]
    fn reverse_zones_end_at_labels() {
        for (net, zones) in [
            ("10.0.0.0/8", vec!["10.in-addr.arpa."]),
            ("192.0.2.0/24", vec!["2.0.192.in-addr.arpa."]),
            ("172.16.0.0/15", vec!["16.172.in-addr.arpa.", "17.172.in-addr.arpa."]),
            ("2001:db8::/32", vec!["8.b.d.0.1.0.0.2.ip6.arpa."]),
            ("0.0.0.0/0", vec!["in-addr.arpa."]),
        ] {
            let found: Vec<_> = reverse_zones(net.parse().unwrap()).iter().map(Name::to_string).collect();
            assert_eq!(found, zones, "{net}");
        }
        assert_eq!(reverse_zones("10.0.0.0/1".parse().unwrap()).len(), 128);
    }
}
