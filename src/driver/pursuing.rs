//! One pursuit under way: its steps carried out, what came handed to it, its time kept.
//!
//! Not pure: sockets, the clock, the store. A pursuit has no task of its own: whoever has something for it, the task
//! that reads a port, the one that keeps its cell's time, the one that opened it, carries out what follows.
//!
//! - Its lock is held while its steps are carried out, so that they are in order; the desk's, a port's and the timers'
//!   are taken under it, never the other way round, and never that of another pursuit: who is told something is left
//!   to the task that keeps the time.
//! - An attempt is out until something is heard, until its time, or until the pursuit is over. What is heard of one
//!   that is not out any more is dropped.
//! - Questions over TCP have a task each: a connection may have to be opened first.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::cell::Cell;
use super::timers::Due;
use super::{Driver, lock};
use crate::cache::key::{Key, OwnedQuestion};
use crate::clock::{self, Moment};
use crate::resolve::desk::PursuitId;
use crate::resolve::pursuit::{Ask, AttemptId, Failed, Step};
use crate::resolve::vet::{self, Fault, Verdict};
use crate::transport::{Asked, Failure as Unanswered, Heard, Place, Received};
use crate::upstream::{Protocol, ServerId};
use crate::wire::{build, rcode};

/// A pursuit under way.
pub(super) struct Running {
    pub(super) cell: Arc<Cell>,
    pub(super) id: PursuitId,
    key: Key,
    question: Arc<OwnedQuestion>,
    state: Mutex<State>,
}

struct State {
    out: Vec<Out>,
    /// When it wants to be looked at.
    wakes: Moment,
    /// The earliest time that is set for it.
    set: Moment,
    over: bool,
}

/// An attempt that is out.
struct Out {
    attempt: AttemptId,
    server: ServerId,
    until: Moment,
    _held: Held,
}

/// Ends the attempt when it is dropped.
enum Held {
    Port { _place: Place },
    Connection(AbortHandle),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Held::Connection(task) = self {
            task.abort();
        }
    }
}

/// What came of an attempt.
type Came = (AttemptId, Verdict);

impl Running {
    pub(super) fn new(cell: Arc<Cell>, id: PursuitId, key: Key, question: Arc<OwnedQuestion>) -> Self {
        let state = State { out: Vec::new(), wakes: Moment::ZERO, set: Moment::NEVER, over: false };
        Self { cell, id, key, question, state: Mutex::new(state) }
    }
}

impl Driver {
    /// Carries out what is to be done now for a pursuit. Called within the tokio runtime, with no lock held.
    pub(super) fn advance(self: &Arc<Self>, running: &Arc<Running>) {
        self.take_steps(running, &mut lock(&running.state), Vec::new(), clock::now());
    }

    /// Keeps the time of a cell's pursuits until none is under way.
    async fn keep_time(self: Arc<Self>, cell: Arc<Cell>) {
        let mut due = Vec::new();
        loop {
            cell.timers.take_due(clock::now(), &mut due);
            for (n, due) in due.drain(..).enumerate() {
                // In the dark all of them are told at once: others get their turn meanwhile.
                if n % TOLD_AT_A_TIME == TOLD_AT_A_TIME - 1 {
                    tokio::task::yield_now().await;
                }
                if let Some(running) = cell.running(due.id) {
                    self.on_time(&running, due);
                }
            }
            let Some(next) = cell.timers.next_or_end() else { return };
            tokio::select! {
                () = tokio::time::sleep(clock::now().until(next)) => {}
                () = cell.timers.earlier() => {}
            }
        }
    }

    fn on_time(self: &Arc<Self>, running: &Arc<Running>, due: Due) {
        let mut state = lock(&running.state);
        if !due.told {
            state.set = Moment::NEVER;
        }
        let now = clock::now();
        if due.told || state.wakes <= now {
            self.take_steps(running, &mut state, Vec::new(), now);
        } else {
            // It has been put off since this time was set.
            self.set_time(running, &mut state);
        }
    }

    /// What was heard of an attempt over either protocol.
    fn on_heard(self: &Arc<Self>, running: &Arc<Running>, ask: &Ask, heard: Result<Received, Unanswered>) {
        let now = clock::now();
        let verdict = match heard {
            Ok(received) => {
                let terms = running.cell.terms(ask.server, received.over_tcp, ask.with_edns);
                vet::vet(&received.bytes, &running.question.view(), terms, now)
            }
            Err(failure) => unanswered(failure, ask.with_edns),
        };
        let mut state = lock(&running.state);
        let Some(at) = state.out.iter().position(|out| out.attempt == ask.attempt) else { return };
        state.out.swap_remove(at);
        running.count(ask.server, &verdict);
        self.take_steps(running, &mut state, vec![(ask.attempt, verdict)], now);
    }

    fn take_steps(self: &Arc<Self>, running: &Arc<Running>, state: &mut State, mut came: Vec<Came>, now: Moment) {
        while !state.over {
            for out in state.out.extract_if(.., |out| out.until <= now) {
                let verdict = Verdict::Fault(Fault::TimedOut);
                running.count(out.server, &verdict);
                came.push((out.attempt, verdict));
            }
            let steps = running.cell.with_desk(|desk| {
                came.drain(..).for_each(|(attempt, verdict)| desk.on_verdict(running.id, attempt, verdict, now));
                desk.next(running.id, &mut rand::random::<f64>, now)
            });
            for step in steps {
                match step {
                    Step::Ask(ask) => came.extend(self.ask(running, state, ask)),
                    Step::Reply(ways, answer) => {
                        ROOM.with_borrow_mut(|room| {
                            ways.into_iter().for_each(|w| self.answer(w, &answer, room, now))
                        });
                    }
                    Step::Keep(entry) => {
                        let max_age = running.cell.max_age(now);
                        self.cache.keep(running.key, &running.question.view(), entry, max_age, now);
                        self.tell_of_guards();
                    }
                    Step::Hold => {
                        self.cache.guards().hold(running.key, &running.question.view(), now);
                        self.tell_of_guards();
                    }
                    Step::Remember(failed) => self.remember(running, failed, now),
                    Step::Tell(other) => running.cell.timers.tell(other),
                    Step::Wait(at) => state.wakes = at,
                    Step::Done => state.over = true,
                }
            }
            if came.is_empty() {
                break;
            }
        }
        if state.over {
            state.out.clear();
            running.cell.unlist(running.id);
        } else {
            state.wakes = state.out.iter().map(|out| out.until).fold(state.wakes, Moment::min);
            self.set_time(running, state);
        }
    }

    /// Sees to it that it is looked at in time.
    fn set_time(self: &Arc<Self>, running: &Arc<Running>, state: &mut State) {
        if state.wakes >= state.set {
            return;
        }
        state.set = state.wakes;
        if running.cell.timers.set(running.id, state.wakes) {
            tokio::spawn(self.clone().keep_time(running.cell.clone()));
        }
    }

    /// Asks a server once; what can be said at once is returned.
    fn ask(self: &Arc<Self>, running: &Arc<Running>, state: &mut State, ask: Ask) -> Option<Came> {
        let question = running.question.view();
        let mut asked = Asked {
            name: question.name.into(),
            qtype: question.qtype,
            packet: build::question(question.name, question.qtype, question.dnssec_ok, question.cd, ask.with_edns),
        };
        let (attempt, server, until, with_edns) = (ask.attempt, ask.server, ask.until, ask.with_edns);
        let (driver, pursuit) = (self.clone(), running.clone());
        let held = if ask.over_tcp || running.cell.protocol(server) == Protocol::Tcp {
            let deadline = Instant::now() + clock::now().until(until);
            let task = tokio::spawn(async move {
                let heard = pursuit.cell.endpoint(server).ask_tcp(&asked, deadline).await;
                driver.on_heard(&pursuit, &ask, heard);
            });
            Held::Connection(task.abort_handle())
        } else {
            let heard: Heard = Box::new(move |heard| driver.on_heard(&pursuit, &ask, heard));
            match running.cell.endpoint(server).send_udp(&mut asked, heard) {
                Ok(_place) => Held::Port { _place },
                Err(failure) => {
                    let verdict = unanswered(failure, with_edns);
                    running.count(server, &verdict);
                    return Some((attempt, verdict));
                }
            }
        };
        state.out.push(Out { attempt, server, until, _held: held });
        None
    }

    fn remember(&self, running: &Running, failed: Failed, now: Moment) {
        let (stamp, healings) = (running.cell.stamp, running.cell.outlook.healings());
        let question = running.question.view();
        self.cache.remember(running.key, &question, (failed.ede, failed.kept_edes), (stamp, healings), now);
    }
}

impl Running {
    fn count(&self, server: ServerId, verdict: &Verdict) {
        if let Verdict::Fault(fault) = verdict {
            self.cell.count(server, *fault);
        }
    }
}

/// What the transport's failure means to a pursuit.
pub fn unanswered(failure: Unanswered, with_edns: bool) -> Verdict {
    Verdict::Fault(match failure {
        Unanswered::Refused => Fault::PortClosed,
        Unanswered::Unreachable => Fault::Unreachable,
        Unanswered::TimedOut => Fault::TimedOut,
        Unanswered::Mismatched => Fault::Mismatched,
        Unanswered::HeaderOnly(rcode::FORMERR | rcode::NOTIMP) if with_edns => return Verdict::NoEdns,
        Unanswered::HeaderOnly(rcode::SERVFAIL) => Fault::ServFail,
        Unanswered::HeaderOnly(_) => Fault::Refused,
        Unanswered::Closed => Fault::Closed,
        Unanswered::Local => Fault::Local,
    })
}

/// Pursuits that are looked at before another task has its turn.
const TOLD_AT_A_TIME: usize = 64;

thread_local! {
    /// Where a reply is put together.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
