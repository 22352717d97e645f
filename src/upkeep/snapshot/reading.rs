//! Reads what an earlier process left, beside serving.
//!
//! Not pure, as its parent, which has the rules.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustix::process::setpriority_process;

use super::{Around, CHUNK_BYTES, FILE, Home, Homes, NICE, Snapshotter, lock};
use crate::cache::entry::{Entry, GroupStamp};
use crate::cache::key::{NameBuffer, Question};
use crate::cache::snapshot::read::{Check, Records};
use crate::cache::snapshot::{EntryRecord, GroupRecord, GuardRecord, Head, LeftOut, NO_GROUP, Record, Since, Vetted};
use crate::cache::store::OVERHEAD_BYTES;
use crate::clock::{self, Moment, WallTime};
use crate::limits::{NAME_BYTES_MAX, STALE_AGE_MAX};
use crate::observe::event::{Event, report};
use crate::resolve::vet::{self, Terms, Verdict};
use crate::upkeep::{huge, state};

/// Bytes of a file from which on a second thread is worth its start, and huge pages their room.
const LARGE_BYTES: u64 = 8 << 20;
const SHARES_MAX: u64 = 2;
/// How often those who wait are offered what was restored meanwhile.
const OFFER_EVERY: Duration = Duration::from_millis(50);

/// What reading has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) entries: u64,
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
    pub(super) fn read_share(
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

    /// Was it flushed while reading went on?
    fn is_flushed(&self, entry: &Entry) -> bool {
        self.flushed_count.load(Ordering::Relaxed) > 0 && lock(&self.flushed).iter().any(|(doomed, _)| doomed(entry))
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
