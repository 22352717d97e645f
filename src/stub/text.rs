//! The texts that are written. Pure.

use std::net::IpAddr;

use super::{LEASE, RESOLV_CONF};

const HEAD: &str = "# Written by `evenkeel stub enable`; `evenkeel stub disable` puts back what was here.\n";

/// resolv.conf with one server, and all else of `old` that resolvers read.
///
/// `edns0` lets answers of over 512 bytes come over UDP. `trust-ad` lets programs see AD, which evenkeel sets only
/// where the upstream's word for it is trusted. Written again over itself it stays as it is.
pub fn resolv_conf(server: IpAddr, old: &str) -> String {
    let mut text = format!("{HEAD}nameserver {server}\n");
    let mut options: Vec<&str> = Vec::new();
    for line in old.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("options") => options.extend(words),
            Some("search" | "domain" | "sortlist") => text += &format!("{}\n", line.trim()),
            _ => {}
        }
    }
    for wanted in ["edns0", "trust-ad"] {
        if !options.contains(&wanted) {
            options.push(wanted);
        }
    }
    text += &format!("options {}\n", options.join(" "));
    text
}

/// The servers that a resolv.conf names, as far as they are addresses.
pub fn servers(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.split('%').next()?.parse().ok()).flatten()
    })
}

/// Is it one of those that are written here, as it was or edited?
pub fn is_ours(text: &str) -> bool {
    text.starts_with(HEAD)
}

/// A resolv.conf with the servers of another one, in the place of its first.
pub fn with_servers(text: &str, other: &str) -> String {
    let is_server = |line: &&str| line.split_ascii_whitespace().next() == Some("nameserver");
    let (mut lines, mut servers): (Vec<&str>, Vec<&str>) = (Vec::new(), other.lines().filter(is_server).collect());
    for line in text.lines() {
        if is_server(&line) { lines.append(&mut servers) } else { lines.push(line) }
    }
    lines.append(&mut servers);
    lines.join("\n") + "\n"
}

/// Whose comment is at its top, where that is not evenkeel's.
pub fn claimed_by(text: &str) -> Option<&'static str> {
    let comments = text.lines().take_while(|l| l.starts_with(['#', ';']) || l.trim().is_empty()).take(20);
    let comments = comments.collect::<Vec<_>>().join("\n").to_ascii_lowercase();
    let known = [
        ("connection manager", "ConnMan"),
        ("dhcpcd", "dhcpcd"),
        ("netconfig", "netconfig"),
        ("tailscale", "Tailscale"),
        ("cloud-init", "cloud-init"),
        ("pppd", "pppd"),
        ("vpnc", "vpnc"),
        ("wsl", "WSL"),
    ];
    known.into_iter().find(|(word, _)| comments.contains(word)).map(|(_, name)| name)
}

/// NetworkManager's drop-in. It goes on writing the servers to its files in /run.
pub fn network_manager() -> String {
    format!("{HEAD}[main]\nrc-manager=unmanaged\n")
}

/// dhclient's enter hook: the function that would write /etc/resolv.conf writes elsewhere.
pub fn dhclient_hook() -> String {
    let directory = LEASE.rsplit_once('/').map_or("", |(directory, _)| directory);
    format!(
        r#"{HEAD}# dhclient leaves {RESOLV_CONF} alone; "system" upstreams read the servers of the lease below.
make_resolv_conf() {{
    [ -n "$new_domain_name_servers$new_dhcp6_name_servers" ] || return 0
    (
        umask 022
        mkdir -p {directory} || exit 0
        {{
            for server in $new_domain_name_servers; do echo "nameserver $server"; done
            for server in $new_dhcp6_name_servers; do
                case $server in [fF][eE]80:*) server="$server%$interface" ;; esac
                echo "nameserver $server"
            done
        }} >{LEASE}.new && mv -f {LEASE}.new {LEASE}
    )
}}
"#
    )
}

const BEGIN: &str = "# evenkeel stub: begin\n";
const END: &str = "# evenkeel stub: end\n";

/// openresolv's configuration with our block at its end, where it counts over what is before.
pub fn openresolv_with(old: &str) -> String {
    let mut text = openresolv_without(old);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text + BEGIN + "resolv_conf=/run/resolvconf/resolv.conf\n" + END
}

/// The same without the block.
pub fn openresolv_without(text: &str) -> String {
    match text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1))) {
        Some((before, after)) => format!("{before}{after}"),
        None => text.to_owned(),
    }
}

/// Does nsswitch.conf ask systemd-resolved before DNS?
pub fn asks_resolved_first(nsswitch: &str) -> bool {
    let hosts = nsswitch.lines().find_map(|line| line.trim().strip_prefix("hosts:"));
    hosts.is_some_and(|line| {
        line.split_ascii_whitespace().take_while(|word| *word != "dns").any(|word| word == "resolve")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_and_options_are_kept_and_written_again_it_stays() {
        let old = "# x\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n  search a.test b.test\noptions ndots:5 edns0\n\
                   options timeout:1\nsortlist 192.0.2.0/24\nnonsense\n";
        let text = resolv_conf("127.0.0.1".parse().unwrap(), old);
        let want = format!(
            "{HEAD}nameserver 127.0.0.1\nsearch a.test b.test\nsortlist 192.0.2.0/24\n\
             options ndots:5 edns0 timeout:1 trust-ad\n"
        );
        assert_eq!(text, want);
        assert_eq!(resolv_conf("127.0.0.1".parse().unwrap(), &text), text);
        assert_eq!(servers(old).count(), 2);
    }

    #[test]
    fn the_block_comes_and_goes() {
        for old in ["", "name_servers=127.0.0.1\n", "a=b"] {
            let with = openresolv_with(old);
            assert_eq!(openresolv_with(&with), with);
            assert_eq!(openresolv_without(&with).trim_end(), old.trim_end());
        }
        assert_eq!(openresolv_without(&(openresolv_with("a=b\n") + "c=d\n")), "a=b\nc=d\n");
    }

    #[test]
    fn resolve_before_dns_is_seen() {
        for (line, first) in [
            ("hosts: files mymachines resolve [!UNAVAIL=return] dns\n", true),
            ("passwd: files\nhosts:\tfiles dns\n", false),
            ("hosts: files dns resolve\n", false),
            ("hosts: resolve\n", true),
            ("", false),
        ] {
            assert_eq!(asks_resolved_first(line), first, "{line}");
        }
    }

    #[test]
    fn who_claims_the_file_is_named() {
        assert_eq!(claimed_by("# Generated by dhcpcd from eth0\nnameserver 192.0.2.1\n"), Some("dhcpcd"));
        assert_eq!(claimed_by("nameserver 192.0.2.1\n# dhcpcd\n"), None);
    }
}
