//! What every import must hold: it is accepted by the configuration, whatever was read.

use proptest::prelude::*;

use super::{FILE_BYTES_MAX, Format, Imported, import};
use crate::config;

pub(super) fn accepted(format: Format, text: &str) -> Option<Imported> {
    let imported = import(format, "file", text).ok()?;
    if let Err(mistakes) = config::parse(&imported.text, &|_| None, &[]) {
        panic!("{mistakes:?}\n--- of\n{text}\n--- came\n{}", imported.text);
    }
    for left in &imported.left {
        assert!(imported.text.contains(&format!("# line {left}")), "{left}");
    }
    Some(imported)
}

fn text_of(format: Format, text: &str) -> String {
    accepted(format, text).expect("readable").text
}

#[test]
fn what_contradicts_itself_is_said_and_accepted() {
    for (format, text, why) in [
        (Format::Dnsmasq, "server=127.0.0.1", "it would ask itself"),
        (Format::Dnsmasq, "cname=a.x,b.x\nhost-record=a.x,192.0.2.1", "stands alone"),
        (Format::Dnsmasq, "min-cache-ttl=3600\nmax-cache-ttl=60\nall-servers", "late"),
        (Format::Dnsmasq, "address=/x/\nlocal=/x/\nno-such-option", "nothing like it"),
        (Format::Unbound, "forward-zone:\n name: x\n forward-addr: 192.0.2.1\nforward-zone:\n name: x\n", "already"),
        (Format::Unbound, "server:\n serve-expired: yes\n serve-expired-ttl: 0", "30d is written"),
        (Format::Corefile, ". {\n forward . 192.0.2.1\n forward . 192.0.2.2\n}", "has its servers already"),
        (Format::Corefile, "x {\n forward . 192.0.2.1 192.0.2.1\n import y\n}", "not read"),
    ] {
        let text = text_of(format, text);
        assert!(text.contains(why), "{why}\n{text}");
    }
}

#[test]
fn stale_answers_of_dnsmasq_are_as_old_as_it_says() {
    for (option, age, left) in [
        ("use-stale-cache", Some("1d"), None),
        ("use-stale-cache=7200", Some("2h"), None),
        ("use-stale-cache=0", Some("30d"), Some("30d is written")),
        ("use-stale-cache=1d", None, Some("not understood")),
        ("use-stale-cache=-1", None, Some("not understood")),
    ] {
        let imported = accepted(Format::Dnsmasq, &format!("listen-address=127.0.0.1\n{option}")).unwrap();
        let line = age.map(|age| format!("[stale]\nmax_age = \"{age}\"\n"));
        match &line {
            Some(line) => assert!(imported.text.contains(line), "{option}: {}", imported.text),
            None => assert!(!imported.text.contains("max_age"), "{option}: {}", imported.text),
        }
        assert_eq!(imported.left.len(), left.iter().len(), "{option}: {:?}", imported.left);
        assert!(imported.left.iter().all(|l| l.line == 2 && left.is_some_and(|why| l.why.contains(why))), "{option}");
    }
}

#[test]
fn who_may_ask_is_neither_more_nor_less_without_a_word() {
    let acl = |rules: &str| format!(". {{\n bind 192.0.2.1\n forward . 192.0.2.9\n acl {{\n{rules}\n}}\n}}");
    let unbound = |lines: &str| format!("server:\n interface: 192.0.2.1\n{lines}\n");
    let (v4, lo, wide) = ("\"192.0.2.1:53\"", "\"127.0.0.1:53\", \"[::1]:53\"", "\"0.0.0.0:53\", \"[::]:53\"");
    let both = format!("{lo}, {v4}");
    let both = both.as_str();
    let (own, default) = ("\"loopback\", \"local\"", "\"loopback\", \"local\", \"private\"");
    for (format, text, listen, allow, said) in [
        (Format::Dnsmasq, String::new(), wide, own, "1: who may ask"),
        (Format::Dnsmasq, "local-service".into(), wide, own, ""),
        (Format::Dnsmasq, "local-service=host".into(), lo, "", ""),
        (Format::Dnsmasq, "listen-address=192.0.2.1\nlocal-service".into(), v4, own, "1: who may ask"),
        (Format::Dnsmasq, "listen-address=127.0.0.1,::1\nbind-interfaces".into(), lo, "", ""),
        (Format::Dnsmasq, "interface=lo".into(), lo, "", ""),
        // Interfaces are not guessed at: what is not named is not listened on.
        (Format::Dnsmasq, "interface=eth0\nbind-interfaces".into(), lo, "", "1: interface=eth0: "),
        (Format::Dnsmasq, "except-interface=wan0".into(), lo, "", "1: except-interface=wan0: "),
        (Format::Dnsmasq, "\nexcept-interface=lo".into(), wide, own, "2: except-interface=lo: "),
        (Format::Dnsmasq, "interface=eth0\nlisten-address=192.0.2.1".into(), both, own, "1: interface=eth0: "),
        (Format::Corefile, acl("allow net 198.51.100.0/24\nblock"), v4, "\"198.51.100.0/24\"", "4: acl: "),
        (Format::Corefile, acl("allow net 198.51.100.0/24\ndrop net *"), v4, "\"198.51.100.0/24\"", "4: acl: "),
        (
            Format::Corefile,
            acl("allow net 198.51.100.0/24\nblock net 0.0.0.0/0 ::/0\nallow net 203.0.113.0/24"),
            v4,
            "\"198.51.100.0/24\"",
            "7: allow net 203.0.113.0/24: no question",
        ),
        // Whom no rule matches may ask.
        (Format::Corefile, acl("allow net 198.51.100.0/24"), v4, default, "4: acl: access.allow is not narrowed"),
        (Format::Corefile, acl("allow\nblock"), v4, default, "6: block: no question"),
        (Format::Corefile, acl("block net 198.51.100.0/24"), v4, default, "5: block net 198.51.100.0/24: who"),
        (Format::Corefile, acl("block type ANY"), v4, default, "5: block type ANY: who"),
        (Format::Corefile, acl("block type * net *"), v4, "\"loopback\"", "4: acl: nobody"),
        (Format::Unbound, unbound(""), v4, "\"loopback\"", ""),
        (Format::Unbound, unbound(" access-control: 0.0.0.0/0 refuse"), v4, "\"loopback\"", ""),
        (
            Format::Unbound,
            unbound(" access-control: 198.51.100.0/24 allow"),
            v4,
            "\"loopback\", \"198.51.100.0/24\"",
            "",
        ),
    ] {
        let imported = accepted(format, &text).unwrap();
        let mut listens: Vec<&str> = listen.split(", ").collect();
        let printed = imported.text.lines().find_map(|l| l.strip_prefix("dns = [")?.strip_suffix(']'));
        let mut found: Vec<&str> = printed.unwrap_or("").split(", ").collect();
        listens.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, listens, "{text}");
        let allowed = imported.text.lines().find_map(|l| l.strip_prefix("allow = [")?.strip_suffix(']'));
        assert_eq!(allowed.unwrap_or(""), allow, "{text}");
        let left: Vec<String> = imported.left.iter().map(ToString::to_string).collect();
        let access = left.iter().filter(|l| l.contains("who may ask") || l.contains("access.allow"));
        match said {
            "" => assert_eq!(access.count(), 0, "{text}: {left:?}"),
            said => assert!(left.iter().any(|l| l.starts_with(said)), "{text}: {left:?}"),
        }
    }
}

#[test]
fn all_ports_and_zones_of_a_server_block_are_taken() {
    for (text, dns, zones, said) in [
        ("x y {\n bind 192.0.2.1\n F\n}", "192.0.2.1:53", "\"x\", \"y\"", ""),
        (
            "x:53 y:5353 {\n bind 192.0.2.1\n F\n}",
            "192.0.2.1:53 192.0.2.1:5353",
            "\"x\", \"y\"",
            "1: x:53 y:5353: the",
        ),
        (".:53, .:5353 {\n F\n}", "0.0.0.0:53 [::]:53 0.0.0.0:5353 [::]:5353", "\".\"", "1: .:53 .:5353: the zones"),
        ("x:53 x:5353 {\n bind 192.0.2.1 ::1\n F\n}", "192.0.2.1:53 192.0.2.1:5353 [::1]:53 [::1]:5353", "\"x\"", ""),
        (
            "x {\n bind 192.0.2.1\n F\n}\n\ny:54 {\n bind 192.0.2.1\n F\n}",
            "192.0.2.1:53 192.0.2.1:54",
            "\"x\", \"y\"",
            "6: y:54: the zones",
        ),
        (":54 {\n bind 192.0.2.1\n F\n}", "192.0.2.1:54", "\".\"", ""),
        // Ports of other transports are none of ours.
        (
            "x dns://y:54 tls://z:853 {\n bind 192.0.2.1\n F\n}",
            "192.0.2.1:53 192.0.2.1:54",
            "\"x\", \"y\"",
            "1: tls://z:853: ",
        ),
        ("x {\n bind 192.0.2.1\n F\n}\ntls://y {\n F\n}", "192.0.2.1:53", "\"x\"", "5: tls://y: "),
        ("x:53 y:99999 {\n bind 192.0.2.1\n F\n}", "192.0.2.1:53", "\"x\", \"y\"", "1: y:99999: its port"),
    ] {
        let imported = accepted(Format::Corefile, &text.replace('F', "forward . 192.0.2.9")).unwrap();
        let dns: Vec<String> = dns.split(' ').map(|a| format!("{a:?}")).collect();
        assert!(imported.text.contains(&format!("dns = [{}]\n", dns.join(", "))), "{text}: {}", imported.text);
        assert!(imported.text.contains(&format!("zones = [{zones}]\n")), "{text}: {}", imported.text);
        let left: Vec<String> = imported.left.iter().map(ToString::to_string).collect();
        assert!(left.iter().any(|l| l.starts_with(said)) || said.is_empty(), "{text}: {left:?}");
    }
}

#[test]
fn files_that_are_named_come_with_the_command_that_reads_them() {
    for (format, text, files) in [
        (
            Format::Unbound,
            "include-toplevel: \"/etc/unbound/unbound.conf.d/*.conf\"",
            "/etc/unbound/unbound.conf.d/*.conf",
        ),
        (Format::Unbound, "server:\n include: /etc/a.conf", "/etc/a.conf"),
        (Format::Dnsmasq, "conf-file=/etc/dnsmasq.more.conf", "/etc/dnsmasq.more.conf"),
        (Format::Dnsmasq, "conf-dir=/etc/dnsmasq.d", "/etc/dnsmasq.d/*"),
        (Format::Dnsmasq, "conf-dir=/etc/dnsmasq.d,.bak", "/etc/dnsmasq.d/*"),
        (Format::Dnsmasq, "conf-dir=/etc/dnsmasq.d/,*.conf", "/etc/dnsmasq.d/*.conf"),
        (Format::Dnsmasq, "servers-file=/run/servers", "/run/servers"),
        // Nothing that a shell would take for more than a path.
        (Format::Dnsmasq, "conf-file=/etc/a;reboot", "ITS-FILES"),
        (Format::Unbound, "include: \"/etc/$(reboot)/*\"", "ITS-FILES"),
    ] {
        let imported = accepted(format, text).unwrap();
        let command = format!("`cat MAIN {files} | evenkeel import {} -`", format.word());
        assert!(imported.left.iter().any(|l| l.why.contains(&command)), "{text}: {:?}", imported.left);
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_line() {
    let long = "#".repeat(FILE_BYTES_MAX + 1);
    for (format, text, line, what) in [
        (Format::Corefile, "\n. {\n errors\n", 2, "not closed"),
        (Format::Corefile, ". {\n}\n}\n", 3, "followed by no block"),
        (Format::Corefile, ". \"x {\n}", 1, "quote"),
        (Format::Corefile, "apiVersion: v1\ndata:\n", 1, "manifest"),
        (Format::Corefile, "x", 1, "followed by no block"),
        (Format::Dnsmasq, "port=53\nserver: x", 2, "no option"),
        (Format::Dnsmasq, "txt-record=a,\"b", 1, "quote"),
        (Format::Unbound, "server:\n port=53", 2, "no `key: value`"),
        (Format::Unbound, "server:\n identity: \"x", 2, "quote"),
        (Format::Dnsmasq, &long, 0, "more than 1 MiB"),
    ] {
        let refused = import(format, "file", text).unwrap_err();
        assert_eq!(refused.line, line, "{text:.40}: {refused:?}");
        assert!(refused.what.contains(what), "{text:.40}: {refused:?}");
        assert!(refused.shown("f").contains("\n  hint: "), "{refused:?}");
    }
}

#[test]
fn a_snippet_that_imports_a_snippet_does_not_grow_without_end() {
    let mut text = String::from("(s0) {\n x\n x\n}\n");
    for n in 1..40 {
        text += &format!("(s{n}) {{\n import s{}\n import s{}\n}}\n", n - 1, n - 1);
    }
    text += ". {\n import s39\n}\n";
    assert!(accepted(Format::Corefile, &text).unwrap().left.len() <= 20_000);
}

#[test]
fn control_characters_and_dollars_do_not_reach_the_output_as_such() {
    let text = text_of(Format::Dnsmasq, "txt-record=a.x,\"${HOME} \\ \u{7}\"\nfoo=\u{1b}[31m\r\n");
    assert!(text.contains("\"$${HOME} \\\\ \\u0007\""), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text}");
}

/// Words that the formats know, in any order: more is reached by them than by noise.
const WORDS: [&str; 53] = [
    "server:",
    "forward-zone:",
    "stub-zone:",
    "name:",
    "forward-addr:",
    "local-zone:",
    "local-data:",
    "interface:",
    "server=",
    "address=",
    "local=",
    "rev-server=",
    "cname=",
    "host-record=",
    "listen-address=",
    "port=",
    "x",
    "a.x",
    "/x/",
    "/a.x/",
    ".",
    "192.0.2.1",
    "127.0.0.1",
    "0.0.0.0",
    "::",
    "::1",
    "10.0.0.0/9",
    "#53",
    "@53",
    "{",
    "}",
    "forward",
    "cache",
    "bind",
    "hosts",
    "template",
    "ANY",
    "rcode",
    "NXDOMAIN",
    "static",
    "redirect",
    "transparent",
    "bogus-priv",
    "except",
    "/#/",
    "#",
    "A",
    "\"",
    ",",
    "99999999999",
    "4294967295",
    "\n",
    "\n",
];

proptest! {
    #[test]
    fn whatever_is_read_is_accepted(words in prop::collection::vec(0..WORDS.len(), 0..60), tight in any::<bool>()) {
        let text: Vec<&str> = words.into_iter().map(|n| WORDS[n]).collect();
        let text = text.join(if tight { "" } else { " " });
        for format in [Format::Corefile, Format::Dnsmasq, Format::Unbound] {
            accepted(format, &text);
        }
    }

    #[test]
    fn noise_is_read_or_refused(text in "\\PC{0,80}") {
        for format in [Format::Corefile, Format::Dnsmasq, Format::Unbound] {
            accepted(format, &text);
        }
    }
}
