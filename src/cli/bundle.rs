//! `evenkeel support-bundle`: one file for a bug report.
//!
//! Not pure. A tar.gz, 0600, never over another file: status, metrics, keys in effect, events, version, what the kernel
//! says. Where the process is away it holds the rest, and says so. Blanked are, by the process, what `${NAME}` was
//! expanded to, wherever it stands; and here whatever looks like a token: a word of 20 characters or more with letters
//! and digits in it, and what stands behind a key that is named like a secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::{EXIT_SYSTEM, print, render, talk, version_text};
use crate::clock;
use crate::config::effective;
use crate::observe::control::Request;
use crate::observe::control::client::ask;
use crate::observe::status;
use crate::upkeep::source::ConfigSource;

/// Bytes of one file of the system's.
const SYSTEM_FILE_BYTES_MAX: u64 = 256 << 10;

pub(super) fn bundle(socket: Option<&Path>, file: Option<PathBuf>, source: &ConfigSource) -> u8 {
    let file = file.unwrap_or_else(|| PathBuf::from(format!("evenkeel-support-{}.tar.gz", clock::wall().0)));
    let answer = ask(socket, &Request::Bundle);
    if let Err(why) = &answer {
        talk(&format!("evenkeel: {why}\n  hint: the bundle holds what there is without the process"));
    }
    let parts = parts(answer.map_err(|e| e.to_string()), source);
    match write(&file, &parts) {
        Ok(()) => print(&format!("{}\n", file.display())),
        Err(e) => {
            talk(&format!("evenkeel: {}: {e}", file.display()));
            if e.kind() == io::ErrorKind::AlreadyExists {
                talk("  hint: name another file; none is written over");
            }
            EXIT_SYSTEM
        }
    }
}

/// Names and contents of the files.
fn parts(answer: Result<Value, String>, source: &ConfigSource) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    let mut about = String::from(
        "evenkeel: a bundle for a bug report. Look through it before you give it away.\n\
         DNS names in it are those of canaries, of guarded names that are held, and of the configuration.\n\
         Blanked: what ${NAME} in the configuration was expanded to, and what looks like a token or a secret.\n",
    );
    let mut pid = "self".to_owned();
    match answer {
        Ok(mut answer) => {
            let blanked = answer["blanked"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let blanked: Vec<String> = blanked.map(|name| format!("${{{name}}}")).collect();
            if !blanked.is_empty() {
                about += &format!("Expansions that were blanked: {}\n", blanked.join(", "));
            }
            let mut shown = answer["status"].take();
            pid = shown["pid"].as_u64().map_or(pid, |pid| pid.to_string());
            let keys = shown["config"]["keys"].take();
            let keys = keys.as_array().into_iter().flatten();
            let keys = keys.map(|k| {
                key_line(&render::scalar(&k["key"]), &render::scalar(&k["value"]), &render::scalar(&k["by"]))
            });
            parts.push(("configuration.toml", keys.collect()));
            status::for_each_text(&mut shown, &|text| without_tokens(text));
            let events = shown["events"].as_array().into_iter().flatten();
            let line =
                |e: &Value| format!("{} {} {}\n", e["unix"], render::scalar(&e["level"]), render::scalar(&e["text"]));
            parts.push(("events.txt", events.map(line).collect()));
            parts.push(("status.txt", render::status(&shown)));
            parts.push(("status.json", status::pretty(&shown)));
            parts.push(("metrics.txt", answer["metrics"].as_str().map(within_quotes).unwrap_or_default()));
        }
        Err(why) => {
            about += &format!("The process gave no answer: {why}\nMissing: status, metrics, events.\n");
            let keys = match source.load() {
                Ok(loaded) => {
                    effective(&loaded.text, &source.sets).iter().map(|k| key_line(&k.key, &k.value, k.by)).collect()
                }
                Err(refused) => without_tokens(&format!("# refused: {}\n", refused.in_one_line())),
            };
            parts.push(("configuration.toml", keys));
        }
    }
    parts.push(("version.json", version_text(true)));
    for (name, path) in [
        ("kernel.txt", "/proc/version".to_owned()),
        ("os-release.txt", "/etc/os-release".to_owned()),
        ("resolv.conf", "/etc/resolv.conf".to_owned()),
        ("limits.txt", format!("/proc/{pid}/limits")),
        ("process.txt", format!("/proc/{pid}/status")),
        ("memory.txt", "/proc/meminfo".to_owned()),
        ("udp.txt", "/proc/net/snmp".to_owned()),
    ] {
        match read_start(&path) {
            Ok(text) => parts.push((name, String::from_utf8_lossy(&text).into_owned())),
            Err(e) => about += &format!("Missing: {path}: {e}\n"),
        }
    }
    parts.insert(0, ("README.txt", about));
    parts
}

/// The first [`SYSTEM_FILE_BYTES_MAX`] bytes.
fn read_start(path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(SYSTEM_FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

fn write(file: &Path, parts: &[(&str, String)]) -> io::Result<()> {
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    let written = write_parts(out, parts);
    if written.is_err() {
        let _ = fs::remove_file(file);
    }
    written
}

fn write_parts(out: impl Write, parts: &[(&str, String)]) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    for (name, text) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(clock::wall().0).unwrap_or(0));
        archive.append_data(&mut header, format!("evenkeel-support/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}

//------------ Blanking ----------------------------------------------------------------------------------------------

const BLANKED: &str = "[blanked]";
/// A word of so many characters may be a token.
const TOKEN_CHARS_MIN: usize = 20;
/// Parts of names of keys whose values are secret.
const SECRETS: [&str; 5] = ["secret", "password", "token", "private_key", "credential"];

fn key_line(key: &str, value: &str, by: &str) -> String {
    let is_secret = SECRETS.iter().any(|part| key.to_ascii_lowercase().contains(part));
    let value = if is_secret { format!("\"{BLANKED}\"") } else { without_tokens(value) };
    format!("{key} = {value}  # {by}\n")
}

/// The text without what looks like a token, nor what stands before the @ of an address.
fn without_tokens(text: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || "+_=-".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_of_word(c) != is_of_word(first)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let has = |what: fn(&char) -> bool| word.chars().any(|c| what(&c));
        let is_token = word.len() >= TOKEN_CHARS_MIN && has(char::is_ascii_digit) && has(char::is_ascii_alphabetic);
        out.push_str(if is_token { BLANKED } else { word });
        rest = behind;
    }
    match out.split_once("://") {
        Some((scheme, behind)) if behind.split('/').next().is_some_and(|host| host.contains('@')) => {
            let host = behind.split_once('@').map_or(behind, |(_, host)| host);
            format!("{scheme}://{BLANKED}@{host}")
        }
        _ => out,
    }
}

/// Numbers of metrics are long words with digits and letters too: only what stands in quotes is looked at.
fn within_quotes(text: &str) -> String {
    let parts: Vec<String> = text
        .split('"')
        .enumerate()
        .map(|(n, part)| if n % 2 == 1 { without_tokens(part) } else { part.to_owned() })
        .collect();
    parts.join("\"")
}

#[cfg(test)]
mod tests {
    use super::super::EXIT_FINE;
    use super::*;

    #[test]
    fn tokens_are_blanked_and_names_addresses_and_spans_are_not() {
        for (text, blanked) in [
            ("ab12ab12ab12ab12ab1", "ab12ab12ab12ab12ab1"),
            ("key ab12ab12ab12ab12ab12!", "key [blanked]!"),
            ("[2001:db8::1]:53 and 192.0.2.1:5353", "[2001:db8::1]:53 and 192.0.2.1:5353"),
            ("evenkeel_config_last_reload_successful", "evenkeel_config_last_reload_successful"),
            ("https://me:pass@dns.example/q", "https://[blanked]@dns.example/q"),
            ("7fae892da68e48cf", "7fae892da68e48cf"),
        ] {
            assert_eq!(without_tokens(text), blanked);
        }
        assert_eq!(key_line("a.api_token", "\"x\"", "file"), "a.api_token = \"[blanked]\"  # file\n");
        assert_eq!(within_quotes("a{b=\"ab12ab12ab12ab12ab12\"} 1"), "a{b=\"[blanked]\"} 1");
    }

    #[test]
    fn without_the_process_there_is_the_rest_and_it_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("evenkeel.toml");
        fs::write(&config, "[log]\nlevel = \"debug\"\n").unwrap();
        let source = ConfigSource { file: Some(config), sets: Vec::new() };
        let parts = parts(Err("nobody".into()), &source);
        assert!(parts[0].1.contains("The process gave no answer: nobody\nMissing: status, metrics, events."));
        let of = |name: &str| parts.iter().find(|(n, _)| *n == name).map(|(_, text)| text.as_str());
        assert!(of("configuration.toml").unwrap().contains("log.level = \"debug\"  # file\n"));
        assert!(of("limits.txt").unwrap().contains("Max open files"));
    }

    #[test]
    fn no_file_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let (file, socket) = (directory.path().join("b.tar.gz"), directory.path().join("none.sock"));
        assert_eq!(bundle(Some(&socket), Some(file.clone()), &ConfigSource::default()), EXIT_FINE);
        assert_eq!(bundle(Some(&socket), Some(file.clone()), &ConfigSource::default()), EXIT_SYSTEM);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
