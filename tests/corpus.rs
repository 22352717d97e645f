//! Replays the committed fuzz corpora, so that what a fuzzer once found stays found.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::path::Path;

#[test]
fn queries() {
    replay("query", bodies::query);
}

#[test]
fn replies() {
    replay("reply", bodies::reply);
}

#[test]
fn configurations() {
    replay("config", bodies::config);
}

#[test]
fn snapshots() {
    replay("snapshot", bodies::snapshot);
}

fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seen = 0;
    for file in fs::read_dir(&corpus).unwrap_or_else(|e| panic!("{}: {e}", corpus.display())) {
        let path = file.unwrap().path();
        body(&fs::read(&path).unwrap());
        seen += 1;
    }
    assert!(seen >= 8, "{target}: only {seen} inputs");
}
