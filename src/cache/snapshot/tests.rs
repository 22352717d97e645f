//! The form of a snapshot: whole or refused, later versions and the first one, ages, what does not pass.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::read::{Check, Records};
use super::write::{Times, Writer};
use super::*;
use crate::cache::Cache;
use crate::cache::entry::Failure;
use crate::cache::key::Keys;
use crate::cache::store::MapStore;

const MACHINE: [u8; 16] = [7; 16];
const DAY: Duration = Duration::from_secs(86_400);
const NOW: Moment = Moment::from_secs(90 * 86_400);
const WALL_MS: u64 = 1_700_000_000_000;
const GROUP: GroupStamp = GroupStamp(5);
/// A kind that nobody knows.
const OTHER: u8 = 99;
const HOUR: Duration = Duration::from_secs(3600);

/// A file of version 1, as its first writer made it: a group, what is known of two guarded names, two entries, a record
/// of a kind that nobody knows.
const GOLDEN: &str = "\
    45564b4c534e41500001000100000028070707070707070707070707070707070000018bcfe5680001000000230000000500076465666175\
    6c74000100127564703a2f2f3139322e302e322e313a353363000000046d6f7265030000005b000000000036ee800000000000015f900100\
    0000000000ea6000000000001a8ce0000000050101ff00000000055d4a80000000000000000000060019000f000200060000800000010000\
    0000000002646204746573740000010001030000005b000000000036ee800000000000015f90000000000000000000000000000000000000\
    0000050101ff00000000055d4a80000000000000000000060019000f00020006000080000001000000000000026f6b047465737400000100\
    01020000003b000000050101ff000000000000271000000000000000000006001a000f000200060000800000010000000000000377777704\
    746573740000010001020000003b000000050101000000000001ad2748000000000036ee800006001a000f00020006000080000001000000\
    000000036f6c640474657374000001000145564b4c444f4e450000000000000006a1e22316ddaccb49fc80857bdd571174";

#[test]
fn what_is_written_is_read() {
    let entries = [entry("www.test", 60, 10), entry("old.test", 60, 7200)];
    entries[1].vouch(0, NOW + HOUR);
    let file = file(&entries);
    let (head, read) = read(&file, 1 << 20).unwrap();
    assert_eq!((head.version, head.written_at), (VERSION, WALL_MS));
    assert_eq!(read.groups, [group()]);
    assert_eq!(read.others, [(OTHER, b"more".to_vec())]);
    let shown: Vec<_> = read.guarded.iter().map(|g| (g.0.name.clone(), g.1)).collect();
    let second = Duration::from_secs;
    let held = Some((second(60), second(1740)));
    assert_eq!(shown, [(wire("db.test"), (HOUR, second(90), held)), (wire("ok.test"), (HOUR, second(90), None))]);
    let ages: Vec<_> = read.entries.iter().map(|e| (e.name.clone(), e.age, e.vouched)).collect();
    assert_eq!(ages, [(wire("www.test"), second(10), None), (wire("old.test"), second(7200), Some((0, HOUR)))]);
    assert!(read.entries.iter().all(|e| e.kept_edes == *ede() && e.tier == 1 && e.bits == 1));
}

#[test]
fn chunks_of_any_size_read_alike() {
    let file = file(&[entry("www.test", 60, 10), entry("a.test", 60, 7200)]);
    let whole = read(&file, file.len()).unwrap();
    for size in [1, 2, 3, 7, 16, 31, 32, 33, 100] {
        assert_eq!(read(&file, size).unwrap(), whole, "{size}");
    }
}

#[test]
fn a_file_that_is_cut_at_any_length_is_refused() {
    let file = file(&[entry("www.test", 60, 10), entry("a.test", 60, 7200)]);
    for length in 0..file.len() {
        let refusal = read(&file[..length], 64).unwrap_err();
        assert_eq!(refusal, Refusal::Torn, "{length}");
        // What is not refused first is no danger either.
        let _ = records(&Head { version: 1, length: 40, machine: MACHINE, written_at: 0 }, &file[..length], 64);
    }
    assert!(read(&[&file[..], &[0]].concat(), 64).is_err(), "nor is one with more behind its end");
}

#[test]
fn a_file_with_any_byte_changed_is_refused() {
    let file = file(&[entry("www.test", 60, 10)]);
    for at in 0..file.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = file.clone();
            changed[at] ^= flip;
            assert!(read(&changed, 64).is_err(), "{at}");
            let _ = records(&Head { version: 1, length: 40, machine: MACHINE, written_at: 0 }, &changed, 64);
        }
    }
}

#[test]
fn what_is_no_snapshot_or_of_another_machine_is_told_apart() {
    let good = file(&[]);
    let of = |machine| {
        let mut check = Check::new(good.len() as u64, machine);
        check.feed(&good).and_then(|()| check.finish())
    };
    assert!(of(MACHINE).is_ok());
    assert_eq!(of([8; 16]), Err(Refusal::OtherMachine));
    assert_eq!(read(&[b'x'; 100], 64), Err(Refusal::Foreign));
    assert_eq!(read(b"x", 64), Err(Refusal::Foreign));
}

// What a later version writes: a longer head, kinds and fields that are not known here.
#[test]
fn a_file_of_the_next_version_is_read_unless_it_forbids_it() {
    let mut next = file(&[entry("www.test", 60, 10)]);
    next.truncate(next.len() - END_BYTES);
    next[8..12].copy_from_slice(&[0, 2, 0, 1]);
    next[12..16].copy_from_slice(&48u32.to_be_bytes());
    next.splice(40..40, [9; 8]);
    // Every record gets four bytes more.
    let mut at = 48;
    while at < next.len() {
        let length = u32::from_be_bytes(next[at + 1..at + 5].try_into().unwrap());
        next[at + 1..at + 5].copy_from_slice(&(length + 4).to_be_bytes());
        at += 5 + length as usize;
        next.splice(at..at, [1, 2, 3, 4]);
        at += 4;
    }
    next.extend([200, 0, 0, 0, 2, 1, 1]);
    // One that is larger than anything here may be.
    let large = RECORD_BYTES_MAX as u32 + 1;
    next.extend([&[201][..], &large.to_be_bytes(), &vec![2; large as usize]].concat());
    let seal = |mut bytes: Vec<u8>| {
        bytes.extend(END_MAGIC);
        bytes.extend([0; 8]);
        let hash = siphasher::sip128::SipHasher13::new().hash(&bytes).as_u128();
        bytes.extend(hash.to_be_bytes());
        bytes
    };
    let (head, content) = read(&seal(next.clone()), 1000).unwrap();
    assert_eq!((head.version, head.length), (2, 48));
    assert_eq!((content.entries.len(), content.groups.len(), content.malformed), (1, 1, 0));
    assert_eq!(content.entries[0].name, wire("www.test"));
    assert_eq!(content.others.iter().map(|o| o.0).collect::<Vec<_>>(), [OTHER, 200]);

    next[10..12].copy_from_slice(&2u16.to_be_bytes());
    assert_eq!(read(&seal(next), 1000), Err(Refusal::Newer(2)));
}

#[test]
fn a_file_of_the_first_version_is_read_for_ever() {
    let bytes: Vec<u8> = GOLDEN
        .as_bytes()
        .chunks(2)
        .map(|h| u8::from_str_radix(std::str::from_utf8(h).unwrap(), 16).unwrap())
        .collect();
    let (head, content) = read(&bytes, 50).unwrap();
    assert_eq!(head, Head { version: 1, length: 40, machine: MACHINE, written_at: WALL_MS });
    assert_eq!(content.groups, [group()]);
    assert_eq!(content.others, [(OTHER, b"more".to_vec())]);
    assert_eq!(content.guarded.iter().map(|g| g.1.2.is_some()).collect::<Vec<_>>(), [true, false]);
    let names: Vec<_> = content.entries.iter().map(|e| e.name.clone()).collect();
    assert_eq!(names, [wire("www.test"), wire("old.test")]);
    assert_eq!(content.entries[1].vouched, Some((0, HOUR)));
    let entry = restored(&content.entries[0], 60, Since::new(WALL_MS, WALL_MS, NOW)).unwrap();
    assert_eq!(entry.data().unwrap().stored, NOW - Duration::from_secs(10));
}

#[test]
fn a_hold_goes_on_after_a_restart_for_what_is_left_of_it_and_no_longer_than_any_may_be() {
    let file = file(&[]);
    let (_, content) = read(&file, 100).unwrap();
    let (owned, (good_for, last_good, hold)) = content.guarded[0].clone();
    let at = |hold, later: u64| {
        let record = GuardRecord { good_for, last_good, hold, entry: owned.record() };
        let question = record.entry.question(&mut [0; 255]).unwrap().to_owned();
        let since = Since { elapsed: Duration::from_secs(later), now: NOW };
        let vetted = Vetted { max_age: STALE_AGE_MAX.max * 100, ..vetted(60, Kind::Positive) };
        record.restored(&question.view(), vetted, since).map(|k| {
            assert_eq!(NOW.since(k.last_good).as_secs(), 90 + later);
            (NOW.since(k.first_good), k.hold)
        })
    };
    let left = |hold: Option<Hold>| hold.map(|h| (NOW.since(h.since).as_secs(), NOW.until(h.until).as_secs()));
    let (good_for, hold_now) = at(hold, 40).unwrap();
    assert_eq!((good_for, left(hold_now)), (HOUR + Duration::from_secs(40), Some((100, 1700))));
    assert_eq!(left(at(hold, 2000).unwrap().1), Some((2060, 0)), "over, and known to have been");
    assert_eq!(left(at(Some((HOUR, DAY * 90)), 0).unwrap().1), Some((3600, 86_400)));
    assert_eq!(at(None, 0).unwrap().1, None);
    let record = GuardRecord { good_for, last_good, hold, entry: owned.record() };
    let question = record.entry.question(&mut [0; 255]).unwrap().to_owned();
    let denied = vetted(60, Kind::NxDomain);
    let since = Since { elapsed: Duration::ZERO, now: NOW };
    assert_eq!(record.restored(&question.view(), denied, since).err(), Some(LeftOut::Malformed));
}

//------------ Ages --------------------------------------------------------------------------------------------------

#[test]
fn an_entry_has_the_age_that_it_had_and_the_time_since() {
    let file = file(&[entry("www.test", 60, 10)]);
    let (_, content) = read(&file, 64).unwrap();
    let hour = 3_600_000;
    for (what, wall_ms, now, want) in [
        ("at once", WALL_MS, NOW, Some(10)),
        ("20 s later", WALL_MS + 20_000, NOW, Some(30)),
        ("a day later", WALL_MS + 86_400_000, NOW, Some(86_410)),
        ("at its end", WALL_MS + 86_400_000 + 49_999, NOW, Some(86_459)),
        ("past its end", WALL_MS + 86_400_000 + 50_000, NOW, None),
        ("a year later", WALL_MS + 365 * 86_400_000, NOW, None),
        ("with a clock before the writing", WALL_MS - hour, NOW, Some(10)),
        ("with a clock of 1970", 0, NOW, Some(10)),
        ("a minute after a reboot", WALL_MS + hour, Moment::ZERO + crate::clock::BEFORE_BOOT, Some(3610)),
        ("where moments do not reach back so far", WALL_MS + hour, Moment::from_secs(60), Some(60)),
        ("there a year later", WALL_MS + 365 * 86_400_000, Moment::from_secs(60), None),
    ] {
        let entry = restored(&content.entries[0], 60, Since::new(WALL_MS, wall_ms, now));
        let age = entry.ok().map(|e| now.since(e.data().unwrap().stored).as_secs());
        assert_eq!(age, want, "{what}");
    }
}

#[test]
fn what_the_settings_do_not_let_live_any_more_is_left_out() {
    let file = file(&[entry("www.test", 60, 30)]);
    let (_, content) = read(&file, 64).unwrap();
    let since = Since::new(WALL_MS, WALL_MS, NOW);
    let with = |ttl, max_age, group, kind| {
        let vetted = Vetted { max_age, group, ..vetted(ttl, kind) };
        let entry = content.entries[0].record();
        entry.restored(&entry.question(&mut [0; 255]).unwrap(), vetted, since)
    };
    assert!(with(31, Duration::ZERO, GROUP, Kind::Positive).is_ok());
    assert_eq!(with(30, Duration::ZERO, GROUP, Kind::Positive).unwrap_err(), LeftOut::TooOld);
    assert!(with(30, HOUR, NO_GROUP, Kind::Positive).is_ok());
    assert!(with(30, HOUR, GROUP, Kind::NxDomain).is_ok());
    assert_eq!(with(30, HOUR, NO_GROUP, Kind::NxDomain).unwrap_err(), LeftOut::TooOld, "void");
}

#[test]
fn what_counts_as_expired_when_it_is_written_is_expired_when_it_is_read() {
    let entry = entry("www.test", 60, 10);
    let times = Times { due_before: NOW - Duration::from_secs(3), ..times() };
    let mut writer = Writer::new(MACHINE, times);
    assert!(writer.entry(&entry));
    let (_, content) = read(&writer.finish(), 64).unwrap();
    assert_eq!(content.entries[0].age, Duration::from_secs(63));
}

#[test]
fn what_cannot_be_served_is_not_written() {
    let mut writer = Writer::new(MACHINE, times());
    assert!(writer.entry(&entry("www.test", 60, 86_459)));
    assert!(!writer.entry(&entry("www.test", 60, 86_460)));
    assert!(!writer.entry(&Entry::with_failure(&question(&wire("www.test")), failure())));
}

#[test]
fn a_better_tier_vouches_no_longer_than_it_did() {
    let entry = entry("www.test", 60, 10);
    entry.vouch(0, NOW + HOUR);
    let (_, content) = read(&file(&[entry]), 64).unwrap();
    let vouched = |after_ms| {
        let since = Since::new(WALL_MS, WALL_MS + after_ms, NOW + Duration::from_millis(after_ms));
        restored(&content.entries[0], 60, since).unwrap().vouched()
    };
    // A moment of vouching has lost its lowest two bits.
    assert_eq!(vouched(1000), Some((0, NOW + HOUR)));
    assert_eq!(vouched(3_600_000), None);
}

#[test]
fn only_a_better_tier_vouches_for_records_and_no_longer_than_any_may() {
    let file = file(&[entry("www.test", 60, 10)]);
    let (_, content) = read(&file, 64).unwrap();
    let vouched = |by, span, kind| {
        let record = EntryRecord { vouched: Some((by, span)), ..content.entries[0].record() };
        let question = record.question(&mut [0; 255]).unwrap().to_owned();
        let entry = record.restored(&question.view(), vetted(60, kind), Since::new(WALL_MS, WALL_MS, NOW)).unwrap();
        entry.vouched().map(|(tier, until)| (tier, NOW.until(until)))
    };
    assert_eq!(vouched(0, HOUR, Kind::Positive), Some((0, HOUR)));
    assert_eq!(vouched(1, HOUR, Kind::Positive), None, "its own tier");
    assert_eq!(vouched(0, HOUR, Kind::NxDomain), None);
    let longest = STALE_AGE_MAX.max + TTL_MAX.max;
    assert_eq!(vouched(0, DAY * 10_000, Kind::Positive), Some((0, longest)));
}

#[test]
fn a_stale_answer_whose_signatures_ran_out_is_left_out() {
    let file = file(&[entry("www.test", 60, 100)]);
    let (_, content) = read(&file, 64).unwrap();
    let record = content.entries[0].record();
    let mut vetted = vetted(60, Kind::Positive);
    vetted.packed.signed_until = NOW;
    let question = record.question(&mut [0; 255]).unwrap().to_owned();
    let entry = record.restored(&question.view(), vetted, Since::new(WALL_MS, WALL_MS, NOW));
    assert_eq!(entry.unwrap_err(), LeftOut::TooOld);
}

// Whoever can write the file can make any hash.
#[test]
fn a_right_hash_makes_no_snapshot_of_what_has_no_end_or_a_head_of_no_length() {
    let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = file(&[]);
        bytes.truncate(bytes.len() - HASH_BYTES);
        change(&mut bytes);
        let hash = siphasher::sip128::SipHasher13::new().hash(&bytes).as_u128();
        bytes.extend(hash.to_be_bytes());
        read(&bytes, 64).map(drop)
    };
    assert_eq!(sealed(&|_| {}), Ok(()));
    for (what, change) in [
        (
            "no end",
            &(|b: &mut Vec<u8>| {
                let at = b.len() - 16;
                b[at] = b'x';
            }) as &dyn Fn(&mut Vec<u8>),
        ),
        ("a head too short", &|b| b[12..16].copy_from_slice(&39u32.to_be_bytes())),
        ("a head too long", &|b| b[12..16].copy_from_slice(&4097u32.to_be_bytes())),
    ] {
        assert_eq!(sealed(change), Err(Refusal::Torn), "{what}");
    }
}

//------------ Entries that do not pass ------------------------------------------------------------------------------

#[test]
fn an_entry_that_is_no_reply_to_a_question_is_malformed() {
    let file = file(&[entry("www.test", 60, 10)]);
    let (_, content) = read(&file, 64).unwrap();
    let good = &content.entries[0];
    let asks = |change: &dyn Fn(&mut Owned)| {
        let mut changed = good.clone();
        change(&mut changed);
        let record = changed.record();
        let mut buffer = [0; 255];
        let question = record.question(&mut buffer)?;
        record.restored(&question, vetted(60, Kind::Positive), Since::new(WALL_MS, WALL_MS, NOW)).ok().map(drop)
    };
    assert!(asks(&|_| {}).is_some());
    for (what, change) in [
        ("a tier that there is not", &(|e: &mut Owned| e.tier = 4) as &dyn Fn(&mut Owned)),
        ("bits that there are not", &|e| e.bits = 4),
        ("an EDE that is cut", &|e| e.kept_edes.truncate(5)),
        ("options that are no EDE", &|e| e.kept_edes[1] = 10),
        ("no wire", &|e| e.wire.clear()),
        ("a cut question", &|e| e.wire.truncate(20)),
        ("a query", &|e| e.wire[2] = 0),
        ("an id", &|e| e.wire[0] = 1),
        ("two questions", &|e| e.wire[5] = 2),
        ("another class", &|e| {
            let at = 12 + e.name.len() + 3;
            e.wire[at] = 3;
        }),
    ] {
        assert!(asks(change).is_none(), "{what}");
    }
}

//------------ Into a cache ------------------------------------------------------------------------------------------

#[test]
fn what_came_since_the_start_stays_and_a_failure_stands_beside_what_is_restored() {
    let cache = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
    let names = ["fresh.test", "failed.test", "new.test"].map(wire);
    let [fresh, failed, new] = names.each_ref().map(|n| question(n));
    let live = Arc::new(entry("fresh.test", 60, 0));
    cache.keep(cache.key(&fresh), &fresh, live.clone(), DAY, NOW);
    cache.fail(cache.key(&failed), &failed, failure());
    let remembered = cache.look(cache.key(&failed), &failed).unwrap();
    for (name, question, want) in
        [("fresh.test", fresh, false), ("failed.test", failed, true), ("new.test", new, true)]
    {
        let restored = cache.restore(cache.key(&question), &question, Arc::new(entry(name, 60, 500)));
        assert_eq!(restored, want, "{name}");
    }
    assert!(Arc::ptr_eq(&cache.look(cache.key(&fresh), &fresh).unwrap(), &live));
    let beside = cache.look(cache.key(&failed), &failed).unwrap();
    assert!(beside.data().is_some() && beside.has_failed(GROUP, 0, NOW));
    assert!(remembered.is_gone(), "front copies let go of what had no answer");
    assert_eq!(cache.changes(), 1, "what is restored is no change");
}

proptest! {
    #[test]
    fn any_entries_come_back_as_they_were(
        entries in vec(("[a-z]{1,20}\\.test", 1u32..100_000, 0u64..80_000, 0u8..4, 0u8..3), 0..20),
        size in 1usize..500,
    ) {
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|(name, ttl, age, bits, tier)| made(&name, ttl, age, bits, tier))
            .collect();
        let (_, content) = read(&file(&entries), size).unwrap();
        prop_assert_eq!(content.entries.len(), entries.len());
        for (read, had) in content.entries.iter().zip(&entries) {
            let data = had.data().unwrap();
            let entry = restored(read, data.ttl, Since::new(WALL_MS, WALL_MS, NOW)).unwrap();
            let again = entry.data().unwrap();
            prop_assert_eq!((entry.name(), entry.qtype(), entry.bits()), (had.name(), had.qtype(), had.bits()));
            prop_assert_eq!((again.stored, again.tier), (data.stored, data.tier));
            prop_assert_eq!(again.stored().kept_edes, data.stored().kept_edes);
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..400), size in 1usize..64) {
        let _ = read(&bytes, size);
        let head = Head { version: 1, length: 0, machine: MACHINE, written_at: 0 };
        let content = records(&head, &bytes, size);
        for entry in &content.entries {
            let _ = entry.record().question(&mut [0; 255]);
        }
    }
}

//------------ What they stand on ------------------------------------------------------------------------------------

#[derive(Debug, Default, PartialEq)]
struct Content {
    groups: Vec<GroupRecord>,
    entries: Vec<Owned>,
    /// With the spans of each: good for, good last, hold.
    guarded: Vec<(Owned, Spans)>,
    others: Vec<(u8, Vec<u8>)>,
    malformed: usize,
}

type Spans = (Duration, Duration, Option<(Duration, Duration)>);

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    name: Vec<u8>,
    group: GroupStamp,
    tier: u8,
    bits: u8,
    vouched: Option<(u8, Duration)>,
    age: Duration,
    kept_edes: Vec<u8>,
    wire: Vec<u8>,
}

impl Owned {
    fn new(e: &EntryRecord<'_>) -> Self {
        Self {
            name: e.question(&mut [0; 255]).map_or(vec![], |q| q.name.to_vec()),
            group: e.group,
            tier: e.tier,
            bits: e.bits,
            vouched: e.vouched,
            age: e.age,
            kept_edes: e.kept_edes.to_vec(),
            wire: e.wire.to_vec(),
        }
    }

    fn record(&self) -> EntryRecord<'_> {
        EntryRecord {
            group: self.group,
            tier: self.tier,
            bits: self.bits,
            vouched: self.vouched,
            age: self.age,
            kept_edes: &self.kept_edes,
            wire: &self.wire,
        }
    }
}

/// Both passes over a file in chunks of `size` bytes.
fn read(file: &[u8], size: usize) -> Result<(Head, Content), Refusal> {
    let mut check = Check::new(file.len() as u64, MACHINE);
    file.chunks(size.max(1)).try_for_each(|chunk| check.feed(chunk))?;
    let head = check.finish()?;
    Ok((head, records(&head, file, size)))
}

fn records(head: &Head, file: &[u8], size: usize) -> Content {
    let mut content = Content::default();
    let mut records = Records::new(head, file.len() as u64);
    for chunk in file.chunks(size.max(1)) {
        records.feed(chunk, |record| match record {
            Record::Group(group) => content.groups.push(group),
            Record::Other(kind, bytes) => content.others.push((kind, bytes.to_vec())),
            Record::Malformed => content.malformed += 1,
            Record::Entry(e) => content.entries.push(Owned::new(&e)),
            Record::Guarded(g) => {
                content.guarded.push((Owned::new(&g.entry), (g.good_for, g.last_good, g.hold)));
            }
        });
    }
    content
}

fn restored(entry: &Owned, ttl: u32, since: Since) -> Result<Entry, LeftOut> {
    let record = entry.record();
    record.restored(&record.question(&mut [0; 255]).unwrap(), vetted(ttl, Kind::Positive), since)
}

fn vetted(ttl: u32, kind: Kind) -> Vetted {
    Vetted { packed: Packed { ttl, ..Packed::of_a_minute(kind) }, group: GROUP, max_age: DAY }
}

fn file(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(MACHINE, times());
    writer.group(&group());
    writer.other(OTHER, b"more");
    let hold = Hold { since: NOW - Duration::from_secs(60), until: NOW + Duration::from_secs(1740) };
    for (name, hold) in [("db.test", Some(hold)), ("ok.test", None)] {
        let entry = Arc::new(entry(name, 60, 90_000));
        let last_good = NOW - Duration::from_secs(90);
        writer.guarded(&Known { entry, first_good: NOW - HOUR, last_good, hold });
    }
    for entry in entries {
        assert!(writer.entry(entry));
    }
    writer.finish()
}

fn times() -> Times {
    Times { now: NOW, wall_ms: WALL_MS, due_before: Moment::ZERO, max_age: DAY }
}

fn group() -> GroupRecord {
    GroupRecord { stamp: GROUP, name: "default".into(), servers: vec!["udp://192.0.2.1:53".into()] }
}

fn entry(name: &str, ttl: u32, age: u64) -> Entry {
    made(name, ttl, age, 1, 1)
}

fn made(name: &str, ttl: u32, age: u64, bits: u8, tier: u8) -> Entry {
    let name = wire(name);
    let question = Question { name: &name, qtype: 1, dnssec_ok: bits & 1 != 0, cd: bits & 2 != 0 };
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(&name);
    bytes.extend([0, 1, 0, 1]);
    let packed = Packed { wire: bytes, ttl, kept_edes: ede(), ..Packed::of_a_minute(Kind::Positive) };
    Entry::with_data(&question, Data::new(packed, tier, GROUP, NOW - Duration::from_secs(age)))
}

fn question(name: &[u8]) -> Question<'_> {
    Question { name, qtype: 1, dnssec_ok: true, cd: false }
}

fn ede() -> Box<[u8]> {
    edns::with_code(6, &[])
}

fn failure() -> Failure {
    Failure { until: Moment::NEVER, group: GROUP, count: 1, healings: 0, ede: 22, kept_edes: [].into() }
}

fn wire(name: &str) -> Vec<u8> {
    let mut wire: Vec<u8> = name.split('.').flat_map(|l| [&[l.len() as u8][..], l.as_bytes()].concat()).collect();
    wire.push(0);
    wire
}
