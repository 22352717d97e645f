//! The packages: their configuration is accepted, and what `packaging/build` makes has what it says.
//!
//! Both are built from the test's own binary where cargo-deb and cargo-generate-rpm are installed, else that is skipped;
//! with EVENKEEL_REQUIRE_PACKAGERS=1 it fails instead. What the scripts decide is tried on a made-up machine;
//! installing, upgrading and purging on a whole one, in `tests/guest`.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Where things are in both packages, beside completions of zsh, whose place differs.
const FILES: &[&str] = &[
    "/etc/evenkeel/evenkeel.toml",
    "/usr/bin/evenkeel",
    "/usr/lib/evenkeel/who-has-port-53",
    "/usr/lib/sysusers.d/evenkeel.conf",
    "/usr/lib/tmpfiles.d/evenkeel.conf",
    "/usr/share/bash-completion/completions/evenkeel",
    "/usr/share/doc/evenkeel/NEWS.gz",
    "/usr/share/doc/evenkeel/runbooks/EvenkeelDown.md",
    "/usr/share/fish/vendor_completions.d/evenkeel.fish",
    "/usr/share/man/man1/evenkeel.1.gz",
    "/usr/share/man/man1/evenkeel-serve.1.gz",
    "/usr/share/man/man1/evenkeel-support-bundle.1.gz",
];

#[test]
fn the_packages_configuration_is_accepted_and_listens_where_stub_resolvers_ask() {
    let file = at("packaging/evenkeel.toml");
    let said = output(Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("check").arg(&file));
    assert!(!said.contains("warning"), "{said}");
    let text = fs::read_to_string(file).unwrap();
    let (config, warnings) = evenkeel::config::parse(&text, &|_| None, &[]).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let listen: Vec<String> = config.listen.dns.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:53", "[::1]:53"]);
}

#[test]
fn scripts_of_the_packages_are_read_by_a_plain_shell() {
    for name in ["deb/postinst", "deb/prerm", "deb/postrm", "rpm/post", "rpm/preun", "rpm/postun", "who-has-port-53"]
    {
        output(Command::new("sh").arg("-n").arg(at("packaging").join(name)));
    }
}

#[test]
fn who_has_the_port_is_named() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    let ask = || Command::new("sh").arg(at("packaging/who-has-port-53")).arg(&port).output().unwrap();
    let said = ask();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success());
    assert!(text.starts_with(&format!("127.0.0.1:{port} udp ")), "{text}");
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    drop(socket);
    assert_eq!(ask().status.code(), Some(1));
}

#[test]
fn a_socket_that_evenkeel_has_too_or_systemd_for_it_is_not_taken() {
    for (what, holders, listed, kept, want) in [
        ("evenkeel and systemd's store", "1 systemd, 70 evenkeel", "", "0", ""),
        ("systemd's store alone", "1 systemd", "", "4", ""),
        ("evenkeel.socket", "1 systemd", "127.0.0.1:53 evenkeel.socket evenkeel.service", "0", ""),
        (
            "another unit's socket",
            "1 systemd",
            "127.0.0.1:53 other.socket other.service",
            "4",
            "systemd for other.socket (pid 1)",
        ),
        ("systemd, nobody knows for whom", "1 systemd", "[::1]:53 evenkeel.socket", "0", "systemd (pid 1)"),
        ("systemd and another", "1 systemd, 71 dnsmasq", "", "4", "dnsmasq (pid 71)"),
        ("another that is not the first process", "9 systemd", "", "4", "systemd (pid 9)"),
    ] {
        let machine = Machine::new();
        machine.program("bin/systemctl", "case $* in *list-sockets) echo \"$LISTED\" ;; *) echo \"$KEPT\" ;; esac");
        let row = "  0: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0 0\n";
        machine.file("proc/net/udp", row);
        for holder in holders.split(", ") {
            let (pid, name) = holder.split_once(' ').unwrap();
            machine.file(&format!("proc/{pid}/comm"), &format!("{name}\n"));
            fs::create_dir(machine.at(&format!("proc/{pid}/fd"))).unwrap();
            symlink("socket:[4711]", machine.at(&format!("proc/{pid}/fd/5"))).unwrap();
        }
        let done = machine.run("who-has-port-53", &[], &[("LISTED", listed), ("KEPT", kept)]);
        let said = if want.is_empty() { String::new() } else { format!("127.0.0.1:53 udp {want}\n") };
        assert_eq!((done.status.code(), done.stdout), (Some(i32::from(want.is_empty())), said), "{what}");
    }
}

#[test]
fn installing_leaves_a_service_that_runs_or_that_can_start_or_that_is_off() {
    const RESTART: &str = "deb-systemd-invoke restart evenkeel.service";
    const START: &str = "deb-systemd-invoke start evenkeel.service";
    const DISABLE: &str = "deb-systemd-helper disable evenkeel.service";
    const TAKEN: &str = "127.0.0.1:53 udp dnsmasq (pid 71)";
    for (what, before, state, is_enabled, taken, want, said) in [
        ("an upgrade", "0.1.0-1", "active", "yes", TAKEN, &[RESTART][..], ""),
        ("one that crashes again and again", "0.1.0-1", "activating", "yes", TAKEN, &[RESTART], ""),
        ("one that reloads", "0.1.0-1", "reloading", "yes", TAKEN, &[RESTART], ""),
        ("one that ends", "0.1.0-1", "deactivating", "yes", TAKEN, &[RESTART], ""),
        ("the first time", "", "inactive", "yes", "", &[START], ""),
        ("the first time, port taken", "", "inactive", "yes", TAKEN, &[DISABLE], "systemctl enable --now evenkeel"),
        (
            "an upgrade of a stopped one, port taken",
            "0.1.0-1",
            "failed",
            "yes",
            TAKEN,
            &[],
            "systemctl start evenkeel",
        ),
        ("an upgrade of a disabled one, port taken", "0.1.0-1", "inactive", "no", TAKEN, &[], ""),
    ] {
        let machine = Machine::new();
        machine.file("etc/evenkeel/evenkeel.toml", "[listen]\ndns = [\"127.0.0.1:53\"]\n");
        machine.directory("run/systemd/system");
        machine.program("usr/lib/evenkeel/who-has-port-53", "[ -n \"$TAKEN\" ] && echo \"$TAKEN\"");
        machine.program(
            "bin/systemctl",
            "case $* in show*) echo \"$STATE\" ;; *is-enabled*) [ $ENABLED = yes ] ;; *is-active*) exit 3 ;; esac",
        );
        for name in ["systemd-sysusers", "systemd-tmpfiles", "deb-systemd-helper", "deb-systemd-invoke"] {
            machine.program(&format!("bin/{name}"), "");
        }
        let variables = [("STATE", state), ("ENABLED", is_enabled), ("TAKEN", taken)];
        let done = machine.run("deb/postinst", &["configure", before], &variables);
        assert_eq!(done.status.code(), Some(0), "{what}: {}", done.stderr);
        let is_deed =
            |call: &&str| ["restart", "start", "stop", "disable"].contains(&call.split(' ').nth(1).unwrap());
        let calls = machine.calls();
        assert_eq!(calls.lines().filter(is_deed).collect::<Vec<_>>(), want, "{what}: {calls}");
        assert_eq!(done.stderr.contains(TAKEN), !said.is_empty(), "{what}: {}", done.stderr);
        assert!(done.stderr.ends_with(&format!("{said}\n")) || said.is_empty(), "{what}: {}", done.stderr);
    }
}

#[test]
fn removing_is_refused_where_what_was_kept_cannot_be_put_back() {
    for (script, argument) in [("deb/prerm", "remove"), ("rpm/preun", "0")] {
        for (what, binary, is_kept, want) in [
            ("it runs and puts back", Some(""), true, 0),
            ("it runs and refuses", Some("[ $2 != disable ]"), true, 1),
            ("it runs and refuses without a record", Some("[ $2 != disable ]"), false, 1),
            ("it cannot run", Some("exit 127"), true, 1),
            ("it is gone", None, true, 1),
            ("it is gone, and nothing is kept", None, false, 0),
        ] {
            let machine = Machine::new();
            if let Some(binary) = binary {
                machine.program("usr/bin/evenkeel", binary);
            }
            if is_kept {
                machine.file("var/lib/evenkeel-stub/record.json", "{}");
            }
            let done = machine.run(script, &[argument], &[]);
            assert_eq!(done.status.code(), Some(want), "{script}, {what}: {}", done.stderr);
            assert_eq!(done.stderr.contains("/etc/resolv.conf"), want == 1, "{script}, {what}: {}", done.stderr);
        }
    }
}

#[test]
fn a_purge_leaves_what_others_wrote_and_what_was_not_put_back() {
    for (what, is_kept, rm) in
        [("put back", false, None), ("not put back", true, None), ("rm fails", true, Some("exit 1"))]
    {
        for (script, argument) in [("deb/postrm", "purge"), ("rpm/postun", "0")] {
            let machine = Machine::new();
            for name in ["getent", "deb-systemd-helper", "systemctl"] {
                machine.program(&format!("bin/{name}"), if name == "getent" { "exit 2" } else { "" });
            }
            if let Some(rm) = rm {
                machine.program("bin/rm", rm);
            }
            machine.file("var/lib/evenkeel/cache.snapshot", "");
            machine.file("var/lib/evenkeel-stub/resolv.conf", "");
            let theirs = ["etc/evenkeel/notes", "etc/systemd/system/evenkeel.service.d/override.conf"];
            theirs.iter().for_each(|path| machine.file(path, ""));
            if is_kept {
                machine.file("var/lib/evenkeel-stub/record.json", "{}");
            }
            let done = machine.run(script, &[argument], &[]);
            assert_eq!(done.status.code(), Some(0), "{script}, {what}: {}", done.stderr);
            assert!(theirs.iter().all(|path| machine.at(path).exists()), "{script}, {what}");
            assert_eq!(machine.at("var/lib/evenkeel-stub").exists(), is_kept, "{script}, {what}");
            assert_eq!(machine.at("var/lib/evenkeel").exists(), rm.is_some(), "{script}, {what}");
        }
    }
    let machine = Machine::new();
    machine.directory("etc/evenkeel");
    assert_eq!(machine.run("deb/postrm", &["purge"], &[]).status.code(), Some(0));
    assert!(!machine.at("etc/evenkeel").exists(), "empty, it goes");
}

#[test]
fn both_packages_have_what_they_say() {
    let tools = ["cargo-deb", "cargo-generate-rpm", "dpkg-deb", "rpm", "strip"];
    if !tools.into_iter().all(installed) {
        return;
    }
    // The build's own place holds no binary but the one that is tested, without its symbols: it packs sooner.
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("debug");
    fs::create_dir(&folder).unwrap();
    output(Command::new("strip").arg("-o").arg(folder.join("evenkeel")).arg(env!("CARGO_BIN_EXE_evenkeel")));
    let out = place.path().join("out");
    let mut build = Command::new("bash");
    build.arg(at("packaging/build")).args(["--profile", "dev", "--no-build", "--fast", "--out"]).arg(&out);
    output(build.env("CARGO_TARGET_DIR", place.path()));

    deb(&only(&out, "deb"));
    rpm(&only(&out, "rpm"));
}

fn deb(package: &Path) {
    let field = |name: &str| output(Command::new("dpkg-deb").arg("-f").arg(package).arg(name)).trim().to_owned();
    assert_eq!(field("Package"), "evenkeel");
    assert_eq!(field("Version"), concat!(env!("CARGO_PKG_VERSION"), "-1"));
    assert!(field("Depends").contains("libc6") && field("Depends").contains("systemd-standalone-sysusers"));
    let list = output(Command::new("dpkg-deb").arg("-c").arg(package));
    let has = |mode: &str, path: &str| {
        let found =
            list.lines().any(|l| l.starts_with(mode) && l.replace(" ./", " ").ends_with(&format!(" {}", &path[1..])));
        assert!(found, "{mode} {path} is not in\n{list}");
    };
    for path in FILES {
        let mode = if path.contains("/bin/") || path.contains("who-has") { "-rwxr-xr-x" } else { "-rw-r--r--" };
        has(mode, path);
    }
    for path in [
        "/lib/systemd/system/evenkeel.service",
        "/lib/systemd/system/evenkeel.socket",
        "/usr/share/zsh/vendor-completions/_evenkeel",
        "/usr/share/doc/evenkeel/copyright",
        "/usr/share/doc/evenkeel/changelog.Debian.gz",
    ] {
        has("-rw-r--r--", path);
    }
    assert!(list.lines().all(|l| l.split_whitespace().nth(1).is_some_and(|who| who == "0/0" || who == "root/root")));
    assert!(!list.contains("resolv.conf"));
    let control = |name: &str| output(Command::new("dpkg-deb").arg("-I").arg(package).arg(name));
    assert_eq!(control("conffiles").trim(), "/etc/evenkeel/evenkeel.toml");
    for name in ["postinst", "prerm", "postrm"] {
        assert!(control(name).starts_with("#!/bin/sh\n"), "{name}");
    }
}

fn rpm(package: &Path) {
    let query = |what: &[&str]| output(Command::new("rpm").arg("-qp").args(what).arg(package));
    assert_eq!(query(&["--qf", "%{NAME} %{VERSION}"]), concat!("evenkeel ", env!("CARGO_PKG_VERSION")));
    let list = query(&["-l"]);
    let units = ["/usr/lib/systemd/system/evenkeel.service", "/usr/lib/systemd/system/evenkeel.socket"];
    let own = ["/usr/share/zsh/site-functions/_evenkeel", "/usr/share/licenses/evenkeel/LICENSE-MIT"];
    for path in FILES.iter().chain(&units).chain(&own) {
        assert!(list.lines().any(|l| l == *path), "{path} is not in\n{list}");
    }
    assert_eq!(query(&["-c"]).trim(), "/etc/evenkeel/evenkeel.toml");
    // 16 is %config, 1 is noreplace added to it: an edited file stays.
    let flags = query(&["--qf", "[%{FILENAMES} %{FILEFLAGS}\n]"]);
    assert!(flags.contains("/etc/evenkeel/evenkeel.toml 17\n"), "{flags}");
    let scripts = query(&["--scripts"]);
    for word in ["postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet", "stub disable"] {
        assert!(scripts.contains(word), "no {word} in\n{scripts}");
    }
    assert!(query(&["--requires"]).contains("systemd >= 252"));
}

/// A made-up machine for the packages' scripts: their whole paths lead into a directory, and programs that would act on
/// the real one are stood in for.
struct Machine(tempfile::TempDir);

struct Done {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.directory("bin");
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn directory(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    fn file(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    /// A program that says how it was called, and then does `body`.
    fn program(&self, path: &str, body: &str) {
        let calls = self.at("calls");
        self.file(path, &format!("#!/bin/sh\necho \"${{0##*/}} $*\" >>{}\n{body}\n", calls.display()));
        fs::set_permissions(self.at(path), Permissions::from_mode(0o755)).unwrap();
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.at("calls")).unwrap_or_default()
    }

    fn run(&self, script: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut text = fs::read_to_string(at("packaging").join(script)).unwrap();
        for room in ["etc", "proc", "run", "usr", "var"] {
            text = text.replace(&format!("/{room}/"), &format!("\u{1}{room}/"));
        }
        let text = text.replace('\u{1}', &format!("{}/", self.0.path().display()));
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.at("bin").display());
        let mut shell = Command::new("sh");
        shell.args(["-c", &text, script]).args(arguments).env("PATH", path).envs(variables.iter().copied());
        let done = shell.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done { status: done.status, stdout: text(done.stdout), stderr: text(done.stderr) }
    }
}

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn installed(tool: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|p| p.join(tool).is_file());
    if !found {
        let line = format!("skipped: {tool} is not installed\n");
        assert!(std::env::var_os("EVENKEEL_REQUIRE_PACKAGERS").is_none_or(|v| v != "1"), "{line}");
        let _ = io::stderr().write_all(line.as_bytes());
    }
    found
}

/// What a command that succeeds prints.
fn output(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {}\n{stderr}", done.status);
    String::from_utf8(done.stdout).unwrap()
}

/// The one file in `folder` with this ending.
fn only(folder: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let found: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == ending)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}
