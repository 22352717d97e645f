//! The process's end of the control socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{Answer, ErrorKind, FlushText, Request, default_places};
use crate::limits::{self, ACCEPT_PAUSE, CONTROL_REQUEST_BYTES_MAX};
use crate::wire::Name;

/// What the running process does for those who ask over the socket.
pub trait Controlled: Send + Sync + 'static {
    /// Health, tiers, cache, rates, configuration. `cli::render` knows the keys that people are shown.
    fn status(&self) -> Value;

    /// Status and metrics for a bug report: `status`, `metrics`, and `blanked`, the names of expansions whose values
    /// were blanked.
    fn bundle(&self) -> Value {
        json!({ "status": self.status() })
    }

    /// What would be done with this question now, and why; or why that cannot be said.
    fn explain(&self, name: &Name, qtype: u16) -> Result<Value, String>;

    /// Lets go of cached answers; returns how many. May take as long as a walk over the whole cache.
    fn flush(&self, what: &Flush) -> u64;

    /// Applies the configuration as it is at this moment; returns what there is to say about it, a line each (keys
    /// that need a restart, warnings), or why it was refused whole. Reads and writes files.
    fn reload(&self) -> Result<Vec<String>, String>;

    /// Gives nothing good up for so long; returns what there is to say about it, a line each.
    fn freeze(&self, span: Duration) -> Vec<String>;

    /// Ends the freeze; false where there is none.
    fn thaw(&self) -> bool;

    /// Ends the holds on a name; returns how many there were.
    fn release(&self, name: &Name) -> u64;
}

/// What is flushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flush {
    /// One name, all its types.
    Name(Name),
    /// A name and all below it.
    Zone(Name),
    /// Everything.
    All,
}

/// Serves the socket at `configured`, or at the default place. Never returns; dropped, it takes the socket away.
///
/// `on_change` hears each time that the socket is there (its path) or cannot be had (one line, once while the reason
/// stays the same).
pub async fn serve(
    configured: Option<PathBuf>,
    controlled: Arc<dyn Controlled>,
    on_change: impl Fn(Result<&Path, &str>) + Send,
) {
    let places = configured.map_or_else(default_places, |place| vec![place]);
    let mut last_error = String::new();
    loop {
        match bind_first(&places) {
            Ok(bound) => {
                last_error.clear();
                on_change(Ok(&bound.path));
                accept_while_there(&bound, &controlled).await;
            }
            Err(error) => {
                if error != last_error {
                    on_change(Err(&error));
                    last_error = error;
                }
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

/// Pause between attempts to have the socket, and between looks whether it is still there.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Connections at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 16;
/// A connection, from its first byte to its last.
const DEADLINE: Duration = Duration::from_secs(5);

async fn accept_while_there(bound: &Bound, controlled: &Arc<dyn Controlled>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match timeout(TRY_AGAIN, bound.listener.accept()).await {
            Ok(Ok((stream, _))) => {
                let (controlled, path) = (controlled.clone(), bound.path.clone());
                tokio::spawn(async move {
                    // A peer that is slow or gone is its own loss.
                    let _ = timeout(DEADLINE, converse(stream, &path, controlled)).await;
                    drop(permit);
                });
            }
            Ok(Err(_)) => sleep(ACCEPT_PAUSE).await,
            // Nobody came: perhaps since somebody took the file away.
            Err(_) if !bound.is_there() => return,
            Err(_) => {}
        }
    }
}

async fn converse(mut stream: UnixStream, path: &Path, controlled: Arc<dyn Controlled>) -> io::Result<()> {
    let peer = stream.peer_cred().ok().map(|peer| peer.uid());
    let (read, mut write) = stream.split();
    let mut line = Vec::new();
    let mut bounded = BufReader::new(read.take(CONTROL_REQUEST_BYTES_MAX as u64 + 1));
    bounded.read_until(b'\n', &mut line).await?;
    let answer = match understand(&line) {
        Ok(request) if request.changes() && !may_change(peer, path) => {
            refuse(ErrorKind::Permission, "only root, the user that evenkeel runs as and its group may do this")
        }
        Ok(request) => carry_out(request, controlled).await,
        Err(why) => refuse(ErrorKind::Request, why),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    write.shutdown().await
}

fn understand(line: &[u8]) -> Result<Request, String> {
    if line.len() > CONTROL_REQUEST_BYTES_MAX {
        return Err(format!("a request has at most {CONTROL_REQUEST_BYTES_MAX} bytes"));
    }
    serde_json::from_slice(line).map_err(|e| format!("no request: {e}"))
}

/// May a peer of this user change something? Members of the group that evenkeel runs as may: an operator's way in.
/// Where the socket's file is closed to all but its owner and that group, the kernel let nobody else connect; a user
/// database, which may be behind a network and its names behind us, is not asked.
fn may_change(peer: Option<u32>, socket: &Path) -> bool {
    let Some(uid) = peer else { return false };
    is_owner(uid, geteuid().as_raw())
        || fs::symlink_metadata(socket).is_ok_and(|file| is_our_groups_alone(file.mode(), file.gid()))
}

/// Root may, and the user that evenkeel runs as.
fn is_owner(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

fn is_our_groups_alone(mode: u32, group: u32) -> bool {
    mode & 0o007 == 0 && group == getegid().as_raw()
}

async fn carry_out(request: Request, controlled: Arc<dyn Controlled>) -> Answer {
    let name = |text: &str| text.parse::<Name>().map_err(|why| format!("{text:?}: {why}"));
    let done = match request {
        Request::Status => Ok(controlled.status()),
        Request::Bundle => Ok(controlled.bundle()),
        Request::Explain { name: text, qtype } => match name(&text) {
            Ok(name) => controlled.explain(&name, qtype),
            Err(why) => return refuse(ErrorKind::Request, why),
        },
        Request::Flush { what } => {
            let what = match what {
                FlushText::Name(text) => name(&text).map(Flush::Name),
                FlushText::Zone(text) => name(&text).map(Flush::Zone),
                FlushText::All => Ok(Flush::All),
            };
            match what {
                // Off the runtime's threads: it may walk the whole cache.
                Ok(what) => tokio::task::spawn_blocking(move || json!({ "dropped": controlled.flush(&what) }))
                    .await
                    .map_err(|e| e.to_string()),
                Err(why) => return refuse(ErrorKind::Request, why),
            }
        }
        Request::Freeze { seconds } => {
            let span = Duration::from_secs(seconds);
            if span < limits::FREEZE.min || span > limits::FREEZE.max {
                return refuse(ErrorKind::Request, "a freeze lasts from one second to a day");
            }
            // Off the runtime's threads: it writes a file.
            tokio::task::spawn_blocking(move || json!({ "remarks": controlled.freeze(span) }))
                .await
                .map_err(|e| e.to_string())
        }
        Request::Thaw => tokio::task::spawn_blocking(move || json!({ "was_frozen": controlled.thaw() }))
            .await
            .map_err(|e| e.to_string()),
        Request::Release { name: text } => match name(&text) {
            Ok(name) => match controlled.release(&name) {
                0 => Err(format!("{name} is not held")),
                released => Ok(json!({ "released": released })),
            },
            Err(why) => return refuse(ErrorKind::Request, why),
        },
        // As a freeze; and a client that goes away does not end it half-way.
        Request::Reload => tokio::task::spawn_blocking(move || controlled.reload())
            .await
            .unwrap_or_else(|e| Err(e.to_string()))
            .map(|remarks| json!({ "remarks": remarks })),
    };
    match done {
        Ok(ok) => Answer::Ok { ok },
        Err(why) => refuse(ErrorKind::Refused, why),
    }
}

fn refuse(kind: ErrorKind, error: impl Into<String>) -> Answer {
    Answer::Error { error: error.into(), kind }
}

//------------ The socket's file -------------------------------------------------------------------------------------

/// A listening socket and its file, which goes with it.
struct Bound {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that no other process's is taken away.
    file: (u64, u64),
}

impl Bound {
    fn is_there(&self) -> bool {
        file_id(&self.path).is_ok_and(|id| id == self.file)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Binds the first place that can be had. Where another process serves a place, the later ones are not tried: who
/// asks would find the other one.
fn bind_first(places: &[PathBuf]) -> Result<Bound, String> {
    let mut errors = Vec::new();
    for path in places {
        match bind(path) {
            Ok(bound) => return Ok(bound),
            Err(e) => {
                let taken = e.kind() == io::ErrorKind::AddrInUse;
                errors.push(format!("{}: {e}", path.display()));
                if taken {
                    break;
                }
            }
        }
    }
    Err(errors.join("; "))
}

fn bind(path: &Path) -> io::Result<Bound> {
    let directory = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    make_directory(directory)?;
    if is_served(path)? {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it"));
    }
    // Bound under another name and then moved, so that the file is never there with other rights, and a dead
    // process's file is replaced in one step.
    let draft = directory.join(format!(".{}.sock", std::process::id()));
    let _ = fs::remove_file(&draft);
    let bound = UnixListener::bind(&draft).and_then(|listener| {
        fs::set_permissions(&draft, Permissions::from_mode(0o660))?;
        let file = file_id(&draft)?;
        fs::rename(&draft, path)?;
        Ok(Bound { listener, path: path.to_owned(), file })
    });
    if bound.is_err() {
        let _ = fs::remove_file(&draft);
    }
    bound
}

/// Makes the directory of a socket, 0750, or says why the one that is there will not do.
///
/// # Errors
///
/// What the system says, or that everybody may write the directory.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o750).create(directory) {
        // The umask may have taken something away.
        Ok(()) => fs::set_permissions(directory, Permissions::from_mode(0o750)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::metadata(directory)?;
            let others_may_replace = meta.mode() & 0o002 != 0 && meta.mode() & 0o1000 == 0;
            if others_may_replace { Err(io::Error::other("everybody may write its directory")) } else { Ok(()) }
        }
        Err(e) => Err(e),
    }
}

/// Does a living process listen at `path`? What is there and is no socket is an error: it is not ours to replace.
fn is_served(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::other("something else than a socket is there"));
        }
        Ok(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A process that is too busy to accept is alive; this must not wait for it.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_own_user_may_and_who_came_through_a_socket_that_only_our_group_may_open() {
        for (peer, own, may) in [(0, 500, true), (500, 500, true), (501, 500, false), (501, 0, false)] {
            assert_eq!(is_owner(peer, own), may, "{peer} of {own}");
        }
        let own = getegid().as_raw();
        for (mode, group, may) in
            [(0o660, own, true), (0o666, own, false), (0o662, own, false), (0o660, own + 1, false)]
        {
            assert_eq!(is_our_groups_alone(0o140_000 | mode, group), may, "{mode:o}");
        }
        assert!(!may_change(Some(u32::MAX - 7), Path::new("/nowhere")) && !may_change(None, Path::new("/nowhere")));
    }

    #[test]
    fn only_what_changes_something_is_guarded() {
        let explain = Request::Explain { name: "x".into(), qtype: 1 };
        for (request, changes) in [
            (Request::Status, false),
            (explain, false),
            (Request::Flush { what: FlushText::All }, true),
            (Request::Reload, true),
            (Request::Freeze { seconds: 1 }, true),
            (Request::Thaw, true),
            (Request::Release { name: "x".into() }, true),
        ] {
            assert_eq!(request.changes(), changes, "{request:?}");
        }
    }

    #[test]
    fn requests_are_understood_to_the_letter() {
        for (line, fine) in [
            (&br#"{"command":"status"}"#[..], true),
            (br#"{"command":"explain","name":"a.example","qtype":1}"#, true),
            (br#"{"command":"flush","what":"all"}"#, true),
            (br#"{"command":"flush","what":{"zone":"example"}}"#, true),
            (br#"{"command":"flush"}"#, false),
            (br#"{"command":"flush","what":"all","really":true}"#, false),
            (br#"{"command":"explain","name":"a","qtype":65536}"#, false),
            (br#"{"command":"shutdown"}"#, false),
            (b"", false),
            (b"\xff", false),
        ] {
            assert_eq!(understand(line).is_ok(), fine, "{}", String::from_utf8_lossy(line));
        }
        assert!(understand(&[b' '; CONTROL_REQUEST_BYTES_MAX + 1]).unwrap_err().contains("at most"));
    }
}
