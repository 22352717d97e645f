//! The admin listener: HTTP/1.1 for metrics, health and status.
//!
//! | path | what |
//! |---|---|
//! | `/` | a page that shows the status, live ([`super::page`]) |
//! | `/metrics` | Prometheus text |
//! | `/status` | the [`Snapshot`] as JSON, without names that are held and keys of the configuration |
//! | `/healthz` | 200 "ok" while this process answers, 503 and the reason where not ([`super::liveness`]) |
//! | `/readyz` | 200 "ok", 503 while draining |
//!
//! - It knows GET and HEAD only, and changes nothing.
//! - Host must be an IP address or localhost: a page in a browser that resolves a name of its own to us (DNS
//!   rebinding) sends that name. There must be exactly one.
//! - Loopback may ask, others only where `admin.allow` names them.
//! - At most [`ADMIN_CONNECTIONS_MAX`] connections, one request each; its header must be there within
//!   [`HEADER_DEADLINE`], the whole within [`REQUEST_DEADLINE`], and the header is bounded.
//! - An address that cannot be bound is said and tried again, never fatal.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::event::{Event, report};
use super::liveness::Liveness;
use super::metrics::Meters;
use super::page::page;
use super::status::{Gather, Snapshot, pretty};
use crate::limits::{ACCEPT_PAUSE, ADMIN_CONNECTIONS_MAX};

/// A request's header must have come within this.
pub const HEADER_DEADLINE: Duration = Duration::from_secs(3);
/// A connection is over within this.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a request's header, hyper's least.
const HEADER_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;
/// Pause between attempts to bind.
const BIND_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What the listener shows.
pub struct Admin {
    /// How things stand.
    pub gather: Arc<dyn Gather>,
    /// What is counted.
    pub meters: Arc<Meters>,
    /// Does this process answer?
    pub liveness: Arc<dyn Liveness>,
    /// Not while draining.
    pub ready: Arc<AtomicBool>,
}

/// Listens at `address` until the task is dropped. Never fails: an address that cannot be had is tried again.
pub async fn serve(address: SocketAddr, allow: Vec<IpNet>, admin: Arc<Admin>) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                report(Event::AdminListening { address });
                serve_on(listener, allow, admin).await;
                return;
            }
            Err(e) => report(Event::AdminUnavailable { address, reason: e.to_string() }),
        }
        sleep(BIND_AGAIN_AFTER).await;
    }
}

/// Serves a bound listener until the task is dropped.
pub async fn serve_on(listener: TcpListener, allow: Vec<IpNet>, admin: Arc<Admin>) {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    let allow: Arc<[IpNet]> = allow.into();
    loop {
        // The place comes first, so that what cannot be served waits in the kernel's bounded queue. The semaphore is
        // never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Most errors are of one connection; out of descriptors, a pause lets others end first.
            Err(_) => {
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (admin, allow) = (Arc::clone(&admin), Arc::clone(&allow));
        tokio::spawn(async move {
            // Whoever is cut off by the deadline, or went away, needs no word from us.
            let _ = timeout(REQUEST_DEADLINE, connection(stream, peer.ip(), &allow, &admin)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, allow: &[IpNet], admin: &Admin) -> hyper::Result<()> {
    let peer = peer.to_canonical();
    let may = peer.is_loopback() || allow.iter().any(|net| net.contains(&peer));
    let service = service_fn(|request: Request<Incoming>| async move {
        let response =
            if may { respond(&request, admin).await } else { plain(StatusCode::FORBIDDEN, "not allowed\n") };
        Ok::<_, Infallible>(response)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn respond<B>(request: &Request<B>, admin: &Admin) -> Response<Full<Bytes>> {
    if !host_is_ours(request) {
        return plain(StatusCode::FORBIDDEN, "the Host header must be an IP address or localhost\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/" => {
            let (text, policy) = page();
            let mut response = with(StatusCode::OK, "text/html; charset=utf-8", text);
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            response
        }
        "/metrics" => {
            let text = admin.meters.render(&admin.gather.gather());
            with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        "/status" => match serde_json::to_value(without_names(&*admin.gather)) {
            Ok(status) => with(StatusCode::OK, "application/json", pretty(&status)),
            Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
        },
        "/healthz" => match admin.liveness.check().await {
            Ok(()) => plain(StatusCode::OK, "ok\n"),
            Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        },
        "/readyz" if admin.ready.load(Ordering::Relaxed) => plain(StatusCode::OK, "ok\n"),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        _ => plain(StatusCode::NOT_FOUND, "/ /metrics /status /healthz /readyz\n"),
    }
}

/// How things stand, for whoever may look: not which names are held, since clients asked for them.
fn without_names(gather: &dyn Gather) -> Snapshot {
    let mut snapshot = gather.gather();
    snapshot.history = Some(gather.history());
    snapshot.guard.held.clear();
    // Of a guard's name the control socket and the log tell.
    snapshot.events.retain(|event| !event.event.starts_with("guard_"));
    snapshot
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    with(status, "text/plain; charset=utf-8", text)
}

fn with(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Is there one Host, and does it say an address or localhost? So must the authority of an absolute URI.
fn host_is_ours<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let by_uri = request.uri().authority().is_none_or(|authority| is_ours(authority.as_str()));
    by_uri && host.to_str().is_ok_and(is_ours)
}

fn is_ours(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let in_brackets = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    match in_brackets {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::history::HistoryStatus;
    use crate::observe::liveness::Judging;
    use crate::observe::status::Snapshot;
    use crate::observe::status::tests::sample;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn each_path_has_its_answer() {
        let (address, admin) = listening(Ok(())).await;
        for (path, status, part) in [
            ("/metrics", 200, "\nevenkeel_queries_total{transport=\"udp\"} 0\n"),
            ("/status", 200, "\"tier_in_use\": 1,"),
            ("/", 200, "<!doctype html>"),
            ("/healthz", 200, "\r\n\r\nok\n"),
            ("/healthz?verbose", 200, "\r\n\r\nok\n"),
            ("/readyz", 200, "\r\n\r\nok\n"),
            ("/nothing", 404, "/metrics"),
        ] {
            let answer = get(address, path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(part), "{path}: {answer}");
        }
        admin.ready.store(false, Ordering::Relaxed);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "), "draining is not dying");
    }

    #[tokio::test]
    async fn a_process_that_does_not_answer_says_why() {
        let (address, _) = listening(Err("127.0.0.1:53 over UDP: no answer".into())).await;
        let answer = get(address, "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("over UDP: no answer\n"), "{answer}");
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn only_reading_is_known() {
        let (address, _) = listening(Ok(())).await;
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = say(address, &format!("{method} /status HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 405 "), "{method}: {answer}");
        }
        let answer = say(address, "HEAD /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_foreign_host_is_refused() {
        let (address, _) = listening(Ok(())).await;
        for (host, status) in [
            ("Host: evil.example\r\n", 403),
            ("Host: 127.0.0.1.evil.example\r\n", 403),
            ("Host: localhost.evil.example:9553\r\n", 403),
            ("", 403),
            ("Host: localhost\r\nHost: evil.example\r\n", 403),
            ("Host: localhost\r\n", 200),
        ] {
            let answer = say(address, &format!("GET /readyz HTTP/1.1\r\n{host}\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
        }
        let absolute = "GET http://evil.example/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(say(address, absolute).await.starts_with("HTTP/1.1 403 "));
    }

    #[test]
    fn hosts_that_are_ours() {
        for (host, ours) in [
            ("127.0.0.1:9553", true),
            ("192.0.2.7", true),
            ("[::1]:9553", true),
            ("[::1]", true),
            ("LOCALHOST:80", true),
            ("::1", false),
            ("localhost:", false),
            ("localhost:x", false),
            ("[localhost]", false),
            ("127.1", false),
            ("", false),
        ] {
            assert_eq!(is_ours(host), ours, "{host:?}");
        }
    }

    #[tokio::test]
    async fn who_is_neither_loopback_nor_allowed_is_refused() {
        for (peer, allow, status) in [
            ("192.0.2.7", vec![], 403),
            ("192.0.2.7", vec!["192.0.2.0/24"], 200),
            ("192.0.3.7", vec!["192.0.2.0/24"], 403),
            ("::ffff:127.0.0.1", vec![], 200),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            client.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let allow: Vec<IpNet> = allow.into_iter().map(|n| n.parse().unwrap()).collect();
            connection(stream, peer.parse().unwrap(), &allow, &shown(Ok(()))).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{peer} {answer}");
        }
    }

    #[tokio::test]
    async fn more_connections_than_places_are_served_in_turn() {
        let (address, _) = listening(Ok(())).await;
        let mut idle = Vec::new();
        for _ in 0..ADMIN_CONNECTIONS_MAX {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let late = tokio::spawn(async move { get(address, "/readyz").await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!late.is_finished(), "all places are taken");
        idle.pop();
        assert!(late.await.unwrap().starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn a_header_without_end_is_cut_off() {
        let (address, _) = listening(Ok(())).await;
        let endless = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(2 * HEADER_BYTES_MAX));
        assert!(say(address, &endless).await.starts_with("HTTP/1.1 431 "));
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_come_ends_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        client.write_all(b"GET / HT").await.unwrap();
        let start = tokio::time::Instant::now();
        assert!(connection(stream, peer.ip(), &[], &shown(Ok(()))).await.is_err());
        assert!(start.elapsed() <= HEADER_DEADLINE + Duration::from_millis(10), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_taken_is_tried_again() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let serving = tokio::spawn(serve(address, vec![], Arc::new(shown(Ok(())))));
        sleep(Duration::from_secs(1)).await;
        let seen = crate::observe::event::recent();
        assert!(seen.iter().any(|e| e.event == "admin_unavailable" && e.text.contains(&address.to_string())));
        drop(taken);
        sleep(BIND_AGAIN_AFTER).await;
        assert!(!serving.is_finished());
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
    }

    struct Fixed(Result<(), String>);

    impl Gather for Fixed {
        fn gather(&self) -> Snapshot {
            sample()
        }

        fn history(&self) -> HistoryStatus {
            HistoryStatus::default()
        }
    }

    impl Liveness for Fixed {
        fn check_over(&self, _: Duration) -> Judging<'_> {
            Box::pin(std::future::ready(self.0.clone()))
        }
    }

    fn shown(alive: Result<(), String>) -> Admin {
        let fixed = Arc::new(Fixed(alive));
        Admin {
            gather: fixed.clone(),
            meters: Arc::default(),
            liveness: fixed,
            ready: Arc::new(AtomicBool::new(true)),
        }
    }

    async fn listening(alive: Result<(), String>) -> (SocketAddr, Arc<Admin>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admin = Arc::new(shown(alive));
        tokio::spawn(serve_on(listener, vec![], Arc::clone(&admin)));
        (address, admin)
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        say(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
    }

    async fn say(address: SocketAddr, words: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(words.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}
