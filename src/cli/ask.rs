//! Commands that ask the running process.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{EXIT_FAULT, EXIT_FINE, EXIT_NOT_REACHABLE, EXIT_SYSTEM, print, render, talk};
use crate::config::{human, record_type};
use crate::observe::control::client::{AskError, ask};
use crate::observe::control::{ErrorKind, FlushText, Request};
use crate::wire::Name;

pub(super) fn status(socket: Option<&Path>, json: bool, check: bool) -> u8 {
    match ask(socket, &Request::Status) {
        Ok(_) if check => EXIT_FINE,
        Ok(status) if json => print(&crate::observe::status::pretty(&status)),
        Ok(status) => print(&render::status(&status)),
        Err(error) if check => exit_code(&error),
        Err(error) => fail(&error),
    }
}

pub(super) fn explain(socket: Option<&Path>, name: &str, qtype: &str, json: bool) -> u8 {
    // Here and not by clap, since a question that is none is the question's fault (1) and not one of usage (2).
    let request = match question(name, qtype) {
        Ok(request) => request,
        Err(why) => {
            talk(&format!("evenkeel: {why}"));
            return EXIT_FAULT;
        }
    };
    match ask(socket, &request) {
        Ok(explanation) if json => print(&pretty(&explanation)),
        Ok(explanation) => print(&render::explanation(&explanation)),
        Err(error) => fail(&error),
    }
}

fn question(name: &str, qtype: &str) -> Result<Request, String> {
    let name: Name = name.parse().map_err(|why| format!("{name:?}: {why}"))?;
    let qtype = record_type(qtype)
        .ok_or_else(|| format!("{qtype:?} is no record type\n  hint: write A, AAAA, MX and so on, or TYPE123"))?;
    Ok(Request::Explain { name: name.to_string(), qtype })
}

pub(super) fn flush(socket: Option<&Path>, what: FlushText) -> u8 {
    match ask(socket, &Request::Flush { what }) {
        Ok(done) => print(&format!("{} answers dropped\n", done["dropped"])),
        Err(error) => fail(&error),
    }
}

pub(super) fn reload(socket: Option<&Path>) -> u8 {
    match ask(socket, &Request::Reload) {
        Ok(done) => {
            say_remarks(&done);
            print("applied\n")
        }
        Err(error) => fail(&error),
    }
}

pub(super) fn freeze(socket: Option<&Path>, span: Duration) -> u8 {
    match ask(socket, &Request::Freeze { seconds: span.as_secs() }) {
        Ok(done) => {
            say_remarks(&done);
            print(&format!("frozen for {}; `evenkeel thaw` ends it\n", human::show_span(span)))
        }
        Err(error) => fail(&error),
    }
}

pub(super) fn thaw(socket: Option<&Path>) -> u8 {
    match ask(socket, &Request::Thaw) {
        Ok(done) if done["was_frozen"] == true => print("thawed\n"),
        Ok(_) => print("was not frozen\n"),
        Err(error) => fail(&error),
    }
}

pub(super) fn release(socket: Option<&Path>, name: &Name) -> u8 {
    match ask(socket, &Request::Release { name: name.to_string() }) {
        Ok(done) if done["released"] == 1 => print("1 answer released\n"),
        Ok(done) => print(&format!("{} answers released\n", done["released"])),
        Err(error) => fail(&error),
    }
}

fn say_remarks(done: &Value) {
    done["remarks"].as_array().into_iter().flatten().filter_map(Value::as_str).for_each(talk);
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(super) fn fail(error: &AskError) -> u8 {
    talk(&format!("evenkeel: {error}"));
    let hint = match error {
        AskError::NotReachable(_) => Some("is it running? `evenkeel serve` starts it; --socket says where to ask"),
        AskError::NotAllowed(_) => Some("ask as root, as the user that evenkeel runs as, or as one of its group"),
        AskError::Refused(ErrorKind::Request, _) => Some("do program and running process have the same version?"),
        AskError::Refused(..) | AskError::NoAnswer(_) => None,
    };
    if let Some(hint) = hint {
        talk(&format!("  hint: {hint}"));
    }
    exit_code(error)
}

fn exit_code(error: &AskError) -> u8 {
    match error {
        AskError::NotReachable(_) | AskError::NoAnswer(_) => EXIT_NOT_REACHABLE,
        AskError::NotAllowed(_) | AskError::Refused(ErrorKind::Permission, _) => EXIT_SYSTEM,
        AskError::Refused(..) => EXIT_FAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_exit_code() {
        let refused = |kind| AskError::Refused(kind, String::new());
        for (error, code) in [
            (AskError::NotReachable(Vec::new()), 4),
            (AskError::NoAnswer(String::new()), 4),
            (AskError::NotAllowed("/x".into()), 3),
            (refused(ErrorKind::Permission), 3),
            (refused(ErrorKind::Refused), 1),
            (refused(ErrorKind::Request), 1),
        ] {
            assert_eq!(exit_code(&error), code, "{error:?}");
        }
    }

    #[test]
    fn where_nobody_serves_the_socket_the_command_says_so_and_ends_with_4() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        assert_eq!(status(Some(&socket), false, true), 4);
        assert_eq!(explain(Some(&socket), "example.org", "aaaa", false), 4);
        assert_eq!(explain(Some(&socket), "a..b", "A", false), 1);
        assert_eq!(explain(Some(&socket), "example.org", "nonsense", false), 1);
    }
}
