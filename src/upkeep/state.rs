//! Files in the state directory: read only where nobody else can have written them, written whole or not at all.
//!
//! Not pure. The directory itself is found, or made, by [`super::source::state_directory`].

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// Opens a file to read. No link is followed and no pipe waited for.
///
/// # Errors
///
/// What the system says, or that the file or the directory belongs to another user or may be written by others.
pub fn open(directory: &Path, name: &str) -> io::Result<File> {
    open_of(directory, name, None)
}

/// As [`open`], of a directory that may belong to `also` as well: the user whom this process becomes.
///
/// # Errors
///
/// As [`open`].
pub fn open_of(directory: &Path, name: &str, also: Option<u32>) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(directory.join(name))?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    check("it", &meta, also)?;
    check("its directory", &fs::metadata(directory)?, also)?;
    Ok(file)
}

/// Nobody else may write the directory.
///
/// # Errors
///
/// What the system says, or who may.
pub fn check_directory(directory: &Path) -> io::Result<()> {
    check("its directory", &fs::metadata(directory)?, None)
}

fn check(what: &str, meta: &Metadata, also: Option<u32>) -> io::Result<()> {
    if ![Some(geteuid().as_raw()), Some(0), also].contains(&Some(meta.uid())) {
        return Err(io::Error::other(format!("{what} belongs to another user")));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("{what} may be written by others")));
    }
    Ok(())
}

/// Puts a file of mode 0600 with these bytes in the place of what is there.
///
/// # Errors
///
/// What the system says; what was there is there still.
pub fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = directory.join(format!(".{name}.{}", std::process::id()));
    // Left by a process of the same id that ended while writing.
    let _ = fs::remove_file(&draft);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&draft, directory.join(name)));
    let done = renamed.and_then(|()| File::open(directory)?.sync_all());
    if done.is_err() {
        let _ = fs::remove_file(&draft);
    }
    done
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_others_can_write_and_links_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        mode(dir.path(), 0o700);
        replace(dir.path(), "x", b"one").unwrap();
        replace(dir.path(), "x", b"two").unwrap();
        let mut text = String::new();
        open(dir.path(), "x").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let file = dir.path().join("x");
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);

        mode(&file, 0o620);
        assert!(open(dir.path(), "x").unwrap_err().to_string().starts_with("it may be written"));
        mode(&file, 0o600);
        mode(dir.path(), 0o770);
        assert!(open(dir.path(), "x").unwrap_err().to_string().starts_with("its directory may be written"));
        mode(dir.path(), 0o700);
        symlink(&file, dir.path().join("y")).unwrap();
        assert!(open(dir.path(), "y").is_err());
        if geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
            assert!(open(dir.path(), "x").unwrap_err().to_string().starts_with("it belongs to another user"));
        }
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("x")).unwrap();
        assert!(replace(dir.path(), "x", b"one").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
