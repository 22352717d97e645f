//! Files that the kernel tells of when they change.
//!
//! Not pure: inotify, and reading links. `steps` says what is watched, and knows no inotify. Rules:
//!
//! - Each step of a file's path is watched in its directory, by its name, and the way of a link through it as well:
//!   a file that is replaced, a directory that comes later, a link that is turned are all seen.
//! - The file itself is watched too: in a container it is often a mount of its own, whose writes its directory does
//!   not see.
//! - What is told is a reason to look, after 50 ms of quiet and 500 ms at the latest, and no more than that.
//! - The kernel forgets a watch with its directory, overruns its queue, and does not see network file systems: whoever
//!   goes by this looks every so often besides. Where there is no inotify, one has [`Watched::is_deaf`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

/// The names that matter in each directory; the empty name is the thing itself.
type Steps = BTreeMap<PathBuf, BTreeSet<OsString>>;

/// Watches over files. Made within a runtime.
pub struct Watched {
    /// `None` where the kernel gives none.
    inotify: Option<AsyncFd<OwnedFd>>,
    /// The names that matter, by the kernel's number of the watch: of a directory that two ways lead to it has one.
    names: HashMap<i32, BTreeSet<OsString>>,
    /// Could each directory be watched?
    whole: bool,
    /// Something was told, and it is not quiet yet.
    pending: bool,
}

impl Watched {
    /// Begins, with no files.
    pub fn new() -> Self {
        Self { inotify: open().ok(), names: HashMap::new(), whole: true, pending: false }
    }

    /// Is there something that it cannot see? Then one looks often.
    pub fn is_deaf(&self) -> bool {
        self.inotify.is_none() || !self.whole
    }

    /// Watches over these files, and no others. To be called again when something has changed, since the way to them
    /// may be another one; what changes after it is told.
    pub fn follow(&mut self, files: &[PathBuf]) {
        let Some(inotify) = &self.inotify else { return };
        let wanted = steps(files, &|path| std::fs::read_link(path).ok());
        self.whole = true;
        let mut names: HashMap<i32, BTreeSet<OsString>> = HashMap::new();
        for (path, matter) in wanted {
            // What is watched already is the same watch again; one that the kernel dropped begins anew.
            match inotify::add_watch(inotify, &path, MASK) {
                Ok(number) => names.entry(number).or_default().extend(matter),
                // Not there: the directory above tells when it comes.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                // A directory that may be passed through and not be read, for one: files below it can be read.
                Err(_) => self.whole = false,
            }
        }
        for number in self.names.keys().filter(|number| !names.contains_key(number)) {
            let _ = inotify::remove_watch(inotify, *number);
        }
        self.names = names;
    }

    /// Waits until something has changed and it is quiet again. Never ends where there is no inotify. Nothing is lost
    /// where it is dropped while it waits.
    pub async fn changed(&mut self) {
        while !self.pending {
            self.told().await;
        }
        let end = Instant::now() + BURST_MAX;
        while Instant::now() < end && timeout_at(end.min(Instant::now() + QUIET), self.told()).await.is_ok() {}
        self.pending = false;
    }

    /// Waits for messages, and looks whether one is about a name that matters.
    async fn told(&mut self) {
        let Some(inotify) = &self.inotify else { return std::future::pending().await };
        let read = match inotify.readable().await {
            Ok(mut ready) => ready.try_io(|inotify| self.hear(inotify.get_ref())),
            Err(e) => Ok(Err(e)),
        };
        match read {
            Ok(Ok(matters)) => self.pending |= matters,
            Err(_nothing) => {}
            // It broke: told once, so that one looks; deaf from here on.
            Ok(Err(_)) => {
                self.inotify = None;
                self.pending = true;
            }
        }
    }

    fn hear(&self, inotify: &OwnedFd) -> io::Result<bool> {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(inotify, &mut room);
        let mut matters = false;
        loop {
            let event = reader.next()?;
            // The queue overran: what was lost is not known. A watch that ended is one to begin again.
            let lost = ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED | ReadFlags::UNMOUNT;
            let name = OsStr::from_bytes(event.file_name().map_or(b"", |name| name.to_bytes()));
            matters |= event.events().intersects(lost)
                || self.names.get(&event.wd()).is_some_and(|names| names.contains(name));
            if reader.is_buffer_empty() {
                return Ok(matters);
            }
        }
    }
}

impl Default for Watched {
    fn default() -> Self {
        Self::new()
    }
}

const QUIET: Duration = Duration::from_millis(50);
const BURST_MAX: Duration = Duration::from_millis(500);

const MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

// tokio wants `unsafe` from who could close the descriptor while it is registered; an OwnedFd cannot be.
#[allow(deprecated)]
fn open() -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?, Interest::READABLE)
}

/// What is to be watched for these files to be followed, links included.
fn steps(files: &[PathBuf], link: &dyn Fn(&Path) -> Option<PathBuf>) -> Steps {
    let mut steps = Steps::new();
    for file in files {
        let mut links = 0;
        // What is still to be walked, the next component last.
        let mut ahead: Vec<OsString> = parts(file);
        let mut at = PathBuf::from("/");
        while let Some(name) = ahead.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            steps.entry(at.clone()).or_default().insert(name.clone());
            let next = at.join(&name);
            match link(&next) {
                Some(target) if links < LINKS_MAX => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    ahead.extend(parts(&target));
                }
                _ => at = next,
            }
        }
        steps.entry(at).or_default().insert(OsString::new());
    }
    steps
}

/// As many as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The components, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<OsString> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_step_and_the_way_of_each_link_is_watched() {
        let links = |path: &Path| match path.to_str()? {
            "/etc/resolv.conf" => Some(PathBuf::from("../run/x/stub.conf")),
            "/run/x" => Some(PathBuf::from("/var/y")),
            "/loop" => Some(PathBuf::from("loop")),
            _ => None,
        };
        let files = [PathBuf::from("/etc/resolv.conf"), PathBuf::from("/loop")];
        let found = steps(&files, &links);
        let shown: Vec<String> = found
            .iter()
            .map(|(at, names)| {
                let names: Vec<&str> = names.iter().map(|n| n.to_str().unwrap()).collect();
                format!("{} {}", at.display(), names.join(","))
            })
            .collect();
        let want = [
            "/ etc,loop,run,var",
            "/etc resolv.conf",
            "/loop ",
            "/run x",
            "/var y",
            "/var/y stub.conf",
            "/var/y/stub.conf ",
        ];
        assert_eq!(shown, want);
    }

    // To watch a directory one must be allowed to read it; to read a file below, to pass through it.
    #[test]
    fn a_directory_that_may_only_be_passed_through_makes_deaf() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("file");
        fs::write(&file, "1").unwrap();
        let is_deaf = || {
            let file = file.clone();
            let on_its_own = std::thread::spawn(move || {
                // Root may read everything: this thread alone becomes somebody who is nobody's owner.
                if rustix::process::geteuid().is_root() {
                    let nobody = rustix::process::Uid::from_raw(65534);
                    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
                }
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let _inside = runtime.enter();
                let mut watched = Watched::new();
                watched.follow(std::slice::from_ref(&file));
                assert_eq!(fs::read_to_string(&file).unwrap(), "1");
                watched.is_deaf()
            });
            on_its_own.join().unwrap()
        };
        allow(dir.path(), 0o755);
        allow(&inner, 0o755);
        assert!(!is_deaf());
        allow(&inner, 0o311);
        let deaf = is_deaf();
        allow(&inner, 0o755);
        assert!(deaf);
    }

    #[tokio::test]
    async fn changes_of_each_kind_are_told_and_those_of_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let file = at("a/b/file");
        let mut watched = Watched::new();
        let files = [file.clone()];
        let kinds: [(&str, &dyn Fn()); 8] = [
            ("a directory comes", &|| fs::create_dir(at("a")).unwrap()),
            ("and the one below", &|| fs::create_dir(at("a/b")).unwrap()),
            ("the file comes", &|| fs::write(&file, "1").unwrap()),
            ("it is written", &|| fs::write(&file, "2").unwrap()),
            ("it is replaced", &|| {
                fs::write(at("a/b/new"), "3").unwrap();
                fs::rename(at("a/b/new"), &file).unwrap();
            }),
            ("its directory is moved", &|| fs::rename(at("a/b"), at("elsewhere")).unwrap()),
            ("and linked to", &|| symlink("../elsewhere", at("a/b")).unwrap()),
            ("what the link leads to is written", &|| fs::write(at("elsewhere/file"), "4").unwrap()),
        ];
        for (kind, change) in kinds {
            watched.follow(&files);
            change();
            let told = tokio::time::timeout(Duration::from_secs(5), watched.changed()).await;
            assert!(told.is_ok(), "{kind}");
        }
        watched.follow(&files);
        fs::write(at("elsewhere/other"), "5").unwrap();
        fs::write(at("other"), "5").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(200), watched.changed()).await.is_err());
        assert!(!watched.is_deaf());
    }
}
