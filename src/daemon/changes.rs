//! What changes around the running process: its configuration, files that it follows, the network, the clock.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use super::policy::{self, Surroundings};
use super::{Running, lock, remark_of, say_surroundings};
use crate::clock::{self, Moment};
use crate::config::Config;
use crate::observe::event::{Event, report};
use crate::serve::admit::Allowed;
use crate::upkeep::network::Change;
use crate::upkeep::source::shown_path;
use crate::upkeep::watch::Watched;
use crate::upkeep::{supervisor, system};

/// How often the clock is looked at, and files of which the kernel does not tell.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// And files of which it does: on some file systems it misses changes.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(30);
/// The wall clock moved this much more than ours: it jumped.
const JUMP_MIN: Duration = Duration::from_secs(10);
/// This much later than due: the machine slept.
const SLEEP_MIN: Duration = Duration::from_secs(30);

impl Running {
    pub(super) async fn reload_at_hangup(self: Arc<Self>, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            self.clone().reload_aside().await;
        }
    }

    /// Files that change, a clock that jumps, a machine that slept.
    pub(super) async fn look_around(self: Arc<Self>, watch: bool) {
        let mut config_seen = self.config_seen();
        let mut watched = Watched::new();
        let mut files = self.files();
        watched.follow(&files);
        let (mut marks, mut looked) = (files_seen(&files), clock::now());
        let (mut last, mut last_wall) = (clock::now(), clock::wall());
        loop {
            let is_told = tokio::time::timeout(LOOK_EVERY, watched.changed()).await.is_ok();
            let (now, wall) = (clock::now(), clock::wall());
            let passed = now.since(last);
            let wall_passed = Duration::from_secs(u64::try_from(wall.0 - last_wall.0).unwrap_or(0));
            let jumped = wall_passed.saturating_sub(passed);
            if jumped >= JUMP_MIN {
                report(Event::ClockJumped { by: jumped });
                // What was stored before may be older than our clock knows: a restored machine.
                self.cache.make_due(now);
            }
            if jumped >= JUMP_MIN || passed >= SLEEP_MIN {
                self.on_discontinuity(now);
            }
            (last, last_wall) = (now, wall);

            self.look_at_freeze(now);
            if watch {
                let config_now = self.config_seen();
                if config_now != config_seen {
                    self.clone().reload_aside().await;
                }
                config_seen = config_now;
            }
            // A reload may name others.
            let same = std::mem::replace(&mut files, self.files()) == files;
            if same && !is_told && !watched.is_deaf() && now.since(looked) < LOOK_AT_FILES_EVERY {
                continue;
            }
            looked = now;
            // Before they are looked at: what changes from here on is told.
            watched.follow(&files);
            let marks_now = files_seen(&files);
            if marks_now != marks {
                marks = marks_now;
                self.look_again();
            }
        }
    }

    pub(super) fn on_network_change(&self, change: Change) {
        let is_reach = matches!(change, Change::Reach(_));
        if let Change::Reach(what) = change {
            report(Event::NetworkChanged { what });
        }
        // Before servers are probed, since it may put other cells in place.
        self.look_again();
        if is_reach {
            self.on_discontinuity(clock::now());
        }
    }

    /// What was learned of servers may not hold any more.
    pub(super) fn on_discontinuity(&self, now: Moment) {
        for placed in &self.changing().placed {
            placed.cell.with(|group| group.on_discontinuity(now));
        }
    }

    /// Hosts files, and those that name the servers of `"system"`.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let changing = self.changing();
        let config = &changing.loaded.config;
        let system = config.system_files.iter().filter(|_| policy::names_system(config));
        config.local.hosts.iter().chain(system).cloned().collect()
    }

    pub(super) fn config_seen(&self) -> Option<FileMark> {
        let path = self.changing().loaded.path.clone()?;
        file_mark(&path)
    }

    /// Hosts files, resolv.conf or this node's networks changed: what follows from them is made anew under the same
    /// configuration.
    pub(super) fn look_again(&self) {
        let _alone = lock(&self.reloading);
        let config = self.changing().loaded.config.clone();
        let mut around = Surroundings::look(&config, self.state.as_deref(), &self.listening);
        let (same_system, same_hosts, same_own) = {
            let changing = self.changing();
            let old = &changing.around;
            // No address at all: the kernel was not to be asked. Who is local stays so.
            if around.own.addresses.is_empty() {
                around.own = old.own.clone();
            }
            (old.system.servers == around.system.servers, old.hosts == around.hosts, old.own == around.own)
        };
        let said = {
            let changing = self.changing();
            let (old, new) = (&changing.around, &around);
            old.system.from == new.system.from
                && old.system.remarks == new.system.remarks
                && old.remarks == new.remarks
        };
        if !said {
            say_surroundings(&around);
        }
        if same_system && same_hosts {
            // Cells stay, and the connections in them: on some nodes a pod comes or goes every few seconds.
            if !same_own && config.admit.allow.contains(&Allowed::Local) {
                let (old, placed) = (self.in_force.policy(), self.changing().placed.clone());
                let (policy, _same_remarks) = policy::over(&config, &around, &placed, Some(&old));
                self.in_force.replace(policy);
            }
            self.changing().around = around;
            return;
        }
        if !same_hosts {
            report(Event::HostsReloaded { files: around.hosts.len() });
        }
        if !same_system && !around.system.servers.is_empty() {
            let from = match &around.system.from {
                system::Origin::File(path) => path.display().to_string(),
                other => format!("{other:?}"),
            };
            report(Event::SystemUpstreamsChanged { servers: around.system.servers.clone(), from });
        }
        // A list that has become empty is not taken: the last one that was not is.
        if !same_system && around.system.servers.is_empty() {
            let kept = Surroundings { system: self.changing().around.system.clone(), ..around };
            self.apply(&config, kept);
        } else {
            self.apply(&config, around);
        }
    }

    pub(super) fn apply(&self, config: &Config, around: Surroundings) {
        let old = self.in_force.policy();
        let before = self.changing().placed.clone();
        let (policy, placed, remarks) =
            policy::build(config, &around, &before, Some(&old), &self.stamps, clock::now());
        remarks.iter().for_each(|remark| report(Event::HostsRemark { remark: remark.clone() }));
        {
            let mut changing = self.changing();
            changing.around = around;
            changing.remarks = remarks;
        }
        self.place(placed, &tokio::runtime::Handle::current());
        self.in_force.replace(policy);
    }

    /// A reload off the runtime's threads, since it reads and writes files and tells the supervisor.
    async fn reload_aside(self: Arc<Self>) {
        let _ = tokio::task::spawn_blocking(move || self.reload_now()).await;
    }

    /// Reads the configuration again and puts it in force, or refuses it whole. Says what there is to say. Blocks;
    /// within the runtime.
    pub(crate) fn reload_now(&self) -> Result<Vec<String>, String> {
        supervisor::reloading();
        let result = self.reload_alone();
        // Refused or not, we serve.
        supervisor::ready();
        result
    }

    pub(super) fn reload_alone(&self) -> Result<Vec<String>, String> {
        let _alone = lock(&self.reloading);
        let loaded = match self.source.load() {
            Ok(loaded) => loaded,
            Err(refused) => {
                let file = PathBuf::from(shown_path(refused.path.as_deref()));
                report(Event::ReloadRefused { file, reason: refused.in_one_line() });
                self.changing().last_reload_ok = false;
                return Err(refused.to_string());
            }
        };
        let config = loaded.config.clone();
        let needs_restart = self.changing().began_with.restart_differences(&config);
        let mut remarks: Vec<String> = loaded.warnings.iter().map(|w| remark_of(&loaded, w)).collect();
        remarks.extend(needs_restart.iter().map(|key| format!("{key} has changed: it takes a restart")));
        let file = PathBuf::from(shown_path(loaded.path.as_deref()));
        let around = Surroundings::look(&config, self.state.as_deref(), &self.listening);
        say_surroundings(&around);
        self.log.apply(&config.log);
        self.query_log.apply(&config.query_log);
        self.cache.guards().set(&config.guards);
        {
            let mut changing = self.changing();
            changing.loaded = loaded;
            changing.last_reload_ok = true;
        }
        self.apply(&config, around);
        self.canaries.place(&config.canaries);
        self.keep_accepted();
        report(Event::Reloaded { file, needs_restart: needs_restart.iter().map(|k| (*k).to_owned()).collect() });
        Ok(remarks)
    }
}

fn files_seen(files: &[PathBuf]) -> Vec<Option<FileMark>> {
    files.iter().map(|path| file_mark(path)).collect()
}

/// What tells that a file changed: device, inode, when it changed, bytes.
type FileMark = (u64, u64, (i64, i64), u64);

/// `None` where it is not there.
fn file_mark(path: &Path) -> Option<FileMark> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), (meta.ctime(), meta.ctime_nsec()), meta.len()))
}
