//! The reply to one query from what is stored, or the error that stands for it.
//!
//! Pure. The one place where an outcome becomes bytes, for the hit path and for the driver alike: fresh, stale with
//! its TTL and extended error, failed, refused by a limit of our own.

use std::time::Duration;

use super::Transport;
use crate::cache::entry::{Data, Kind};
use crate::cache::freshness::{StaleSettings, Standing};
use crate::clock::Moment;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::wire::build::Builder;
use crate::wire::edns::code;
use crate::wire::patch::{self, Ageing, Shape};
use crate::wire::query::Query;
use crate::wire::{Ede, rcode};

/// Most bytes of the reply to a query over a transport.
pub fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match transport {
        Transport::Udp => query.udp_limit(),
        Transport::Tcp => MESSAGE_BYTES_MAX,
    }
}

/// How a stored answer goes out.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Most bytes of it.
    pub limit: usize,
    /// Places by which its addresses are turned.
    pub turn: u32,
}

/// Writes the answer as it was stored, aged. Returns its length.
pub fn fresh(query: &Query<'_>, data: &Data, manner: Manner, now: Moment, out: &mut [u8]) -> usize {
    let age = now.since(data.stored).as_secs() as u32;
    let shape = Shape { limit: manner.limit, ad: true, ede: None, turn: manner.turn };
    patch::answer(query, &data.stored(), Ageing::Fresh { age }, shape, out)
}

/// Writes the answer although its TTL has run out, and says so. Returns its length and how far past its TTL it is.
///
/// `standing` is how it stands towards the group of the name. An answer that is within its TTL after all goes out as
/// fresh, past by zero. What a guard holds says that too.
pub fn stale(
    query: &Query<'_>,
    (data, held): (&Data, bool),
    standing: Standing,
    settings: &StaleSettings,
    manner: Manner,
    now: Moment,
    out: &mut [u8],
) -> (usize, Duration) {
    let past = match standing {
        Standing::Fresh { .. } => return (fresh(query, data, manner, now, out), Duration::ZERO),
        Standing::Stale { past } => past,
        Standing::Gone => now.since(data.stored + Duration::from_secs(data.ttl.into())),
    };
    let ede = match data.kind {
        Kind::NxDomain => STALE_NXDOMAIN,
        _ if held => HELD,
        _ => STALE,
    };
    // What the servers deny now is not vouched for by what they said before.
    let shape = Shape { limit: manner.limit, ad: !held, ede: Some(ede), turn: manner.turn };
    (patch::answer(query, &data.stored(), Ageing::Stale { ttl: settings.reply_ttl }, shape, out), past)
}

/// Writes an error with our extended error and those of the server. Returns its length.
pub fn error(query: Query<'_>, rcode: u16, ede: Option<Ede>, kept_edes: &[u8], out: &mut [u8]) -> usize {
    Builder::new(query, rcode, ede, kept_edes, out).finish()
}

/// Writes a reply without records and with TC: to be asked over TCP. Returns its length.
pub fn truncated(query: Query<'_>, out: &mut [u8]) -> usize {
    let mut builder = Builder::new(query, rcode::NOERROR, None, &[], out);
    builder.truncate();
    builder.finish()
}

const STALE: Ede = Ede { code: code::STALE, text: "stale" };
const HELD: Ede = Ede { code: code::STALE, text: "last known good: upstreams say it is gone" };
const STALE_NXDOMAIN: Ede = Ede { code: code::STALE_NXDOMAIN, text: "stale" };

/// The extended error of a code, with the text that evenkeel gives it.
pub fn ede(code: u16) -> Ede {
    let text = match code {
        code::OTHER => "own limit",
        code::STALE | code::STALE_NXDOMAIN => "stale",
        code::CACHED_ERROR => "failed of late",
        code::NOT_READY => "no upstream yet",
        code::PROHIBITED => "client not allowed",
        code::NOT_AUTHORITATIVE => "not in cache, recursion not desired",
        code::NO_REACHABLE_AUTHORITY => "all upstreams silent",
        code::NETWORK_ERROR => "upstreams unreachable",
        code::INVALID_DATA => "unusable reply",
        _ => "",
    };
    Ede { code, text }
}
