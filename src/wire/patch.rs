//! Turns a stored reply into the answer to one query, without allocation.
//!
//! Pure; the hit path. A stored reply is a whole message without OPT ([`Stored`]). [`answer`] copies it, and
//!
//! - takes id, RD, CD and the spelling of the question from the query; clears AA, sets RA; AD only where the caller
//!   allows it,
//! - ages the TTLs, or sets them flat for a stale answer,
//! - turns the addresses of one RRset by `turn` places,
//! - appends our own OPT where the client sent one,
//! - where it does not fit: leaves the additional section out without TC (RFC 2181 §9), then sets TC and gives the
//!   whole records that fit.
//!
//! A ready image of the whole reply could save what this costs above a bare copy: 37 ns beside 8 for one record, 62
//! beside 14 for thirteen (`cargo bench --bench core -- answer`), of some 4,700 that an answer costs; and each would
//! have to be made anew every second, as its TTLs age. So there is none.

use super::edns::{self, Ede};
use super::query::Query;
use super::{flag, u16_at};
use crate::limits::HEADER_BYTES;

/// A stored reply as the cache keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'e> {
    /// The message without OPT; its question has the length of the query's.
    pub wire: &'e [u8],
    /// Offset of the TTL of each record, in order, as bytes of the machine's order.
    pub ttl_at: &'e [[u8; 2]],
    /// The run of addresses that may be turned.
    pub rotation: Option<Rotation>,
    /// The server's extended errors, encoded.
    pub kept_edes: &'e [u8],
}

impl Stored<'_> {
    fn ttl_at(&self, index: usize) -> usize {
        u16::from_ne_bytes(self.ttl_at[index]).into()
    }
}

/// A run of records, one RRset of A or AAAA, whose data may change places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Index of the first record in [`field@Stored::ttl_at`].
    pub first: u16,
    /// Number of records, at least 2.
    pub count: u16,
    /// Bytes of data of each: 4 or 16.
    pub bytes: u8,
}

/// What the TTLs of an answer become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ageing {
    /// Each is less by this many seconds, and 0 at least.
    Fresh {
        /// Whole seconds since the reply was stored.
        age: u32,
    },
    /// Each is max(1, min(this, the TTL it had)) (RFC 8767 §5.2).
    Stale {
        /// `reply_ttl`, in seconds.
        ttl: u32,
    },
}

/// How one answer goes out.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Most bytes of it.
    pub limit: usize,
    /// May AD stand in it, where the stored reply has it and the client understands it?
    pub ad: bool,
    /// Our own extended error, where the client sent EDNS.
    pub ede: Option<Ede>,
    /// Places by which the addresses are turned; 0 leaves them.
    pub turn: u32,
}

/// Writes the answer to `query` into `out` and returns its length.
///
/// # Panics
///
/// Where `out` is shorter than `shape.limit`, or `shape.limit` is below 512.
pub fn answer(query: &Query<'_>, stored: &Stored<'_>, ageing: Ageing, shape: Shape, out: &mut [u8]) -> usize {
    let out = &mut out[..shape.limit];
    let (ede, kept) = match query.edns {
        None => (None, &[][..]),
        // Extended errors are never worth a truncated answer: ours goes first, theirs only where there is room.
        Some(_) if stored.wire.len() + edns::written_len(shape.ede, stored.kept_edes) <= shape.limit => {
            (shape.ede, stored.kept_edes)
        }
        Some(_) => (shape.ede, &[][..]),
    };
    let opt_len = query.edns.map_or(0, |_| edns::written_len(ede, kept));
    let cut = Cut::fit(stored, shape.limit - opt_len);
    let question_end = query.question_end();

    out[..HEADER_BYTES].copy_from_slice(&stored.wire[..HEADER_BYTES]);
    out[HEADER_BYTES..question_end].copy_from_slice(&query.packet()[HEADER_BYTES..question_end]);
    out[question_end..cut.end].copy_from_slice(&stored.wire[question_end..cut.end]);
    write_header(query, stored, shape, &cut, out);
    write_ttls(&stored.ttl_at[..cut.records], ageing, out);
    if let Some(rotation) = stored.rotation
        && shape.turn != 0
    {
        turn(stored, rotation, shape.turn, cut.records, out);
    }
    if let Some(client) = query.edns {
        edns::write(&mut out[cut.end..], client.dnssec_ok, 0, ede, kept);
        let additionals = u16::from_be_bytes([out[10], out[11]]) + 1;
        out[10..12].copy_from_slice(&additionals.to_be_bytes());
    }
    cut.end + opt_len
}

/// How much of a stored reply goes out.
struct Cut {
    end: usize,
    records: usize,
    counts: [u16; 3],
    truncated: bool,
}

impl Cut {
    fn fit(stored: &Stored<'_>, room: usize) -> Self {
        let count = |at: usize| u16::from_be_bytes([stored.wire[at], stored.wire[at + 1]]);
        let counts = [count(6), count(8), count(10)];
        if stored.wire.len() <= room {
            return Self { end: stored.wire.len(), records: stored.ttl_at.len(), counts, truncated: false };
        }
        let needed = usize::from(counts[0]) + usize::from(counts[1]);
        let end_of = |records: usize| match records {
            0 => first_record_at(stored),
            n => record_end(stored, n - 1),
        };
        // The records ascend, so the greatest number that fits is found by halving.
        let (mut fits, mut over) = (0, needed + 1);
        while over - fits > 1 {
            let middle = fits + (over - fits) / 2;
            if end_of(middle) <= room { fits = middle } else { over = middle }
        }
        let answers = fits.min(usize::from(counts[0]));
        Self {
            end: end_of(fits),
            records: fits,
            counts: [answers as u16, (fits - answers) as u16, 0],
            truncated: fits < needed,
        }
    }
}

fn record_end(stored: &Stored<'_>, index: usize) -> usize {
    let length_at = stored.ttl_at(index) + 4;
    length_at + 2 + usize::from(u16_at(stored.wire, length_at).unwrap_or(0))
}

fn first_record_at(stored: &Stored<'_>) -> usize {
    super::name::plain_end(stored.wire, HEADER_BYTES).map_or(stored.wire.len(), |end| end + 4)
}

fn write_header(query: &Query<'_>, stored: &Stored<'_>, shape: Shape, cut: &Cut, out: &mut [u8]) {
    let kept = u16::from_be_bytes([stored.wire[2], stored.wire[3]]) & (flag::AD | 15);
    let mut flags = kept | flag::QR | flag::RA | query.flags() & (flag::RD | flag::CD);
    if !(shape.ad && query.wants_ad()) {
        flags &= !flag::AD;
    }
    if cut.truncated {
        flags |= flag::TC;
    }
    out[..2].copy_from_slice(&query.id().to_be_bytes());
    out[2..4].copy_from_slice(&flags.to_be_bytes());
    for (at, count) in [6, 8, 10].into_iter().zip(cut.counts) {
        out[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
}

fn write_ttls(ttl_at: &[[u8; 2]], ageing: Ageing, out: &mut [u8]) {
    if ageing == (Ageing::Fresh { age: 0 }) {
        return;
    }
    for at in ttl_at {
        let at = usize::from(u16::from_ne_bytes(*at));
        let field = &mut out[at..at + 4];
        let had = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        let ttl = match ageing {
            Ageing::Fresh { age } => had.saturating_sub(age),
            Ageing::Stale { ttl } => had.min(ttl).max(1),
        };
        field.copy_from_slice(&ttl.to_be_bytes());
    }
}

fn turn(stored: &Stored<'_>, rotation: Rotation, turn: u32, records: usize, out: &mut [u8]) {
    let (first, count, bytes) =
        (usize::from(rotation.first), usize::from(rotation.count), usize::from(rotation.bytes));
    let data_at = |n: usize| stored.ttl_at(first + n) + 6;
    let shift = turn as usize % count;
    for n in 0..count.min(records.saturating_sub(first)) {
        let from = data_at((n + shift) % count);
        let to = data_at(n);
        out[to..to + bytes].copy_from_slice(&stored.wire[from..from + bytes]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{query, reply};
    use proptest::prelude::*;

    #[test]
    fn id_flags_and_spelling_are_the_clients_and_the_rest_is_the_servers() {
        let (wire, ttl_at) = stored(2, 0);
        let q = packet(b"ExAmPlE", true, 0x10);
        let query = query::check(&q).unwrap();
        let mut out = [0; 1232];
        let n = answer(&query, &view(&wire, &ttl_at, None), Ageing::Fresh { age: 0 }, shape(1232), &mut out);
        assert_eq!(out[..2], [0xab, 0xcd]);
        assert_eq!(u16::from_be_bytes([out[2], out[3]]), flag::QR | flag::RA | flag::RD | flag::CD);
        assert_eq!(&out[12..21], b"\x07ExAmPlE\x00");
        assert_eq!(&out[25..wire.len()], &wire[25..]);
        assert_eq!(n, wire.len() + 11);
        assert!(reply::check(&out[..n]).is_ok());
    }

    #[test]
    fn ttls_age_by_seconds_and_stale_ones_are_flat_between_one_and_the_ttl_they_had() {
        for (ageing, had, want) in [
            (Ageing::Fresh { age: 0 }, 60, 60),
            (Ageing::Fresh { age: 59 }, 60, 1),
            (Ageing::Fresh { age: 61 }, 60, 0),
            (Ageing::Stale { ttl: 30 }, 60, 30),
            (Ageing::Stale { ttl: 30 }, 5, 5),
            (Ageing::Stale { ttl: 30 }, 0, 1),
        ] {
            let (mut wire, ttl_at) = stored(1, 0);
            let at = usize::from(u16::from_ne_bytes(ttl_at[0]));
            wire[at..at + 4].copy_from_slice(&u32::to_be_bytes(had));
            let q = packet(b"example", false, 0);
            let mut out = [0; 512];
            answer(&query::check(&q).unwrap(), &view(&wire, &ttl_at, None), ageing, shape(512), &mut out);
            assert_eq!(out[at..at + 4], u32::to_be_bytes(want), "{ageing:?} {had}");
        }
    }

    #[test]
    fn additional_records_go_first_without_tc_then_tc_with_whole_records() {
        // A record takes 16 bytes, header and question 25.
        for (answers, additionals, limit, left, tc) in [
            (10, 10, 25 + 20 * 16, [10, 10], false),
            (10, 30, 25 + 40 * 16 - 1, [10, 0], false),
            (40, 0, 25 + 40 * 16, [40, 0], false),
            (40, 0, 25 + 40 * 16 - 1, [39, 0], true),
            (40, 9, 25 + 30 * 16 + 15, [30, 0], true),
        ] {
            let limit = std::cmp::max(limit, 512);
            let (wire, ttl_at) = stored(answers, additionals);
            let q = packet(b"example", false, 0);
            let mut out = [0; 4096];
            let n = answer(
                &query::check(&q).unwrap(),
                &view(&wire, &ttl_at, None),
                Ageing::Fresh { age: 7 },
                shape(limit),
                &mut out,
            );
            let label = format!("{answers} {additionals} {limit}");
            assert!(n <= limit, "{label}");
            assert_eq!([out[7], out[11]], left, "{label}");
            assert_eq!(out[2] & 2 != 0, tc, "{label}");
            assert_eq!(reply::check(&out[..n]).unwrap().records().len(), usize::from(left[0] + left[1]), "{label}");
        }
    }

    #[test]
    fn addresses_turn_by_one_place_a_time_and_none_is_lost() {
        let (wire, ttl_at) = stored(3, 0);
        let rotation = Some(Rotation { first: 0, count: 3, bytes: 4 });
        let q = packet(b"example", false, 0);
        for (turn, want) in [(0, [0, 1, 2]), (1, [1, 2, 0]), (2, [2, 0, 1]), (3, [0, 1, 2]), (u32::MAX, [0, 1, 2])] {
            let mut out = [0; 512];
            let shape = Shape { turn, ..shape(512) };
            answer(
                &query::check(&q).unwrap(),
                &view(&wire, &ttl_at, rotation),
                Ageing::Fresh { age: 0 },
                shape,
                &mut out,
            );
            assert_eq!(
                ttl_at.iter().map(|t| out[usize::from(u16::from_ne_bytes(*t)) + 9]).collect::<Vec<_>>(),
                want,
                "{turn}"
            );
        }
    }

    #[test]
    fn ad_goes_out_only_where_it_is_trusted_and_understood() {
        let (mut wire, ttl_at) = stored(1, 0);
        wire[3] |= 0x20;
        for (trusted, client, want) in [(true, 0x20, true), (true, 0, false), (false, 0x20, false)] {
            let q = packet(b"example", false, client);
            let mut out = [0; 512];
            let shape = Shape { ad: trusted, ..shape(512) };
            answer(
                &query::check(&q).unwrap(),
                &view(&wire, &ttl_at, None),
                Ageing::Fresh { age: 0 },
                shape,
                &mut out,
            );
            assert_eq!(out[3] & 0x20 != 0, want, "{trusted} {client}");
        }
    }

    #[test]
    fn the_servers_errors_are_left_out_before_a_record_is() {
        let (wire, ttl_at) = stored(29, 0);
        let kept = [0, 15, 0, 2, 0, 6];
        let mut view = view(&wire, &ttl_at, None);
        view.kept_edes = &kept;
        let q = packet(b"example", true, 0);
        for (limit, want) in [(wire.len() + 17, wire.len() + 17), (wire.len() + 16, wire.len() + 11)] {
            let mut out = [0; 1232];
            let n = answer(&query::check(&q).unwrap(), &view, Ageing::Fresh { age: 0 }, shape(limit), &mut out);
            assert_eq!((n, out[2] & 2), (want, 0), "{limit}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_whole_and_within_its_limit(answers in 0usize..200, additionals in 0usize..50, limit in 512usize..4096, edns: bool, turn: u32) {
            let (wire, ttl_at) = stored(answers, additionals);
            let rotation = (answers > 1).then_some(Rotation { first: 0, count: answers as u16, bytes: 4 });
            let q = packet(b"example", edns, 0);
            let mut out = vec![0; limit];
            let shape = Shape { turn, ..shape(limit) };
            let n = answer(&query::check(&q).unwrap(), &view(&wire, &ttl_at, rotation), Ageing::Stale { ttl: 30 }, shape, &mut out);
            prop_assert!(n <= limit);
            let reply = reply::check(&out[..n]).unwrap();
            prop_assert_eq!(reply.flags() & flag::TC != 0, reply.answers().len() < answers);
        }
    }

    fn shape(limit: usize) -> Shape {
        Shape { limit, ad: false, ede: None, turn: 0 }
    }

    fn view<'e>(wire: &'e [u8], ttl_at: &'e [[u8; 2]], rotation: Option<Rotation>) -> Stored<'e> {
        Stored { wire, ttl_at, rotation, kept_edes: &[] }
    }

    fn stored(answers: usize, additionals: usize) -> (Vec<u8>, Vec<[u8; 2]>) {
        let mut p = vec![0, 0, 0x84, 0, 0, 1, 0, answers as u8, 0, 0, 0, additionals as u8];
        p.extend(b"\x07example\x00\x00\x01\x00\x01");
        let mut ttl_at = Vec::new();
        for n in 0..answers + additionals {
            ttl_at.push((p.len() as u16 + 6).to_ne_bytes());
            p.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, n as u8]);
        }
        (p, ttl_at)
    }

    fn packet(name: &[u8], edns: bool, low_flags: u8) -> Vec<u8> {
        let mut p = vec![0xab, 0xcd, 1, low_flags, 0, 1, 0, 0, 0, 0, 0, edns.into(), name.len() as u8];
        p.extend(name);
        p.extend([0, 0, 1, 0, 1]);
        if edns {
            p.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        }
        p
    }
}
