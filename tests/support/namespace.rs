//! A test that runs itself again in namespaces of its own, where it may.
//!
//! Where the machine lets none be made, as many containers do not, that is said and the test is skipped, with
//! EVENKEEL_REQUIRE_PEERS=1 too: no package that is missing is the reason.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use super::busy;
use super::daemon::run;
use super::peers::Peer;

/// What a test has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The network.
    Network,
    /// The network and the mounts.
    NetworkAndMounts,
}

/// `ip`, where this process is the one in the namespace. Else runs `test` (`module::name`) in one and gives back
/// `None`.
pub fn inside(room: Room, test: &str) -> Option<PathBuf> {
    const INSIDE: &str = "EVENKEEL_TEST_IN_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return Peer::Ip.path();
    }
    let _busy = busy();
    let (ip, unshare) = (Peer::Ip.path()?, Peer::Unshare.path()?);
    let mut reasons = String::new();
    // As root of a user namespace; or as root, where there are none of those.
    for flags in match room {
        Room::Network => ["-rn", "-n"],
        Room::NetworkAndMounts => ["-rnm", "-nm"],
    } {
        let mut trial = Command::new(&unshare);
        trial.arg(flags).arg(&ip).args(["link", "set", "lo", "up"]);
        let tried = run(trial);
        if tried.code != Some(0) {
            reasons += &format!("; unshare {flags}: {}", tried.stderr.trim());
            continue;
        }
        let mut command = Command::new(&unshare);
        command.arg(flags).args([
            "sh",
            "-c",
            "\"$1\" link set lo up && exec \"$2\" --exact \"$3\" --nocapture",
            "sh",
        ]);
        command.arg(&ip).arg(std::env::current_exe().unwrap()).arg(test).env(INSIDE, "1");
        let ended = run(command);
        assert!(ended.code == Some(0) && ended.stdout.contains("1 passed"), "{}{}", ended.stdout, ended.stderr);
        return None;
    }
    let _ = io::stderr().write_all(format!("skipped: no namespace here{reasons}\n").as_bytes());
    None
}
