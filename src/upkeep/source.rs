//! Where a configuration comes from: finds the file, reads it, keeps the last accepted one.
//!
//! Not pure: files and the environment. Rules:
//!
//! - The file is the one that was named; else `/etc/evenkeel/evenkeel.toml` where it is there; else there is none and
//!   the built-in defaults hold. A file has at most 1 MiB.
//! - [`ConfigSource::load`] reads and checks what is there at this moment: for `check`, for a reload.
//! - [`ConfigSource::load_at_start`] falls back to the last accepted copy of the same file, unless it is told to be
//!   strict: a node that starts with a file broken an hour ago must still answer.
//! - [`Loaded::keep`] writes that copy into the state directory: `last-accepted-VERSION.toml`, 0600, whole or not at
//!   all. Its first line names the file that it is a copy of. A copy that somebody else may have written is not used.
//! - Each version of the program has a copy of its own, so that one that is gone back to finds what it accepted itself,
//!   and not a file with keys of later times only. The newest that it accepts is taken. The newest four are kept.
//! - Where root is given up (`process.user`), the copy is that user's and is read while we are still root: it is used
//!   only where it names the same user, state directory and control socket as the file, as far as that can be read, and
//!   no other port below 1024 but 53.
//! - The state directory is $STATE_DIRECTORY (its first, where systemd names several), else $XDG_STATE_HOME/evenkeel,
//!   else /var/lib/evenkeel where root is given up, else $HOME/.local/state/evenkeel; it is made with mode 0700. Not
//!   having one is a warning, never an end.

use std::cell::RefCell;
use std::env;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::hash::Hasher;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::state;
use crate::clock::{self, WallTime};
use crate::config::{Config, Mistake, Place, StateDirectory, Warning, as_far_as_read, parse};

/// The file that is used where none is named, if it is there.
pub const DEFAULT_FILE: &str = "/etc/evenkeel/evenkeel.toml";

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

const DNS_PORT: u16 = 53;

/// The state directory where root is given up and nobody names one.
const ROOTLESS_STATE: &str = "/var/lib/evenkeel";

/// What the names of copies in the state directory begin with.
pub const KEPT_PREFIX: &str = "last-accepted-";

/// This version's copy.
const KEPT_FILE: &str = concat!("last-accepted-", env!("CARGO_PKG_VERSION"), ".toml");

/// Copies that are kept, of all versions.
const KEPT_MAX: usize = 4;

/// In front of the path, in the first line of the copy.
const KEPT_HEAD: &str = "# evenkeel: the last accepted copy of ";

/// What a configuration is made of; the same at start and at every reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// The file that was named, for a daemon by its whole path, so that a reload means the same file as the start;
    /// `None` takes [`DEFAULT_FILE`] or the built-in defaults.
    pub file: Option<PathBuf>,
    /// `key=value` pairs that stand over the file.
    pub sets: Vec<(String, String)>,
}

/// A configuration that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What an operator should know of it.
    pub warnings: Vec<Warning>,
    /// The file; `None` where the built-in defaults hold.
    pub path: Option<PathBuf>,
    /// The text of the file as it was read.
    pub text: String,
    /// A short id of text and sets, in hex: two processes with the same one were told the same.
    pub hash: String,
    /// Is this the last accepted copy, since the file itself was refused?
    pub fallback: bool,
    /// When it was read.
    pub read_at: WallTime,
    /// What `${NAME}` was expanded to: name and value.
    pub expanded: Vec<(String, String)>,
}

/// A configuration that was refused whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The file; `None` where the built-in defaults and `--set` are all there is.
    pub path: Option<PathBuf>,
    /// Every mistake, at least one.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for Refused {
    /// Every mistake with its hint, one after the other, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = shown_path(self.path.as_deref());
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            mistake.shown(&file).fmt(f)?;
        }
        Ok(())
    }
}

impl Refused {
    /// Every mistake with its hint, for a line of the log.
    pub fn in_one_line(&self) -> String {
        self.to_string().replace("\n  hint: ", ", hint: ").replace('\n', "; ")
    }
}

/// A path for messages; what stands for none is "(built-in defaults)".
pub fn shown_path(path: Option<&Path>) -> String {
    path.map_or_else(|| "(built-in defaults)".to_owned(), |path| path.display().to_string())
}

impl ConfigSource {
    /// Reads and checks what is there at this moment.
    pub fn load(&self) -> Result<Loaded, Refused> {
        let path = self.path();
        let text = match &path {
            Some(path) => read_file(path).map_err(|what| {
                let hint =
                    self.file.is_some().then(|| "`evenkeel default-config` writes one to begin with".to_owned());
                Refused { path: Some(path.clone()), mistakes: vec![Mistake { place: Place::Whole, what, hint }] }
            })?,
            None => String::new(),
        };
        self.check(path, text, false)
    }

    /// As [`ConfigSource::load`]; where that is refused, the last accepted copy of the same file, and why.
    pub fn load_at_start(&self, strict: bool) -> Result<(Loaded, Option<Refused>), Refused> {
        let refused = match self.load() {
            Ok(loaded) => return Ok((loaded, None)),
            Err(refused) => refused,
        };
        match refused.path.as_deref().filter(|_| !strict).and_then(|path| self.last_accepted(path)) {
            Some(loaded) => Ok((loaded, Some(refused))),
            None => Err(refused),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match &self.file {
            Some(file) => Some(file.clone()),
            // "There" and not "readable": a file that cannot be read is a mistake to report, not one to pass over.
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.symlink_metadata().is_ok()),
        }
    }

    fn check(&self, path: Option<PathBuf>, text: String, fallback: bool) -> Result<Loaded, Refused> {
        let expanded = RefCell::new(Vec::new());
        let look_up = |name: &str| {
            let value = env::var(name).ok()?;
            expanded.borrow_mut().push((name.to_owned(), value.clone()));
            Some(value)
        };
        match parse(&text, &look_up, &self.sets) {
            Ok((config, warnings)) => {
                let expanded = expanded.take();
                let hash = hash(&text, &self.sets);
                Ok(Loaded { config, warnings, path, text, hash, fallback, read_at: clock::wall(), expanded })
            }
            Err(mistakes) => Err(Refused { path, mistakes }),
        }
    }

    fn last_accepted(&self, path: &Path) -> Option<Loaded> {
        // The refused file may still say where its copies are.
        let text = read_file(path).unwrap_or_default();
        let env = |name: &str| env::var(name).ok();
        let named = as_far_as_read(&text, &env, &self.sets);
        let becomes = whom_root_becomes(&named.user);
        let directory = state_directory_place(&named.state, becomes.is_some(), &env)?;
        let kept = copies(&directory).into_iter().take(KEPT_MAX);
        let kept = kept.filter_map(|name| read_kept(&directory, &name, path, becomes));
        let mut accepted = kept.filter_map(|text| self.check(Some(path.to_owned()), text, true).ok());
        let whose = |c: &Config| (c.user.clone(), c.state.clone(), c.admin.socket.clone());
        // What root would do for it before it becomes another: bind ports.
        let ports = |copy: &Config| {
            let mut low = copy.listen.dns.iter().filter(|at| at.port() < 1024 && at.port() != DNS_PORT);
            low.all(|at| named.listen.dns.contains(at))
        };
        accepted.find(|copy| becomes.is_none() || (whose(&copy.config) == whose(&named) && ports(&copy.config)))
    }
}

impl Loaded {
    /// Keeps the text as the last accepted one in `directory`. False where there is nothing to keep: built-in
    /// defaults, or what is such a copy itself.
    pub fn keep(&self, directory: &Path) -> io::Result<bool> {
        let Some(path) = self.path.as_ref().filter(|_| !self.fallback) else { return Ok(false) };
        let whole = format!("{KEPT_HEAD}{path:?}\n{}", self.text);
        state::replace(directory, KEPT_FILE, whole.as_bytes())?;
        for name in copies(directory).iter().filter(|name| *name != KEPT_FILE).skip(KEPT_MAX - 1) {
            // One that stays is no harm.
            let _ = fs::remove_file(directory.join(name));
        }
        Ok(true)
    }
}

/// The state directory, made where it is not there. `Ok(None)` where nothing is to be kept; the error is one line for
/// a warning. `gives_root_up`: does this process, root's, become another user's?
pub fn state_directory(setting: &StateDirectory, gives_root_up: bool) -> Result<Option<PathBuf>, String> {
    if *setting == StateDirectory::Off {
        return Ok(None);
    }
    let Some(path) = state_directory_place(setting, gives_root_up, &|name| env::var(name).ok()) else {
        return Err("no state directory: none of $STATE_DIRECTORY, $XDG_STATE_HOME and $HOME is set".to_owned());
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    let there = made.and_then(|()| fs::metadata(&path)).and_then(|meta| {
        let is_ours = meta.is_dir() && (meta.uid() == geteuid().as_raw() || geteuid().is_root());
        if is_ours { Ok(()) } else { Err(io::Error::other("it is no directory of this user")) }
    });
    match there {
        Ok(()) => Ok(Some(path)),
        Err(e) => Err(format!("no state directory: {}: {e}", path.display())),
    }
}

/// The number of the user of this name, where this process is root's; `None` also where there is no such user.
fn whom_root_becomes(user: &str) -> Option<u32> {
    if user.is_empty() || !geteuid().is_root() {
        return None;
    }
    Some(nix::unistd::User::from_name(user).ok()??.uid.as_raw())
}

fn state_directory_place(
    setting: &StateDirectory,
    gives_root_up: bool,
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| value.starts_with('/'));
    match setting {
        StateDirectory::Off => None,
        StateDirectory::At(path) => Some(path.clone()),
        StateDirectory::Auto => set("STATE_DIRECTORY")
            .and_then(|all| all.split(':').next().map(PathBuf::from))
            .or_else(|| set("XDG_STATE_HOME").map(|home| PathBuf::from(home).join("evenkeel")))
            // Root's home is closed to others.
            .or_else(|| gives_root_up.then(|| PathBuf::from(ROOTLESS_STATE)))
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/state/evenkeel"))),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    read_bounded(file).map_err(|e| e.to_string())
}

fn read_bounded(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("more than 1 MiB, which is no configuration"));
    }
    Ok(text)
}

/// The names of all versions' copies in `directory`: the newest first, this version's before others of the same moment.
fn copies(directory: &Path) -> Vec<String> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_copy = name.starts_with(KEPT_PREFIX) && name.ends_with(".toml");
            let written = entry.metadata().and_then(|meta| meta.modified()).ok()?;
            is_copy.then(|| (written, name == KEPT_FILE, name))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().rev().map(|(_, _, name)| name).collect()
}

/// The copy of `path` by this name in `directory`, where it is one and nobody else can have written it but, where that
/// is to be trusted, `also`.
fn read_kept(directory: &Path, name: &str, path: &Path, also: Option<u32>) -> Option<String> {
    let file = state::open_of(directory, name, also).ok()?;
    let whole = read_bounded(file).ok()?;
    let (head, text) = whole.split_once('\n')?;
    (head.strip_prefix(KEPT_HEAD)? == format!("{path:?}")).then(|| text.to_owned())
}

fn hash(text: &str, sets: &[(String, String)]) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    for (key, value) in sets {
        for part in [key, value] {
            hasher.write(&part.len().to_le_bytes());
            hasher.write(part.as_bytes());
        }
    }
    format!("{:016x}", hasher.finish128().h1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    struct World {
        dir: tempfile::TempDir,
        source: ConfigSource,
    }

    /// A configuration file and a state directory of its own, both below one temporary directory.
    fn world(text: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        DirBuilder::new().mode(0o700).create(&state).unwrap();
        let file = dir.path().join("evenkeel.toml");
        fs::write(&file, text).unwrap();
        let sets = vec![("state.directory".to_owned(), state.display().to_string())];
        World { source: ConfigSource { file: Some(file), sets }, dir }
    }

    impl World {
        fn state(&self) -> PathBuf {
            self.dir.path().join("state")
        }

        fn write(&self, text: &str) {
            fs::write(self.source.file.as_ref().unwrap(), text).unwrap();
        }
    }

    #[test]
    fn a_refused_file_gives_way_to_the_last_accepted_one_at_start() {
        let w = world("[listen]\nworkers = 3\n");
        let good = w.source.load().unwrap();
        assert!(good.keep(&w.state()).unwrap());
        w.write("[listen]\nwrokers = 3\n");

        assert_eq!(w.source.load().unwrap_err().mistakes.len(), 1);
        let (loaded, refused) = w.source.load_at_start(false).unwrap();
        assert!(loaded.fallback);
        assert_eq!(loaded.config.listen.workers, 3);
        assert_eq!((&loaded.text, &loaded.hash), (&good.text, &good.hash));
        let refused = refused.unwrap();
        assert!(refused.to_string().contains("unknown key `wrokers`\n  hint: "), "{refused}");
        assert!(refused.in_one_line().ends_with("unknown key `wrokers`, hint: did you mean `workers`?"));
        assert!(!refused.in_one_line().contains('\n'));
        assert!(!loaded.keep(&w.state()).unwrap(), "a copy is not copied");
        assert!(w.source.load_at_start(true).is_err(), "strict takes no copy");
    }

    #[test]
    fn a_version_that_is_gone_back_to_takes_the_newest_copy_that_it_accepts() {
        let w = world("");
        let path = w.source.file.clone().unwrap();
        let left = |version: &str, age: u64, text: &str| {
            let name = format!("{KEPT_PREFIX}{version}.toml");
            state::replace(&w.state(), &name, format!("{KEPT_HEAD}{path:?}\n{text}").as_bytes()).unwrap();
            let file = File::options().write(true).open(w.state().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        let workers = || w.source.load_at_start(false).ok().map(|(loaded, _)| loaded.config.listen.workers);
        w.write("to_come = 1");
        left("99.0.0", 1, "to_come = 1\n[listen]\nworkers = 9\n");
        assert_eq!(workers(), None);
        left("0.0.1", 30, "[listen]\nworkers = 1\n");
        left("0.0.2", 20, "[listen]\nworkers = 2\n");
        assert_eq!(workers(), Some(2));

        w.write("[listen]\nworkers = 3\n");
        w.source.load().unwrap().keep(&w.state()).unwrap();
        w.write("to_come = 1");
        left("0.0.3", 40, "[listen]\nworkers = 4\n");
        left("99.0.0", 0, "to_come = 1\n");
        assert_eq!(workers(), Some(3), "its own, for it has no use for the newer one");
        left("99.0.0", 0, "[listen]\nworkers = 5\n");
        assert_eq!(workers(), Some(5), "what another version accepted later");

        w.write("");
        w.source.load().unwrap().keep(&w.state()).unwrap();
        assert_eq!(copies(&w.state()).len(), KEPT_MAX);
        assert!(!w.state().join("last-accepted-0.0.3.toml").exists(), "the oldest goes");
    }

    #[test]
    fn the_state_directory_that_only_the_refused_file_names_is_looked_into() {
        let mut w = world("");
        w.source.sets.clear();
        let state = w.state();
        w.write(&format!("[state]\ndirectory = {state:?}\n"));
        w.source.load().unwrap().keep(&state).unwrap();
        w.write(&format!("[state]\ndirectory = {state:?}\n[nonsense]\n"));
        assert!(w.source.load_at_start(false).unwrap().0.fallback);
    }

    #[test]
    fn a_copy_of_another_file_or_one_that_others_may_write_is_not_used() {
        let w = world("");
        w.source.load().unwrap().keep(&w.state()).unwrap();
        w.write("x = 1");
        assert!(w.source.load_at_start(false).is_ok());

        let kept = w.state().join(KEPT_FILE);
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(w.source.load_at_start(false).is_err());
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o600)).unwrap();

        let mut other = w.source.clone();
        other.file = Some(w.dir.path().join("other.toml"));
        fs::write(other.file.as_ref().unwrap(), "x = 1").unwrap();
        assert!(other.load_at_start(false).is_err());
    }

    #[test]
    fn the_copy_is_private_and_nothing_else_is_left() {
        let w = world("[listen]\nworkers = 1\n");
        w.source.load().unwrap().keep(&w.state()).unwrap();
        w.source.load().unwrap().keep(&w.state()).unwrap();
        let files: Vec<_> = fs::read_dir(w.state()).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_refused_with_the_reason() {
        let mut w = world("");
        w.source.file = Some(w.dir.path().join("missing.toml"));
        let refused = w.source.load_at_start(false).unwrap_err();
        assert_eq!(refused.mistakes[0].place, Place::Whole);
        assert!(refused.to_string().contains("No such file"), "{refused}");
        let w = world(&"#".repeat(1 << 20));
        assert!(w.source.load().is_ok());
        let w = world(&"#".repeat((1 << 20) + 1));
        assert!(w.source.load().unwrap_err().to_string().contains("1 MiB"));
    }

    #[test]
    fn the_state_directory_is_the_first_that_is_named() {
        for (vars, gives_root_up, wanted) in [
            (vec![("STATE_DIRECTORY", "/a:/b"), ("HOME", "/h")], true, Some("/a")),
            (vec![("XDG_STATE_HOME", "/x"), ("HOME", "/h")], true, Some("/x/evenkeel")),
            (vec![("XDG_STATE_HOME", ""), ("HOME", "/h")], false, Some("/h/.local/state/evenkeel")),
            (vec![("HOME", "/root")], true, Some("/var/lib/evenkeel")),
            (vec![], false, None),
        ] {
            let env = |name: &str| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
            let place = state_directory_place(&StateDirectory::Auto, gives_root_up, &env);
            assert_eq!(place, wanted.map(PathBuf::from), "{vars:?}");
        }
    }

    #[test]
    fn a_state_directory_is_made_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert_eq!(state_directory(&StateDirectory::At(path.clone()), false), Ok(Some(path.clone())));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(state_directory(&StateDirectory::Off, false), Ok(None));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(state_directory(&StateDirectory::At(file), false).unwrap_err().starts_with("no state directory: "));
    }
}
