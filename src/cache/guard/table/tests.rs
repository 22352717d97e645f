use super::*;
use crate::cache::entry::{Data, Kind, Packed};
use crate::cache::key::Keys;
use crate::cache::store::MapStore;
use crate::cache::{Cache, key::OwnedQuestion};

const GROUP: GroupStamp = GroupStamp(1);
const DAY: Duration = Duration::from_secs(86_400);

struct World {
    cache: Cache,
    now: Moment,
}

impl World {
    /// Guards of `*.test` and of `x.test` alone, the one for a minute and the other for an hour.
    fn new() -> Self {
        let cache = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
        let guard = |name: &str, hold| GuardSettings {
            names: vec![name.parse().unwrap()],
            hold: Duration::from_secs(hold),
            min_good: Duration::from_secs(600),
        };
        cache.guards().set(&[guard("*.test", 60), guard("x.test", 3600)]);
        Self { cache, now: Moment::from_secs(1000) }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn keep(&self, name: &str, kind: Kind, group: GroupStamp) -> bool {
        self.keep_packed(name, Packed::of_a_minute(kind), group)
    }

    fn keep_packed(&self, name: &str, packed: Packed, group: GroupStamp) -> bool {
        let (key, question) = self.question(name);
        let data = Data::new(packed, 0, group, self.now);
        let entry = Arc::new(Entry::with_data(&question.view(), data));
        self.cache.keep(key, &question.view(), entry, DAY, self.now)
    }

    fn good(&self, name: &str) {
        assert!(self.keep(name, Kind::Positive, GROUP));
    }

    /// Good answers for so long, the last of which has run out now.
    fn good_for(&mut self, name: &str, seconds: u64) {
        self.good(name);
        self.pass(seconds - 60);
        self.good(name);
        self.pass(60);
    }

    /// A negative answer came, as the pursuit deals with it. Says whether it was taken.
    fn deny(&self, name: &str) -> bool {
        let (key, question) = self.question(name);
        if self.cache.guards().protected(key, &question.view(), (GROUP, DAY), self.now).is_some() {
            self.cache.guards().hold(key, &question.view(), self.now);
            assert!(!self.keep(name, Kind::NxDomain, GROUP), "{name} is protected");
            return false;
        }
        assert!(self.keep(name, Kind::NxDomain, GROUP), "{name}");
        true
    }

    fn is_held(&self, name: &str) -> bool {
        let (key, question) = self.question(name);
        let kept = self.cache.look_held(key, &question.view(), GROUP, self.now);
        let cached = self.cache.look(key, &question.view()).is_some_and(|e| e.held(self.now).is_some());
        assert_eq!(kept.is_some(), cached, "{name}");
        cached
    }

    fn question(&self, name: &str) -> (Key, OwnedQuestion) {
        let name: Name = name.parse().unwrap();
        let question = Question { name: name.as_wire(), qtype: 1, dnssec_ok: false, cd: false };
        (self.cache.key(&question), question.to_owned())
    }

    fn is_known(&self, name: &str) -> bool {
        let (key, question) = self.question(name);
        self.cache.guards().known(key, &question.view()).is_some()
    }

    fn changes(&self) -> Vec<String> {
        let said = self.cache.guards().take_changes();
        said.iter()
            .map(|c| match c {
                GuardChange::Held(name, span) => format!("held {name} {}", span.as_secs()),
                GuardChange::Good(name) => format!("good {name}"),
                GuardChange::Gone(name) => format!("gone {name}"),
                GuardChange::Released(name) => format!("released {name}"),
            })
            .collect()
    }
}

fn wire(name: &str) -> Box<[u8]> {
    name.parse::<Name>().unwrap().as_wire().into()
}

#[test]
fn a_name_that_was_good_for_long_is_held_for_exactly_its_hold_and_then_gone() {
    let mut w = World::new();
    w.good_for("a.test", 600);
    assert!(!w.deny("a.test") && w.is_held("a.test"));
    w.pass(59);
    assert!(!w.deny("a.test") && w.is_held("a.test"), "what comes again does not begin it anew");
    assert_eq!(w.cache.guards().count(w.now), (1, 1));
    w.pass(1);
    assert!(!w.is_held("a.test"));
    assert_eq!(w.cache.guards().count(w.now), (0, 1));
    assert!(w.deny("a.test"));
    assert_eq!(w.changes(), ["held a.test. 60", "gone a.test."]);
    w.good_for("a.test", 599);
    assert!(w.deny("a.test"), "it begins anew");
}

#[test]
fn what_was_good_for_less_or_is_not_guarded_or_is_of_another_group_is_gone_at_once() {
    let mut w = World::new();
    let mut w2 = World::new();
    w.good_for("a.test", 599);
    assert!(w.deny("a.test"));
    w.good_for("b.other", 600);
    assert!(w.deny("b.other"));
    w2.good_for("c.test", 600);
    assert!(w2.keep("c.test", Kind::NxDomain, GroupStamp(2)));
    assert_eq!((w.changes(), w2.changes()), (vec![], vec![]));
    w.good("d.test");
    w.pass(3600);
    assert!(w.deny("d.test"), "one answer is no hour of them");
}

#[test]
fn good_answers_end_a_hold_and_the_time_that_a_name_was_good_goes_on() {
    let mut w = World::new();
    w.good_for("a.test", 700);
    assert!(!w.deny("a.test"));
    w.pass(10);
    w.good("a.test");
    assert!(!w.is_held("a.test"));
    assert_eq!(w.changes(), ["held a.test. 60", "good a.test."]);
    assert!(!w.deny("a.test"), "it is protected again at once");
}

#[test]
fn a_release_takes_the_next_negative_answer_and_tells_how_many_were_held() {
    let mut w = World::new();
    let name: Name = "x.test".parse().unwrap();
    w.good_for("x.test", 700);
    assert_eq!(w.cache.guards().release(name.as_wire(), w.now), 0);
    assert!(!w.deny("x.test"));
    assert_eq!(w.cache.guards().shown(w.now).len(), 1);
    w.pass(30 * 60);
    assert!(w.is_held("x.test"), "the pattern that fits best counts");
    assert_eq!(w.cache.guards().release(name.as_wire(), w.now), 1);
    assert!(!w.is_held("x.test"));
    assert_eq!(w.cache.guards().release(name.as_wire(), w.now), 0);
    assert!(w.deny("x.test"));
    assert_eq!(w.changes(), ["held x.test. 3600", "released x.test."]);
}

#[test]
fn what_the_cache_loses_is_still_known_and_what_is_flushed_or_no_longer_guarded_is_not() {
    let mut w = World::new();
    let (key, question) = w.question("a.test");
    w.good_for("a.test", 700);
    w.deny("a.test");
    let lost = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
    lost.guards().set(&[GuardSettings { names: vec!["*.test".parse().unwrap()], ..GuardSettings::default() }]);
    for known in w.cache.guards().all() {
        assert!(lost.guards().restore(key, known.clone(), w.now) && !lost.guards().restore(key, known, w.now));
    }
    assert!(lost.look(key, &question.view()).is_none());
    assert!(lost.look_held(key, &question.view(), GROUP, w.now).is_some());
    lost.flush(&|_| true);
    assert!(lost.look_held(key, &question.view(), GROUP, w.now).is_none());
    w.cache.guards().set(&[]);
    assert!(!w.is_held("a.test"));
}

#[test]
fn what_may_not_be_served_any_more_is_not_protected_either() {
    for (later, want) in [(86_399, true), (86_400, false)] {
        let mut w = World::new();
        w.good_for("a.test", 700);
        w.pass(later);
        assert_eq!(!w.deny("a.test"), want, "{later}");
    }
    let mut w = World::new();
    let (key, question) = w.question("a.test");
    for at in [0, 640] {
        w.now = Moment::from_secs(1000 + at);
        let signed_until = Moment::from_secs(1720);
        let packed = Packed { signed_until, ..Packed::of_a_minute(Kind::Positive) };
        let entry = Entry::with_data(&question.view(), Data::new(packed, 0, GROUP, w.now));
        assert!(w.cache.keep(key, &question.view(), Arc::new(entry), DAY, w.now));
    }
    w.pass(70);
    assert!(!w.deny("a.test"));
    w.pass(10);
    assert!(w.deny("a.test"), "its signatures have run out");
}

#[test]
fn what_is_asked_without_validation_is_protected_by_what_was_validated() {
    let mut w = World::new();
    w.good_for("a.test", 700);
    let (_, question) = w.question("a.test");
    let unchecked = Question { cd: true, ..question.view() };
    let key = w.cache.key(&unchecked);
    assert!(w.cache.look_protected(key, &unchecked, (GROUP, DAY), w.now).is_some());
    w.deny("a.test");
    assert!(w.cache.look_held(key, &unchecked, GROUP, w.now).is_some());
    let signed = Question { dnssec_ok: true, ..question.view() };
    assert!(w.cache.look_held(w.cache.key(&signed), &signed, GROUP, w.now).is_none());
}

#[test]
fn types_of_one_name_are_told_once_and_a_lapsed_hold_swallows_nothing() {
    let mut w = World::new();
    w.good_for("a.test", 700);
    assert!(!w.deny("a.test"));
    w.pass(30);
    w.cache.guards().table().told.insert(wire("b.test"), w.now);
    w.good_for("b.test", 700);
    assert!(!w.deny("b.test"));
    assert_eq!(w.changes(), ["held a.test. 60", "held b.test. 60"]);
}

#[test]
fn what_is_restored_lengthens_the_time_that_a_name_was_good() {
    let mut w = World::new();
    w.good_for("a.test", 700);
    let known = w.cache.guards().all().remove(0);
    let mut again = World::new();
    again.now = w.now;
    again.good("a.test");
    let (key, question) = again.question("a.test");
    again.cache.restore_guarded(key, &question.view(), known, DAY, again.now);
    again.pass(60);
    assert!(!again.deny("a.test"));
}

#[test]
fn what_was_denied_before_a_restored_answer_was_read_does_not_stand_above_it() {
    let mut w = World::new();
    w.good_for("a.test", 700);
    assert!(!w.deny("a.test"));
    let known = w.cache.guards().all().remove(0);
    let again = World::new();
    let again = World { now: w.now, ..again };
    assert!(again.deny("a.test"), "nothing is known yet");
    let (key, question) = again.question("a.test");
    again.cache.restore_guarded(key, &question.view(), known, DAY, again.now);
    assert!(again.is_held("a.test"));
}

#[test]
fn a_hold_that_good_answers_ended_is_counted_no_more_and_does_not_end_what_they_began() {
    let mut w = World::new();
    w.good_for("a.test", 700);
    assert!(!w.deny("a.test"));
    w.good("a.test");
    assert_eq!(w.cache.guards().count(w.now), (0, 1));
    w.pass(60);
    assert!(!w.deny("a.test"), "it is protected, and not for what was left");
}

#[test]
fn another_groups_good_answer_begins_anew_and_one_that_leads_nowhere_is_none() {
    let mut w = World::new();
    w.good("a.test");
    w.pass(600);
    assert!(w.keep("a.test", Kind::Positive, GroupStamp(2)));
    assert!(w.keep("a.test", Kind::NxDomain, GroupStamp(2)), "of that group it is known for no time");
    let nowhere = Packed { good: false, ..Packed::of_a_minute(Kind::Positive) };
    assert!(w.keep_packed("b.test", nowhere, GROUP));
    assert!(!w.is_known("a.test") && !w.is_known("b.test"));
}

#[test]
fn a_hold_of_no_time_holds_nothing() {
    let mut w = World::new();
    let none = GuardSettings { names: vec!["*.test".parse().unwrap()], hold: Duration::ZERO, ..Default::default() };
    w.cache.guards().set(&[none]);
    w.good_for("a.test", 700);
    assert!(w.deny("a.test"));
}

#[test]
fn a_release_is_of_its_name_alone_and_the_types_of_a_name_are_told_once() {
    let mut w = World::new();
    let name: Name = "a.test".parse().unwrap();
    let aaaa = Question { name: name.as_wire(), qtype: 28, dnssec_ok: false, cd: false };
    for pause in [640, 60] {
        let data = Data::new(Packed::of_a_minute(Kind::Positive), 0, GROUP, w.now);
        let entry = Arc::new(Entry::with_data(&aaaa, data));
        assert!(w.cache.keep(w.cache.key(&aaaa), &aaaa, entry, DAY, w.now));
        ["a.test", "b.test"].into_iter().for_each(|name| w.good(name));
        w.pass(pause);
    }
    assert!(!w.deny("a.test") && !w.deny("b.test"));
    w.pass(1);
    w.cache.guards().hold(w.cache.key(&aaaa), &aaaa, w.now);
    assert_eq!(w.changes(), ["held a.test. 60", "held b.test. 60"]);
    assert_eq!(w.cache.guards().release(name.as_wire(), w.now), 2);
    assert!(!w.is_held("a.test") && w.is_held("b.test"));
}

#[test]
fn what_is_no_longer_guarded_is_held_no_more_and_takes_no_room() {
    let mut w = World::new();
    w.good_for("a.test", 700);
    assert!(!w.deny("a.test"));
    w.cache.guards().set(&[]);
    assert!(!w.is_held("a.test") && !w.is_known("a.test"));
    assert_eq!(w.cache.guards().table().bytes, 0);
    assert!(w.deny("a.test"));
}

#[test]
fn large_answers_are_bounded_by_their_bytes() {
    let mut w = World::new();
    for n in 0..400 {
        w.now = w.now + Duration::from_millis(1);
        let large = Packed { wire: vec![0; 60_000], ..Packed::of_a_minute(Kind::Positive) };
        assert!(w.keep_packed(&format!("n{n}.test"), large, GROUP));
    }
    let bytes = w.cache.guards().table().bytes;
    assert!((GUARDED_BYTES_MAX * 8 / 10..=GUARDED_BYTES_MAX).contains(&bytes), "{bytes}");
}

#[test]
fn it_is_bounded_and_what_was_good_the_longest_ago_goes_first() {
    let mut w = World::new();
    w.good_for("old.test", 700);
    w.good_for("long.test", 700);
    w.deny("old.test");
    for n in 0..GUARDED_MAX + 5 {
        w.now = w.now + Duration::from_millis(1);
        w.good(&format!("n{n}.test"));
    }
    let all = w.cache.guards().all();
    assert!(all.len() <= GUARDED_MAX && all.len() > GUARDED_MAX * 8 / 10, "{}", all.len());
    let (held, _) = w.cache.guards().count(w.now);
    assert_eq!(held, 1, "what is held stays");
    assert!(!w.deny("long.test"), "and so does what was good for long");
    let bytes: usize = all.iter().map(|k| k.entry.bytes()).sum();
    assert_eq!(w.cache.guards().table().bytes, bytes);
    assert!(!w.is_known("n0.test") && w.is_known(&format!("n{}.test", GUARDED_MAX + 4)));
    w.cache.guards().flush(&|_| true);
    assert_eq!(w.cache.guards().table().bytes, 0);
}
