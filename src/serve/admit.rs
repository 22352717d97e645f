//! May this client ask, now?
//!
//! Pure. Two judgements, which do not know each other:
//!
//! - [`Admit::judge`]: is the address one that may ask? Loopback always is: the node's own tools and `/healthz` come
//!   from there. All others are looked up in the networks that `access.allow` names.
//! - [`Admit::rate`]: has this client asked more than `limits.queries_per_second` in the last second? A client is an
//!   address under `access.client_prefix` ([`client_of`]). It may save up one second's worth of questions.
//!
//! Per-client bounds bind neither loopback nor the node's own addresses (RULES "Budgets and bounds"): all programs
//! of a node are one client by their address, and a bound would make one noisy program speak for all of them.
//!
//! The table of rates is shared by all workers, in shards behind locks that are held for one look-up. It never holds
//! more than [`CLIENTS_TRACKED_MAX`] clients; who has been quiet longest is forgotten first, and starts again with a
//! full second's worth. It is evidence, not policy: [`Admit::renewed`] hands it on to the next configuration.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::clock::Moment;
use crate::limits::CLIENTS_TRACKED_MAX;

/// Who may ask, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmitSettings {
    /// Who may ask.
    pub allow: Vec<Allowed>,
    /// Bits of an IPv4 and of an IPv6 address that make one client.
    pub client_prefix: (u8, u8),
    /// Questions a second of one client; 0 is no limit.
    pub queries_per_second: u32,
    /// Questions of one client that wait at once.
    pub in_flight_per_client: u32,
}

/// One entry of `access.allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// This node's own networks: those of its interfaces.
    Local,
    /// RFC 1918, RFC 6598, RFC 4193 and link-local addresses.
    Private,
    /// One network.
    Net(IpNet),
}

/// What this node is in its networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnNetworks {
    /// The addresses of its interfaces.
    pub addresses: Vec<IpAddr>,
    /// The networks that hang on its interfaces, single addresses (pods) included.
    pub links: Vec<IpNet>,
}

/// May an address ask?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not: REFUSED, extended error 18.
    Prohibited,
}

/// Is a client within its rate?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// It is.
    Within,
    /// It has asked too much.
    Over,
}

/// One client: an address with the bits behind the prefix cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(IpAddr);

/// The judge.
#[derive(Debug)]
pub struct Admit {
    v4: Box<[Ipv4Net]>,
    v6: Box<[Ipv6Net]>,
    own: Box<[IpAddr]>,
    client_prefix: (u8, u8),
    queries_per_second: u32,
    rates: Arc<Rates>,
}

impl Admit {
    /// A judge with an empty table of rates.
    pub fn new(settings: &AdmitSettings, own: &OwnNetworks) -> Self {
        Self::with(settings, own, Arc::default())
    }

    /// A judge by other settings that goes on with this one's table of rates.
    pub fn renewed(&self, settings: &AdmitSettings, own: &OwnNetworks) -> Self {
        Self::with(settings, own, Arc::clone(&self.rates))
    }

    fn with(settings: &AdmitSettings, own: &OwnNetworks, rates: Arc<Rates>) -> Self {
        let mut nets = Vec::new();
        for entry in &settings.allow {
            match entry {
                Allowed::Loopback => {}
                Allowed::Local => {
                    nets.extend(own.links.iter().copied());
                    nets.extend(own.addresses.iter().copied().map(IpNet::from));
                }
                Allowed::Private => nets.extend(private()),
                Allowed::Net(net) => nets.push(*net),
            }
        }
        let nets = IpNet::aggregate(&nets);
        let v4 = nets.iter().filter_map(|n| if let IpNet::V4(n) = n { Some(*n) } else { None }).collect();
        let v6 = nets.iter().filter_map(|n| if let IpNet::V6(n) = n { Some(*n) } else { None }).collect();
        Self {
            v4,
            v6,
            own: own.addresses.clone().into(),
            client_prefix: settings.client_prefix,
            queries_per_second: settings.queries_per_second,
            rates,
        }
    }

    /// May this address ask? Neither allocates nor locks.
    pub fn judge(&self, client: IpAddr) -> Verdict {
        let allowed = client.is_loopback()
            || match client {
                IpAddr::V4(address) => self.v4.iter().any(|net| net.contains(&address)),
                IpAddr::V6(address) => self.v6.iter().any(|net| net.contains(&address)),
            };
        if allowed { Verdict::Allowed } else { Verdict::Prohibited }
    }

    /// The client that this address belongs to, where per-client bounds bind it; `None` for the node itself.
    pub fn bound_client(&self, address: IpAddr) -> Option<ClientKey> {
        let free = address.is_loopback() || self.own.contains(&address);
        (!free).then(|| client_of(address, self.client_prefix))
    }

    /// What of this address counts as one client, whether bounds bind it or not.
    pub fn prefix_of(&self, address: IpAddr) -> IpAddr {
        client_of(address, self.client_prefix).0
    }

    /// Counts one question. Costs nothing where no rate is set.
    pub fn rate(&self, client: IpAddr, now: Moment) -> Rate {
        if self.queries_per_second == 0 {
            return Rate::Within;
        }
        match self.bound_client(client) {
            None => Rate::Within,
            Some(key) => self.rates.count(key, self.queries_per_second, now),
        }
    }
}

/// The client that `address` belongs to, by the bits of an IPv4 and of an IPv6 address that make one. More bits than
/// an address has are all its bits.
pub fn client_of(address: IpAddr, (v4_bits, v6_bits): (u8, u8)) -> ClientKey {
    ClientKey(match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(v4_bits.into())).unwrap_or(0);
            Ipv4Addr::from_bits(a.to_bits() & mask).into()
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(v6_bits.into())).unwrap_or(0);
            Ipv6Addr::from_bits(a.to_bits() & mask).into()
        }
    })
}

fn private() -> [IpNet; 7] {
    const fn v4(a: u8, b: u8, bits: u8) -> IpNet {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), bits))
    }
    const fn v6(first: u16, bits: u8) -> IpNet {
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), bits))
    }
    [
        v4(10, 0, 8),
        v4(172, 16, 12),
        v4(192, 168, 16),
        v4(100, 64, 10),
        v4(169, 254, 16),
        v6(0xfc00, 7),
        v6(0xfe80, 10),
    ]
}

//------------ The table of rates ------------------------------------------------------------------------------------

const SHARDS: usize = 16;
/// Clients of one generation of one shard: two generations of all shards are the whole table.
const GENERATION: usize = CLIENTS_TRACKED_MAX / SHARDS / 2;
const SECOND: u64 = 1_000_000_000;

/// Rates of clients, kept as the moment at which each has used up what it asked so far (the generic cell rate
/// algorithm: one number a client, exact at any rate, and a changed rate takes hold at once).
#[derive(Debug, Default)]
struct Rates {
    hash: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

/// Invariant: each generation holds at most [`GENERATION`] clients, and none is in both.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<ClientKey, u64>,
    old: HashMap<ClientKey, u64>,
}

impl Rates {
    fn count(&self, key: ClientKey, per_second: u32, now: Moment) -> Rate {
        let cost = SECOND / u64::from(per_second.max(1));
        let now = now.as_nanos();
        let at = self.hash.hash_one(key) as usize % SHARDS;
        // Nothing under the lock can panic half-way, so a poisoned table is whole.
        let mut shard = self.shards[at].lock().unwrap_or_else(PoisonError::into_inner);
        let used_until = shard.entry(key);
        let after = (*used_until).max(now).saturating_add(cost);
        if after > now.saturating_add(SECOND) {
            return Rate::Over;
        }
        *used_until = after;
        Rate::Within
    }
}

impl Shard {
    /// The client's number, 0 where it is not known; whoever is asked for is young again.
    fn entry(&mut self, key: ClientKey) -> &mut u64 {
        if !self.young.contains_key(&key) && self.young.len() >= GENERATION {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        let old = &mut self.old;
        self.young.entry(key).or_insert_with(|| old.remove(&key).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_may_ask_is_who_is_named_and_loopback() {
        let own =
            OwnNetworks { addresses: vec![ip("192.0.2.7")], links: vec![net("192.0.2.0/24"), net("2001:db8::/64")] };
        for (allow, client, may) in [
            (vec![Allowed::Loopback], "127.0.0.1", true),
            (vec![Allowed::Loopback], "127.255.0.9", true),
            (vec![Allowed::Loopback], "::1", true),
            (vec![Allowed::Loopback], "192.0.2.7", false),
            (vec![], "127.0.0.1", true),
            (vec![Allowed::Local], "192.0.2.255", true),
            (vec![Allowed::Local], "192.0.3.0", false),
            (vec![Allowed::Local], "2001:db8::9", true),
            (vec![Allowed::Local], "2001:db8:0:1::9", false),
            (vec![Allowed::Private], "10.1.2.3", true),
            (vec![Allowed::Private], "172.31.255.255", true),
            (vec![Allowed::Private], "172.32.0.0", false),
            (vec![Allowed::Private], "100.127.255.255", true),
            (vec![Allowed::Private], "100.128.0.0", false),
            (vec![Allowed::Private], "169.254.1.1", true),
            (vec![Allowed::Private], "fdff::1", true),
            (vec![Allowed::Private], "fe80::1", true),
            (vec![Allowed::Private], "2001:db8::1", false),
            (vec![Allowed::Net(net("198.51.100.0/25"))], "198.51.100.127", true),
            (vec![Allowed::Net(net("198.51.100.0/25"))], "198.51.100.128", false),
            (vec![Allowed::Net(net("0.0.0.0/0"))], "2001:db8::1", false),
        ] {
            let admit = Admit::new(&settings(allow.clone(), 0), &own);
            let want = if may { Verdict::Allowed } else { Verdict::Prohibited };
            assert_eq!(admit.judge(ip(client)), want, "{allow:?} {client}");
        }
    }

    #[test]
    fn a_client_is_its_prefix() {
        let same = |a: &str, b: &str, prefix| client_of(ip(a), prefix) == client_of(ip(b), prefix);
        assert!(!same("192.0.2.1", "192.0.2.2", (32, 56)));
        assert!(same("192.0.2.1", "192.0.2.2", (24, 56)));
        assert!(same("2001:db8:0:ff::1", "2001:db8:0:1::2", (32, 56)));
        assert!(!same("2001:db8:0:100::1", "2001:db8:0:1::2", (32, 56)));
        assert!(!same("2001:db8::1", "2001:db8::2", (32, 128)));
        assert!(same("2001:db8::1", "fe80::1", (0, 0)));
        assert!(!same("192.0.2.1", "192.0.2.2", (200, 200)));
    }

    #[test]
    fn a_second_may_be_saved_up_and_no_more() {
        let admit = limited(10);
        let allowed = |at: Moment| (0..30).filter(|_| admit.rate(ip("192.0.2.9"), at) == Rate::Within).count();
        let start = Moment::from_secs(100);
        assert_eq!(allowed(start), 10);
        assert_eq!(allowed(start + Duration::from_millis(99)), 0);
        assert_eq!(allowed(start + Duration::from_millis(100)), 1);
        assert_eq!(allowed(start + Duration::from_millis(600)), 5);
        assert_eq!(allowed(start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn one_client_does_not_spend_what_another_has() {
        let admit = limited(1);
        let now = Moment::from_secs(5);
        assert_eq!(admit.rate(ip("192.0.2.1"), now), Rate::Within);
        assert_eq!(admit.rate(ip("192.0.2.1"), now), Rate::Over);
        assert_eq!(admit.rate(ip("192.0.2.2"), now), Rate::Within);
    }

    #[test]
    fn the_node_itself_is_not_bound() {
        let admit = limited(1);
        for address in ["127.0.0.1", "::1", "192.0.2.7"] {
            assert_eq!(admit.bound_client(ip(address)), None, "{address}");
            for _ in 0..5 {
                assert_eq!(admit.rate(ip(address), Moment::ZERO), Rate::Within, "{address}");
            }
        }
        assert!(admit.bound_client(ip("192.0.2.8")).is_some());
    }

    #[test]
    fn without_a_rate_nothing_is_counted() {
        let admit = limited(0);
        assert!((0..100).all(|_| admit.rate(ip("192.0.2.9"), Moment::ZERO) == Rate::Within));
        assert_eq!(tracked(&admit), 0);
    }

    #[test]
    fn a_reload_keeps_what_was_counted() {
        let admit = limited(1);
        assert_eq!(admit.rate(ip("192.0.2.9"), Moment::ZERO), Rate::Within);
        let renewed = admit.renewed(&settings(vec![], 2), &OwnNetworks::default());
        // The first question has used up the whole second that may be saved up.
        assert_eq!(renewed.rate(ip("192.0.2.9"), Moment::ZERO), Rate::Over);
        assert_eq!(renewed.rate(ip("192.0.2.9"), Moment::from_millis(500)), Rate::Within);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_quiet_ones() {
        let admit = limited(1);
        let busy = ip("203.0.113.1");
        assert_eq!(admit.rate(busy, Moment::ZERO), Rate::Within);
        for n in 0..(3 * CLIENTS_TRACKED_MAX) as u32 {
            admit.rate(Ipv4Addr::from_bits(0x0a00_0000 + n).into(), Moment::ZERO);
            if n % 64 == 0 {
                assert_eq!(admit.rate(busy, Moment::ZERO), Rate::Over, "{n}");
            }
        }
        assert!(tracked(&admit) <= CLIENTS_TRACKED_MAX);
        assert_eq!(admit.rate(ip("10.0.0.0"), Moment::ZERO), Rate::Within);
    }

    fn tracked(admit: &Admit) -> usize {
        let len = |s: &Mutex<Shard>| s.lock().map(|s| s.young.len() + s.old.len()).unwrap_or(0);
        admit.rates.shards.iter().map(len).sum()
    }

    fn limited(queries_per_second: u32) -> Admit {
        let own = OwnNetworks { addresses: vec![ip("192.0.2.7")], links: vec![net("192.0.2.0/24")] };
        Admit::new(&settings(vec![Allowed::Local], queries_per_second), &own)
    }

    fn settings(allow: Vec<Allowed>, queries_per_second: u32) -> AdmitSettings {
        AdmitSettings { allow, client_prefix: (32, 56), queries_per_second, in_flight_per_client: 256 }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }
}
