//! dig and kdig as clients: other people's reading of what evenkeel sends.

use std::net::SocketAddr;
use std::process::Command;

use super::daemon::run;
use super::peers::Peer;

/// What dig or kdig printed of one reply.
#[derive(Debug)]
pub struct Dug {
    /// "NOERROR" and kin; empty where no reply came.
    pub status: String,
    /// Lower case, as "qr", "rd", "ra".
    pub flags: Vec<String>,
    /// Lines of the answer section, blanks made one.
    pub answers: Vec<String>,
    /// Everything.
    pub text: String,
}

impl Dug {
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }
}

/// Asks `server` with dig, or kdig; `arguments` as on their command line, say `["www.test", "A", "+dnssec"]`. At most
/// one try of 6 s. `None` where the program is not installed ([`super::peers`]).
pub fn dig(peer: Peer, server: SocketAddr, arguments: &[&str]) -> Option<Dug> {
    let path = peer.path()?;
    let mut command = Command::new(path);
    // An empty HOME, so that no ~/.digrc changes what is asked.
    command.env("HOME", "/nonexistent");
    command.arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string()]);
    let once = if peer == Peer::Dig { "+tries=1" } else { "+retry=0" };
    command.args(["+time=6", once, "+nocookie"]).args(arguments);
    Some(parse(run(command).stdout))
}

fn parse(text: String) -> Dug {
    let after = |mark: &str, end: char| {
        let line = text.lines().find_map(|l| l.split_once(mark))?.1;
        line.split(end).next().map(|s| s.trim().to_owned())
    };
    // dig writes "status: X, id", kdig "status: X; id".
    let status = after("status: ", ',').and_then(|s| s.split(';').next().map(str::to_owned)).unwrap_or_default();
    // dig in lower case behind ";; flags:", kdig ";; Flags:".
    let flags = after(";; flags: ", ';').or_else(|| after(";; Flags: ", ';')).unwrap_or_default();
    let answers = text
        .lines()
        .skip_while(|l| !l.contains("ANSWER SECTION"))
        .skip(1)
        .take_while(|l| !l.is_empty())
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    Dug { status, flags: flags.split_whitespace().map(str::to_lowercase).collect(), answers, text }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::Upstream;
    use super::super::zone::Zone;
    use super::*;

    #[test]
    fn both_programs_are_read_alike() {
        let upstream = Upstream::new(Zone::new(".").a("www.test.", 60, "192.0.2.1"));
        for peer in [Peer::Dig, Peer::Kdig] {
            let Some(dug) = dig(peer, upstream.address(), &["www.test", "A"]) else { continue };
            assert_eq!(dug.status, "NOERROR", "{}", dug.text);
            assert!(dug.has("qr") && dug.has("ra") && !dug.has("tc"), "{}", dug.text);
            assert_eq!(dug.answers, ["www.test. 60 IN A 192.0.2.1"], "{}", dug.text);
            let dug = dig(peer, upstream.address(), &["no.test", "A"]).unwrap();
            assert_eq!((dug.status.as_str(), dug.answers.len()), ("NXDOMAIN", 0), "{}", dug.text);
        }
    }
}
