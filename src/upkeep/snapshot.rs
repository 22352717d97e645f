//! The cache survives restarts, crashes and reboots: written beside serving, read beside serving.
//!
//! Not pure: files, a thread, clocks. The form is of [`crate::cache::snapshot`]. One thread ([`Snapshotter::run`])
//! reads the file that an earlier process left and then writes a new one every `snapshot_every`, a little sooner at
//! random. Rules:
//!
//! - `cache.snapshot` in the state directory, 0600. Written aside with O_EXCL, fsynced, renamed, the directory fsynced:
//!   whoever is killed at any byte leaves the old file. Beside serving at most 4 MiB a second, by a thread of nice 19,
//!   from which the kernel takes its rank for the disk; at the end, and by [`Snapshotter::write_now`], at once.
//! - Not written anew while fewer than 1 % of the entries have changed; that counts as a success. A flush is due at
//!   once, since what was flushed must not come back, and a guard's hold that began or ended within ten seconds. Never
//!   two at once: who is in haste ends the one beside serving.
//! - Never before an existing file was read to its end: half a cache must not take the place of a whole one.
//! - A write that fails is an event, the old file stays, and it is tried again at the next turn.
//! - Not read: a symbolic link, no plain file, what others own or may write, or a directory that others may write; nor
//!   what [`Refusal`](crate::cache::snapshot::Refusal) names. That is a cold start with a warning, and the next write
//!   replaces the file. Bytes are bounded by the cache's; of a larger file is read what fits.
//! - Each entry is vetted as if a server had sent it, by the settings in force; what does not pass is left out. Its
//!   group is the one of that name where a server of it stayed; else it counts as another group's.
//! - What came since the start stays. What is flushed while reading goes on is not restored.
//! - Reading (`reading`) is done at nice 19 too, so that it does not delay serving: a name that is asked for before it
//!   was read is offered it within 50 ms of that. Where there are two cores two threads take every second entry each:
//!   most of it is the store's work. The memory of a large one comes in huge pages ([`super::huge`]).
//! - Where snapshots are off an existing file is neither read nor removed.

mod reading;

use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::setpriority_process;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::state;
use crate::cache::entry::Entry;
use crate::cache::freshness::TtlSettings;
use crate::cache::snapshot::GroupRecord;
use crate::cache::snapshot::write::{Times, Writer};
use crate::cache::{Cache, CacheSettings};
use crate::clock::{self, Moment, WallTime};
use crate::limits::{NAME_BYTES_MAX, SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_CHANGED_SHARE};
use crate::observe::event::{Event, report};
use crate::observe::status::SnapshotStatus;

pub use reading::vetted;

/// The file in the state directory.
pub const FILE: &str = "cache.snapshot";
/// The file that is being written.
const DRAFT: &str = "cache.snapshot.new";
/// Bytes that are read or written at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a small entry in the file.
const SMALL_ENTRY_BYTES: u64 = 94;
/// Bytes after which the disk is waited for, so that it gets them at the pace of the writing.
const SYNC_BYTES: u64 = 4 << 20;
/// The last write may take this long.
const LAST_WRITE: Duration = Duration::from_secs(5);
/// One that an operator waits for, this long.
const PROMPT_WRITE: Duration = Duration::from_secs(3);
/// How often the thread looks whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A hold that began or ended is written this soon: in an incident there are many.
const HOLDS_EVERY: Duration = Duration::from_secs(10);
const NICE: i32 = 19;

/// What is in force around the cache.
pub trait Around: Send + Sync {
    /// How the cache is held.
    fn settings(&self) -> CacheSettings;
    /// The groups.
    fn homes(&self) -> Homes;
    /// Something was restored that a client may wait for.
    fn offer(&self);
}

/// A group as its entries need it.
pub struct Home {
    /// Its stamp, its name, its servers.
    pub group: GroupRecord,
    /// Bounds of TTLs.
    pub ttl: TtlSettings,
    /// How long past its TTL an answer may serve.
    pub max_age: Duration,
    /// May the AD bit of all servers of a tier be believed?
    pub trust_ad: Vec<bool>,
}

/// All groups, and the one that answers for a name.
pub struct Homes {
    /// The groups.
    pub groups: Vec<Home>,
    /// The group of a name, by its index.
    pub route: Box<Route>,
}

/// From a name to its group's index.
pub type Route = dyn Fn(&[u8]) -> Option<usize> + Send;

/// How fast a snapshot is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Beside serving.
    Beside,
    /// As fast as it goes, given up after this moment.
    AtOnce(Moment),
}

/// Why no snapshot was written.
enum Unwritten {
    /// Somebody in haste writes it.
    GivenUp,
    /// What was in the way.
    Failed(String),
}

impl From<io::Error> for Unwritten {
    fn from(e: io::Error) -> Self {
        Unwritten::Failed(e.to_string())
    }
}

/// The file as it stands.
#[derive(Clone, Debug, Default)]
struct Standing {
    written: Option<WallTime>,
    /// When it was last found to stand for the cache: written, or not different enough.
    good: Option<WallTime>,
    entries: u64,
    bytes: u64,
    restored: u64,
    left_out: u64,
    /// [`Cache::changes`] and flushes at its writing.
    changes: u64,
    flushes: u64,
    /// Holds that had begun or ended then.
    holds: u64,
    refused: Option<String>,
    failing: Option<String>,
}

/// A flush while reading goes on, and when it was.
type Flush = (Box<dyn Fn(&Entry) -> bool + Send + Sync>, Moment);

/// Writes and reads the snapshots of a cache.
pub struct Snapshotter {
    directory: PathBuf,
    machine: [u8; 16],
    cache: Arc<Cache>,
    max_bytes: u64,
    standing: Mutex<Standing>,
    writing: Mutex<()>,
    /// Those in haste.
    in_haste: AtomicU32,
    flushes: AtomicU64,
    /// Flushes since the start, while reading goes on.
    flushed: Mutex<Vec<Flush>>,
    flushed_count: AtomicUsize,
    has_read: AtomicBool,
    ending: AtomicBool,
    /// The thread looks sooner.
    nudged: (Mutex<bool>, Condvar),
}

impl Snapshotter {
    /// Of `cache`, which holds at most `max_bytes`, in a state directory.
    pub fn new(directory: PathBuf, machine: [u8; 16], cache: Arc<Cache>, max_bytes: u64) -> Self {
        Self {
            directory,
            machine,
            cache,
            max_bytes,
            standing: Mutex::default(),
            writing: Mutex::default(),
            in_haste: AtomicU32::new(0),
            flushes: AtomicU64::new(0),
            flushed: Mutex::default(),
            flushed_count: AtomicUsize::new(0),
            has_read: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            nudged: Default::default(),
        }
    }

    /// Reads what an earlier process left, then writes again and again, until [`Snapshotter::finish`]. Blocks: for a
    /// thread of its own, whose priority it lowers.
    pub fn run(&self, around: &dyn Around) {
        self.read(around);
        // Where it is refused the thread runs as the others do.
        let _ = setpriority_process(None, NICE);
        let mut last = clock::now();
        let mut share = sooner();
        while !self.ending.load(Ordering::Relaxed) {
            let (flushed, held) = self.is_due(&lock(&self.standing));
            let settings = around.settings();
            let now = clock::now();
            let since = now.since(last);
            let held = held && since >= HOLDS_EVERY;
            if settings.snapshot && (flushed || held || since >= settings.snapshot_every.mul_f64(share)) {
                (last, share) = (now, sooner());
                self.write_where_changed(around, Pace::Beside, SNAPSHOT_CHANGED_SHARE);
            }
            self.sleep();
        }
    }

    /// Writes a snapshot at once. Where a file that is there was not read to its end, nothing is written: it has more.
    ///
    /// # Errors
    ///
    /// What was in the way. It has been reported.
    pub fn write_now(&self, around: &dyn Around) -> Result<(), String> {
        self.in_haste.fetch_add(1, Ordering::Relaxed);
        let written = self.write(around, Pace::AtOnce(clock::now() + PROMPT_WRITE));
        self.in_haste.fetch_sub(1, Ordering::Relaxed);
        written
    }

    /// The last snapshot, where anything has changed, and the end of the thread.
    pub fn finish(&self, around: &dyn Around) {
        self.in_haste.fetch_add(1, Ordering::Relaxed);
        self.ending.store(true, Ordering::Relaxed);
        self.nudge();
        if around.settings().snapshot {
            self.write_where_changed(around, Pace::AtOnce(clock::now() + LAST_WRITE), u64::MAX);
        }
    }

    /// Drops what `doomed` picks from the cache and returns how many entries that were; none of it comes back by a
    /// snapshot, but for a crash before the next one, which is due at once.
    pub fn flush(&self, doomed: impl Fn(&Entry) -> bool + Send + Sync + 'static) -> u64 {
        let dropped = {
            let mut flushed = lock(&self.flushed);
            let dropped = self.cache.flush(&doomed);
            if !self.has_read.load(Ordering::Relaxed) {
                flushed.push((Box::new(doomed), clock::now()));
                self.flushed_count.store(flushed.len(), Ordering::Relaxed);
            }
            dropped
        };
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.nudge();
        dropped
    }

    /// How it stands.
    pub fn status(&self) -> SnapshotStatus {
        let s = lock(&self.standing).clone();
        SnapshotStatus {
            file: self.directory.join(FILE).display().to_string(),
            written_unix: s.written.map(|w| w.0),
            good_unix: s.good.map(|w| w.0),
            entries: s.entries,
            bytes: s.bytes,
            restored: s.restored,
            left_out: s.left_out,
            reading: !self.has_read.load(Ordering::Relaxed),
            refused: s.refused,
            failing: s.failing,
        }
    }

    fn sleep(&self) {
        let (nudged, bell) = &self.nudged;
        let nudged = nudged.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = bell.wait_timeout_while(nudged, LOOK_EVERY, |nudged| !*nudged);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    fn nudge(&self) {
        *lock(&self.nudged.0) = true;
        self.nudged.1.notify_all();
    }

    //------------ Writing -------------------------------------------------------------------------------------------

    /// Writes unless fewer than one in `share` entries have changed.
    fn write_where_changed(&self, around: &dyn Around, pace: Pace, share: u64) {
        let standing = lock(&self.standing).clone();
        let changes = self.cache.changes() - standing.changes;
        let (flushed, held) = self.is_due(&standing);
        let few = changes == 0 || changes.saturating_mul(share) < self.cache.census().entries;
        if few && !flushed && !held && standing.refused.is_none() && standing.failing.is_none() {
            if standing.written.is_some() {
                lock(&self.standing).good = Some(clock::wall());
            }
            return;
        }
        // It has been reported.
        let _ = self.write(around, pace);
    }

    /// Has anything been flushed since it was written, and has a hold begun or ended?
    fn is_due(&self, standing: &Standing) -> (bool, bool) {
        let flushed = standing.flushes != self.flushes.load(Ordering::Relaxed);
        (flushed, standing.holds != self.cache.guards().revision())
    }

    fn write(&self, around: &dyn Around, pace: Pace) -> Result<(), String> {
        let _alone = lock(&self.writing);
        if !self.has_read.load(Ordering::Acquire) && self.directory.join(FILE).symlink_metadata().is_ok() {
            return Ok(());
        }
        let (changes, flushes) = (self.cache.changes(), self.flushes.load(Ordering::Relaxed));
        let holds = self.cache.guards().revision();
        let written = self.write_file(around, pace);
        let mut standing = lock(&self.standing);
        match written {
            Ok((entries, bytes)) => {
                let now = Some(clock::wall());
                (standing.written, standing.good) = (now, now);
                (standing.entries, standing.bytes) = (entries, bytes);
                (standing.changes, standing.flushes, standing.holds) = (changes, flushes, holds);
                (standing.refused, standing.failing) = (None, None);
                Ok(())
            }
            Err(Unwritten::GivenUp) => Ok(()),
            Err(Unwritten::Failed(reason)) => {
                // A flush that cannot be written is tried again with the next turn, not every second.
                (standing.flushes, standing.holds) = (flushes, holds);
                standing.failing = Some(reason.clone());
                drop(standing);
                let file = self.directory.join(FILE);
                report(Event::SnapshotFailed { file, reason: reason.clone() });
                Err(reason)
            }
        }
    }

    /// Entries and bytes of the new file.
    fn write_file(&self, around: &dyn Around, pace: Pace) -> Result<(u64, u64), Unwritten> {
        let draft = self.directory.join(DRAFT);
        state::check_directory(&self.directory)?;
        // Left by a process that ended while writing.
        match fs::remove_file(&draft) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let written = self.write_draft(around, &draft, pace).and_then(|written| {
            fs::rename(&draft, self.directory.join(FILE))?;
            File::open(&self.directory)?.sync_all()?;
            Ok(written)
        });
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    fn write_draft(&self, around: &dyn Around, draft: &Path, pace: Pace) -> Result<(u64, u64), Unwritten> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
        let homes = around.homes();
        let max_age = homes.groups.iter().map(|h| h.max_age).max().unwrap_or_default();
        let times =
            Times { now: clock::now(), wall_ms: clock::wall_millis(), due_before: self.cache.due_before(), max_age };
        let mut writer = Writer::new(self.machine, times);
        homes.groups.iter().for_each(|home| writer.group(&home.group));
        self.cache.guards().all().iter().for_each(|known| writer.guarded(known));
        let mut out = Paced { file, pace, unsynced: 0 };
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + NAME_BYTES_MAX);
        let mut entries = 0;
        let mut failed = None;
        self.cache.for_each(&mut |entry| {
            if failed.is_some() || writer.bytes() >= self.max_bytes {
                return;
            }
            if pace == Pace::Beside && self.in_haste.load(Ordering::Relaxed) > 0 {
                failed = Some(Unwritten::GivenUp);
                return;
            }
            entries += u64::from(writer.entry(entry));
            if writer.waiting() >= CHUNK_BYTES {
                chunk.clear();
                writer.take(&mut chunk);
                failed = out.write(&chunk).err();
            }
        });
        if let Some(failed) = failed {
            return Err(failed);
        }
        let end = {
            chunk.clear();
            writer.take(&mut chunk);
            out.write(&chunk)?;
            let before = writer.bytes();
            let end = writer.finish();
            out.write(&end)?;
            before + end.len() as u64
        };
        out.file.sync_all()?;
        Ok((entries, end))
    }
}

/// About how many entries the snapshot in a directory has, by its length; 0 where there is none.
pub fn entries_in(directory: &Path) -> u64 {
    fs::symlink_metadata(directory.join(FILE)).map_or(0, |file| file.len() / SMALL_ENTRY_BYTES)
}

/// A file that is written at a pace.
struct Paced {
    file: File,
    pace: Pace,
    unsynced: u64,
}

impl Paced {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Unwritten> {
        self.file.write_all(bytes)?;
        match self.pace {
            Pace::AtOnce(until) if clock::now() > until => {
                Err(Unwritten::Failed(format!("it takes longer than the {} s that there are", LAST_WRITE.as_secs())))
            }
            Pace::AtOnce(_) => Ok(()),
            Pace::Beside => {
                self.unsynced += bytes.len() as u64;
                if self.unsynced >= SYNC_BYTES {
                    self.file.sync_data()?;
                    self.unsynced = 0;
                }
                thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / SNAPSHOT_BYTES_PER_SECOND as f64));
                Ok(())
            }
        }
    }
}

/// Stands for this machine, and tells nothing of its id (machine-id(5) asks for that). All zero where it has none.
pub fn machine() -> [u8; 16] {
    const KEY: &[u8; 16] = b"evenkeelsnapshot";
    let read = |path: &str| {
        let mut id = String::new();
        File::open(path).ok()?.take(64).read_to_string(&mut id).ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    };
    let Some(id) = ["/etc/machine-id", "/var/lib/dbus/machine-id"].into_iter().find_map(read) else { return [0; 16] };
    let mut hasher = SipHasher13::new_with_key(KEY);
    hasher.write(id.as_bytes());
    hasher.finish128().as_u128().to_be_bytes()
}

/// The share of a pause after which the next one ends: not all nodes write at once, and none later than it should.
fn sooner() -> f64 {
    1.0 - rand::random::<f64>() / 10.0
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
