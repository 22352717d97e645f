//! From entries to the bytes of a snapshot.
//!
//! Pure. Bytes come out as they are taken ([`Writer::take`]), so that a writer of files holds one chunk of them.

use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::{
    END_MAGIC, GroupRecord, HEAD_BYTES, HEAD_MAGIC, KIND_ENTRY, KIND_GROUP, KIND_GUARD, NO_TIER, READABLE_FROM,
    RECORD_BYTES_MAX, RECORD_HEAD_BYTES, VERSION,
};
use crate::cache::entry::{Data, Entry};
use crate::cache::freshness::Standing;
use crate::cache::guard::table::Known;
use crate::clock::Moment;
use crate::wire::flag;

/// By what time ages are written.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// This moment.
    pub now: Moment,
    /// The same by the wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// What was stored before this counts as expired.
    pub due_before: Moment,
    /// What is further past its TTL is left out.
    pub max_age: Duration,
}

/// Makes a snapshot.
pub struct Writer {
    times: Times,
    hasher: SipHasher13,
    /// What was not taken yet.
    bytes: Vec<u8>,
    written: u64,
    records: u64,
}

impl Writer {
    /// Begins the snapshot of a machine.
    pub fn new(machine: [u8; 16], times: Times) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend(HEAD_MAGIC);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(READABLE_FROM.to_be_bytes());
        bytes.extend((HEAD_BYTES as u32).to_be_bytes());
        bytes.extend(machine);
        bytes.extend(times.wall_ms.to_be_bytes());
        Self { times, hasher: SipHasher13::new(), bytes, written: 0, records: 0 }
    }

    /// Adds a group. Before the entries that it gave.
    pub fn group(&mut self, group: &GroupRecord) {
        let mut payload = group.stamp.0.to_be_bytes().to_vec();
        put_text(&mut payload, &group.name);
        payload.extend((group.servers.len() as u16).to_be_bytes());
        group.servers.iter().for_each(|server| put_text(&mut payload, server));
        self.other(KIND_GROUP, &payload);
    }

    /// Adds an entry, where it holds an answer that can still be served. Says whether it does.
    pub fn entry(&mut self, entry: &Entry) -> bool {
        let Times { now, due_before, max_age, .. } = self.times;
        let served = entry.data().filter(|d| d.standing(max_age, due_before, now) != Standing::Gone);
        let Some(data) = served else { return false };
        let begun = self.begin(KIND_ENTRY);
        self.put_answer(entry, data);
        self.end(begun);
        true
    }

    /// Adds the last good answer of a guarded name, and the hold on it, however old it is.
    pub fn guarded(&mut self, known: &Known) {
        let Some(data) = known.entry.data() else { return };
        let now = self.times.now;
        let begun = self.begin(KIND_GUARD);
        let millis = |span: Duration| (span.as_millis() as u64).to_be_bytes();
        self.bytes.extend(millis(now.since(known.first_good)));
        self.bytes.extend(millis(now.since(known.last_good)));
        self.bytes.push(u8::from(known.hold.is_some()));
        let (held, left) = known.hold.map_or_else(Default::default, |h| (now.since(h.since), now.until(h.until)));
        self.bytes.extend(millis(held));
        self.bytes.extend(millis(left));
        self.put_answer(&known.entry, data);
        self.end(begun);
    }

    fn put_answer(&mut self, entry: &Entry, data: &Data) {
        let Times { now, due_before, .. } = self.times;
        let stored = data.stored();
        let age = age(data, due_before, now).as_millis() as u64;
        let (vouching, vouched) = match entry.vouched().filter(|(_, until)| now < *until) {
            Some((tier, until)) => (tier, now.until(until).as_millis() as u64),
            None => (NO_TIER, 0),
        };
        let out = &mut self.bytes;
        out.extend(data.group.0.to_be_bytes());
        out.extend([data.tier, entry.bits(), vouching]);
        out.extend(age.to_be_bytes());
        out.extend(vouched.to_be_bytes());
        out.extend((stored.kept_edes.len() as u16).to_be_bytes());
        out.extend((stored.wire.len() as u16).to_be_bytes());
        out.extend_from_slice(stored.kept_edes);
        let wire_at = out.len();
        out.extend_from_slice(stored.wire);
        // As a server would have sent it.
        out[wire_at + 2] |= (flag::QR >> 8) as u8;
    }

    /// Adds a record that is not of the cache. One of more than [`RECORD_BYTES_MAX`] would not be read.
    pub fn other(&mut self, kind: u8, payload: &[u8]) {
        debug_assert!(payload.len() <= RECORD_BYTES_MAX, "a record of {} bytes", payload.len());
        let begun = self.begin(kind);
        self.bytes.extend_from_slice(payload);
        self.end(begun);
    }

    /// Bytes that wait to be taken.
    pub fn waiting(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes so far, those that wait among them.
    pub fn bytes(&self) -> u64 {
        self.written + self.bytes.len() as u64
    }

    /// Moves what waits to the end of `out`.
    pub fn take(&mut self, out: &mut Vec<u8>) {
        self.hasher.write(&self.bytes);
        self.written += self.bytes.len() as u64;
        out.append(&mut self.bytes);
    }

    /// The rest of it.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend(END_MAGIC);
        self.bytes.extend(self.records.to_be_bytes());
        let mut out = Vec::new();
        self.take(&mut out);
        out.extend(self.hasher.finish128().as_u128().to_be_bytes());
        out
    }

    fn begin(&mut self, kind: u8) -> usize {
        self.records += 1;
        let at = self.bytes.len();
        self.bytes.extend([kind, 0, 0, 0, 0]);
        at
    }

    fn end(&mut self, at: usize) {
        let length = (self.bytes.len() - at - RECORD_HEAD_BYTES) as u32;
        self.bytes[at + 1..at + RECORD_HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    }
}

/// The age of an answer. One that counts as expired since the clock jumped is as old as that makes it.
fn age(data: &Data, due_before: Moment, now: Moment) -> Duration {
    let age = now.since(data.stored);
    if data.stored < due_before { age.max(Duration::from_secs(data.ttl.into()) + now.since(due_before)) } else { age }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}
