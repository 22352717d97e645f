//! The house's own rules, held by reading its sources: purity, direction of dependencies, `unsafe`, size.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the lowest to the highest. A file may use its own room, those before it, and nothing else. Names are
/// prefixes of paths under `src/`; the longest one counts.
const LAYERS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("limits", &[]),
    ("wire", &["clock", "limits"]),
    ("cache", &["wire", "clock", "limits"]),
    ("upstream", &["cache::freshness", "wire", "clock", "limits"]),
    ("resolve", &["upstream", "cache", "wire", "clock", "limits"]),
    ("serve/admit", &["wire", "clock", "limits", "serve::admit"]),
    ("serve/local", &["wire", "clock", "limits", "serve::Client", "serve::Transport", "serve::local"]),
    ("serve/route", &["wire", "clock", "limits"]),
    // The counters of `observe::metrics` are plain memory: what serve writes there is no IO and no log call.
    ("serve", &["resolve::patience", "upstream", "cache", "wire", "clock", "limits", "observe::metrics"]),
    ("transport", &["upstream::Protocol", "wire", "clock", "limits"]),
    // Of rooms that do IO it takes plain types and pure functions alone.
    (
        "drill",
        &[
            "config",
            "driver::unanswered",
            "upkeep::probe",
            "transport::Failure",
            "observe::metrics",
            "observe::process",
            "observe::standing",
            "observe::status",
            "serve",
            "resolve",
            "upstream",
            "cache",
            "wire",
            "clock",
            "limits",
        ],
    ),
    // Names and addresses, spans as the configuration writes them, and bounds: what it writes is read by `config`.
    ("import", &["config::human", "wire", "limits"]),
    ("config", &["listen", "observe", "serve", "upstream", "cache", "wire", "clock", "limits"]),
];

/// Rooms that do no IO: no runtime, no sockets, no files, no clock of the system, no global randomness, no log.
const PURE: &[&str] = &[
    "wire",
    "cache",
    "upstream",
    "resolve",
    "serve",
    "config",
    "limits",
    "drill",
    "import",
    "stub/plan",
    "stub/text",
];
const IMPURE_WORDS: &[&str] = &[
    "tokio::",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::fs",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime",
    "clock::now",
    "clock::wall",
    "rand::rng",
    "rand::random",
    "tracing::",
    "println!",
    "eprintln!",
];

const UNSAFE_FILES: &[&str] = &["listen/mmsg.rs", "cache/prefetch.rs"];

#[test]
fn pure_rooms_do_no_io() {
    for (path, text) in sources() {
        if !PURE.iter().any(|room| in_room(&path, room)) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            for word in IMPURE_WORDS {
                assert!(!line.contains(word), "src/{path}:{number}: `{word}` in a pure room: {line}");
            }
        }
    }
}

#[test]
fn dependencies_go_one_way() {
    for (path, text) in sources() {
        let Some((room, allowed)) =
            LAYERS.iter().filter(|(room, _)| in_room(&path, room)).max_by_key(|(room, _)| room.len())
        else {
            continue;
        };
        let own = room.split('/').next().unwrap_or(room);
        for (number, line) in code_lines(&text) {
            for used in uses(line) {
                let fine = used.split("::").next() == Some(own) && !room.contains('/')
                    || allowed.iter().any(|a| used == *a || used.starts_with(&format!("{a}::")));
                assert!(fine, "src/{path}:{number}: {room} must not use `{used}`: {line}");
            }
        }
    }
}

#[test]
fn unsafe_stands_in_its_files_only_and_each_block_has_its_reason() {
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in code_lines(&text) {
            if !["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|w| line.contains(w)) {
                continue;
            }
            assert!(UNSAFE_FILES.contains(&path.as_str()), "src/{path}:{number}: unsafe: {line}");
            let before = &lines[number.saturating_sub(8)..number];
            assert!(
                before.iter().any(|l| l.contains("SAFETY") || l.contains("# Safety")),
                "src/{path}:{number}: unsafe without its reason"
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "src/{path} has no head");
    }
}

#[test]
fn lines_are_at_most_120_characters_and_no_place_of_a_machine_is_named() {
    for (path, text) in sources() {
        let tests_at = text.lines().position(|l| l == "#[cfg(test)]").unwrap_or(usize::MAX);
        for (number, line) in text.lines().enumerate() {
            // What proptest! wraps is out of rustfmt's reach.
            assert!(number > tests_at || line.chars().count() <= 120, "src/{path}:{}: long line", number + 1);
            for place in ["/work/", "/root/", "/home/"] {
                assert!(!line.contains(place), "src/{path}:{}: names {place}", number + 1);
            }
        }
    }
}

#[test]
fn the_check_itself_sees_what_it_must() {
    assert_eq!(uses("use crate::wire::{Name, name::walk};"), ["wire::Name", "wire::name"]);
    assert_eq!(uses("    crate::clock::now()"), ["clock::now"]);
    assert_eq!(uses("let a = 1;"), [""; 0]);
    assert!(in_room("serve/mod.rs", "serve") && in_room("clock.rs", "clock") && !in_room("server.rs", "serve"));
    let text = "a\n// b\n#[cfg(test)]\nmod tests {\nc\n}\n";
    assert_eq!(code_lines(text).collect::<Vec<_>>(), [(1, "a")]);
}

fn in_room(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// What a line uses of this crate, to the second segment.
fn uses(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in line.split("crate::").skip(1) {
        let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        let room = word(part);
        let rest = part[room.len()..].strip_prefix("::").unwrap_or("");
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or("");
            found.extend(
                list.split(',').map(|i| format!("{room}::{}", word(i.trim()))).filter(|u| !u.ends_with("::")),
            );
        } else {
            let second = word(rest);
            found.push(if second.is_empty() { room } else { format!("{room}::{second}") });
        }
    }
    found
}

/// The lines before the tests, without comments, with their numbers from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(i, l)| (i + 1, l))
        .take_while(|(_, l)| *l != "#[cfg(test)]")
        .filter(|(_, l)| !l.trim_start().starts_with("//"))
}

/// All sources but those of tests alone.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                if !name.ends_with("scenarios.rs") && !name.ends_with("testing.rs") && !name.ends_with("tests.rs") {
                    found.push((name, fs::read_to_string(&path).unwrap()));
                }
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 30, "only {} sources were found", found.len());
    found
}
