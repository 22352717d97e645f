//! Giving up root, where the process was started as root and `process.user` names who it shall be.
//!
//! Not pure. Before there is a second thread, no program that is executed can give a privilege any more
//! (PR_SET_NO_NEW_PRIVS, which each thread has from the one that made it). Ports are bound; the state directory and the
//! control socket's directory, with the files in them that evenkeel makes, are given to the user. Then groups, group
//! and user are changed for the whole process (setgroups, setresgid, setresuid: the C library does so for every
//! thread), with which the kernel takes every capability. A unit's `User=` does the same without this.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, User, geteuid, setgroups, setresgid, setresuid};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, chownat, fchown, fstat, openat};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::set_no_new_privs;

use super::Fatal;
use crate::listen::alone;
use crate::upkeep::{freeze, snapshot, source, system};

/// Files of a directory that are given away.
const ENTRIES_MAX: usize = 100;
/// Groups of a user that are taken on; the kernel takes more.
const GROUPS_MAX: usize = 1000;
/// What names of files that evenkeel makes begin with; drafts have a dot before that.
const OWN_NAMES: [&str; 5] =
    [alone::FILE_NAME, source::KEPT_PREFIX, snapshot::FILE, freeze::FILE, system::REMEMBERED];

/// What becomes of an entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is given to the user.
    Given,
    /// It may stay as it is.
    Left,
    /// It is not evenkeel's, and the directory is not given.
    Foreign,
}

/// Is every directory above this one root's, so that nobody else puts another one in its place?
fn only_root_leads_to(directory: &Path) -> io::Result<()> {
    for above in directory.ancestors().skip(1) {
        let meta = std::fs::symlink_metadata(above)?;
        // In a sticky one each may replace what is their own only.
        let is_roots = meta.uid() == 0 && (meta.mode() & 0o022 == 0 || meta.mode() & 0o1000 != 0);
        if !is_roots {
            let why = format!("{} is not root's alone: others could put another one there", above.display());
            return Err(io::Error::other(why));
        }
    }
    Ok(())
}

/// The groups of a user by the text of group(5). Other databases are not asked: they may be behind a network, and its
/// names behind us.
fn groups_of(text: &str, name: &str, own: Gid) -> Vec<Gid> {
    let mut groups = vec![own];
    for line in text.lines() {
        let mut fields = line.split(':').skip(2);
        let (Some(id), Some(members)) = (fields.next(), fields.next()) else { continue };
        if let (Ok(id), true) = (id.parse::<u32>(), members.split(',').any(|member| member == name)) {
            groups.push(Gid::from_raw(id));
        }
    }
    groups.truncate(GROUPS_MAX);
    groups
}

/// Who the process shall be.
pub(super) struct Servant {
    name: CString,
    uid: Uid,
    gid: Gid,
}

impl Servant {
    /// Finds the user, and bars new privileges where there is one to become; `None` where none is named, or the process
    /// is that user's already. Before there is a second thread.
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
        set_no_new_privs(true).map_err(|e| Fatal::system(format!("process.user: no new privileges: {e}")))?;
        Ok(Some(Self { name, uid: user.uid, gid: user.gid }))
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    /// Gives a directory of evenkeel's own, and the files in it that evenkeel makes, to the user. Sockets stay as they
    /// are: who has the directory replaces them.
    ///
    /// # Errors
    ///
    /// What the system says; or that the directory is not evenkeel's alone, as something else is in it that is not the
    /// user's, or that somebody else could put another one in its place: nothing has been given then.
    pub(super) fn give(&self, directory: &Path) -> io::Result<()> {
        // Links are followed here, where they and all that leads there are root's, and nothing is after this.
        let links = directory.ancestors().filter_map(|part| std::fs::symlink_metadata(part).ok());
        if links.into_iter().any(|meta| meta.is_symlink() && meta.uid() != 0) {
            return Err(io::Error::other("a link that leads there is not root's"));
        }
        let directory = std::fs::canonicalize(directory)?;
        only_root_leads_to(&directory)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&directory, flags, Mode::empty())?;
        let mut given: Vec<OwnedFd> = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if [&b"."[..], b".."].contains(&name.to_bytes()) {
                continue;
            }
            let file = openat(&directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let name = name.to_string_lossy();
            match self.judge(&name, &fstat(&file)?) {
                Fate::Given if given.len() < ENTRIES_MAX => given.push(file),
                Fate::Left => {}
                _ => return Err(io::Error::other(format!("{name} is in it: give evenkeel a directory of its own"))),
            }
        }
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
        for file in &given {
            chownat(file.as_fd(), c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        Ok(fchown(&directory, Some(uid), Some(gid))?)
    }

    fn judge(&self, name: &str, stat: &Stat) -> Fate {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_own_name = OWN_NAMES.iter().any(|own| name.trim_start_matches('.').starts_with(own));
        match kind {
            FileType::RegularFile if stat.st_uid == self.uid.as_raw() => Fate::Left,
            FileType::RegularFile if stat.st_uid == 0 && stat.st_nlink == 1 && is_own_name => Fate::Given,
            FileType::Socket => Fate::Left,
            _ => Fate::Foreign,
        }
    }

    /// Becomes the user, for good.
    ///
    /// # Errors
    ///
    /// What the system says; it must not serve then.
    pub(super) fn become_it(&self) -> Result<(), Fatal> {
        let failed = |what: &str, e: io::Error| {
            Fatal::system(format!("process.user: cannot become {}: {what}: {e}", self.name()))
        };
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let groups = groups_of(&groups, &self.name(), self.gid);
        setgroups(&groups).map_err(|e| failed("groups", e.into()))?;
        setresgid(self.gid, self.gid, self.gid).map_err(|e| failed("group", e.into()))?;
        setresuid(self.uid, self.uid, self.uid).map_err(|e| failed("user", e.into()))?;
        if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
            return Err(failed("user", io::Error::other("root could be had again")));
        }
        // Its own /proc files are its own again: what the process metrics read.
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, chown, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    const UID: u32 = 65_534;

    /// Runs as root alone: nobody else can give a file away.
    fn servant() -> Option<Servant> {
        geteuid().is_root().then(|| Servant { name: c"nobody".into(), uid: UID.into(), gid: UID.into() })
    }

    #[test]
    fn what_evenkeel_makes_is_given_and_a_socket_is_left() {
        let Some(servant) = servant() else { return };
        let world = tempfile::tempdir().unwrap();
        let directory = world.path().join("state");
        fs::create_dir(&directory).unwrap();
        let made =
            ["cache.snapshot", "cache.snapshot.new", "last-accepted-0.1.0.toml", ".last-accepted-0.1.0.toml.7"];
        for name in made.iter().chain(&["evenkeel.lock", "freeze.json", "system-upstreams", "queries.jsonl"]) {
            fs::write(directory.join(name), name).unwrap();
        }
        chown(directory.join("queries.jsonl"), Some(UID), None).unwrap();
        let _listener = UnixListener::bind(directory.join("control.sock")).unwrap();
        symlink(&directory, world.path().join("link")).unwrap();
        servant.give(&world.path().join("link")).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        assert_eq!((owner(&directory), owner(&world.path().join("link"))), (UID, 0));
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let wanted = if entry.file_name() == "control.sock" { 0 } else { UID };
            assert_eq!(owner(&entry.path()), wanted, "{:?}", entry.file_name());
        }
        servant.give(&directory).expect("twice is once");
    }

    #[test]
    fn a_directory_that_others_could_replace_is_not_given() {
        let Some(servant) = servant() else { return };
        let world = tempfile::tempdir().unwrap();
        let directory = world.path().join("theirs/state");
        fs::create_dir_all(&directory).unwrap();
        chown(world.path().join("theirs"), Some(UID), None).unwrap();
        let error = servant.give(&directory).unwrap_err().to_string();
        assert!(error.contains("not root's alone"), "{error}");
        assert_eq!(fs::metadata(&directory).unwrap().uid(), 0);
        let (link, roots) = (world.path().join("link"), world.path().join("roots"));
        fs::create_dir(&roots).unwrap();
        symlink(&roots, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(UID), None).unwrap();
        let error = servant.give(&link).unwrap_err().to_string();
        assert!(error.contains("a link that leads there"), "{error}");
        assert_eq!(fs::metadata(&roots).unwrap().uid(), 0);
    }

    #[test]
    fn groups_are_those_of_the_file() {
        let text = "root:x:0:\nadm:x:4:syslog,evenkeel\nevenkeel:x:995:\nbroken\nx:x:y:evenkeel\nssl:x:7:evenkeel2\n";
        let of = |name| groups_of(text, name, Gid::from_raw(995)).iter().map(|g| g.as_raw()).collect::<Vec<_>>();
        assert_eq!(of("evenkeel"), [995, 4]);
        assert_eq!(of("nobody"), [995]);
    }

    #[test]
    fn a_directory_with_what_is_not_evenkeels_is_not_given() {
        let Some(servant) = servant() else { return };
        let file = |path: &Path| fs::write(path, "").unwrap();
        let linked = |path: &Path| {
            file(path);
            fs::hard_link(path, path.with_file_name("freeze.json")).unwrap();
        };
        let others = |path: &Path| {
            file(path);
            chown(path, Some(7), None).unwrap();
        };
        type Make<'m> = &'m dyn Fn(&Path);
        let cases: [(&str, Make); 5] = [
            ("evenkeel.toml", &file),
            ("cache.snapshot", &linked),
            ("system-upstreams", &others),
            ("cache.snapshot", &|path| symlink("/etc/passwd", path).unwrap()),
            ("cache.snapshot", &|path| fs::create_dir(path).unwrap()),
        ];
        for (n, (name, make)) in cases.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            file(&directory.path().join("evenkeel.lock"));
            make(&directory.path().join(name));
            let error = servant.give(directory.path()).unwrap_err().to_string();
            assert!(error.contains("a directory of its own"), "{n}: {error}");
            let owner = |path: &Path| fs::metadata(path).unwrap().uid();
            assert_eq!((owner(directory.path()), owner(&directory.path().join("evenkeel.lock"))), (0, 0), "{n}");
        }
    }
}
