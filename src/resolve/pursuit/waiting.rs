//! Who waits for a pursuit, what can be given meanwhile, and when it is given.
//!
//! Pure. A waiter gets the stale answer when its patience is over or the group goes dark, and the failure at its
//! deadline; each exactly one answer.

use std::sync::Arc;
use std::time::Duration;

use super::{Pursuit, Step};
use crate::cache::entry::Entry;
use crate::cache::freshness::Standing;
use crate::cache::key::Question;
use crate::clock::Moment;
use crate::upstream::Group;

/// What a waiter gets.
#[derive(Clone, Debug)]
pub enum Answer {
    /// What the servers said.
    Fresh(Arc<Entry>),
    /// What they said before.
    Stale(Arc<Entry>),
    /// Nothing can be served.
    Failed {
        /// Our own INFO-CODE; none where the server's say it all.
        ede: Option<u16>,
        /// The server's own extended errors, encoded.
        kept_edes: Box<[u8]>,
    },
    /// The answer is too large for UDP, and TCP failed.
    Truncated,
}

/// A client that waits.
#[derive(Debug)]
pub struct Waiter<W> {
    /// The driver's way to it.
    pub way: W,
    /// It is answered by then.
    pub deadline: Moment,
    /// It gets the stale answer then; [`Moment::NEVER`] where there is none.
    pub stale_at: Moment,
}

impl<W> Pursuit<W> {
    /// Clients that wait.
    pub fn waiter_count(&self) -> usize {
        self.waiters.len()
    }

    /// What can be served stale, where nothing was known of it so far.
    pub fn offer_stale(&mut self, stale: Option<Arc<Entry>>) {
        if self.brief.stale.is_none() {
            self.brief.stale = stale;
        }
    }

    /// Can it be answered, and has it nothing to give where nobody answers?
    pub fn lacks_stale(&self) -> bool {
        self.is_open() && self.brief.stale.is_none()
    }

    /// What can be served has come after the question: who waits gets it once `wait` has passed since it began.
    pub fn offer_restored(&mut self, entry: Arc<Entry>, wait: Duration) {
        let stale_at = self.started + wait;
        self.waiters.iter_mut().for_each(|w| w.stale_at = w.stale_at.min(stale_at));
        self.brief.stale = Some(entry);
    }

    /// The last good answer that a guard protects, where nothing was known of it so far.
    pub fn offer_guarded(&mut self, look: impl FnOnce(&Question<'_>) -> Option<Arc<Entry>>) {
        if self.is_open() && self.brief.guarded.is_none() {
            self.brief.guarded = look(&self.brief.question.view());
        }
    }

    /// A client joins. The pursuit lasts as long as its last waiter's deadline, and at most twice the group's.
    pub fn join(&mut self, waiter: Waiter<W>) {
        self.ends = self.ends.max(waiter.deadline).min(self.ends_max);
        self.waiters.push(waiter);
    }

    pub(super) fn reply_to_all(&mut self, answer: Answer) {
        let all: Vec<W> = self.waiters.drain(..).map(|w| w.way).collect();
        if !all.is_empty() {
            self.steps.push_back(Step::Reply(all, answer));
        }
    }

    pub(super) fn servable(&self, group: &Group, now: Moment) -> Option<Arc<Entry>> {
        let max_age = group.max_age(now);
        self.brief
            .stale
            .clone()
            .filter(|e| e.data().is_some_and(|d| d.standing(max_age, Moment::ZERO, now) != Standing::Gone))
    }

    /// Waiters whose patience or deadline is over are answered.
    pub(super) fn answer_the_impatient(&mut self, group: &Group, now: Moment) {
        let dark = group.is_dark();
        let stale = self.servable(group, now);
        let (mut patient, mut impatient, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for w in self.waiters.drain(..) {
            match () {
                () if stale.is_some() && (now >= w.stale_at.min(w.deadline) || dark) => impatient.push(w.way),
                () if now >= w.deadline => late.push(w.way),
                () => patient.push(w),
            }
        }
        self.waiters = patient;
        if let Some(entry) = stale
            && !impatient.is_empty()
        {
            self.steps.push_back(Step::Reply(impatient, Answer::Stale(entry)));
        }
        if !late.is_empty() {
            let answer = if self.truncated {
                Answer::Truncated
            } else {
                Answer::Failed { ede: Some(self.reason().0), kept_edes: [].into() }
            };
            self.steps.push_back(Step::Reply(late, answer));
        }
    }
}
