//! `"system"` upstreams: the servers that this machine's resolv.conf names, without ourselves.
//!
//! [`choose`] is pure: texts of files in, [`Choice`] out. [`read`] does the reading and remembering around it, and
//! [`own_networks`] asks the kernel who we are. Rules:
//!
//! - The first file that names a server other than us is taken; the rest are not looked at.
//! - An entry is us where evenkeel listens on it at port 53 (resolv.conf knows no other), or on the wildcard of its
//!   family and the entry is one of this node's addresses. It is left out and said: a resolver that forwards to
//!   itself answers nothing.
//! - Where a file of systemd-resolved names us, resolved forwards to us, so that its stub (127.0.0.53, 127.0.0.54)
//!   leads back here: left out and said as well. Otherwise the stub is a server like any other.
//! - A link-local IPv6 address needs its zone (`fe80::1%eth0`, RFC 4007 §11); one without, or of an interface that
//!   is not there, is left out and said.
//! - What was found is remembered in the state directory and used, with a warning, where all files name nothing:
//!   pointing resolv.conf at evenkeel must not take its upstreams away.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hickory_resolver::system_conf::parse_resolv_conf;
use if_addrs::IfAddr;
use ipnet::IpNet;

use crate::limits::SERVERS_PER_TIER_MAX;
use crate::serve::admit::OwnNetworks;

/// Upstreams of the system, and how they were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// In the order of the file, at most [`SERVERS_PER_TIER_MAX`], none twice. Empty where nothing was found.
    pub servers: Vec<SocketAddr>,
    /// Does the file say `options trust-ad`?
    pub trust_ad: bool,
    /// Where they come from.
    pub from: Origin,
    /// What an operator should know: entries that were left out, files that could not be read.
    pub remarks: Vec<String>,
}

/// Where a choice comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This file.
    File(PathBuf),
    /// All files name nothing; this is what they last named.
    Remembered,
    /// Nowhere: no file names a server and none is remembered.
    Nowhere,
}

/// Who we are, so that an entry that is us can be told.
#[derive(Clone, Copy, Debug)]
pub struct Us<'a> {
    /// Where we listen for DNS.
    pub listening: &'a [SocketAddr],
    /// This node's addresses.
    pub addresses: &'a [IpAddr],
}

impl Us<'_> {
    /// Does evenkeel answer what is asked of `server`, at port 53?
    pub fn is(&self, server: IpAddr) -> bool {
        let on_node = || server.is_loopback() || self.addresses.contains(&server);
        self.listening
            .iter()
            .filter(|at| at.port() == DNS_PORT)
            .any(|at| at.ip() == server || at.ip().is_unspecified() && at.is_ipv4() == server.is_ipv4() && on_node())
    }
}

const DNS_PORT: u16 = 53;
/// systemd-resolved's stub, with and without its own processing.
const RESOLVED_STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];
const RESOLVED_FILES: &str = "/run/systemd/resolve";

/// Chooses among files, given in their order as path and text; `remembered` is the text that [`Choice::remembered`]
/// wrote, empty where there is none. `index_of` knows the number of an interface.
pub fn choose(
    files: &[(PathBuf, String)],
    us: Us<'_>,
    remembered: &str,
    index_of: &dyn Fn(&str) -> Option<u32>,
) -> Choice {
    let mut remarks = Vec::new();
    let mut resolved_asks_us = false;
    for (path, text) in files {
        let found = read_text(text, index_of);
        let mut servers = Vec::new();
        for problem in found.problems {
            remarks.push(format!("{}: {problem}", path.display()));
        }
        for server in found.servers {
            if us.is(server.ip()) {
                remarks.push(format!("{} names {}, which is evenkeel itself: left out", path.display(), server.ip()));
                resolved_asks_us |= path.starts_with(RESOLVED_FILES);
            } else if resolved_asks_us && RESOLVED_STUBS.contains(&server.ip()) {
                let (path, ip) = (path.display(), server.ip());
                remarks.push(format!("{path} names {ip}, systemd-resolved, which forwards to evenkeel: left out"));
            } else {
                servers.push(server);
            }
        }
        if !servers.is_empty() {
            return Choice { servers, trust_ad: found.trust_ad, from: Origin::File(path.clone()), remarks };
        }
    }
    let found = read_text(remembered, index_of);
    let servers: Vec<_> = found.servers.into_iter().filter(|s| !us.is(s.ip())).collect();
    let from = if servers.is_empty() { Origin::Nowhere } else { Origin::Remembered };
    Choice { trust_ad: found.trust_ad && !servers.is_empty(), servers, from, remarks }
}

impl Choice {
    /// The text from which [`choose`] finds these servers again.
    pub fn remembered(&self) -> String {
        let mut text = String::from("# What resolv.conf last named; written by evenkeel.\n");
        for server in &self.servers {
            match server {
                SocketAddr::V6(s) if s.scope_id() != 0 => {
                    text += &format!("nameserver {}%{}\n", s.ip(), s.scope_id());
                }
                s => text += &format!("nameserver {}\n", s.ip()),
            }
        }
        if self.trust_ad {
            text += "options trust-ad\n";
        }
        text
    }
}

struct Found {
    servers: Vec<SocketAddr>,
    trust_ad: bool,
    problems: Vec<String>,
}

/// Each `nameserver` line goes to hickory's reader by itself: of a whole file it refuses all servers for one search
/// domain that it dislikes, and it knows neither zones of addresses nor trust-ad.
fn read_text(text: &str, index_of: &dyn Fn(&str) -> Option<u32>) -> Found {
    let mut found = Found { servers: Vec::new(), trust_ad: false, problems: Vec::new() };
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("options") if words.any(|w| w == "trust-ad") => found.trust_ad = true,
            Some("nameserver") => match read_server(words.next().unwrap_or(""), index_of) {
                Ok(server) if found.servers.contains(&server) => {}
                Ok(server) if found.servers.len() < SERVERS_PER_TIER_MAX => found.servers.push(server),
                Ok(server) => found.problems.push(format!("{} is one server too many: left out", server.ip())),
                Err(problem) => found.problems.push(problem),
            },
            _ => {}
        }
        if found.problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    found
}

const PROBLEMS_MAX: usize = 16;

fn read_server(word: &str, index_of: &dyn Fn(&str) -> Option<u32>) -> Result<SocketAddr, String> {
    let shown: String = word.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    let (address, zone) = word.split_once('%').map_or((word, None), |(address, zone)| (address, Some(zone)));
    let parsed = address.parse::<IpAddr>().ok().and_then(|_| {
        let (config, _) = parse_resolv_conf(format!("nameserver {address}\n")).ok()?;
        config.name_servers().first().map(|server| server.ip)
    });
    match (parsed, zone) {
        // As the C library reads it: the unspecified address is this machine.
        (Some(IpAddr::V4(a)), None) if a.is_unspecified() => Ok((Ipv4Addr::LOCALHOST, DNS_PORT).into()),
        (Some(IpAddr::V6(a)), None) if a.is_unspecified() => Ok((Ipv6Addr::LOCALHOST, DNS_PORT).into()),
        (Some(IpAddr::V6(a)), None) if a.is_unicast_link_local() => {
            Err(format!("{shown} is a link-local address without its interface (fe80::1%eth0): left out"))
        }
        (Some(ip), None) => Ok((ip, DNS_PORT).into()),
        (Some(IpAddr::V6(a)), Some(zone)) if a.is_unicast_link_local() => {
            match zone.parse().ok().filter(|n| *n != 0).or_else(|| index_of(zone)) {
                Some(index) => Ok(SocketAddrV6::new(a, DNS_PORT, 0, index).into()),
                None => Err(format!("{shown}: there is no such interface: left out")),
            }
        }
        // A zone says nothing for an address that is the same everywhere.
        (Some(IpAddr::V6(a)), Some(_)) => Ok((a, DNS_PORT).into()),
        _ => Err(format!("\"{shown}\" is no address: left out")),
    }
}

//------------ Reading and remembering -------------------------------------------------------------------------------

const FILE_BYTES_MAX: u64 = 64 << 10;
/// The file in the state directory with the upstreams that the system named last.
pub const REMEMBERED: &str = "system-upstreams";

/// Reads the files and chooses. What a file named is remembered in `state`, where that is given and writable.
///
/// Never fails: what cannot be read or written is a remark.
pub fn read(paths: &[PathBuf], state: Option<&Path>, us: Us<'_>) -> Choice {
    let mut files = Vec::new();
    let mut troubles = Vec::new();
    for path in paths {
        match read_bounded(path, false) {
            Ok(text) => files.push((path.clone(), text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => troubles.push(format!("{}: {e}", path.display())),
        }
    }
    let kept_at = state.map(|directory| directory.join(REMEMBERED));
    let kept = kept_at.as_deref().map_or(Ok(String::new()), |path| read_bounded(path, true));
    let kept = kept.unwrap_or_else(|e| {
        if e.kind() != io::ErrorKind::NotFound {
            troubles.push(format!("remembered upstreams cannot be used: {e}"));
        }
        String::new()
    });
    let mut choice = choose(&files, us, &kept, &interface_index);
    if let (Origin::File(_), Some(path)) = (&choice.from, &kept_at) {
        let text = choice.remembered();
        if text != kept
            && let Err(e) = write_whole(path, &text)
        {
            troubles.push(format!("{}: the upstreams cannot be remembered: {e}", path.display()));
        }
    }
    choice.remarks.extend(troubles);
    choice
}

fn read_bounded(path: &Path, ours: bool) -> io::Result<String> {
    let no_follow = if ours { rustix::fs::OFlags::NOFOLLOW.bits() as i32 } else { 0 };
    // Without NONBLOCK a pipe in the place of a file would be waited for.
    let flags = no_follow | rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("not a file"));
    }
    if ours && about.permissions().mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write to the file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes a file so that there is the old one or the new one at any moment; mode 0600.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// The number of an interface of this machine.
pub fn interface_index(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}

//------------ This node ---------------------------------------------------------------------------------------------

/// This node's addresses and the networks on its links: those of its interfaces, and single addresses that are
/// routed to an interface, which is how container networks without a bridge hang their pods on a node.
///
/// What the kernel does not tell is left out; an empty answer makes `"local"` nobody.
pub fn own_networks() -> OwnNetworks {
    let mut own = OwnNetworks::default();
    let table = |path: &str| fs::read_to_string(path).unwrap_or_default();
    // Not this node's yet, or another one's: nobody is reached there.
    let if_inet6 = table("/proc/net/if_inet6");
    let unusable: Vec<IpAddr> = super::network::unusable(&if_inet6).map(IpAddr::V6).collect();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let (address, bits) = match interface.addr {
            IfAddr::V4(a) => (IpAddr::V4(a.ip), a.prefixlen),
            IfAddr::V6(a) => (IpAddr::V6(a.ip), a.prefixlen),
        };
        own.addresses.extend(Some(address).filter(|a| !unusable.contains(a)));
        own.links.extend(IpNet::new(address, bits).ok().map(|net| net.trunc()));
    }
    own.links.extend(host_routes_v4(&table("/proc/net/route")));
    own.links.extend(host_routes_v6(&table("/proc/net/ipv6_route")));
    own.addresses.sort_unstable();
    own.addresses.dedup();
    own.links.sort_unstable();
    own.links.dedup();
    own
}

/// Routes of single addresses without a gateway in the text of /proc/net/route.
fn host_routes_v4(table: &str) -> impl Iterator<Item = IpNet> + '_ {
    table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[_, to, gateway, flags, _, _, _, mask, ..] = words.as_slice() else { return None };
        let hex = |word| u32::from_str_radix(word, 16).ok();
        let direct = hex(gateway)? == 0 && hex(mask)? == u32::MAX && is_up_and_usable(hex(flags)?);
        // The table shows addresses as the machine's integers of network-order bytes.
        direct.then(|| IpNet::from(IpAddr::from(hex(to).unwrap_or(0).to_ne_bytes())))
    })
}

/// Routes of single addresses without a gateway in the text of /proc/net/ipv6_route, this node's own left out.
fn host_routes_v6(table: &str) -> impl Iterator<Item = IpNet> + '_ {
    table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[to, bits, _, _, gateway, _, _, _, flags, device] = words.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let direct = bits == "80" && gateway.bytes().all(|b| b == b'0') && device != "lo";
        let to = Ipv6Addr::from_bits(u128::from_str_radix(to, 16).ok()?);
        (direct && is_up_and_usable(flags) && !to.is_multicast()).then(|| IpNet::from(IpAddr::V6(to)))
    })
}

/// RTF_UP without RTF_GATEWAY and RTF_REJECT.
fn is_up_and_usable(flags: u32) -> bool {
    flags & 0x1 != 0 && flags & 0x2 == 0 && flags & 0x200 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_names_another_is_taken() {
        for (what, files, want) in [
            ("one server", &["nameserver 192.0.2.1\n"][..], &["192.0.2.1:53"][..]),
            (
                "order and no doubles",
                &["nameserver 192.0.2.2\nnameserver 192.0.2.1\nnameserver 192.0.2.2"],
                &["192.0.2.2:53", "192.0.2.1:53"],
            ),
            ("the second where the first is empty", &["# nothing\n", "nameserver 192.0.2.1"], &["192.0.2.1:53"]),
            (
                "the second where the first is us",
                &["nameserver 127.0.0.1", "nameserver 192.0.2.1"],
                &["192.0.2.1:53"],
            ),
            (
                "the first even where the second has more",
                &["nameserver 192.0.2.1", "nameserver 192.0.2.2"],
                &["192.0.2.1:53"],
            ),
            ("the others beside us", &["nameserver 127.0.0.1\nnameserver 192.0.2.1"], &["192.0.2.1:53"]),
            ("a stub that is not us", &["nameserver 127.0.0.53"], &["127.0.0.53:53"]),
            ("comments, tabs, CRLF", &["; x\n#y\nnameserver\t192.0.2.1 # z\r\n"], &["192.0.2.1:53"]),
            ("a bad search domain", &["search a..b\nnameserver 192.0.2.1"], &["192.0.2.1:53"]),
            ("what is no address", &["nameserver example.org\nnameserver 192.0.2.1"], &["192.0.2.1:53"]),
            (
                "IPv6 and its zones",
                &["nameserver fe80::1%eth0\nnameserver fe80::2%7\nnameserver 2001:db8::1%eth0"],
                &["[fe80::1%3]:53", "[fe80::2%7]:53", "[2001:db8::1]:53"],
            ),
            ("zones that are missing", &["nameserver fe80::1\nnameserver fe80::1%nope"], &[]),
            ("the unspecified address is this machine", &["nameserver ::"], &["[::1]:53"]),
            ("and so it is us", &["nameserver 0.0.0.0"], &[]),
            ("nothing", &[], &[]),
        ] {
            let choice = chosen(files, "127.0.0.1:53", "");
            let servers: Vec<String> = choice.servers.iter().map(SocketAddr::to_string).collect();
            assert_eq!(servers, want, "{what}: {:?}", choice.remarks);
        }
    }

    #[test]
    fn an_entry_is_us_by_port_53_and_the_wildcard_of_its_family() {
        for (listening, entry, is) in [
            ("127.0.0.1:53", "127.0.0.1", true),
            ("127.0.0.1:53", "127.0.0.2", false),
            ("127.0.0.1:1053", "127.0.0.1", false),
            ("0.0.0.0:53", "127.0.0.53", true),
            ("0.0.0.0:53", "192.0.2.7", true),
            ("0.0.0.0:53", "192.0.2.8", false),
            ("0.0.0.0:53", "::1", false),
            ("[::]:53", "::1", true),
            ("[::]:53", "127.0.0.1", false),
            ("[::]:1053", "::1", false),
        ] {
            let choice = chosen(&[&format!("nameserver {entry}")], listening, "");
            assert_eq!(choice.servers.is_empty(), is, "{listening} {entry}");
            assert_eq!(choice.remarks.len(), usize::from(is), "{listening} {entry}: an entry left out is said");
        }
    }

    #[test]
    fn a_stub_that_forwards_to_us_is_left_out() {
        let files = |upstream: &str| {
            [
                ("/run/systemd/resolve/resolv.conf".into(), format!("nameserver {upstream}")),
                ("/etc/resolv.conf".into(), "nameserver 127.0.0.53".into()),
            ]
        };
        assert_eq!(choose(&files("127.0.0.1"), us("127.0.0.1:53"), "", &no_index).from, Origin::Nowhere);
        let apart = choose(&files("127.0.0.1")[1..], us("127.0.0.1:53"), "", &no_index);
        assert_eq!(apart.servers.len(), 1);
    }

    #[test]
    fn trust_ad_is_of_the_file_that_is_taken() {
        for (files, want) in [
            (&["options edns0 trust-ad\nnameserver 192.0.2.1"][..], true),
            (&["nameserver 192.0.2.1\noptions edns0"], false),
            (&["options trust-ad\nnameserver 127.0.0.1", "nameserver 192.0.2.1"], false),
            (&["nameserver 192.0.2.1\noptions ndots:5\noptions trust-ad"], true),
        ] {
            assert_eq!(chosen(files, "127.0.0.1:53", "").trust_ad, want, "{files:?}");
        }
    }

    #[test]
    fn what_was_remembered_serves_where_all_files_are_empty() {
        let first = chosen(&["nameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions trust-ad"], "127.0.0.1:53", "");
        let later = chosen(&["nameserver 127.0.0.1"], "127.0.0.1:53", &first.remembered());
        assert_eq!((later.servers, later.trust_ad, later.from), (first.servers, true, Origin::Remembered));
        let own = chosen(&[], "192.0.2.1:53", "nameserver 192.0.2.1\noptions trust-ad");
        assert_eq!((own.servers, own.trust_ad, own.from), (vec![], false, Origin::Nowhere));
    }

    #[test]
    fn sixteen_servers_are_taken_and_a_seventeenth_is_not() {
        let text: String = (1..=17).map(|n| format!("nameserver 192.0.2.{n}\n")).collect();
        let choice = chosen(&[&text], "127.0.0.1:53", "");
        assert_eq!((choice.servers.len(), choice.remarks.len()), (16, 1));
    }

    #[test]
    fn files_are_read_remembered_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("resolv.conf");
        let paths = [dir.path().join("missing"), conf.clone()];
        let go = || read(&paths, Some(dir.path()), us("127.0.0.1:53"));
        assert_eq!(go().from, Origin::Nowhere);
        fs::write(&conf, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(go().from, Origin::File(conf.clone()));
        let kept = dir.path().join(REMEMBERED);
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&conf, "nameserver 127.0.0.1\n").unwrap();
        let choice = go();
        assert_eq!((choice.from, choice.servers), (Origin::Remembered, vec!["192.0.2.1:53".parse().unwrap()]));
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o666)).unwrap();
        let choice = go();
        assert_eq!(choice.from, Origin::Nowhere);
        assert!(choice.remarks.iter().any(|r| r.contains("others may write")), "{:?}", choice.remarks);
    }

    #[test]
    fn this_node_knows_its_loopback() {
        let own = own_networks();
        assert!(own.addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{own:?}");
    }

    #[test]
    fn routes_of_single_addresses_are_links_and_no_others() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                  cali1\t0563F40A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\
                  eth0\t0663F40A\t010200C0\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(host_routes_v4(v4).collect::<Vec<_>>(), ["10.244.99.5/32".parse::<IpNet>().unwrap()]);
        }
        let zero = "00000000000000000000000000000000";
        let line = |to: &str, bits: &str, via: &str, flags: &str, device: &str| {
            format!("{to} {bits} {zero} 00 {via} 00000400 00000001 00000000 {flags} {device}\n")
        };
        let pod = "fd000000000000000000000000000005";
        let v6 = [
            line(pod, "80", zero, "00000005", "cali1"),
            line(pod, "80", zero, "80200001", "lo"),
            line(pod, "80", pod, "00000003", "eth0"),
            line(pod, "40", zero, "00000001", "eth0"),
        ]
        .concat();
        assert_eq!(host_routes_v6(&v6).collect::<Vec<_>>(), ["fd00::5/128".parse::<IpNet>().unwrap()]);
    }

    fn chosen(texts: &[&str], listening: &str, remembered: &str) -> Choice {
        let file = |(n, text): (usize, &&str)| (PathBuf::from(format!("/file/{n}")), text.to_string());
        let files: Vec<_> = texts.iter().enumerate().map(file).collect();
        choose(&files, us(listening), remembered, &|name| (name == "eth0").then_some(3))
    }

    fn us(listening: &str) -> Us<'static> {
        let listening = vec![listening.parse().unwrap()].leak();
        Us { listening, addresses: vec!["192.0.2.7".parse().unwrap()].leak() }
    }

    fn no_index(_: &str) -> Option<u32> {
        None
    }
}
