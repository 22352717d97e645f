//! What the tests with real sockets stand on: servers that misbehave on request, the program as a process, clients
//! that look at every byte, and the programs of others.
//!
//! Every wait is bounded and ends by asking, not by sleeping. Servers and processes have an address of their own in
//! 127.0.0.0/8, so that tests run side by side; they end when dropped.

pub mod authority;
pub mod behaviour;
pub mod browser;
pub mod client;
pub mod daemon;
pub mod dig;
pub mod message;
pub mod namespace;
pub mod peers;
pub mod scripted;
pub mod zone;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// The runtime of all servers of a test program.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
    &RUNTIME
}

/// An address on loopback that no other test has, with a port that is free for UDP and TCP.
///
/// The port is free at this moment only; the address makes it unlikely that somebody takes it before the caller.
pub fn free_address() -> SocketAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..100 {
        let n = std::process::id().wrapping_mul(251).wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
        // 127.64.0.1 to 127.127.255.254: away from 127.0.0.x, where systemd-resolved and others live.
        let ip = Ipv4Addr::from(0x7f40_0001 + n % 0x003f_fffe);
        let Ok(tcp) = TcpListener::bind((ip, 0)) else { continue };
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port on loopback");
}

/// Asks `done` again and again until it gives something, at most for `patience`.
pub fn wait_for<T>(what: &str, patience: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

static QUIET: RwLock<()> = RwLock::new(());

/// Held by a test that measures nothing; many at once.
pub fn busy() -> RwLockReadGuard<'static, ()> {
    QUIET.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test that measures time: nothing else of this program runs meanwhile.
pub fn quiet() -> RwLockWriteGuard<'static, ()> {
    QUIET.write().unwrap_or_else(PoisonError::into_inner)
}
