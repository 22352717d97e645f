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
const WORDS: [&str; 48] = [
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
