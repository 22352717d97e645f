//! The door as listeners use it: with the policy in force and the queue to the driver.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::policy::InForce;
use crate::cache::Cache;
use crate::cache::front::Front;
use crate::clock::{self, Moment};
use crate::driver::{Driver, HandedOver};
use crate::observe::metrics::Tally;
use crate::observe::query_log::{Answered, QueryLog};
use crate::serve::{Client, Door, Opening, Outcome, Prepared, ReplyTo, Service, Step};

/// One worker's, or one connection's, way in.
pub struct Worker {
    door: Door,
    in_force: Arc<InForce>,
    seen: u64,
    queue: mpsc::Sender<HandedOver>,
    driver: Arc<Driver>,
    log: Arc<QueryLog>,
    /// The last draw, of a generator that is good enough for a sample.
    draw: u32,
}

impl Worker {
    /// A way in; `front` is for those that stay.
    pub fn new(
        in_force: Arc<InForce>,
        cache: Arc<Cache>,
        front: Option<Front>,
        tally: Tally,
        queue: mpsc::Sender<HandedOver>,
        driver: Arc<Driver>,
        log: Arc<QueryLog>,
    ) -> Self {
        let door = Door::new(in_force.policy(), cache, front, tally);
        Self { door, in_force, seen: 0, queue, driver, log, draw: rand::random::<u32>() | 1 }
    }

    /// Xorshift (Marsaglia 2003): never 0, and every other number once a round.
    fn draw(&mut self) -> u32 {
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 17;
        self.draw ^= self.draw << 5;
        self.draw
    }

    fn log(&mut self, packet: &[u8], client: Client, reply: &[u8]) {
        let draw = self.draw();
        if self.log.takes(draw) {
            let (source, rcode) = self.door.last();
            let (transport, took) = (client.transport, Duration::ZERO);
            let answered = Answered { client: client.address, transport, query: packet, reply, source, rcode, took };
            self.log.offer(&answered);
        }
    }
}

impl Service for Worker {
    type Open = Box<Opening>;

    fn begin_batch(&mut self) {
        if let Some(policy) = self.in_force.newer_than(&mut self.seen) {
            self.door.set_policy(policy);
        }
    }

    fn prepare(&self, packet: &[u8]) -> Prepared {
        self.door.prepare(packet)
    }

    fn fetch(&self, prepared: Prepared, step: Step) {
        self.door.fetch(prepared, step);
    }

    fn serve(
        &mut self,
        packet: &[u8],
        prepared: Prepared,
        client: Client,
        out: &mut [u8],
        now: Moment,
    ) -> Outcome<Box<Opening>> {
        let outcome = self.door.serve_prepared(packet, prepared, client, out, now);
        if self.log.is_on() {
            match outcome {
                Outcome::Reply(n) | Outcome::ReplyAndOpen(n, _) => self.log(packet, client, &out[..n]),
                Outcome::Drop => self.log(packet, client, &[]),
                // The driver answers, and logs.
                Outcome::Open(_) => {}
            }
        }
        outcome
    }

    fn hand_over(&mut self, open: Box<Opening>, reply_to: Option<Box<dyn ReplyTo>>) {
        if reply_to.is_some() {
            self.driver.expect();
        }
        // A full queue is a limit of our own: who waits is told at once.
        if let Err(e) = self.queue.try_send((open, reply_to)) {
            let (open, reply_to) = e.into_inner();
            self.driver.turn_away(*open, reply_to, clock::now());
        }
    }
}
