//! The thread that writes the query log.
//!
//! A place that cannot be opened or written is told once, with why, and tried again after [`TRY_AGAIN`]; what comes
//! meanwhile is dropped and counted. What has been written is flushed whenever the queue is empty, and counted as
//! written then: what a full disk takes away was not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::place::Place;
use super::{Queued, Record, Shared, To, lock};
use crate::observe::event::{Event, report};

/// After a place could not be had.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// So many are flushed though the queue is never empty.
const HELD_MAX: u64 = 1024;

/// Starts it; it ends with the queue's other end, and tells `ended`.
pub(super) fn start(queue: Receiver<Queued>, shared: Arc<Shared>, ended: Sender<()>) -> io::Result<()> {
    thread::Builder::new().name("query-log".into()).spawn(move || {
        let mut writer = Writer { shared, applied: 0, place: None, held: 0, away_until: None };
        writer.run(&queue);
        // Nobody may wait for it.
        let _ = ended.send(());
    })?;
    Ok(())
}

struct Writer {
    shared: Arc<Shared>,
    /// Which settings `place` is of.
    applied: u64,
    place: Option<Place>,
    /// Written, and not flushed yet.
    held: u64,
    away_until: Option<Instant>,
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
            self.follow_settings();
            if let Queued::Record(record) = next {
                self.write(&record);
            }
        }
        self.close();
    }

    fn close(&mut self) {
        self.flush();
        if let Some(mut place) = self.place.take() {
            place.close();
        }
    }

    fn follow_settings(&mut self) {
        let applied = self.shared.applied.load(Relaxed);
        if applied != self.applied {
            self.applied = applied;
            self.close();
            self.away_until = None;
        }
    }

    fn write(&mut self, record: &Record) {
        if self.place.is_none() {
            self.open();
        }
        let Some(place) = &mut self.place else {
            self.shared.away.fetch_add(1, Relaxed);
            return;
        };
        match place.write(record) {
            Ok(true) => {
                self.held += 1;
                if self.held >= HELD_MAX {
                    self.flush();
                }
            }
            Ok(false) => {
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
                self.shared.written.fetch_add(std::mem::take(&mut self.held), Relaxed);
            }
            Some(Err(e)) => self.lose(&e),
        }
    }

    fn open(&mut self) {
        if self.away_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let Some(settings) = lock(&self.shared.settings).clone().filter(|s| s.to != To::Nowhere) else { return };
        match Place::open(&settings) {
            Ok(place) => {
                if self.away_until.take().is_some() {
                    report(Event::QueryLogBack { to: shown(&settings.to) });
                }
                self.place = Some(place);
            }
            Err(e) => self.lose(&e),
        }
    }

    /// The place is not to be had: told where that is new.
    fn lose(&mut self, error: &io::Error) {
        self.place = None;
        self.shared.away.fetch_add(std::mem::take(&mut self.held), Relaxed);
        if self.away_until.replace(Instant::now() + TRY_AGAIN).is_none() {
            let to = lock(&self.shared.settings).as_ref().map(|s| shown(&s.to)).unwrap_or_default();
            report(Event::QueryLogAway { to, reason: error.to_string() });
        }
    }
}

fn shown(to: &To) -> String {
    match to {
        To::Nowhere => String::new(),
        To::File(path) => path.display().to_string(),
        To::Journal => "the journal".to_owned(),
        To::Dnstap(path) => format!("the collector at {}", path.display()),
    }
}
