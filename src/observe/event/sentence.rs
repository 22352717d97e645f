//! What each event says: one line.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Event;
use crate::cache::guard::table::GuardChange;

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

#[cfg(test)]
mod tests {
    use super::super::LogLevel;
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
