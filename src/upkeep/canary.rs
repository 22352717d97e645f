//! Canaries: names that are asked through the own listener, as a client would ask them.
//!
//! Not pure: one task a canary. They decide nothing: what came is judged, kept for status and metrics, and told where a
//! canary begins to fail and where it succeeds again. Neither liveness nor readiness looks at it. To those who judge
//! servers its questions are those of one more client on this node.
//!
//! - UDP to the first address that is listened on, TCP where the reply is cut; both within 5 s.
//! - What a client gets counts, not where it came from: a stale answer is an answer.
//! - Canaries do not go in step: each waits for a random share of its pause before it is asked first, at most 5 s, and
//!   its pauses vary by a tenth.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::clock::{self, Moment};
use crate::limits::UDP_PAYLOAD_MAX;
use crate::observe::event::{self, Event};
use crate::observe::liveness::{any_beside, reachable};
use crate::observe::status::CanaryStatus;
use crate::observe::{CanarySettings, Expected};
use crate::wire::reply::{self, Identity, Reply, identify};
use crate::wire::{build, edns, rcode};

/// Within this an answer must come.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// The first question goes out within this.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// The canaries in force.
pub struct Canaries {
    address: Option<SocketAddr>,
    placed: Mutex<Vec<Placed>>,
}

struct Placed {
    settings: CanarySettings,
    record: Arc<Mutex<Record>>,
    task: AbortHandle,
}

/// What became of a canary's questions.
#[derive(Default)]
struct Record {
    last: Option<Asked>,
    failing_since: Option<Moment>,
}

struct Asked {
    at: Moment,
    took: Duration,
    /// In words, what was right or what was wrong.
    outcome: Result<String, String>,
}

impl Canaries {
    /// Will ask the first of `listening`.
    pub fn new(listening: &[SocketAddr]) -> Self {
        Self { address: listening.first().copied().map(reachable), placed: Mutex::default() }
    }

    /// Puts `canaries` in force; what is known of a name and type that stay is kept. Called within the runtime.
    pub fn place(&self, canaries: &[CanarySettings]) {
        let Some(address) = self.address else { return };
        let mut placed = lock(&self.placed);
        let mut before = std::mem::take(&mut *placed);
        for settings in canaries {
            let same = |p: &Placed| (&p.settings.name, p.settings.qtype) == (&settings.name, settings.qtype);
            let old = before.iter().position(same).map(|at| before.swap_remove(at));
            placed.push(match old {
                Some(old) if old.settings == *settings => old,
                old => {
                    let record = old.as_ref().map_or_else(Arc::default, |old| old.record.clone());
                    old.inspect(|old| old.task.abort());
                    let task = tokio::spawn(run(address, settings.clone(), record.clone())).abort_handle();
                    Placed { settings: settings.clone(), record, task }
                }
            });
        }
        before.iter().for_each(|gone| gone.task.abort());
    }

    /// How they fare.
    pub fn status(&self, now: Moment) -> Vec<CanaryStatus> {
        lock(&self.placed).iter().map(|p| status_of(&p.settings, &lock(&p.record), now)).collect()
    }
}

/// A canary's name and type: its label in metrics.
fn label(settings: &CanarySettings) -> String {
    format!("{} {}", settings.name, RecordType::from(settings.qtype))
}

fn status_of(settings: &CanarySettings, record: &Record, now: Moment) -> CanaryStatus {
    let last = record.last.as_ref();
    CanaryStatus {
        canary: label(settings),
        success: last.map(|asked| asked.outcome.is_ok()),
        reason: match last.map(|asked| &asked.outcome) {
            None => "not asked yet".to_owned(),
            Some(Ok(words) | Err(words)) => words.clone(),
        },
        seconds: last.map(|asked| asked.took.as_secs_f64()),
        age_seconds: last.map(|asked| now.since(asked.at).as_secs()),
        failing_seconds: record.failing_since.map(|at| now.since(at).as_secs()),
    }
}

async fn run(address: SocketAddr, settings: CanarySettings, record: Arc<Mutex<Record>>) {
    tokio::time::sleep(settings.every.min(FIRST_WITHIN).mul_f64(rand::random())).await;
    loop {
        let begun = clock::now();
        let outcome = match timeout(ASK_DEADLINE, ask(address, &settings)).await {
            Err(_) => Err(format!("no answer within {} s", ASK_DEADLINE.as_secs())),
            Ok(Err(e)) => Err(format!("{address} cannot be asked: {e}")),
            Ok(Ok(packet)) => judge(&settings, &packet),
        };
        let now = clock::now();
        note(&settings, &mut lock(&record), Asked { at: now, took: now.since(begun), outcome }, &mut event::report);
        tokio::time::sleep(settings.every.mul_f64(0.95 + 0.1 * rand::random::<f64>())).await;
    }
}

/// Takes down what came, and tells where that is a change.
fn note(settings: &CanarySettings, record: &mut Record, asked: Asked, tell: &mut dyn FnMut(Event)) {
    match (&asked.outcome, record.failing_since) {
        (Err(reason), None) => {
            record.failing_since = Some(asked.at);
            tell(Event::CanaryFails { canary: label(settings), reason: reason.clone() });
        }
        (Ok(_), Some(since)) => {
            record.failing_since = None;
            tell(Event::CanarySucceeds { canary: label(settings), failed_for: asked.at.since(since) });
        }
        (Ok(_), None) | (Err(_), Some(_)) => {}
    }
    record.last = Some(asked);
}

//------------ One question ------------------------------------------------------------------------------------------

async fn ask(address: SocketAddr, settings: &CanarySettings) -> io::Result<Vec<u8>> {
    let id = rand::random::<u16>();
    let name = settings.name.as_wire().to_ascii_lowercase();
    let mut question = build::question(&name, settings.qtype, false, false, true);
    question[..2].copy_from_slice(&id.to_be_bytes());
    let is_ours = |packet: &[u8]| identify(packet, id, &name, settings.qtype) != Identity::NotOurs;

    let socket = UdpSocket::bind((any_beside(address), 0)).await?;
    socket.connect(address).await?;
    socket.send(&question).await?;
    let mut packet = vec![0; UDP_PAYLOAD_MAX];
    let length = loop {
        let length = socket.recv(&mut packet).await?;
        if is_ours(&packet[..length]) {
            break length;
        }
    };
    packet.truncate(length);
    if !reply::is_truncated(&packet) {
        return Ok(packet);
    }
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[&(question.len() as u16).to_be_bytes(), &question[..]].concat()).await?;
    loop {
        let mut packet = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut packet).await?;
        if is_ours(&packet) {
            return Ok(packet);
        }
    }
}

/// Is the reply as expected? In words, what it is, or what is wrong with it. No word of it comes from the network.
fn judge(settings: &CanarySettings, packet: &[u8]) -> Result<String, String> {
    let reply = reply::check(packet).map_err(|_| "the reply cannot be read".to_owned())?;
    let records = reply.answers().iter().filter(|r| r.rtype == settings.qtype).count();
    let of_type = |n: usize| match n {
        0 => format!("no {} record", RecordType::from(settings.qtype)),
        1 => format!("1 {} record", RecordType::from(settings.qtype)),
        n => format!("{n} {} records", RecordType::from(settings.qtype)),
    };
    let said = |words: String| Ok(format!("{words}{}", remark(&reply)));
    let wrong = |words: String| Err(format!("{words}{}", remark(&reply)));
    match (reply.rcode(), &settings.expect) {
        (rcode::NXDOMAIN, Expected::NxDomain) => said("NXDOMAIN, as expected".into()),
        (rcode::NOERROR, Expected::NxDomain) => wrong("NOERROR, where NXDOMAIN is expected".into()),
        (rcode::NOERROR, Expected::NoData) if records == 0 => said(format!("{}, as expected", of_type(0))),
        (rcode::NOERROR, Expected::NoData) => wrong(format!("{}, where none is expected", of_type(records))),
        (rcode::NOERROR, Expected::Records) if records > 0 => said(of_type(records)),
        (rcode::NOERROR, Expected::Data(_)) if records == 0 => wrong(of_type(0)),
        (rcode::NOERROR, Expected::Data(text)) => match has_data(packet, settings.qtype, text) {
            Some(true) => said(format!("{}, {text} among them", of_type(records))),
            Some(false) => wrong(format!("{}, {text} not among them", of_type(records))),
            None => Err("the records cannot be read".into()),
        },
        (rcode::NOERROR, Expected::Records) => wrong(of_type(0)),
        (other, _) => wrong(match rcode::word(other) {
            "other" => format!("RCODE {other}"),
            word => word.to_owned(),
        }),
    }
}

fn remark(reply: &Reply<'_>) -> String {
    let codes: Vec<String> = edns::ede_codes(reply.options()).map(|code| code.to_string()).collect();
    if codes.is_empty() { String::new() } else { format!(" (extended error {})", codes.join(", ")) }
}

/// Is data that reads like `text` in a record of the type? `None` where the reply has what hickory cannot read.
fn has_data(packet: &[u8], qtype: u16, text: &str) -> Option<bool> {
    let message = Message::from_vec(packet).ok()?;
    let mut of_type = message.answers.iter().filter(|r| u16::from(r.record_type()) == qtype);
    Some(of_type.any(|r| reads_alike(&r.data.to_string(), text)))
}

fn reads_alike(data: &str, text: &str) -> bool {
    match (data.parse::<IpAddr>(), text.parse::<IpAddr>()) {
        (Ok(data), Ok(text)) => data == text,
        _ => data.trim_end_matches('.').eq_ignore_ascii_case(text.trim_end_matches('.')),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rtype;

    #[test]
    fn a_reply_is_judged_by_what_is_expected_of_it() {
        use Expected::{Data, NoData, NxDomain, Records};
        let data = |text: &str| Data(text.to_owned());
        let one: &[&[u8]] = &[&[192, 0, 2, 1]];
        let two: &[&[u8]] = &[&[192, 0, 2, 1], &[192, 0, 2, 2]];
        for (expect, rcode, records, want) in [
            (Records, 0, one, Ok("1 A record")),
            (Records, 0, two, Ok("2 A records")),
            (Records, 0, &[], Err("no A record")),
            (Records, 3, &[], Err("NXDOMAIN")),
            (Records, 2, &[], Err("SERVFAIL")),
            (Records, 11, &[], Err("RCODE 11")),
            (NoData, 0, &[], Ok("no A record, as expected")),
            (NoData, 0, one, Err("1 A record, where none is expected")),
            (NoData, 3, &[], Err("NXDOMAIN")),
            (NxDomain, 3, &[], Ok("NXDOMAIN, as expected")),
            (NxDomain, 0, one, Err("NOERROR, where NXDOMAIN is expected")),
            (data("192.0.2.2"), 0, two, Ok("2 A records, 192.0.2.2 among them")),
            (data("192.0.2.2"), 0, one, Err("1 A record, 192.0.2.2 not among them")),
            (data("192.0.2.2"), 0, &[], Err("no A record")),
        ] {
            let shown = format!("{expect:?} {rcode}");
            let settings = settings(expect);
            let judged = judge(&settings, &packet(&settings, rcode, records));
            assert_eq!(judged.as_ref().map(String::as_str).map_err(String::as_str), want, "{shown}");
        }
        let mut cut = packet(&settings(Records), 0, one);
        cut.truncate(20);
        assert_eq!(judge(&settings(Records), &cut), Err("the reply cannot be read".into()));
    }

    #[test]
    fn data_reads_alike_whatever_its_spelling() {
        for (data, text, alike) in [
            ("2001:db8::1", "2001:DB8:0::1", true),
            ("192.0.2.1", "192.0.2.10", false),
            ("mail.example.org.", "Mail.Example.org", true),
            ("10 mail.example.org.", "20 mail.example.org.", false),
        ] {
            assert_eq!(reads_alike(data, text), alike, "{data} {text}");
        }
    }

    #[test]
    fn only_a_change_is_told_and_the_first_success_is_none() {
        let (settings, mut record) = (settings(Expected::Records), Record::default());
        let mut told = vec![];
        for (second, fine) in [(1, true), (2, true), (3, false), (4, false), (9, true), (10, true)] {
            let outcome = if fine { Ok("1 A record".to_owned()) } else { Err("SERVFAIL".to_owned()) };
            let asked = Asked { at: Moment::from_secs(second), took: Duration::from_millis(2), outcome };
            note(&settings, &mut record, asked, &mut |event| told.push(format!("{second}: {event}")));
        }
        let want = ["3: the canary www.test. A fails: SERVFAIL", "9: the canary www.test. A succeeds, after 6 s"];
        assert_eq!(told, want);
        let status = status_of(&settings, &record, Moment::from_secs(12));
        assert_eq!((status.success, status.age_seconds, status.failing_seconds), (Some(true), Some(2), None));
    }

    #[tokio::test]
    async fn those_that_stay_keep_what_is_known_of_them() {
        let canaries = Canaries::new(&["127.0.0.1:9".parse().unwrap()]);
        let (one, other) = (settings(Expected::Records), CanarySettings { qtype: 28, ..settings(Expected::Records) });
        canaries.place(std::slice::from_ref(&one));
        let asked = Asked { at: Moment::ZERO, took: Duration::ZERO, outcome: Ok("fine".into()) };
        lock(&lock(&canaries.placed)[0].record).last = Some(asked);
        let shown = || -> Vec<String> {
            let status = canaries.status(Moment::ZERO);
            status.into_iter().map(|s| format!("{}: {}", s.canary, s.reason)).collect()
        };
        canaries.place(&[other.clone(), one.clone()]);
        assert_eq!(shown(), ["www.test. AAAA: not asked yet", "www.test. A: fine"]);
        canaries.place(&[CanarySettings { expect: Expected::NoData, ..one }]);
        assert_eq!(shown(), ["www.test. A: fine"], "until it is asked again");
        canaries.place(&[]);
        assert!(shown().is_empty());
    }

    fn settings(expect: Expected) -> CanarySettings {
        CanarySettings { name: "www.test".parse().unwrap(), qtype: rtype::A, expect, every: Duration::from_secs(30) }
    }

    fn packet(settings: &CanarySettings, rcode: u8, records: &[&[u8]]) -> Vec<u8> {
        let mut packet = build::question(settings.name.as_wire(), settings.qtype, false, false, false);
        (packet[2], packet[3], packet[7]) = (0x81, 0x80 | rcode, records.len() as u8);
        for data in records {
            packet.extend([0xc0, 12, 0, settings.qtype as u8, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
            packet.extend(*data);
        }
        packet
    }
}
