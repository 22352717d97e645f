//! The thread that writes the query log.
//!
//! A place that cannot be opened or written is told once, with why, and tried again after [`TRY_AGAIN`]; what comes
//! meanwhile is dropped and counted. That it is written again is told once something has been. What has been written is
//! flushed whenever the queue is empty, and counted then: what a full disk takes away was not written.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::place::{Place, Taken, in_words, shown};
use super::{Applied, QueryLogSettings, Queued, Record, Shared, To, lock};
use crate::observe::event::{Event, report};

/// After a place could not be had.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Starts it; it ends with the queue's other end, and tells `ended`.
pub(super) fn start(queue: Receiver<Queued>, shared: Arc<Shared>, ended: Sender<()>) -> io::Result<()> {
    thread::Builder::new().name("query-log".into()).spawn(move || {
        let mut writer =
            Writer { shared, turn: 0, settings: None, place: None, held: 0, away_until: None, told_away: None };
        writer.run(&queue);
        // Nobody may wait for it.
        let _ = ended.send(());
    })?;
    Ok(())
}

struct Writer {
    shared: Arc<Shared>,
    /// Which settings `settings` are.
    turn: u64,
    /// `None` where they lead nowhere.
    settings: Option<QueryLogSettings>,
    place: Option<Place>,
    /// Written, and not flushed yet.
    held: u64,
    away_until: Option<Instant>,
    /// The place that was told to be away, until it has been written again.
    told_away: Option<String>,
}

impl Writer {
    fn run(&mut self, queue: &Receiver<Queued>) {
        loop {
            let next = match queue.try_recv() {
                Ok(next) => next,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    self.flush();
                    match queue.recv() {
                        Ok(next) => next,
                        Err(_) => break,
                    }
                }
            };
            match next {
                Queued::Settings(applied) => self.follow(applied),
                Queued::Record(record) => {
                    self.shared.queued.fetch_sub(1, Relaxed);
                    if self.shared.is_urgent.swap(false, Relaxed) {
                        let urgent = lock(&self.shared.urgent).take();
                        urgent.into_iter().for_each(|applied| self.follow(applied));
                    }
                    self.write(&record);
                }
            }
        }
        self.close();
    }

    /// Takes up new settings. A mistake in them is told now, and not at the first question.
    fn follow(&mut self, applied: Applied) {
        if applied.turn < self.turn {
            return;
        }
        self.close();
        self.turn = applied.turn;
        self.settings = Some(*applied.settings).filter(|s| s.to != To::Nowhere);
        self.away_until = None;
        self.open();
    }

    fn write(&mut self, record: &Record) {
        if self.place.as_mut().is_some_and(Place::was_moved) {
            self.close();
        }
        if self.place.is_none() {
            self.open();
        }
        let Some(place) = &mut self.place else {
            // Switched off meanwhile is no loss.
            self.shared.away.fetch_add(u64::from(self.settings.is_some()), Relaxed);
            return;
        };
        match place.write(record) {
            Ok(Taken::Sent) => self.count(1),
            Ok(Taken::Held) => self.held += 1,
            Ok(Taken::HeldFull) => {
                self.held += 1;
                self.flush();
            }
            Ok(Taken::Not) => {
                self.shared.away.fetch_add(1, Relaxed);
            }
            Err(e) => {
                self.shared.away.fetch_add(1, Relaxed);
                self.lose(&e);
            }
        }
    }

    fn flush(&mut self) {
        match self.place.as_mut().map(Place::flush) {
            None => {}
            Some(Ok(())) => {
                let held = std::mem::take(&mut self.held);
                self.count(held);
            }
            Some(Err(e)) => self.lose(&e),
        }
    }

    fn count(&mut self, written: u64) {
        self.shared.written.fetch_add(written, Relaxed);
        if written > 0
            && let Some(away) = self.told_away.take()
            && self.place.as_ref().is_some_and(|place| place.name == away)
        {
            report(Event::QueryLogBack { to: away });
        }
    }

    fn close(&mut self) {
        self.flush();
        if let Some(mut place) = self.place.take() {
            place.close();
        }
    }

    fn open(&mut self) {
        if self.away_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let Some(settings) = &self.settings else { return };
        match Place::open(settings) {
            Ok(place) => {
                self.away_until = None;
                self.place = Some(place);
            }
            Err(e) => self.lose(&e),
        }
    }

    /// The place is not to be had: told where that is new. Of what was held a part may have been written.
    fn lose(&mut self, error: &io::Error) {
        let gone = self.place.take().map(|place| place.name);
        let Some(to) = gone.or_else(|| self.settings.as_ref().map(|s| shown(&s.to))) else { return };
        self.shared.away.fetch_add(std::mem::take(&mut self.held), Relaxed);
        self.away_until = Some(Instant::now() + TRY_AGAIN);
        if self.told_away.as_ref() != Some(&to) {
            report(Event::QueryLogAway { to: to.clone(), reason: in_words(error) });
            self.told_away = Some(to);
        }
    }
}
