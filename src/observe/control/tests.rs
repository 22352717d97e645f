//! Both ends together, over a socket in a temporary directory.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::client::{AskError, ask};
use super::server::{Controlled, Flush, serve};
use super::{ErrorKind, FlushText, Request};
use crate::wire::Name;

/// A process that says what it was asked.
#[derive(Default)]
struct Echo {
    flushed: Mutex<Vec<Flush>>,
}

impl Controlled for Echo {
    fn status(&self) -> Value {
        json!({ "version": "0" })
    }

    fn explain(&self, name: &Name, qtype: u16) -> Result<Value, String> {
        if qtype == 41 { Err("OPT is no question".to_owned()) } else { Ok(json!(format!("{name} {qtype}"))) }
    }

    fn flush(&self, what: &Flush) -> u64 {
        self.flushed.lock().unwrap().push(what.clone());
        3
    }

    fn reload(&self) -> Result<Vec<String>, String> {
        Ok(vec!["listen.dns needs a restart".to_owned()])
    }

    fn freeze(&self, span: Duration) -> Vec<String> {
        vec![format!("for {} s", span.as_secs())]
    }

    fn thaw(&self) -> bool {
        true
    }

    fn release(&self, name: &Name) -> u64 {
        u64::from(name.to_string() == "held.")
    }
}

struct World {
    dir: tempfile::TempDir,
    echo: Arc<Echo>,
}

/// What the server said of its socket: its path, or why there is none.
type Changes = mpsc::UnboundedReceiver<Result<String, String>>;

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), echo: Arc::default() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("run/control.sock")
    }

    fn start(&self) -> (JoinHandle<()>, Changes) {
        let (tx, rx) = mpsc::unbounded_channel();
        let on_change = move |change: Result<&Path, &str>| {
            let _ = tx.send(change.map(|p| p.display().to_string()).map_err(str::to_owned));
        };
        let controlled: Arc<dyn Controlled> = self.echo.clone();
        (tokio::spawn(serve(Some(self.path()), controlled, on_change)), rx)
    }

    async fn ask(&self, request: Request) -> Result<Value, AskError> {
        let path = self.path();
        tokio::task::spawn_blocking(move || ask(Some(&path), &request)).await.unwrap()
    }
}

#[tokio::test]
async fn every_command_reaches_the_process_and_its_answer_comes_back() {
    let w = World::new();
    let (_server, mut changes) = w.start();
    assert_eq!(changes.recv().await, Some(Ok(w.path().display().to_string())));

    assert_eq!(w.ask(Request::Status).await, Ok(json!({ "version": "0" })));
    let explain = |name: &str, qtype| Request::Explain { name: name.to_owned(), qtype };
    assert_eq!(w.ask(explain("A.example", 28)).await, Ok(json!("a.example. 28")));
    let refused = |kind, why: &str| Err(AskError::Refused(kind, why.to_owned()));
    assert_eq!(w.ask(explain("a", 41)).await, refused(ErrorKind::Refused, "OPT is no question"));
    let nonsense = refused(ErrorKind::Request, "\"a..b\": the name has an empty label");
    assert_eq!(w.ask(explain("a..b", 1)).await, nonsense);
    assert_eq!(w.ask(Request::Reload).await, Ok(json!({ "remarks": ["listen.dns needs a restart"] })));
    for what in [FlushText::All, FlushText::Zone("example".into()), FlushText::Name("a.example".into())] {
        assert_eq!(w.ask(Request::Flush { what }).await, Ok(json!({ "dropped": 3 })));
    }
    let name = |text: &str| text.parse().unwrap();
    let flushed = [Flush::All, Flush::Zone(name("example")), Flush::Name(name("a.example"))];
    assert_eq!(*w.echo.flushed.lock().unwrap(), flushed);
}

#[tokio::test]
async fn socket_and_directory_are_for_the_group_and_go_with_the_server() {
    let w = World::new();
    let (server, mut changes) = w.start();
    changes.recv().await.unwrap().unwrap();
    assert_eq!(fs::metadata(w.path()).unwrap().mode() & 0o777, 0o660);
    assert_eq!(fs::metadata(w.path().parent().unwrap()).unwrap().mode() & 0o777, 0o750);
    assert_eq!(fs::read_dir(w.path().parent().unwrap()).unwrap().count(), 1, "no draft is left");
    server.abort();
    let _ = server.await;
    assert!(!w.path().exists());
    assert!(matches!(w.ask(Request::Status).await, Err(AskError::NotReachable(_))));
}

#[tokio::test]
async fn a_dead_process_socket_is_replaced_and_a_living_one_is_not() {
    let w = World::new();
    fs::create_dir(w.path().parent().unwrap()).unwrap();
    let other = UnixListener::bind(w.path()).unwrap();
    let (server, mut changes) = w.start();
    let error = changes.recv().await.unwrap().unwrap_err();
    assert!(error.contains("another process serves it"), "{error}");
    server.abort();

    drop(other);
    assert!(w.path().exists(), "the dead process left its file");
    let (_server, mut changes) = w.start();
    assert!(changes.recv().await.unwrap().is_ok());
    assert!(w.ask(Request::Status).await.is_ok());
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let w = World::new();
    fs::create_dir(w.path().parent().unwrap()).unwrap();
    fs::write(w.path(), "precious").unwrap();
    let (_server, mut changes) = w.start();
    assert!(changes.recv().await.unwrap().is_err());
    assert_eq!(fs::read_to_string(w.path()).unwrap(), "precious");
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_could_not_be_had_is_tried_again_and_said_once() {
    let w = World::new();
    fs::create_dir(w.path().parent().unwrap()).unwrap();
    let other = UnixListener::bind(w.path()).unwrap();
    let (_server, mut changes) = w.start();
    assert!(changes.recv().await.unwrap().is_err());
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(changes.try_recv().is_err(), "the same reason is not said again");
    drop(other);
    assert!(changes.recv().await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_socket_whose_file_was_taken_away_comes_back() {
    let w = World::new();
    let (_server, mut changes) = w.start();
    changes.recv().await.unwrap().unwrap();
    fs::remove_file(w.path()).unwrap();
    assert!(changes.recv().await.unwrap().is_ok());
    assert!(w.path().exists());
}

/// Real time, since a paused clock would run ahead of the client's own thread.
#[tokio::test]
async fn a_request_that_is_too_long_or_nonsense_is_answered() {
    let w = World::new();
    let (_server, mut changes) = w.start();
    changes.recv().await.unwrap().unwrap();
    for (sent, wanted) in [
        ("x".repeat(5000), "at most 4096 bytes"),
        ("{}\n".to_owned(), "no request"),
        (format!("{}\n", "[".repeat(4000)), "no request"),
    ] {
        let path = w.path();
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(sent.as_bytes()).unwrap();
            let mut answer = Vec::new();
            // What was sent beyond the bound may reset the connection behind the answer.
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8(answer).unwrap()
        });
        let answer = answer.await.unwrap();
        assert!(answer.contains(wanted) && answer.contains("\"kind\":\"request\""), "{wanted}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_let_go_and_keeps_nobody_out() {
    let w = World::new();
    let (_server, mut changes) = w.start();
    changes.recv().await.unwrap().unwrap();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::UnixStream::connect(w.path()).await.unwrap());
    }
    let began = tokio::time::Instant::now();
    let mut asking = tokio::net::UnixStream::connect(w.path()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut asking, b"{\"command\":\"status\"}\n").await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut asking, &mut answer).await.unwrap();
    assert!(answer.contains("version"), "{answer}");
    // Twenty before it, sixteen at once, five seconds each.
    assert!(began.elapsed() >= Duration::from_secs(5) && began.elapsed() < Duration::from_secs(11));
}
