//! The configuration as an operator meets it: text in, settings or mistakes out.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cache::freshness::Patience;
use crate::limits;
use crate::observe::Expected;
use crate::serve::admit::Allowed;
use crate::upstream::Protocol;
use crate::wire::rtype;

/// The settings that `text` gives, or its mistakes as they are shown.
pub(super) fn read_text(text: &str) -> Result<Config, Vec<String>> {
    read_with(text, &[]).map(|(config, _)| config)
}

fn read_with(text: &str, sets: &[(&str, &str)]) -> Result<(Config, Vec<String>), Vec<String>> {
    let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let env = |name: &str| (name == "UPSTREAM").then(|| "192.0.2.9".to_owned());
    match parse(text, &env, &sets) {
        Ok((config, warnings)) => Ok((config, warnings.iter().map(|w| w.shown("f").to_string()).collect())),
        Err(mistakes) => Err(mistakes.iter().map(|m| m.shown("f").to_string()).collect()),
    }
}

/// `text` is refused with exactly these mistakes, each given by how it begins.
fn check_refused(text: &str, sets: &[(&str, &str)], wanted: &[&str]) {
    let mistakes = read_with(text, sets).expect_err(text);
    assert_eq!(mistakes.len(), wanted.len(), "{text}: {mistakes:#?}");
    for (got, wanted) in mistakes.iter().zip(wanted) {
        assert!(got.starts_with(wanted), "{text}\n got: {got}\nwant: {wanted}");
    }
}

fn group<'c>(config: &'c Config, name: &str) -> &'c GroupConfig {
    config.groups.iter().find(|g| g.settings.name == name).expect(name)
}

//------------ Defaults ----------------------------------------------------------------------------------------------

#[test]
fn an_empty_file_is_the_embedded_default() {
    let config = Config::default();
    assert_eq!(config.listen.dns, ["127.0.0.1:1053".parse().unwrap(), "[::1]:1053".parse().unwrap()]);
    assert_eq!(config.cache.max_bytes, 64 << 20);
    assert_eq!(config.admit.allow, [Allowed::Loopback]);
    assert_eq!(config.admin.listen, Some("127.0.0.1:9553".parse().unwrap()));
    assert_eq!(config.system_files.len(), 6);
    assert_eq!(config.groups.len(), 1);
    let default = group(&config, "default");
    assert_eq!(default.settings.zones, [crate::wire::Name::root()]);
    assert_eq!(default.tiers[0], [UpstreamConfig::System]);
    assert_eq!(default.settings.health.probes, [(crate::wire::Name::root(), rtype::NS)]);
    assert_eq!(default.settings.deadline, limits::DEADLINE.default);
    assert_eq!(default.settings.stale.patience, Patience::Auto);
}

/// A default that its own reader refuses would be left out in silence; here it is not.
#[test]
fn every_default_is_read_without_a_mistake() {
    for section in keys::sections() {
        for entry in section.keys {
            let text = format!("{}\n{} = {}\n", section.header, entry.name, entry.default);
            let mistakes = read_text(&text).err().unwrap_or_default();
            // Half a record, or a server without an address, is no whole entry: its parts were read.
            let half = ["neither a record nor a zone", "the guard names nothing", "the canary has no name"];
            let mistakes: Vec<_> = mistakes.iter().filter(|m| !half.iter().any(|h| m.contains(h))).collect();
            assert!(mistakes.is_empty(), "{text}{mistakes:?}");
        }
    }
}

//------------ Mistakes ----------------------------------------------------------------------------------------------

#[test]
fn every_mistake_is_reported_with_its_place() {
    check_refused(
        "[listen]\ndns = \"nowhere\"\nworkres = 2\n\n[cache]\nmax_bytes = \"1kB\"\n[nonsense]\n",
        &[],
        &[
            "f:2:7: listen.dns: \"nowhere\" is no address with a port",
            "f:2:7: listen.dns: no address to listen on",
            "f:3:1: listen: unknown key `workres`\n  hint: did you mean `workers`?",
            "f:6:13: cache.max_bytes: 1000B is not within 1MiB and 1TiB",
            "f:7:2: unknown key `nonsense`",
        ],
    );
}

#[test]
fn what_is_wrong_is_said_in_the_operators_words() {
    for (text, wanted) in [
        ("[listen]\ndrain = 2", "f:2:9: listen.drain: a duration has a unit\n  hint: write"),
        ("[listen]\ndrain = \"2\"", "f:2:9: listen.drain: \"2\" is no duration"),
        ("[listen]\ndrain = \"2m\"", "f:2:9: listen.drain: 2m is not within 0s and 1m"),
        ("[listen]\nworkers = 65", "f:2:11: listen.workers: 65 is not within 0 and 64"),
        ("[listen]\nworkers = -1", "f:2:11: listen.workers: -1 is below 0"),
        ("[listen]\nworkers = \"2\"", "f:2:11: listen.workers: a whole number is wanted here, not a string"),
        ("[listen]\ndns = []", "f:2:7: listen.dns: no address"),
        ("[listen]\ndns = [\"[::1]:53\", \"[::1]:53\"]", "f:2:20: listen.dns: [::1]:53 is given twice"),
        ("max_ttl = \"1h\"", "f:1:1: unknown key `max_ttl`\n  hint: `max_ttl` stands in [cache]"),
        ("listen = 1", "f:1:10: listen: a table is wanted here, not an integer"),
        ("[stale]\nreply_ttl = \"1500ms\"", "f:2:13: stale.reply_ttl: a time to live is in whole seconds"),
        ("[stale]\npatience = \"5s\"", "f:2:12: stale.patience: 5s is not within 0s and 1800ms"),
        ("[cache]\nmin_ttl = \"10s\"\nmax_ttl = \"5s\"", "f:2:11: cache: min_ttl, 10 s, is above max_ttl, 5 s"),
        ("[cache]\nrotate = \"yes\"", "f:2:10: cache.rotate: true or false is wanted here, not a string"),
        ("[access]\nallow = [\"lan\"]", "f:2:10: access.allow: \"lan\" is no network"),
        ("[access]\nclient_prefix = [24]", "f:2:17: access.client_prefix: two numbers"),
        ("[access]\nclient_prefix = [33, 56]", "f:2:18: access.client_prefix: 33 is not within 1 and 32"),
        ("[state]\ndirectory = \"var\"", "f:2:13: state.directory: \"var\" is no absolute path"),
        ("[log]\nlevel = \"loud\"", "f:2:9: log.level: \"loud\" is none of \"error\", \"warn\""),
        ("[groups.default.hedge]\nbudget = 3", "f:2:10: groups.default.hedge.budget: 3 is not within 0 and 2"),
        ("[groups.default.hedge]\nbudget = nan", "f:2:10: groups.default.hedge.budget: a number is wanted"),
        ("[groups.default.health]\nprobes = [\".\"]", "f:2:11: groups.default.health.probes: \".\" is no question"),
        (
            "[groups.default]\nprimary = [\"tls://192.0.2.1\"]",
            "f:2:12: groups.default.primary: \"tls://192.0.2.1\" needs",
        ),
        (
            "[groups.default]\nprimary = [{ name = \"x\" }]",
            "f:2:12: groups.default.primary: the server has no address",
        ),
        (
            "[groups.default]\nprimary = [{ adress = \"x\" }]",
            "f:2:14: groups.default.primary: unknown key `adress`\n  hint: did you mean `address`?",
        ),
        ("[groups.default]\nprimary = [\"192.0.2.1\", \"192.0.2.1\"]", "f:2:25: groups.default: \"192.0.2.1\" is in"),
        ("[groups.default]\nzones = [\"*.example\"]", "f:2:10: groups.default.zones: \"*.example\" is no zone"),
        ("[groups.corp]\nprimary = [\"192.0.2.1\"]", "f:1:9: groups.corp: the group names no zones"),
        ("[groups.\"a b\"]\nzones = [\"x\"]", "f:1:9: groups: this is no name of a group"),
        ("groups = 1", "f:1:10: groups: a table of groups is wanted here"),
        (
            "[listen]\nidentity = \"${NOT_THERE}\"",
            "f:2:12: listen.identity: ${NOT_THERE} is not set in the environment",
        ),
        (
            "[listen]\ndns = \"0.0.0.0:53\"",
            "f:2:7: listen.dns: 0.0.0.0:53 is beyond loopback, and access.allow is not",
        ),
        ("[admin]\nlisten = \"0.0.0.0:53\"", "f:2:10: admin.listen: 0.0.0.0:53 is beyond loopback, and admin.allow"),
    ] {
        check_refused(text, &[], &[wanted]);
    }
}

#[test]
fn broken_syntax_is_reported_alone_and_whole() {
    check_refused("[listen]\nworkers = \nnonsense = 1\ndns == 2\n", &[], &["f:2:11: ", "f:4:6: "]);
}

#[test]
fn a_file_of_nothing_but_mistakes_has_a_bounded_report() {
    let text: String = (0..5000).map(|i| format!("k{i} = 1\n")).collect();
    assert_eq!(read_text(&text).unwrap_err().len(), 100);
}

//------------ Sets and environment ----------------------------------------------------------------------------------

#[test]
fn a_set_wins_over_the_file_and_is_checked_alike() {
    let (config, _) = read_with(
        "[listen]\nworkers = 1",
        &[("listen.workers", "3"), ("listen.dns", "127.0.0.1:5353"), ("groups.default.primary", "[\"192.0.2.1\"]")],
    )
    .unwrap();
    assert_eq!(config.listen.workers, 3);
    assert_eq!(config.listen.dns, ["127.0.0.1:5353".parse().unwrap()]);
    assert!(matches!(&group(&config, "default").tiers[0][0], UpstreamConfig::Server(s) if s.name == "192.0.2.1"));
    check_refused("", &[("listen.wrokers", "3")], &["--set listen.wrokers=3: listen: unknown key `wrokers`"]);
    check_refused(
        "",
        &[("listen.dns", "[\"x\", \"[::1]:53\"]")],
        &["--set listen.dns=[\"x\", \"[::1]:53\"]: listen.dns: "],
    );
    check_refused("", &[("listen dns", "x")], &["--set listen dns=x: \"listen dns\" is no key"]);
}

#[test]
fn strings_take_from_the_environment() {
    let config = read_text("[groups.default]\nprimary = [\"${UPSTREAM}:5353\"]").unwrap();
    let UpstreamConfig::Server(server) = &group(&config, "default").tiers[0][0] else { panic!() };
    assert_eq!(server.address, "192.0.2.9:5353".parse().unwrap());
}

//------------ Groups ------------------------------------------------------------------------------------------------

#[test]
fn a_groups_own_keys_stand_over_the_global_ones() {
    let config = read_text(
        "[stale]\nmax_age = \"2h\"\nreply_ttl = \"10s\"\n[cache]\nmax_ttl = \"1h\"\n\
         [groups.corp]\nzones = [\"corp.example\"]\nprimary = [\"192.0.2.1\"]\n\
         [groups.corp.stale]\nmax_age = \"5m\"\npatience = \"500ms\"\n[groups.corp.cache]\nmax_negative_ttl = \"0s\"\n",
    )
    .unwrap();
    let corp = &group(&config, "corp").settings;
    let default = &group(&config, "default").settings;
    assert_eq!((corp.stale.max_age.as_secs(), default.stale.max_age.as_secs()), (300, 7200));
    assert_eq!((corp.stale.reply_ttl, default.stale.reply_ttl), (10, 10));
    assert_eq!(corp.stale.patience, Patience::Fixed(Duration::from_millis(500)));
    assert_eq!((corp.ttl.max, default.ttl.max), (3600, 3600));
    assert_eq!((corp.ttl.negative_max, default.ttl.negative_max), (0, 30));
    let refused = "[groups.default.cache]\nmax_bytes = \"1GiB\"";
    check_refused(
        refused,
        &[],
        &["f:2:1: groups.default.cache: unknown key `max_bytes`\n  hint: `max_bytes` stands in [cache]"],
    );
}

#[test]
fn default_is_there_unless_another_group_has_the_root() {
    for (text, groups) in [
        ("", vec!["default"]),
        ("[groups.corp]\nzones = [\"corp.example\"]", vec!["corp", "default"]),
        ("[groups.all]\nzones = [\".\", \"corp.example\"]", vec!["all"]),
    ] {
        let config = read_text(text).unwrap();
        let names: Vec<_> = config.groups.iter().map(|g| g.settings.name.as_str()).collect();
        assert_eq!(names, groups, "{text}");
    }
}

#[test]
fn a_zone_in_two_groups_is_refused() {
    check_refused(
        "[groups.a]\nzones = [\"X.example\"]\n[groups.b]\nzones = [\"y.example\", \"x.example.\"]",
        &[],
        &["f:4:23: groups: the zone x.example. is in two groups: a and b"],
    );
    check_refused("[groups.a]\nzones = [\"x\", \"x\"]", &[], &["f:2:15: groups: the zone x. is given twice"]);
    check_refused(
        "[groups.a]\nzones = [\".\"]\n[groups.default]\nsame_view = true",
        &[],
        &["f:3:9: groups: the zone . is in two groups: a and default"],
    );
}

#[test]
fn a_group_without_the_root_is_probed_by_its_zones() {
    let text = "[groups.corp]\nzones = [\"corp.example\", \"x\"]\n";
    let config = read_text(text).unwrap();
    let probes = &group(&config, "corp").settings.health.probes;
    assert_eq!(*probes, [("corp.example".parse().unwrap(), rtype::SOA), ("x".parse().unwrap(), rtype::SOA)]);
    let config = read_text(&format!("{text}[groups.corp.health]\nprobes = [\"a.x AAAA\"]")).unwrap();
    assert_eq!(group(&config, "corp").settings.health.probes, [("a.x".parse().unwrap(), rtype::AAAA)]);
}

#[test]
fn servers_read_with_all_that_is_said_of_them() {
    let config = read_text(
        "[groups.default]\ntrust_ad = true\nprimary = [\"tcp://192.0.2.1\", \"system\"]\n\
         secondary = [{ address = \"[2001:db8::1]:5353\", name = \"far\", packets_per_second = 900 }]",
    )
    .unwrap();
    let default = group(&config, "default");
    assert_eq!(default.trust_ad, Some(true));
    let UpstreamConfig::Server(near) = &default.tiers[0][0] else { panic!() };
    assert_eq!((near.name.as_str(), near.protocol, near.trust_ad), ("tcp://192.0.2.1", Protocol::Tcp, true));
    assert_eq!(default.tiers[0][1], UpstreamConfig::System);
    let UpstreamConfig::Server(far) = &default.tiers[1][0] else { panic!() };
    assert_eq!((far.name.as_str(), far.protocol, far.packets_per_second), ("far", Protocol::Udp, 900));
}

#[test]
fn a_server_that_is_evenkeel_itself_is_refused() {
    for (listen, server, refused) in [
        ("127.0.0.1:53", "127.0.0.1", true),
        ("0.0.0.0:53", "127.0.0.53", true),
        ("127.0.0.1:53", "127.0.0.1:5353", false),
        ("127.0.0.1:53", "127.0.0.53", false),
        ("0.0.0.0:53", "192.0.2.1", false),
    ] {
        let text = format!(
            "[access]\nallow = []\n[listen]\ndns = [\"{listen}\"]\n[groups.default]\nprimary = [\"{server}\"]"
        );
        assert_eq!(read_text(&text).is_err(), refused, "{listen} {server}");
    }
}

//------------ Warnings ----------------------------------------------------------------------------------------------

#[test]
fn canaries_that_would_be_refused_are_warned_of() {
    let warns = |listen: &str, allow: &str| {
        let text =
            format!("[listen]\ndns = [\"{listen}\"]\n[access]\nallow = [\"{allow}\"]\n[[canary]]\nname = \"x\"");
        read_with(&text, &[]).unwrap().1
    };
    for (listen, allow) in [
        ("127.0.0.1:53", "198.51.100.0/24"),
        ("0.0.0.0:53", "198.51.100.0/24"),
        ("192.0.2.1:53", "192.0.2.0/24"),
        ("192.0.2.1:53", "local"),
    ] {
        assert_eq!(warns(listen, allow), [""; 0], "{listen} {allow}");
    }
    let want = "f:5:1: canary: access.allow has no place for 192.0.2.1:53, from which canaries ask: they are refused";
    assert_eq!(warns("192.0.2.1:53", "198.51.100.0/24"), [want]);
}

#[test]
fn guards_and_canaries_are_read_and_what_is_wrong_in_them_is_said() {
    let text = "[[guard]]\nnames = [\"*.x\", \"y\"]\nhold = \"1h\"\n[[guard]]\nnames = \"z\"\n\
                [[canary]]\nname = \"x\"\nexpect = \"192.0.2.1\"\n[[canary]]\nname = \"x\"\ntype = \"AAAA\"";
    let (config, warnings) = read_with(text, &[]).unwrap();
    assert_eq!(warnings, [""; 0]);
    let secs = Duration::from_secs;
    let shown: Vec<_> = config.guards.iter().map(|g| (g.names.len(), g.hold, g.min_good)).collect();
    assert_eq!(shown, [(2, secs(3600), secs(600)), (1, secs(1800), secs(600))]);
    let shown: Vec<_> = config.canaries.iter().map(|c| (c.qtype, c.expect.clone(), c.every)).collect();
    let first = (1, Expected::Data("192.0.2.1".into()), secs(30));
    assert_eq!(shown, [first, (28, Expected::Records, secs(30))]);
    check_refused(
        "[[guard]]\nnames = \"a..b\"\n[[guard]]\nhold = \"2d\"\nnames = \"a\"\n[[guard]]\nhold = \"1s\"\n\
         [[canary]]\ntype = \"OPT\"\n[[canary]]\ntype = \"A\"",
        &[],
        &[
            "f:2:9: guard.names: \"a..b\": the name has an empty label",
            "f:4:8: guard.hold: 2d is not within 0s and 1d",
            "f:6:1: guard: the guard names nothing",
            "f:9:8: canary.type: \"OPT\" is no record type",
            "f:10:1: canary: the canary has no name",
        ],
    );
    check_refused(
        "[cache]\nsnapshot_every = \"1ms\"",
        &[],
        &["f:2:18: cache.snapshot_every: 1ms is not within 1s and 1d"],
    );
}

#[test]
fn what_leaves_names_without_a_server_is_said() {
    let (_, warnings) = read_with("[groups.default]\nprimary = []", &[]).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let (_, warnings) = read_with("[groups.default]\nzones = [\"x\"]", &[]).unwrap();
    assert!(warnings[0].contains("no group has the zone \".\""), "{warnings:?}");
}

//------------ Reload ------------------------------------------------------------------------------------------------

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_not() {
    for (text, wanted) in [
        ("[groups.default]\nprimary = [\"192.0.2.1\"]\n[stale]\nmax_age = \"1h\"\n[log]\nlevel = \"debug\"", vec![]),
        ("[access]\nallow = [\"private\"]\n[limits]\nqueries_per_second = 5", vec![]),
        ("[listen]\ndns = [\"127.0.0.1:53\"]\nworkers = 1", vec!["listen.dns", "listen.workers"]),
        ("[admin]\nsocket = \"/x\"\n[cache]\nmax_bytes = \"1GiB\"", vec!["admin.socket", "cache.max_bytes"]),
        ("[state]\ndirectory = \"\"", vec!["state.directory"]),
    ] {
        assert_eq!(Config::default().restart_differences(&read_text(text).unwrap()), wanted, "{text}");
    }
}

#[test]
fn the_state_directory_is_found_in_a_file_that_is_refused() {
    for (text, wanted) in [
        ("[state]\ndirectory = \"/x\"\n[nonsense]", StateDirectory::At("/x".into())),
        ("[state]\ndirectory = \"\"\n[listen]\ndns = ", StateDirectory::Off),
        ("][", StateDirectory::Auto),
    ] {
        assert_eq!(as_far_as_read(text, &|_| None, &[]).state, wanted, "{text}");
    }
}

proptest! {
    #[test]
    fn noise_is_refused_or_read_without_panic(text in "\\PC{0,200}", key in "\\PC{0,20}", value in "\\PC{0,20}") {
        let _ = parse(&text, &|_| None, &[(key, value)]);
    }

    /// Noise that is shaped like a configuration gets further in.
    #[test]
    fn a_torn_default_file_is_refused_or_read_without_panic(
        from in 0usize..8000, cut in 0usize..200, noise in "[\\PC\n]{0,20}",
    ) {
        let text = default_text();
        let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (a, b) = (floor(from), floor(from + cut));
        let torn = format!("{}{noise}{}", &text[..a], &text[b..]);
        let _ = parse(&torn, &|_| None, &[]);
    }
}
