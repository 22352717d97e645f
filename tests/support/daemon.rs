//! The program as its users run it: a process with a configuration file and a directory of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use super::client::{self, exchange_udp};
use super::message::{Message, Question, rtype};
use super::{free_address, wait_for};

/// Start to first answer, on a machine that does other things as well. The bar of 100 ms is measured apart.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// A running `evenkeel serve`. It is killed when dropped.
pub struct Daemon {
    running: Running,
    dns: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
    /// From the start of the process to its first answer.
    pub started_in: Duration,
}

/// What a process that ended left.
#[derive(Debug)]
pub struct Ended {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Daemon {
    /// Starts with `configuration`, to which addresses, state directory and control socket are added where it does not
    /// say them, and waits for the first answer. `{port}` in it becomes the port of [`Daemon::address`].
    ///
    /// # Panics
    ///
    /// Where the process ends, or does not answer in time; with its log.
    pub fn start(configuration: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), configuration, &[])
    }

    /// Starts with these servers as its only tier, in this order.
    pub fn over(servers: &[SocketAddr]) -> Self {
        Self::start(&tiers(&[servers], "order = \"listed\"\n"))
    }

    /// [`Daemon::start`] with the state that an earlier process left, and more arguments.
    pub fn start_in(directory: TempDir, configuration: &str, arguments: &[&str]) -> Self {
        // The port may be taken between its choice and the start: then, and only then, once more.
        for attempt in 0.. {
            let (dns, admin) = (free_address(), free_address());
            let text = completed(configuration, dns, admin, directory.path());
            let file = directory.path().join("evenkeel.toml");
            fs::write(&file, &text).unwrap();
            let started_at = Instant::now();
            let mut command = program();
            command.arg("serve").arg("--config").arg(&file).args(arguments);
            let mut running = Running::new(command);
            let first = wait_for("the first answer of evenkeel", START_PATIENCE, || {
                if let Some(status) = running.ended() {
                    return Some(Err(status));
                }
                let question = Question::new("localhost.", rtype::A);
                exchange_udp(dns, &question.to_bytes(), Duration::from_millis(100)).ok().map(Ok)
            });
            match first {
                Ok(_) => {
                    return Self { running, dns, admin, directory, started_in: started_at.elapsed() };
                }
                Err(status) if status.code() == Some(3) && attempt < 3 => {}
                Err(status) => panic!("evenkeel ended with {status}\n{text}\n{}", running.log()),
            }
        }
        unreachable!("the loop ends by return or panic")
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.dns
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Everything that it wrote so far, stdout and stderr as they came.
    pub fn log(&self) -> String {
        self.running.log()
    }

    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Asks over UDP for `name` and `qtype`, with EDNS.
    ///
    /// # Panics
    ///
    /// Where no reply comes; with the log.
    pub fn ask(&self, name: &str, qtype: u16) -> Message {
        let reply = client::try_ask(self.dns, &Question::new(name, qtype));
        reply.unwrap_or_else(|e| panic!("no reply for {name} {qtype}: {e}; {}\n{}", self.running.state(), self.log()))
    }

    /// [`Daemon::ask`], and how long it took.
    pub fn ask_timed(&self, name: &str, qtype: u16) -> (Message, Duration) {
        let start = Instant::now();
        (self.ask(name, qtype), start.elapsed())
    }

    /// Writes a new configuration file, completed as at the start, without telling the process.
    pub fn write_configuration(&self, configuration: &str) {
        let text = completed(configuration, self.dns, self.admin, self.directory());
        fs::write(self.directory().join("evenkeel.toml"), text).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.running.child);
        kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, then waits for its end.
    pub fn terminate(mut self) -> (Ended, TempDir) {
        self.signal(Signal::TERM);
        let status = wait_for("the end of evenkeel", START_PATIENCE, || self.running.ended());
        let stderr = self.running.log();
        (Ended { code: status.code(), stdout: String::new(), stderr }, self.directory)
    }

    /// Kills it with -9; what it left stays.
    pub fn kill(self) -> TempDir {
        let Self { running, directory, .. } = self;
        drop(running);
        directory
    }

    /// Runs a client command of the program against this process's control socket, which may open a little after the
    /// first answer.
    pub fn command(&self, arguments: &[&str]) -> Ended {
        wait_for("the control socket", START_PATIENCE, || UnixStream::connect(self.socket()).ok());
        let mut command = program();
        command.args(arguments).arg("--socket").arg(self.socket());
        run(command)
    }

    /// Where the control socket is.
    pub fn socket(&self) -> PathBuf {
        self.directory().join("control.sock")
    }

    /// GET from the admin listener, which may open a little after the first answer: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let connect = || TcpStream::connect_timeout(&self.admin, client::PATIENCE).ok();
        let mut stream = wait_for("the admin listener", START_PATIENCE, connect);
        stream.set_read_timeout(Some(client::PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("admin does not answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("no head");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("no status");
        (status, body.to_owned())
    }

    /// The sum of the samples of /metrics whose series begins with `series`: `name` or `name{label="value"`.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, body) = self.get("/metrics");
        let whole = |rest: &str| rest.starts_with(['{', ' ', ',', '}']);
        let lines = body.lines().filter(|l| l.strip_prefix(series).is_some_and(whole));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that was resident so far, in bytes.
    pub fn resident_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// Runs the program with `arguments` until it ends.
pub fn evenkeel(arguments: &[&str]) -> Ended {
    let mut command = program();
    command.args(arguments);
    run(command)
}

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    // Nothing of this machine's evenkeel, if it has one.
    for name in ["STATE_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET", "LISTEN_FDS"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command until it ends.
///
/// # Panics
///
/// Where it goes on for longer than [`START_PATIENCE`].
pub fn run(mut command: Command) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let end = Instant::now() + START_PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{shown} does not end\n{}", stderr.lock().unwrap());
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    Ended { code: status.code(), stdout: settled(stdout), stderr: settled(stderr) }
}

/// A process that is read from all the time, so that it never waits for its reader.
struct Running {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Running {
    fn new(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let log = Arc::new(Mutex::new(String::new()));
        collect_into(child.stdout.take(), log.clone());
        collect_into(child.stderr.take(), log.clone());
        Self { child, log }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// "running", or how it ended.
    fn state(&self) -> String {
        let pid = Pid::from_child(&self.child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), options) {
            Ok(Some(status)) => format!("evenkeel ended: {status:?}"),
            _ => "evenkeel is running".into(),
        }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(source: Option<impl Read + Send + 'static>) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    collect_into(source, text.clone());
    text
}

fn collect_into(source: Option<impl Read + Send + 'static>, text: Arc<Mutex<String>>) {
    let Some(mut source) = source else { return };
    thread::spawn(move || {
        let mut room = [0; 4096];
        while let Ok(length @ 1..) = source.read(&mut room) {
            text.lock().unwrap().push_str(&String::from_utf8_lossy(&room[..length]));
        }
    });
}

/// The text once its reader is gone: all of it.
fn settled(text: Arc<Mutex<String>>) -> String {
    wait_for("the end of a process's output", START_PATIENCE, || {
        (Arc::strong_count(&text) == 1).then(|| text.lock().unwrap().clone())
    })
}

pub fn completed(configuration: &str, dns: SocketAddr, admin: SocketAddr, directory: &Path) -> String {
    let directory = directory.display();
    let mut text = configuration.replace("{port}", &dns.port().to_string());
    for (section, key, value) in [
        ("listen", "dns", format!("[\"{dns}\"]")),
        ("admin", "listen", format!("\"{admin}\"")),
        ("admin", "socket", format!("\"{directory}/control.sock\"")),
        ("state", "directory", format!("\"{directory}/state\"")),
        ("log", "level", "\"debug\"".into()),
        ("log", "format", "\"text\"".into()),
    ] {
        text = with_key(&text, section, key, &value);
    }
    text
}

/// The text with `key = value` in `[section]`, unless the section has the key.
fn with_key(text: &str, section: &str, key: &str, value: &str) -> String {
    let header = format!("[{section}]");
    let Some(at) = text.lines().position(|l| l.trim() == header) else {
        return format!("{text}\n{header}\n{key} = {value}\n");
    };
    let lines: Vec<&str> = text.lines().collect();
    let body = lines[at + 1..].iter().take_while(|l| !l.trim_start().starts_with('['));
    let has = |l: &&str| l.split('=').next().is_some_and(|k| k.trim() == key);
    if body.into_iter().any(has) {
        return text.to_owned();
    }
    let line = format!("{key} = {value}");
    [&lines[..=at], &[line.as_str()], &lines[at + 1..]].concat().join("\n") + "\n"
}

/// `[groups.default]` with these servers as primary, secondary, tertiary; `more` is put below it.
pub fn tiers(tiers: &[&[SocketAddr]], more: &str) -> String {
    let mut text = String::from("[groups.default]\n");
    for (key, servers) in ["primary", "secondary", "tertiary"].iter().zip(tiers) {
        let list: Vec<String> = servers.iter().map(|s| format!("\"{s}\"")).collect();
        text += &format!("{key} = [{}]\n", list.join(", "));
    }
    text + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_added_where_its_section_lacks_it() {
        for (what, text, want) in [
            ("no section", "a = 1", "a = 1\n[s]\nk = 2\n"),
            ("a section without it", "[s]\nj = 1\n[t]\nk = 3", "[s]\nk = 2\nj = 1\n[t]\nk = 3\n"),
            ("a section with it", "[s]\nk = 1\n", "[s]\nk = 1\n"),
        ] {
            assert_eq!(with_key(text, "s", "k", "2"), want, "{what}");
        }
    }
}
