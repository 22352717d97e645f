//! One file for each RFC that evenkeel claims, tests named by section: what stands there, seen from outside.

mod rfc1035;
mod rfc2181;
mod rfc2308;
mod rfc6761;
mod rfc6840;
mod rfc6891;
mod rfc7766;
mod rfc8020;
mod rfc8482;
mod rfc8767;
mod rfc8914;
mod rfc9520;
mod rfc9619;

use std::time::Duration;

use crate::support::client::exchange_udp;
use crate::support::daemon::Daemon;
use crate::support::scripted::Upstream;
use crate::support::zone::Zone;

/// Every name below test. has this address, for a minute.
const RIGHT: [[u8; 4]; 1] = [[192, 0, 2, 1]];

fn zone() -> Zone {
    Zone::new(".").any_below("test.", 60, "192.0.2.1")
}

/// An upstream with `zone`, and evenkeel on it.
fn over(zone: Zone) -> (Upstream, Daemon) {
    let upstream = Upstream::new(zone);
    let daemon = Daemon::over(&[upstream.address()]);
    (upstream, daemon)
}

/// What `packet` gets: the reply, or `None` where there is none while a question behind it is answered.
fn raw(daemon: &Daemon, packet: &[u8]) -> Option<Vec<u8>> {
    exchange_udp(daemon.address(), packet, Duration::from_millis(300)).ok()
}
