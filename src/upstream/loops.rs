//! Upstreams that lead back here.
//!
//! Pure. A loop is found by a question with a name that nobody else can ask: `<16 random digits>.evenkeel-loop.<zone>`,
//! the zone being one of the group's. Where it comes in at our own door, the server that it was sent to forwards to us,
//! by whatever detour. That server is left out and reported; it is asked again every minute, and is taken back when a
//! question did not come back for [`LOOP_PROBE_SPAN`]. The others are asked every ten minutes, since their way may
//! change. The process never ends for it.
//!
//! A question of ours that comes in is refused, never forwarded: it does not go round twice.

use crate::clock::Moment;
use crate::limits::{LOOP_LOOK_EVERY, LOOP_PROBE_EVERY, LOOP_PROBE_SPAN};
use crate::wire::Name;

const LABEL: &[u8] = b"\x0devenkeel-loop";
const DIGITS: usize = 16;

/// A server's record.
#[derive(Clone, Debug, Default)]
pub struct Loop {
    /// The token that is out, and since when.
    out: Option<(u64, Moment)>,
    asked_at: Option<Moment>,
    /// Does it lead back here?
    found: bool,
}

impl Loop {
    /// Does the server lead back here?
    pub fn is_found(&self) -> bool {
        self.found
    }

    /// Is a question due? For a server that is new at once.
    pub fn is_due(&self, now: Moment) -> bool {
        let pause = if self.found { LOOP_PROBE_EVERY } else { LOOP_LOOK_EVERY };
        self.asked_at.is_none_or(|at| now.since(at) >= pause)
    }

    /// A question goes out.
    pub fn on_sent(&mut self, token: u64, now: Moment) {
        self.asked_at = Some(now);
        self.out = Some((token, now));
    }

    /// A question of ours came in. Is it this server's?
    pub fn on_came_in(&mut self, token: u64) -> bool {
        let ours = self.out.is_some_and(|(out, _)| out == token);
        if ours {
            self.found = true;
            self.out = None;
        }
        ours
    }

    /// What time alone says: a question that did not come back acquits. Says whether it did so now.
    pub fn on_time(&mut self, now: Moment) -> bool {
        if self.out.is_none_or(|(_, at)| now.since(at) < LOOP_PROBE_SPAN) {
            return false;
        }
        self.out = None;
        std::mem::take(&mut self.found)
    }

    /// The way to the server may be another one now.
    pub fn ask_again(&mut self) {
        self.asked_at = None;
    }
}

/// The name of a question; `None` where the zone leaves no room for it.
pub fn name(token: u64, zone: &Name) -> Option<Name> {
    let mut wire = vec![DIGITS as u8];
    wire.extend_from_slice(format!("{token:016x}").as_bytes());
    wire.extend_from_slice(LABEL);
    wire.extend_from_slice(zone.as_wire());
    Name::from_wire(&wire)
}

/// The token in a folded name, where it is such a question.
pub fn token(name: &[u8]) -> Option<u64> {
    let (first, rest) = name.split_first_chunk::<{ 1 + DIGITS }>()?;
    if usize::from(first[0]) != DIGITS || !rest.starts_with(LABEL) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&first[1..]).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // complaint 30: forwarders crash on a loop through 127.0.0.53.
    #[test]
    fn a_question_that_comes_in_finds_the_loop_and_one_that_does_not_ends_it() {
        let at = Moment::from_secs;
        let mut l = Loop::default();
        assert!(l.is_due(at(1)));
        l.on_sent(7, at(1));
        assert!(!l.is_due(at(600)) && l.is_due(at(601)) && !l.on_came_in(8) && !l.is_found());
        assert!(l.on_came_in(7) && l.is_found());
        assert!(!l.on_came_in(7), "once");
        assert!(!l.is_due(at(60)) && l.is_due(at(61)));
        l.on_sent(9, at(61));
        assert!(!l.on_time(at(65)) && l.is_found());
        assert!(l.on_time(at(66)) && !l.is_found());
    }

    #[test]
    fn a_token_is_read_from_the_name_that_was_made_of_it_and_from_no_other() {
        for zone in [".", "corp.example."] {
            let made = name(0x00ab_cdef_0123_4567, &zone.parse().unwrap()).unwrap();
            assert_eq!(token(made.as_wire()), Some(0x00ab_cdef_0123_4567), "{zone}");
        }
        for other in ["www.example.", "evenkeel-loop.", "00abcdef01234567.other.", "00abcdef0123456g.evenkeel-loop."]
        {
            assert_eq!(token(other.parse::<Name>().unwrap().as_wire()), None, "{other}");
        }
    }
}
