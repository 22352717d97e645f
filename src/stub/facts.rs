//! What a machine's tree says of how resolv.conf is managed. Not pure: reads files below a root.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::place::{self, Place};
use super::record::{RECORD_VERSION, Record};
use super::{DHCLIENT_HOOK, KEPT, KEPT_COPY, KEPT_RECORD, NETWORK_MANAGER_FILE, OPENRESOLV_FILE, RESOLV_CONF};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What is at /etc/resolv.conf.
    pub resolv: Place,
    /// Where a link there leads.
    pub leads_to: Option<PathBuf>,
    /// Its text, through the link; `None` where there is none to be read.
    pub text: Option<String>,
    /// Where the link that was there leads.
    pub original_leads_to: Option<PathBuf>,
    /// The text of what was there, put back; `None` where there would be none.
    pub original_text: Option<String>,
    /// Is it marked so that nobody may change it?
    pub immutable: bool,
    /// nsswitch.conf.
    pub nsswitch: String,
    /// Is NetworkManager here?
    pub network_manager: bool,
    /// And does it run?
    pub network_manager_runs: bool,
    /// Directories that our drop-in needs and that are not there, the outer ones first.
    pub missing: Vec<PathBuf>,
    /// What is where our drop-in is to be.
    pub drop_in: Place,
    /// Is dhclient here, with hooks?
    pub dhclient: bool,
    /// Another hook that already keeps dhclient from writing resolv.conf.
    pub other_hook: Option<String>,
    /// What is where our hook is to be.
    pub hook: Place,
    /// openresolv's configuration; `None` where it is not here.
    pub openresolv: Option<Place>,
    /// What is where the copy for `"system"` upstreams is to be.
    pub copy: Place,
    /// Does systemd start what runs here, and no evenkeel at the next boot?
    pub nobody_at_boot: bool,
    /// What an earlier enabling kept.
    pub record: Option<Record>,
}

/// Looks at the tree below `root`.
///
/// # Errors
///
/// With the path in front: what cannot be read, or is not what it should be.
pub fn look(root: &Path) -> io::Result<Facts> {
    let at = |path: &str| below(root, Path::new(path));
    let place = |path: &str| place::look(&at(path)).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")));
    let is_there = |path: &str| at(path).exists();
    let resolv = place(RESOLV_CONF)?;
    let leads_to = match &resolv {
        Place::Link(target) => Some(follow(root, &absolute(target))),
        _ => None,
    };
    let read = leads_to.clone().unwrap_or_else(|| PathBuf::from(RESOLV_CONF));
    let text = place::look(&below(root, &read)).ok().and_then(|place| place.text());
    let record = read_record(root)?;
    let original_leads_to = record.as_ref().and_then(|record| match &record.original {
        Place::Link(target) => Some(follow(root, &absolute(target))),
        _ => None,
    });
    let original_text = match &original_leads_to {
        Some(target) => place::look(&below(root, target)).ok().and_then(|place| place.text()),
        None => record.as_ref().and_then(|record| record.original.text()),
    };
    let network_manager_runs = is_there("/run/NetworkManager");
    let hooks = at(DHCLIENT_HOOK).parent().map(Path::to_owned).unwrap_or_default();
    let ours = at(DHCLIENT_HOOK);
    let openresolv = place(OPENRESOLV_FILE)?;
    Ok(Facts {
        immutable: place::is_immutable(&at(RESOLV_CONF)),
        nsswitch: fs::read_to_string(at("/etc/nsswitch.conf")).unwrap_or_default(),
        network_manager: is_there("/etc/NetworkManager")
            && (network_manager_runs || is_there("/usr/sbin/NetworkManager")),
        network_manager_runs,
        missing: missing(root, Path::new(NETWORK_MANAGER_FILE)),
        drop_in: place(NETWORK_MANAGER_FILE)?,
        dhclient: ["/sbin/dhclient", "/usr/sbin/dhclient"].into_iter().any(is_there) && hooks.is_dir(),
        other_hook: other_hook(root, &hooks, &ours),
        hook: place(DHCLIENT_HOOK)?,
        openresolv: (openresolv != Place::Nothing).then_some(openresolv),
        nobody_at_boot: is_there("/run/systemd/system") && !UNITS.iter().any(|unit| is_enabled(root, unit)),
        copy: place(KEPT_COPY)?,
        original_leads_to,
        original_text,
        resolv,
        leads_to,
        text,
        record,
    })
}

fn missing(root: &Path, path: &Path) -> Vec<PathBuf> {
    let above = path.ancestors().skip(1).take_while(|directory| !below(root, directory).exists());
    let mut missing: Vec<PathBuf> = above.map(Path::to_owned).collect();
    missing.reverse();
    missing
}

/// A path of the machine below a root.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A link's target as a whole path, seen from /etc.
pub fn absolute(target: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in Path::new("/etc").join(target).components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            part => whole.push(part),
        }
    }
    whole
}

/// Follows a chain of links, within the root.
fn follow(root: &Path, path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(below(root, &path)) else { break };
        path = absolute(&path.parent().unwrap_or(Path::new("/")).join(target));
    }
    path
}

const LINKS_MAX: usize = 8;

const UNITS: [&str; 2] = ["evenkeel.service", "evenkeel.socket"];
const UNIT_FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Does another unit pull it in, as `systemctl enable` has it? A masked one is not started for anybody.
fn is_enabled(root: &Path, unit: &str) -> bool {
    let entries = |folder: &&str| fs::read_dir(below(root, Path::new(folder))).into_iter().flatten().flatten();
    let is_masked = |folder: &&str| {
        fs::read_link(below(root, Path::new(folder)).join(unit)).is_ok_and(|target| target == Path::new("/dev/null"))
    };
    !UNIT_FOLDERS.iter().any(is_masked)
        && UNIT_FOLDERS.iter().flat_map(entries).any(|entry| {
            let path = entry.path();
            let pulls_in = path.extension().is_some_and(|e| e == "wants" || e == "requires" || e == "upholds");
            pulls_in && fs::symlink_metadata(path.join(unit)).is_ok()
        })
}

/// The first hook that defines the function, as dhclient-script reads them: names as run-parts(8) takes them. Hooks of
/// a package that was removed stay where they are, and do nothing without their program.
fn other_hook(root: &Path, hooks: &Path, ours: &Path) -> Option<String> {
    let mut found: Vec<PathBuf> = fs::read_dir(hooks).ok()?.filter_map(|e| Some(e.ok()?.path())).collect();
    found.sort();
    let is_read = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let can_work = |name: &str| {
        let mut known = HOOK_PROGRAMS.iter().filter(|(of, _)| name.starts_with(of));
        known.all(|(_, programs)| programs.iter().any(|program| below(root, Path::new(program)).exists()))
    };
    found.into_iter().filter(|path| path != ours).find_map(|path| {
        let name = path.file_name()?.to_str()?;
        let text = fs::read_to_string(&path).ok()?;
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        (is_read(name) && can_work(name) && code.any(|line| line.contains("make_resolv_conf")))
            .then(|| name.to_owned())
    })
}

const HOOK_PROGRAMS: [(&str, &[&str]); 2] = [
    ("resolvconf", &["/sbin/resolvconf", "/usr/sbin/resolvconf", "/usr/bin/resolvconf"]),
    ("resolved", &["/lib/systemd/systemd-resolved", "/usr/lib/systemd/systemd-resolved"]),
];

fn read_record(root: &Path) -> io::Result<Option<Record>> {
    let fault = |what: String| io::Error::other(format!("{KEPT_RECORD}: {what}"));
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{KEPT_RECORD}: {e}"));
    let found = place::look(&below(root, Path::new(KEPT_RECORD))).map_err(named)?;
    let Place::File(kept) = found else { return Ok(None) };
    let directory = fs::metadata(below(root, Path::new(KEPT))).map_err(named)?;
    let writable_by_others =
        |mode: u32, uid: u32| mode & 0o022 != 0 || uid != 0 && uid != rustix::process::geteuid().as_raw();
    use std::os::unix::fs::MetadataExt;
    if writable_by_others(kept.mode, kept.uid) || writable_by_others(directory.mode(), directory.uid()) {
        return Err(fault("others than root may have written it".to_owned()));
    }
    let record: Record = serde_json::from_slice(kept.bytes.as_bytes()).map_err(|e| fault(e.to_string()))?;
    if record.version != RECORD_VERSION {
        return Err(fault(format!("it is of version {}, this program's is {RECORD_VERSION}", record.version)));
    }
    Ok(Some(record))
}
