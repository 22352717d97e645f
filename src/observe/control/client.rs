//! The commands' end of the control socket. Needs no runtime; every wait is bounded.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Answer, ErrorKind, Request, default_places};

/// Why a question got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// Nobody listens at any of these places, each with its reason.
    NotReachable(Vec<(PathBuf, String)>),
    /// The socket is there, and this user may not open it.
    NotAllowed(PathBuf),
    /// A process answered, and did not do it.
    Refused(ErrorKind, String),
    /// A process listens, and does not answer, or not in a way that this version understands.
    NoAnswer(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::NotReachable(tried) => {
                f.write_str("no running evenkeel found")?;
                for (i, (path, why)) in tried.iter().enumerate() {
                    write!(f, "{}{}: {why}", if i == 0 { " (" } else { "; " }, path.display())?;
                }
                f.write_str(if tried.is_empty() { "" } else { ")" })
            }
            AskError::NotAllowed(path) => write!(f, "{}: this user may not open it", path.display()),
            AskError::Refused(_, why) => f.write_str(why),
            AskError::NoAnswer(why) => write!(f, "evenkeel is there and gives no answer: {why}"),
        }
    }
}

impl std::error::Error for AskError {}

/// Asks the process that serves `socket`, or the first of the default places that is served.
pub fn ask(socket: Option<&Path>, request: &Request) -> Result<Value, AskError> {
    let places = socket.map_or_else(default_places, |path| vec![path.to_owned()]);
    let mut tried = Vec::new();
    let mut forbidden = None;
    for path in places {
        match connect(&path) {
            Ok(stream) => return converse(stream, request),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => forbidden = forbidden.or(Some(path)),
            Err(e) => tried.push((path, e.to_string())),
        }
    }
    Err(forbidden.map_or(AskError::NotReachable(tried), AskError::NotAllowed))
}

/// For all that is waited for. More than the server gives a connection, so that its own verdict comes first.
const DEADLINE: Duration = Duration::from_secs(8);
/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Bounds the connect too: a Unix socket whose queue is full lets it wait as long as a write.
    socket.set_write_timeout(Some(DEADLINE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

fn converse(mut stream: UnixStream, request: &Request) -> Result<Value, AskError> {
    let no_answer = |e: io::Error| {
        let timed_out = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        AskError::NoAnswer(if timed_out { "waited for 8 s".to_owned() } else { e.to_string() })
    };
    let mut line = serde_json::to_vec(request).map_err(|e| AskError::NoAnswer(e.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(no_answer)?;
    let text = read_whole(&mut stream).map_err(no_answer)?;
    match serde_json::from_slice(&text) {
        Ok(Answer::Ok { ok }) => Ok(ok),
        Ok(Answer::Error { error, kind }) => Err(AskError::Refused(kind, error)),
        Err(_) if text.is_empty() => Err(AskError::NoAnswer("it closed the connection".to_owned())),
        Err(e) => Err(AskError::NoAnswer(e.to_string())),
    }
}

fn read_whole(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + DEADLINE;
    let mut text = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(text),
            Ok(n) if text.len() + n > ANSWER_BYTES_MAX => return Err(io::Error::other("more than 16 MiB")),
            Ok(n) => text.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
