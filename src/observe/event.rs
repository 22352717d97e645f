//! Every fact that the program can report, once.
//!
//! Where something happens that an operator should know, an [`Event`] is made and handed to [`report`]: that writes
//! one log line and keeps it among the last hundred for status. An event has a level, a stable word, which is also
//! its name in JSON lines, and a sentence. No event holds a client's address, and none a DNS name but for those of
//! guards and canaries: they are few, and their operator asked to be told.
//!
//! Lines are limited where they are made: of one kind and subject (a server, a group, an address) at most
//! [`LINES_PER_MINUTE`] a minute. What is held back is counted, and the next line of the kind says how many.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::LogLevel;
use crate::cache::guard::table::GuardChange;
use crate::clock::{self, Moment};

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

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Started { version, workers } => write!(f, "evenkeel {version} started with {workers} UDP workers"),
            Event::Listening { address } => write!(f, "listening on {address}, UDP and TCP"),
            Event::ListenWaiting { address, reason } => {
                write!(f, "cannot listen on {address} yet: {reason}; trying again")
            }
            Event::UpstreamsChosen { group, servers } => write!(f, "group {group} asks {}", servers.join(", ")),
            Event::NoUpstreams { group } => {
                write!(
                    f,
                    "group {group} has no upstream; what is not local or in cache gets SERVFAIL; name a server in \
                     groups.{group}.primary or, for \"system\", in resolv.conf"
                )
            }
            Event::SystemUpstreamsChanged { servers, from } => {
                write!(f, "upstreams of the system by {from}: {}", Listed(servers))
            }
            Event::SystemUpstreamsRemembered { servers } => {
                write!(f, "the system names no upstream; going on with the last that it named: {}", Listed(servers))
            }
            Event::SystemRemark { remark } | Event::ConfigRemark { remark } | Event::HostsRemark { remark } => {
                f.write_str(remark)
            }
            Event::ServerSilent { group, server, last_answer_ago } => {
                write!(f, "{group}: {server} is silent: questions overdue, {}", LastAnswer(*last_answer_ago))
            }
            Event::ServerSpoke { group, server } => write!(f, "{group}: {server} spoke again"),
            Event::GroupDark { group } => {
                write!(f, "{group}: no server is fit; known names are answered stale, others asked a few a second")
            }
            Event::GroupHealed { group } => write!(f, "{group}: a server answers again"),
            Event::ServerLoops { group, server } => write!(
                f,
                "{group}: {server} forwards to evenkeel: it is left out; name the resolvers behind it instead"
            ),
            Event::ServerLoopsNoMore { group, server } => {
                write!(f, "{group}: {server} does not lead back to evenkeel any more: it is asked again")
            }
            Event::CanaryFails { canary, reason } => write!(f, "the canary {canary} fails: {reason}"),
            Event::CanarySucceeds { canary, failed_for } => {
                write!(f, "the canary {canary} succeeds, after {}", Span(*failed_for))
            }
            Event::FamilyBroken { group, family } => {
                write!(f, "{group}: nothing comes from any {family} server: they are left out until something does")
            }
            Event::FamilyWorks { group, family } => write!(f, "{group}: {family} servers answer again"),
            Event::AskAt { address } => {
                write!(f, "ask it: dig @{} -p {} example.org", address.ip(), address.port())
            }
            Event::ServerDown { group, server, reason, last_answer_ago } => {
                write!(f, "{group}: {server} is down: {reason}, {}", LastAnswer(*last_answer_ago))
            }
            Event::ServerUp { group, server, down_for: None } => write!(f, "{group}: {server} is up"),
            Event::ServerUp { group, server, down_for: Some(d) } => {
                write!(f, "{group}: {server} is up after {}", Span(*d))
            }
            Event::TierShift { group, from, to, why, last_answer_ago } => {
                write!(f, "{group}: tier {} → {}: {why}", Tier(*from), Tier(*to))?;
                match last_answer_ago {
                    Some(_) => write!(f, ", {}", LastAnswer(*last_answer_ago)),
                    None => Ok(()),
                }
            }
            Event::Reloaded { file, needs_restart } if needs_restart.is_empty() => {
                write!(f, "{} taken", file.display())
            }
            Event::Reloaded { file, needs_restart } => {
                write!(f, "{} taken; only a restart changes {}", file.display(), needs_restart.join(", "))
            }
            Event::ReloadRefused { file, reason } => {
                write!(f, "{} refused, the policy stays as it was: {reason}", file.display())
            }
            Event::ConfigFallback { file, reason } => {
                write!(f, "{} is unusable, serving by the last accepted copy: {reason}", file.display())
            }
            Event::HostsReloaded { files } => write!(f, "{files} hosts files read again"),
            Event::AdminListening { address } => write!(f, "status and metrics on http://{address}/"),
            Event::AdminUnavailable { address, reason } => {
                write!(f, "no status and metrics on {address}: {reason}; trying again")
            }
            Event::QueryLogAway { to, reason } => {
                write!(f, "the query log is not written to {to}: {reason}; trying again, and dropping meanwhile")
            }
            Event::QueryLogBack { to } => write!(f, "the query log is written to {to} again"),
            Event::ControlUnavailable { reason } => write!(f, "no control socket: {reason}; trying again"),
            Event::StateUnavailable { reason } => write!(f, "nothing is kept over a restart: {reason}"),
            Event::SupervisorDeaf { reason } => write!(f, "the supervisor cannot be told {reason}"),
            Event::OwnListenersSilent { reason } => {
                write!(f, "own listeners do not answer, and the supervisor is told so by silence: {reason}")
            }
            Event::LocalLimit { bound, group: None } => write!(f, "questions are refused: {bound} is reached"),
            Event::LocalLimit { bound, group: Some(group) } => {
                write!(f, "{group}: questions are refused: {bound} is reached")
            }
            Event::ClockJumped { by } => write!(f, "the clock jumped by {}", Span(*by)),
            Event::NetworkChanged { what } => write!(f, "the network changed ({what}): servers are probed at once"),
            Event::NetworkUnwatched { reason, look_every } => {
                write!(
                    f,
                    "the kernel does not tell of network changes: {reason}; looking every {}",
                    Span(*look_every)
                )
            }
            Event::Guard(GuardChange::Held(name, hold)) => write!(
                f,
                "{name} has suddenly no good answer any more: its last known good one is held for {}; \
                 `evenkeel release {name}` ends that",
                Span(*hold)
            ),
            Event::Guard(GuardChange::Good(name)) => {
                write!(f, "{name} has good answers again: it is not held any more")
            }
            Event::Guard(GuardChange::Gone(name)) => {
                write!(f, "{name} was held and still has no good answer: what upstreams say is taken")
            }
            Event::Guard(GuardChange::Released(name)) => {
                write!(f, "{name} is released: what upstreams say of it is taken")
            }
            Event::ServerSuspect { group, server } => write!(
                f,
                "{group}: {server} says of many names that they are gone, and others still have them: \
                 another server is asked too"
            ),
            Event::ServerSuspectNoMore { group, server } => {
                write!(f, "{group}: {server} is not suspected any more")
            }
            Event::Frozen { left, from_before } => write!(
                f,
                "frozen for {}{}: no tier moves up and nothing good is given up; `evenkeel thaw` ends that",
                Span(*left),
                if *from_before { " more, as it was before the restart" } else { "" }
            ),
            Event::Thawed { by_command: true } => f.write_str("thawed"),
            Event::Thawed { by_command: false } => f.write_str("the freeze has ended by itself"),
            Event::SnapshotRestored { entries, too_old, refused, no_room, age, took } => {
                write!(f, "{entries} answers restored from a snapshot of {} ago, in {}", Span(*age), Span(*took))?;
                if *too_old > 0 {
                    write!(f, "; {too_old} were too old")?;
                }
                if *refused > 0 {
                    write!(f, "; {refused} did not pass")?;
                }
                if *no_room > 0 {
                    write!(f, "; for {no_room} there was no room")?;
                }
                Ok(())
            }
            Event::SnapshotRefused { file, reason } => {
                write!(f, "{} is not read, the cache begins empty: {reason}", file.display())
            }
            Event::SnapshotFailed { file, reason } => {
                write!(f, "{} is not written, the one before stays: {reason}", file.display())
            }
            Event::Flushed { entries } => write!(f, "{entries} entries flushed"),
            Event::Draining { grace } => write!(f, "ending; answers go on for {}", Span(*grace)),
            Event::Ended { uptime } => write!(f, "ended after {}", Span(*uptime)),
        }
    }
}

struct Listed<'a>(&'a [SocketAddr]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(n, a)| write!(f, "{}{a}", if n == 0 { "" } else { ", " }))
    }
}

struct LastAnswer(Option<Duration>);

impl fmt::Display for LastAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("no answer yet"),
            Some(ago) => write!(f, "last answer {} ago", Span(ago)),
        }
    }
}

struct Tier(u8);

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("none") } else { write!(f, "{}", self.0) }
    }
}

/// A span as people say it: the greatest unit that fits, "350 ms", "4 s", "12 min", "3 h", "2 d".
#[derive(Clone, Copy, Debug)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 if !self.0.is_zero() => write!(f, "{} ms", self.0.as_millis()),
            s @ 0..120 => write!(f, "{s} s"),
            s @ 120..7200 => write!(f, "{} min", s / 60),
            s @ 7200..172_800 => write!(f, "{} h", s / 3600),
            s => write!(f, "{} d", s / 86_400),
        }
    }
}

//------------ Reporting ---------------------------------------------------------------------------------------------

/// Lines of one kind and subject in a minute.
pub const LINES_PER_MINUTE: u32 = 6;
/// Events that status shows.
pub const RECENT_MAX: usize = 100;
/// Kinds and subjects whose lines are counted; beyond it counting starts anew.
const SUBJECTS_MAX: usize = 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// An event as status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Seconds since 1970.
    pub unix: i64,
    /// Its level.
    pub level: &'static str,
    /// Its word.
    pub event: &'static str,
    /// Its sentence.
    pub text: String,
}

static REPORTER: LazyLock<Mutex<Reporter>> = LazyLock::new(Mutex::default);

/// Writes the event's line and keeps it for status, within its limit. Never waits for the log.
pub fn report(event: Event) {
    let line = reporter().admit(&event, clock::now(), clock::wall().0);
    let Some(line) = line else { return };
    let word = line.event;
    match event.level() {
        LogLevel::Error => tracing::error!(target: "evenkeel", event = word, "{}", line.text),
        LogLevel::Warn => tracing::warn!(target: "evenkeel", event = word, "{}", line.text),
        LogLevel::Info => tracing::info!(target: "evenkeel", event = word, "{}", line.text),
        LogLevel::Debug => tracing::debug!(target: "evenkeel", event = word, "{}", line.text),
        LogLevel::Trace => tracing::trace!(target: "evenkeel", event = word, "{}", line.text),
    }
}

/// The last events, the oldest first.
pub fn recent() -> Vec<Seen> {
    reporter().recent.iter().cloned().collect()
}

fn reporter() -> std::sync::MutexGuard<'static, Reporter> {
    // A panic between two lines leaves both tables whole.
    REPORTER.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Reporter {
    recent: VecDeque<Seen>,
    lines: HashMap<(&'static str, String), Lines>,
}

#[derive(Debug)]
struct Lines {
    since: Moment,
    written: u32,
    held_back: u32,
}

impl Reporter {
    /// The line to write; `None` where this kind has had its share of this minute.
    fn admit(&mut self, event: &Event, now: Moment, unix: i64) -> Option<Seen> {
        if self.lines.len() >= SUBJECTS_MAX {
            self.lines.clear();
        }
        let lines = self.lines.entry((event.word(), event.subject()));
        let lines = lines.or_insert(Lines { since: now, written: 0, held_back: 0 });
        if now.since(lines.since) >= MINUTE {
            (lines.since, lines.written) = (now, 0);
        }
        if lines.written >= LINES_PER_MINUTE {
            lines.held_back += 1;
            return None;
        }
        lines.written += 1;
        let mut text = event.to_string();
        if lines.held_back > 0 {
            text += &format!(" ({} lines like this were held back)", lines.held_back);
            lines.held_back = 0;
        }
        let seen = Seen { unix, level: event.level().word(), event: event.word(), text };
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(seen.clone());
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_in_one_line() {
        let s = Duration::from_secs;
        for (event, level, text) in [
            (shift(1, 2, Some(s(4))), LogLevel::Warn, "default: tier 1 → 2: all servers down, last answer 4 s ago"),
            (shift(2, 1, None), LogLevel::Info, "default: tier 2 → 1: all servers down"),
            (shift(0, 1, None), LogLevel::Info, "default: tier none → 1: all servers down"),
            (shift(3, 0, None), LogLevel::Warn, "default: tier 3 → none: all servers down"),
            (down(None), LogLevel::Warn, "default: 192.0.2.1 is down: silent, no answer yet"),
            (down(Some(s(300))), LogLevel::Warn, "default: 192.0.2.1 is down: silent, last answer 5 min ago"),
            (
                Event::SystemUpstreamsRemembered { servers: vec!["192.0.2.1:53".parse().unwrap()] },
                LogLevel::Warn,
                "the system names no upstream; going on with the last that it named: 192.0.2.1:53",
            ),
            (
                Event::NetworkChanged { what: "new: 192.0.2.7 on eth0".into() },
                LogLevel::Info,
                "the network changed (new: 192.0.2.7 on eth0): servers are probed at once",
            ),
            (
                Event::NetworkUnwatched { reason: "no".into(), look_every: s(10) },
                LogLevel::Warn,
                "the kernel does not tell of network changes: no; looking every 10 s",
            ),
            (
                Event::SnapshotRestored {
                    entries: 9,
                    too_old: 1,
                    refused: 0,
                    no_room: 2,
                    age: s(300),
                    took: Duration::from_millis(40),
                },
                LogLevel::Info,
                "9 answers restored from a snapshot of 5 min ago, in 40 ms; 1 were too old; for 2 there was no room",
            ),
            (
                Event::SnapshotRefused { file: "/s/cache.snapshot".into(), reason: "it is torn".into() },
                LogLevel::Warn,
                "/s/cache.snapshot is not read, the cache begins empty: it is torn",
            ),
            (
                Event::Reloaded { file: "/e.toml".into(), needs_restart: vec!["listen.dns".into()] },
                LogLevel::Info,
                "/e.toml taken; only a restart changes listen.dns",
            ),
        ] {
            assert_eq!((event.level(), event.to_string().as_str()), (level, text));
            assert!(!event.to_string().contains('\n'));
        }
    }

    #[test]
    fn spans_are_told_in_the_greatest_unit_that_fits() {
        for (ms, want) in [
            (0, "0 s"),
            (1, "1 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(Span(Duration::from_millis(ms)).to_string(), want);
        }
    }

    #[test]
    fn six_lines_a_minute_are_written_and_a_seventh_is_counted() {
        let mut reporter = Reporter::default();
        let start = Moment::from_secs(1000);
        let written = |r: &mut Reporter, at| (0..9).filter(|_| r.admit(&down(None), at, 0).is_some()).count();
        assert_eq!(written(&mut reporter, start), 6);
        assert_eq!(written(&mut reporter, start + Duration::from_secs(59)), 0);
        let line = reporter.admit(&down(None), start + MINUTE, 0).unwrap();
        assert!(line.text.ends_with("(12 lines like this were held back)"), "{}", line.text);
        let line = reporter.admit(&down(None), start + MINUTE, 0).unwrap();
        assert!(!line.text.contains("held back"));
    }

    #[test]
    fn one_server_does_not_silence_another() {
        let mut reporter = Reporter::default();
        (0..20).for_each(|_| drop(reporter.admit(&down(None), Moment::ZERO, 0)));
        let other =
            Event::ServerSilent { group: "default".into(), server: "192.0.2.2".into(), last_answer_ago: None };
        assert!(reporter.admit(&other, Moment::ZERO, 0).is_some());
    }

    #[test]
    fn the_last_hundred_are_kept() {
        let mut reporter = Reporter::default();
        for n in 0..5000u32 {
            let remark = format!("remark {n}");
            assert!(reporter.admit(&Event::ConfigRemark { remark }, Moment::ZERO, n.into()).is_some());
        }
        assert_eq!(reporter.recent.len(), RECENT_MAX);
        assert_eq!(reporter.recent.back().map(|s| s.text.as_str()), Some("remark 4999"));
        assert!(reporter.lines.len() <= SUBJECTS_MAX);
    }

    #[test]
    fn what_is_reported_stands_in_recent() {
        report(Event::Flushed { entries: 4711 });
        assert!(recent().iter().any(|s| s.event == "flushed" && s.text.contains("4711")));
    }

    fn shift(from: u8, to: u8, last_answer_ago: Option<Duration>) -> Event {
        Event::TierShift { group: "default".into(), from, to, why: "all servers down".into(), last_answer_ago }
    }

    fn down(last_answer_ago: Option<Duration>) -> Event {
        Event::ServerDown {
            group: "default".into(),
            server: "192.0.2.1".into(),
            reason: "silent".into(),
            last_answer_ago,
        }
    }
}
