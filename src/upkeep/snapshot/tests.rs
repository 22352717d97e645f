//! Snapshots as files: who may have written them, what is read of them, when they are written.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use rustix::process::geteuid;

use super::*;
use crate::cache::entry::{Data, GroupStamp, Kind, Packed};
use crate::cache::guard::GuardSettings;
use crate::cache::key::{Keys, Question};
use crate::cache::snapshot::{Head, Since};
use crate::cache::store::{MapStore, MokaStore};
use crate::wire::flag;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn what_an_earlier_process_knew_is_there_again_with_its_age() {
    let w = world();
    w.keep("www.test", Duration::from_secs(100));
    w.keep("new.test", Duration::ZERO);
    w.written();
    let again = w.restarted();
    let status = again.read();
    assert_eq!((status.restored, status.left_out, status.entries, status.refused), (2, 0, 2, None));
    let age = |name| clock::now().since(again.data(name, |d| d.stored).unwrap()).as_secs();
    assert!((100..110).contains(&age("www.test")) && age("new.test") < 10);
    assert_eq!(again.data("www.test", |d| (d.group, d.tier, d.kind)), Some((GroupStamp(1), 0, Kind::Positive)));
}

#[test]
fn a_group_is_the_same_where_one_of_its_servers_stayed() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.written();
    for (what, name, servers, want) in [
        ("as it was", "default", vec!["udp://192.0.2.1:53"], 7),
        ("one of two", "default", vec!["udp://192.0.2.9:53", "udp://192.0.2.1:53"], 7),
        ("none", "default", vec!["udp://192.0.2.9:53"], 0),
        ("another protocol", "default", vec!["tcp://192.0.2.1:53"], 0),
        ("another name", "office", vec!["udp://192.0.2.1:53"], 0),
    ] {
        let mut again = w.restarted();
        again.around.group = GroupRecord {
            stamp: GroupStamp(7),
            name: name.into(),
            servers: servers.into_iter().map(String::from).collect(),
        };
        again.read();
        assert_eq!(again.data("www.test", |d| d.group), Some(GroupStamp(want)), "{what}");
    }
}

#[test]
fn entries_are_vetted_by_the_settings_in_force() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.written();
    let ad = |d: &Data| d.stored().wire[3] & flag::AD as u8 != 0;
    let mut again = w.restarted();
    again.around.trust_ad = true;
    again.read();
    assert_eq!(again.data("www.test", |d| (ad(d), d.ttl)), Some((true, 300)));
    let mut again = w.restarted();
    again.around.ttl.max = 20;
    again.read();
    assert_eq!(again.data("www.test", |d| (ad(d), d.ttl)), Some((false, 20)));
    let mut again = w.restarted();
    again.around.max_age = Duration::ZERO;
    again.around.ttl.max = 0;
    assert_eq!(again.read().left_out, 1);
}

#[test]
fn what_others_may_have_written_is_refused() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.written();
    let mode = |mode| fs::set_permissions(w.file(), fs::Permissions::from_mode(mode)).unwrap();
    let directory = |mode| fs::set_permissions(w.directory(), fs::Permissions::from_mode(mode)).unwrap();
    let refused = || w.restarted().read().refused;
    for (bits, want) in [(0o600, None), (0o644, None), (0o620, Some(())), (0o602, Some(())), (0o666, Some(()))] {
        mode(bits);
        assert_eq!(refused().map(|why| assert_eq!(why, "it may be written by others")), want, "{bits:o}");
    }
    mode(0o600);
    for (bits, want) in [(0o700, None), (0o755, None), (0o770, Some(())), (0o1777, Some(()))] {
        directory(bits);
        let why = "its directory may be written by others";
        assert_eq!(refused().map(|said| assert_eq!(said, why)), want, "{bits:o}");
    }
    directory(0o700);
    if geteuid().is_root() {
        chown(w.file(), Some(12_345), None).unwrap();
        assert_eq!(refused().as_deref(), Some("it belongs to another user"));
        chown(w.file(), Some(0), None).unwrap();
    }
    let other = Snapshotter::new(w.directory().to_owned(), [2; 16], cache(), 1 << 30);
    other.read(&w.around);
    assert_eq!(other.status().refused.as_deref(), Some("another machine wrote it"));
    let elsewhere = w.directory().join("elsewhere");
    fs::rename(w.file(), &elsewhere).unwrap();
    symlink(&elsewhere, w.file()).unwrap();
    assert!(refused().unwrap().contains("symbolic link"), "ELOOP");
    fs::remove_file(w.file()).unwrap();
    fs::create_dir(w.file()).unwrap();
    assert_eq!(refused().as_deref(), Some("it is no plain file"));
}

// What kill -9 leaves at every byte of a write is a draft that is cut there, beside the old file.
#[test]
fn a_draft_that_a_killed_process_left_changes_nothing() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.written();
    let whole = fs::read(w.file()).unwrap();
    for length in (0..whole.len()).step_by(7) {
        fs::write(w.directory().join(DRAFT), &whole[..length]).unwrap();
        let again = w.restarted();
        assert_eq!(again.read().restored, 1, "{length}");
        again.written();
        assert!(!w.directory().join(DRAFT).exists(), "{length}");
    }
}

#[test]
fn a_draft_that_leads_elsewhere_is_not_followed() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    let victim = w.directory().join("victim");
    fs::write(&victim, "mine").unwrap();
    symlink(&victim, w.directory().join(DRAFT)).unwrap();
    w.written();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    let meta = fs::symlink_metadata(w.file()).unwrap();
    assert_eq!((meta.is_file(), meta.mode() & 0o7777), (true, 0o600));
}

#[test]
fn a_write_that_fails_leaves_the_file_before_it_and_the_next_one_mends_it() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.written();
    let before = fs::read(w.file()).unwrap();
    w.keep("new.test", Duration::ZERO);
    fs::create_dir(w.directory().join(DRAFT)).unwrap();
    assert!(w.snapshotter.write_now(&w.around).is_err());
    assert_eq!(fs::read(w.file()).unwrap(), before);
    assert!(w.snapshotter.status().failing.is_some());
    fs::remove_dir(w.directory().join(DRAFT)).unwrap();
    // Nothing more has changed, and yet it is due.
    w.snapshotter.write_where_changed(&w.around, Pace::Beside, SNAPSHOT_CHANGED_SHARE);
    let status = w.snapshotter.status();
    assert_eq!((status.entries, status.failing), (2, None));
}

#[test]
fn it_is_not_written_anew_while_fewer_than_one_in_a_hundred_have_changed() {
    let w = world();
    (0..201).for_each(|n| w.keep(&format!("n{n}.test"), Duration::ZERO));
    let writes = |w: &World| {
        let before = fs::metadata(w.file()).map(|m| m.ino()).ok();
        w.snapshotter.write_where_changed(&w.around, Pace::Beside, SNAPSHOT_CHANGED_SHARE);
        fs::metadata(w.file()).map(|m| m.ino()).ok() != before
    };
    w.snapshotter.read(&w.around);
    assert!(writes(&w), "the first");
    w.keep("n1.test", Duration::ZERO);
    w.keep("n2.test", Duration::ZERO);
    assert!(!writes(&w), "two of 201");
    w.keep("n3.test", Duration::ZERO);
    assert!(writes(&w), "three");
    assert!(!writes(&w), "none");
    w.snapshotter.flush(|e| e.name() == wire("n1.test"));
    assert!(writes(&w), "a flush counts as a change of all");
    assert!(!writes(&w));
    w.keep("n1.test", Duration::ZERO);
    w.snapshotter.finish(&w.around);
    assert_eq!(w.snapshotter.status().entries, 201, "at the end one change is enough");
}

#[test]
fn what_was_not_read_to_its_end_is_not_replaced() {
    let w = world();
    (0..100).for_each(|n| w.keep(&format!("n{n}.test"), Duration::ZERO));
    w.written();
    let before = fs::read(w.file()).unwrap();
    let again = w.restarted();
    again.keep("new.test", Duration::ZERO);
    again.snapshotter.write_now(&again.around).unwrap();
    again.snapshotter.finish(&again.around);
    // The end came before reading had begun.
    again.snapshotter.read(&again.around);
    again.snapshotter.write_now(&again.around).unwrap();
    assert_eq!(fs::read(w.file()).unwrap(), before);
}

#[test]
fn what_is_flushed_while_reading_goes_on_is_not_restored() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.keep("other.test", Duration::ZERO);
    w.written();
    let again = w.restarted();
    again.snapshotter.flush(|e| e.name() == wire("www.test"));
    again.keep("www.test", Duration::ZERO);
    let live = again.data("www.test", |d| d.stored).unwrap();
    again.read();
    assert_eq!(again.data("www.test", |d| d.stored), Some(live), "what came since the flush stays");
    assert!(again.data("other.test", |_| ()).is_some());
}

#[test]
fn of_a_file_that_is_larger_than_the_cache_as_much_is_read_as_fits() {
    let w = world();
    (0..2000).for_each(|n| w.keep(&format!("n{n}.test"), Duration::ZERO));
    w.written();
    let small = Arc::new(Cache::new(Arc::new(MokaStore::new(1 << 18)), Keys::new([0; 16])));
    let again = Snapshotter::new(w.directory().to_owned(), [1; 16], small.clone(), 1 << 18);
    again.read(&w.around);
    let restored = again.status().restored;
    small.upkeep();
    assert!((100..2000).contains(&restored), "{restored}");
    assert_eq!(again.status().left_out, 2000 - restored);
    assert!(small.census().bytes <= 1 << 18);
}

#[test]
fn a_file_is_read_in_shares_that_miss_nothing() {
    let guards = [GuardSettings { names: vec!["n7.test".parse().unwrap()], ..guard() }];
    let w = world();
    w.cache.guards().set(&guards);
    (0..1001).for_each(|n| w.keep(&format!("n{n}.test"), Duration::ZERO));
    w.written();
    let again = w.restarted();
    again.cache.guards().set(&guards);
    for shares in [1, 2, 3] {
        let file = File::open(w.file()).unwrap();
        let length = file.metadata().unwrap().len();
        let head = Head { version: 1, length: 40, machine: [1; 16], written_at: clock::wall_millis() };
        let since = Since::new(head.written_at, head.written_at, clock::now());
        let read =
            |n| again.snapshotter.read_share(&again.around, &file, (&head, length), (n, shares), since).unwrap();
        let entries: u64 = (0..shares).map(|n| read(n).entries).sum();
        assert_eq!(entries, 1001, "{shares}");
    }
    assert_eq!(again.cache.census().entries, 1001);
    assert_eq!(again.cache.guards().all().len(), 1);
}

#[test]
fn a_snapshot_is_no_larger_than_the_cache_may_be() {
    let w = world();
    (0..2000).for_each(|n| w.keep(&format!("n{n}.test"), Duration::ZERO));
    let bounded = Snapshotter::new(w.directory().to_owned(), [1; 16], w.cache.clone(), 10_000);
    bounded.read(&w.around);
    bounded.write_now(&w.around).unwrap();
    let bytes = fs::metadata(w.file()).unwrap().len();
    assert!((10_000..10_200).contains(&bytes), "{bytes}");
    assert!(w.restarted().read().restored > 50, "and it is whole");
}

#[test]
fn beside_serving_four_mebibytes_take_a_second() {
    let w = world();
    let file = File::create(w.directory().join("paced")).unwrap();
    let mut out = Paced { file, pace: Pace::Beside, unsynced: 0 };
    let began = clock::now();
    assert!(out.write(&vec![0; 1 << 20]).is_ok());
    assert!(clock::now().since(began) >= Duration::from_millis(250));
}

#[test]
fn who_is_in_haste_ends_the_write_beside_serving() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.snapshotter.read(&w.around);
    w.snapshotter.in_haste.store(1, Ordering::Relaxed);
    assert_eq!(w.snapshotter.write(&w.around, Pace::Beside), Ok(()));
    assert!(!w.file().exists() && !w.directory().join(DRAFT).exists());
}

#[test]
fn what_guards_know_and_hold_is_there_again_even_where_the_cache_has_lost_it() {
    let guards = [GuardSettings { names: vec!["*.test".parse().unwrap()], ..guard() }];
    let w = world();
    w.cache.guards().set(&guards);
    w.keep("held.test", DAY * 3);
    w.keep("good.test", Duration::ZERO);
    w.keep("plain.other", Duration::ZERO);
    let name = wire("held.test");
    let question = question(&name);
    w.cache.guards().hold(w.cache.key(&question), &question, clock::now());
    w.written();

    let again = w.restarted();
    again.cache.guards().set(&guards);
    assert_eq!(again.read().left_out, 0);
    assert_eq!(again.cache.guards().all().len(), 2);
    assert_eq!(again.cache.guards().count(clock::now()).0, 1);
    let entry = again.cache.look(again.cache.key(&question), &question).unwrap();
    assert!(entry.held(clock::now()).is_some(), "older than max_age, and served");
    assert!(again.data("good.test", |_| ()).is_some() && again.data("plain.other", |_| ()).is_some());

    let without = w.restarted();
    without.read();
    assert!(without.cache.guards().all().is_empty() && without.data("held.test", |_| ()).is_none());
}

fn guard() -> GuardSettings {
    GuardSettings { names: vec![], hold: Duration::from_secs(1800), min_good: Duration::ZERO }
}

#[test]
fn the_machine_is_not_told_by_its_id() {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let hex: String = machine().iter().map(|b| format!("{b:02x}")).collect();
    assert!(id.trim().is_empty() || !hex.contains(id.trim()));
    assert_eq!(machine(), machine());
}

#[test]
fn what_guards_knew_of_another_group_or_for_longer_than_it_can_be_served_is_not_put_back() {
    let guards = [GuardSettings { names: vec!["*.test".parse().unwrap()], ..guard() }];
    let w = world();
    w.cache.guards().set(&guards);
    w.keep("old.test", DAY * 3);
    w.written();
    let again = w.restarted();
    again.cache.guards().set(&guards);
    again.read();
    assert_eq!(again.cache.guards().all().len(), 1, "it is known");
    assert!(again.data("old.test", |_| ()).is_none(), "and not served");
    let mut other = w.restarted();
    other.cache.guards().set(&guards);
    other.around.group.servers = vec!["udp://192.0.2.9:53".into()];
    other.read();
    assert!(other.cache.guards().all().is_empty());
    let flushed = w.restarted();
    flushed.cache.guards().set(&guards);
    flushed.snapshotter.flush(|_| true);
    flushed.read();
    assert!(flushed.cache.guards().all().is_empty(), "what was flushed meanwhile");
}

#[test]
fn what_would_not_be_stored_is_not_restored_and_the_ad_of_servers_that_went_counts_for_nothing() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.written();
    let mut again = w.restarted();
    again.around.ttl.max = 0;
    assert_eq!((again.read().left_out, again.data("www.test", |_| ())), (1, None));
    let mut again = w.restarted();
    again.around.trust_ad = true;
    again.around.group.servers = vec!["udp://192.0.2.9:53".into()];
    again.read();
    assert_eq!(again.data("www.test", |d| d.stored().wire[3] & flag::AD as u8), Some(0));
}

#[test]
fn what_was_in_hand_when_it_was_flushed_is_gone_after_reading_and_those_who_wait_are_told() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.keep("other.test", Duration::ZERO);
    w.written();
    let again = w.restarted();
    again.snapshotter.flush(|e| e.name() == wire("www.test"));
    let name = wire("www.test");
    let question = question(&name);
    let in_hand = w.cache.look(w.cache.key(&question), &question).unwrap();
    assert!(again.cache.restore(again.cache.key(&question), &question, in_hand));
    let status = again.read();
    assert_eq!((status.restored, status.left_out), (1, 1));
    assert!(again.data("www.test", |_| ()).is_none());
    assert_eq!(again.around.offers.load(Ordering::Relaxed), 1);
}

#[test]
fn a_refused_file_and_a_write_that_failed_are_due_though_nothing_has_changed() {
    let w = world();
    (0..201).for_each(|n| w.keep(&format!("n{n}.test"), Duration::ZERO));
    w.written();
    fs::write(w.file(), "nonsense").unwrap();
    let again = w.restarted();
    assert!(again.read().refused.is_some());
    let write = |w: &World| w.snapshotter.write_where_changed(&w.around, Pace::Beside, SNAPSHOT_CHANGED_SHARE);
    write(&again);
    assert!(again.snapshotter.status().refused.is_none());

    write(&w);
    fs::create_dir(w.directory().join(DRAFT)).unwrap();
    w.snapshotter.flush(|_| false);
    assert!(w.snapshotter.write_now(&w.around).is_err());
    let flushes = |w: &World| lock(&w.snapshotter.standing).flushes == w.snapshotter.flushes.load(Ordering::Relaxed);
    assert!(flushes(&w), "a flush that cannot be written waits for the next turn");
    fs::remove_dir(w.directory().join(DRAFT)).unwrap();
    write(&w);
    assert_eq!(w.snapshotter.status().failing, None);
    lock(&w.snapshotter.standing).good = None;
    write(&w);
    assert!(w.snapshotter.status().good_unix.is_some(), "what has not changed is as good as written");
}

#[test]
fn nothing_is_written_where_others_may_write_nor_for_longer_than_a_stop_may_take() {
    let w = world();
    w.keep("www.test", Duration::ZERO);
    w.snapshotter.read(&w.around);
    fs::set_permissions(w.directory(), fs::Permissions::from_mode(0o770)).unwrap();
    assert!(w.snapshotter.write_now(&w.around).unwrap_err().contains("its directory may be written by others"));
    let file = File::create(w.directory().join("late")).unwrap();
    let mut out = Paced { file, pace: Pace::AtOnce(clock::now()), unsynced: 0 };
    thread::sleep(Duration::from_millis(1));
    assert!(matches!(out.write(b"x"), Err(Unwritten::Failed(_))));
}

//------------ The world ---------------------------------------------------------------------------------------------

struct World {
    directory: Arc<tempfile::TempDir>,
    cache: Arc<Cache>,
    snapshotter: Snapshotter,
    around: Here,
}

struct Here {
    group: GroupRecord,
    ttl: TtlSettings,
    max_age: Duration,
    trust_ad: bool,
    offers: AtomicU32,
}

impl Around for Here {
    fn settings(&self) -> CacheSettings {
        let snapshot_every = Duration::from_secs(300);
        CacheSettings { max_bytes: 1 << 30, rotate: true, refresh_ahead: true, snapshot: true, snapshot_every }
    }

    fn homes(&self) -> Homes {
        let (group, ttl, max_age) = (self.group.clone(), self.ttl, self.max_age);
        let home = Home { group, ttl, max_age, trust_ad: vec![self.trust_ad] };
        Homes { groups: vec![home], route: Box::new(|_| Some(0)) }
    }

    fn offer(&self) {
        self.offers.fetch_add(1, Ordering::Relaxed);
    }
}

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    World::over(Arc::new(directory))
}

fn cache() -> Arc<Cache> {
    Arc::new(Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16])))
}

impl World {
    fn over(directory: Arc<tempfile::TempDir>) -> Self {
        let cache = cache();
        let snapshotter = Snapshotter::new(directory.path().to_owned(), [1; 16], cache.clone(), 1 << 30);
        let group =
            GroupRecord { stamp: GroupStamp(1), name: "default".into(), servers: vec!["udp://192.0.2.1:53".into()] };
        let around =
            Here { group, ttl: TtlSettings::default(), max_age: DAY, trust_ad: false, offers: AtomicU32::new(0) };
        Self { directory, cache, snapshotter, around }
    }

    /// Another process over the same directory.
    fn restarted(&self) -> World {
        World::over(self.directory.clone())
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self) -> PathBuf {
        self.directory().join(FILE)
    }

    fn read(&self) -> SnapshotStatus {
        self.snapshotter.read(&self.around);
        self.snapshotter.status()
    }

    fn written(&self) {
        self.snapshotter.read(&self.around);
        self.snapshotter.write_now(&self.around).unwrap();
    }

    /// Stores an answer that came so long ago, with AD.
    fn keep(&self, name: &str, age: Duration) {
        let name = wire(name);
        let mut bytes = vec![0, 0, 0, flag::AD as u8, 0, 1, 0, 1, 0, 0, 0, 0];
        bytes.extend(&name);
        bytes.extend([0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 1]);
        let ttl_at = vec![bytes.len() as u16 - 10];
        let packed = Packed { wire: bytes, ttl_at, ttl: 300, ..Packed::of_a_minute(Kind::Positive) };
        let stored = clock::now() - age;
        let question = question(&name);
        let entry = Arc::new(Entry::with_data(&question, Data::new(packed, 0, GroupStamp(1), stored)));
        self.cache.keep(self.cache.key(&question), &question, entry, DAY, stored);
    }

    fn data<T>(&self, name: &str, of: impl FnOnce(&Data) -> T) -> Option<T> {
        let name = wire(name);
        let question = question(&name);
        self.cache.look(self.cache.key(&question), &question)?.data().map(of)
    }
}

fn question(name: &[u8]) -> Question<'_> {
    Question { name, qtype: 1, dnssec_ok: false, cd: false }
}

fn wire(name: &str) -> Vec<u8> {
    name.parse::<crate::wire::Name>().unwrap().as_wire().to_vec()
}
