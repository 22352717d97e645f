//! From a configuration to what is in force: cells, routes, local answers.
//!
//! Not pure: reads hosts files and resolv.conf. Policy is swapped, evidence survives: a group keeps what it learned of
//! the servers that stay ([`crate::driver::adopt`]), and its stamp with it; a group whose servers were all replaced
//! gets another stamp, which makes its negative answers void and its positive ones expired.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cache::entry::GroupStamp;
use crate::clock::Moment;
use crate::config::{Config, GroupConfig, UpstreamConfig};
use crate::driver::{self, Cell};
use crate::limits::HOSTS_BYTES_MAX;
use crate::serve::admit::{Admit, OwnNetworks};
use crate::serve::local::Local;
use crate::serve::route::Routes;
use crate::serve::{GroupPolicy, Policy};
use crate::upkeep::system::{self, Choice, Us};
use crate::upstream::{GroupSettings, Order, Protocol, ServerSettings};

/// A cell in force.
#[derive(Clone)]
pub struct Placed {
    /// Its group's name.
    pub name: String,
    /// The cell.
    pub cell: Arc<Cell>,
    /// Set when another cell took its place: its probes end.
    pub retired: Arc<AtomicBool>,
}

/// The policy in force, as workers pick it up.
pub struct InForce {
    generation: AtomicU64,
    policy: Mutex<Arc<Policy>>,
}

impl InForce {
    /// Begins with a policy.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { generation: AtomicU64::new(1), policy: Mutex::new(policy) }
    }

    /// Puts another policy in force.
    pub fn replace(&self, policy: Arc<Policy>) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The policy, where it is another one than that of `seen`; `seen` follows. One atomic read where it is not.
    pub fn newer_than(&self, seen: &mut u64) -> Option<Arc<Policy>> {
        let generation = self.generation.load(Ordering::Acquire);
        if generation == *seen {
            return None;
        }
        *seen = generation;
        Some(self.policy())
    }
}

/// What stands around a configuration: this node, and what its files say.
pub struct Surroundings {
    /// This node's networks.
    pub own: OwnNetworks,
    /// Upstreams of the system.
    pub system: Choice,
    /// Texts of the hosts files.
    pub hosts: Vec<String>,
    /// What an operator should know of them.
    pub remarks: Vec<String>,
}

impl Surroundings {
    /// Looks around.
    pub fn look(config: &Config, state: Option<&Path>, listening: &[SocketAddr]) -> Self {
        let own = system::own_networks();
        let us = Us { listening, addresses: &own.addresses };
        let system = if names_system(config) {
            system::read(&config.system_files, state, us)
        } else {
            Choice { servers: vec![], trust_ad: false, from: system::Origin::Nowhere, remarks: vec![] }
        };
        let mut remarks = Vec::new();
        let hosts = hosts_texts(config, listening, &mut remarks);
        Self { own, system, hosts, remarks }
    }
}

/// Does any tier say `"system"`?
pub fn names_system(config: &Config) -> bool {
    config.groups.iter().flat_map(|g| g.tiers.iter().flatten()).any(|u| *u == UpstreamConfig::System)
}

/// Hosts files are read only where every listener is on loopback: on a network they would tell others of this node.
fn hosts_texts(config: &Config, listening: &[SocketAddr], remarks: &mut Vec<String>) -> Vec<String> {
    if config.local.hosts.is_empty() || !listening.iter().all(|a| a.ip().is_loopback()) {
        return config.local.hosts.iter().map(|_| String::new()).collect();
    }
    let mut read = |path: &PathBuf| match read_hosts(path) {
        Ok(text) => text,
        Err(e) => {
            remarks.push(format!("{}: {e}: left out", path.display()));
            String::new()
        }
    };
    config.local.hosts.iter().map(&mut read).collect()
}

fn read_hosts(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err("not a file".into());
    }
    let mut bytes = Vec::new();
    file.take(HOSTS_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > HOSTS_BYTES_MAX {
        return Err("more than 16 MiB".into());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Builds what is to be in force. Remarks say what was left out.
pub fn build(
    config: &Config,
    around: &Surroundings,
    before: &[Placed],
    old_policy: Option<&Policy>,
    stamps: &AtomicU32,
    now: Moment,
) -> (Arc<Policy>, Vec<Placed>, Vec<String>) {
    let mut placed = Vec::new();
    for group in &config.groups {
        let settings = resolved(group, &around.system);
        let old = before.iter().find(|p| p.name == settings.name).map(|p| &*p.cell);
        let fresh = GroupStamp(stamps.fetch_add(1, Ordering::Relaxed));
        let name = settings.name.clone();
        let cell = Arc::new(driver::adopt(settings, old, fresh, now));
        placed.push(Placed { name, cell, retired: Arc::default() });
    }
    let (policy, remarks) = over(config, around, &placed, old_policy);
    (policy, placed, remarks)
}

/// The policy over cells that are in place: for [`build`], and where nothing that concerns a server has changed.
pub fn over(
    config: &Config,
    around: &Surroundings,
    placed: &[Placed],
    old_policy: Option<&Policy>,
) -> (Arc<Policy>, Vec<String>) {
    let zones = config.groups.iter().enumerate().flat_map(|(i, g)| g.settings.zones.iter().map(move |z| (z, i)));
    let (local, remarks) = Local::new(&config.local, &around.hosts);
    let groups = config.groups.iter().zip(placed).map(|(group, placed)| GroupPolicy {
        name: placed.name.clone(),
        stamp: placed.cell.stamp,
        stale: group.settings.stale,
        outlook: placed.cell.outlook.clone(),
    });
    let policy = Policy {
        admit: match old_policy {
            Some(old) => old.admit.renewed(&config.admit, &around.own),
            None => Admit::new(&config.admit, &around.own),
        },
        local,
        routes: Routes::new(zones),
        groups: groups.collect(),
        rotate: config.cache.rotate,
        refresh_ahead: config.cache.refresh_ahead,
    };
    (Arc::new(policy), remarks)
}

/// A group's settings with `"system"` in its tiers replaced by what the system names.
fn resolved(group: &GroupConfig, system: &Choice) -> GroupSettings {
    let mut settings = group.settings.clone();
    let mut any_system = false;
    settings.tiers = group.tiers.each_ref().map(|tier| {
        let mut servers = Vec::new();
        for upstream in tier {
            match upstream {
                UpstreamConfig::Server(server) => {
                    let trust_ad = group.trust_ad.unwrap_or(server.trust_ad);
                    servers.push(ServerSettings { trust_ad, ..server.clone() });
                }
                UpstreamConfig::System => {
                    any_system = true;
                    servers.extend(system.servers.iter().map(|address| ServerSettings {
                        name: address.to_string(),
                        address: *address,
                        protocol: Protocol::Udp,
                        trust_ad: group.trust_ad.unwrap_or(system.trust_ad),
                        packets_per_second: 0,
                    }));
                }
            }
        }
        servers
    });
    // The order of resolv.conf has a meaning (resolv.conf(5)): its servers are asked as listed.
    if any_system {
        settings.order = Order::Listed;
    }
    settings
}
