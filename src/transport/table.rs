//! The questions under way on one TCP connection, or from one UDP port, by id.
//!
//! Pure: no IO, `now` is handed in, ids too. With each question stands whom to tell (the table's `T`): who is to be
//! told is handed out ([`Settled`]), and told once the table's lock is given back. Replies come in any order (RFC 7766
//! §7) and are matched by id and question; an id alone is not enough, since a reply that was given up may come late,
//! after its id was drawn again.
//!
//! 1. At most [`UNDER_WAY_MAX`] questions wait at once; one more is [`Failure::Local`].
//! 2. An id is drawn at random among those that neither wait nor were given up. A given-up id is free again when its
//!    late reply comes, or when [`GIVEN_UP_MAX`] later ones were given up.
//! 3. A message with a waiting id and another question is counted against that question, [`MISMATCHES_MAX`] end it. A
//!    message with any other id is a stranger's. On a connection more than [`STRANGERS_MAX`] in a row end it. To a port
//!    anybody may send: there it is counted against every question that waits, as each may be the one that is meant,
//!    and [`MISMATCHES_MAX`] of them, questions or none, close the port to new ones.
//! 4. A connection on which a question is given up while nothing whatever came for [`SILENCE`] takes no new ones: it
//!    may lead to a machine that is gone, which TCP itself notices only after minutes. Those that wait go on.
//!
//! Invariant: `waiting` and `given_up` have no id in common; `!open` and `waiting` empty once [`Table::fail`] ran.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{Asked, Failure, Received};
use crate::clock::Moment;
use crate::limits::{HEADER_BYTES, MISMATCHES_MAX};
use crate::wire::reply::{Identity, identify};

/// What became of a question.
pub(super) type Outcome = Result<Received, Failure>;
/// Whom to tell of what.
pub(super) type Settled<T> = Vec<(T, Outcome)>;

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A TCP connection.
    Connection,
    /// A UDP port.
    Port,
}

pub(super) struct Table<T> {
    carrier: Carrier,
    waiting: HashMap<u16, Waiting<T>>,
    /// In the order in which they were given up.
    given_up: VecDeque<u16>,
    strangers: u32,
    open: bool,
    /// When a question was last entered or a message last came.
    active_at: Moment,
    /// Since when a question is out and nothing came.
    unheard_since: Option<Moment>,
}

struct Waiting<T> {
    name: Box<[u8]>,
    qtype: u16,
    mismatches: u32,
    to: T,
}

/// Is the connection still of use?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Go on.
    Goes,
    /// Close it.
    Ends,
}

impl<T> Table<T> {
    pub(super) fn new(carrier: Carrier, now: Moment) -> Self {
        Self {
            carrier,
            waiting: HashMap::new(),
            given_up: VecDeque::new(),
            strangers: 0,
            open: true,
            active_at: now,
            unheard_since: None,
        }
    }

    /// Takes new questions?
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Enters a question with an id from `draw`. Where it cannot, `to` is given back.
    pub(super) fn enter(
        &mut self,
        asked: &Asked,
        to: T,
        mut draw: impl FnMut() -> u16,
        now: Moment,
    ) -> Result<u16, (Failure, T)> {
        if !self.open {
            return Err((Failure::Closed, to));
        }
        if self.waiting.len() >= UNDER_WAY_MAX {
            return Err((Failure::Local, to));
        }
        let free = |id: &u16| !self.waiting.contains_key(id) && !self.given_up.contains(id);
        let Some(id) = (0..DRAWS_MAX).map(|_| draw()).find(free) else { return Err((Failure::Local, to)) };
        self.waiting.insert(id, Waiting { name: asked.name.clone(), qtype: asked.qtype, mismatches: 0, to });
        self.active_at = now;
        self.unheard_since.get_or_insert(now);
        Ok(id)
    }

    /// A question that was entered and could not be sent.
    pub(super) fn retract(&mut self, id: u16) -> Option<T> {
        self.waiting.remove(&id).map(|waiting| waiting.to)
    }

    /// Hands a message to whose it is.
    pub(super) fn on_message(&mut self, bytes: Vec<u8>, now: Moment, settled: &mut Settled<T>) -> Use {
        self.active_at = now;
        self.settle(bytes, settled);
        self.unheard_since = (!self.waiting.is_empty()).then_some(now);
        if self.carrier == Carrier::Connection && self.strangers > STRANGERS_MAX { Use::Ends } else { Use::Goes }
    }

    /// How long a message may be that answers a waiting question: a datagram that is longer was cut.
    pub(super) fn question_end(&self, id: u16) -> Option<usize> {
        self.waiting.get(&id).map(|w| HEADER_BYTES + w.name.len() + 4)
    }

    fn settle(&mut self, bytes: Vec<u8>, settled: &mut Settled<T>) {
        let id = bytes.get(..2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        let Some(waiting) = self.waiting.get_mut(&id).filter(|_| bytes.len() >= HEADER_BYTES) else {
            match self.given_up.iter().position(|g| *g == id) {
                Some(at) => drop(self.given_up.remove(at)),
                None => self.on_stranger(settled),
            }
            return;
        };
        let outcome = match identify(&bytes, id, &waiting.name, waiting.qtype) {
            Identity::Ours => {
                let over_tcp = self.carrier == Carrier::Connection;
                Ok(Received { bytes, over_tcp, mismatches: waiting.mismatches })
            }
            Identity::HeaderOnly(rcode) => Err(Failure::HeaderOnly(rcode)),
            Identity::NotOurs => {
                waiting.mismatches += 1;
                if waiting.mismatches < MISMATCHES_MAX {
                    return;
                }
                Err(Failure::Mismatched)
            }
        };
        self.strangers = 0;
        if outcome == Err(Failure::Mismatched) {
            self.give_up(id);
        }
        settled.extend(self.waiting.remove(&id).map(|waiting| (waiting.to, outcome)));
    }

    fn on_stranger(&mut self, settled: &mut Settled<T>) {
        self.strangers += 1;
        if self.carrier == Carrier::Connection {
            return;
        }
        self.open &= self.strangers < MISMATCHES_MAX;
        let over = self.waiting.extract_if(|_, waiting| {
            waiting.mismatches += 1;
            waiting.mismatches >= MISMATCHES_MAX
        });
        let over: Vec<_> = over.collect();
        for (id, waiting) in over {
            self.give_up(id);
            settled.push((waiting.to, Err(Failure::Mismatched)));
        }
    }

    /// The asker of `id` went away, answered or not.
    pub(super) fn on_leave(&mut self, id: u16, now: impl FnOnce() -> Moment) {
        if self.waiting.remove(&id).is_none() {
            return;
        }
        self.give_up(id);
        if self.unheard_since.is_some_and(|since| now().since(since) >= SILENCE) {
            self.open = false;
        }
    }

    fn give_up(&mut self, id: u16) {
        if self.given_up.len() >= GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
        self.given_up.push_back(id);
    }

    /// Nothing came and nothing was asked for `idle`?
    pub(super) fn is_idle(&self, idle: Duration, now: Moment) -> bool {
        self.waiting.is_empty() && now.since(self.active_at) >= idle
    }

    /// Takes no new questions any more; those that wait go on.
    pub(super) fn retire(&mut self) {
        self.open = false;
    }

    /// Takes no new questions, and none waits?
    pub(super) fn is_over(&self) -> bool {
        !self.open && self.waiting.is_empty()
    }

    /// It leads nowhere: who waits is to be told why.
    pub(super) fn fail(&mut self, failure: Failure, settled: &mut Settled<T>) {
        self.open = false;
        settled.extend(self.waiting.drain().map(|(_, waiting)| (waiting.to, Err(failure))));
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("waiting", &self.waiting.len())
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

/// Questions that wait on one connection. Each is at most a few hundred bytes, so the queue towards the socket stays
/// under a quarter of a megabyte.
pub(super) const UNDER_WAY_MAX: usize = 512;
/// Ids that were given up and are not drawn.
const GIVEN_UP_MAX: usize = 4096;
/// At most 7 in 100 ids are taken, so as many draws fail once in 10³⁷ times.
const DRAWS_MAX: usize = 32;
/// Messages in a row that belong to no question. Late replies are not counted among them.
const STRANGERS_MAX: u32 = 100;
/// No message for this long, with a question out.
const SILENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::testing::{asked, reply_to};
    use super::*;

    const START: Moment = Moment::from_secs(1);

    #[test]
    fn replies_in_any_order_reach_who_asked() {
        let mut table = Table::new(Carrier::Connection, START);
        let (first, mut first_outcome) = enter(&mut table, &asked(1), || 11, START).unwrap();
        let (second, mut second_outcome) = enter(&mut table, &asked(28), || 22, START).unwrap();
        on_message(&mut table, reply(28, second), START);
        assert!(first_outcome.try_recv().is_err());
        assert_eq!(second_outcome.try_recv().unwrap().unwrap().bytes, reply(28, second));
        on_message(&mut table, reply(1, first), START);
        assert_eq!(first_outcome.try_recv().unwrap().unwrap().bytes, reply(1, first));
    }

    #[test]
    fn a_known_id_with_another_question_is_counted_and_waited_past() {
        for (wrong, want) in [(9, Ok(9)), (10, Err(Failure::Mismatched))] {
            let mut table = Table::new(Carrier::Connection, START);
            let (id, mut outcome) = enter(&mut table, &asked(1), || 11, START).unwrap();
            for _ in 0..wrong {
                on_message(&mut table, reply(28, id), START);
            }
            on_message(&mut table, reply(1, id), START);
            assert_eq!(outcome.try_recv().unwrap().map(|r| r.mismatches), want, "{wrong}");
        }
    }

    #[test]
    fn what_a_stranger_sends_to_a_port_counts_against_all_that_wait_and_a_late_reply_does_not() {
        let mut table = Table::new(Carrier::Port, START);
        let (late, _) = enter(&mut table, &asked(1), || 5, START).unwrap();
        table.on_leave(late, || START);
        let (first, mut first_outcome) = enter(&mut table, &asked(1), || 11, START).unwrap();
        for _ in 0..MISMATCHES_MAX - 1 {
            on_message(&mut table, reply(1, 999), START);
        }
        assert!(table.is_open());
        let (second, mut second_outcome) = enter(&mut table, &asked(28), || 22, START).unwrap();
        on_message(&mut table, reply(1, late), START);
        assert!(first_outcome.try_recv().is_err(), "a late reply is no stranger's");
        on_message(&mut table, reply(1, 999), START);
        assert_eq!(first_outcome.try_recv().unwrap(), Err(Failure::Mismatched));
        assert!(!table.is_open() && !table.is_over());
        on_message(&mut table, reply(28, second), START);
        assert_eq!(second_outcome.try_recv().unwrap().map(|r| (r.mismatches, r.over_tcp)), Ok((1, false)));
        table.on_leave(first, || START);
        assert!(table.is_over());
    }

    #[test]
    fn a_given_up_id_is_drawn_again_only_after_its_late_reply() {
        let mut table = Table::new(Carrier::Connection, START);
        let (id, _) = enter(&mut table, &asked(1), || 11, START).unwrap();
        table.on_leave(id, || START);
        let mut ids = [11, 11, 12].into_iter();
        assert_eq!(enter(&mut table, &asked(28), || ids.next().unwrap(), START).unwrap().0, 12);
        assert_eq!(enter(&mut table, &asked(28), || 11, START).unwrap_err(), Failure::Local);
        on_message(&mut table, reply(1, id), START);
        assert_eq!(enter(&mut table, &asked(28), || 11, START).unwrap().0, 11);
    }

    #[test]
    fn given_up_ids_are_bounded() {
        let mut table = Table::new(Carrier::Connection, START);
        for id in 0..5000 {
            let (id, _) = enter(&mut table, &asked(1), || id, START).unwrap();
            table.on_leave(id, || START);
        }
        assert_eq!(table.given_up.len(), GIVEN_UP_MAX);
        assert!(enter(&mut table, &asked(1), || 0, START).is_ok());
    }

    #[test]
    fn there_is_room_for_512_questions_and_for_no_more() {
        let mut table = Table::new(Carrier::Connection, START);
        let outcomes: Vec<_> = (0..512).map(|id| enter(&mut table, &asked(1), || id, START).unwrap().1).collect();
        assert_eq!(enter(&mut table, &asked(1), || 600, START).unwrap_err(), Failure::Local);
        on_message(&mut table, reply(1, 7), START);
        assert!(enter(&mut table, &asked(1), || 600, START).is_ok());
        drop(outcomes);
    }

    #[test]
    fn strangers_end_the_connection_and_late_replies_do_not() {
        let mut table = Table::new(Carrier::Connection, START);
        let (id, _) = enter(&mut table, &asked(1), || 11, START).unwrap();
        table.on_leave(id, || START);
        assert_eq!(on_message(&mut table, reply(1, id), START), Use::Goes);
        for _ in 0..STRANGERS_MAX {
            assert_eq!(on_message(&mut table, reply(1, 77), START), Use::Goes);
        }
        assert_eq!(on_message(&mut table, vec![0, 77], START), Use::Ends);
    }

    #[test]
    fn a_connection_that_was_silent_for_a_second_takes_no_new_questions() {
        // When the second of two questions is given up; whether something came 500 ms before that.
        for (what, millis, heard, open) in [
            ("given up early", 999, false, true),
            ("given up after a second", 1000, false, false),
            ("something came meanwhile", 1400, true, true),
        ] {
            let mut table = Table::new(Carrier::Connection, START);
            let _first = enter(&mut table, &asked(1), || 11, START).unwrap();
            let (second, _) = enter(&mut table, &asked(28), || 22, START + Duration::from_millis(300)).unwrap();
            let left_at = START + Duration::from_millis(millis);
            if heard {
                on_message(&mut table, reply(2, 33), left_at - Duration::from_millis(500));
            }
            table.on_leave(second, || left_at);
            assert_eq!(table.is_open(), open, "{what}");
        }
    }

    #[test]
    fn it_is_idle_only_without_a_waiting_question() {
        let idle = Duration::from_secs(10);
        let mut table = Table::new(Carrier::Connection, START);
        assert!(!table.is_idle(idle, START + Duration::from_millis(9_999)));
        assert!(table.is_idle(idle, START + idle));
        let (_id, _outcome) = enter(&mut table, &asked(1), || 11, START + idle).unwrap();
        assert!(!table.is_idle(idle, START + idle + idle));
    }

    #[test]
    fn closing_tells_who_waits_and_takes_nothing_new() {
        let mut table = Table::new(Carrier::Connection, START);
        let (_, mut outcome) = enter(&mut table, &asked(1), || 11, START).unwrap();
        let mut settled = Vec::new();
        table.fail(Failure::Refused, &mut settled);
        tell(settled);
        assert_eq!(outcome.try_recv().unwrap(), Err(Failure::Refused));
        assert_eq!(enter(&mut table, &asked(1), || 12, START).unwrap_err(), Failure::Closed);
    }

    type Waits = Table<oneshot::Sender<Outcome>>;

    fn enter(
        table: &mut Waits,
        asked: &Asked,
        draw: impl FnMut() -> u16,
        now: Moment,
    ) -> Result<(u16, oneshot::Receiver<Outcome>), Failure> {
        let (to, outcome) = oneshot::channel();
        table.enter(asked, to, draw, now).map(|id| (id, outcome)).map_err(|(failure, _)| failure)
    }

    fn on_message(table: &mut Waits, bytes: Vec<u8>, now: Moment) -> Use {
        let mut settled = Vec::new();
        let goes = table.on_message(bytes, now, &mut settled);
        tell(settled);
        goes
    }

    fn tell(settled: Settled<oneshot::Sender<Outcome>>) {
        settled.into_iter().for_each(|(to, outcome)| drop(to.send(outcome)));
    }

    fn reply(qtype: u16, id: u16) -> Vec<u8> {
        reply_to(&asked(qtype).with_id(id), &[])
    }
}
