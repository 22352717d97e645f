//! The cache as bytes that outlive the process.
//!
//! Pure: [`mod@write`] makes bytes, [`mod@read`] takes them in chunks; files are of [`crate::upkeep::snapshot`]. All
//! numbers are big-endian.
//!
//! ```text
//! head     magic 8 | version 2 | readable from version 2 | length of the head 4 | machine 16 | written at, ms 8 | …
//! record   kind 1 | length 4 | payload, which may have more behind what is known of it
//!   group  stamp 4 | name 2+n | count 2 | servers, each 2+n
//!   guard  good for, ms 8 | last good, ms ago 8 | held 1 | held for, ms 8 | for so long more, ms 8 | as entry
//!   entry  stamp 4 | tier 1 | DO and CD 1 | vouching tier 1 | age, ms 8 | vouched for, ms 8 | EDEs 2 | wire 2 | both
//! end      magic 8 | records 8 | SipHash-1-3-128 of all before 16
//! ```
//!
//! - A file is read whole or not at all: torn, flipped, foreign, of another machine ([`Refusal`]) is a cold start. The
//!   hash is against tears and rot; who may write the file can make any hash, and mends nothing with it: each entry
//!   is vetted as if a server had sent it.
//! - A reader skips kinds and trailing bytes that it does not know, and a head that is longer than its own. A writer
//!   whose files older readers must not read raises "readable from".
//! - Ages count from the time of writing, so a wall clock that is wrong at both ends does no harm. A clock that is
//!   before the time of writing counts as that time.
//! - Name and type of an entry are those in its wire's question: there is nothing to contradict.
//! - An entry keeps the age that it had: fresh where its TTL has not run out, stale behind it, left out past `max_age`.
//!
//! Invariant: reading takes memory for one chunk and one record of at most [`RECORD_BYTES_MAX`], whatever lengths say.

pub mod read;
pub mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Data, Entry, GroupStamp, Kind, Packed};
use super::freshness::Standing;
use super::guard::table::{Hold, Known};
use super::key::{NameBuffer, Question, fold};
use crate::clock::Moment;
use crate::limits::{GUARD_HOLD, HEADER_BYTES, MESSAGE_BYTES_MAX, STALE_AGE_MAX, TTL_MAX};
use crate::wire::edns;
use crate::wire::name::plain_end;
use crate::wire::reply::{Identity, identify};

/// The version that is written.
pub const VERSION: u16 = 1;
/// The least version of a reader for what is written.
pub const READABLE_FROM: u16 = 1;
/// Bytes of a record's payload that are taken into memory.
pub const RECORD_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
const HEAD_MAGIC: [u8; 8] = *b"EVKLSNAP";
const END_MAGIC: [u8; 8] = *b"EVKLDONE";
const HEAD_BYTES: usize = 40;
const HEAD_BYTES_MAX: u32 = 4096;
const END_BYTES: usize = 32;
const HASH_BYTES: usize = 16;
const RECORD_HEAD_BYTES: usize = 5;
const KIND_GROUP: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_GUARD: u8 = 3;
/// Tier where nobody vouches.
const NO_TIER: u8 = 0xff;
/// Tiers that an answer may be of.
const TIER_MAX: u8 = 3;

/// A stamp that no group has: what bears it counts as another group's.
pub const NO_GROUP: GroupStamp = GroupStamp(0);

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The version that wrote it.
    pub version: u16,
    /// Bytes before the first record.
    pub length: u32,
    /// Stands for the machine.
    pub machine: [u8; 16],
    /// When its writing began, in milliseconds since 1970.
    pub written_at: u64,
}

/// Why a snapshot is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not begin as one.
    Foreign,
    /// A later version wrote it, for later readers.
    Newer(u16),
    /// Another machine wrote it.
    OtherMachine,
    /// Its end is missing, or bytes of it have changed.
    Torn,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Foreign => f.write_str("it is no snapshot of evenkeel"),
            Refusal::Newer(version) => write!(f, "it has version {version}, which this program cannot read"),
            Refusal::OtherMachine => f.write_str("another machine wrote it"),
            Refusal::Torn => f.write_str("it is torn: it has no whole end, or bytes of it have changed"),
        }
    }
}

/// A group as the entries of a snapshot name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// The stamp that its entries bear.
    pub stamp: GroupStamp,
    /// Its name.
    pub name: String,
    /// Its servers: how they are spoken to and where they are, in words.
    pub servers: Vec<String>,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'r> {
    /// A group; before the entries that name it.
    Group(GroupRecord),
    /// An answer.
    Entry(EntryRecord<'r>),
    /// The last good answer of a guarded name; before the entries.
    Guarded(GuardRecord<'r>),
    /// A kind that is not known.
    Other(u8, &'r [u8]),
    /// A record of a known kind that cannot be read.
    Malformed,
}

/// An answer as a snapshot holds it, unchecked but for its lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRecord<'r> {
    /// The group that gave it.
    pub group: GroupStamp,
    /// The tier that gave it.
    pub tier: u8,
    /// DO and CD.
    pub bits: u8,
    /// The better tier that gave records before.
    pub vouched: Option<(u8, Duration)>,
    /// Its age at the time of writing.
    pub age: Duration,
    /// Extended errors, encoded.
    pub kept_edes: &'r [u8],
    /// The message, as a server would send it with id 0.
    pub wire: &'r [u8],
}

/// What is kept of a guarded name. Spans are those at the time of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardRecord<'r> {
    /// Since its first good answer in a row.
    pub good_for: Duration,
    /// Since its last one.
    pub last_good: Duration,
    /// How long it was held, and for how long more.
    pub hold: Option<(Duration, Duration)>,
    /// Its last good answer.
    pub entry: EntryRecord<'r>,
}

/// What vetting makes of a restored answer.
#[derive(Debug)]
pub struct Vetted {
    /// The answer in its stored form, by the settings in force.
    pub packed: Packed,
    /// The stamp that it gets.
    pub group: GroupStamp,
    /// How long it may be served past its TTL.
    pub max_age: Duration,
}

/// Why an entry is not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It may not be served any more.
    TooOld,
    /// It is no entry.
    Malformed,
}

/// The time of writing as this process's clocks see it.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// Time since the writing, none where the wall clock is before it.
    pub elapsed: Duration,
    /// This moment.
    pub now: Moment,
}

impl Since {
    /// Of a snapshot that was written at `written_at`, where the wall clock says `wall_ms` at `now`.
    pub fn new(written_at: u64, wall_ms: u64, now: Moment) -> Self {
        Self { elapsed: Duration::from_millis(wall_ms.saturating_sub(written_at)), now }
    }
}

impl GuardRecord<'_> {
    /// What was kept at the age that it has, once `vetted` says what the answer is worth.
    ///
    /// # Errors
    ///
    /// As [`EntryRecord::restored`]; an answer that is no good one is no such record.
    pub fn restored(&self, question: &Question<'_>, vetted: Vetted, since: Since) -> Result<Known, LeftOut> {
        if !vetted.packed.good {
            return Err(LeftOut::Malformed);
        }
        let entry = Arc::new(self.entry.restored(question, vetted, since)?);
        let ago = |span: Duration| since.now - span.saturating_add(since.elapsed);
        // A hold is no longer than any may be, whatever the file says.
        let hold = self.hold.map(|(held, left)| Hold {
            since: ago(held),
            until: since.now + left.min(GUARD_HOLD.max).saturating_sub(since.elapsed),
        });
        Ok(Known { entry, first_good: ago(self.good_for), last_good: ago(self.last_good), hold })
    }
}

impl EntryRecord<'_> {
    /// What was asked. `None` where the wire is no reply to a question.
    pub fn question<'b>(&self, buffer: &'b mut NameBuffer) -> Option<Question<'b>> {
        let end = plain_end(self.wire, HEADER_BYTES)?;
        let &[high, low, ..] = self.wire.get(end..end + 4)? else { return None };
        let name = fold(&self.wire[HEADER_BYTES..end], buffer);
        let qtype = u16::from_be_bytes([high, low]);
        let is_reply = identify(self.wire, 0, name, qtype) == Identity::Ours;
        let question = Question { name, qtype, dnssec_ok: self.bits & 1 != 0, cd: self.bits & 2 != 0 };
        (is_reply && self.bits < 4).then_some(question)
    }

    /// The entry at the age that it has, once `vetted` says what it is worth.
    pub fn restored(&self, question: &Question<'_>, vetted: Vetted, since: Since) -> Result<Entry, LeftOut> {
        let Vetted { mut packed, group, max_age } = vetted;
        if self.tier > TIER_MAX || *edns::keep(self.kept_edes) != *self.kept_edes {
            return Err(LeftOut::Malformed);
        }
        let age = self.age.saturating_add(since.elapsed);
        let span = Duration::from_secs(packed.ttl.into()) + max_age;
        if age >= span || group == NO_GROUP && packed.kind.is_negative() {
            return Err(LeftOut::TooOld);
        }
        packed.kept_edes = self.kept_edes.into();
        let data = Data::new(packed, self.tier, group, since.now - age);
        if data.standing(max_age, Moment::ZERO, since.now) == Standing::Gone {
            return Err(LeftOut::TooOld);
        }
        let vouched = self.vouched.filter(|(tier, _)| *tier < self.tier && data.kind == Kind::Positive);
        let entry = Entry::with_data(question, data);
        if let Some((tier, left)) = vouched {
            let left = left.min(STALE_AGE_MAX.max + TTL_MAX.max).saturating_sub(since.elapsed);
            if left > Duration::ZERO {
                entry.vouch(tier, since.now + left);
            }
        }
        Ok(entry)
    }
}
