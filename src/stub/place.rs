//! What is at a path, whole enough to put it back.
//!
//! Not pure. [`put`] leaves the old thing or the new one at any moment (rename), but for a file that is a mount of its
//! own, as containers have: that one can only be written in place.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{IFlags, OFlags, XattrFlags, getxattr, ioctl_getflags, setxattr};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Nothing.
    Nothing,
    /// A plain file.
    File(Kept),
    /// A symbolic link, as it is written.
    Link(PathBuf),
}

/// A plain file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its content.
    pub bytes: Bytes,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was written; `None` is the moment of putting it.
    pub modified: Option<SystemTime>,
}

/// Bytes that are a string in JSON where they are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bytes {
    /// UTF-8.
    Text(String),
    /// Anything.
    Raw(Vec<u8>),
}

impl Bytes {
    /// As they are.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Bytes::Text(text) => text.as_bytes(),
            Bytes::Raw(bytes) => bytes,
        }
    }
}

impl Place {
    /// A new file that everybody may read and root owns.
    pub fn new_file(text: &str) -> Self {
        Place::File(Kept { bytes: Bytes::Text(text.to_owned()), mode: 0o644, uid: 0, gid: 0, modified: None })
    }

    /// Is it a file with this content?
    pub fn says(&self, text: &str) -> bool {
        matches!(self, Place::File(kept) if kept.bytes.as_bytes() == text.as_bytes())
    }

    /// A file's content, as far as it is text.
    pub fn text(&self) -> Option<String> {
        match self {
            Place::File(kept) => Some(String::from_utf8_lossy(kept.bytes.as_bytes()).into_owned()),
            Place::Nothing | Place::Link(_) => None,
        }
    }

    /// The same content, or the same link? Mode, owner and time are not looked at.
    pub fn is_alike(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::File(a), Place::File(b)) => a.bytes.as_bytes() == b.bytes.as_bytes(),
            (a, b) => a == b,
        }
    }

    /// In words, for a plan.
    pub fn in_words(&self) -> String {
        match self {
            Place::Nothing => "nothing".to_owned(),
            Place::File(kept) => format!("a file of {} bytes, mode {:04o}", kept.bytes.as_bytes().len(), kept.mode),
            Place::Link(target) => format!("a link to {}", target.display()),
        }
    }
}

/// Bytes of a file that is looked at; more is no resolv.conf and no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is at `path`.
///
/// # Errors
///
/// What the system says; that there is neither a file nor a link; that the file has more than 1 MiB.
pub fn look(path: &Path) -> io::Result<Place> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Place::Nothing);
        }
        other => other?,
    };
    if meta.is_symlink() {
        return fs::read_link(path).map(Place::Link);
    }
    if !meta.is_file() {
        return Err(io::Error::other("it is neither a file nor a link"));
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut bytes = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    let bytes = String::from_utf8(bytes).map_or_else(|e| Bytes::Raw(e.into_bytes()), Bytes::Text);
    let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    Ok(Place::File(Kept { bytes, mode, uid, gid, modified: meta.modified().ok() }))
}

/// Is the file marked so that nobody may change it (chattr +i)? False where the file system knows no such mark.
pub fn is_immutable(path: &Path) -> bool {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    file.is_ok_and(|file| ioctl_getflags(&file).is_ok_and(|f| f.intersects(IFlags::IMMUTABLE | IFlags::APPEND)))
}

/// Puts `place` at `path`, in the place of what is there.
///
/// # Errors
///
/// What the system says. What was there is there still, unless it could only be written in place.
pub fn put(path: &Path, place: &Place) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.evenkeel-new"));
    let done = match place {
        Place::Nothing => match fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
        Place::Link(target) => {
            remove_left(&draft).and_then(|()| symlink(target, &draft)).and_then(|()| fs::rename(&draft, path))
        }
        Place::File(kept) => write_draft(path, &draft, kept).and_then(|()| match fs::rename(&draft, path) {
            Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                fs::remove_file(&draft).and_then(|()| write_in_place(path, kept))
            }
            other => other,
        }),
    };
    if done.is_err() {
        let _ = fs::remove_file(&draft);
    }
    done?;
    // What is put must survive a power cut; a file system that cannot sync a directory has nothing to add.
    let _ = path.parent().map(|parent| File::open(parent).and_then(|d| d.sync_all()));
    Ok(())
}

/// A draft that an earlier run left when it was killed.
fn remove_left(draft: &Path) -> io::Result<()> {
    match fs::remove_file(draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn write_draft(path: &Path, draft: &Path, kept: &Kept) -> io::Result<()> {
    remove_left(draft)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    // SELinux goes by the file's label, and a new file would have that of the directory.
    let mut label = [0; 256];
    if let Ok(length) = getxattr(path, LABEL, &mut label) {
        let _ = setxattr(draft, LABEL, &label[..length], XattrFlags::empty());
    }
    file.write_all(kept.bytes.as_bytes())?;
    dress(&file, draft, kept)?;
    file.sync_all()
}

const LABEL: &str = "security.selinux";

fn write_in_place(path: &Path, kept: &Kept) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(kept.bytes.as_bytes())?;
    // Such a file may belong to another user namespace, where owner and mode are not ours to set.
    let _ = dress(&file, path, kept);
    file.sync_all()
}

fn dress(file: &File, path: &Path, kept: &Kept) -> io::Result<()> {
    let meta = file.metadata()?;
    // Who is not root has no choice of owner, and no machine to change either.
    if (meta.uid(), meta.gid()) != (kept.uid, kept.gid) && geteuid().is_root() {
        chown(path, Some(kept.uid), Some(kept.gid))?;
    }
    file.set_permissions(Permissions::from_mode(kept.mode))?;
    kept.modified.map_or(Ok(()), |at| file.set_modified(at))
}
