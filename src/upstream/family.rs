//! One address family that does not work at all.
//!
//! Pure. Where IPv6 leads nowhere, each of its servers would have to be found silent by itself, tier after tier. So a
//! family is **broken** while two of its servers are unfit, or there is no route to one; every other one of it has left
//! a question overdue, or has never spoken; since the first of them was found unfit nothing has come from any; and a
//! server of the other family is fit. No server of a broken family gets first questions. Any packet from any of them
//! ends it. A server that was not asked since says nothing: two servers that fail together are no broken family.

use std::net::SocketAddr;

use crate::clock::Moment;

/// A server as far as this judge looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Where it listens.
    pub address: SocketAddr,
    /// Is it unfit or without a route, and since when?
    pub unfit_since: Option<Moment>,
    /// Was there no route to it the last time?
    pub unreachable: bool,
    /// Is a question to it overdue since its last packet, or has it never spoken?
    pub in_doubt: bool,
    /// The last packet from it.
    pub heard_at: Option<Moment>,
}

/// Is the family that `v6` names broken?
pub fn is_broken(servers: &[Seen], v6: bool) -> bool {
    let of = |family: bool| servers.iter().filter(move |s| s.address.is_ipv6() == family);
    let unfit = || of(v6).filter_map(|s| Some((s, s.unfit_since?)));
    let Some(first) = unfit().map(|(_, since)| since).min() else { return false };
    let convicted = unfit().count() >= 2 || unfit().any(|(s, _)| s.unreachable);
    let nothing_came = of(v6).all(|s| s.heard_at.is_none_or(|at| at < first));
    let nobody_works = of(v6).all(|s| s.unfit_since.is_some() || s.in_doubt);
    convicted && nothing_came && nobody_works && of(!v6).any(|s| s.unfit_since.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    // complaint 27: clients stick to broken IPv6 servers.
    #[test]
    fn a_family_is_broken_by_two_unfit_servers_or_one_without_a_route() {
        let at = Moment::from_secs;
        let server = |v6: bool, unfit: Option<u64>, unreachable: bool, heard: Option<u64>| Seen {
            address: if v6 { "[2001:db8::1]:53" } else { "192.0.2.1:53" }.parse().unwrap(),
            unfit_since: unfit.map(at),
            unreachable,
            in_doubt: true,
            heard_at: heard.map(at),
        };
        let not_asked = |s: Seen| Seen { in_doubt: false, ..s };
        let four = server(false, None, false, Some(9));
        for (what, servers, want) in [
            (
                "two unfit",
                vec![server(true, Some(5), false, Some(4)), server(true, Some(6), false, None), four],
                true,
            ),
            ("one unfit", vec![server(true, Some(5), false, Some(4)), server(true, None, false, None), four], false),
            (
                "two unfit, and one that was not asked since",
                vec![
                    server(true, Some(5), false, Some(4)),
                    server(true, Some(5), false, Some(4)),
                    not_asked(server(true, None, false, Some(4))),
                    four,
                ],
                false,
            ),
            (
                "no route to one, and the other was not asked since",
                vec![server(true, Some(5), true, None), not_asked(server(true, None, false, Some(4))), four],
                false,
            ),
            ("no route", vec![server(true, Some(5), true, None), server(true, None, false, None), four], true),
            (
                "a third one spoke since",
                vec![
                    server(true, Some(5), true, None),
                    server(true, Some(6), false, None),
                    server(true, None, false, Some(6)),
                    four,
                ],
                false,
            ),
            (
                "the other family is no better",
                vec![server(true, Some(5), true, None), server(false, Some(5), false, None)],
                false,
            ),
            (
                "there is no other family",
                vec![server(true, Some(5), false, None), server(true, Some(5), false, None)],
                false,
            ),
        ] {
            assert_eq!(is_broken(&servers, true), want, "{what}");
            assert!(!is_broken(&servers, false), "{what}");
        }
    }
}
