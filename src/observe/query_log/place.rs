//! Where the query log is written: a file, the journal, a dnstap collector. Each wait here has a bound, and is the
//! writer's alone.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::dnstap::{self, Control, Kind};
use super::{QueryLogSettings, Record, To, line};
use crate::serve::Transport;
use crate::wire::query;

/// journald's native protocol (systemd, "Journal Native Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// How often it is looked whether the file was moved.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A collector reads, and answers the handshake, within this.
const COLLECTOR_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are written at once.
const BUFFER_BYTES: usize = 64 << 10;

pub(super) struct Place {
    /// As it is told.
    pub name: String,
    prefix: [u8; 2],
    sink: Sink,
    /// What is not written yet.
    pending: Vec<u8>,
}

enum Sink {
    File { path: PathBuf, file: File, looked: Instant },
    Journal(UnixDatagram),
    Dnstap { stream: UnixStream, identity: String },
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is gone out.
    Sent,
    /// It goes out with the next flush.
    Held,
    /// The same, and it is time for one.
    HeldFull,
    /// The journal is too busy to take it.
    Not,
}

impl Place {
    pub(super) fn open(settings: &QueryLogSettings) -> io::Result<Self> {
        let sink = match &settings.to {
            To::Nowhere => return Err(io::Error::other("the query log is off")),
            To::File(path) => Sink::File { path: path.clone(), file: open_file(path)?, looked: Instant::now() },
            To::Journal => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(JOURNAL)?;
                Sink::Journal(socket)
            }
            To::Dnstap(path) => {
                let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                Sink::Dnstap { stream: open_collector(path)?, identity: hostname.trim().to_owned() }
            }
        };
        let (name, prefix) = (shown(&settings.to), settings.client_prefix);
        Ok(Self { name, prefix, sink, pending: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Is another file, or none, at the path? Looked for every second.
    pub(super) fn was_moved(&mut self) -> bool {
        let Sink::File { path, file, looked } = &mut self.sink else { return false };
        if looked.elapsed() < LOOK_EVERY {
            return false;
        }
        *looked = Instant::now();
        match (std::fs::symlink_metadata(path), file.metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) != (ours.dev(), ours.ino()),
            _ => true,
        }
    }

    pub(super) fn write(&mut self, record: &Record) -> io::Result<Taken> {
        match &mut self.sink {
            Sink::File { .. } => line::write(record, self.prefix, &mut self.pending),
            Sink::Journal(socket) => {
                self.pending.clear();
                // journald has a limit a unit and priority: the ordinary log is not to suffer from this one.
                self.pending.extend(b"PRIORITY=7\nSYSLOG_IDENTIFIER=evenkeel-queries\nMESSAGE=");
                line::write(record, self.prefix, &mut self.pending);
                return match socket.send(&self.pending) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(Taken::Not),
                    sent => sent.map(|_| Taken::Sent),
                };
            }
            Sink::Dnstap { identity, .. } => {
                let query = without_options(&record.query, self.prefix);
                let messages = [
                    (Kind::ClientQuery, &query[..], record.time.saturating_sub(record.took)),
                    (Kind::ClientResponse, &record.reply[..], record.time),
                ];
                for (kind, message, time) in messages.into_iter().filter(|(_, message, _)| !message.is_empty()) {
                    let client = line::cut(record.client, self.prefix);
                    let tcp = record.transport == Transport::Tcp;
                    let seen = dnstap::Seen { kind, client, tcp, time, message };
                    dnstap::write_frame(&seen, identity, VERSION, &mut self.pending);
                }
            }
        }
        Ok(if self.pending.len() >= BUFFER_BYTES { Taken::HeldFull } else { Taken::Held })
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        let done = match &mut self.sink {
            Sink::File { file, .. } => file.write_all(&self.pending),
            Sink::Journal(_) => Ok(()),
            Sink::Dnstap { stream, .. } => stream.write_all(&self.pending),
        };
        self.pending.clear();
        done
    }

    /// Says good-bye to a collector.
    pub(super) fn close(&mut self) {
        if let Sink::Dnstap { stream, .. } = &mut self.sink {
            let mut stop = Vec::new();
            dnstap::write_control(Control::Stop, &mut stop);
            // A collector that is gone has lost nothing more by it.
            let _ = stream.write_all(&stop).and_then(|()| read_control(stream, Instant::now() + COLLECTOR_PATIENCE));
        }
    }
}

/// A query as it came, but for the options of its OPT record: programs between put whole addresses there (RFC 7871).
/// What is no question that can be read is shown where addresses are not cut, and else not.
fn without_options(packet: &[u8], prefix: [u8; 2]) -> Vec<u8> {
    match query::check(packet) {
        Ok(query) => query.told_again(),
        Err(_) if prefix[0] >= 32 && prefix[1] >= 128 => packet.to_vec(),
        Err(_) => Vec::new(),
    }
}

/// A place, for messages.
pub(super) fn shown(to: &To) -> String {
    match to {
        To::Nowhere => String::new(),
        To::File(path) => path.display().to_string(),
        To::Journal => "the journal".to_owned(),
        To::Dnstap(path) => format!("the collector at {}", path.display()),
    }
}

/// Why a place cannot be had, and what to do.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "it takes longer than a second; is it reading?".to_owned(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            "it hangs up; does it speak bidirectional frame streams with dnstap?".to_owned()
        }
        ErrorKind::PermissionDenied => format!("{error}; may evenkeel's user write there?"),
        ErrorKind::NotFound => format!("{error}; its directory, or the program that reads, must be there"),
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            "it is a link; name the file that it leads to".to_owned()
        }
        _ => error.to_string(),
    }
}

const VERSION: &str = concat!("evenkeel ", env!("CARGO_PKG_VERSION"));

/// A file that is made here is 0640, whatever the umask is; from one that is there, rights beyond that are taken.
/// Neither a link nor a FIFO is followed.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(MODE).custom_flags(flags);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(MODE))?;
            return Ok(file);
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    let mut file = options.open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mode = meta.mode() & 0o777;
    if mode & !MODE != 0
        && let Err(e) = file.set_permissions(Permissions::from_mode(mode & MODE))
        && mode & 0o007 != 0
    {
        return Err(io::Error::new(e.kind(), format!("everybody may read it, and that cannot be changed: {e}")));
    }
    let mut last = [b'\n'];
    if meta.len() > 0 {
        file.read_exact_at(&mut last, meta.len() - 1)?;
    }
    // A full disk, or an end without notice, may have left half a line.
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

const MODE: u32 = 0o640;

/// Connects, and shakes hands as a bidirectional frame stream does: READY, ACCEPT, START.
fn open_collector(path: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + COLLECTOR_PATIENCE;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, COLLECTOR_PATIENCE)?;
    let mut stream = UnixStream::from(std::os::fd::OwnedFd::from(socket));
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(COLLECTOR_PATIENCE))?;
    let mut bytes = Vec::new();
    dnstap::write_control(Control::Ready, &mut bytes);
    stream.write_all(&bytes)?;
    if read_control(&mut stream, until)? != Control::Accept as u32 {
        return Err(io::Error::other("it does not accept dnstap"));
    }
    bytes.clear();
    dnstap::write_control(Control::Start, &mut bytes);
    stream.write_all(&bytes)?;
    Ok(stream)
}

/// The kind of the control frame that comes next. One of acceptance must name our content type, or none at all, which
/// takes any.
fn read_control(stream: &mut UnixStream, until: Instant) -> io::Result<u32> {
    let mut head = [0; 8];
    read_until(stream, &mut head, until)?;
    let (escape, length) = head.split_at(4);
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    if escape != [0; 4] || !(4..=CONTROL_BYTES_MAX).contains(&length) {
        return Err(io::Error::other("it speaks no frame streams"));
    }
    let mut frame = vec![0; length as usize];
    read_until(stream, &mut frame, until)?;
    let (kind, fields) = frame.split_at(4);
    let kind = u32::from_be_bytes([kind[0], kind[1], kind[2], kind[3]]);
    if kind == Control::Accept as u32 && !dnstap::takes_our_type(fields) {
        return Err(io::Error::other("it does not accept dnstap"));
    }
    Ok(kind)
}

/// Fills `room`, however few bytes come at once, within the time that there is.
fn read_until(stream: &mut UnixStream, room: &mut [u8], until: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < room.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut room[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Longest control frame (frame streams, FSTRM_CONTROL_FRAME_LENGTH_MAX).
const CONTROL_BYTES_MAX: u32 = 512;
