//! The checklist of a query: **the first file to read**.
//!
//! Pure. [`Door::serve`] is bytes in, bytes out, time handed in: a list of questions in the order in which they
//! matter, each of which may end the path.
//!
//! 1. Is it a query that can be looked at ([`crate::wire::query`])?
//! 2. May this client ask, now ([`admit`])?
//! 3. Is it a question that is never forwarded: another class, a meta type, ANY?
//! 4. Do we own the answer ([`local`])?
//! 5. Is it in the cache: fresh ▸ reply, and ask again near its end where it is popular ([`crate::cache::ahead`]);
//!    held by a guard ▸ reply; stale ▸ reply or wait; failed of late ▸ say so?
//! 6. Does the client want recursion at all?
//! 7. Otherwise the question is open ([`Opening`]) and goes to the driver, with the group that [`route`] names.
//!
//! No lock that can be held for long, no allocation and no wait stands before a fresh answer, or a stale one.

pub mod admit;
pub mod local;
pub mod reply;
pub mod route;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::entry::{Data, Entry, GroupStamp};
use crate::cache::freshness::{StaleSettings, Standing};
use crate::cache::front::Front;
use crate::cache::key::{Key, NameBuffer, OwnedQuestion, Question, fold};
use crate::clock::Moment;
use crate::limits::{GUARD_ASK_EVERY, STALE_RECHECK};
use crate::observe::metrics::{Source, Tally};
use crate::resolve::patience::{self, Circumstances};
use crate::upstream::group::Belief;
use crate::upstream::{ClientHash, Outlook};
use crate::wire::build::{self, Builder, Section};
use crate::wire::edns::code;
use crate::wire::query::{self, OwnedQuery, Query, Refusal};
use crate::wire::{CLASS_IN, Ede, rcode, rtype};
use admit::{Admit, ClientKey};
use local::{Local, LocalKind};
use reply::Manner;
use route::Routes;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Over UDP.
    Udp,
    /// Over TCP.
    Tcp,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address that it asked from, an IPv4-mapped one as IPv4.
    pub address: IpAddr,
    /// How it asked.
    pub transport: Transport,
}

/// What becomes of a packet.
pub enum Outcome<O> {
    /// This many bytes of `out` are the reply.
    Reply(usize),
    /// The reply goes out, and behind it the name is asked again: it is stale, or soon will be.
    ReplyAndOpen(usize, O),
    /// Nothing is sent.
    Drop,
    /// The question is still open: hand it over with the way back.
    Open(O),
}

/// What is known of a packet before it is served: its key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prepared(Option<Key>);

/// Where the path of a packet to its answer leads through memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// From the front cache's set to the entry.
    Entry,
    /// From the entry to the bytes of its answer.
    Bytes,
}

/// The way back to a client. Sent at most once; dropped unsent, the client gets nothing.
pub trait ReplyTo: Send {
    /// Sends the reply. Never waits; a reply that cannot be sent is lost. Where replies gather and leave together, the
    /// first of them gives what is to be told soon that it is time.
    fn send(self: Box<Self>, reply: &[u8]) -> Option<Arc<dyn Gathering>>;
}

/// Where replies gather.
pub trait Gathering: Send + Sync {
    /// Sends all that have gathered. Never waits.
    fn flush(&self);
}

/// What a listener needs of the layers above it: one value for each UDP worker and each TCP connection.
///
/// `serve` is a plain function: it neither waits nor blocks.
pub trait Service: Send + 'static {
    /// A question that is still open.
    type Open: Send;

    /// Called once before the packets of a batch: picks up a policy that was swapped.
    fn begin_batch(&mut self);

    /// Looks at a packet that will be served soon, and has memory fetched. Decides nothing.
    fn prepare(&self, _packet: &[u8]) -> Prepared {
        Prepared::default()
    }

    /// Goes on with that, once what the step before asked for has come.
    fn fetch(&self, _prepared: Prepared, _step: Step) {}

    /// Answers `packet`. `out` holds at least 65,535 bytes for TCP and 1,232 for UDP. `prepared` is what
    /// [`Self::prepare`] gave for this packet, or the default.
    fn serve(
        &mut self,
        packet: &[u8],
        prepared: Prepared,
        client: Client,
        out: &mut [u8],
        now: Moment,
    ) -> Outcome<Self::Open>;

    /// Takes an open question, never waiting: where the queue is full it answers by itself, at once. `reply_to` is
    /// `None` where the client has been answered.
    fn hand_over(&mut self, open: Self::Open, reply_to: Option<Box<dyn ReplyTo>>);
}

/// What the configuration says of a query's path. Immutable; replaced whole on reload.
pub struct Policy {
    /// Who may ask.
    pub admit: Admit,
    /// What is answered here.
    pub local: Local,
    /// Whose name it is.
    pub routes: Routes,
    /// The groups, by the index that `routes` gives.
    pub groups: Vec<GroupPolicy>,
    /// Do addresses turn on every hit?
    pub rotate: bool,
    /// Is what is asked often asked again before it runs out?
    pub refresh_ahead: bool,
}

/// What the path must know of a group.
pub struct GroupPolicy {
    /// Its name.
    pub name: String,
    /// Marks its answers.
    pub stamp: GroupStamp,
    /// Stale answers.
    pub stale: StaleSettings,
    /// What is believed of it.
    pub outlook: Arc<Outlook>,
}

/// A question that is still open.
pub struct Opening {
    /// What is asked.
    pub question: OwnedQuestion,
    /// Its key.
    pub key: Key,
    /// The query, for its reply.
    pub query: OwnedQuery,
    /// Who asks.
    pub client: Client,
    /// The client that bounds hold it to; `None` for the node itself.
    pub bound: Option<ClientKey>,
    /// The client as judges tell clients apart.
    pub client_hash: ClientHash,
    /// The group that answers for the name.
    pub group: GroupStamp,
    /// Stale answers of that group.
    pub stale_settings: StaleSettings,
    /// What can be served where no fresh answer comes.
    pub stale: Option<Arc<Entry>>,
    /// When the client gets it.
    pub stale_at: Moment,
    /// Was the answer fresh, and is the name asked again ahead of its end?
    pub ahead: bool,
    /// Places by which the addresses of its answer are turned.
    pub turn: u32,
    /// When the query came.
    pub received: Moment,
}

/// Where queries come in: one for each worker and each connection.
pub struct Door {
    policy: Arc<Policy>,
    cache: Arc<Cache>,
    front: Option<Front>,
    tally: Tally,
    turn: u32,
    /// Of the last packet that was not left open.
    last: (Source, u16),
}

/// How far the path went.
enum Path {
    Done(usize, Source),
    /// With an RCODE that does not fit into the header.
    DoneWith(usize, Source, u16),
    DoneAndAgain(usize, Source, Box<Opening>),
    Silence,
    Open(Box<Opening>),
}

impl Door {
    /// A door to `cache` under `policy`; answers are counted in `tally`.
    pub fn new(policy: Arc<Policy>, cache: Arc<Cache>, front: Option<Front>, tally: Tally) -> Self {
        Self { policy, cache, front, tally, turn: 0, last: (Source::Dropped, 0) }
    }

    /// Replaces the policy.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    /// Has the memory fetched that `packet` will need. See [`Service::prepare`].
    pub fn prepare(&self, packet: &[u8]) -> Prepared {
        let Some(front) = &self.front else { return Prepared::default() };
        let Ok(query) = query::check(packet) else { return Prepared::default() };
        let mut buffer: NameBuffer = [0; crate::limits::NAME_BYTES_MAX];
        let key = self.cache.key(&question(&query, fold(query.name(), &mut buffer)));
        front.fetch_set(key);
        Prepared(Some(key))
    }

    /// Goes on with that. See [`Service::fetch`].
    pub fn fetch(&self, prepared: Prepared, step: Step) {
        if let (Some(front), Some(key)) = (&self.front, prepared.0) {
            match step {
                Step::Entry => front.fetch_entry(key),
                Step::Bytes => front.fetch_bytes(key),
            }
        }
    }

    /// Answers a packet that was not prepared. See [`Service::serve`].
    pub fn serve(&mut self, packet: &[u8], client: Client, out: &mut [u8], now: Moment) -> Outcome<Box<Opening>> {
        self.serve_prepared(packet, Prepared::default(), client, out, now)
    }

    /// Answers a packet, or says that its question is still open. See [`Service::serve`].
    pub fn serve_prepared(
        &mut self,
        packet: &[u8],
        prepared: Prepared,
        client: Client,
        out: &mut [u8],
        now: Moment,
    ) -> Outcome<Box<Opening>> {
        let (outcome, source, rcode) = match self.judge(packet, prepared, client, out, now) {
            Path::Done(n, source) => (Outcome::Reply(n), source, rcode_of(&out[..n])),
            Path::DoneWith(n, source, rcode) => (Outcome::Reply(n), source, rcode),
            Path::DoneAndAgain(n, source, open) => (Outcome::ReplyAndOpen(n, open), source, rcode_of(&out[..n])),
            Path::Silence => (Outcome::Drop, Source::Dropped, 0),
            Path::Open(open) => return Outcome::Open(open),
        };
        self.tally.answered(client.transport, source, rcode, Duration::ZERO);
        self.last = (source, rcode);
        outcome
    }

    /// Where the last answer came from, and its response code; meaningless while its question is open.
    pub fn last(&self) -> (Source, u16) {
        self.last
    }

    fn judge(&mut self, packet: &[u8], prepared: Prepared, client: Client, out: &mut [u8], now: Moment) -> Path {
        let query = match query::check(packet) {
            Ok(query) => query,
            Err(Refusal::Silence) => return Path::Silence,
            Err(Refusal::HeaderOnly(rcode)) => {
                return Path::Done(build::header_only(packet, rcode, out), Source::Refused);
            }
            Err(Refusal::BadVersion(question_end)) => {
                let n = build::bad_version(packet, question_end, out);
                return Path::DoneWith(n, Source::Refused, rcode::BADVERS);
            }
        };
        let limit = reply::limit(&query, client.transport).min(out.len());
        let out = &mut out[..limit];
        let refuse = |ede: u16, out: &mut [u8]| refused(query, Some(reply::ede(ede)), out);

        if self.policy.admit.judge(client.address) != admit::Verdict::Allowed {
            return refuse(code::PROHIBITED, out);
        }
        if self.policy.admit.rate(client.address, now) == admit::Rate::Over {
            return refuse(code::OTHER, out);
        }
        if query.class() == CLASS_IN
            && let Some(path) = never_forwarded(&query, packet, out)
        {
            return path;
        }
        self.turn = self.turn.wrapping_add(1);
        let turn = if self.policy.rotate { self.turn } else { 0 };
        let mut buffer: NameBuffer = [0; crate::limits::NAME_BYTES_MAX];
        let name = fold(query.name(), &mut buffer);
        if let Some(answer) = self.policy.local.answer(&query, name, &client, out, turn) {
            let refused = answer.kind == LocalKind::Refused;
            return Path::Done(answer.len, if refused { Source::Refused } else { Source::Local });
        }
        if query.class() != CLASS_IN {
            return refused(query, None, out);
        }

        let question = question(&query, name);
        let key = prepared.0.unwrap_or_else(|| self.cache.key(&question));
        let group = self.policy.routes.find(question.name).map(|i| &self.policy.groups[i]);
        let due_before = self.cache.due_before();
        // Of what the front holds the count of owners is not touched: other workers would wait for its line of memory.
        let looked;
        let entry = match &mut self.front {
            Some(front) => front.look(&self.cache, key, &question),
            None => {
                looked = self.cache.look(key, &question);
                looked.as_ref()
            }
        };
        if let (Some(entry), Some(group)) = (entry, group)
            && let Some(data) = entry.data()
            && data.group == group.stamp
            && let Standing::Fresh { .. } = data.standing(group.stale.max_age, due_before, now)
        {
            let manner = Manner { limit, turn };
            let n = reply::fresh(&query, data, manner, now, out);
            if !entry.ahead.is_open(now) {
                return Path::Done(n, Source::Fresh);
            }
            let asking = Asking { query, question, key, client, manner, now };
            return Self::ahead(n, &self.policy, group, entry, &asking);
        }
        if !query.rd() {
            return refuse(code::NOT_AUTHORITATIVE, out);
        }
        let Some(group) = group else { return refused(query, Some(reply::ede(code::NOT_READY)), out) };
        let asking = Asking { query, question, key, client, manner: Manner { limit, turn }, now };
        Self::not_fresh(&self.cache, &self.tally, &self.policy.admit, group, entry.cloned(), &asking, out)
    }

    /// A fresh answer went out near its end: what is asked often is asked again, while its group is well.
    #[cold]
    fn ahead(n: usize, policy: &Policy, group: &GroupPolicy, entry: &Arc<Entry>, asking: &Asking<'_>) -> Path {
        let may_ask = policy.refresh_ahead && asking.query.rd() && group.outlook.belief() == Belief::Healthy;
        if !may_ask || !entry.ahead.claim(asking.now) {
            return Path::Done(n, Source::Fresh);
        }
        let mut opening = asking.open(&policy.admit, group, group.stale, Some(entry.clone()), Moment::NEVER);
        opening.ahead = true;
        Path::DoneAndAgain(n, Source::Fresh, opening)
    }

    /// The entry is stale, remembers a failure, or is not there.
    fn not_fresh(
        cache: &Cache,
        tally: &Tally,
        admit: &Admit,
        group: &GroupPolicy,
        entry: Option<Arc<Entry>>,
        asking: &Asking<'_>,
        out: &mut [u8],
    ) -> Path {
        let Asking { query, question, key, manner, now, .. } = *asking;
        let due_before = cache.due_before();
        let settings = cache.in_force(group.stale, now);
        // Whatever else is remembered of it, a failure say: what is held is given.
        let is_held = |e: &Entry| e.held(now).is_some_and(|d| d.group == group.stamp);
        let held = entry.as_ref().filter(|e| is_held(e)).cloned();
        if let Some(entry) = held.or_else(|| cache.look_held(key, &question, group.stamp, now))
            && let Some(data) = entry.data()
        {
            let standing = data.standing(settings.max_age, due_before, now);
            let (n, past) = reply::stale(&query, (data, true), standing, &settings, manner, now, out);
            tally.stale(past);
            if !entry.claim_asking(spread(GUARD_ASK_EVERY, key), now) {
                return Path::Done(n, Source::Stale);
            }
            let opening = asking.open(admit, group, settings, Some(entry), Moment::NEVER);
            return Path::DoneAndAgain(n, Source::Stale, opening);
        }
        let healings = group.outlook.healings();
        let belief = group.outlook.belief();
        let failed = entry.clone().filter(|e| e.has_failed(group.stamp, healings, now));
        let stale = servable(entry, (group, settings.max_age), due_before, now).or_else(|| {
            // What was validated may serve who asks without validation, once it is all there is.
            let validated = Question { cd: false, ..question };
            let other = question.cd.then(|| cache.look(cache.key(&validated), &validated)).flatten();
            servable(other, (group, settings.max_age), due_before, now)
        });
        let Some((entry, past)) = stale else {
            return match failed.and_then(|e| e.failure(group.stamp, healings, now)) {
                Some(failure) => {
                    let n = reply::error(
                        query,
                        rcode::SERVFAIL,
                        Some(reply::ede(code::CACHED_ERROR)),
                        &failure.kept_edes,
                        out,
                    );
                    Path::Done(n, Source::Failed)
                }
                None => Path::Open(asking.open(admit, group, settings, None, Moment::NEVER)),
            };
        };
        let ttl = entry.data().map_or(0, |d| d.ttl);
        let wait = patience::wait(Circumstances {
            belief,
            failed_of_late: failed.is_some(),
            patience: group.outlook.patience(),
            past,
            ttl,
        });
        if wait > Duration::ZERO {
            return Path::Open(asking.open(admit, group, settings, Some(entry), now + wait));
        }
        let Some(data) = entry.data() else { return Path::Silence };
        let standing = data.standing_in(group.stamp, settings.max_age, due_before, now);
        let (n, past) = reply::stale(&query, (data, false), standing, &settings, manner, now, out);
        tally.stale(past);
        // Behind the stale answer the name is asked again: not while its failure is remembered, and one name at most
        // every 30 s while the group is not believed healthy.
        let again =
            failed.is_none() && (belief == Belief::Healthy || entry.claim_asking(spread(STALE_RECHECK, key), now));
        if again {
            Path::DoneAndAgain(n, Source::Stale, asking.open(admit, group, settings, Some(entry), Moment::NEVER))
        } else {
            Path::Done(n, Source::Stale)
        }
    }
}

fn question<'n>(query: &Query<'_>, name: &'n [u8]) -> Question<'n> {
    Question { name, qtype: query.qtype(), dnssec_ok: query.dnssec_ok(), cd: query.cd() }
}

/// A pause and up to a tenth more, other for each name: what went stale together does not come back together.
fn spread(pause: Duration, key: Key) -> Duration {
    pause + Duration::from_millis((key.0 % (pause.as_millis() / 10)) as u64)
}

/// One question on its way, for the steps behind the fresh answer.
struct Asking<'q> {
    query: Query<'q>,
    question: Question<'q>,
    key: Key,
    client: Client,
    manner: Manner,
    now: Moment,
}

impl Asking<'_> {
    fn open(
        &self,
        admit: &Admit,
        group: &GroupPolicy,
        settings: StaleSettings,
        stale: Option<Arc<Entry>>,
        stale_at: Moment,
    ) -> Box<Opening> {
        Box::new(Opening {
            question: self.question.to_owned(),
            key: self.key,
            query: self.query.to_owned(),
            client: self.client,
            bound: admit.bound_client(self.client.address),
            client_hash: ClientHash::of(admit.prefix_of(self.client.address)),
            group: group.stamp,
            stale_settings: settings,
            stale,
            stale_at,
            ahead: false,
            turn: self.manner.turn,
            received: self.now,
        })
    }
}

/// The entry and how far past its TTL it is, where it may be served although it is not fresh. Of another group's
/// answers the negative ones are void, and the positive ones count as expired.
fn servable(
    entry: Option<Arc<Entry>>,
    (group, max_age): (&GroupPolicy, Duration),
    due_before: Moment,
    now: Moment,
) -> Option<(Arc<Entry>, Duration)> {
    let entry = entry?;
    let data: &Data = entry.data()?;
    if data.group != group.stamp && data.kind.is_negative() {
        return None;
    }
    let past = match data.standing_in(group.stamp, max_age, due_before, now) {
        Standing::Fresh { .. } if max_age.is_zero() => return None,
        Standing::Fresh { .. } => Duration::ZERO,
        Standing::Stale { past } => past,
        Standing::Gone => return None,
    };
    Some((entry, past))
}

/// Types that are answered here whatever the name (RULES "A question"): OPT as a type is FORMERR, transfers and the
/// meta types beside them are refused, ANY gets HINFO (RFC 8482 §4.2).
fn never_forwarded(query: &Query<'_>, packet: &[u8], out: &mut [u8]) -> Option<Path> {
    match query.qtype() {
        rtype::OPT => Some(Path::Done(build::header_only(packet, rcode::FORMERR, out), Source::Refused)),
        249..=254 => Some(refused(*query, None, out)),
        rtype::ANY => {
            let mut builder = Builder::new(*query, rcode::NOERROR, None, &[], out);
            builder.record(Section::Answer, rtype::HINFO, CLASS_IN, ANY_TTL, b"\x07RFC8482\x00");
            Some(Path::Done(builder.finish(), Source::Local))
        }
        _ => None,
    }
}

/// TTL of the HINFO record that ANY gets, in seconds: RFC 8482 §4.2 leaves it to the operator.
const ANY_TTL: u32 = 3600;

fn refused(query: Query<'_>, ede: Option<Ede>, out: &mut [u8]) -> Path {
    Path::Done(reply::error(query, rcode::REFUSED, ede, &[], out), Source::Refused)
}

fn rcode_of(reply: &[u8]) -> u16 {
    u16::from(reply[3] & 15)
}

#[cfg(test)]
mod tests;
