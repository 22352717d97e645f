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

use crate::clock::{self, Moment};
use crate::driver::Cell;
use crate::transport::{Asked, Failure};
use crate::upstream::group::AskKind;
use crate::upstream::health::Probe;
use crate::upstream::probing::Probing;
use crate::upstream::{Protocol, ServerId};
use crate::wire::{Name, build, rcode, reply, rtype};

/// How often a group is weighed: what is due is late by no more than this.
const TURN: Duration = Duration::from_millis(200);
/// And where all is well and nobody asks: an idle process wakes as seldom as it can.
const REST_MAX: Duration = Duration::from_secs(1);

/// Probes the servers of `cell` until `retired` is set.
pub async fn run(cell: Arc<Cell>, retired: Arc<AtomicBool>) {
    while !retired.load(Ordering::Relaxed) {
        let now = clock::now();
        let (due, loops) = cell.with(|group| {
            group.weigh(now);
            (group.probes_due(rand::random(), now), group.loop_probes_due(&mut rand::random, now))
        });
        for probing in due {
            tokio::spawn(probe(cell.clone(), probing));
        }
        for (server, name) in loops {
            tokio::spawn(ask_for_loop(cell.clone(), server, name));
        }
        let now = clock::now();
        let pause = cell.rests_until(now).map_or(TURN, |until| now.until(until).clamp(TURN, REST_MAX));
        let _ = tokio::time::timeout(pause, cell.probe_wanted.notified()).await;
    }
}

async fn probe(cell: Arc<Cell>, probing: Probing) {
    let Probing { server, name, qtype, is_copy } = probing;
    let begun = clock::now();
    let (timeout, with_edns, protocol) = sent(&cell, server, begun);
    let mut outcome = ask(&cell, server, (&name, qtype), (protocol, with_edns), timeout).await;
    // Who refuses OPT is asked without, as a client's question is.
    if with_edns
        && outcome.as_ref().is_ok_and(|bytes| refuses_edns(bytes))
        && cell.with(|group| group.allows_packet(server, clock::now()))
    {
        outcome = ask(&cell, server, (&name, qtype), (protocol, false), timeout).await;
    }
    let probe = match outcome {
        Ok(bytes) => judge(&bytes),
        Err(Failure::HeaderOnly(_)) => Probe::Inconclusive,
        // A limit of our own says nothing about the server.
        Err(Failure::Local) => return,
        Err(_) => Probe::Failed,
    };
    let now = clock::now();
    cell.with(|group| match is_copy {
        true if probe == Probe::Inconclusive => {
            group.on_packet(server, now);
            group.on_copy(server, None, now);
        }
        true => group.on_copy(server, (probe == Probe::Passed).then(|| now.since(begun)), now),
        false => group.on_probe(server, probe, begun, now),
    });
}

/// Its answer says nothing; what counts is whether the question comes in at our own door.
async fn ask_for_loop(cell: Arc<Cell>, server: ServerId, name: Name) {
    let (timeout, with_edns, protocol) = sent(&cell, server, clock::now());
    let _ = ask(&cell, server, (&name, rtype::NS), (protocol, with_edns), timeout).await;
}

fn sent(cell: &Cell, server: ServerId, now: Moment) -> (Duration, bool, Protocol) {
    cell.with(|group| {
        group.on_sent(server, AskKind::Probe, now);
        (group.settings().health.timeout, group.takes_edns(server, now), group.server(server).settings.protocol)
    })
}

async fn ask(
    cell: &Cell,
    server: ServerId,
    (name, qtype): (&Name, u16),
    (protocol, with_edns): (Protocol, bool),
    timeout: Duration,
) -> Result<Vec<u8>, Failure> {
    let asked = Asked {
        name: name.as_wire().into(),
        qtype,
        packet: build::question(name.as_wire(), qtype, false, false, with_edns),
    };
    cell.endpoint(server).ask(protocol, &asked, Instant::now() + timeout).await.map(|received| received.bytes)
}

fn refuses_edns(packet: &[u8]) -> bool {
    packet.get(3).is_some_and(|flags| matches!(u16::from(flags & 15), rcode::FORMERR | rcode::NOTIMP))
}

/// What a reply to a probe says. A truncated one passes by its RCODE: its body is not looked at.
pub fn judge(packet: &[u8]) -> Probe {
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
