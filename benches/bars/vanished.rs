//! Names that every upstream empties or denies, guarded and not.

use std::thread;

use super::board::Board;
use super::stand::{Stand, brief_names, is_right, is_stale, secs, zone};
use super::support::client::Sample;
use super::support::message::rcode;
use super::support::zone::Zone;

const NAMES: usize = 50;
/// Of a hold, in seconds.
const HOLD: f64 = 8.0;
const GUARDED: &str = "\n[[guard]]\nnames = [\"*.brief\"]\nmin_good = \"1s\"\nhold = \"8s\"\n";

/// The names exist, and have no address any more.
pub fn emptied(board: &mut Board) {
    let zone = brief_names(NAMES, NAMES).fold(Zone::new(".").negative_ttl(1), |zone, name| zone.txt(&name, 1, 1));
    gone(board, &zone, rcode::NOERROR);
}

/// The names do not exist any more.
pub fn denied(board: &mut Board) {
    gone(board, &Zone::new(".").negative_ttl(1), rcode::NXDOMAIN);
}

fn gone(board: &mut Board, gone: &Zone, rcode: u16) {
    let is_gone = |s: &Sample| s.reply.as_ref().is_some_and(|r| r.rcode == rcode && r.addresses().is_empty());
    for (guarded, more) in [(true, GUARDED), (false, "")] {
        let stand = Stand::new(&zone(1), more);
        stand.learn(brief_names(NAMES, NAMES));
        thread::sleep(secs(2.2));
        stand.servers.iter().for_each(|s| s.know(gone.clone()));
        let ask = |seconds: f64| stand.load().ask(brief_names(NAMES, (seconds * 100.0) as usize));
        if !guarded {
            board.all("not guarded: gone from the first question on", &ask(2.0), is_gone);
            continue;
        }
        // A hold begins with the first answer that says so: the last of them within the first second.
        let held = ask(HOLD - 1.0);
        board.all("guarded: keep their addresses through the hold", &held, is_right);
        board.all("  and say that they are held, from the second on", &held[100..], is_stale);
        board.told("  holds", stand.daemon.metric("evenkeel_guard_names"));
        let released: Vec<String> = brief_names(NAMES, 5).collect();
        for name in &released {
            assert_eq!(stand.daemon.command(&["release", name]).code, Some(0), "{name}");
        }
        board.all("released: gone at once", &stand.load().ask(released), is_gone);
        thread::sleep(secs(3.0));
        board.all("after the hold: gone", &ask(1.0), is_gone);
    }
}
