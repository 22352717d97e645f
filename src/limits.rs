//! Every bound of the program: default, least and greatest value, and where the number comes from.
//!
//! A bound that a user may set is a [`Bound`]; one that is fixed is a plain constant. Configuration clamps nothing:
//! a value outside its bound is refused with both ends named.

use std::time::Duration;

/// A settable quantity: its default and the ends of what is accepted.
#[derive(Clone, Copy, Debug)]
pub struct Bound<T> {
    /// Used where nothing is configured.
    pub default: T,
    /// Least accepted value.
    pub min: T,
    /// Greatest accepted value.
    pub max: T,
}

const fn secs(default: u64, min: u64, max: u64) -> Bound<Duration> {
    Bound { default: Duration::from_secs(default), min: Duration::from_secs(min), max: Duration::from_secs(max) }
}

const fn millis(default: u64, min: u64, max: u64) -> Bound<Duration> {
    Bound {
        default: Duration::from_millis(default),
        min: Duration::from_millis(min),
        max: Duration::from_millis(max),
    }
}

const DAY: u64 = 86_400;

//------------ Messages ----------------------------------------------------------------------------------------------

/// Longest name on the wire, root label included (RFC 1035 §3.1).
pub const NAME_BYTES_MAX: usize = 255;
/// Header of a message (RFC 1035 §4.1.1).
pub const HEADER_BYTES: usize = 12;
/// Largest UDP reply that is sent, and the payload size that is offered to servers (RFC 9715 §3: 1232 where the
/// path is unknown).
pub const UDP_PAYLOAD_MAX: usize = 1232;
/// Largest UDP reply to a client without EDNS (RFC 1035 §4.2.1).
pub const UDP_PAYLOAD_PLAIN: usize = 512;
/// Largest message at all (two bytes of length over TCP, RFC 1035 §4.2.2).
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// Largest query that is read over UDP; longer ones are cut by the kernel and dropped.
pub const UDP_QUERY_BYTES_MAX: usize = 2048;
/// Upstream extended errors that are kept with a reply, and bytes of text of each (RULES "A reply").
pub const EDE_KEPT_MAX: usize = 2;
/// Bytes of text kept of one upstream extended error.
pub const EDE_TEXT_BYTES_MAX: usize = 64;
/// Replies that do not match a question before it is asked over TCP (RULES "A reply").
pub const MISMATCHES_MAX: u32 = 10;

//------------ Listening ---------------------------------------------------------------------------------------------

/// UDP workers; 0 is as many as the process may use, at most [`WORKERS_AUTO_MAX`].
pub const WORKERS: Bound<u64> = Bound { default: 0, min: 0, max: 64 };
/// Most workers that are chosen without being asked for.
pub const WORKERS_AUTO_MAX: usize = 4;
/// Datagrams that one system call moves.
pub const BATCH: usize = 64;
/// How long answers go on after SIGTERM.
pub const DRAIN: Bound<Duration> = secs(2, 0, 60);
/// Misses that wait for the driver; beyond it the question is refused locally.
pub const MISS_QUEUE: usize = 4096;
/// TCP connections in all.
pub const TCP_CONNECTIONS: Bound<u64> = Bound { default: 1024, min: 1, max: 65_536 };
/// TCP connections of one client.
pub const TCP_CONNECTIONS_PER_CLIENT: Bound<u64> = Bound { default: 64, min: 1, max: 65_536 };
/// Questions under way on one TCP connection; reading pauses there (RFC 7766 §6.2.1.1 asks for pipelining).
pub const TCP_PIPELINE_MAX: usize = 128;
/// Room for one read on a TCP connection: some 400 questions.
pub const TCP_READ_BYTES: usize = 16_384;
/// Replies on a TCP connection are written once they are this much together, at the latest.
pub const TCP_WRITE_BYTES: usize = 16_384;
/// Questions that a TCP connection asks in one turn; then others have theirs.
pub const TCP_TURN_MAX: usize = 128;
/// A TCP connection without a question under way is closed after this (RFC 7766 §6.2.3).
pub const TCP_IDLE: Duration = Duration::from_secs(10);
/// A message that has begun must be read, or written, whole within this.
pub const TCP_MESSAGE_DEADLINE: Duration = Duration::from_secs(5);
/// Pause of the accept loop where the process is out of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

//------------ Clients -----------------------------------------------------------------------------------------------

/// Questions a second of one client; 0 is none.
pub const QUERIES_PER_SECOND: Bound<u64> = Bound { default: 0, min: 0, max: 10_000_000 };
/// Questions of one client that wait for upstreams at once.
pub const IN_FLIGHT_PER_CLIENT: Bound<u64> = Bound { default: 256, min: 1, max: 1_000_000 };
/// Clients whose rate is kept; the table is emptied of the oldest beyond it.
pub const CLIENTS_TRACKED_MAX: usize = 65_536;
/// Clients that wait for one and the same question; more are refused locally.
pub const WAITERS_PER_PURSUIT_MAX: usize = 1024;

//------------ Cache -------------------------------------------------------------------------------------------------

/// Bytes of the cache, everything included.
pub const CACHE_BYTES: Bound<u64> = Bound { default: 64 << 20, min: 1 << 20, max: 1 << 40 };
/// Least time to live, in seconds; above 0 it also keeps answers of TTL 0.
pub const TTL_MIN: Bound<Duration> = secs(0, 0, 3600);
/// Greatest time to live (RFC 8767 §4 caps at 7 days, RFC 2181 §8 bounds the field).
pub const TTL_MAX: Bound<Duration> = secs(DAY, 1, 7 * DAY);
/// Greatest time to live of a negative answer (RFC 2308 §5 advises hours; complaint 11 is why it is seconds here).
pub const TTL_NEGATIVE_MAX: Bound<Duration> = secs(30, 0, 3 * 3600);
/// How far past its TTL an answer may serve (RFC 8767 §5: 1 to 3 days).
pub const STALE_AGE_MAX: Bound<Duration> = secs(DAY, 0, 30 * DAY);
/// TTL of a stale answer (RFC 8767 §5: 30 s).
pub const STALE_REPLY_TTL: Bound<Duration> = secs(30, 1, 3600);
/// Ends between which a group's own patience moves.
pub const PATIENCE_AUTO: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(1));
/// Patience that may be configured; RFC 8767 §5 sets 1.8 s as the client response timer.
pub const PATIENCE: Bound<Duration> = millis(150, 0, 1800);
/// Patience for data that is long past its TTL (RFC 8767 §5).
pub const PATIENCE_OLD: Duration = Duration::from_millis(1800);
/// Data past its TTL by no more than this, or its TTL, has the short patience.
pub const STALE_RECENT: Duration = Duration::from_secs(300);
/// First and longest time for which a failure is remembered (RFC 9520 §3.2: at least 1 s, at most 5 min).
pub const FAILURE_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A stale name is not asked again sooner than this after a failure (RFC 8767 §5: no more often than every 30 s).
pub const STALE_RECHECK: Duration = Duration::from_secs(30);
/// Least TTL, in seconds, of an answer that is asked again ahead of its end: a quarter of it is more than TTLs are
/// rounded by, and the last tenth of it longer than an answer takes.
pub const AHEAD_TTL_MIN: u32 = 5;
/// Pause between snapshots of the cache.
pub const SNAPSHOT_EVERY: Bound<Duration> = secs(300, 1, DAY);
/// A snapshot is not written anew while fewer than one in so many of its entries have changed.
pub const SNAPSHOT_CHANGED_SHARE: u64 = 100;
/// Bytes a second of a snapshot that is written beside serving.
pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 4 << 20;
/// A lower tier's negative answer lives no longer than this (RULES "Tiers").
pub const OTHER_VIEW_NEGATIVE_TTL: u32 = 5;

//------------ Last known good --------------------------------------------------------------------------------------

/// How long a sudden negative answer for a guarded name is held off.
pub const GUARD_HOLD: Bound<Duration> = secs(1800, 0, DAY);
/// Only a name that had answers this long is guarded.
pub const GUARD_MIN_GOOD: Bound<Duration> = secs(600, 0, DAY);
/// Guarded questions whose last good answer is kept, and bytes of them (RULES "Guard and freeze").
pub const GUARDED_MAX: usize = 10_000;
/// Bytes of the answers that are kept for guarded questions.
pub const GUARDED_BYTES_MAX: usize = 16 << 20;
/// Pause between questions for a name that is held (RULES "Guard and freeze").
pub const GUARD_ASK_EVERY: Duration = Duration::from_secs(30);
/// How long a freeze lasts.
pub const FREEZE: Bound<Duration> = secs(3600, 1, DAY);
/// Pause between questions of a canary.
pub const CANARY_EVERY: Bound<Duration> = secs(30, 1, 3600);
/// Canaries in all: each has two lines of metrics.
pub const CANARIES_MAX: usize = 64;

//------------ Upstreams ---------------------------------------------------------------------------------------------

/// A question is answered, one way or the other, within this.
pub const DEADLINE: Bound<Duration> = millis(4000, 100, 30_000);
/// Pursuits of one group at once.
pub const IN_FLIGHT: Bound<u64> = Bound { default: 4096, min: 1, max: 1_000_000 };
/// Pursuits of one zone within a group at once.
pub const PER_ZONE_IN_FLIGHT: Bound<u64> = Bound { default: 512, min: 1, max: 1_000_000 };
/// Pursuits at once of a zone that fails (`upstream::zones`).
pub const FAILING_ZONE_IN_FLIGHT_MAX: u32 = 32;
/// Of them, pursuits of one client.
pub const FAILING_ZONE_IN_FLIGHT_PER_CLIENT_MAX: u32 = 8;
/// A question that is so old, and has an attempt that is overdue or has failed, yields its place where a bound is full.
pub const HOPELESS_AFTER_MIN: Duration = Duration::from_millis(300);
/// A question that nobody has answered for so long counts against its zone.
pub const ZONE_FAILED_AFTER: Duration = Duration::from_secs(1);
/// A question of a failing zone is given up after this: it has had one attempt and no second one comes.
pub const FAILING_ZONE_DEADLINE: Duration = Duration::from_secs(2);
/// Questions a second, behind stale answers, of one group: a herd that comes back must not be one upstream.
pub const REFRESHES_PER_SECOND: f64 = 100.0;
/// How long a client that asked is remembered when it is judged whether there are others.
pub const CLIENTS_SEEN_SPAN: Duration = Duration::from_secs(60);
/// Pause between copies of live questions to a server that waits for them.
pub const COPY_EVERY: Duration = Duration::from_secs(1);
/// A group that was not weighed for longer was asleep with the machine: no tier held meanwhile.
pub const WEIGHED_GAP_MAX: Duration = Duration::from_secs(5);
/// A server that is down still speaks where a packet came from it this lately.
pub const SPEAKING_SPAN: Duration = Duration::from_secs(10);
/// Pause between probes for loops of a server that was not found to lead back: its way may have changed since.
pub const LOOP_LOOK_EVERY: Duration = Duration::from_secs(600);
/// Pause between probes for loops of a server that was found to lead back here.
pub const LOOP_PROBE_EVERY: Duration = Duration::from_secs(60);
/// How long the question of a loop probe may take to come back.
pub const LOOP_PROBE_SPAN: Duration = Duration::from_secs(5);
/// Packets a second to one server; 0 is no limit.
pub const PACKETS_PER_SECOND: Bound<u64> = Bound { default: 0, min: 0, max: 10_000_000 };
/// Attempts for one question on one server (RULES "Budgets and bounds").
pub const ATTEMPTS_PER_SERVER: u8 = 3;
/// Servers in one tier.
pub const SERVERS_PER_TIER_MAX: usize = 16;
/// Groups in all.
pub const GROUPS_MAX: usize = 256;
/// Second questions without regard to first ones, a second, and how many may be saved up.
pub const BUDGET_FLOOR_PER_SECOND: f64 = 50.0;
/// Second questions that may be saved up.
pub const BUDGET_BURST: f64 = 20.0;
/// Second questions as a share of first ones.
pub const BUDGET_SHARE: Bound<f64> = Bound { default: 0.3, min: 0.0, max: 2.0 };
/// Share of the questions that are logged.
pub const QUERY_LOG_SAMPLE: Bound<f64> = Bound { default: 1.0, min: 0.0, max: 1.0 };
/// Ends between which the hedge delay moves, and what it is while a server's latency is unknown.
pub const HEDGE_AFTER: Bound<Duration> = millis(20, 10, 300);
/// Ends between which the wait before the same server is asked again moves.
pub const ASK_AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Ends between which an attempt's try time-out moves.
pub const TRY_TIMEOUT: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(1));
/// Overdue questions that make a server silent (RULES "Servers").
pub const SILENT_OVERDUE_MIN: u32 = 5;
/// Least time without any packet that makes a server silent.
pub const SILENT_AFTER_MIN: Duration = Duration::from_millis(50);
/// The same for a server that has not answered anything yet, nor since the network changed.
pub const SILENT_AFTER_MIN_UNKNOWN: Duration = Duration::from_millis(500);
/// A server that was silent for this long is down.
pub const DOWN_AFTER_SILENT: Duration = Duration::from_secs(1);
/// Pause between probes in doubt.
pub const PROBE_EVERY: Bound<Duration> = millis(2000, 200, 600_000);
/// Pause between probes of a fit server while live answers are seen.
pub const PROBE_EVERY_FIT: Duration = Duration::from_secs(10);
/// Pause between probes while a whole group is down.
pub const PROBE_EVERY_DOWN: Duration = Duration::from_secs(1);
/// Pause between probes before a group's first answer, for [`PROBE_START_SPAN`].
pub const PROBE_EVERY_START: Duration = Duration::from_millis(200);
/// How long probes go at the pace of [`PROBE_EVERY_START`].
pub const PROBE_START_SPAN: Duration = Duration::from_secs(1);
/// Wait for a probe's answer.
pub const PROBE_TIMEOUT: Bound<Duration> = millis(1000, 50, 10_000);
/// Failed probes that convict.
pub const FALL: Bound<u64> = Bound { default: 3, min: 1, max: 100 };
/// Passed probes that acquit.
pub const RISE: Bound<u64> = Bound { default: 3, min: 1, max: 100 };
/// A better tier must have been fit this long.
pub const HOLD: Bound<Duration> = secs(10, 0, 3600);
/// Longest hold that damping makes.
pub const HOLD_DAMPED_MAX: Duration = Duration::from_secs(600);
/// A better tier's share grows over this.
pub const RAMP: Bound<Duration> = secs(10, 0, 3600);
/// Names a second that a group asks while it is down (RULES "When a waiting client gets the stale answer").
pub const DOWN_ASKS_PER_SECOND: f64 = 10.0;
/// How long a server that refused EDNS is asked without.
pub const NO_EDNS_SPAN: Duration = Duration::from_secs(3600);

//------------ Local and admin ---------------------------------------------------------------------------------------

/// TTL of local records.
pub const LOCAL_TTL: Bound<Duration> = secs(3600, 0, 7 * DAY);
/// Bytes of one hosts file; a larger one is refused.
pub const HOSTS_BYTES_MAX: u64 = 16 << 20;
/// Connections of the admin listener.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
/// Bytes of one request on the control socket.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4096;
