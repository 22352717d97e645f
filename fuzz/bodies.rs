//! What each fuzz target holds, for any bytes. Also run over the committed corpora by `cargo test` (`tests/corpus.rs`).
#![allow(dead_code)] // Each target includes this file and uses one of them.

use std::time::Duration;

use evenkeel::cache::entry::{Data, Entry, GroupStamp};
use evenkeel::cache::freshness::TtlSettings;
use evenkeel::cache::key::Question;
use evenkeel::cache::snapshot::read::{Check, Records};
use evenkeel::cache::snapshot::write::{Times, Writer};
use evenkeel::cache::snapshot::{EntryRecord, Head, Record, Since, Vetted};
use evenkeel::clock::{Moment, WallTime};
use evenkeel::resolve::vet::{self, Terms, Verdict};
use evenkeel::wire::patch::{self, Ageing, Shape};
use evenkeel::wire::reply::{self, Malformed};
use evenkeel::wire::{build, query};
use hickory_proto::op::Message;

/// The door for queries: total; what passes it can be answered, and its answer is whole.
pub fn query(bytes: &[u8]) {
    let mut out = [0; 1232];
    match query::check(bytes) {
        Ok(q) => {
            let ours = query::check(q.packet()).expect("a view of the same bytes");
            assert_eq!((ours.id(), ours.qtype(), ours.class()), (q.id(), q.qtype(), q.class()));
            let n = build::Builder::new(q, 0, None, &[], &mut out).finish();
            let answer = reply::check(&out[..n]).expect("our own answers are whole");
            assert_eq!(answer.question_end(), q.question_end());
            if let Ok(message) = Message::from_vec(bytes) {
                assert_eq!(message.queries.len(), 1);
                assert_eq!(message.metadata.id, q.id());
                assert_eq!(u16::from(message.queries[0].query_type()), q.qtype());
            }
        }
        Err(query::Refusal::HeaderOnly(rcode)) => {
            assert_eq!(build::header_only(bytes, rcode, &mut out), 12);
        }
        Err(query::Refusal::BadVersion(end)) => {
            let n = build::bad_version(bytes, end, &mut out);
            reply::check(&out[..n]).expect("our own answers are whole");
        }
        Err(query::Refusal::Silence) => {}
    }
}

/// The door for replies: total; agrees with hickory-proto on what both take; what is stored can be answered from.
pub fn reply(bytes: &[u8]) {
    let hickory = (bytes.len() >= 12 && bytes[4..6] == [0, 1]).then(|| Message::from_vec(bytes).ok()).flatten();
    let ours = reply::check(bytes);
    if let Some(message) = &hickory {
        let records = message.answers.len() + message.authorities.len() + message.additionals.len();
        match &ours {
            Ok(reply) => {
                assert_eq!(reply.records().len(), records);
                let ttls = [&message.answers, &message.authorities, &message.additionals];
                let theirs: Vec<u32> = ttls.iter().flat_map(|s| s.iter().map(|r| r.ttl)).collect();
                let ours: Vec<u32> = reply.records().iter().map(|r| reply.ttl(r)).collect();
                assert_eq!(ours, theirs);
            }
            // Where we are the stricter one: hickory reads over these.
            Err(Malformed::Noise | Malformed::Data | Malformed::Opt | Malformed::Owner | Malformed::Question) => {}
            Err(other) => panic!("hickory takes what we refuse as {other:?}"),
        }
    }
    let Ok(checked) = &ours else { return };
    let end = checked.question_end();
    let name = bytes[12..end - 4].to_ascii_lowercase();
    let qtype = u16::from_be_bytes([bytes[end - 4], bytes[end - 3]]);
    let question = Question { name: &name, qtype, dnssec_ok: false, cd: false };
    let terms =
        Terms { over_tcp: true, with_edns: false, trust_ad: true, ttl: TtlSettings::default(), wall: WallTime(0) };
    if let Verdict::Answer { packed, .. } = vet::vet(bytes, &question, terms, Moment::ZERO) {
        let asked = build::question(&name, qtype, true, false, true);
        let asked = query::check(&asked).expect("our own question");
        let entry = Entry::with_data(&question, Data::new(packed, 0, GroupStamp(1), Moment::ZERO));
        assert!(entry.is_for(&question));
        let stored = entry.data().expect("an answer").stored();
        for (limit, ageing) in
            [(512, Ageing::Fresh { age: 3 }), (1232, Ageing::Stale { ttl: 30 }), (65_535, Ageing::Fresh { age: 0 })]
        {
            let mut out = vec![0; limit];
            let shape = Shape { limit, ad: true, ede: None, turn: 5 };
            let n = patch::answer(&asked, &stored, ageing, shape, &mut out);
            reply::check(&out[..n]).expect("an answer from the cache is whole");
        }
    }
}

/// Snapshots: total, as a whole file and as records behind a head that was taken. Chunks of any size read alike; what
/// passes vet is in an entry that can be answered from, and is written and read again as it is.
pub fn snapshot(bytes: &[u8]) {
    const MACHINE: [u8; 16] = [7; 16];
    let mut check = Check::new(bytes.len() as u64, MACHINE);
    let whole = check.feed(bytes).is_ok() && check.finish().is_ok();
    let records = if whole { bytes } else { &[bytes, &[0; 32]].concat() };
    let head = Head { version: 1, length: if whole { 40 } else { 0 }, machine: MACHINE, written_at: 0 };
    let in_chunks = |size: usize| {
        let mut seen = Vec::new();
        let mut reading = Records::new(&head, records.len() as u64);
        for chunk in records.chunks(size) {
            reading.feed(chunk, |record| seen.push(format!("{record:?}")));
        }
        seen
    };
    let at_once = in_chunks(records.len());
    assert_eq!(in_chunks(37), at_once);

    let now = Moment::from_secs(90 * 86_400);
    let terms =
        Terms { over_tcp: true, with_edns: false, trust_ad: true, ttl: TtlSettings::default(), wall: WallTime(0) };
    let times = Times { now, wall_ms: 0, due_before: Moment::ZERO, max_age: Duration::from_secs(86_400) };
    let restore = |record: &EntryRecord<'_>| {
        let mut buffer = [0; 255];
        let question = record.question(&mut buffer)?;
        let Verdict::Answer { packed, storable: true } = vet::vet(record.wire, &question, terms, now) else {
            return None;
        };
        let vetted = Vetted { packed, group: record.group, max_age: times.max_age };
        record.restored(&question, vetted, Since::new(0, 0, now)).ok()
    };
    let mut reading = Records::new(&head, records.len() as u64);
    reading.feed(records, |record| {
        let Record::Entry(record) = record else { return };
        let Some(entry) = restore(&record) else { return };
        let data = entry.data().expect("it holds an answer");
        let asked = build::question(entry.name(), entry.qtype(), record.bits & 1 != 0, false, true);
        let asked = query::check(&asked).expect("our own question");
        let mut out = [0; 1232];
        let shape = Shape { limit: 1232, ad: true, ede: None, turn: 1 };
        let n = patch::answer(&asked, &data.stored(), Ageing::Stale { ttl: 30 }, shape, &mut out);
        reply::check(&out[..n]).expect("an answer from the cache is whole");

        let mut writer = Writer::new(MACHINE, times);
        if !writer.entry(&entry) {
            return;
        }
        let file = writer.finish();
        let mut check = Check::new(file.len() as u64, MACHINE);
        check.feed(&file).expect("our own file");
        let head = check.finish().expect("our own file");
        let mut again = None;
        Records::new(&head, file.len() as u64).feed(&file, |record| {
            if let Record::Entry(record) = record {
                again = restore(&record);
            }
        });
        let again = again.expect("what was restored is restored again");
        let again = (again.name(), again.qtype(), again.bits(), again.data().map(|d| (d.stored, d.ttl, d.tier)));
        assert_eq!(again, (entry.name(), entry.qtype(), entry.bits(), Some((data.stored, data.ttl, data.tier))));
    });
}

/// Configuration: total; what is refused has its place.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match evenkeel::config::parse(text, &|_| None, &[]) {
        Ok((config, _)) => assert!(!config.groups.is_empty()),
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            mistakes.iter().for_each(|m| assert!(!m.shown("fuzz").to_string().is_empty()));
        }
    }
}
