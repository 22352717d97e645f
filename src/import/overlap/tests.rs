//! What a source forwards goes to its group, whatever is local above it.
//!
//! A question goes the way of the daemon: local data, compiled from what was printed, then the longest zone. What the
//! sources do was asked of dnsmasq 2.90 and unbound 1.17.1.

use super::private_reverse_zones;
use crate::config;
use crate::import::tests::accepted;
use crate::import::{Format, Left};
use crate::serve::local::{Local, LocalSettings};
use crate::serve::route::Routes;
use crate::serve::{Client, Transport};
use crate::wire::{Name, build, query, rtype};

const DNSMASQ: &str = "no-hosts\nlisten-address=127.0.0.1\nno-resolv\nserver=192.0.2.1\n";
const UNBOUND: &str = "forward-zone:\n name: \".\"\n forward-addr: 192.0.2.1\n";

#[test]
fn dnsmasq_forwards_what_is_longer_than_a_local_zone() {
    for (text, goes) in [
        ("local=/lan/\nserver=/vpn.lan/192.0.2.2", &["a.vpn.lan vpn-lan", "a.lan default"][..]),
        ("server=/a.b.lan/192.0.2.2\nlocal=/lan/\nlocal=/b.lan/", &["a.b.lan a-b-lan", "x.b.lan default"]),
        ("local=/lan/\nserver=/lan/192.0.2.2", &["a.lan lan", "lan lan"]),
        ("local=/lan/\nserver=/pub.lan/#", &["a.pub.lan default"]),
        ("local=/lan/\nserver=/lan/#", &["a.lan default"]),
        ("address=/ads/\nserver=/ok.ads/192.0.2.2", &["a.ok.ads ok-ads"]),
        // Records of all names below, and of the name itself.
        ("address=/ads/192.0.2.9\nserver=/ok.ads/192.0.2.2", &["a.ok.ads ok-ads", "ads records", "a.ads default"]),
        ("address=/ads/#\nserver=/ok.ads/#", &["a.ok.ads default", "ads records"]),
        // An address stands before the servers of its own name, as it does there.
        ("address=/lan/192.0.2.9\nserver=/lan/192.0.2.2", &["a.lan records"]),
        // What is local below a forwarded zone is the longer match, and so is what has no servers.
        ("server=/lan/192.0.2.2\nlocal=/a.lan/", &["x.a.lan nxdomain", "b.lan lan"]),
        ("local=/lan/\nserver=/vpn.other/192.0.2.2", &["a.lan nxdomain", "vpn.other vpn-other"]),
        ("local=/lan/\nserver=/vpn.lan/dns.example", &["a.vpn.lan nxdomain"]),
        // `#` is the servers of all else, in either order; servers beside it are none of theirs.
        ("server=/lan/#\nserver=/lan/192.0.2.2", &["a.lan default"]),
        ("server=/lan/192.0.2.2\nserver=/lan/#", &["a.lan default"]),
    ] {
        check(Format::Dnsmasq, &format!("{DNSMASQ}{text}"), goes);
    }
    let imported = accepted(Format::Dnsmasq, &format!("{DNSMASQ}server=/lan/#\nserver=/lan/192.0.2.2")).unwrap();
    assert!(imported.text.contains("primary = [\"192.0.2.1\"]\n"), "{}", imported.text);
}

#[test]
fn the_pattern_of_dnsmasq_for_every_name_is_the_root() {
    let alone = "no-hosts\nlisten-address=127.0.0.1\nno-resolv\n";
    for (text, goes) in [
        ("address=/#/192.0.2.9", &["a.b records", ". records"][..]),
        ("address=/#/192.0.2.9\naddress=/#/2001:db8::9", &["a.b records"]),
        ("address=/#/", &["a.b nxdomain"]),
        ("local=/#/", &["a.b nxdomain"]),
        ("server=/#/192.0.2.2", &["a.b default"]),
        ("server=/#/192.0.2.2\nserver=/lan/192.0.2.3\naddress=/ads/", &["a.b default", "a.lan lan", "ads nxdomain"]),
        // A server of all names goes before "no such domain" for all, an address goes before the server.
        ("server=192.0.2.2\nlocal=/#/", &["a.b default"]),
        ("server=192.0.2.2\naddress=/#/192.0.2.9", &["a.b records"]),
        ("address=/#/192.0.2.9\nserver=/lan/192.0.2.2", &["a.lan lan", ". records"]),
        // Names without a dot, and names by their end, are no zones.
        ("server=192.0.2.2\nserver=//192.0.2.3\nlocal=//", &["a default"]),
        ("server=192.0.2.2\nlocal=/*ads.x/", &["ads.x default"]),
    ] {
        check(Format::Dnsmasq, &format!("{alone}{text}"), goes);
    }
    let text = format!("{alone}server=/#/192.0.2.2\nserver=192.0.2.3\nserver=/*ads.x/192.0.2.4\nserver=//192.0.2.5");
    let imported = accepted(Format::Dnsmasq, &text).unwrap();
    assert!(imported.text.contains("primary = [\"192.0.2.2\", \"192.0.2.3\"]"), "{}", imported.text);
    assert_eq!(imported.left.iter().map(|l| l.line).collect::<Vec<_>>(), [6, 7], "{:?}", imported.left);
}

#[test]
fn a_redirected_zone_of_unbound_is_one_wherever_its_data_stands() {
    let (zone, data) = (" local-zone: \"All.x.\" redirect\n", " local-data: \"all.X A 192.0.2.9\"\n");
    for (server, goes) in [
        (format!("{zone}{data}"), "records"),
        (format!("{data}{zone}"), "records"),
        (format!("{data} local-zone: y refuse\n{zone}"), "records"),
        (zone.to_owned(), "nodata"),
        (data.to_owned(), "default"),
    ] {
        let goes = format!("a.b.all.x {goes}");
        check(Format::Unbound, &format!("server:\n{server}{UNBOUND}"), &[&goes]);
    }
}

#[test]
fn a_local_zone_that_gives_way_is_said_with_both_names() {
    for (text, line, names) in [
        ("local=/lan/\nserver=/vpn.lan/192.0.2.2", 5, ["lan is left out", "vpn.lan"]),
        ("local=/lan/\nserver=/lan/192.0.2.2", 5, ["lan is forwarded", "left out"]),
        ("server=/ok.ads/#\naddress=/ads/192.0.2.9", 6, ["*.ads is left out", "ok.ads"]),
        ("address=/ads/#\nserver=/ok.ads/#", 5, ["*.ads is left out", "ok.ads"]),
        ("address=/lan/192.0.2.9\nserver=/lan/192.0.2.2", 5, ["lan. has servers too", "other types"]),
        ("bogus-priv\nrev-server=10.0.0.0/8,192.0.2.2", 5, ["10.in-addr.arpa", "private_reverse"]),
        ("server=/lan/192.0.2.2\nserver=/lan/#", 6, ["other servers of lan.", "left out"]),
    ] {
        let left = accepted(Format::Dnsmasq, &format!("{DNSMASQ}{text}")).unwrap().left;
        let said: Vec<_> = left.iter().filter(|l| names.iter().all(|n| l.why.contains(n))).collect();
        assert_eq!(said.iter().map(|l| l.line).collect::<Vec<_>>(), [line], "{text}: {left:?}");
    }
}

#[test]
fn private_reverse_zones_are_forwarded_where_one_of_them_is() {
    let bogus = format!("{DNSMASQ}bogus-priv\n");
    for (text, goes) in [
        ("", "1.1.168.192.in-addr.arpa nxdomain"),
        ("rev-server=10.0.0.0/8,192.0.2.2", "1.0.0.10.in-addr.arpa 10-in-addr-arpa"),
        ("rev-server=192.168.1.0/24,192.0.2.2", "1.1.168.192.in-addr.arpa 1-168-192-in-addr-arpa"),
        ("server=/in-addr.arpa/192.0.2.2", "1.1.168.192.in-addr.arpa in-addr-arpa"),
        ("server=/8.in-addr.arpa/192.0.2.2", "1.1.168.192.in-addr.arpa nxdomain"),
        // Neither the servers of all else nor a local zone open it there.
        ("server=/168.192.in-addr.arpa/#", "1.1.168.192.in-addr.arpa nxdomain"),
        ("rev-server=192.168.0.0/16", "1.1.168.192.in-addr.arpa nxdomain"),
    ] {
        check(Format::Dnsmasq, &format!("{bogus}{text}"), &[goes]);
    }
    let zone = "forward-zone:\n name: \"10.in-addr.arpa\"\n forward-addr: 192.0.2.2\n";
    for (server, zones, goes) in [
        ("", "", "1.10.in-addr.arpa nxdomain"),
        ("", zone, "1.10.in-addr.arpa 10-in-addr-arpa"),
        (" local-zone: 10.in-addr.arpa nodefault\n", zone, "1.10.in-addr.arpa 10-in-addr-arpa"),
        (" local-zone: 10.in-addr.arpa nodefault\n", "", "1.10.in-addr.arpa default"),
        (" local-zone: 5.10.in-addr.arpa transparent\n", "", "1.5.10.in-addr.arpa default"),
        (" local-zone: x.example nodefault\n", "", "1.10.in-addr.arpa nxdomain"),
        (" local-zone: 10.in-addr.arpa refuse\n", zone, "1.10.in-addr.arpa refused"),
        (" unblock-lan-zones: yes\n", zone, "1.10.in-addr.arpa 10-in-addr-arpa"),
    ] {
        check(Format::Unbound, &format!("server:\n{server}{zones}{UNBOUND}"), &[goes]);
    }
}

#[test]
fn the_private_reverse_zones_are_those_that_are_answered() {
    let settings = LocalSettings {
        identity: None,
        private_reverse_nxdomain: true,
        records: Vec::new(),
        zones: Vec::new(),
        hosts: Vec::new(),
    };
    let zones = private_reverse_zones();
    assert_eq!(zones.len(), 16 + 16 + 64, "RFC 6303 §4 but for loopback, and RFC 7793");
    for zone in zones {
        assert_eq!(kind(&settings, &zone.to_string()), Some("nxdomain"), "{zone}");
    }
}

#[test]
fn unbound_forwards_only_what_is_open_within_a_closed_zone() {
    let zone = |name: &str| format!("forward-zone:\n name: {name}\n forward-addr: 192.0.2.2\n");
    for (server, zones, goes) in [
        (
            "lan static\n local-zone: vpn.lan transparent",
            zone("vpn.lan"),
            &["a.vpn.lan vpn-lan", "a.lan default"][..],
        ),
        ("lan always_nxdomain\n local-zone: a.vpn.lan inform", zone("vpn.lan"), &["a.vpn.lan vpn-lan"]),
        ("lan refuse\n local-zone: pub.lan typetransparent", String::new(), &["a.pub.lan default"]),
        ("ads always_null\n local-zone: ok.ads transparent", zone("ok.ads"), &["a.ok.ads ok-ads", "ads records"]),
        (
            "ads redirect\n local-data: \"ads A 192.0.2.9\"\n local-zone: ok.ads transparent",
            zone("ok.ads"),
            &["a.ok.ads ok-ads", "ads records"],
        ),
        // unbound never asks the servers of these.
        ("lan static", zone("lan"), &["a.lan nxdomain"]),
        ("lan static", zone("vpn.lan"), &["a.vpn.lan nxdomain"]),
        ("lan static\n local-zone: vpn.lan nodefault", zone("vpn.lan"), &["a.vpn.lan nxdomain"]),
        ("lan transparent\n local-zone: vpn.lan refuse", zone("lan"), &["a.lan lan", "a.vpn.lan refused"]),
    ] {
        check(Format::Unbound, &format!("server:\n local-zone: {server}\n{zones}{UNBOUND}"), goes);
    }
    let text = format!("server:\n local-zone: lan static\n{}{UNBOUND}", zone("vpn.lan"));
    let left = accepted(Format::Unbound, &text).unwrap().left;
    let said = |l: &&Left| l.what == "forward-zone vpn.lan." && l.why.contains("local-zone lan.");
    assert_eq!(left.iter().find(said).map(|l| l.line), Some(3), "{left:?}");
}

#[test]
fn a_corefile_answers_by_template_only_within_its_block() {
    let template = |zone: &str| format!("template ANY ANY {zone} {{\n  rcode NXDOMAIN\n }}\n");
    let block = |zone: &str, inside: &str| {
        let server = zone.len();
        format!("{zone} {{\n bind 127.0.0.1\n forward . 192.0.2.{server}\n {inside}\n}}\n")
    };
    let (lan, ads) = (template("lan"), template("ads"));
    for (text, goes) in [
        (block(".", &lan) + &block("vpn.lan", ""), &["a.vpn.lan vpn-lan", "a.lan default"][..]),
        (block(".", &lan) + &block("lan", ""), &["a.lan lan"]),
        (block(".", &lan) + &block("other", ""), &["a.lan nxdomain", "a.other other"]),
        // In its own block the template comes first, there as here.
        (block("ads", &ads), &["a.ads nxdomain"]),
        (block(".", &format!("{ads} forward ok.ads 192.0.2.3\n")), &["a.ok.ads nxdomain"]),
        (
            ". {\n bind 127.0.0.1\n forward corp.x 192.0.2.3\n forward . 192.0.2.1 {\n  except x\n }\n}".to_owned(),
            &["a.corp.x corp-x", "b default"],
        ),
        (
            ". {\n bind 127.0.0.1\n forward x 192.0.2.3\n forward . 192.0.2.1 {\n  except x y\n }\n}".to_owned(),
            &["a.x x", "a.y refused"],
        ),
    ] {
        check(Format::Corefile, &text, goes);
    }
}

/// `goes`: a name, and the word of its local answer or the group that it goes to.
#[track_caller]
fn check(format: Format, text: &str, goes: &[&str]) {
    let imported = accepted(format, text).expect("readable");
    let (config, _) = config::parse(&imported.text, &|_| None, &[]).expect("accepted");
    let zones = config.groups.iter().enumerate().flat_map(|(n, g)| g.settings.zones.iter().map(move |z| (z, n)));
    let routes = Routes::new(zones);
    for line in goes {
        let (name, want) = line.split_once(' ').expect("a name and where it goes");
        let group = |n: usize| config.groups[n].settings.name.as_str();
        let wire = name.parse::<Name>().expect("a name");
        let went = kind(&config.local, name).or_else(|| routes.find(wire.as_wire()).map(group));
        assert_eq!(went, Some(want), "{name} of\n{text}\n--- came\n{}", imported.text);
    }
}

/// What is answered here, if it is.
fn kind(settings: &LocalSettings, name: &str) -> Option<&'static str> {
    let (local, remarks) = Local::new(settings, &[]);
    assert_eq!(remarks, [""; 0]);
    let name: Name = name.parse().expect("a name");
    let packet = build::question(name.as_wire(), rtype::A, false, false, true);
    let query = query::check(&packet).expect("a question");
    let client = Client { address: [127, 0, 0, 1].into(), transport: Transport::Udp };
    local.answer(&query, name.as_wire(), &client, &mut [0; 1232], 0).map(|answer| answer.kind.word())
}
