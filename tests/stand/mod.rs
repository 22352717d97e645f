//! A door with a full cache behind it, for tests and benches of the hit path.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::cache::Cache;
use evenkeel::cache::entry::{Data, Entry, GroupStamp};
use evenkeel::cache::freshness::{StaleSettings, TtlSettings};
use evenkeel::cache::front::Front;
use evenkeel::cache::key::{Keys, Question};
use evenkeel::cache::store::Store;
use evenkeel::clock::{Moment, WallTime};
use evenkeel::observe::metrics::Meters;
use evenkeel::resolve::vet::{self, Terms, Verdict};
use evenkeel::serve::admit::{Admit, AdmitSettings, Allowed, OwnNetworks};
use evenkeel::serve::local::{Local, LocalSettings};
use evenkeel::serve::route::Routes;
use evenkeel::serve::{Client, Door, GroupPolicy, Policy, Transport};
use evenkeel::upstream::Outlook;
use evenkeel::wire::{Name, build};

pub const STAMP: GroupStamp = GroupStamp(1);
pub const STORED: Moment = Moment::from_secs(1000);
pub const TTL: u32 = 300;
pub const CLIENT: Client = Client { address: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), transport: Transport::Udp };

/// The name of number `n`: thirty bytes on the wire, the root label included.
pub fn name(n: u64) -> Vec<u8> {
    [&[12][..], format!("host{n:08}").as_bytes(), b"\x07example\x07invalix\x00"].concat()
}

/// A query for name `n`, with OPT as stub resolvers send it, or without.
pub fn query(n: u64, edns: bool) -> Vec<u8> {
    let mut packet = build::question(&name(n), 1, false, false, edns);
    packet[3] = 0;
    packet
}

/// A reply of a server with `addresses` A records.
pub fn reply(name: &[u8], addresses: u8) -> Vec<u8> {
    let mut p = vec![0, 0, 0x81, 0x80, 0, 1, 0, addresses, 0, 0, 0, 0];
    p.extend_from_slice(name);
    p.extend([0, 1, 0, 1]);
    for n in 0..addresses {
        p.extend([0xc0, 12, 0, 1, 0, 1]);
        p.extend(TTL.to_be_bytes());
        p.extend([0, 4, 192, 0, 2, n]);
    }
    p
}

/// An entry as the driver would store it.
pub fn entry(question: &Question<'_>, addresses: u8, now: Moment) -> Arc<Entry> {
    let terms =
        Terms { over_tcp: false, with_edns: true, trust_ad: false, ttl: TtlSettings::default(), wall: WallTime(0) };
    let Verdict::Answer { packed, .. } = vet::vet(&reply(question.name, addresses), question, terms, now) else {
        panic!("the reply is one")
    };
    Arc::new(Entry::with_data(question, Data::new(packed, 0, STAMP, now)))
}

/// Puts `names` names into a cache over `store`.
pub fn filled(store: Arc<dyn Store>, names: u64, addresses: u8) -> Arc<Cache> {
    filled_at(store, names, addresses, STORED)
}

/// The same, with answers that came at `now`.
pub fn filled_at(store: Arc<dyn Store>, names: u64, addresses: u8, now: Moment) -> Arc<Cache> {
    let cache = Cache::new(store, Keys::new([7; 16]));
    for n in 0..names {
        let name = name(n);
        let question = Question { name: &name, qtype: 1, dnssec_ok: false, cd: false };
        let key = cache.key(&question);
        cache.keep(key, &question, entry(&question, addresses, now), Duration::from_secs(86_400), now);
    }
    cache.upkeep();
    Arc::new(cache)
}

/// The policy of the built-in defaults, and a group that has not answered yet: its stale answers go out at once.
pub fn policy() -> Arc<Policy> {
    policy_over(Outlook::default())
}

/// The same over what is believed of the group.
pub fn policy_over(outlook: Outlook) -> Arc<Policy> {
    let root = Name::root();
    let admit = AdmitSettings {
        allow: vec![Allowed::Loopback],
        client_prefix: (32, 56),
        queries_per_second: 0,
        in_flight_per_client: 256,
    };
    let local = LocalSettings {
        identity: None,
        private_reverse_nxdomain: false,
        records: vec![],
        zones: vec![],
        hosts: vec![],
    };
    Arc::new(Policy {
        admit: Admit::new(&admit, &OwnNetworks::default()),
        local: Local::new(&local, &[]).0,
        routes: Routes::new([(&root, 0)]),
        groups: vec![GroupPolicy {
            name: "default".into(),
            stamp: STAMP,
            stale: StaleSettings::default(),
            outlook: Arc::new(outlook),
        }],
        rotate: true,
        refresh_ahead: true,
    })
}

/// A UDP worker's door.
pub fn door(cache: Arc<Cache>, max_bytes: u64) -> Door {
    Door::new(policy(), cache, Some(Front::new(max_bytes, 1)), Meters::default().own())
}
