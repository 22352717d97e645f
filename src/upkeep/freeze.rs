//! A freeze that outlives the process: one small file in the state directory.
//!
//! Not pure. It holds when the freeze began and when it ends by the wall clock. At a start what is left of it is in
//! force again. A wall clock that has gone back, or that is wrong, makes no freeze longer than it was meant to be.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state;
use crate::cache::freshness::Freeze;
use crate::clock::{Moment, WallTime};
use crate::limits;

/// The file in the state directory.
pub const FILE: &str = "freeze.json";
/// Of 256 groups, each with a name of 64 bytes, and more.
const FILE_BYTES_MAX: u64 = 1 << 16;

/// A freeze as it is kept: seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    since_unix: i64,
    until_unix: i64,
    /// The tier in use of each group, from 1.
    #[serde(default)]
    tiers: TiersInUse,
}

/// The tier in use of each group by its name, from 1.
pub type TiersInUse = BTreeMap<String, u8>;

impl Kept {
    /// What is left of it.
    fn left(&self, wall: WallTime, now: Moment) -> Option<Freeze> {
        let span = |from: i64, to: i64| Duration::from_secs(u64::try_from(to.saturating_sub(from)).unwrap_or(0));
        let whole = span(self.since_unix, self.until_unix);
        let left = span(wall.0, self.until_unix).min(whole).min(limits::FREEZE.max);
        (!left.is_zero()).then(|| Freeze { since: now - span(self.since_unix, wall.0), until: now + left })
    }
}

/// Keeps a freeze, and the tiers that are in use, over a restart.
///
/// # Errors
///
/// What the system says, or why the file could not be used at the next start.
pub fn keep(directory: &Path, freeze: Freeze, tiers: TiersInUse, wall: WallTime, now: Moment) -> io::Result<()> {
    let kept = Kept {
        since_unix: wall.0.saturating_sub_unsigned(now.since(freeze.since).as_secs()),
        until_unix: wall.0.saturating_add_unsigned(now.until(freeze.until).as_secs()),
        tiers,
    };
    state::replace(directory, FILE, &serde_json::to_vec(&kept)?)?;
    state::open(directory, FILE).map(drop)
}

/// What is left of a freeze that was kept, and the tiers that were in use. A file that says nothing that can be
/// understood is taken away.
///
/// # Errors
///
/// Why the file that is there cannot be used.
pub fn kept(directory: &Path, wall: WallTime, now: Moment) -> io::Result<Option<(Freeze, TiersInUse)>> {
    let file = match state::open(directory, FILE) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let kept = serde_json::from_slice::<Kept>(&bytes).ok();
    let left = kept.and_then(|kept| Some((kept.left(wall, now)?, kept.tiers)));
    if left.is_none() {
        forget(directory);
    }
    Ok(left)
}

/// It is over.
pub fn forget(directory: &Path) {
    let _ = fs::remove_file(directory.join(FILE));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_on_after_a_restart_and_a_wrong_clock_makes_it_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let (at, secs) = (Moment::from_secs, Duration::from_secs);
        let freeze = Freeze { since: at(1000), until: at(1000) + secs(3600) };
        for (what, wall, want) in [
            ("at once", 5000, Some((0, 3600))),
            ("ten minutes later", 5600, Some((600, 3000))),
            ("the clock went back", 4000, Some((0, 3600))),
            ("no clock yet", 0, Some((0, 3600))),
            ("over", 8600, None),
            ("long over", 1_000_000, None),
        ] {
            let tiers = TiersInUse::from([("default".to_owned(), 2)]);
            keep(dir.path(), freeze, tiers.clone(), WallTime(5000), at(1000)).unwrap();
            let left = kept(dir.path(), WallTime(wall), at(50_000)).unwrap();
            assert!(left.as_ref().is_none_or(|l| l.1 == tiers), "{what}");
            let left = left.map(|l| l.0);
            let want = want.map(|(passed, left)| Freeze { since: at(50_000 - passed), until: at(50_000 + left) });
            assert_eq!(left, want, "{what}");
            assert_eq!(dir.path().join(FILE).exists(), want.is_some(), "{what}");
        }
    }

    #[test]
    fn a_freeze_that_is_kept_again_counts_from_its_own_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let at = Moment::from_secs;
        keep(dir.path(), Freeze { since: at(1000), until: at(4600) }, TiersInUse::new(), WallTime(5600), at(1600))
            .unwrap();
        let left = kept(dir.path(), WallTime(5600), at(50_000)).unwrap();
        assert_eq!(left.unwrap().0, Freeze { since: at(49_400), until: at(53_000) });
    }

    #[test]
    fn a_file_that_makes_no_sense_is_no_freeze() {
        let dir = tempfile::tempdir().unwrap();
        for text in
            ["", "{}", "nonsense", "{\"since_unix\":1,\"until_unix\":\"x\"}", "{\"since_unix\":9,\"until_unix\":1}"]
        {
            state::replace(dir.path(), FILE, text.as_bytes()).unwrap();
            assert_eq!(kept(dir.path(), WallTime(0), Moment::ZERO).unwrap(), None, "{text}");
        }
        let far = format!("{{\"since_unix\":0,\"until_unix\":{}}}", i64::MAX);
        state::replace(dir.path(), FILE, far.as_bytes()).unwrap();
        let now = Moment::from_secs(1_000_000);
        let (left, _) = kept(dir.path(), WallTime(0), now).unwrap().unwrap();
        assert_eq!(now.until(left.until), limits::FREEZE.max);
    }
}
