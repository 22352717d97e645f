//! Who may have a TCP connection: bounded in all, and for each client.
//!
//! - A client is an address under the client prefix. This node itself (loopback, or a connection from the address that
//!   it goes to) is not bound as a client.
//! - A client with all its seats taken is turned away.
//! - Where all seats are taken, the connection that has had no question under way for longest gives up its own
//!   (RFC 7766 §6.2.3 lets a server do so); where each has one under way, the new one is turned away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::ListenSettings;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpLimits {
    /// In all.
    pub connections: usize,
    /// Of one client.
    pub connections_per_client: usize,
    /// Bits of an IPv4 and of an IPv6 address that make one client.
    pub client_prefix: (u8, u8),
}

impl From<&ListenSettings> for TcpLimits {
    fn from(settings: &ListenSettings) -> Self {
        Self {
            connections: settings.tcp_connections,
            connections_per_client: settings.tcp_connections_per_client,
            client_prefix: settings.client_prefix,
        }
    }
}

/// All seats, of all listeners.
pub struct Seats {
    limits: TcpLimits,
    table: Mutex<Table>,
    taken: watch::Sender<usize>,
    /// Counts up with each connection that falls idle: the smallest among them is idle for longest.
    turn: AtomicU64,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// As many as `taken` says.
    seats: HashMap<u64, Entry>,
    /// The sum over it is the number of entries with a client.
    per_client: HashMap<IpAddr, usize>,
}

struct Entry {
    /// `None` for this node itself.
    client: Option<IpAddr>,
    idle: Arc<AtomicU64>,
    abort: Option<AbortHandle>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSeat {
    /// The client has all that it may have.
    Client,
    /// Each seat is taken by a connection with a question under way.
    All,
}

impl Seats {
    /// None taken.
    pub fn new(limits: TcpLimits) -> Arc<Self> {
        let table = Mutex::default();
        Arc::new(Self { limits, table, taken: watch::Sender::new(0), turn: AtomicU64::new(0) })
    }

    /// A seat for a connection from `peer` to `local`, idle at first.
    ///
    /// # Errors
    ///
    /// Which bound has no room.
    pub fn take(self: &Arc<Self>, peer: IpAddr, local: IpAddr) -> Result<Seat, NoSeat> {
        let client = client(peer, local, self.limits.client_prefix);
        let mut table = self.table();
        if let Some(client) = client
            && table.per_client.get(&client).is_some_and(|&n| n >= self.limits.connections_per_client)
        {
            return Err(NoSeat::Client);
        }
        if table.seats.len() >= self.limits.connections && !self.dismiss_longest_idle(&mut table) {
            return Err(NoSeat::All);
        }
        let (id, idle) = (table.next, Arc::new(AtomicU64::new(self.next_turn())));
        table.next += 1;
        if let Some(client) = client {
            *table.per_client.entry(client).or_default() += 1;
        }
        table.seats.insert(id, Entry { client, idle: idle.clone(), abort: None });
        self.taken.send_replace(table.seats.len());
        Ok(Seat { id, idle, seats: self.clone() })
    }

    /// Says how to end the connection on seat `id`. One that is over needs no end.
    pub fn occupy(&self, id: u64, abort: AbortHandle) {
        if let Some(entry) = self.table().seats.get_mut(&id) {
            entry.abort = Some(abort);
        }
    }

    /// Ends the connection that is idle for longest, if any is, and gives its seat back.
    pub fn make_room(&self) -> bool {
        self.dismiss_longest_idle(&mut self.table())
    }

    /// Ends all connections; says how many there were.
    pub fn dismiss_all(&self) -> usize {
        let table = self.table();
        table.seats.values().filter_map(|entry| entry.abort.as_ref()).for_each(AbortHandle::abort);
        table.seats.len()
    }

    /// Seats that are taken.
    pub fn taken(&self) -> usize {
        *self.taken.borrow()
    }

    /// Is every seat taken?
    pub fn are_all_taken(&self) -> bool {
        self.taken() >= self.limits.connections
    }

    /// Resolves when no seat is taken.
    pub async fn all_free(&self) {
        // The sender is this value's own: it does not go away.
        let _ = self.taken.subscribe().wait_for(|&taken| taken == 0).await;
    }

    fn dismiss_longest_idle(&self, table: &mut Table) -> bool {
        let idle = table.seats.iter().filter(|(_, entry)| entry.abort.is_some());
        let idle = idle.map(|(&id, entry)| (entry.idle.load(Relaxed), id)).filter(|&(turn, _)| turn != BUSY);
        let Some((_, id)) = idle.min() else { return false };
        if let Some(abort) = self.release(table, id).and_then(|entry| entry.abort) {
            abort.abort();
        }
        true
    }

    fn release(&self, table: &mut Table, id: u64) -> Option<Entry> {
        let entry = table.seats.remove(&id)?;
        if let Some(client) = entry.client
            && let Some(n) = table.per_client.get_mut(&client)
        {
            *n -= 1;
            if *n == 0 {
                table.per_client.remove(&client);
            }
        }
        self.taken.send_replace(table.seats.len());
        Some(entry)
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's seat; dropped, it is free again.
pub struct Seat {
    id: u64,
    idle: Arc<AtomicU64>,
    seats: Arc<Seats>,
}

impl Seat {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The connection has a question or a reply under way: it keeps its seat.
    pub fn busy(&self) {
        self.idle.store(BUSY, Relaxed);
    }

    /// The connection has fallen idle.
    pub fn idle(&self) {
        if self.idle.load(Relaxed) == BUSY {
            self.idle.store(self.seats.next_turn(), Relaxed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // One that was dismissed is not there any more.
        self.seats.release(&mut self.seats.table(), self.id);
    }
}

/// The client that a connection is counted for; `None` for this node itself.
fn client(peer: IpAddr, local: IpAddr, prefix: (u8, u8)) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    if peer.is_loopback() || peer == local.to_canonical() {
        return None;
    }
    let bits = if peer.is_ipv4() { prefix.0 } else { prefix.1 };
    // A prefix that is too long means the whole address.
    Some(IpNet::new(peer, bits).map_or(peer, |net| net.trunc().addr()))
}

const BUSY: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_bound_and_others_have_theirs() {
        let seats = Seats::new(TcpLimits { connections: 100, connections_per_client: 2, client_prefix: (24, 56) });
        let take = |peer: &str| seats.take(address(peer), address("192.0.2.200"));
        let mut held = vec![take("198.51.100.1").unwrap(), take("198.51.100.2").unwrap()];
        assert_eq!(take("198.51.100.3").err(), Some(NoSeat::Client));
        assert_eq!(take("::ffff:198.51.100.3").err(), Some(NoSeat::Client));
        held.push(take("198.51.101.3").unwrap());
        held.push(take("2001:db8:0:1::1").unwrap());
        held.push(take("2001:db8:0:ff::1").unwrap());
        assert_eq!(take("2001:db8:0:0::1").err(), Some(NoSeat::Client));
        held.push(take("2001:db8:0:100::1").unwrap());
        for _ in 0..5 {
            held.push(take("127.0.0.1").unwrap());
            held.push(take("::1").unwrap());
            held.push(take("192.0.2.200").unwrap());
        }
        assert_eq!(seats.taken(), held.len());
        held.swap_remove(0);
        held.push(take("198.51.100.3").unwrap());
        drop(held);
        assert_eq!((seats.taken(), seats.table().per_client.len()), (0, 0));
    }

    #[tokio::test]
    async fn the_longest_idle_connection_makes_room_and_a_busy_one_does_not() {
        let seats = Seats::new(TcpLimits { connections: 3, connections_per_client: 9, client_prefix: (32, 56) });
        let mut tasks = Vec::new();
        let mut seat = || {
            let seat = seats.take(address("127.0.0.1"), address("127.0.0.1"))?;
            let task = tokio::spawn(std::future::pending::<()>());
            seats.occupy(seat.id(), task.abort_handle());
            tasks.push(task);
            Ok::<Seat, NoSeat>(seat)
        };
        let (a, b, c) = (seat().unwrap(), seat().unwrap(), seat().unwrap());
        a.busy();
        b.busy();
        b.idle();
        // c has been idle since before b fell idle.
        let d = seat().unwrap();
        d.busy();
        let e = seat().unwrap();
        e.busy();
        assert_eq!(seat().err(), Some(NoSeat::All));
        assert_eq!(seats.taken(), 3);
        drop((b, c));
        assert_eq!(seats.taken(), 3, "seats of the dismissed are not given back twice");
        let mut ended = Vec::new();
        for (n, task) in tasks.into_iter().enumerate() {
            if [1, 2].contains(&n) {
                assert!(task.await.unwrap_err().is_cancelled());
                ended.push(n);
            } else {
                assert!(!task.is_finished());
            }
        }
        assert_eq!(ended, [1, 2]);
        drop((a, d, e));
        seats.all_free().await;
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
