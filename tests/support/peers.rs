//! The programs of others: dig, kdig, NSD, unbound, ip, unshare, promtool, Chromium and its driver, systemd's tools,
//! getent, musl-gcc, python3, fstrm_capture, dnstap-ldns.
//!
//! Where one is not installed, the tests that need it say so and are skipped; with EVENKEEL_REQUIRE_PEERS=1, as in CI,
//! they fail instead. NSD and unbound run as the user of the tests, in a directory of their own, without chroot.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::client::exchange_udp;
use super::free_address;
use super::message::{Message, Question, rtype};

/// A program that tests use where it is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Dig,
    Kdig,
    Nsd,
    Unbound,
    Ip,
    Unshare,
    Promtool,
    Chromium,
    Chromedriver,
    SystemdAnalyze,
    SystemdSocketActivate,
    FstrmCapture,
    DnstapLdns,
    Getent,
    MuslGcc,
    Python,
}

impl Peer {
    fn word(self) -> &'static str {
        match self {
            Peer::Dig => "dig",
            Peer::Kdig => "kdig",
            Peer::Nsd => "nsd",
            Peer::Unbound => "unbound",
            Peer::Ip => "ip",
            Peer::Unshare => "unshare",
            Peer::Promtool => "promtool",
            Peer::Chromium => "chromium",
            Peer::Chromedriver => "chromedriver",
            Peer::SystemdAnalyze => "systemd-analyze",
            Peer::SystemdSocketActivate => "systemd-socket-activate",
            Peer::FstrmCapture => "fstrm_capture",
            Peer::DnstapLdns => "dnstap-ldns",
            Peer::Getent => "getent",
            Peer::MuslGcc => "musl-gcc",
            Peer::Python => "python3",
        }
    }

    /// Where it is; `None`, after a line that says so, where it is not installed.
    ///
    /// # Panics
    ///
    /// Where it is not installed and EVENKEEL_REQUIRE_PEERS is 1.
    pub fn path(self) -> Option<PathBuf> {
        let places = std::env::var_os("PATH").unwrap_or_default();
        let mut places: Vec<PathBuf> = std::env::split_paths(&places).collect();
        // Servers stand where a plain user's PATH does not lead.
        places.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        let found = places.into_iter().map(|p| p.join(self.word())).find(|p| p.is_file());
        if found.is_none() {
            let line = format!("skipped: {} is not installed\n", self.word());
            assert!(std::env::var_os("EVENKEEL_REQUIRE_PEERS").is_none_or(|v| v != "1"), "{line}");
            let _ = io::stderr().write_all(line.as_bytes());
        }
        found
    }
}

/// A server of others, running. It is ended, with its children, when dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(mut command: Command, address: SocketAddr, directory: TempDir, probe: &str) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let errors = fs::File::create(directory.path().join("stderr")).unwrap();
        let child = command.stderr(errors).process_group(0).spawn().unwrap();
        let server = Self { child, address, _directory: directory };
        let question = Question::new(probe, rtype::SOA).to_bytes();
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let reply = exchange_udp(address, &question, Duration::from_millis(100));
            if reply.is_ok_and(|r| !Message::read(&r).answers.is_empty()) {
                return server;
            }
            let said = fs::read_to_string(server._directory.path().join("stderr")).unwrap_or_default();
            assert!(Instant::now() < end, "{command:?} does not answer\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::TERM);
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Starts NSD with [`KINDS_ORIGIN`].
pub fn nsd() -> Option<Server> {
    let path = Peer::Nsd.path()?;
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let place = directory.path().display().to_string();
    fs::write(directory.path().join("kinds.zone"), kinds_zone()).unwrap();
    let configuration = format!(
        "server:\n ip-address: {}@{}\n username: \"\"\n chroot: \"\"\n zonesdir: \"{place}\"\n pidfile: \"\"\n \
         xfrdfile: \"{place}/xfrd\"\n xfrdir: \"{place}\"\n zonelistfile: \"{place}/zone.list\"\n database: \"\"\n \
         server-count: 1\nremote-control:\n control-enable: no\n\
         zone:\n name: {KINDS_ORIGIN}\n zonefile: kinds.zone\n",
        address.ip(),
        address.port(),
    );
    fs::write(directory.path().join("nsd.conf"), configuration).unwrap();
    let mut command = Command::new(path);
    command.arg("-d").arg("-c").arg(directory.path().join("nsd.conf"));
    Some(Server::start(command, address, directory, KINDS_ORIGIN))
}

/// Starts unbound as a resolver that knows [`KINDS_ORIGIN`] from `authority`, the root's NS, and nothing else.
pub fn unbound(authority: SocketAddr) -> Option<Server> {
    let path = Peer::Unbound.path()?;
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let place = directory.path().display().to_string();
    let configuration = format!(
        "server:\n interface: {ip}@{port}\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{place}\"\n \
         pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n do-not-query-localhost: no\n num-threads: 1\n \
         module-config: \"iterator\"\n max-query-restarts: 20\n rrset-roundrobin: no\n access-control: 127.0.0.0/8 allow\n minimal-responses: no\n \
         local-zone: \".\" static\n local-data: \". 3600 IN NS ns.{KINDS_ORIGIN}\"\n \
         local-zone: \"{KINDS_ORIGIN}\" transparent\n\
         remote-control:\n control-enable: no\n\
         stub-zone:\n name: {KINDS_ORIGIN}\n stub-addr: {aip}@{aport}\n",
        ip = address.ip(),
        port = address.port(),
        aip = authority.ip(),
        aport = authority.port(),
    );
    fs::write(directory.path().join("unbound.conf"), configuration).unwrap();
    let mut command = Command::new(path);
    command.arg("-d").arg("-c").arg(directory.path().join("unbound.conf"));
    Some(Server::start(command, address, directory, KINDS_ORIGIN))
}

/// The zone that has a record of every kind.
pub const KINDS_ORIGIN: &str = "kinds.example.";

/// Names below [`KINDS_ORIGIN`] and the type to ask each for. The large ones do not fit into a datagram.
pub const KINDS: &[(&str, u16)] = &[
    ("a", 1),
    ("aaaa", 28),
    ("MiXed", 1),
    ("mx", 15),
    ("txt", 16),
    ("srv", 33),
    ("caa", 257),
    ("svcb", 64),
    ("https", 65),
    ("naptr", 35),
    ("ds", 43),
    ("sshfp", 44),
    ("tlsa", 52),
    ("loc", 29),
    ("hinfo", 13),
    ("ptr", 12),
    ("apl", 42),
    ("apl-empty", 42),
    ("unknown", 65400),
    ("unknown-empty", 65400),
    ("chain1", 1),
    ("x.dname", 1),
    ("many", 1),
    ("huge", 16),
    ("none", 1),
    ("nodata", 28),
];

fn kinds_zone() -> String {
    let mut zone = String::from(
        "$TTL 300\n\
         @ IN SOA ns host 1 3600 600 86400 60\n\
         @ IN NS ns\n\
         ns IN A 192.0.2.53\n\
         a IN A 192.0.2.1\n\
         aaaa IN AAAA 2001:db8::1\n\
         MiXed IN A 192.0.2.2\n\
         mx IN MX 10 a\n\
         mx IN MX 20 aaaa\n\
         txt IN TXT \"one\" \"two\" \"\\255\\000\"\n\
         srv IN SRV 0 5 5060 a\n\
         caa IN CAA 0 issue \"ca.example\"\n\
         svcb IN SVCB 1 a port=8443\n\
         https IN HTTPS 1 . alpn=\"h2,h3\" ipv4hint=192.0.2.1\n\
         naptr IN NAPTR 100 10 \"u\" \"E2U+sip\" \"!^.*$!sip:x@kinds.example!\" .\n\
         ds IN DS 12345 13 2 49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD\n\
         ds IN NS ns\n\
         sshfp IN SSHFP 4 2 49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD\n\
         tlsa IN TLSA 3 1 1 49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD\n\
         loc IN LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m\n\
         hinfo IN HINFO \"cpu\" \"os\"\n\
         ptr IN PTR a\n\
         apl IN APL 1:192.168.32.0/21 !1:192.168.38.0/28\n\
         apl-empty IN APL \\# 0\n\
         unknown IN TYPE65400 \\# 4 01020304\n\
         unknown-empty IN TYPE65400 \\# 0\n\
         dname IN DNAME target\n\
         x.target IN A 192.0.2.3\n\
         nodata IN A 192.0.2.4\n\
         chain13 IN A 192.0.2.13\n",
    );
    // Asked for chain1: twelve aliases and an address.
    for n in 1..=12 {
        zone += &format!("chain{n} IN CNAME chain{}\n", n + 1);
    }
    for n in 0..400 {
        zone += &format!("many IN A 10.0.{}.{}\n", n / 250, n % 250 + 1);
    }
    // 244 strings of 255 bytes and their lengths: 62,464 bytes in one set of four records.
    for n in 0..4 {
        let strings: Vec<String> = (0..61).map(|s| format!("\"{}\"", format!("{n}{s:02}").repeat(85))).collect();
        zone += &format!("huge IN TXT {}\n", strings.join(" "));
    }
    zone
}

#[cfg(test)]
mod tests {
    use super::super::client::ask_tcp;
    use super::super::message::rcode;
    use super::*;

    #[test]
    fn the_zone_has_what_it_says_on_both_servers() {
        let Some(nsd) = nsd() else { return };
        let unbound = unbound(nsd.address());
        for server in [Some(nsd.address()), unbound.as_ref().map(Server::address)].into_iter().flatten() {
            for (name, qtype) in KINDS {
                let reply = ask_tcp(server, &Question::new(&format!("{name}.{KINDS_ORIGIN}"), *qtype));
                let (rcode_want, answers) = match *name {
                    "none" => (rcode::NXDOMAIN, 0..=0),
                    "nodata" => (rcode::NOERROR, 0..=0),
                    "chain1" => (rcode::NOERROR, 13..=13),
                    "many" => (rcode::NOERROR, 400..=400),
                    "huge" => (rcode::NOERROR, 4..=4),
                    _ => (rcode::NOERROR, 1..=3),
                };
                assert_eq!(reply.rcode, rcode_want, "{name}");
                assert!(answers.contains(&reply.answers.len()), "{name}: {reply:?}");
                assert!(*name != "huge" || reply.len() > 60 * 1024, "{name}");
            }
        }
    }
}
