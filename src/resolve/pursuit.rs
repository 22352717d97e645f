//! The pursuit of one question: a machine that says what next.
//!
//! Pure. The driver calls [`Pursuit::next`] until it says [`Step::Wait`], carries out the steps, and tells what came
//! ([`Pursuit::on_verdict`]). The group decides whom and whether; the pursuit decides what that means for this
//! question:
//!
//! - One server is asked; when it is overdue or has failed, another is, while budget and attempts last. A server that
//!   was asked before is asked again only when several times its hedge delay have passed. All stay listened to.
//! - A positive answer of any tier settles. A negative one settles unless a better tier's attempt is still worth
//!   waiting for: then it is pending, at most to that attempt's try time-out. A better tier that is fit and was not
//!   asked is asked then. A negative answer of a lower tier never stands in place of records that a better tier gave
//!   within `max_age`: then the question counts as failed, and the records are served.
//! - What would take the place of a guarded name's last good answer ([`Brief::guarded`]) is doubted: servers of the
//!   other tiers are asked, one by one, and a good answer of theirs is taken. Where all say the same the last good
//!   answer goes out and is held ([`Step::Hold`]). So is what a server says that turned against many names at once
//!   ([`crate::upstream::turned`]), though there it is taken where others agree.
//! - In a freeze nothing negative stands in place of a good answer that can still be served.
//! - A waiter gets the stale answer when its patience is over, when the group goes dark, or when the pursuit fails;
//!   SERVFAIL only where nothing can be served. Each waiter has its own deadline.
//! - While the group is down one server is asked, once. So it is where the question's zone fails
//!   ([`crate::upstream::zones`]).
//! - Where another question needs its place and it is hopeless, it yields: its waiters are answered as by a refusal.
//! - Settled or failed, the pursuit listens on for a while, for what is still out: late packets tell that a server
//!   lives, late answers of a better tier replace a lower tier's.
//!
//! Invariants: each waiter is answered exactly once, by its deadline; no server gets more than three attempts (TCP
//! after TC and asking without OPT are not counted); evidence is told once for each attempt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Attempt, Stage};
use super::vet::{Fault, Verdict};
use crate::cache::entry::{Data, Entry, GroupStamp, Packed};
use crate::cache::guard;
use crate::cache::key::{OwnedQuestion, Question};
use crate::clock::Moment;
use crate::limits::{
    ATTEMPTS_PER_SERVER, FAILING_ZONE_DEADLINE, HEDGE_AFTER, OTHER_VIEW_NEGATIVE_TTL, ZONE_FAILED_AFTER,
};
use crate::upstream::group::AskKind;
use crate::upstream::{ClientHash, Group, ServerId, ZoneHash};
use crate::wire::edns::code;

mod doubt;
mod telling;
mod waiting;

pub use super::attempt::{Ask, AttemptId};
pub use super::desk::PursuitId;
use telling::late_after;
pub use waiting::{Answer, Waiter};

/// How long a settled pursuit listens for an attempt that is still out.
const LINGER: Duration = Duration::from_secs(2);
/// When a denied second question is asked for again.
const DENIED_PAUSE: Duration = Duration::from_millis(50);

/// What to remember of a failed pursuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Our own INFO-CODE; none where the server's say it all.
    pub ede: Option<u16>,
    /// The server's own extended errors, encoded.
    pub kept_edes: Box<[u8]>,
}

/// What the driver does next.
#[derive(Debug)]
pub enum Step<W> {
    /// Ask.
    Ask(Ask),
    /// Answer these waiters.
    Reply(Vec<W>, Answer),
    /// Store this answer.
    Keep(Arc<Entry>),
    /// A guard holds the last good answer from here on.
    Hold,
    /// Remember that it failed.
    Remember(Failed),
    /// Another pursuit of the desk has steps to take.
    Tell(PursuitId),
    /// Nothing until then, or until something comes.
    Wait(Moment),
    /// It is over: give up what is still out.
    Done,
}

/// A negative answer that waits for what other servers say.
#[derive(Clone, Debug)]
struct Pending {
    entry: Arc<Entry>,
    /// None where another pursuit of the question got it.
    from: Option<ServerId>,
    storable: bool,
    until: Moment,
    /// Is another server to be asked, whatever its tier?
    doubted: bool,
}

/// What is fixed for a pursuit.
#[derive(Clone, Debug)]
pub struct Brief {
    /// What is asked.
    pub question: OwnedQuestion,
    /// Who asked first.
    pub client: ClientHash,
    /// The group's stamp.
    pub group: GroupStamp,
    /// What can be served stale.
    pub stale: Option<Arc<Entry>>,
    /// The last good answer, where a guard protects it.
    pub guarded: Option<Arc<Entry>>,
    /// Was the client answered already, so that nobody waits?
    pub refresh: bool,
}

/// The pursuit of one question. `W` is the driver's way to a waiting client.
#[derive(Debug)]
pub struct Pursuit<W> {
    brief: Brief,
    zone: ZoneHash,
    started: Moment,
    ends: Moment,
    /// However many join, nobody asks longer.
    ends_max: Moment,
    waiters: Vec<Waiter<W>>,
    attempts: Vec<Attempt>,
    asked: Vec<u8>,
    pending: Option<Pending>,
    /// The tier whose answer was taken.
    settled: Option<usize>,
    /// The server whose answer was taken first, and how long it took.
    settled_by: Option<(ServerId, Duration)>,
    /// A server said that the name's DNSSEC is broken: nothing that comes later is taken.
    broken: bool,
    failed: bool,
    truncated: bool,
    /// Copies go out once, with the first question.
    copied: bool,
    denied_until: Moment,
    /// Has it been told that nobody has answered?
    told_unanswered: bool,
    /// Another question takes its place.
    gives_way: bool,
    /// The server that turned against the name, and whether another one has said what it thinks of that.
    turned: Option<(ServerId, bool)>,
    /// Since when a second opinion waits for budget.
    doubted_since: Option<Moment>,
    /// Did it wait for a server's packets a second?
    short_of_room: bool,
    steps: VecDeque<Step<W>>,
}

impl<W> Pursuit<W> {
    /// Begins at `now`, to end within the group's deadline.
    pub fn new(brief: Brief, group: &Group, now: Moment) -> Self {
        Self {
            zone: ZoneHash::of(brief.question.view().name),
            brief,
            started: now,
            ends: now + group.settings().deadline,
            ends_max: now + group.settings().deadline * 2,
            waiters: Vec::new(),
            attempts: Vec::new(),
            asked: vec![0; group.servers().len()],
            pending: None,
            settled: None,
            settled_by: None,
            broken: false,
            failed: false,
            truncated: false,
            copied: false,
            denied_until: Moment::ZERO,
            told_unanswered: false,
            gives_way: false,
            turned: None,
            doubted_since: None,
            short_of_room: false,
            steps: VecDeque::new(),
        }
    }

    /// What is asked.
    pub fn question(&self) -> Question<'_> {
        self.brief.question.view()
    }

    /// Can a client still join?
    pub fn is_open(&self) -> bool {
        self.settled.is_none() && !self.failed
    }

    /// When it began.
    pub fn started(&self) -> Moment {
        self.started
    }

    /// Has nobody answered for `after_min`, although a server was given its time?
    pub fn is_hopeless(&self, after_min: Duration, now: Moment) -> bool {
        self.is_open()
            && self.pending.is_none()
            && now.since(self.started) >= after_min
            && self.attempts.iter().any(|a| !a.is_copy() && (a.overdue || !a.is_out()))
    }

    /// An earlier pursuit of the same question has got its answer after all: nobody waits longer for what is there. A
    /// lower tier's negative one waits for better tiers here too.
    pub fn on_kept(&mut self, entry: &Arc<Entry>, group: &mut Group, now: Moment) {
        let Some(data) = entry.data().filter(|_| self.is_open()) else { return };
        let tier = usize::from(data.tier);
        let other_view = data.kind.is_negative() && group.has_better_view(tier);
        if self.stands_above(data, group, now).is_some() {
            // Its own servers will say the same, or better.
        } else if !other_view {
            self.settle(entry.clone(), None, false, group, now);
        } else if self.pending.is_none() {
            let until = self.worth_waiting_until(tier, false, group, now);
            self.pending = Some(Pending { entry: entry.clone(), from: None, storable: false, until, doubted: false });
        }
    }

    /// Ends it in favour of another one, at its next step. That nobody has answered so far is told of its zone.
    pub fn give_way(&mut self, group: &mut Group, now: Moment) {
        self.tell_unanswered(group, now);
        self.gives_way = true;
    }

    //------------ What came -----------------------------------------------------------------------------------------

    /// A reply to an attempt came and was vetted, or it ended without one.
    pub fn on_verdict(&mut self, id: AttemptId, verdict: Verdict, group: &mut Group, now: Moment) {
        let Some(attempt) = self.attempts.get(id.0).filter(|a| a.is_out()) else { return };
        let (server, took, is_copy) = (attempt.server, now.since(attempt.sent_at), attempt.is_copy());
        match verdict {
            Verdict::Truncated => {
                let with_edns = attempt.with_edns;
                self.truncated |= !is_copy;
                self.go_on(id, true, with_edns, group, now);
            }
            Verdict::NoEdns => {
                let over_tcp = attempt.over_tcp;
                self.attempts[id.0].opt_refused = true;
                self.go_on(id, over_tcp, false, group, now);
            }
            Verdict::Answer { packed, storable } => {
                // Only an answer without OPT shows that OPT was at fault, and not the question.
                if attempt.opt_refused {
                    group.on_edns_refused(server, now);
                }
                self.attempts[id.0].stage = Stage::Answered { took };
                let question = self.brief.question.view();
                group.on_answered(question.name, Some(question.qtype));
                if is_copy {
                    group.on_copy(server, Some(took), now);
                } else {
                    group.on_reply(server, took, true, now);
                    self.on_answer(id, packed, storable, group, now);
                }
            }
            Verdict::Broken(kept_edes) => {
                self.attempts[id.0].stage = Stage::Answered { took };
                group.on_answered(self.brief.question.view().name, None);
                if is_copy {
                    group.on_copy(server, Some(took), now);
                    return;
                }
                group.on_reply(server, took, true, now);
                if self.is_open() {
                    self.broken = true;
                    self.fail(None, kept_edes, true, group, now);
                }
            }
            Verdict::Fault(Fault::Mismatched) if !attempt.over_tcp => {
                // What came need not be from the server: it is asked over TCP, and nothing is learned of it yet.
                let with_edns = attempt.with_edns;
                self.send_again(id, true, with_edns, group, now);
            }
            Verdict::Fault(fault) => {
                self.attempts[id.0].stage = Stage::Failed(fault);
                match fault {
                    Fault::Local if is_copy => {}
                    Fault::Local => group.on_local(server),
                    _ if is_copy => {
                        if fault.has_packet() {
                            group.on_packet(server, now);
                        }
                        // What nobody answers is no evidence: it may be the name.
                        if self.settled_by.is_some() {
                            group.on_copy(server, None, now);
                        }
                    }
                    Fault::PortClosed | Fault::Unreachable => {
                        group.on_port_closed(server, fault == Fault::Unreachable, now);
                    }
                    fault if fault.has_packet() => group.on_reply(server, took, false, now),
                    _ => group.on_given_up(server),
                }
            }
        }
    }

    /// The same attempt goes on over TCP, or without OPT.
    fn go_on(&mut self, id: AttemptId, over_tcp: bool, with_edns: bool, group: &mut Group, now: Moment) {
        // A packet came: that is no silence, whatever comes next.
        group.on_packet(self.attempts[id.0].server, now);
        self.send_again(id, over_tcp, with_edns, group, now);
    }

    fn send_again(&mut self, id: AttemptId, over_tcp: bool, with_edns: bool, group: &mut Group, now: Moment) {
        let a = &mut self.attempts[id.0];
        if !group.allows_packet(a.server, now) {
            a.stage = Stage::Failed(Fault::Local);
            if !a.is_copy() {
                group.on_local(a.server);
            }
            return;
        }
        a.sent_at = now;
        a.hedge_at = now + group.hedge_after(a.server);
        a.again_at = now + group.again_after(a.server);
        a.try_until = now + group.try_timeout(a.server);
        a.over_tcp = over_tcp;
        a.with_edns = with_edns;
        let ask = Ask {
            attempt: id,
            server: a.server,
            kind: a.kind,
            over_tcp,
            with_edns,
            until: self.ends.max(now + LINGER),
        };
        self.steps.push_back(Step::Ask(ask));
    }

    fn on_answer(&mut self, id: AttemptId, mut packed: Packed, storable: bool, group: &mut Group, now: Moment) {
        if self.broken {
            return;
        }
        let (tier, from) = (self.attempts[id.0].tier, Some(self.attempts[id.0].server));
        let negative = packed.kind.is_negative();
        let other_view = negative && group.has_better_view(tier);
        if other_view {
            packed.lower_ttls(OTHER_VIEW_NEGATIVE_TTL);
        }
        let data = Data::new(packed, tier as u8, self.brief.group, now);
        let good = self.stands_above(&data, group, now);
        if good.is_some() && !self.is_open() {
            return;
        }
        let doubted = self.is_open() && self.is_doubted(id, &data, group, now);
        let entry = Arc::new(Entry::with_data(&self.brief.question.view(), data));
        match self.settled {
            // A better tier's late answer takes the place of a lower tier's negative one.
            Some(settled) => {
                if tier < settled && storable {
                    self.settled = Some(tier);
                    self.steps.push_back(Step::Keep(entry));
                }
            }
            // Nobody waits any more. The cache keeps it from what a better tier gave.
            None if other_view && self.failed => {
                if storable {
                    self.settled = Some(tier);
                    self.steps.push_back(Step::Keep(entry));
                }
            }
            None if other_view || doubted => {
                if other_view {
                    self.ask_better(tier, group, now);
                }
                let until = match doubted {
                    true => self.second_opinion_until(tier, group, now),
                    false => self.worth_waiting_until(tier, false, group, now),
                };
                // What the better tier said stands for all.
                let first =
                    self.pending.take().filter(|h| h.entry.data().is_some_and(|d| usize::from(d.tier) <= tier));
                let mut pending = first.unwrap_or(Pending { entry, from, storable, until, doubted });
                if doubted {
                    (pending.until, pending.doubted) = (until, true);
                }
                if now < until {
                    self.pending = Some(pending);
                } else {
                    self.settle_negative(pending.entry, pending.from, pending.storable, group, now);
                }
            }
            None => match good {
                Some(good) => self.keep_last_good(good, group, now),
                None => self.settle(entry, from, storable, group, now),
            },
        }
        if other_view && self.settled.is_some() {
            self.ask_the_slow(tier, group, now);
        }
    }

    /// A lower tier's negative answer was taken since the better tier's servers are down. One that still speaks is
    /// asked behind it: its late answer takes the negative one's place.
    fn ask_the_slow(&mut self, tier: usize, group: &mut Group, now: Moment) {
        let asked = self.attempts.iter().any(|a| !a.is_copy() && a.tier < tier && a.is_out());
        if !asked
            && let Some(server) = group.speaking_better(&self.asked, tier, now)
            && group.allows_second(self.brief.client, true, now)
        {
            self.send(server, AskKind::Retry, group, now);
        }
    }

    /// Until when an attempt on a better tier than `tier`, or on any, is worth waiting for: its try time-out, where it
    /// is out and its server is not down.
    fn worth_waiting_until(&self, tier: usize, any: bool, group: &Group, now: Moment) -> Moment {
        let better = self.attempts.iter().filter(|a| a.is_out() && !a.is_copy() && (any || a.tier < tier));
        better.filter(|a| group.server(a.server).is_fit()).map(|a| a.try_until).max().unwrap_or(now)
    }

    /// Where a better tier has a fit server that was not asked (it is within its hold, say), it is asked before a lower
    /// tier's word is taken for the absence of a name.
    fn ask_better(&mut self, tier: usize, group: &mut Group, now: Moment) {
        let asked = self.attempts.iter().any(|a| !a.is_copy() && a.tier < tier && a.is_out());
        if !asked
            && let Some(server) = group.fit_better(&self.asked, tier, now)
            && group.allows_second(self.brief.client, true, now)
        {
            self.send(server, AskKind::Retry, group, now);
        }
    }

    fn settle_negative(
        &mut self,
        entry: Arc<Entry>,
        from: Option<ServerId>,
        storable: bool,
        group: &mut Group,
        now: Moment,
    ) {
        if let Some(good) = entry.data().and_then(|d| self.stands_above(d, group, now)) {
            return self.keep_last_good(good, group, now);
        }
        let tier = entry.data().map_or(0, |d| usize::from(d.tier));
        let max_age = group.max_age(now);
        let ours = |e: &&Arc<Entry>| e.data().is_some_and(|d| d.group == self.brief.group);
        if self.brief.stale.as_ref().filter(ours).is_some_and(|e| guard::outweighs(e, tier as u8, max_age, now)) {
            self.fail(Some(code::STALE), [].into(), true, group, now);
        } else {
            self.settle(entry, from, storable, group, now);
        }
    }

    fn settle(&mut self, entry: Arc<Entry>, from: Option<ServerId>, storable: bool, group: &mut Group, now: Moment) {
        self.pending = None;
        self.settled = entry.data().map(|d| usize::from(d.tier));
        // The attempt that was answered is the one of that server which took so long.
        self.settled_by = from.map(|server| (server, self.took_of(server)));
        if !self.brief.refresh {
            group.on_miss_answered(now.since(self.started));
        }
        if storable {
            self.steps.push_back(Step::Keep(entry.clone()));
        }
        self.reply_to_all(Answer::Fresh(entry));
        self.judge(group, now);
    }

    /// The pursuit has failed: who waits gets the stale answer, or the failure. It is remembered unless the fault was
    /// our own, or the answer is there and only too large for UDP.
    fn fail(&mut self, ede: Option<u16>, kept_edes: Box<[u8]>, remember: bool, group: &mut Group, now: Moment) {
        self.failed = true;
        if remember && !self.broken {
            self.tell_unanswered(group, now);
        }
        self.pending = None;
        if remember && !self.truncated {
            self.steps.push_back(Step::Remember(Failed { ede, kept_edes: kept_edes.clone() }));
        }
        let answer = match self.servable(group, now) {
            Some(entry) => Answer::Stale(entry),
            None if self.truncated => Answer::Truncated,
            None => Answer::Failed { ede, kept_edes },
        };
        self.reply_to_all(answer);
    }

    //------------ What next -----------------------------------------------------------------------------------------

    /// What next? Called again until it says [`Step::Wait`] or [`Step::Done`]. `draw` gives random numbers in 0..1.
    pub fn next(&mut self, group: &mut Group, draw: &mut dyn FnMut() -> f64, now: Moment) -> Step<W> {
        if let Some(step) = self.steps.pop_front() {
            return step;
        }
        self.note_overdue(group, now);
        self.judge(group, now);
        if self.is_open() && now.since(self.started) >= ZONE_FAILED_AFTER {
            self.tell_unanswered(group, now);
        }
        self.end_wait(group, now);
        self.answer_the_impatient(group, now);
        if self.is_open() {
            if self.gives_way {
                self.fail(Some(code::OTHER), [].into(), false, group, now);
            } else if now >= self.ends {
                let (ede, local) = self.reason();
                self.fail(Some(ede), [].into(), !local, group, now);
            } else {
                self.ask(group, draw, now);
            }
        }
        if let Some(step) = self.steps.pop_front() {
            return step;
        }
        self.wait_or_end(now)
    }

    fn end_wait(&mut self, group: &mut Group, now: Moment) {
        let Some(Pending { entry, from, storable, until, doubted }) = self.pending.clone() else { return };
        let tier = entry.data().map_or(0, |d| usize::from(d.tier));
        // What is pending is better than SERVFAIL: at a deadline it goes out.
        let late = now >= self.ends || self.waiters.iter().any(|w| now >= w.deadline);
        let until = match doubted {
            true if !late => self.second_opinion_until(tier, group, now),
            true => now,
            false => until.min(self.worth_waiting_until(tier, false, group, now)),
        };
        if let Some(pending) = self.pending.as_mut().filter(|_| doubted) {
            pending.until = until;
        }
        if late || until <= now {
            self.pending = None;
            self.settle_negative(entry, from, storable, group, now);
        }
    }

    fn ask(&mut self, group: &mut Group, draw: &mut dyn FnMut() -> f64, now: Moment) {
        let live = || self.attempts.iter().filter(|a| !a.is_copy());
        let none_yet = live().next().is_none();
        let anything_out = live().any(Attempt::is_out);
        if live().any(|a| a.is_out() && !a.overdue) {
            return;
        }
        let zone_fails = group.zone_of(self.brief.question.view().name, now).is_failing;
        let spared = group.is_spared(self.brief.refresh);
        if (spared || zone_fails) && !none_yet {
            // One attempt; who still waits gives up once it is not worth waiting for.
            let gone = |a: &Attempt| match spared {
                true => now >= a.try_until,
                false => now.since(self.started) >= FAILING_ZONE_DEADLINE,
            };
            if !anything_out || live().filter(|a| a.is_out()).all(gone) {
                let (ede, local) = self.reason();
                self.fail(Some(ede), [].into(), !local, group, now);
            }
            return;
        }
        if now < self.denied_until {
            return;
        }
        // One that waited for room may find the group down meanwhile: it is one of the few names then, or waits on.
        let waited = none_yet && self.denied_until != Moment::ZERO;
        if waited && spared && !group.allows_while_down(now) {
            self.denied_until = now + DENIED_PAUSE;
            return;
        }
        let spent = self.spent();
        let Some(server) = group.plan(&spent, draw(), draw(), now) else {
            if let Some(at) = group.room_at(&spent, now) {
                // Its packets a second are spent: who may not be asked now may be soon.
                self.denied_until = at;
                self.short_of_room = true;
            } else if !anything_out {
                let (ede, local) = self.reason();
                self.fail(Some(ede), [].into(), !local, group, now);
            }
            return;
        };
        if live().any(|a| a.server == server && a.is_out() && now < a.again_at) {
            return;
        }
        if !none_yet && !group.allows_second(self.brief.client, self.denied_until == Moment::ZERO, now) {
            self.denied_until = now + DENIED_PAUSE;
            return;
        }
        let kind = match () {
            () if none_yet && self.brief.refresh => AskKind::Refresh,
            () if none_yet => AskKind::First,
            () if anything_out => AskKind::Hedge,
            () => AskKind::Retry,
        };
        self.send(server, kind, group, now);
        if !self.copied
            && !zone_fails
            && kind == AskKind::First
            && let Some(server) = group.copy_to(&self.asked, now)
        {
            self.copied = true;
            self.send(server, AskKind::Probe, group, now);
        }
    }

    /// How often each server was asked. One that said no would say it again: it counts as asked as often as it may be.
    fn spent(&self) -> Vec<u8> {
        let mut spent = self.asked.clone();
        for a in self.attempts.iter().filter(|a| !a.is_copy()) {
            if matches!(a.stage, Stage::Failed(fault) if fault.is_final()) {
                spent[usize::from(a.server.0)] = ATTEMPTS_PER_SERVER;
            }
        }
        spent
    }

    fn send(&mut self, server: ServerId, kind: AskKind, group: &mut Group, now: Moment) {
        let hedge_after = group.hedge_after(server);
        let with_edns = group.takes_edns(server, now);
        let attempt = AttemptId(self.attempts.len());
        self.attempts.push(Attempt {
            server,
            tier: group.server(server).tier,
            kind,
            sent_at: now,
            hedge_at: now + hedge_after,
            again_at: now + group.again_after(server),
            try_until: now + group.try_timeout(server),
            over_tcp: false,
            with_edns,
            opt_refused: false,
            overdue: false,
            judged: false,
            stage: Stage::Out,
        });
        if kind != AskKind::Probe {
            self.asked[usize::from(server.0)] += 1;
        }
        // Whoever was chosen had room for it at this moment.
        let paid = group.allows_packet(server, now);
        debug_assert!(paid, "a server without room was chosen");
        group.on_sent(server, kind, now);
        let until = self.ends.max(now + LINGER);
        self.steps.push_back(Step::Ask(Ask { attempt, server, kind, over_tcp: false, with_edns, until }));
    }

    fn wait_or_end(&mut self, now: Moment) -> Step<W> {
        let out = || self.attempts.iter().filter(|a| a.is_out());
        let mut wake = Moment::NEVER;
        if self.is_open() {
            let waiters = self.waiters.iter().flat_map(|w| [w.stale_at, w.deadline]);
            let attempts = out().flat_map(|a| [a.hedge_at, a.again_at, a.try_until]);
            let pending = self.pending.iter().map(|p| p.until);
            let denied = Some(self.denied_until).filter(|_| self.denied_until > now);
            let zone = [self.started + ZONE_FAILED_AFTER, self.started + FAILING_ZONE_DEADLINE];
            // What is past already was acted on in this call.
            for at in waiters.chain(attempts).chain(pending).chain(denied).chain(zone).chain([self.ends]) {
                if at > now {
                    wake = wake.min(at);
                }
            }
            return Step::Wait(wake);
        }
        if self.gives_way {
            return Step::Done;
        }
        // Over for the clients: listen on for what is still out.
        let listen_until =
            |a: &Attempt| if self.settled.is_some() { a.sent_at + LINGER } else { self.ends.max(a.sent_at + LINGER) };
        let last = out().map(listen_until).max().unwrap_or(now);
        if last <= now {
            return Step::Done;
        }
        let limit = self.settled_by.map_or(HEDGE_AFTER.max, |(_, took)| late_after(took));
        let judge_at =
            out().filter(|a| !a.judged && !a.is_copy()).map(|a| a.sent_at + limit + Duration::from_millis(1));
        let hedge_at = out().filter(|a| !a.overdue).map(|a| a.hedge_at);
        for at in judge_at.chain(hedge_at).chain([last]) {
            if at > now {
                wake = wake.min(at);
            }
        }
        Step::Wait(wake)
    }
}
