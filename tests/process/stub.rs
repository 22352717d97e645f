//! `evenkeel stub` on a machine of its own: a network and mount namespace with evenkeel on 127.0.0.1:53, a server of the
//! system on 127.0.0.2:53, and the resolvers of glibc, musl and Python, which read the resolv.conf that is written.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::daemon::{Daemon, program, run};
use crate::support::message::{rcode, rtype};
use crate::support::namespace::{Room, inside};
use crate::support::peers::Peer;
use crate::support::scripted::{Behaviour, Upstream};
use crate::support::wait_for;
use crate::support::zone::Zone;

const RESOLV: &str = "/etc/resolv.conf";
const ORIGINAL: &str = "# by hand\nnameserver 127.0.0.2\nsearch one.test two.test\noptions ndots:2\n";
const CONFIGURATION: &str =
    "[listen]\ndns = [\"127.0.0.1:53\", \"0.0.0.0:{port}\"]\n[access]\nallow = [\"loopback\"]\n";
/// So many addresses do not fit into a datagram.
const MANY: usize = 150;
/// The bar is a second for what the kernel tells.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(1);

const LOOK_UP_C: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int count, char **words) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    char text[64];
    if (count < 2 || getaddrinfo(words[1], 0, &hints, &found)) return 2;
    for (; found; found = found->ai_next) {
        void *address = found->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr
                                                    : (void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr;
        puts(inet_ntop(found->ai_family, address, text, sizeof text));
    }
    return 0;
}
"#;
const LOOK_UP_PYTHON: &str = "import socket, sys\n\
    for found in socket.getaddrinfo(sys.argv[1], None, type=socket.SOCK_STREAM): print(found[4][0])\n";

fn zone(last: u8) -> Zone {
    let mut zone = Zone::new(".").a("www.names.test.", 60, &format!("192.0.2.{last}"));
    zone = zone.aaaa("www.names.test.", 60, "2001:db8::1").a("host.two.test.", 60, "192.0.2.2");
    for n in 0..MANY {
        zone = zone.a("many.test.", 60, &format!("10.0.0.{n}"));
    }
    zone
}

// A file that is a mount of its own can only be written in place.
#[test]
fn programs_resolve_through_evenkeel_while_the_stub_is_enabled() {
    if inside(Room::NetworkAndMounts, "stub::programs_resolve_through_evenkeel_while_the_stub_is_enabled").is_none() {
        return;
    }
    let scene = Scene::new();
    scene.mount_file(RESOLV, ORIGINAL);
    let upstream = Upstream::at("127.0.0.2:53".parse().unwrap(), zone(1));
    upstream.behave(Behaviour::Fail(rcode::SERVFAIL, None));
    let daemon = Daemon::start(CONFIGURATION);

    let refused = daemon.command(&["stub", "enable"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("SERVFAIL") || refused.stderr.contains("are down"), "{refused:?}");
    assert_eq!(fs::read_to_string(RESOLV).unwrap(), ORIGINAL);
    assert!(!Path::new("/var/lib/evenkeel-stub").exists());
    upstream.behave(Behaviour::Answer);
    let _ = daemon.command(&["flush", "--all"]);

    let inode = fs::metadata(RESOLV).unwrap().ino();
    let dry = wait_for("evenkeel that answers", Duration::from_secs(8), || {
        Some(daemon.command(&["stub", "enable", "--dry-run"])).filter(|ended| ended.code == Some(0))
    });
    assert!(dry.stdout.contains("    nameserver 127.0.0.1\n"), "{dry:?}");
    assert_eq!(fs::read_to_string(RESOLV).unwrap(), ORIGINAL);
    // In a user namespace that maps nobody this process is not root, to whom alone the file belongs.
    let mut other = Command::new(Peer::Unshare.path().expect("it made this room"));
    other.arg("-U").arg(program().get_program()).args(["stub", "enable", "--socket"]).arg(daemon.socket());
    let refused = run(other);
    if !refused.stderr.contains("unshare") {
        assert_eq!(refused.code, Some(3), "{refused:?}");
        assert!(refused.stderr.starts_with("evenkeel: only root may change resolv.conf\n  hint: "), "{refused:?}");
        assert!(!refused.stderr.contains("taken back"), "{refused:?}");
    }
    let enabled = daemon.command(&["stub", "enable"]);
    assert_eq!(enabled.code, Some(0), "{enabled:?}");
    let written = fs::read_to_string(RESOLV).unwrap();
    assert!(
        written.ends_with("nameserver 127.0.0.1\nsearch one.test two.test\noptions ndots:2 edns0 trust-ad\n"),
        "{written}"
    );
    assert_eq!(fs::metadata(RESOLV).unwrap().ino(), inode, "in place");
    let again = daemon.command(&["stub", "enable"]);
    assert!(again.stdout.starts_with("is enabled"), "{again:?}");

    for (what, look_up) in scene.resolvers() {
        let addresses = look_up("www.names.test");
        assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"], "{what}: both families\n{}", daemon.log());
        // musl before 1.2.4 never asks over TCP: it takes what fits into the datagram.
        let many = look_up("many.test").len();
        assert!(many == MANY || what == "musl" && many > 0, "{what}: what does not fit comes over TCP: {many}");
        assert_eq!(look_up("host"), ["192.0.2.2"], "{what}: by the search list");
        // The names that the search list tried and that do not exist are known as well.
        upstream.forget();
        assert_eq!(look_up("host"), ["192.0.2.2"], "{what}");
        assert_eq!(upstream.live_count(), 0, "{what}: {:?}", upstream.seen());
    }
    assert!(upstream.live_count() == 0 && upstream.connections() > 0);

    // What only the old file knew is followed where it is kept.
    let second = Upstream::at("127.0.0.3:53".parse().unwrap(), zone(9));
    fs::write("/var/lib/evenkeel-stub/resolv.conf", "nameserver 127.0.0.3\n").unwrap();
    let said = "by /var/lib/evenkeel-stub/resolv.conf: 127.0.0.3:53";
    wait_for("the other server", FOLLOWED_WITHIN, || daemon.log().contains(said).then_some(()));
    assert_eq!(daemon.ask("fresh.names.test.", rtype::A).rcode, rcode::NXDOMAIN);
    assert_eq!(second.count("fresh.names.test.", rtype::A), 1);

    let disabled = daemon.command(&["stub", "disable"]);
    assert_eq!(disabled.code, Some(0), "{disabled:?}");
    assert_eq!(fs::read_to_string(RESOLV).unwrap(), ORIGINAL);
    assert_eq!(fs::metadata(RESOLV).unwrap().ino(), inode);
    assert!(!Path::new("/var/lib/evenkeel-stub").exists());
    let again = daemon.command(&["stub", "disable"]);
    assert!(again.code == Some(0) && again.stdout.starts_with("is not enabled"), "{again:?}");
}

// systemd-resolved beside it: the link is replaced and comes back, its servers are followed as it replaces their file.
#[test]
fn a_link_of_systemd_resolved_is_replaced_and_comes_back() {
    if inside(Room::NetworkAndMounts, "stub::a_link_of_systemd_resolved_is_replaced_and_comes_back").is_none() {
        return;
    }
    let scene = Scene::new();
    let etc = scene.directory.path().join("etc");
    fs::create_dir(&etc).unwrap();
    for file in ["passwd", "hosts"] {
        let _ = fs::copy(Path::new("/etc").join(file), etc.join(file));
    }
    fs::write(etc.join("nsswitch.conf"), "hosts: files resolve [!UNAVAIL=return] dns\n").unwrap();
    let target = "../run/systemd/resolve/stub-resolv.conf";
    std::os::unix::fs::symlink(target, etc.join("resolv.conf")).unwrap();
    mount(&["--bind", etc.to_str().unwrap(), "/etc"]);
    let _upstream = Upstream::at("127.0.0.2:53".parse().unwrap(), zone(1));
    // Nothing of resolved is there when evenkeel starts.
    let daemon = Daemon::start(CONFIGURATION);
    fs::create_dir_all("/run/systemd/resolve").unwrap();
    fs::write("/run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\nsearch two.test\n").unwrap();
    let follow = |server: &str| {
        fs::write("/run/systemd/resolve/new", format!("nameserver {server}\n")).unwrap();
        fs::rename("/run/systemd/resolve/new", "/run/systemd/resolve/resolv.conf").unwrap();
        let said = format!("by /run/systemd/resolve/resolv.conf: {server}:53");
        wait_for(&said, FOLLOWED_WITHIN, || daemon.log().contains(&said).then_some(()));
    };
    follow("127.0.0.2");
    let enabled = wait_for("evenkeel that answers", Duration::from_secs(8), || {
        Some(daemon.command(&["stub", "enable"])).filter(|ended| ended.code == Some(0))
    });
    assert!(enabled.stderr.contains("nsswitch.conf asks systemd-resolved before DNS"), "{enabled:?}");
    assert!(fs::symlink_metadata(RESOLV).unwrap().is_file());
    assert!(fs::read_to_string(RESOLV).unwrap().contains("nameserver 127.0.0.1\nsearch two.test\n"));
    assert_eq!(scene.resolvers()[0].1("host"), ["192.0.2.2"], "{}", daemon.log());
    let _third = Upstream::at("127.0.0.4:53".parse().unwrap(), zone(1));
    follow("127.0.0.4");

    assert_eq!(daemon.command(&["stub", "disable"]).code, Some(0));
    assert_eq!(fs::read_link(RESOLV).unwrap(), Path::new(target));
}

// As a container's image or somebody by hand may have it: the package's prerm asks `stub disable` too.
#[test]
fn a_resolv_conf_that_names_evenkeel_alone_is_not_left_behind() {
    if inside(Room::NetworkAndMounts, "stub::a_resolv_conf_that_names_evenkeel_alone_is_not_left_behind").is_none() {
        return;
    }
    let scene = Scene::new();
    scene.mount_file(RESOLV, "nameserver 127.0.0.1\n");
    let _upstream = Upstream::at("127.0.0.2:53".parse().unwrap(), zone(1));
    let daemon = Daemon::start(&format!("{CONFIGURATION}[groups.default]\nprimary = [\"127.0.0.2\"]\n"));
    let refused = wait_for("evenkeel that answers", Duration::from_secs(8), || {
        Some(daemon.command(&["stub", "enable"])).filter(|ended| ended.code == Some(1))
    });
    assert!(refused.stderr.contains("names evenkeel alone already"), "{refused:?}");
    let refused = daemon.command(&["stub", "disable"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("would name evenkeel alone"), "{refused:?}");
    let forced = daemon.command(&["stub", "disable", "--force"]);
    assert!(forced.code == Some(0) && forced.stdout.starts_with("is not enabled"), "{forced:?}");
    fs::write(RESOLV, "nameserver 127.0.0.1\nnameserver 127.0.0.2\n").unwrap();
    assert_eq!(daemon.command(&["stub", "disable"]).code, Some(0));
    assert!(!Path::new("/var/lib/evenkeel-stub").exists());
}

#[test]
fn a_port_that_resolv_conf_cannot_say_is_refused() {
    let daemon = Daemon::start("");
    let refused = daemon.command(&["stub", "enable", "--dry-run"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("does not listen at port 53"), "{refused:?}");
}

/// The machine of a test; only within its namespace.
struct Scene {
    directory: tempfile::TempDir,
}

type LookUp = Box<dyn Fn(&str) -> Vec<String>>;

impl Scene {
    /// Nothing of the machine's own is touched: what `stub` writes besides resolv.conf is in memory.
    fn new() -> Self {
        let scene = Self { directory: tempfile::tempdir().unwrap() };
        for directory in ["/run", "/var/lib"] {
            mount(&["-t", "tmpfs", "tmpfs", directory]);
        }
        scene
    }

    fn mount_file(&self, path: &str, text: &str) {
        let own = self.directory.path().join(path.rsplit('/').next().unwrap());
        fs::write(&own, text).unwrap();
        mount(&["--bind", own.to_str().unwrap(), path]);
    }

    /// Those that are installed, each as a function from a name to its addresses, sorted; the C library's comes first.
    fn resolvers(&self) -> Vec<(&'static str, LookUp)> {
        let mut found: Vec<(&'static str, LookUp)> = Vec::new();
        let getent = Peer::Getent.path().expect("it is a part of the C library");
        found.push(("glibc", look_up(getent, vec!["-s".into(), "hosts:dns".into(), "ahosts".into()])));
        if let Some(python) = Peer::Python.path() {
            found.push(("Python", look_up(python, vec!["-c".into(), LOOK_UP_PYTHON.into()])));
        }
        if let Some(compiler) = Peer::MuslGcc.path() {
            let (source, program) = (self.directory.path().join("look_up.c"), self.directory.path().join("look_up"));
            fs::write(&source, LOOK_UP_C).unwrap();
            let mut command = Command::new(compiler);
            command.args(["-static", "-o"]).arg(&program).arg(&source);
            let ended = run(command);
            assert_eq!(ended.code, Some(0), "{ended:?}");
            found.push(("musl", look_up(program, Vec::new())));
        }
        found
    }
}

fn look_up(program: PathBuf, arguments: Vec<String>) -> LookUp {
    Box::new(move |name| {
        let mut command = Command::new(&program);
        command.args(&arguments).arg(name);
        let ended = run(command);
        let mut addresses: Vec<String> =
            ended.stdout.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    })
}

fn mount(arguments: &[&str]) {
    let mut command = Command::new("mount");
    command.args(arguments);
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "mount {arguments:?}: {ended:?}");
}
