//! evenkeel: a DNS caching resolver that runs on every node and keeps answering when what is behind it has a bad day.
//!
//! This page is the map. What the program does for its users is in the README; every module's head is its rules.
//!
//! # The way of a query
//!
//! ```text
//! client ─▶ listen ─▶ serve ─────────────────── reply / drop ─────────────────▶ listen ─▶ client
//!                       │ wire     what is asked? (a checked view, no copy)        ▲
//!                       │ admit    may this client ask, now?                       │
//!                       │ local    do we own the answer?                           │
//!                       │ cache    Fresh ▸ reply · Stale ▸ reply or wait · Miss    │
//!                       │ route    which group answers for this name?              │
//!                       ▼ open                                                     │
//!                     driver ◀── step ── resolve   a place, what next? (desk, patience, attempts)
//!                       │                   ├─ upstream   whom, how long, may we hedge?
//!                       ▼                   └─ vet        is it ours, what is it worth?
//!                    transport ─▶ upstream server                                  │
//!                       └───────▶ cache.keep (guard) ─▶ every waiter's reply ──────┘
//!
//! beside the way:  upkeep (probe, snapshot, system, source, network) · observe (events, metrics, admin, control)
//! ```
//!
//! - [`serve`] is the first file to read: the checklist of a query, a plain function from bytes to bytes.
//! - [`resolve`] is the machine for a miss: it says what next, [`driver`] carries it out and says when.
//! - [`upstream`] chooses and judges servers; [`cache`] keeps what was answered; [`wire`] reads and writes packets.
//! - [`listen`] and [`transport`] move bytes and decide nothing. [`daemon`] puts it all together, [`cli`] starts it.
//! - [`stub`] points the machine's resolv.conf at evenkeel, and back.
//! - [`drill`] plays outages in virtual time: the same core, simulated servers in the place of [`transport`].
//!
//! # Words
//!
//! | word | what it means here |
//! |---|---|
//! | group | servers that answer for the same zones, in three tiers |
//! | fit | a server that gets first questions: neither silent nor down nor left out |
//! | silent | questions are overdue and nothing at all has come; the first packet ends it |
//! | down | convicted; comes back by probes or by copies of live questions, as it went |
//! | dark | a group without a fit server: known names are answered stale at once |
//! | hold | how long a better tier must have been fit before it is used again |
//! | desk | a group and all pursuits that ask it, behind one lock |
//! | pursuit | the work on one question, shared by all who ask it |
//! | copy | a live question sent once more to a server that was convicted; no client waits for it |
//! | failing zone | one of whose children many fail and none is answered; it has few places |
//! | patience | how long a client waits for a fresh answer while there is a stale one |
//! | hedge | a second question to another server while the first is overdue |
//! | stamp | which group, in which life, gave an answer |
//!
//! # What is absent
//!
//! - In `wire`, `cache`, `upstream`, `resolve`, `serve`, `config` and `drill` nothing does IO, reads a clock, draws a
//!   random number or writes a log line: time and chance are arguments. `tests/tidy.rs` holds it.
//! - No judge knows another: `admit`, `local`, `cache`, `route`, `upstream` and `vet` speak their own vocabulary, and
//!   only the layer above translates.
//! - Between a packet and a fresh or stale answer there is no task, no channel, no await, no allocation.
//! - On the data path there is no error, only an outcome: reply, stale, SERVFAIL with its extended error, or silence.
//! - No state of an upstream ends, restarts or un-readies the process.
//! - `unsafe` stands in `listen/mmsg.rs`, and in `cache/prefetch.rs` around a hint to the processor.

pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod drill;
pub mod driver;
pub mod import;
pub mod limits;
pub mod listen;
pub mod observe;
pub mod resolve;
pub mod serve;
pub mod stub;
pub mod transport;
pub mod upkeep;
pub mod upstream;
pub mod wire;
