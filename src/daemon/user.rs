//! Giving up root, where the process was started as root and `process.user` names who it shall be.
//!
//! Not pure. Ports are bound by then; the state directory and the control socket's directory, with what is in them, are
//! given to the user. Then groups, group and user are changed for the whole process (setgroups, setresgid, setresuid:
//! the C library does so for every thread), with which the kernel takes every capability; and no program that is
//! executed can give one back (PR_SET_NO_NEW_PRIVS). A unit's `User=` does the same without this.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::set_no_new_privs;

use super::Fatal;

/// Entries of a directory that are given away.
const ENTRIES_MAX: usize = 100;

/// Who the process shall be.
pub(super) struct Servant {
    name: CString,
    uid: Uid,
    gid: Gid,
}

impl Servant {
    /// Finds the user; `None` where none is named, or the process is not root's.
    ///
    /// # Errors
    ///
    /// There is no such user, it is root, or the process runs as yet another one.
    pub(super) fn find(name: &str) -> Result<Option<Self>, Fatal> {
        if name.is_empty() {
            return Ok(None);
        }
        let at_fault = |why: String| Fatal { exit: 1, message: format!("process.user: {why}") };
        let user = User::from_name(name).map_err(|e| Fatal::system(format!("process.user: {name}: {e}")))?;
        let Some(user) = user else {
            let hint = format!("make it (`useradd --system {name}`), or leave process.user empty");
            return Err(at_fault(format!("there is no user {name}; {hint}")));
        };
        if user.uid.is_root() {
            return Err(at_fault(format!("{name} is root; name another user, or leave it empty")));
        }
        if geteuid() == user.uid {
            return Ok(None);
        }
        if !geteuid().is_root() {
            return Err(at_fault(format!("only root can become {name}; start it as root or as {name}")));
        }
        let name = CString::new(user.name).map_err(|e| at_fault(e.to_string()))?;
        Ok(Some(Self { name, uid: user.uid, gid: user.gid }))
    }

    /// Gives a directory of evenkeel's own, and the files in it, to the user.
    ///
    /// # Errors
    ///
    /// What the system says; or that the directory is not evenkeel's alone: there are directories, links or other
    /// users' files in it, which its own never have.
    pub(super) fn give(&self, directory: &Path) -> io::Result<()> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            let meta = std::fs::symlink_metadata(&path)?;
            let is_own = [0, self.uid.as_raw()].contains(&meta.uid()) && meta.nlink() == 1;
            if !is_own || meta.is_dir() || meta.is_symlink() || paths.len() == ENTRIES_MAX {
                let why = format!("{} is in it: give evenkeel a directory of its own", path.display());
                return Err(io::Error::other(why));
            }
            paths.push(path);
        }
        paths.push(directory.to_owned());
        paths.iter().try_for_each(|path| lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())))
    }

    /// Becomes the user, for good.
    ///
    /// # Errors
    ///
    /// What the system says; it must not serve then.
    pub(super) fn become_it(&self) -> Result<(), Fatal> {
        let failed = |what: &str, e: io::Error| {
            Fatal::system(format!("process.user: cannot become {}: {what}: {e}", self.name.to_string_lossy()))
        };
        initgroups(&self.name, self.gid).map_err(|e| failed("groups", e.into()))?;
        setresgid(self.gid, self.gid, self.gid).map_err(|e| failed("group", e.into()))?;
        setresuid(self.uid, self.uid, self.uid).map_err(|e| failed("user", e.into()))?;
        if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
            return Err(failed("user", io::Error::other("root could be had again")));
        }
        // Its own /proc files are its own again: what the process metrics read.
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
        set_no_new_privs(true).map_err(|e| failed("no new privileges", e.into()))
    }
}
