//! Probes, and the conclusions that time alone brings.
//!
//! Not pure: one task for each cell. It decides nothing: the group says who is due ([`Group::probes_due`]), the
//! question goes over the same transport and with the same options as live ones, and what came is told to the group.
//!
//! [`Group::probes_due`]: crate::upstream::Group::probes_due

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::driver::Cell;
use crate::transport::{Asked, Failure};
use crate::upstream::ServerId;
use crate::upstream::group::AskKind;
use crate::upstream::health::Probe;
use crate::wire::{build, rcode, reply};

/// How often a group is weighed: what is due is late by no more than this.
const TURN: Duration = Duration::from_millis(200);

/// Probes the servers of `cell` until `retired` is set.
pub async fn run(cell: Arc<Cell>, retired: Arc<AtomicBool>) {
    while !retired.load(Ordering::Relaxed) {
        let now = clock::now();
        let due = cell.with(|group| {
            group.weigh(now);
            group.probes_due(rand::random(), now)
        });
        for (server, which) in due {
            tokio::spawn(probe(cell.clone(), server, which));
        }
        tokio::time::sleep(TURN).await;
    }
}

async fn probe(cell: Arc<Cell>, server: ServerId, which: usize) {
    let now = clock::now();
    let plan = cell.with(|group| {
        let health = &group.settings().health;
        let (name, qtype) = health.probes.get(which)?.clone();
        let timeout = health.timeout;
        group.on_sent(server, AskKind::Probe, now);
        let with_edns = group.takes_edns(server, now);
        Some((name, qtype, timeout, with_edns, group.server(server).settings.protocol))
    });
    let Some((name, qtype, timeout, with_edns, protocol)) = plan else { return };
    let asked = Asked {
        name: name.as_wire().into(),
        qtype,
        packet: build::question(name.as_wire(), qtype, false, false, with_edns),
    };
    let endpoint = cell.endpoint(server);
    let probe = match endpoint.ask(protocol, &asked, Instant::now() + timeout).await {
        Ok(received) => judge(&received.bytes),
        Err(Failure::HeaderOnly(_)) => Probe::Inconclusive,
        // A limit of our own says nothing about the server.
        Err(Failure::Local) => return,
        Err(_) => Probe::Failed,
    };
    cell.with(|group| group.on_probe(server, probe, clock::now()));
}

/// What a reply to a probe says. A truncated one passes by its RCODE: its body is not looked at.
fn judge(packet: &[u8]) -> Probe {
    let code = match reply::check(packet) {
        Ok(reply) => reply.rcode(),
        Err(_) if reply::is_truncated(packet) => u16::from(packet[3] & 15),
        Err(_) => return Probe::Failed,
    };
    if matches!(code, rcode::NOERROR | rcode::NXDOMAIN) { Probe::Passed } else { Probe::Inconclusive }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noerror_and_nxdomain_pass_and_other_codes_are_inconclusive_and_noise_fails() {
        let mut packet = build::question(&[0], 2, false, false, false);
        packet[2] |= 0x80;
        for (code, want) in [
            (0, Probe::Passed),
            (3, Probe::Passed),
            (1, Probe::Inconclusive),
            (2, Probe::Inconclusive),
            (5, Probe::Inconclusive),
        ] {
            packet[3] = code;
            assert_eq!(judge(&packet), want, "{code}");
        }
        packet[3] = 0;
        packet.pop();
        assert_eq!(judge(&packet), Probe::Failed);
        packet[2] |= 2;
        assert_eq!(judge(&packet), Probe::Passed, "cut, and says so");
    }
}
