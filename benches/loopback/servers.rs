//! The servers that are measured, each a process of its own on its own address of loopback, with one worker where
//! nothing else is said, forwarding to one upstream.
//!
//! Peers run as the user of the bench, without chroot, validation or rate limits, with room for all names in their
//! caches; all else is their default. evenkeel has its defaults but for addresses, workers and room.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt;
use tempfile::TempDir;

use super::asker::{Load, Tally};
use super::calm::{cpu_of, cpu_of_all};
use super::cores::Place;
use super::names::{Names, Shape, set_number};
use super::support::client::exchange_udp;
use super::support::free_address;

/// What can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Echo,
    Evenkeel,
    Unbound,
    Knot,
    Recursor,
    Dnsdist,
    Dnsmasq,
    Bind,
    /// The upstream of the others.
    Nsd,
}

impl Kind {
    pub const PEERS: [Self; 6] =
        [Self::Unbound, Self::Knot, Self::Recursor, Self::Dnsdist, Self::Dnsmasq, Self::Bind];

    pub fn word(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Evenkeel => "evenkeel",
            Self::Unbound => "unbound",
            Self::Knot => "knot-resolver",
            Self::Recursor => "pdns-recursor",
            Self::Dnsdist => "dnsdist",
            Self::Dnsmasq => "dnsmasq",
            Self::Bind => "bind",
            Self::Nsd => "nsd",
        }
    }

    /// Its program, and what makes it tell its version.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Echo | Self::Evenkeel => ("", "--version"),
            Self::Unbound => ("unbound", "-V"),
            Self::Knot => ("kresd", "--version"),
            Self::Recursor => ("pdns_recursor", "--version"),
            Self::Dnsdist => ("dnsdist", "--version"),
            Self::Dnsmasq => ("dnsmasq", "--version"),
            Self::Bind => ("named", "-v"),
            Self::Nsd => ("nsd", "-v"),
        }
    }

    /// Where it is; `None` where it is not installed.
    pub fn path(self) -> Option<PathBuf> {
        match self {
            Self::Echo => std::env::current_exe().ok(),
            Self::Evenkeel => Some(env!("CARGO_BIN_EXE_evenkeel").into()),
            _ => installed(self.program().0),
        }
    }

    /// The first number with a dot that it tells of itself; "" where it tells none.
    pub fn version(self) -> String {
        let (Some(path), (_, flag)) = (self.path(), self.program()) else { return String::new() };
        if self == Self::Echo {
            return String::new();
        }
        let Ok(told) = Command::new(path).arg(flag).output() else { return String::new() };
        let told = [told.stdout, told.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        let mut words = told.split(|c: char| c.is_whitespace() || c == ',');
        let is_version = |w: &&str| w.starts_with(|c: char| c.is_ascii_digit()) && w.contains('.');
        words.find(is_version).unwrap_or_default().to_owned()
    }
}

/// A program in PATH, or where servers stand and a plain user's PATH does not lead.
pub fn installed(program: &str) -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&places).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.map(|p| p.join(program)).find(|p| p.is_file())
}

/// A command for `path` whose process is ended when this one is, however that ends, where setpriv is there to ask.
fn dying_with_us(path: &Path) -> Command {
    let Some(setpriv) = installed("setpriv") else { return Command::new(path) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "TERM", "--"]).arg(path);
    command
}

/// A running server. It is ended, with its children, when dropped.
pub struct Server {
    pub kind: Kind,
    pub address: SocketAddr,
    child: Child,
    directory: TempDir,
}

impl Server {
    /// Starts it in `place` with `workers`, and asks it for a name.
    ///
    /// # Errors
    ///
    /// Why it does not answer, in a line or two.
    pub fn start(kind: Kind, upstream: SocketAddr, workers: usize, place: Place) -> Result<Self, String> {
        let path = kind.path().ok_or("is not installed")?;
        let (directory, mut address) = (tempfile::tempdir().map_err(|e| e.to_string())?, free_address());
        if kind == Kind::Bind {
            // It listens on addresses that an interface has, and on no other one of loopback.
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let mut command = dying_with_us(&path);
        set_up(kind, &mut command, directory.path(), address, upstream, workers).map_err(|e| e.to_string())?;
        let said = directory.path().join("said");
        let said_file = fs::File::create(&said).map_err(|e| e.to_string())?;
        let errors = said_file.try_clone().map_err(|e| e.to_string())?;
        command.current_dir(directory.path()).stdin(Stdio::null()).stdout(said_file).stderr(errors).process_group(0);
        let child = place.spawn(&mut command).map_err(|e| e.to_string())?;
        let server = Self { kind, address, child, directory };
        let until = Instant::now() + START_PATIENCE;
        while !server.answers() {
            if Instant::now() > until {
                let said = fs::read_to_string(&said).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(3).collect();
                return Err(format!("does not answer: {}", last.join(" | ")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn answers(&self) -> bool {
        let mut question = Shape::USUAL.question();
        set_number(&mut question, 0);
        let reply = exchange_udp(self.address, &question, Duration::from_millis(300));
        reply.is_ok_and(|r| r.len() > 12 && r[3] & 0x0f == 0 && r[7] == 1)
    }

    /// Has it look up names 0 to `names`, as often as it takes until each is answered; how many are not.
    pub fn warm(&self, names: u32, shape: Shape) -> u64 {
        let mut missing = 0;
        for _ in 0..4 {
            let mut each = Names::Each { next: 0, end: names };
            let tally = Load::on(self.address, shape).flood(&mut each, WARM_PATIENCE);
            missing = u64::from(names) - tally.answered;
            if missing == 0 {
                break;
            }
        }
        missing
    }

    /// Asks it by `ask`, and says what CPU it took meanwhile.
    pub fn measured(&self, ask: impl FnOnce() -> Tally) -> (Tally, Duration) {
        let before = self.cpu();
        let tally = ask();
        (tally, self.cpu().saturating_sub(before))
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.child.id())
    }

    /// The same with its children.
    pub fn cpu_of_all(&self) -> Duration {
        cpu_of_all(self.child.id())
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|k| k.parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0
    }

    /// A place for files of whoever asks it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        // Nothing that it keeps is wanted: no snapshot is worth waiting for.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

//------------ Configurations ----------------------------------------------------------------------------------------

/// Writes its configuration into `place` and adds the arguments that make it run with that in the foreground.
fn set_up(
    kind: Kind,
    command: &mut Command,
    place: &Path,
    address: SocketAddr,
    upstream: SocketAddr,
    workers: usize,
) -> std::io::Result<()> {
    let write = |name: &str, text: String| {
        let path = place.join(name);
        fs::write(&path, text).map(|()| path)
    };
    let (ip, port, up_ip, up_port) = (address.ip(), address.port(), upstream.ip(), upstream.port());
    let dir = place.display();
    match kind {
        Kind::Echo => {
            command.args(["--echo", &address.to_string(), &workers.to_string()]);
        }
        Kind::Evenkeel => {
            let text = format!(
                "[listen]\ndns = [\"{address}\"]\nworkers = {workers}\n\
                 [admin]\nlisten = \"\"\nsocket = \"{dir}/control.sock\"\n\
                 [state]\ndirectory = \"{dir}/state\"\n\
                 [cache]\nmax_bytes = \"1GiB\"\n\
                 [groups.default]\nprimary = [\"{upstream}\"]\n"
            );
            command.arg("serve").arg("--config").arg(write("evenkeel.toml", text)?);
        }
        Kind::Unbound => {
            let text = format!(
                "server:\n interface: {ip}@{port}\n port: {port}\n access-control: 127.0.0.0/8 allow\n\
                 username: \"\"\n chroot: \"\"\n directory: \"{dir}\"\n pidfile: \"\"\n use-syslog: no\n \
                 do-daemonize: no\n do-not-query-localhost: no\n num-threads: {workers}\n so-reuseport: yes\n \
                 module-config: \"iterator\"\n msg-cache-size: 1g\n rrset-cache-size: 1g\n so-rcvbuf: 4m\n \
                 so-sndbuf: 4m\n outgoing-range: 4096\n num-queries-per-thread: 2048\n incoming-num-tcp: 200\n\
                 remote-control:\n control-enable: no\n\
                 forward-zone:\n name: \".\"\n forward-addr: {up_ip}@{up_port}\n"
            );
            command.arg("-d").arg("-c").arg(write("unbound.conf", text)?);
        }
        Kind::Knot => {
            // FORWARD and not STUB: with that it asks the upstream again for what it has had for ten seconds.
            let text = format!(
                "net.listen('{ip}', {port}, {{ kind = 'dns' }})\n\
                 cache.open(1000 * MB, 'lmdb://{dir}/cache')\n\
                 trust_anchors.remove('.')\n\
                 net.tcp_pipeline(1000)\n\
                 policy.add(policy.all(policy.FORWARD('{up_ip}@{up_port}')))\n"
            );
            command.arg("-n").arg("-c").arg(write("kresd.conf", text)?).arg(place);
        }
        Kind::Recursor => {
            let text = format!(
                "local-address={ip}\nlocal-port={port}\nallow-from=127.0.0.0/8\nforward-zones-recurse=.={upstream}\n\
                 dont-query=\nthreads={workers}\npdns-distributes-queries=no\nreuseport=yes\ndnssec=off\n\
                 max-cache-entries=2000000\nmax-packetcache-entries=2000000\nmax-tcp-clients=500\n\
                 max-concurrent-requests-per-tcp-connection=1000\nsocket-dir={dir}\ndisable-syslog=yes\nquiet=yes\n\
                 loglevel=3\nsecurity-poll-suffix=\nwrite-pid=no\ndaemon=no\n"
            );
            write("recursor.conf", text)?;
            command.arg(format!("--config-dir={dir}"));
        }
        Kind::Dnsdist => {
            let text = format!(
                "setLocal('{address}', {{ reusePort = true }})\n\
                 newServer({{ address = '{upstream}' }}):setUp()\n\
                 getPool(''):setCache(newPacketCache(2000000, {{ maxTTL = 86400 }}))\n\
                 setSecurityPollSuffix('')\nsetMaxTCPClientThreads(1)\nsetMaxUDPOutstanding(65535)\n"
            );
            command.args(["--supervised", "--disable-syslog", "-C"]).arg(write("dnsdist.conf", text)?);
        }
        Kind::Dnsmasq => {
            let text = format!(
                "port={port}\nlisten-address={ip}\nbind-interfaces\nno-resolv\nno-hosts\nserver={up_ip}#{up_port}\n\
                 cache-size=10000\ndns-forward-max=2000\npid-file\nlog-facility={dir}/log\n{}",
                if rustix::process::geteuid().is_root() { "user=root\n" } else { "" }
            );
            command.arg("-k").arg("-C").arg(write("dnsmasq.conf", text)?);
        }
        Kind::Bind => {
            let text = format!(
                "options {{\n directory \"{dir}\";\n listen-on port {port} {{ {ip}; }};\n listen-on-v6 {{ none; }};\n \
                 pid-file none;\n recursion yes;\n allow-query {{ any; }};\n forward only;\n \
                 forwarders {{ {up_ip} port {up_port}; }};\n dnssec-validation no;\n max-cache-size 1g;\n \
                 recursive-clients 10000;\n tcp-clients 500;\n session-keyfile \"{dir}/key\";\n}};\ncontrols {{ }};\n"
            );
            command.args(["-f", "-n", &workers.to_string(), "-c"]).arg(write("named.conf", text)?);
        }
        Kind::Nsd => {
            write("root.zone", root_zone())?;
            let text = format!(
                "server:\n ip-address: {ip}@{port}\n username: \"\"\n chroot: \"\"\n zonesdir: \"{dir}\"\n \
                 pidfile: \"\"\n xfrdfile: \"{dir}/xfrd\"\n xfrdir: \"{dir}\"\n zonelistfile: \"{dir}/zone.list\"\n \
                 database: \"\"\n server-count: 1\n rrl-ratelimit: 0\n rrl-whitelist-ratelimit: 0\n \
                 minimal-responses: yes\n\
                 remote-control:\n control-enable: no\n\
                 zone:\n name: .\n zonefile: root.zone\n"
            );
            command.arg("-d").arg("-c").arg(write("nsd.conf", text)?);
        }
    }
    Ok(())
}

/// Any host below `recordsNN.bench.` has NN addresses, a day long.
fn root_zone() -> String {
    let mut zone = String::from(
        "$ORIGIN .\n$TTL 86400\n@ IN SOA ns.bench. host.bench. 1 3600 600 86400 60\n@ IN NS ns.bench.\n\
         ns.bench. IN A 192.0.2.53\n",
    );
    for records in super::growth::RECORDS {
        for n in 0..*records {
            zone += &format!("*.records{records:02}.bench. IN A 192.0.2.{n}\n");
        }
    }
    zone
}

const START_PATIENCE: Duration = Duration::from_secs(10);
const WARM_PATIENCE: Duration = Duration::from_secs(180);
