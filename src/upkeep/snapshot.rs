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
//! - Reading is done at nice 19 too, so that it does not delay serving: a name that is asked for before it was read is
//!   offered it within 50 ms of that. Where there are two cores two threads take every second entry each: most of it is
//!   the store's work. The memory of a large one comes in huge pages ([`huge`]).
//! - Where snapshots are off an existing file is neither read nor removed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::setpriority_process;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::{huge, state};
use crate::cache::entry::{Entry, GroupStamp};
use crate::cache::freshness::TtlSettings;
use crate::cache::key::{NameBuffer, Question};
use crate::cache::snapshot::read::{Check, Records};
use crate::cache::snapshot::write::{Times, Writer};
use crate::cache::snapshot::{EntryRecord, GroupRecord, GuardRecord, Head, LeftOut, NO_GROUP, Record, Since, Vetted};
use crate::cache::store::OVERHEAD_BYTES;
use crate::cache::{Cache, CacheSettings};
use crate::clock::{self, Moment, WallTime};
use crate::limits::{NAME_BYTES_MAX, SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_CHANGED_SHARE, STALE_AGE_MAX};
use crate::observe::event::{Event, report};
use crate::observe::status::SnapshotStatus;
use crate::resolve::vet::{self, Terms, Verdict};

/// The file in the state directory.
pub const FILE: &str = "cache.snapshot";
/// The file that is being written.
const DRAFT: &str = "cache.snapshot.new";
/// Bytes that are read or written at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a file from which on a second thread is worth its start, and huge pages their room.
const LARGE_BYTES: u64 = 8 << 20;
const SHARES_MAX: u64 = 2;
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
/// How often those who wait are offered what was restored meanwhile.
const OFFER_EVERY: Duration = Duration::from_millis(50);
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

/// What reading has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    entries: u64,
    restored: u64,
    /// What cannot be served any more.
    too_old: u64,
    /// What does not pass.
    refused: u64,
    /// What the cache has no room for.
    no_room: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.entries += other.entries;
        self.restored += other.restored;
        self.too_old += other.too_old;
        self.refused += other.refused;
        self.no_room += other.no_room;
        self.bytes += other.bytes;
    }
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

    //------------ Reading -------------------------------------------------------------------------------------------

    /// Reads what an earlier process left, if it may be read. Says what there is to say. Blocks, and
    /// lowers the priority of the calling thread.
    pub fn read(&self, around: &dyn Around) {
        let began = clock::now();
        let found = if around.settings().snapshot { self.read_file(around) } else { Ok(None) };
        // Cut short: what is there is less than the file, and must not take its place.
        if self.ending.load(Ordering::Relaxed) {
            return;
        }
        {
            let mut standing = lock(&self.standing);
            match &found {
                Ok(None) => {}
                Ok(Some((head, length, tally))) => {
                    let written = Some(WallTime((head.written_at / 1000) as i64));
                    (standing.written, standing.good) = (written, written);
                    (standing.entries, standing.bytes) = (tally.entries, *length);
                    (standing.restored, standing.left_out) =
                        (tally.restored, tally.too_old + tally.refused + tally.no_room);
                }
                Err(reason) => standing.refused = Some(reason.clone()),
            }
        }
        let flushed = {
            let mut flushed = lock(&self.flushed);
            self.has_read.store(true, Ordering::Release);
            std::mem::take(&mut *flushed)
        };
        for (doomed, at) in flushed {
            // What was restored while it was flushed; what servers said since then stays.
            self.cache.flush(&|entry| doomed(entry) && entry.data().is_some_and(|d| d.stored < at));
        }
        around.offer();
        match found {
            Ok(None) => {}
            Ok(Some((head, _, tally))) => report(Event::SnapshotRestored {
                entries: tally.restored,
                too_old: tally.too_old,
                refused: tally.refused,
                no_room: tally.no_room,
                age: Duration::from_millis(clock::wall_millis().saturating_sub(head.written_at)),
                took: clock::now().since(began),
            }),
            Err(reason) => report(Event::SnapshotRefused { file: self.directory.join(FILE), reason }),
        }
    }

    fn read_file(&self, around: &dyn Around) -> Result<Option<(Head, u64, Tally)>, String> {
        let Some(file) = self.open()? else { return Ok(None) };
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        let mut check = Check::new(length, self.machine);
        let mut refused = None;
        self.each_chunk(&file, length, &mut |chunk| {
            refused = check.feed(chunk).err();
            refused.is_none()
        })?;
        let head = match refused {
            Some(refusal) => return Err(refusal.to_string()),
            None if self.ending.load(Ordering::Relaxed) => return Ok(None),
            None => check.finish().map_err(|refusal| refusal.to_string())?,
        };
        let now = clock::now();
        // One for all shares: of two copies of an answer none is to be the newer one.
        let since = Since::new(head.written_at, clock::wall_millis(), now);
        let read = |share| self.read_share(around, &file, (&head, length), share, since);
        let tally = if length < LARGE_BYTES { read((0, 1)) } else { huge::while_filling(|| in_shares(&read)) }?;
        Ok(Some((head, length, tally)))
    }

    /// Restores every entry whose number is `share` of `shares`.
    fn read_share(
        &self,
        around: &dyn Around,
        file: &File,
        (head, length): (&Head, u64),
        (share, shares): (u64, u64),
        since: Since,
    ) -> Result<Tally, String> {
        let _ = setpriority_process(None, NICE);
        let mut restoring = Restoring::new(self, around, (share, shares), since);
        let mut records = Records::new(head, length);
        self.each_chunk(file, length, &mut |chunk| {
            records.feed(chunk, |record| restoring.take(record));
            true
        })?;
        Ok(restoring.tally)
    }

    /// The file, where it is there and nobody else can have written it.
    fn open(&self) -> Result<Option<File>, String> {
        match state::open(&self.directory, FILE) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Calls `each` with the next bytes until it says no, the file or its length ends, or the process does.
    fn each_chunk(&self, file: &File, length: u64, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), String> {
        let mut room = vec![0; CHUNK_BYTES];
        let mut left = length;
        while left > 0 && !self.ending.load(Ordering::Relaxed) {
            let most = left.min(CHUNK_BYTES as u64) as usize;
            let count = match file.read_at(&mut room[..most], length - left) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.to_string()),
            };
            left -= count as u64;
            if !each(&room[..count]) {
                break;
            }
        }
        Ok(())
    }
}

/// Reads by as many threads as there are cores, at most two. On two cores they stand in nobody's way who serves, being
/// nice, and one alone would take half as long again.
fn in_shares(read: &(impl Fn((u64, u64)) -> Result<Tally, String> + Sync)) -> Result<Tally, String> {
    let cores = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let shares = cores.clamp(1, SHARES_MAX);
    thread::scope(|scope| {
        // Where there is no thread to be had this one takes the other share too.
        let start = |n| thread::Builder::new().spawn_scoped(scope, move || read((n, shares))).map_err(|_| n);
        let others: Vec<_> = (1..shares).map(start).collect();
        let mut tally = read((0, shares))?;
        for other in others {
            tally.add(match other {
                Ok(other) => other.join().unwrap_or_else(|_| Err("reading broke off".to_owned()))?,
                Err(n) => read((n, shares))?,
            });
        }
        Ok(tally)
    })
}

/// What one reading needs to know.
struct Restoring<'s> {
    snapshotter: &'s Snapshotter,
    around: &'s dyn Around,
    homes: Homes,
    /// Where the groups of the file are: the group here, and the stamp that its entries get.
    placed: HashMap<GroupStamp, (usize, GroupStamp)>,
    since: Since,
    wall: WallTime,
    offered: Moment,
    /// Which entries are restored: those whose number is the first of so many.
    share: (u64, u64),
    number: u64,
    tally: Tally,
}

impl<'s> Restoring<'s> {
    fn new(snapshotter: &'s Snapshotter, around: &'s dyn Around, share: (u64, u64), since: Since) -> Self {
        let now = since.now;
        Self {
            snapshotter,
            around,
            homes: around.homes(),
            placed: HashMap::new(),
            since,
            wall: clock::wall(),
            offered: now,
            share,
            number: 0,
            tally: Tally::default(),
        }
    }

    fn take(&mut self, record: Record<'_>) {
        match record {
            Record::Group(group) => self.place(&group),
            Record::Entry(entry) => {
                let (share, shares) = self.share;
                self.number += 1;
                if self.number % shares != share {
                    return;
                }
                self.tally.entries += 1;
                if self.tally.bytes >= self.snapshotter.max_bytes / shares {
                    self.tally.no_room += 1;
                    return;
                }
                match self.restore(&entry) {
                    Ok(()) => {}
                    Err(LeftOut::TooOld) => self.tally.too_old += 1,
                    Err(LeftOut::Malformed) => self.tally.refused += 1,
                }
                if self.tally.entries.is_multiple_of(1024) {
                    self.by_and_by();
                }
            }
            _ if self.share.0 > 0 => {}
            Record::Guarded(guarded) => self.tally.refused += u64::from(self.restore_guarded(&guarded).is_err()),
            Record::Other(..) => {}
            Record::Malformed => self.tally.refused += 1,
        }
    }

    fn place(&mut self, group: &GroupRecord) {
        let Some(index) = self.homes.groups.iter().position(|h| h.group.name == group.name) else { return };
        let here = &self.homes.groups[index].group;
        let stayed = here.servers.iter().any(|server| group.servers.contains(server));
        self.placed.insert(group.stamp, (index, if stayed { here.stamp } else { NO_GROUP }));
    }

    fn restore(&mut self, record: &EntryRecord<'_>) -> Result<(), LeftOut> {
        let mut buffer: NameBuffer = [0; NAME_BYTES_MAX];
        let question = record.question(&mut buffer).ok_or(LeftOut::Malformed)?;
        let placed = self.placed.get(&record.group).copied();
        // Of a group that has gone: whoever answers for the name says how long it counts.
        let placed = placed.or_else(|| Some(((self.homes.route)(question.name)?, NO_GROUP)));
        let home = placed.and_then(|(index, stamp)| Some((self.homes.groups.get(index)?, stamp)));
        let (home, stamp) = home.ok_or(LeftOut::TooOld)?;
        let vetted = vetted(record, &question, (home, stamp), self.wall, self.since.now)?;
        let entry = record.restored(&question, vetted, self.since)?;
        if self.snapshotter.is_flushed(&entry) {
            return Err(LeftOut::TooOld);
        }
        let bytes = (entry.bytes() + OVERHEAD_BYTES) as u64;
        let cache = &self.snapshotter.cache;
        if cache.restore(cache.key(&question), &question, Arc::new(entry)) {
            self.tally.restored += 1;
            self.tally.bytes += bytes;
        }
        Ok(())
    }

    /// The last good answer of a guarded name, whatever its age; what is not guarded any more is left.
    fn restore_guarded(&mut self, record: &GuardRecord<'_>) -> Result<(), LeftOut> {
        let mut buffer: NameBuffer = [0; NAME_BYTES_MAX];
        let question = record.entry.question(&mut buffer).ok_or(LeftOut::Malformed)?;
        // What another group is to say now is not held from it.
        let Some((index, stamp)) = self.placed.get(&record.entry.group).copied().filter(|p| p.1 != NO_GROUP) else {
            return Ok(());
        };
        let Some(home) = self.homes.groups.get(index) else { return Ok(()) };
        let vetted = vetted(&record.entry, &question, (home, stamp), self.wall, self.since.now)?;
        let max_age = STALE_AGE_MAX.max;
        let known = match record.restored(&question, Vetted { max_age, ..vetted }, self.since) {
            Err(LeftOut::TooOld) => return Ok(()),
            known => known?,
        };
        let cache = &self.snapshotter.cache;
        if !self.snapshotter.is_flushed(&known.entry) {
            cache.restore_guarded(cache.key(&question), &question, known, home.max_age, self.since.now);
        }
        Ok(())
    }

    fn by_and_by(&mut self) {
        let now = clock::now();
        if self.share.0 == 0 && now.since(self.offered) >= OFFER_EVERY {
            self.offered = now;
            self.around.offer();
        }
    }
}

impl Snapshotter {
    fn is_flushed(&self, entry: &Entry) -> bool {
        self.flushed_count.load(Ordering::Relaxed) > 0 && lock(&self.flushed).iter().any(|(doomed, _)| doomed(entry))
    }
}

/// About how many entries the snapshot in a directory has, by its length; 0 where there is none.
pub fn entries_in(directory: &Path) -> u64 {
    fs::symlink_metadata(directory.join(FILE)).map_or(0, |file| file.len() / SMALL_ENTRY_BYTES)
}

/// What an entry is worth under the stamp that it gets: as if a server of its tier had sent it over TCP.
///
/// # Errors
///
/// [`LeftOut::Malformed`] where it would not have been stored.
pub fn vetted(
    record: &EntryRecord<'_>,
    question: &Question<'_>,
    (home, group): (&Home, GroupStamp),
    wall: WallTime,
    now: Moment,
) -> Result<Vetted, LeftOut> {
    let trust_ad = group != NO_GROUP && home.trust_ad.get(usize::from(record.tier)).copied().unwrap_or(false);
    let terms = Terms { over_tcp: true, with_edns: false, trust_ad, ttl: home.ttl, wall };
    match vet::vet(record.wire, question, terms, now) {
        Verdict::Answer { packed, storable: true } => Ok(Vetted { packed, group, max_age: home.max_age }),
        _ => Err(LeftOut::Malformed),
    }
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
