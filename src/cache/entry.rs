//! One entry: the last good answer, packed, and beside it the last failure.
//!
//! Pure. The answer is the packet that came, without OPT, with the offsets of its TTLs ([`Data`]); it never changes.
//! What changes is small and beside it: when it is asked ahead, whether copies of the entry must let go, and, apart
//! since few entries have any, the failure, a guard's hold and the like. All times are [`Moment`]s.
//!
//! Memory: two allocations an entry. The packet, its extended errors and the offsets lie in one, and the name is read
//! where the packet repeats it. `cargo bench --bench eviction` prints what an entry takes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::ahead::Ahead;
use super::freshness::{self, Standing};
use super::key::Question;
use super::prefetch::prefetch_all;
use crate::clock::Moment;
use crate::limits::HEADER_BYTES;
use crate::wire::patch::{Rotation, Stored};

/// Of a long answer so many are fetched ahead: the rest follows in line, which processors foresee by themselves.
const FETCHED_BYTES: usize = 256;

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records, or a chain that leads to some.
    Positive,
    /// The name exists, the type does not (RFC 2308 §2.2).
    NoData,
    /// The name does not exist (RFC 2308 §2.1).
    NxDomain,
}

impl Kind {
    /// Is it one of the two negative kinds?
    pub fn is_negative(self) -> bool {
        self != Kind::Positive
    }
}

/// Which group gave an answer, and in which life: a group whose servers were all replaced has another stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupStamp(pub u32);

/// An answer as it is stored. Immutable.
#[derive(Debug)]
pub struct Data {
    /// The message without OPT, TTLs bounded; behind it the encoded extended errors, then the offset of each TTL; last
    /// the folded name where the message does not repeat it.
    bytes: Box<[u8]>,
    wire_len: u16,
    edes_len: u16,
    records: u16,
    name_len: u8,
    name_apart: bool,
    /// A run of no records where nothing may turn.
    rotation: Rotation,
    /// What it says.
    pub kind: Kind,
    /// Has it what was asked for: records of the type, and of addresses one that can be routed?
    pub good: bool,
    /// The tier that gave it, from 0.
    pub tier: u8,
    /// The group that gave it.
    pub group: GroupStamp,
    /// When it came.
    pub stored: Moment,
    /// Seconds: the smallest TTL in it.
    pub ttl: u32,
    /// Whole seconds after `stored`; [`u32::MAX`] is never.
    signed_for: u32,
}

/// What [`Data::new`] needs of a reply. Fields as in [`Data`].
#[derive(Debug)]
pub struct Packed {
    /// The message without OPT, TTLs bounded, id 0.
    pub wire: Vec<u8>,
    /// Offset of each TTL.
    pub ttl_at: Vec<u16>,
    /// The run of addresses that may turn.
    pub rotation: Option<Rotation>,
    /// The server's extended errors, encoded.
    pub kept_edes: Box<[u8]>,
    /// What it says.
    pub kind: Kind,
    /// Has it what was asked for?
    pub good: bool,
    /// Seconds.
    pub ttl: u32,
    /// When the first signature runs out.
    pub signed_until: Moment,
}

#[cfg(test)]
impl Packed {
    /// A reply of this kind without records, for tests that look at no bytes.
    pub fn of_a_minute(kind: Kind) -> Self {
        let wire = vec![0; 12];
        Self {
            wire,
            ttl_at: vec![],
            rotation: None,
            kept_edes: [].into(),
            kind,
            good: kind == Kind::Positive,
            ttl: 60,
            signed_until: Moment::NEVER,
        }
    }
}

impl Packed {
    /// No TTL in it is above `most` seconds any more.
    pub fn lower_ttls(&mut self, most: u32) {
        self.ttl = self.ttl.min(most);
        for &at in &self.ttl_at {
            let field = &mut self.wire[usize::from(at)..usize::from(at) + 4];
            let had = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
            field.copy_from_slice(&had.min(most).to_be_bytes());
        }
    }
}

impl Data {
    /// An answer that came at `now` from `tier` of `group`. A message has at most 65,535 bytes; what is longer is cut.
    pub fn new(packed: Packed, tier: u8, group: GroupStamp, now: Moment) -> Self {
        let Packed { wire, ttl_at, rotation, kept_edes, kind, good, ttl, signed_until } = packed;
        let (wire, edes) = (within_u16(&wire), within_u16(&kept_edes));
        let ttl_at = within_u16(&ttl_at);
        let mut bytes = Vec::with_capacity(wire.len() + edes.len() + 2 * ttl_at.len());
        bytes.extend_from_slice(wire);
        bytes.extend_from_slice(edes);
        bytes.extend(ttl_at.iter().flat_map(|at| at.to_ne_bytes()));
        Self {
            wire_len: wire.len() as u16,
            edes_len: edes.len() as u16,
            records: ttl_at.len() as u16,
            bytes: bytes.into(),
            name_len: 0,
            name_apart: false,
            rotation: rotation.unwrap_or(Rotation { first: 0, count: 0, bytes: 0 }),
            kind,
            good,
            tier,
            group,
            stored: now,
            ttl,
            signed_for: match signed_until {
                Moment::NEVER => u32::MAX,
                until => u32::try_from(until.since(now).as_secs()).unwrap_or(u32::MAX),
            },
        }
    }

    /// The view that [`crate::wire::patch::answer`] takes.
    #[inline]
    pub fn stored(&self) -> Stored<'_> {
        let (wire, rest) = self.bytes.split_at(self.wire_len.into());
        let (kept_edes, rest) = rest.split_at(self.edes_len.into());
        let (ttl_at, _) = rest.as_chunks();
        let rotation = (self.rotation.count > 0).then_some(self.rotation);
        Stored { wire, ttl_at: &ttl_at[..self.records.into()], rotation, kept_edes }
    }

    /// When the first of its signatures runs out; [`Moment::NEVER`] where it has none.
    pub fn signed_until(&self) -> Moment {
        match self.signed_for {
            u32::MAX => Moment::NEVER,
            seconds => self.stored + Duration::from_secs(seconds.into()),
        }
    }

    /// Makes `name` the entry's. The message repeats it, in the spelling that the server chose; clients get their own.
    fn set_name(&mut self, name: &[u8]) {
        self.name_len = name.len() as u8;
        let message = &mut self.bytes[..usize::from(self.wire_len)];
        match message.get_mut(HEADER_BYTES..HEADER_BYTES + name.len()) {
            Some(own) if own.eq_ignore_ascii_case(name) => own.copy_from_slice(name),
            _ => {
                self.name_apart = true;
                self.bytes = [&self.bytes, name].concat().into();
            }
        }
    }

    #[inline]
    fn name(&self) -> &[u8] {
        let length = usize::from(self.name_len);
        let at = if self.name_apart { self.bytes.len() - length } else { HEADER_BYTES };
        &self.bytes[at..at + length]
    }

    /// The RCODE.
    pub fn rcode(&self) -> u16 {
        u16::from(self.bytes[3] & 15)
    }

    /// How it stands. See [`freshness::standing`]; signatures that ran out make a stale answer [`Standing::Gone`].
    pub fn standing(&self, max_age: Duration, due_before: Moment, now: Moment) -> Standing {
        match freshness::standing(self.stored, self.ttl, max_age, due_before, now) {
            Standing::Stale { .. } if now >= self.signed_until() => Standing::Gone,
            standing => standing,
        }
    }

    /// How it stands towards `group`: what another group gave counts as expired.
    pub fn standing_in(&self, group: GroupStamp, max_age: Duration, due_before: Moment, now: Moment) -> Standing {
        match self.standing(max_age, due_before, now) {
            Standing::Fresh { .. } if self.group != group && max_age.is_zero() => Standing::Gone,
            Standing::Fresh { .. } if self.group != group => Standing::Stale { past: Duration::ZERO },
            standing => standing,
        }
    }
}

/// As many items as a message of the greatest length could have.
fn within_u16<T>(items: &[T]) -> &[T] {
    &items[..items.len().min(u16::MAX.into())]
}

/// What went wrong the last time, and until when that is remembered (RFC 9520).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Remembered until then.
    pub until: Moment,
    /// The group that failed: what it could not answer another one may.
    pub group: GroupStamp,
    /// Failures in a row, from 1.
    pub count: u32,
    /// The number of the group's healings then: a failure from before a healing counts no more.
    pub healings: u32,
    /// INFO-CODE that says what happened.
    pub ede: u16,
    /// The server's own extended errors, encoded.
    pub kept_edes: Box<[u8]>,
}

impl Failure {
    fn is_of(&self, group: GroupStamp, healings: u32) -> bool {
        (self.group, self.healings) == (group, healings)
    }
}

/// One entry of the cache.
#[derive(Debug)]
pub struct Entry {
    body: Body,
    qtype: u16,
    bits: u8,
    /// Copies of this entry outside the store must let go.
    gone: AtomicBool,
    /// When it is asked again before it runs out.
    pub ahead: Ahead,
    rare: OnceLock<Box<Rare>>,
}

#[derive(Debug)]
enum Body {
    Answer(Data),
    /// There is a failure alone. The folded name.
    None(Box<[u8]>),
}

/// What few entries have. It is looked at only where the data is not fresh.
#[derive(Debug, Default)]
struct Rare {
    /// A stale answer is not asked again before this moment.
    ask_again_at: AtomicU64,
    /// Until when records of a better tier, whose place others of a worse one took, outweigh a denial; the tier stands
    /// in the lowest two bits. 0 is none.
    vouched: AtomicU64,
    /// A guard holds it until then: it is served although its TTL, and `max_age`, have run out. 0 is none.
    held_until: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

impl Rare {
    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// An entry with an answer.
    pub fn with_data(question: &Question<'_>, mut data: Data) -> Self {
        data.set_name(question.name);
        Self::new(question, Body::Answer(data))
    }

    /// An entry that remembers a failure alone.
    pub fn with_failure(question: &Question<'_>, failure: Failure) -> Self {
        let entry = Self::new(question, Body::None(question.name.into()));
        entry.remember(failure);
        entry
    }

    fn new(question: &Question<'_>, body: Body) -> Self {
        Self {
            body,
            qtype: question.qtype,
            bits: question.bits(),
            gone: AtomicBool::new(false),
            ahead: Ahead::default(),
            rare: OnceLock::new(),
        }
    }

    /// Is this the entry of `question`?
    #[inline]
    pub fn is_for(&self, question: &Question<'_>) -> bool {
        self.qtype == question.qtype && self.bits == question.bits() && *self.name() == *question.name
    }

    /// Is it the entry of the same question as `other`?
    pub fn is_like(&self, other: &Entry) -> bool {
        self.qtype == other.qtype && self.bits == other.bits && self.name() == other.name()
    }

    /// The folded name.
    #[inline]
    pub fn name(&self) -> &[u8] {
        match &self.body {
            Body::Answer(data) => data.name(),
            Body::None(name) => name,
        }
    }

    /// The type.
    pub fn qtype(&self) -> u16 {
        self.qtype
    }

    /// DO and CD, as in [`Question::bits`].
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The last good answer.
    #[inline]
    pub fn data(&self) -> Option<&Data> {
        match &self.body {
            Body::Answer(data) => Some(data),
            Body::None(_) => None,
        }
    }

    /// The last failure of `group` in its life of so many `healings`, where it still counts.
    pub fn failure(&self, group: GroupStamp, healings: u32, now: Moment) -> Option<Failure> {
        self.rare.get()?.failure().as_ref().filter(|f| now < f.until && f.is_of(group, healings)).cloned()
    }

    /// Is there a last failure that still counts? Does not allocate.
    pub fn has_failed(&self, group: GroupStamp, healings: u32, now: Moment) -> bool {
        let counts = |f: &Failure| now < f.until && f.is_of(group, healings);
        self.rare.get().is_some_and(|rare| rare.failure().as_ref().is_some_and(counts))
    }

    /// Failures in a row so far, those before the group's last healing not counted.
    pub fn failures_in_a_row(&self, group: GroupStamp, healings: u32) -> u32 {
        let Some(rare) = self.rare.get() else { return 0 };
        rare.failure().as_ref().filter(|f| f.is_of(group, healings)).map_or(0, |f| f.count)
    }

    /// Remembers a failure beside the data.
    pub fn remember(&self, failure: Failure) {
        *self.rare().failure() = Some(failure);
    }

    /// Takes over the failure that `other` remembers.
    pub fn inherit_failure(&self, other: &Entry) {
        if let Some(failure) = other.rare.get().and_then(|rare| rare.failure().clone()) {
            self.remember(failure);
        }
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// May the stale name be asked again? Of all that ask at once only one is told yes, and none for `pause` after.
    pub fn claim_asking(&self, pause: Duration, now: Moment) -> bool {
        let ask_again_at = &self.rare().ask_again_at;
        let at = ask_again_at.load(Ordering::Relaxed);
        now.as_nanos() >= at
            && ask_again_at
                .compare_exchange(at, (now + pause).as_nanos(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// `tier`, a better one than that of the records in here, gave records too; they count until then.
    pub fn vouch(&self, tier: u8, until: Moment) {
        self.rare().vouched.store(until.as_nanos() & !3 | u64::from(tier & 3), Ordering::Relaxed);
    }

    /// The better tier that gave records before, and until when they count.
    pub fn vouched(&self) -> Option<(u8, Moment)> {
        let packed = self.rare.get()?.vouched.load(Ordering::Relaxed);
        (packed != 0).then(|| ((packed & 3) as u8, Moment::from_nanos(packed & !3)))
    }

    /// A guard holds it: it is served until then.
    pub fn hold_until(&self, until: Moment) {
        self.rare().held_until.store(until.as_nanos(), Ordering::Relaxed);
    }

    /// No guard holds it any more.
    pub fn end_hold(&self) {
        if let Some(rare) = self.rare.get() {
            rare.held_until.store(0, Ordering::Relaxed);
        }
    }

    /// The data, where a guard holds it now. Signatures that ran out end that too.
    pub fn held(&self, now: Moment) -> Option<&Data> {
        let held = now.as_nanos() < self.rare.get()?.held_until.load(Ordering::Relaxed);
        self.data().filter(|d| held && now < d.signed_until())
    }

    /// Copies outside the store let go from here on.
    pub fn let_go(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Must copies outside the store let go?
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Has the bytes of the answer fetched into the processor's cache.
    #[inline]
    pub fn fetch(&self) {
        if let Body::Answer(data) = &self.body {
            prefetch_all(&data.bytes[..data.bytes.len().min(FETCHED_BYTES)]);
        }
    }

    /// Bytes of memory that the entry takes, without the store's own.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.body {
                Body::Answer(data) => data.bytes.len(),
                Body::None(name) => name.len() + size_of::<Rare>(),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stands_beside_the_data_and_ends_with_its_time_or_a_healing() {
        let entry = Entry::with_data(&question(), data());
        let group = GroupStamp(1);
        let until = Moment::from_secs(5);
        entry.remember(Failure { until, group, count: 2, healings: 7, ede: 22, kept_edes: [].into() });
        assert!(entry.data().is_some());
        for (what, group, healings, at_ms, want) in [
            ("in its time", 1, 7, 4_999, true),
            ("at its end", 1, 7, 5_000, false),
            ("after a healing", 1, 8, 0, false),
            ("another group's", 2, 7, 0, false),
        ] {
            let (group, now) = (GroupStamp(group), Moment::from_millis(at_ms));
            assert_eq!(entry.failure(group, healings, now).is_some(), want, "{what}");
            assert_eq!(entry.has_failed(group, healings, now), want, "{what}");
        }
        assert_eq!((entry.failures_in_a_row(group, 7), entry.failures_in_a_row(group, 8)), (2, 0));
    }

    #[test]
    fn asking_again_is_claimed_once_a_pause() {
        let entry = Entry::with_data(&question(), data());
        let pause = Duration::from_secs(30);
        assert!(entry.claim_asking(pause, Moment::from_secs(1)));
        assert!(!entry.claim_asking(pause, Moment::from_secs(30)));
        assert!(entry.claim_asking(pause, Moment::from_secs(31)));
    }

    #[test]
    fn a_signed_answer_is_not_served_stale_once_its_signatures_ran_out() {
        let data = signed();
        let at = |s| data.standing(Duration::from_secs(1000), Moment::ZERO, Moment::from_secs(s));
        assert_eq!(at(99), Standing::Stale { past: Duration::from_secs(39) });
        assert_eq!(at(100), Standing::Gone);
    }

    #[test]
    fn signatures_that_ran_out_end_a_hold_too() {
        let entry = Entry::with_data(&question(), signed());
        entry.hold_until(Moment::from_secs(1000));
        assert!(entry.held(Moment::from_secs(99)).is_some() && entry.held(Moment::from_secs(100)).is_none());
    }

    fn question() -> Question<'static> {
        Question { name: b"\x07example\x00", qtype: 1, dnssec_ok: false, cd: false }
    }

    #[test]
    fn the_name_is_read_where_the_message_repeats_it_else_beside() {
        let name = question().name;
        let repeated = [&[0; HEADER_BYTES][..], b"\x07eXaMpLe\x00", &[0, 1, 0, 1]].concat();
        let other = [&[0; HEADER_BYTES][..], b"\x07exampld\x00", &[0, 1, 0, 1]].concat();
        for (wire, apart) in [(repeated, 0), (other, name.len()), (vec![0; HEADER_BYTES], name.len())] {
            let (length, edes) = (wire.len(), [9; 7]);
            let packed = Packed { wire, ttl_at: vec![3, 500], kept_edes: edes.into(), ..packed(Moment::NEVER) };
            let data = Data::new(packed, 0, GroupStamp(1), Moment::ZERO);
            let entry = Entry::with_data(&question(), data);
            assert_eq!((entry.name(), entry.is_for(&question())), (name, true));
            let stored = entry.data().unwrap().stored();
            let ttl_at: Vec<u16> = stored.ttl_at.iter().map(|at| u16::from_ne_bytes(*at)).collect();
            assert_eq!((stored.wire.len(), stored.kept_edes, ttl_at), (length, &edes[..], vec![3, 500]));
            assert_eq!(entry.bytes(), size_of::<Entry>() + length + 7 + 4 + apart);
        }
    }

    // `OVERHEAD_BYTES` was measured beside this.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn an_entry_is_small() {
        assert_eq!((size_of::<Data>(), size_of::<Entry>()), (56, 88));
    }

    fn signed() -> Data {
        Data::new(packed(Moment::from_secs(100)), 0, GroupStamp(1), Moment::ZERO)
    }

    fn data() -> Data {
        Data::new(packed(Moment::NEVER), 0, GroupStamp(1), Moment::ZERO)
    }

    fn packed(signed_until: Moment) -> Packed {
        Packed { signed_until, ..Packed::of_a_minute(Kind::Positive) }
    }
}
