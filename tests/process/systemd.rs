//! Under a supervisor that speaks systemd's protocol: one that plays it, systemd's own tools, and the unit as it is.

use std::collections::HashSet;
use std::fs;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::support::client::{Stream, load, try_ask};
use crate::support::daemon::{completed, program, run, tiers};
use crate::support::message::{Message, Question, rtype};
use crate::support::namespace::{self, Room};
use crate::support::peers::Peer;
use crate::support::scripted::Upstream;
use crate::support::zone::Zone;
use crate::support::{busy, free_address, quiet, wait_for};

const PATIENCE: Duration = Duration::from_secs(10);
const BRIEF: &str = "\n[listen]\ndrain = \"300ms\"\n";

#[test]
fn it_says_ready_once_it_answers_and_tells_of_reloads_and_of_its_end() {
    let _busy = busy();
    let mut stand = Stand::new(BRIEF);
    stand.start(&[]);
    stand.heard("READY=1");
    let reply = try_ask(stand.dns, &Question::new("www.test.", rtype::A)).expect("it answers");
    assert_eq!(reply.addresses(), [[192, 0, 2, 1]]);
    stand.heard("STATUS=All is well");
    stand.forget();
    stand.signal(Signal::HUP);
    stand.heard("READY=1");
    fs::write(stand.file(), "nonsense = 1\n").unwrap();
    stand.forget();
    stand.signal(Signal::HUP);
    // One that is refused ends as well: a supervisor must not wait for it.
    stand.heard("READY=1");
    let said = stand.said();
    assert!(said.iter().any(|s| s.starts_with("RELOADING=1\nMONOTONIC_USEC=")), "{said:?}");
    stand.signal(Signal::TERM);
    stand.heard("STOPPING=1");
    stand.wait();
}

#[test]
fn a_restart_loses_no_question_over_udp_or_tcp() {
    let _quiet = quiet();
    let mut stand = Stand::new(BRIEF);
    stand.start(&[]);
    stand.heard("READY=1");
    let (dns, seconds) = (stand.dns, 4);
    // Every other name is new: it has to be asked for upstream.
    let names = |batch: &'static str, per_second: usize| {
        (0..seconds * per_second).map(move |n| format!("{batch}{}.test.", if n % 2 == 0 { 0 } else { n }))
    };
    let (udp, tcp) = thread::scope(|scope| {
        let udp = scope.spawn(|| load(dns, names("u", 200), rtype::A, 200, PATIENCE));
        let tcp = scope.spawn(|| {
            let asked = names("t", 50).map(|name| {
                thread::sleep(Duration::from_millis(20));
                scope.spawn(move || {
                    let mut stream = Stream::connect(dns);
                    stream.send(&Question::new(&name, rtype::A).to_bytes());
                    stream.receive().map(|reply| Message::read(&reply).addresses().len())
                })
            });
            asked.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
        });
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(700));
            stand.signal(Signal::TERM);
            stand.wait();
            // As RestartSec=200ms.
            thread::sleep(Duration::from_millis(200));
            stand.forget();
            let kept = stand.store();
            assert!(kept.len() >= 2, "UDP and TCP are in the store");
            stand.start(&kept);
            stand.heard("READY=1");
        }
        (udp.join().unwrap(), tcp.join().unwrap())
    });
    let lost = udp.iter().filter(|s| s.reply.as_ref().is_none_or(|r| r.addresses().is_empty())).count();
    assert_eq!((lost, udp.len()), (0, 800), "{}", stand.log());
    assert!(tcp.iter().all(|r| r.as_ref().is_ok_and(|n| *n == 1)), "{tcp:?}\n{}", stand.log());
    assert!(!stand.said().iter().any(|s| s.starts_with("FDSTORE=1")), "what is stored is not stored again");
}

#[test]
fn what_listen_dns_names_no_more_leaves_the_store() {
    let _busy = busy();
    let mut stand = Stand::new(BRIEF);
    stand.start(&[]);
    stand.heard("READY=1");
    stand.signal(Signal::TERM);
    stand.wait();
    // All addresses in place of one: what the store holds of that one is in the way until it is let go.
    let before = stand.dns;
    stand.dns = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), before.port());
    stand.configure(&format!("{BRIEF}[access]\nallow = [\"loopback\"]\n"));
    stand.forget();
    let kept = stand.store();
    stand.start(&kept);
    drop(kept);
    stand.heard("READY=1");
    let said = stand.said();
    let gone = format!("FDSTOREREMOVE=1\nFDNAME=kept-{}", before.to_string().replace(':', "_"));
    assert_eq!(said.iter().filter(|s| **s == gone).count(), 1, "{said:?}");
    let new = format!("FDNAME=kept-0.0.0.0_{}", before.port());
    assert!(said.iter().any(|s| s.starts_with("FDSTORE=1") && s.contains(&new)), "{said:?}");
    let other: SocketAddr = format!("127.9.9.9:{}", before.port()).parse().unwrap();
    try_ask(other, &Question::new("www.test.", rtype::A)).expect("it answers at every address");
}

#[test]
fn a_units_sockets_stand_in_place_of_listen_dns() {
    let _busy = busy();
    let mut stand = Stand::new(BRIEF);
    let (configured, handed) = (stand.dns, free_address());
    let (udp, tcp) = (UdpSocket::bind(handed).unwrap(), TcpListener::bind(handed).unwrap());
    let no_use = UdpSocket::bind("127.0.0.1:0").unwrap();
    no_use.connect(handed).unwrap();
    let log = fs::File::open("/dev/null").unwrap();
    let unit = |fd: OwnedFd| ("evenkeel.socket".to_owned(), fd);
    stand.start(&[unit(udp.into()), unit(tcp.into()), unit(log.into()), unit(no_use.into())]);
    stand.heard("READY=1");
    try_ask(handed, &Question::new("www.test.", rtype::A)).expect("it answers at the unit's address");
    let mut stream = Stream::connect(handed);
    stream.send(&Question::new("www.test.", rtype::A).to_bytes());
    stream.receive().expect("over TCP too");
    UdpSocket::bind(configured).expect("listen.dns is not listened on");
    let log = stand.log();
    assert!(log.contains(&format!("stand in place of listen.dns: {handed}")), "{log}");
    assert!(log.contains("descriptor 5 (evenkeel.socket) is not used"), "{log}");
    assert!(log.contains("descriptor 6 (evenkeel.socket) is not used: it is connected"), "{log}");
    assert!(!stand.said().iter().any(|s| s.starts_with("FDSTORE=1")), "a unit's sockets are the unit's");
}

#[test]
fn a_units_wildcard_for_both_families_answers_both() {
    let _busy = busy();
    let mut stand = Stand::new(&format!("{BRIEF}\n[access]\nallow = [\"loopback\"]\n"));
    let tcp = match TcpListener::bind("[::]:0") {
        Ok(tcp) => tcp,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "skipped: no IPv6 here: {e}");
            return;
        }
    };
    let at = tcp.local_addr().unwrap();
    // The other half is opened for both as well.
    drop(tcp);
    let udp = UdpSocket::bind(at).unwrap();
    stand.start(&[("evenkeel.socket".to_owned(), udp.into())]);
    stand.heard("READY=1");
    for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
        let there = SocketAddr::new(ip.parse().unwrap(), at.port());
        let reply = try_ask(there, &Question::new("www.test.", rtype::A)).expect(ip);
        assert_eq!(reply.addresses(), [[192, 0, 2, 1]], "{ip}");
        let mut stream = Stream::connect(there);
        stream.send(&Question::new("www.test.", rtype::A).to_bytes());
        assert_eq!(Message::read(&stream.receive().expect(ip)).addresses(), [[192, 0, 2, 1]], "{ip} over TCP");
    }
    assert!(stand.log().contains(&format!("listening on 0.0.0.0:{}", at.port())), "{}", stand.log());
}

// RFC 7766 §5: with one of the two alone it would look fine and fail for large answers.
#[test]
fn a_unit_with_udp_alone_whose_tcp_port_is_taken_is_not_served() {
    let _busy = busy();
    let mut stand = Stand::new(BRIEF);
    let handed = free_address();
    let udp = UdpSocket::bind(handed).unwrap();
    let taken = TcpListener::bind(handed).unwrap();
    stand.start(&[("evenkeel.socket".to_owned(), udp.try_clone().unwrap().into())]);
    assert_eq!(stand.process.take().unwrap().wait().unwrap().code(), Some(3));
    assert!(stand.log().contains(&format!("another server listens on {handed} (TCP)")), "{}", stand.log());
    drop(taken);
    stand.forget();
    stand.start(&[("evenkeel.socket".to_owned(), udp.into())]);
    stand.heard("READY=1");
    let mut stream = Stream::connect(handed);
    stream.send(&Question::new("www.test.", rtype::A).to_bytes());
    stream.receive().expect("TCP was opened beside it");
}

#[test]
fn signs_of_life_come_while_it_lives_and_no_upstream_has_a_say() {
    let _busy = busy();
    let mut stand = Stand::new(BRIEF);
    stand.upstream.behave(crate::support::scripted::Behaviour::Silent);
    stand.start_with(&[], &[("WATCHDOG_USEC", "600000")]);
    stand.heard("WATCHDOG=1");
    stand.signal(Signal::STOP);
    thread::sleep(Duration::from_millis(200));
    stand.forget();
    thread::sleep(Duration::from_millis(800));
    assert_eq!(stand.said(), [""; 0], "one that is stopped gives no sign");
    stand.signal(Signal::CONT);
    stand.heard("WATCHDOG=1");
}

#[test]
fn no_sign_of_life_comes_while_own_listeners_do_not_answer_and_the_reason_is_said() {
    const SELF: &str = "systemd::no_sign_of_life_comes_while_own_listeners_do_not_answer_and_the_reason_is_said";
    let Some(ip) = namespace::inside(Room::Network, SELF) else { return };
    let mut stand = Stand::new(BRIEF);
    let loopback = |state: &str| {
        let mut command = Command::new(&ip);
        command.args(["link", "set", "lo", state]);
        assert_eq!(run(command).code, Some(0));
    };
    stand.start_with(&[], &[("WATCHDOG_USEC", "600000")]);
    stand.heard("WATCHDOG=1");
    // Nothing reaches the listeners any more, and the supervisor's socket is none of the network's.
    loopback("down");
    stand.heard("STATUS=Own listeners do not answer: 127.");
    stand.forget();
    thread::sleep(Duration::from_millis(800));
    assert_eq!(stand.said(), [""; 0]);
    assert_eq!(stand.log().matches("event=own_listeners_silent").count(), 1, "{}", stand.log());
    loopback("up");
    stand.heard("WATCHDOG=1");
}

// A bound at work is no fault: clients and a silent upstream could else have the process restarted.
#[test]
fn tcp_connections_that_are_all_taken_do_not_keep_signs_of_life_back() {
    let _busy = busy();
    let limits = "\n[limits]\ntcp_connections = 1\ntcp_connections_per_client = 1\n";
    let mut stand = Stand::new(&format!("deadline = \"10s\"\n{BRIEF}{limits}"));
    stand.start_with(&[], &[("WATCHDOG_USEC", "600000")]);
    stand.heard("WATCHDOG=1");
    stand.upstream.behave(crate::support::scripted::Behaviour::Silent);
    let mut taken = Stream::connect(stand.dns);
    taken.send(&Question::new("new.test.", rtype::A).to_bytes());
    let is_turned_away = || Stream::connect(stand.dns).receive().is_err().then_some(());
    wait_for("the only connection to be busy", PATIENCE, is_turned_away);
    stand.forget();
    stand.heard("WATCHDOG=1");
    assert!(!stand.log().contains("event=own_listeners_silent"), "{}", stand.log());
}

#[test]
fn systemds_own_activation_hands_its_sockets_over() {
    let _busy = busy();
    let Some(activate) = Peer::SystemdSocketActivate.path() else { return };
    let stand = Stand::new(BRIEF);
    let handed = free_address();
    let mut command = Command::new(activate);
    command.arg("--datagram").arg(format!("--listen={handed}")).arg(program().get_program());
    command.args(["serve", "--config"]).arg(stand.file());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The first datagram starts it, and is answered.
    let reply = wait_for("an answer", PATIENCE, || try_ask(handed, &Question::new("www.test.", rtype::A)).ok());
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(reply.addresses(), [[192, 0, 2, 1]]);
}

#[test]
fn the_unit_is_sound_and_tight() {
    let Some(analyze) = Peer::SystemdAnalyze.path() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let directory = tempfile::tempdir().unwrap();
    // What is not installed here is no mistake of the unit.
    let unit = fs::read_to_string(folder.join("evenkeel.service")).unwrap();
    let unit = unit.replace("/usr/bin/evenkeel", env!("CARGO_BIN_EXE_evenkeel"));
    let unit = unit.replace("Documentation=man:evenkeel(1)\n", "");
    let place = directory.path().join("evenkeel.service");
    fs::write(&place, unit).unwrap();
    fs::copy(folder.join("evenkeel.socket"), directory.path().join("evenkeel.socket")).unwrap();

    let mut verify = Command::new(&analyze);
    let ended = run({
        verify.arg("verify").arg(&place).arg(directory.path().join("evenkeel.socket"));
        verify
    });
    assert_eq!((ended.code, ended.stderr.trim()), (Some(0), ""), "{}", ended.stdout);

    let mut security = Command::new(&analyze);
    security.args(["security", "--offline=true", "--threshold=15", "--no-pager"]).arg(&place);
    let ended = run(security);
    let score = ended.stdout.lines().last().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "{score}");
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
}

#[test]
fn started_as_root_it_becomes_who_is_named_and_goes_on_answering() {
    let _busy = busy();
    if !geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "skipped: only root can give root up");
        return;
    }
    let more = format!("{BRIEF}\n[process]\nuser = \"nobody\"\n");
    let mut stand = Stand::new(&more);
    fs::set_permissions(stand.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = stand.directory.path().join("run");
    fs::create_dir(&run).unwrap();
    stand.configure(&format!("{more}\n[admin]\nsocket = \"{}/control.sock\"\n", run.display()));
    stand.start(&[]);
    stand.heard("READY=1");
    let pid = stand.pid();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| status.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
        let ids: HashSet<String> = field("Uid:").split_whitespace().skip(1).map(str::to_owned).collect();
        assert_eq!(ids, HashSet::from(["65534".to_owned()]), "{status}");
        assert!(field("Gid:").contains("65534"), "{status}");
        for caps in ["CapPrm:", "CapEff:", "CapAmb:"] {
            assert!(field(caps).ends_with("\t0000000000000000"), "{status}");
        }
        assert_eq!(field("NoNewPrivs:"), "NoNewPrivs:\t1", "{status}");
    }
    try_ask(stand.dns, &Question::new("www.test.", rtype::A)).expect("it answers");
    stand.forget();
    stand.signal(Signal::HUP);
    stand.heard("READY=1");
    assert!(wait_for("the reload", PATIENCE, || stand.log().contains(" taken").then_some(true)), "{}", stand.log());
    // Who is of the group may change things, by the socket's mode; who is not does not get to it.
    let reload_as = |gid: u32| {
        let mut command = program();
        command.args(["reload", "--socket"]).arg(run.join("control.sock")).uid(12_345).gid(gid);
        crate::support::daemon::run(command)
    };
    let (member, stranger) = (reload_as(65_534), reload_as(12_345));
    assert_eq!(member.code, Some(0), "{}", member.stderr);
    assert!(stranger.code == Some(3) && stranger.stderr.contains("may not open"), "{stranger:?}");
    // The state directory is the user's: what it writes at the end is there.
    stand.signal(Signal::TERM);
    stand.wait();
    let snapshot = fs::metadata(stand.directory.path().join("state/cache.snapshot"));
    assert!(snapshot.is_ok_and(|m| m.len() > 0), "{}", stand.log());

    // The copy of the last accepted configuration is the user's, and serves where the file is refused...
    let good = fs::read_to_string(stand.file()).unwrap();
    fs::write(stand.file(), format!("{good}\n[nonsense]\n")).unwrap();
    stand.forget();
    let kept = stand.store();
    stand.start(&kept);
    stand.heard("READY=1");
    try_ask(stand.dns, &Question::new("www.test.", rtype::A)).expect("it answers by its last accepted copy");
    stand.signal(Signal::TERM);
    stand.wait();
    // ...but not one that would make it another's.
    for copy in fs::read_dir(stand.directory.path().join("state")).unwrap() {
        let copy = copy.unwrap().path();
        if copy.to_string_lossy().contains("last-accepted") {
            let text = fs::read_to_string(&copy).unwrap();
            assert!(text.contains("user = \"nobody\""), "{text}");
            fs::write(&copy, text.replace("user = \"nobody\"", "user = \"\"")).unwrap();
        }
    }
    stand.start(&kept);
    assert_eq!(stand.process.take().unwrap().wait().unwrap().code(), Some(1));
}

#[test]
fn who_is_not_there_or_may_not_be_become_is_told() {
    let _busy = busy();
    for (user, says) in [("no-such-user-here", "there is no user"), ("root", "is root")] {
        let stand = Stand::new(&format!("\n[process]\nuser = \"{user}\"\n"));
        let mut command = program();
        command.args(["serve", "--config"]).arg(stand.file());
        let ended = run(command);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("process.user") && ended.stderr.contains(says), "{}", ended.stderr);
    }
}

/// A supervisor's part of the protocol, and the process that it supervises.
struct Stand {
    dns: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
    upstream: Upstream,
    heard: Arc<Mutex<Heard>>,
    process: Option<Child>,
}

#[derive(Default)]
struct Heard {
    datagrams: Vec<String>,
    store: Vec<(String, OwnedFd)>,
}

impl Stand {
    fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        // It may be told by another user.
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path().join("notify"), everybody).unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (heard_too, dns, admin) = (heard.clone(), free_address(), free_address());
        thread::spawn(move || listen(&socket, &heard_too));
        let upstream = Upstream::new(Zone::new(".").any_below("test.", 60, "192.0.2.1"));
        let stand = Self { dns, admin, directory, upstream, heard, process: None };
        stand.configure(more);
        stand
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("evenkeel.toml")
    }

    fn configure(&self, more: &str) {
        let text = tiers(&[&[self.upstream.address()]], more);
        fs::write(self.file(), completed(&text, self.dns, self.admin, self.directory.path())).unwrap();
    }

    fn start(&mut self, sockets: &[(String, OwnedFd)]) {
        self.start_with(sockets, &[]);
    }

    /// Starts it with these sockets from descriptor 3 on.
    fn start_with(&mut self, sockets: &[(String, OwnedFd)], environment: &[(&str, &str)]) {
        // Its own process number is known to itself alone.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(program().get_program());
        command.args(["serve", "--config"]).arg(self.file());
        for name in ["STATE_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(name);
        }
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify")).envs(environment.iter().copied());
        let names: Vec<&str> = sockets.iter().map(|(name, _)| name.as_str()).collect();
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let mappings = sockets.iter().zip(3..);
        let mappings = mappings.map(|((_, fd), to)| FdMapping { parent_fd: fd.try_clone().unwrap(), child_fd: to });
        command.fd_mappings(mappings.collect()).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        self.process = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.process.as_ref().expect("it runs")), signal).unwrap();
    }

    fn wait(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let status = wait_for("its end", PATIENCE, || process.try_wait().unwrap());
        assert!(status.success(), "{status}\n{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until a datagram has this in it.
    fn heard(&self, what: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.said().iter().any(|s| s.contains(what)) {
            assert!(Instant::now() < end, "no {what:?} in {:?}\n{}", self.said(), self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn said(&self) -> Vec<String> {
        self.heard.lock().unwrap().datagrams.clone()
    }

    fn forget(&self) {
        self.heard.lock().unwrap().datagrams.clear();
    }

    /// Second handles of what is in the store.
    fn store(&self) -> Vec<(String, OwnedFd)> {
        let heard = self.heard.lock().unwrap();
        heard.store.iter().map(|(name, fd)| (name.clone(), fd.try_clone().unwrap())).collect()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn listen(socket: &UnixDatagram, heard: &Mutex<Heard>) {
    loop {
        let mut bytes = [0; 4096];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut beside = RecvAncillaryBuffer::new(&mut room);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let Ok(got) = recvmsg(socket, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC) else { return };
        let text = String::from_utf8_lossy(&bytes[..got.bytes]).into_owned();
        let name = text.lines().find_map(|l| l.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
        let mut heard = heard.lock().unwrap();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                heard.store.extend(fds.map(|fd| (name.clone(), fd)));
            }
        }
        if text.starts_with("FDSTOREREMOVE=1") {
            heard.store.retain(|(n, _)| *n != name);
        }
        heard.datagrams.push(text);
    }
}
