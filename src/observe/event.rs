//! Every fact that the program can report, once.
//!
//! Where something happens that an operator should know, an [`Event`] is made and handed to [`report`]: that writes
//! one log line and keeps it among the last hundred for status. An event has a level, a stable word, which is also
//! its name in JSON lines, and a sentence. No event holds a client's address, and none a DNS name but for those of
//! guards and canaries: they are few, and their operator asked to be told.
//!
//! `sentence` has the sentences, `reporting` the lines and their limit.

mod reporting;
mod sentence;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::LogLevel;
use crate::cache::guard::table::GuardChange;

pub use reporting::{LINES_PER_MINUTE, RECENT_MAX, Seen, recent, report};
pub use sentence::Span;

/// A fact worth a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The process serves.
    Started {
        /// Its version.
        version: String,
        /// UDP workers.
        workers: usize,
    },
    /// DNS is listened for.
    Listening {
        /// Where.
        address: SocketAddr,
    },
    /// An address cannot be bound yet; it is tried again.
    ListenWaiting {
        /// Which.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A group has its servers.
    UpstreamsChosen {
        /// The group.
        group: String,
        /// Its servers, best tier first.
        servers: Vec<String>,
    },
    /// A group has no server at all.
    NoUpstreams {
        /// The group.
        group: String,
    },
    /// resolv.conf names other servers than before.
    SystemUpstreamsChanged {
        /// The servers.
        servers: Vec<SocketAddr>,
        /// The file.
        from: String,
    },
    /// No file names a server; the remembered ones are used.
    SystemUpstreamsRemembered {
        /// The servers.
        servers: Vec<SocketAddr>,
    },
    /// An entry of resolv.conf was left out, or a file could not be used.
    SystemRemark {
        /// What and why.
        remark: String,
    },
    /// A server gives no sign while questions are overdue.
    ServerSilent {
        /// Its group.
        group: String,
        /// Its name.
        server: String,
        /// Time since its last answer; `None` where it never gave one.
        last_answer_ago: Option<Duration>,
    },
    /// A silent server gave a sign before it was convicted.
    ServerSpoke {
        /// Its group.
        group: String,
        /// Its name.
        server: String,
    },
    /// No server of a group is fit: stale answers go out at once.
    GroupDark {
        /// The group.
        group: String,
    },
    /// A server of a group in the dark answered.
    GroupHealed {
        /// The group.
        group: String,
    },
    /// A server forwards to us, by whatever detour: it is left out.
    ServerLoops {
        /// Its group.
        group: String,
        /// Its name.
        server: String,
    },
    /// It does so no more.
    ServerLoopsNoMore {
        /// Its group.
        group: String,
        /// Its name.
        server: String,
    },
    /// A canary's answer is not as expected, or does not come.
    CanaryFails {
        /// Its name and type.
        canary: String,
        /// Why.
        reason: String,
    },
    /// It is as expected again.
    CanarySucceeds {
        /// Its name and type.
        canary: String,
        /// How long it was not.
        failed_for: Duration,
    },
    /// Nothing comes from any server of an address family of a group.
    FamilyBroken {
        /// The group.
        group: String,
        /// The family.
        family: String,
    },
    /// Something came from one.
    FamilyWorks {
        /// The group.
        group: String,
        /// The family.
        family: String,
    },
    /// How to ask.
    AskAt {
        /// An address that is listened on.
        address: SocketAddr,
    },
    /// A server was convicted.
    ServerDown {
        /// Its group.
        group: String,
        /// Its name.
        server: String,
        /// The word of the verdict.
        reason: String,
        /// Time since its last answer; `None` where it never gave one.
        last_answer_ago: Option<Duration>,
    },
    /// A server was acquitted.
    ServerUp {
        /// Its group.
        group: String,
        /// Its name.
        server: String,
        /// Time for which it was down.
        down_for: Option<Duration>,
    },
    /// A group uses another tier.
    TierShift {
        /// The group.
        group: String,
        /// The tier before, from 1; 0 where there was none.
        from: u8,
        /// The tier from here on, from 1; 0 is none.
        to: u8,
        /// The word of the reason.
        why: String,
        /// Time since the last answer of the tier that is left.
        last_answer_ago: Option<Duration>,
    },
    /// A configuration was taken.
    Reloaded {
        /// The file.
        file: PathBuf,
        /// Keys that hold only after a restart.
        needs_restart: Vec<String>,
    },
    /// A configuration was refused whole; the policy stays.
    ReloadRefused {
        /// The file.
        file: PathBuf,
        /// The first mistake, with its place.
        reason: String,
    },
    /// The configuration is unusable at start; the last accepted one is used.
    ConfigFallback {
        /// The file that was refused.
        file: PathBuf,
        /// The first mistake.
        reason: String,
    },
    /// A key has no effect, or another remark on the configuration.
    ConfigRemark {
        /// What.
        remark: String,
    },
    /// Hosts files were read again.
    HostsReloaded {
        /// How many files.
        files: usize,
    },
    /// A line of a hosts file was left out, or a file could not be read.
    HostsRemark {
        /// What and why.
        remark: String,
    },
    /// The admin listener answers.
    AdminListening {
        /// Where.
        address: SocketAddr,
    },
    /// The admin listener cannot be had; it is tried again.
    AdminUnavailable {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The control socket cannot be had; it is tried again.
    ControlUnavailable {
        /// Which places were tried, and what was in the way.
        reason: String,
    },
    /// The query log cannot be written; it is tried again, and what comes meanwhile is dropped.
    QueryLogAway {
        /// Where it goes.
        to: String,
        /// Why not.
        reason: String,
    },
    /// The query log is written again.
    QueryLogBack {
        /// Where it goes.
        to: String,
    },
    /// The supervisor cannot be told something, once for each reason; it is told again.
    SupervisorDeaf {
        /// What it is to be told, and what is in the way.
        reason: String,
    },
    /// Own listeners do not answer, so that no supervisor is told of readiness or life; once until they do again.
    OwnListenersSilent {
        /// Which one, and what came instead.
        reason: String,
    },
    /// Nothing can be kept in the state directory.
    StateUnavailable {
        /// Which place, and what is in the way.
        reason: String,
    },
    /// A bound of our own refused a question.
    LocalLimit {
        /// The word of the bound.
        bound: &'static str,
        /// The group, where the bound is a group's.
        group: Option<String>,
    },
    /// The wall clock jumped and no other clock did, or the machine slept.
    ClockJumped {
        /// By how much.
        by: Duration,
    },
    /// Own addresses or default routes are others than before.
    NetworkChanged {
        /// What came and what went.
        what: String,
    },
    /// The kernel does not tell of changes of the network.
    NetworkUnwatched {
        /// Why.
        reason: String,
        /// The pause between looks at it.
        look_every: Duration,
    },
    /// Something happened to a guarded name.
    Guard(GuardChange),
    /// A server says of many names that they are gone, and others still have them.
    ServerSuspect {
        /// Its group.
        group: String,
        /// Its name.
        server: String,
    },
    /// It has not done so for a while.
    ServerSuspectNoMore {
        /// Its group.
        group: String,
        /// Its name.
        server: String,
    },
    /// Nothing good is given up from here on.
    Frozen {
        /// For how long.
        left: Duration,
        /// Did an earlier process begin it?
        from_before: bool,
    },
    /// A freeze is over.
    Thawed {
        /// Did an operator end it?
        by_command: bool,
    },
    /// The cache of an earlier process is there again.
    SnapshotRestored {
        /// Entries that are.
        entries: u64,
        /// Entries that cannot be served any more.
        too_old: u64,
        /// Entries that did not pass.
        refused: u64,
        /// Entries for which there was no room.
        no_room: u64,
        /// Time since it was written.
        age: Duration,
        /// How long reading took.
        took: Duration,
    },
    /// A snapshot is there and was not read: the cache begins empty.
    SnapshotRefused {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A snapshot could not be written; the one before it stays.
    SnapshotFailed {
        /// The file.
        file: PathBuf,
        /// What was in the way.
        reason: String,
    },
    /// The cache was emptied, in part or whole, by command.
    Flushed {
        /// Entries that went.
        entries: u64,
    },
    /// The process was told to end and still answers.
    Draining {
        /// For this long.
        grace: Duration,
    },
    /// The process ends.
    Ended {
        /// How long it ran.
        uptime: Duration,
    },
}

impl Event {
    /// How loud it is.
    pub fn level(&self) -> LogLevel {
        match self {
            Event::ServerDown { .. }
            | Event::GroupDark { .. }
            | Event::NoUpstreams { .. }
            | Event::SystemUpstreamsRemembered { .. }
            | Event::SystemRemark { .. }
            | Event::ListenWaiting { .. }
            | Event::ConfigRemark { .. }
            | Event::HostsRemark { .. }
            | Event::AdminUnavailable { .. }
            | Event::ControlUnavailable { .. }
            | Event::QueryLogAway { .. }
            | Event::StateUnavailable { .. }
            | Event::SupervisorDeaf { .. }
            | Event::OwnListenersSilent { .. }
            | Event::SnapshotRefused { .. }
            | Event::SnapshotFailed { .. }
            | Event::LocalLimit { .. }
            | Event::ServerLoops { .. }
            | Event::ServerSuspect { .. }
            | Event::Guard(GuardChange::Held(..) | GuardChange::Gone(_))
            | Event::Frozen { .. }
            | Event::FamilyBroken { .. }
            | Event::CanaryFails { .. }
            | Event::NetworkUnwatched { .. }
            | Event::ClockJumped { .. } => LogLevel::Warn,
            Event::TierShift { from, to, .. } if *to == 0 || *to > *from && *from != 0 => LogLevel::Warn,
            Event::ReloadRefused { .. } | Event::ConfigFallback { .. } => LogLevel::Error,
            _ => LogLevel::Info,
        }
    }

    /// Its stable name.
    pub fn word(&self) -> &'static str {
        match self {
            Event::Started { .. } => "started",
            Event::Listening { .. } => "listening",
            Event::ListenWaiting { .. } => "listen_waiting",
            Event::UpstreamsChosen { .. } => "upstreams_chosen",
            Event::NoUpstreams { .. } => "no_upstreams",
            Event::SystemUpstreamsChanged { .. } => "system_upstreams_changed",
            Event::SystemUpstreamsRemembered { .. } => "system_upstreams_remembered",
            Event::SystemRemark { .. } => "system_remark",
            Event::ServerSilent { .. } => "server_silent",
            Event::ServerSpoke { .. } => "server_spoke",
            Event::GroupDark { .. } => "group_dark",
            Event::GroupHealed { .. } => "group_healed",
            Event::ServerLoops { .. } => "server_loops",
            Event::ServerLoopsNoMore { .. } => "server_loops_no_more",
            Event::CanaryFails { .. } => "canary_fails",
            Event::CanarySucceeds { .. } => "canary_succeeds",
            Event::FamilyBroken { .. } => "family_broken",
            Event::FamilyWorks { .. } => "family_works",
            Event::AskAt { .. } => "ask_at",
            Event::ServerDown { .. } => "server_down",
            Event::ServerUp { .. } => "server_up",
            Event::TierShift { .. } => "tier_shift",
            Event::Reloaded { .. } => "reloaded",
            Event::ReloadRefused { .. } => "reload_refused",
            Event::ConfigFallback { .. } => "config_fallback",
            Event::ConfigRemark { .. } => "config_remark",
            Event::HostsReloaded { .. } => "hosts_reloaded",
            Event::HostsRemark { .. } => "hosts_remark",
            Event::AdminListening { .. } => "admin_listening",
            Event::AdminUnavailable { .. } => "admin_unavailable",
            Event::ControlUnavailable { .. } => "control_unavailable",
            Event::QueryLogAway { .. } => "query_log_away",
            Event::QueryLogBack { .. } => "query_log_back",
            Event::StateUnavailable { .. } => "state_unavailable",
            Event::SupervisorDeaf { .. } => "supervisor_deaf",
            Event::OwnListenersSilent { .. } => "own_listeners_silent",
            Event::LocalLimit { .. } => "local_limit",
            Event::ClockJumped { .. } => "clock_jumped",
            Event::NetworkChanged { .. } => "network_changed",
            Event::NetworkUnwatched { .. } => "network_unwatched",
            Event::Guard(GuardChange::Held(..)) => "guard_held",
            Event::Guard(GuardChange::Good(_)) => "guard_good",
            Event::Guard(GuardChange::Gone(_)) => "guard_gone",
            Event::Guard(GuardChange::Released(_)) => "guard_released",
            Event::ServerSuspect { .. } => "server_suspect",
            Event::ServerSuspectNoMore { .. } => "server_suspect_no_more",
            Event::Frozen { .. } => "frozen",
            Event::Thawed { .. } => "thawed",
            Event::SnapshotRestored { .. } => "snapshot_restored",
            Event::SnapshotRefused { .. } => "snapshot_refused",
            Event::SnapshotFailed { .. } => "snapshot_failed",
            Event::Flushed { .. } => "flushed",
            Event::Draining { .. } => "draining",
            Event::Ended { .. } => "ended",
        }
    }

    /// Whom it is about, for the limit of lines; empty where there is only one.
    fn subject(&self) -> String {
        match self {
            Event::Listening { address }
            | Event::ListenWaiting { address, .. }
            | Event::AdminListening { address }
            | Event::AdminUnavailable { address, .. } => address.to_string(),
            Event::UpstreamsChosen { group, .. }
            | Event::NoUpstreams { group }
            | Event::GroupDark { group }
            | Event::GroupHealed { group }
            | Event::FamilyBroken { group, .. }
            | Event::FamilyWorks { group, .. }
            | Event::TierShift { group, .. } => group.clone(),
            Event::ServerSilent { group, server, .. }
            | Event::ServerSpoke { group, server }
            | Event::ServerLoops { group, server }
            | Event::ServerLoopsNoMore { group, server }
            | Event::ServerSuspect { group, server }
            | Event::ServerSuspectNoMore { group, server }
            | Event::ServerDown { group, server, .. }
            | Event::ServerUp { group, server, .. } => format!("{group} {server}"),
            Event::CanaryFails { canary, .. } | Event::CanarySucceeds { canary, .. } => canary.clone(),
            Event::SystemRemark { remark } | Event::ConfigRemark { remark } | Event::HostsRemark { remark } => {
                remark.clone()
            }
            Event::Guard(
                GuardChange::Held(name, _)
                | GuardChange::Good(name)
                | GuardChange::Gone(name)
                | GuardChange::Released(name),
            ) => name.to_string(),
            Event::LocalLimit { bound, group } => format!("{bound} {}", group.as_deref().unwrap_or("")),
            _ => String::new(),
        }
    }
}
