//! An ordinary authoritative server, on hickory-server: for zones where nothing is meant to go wrong.
//!
//! It answers what a zone file says, by rules that are not ours. What a sound server would not do is in
//! [`super::scripted`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::rr::{Name, RecordSet, RrKey};
use hickory_proto::serialize::txt::Parser;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::runtime;

/// The server. It ends when dropped.
pub struct Authority {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Authority {
    /// Serves `records`, lines of a zone file that stand behind SOA and NS of `origin`.
    pub fn new(origin: &str, records: &str) -> Self {
        let text =
            format!("$TTL 300\n@ IN SOA ns host 1 3600 600 86400 60\n@ IN NS ns\nns IN A 192.0.2.53\n{records}\n");
        let name = Name::from_ascii(origin).unwrap();
        let (name, sets): (Name, BTreeMap<RrKey, RecordSet>) = Parser::new(text, None, Some(name)).parse().unwrap();
        let zone = InMemoryZoneHandler::<hickory_server::net::runtime::TokioRuntimeProvider>::new(
            name.clone(),
            sets,
            ZoneType::Primary,
            AxfrPolicy::Deny,
        );
        let mut catalog = Catalog::new();
        catalog.upsert(name.into(), vec![Arc::new(zone.unwrap())]);
        let asked = Arc::new(AtomicUsize::new(0));
        let mut server = Server::new(Counted { catalog, asked: asked.clone() });
        let address = super::free_address();
        runtime().block_on(async {
            server.register_socket(UdpSocket::bind(address).await.unwrap());
            let listener = TcpListener::bind(address).await.unwrap();
            server.register_listener(listener, Duration::from_secs(10), 64);
        });
        let serving = runtime().spawn(async move { server.block_until_done().await.unwrap_or_default() });
        Self { address, asked, serving }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Counted {
    catalog: Catalog,
    asked: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl RequestHandler for Counted {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, reply: R) -> ResponseInfo {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.catalog.handle_request::<R, T>(request, reply).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::{ask, ask_tcp};
    use super::super::message::{Question, rcode, rtype};
    use super::*;

    #[test]
    fn a_zone_file_is_served_over_udp_and_tcp() {
        let server = Authority::new("zone.test.", "www IN A 192.0.2.7\nalias IN CNAME www");
        let question = Question::new("alias.zone.test.", rtype::A);
        assert_eq!(ask(server.address(), &question).addresses(), [[192, 0, 2, 7]]);
        assert_eq!(ask_tcp(server.address(), &question).addresses(), [[192, 0, 2, 7]]);
        assert_eq!(ask(server.address(), &Question::new("no.zone.test.", rtype::A)).rcode, rcode::NXDOMAIN);
        assert_eq!(server.asked(), 3);
    }
}
