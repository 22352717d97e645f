//! Two instances must not serve the same sockets by accident.
//!
//! SO_REUSEPORT alone would let a second one in, to take half of the questions. So each instance holds a lock: flock
//! on a file of its own, which the kernel gives back with the process, however that ends. A file left behind means
//! nothing. (The other guard is the TCP port, see [`super::socket`].)

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::socket::OpenError;

/// Held as long as this process is the only instance. Dropped, the lock is given back.
#[derive(Debug)]
pub struct Alone {
    _file: File,
    directory: PathBuf,
}

impl Alone {
    /// Where the lock is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes the lock of `directory`, which must be there.
    ///
    /// # Errors
    ///
    /// [`OpenError::AnotherInstance`] where it is held, [`OpenError::Lock`] where the file cannot be had.
    pub fn take(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(FILE_NAME);
        let failed = |error: io::Error| OpenError::Lock { path: path.clone(), error };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // std adds O_CLOEXEC. A link could make us write to another's file.
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() || meta.nlink() != 1 {
            return Err(failed(io::Error::other("it is no plain file with one name")));
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::AnotherInstance { process: holder(&mut file), lock: path });
            }
            Err(e) => return Err(failed(e.into())),
        }
        // The number is a courtesy to the next instance's message; the lock holds without it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file, directory: directory.to_owned() })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The lock's file.
pub const FILE_NAME: &str = "evenkeel.lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_told_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = Alone::take(directory.path()).unwrap();
        match Alone::take(directory.path()) {
            Err(OpenError::AnotherInstance { process, lock }) => {
                assert_eq!(process, Some(std::process::id()));
                assert_eq!(lock, directory.path().join(FILE_NAME));
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        Alone::take(directory.path()).unwrap();
    }

    #[test]
    fn another_directory_is_another_lock() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let _first = Alone::take(one.path()).unwrap();
        Alone::take(two.path()).unwrap();
    }

    #[test]
    fn a_lock_that_cannot_be_had_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let error = Alone::take(&directory.path().join("missing")).unwrap_err();
        assert!(matches!(&error, OpenError::Lock { .. }), "{error}");
        assert!(error.to_string().contains("missing/evenkeel.lock"), "{error}");
        std::os::unix::fs::symlink("/dev/null", directory.path().join(FILE_NAME)).unwrap();
        assert!(matches!(Alone::take(directory.path()), Err(OpenError::Lock { .. })));
    }
}
