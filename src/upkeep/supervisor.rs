//! What a supervisor is told: that we are ready, reload, live, end; and the sockets that it keeps over a restart.
//!
//! Not pure. The protocol is systemd's (sd_notify(3)): datagrams to `$NOTIFY_SOCKET`; without it everything here does
//! nothing. A datagram that cannot be sent is no reason to stop serving: it is dropped.
//!
//! - **Ready** once the own listeners have answered, by the check that `/healthz` makes.
//! - **Watchdog**: the same check, six times within `$WATCHDOG_USEC`, tells that we live. One of six will do, so that
//!   an overloaded machine is not restarted into a cold cache; an upstream has no say in it.
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
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::clock;
use crate::observe::liveness::Liveness;

/// Signs of life within the watchdog's time.
const SIGNS: u32 = 6;
/// Between two looks at own listeners that do not answer yet.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The sentence is told again when it has changed, this often at most.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// A supervisor that reads nothing holds us up this long.
const TELL_WITHIN: Duration = Duration::from_secs(1);
/// Characters of a sentence that are told.
const SENTENCE_MAX: usize = 500;

/// Is there a supervisor that listens?
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|place| !place.is_empty())
}

/// Takes sockets out of the store, by their names.
pub fn let_go(names: &[String]) {
    for name in names {
        tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }
}

/// Puts sockets into the store.
pub fn keep(opened: Vec<(String, OwnedFd)>) {
    for (name, socket) in opened {
        // An error that waits on a socket is no reason to let go of it: FDPOLL=0.
        tell_with(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), &[socket.as_fd()]);
    }
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_micros()));
}

/// We serve.
pub fn ready() {
    tell("READY=1");
}

/// We end.
pub fn stopping() {
    tell("STOPPING=1\nSTATUS=Ending: what is asked until then is answered.");
}

/// Tells that we are ready as soon as own listeners answer, then that we live, and `sentence` where it has changed.
/// Ends at once where there is no supervisor.
pub async fn run(liveness: Arc<dyn Liveness>, sentence: impl Fn() -> String + Send + Sync + 'static) {
    if !is_there() {
        return;
    }
    while liveness.check().await.is_err() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    ready();
    let signs = watchdog(|name| std::env::var(name).ok(), std::process::id()).map(|within| within / SIGNS);
    let every = signs.unwrap_or(SAY_EVERY).min(SAY_EVERY);
    let mut said = String::new();
    loop {
        let now = on_one_line(&sentence());
        let mut parts = Vec::new();
        if signs.is_some() && liveness.check().await.is_ok() {
            parts.push("WATCHDOG=1".to_owned());
        }
        if now != said {
            parts.push(format!("STATUS={now}"));
            said = now;
        }
        if !parts.is_empty() {
            // It may wait for the supervisor.
            let _ = tokio::task::spawn_blocking(move || tell(&parts.join("\n"))).await;
        }
        tokio::time::sleep(every).await;
    }
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

fn tell(state: &str) {
    tell_with(state, &[]);
}

/// Sends a datagram. One that cannot be sent is no reason to stop serving.
fn tell_with(state: &str, fds: &[BorrowedFd<'_>]) {
    if let Some(place) = std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) {
        let _ = send(&place, state, fds);
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
    sendmsg(&socket, &[IoSlice::new(state.as_bytes())], &mut beside, SendFlags::NOSIGNAL)?;
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
