//! From the bytes of a snapshot to its records, in two passes.
//!
//! Pure. Both take the file in chunks of any size. [`Check`] looks at all of it and says whether it may be used;
//! [`Records`] then gives its records one by one. Neither takes anything for granted that the other has found.

use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::{
    END_BYTES, END_MAGIC, EntryRecord, GroupRecord, GuardRecord, HASH_BYTES, HEAD_BYTES, HEAD_BYTES_MAX, HEAD_MAGIC,
    Head, KIND_ENTRY, KIND_GROUP, KIND_GUARD, NO_TIER, RECORD_BYTES_MAX, RECORD_HEAD_BYTES, Record, Refusal, VERSION,
};
use crate::cache::entry::GroupStamp;

/// The first pass: is it whole, and ours?
pub struct Check {
    machine: [u8; 16],
    length: u64,
    hasher: SipHasher13,
    seen: u64,
    head: Vec<u8>,
    end: Vec<u8>,
}

impl Check {
    /// Of a file of so many bytes, on a machine.
    pub fn new(length: u64, machine: [u8; 16]) -> Self {
        Self { machine, length, hasher: SipHasher13::new(), seen: 0, head: Vec::new(), end: Vec::new() }
    }

    /// Takes the next bytes. What is refused by its head is refused as soon as that is there.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        if self.head.len() < HEAD_BYTES {
            let missing = (HEAD_BYTES - self.head.len()).min(chunk.len());
            self.head.extend_from_slice(&chunk[..missing]);
            if self.head.len() == HEAD_BYTES {
                head(&self.head, self.machine)?;
            }
        }
        // The last bytes are the hash of those before them.
        let hashed = self.length.saturating_sub(HASH_BYTES as u64 + self.seen).min(chunk.len() as u64);
        self.hasher.write(&chunk[..hashed as usize]);
        self.seen += chunk.len() as u64;
        let tail = &chunk[chunk.len().saturating_sub(END_BYTES)..];
        self.end.extend_from_slice(tail);
        self.end.drain(..self.end.len().saturating_sub(END_BYTES));
        Ok(())
    }

    /// The verdict, once all was fed.
    pub fn finish(self) -> Result<Head, Refusal> {
        if self.head.len() < HEAD_BYTES {
            let begins = HEAD_MAGIC.starts_with(&self.head[..self.head.len().min(HEAD_MAGIC.len())]);
            return Err(if begins { Refusal::Torn } else { Refusal::Foreign });
        }
        let head = head(&self.head, self.machine)?;
        let whole = self.seen == self.length
            && self.length >= u64::from(head.length) + END_BYTES as u64
            && self.end.starts_with(&END_MAGIC)
            && self.end.ends_with(&self.hasher.finish128().as_u128().to_be_bytes());
        if whole { Ok(head) } else { Err(Refusal::Torn) }
    }
}

fn head(bytes: &[u8], machine: [u8; 16]) -> Result<Head, Refusal> {
    let mut fields = Fields(bytes);
    let read = |fields: &mut Fields<'_>| {
        Some((fields.array()?, fields.u16()?, fields.u16()?, fields.u32()?, fields.array()?, fields.u64()?))
    };
    let Some((magic, version, readable_from, length, of, written_at)) = read(&mut fields) else {
        return Err(Refusal::Torn);
    };
    match () {
        () if magic != HEAD_MAGIC => Err(Refusal::Foreign),
        () if readable_from > VERSION => Err(Refusal::Newer(version)),
        () if !(HEAD_BYTES as u32..=HEAD_BYTES_MAX).contains(&length) => Err(Refusal::Torn),
        () if of != machine => Err(Refusal::OtherMachine),
        () => Ok(Head { version, length, machine, written_at }),
    }
}

/// The second pass: its records.
pub struct Records {
    /// Bytes that are passed over.
    skip: u64,
    /// Bytes before the end.
    left: u64,
    pending: Vec<u8>,
}

impl Records {
    /// Of a file of `length` bytes that [`Check`] has taken.
    pub fn new(head: &Head, length: u64) -> Self {
        Self { skip: head.length.into(), left: length.saturating_sub(END_BYTES as u64), pending: Vec::new() }
    }

    /// Takes the next bytes and gives the records that they end.
    pub fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(Record<'_>)) {
        let chunk = &chunk[..self.left.min(chunk.len() as u64) as usize];
        self.left -= chunk.len() as u64;
        let passed = self.skip.min(chunk.len() as u64) as usize;
        self.skip -= passed as u64;
        self.pending.extend_from_slice(&chunk[passed..]);
        let mut at = 0;
        while let Some(&[kind, a, b, c, d]) = self.pending[at..].first_chunk::<RECORD_HEAD_BYTES>() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let begin = at + RECORD_HEAD_BYTES;
            let there = self.pending.len() - begin;
            if length > RECORD_BYTES_MAX {
                if matches!(kind, KIND_GROUP | KIND_ENTRY | KIND_GUARD) {
                    each(Record::Malformed);
                }
                at = begin + length.min(there);
                self.skip = (length - length.min(there)) as u64;
            } else if let Some(payload) = self.pending.get(begin..begin + length) {
                each(record(kind, payload));
                at = begin + length;
            } else {
                break;
            }
        }
        self.pending.drain(..at);
        if self.left == 0 && !self.pending.is_empty() {
            each(Record::Malformed);
            self.pending.clear();
        }
    }
}

fn record(kind: u8, payload: &[u8]) -> Record<'_> {
    let fields = Fields(payload);
    match kind {
        KIND_GROUP => group(fields).map_or(Record::Malformed, Record::Group),
        KIND_ENTRY => entry(fields).map_or(Record::Malformed, Record::Entry),
        KIND_GUARD => guarded(fields).map_or(Record::Malformed, Record::Guarded),
        kind => Record::Other(kind, payload),
    }
}

fn group(mut fields: Fields<'_>) -> Option<GroupRecord> {
    let stamp = GroupStamp(fields.u32()?);
    let name = fields.text()?;
    let count = fields.u16()?;
    let servers = (0..count).map(|_| fields.text()).collect::<Option<_>>()?;
    Some(GroupRecord { stamp, name, servers })
}

fn entry<'r>(mut fields: Fields<'r>) -> Option<EntryRecord<'r>> {
    let group = GroupStamp(fields.u32()?);
    let [tier, bits, vouching] = fields.array()?;
    let age = Duration::from_millis(fields.u64()?);
    let vouched = Duration::from_millis(fields.u64()?);
    let (kept_edes, wire) = (fields.u16()?, fields.u16()?);
    let kept_edes = fields.bytes(kept_edes.into())?;
    let wire = fields.bytes(wire.into())?;
    let vouched = (vouching != NO_TIER).then_some((vouching, vouched));
    Some(EntryRecord { group, tier, bits, vouched, age, kept_edes, wire })
}

fn guarded<'r>(mut fields: Fields<'r>) -> Option<GuardRecord<'r>> {
    let mut span = || Some(Duration::from_millis(fields.u64()?));
    let (good_for, last_good) = (span()?, span()?);
    let [is_held] = fields.array()?;
    let mut span = || Some(Duration::from_millis(fields.u64()?));
    let hold = (span()?, span()?);
    Some(GuardRecord { good_for, last_good, hold: (is_held == 1).then_some(hold), entry: entry(fields)? })
}

/// What is left of a payload.
struct Fields<'r>(&'r [u8]);

impl<'r> Fields<'r> {
    fn bytes(&mut self, count: usize) -> Option<&'r [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u16()?;
        String::from_utf8(self.bytes(length.into())?.to_vec()).ok()
    }
}
