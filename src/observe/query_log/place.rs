//! Where the query log is written: a file, the journal, a dnstap collector. Each wait here has a bound, and is the
//! writer's alone.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use socket2::{Domain, SockAddr, Socket, Type};

use super::dnstap::{self, CONTENT_TYPE, Control, Kind};
use super::{QueryLogSettings, Record, To, line};
use crate::serve::Transport;

/// journald's native protocol (systemd, "Journal Native Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// How often it is looked whether the file was moved.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A collector reads, and answers the handshake, within this.
const COLLECTOR_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are written at once.
const BUFFER_BYTES: usize = 64 << 10;

pub(super) struct Place {
    prefix: [u8; 2],
    sink: Sink,
    bytes: Vec<u8>,
}

enum Sink {
    File { path: PathBuf, file: BufWriter<File>, looked: Instant },
    Journal(UnixDatagram),
    Dnstap { stream: BufWriter<UnixStream>, identity: String },
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
        Ok(Self { prefix: settings.client_prefix, sink, bytes: Vec::new() })
    }

    /// Writes a question; false where the journal is too busy to take it.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<bool> {
        self.bytes.clear();
        match &mut self.sink {
            Sink::File { path, file, looked } => {
                if looked.elapsed() >= LOOK_EVERY {
                    *looked = Instant::now();
                    if was_moved(path, file.get_ref()) {
                        file.flush()?;
                        *file = open_file(path)?;
                    }
                }
                line::write(record, self.prefix, &mut self.bytes);
                file.write_all(&self.bytes).map(|()| true)
            }
            Sink::Journal(socket) => {
                self.bytes.extend(b"PRIORITY=6\nSYSLOG_IDENTIFIER=evenkeel-queries\nMESSAGE=");
                line::write(record, self.prefix, &mut self.bytes);
                match socket.send(&self.bytes) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
                    sent => sent.map(|_| true),
                }
            }
            Sink::Dnstap { stream, identity } => {
                let messages = [
                    (Kind::ClientQuery, &record.query, record.time.saturating_sub(record.took)),
                    (Kind::ClientResponse, &record.reply, record.time),
                ];
                for (kind, message, time) in messages.into_iter().filter(|(_, message, _)| !message.is_empty()) {
                    let client = line::cut(record.client, self.prefix);
                    let tcp = record.transport == Transport::Tcp;
                    let seen = dnstap::Seen { kind, client, tcp, time, message };
                    dnstap::write_frame(&seen, identity, VERSION, &mut self.bytes);
                }
                stream.write_all(&self.bytes).map(|()| true)
            }
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::File { file, .. } => file.flush(),
            Sink::Journal(_) => Ok(()),
            Sink::Dnstap { stream, .. } => stream.flush(),
        }
    }

    /// Writes what is left, and says good-bye to a collector.
    pub(super) fn close(&mut self) {
        if self.flush().is_err() {
            return;
        }
        if let Sink::Dnstap { stream, .. } = &mut self.sink {
            let mut stop = Vec::new();
            dnstap::write_control(Control::Stop, &mut stop);
            // A collector that is gone has lost nothing more by it.
            let _ = stream.write_all(&stop).and_then(|()| stream.flush());
            let _ = read_control(stream.get_mut());
        }
    }
}

const VERSION: &str = concat!("evenkeel ", env!("CARGO_PKG_VERSION"));

/// 0640, whatever the umask is; neither a link nor a FIFO is followed.
fn open_file(path: &Path) -> io::Result<BufWriter<File>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640).custom_flags(flags);
    let mut file = options.open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut last = [b'\n'];
    match meta.len() {
        0 => file.set_permissions(Permissions::from_mode(0o640))?,
        length => file.read_exact_at(&mut last, length - 1)?,
    }
    // A full disk, or an end without notice, may have left half a line.
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(BufWriter::with_capacity(BUFFER_BYTES, file))
}

/// Is another file, or none, at the path?
fn was_moved(path: &Path, file: &File) -> bool {
    match (std::fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(ours)) => (there.dev(), there.ino()) != (ours.dev(), ours.ino()),
        _ => true,
    }
}

/// Connects, and shakes hands as a bidirectional frame stream does: READY, ACCEPT, START.
fn open_collector(path: &Path) -> io::Result<BufWriter<UnixStream>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, COLLECTOR_PATIENCE)?;
    let mut stream = UnixStream::from(std::os::fd::OwnedFd::from(socket));
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(COLLECTOR_PATIENCE))?;
    stream.set_write_timeout(Some(COLLECTOR_PATIENCE))?;
    let mut bytes = Vec::new();
    dnstap::write_control(Control::Ready, &mut bytes);
    stream.write_all(&bytes)?;
    if read_control(&mut stream)? != Control::Accept as u32 {
        return Err(io::Error::other("it does not accept dnstap"));
    }
    bytes.clear();
    dnstap::write_control(Control::Start, &mut bytes);
    stream.write_all(&bytes)?;
    Ok(BufWriter::with_capacity(BUFFER_BYTES, stream))
}

/// The kind of the control frame that comes next; one of acceptance must name our content type.
fn read_control(stream: &mut UnixStream) -> io::Result<u32> {
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let (escape, length) = head.split_at(4);
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    if escape != [0; 4] || !(4..=CONTROL_BYTES_MAX).contains(&length) {
        return Err(io::Error::other("it speaks no frame streams"));
    }
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame)?;
    let (kind, rest) = frame.split_at(4);
    let kind = u32::from_be_bytes([kind[0], kind[1], kind[2], kind[3]]);
    if kind == Control::Accept as u32 && !rest.windows(CONTENT_TYPE.len()).any(|w| w == CONTENT_TYPE) {
        return Err(io::Error::other("it does not accept dnstap"));
    }
    Ok(kind)
}

/// Longest control frame (frame streams, FSTRM_CONTROL_FRAME_LENGTH_MAX).
const CONTROL_BYTES_MAX: u32 = 512;
