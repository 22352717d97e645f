//! What the running process says of itself: status, explanations, and what it does when told.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::policy::Placed;
use super::{Running, lock};
use crate::cache::entry::{Data, Entry};
use crate::cache::freshness::Standing;
use crate::cache::key::Question;
use crate::clock::{self, Moment};
use crate::config::effective;
use crate::observe::control::server::{Controlled, Flush};
use crate::observe::event::{self, Event};
use crate::observe::history::{self, HistoryStatus, ServerSample};
use crate::observe::metrics::Source;
use crate::observe::status::{
    CacheStatus, ConfigStatus, FreezeStatus, Gather, GroupStatus, GuardStatus, HoldStatus, ListenStatus,
    STATUS_VERSION, Snapshot, for_each_text,
};
use crate::observe::summary::{self, Summary};
use crate::resolve::patience::{self, Circumstances};
use crate::serve::GroupPolicy;
use crate::serve::admit::OwnNetworks;
use crate::upkeep::system;
use crate::wire::name::suffixes;
use crate::wire::{Name, build, rcode};

/// An address, and whether it is on this machine. Where the kernel was not to be asked it is taken to be.
fn listens(at: SocketAddr, own: &OwnNetworks) -> ListenStatus {
    let waiting = (!is_here(at.ip(), own)).then(|| "it is not on this machine yet".to_owned());
    ListenStatus { address: at.to_string(), waiting }
}

/// Is this address on this machine, as far as is known? IPv4's loopback always is; where IPv6 is switched off, `::1` is
/// not, and nothing is reached at `[::]` either.
pub(super) fn is_here(ip: IpAddr, own: &OwnNetworks) -> bool {
    let ip = match ip {
        IpAddr::V4(v4) if v4.is_loopback() || v4.is_unspecified() => return true,
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => ip,
    };
    own.addresses.is_empty() || own.addresses.contains(&ip)
}

impl Gather for Running {
    fn gather(&self) -> Snapshot {
        let now = clock::now();
        let uptime = now.since(self.started).as_secs();
        let changing = self.changing();
        let census = self.cache.census();
        let config = &changing.loaded;
        let wall = clock::wall();
        let mut warnings: Vec<String> = self.socket_remarks.clone();
        warnings.extend(config.warnings.iter().map(|w| super::remark_of(config, w)));
        warnings.extend(changing.around.system.remarks.iter().cloned());
        warnings.extend(changing.around.remarks.iter().chain(&changing.remarks).cloned());
        if changing.around.system.from == system::Origin::Remembered {
            warnings.push("the system names no upstream; those that it named last are asked".into());
        }
        if config.fallback {
            warnings.push("the configuration file was refused; its last accepted copy is in force".into());
        }
        if !changing.last_reload_ok {
            let file = config.path.as_ref().map_or_else(String::new, |path| format!(" {}", path.display()));
            warnings.push(format!("the configuration was refused when last read; `evenkeel check{file}` says why"));
        }
        let snapshot = self.snapshotter.as_ref().filter(|_| config.config.cache.snapshot).map(|s| s.status());
        if let Some(s) = &snapshot {
            let refused = s.refused.iter().map(|why| format!("{} was not read at start: {why}", s.file));
            warnings.extend(refused.chain(s.failing.iter().map(|why| format!("{} is not written: {why}", s.file))));
        }
        let stands =
            |p: &Placed| p.cell.with(|group| GroupStatus::of(&p.name, group, |id| p.cell.faults(id), (now, wall.0)));
        let groups: Vec<GroupStatus> = changing.placed.iter().map(stands).collect();
        for group in groups.iter().filter(|g| g.servers.is_empty()) {
            warnings.push(format!("group {} has no upstream", group.name));
        }
        let totals = self.meters.totals();
        let mut snapshot = Snapshot {
            status_version: STATUS_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: Summary::default(),
            host: self.host.clone(),
            pid: std::process::id(),
            answers: Source::ALL.into_iter().map(|of| (of.word(), totals.answers[of as usize])).collect(),
            last_minute: self.history.last_minute(totals, now),
            uptime_seconds: uptime,
            started_unix: self.started_wall.0,
            ready: self.ready.load(Ordering::Relaxed),
            listen: self.listening.iter().map(|at| listens(*at, &changing.around.own)).collect(),
            groups,
            canaries: self.canaries.status(now),
            cache: CacheStatus {
                bytes: census.bytes,
                max_bytes: changing.began_with.cache.max_bytes,
                entries: census.entries,
                evictions: census.evicted,
            },
            guard: self.guard_status(now),
            frozen: self.cache.freeze(now).map(|freeze| FreezeStatus {
                since_unix: wall.0.saturating_sub_unsigned(now.since(freeze.since).as_secs()),
                left_seconds: now.until(freeze.until).as_secs(),
            }),
            snapshot,
            config: ConfigStatus {
                file: config.path.as_ref().map(|p| p.display().to_string()),
                hash: config.hash.clone(),
                age_seconds: u64::try_from(wall.0 - config.read_at.0).unwrap_or(0),
                fallback: config.fallback,
                last_reload_ok: changing.last_reload_ok,
                last_reload_unix: config.read_at.0,
                needs_restart: changing
                    .began_with
                    .restart_differences(&config.config)
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                keys: Vec::new(),
            },
            tcp_connections: lock(&self.connections).as_ref().map_or(0, |c| c.open() as u64),
            udp_receive_drops: lock(&self.readings).as_ref().map_or(0, |r| r.counts().receive_drops),
            log_dropped: self.log.dropped(),
            query_log: self.query_log.status(),
            warnings,
            events: event::recent(),
            history: None,
        };
        snapshot.summary = summary::of(&snapshot);
        snapshot
    }

    fn history(&self) -> HistoryStatus {
        self.history.shown(clock::now(), clock::wall().0)
    }
}

impl Running {
    /// Takes a sample of the last hour again and again.
    pub(super) async fn keep_history(self: Arc<Self>) {
        let mut turns = tokio::time::interval(history::EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first turn is at once, and nothing has been answered yet.
        turns.tick().await;
        loop {
            turns.tick().await;
            let placed = self.changing().placed.clone();
            let mut samples = Vec::new();
            for placed in &placed {
                placed.cell.with(|g| {
                    samples.extend(g.servers().iter().map(|s| ServerSample {
                        group: placed.name.clone(),
                        server: s.settings.name.clone(),
                        tier_in_use: g.tier_in_use() as u8 + 1,
                        latency: Some(s.latency().p50()).filter(|p50| !p50.is_zero()),
                        state: s.state().0,
                    }));
                });
            }
            self.history.sample(self.meters.totals(), &samples, clock::now());
        }
    }
}

/// What `${NAME}` was expanded to is blanked in a bundle from so many bytes on.
const EXPANSION_BYTES_MIN: usize = 4;

impl Controlled for Running {
    fn status(&self) -> Value {
        let mut snapshot = self.gather();
        snapshot.history = Some(self.history());
        snapshot.config.keys = {
            let changing = self.changing();
            effective(&changing.loaded.text, &self.source.sets)
        };
        serde_json::to_value(snapshot).unwrap_or(Value::Null)
    }

    fn bundle(&self) -> Value {
        let expanded = self.changing().loaded.expanded.clone();
        let mut status = self.status();
        let mut metrics = self.meters.render(&self.gather());
        let mut blanked = Vec::new();
        for (name, value) in expanded {
            // A shorter one is no secret, and would take half of the text with it.
            if value.len() >= EXPANSION_BYTES_MIN {
                for_each_text(&mut status, &|text| text.replace(&value, &format!("${{{name}}}")));
                metrics = metrics.replace(&value, &format!("${{{name}}}"));
                blanked.push(name);
            }
        }
        json!({ "status": status, "metrics": metrics, "blanked": blanked })
    }

    fn explain(&self, name: &Name, qtype: u16) -> Result<Value, String> {
        let now = clock::now();
        let policy = self.in_force.policy();
        let question = Question { name: name.as_wire(), qtype, dnssec_ok: false, cd: false };
        let mut steps = Vec::new();
        if build::is_question_only(qtype) {
            steps.push(format!("type {qtype} is never forwarded"));
        }
        if let Some(word) = local_word(&policy.local, name, qtype) {
            steps.push(format!("local: {word}; nobody is asked"));
            return Ok(json!({ "name": name.to_string(), "qtype": qtype, "steps": steps, "source": "local" }));
        }
        let Some(group) = policy.routes.find(name.as_wire()).map(|i| &policy.groups[i]) else {
            steps.push("route: no group has a zone for this name: REFUSED".into());
            return Ok(json!({ "name": name.to_string(), "qtype": qtype, "steps": steps, "source": "refused" }));
        };
        let entry = self.cache.look(self.cache.key(&question), &question);
        let healings = group.outlook.healings();
        let data = entry.as_ref().and_then(|e| e.data());
        let due_before = self.cache.due_before();
        let mut source = "upstream";
        let max_age = self.cache.in_force(group.stale, now).max_age;
        match data.map(|d| (d, d.standing(max_age, due_before, now))) {
            None => steps.push("cache: no answer".into()),
            Some((d, _)) if d.group != group.stamp => {
                steps.push("cache: an answer of another group; it counts as expired".into());
            }
            Some((d, Standing::Fresh { age })) => {
                source = "fresh";
                steps.push(format!("cache: fresh, {} s left, {}", d.ttl.saturating_sub(age), said(d)));
                let begins = entry.as_ref().and_then(|e| e.ahead.begins()).filter(|_| policy.refresh_ahead);
                if let Some(at) = begins {
                    let left = now.until(at).as_secs();
                    steps.push(format!("cache: asked again ahead of its end, if asked for twice after {left} s"));
                }
            }
            Some((d, Standing::Stale { past })) => {
                source = "stale";
                let wait = patience::wait(Circumstances {
                    belief: group.outlook.belief(),
                    failed_of_late: entry.as_ref().is_some_and(|e| e.has_failed(group.stamp, healings, now)),
                    patience: group.outlook.patience(),
                    past,
                    ttl: d.ttl,
                });
                steps.push(format!(
                    "cache: stale for {} s, {}; it is given where no fresh answer comes within {} ms",
                    past.as_secs(),
                    said(d),
                    wait.as_millis()
                ));
            }
            Some((d, Standing::Gone)) => steps.push(format!("cache: too old to serve, {}", said(d))),
        }
        if let Some(known) = self.cache.guards().known(self.cache.key(&question), &question) {
            let good_for = now.since(known.first_good).as_secs();
            steps.push(match known.hold.filter(|h| now < h.until) {
                Some(hold) => {
                    source = "stale";
                    let (since, left) = (now.since(hold.since).as_secs(), now.until(hold.until).as_secs());
                    format!("guard: held for {since} s, for {left} s more: the last known good answer is given")
                }
                None => format!("guard: good for {good_for} s"),
            });
        }
        if let Some(freeze) = self.cache.freeze(now) {
            let left = now.until(freeze.until).as_secs();
            steps.push(format!("frozen: nothing good is given up for {left} s more"));
        }
        if let Some(f) = entry.as_ref().and_then(|e| e.failure(group.stamp, healings, now)) {
            let left = now.until(f.until).as_millis();
            steps.push(format!(
                "cache: failed {} times, remembered for {left} ms more (extended error {})",
                f.count, f.ede
            ));
            if data.is_none() {
                source = "failed";
            }
        }
        steps.push(self.whom(group));
        Ok(json!({
            "name": name.to_string(),
            "qtype": qtype,
            "group": group.name,
            "source": source,
            "steps": steps,
        }))
    }

    fn flush(&self, what: &Flush) -> u64 {
        let what = what.clone();
        let doomed = move |e: &Entry| match &what {
            Flush::Name(name) => e.name() == name.as_wire(),
            Flush::Zone(zone) => suffixes(e.name()).any(|s| s == zone.as_wire()),
            Flush::All => true,
        };
        let entries = match &self.snapshotter {
            Some(snapshotter) => snapshotter.flush(doomed),
            None => self.cache.flush(&doomed),
        };
        event::report(Event::Flushed { entries });
        entries
    }

    fn reload(&self) -> Result<Vec<String>, String> {
        self.reload_now()
    }

    fn freeze(&self, span: Duration) -> Vec<String> {
        self.freeze_for(span)
    }

    fn thaw(&self) -> bool {
        self.thaw_now()
    }

    fn release(&self, name: &Name) -> u64 {
        let released = self.cache.guards().release(name.as_wire(), clock::now());
        self.driver.tell_of_guards();
        released
    }
}

impl Running {
    fn guard_status(&self, now: Moment) -> GuardStatus {
        let guards = self.cache.guards();
        let (names_held, held_total) = guards.count(now);
        let shown = guards.shown(now).into_iter().map(|s| HoldStatus {
            name: s.name.to_string(),
            qtype: s.qtype,
            since_unix: clock::wall().0.saturating_sub_unsigned(now.since(s.hold.since).as_secs()),
            left_seconds: now.until(s.hold.until).as_secs(),
        });
        GuardStatus { names_held, held_total, held: shown.collect() }
    }

    /// Whom a question of a group would go to, and what is believed of the group.
    fn whom(&self, group: &GroupPolicy) -> String {
        let changing = self.changing();
        let Some(placed) = changing.placed.iter().find(|p| p.cell.stamp == group.stamp) else {
            return format!("route: group {}, which has gone", group.name);
        };
        placed.cell.with(|g| {
            let listed: Vec<String> = g
                .servers()
                .iter()
                .map(|s| format!("{} (tier {}, {}: {})", s.settings.name, s.tier + 1, s.state().0, s.state().1))
                .collect();
            if listed.is_empty() {
                return format!("route: group {}, which has no upstream: SERVFAIL", group.name);
            }
            format!(
                "route: group {}, believed {}, tier {} in use; servers: {}",
                group.name,
                g.belief().word(),
                g.tier_in_use() + 1,
                listed.join(", ")
            )
        })
    }
}

fn said(data: &Data) -> String {
    let records = u16::from_be_bytes([data.stored().wire[6], data.stored().wire[7]]);
    format!("{} with {records} records, from tier {}", rcode::word(data.rcode()), data.tier + 1)
}

/// The word of the local answer to a question of this node, where there is one.
fn local_word(local: &crate::serve::local::Local, name: &Name, qtype: u16) -> Option<&'static str> {
    let packet = build::question(name.as_wire(), qtype, false, false, false);
    let query = crate::wire::query::check(&packet).ok()?;
    let client = crate::serve::Client {
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        transport: crate::serve::Transport::Tcp,
    };
    let mut out = vec![0; 512];
    local.answer(&query, name.as_wire(), &client, &mut out, 0).map(|a| a.kind.word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_always_here_and_that_of_ipv6_only_where_the_machine_has_it() {
        let own = |addresses: &[&str]| OwnNetworks {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            links: vec![],
        };
        let (both, v4_only, unknown) = (own(&["127.0.0.1", "::1"]), own(&["127.0.0.1"]), own(&[]));
        for (ip, with_both, with_v4) in [
            ("127.0.0.1", true, true),
            ("127.0.0.53", true, true),
            ("0.0.0.0", true, true),
            ("::1", true, false),
            ("::", true, false),
            ("192.0.2.7", false, false),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!((is_here(ip, &both), is_here(ip, &v4_only)), (with_both, with_v4), "{ip}");
            assert!(is_here(ip, &unknown), "{ip}");
        }
    }
}
