//! What each fuzz target holds, for any bytes. Also run over the committed corpora by `cargo test` (`tests/corpus.rs`).
#![allow(dead_code)] // Each target includes this file and uses one of them.

use evenkeel::cache::freshness::TtlSettings;
use evenkeel::cache::key::Question;
use evenkeel::clock::{Moment, WallTime};
use evenkeel::resolve::vet::{self, Terms, Verdict};
use evenkeel::wire::patch::{self, Ageing, Shape, Stored};
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
        let stored = Stored {
            wire: &packed.wire,
            ttl_at: &packed.ttl_at,
            rotation: packed.rotation,
            kept_edes: &packed.kept_edes,
        };
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
