//! What a supervisor is told: that we are ready, reload, live, end; and the sockets that it keeps over a restart.
//!
//! Not pure. The protocol is systemd's (sd_notify(3)): datagrams to `$NOTIFY_SOCKET`; without it everything here does
//! nothing. A datagram that cannot be sent is no reason to stop serving. READY alone is sent again until it is: a
//! supervisor that never hears it ends us.
//!
//! - **Ready** once the own listeners have answered, by the check that `/healthz` makes.
//! - **Watchdog**: the same check, six times within `$WATCHDOG_USEC`, tells that we live, where each listener has
//!   answered within half of it. One of six will do, so that an overloaded machine is not restarted into a cold cache;
//!   an upstream has no say in it. From SIGTERM on nothing is told any more: listeners close by and by.
//! - While the check fails, the log and the status sentence say why: who finds us restarted finds the reason.
//! - **Store**: sockets that we opened, with [`Sockets::opened`]'s names; what arrives while no process runs waits in
//!   their buffers. systemd drops what it has already, and everything when the service is stopped for good.
//!
//! [`Sockets::opened`]: crate::listen::socket::Sockets

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::clock;
use crate::observe::event::{Event, report};
use crate::observe::liveness::Liveness;

/// Signs of life within the watchdog's time.
const SIGNS: u32 = 6;
/// In the first moments it is no news that own listeners do not answer yet.
const NO_NEWS: Duration = Duration::from_secs(2);
/// Between two looks at own listeners that do not answer yet.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The sentence is told again when it has changed, this often at most.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// A supervisor that reads nothing holds us up this long.
const TELL_WITHIN: Duration = Duration::from_secs(1);
/// Characters of a sentence that are told.
const SENTENCE_MAX: usize = 500;

/// READY could not be sent, and is owed.
static OWED: AtomicBool = AtomicBool::new(false);

/// Is there a supervisor that listens?
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|place| !place.is_empty())
}

/// Takes sockets out of the store, by their names.
pub fn let_go(names: &[String]) {
    for name in names {
        let _ = tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }
}

/// Puts sockets into the store. One that does not get there is told of: what is asked during a restart is lost then.
pub fn keep(opened: Vec<(String, OwnedFd)>) {
    for (name, socket) in opened {
        // An error that waits on a socket is no reason to let go of it: FDPOLL=0.
        if let Err(e) = tell_with(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), &[socket.as_fd()]) {
            report(Event::SupervisorDeaf { reason: format!("to keep a socket over a restart ({name}): {e}") });
        }
    }
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    let _ = tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_micros()));
}

/// We serve. Where that cannot be told now, [`run`] tells it again.
pub fn ready() {
    let told = tell("READY=1");
    if let (Err(e), false) = (&told, OWED.swap(told.is_err(), Ordering::Relaxed)) {
        report(Event::SupervisorDeaf { reason: format!("that we are ready: {e}; trying again") });
    }
}

/// We end.
pub fn stopping() {
    let _ = tell("STOPPING=1\nSTATUS=Ending: what is asked until then is answered.");
}

/// Tells that we are ready as soon as own listeners answer, then that we live, and `sentence` where it has changed.
/// Ends at once where there is no supervisor, and where we end.
pub async fn run(
    liveness: Arc<dyn Liveness>,
    serves: Arc<AtomicBool>,
    sentence: impl Fn() -> String + Send + Sync + 'static,
) {
    if !is_there() {
        return;
    }
    let (began, mut said) = (clock::now(), Said::default());
    while let Err(reason) = liveness.check().await {
        if !serves.load(Ordering::Relaxed) {
            return;
        }
        if clock::now().since(began) >= NO_NEWS {
            tell_aside(said.changed(Err(reason))).await;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    ready_aside().await;
    let within = watchdog(|name| std::env::var(name).ok(), std::process::id());
    let mut turns = tokio::time::interval(within.map_or(SAY_EVERY, |within| (within / SIGNS).min(SAY_EVERY)));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if OWED.load(Ordering::Relaxed) {
            ready_aside().await;
        }
        let check = match within {
            Some(within) => liveness.check_over(within / 2).await,
            None => Ok(()),
        };
        if !serves.load(Ordering::Relaxed) {
            return;
        }
        let sign = (within.is_some() && check.is_ok()).then(|| "WATCHDOG=1".to_owned());
        let status = said.changed(check.map(|()| sentence()));
        tell_aside(sign.into_iter().chain(status)).await;
    }
}

/// What was said last of how things stand.
#[derive(Default)]
struct Said {
    status: String,
    is_silent: bool,
}

impl Said {
    /// The part of a datagram that says how things stand, where that has changed; the error is why own listeners do not
    /// answer, which the log is told once until they do.
    fn changed(&mut self, stands: Result<String, String>) -> Option<String> {
        let was_silent = std::mem::replace(&mut self.is_silent, stands.is_err());
        let sentence = stands.unwrap_or_else(|reason| {
            let sentence = format!("Own listeners do not answer: {reason}");
            if !was_silent {
                report(Event::OwnListenersSilent { reason });
            }
            sentence
        });
        let sentence = on_one_line(&sentence);
        (sentence != self.status).then(|| {
            self.status = sentence;
            format!("STATUS={}", self.status)
        })
    }
}

/// Tells these parts in one datagram, if there are any. Off the runtime's threads: it may wait for the supervisor.
async fn tell_aside(parts: impl IntoIterator<Item = String>) {
    let parts: Vec<String> = parts.into_iter().collect();
    if !parts.is_empty() {
        let _ = tokio::task::spawn_blocking(move || tell(&parts.join("\n"))).await;
    }
}

async fn ready_aside() {
    let _ = tokio::task::spawn_blocking(ready).await;
}

/// Within which time a sign of life is expected; `None` where it is not, or of another process.
fn watchdog(env: impl Fn(&str) -> Option<String>, own: u32) -> Option<Duration> {
    let micros: u64 = env("WATCHDOG_USEC")?.parse().ok()?;
    let is_ours = env("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(own));
    (is_ours && micros > 0).then(|| Duration::from_micros(micros))
}

fn on_one_line(sentence: &str) -> String {
    sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SENTENCE_MAX).collect()
}

fn tell(state: &str) -> io::Result<()> {
    tell_with(state, &[])
}

/// Sends a datagram, where there is somebody to send it to.
fn tell_with(state: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) {
        Some(place) => send(&place, state, fds),
        None => Ok(()),
    }
}

fn send(place: &OsStr, state: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    // A name that begins with @ is in the abstract name space (sd_notify(3)).
    let address = match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(place)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(TELL_WITHIN))?;
    socket.connect_addr(&address)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("one descriptor a datagram"));
    }
    let parts = [IoSlice::new(state.as_bytes())];
    retry_on_intr(|| sendmsg(&socket, &parts, &mut beside, SendFlags::NOSIGNAL))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdogs_time_is_read_where_it_is_ours() {
        let of = |micros: &'static str, pid: Option<&'static str>| {
            watchdog(move |name| if name == "WATCHDOG_USEC" { Some(micros.into()) } else { pid.map(Into::into) }, 7)
        };
        assert_eq!(of("30000000", None), Some(Duration::from_secs(30)));
        assert_eq!(of("30000000", Some("7")), Some(Duration::from_secs(30)));
        for (micros, pid) in [("30000000", Some("8")), ("30000000", Some("x")), ("0", None), ("x", None)] {
            assert_eq!(of(micros, pid), None, "{micros} {pid:?}");
        }
    }

    #[test]
    fn how_things_stand_is_said_where_it_has_changed() {
        let mut said = Said::default();
        let fine = || Ok("All is well.".to_owned());
        assert_eq!(said.changed(fine()).as_deref(), Some("STATUS=All is well."));
        assert_eq!(said.changed(fine()), None);
        let silent = || Err("127.0.0.1:53 over TCP: no answer".to_owned());
        let told = said.changed(silent()).unwrap();
        assert_eq!(told, "STATUS=Own listeners do not answer: 127.0.0.1:53 over TCP: no answer");
        assert_eq!(said.changed(silent()), None);
        assert!(said.is_silent);
        assert!(said.changed(fine()).is_some() && !said.is_silent);
    }

    #[test]
    fn a_sentence_stays_on_its_line() {
        assert_eq!(on_one_line("a\nREADY=1\tb"), "a READY=1 b");
        assert_eq!(on_one_line(&"x".repeat(1000)).len(), SENTENCE_MAX);
    }

    #[test]
    fn datagrams_go_to_paths_and_abstract_names_and_carry_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("evenkeel-test-{}-{}", std::process::id(), rand::random::<u32>());
        let abstract_place = SocketAddr::from_abstract_name(&name).unwrap();
        for (listener, place) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_place).unwrap(), format!("@{name}").into()),
        ] {
            let mut room = [0; 64];
            send(&place, "READY=1", &[]).unwrap();
            assert_eq!(listener.recv(&mut room).unwrap(), 7);
            send(&place, "FDSTORE=1", &[listener.as_fd()]).unwrap();
            assert_eq!(listener.recv(&mut room).unwrap(), 9);
        }
        assert!(send(OsStr::new("/nobody/there"), "READY=1", &[]).is_err());
    }
}
