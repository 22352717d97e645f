//! The driver against a server of the test's own: who asked is answered, and nothing is left behind.

use std::net::Ipv4Addr;

use tokio::net::UdpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::cache::key::Keys;
use crate::cache::store::MokaStore;
use crate::observe::metrics::Meters;
use crate::upstream::{ClientHash, Group, GroupSettings, ServerSettings};
use crate::wire::build;
use crate::wire::query;

const STAMP: GroupStamp = GroupStamp(7);

#[tokio::test]
async fn a_miss_is_answered_and_stored_and_leaves_nothing_behind() {
    let mut world = World::new().await;
    world.ask(1, 10);
    let question = world.heard().await;
    assert!(world.cell.running(PursuitId(0)).is_some());
    world.answer(&question).await;
    assert_eq!(world.answered().await, (10, 1));
    assert!(world.cached(1));
    assert!(world.cell.running(PursuitId(0)).is_none(), "it is over");
    assert_eq!(Arc::strong_count(&world.cell), 3, "it is held by the test, the driver, and who keeps its time");
}

#[tokio::test]
async fn who_asks_the_same_meanwhile_is_answered_by_the_same_reply() {
    let mut world = World::new().await;
    world.ask(1, 10);
    let question = world.heard().await;
    world.ask(1, 11);
    world.ask(2, 12);
    let other = world.heard().await;
    world.answer(&other).await;
    assert_eq!(world.answered().await, (12, 1));
    world.answer(&question).await;
    assert_eq!((world.answered().await, world.answered().await), ((10, 1), (11, 1)));
}

#[tokio::test]
async fn nobody_waits_longer_than_the_deadline_for_a_server_that_is_silent() {
    let mut world = World::new().await;
    world.ask(1, 10);
    world.ask(1, 11);
    let _unanswered = world.heard().await;
    assert_eq!((world.answered().await, world.answered().await), ((10, 0), (11, 0)));
    assert!(!world.cached(1));
}

#[tokio::test]
async fn an_attempt_that_nobody_listens_for_any_more_gives_its_place_back() {
    let mut world = World::with_deadline(Duration::from_secs(4)).await;
    let driver = Arc::downgrade(&world.driver);
    let held = driver.strong_count();
    world.ask(1, 10);
    let _first = world.heard().await;
    let again = world.heard().await;
    world.answer(&again).await;
    assert_eq!(world.answered().await, (10, 1));
    assert!(driver.strong_count() > held, "the first one is listened for");
    // For two seconds, and then whatever waits at a port has let go of the driver.
    let until = clock::now() + Duration::from_secs(20);
    while driver.strong_count() > held {
        assert!(clock::now() < until, "it is held for ever");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn at_the_end_those_who_wait_are_waited_for_and_nobody_else() {
    const LONG: Duration = Duration::from_secs(60);
    const PROMPTLY: Duration = Duration::from_secs(10);
    let mut world = World::with_deadline(LONG).await;
    world.driver.open(world.opening(1, 9), None);
    let _for_nobody = world.heard().await;
    let until_answered = world.driver.until_answered(LONG);
    tokio::time::timeout(PROMPTLY, until_answered).await.expect("nobody is waited for");

    // In the queue still: no pursuit knows of it.
    world.driver.expect();
    let driver = world.driver.clone();
    let waited = tokio::spawn(async move { driver.until_answered(LONG).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waited.is_finished());
    world.ask(2, 10);
    let question = world.heard().await;
    world.answer(&question).await;
    assert_eq!(world.answered().await, (10, 1));
    tokio::time::timeout(PROMPTLY, waited).await.expect("nobody waits any more").unwrap();
}

/// A server that answers when it is told to.
struct World {
    driver: Arc<Driver>,
    cell: Arc<Cell>,
    server: UdpSocket,
    replies: UnboundedReceiver<Vec<u8>>,
    to: UnboundedSender<Vec<u8>>,
}

type Heard = (Vec<u8>, std::net::SocketAddr);

impl World {
    async fn new() -> Self {
        Self::with_deadline(Duration::from_millis(200)).await
    }

    async fn with_deadline(deadline: Duration) -> Self {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let settings = GroupSettings {
            tiers: [vec![ServerSettings::at(server.local_addr().unwrap())], vec![], vec![]],
            deadline,
            ..GroupSettings::default()
        };
        let cell = Arc::new(Cell::new(STAMP, Group::new(settings, clock::now())));
        let cache = Arc::new(Cache::new(Arc::new(MokaStore::new(1 << 20)), Keys::new([7; 16])));
        let driver = Arc::new(Driver::new(cache, Meters::default().shared(), Arc::default()));
        driver.set_cells(std::slice::from_ref(&cell), 256);
        let (to, replies) = unbounded_channel();
        Self { driver, cell, server, replies, to }
    }

    /// A client asks for name `n` under an id.
    fn ask(&self, n: u8, id: u16) {
        self.driver.open(self.opening(n, id), Some(Box::new(Inbox(self.to.clone()))));
    }

    fn opening(&self, n: u8, id: u16) -> Opening {
        let mut packet = packet(n);
        packet[..2].copy_from_slice(&id.to_be_bytes());
        packet[3] = 0;
        let query = query::check(&packet).unwrap();
        let question = Question { name: query.name(), qtype: 1, dnssec_ok: false, cd: false };
        Opening {
            question: question.to_owned(),
            key: self.driver.cache.key(&question),
            query: query.to_owned(),
            client: Client { address: Ipv4Addr::LOCALHOST.into(), transport: Transport::Udp },
            bound: None,
            client_hash: ClientHash(1),
            group: STAMP,
            stale_settings: StaleSettings::default(),
            stale: None,
            stale_at: Moment::NEVER,
            ahead: false,
            turn: 0,
            received: clock::now(),
        }
    }

    /// The next question that comes to the server.
    async fn heard(&self) -> Heard {
        let mut room = [0; 512];
        let (length, from) = self.server.recv_from(&mut room).await.unwrap();
        (room[..length].to_vec(), from)
    }

    async fn answer(&self, (question, from): &Heard) {
        let end = query::check(question).unwrap().question_end();
        let mut reply = question[..end].to_vec();
        reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        self.server.send_to(&reply, from).await.unwrap();
    }

    /// The id of the next reply to a client, and how many records answer it.
    async fn answered(&mut self) -> (u16, u8) {
        let reply = self.replies.recv().await.unwrap();
        (u16::from_be_bytes([reply[0], reply[1]]), reply[7])
    }

    fn cached(&self, n: u8) -> bool {
        let packet = packet(n);
        let name = query::check(&packet).unwrap().name();
        let question = Question { name, qtype: 1, dnssec_ok: false, cd: false };
        let entry = self.driver.cache.look(self.driver.cache.key(&question), &question);
        entry.is_some_and(|entry| entry.data().is_some())
    }
}

/// Where a client's replies arrive.
struct Inbox(UnboundedSender<Vec<u8>>);

impl ReplyTo for Inbox {
    fn send(self: Box<Self>, reply: &[u8]) -> Option<Arc<dyn Gathering>> {
        self.0.send(reply.to_vec()).unwrap();
        None
    }
}

fn packet(n: u8) -> Vec<u8> {
    build::question(&[1, b'a' + n, 4, b't', b'e', b's', b't', 0], 1, false, false, true)
}
