//! What the snapshot of the cache needs to know of the running process.

use super::Running;
use crate::cache::CacheSettings;
use crate::cache::snapshot::GroupRecord;
use crate::clock;
use crate::upkeep::snapshot::{Around, Home, Homes};

impl Around for Running {
    fn settings(&self) -> CacheSettings {
        self.changing().loaded.config.cache
    }

    fn homes(&self) -> Homes {
        let placed = self.changing().placed.clone();
        let home = |placed: &super::Placed| {
            placed.cell.with(|g| {
                let settings = g.settings();
                let trusted = |tier: &Vec<crate::upstream::ServerSettings>| {
                    !tier.is_empty() && tier.iter().all(|server| server.trust_ad)
                };
                let servers = settings.tiers.iter().flatten();
                Home {
                    group: GroupRecord {
                        stamp: placed.cell.stamp,
                        name: placed.name.clone(),
                        servers: servers.map(|s| format!("{}://{}", s.protocol, s.address)).collect(),
                    },
                    ttl: settings.ttl,
                    max_age: g.max_age(clock::now()),
                    trust_ad: settings.tiers.iter().map(trusted).collect(),
                }
            })
        };
        let policy = self.in_force.policy();
        Homes { groups: placed.iter().map(home).collect(), route: Box::new(move |name| policy.routes.find(name)) }
    }

    fn offer(&self) {
        self.driver.offer_restored();
    }
}
