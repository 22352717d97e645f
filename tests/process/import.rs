//! `evenkeel import` with the real binary: golden files, and what it prints served.
//!
//! `tests/import/NAME.FORMAT` is a source, `NAME.FORMAT.toml` what is printed, `NAME.FORMAT.left` what goes to stderr.
//! `nodelocaldns` is the Corefile of Kubernetes' addon (cluster/addons/dns/nodelocaldns, Apache 2.0), `kubeadm` the one
//! that kubeadm installs, `debian` what Debian's dnsmasq (all of it comments) and unbound packages install, without its
//! comments, `shown` the options that Debian's dnsmasq.conf has as comments, `written` what people write beyond it.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::busy;
use crate::support::daemon::{Daemon, evenkeel};
use crate::support::message::{rcode, rtype};
use crate::support::peers::{KINDS_ORIGIN, nsd};
use crate::support::scripted::Upstream;
use crate::support::zone::Zone;

const GOLDEN: [&str; 8] = [
    "nodelocaldns.corefile",
    "kubeadm.corefile",
    "written.corefile",
    "debian.dnsmasq",
    "shown.dnsmasq",
    "written.dnsmasq",
    "debian.unbound",
    "written.unbound",
];

/// With EVENKEEL_BLESS=1 the golden files are written, to be read in the diff.
#[test]
fn what_others_ship_and_people_write_comes_out_as_it_did() {
    let _busy = busy();
    let bless = std::env::var_os("EVENKEEL_BLESS").is_some_and(|v| v == "1");
    for name in GOLDEN {
        let (path, format) = (format!("tests/import/{name}"), name.rsplit('.').next().unwrap());
        let ended = evenkeel(&["import", format, &path]);
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
        for (kind, text) in [("toml", &ended.stdout), ("left", &ended.stderr)] {
            let golden = format!("{path}.{kind}");
            if bless {
                fs::write(&golden, text).unwrap();
            }
            assert_eq!(*text, fs::read_to_string(&golden).unwrap(), "{golden}");
        }
        let checked = evenkeel(&["check", &format!("{path}.toml")]);
        assert_eq!(checked.code, Some(0), "{name}: {checked:?}");
        let comments = ended.stdout.lines().filter(|l| l.starts_with("# line ")).count();
        assert_eq!(comments, ended.stderr.lines().count(), "{name}: a comment for each line of stderr");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_place_and_hint() {
    let _busy = busy();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let file = file.to_str().unwrap();
    let long = "#".repeat((1 << 20) + 1);
    for (text, said) in [
        (b". {\n errors\n".as_slice(), ":1: a block is not closed"),
        (b"\n\xff\n", "line 2 is not UTF-8"),
        (long.as_bytes(), "more than 1 MiB"),
    ] {
        fs::write(file, text).unwrap();
        let ended = evenkeel(&["import", "corefile", file]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains(said) && ended.stderr.contains("hint:"), "{ended:?}");
    }
    for missing in ["/nonexistent/Corefile", "/"] {
        assert_eq!(evenkeel(&["import", "corefile", missing]).code, Some(1), "{missing}");
    }
}

#[test]
fn stdin_is_read_as_a_file_is() {
    let _busy = busy();
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(["import", "dnsmasq", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"no-resolv\nserver=192.0.2.1\ndomain-needed\nlocal-service\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("primary = [\"192.0.2.1\"]"));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("stdin:3: domain-needed: "));
}

/// What is printed for `text`, with the tests' own addresses to listen on.
fn imported(format: &str, text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("source");
    fs::write(&file, text).unwrap();
    let ended = evenkeel(&["import", format, file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let listen = "dns = [\"127.0.0.1:53\"]\n";
    assert!(ended.stdout.contains(listen), "{}", ended.stdout);
    ended.stdout.replace(listen, "")
}

#[test]
fn an_imported_file_serves_what_its_source_served() {
    let _busy = busy();
    let all = Upstream::new(Zone::new(".").any_below("test.", 60, "192.0.2.1"));
    let corp = Upstream::new(Zone::new("corp.test.").any_below("corp.test.", 60, "192.0.2.2"));
    let (a, c) = (all.address(), corp.address());
    for (format, text) in [
        (
            "corefile",
            format!(
                ". {{\n bind 127.0.0.1\n forward . {a}\n hosts {{\n  192.0.2.7 printer.lan\n  fallthrough\n }}\n \
                 template ANY ANY ads.test {{\n  rcode NXDOMAIN\n }}\n}}\n\
                 corp.test {{\n bind 127.0.0.1\n forward . {c}\n}}\n"
            ),
        ),
        (
            "dnsmasq",
            format!(
                "listen-address=127.0.0.1\nno-resolv\nserver={}#{}\nserver=/corp.test/{}#{}\n\
                 host-record=printer.lan,192.0.2.7\naddress=/ads.test/\n",
                a.ip(),
                a.port(),
                c.ip(),
                c.port()
            ),
        ),
        (
            "unbound",
            format!(
                "server:\n interface: 127.0.0.1\n local-data: \"printer.lan A 192.0.2.7\"\n \
                 local-zone: \"ads.test\" always_nxdomain\n\
                 forward-zone:\n name: \".\"\n forward-addr: {}@{}\n\
                 forward-zone:\n name: \"corp.test\"\n forward-addr: {}@{}\n",
                a.ip(),
                a.port(),
                c.ip(),
                c.port()
            ),
        ),
    ] {
        let daemon = Daemon::start(&imported(format, &text));
        assert_eq!(daemon.ask("www.test.", rtype::A).addresses(), [[192, 0, 2, 1]], "{format}");
        assert_eq!(daemon.ask("www.corp.test.", rtype::A).addresses(), [[192, 0, 2, 2]], "{format}");
        assert_eq!(daemon.ask("printer.lan.", rtype::A).addresses(), [[192, 0, 2, 7]], "{format}");
        assert_eq!(daemon.ask("x.ads.test.", rtype::A).rcode, rcode::NXDOMAIN, "{format}");
    }
    assert_eq!(all.count("www.corp.test.", rtype::A) + all.count("x.ads.test.", rtype::A), 0);
}

#[test]
fn an_imported_file_forwards_to_nsd() {
    let _busy = busy();
    let Some(nsd) = nsd() else { return };
    let (ip, port) = (nsd.address().ip(), nsd.address().port());
    let text = format!("listen-address=127.0.0.1\nno-resolv\nserver={ip}#{port}\n");
    let daemon = Daemon::start(&imported("dnsmasq", &text));
    assert_eq!(daemon.ask(&format!("a.{KINDS_ORIGIN}"), rtype::A).addresses(), [[192, 0, 2, 1]]);
}
