//! What is to be done: from what a machine's tree says to steps. Pure.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::facts::Facts;
use super::place::{Bytes, Kept, Place};
use super::record::{Change, RECORD_VERSION, Record};
use super::{DHCLIENT_HOOK, KEPT_COPY, LEASE, NETWORK_MANAGER_FILE, OPENRESOLV_FILE, RESOLV_CONF, text};

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps; none where all is as it should be.
    pub steps: Vec<Step>,
    /// What an operator should know.
    pub remarks: Vec<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Keep what was there.
    Keep(Record),
    /// Put this at this path.
    Put {
        /// Where.
        path: PathBuf,
        /// What.
        place: Place,
        /// Why, in words.
        why: &'static str,
    },
    /// Remove a directory that was made, where nobody has put anything there.
    RemoveEmpty(PathBuf),
    /// Run a program of the machine. That it fails is a remark.
    Run(&'static [&'static str]),
    /// Let go of what was kept.
    Forget,
}

impl Step {
    /// In a line.
    pub fn in_words(&self) -> String {
        match self {
            Step::Keep(record) => {
                format!("keep {RESOLV_CONF}, {}, in {}", record.original.in_words(), super::KEPT_RECORD)
            }
            Step::Put { path, place: Place::Nothing, why } => format!("remove {}: {why}", path.display()),
            Step::Put { path, place, why } => format!("put {} at {}: {why}", place.in_words(), path.display()),
            Step::RemoveEmpty(path) => format!("remove {} where it is empty", path.display()),
            Step::Run(command) => format!("run `{}`", command.join(" ")),
            Step::Forget => format!("remove {}", super::KEPT),
        }
    }

    /// The text that is written, where it is new.
    pub fn text(&self) -> Option<String> {
        match self {
            Step::Put { place: Place::File(kept), .. } => {
                Some(String::from_utf8_lossy(kept.bytes.as_bytes()).into_owned())
            }
            _ => None,
        }
    }
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// resolv.conf is marked so that nobody may change it.
    Immutable,
    /// resolv.conf names evenkeel alone already, and nothing is kept of what it named before.
    NothingToKeep,
    /// Somebody else has written resolv.conf, and it still names evenkeel.
    OthersNameEvenkeel,
    /// What would be there then names evenkeel alone.
    EvenkeelAlone,
    /// What the link that was there leads to is gone.
    TargetGone(PathBuf),
    /// What the link that was there leads to names no server.
    TargetNamesNobody(PathBuf),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Immutable => write!(
                f,
                "{RESOLV_CONF} is immutable: somebody made sure that nobody changes it\n  hint: if that is not \
                 wanted any more, `chattr -i -a {RESOLV_CONF}`, and again"
            ),
            Refusal::NothingToKeep => write!(
                f,
                "{RESOLV_CONF} names evenkeel alone already, and nothing says what it named before: there would be \
                 nothing to go back to\n  hint: write the lines `nameserver ADDRESS` of before into it, and again; or \
                 leave it as it is"
            ),
            Refusal::EvenkeelAlone => write!(
                f,
                "{RESOLV_CONF} would name evenkeel alone, as somebody wrote it: without evenkeel this machine would \
                 resolve no names; nothing is changed\n  hint: write `nameserver ADDRESS` of another server into it; \
                 --force goes on all the same"
            ),
            Refusal::OthersNameEvenkeel => write!(
                f,
                "{RESOLV_CONF} was changed by somebody else, and names evenkeel: nothing is changed\n  hint: --force \
                 puts back what was there before evenkeel"
            ),
            Refusal::TargetNamesNobody(target) => write!(
                f,
                "{RESOLV_CONF} was a link to {0}, which names no server: nothing is changed\n  hint: --force puts the \
                 link back all the same; or write a line `nameserver ADDRESS` into {0} first",
                target.display()
            ),
            Refusal::TargetGone(target) => write!(
                f,
                "{RESOLV_CONF} was a link to {}, which is not there: put back, it would name no server\n  hint: \
                 --force puts the link back all the same",
                target.display()
            ),
        }
    }
}

/// Points resolv.conf at `server`. `is_us` knows where evenkeel answers.
///
/// # Errors
///
/// Why that is not to be done.
pub fn enable(facts: &Facts, server: IpAddr, is_us: &dyn Fn(IpAddr) -> bool) -> Result<Plan, Refusal> {
    if facts.record.is_none() && names_only(facts.text.as_deref(), is_us) {
        return Err(Refusal::NothingToKeep);
    }
    let old = facts.text.as_deref().unwrap_or("");
    let written = text::resolv_conf(server, old);
    let changes = changes(facts);
    let record = Record {
        version: RECORD_VERSION,
        original: original(facts, is_us),
        made: made(facts, &changes),
        changes,
        earlier: facts
            .record
            .as_ref()
            .and_then(|old| if old.written == written { old.earlier.clone() } else { Some(old.written.clone()) }),
        written: written.clone(),
    };
    let mut plan = Plan::default();
    let is_other = facts.record.as_ref().map(|r| &r.original) != Some(&record.original);
    if is_other && facts.copy != Place::Nothing {
        // Gone before the record is another, so that a cut-off between the two leaves none that does not belong to it.
        let why = "it is of another resolv.conf";
        plan.steps.push(Step::Put { path: KEPT_COPY.into(), place: Place::Nothing, why });
    }
    if facts.record.as_ref() != Some(&record) {
        plan.steps.push(Step::Keep(record.clone()));
    }
    // One that is there may have been edited since, or have got what the old link led to.
    if is_other || facts.copy == Place::Nothing {
        let leads_to = if is_other { &facts.leads_to } else { &facts.original_leads_to };
        let copy = copy(&record.original, leads_to.as_deref());
        if copy != Place::Nothing {
            let why = "\"system\" upstreams go on reading the servers that were there";
            plan.steps.push(Step::Put { path: KEPT_COPY.into(), place: copy, why });
        }
    }
    for change in &record.changes {
        let there = place_of(facts, &change.path);
        if there.is_some_and(|place| !place.says(&change.written)) {
            plan.put_change(facts, change, true);
        }
    }
    if !facts.resolv.says(&written) {
        if facts.immutable {
            return Err(Refusal::Immutable);
        }
        let place = Place::new_file(&written);
        plan.steps.push(Step::Put { path: RESOLV_CONF.into(), place, why: "it names evenkeel alone" });
    }
    plan.remarks.extend(remarks(facts));
    Ok(plan)
}

/// What is to be put back one day. What somebody else has written since the first time is the machine's own, unless it
/// names evenkeel alone, as an edited copy of ours does, or nobody.
fn original(facts: &Facts, is_us: &dyn Fn(IpAddr) -> bool) -> Place {
    let Some(record) = &facts.record else { return facts.resolv.clone() };
    let is_ours = record.wrote(&facts.resolv);
    let is_as_before = facts.resolv.is_alike(&record.original);
    let text = facts.text.as_deref();
    if is_ours || is_as_before || names_only(text, is_us) || names_nobody(text) {
        return record.original.clone();
    }
    facts.resolv.clone()
}

fn names_only(text: Option<&str>, is_us: &dyn Fn(IpAddr) -> bool) -> bool {
    !names_nobody(text) && text::servers(text.unwrap_or("")).all(is_us)
}

fn names_nobody(text: Option<&str>) -> bool {
    text::servers(text.unwrap_or("")).next().is_none()
}

/// The copy for `"system"` upstreams. A link is followed still, since what it leads to may go on changing; where that
/// is a file which they read anyway, there is none.
fn copy(original: &Place, leads_to: Option<&Path>) -> Place {
    match (original, leads_to) {
        (Place::File(kept), _) => match std::str::from_utf8(kept.bytes.as_bytes()) {
            Ok(text) => Place::new_file(text),
            Err(_) => Place::new_file(&String::from_utf8_lossy(kept.bytes.as_bytes())),
        },
        (Place::Link(_), Some(target)) if !READ_ANYWAY.iter().any(|directory| target.starts_with(directory)) => {
            Place::Link(target.to_owned())
        }
        _ => Place::Nothing,
    }
}

const READ_ANYWAY: [&str; 4] =
    ["/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/etc/resolvconf/run"];

/// What else is to be written, and what was there before us.
fn changes(facts: &Facts) -> Vec<Change> {
    let mut wanted = Vec::new();
    if facts.network_manager {
        wanted.push((NETWORK_MANAGER_FILE, text::network_manager()));
    }
    if facts.dhclient && facts.other_hook.is_none() {
        wanted.push((DHCLIENT_HOOK, text::dhclient_hook()));
    }
    if let Some(Place::File(kept)) = &facts.openresolv {
        wanted.push((OPENRESOLV_FILE, text::openresolv_with(&String::from_utf8_lossy(kept.bytes.as_bytes()))));
    }
    let earlier: &[Change] = facts.record.as_ref().map_or(&[], |record| &record.changes);
    let mut changes: Vec<Change> = wanted
        .into_iter()
        .filter_map(|(path, written)| {
            let path = PathBuf::from(path);
            let there = place_of(facts, &path)?;
            let old = earlier.iter().find(|c| c.path == path);
            let before = match (old, there) {
                (Some(old), there) if there.says(&old.written) => old.before.clone(),
                (_, Place::File(kept)) if path == Path::new(OPENRESOLV_FILE) => without_block(kept),
                // Ours, and edited or of another version: what it took the place of was there before evenkeel.
                (old, there) if there.text().is_some_and(|text| text::is_ours(&text)) => {
                    old.map_or(Place::Nothing, |old| old.before.clone())
                }
                _ => there.clone(),
            };
            Some(Change { path, before, written })
        })
        .collect();
    // What is not wanted any more is still ours to take back.
    let gone = earlier.iter().filter(|old| !changes.iter().any(|c| c.path == old.path)).cloned();
    let gone: Vec<Change> = gone.collect();
    changes.extend(gone);
    changes
}

/// openresolv's file without our block, where it has one.
fn without_block(kept: &Kept) -> Place {
    let there = String::from_utf8_lossy(kept.bytes.as_bytes());
    let without = text::openresolv_without(&there);
    if without == there {
        return Place::File(kept.clone());
    }
    Place::File(Kept { bytes: Bytes::Text(without), modified: None, ..kept.clone() })
}

/// The directories that are ours: made now, or by an earlier enabling.
fn made(facts: &Facts, changes: &[Change]) -> Vec<PathBuf> {
    let mut made = facts.record.as_ref().map_or_else(Vec::new, |record| record.made.clone());
    let needed = facts.missing.iter().filter(|path| changes.iter().any(|change| change.path.starts_with(path)));
    for path in needed {
        if !made.contains(path) {
            made.push(path.clone());
        }
    }
    made
}

fn place_of<'a>(facts: &'a Facts, path: &Path) -> Option<&'a Place> {
    match path.to_str()? {
        NETWORK_MANAGER_FILE => Some(&facts.drop_in),
        DHCLIENT_HOOK => Some(&facts.hook),
        OPENRESOLV_FILE => facts.openresolv.as_ref(),
        _ => None,
    }
}

fn remarks(facts: &Facts) -> Vec<String> {
    let mut remarks = Vec::new();
    if text::asks_resolved_first(&facts.nsswitch) {
        remarks.push(
            "nsswitch.conf asks systemd-resolved before DNS: programs that use the C library's look-up ask it, and it \
             asks evenkeel or its own servers; with `resolve` taken off the line `hosts:` they ask evenkeel"
                .to_owned(),
        );
    }
    if facts.nobody_at_boot {
        remarks.push(
            "neither evenkeel.service nor evenkeel.socket is enabled: after a reboot nobody would answer, unless \
             something else starts evenkeel; `systemctl enable evenkeel` does"
                .to_owned(),
        );
    }
    if let Some(hook) = facts.other_hook.as_ref().filter(|_| facts.dhclient) {
        remarks.push(format!("dhclient leaves {RESOLV_CONF} alone by its hook {hook}: nothing is added"));
    }
    if let Some(who) = facts.text.as_deref().and_then(text::claimed_by) {
        remarks.push(format!(
            "{RESOLV_CONF} was written by {who}, which may write it again: tell it not to, and look at it later"
        ));
    }
    remarks
}

/// Puts back what was there. A resolv.conf that names nobody, emptied, gone or a link to nothing, is not left for
/// somebody else's: without what was there this machine would have no names. The same holds for one that names evenkeel
/// alone, whoever wrote it; `is_us` knows where evenkeel answers, as far as it runs.
///
/// # Errors
///
/// Why that is not to be done.
pub fn disable(facts: &Facts, is_us: &dyn Fn(IpAddr) -> bool, force: bool) -> Result<Plan, Refusal> {
    let mut plan = Plan::default();
    let text = facts.text.as_deref();
    let Some(record) = &facts.record else {
        return if names_only(text, is_us) && !force { Err(Refusal::EvenkeelAlone) } else { Ok(plan) };
    };
    let written = [Some(&record.written), record.earlier.as_ref()];
    let ours: Vec<IpAddr> = written.into_iter().flatten().flat_map(|text| text::servers(text)).collect();
    let is_us = |server: IpAddr| ours.contains(&server) || is_us(server);
    let is_ours = record.wrote(&facts.resolv) || names_nobody(text);
    let is_as_before = facts.resolv.is_alike(&record.original);
    if is_ours || is_as_before || force {
        if !force {
            can_go_back(facts, record, &is_us)?;
        }
        if !is_as_before && facts.immutable {
            return Err(Refusal::Immutable);
        }
        if !is_as_before {
            let (place, why) = match with_lease(facts, record, &is_us) {
                Some(place) => {
                    (place, "it is what was there before evenkeel, with the servers of dhclient's lease now")
                }
                None => (record.original.clone(), "it is what was there before evenkeel"),
            };
            plan.steps.push(Step::Put { path: RESOLV_CONF.into(), place, why });
        }
        if names_nobody(facts.original_text.as_deref()) {
            plan.remarks.push(format!("{RESOLV_CONF} names no server, as it was before evenkeel"));
        }
    } else {
        if text::servers(text.unwrap_or("")).any(is_us) {
            return Err(Refusal::OthersNameEvenkeel);
        }
        plan.remarks.push(format!("{RESOLV_CONF} was changed by somebody else since: it is left as it is"));
    }
    for change in record.changes.iter().rev() {
        match place_of(facts, &change.path) {
            Some(there) if there.says(&change.written) => plan.put_change(facts, change, false),
            // Others have written into openresolv's file since: our block goes, the rest is theirs.
            Some(Place::File(kept)) if change.path == Path::new(OPENRESOLV_FILE) => {
                let without = without_block(kept);
                if without != Place::File(kept.clone()) {
                    plan.put_change(facts, &Change { before: without, ..change.clone() }, false);
                }
            }
            None | Some(Place::Nothing) => {}
            Some(_) => {
                let path = change.path.display();
                plan.remarks.push(format!("{path} was changed by somebody else since: it is left as it is"));
            }
        }
    }
    plan.steps.extend(record.made.iter().rev().cloned().map(Step::RemoveEmpty));
    if record.changes.iter().any(|change| change.path == Path::new(DHCLIENT_HOOK)) {
        let why = "dhclient writes the servers of its lease to resolv.conf again";
        plan.steps.push(Step::Put { path: LEASE.into(), place: Place::Nothing, why });
    }
    plan.steps.push(Step::Forget);
    Ok(plan)
}

/// What was there, with the servers that dhclient would have written since: it wrote them for us instead.
fn with_lease(facts: &Facts, record: &Record, is_us: &dyn Fn(IpAddr) -> bool) -> Option<Place> {
    let Place::File(kept) = &record.original else { return None };
    record.changes.iter().find(|change| change.path == Path::new(DHCLIENT_HOOK))?;
    let lease =
        facts.lease.as_deref().filter(|lease| !names_nobody(Some(lease)) && !names_only(Some(lease), is_us))?;
    let before = String::from_utf8_lossy(kept.bytes.as_bytes());
    if text::servers(&before).eq(text::servers(lease)) {
        return None;
    }
    let bytes = Bytes::Text(text::with_servers(&before, lease));
    Some(Place::File(Kept { bytes, modified: None, ..kept.clone() }))
}

/// Would what is put back name a server besides evenkeel? A file that named none, or none at all, is what this machine
/// had; a link may have led to one.
fn can_go_back(facts: &Facts, record: &Record, is_us: &dyn Fn(IpAddr) -> bool) -> Result<(), Refusal> {
    let text = facts.original_text.as_deref();
    if names_only(text, is_us) {
        return Err(Refusal::EvenkeelAlone);
    }
    match (&record.original, text) {
        (Place::Link(target), None) => Err(Refusal::TargetGone(super::facts::absolute(target))),
        (Place::Link(target), text) if names_nobody(text) => {
            Err(Refusal::TargetNamesNobody(super::facts::absolute(target)))
        }
        _ => Ok(()),
    }
}

impl Plan {
    /// Writes a change, or takes it back, and tells the program whose file it is.
    fn put_change(&mut self, facts: &Facts, change: &Change, forward: bool) {
        let (why, command): (_, Option<&'static [&'static str]>) = match change.path.to_str() {
            Some(NETWORK_MANAGER_FILE) => (
                if forward { "NetworkManager leaves resolv.conf alone" } else { "NetworkManager may write it again" },
                facts.network_manager_runs.then_some(&["nmcli", "general", "reload", "conf"]),
            ),
            Some(OPENRESOLV_FILE) => (
                if forward {
                    "openresolv writes its servers elsewhere"
                } else {
                    "openresolv writes resolv.conf again"
                },
                Some(&["resolvconf", "-u"]),
            ),
            _ => (if forward { "dhclient leaves resolv.conf alone" } else { "dhclient may write it again" }, None),
        };
        let place = match (&change.before, forward) {
            // Mode and owner of a file that was there stay.
            (Place::File(kept), true) => {
                let mut kept = kept.clone();
                kept.bytes = Bytes::Text(change.written.clone());
                kept.modified = None;
                Place::File(kept)
            }
            (_, true) => Place::new_file(&change.written),
            (before, false) => before.clone(),
        };
        self.steps.push(Step::Put { path: change.path.clone(), place, why });
        self.steps.extend(command.map(Step::Run));
    }
}
