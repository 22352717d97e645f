//! The door as listeners use it: with the policy in force and the queue to the driver.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::policy::InForce;
use crate::cache::Cache;
use crate::cache::front::Front;
use crate::clock::{self, Moment};
use crate::driver::{Driver, HandedOver};
use crate::observe::metrics::Tally;
use crate::serve::{Client, Door, Opening, Outcome, Prepared, ReplyTo, Service, Step};

/// One worker's, or one connection's, way in.
pub struct Worker {
    door: Door,
    in_force: Arc<InForce>,
    seen: u64,
    queue: mpsc::Sender<HandedOver>,
    driver: Arc<Driver>,
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
    ) -> Self {
        Self { door: Door::new(in_force.policy(), cache, front, tally), in_force, seen: 0, queue, driver }
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
        self.door.serve_prepared(packet, prepared, client, out, now)
    }

    fn hand_over(&mut self, open: Box<Opening>, reply_to: Option<Box<dyn ReplyTo>>) {
        // A full queue is a limit of our own: who waits is told at once.
        if let Err(e) = self.queue.try_send((open, reply_to)) {
            let (open, reply_to) = e.into_inner();
            self.driver.turn_away(*open, reply_to, clock::now());
        }
    }
}
