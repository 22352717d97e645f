//! `evenkeel stub`: what the running process says of itself, the checks, and then the plan.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde_json::Value;

use super::{EXIT_FAULT, EXIT_FINE, EXIT_NOT_REACHABLE, EXIT_SYSTEM, ask, print, talk};
use crate::config::record_type;
use crate::observe::control::Request;
use crate::observe::control::client;
use crate::observe::liveness::reachable;
use crate::serve::local::HEALTH_NAME;
use crate::stub::facts::{Facts, look};
use crate::stub::place::Place;
use crate::stub::plan::{self, Plan, Step};
use crate::stub::{KEPT_COPY, RESOLV_CONF, ask::is_there, ask::through, carry::carry_out, text};
use crate::upkeep::system::{self, Us};
use crate::wire::{Name, rtype};

/// The machine itself; tests of [`crate::stub`] have trees of their own.
const ROOT: &str = "/";

pub(super) fn enable(socket: Option<&Path>, dry_run: bool) -> u8 {
    let status = match client::ask(socket, &Request::Status) {
        Ok(status) => status,
        Err(error) => return ask::fail(&error),
    };
    let listening = listening(&status);
    let Some(server) = address(&listening) else {
        return refuse(
            EXIT_FAULT,
            "evenkeel does not listen at port 53 of this machine, and resolv.conf knows no other port",
            Some("listen.dns = [\"127.0.0.1:53\", \"[::1]:53\"], a restart, and again"),
        );
    };
    let facts = match look(Path::new(ROOT)) {
        Ok(facts) => facts,
        Err(e) => return refuse(EXIT_SYSTEM, &e.to_string(), look_hint(&e)),
    };
    for (name, qtype) in questions(&status) {
        if let Err(why) = through(server, &name, qtype) {
            let hint = "`evenkeel status` says how its upstreams do; nothing was changed";
            return refuse(EXIT_NOT_REACHABLE, &format!("evenkeel does not answer yet: {why}"), Some(hint));
        }
    }
    // What is in the cache would be answered still.
    let belief = default_belief(&status);
    if matches!(belief, "down" | "silent") {
        let hint = "`evenkeel status` says why; nothing was changed";
        return refuse(EXIT_NOT_REACHABLE, &format!("the upstreams of evenkeel are {belief}"), Some(hint));
    }
    let own = system::own_networks();
    let us = Us { listening: &listening, addresses: &own.addresses };
    let plan = match plan::enable(&facts, server.ip(), &|server| us.is(server)) {
        Ok(plan) => plan,
        Err(refusal) => return refuse(exit_of(&refusal), &refusal.to_string(), None),
    };
    if let Err(why) = upstreams_stay(&status, us, &facts, &plan, server.ip()) {
        let hint = "name servers in the configuration (groups.default.primary), or leave system.files at its default";
        return refuse(EXIT_FAULT, &why, Some(hint));
    }
    let took_back = facts.record.is_none();
    if plan.steps.is_empty() {
        plan.remarks.iter().for_each(|remark| talk(&format!("warning: {remark}")));
        return print(&format!("is enabled: {RESOLV_CONF} names {}\n", server.ip()));
    }
    // Before anything is begun: there is nothing to take back.
    if let Err(e) = may_change(dry_run) {
        return refuse(EXIT_SYSTEM, &e.to_string(), Some(hint_of(&e)));
    }
    match carry(&plan, dry_run) {
        Ok(true) => print(&format!("enabled: {RESOLV_CONF} names {}\n", server.ip())),
        Ok(false) => EXIT_FINE,
        Err(e) => {
            if took_back {
                take_back();
            }
            refuse(EXIT_SYSTEM, &e.to_string(), Some(hint_of(&e)))
        }
    }
}

pub(super) fn disable(socket: Option<&Path>, force: bool, dry_run: bool) -> u8 {
    let facts = match look(Path::new(ROOT)) {
        Ok(facts) => facts,
        Err(e) => return refuse(EXIT_SYSTEM, &e.to_string(), look_hint(&e)),
    };
    // Where none runs, nobody is left without names by what is done here.
    let listening = client::ask(socket, &Request::Status).map_or_else(|_| Vec::new(), |status| listening(&status));
    let own = system::own_networks();
    let us = Us { listening: &listening, addresses: &own.addresses };
    let plan = match plan::disable(&facts, &|server| us.is(server), force) {
        Ok(plan) => plan,
        Err(refusal) => return refuse(exit_of(&refusal), &refusal.to_string(), None),
    };
    if facts.record.is_none() {
        return print(&format!("is not enabled: {RESOLV_CONF} is as it was\n"));
    }
    warn_of_silence(&facts, &plan);
    match carry(&plan, dry_run) {
        Ok(true) => print("disabled\n"),
        Ok(false) => EXIT_FINE,
        Err(e) => refuse(EXIT_SYSTEM, &e.to_string(), Some(hint_of(&e))),
    }
}

/// Says where none of the servers that resolv.conf is to name answers: they may be of another network, or of long ago.
fn warn_of_silence(facts: &Facts, plan: &Plan) {
    let named = plan.steps.iter().find_map(|step| match step {
        Step::Put { path, place, .. } if path == Path::new(RESOLV_CONF) => {
            place.text().or_else(|| facts.original_text.clone())
        }
        _ => None,
    });
    let servers: Vec<IpAddr> = named.iter().flat_map(|named| text::servers(named)).take(SERVERS_MAX).collect();
    if !servers.is_empty() && !servers.iter().any(|server| is_there(SocketAddr::new(*server, 53))) {
        let listed: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
        talk(&format!(
            "warning: none of the servers that {RESOLV_CONF} names then answers now: {}",
            listed.join(", ")
        ));
    }
}

/// Servers of a resolv.conf that the C library asks (resolv.conf(5), MAXNS).
const SERVERS_MAX: usize = 3;

/// Carries a plan out, or prints it. Was it carried out?
fn carry(plan: &Plan, dry_run: bool) -> io::Result<bool> {
    plan.remarks.iter().for_each(|remark| talk(&format!("warning: {remark}")));
    if dry_run {
        let mut out = String::new();
        for step in &plan.steps {
            out += &format!("{}\n", step.in_words());
            for line in step.text().filter(|_| !matches!(step, Step::Keep(_))).iter().flat_map(|text| text.lines()) {
                out += &format!("    {line}\n");
            }
        }
        print(&out);
        return Ok(false);
    }
    may_change(dry_run)?;
    carry_out(Path::new(ROOT), plan)?.iter().for_each(|remark| talk(&format!("warning: {remark}")));
    Ok(true)
}

fn may_change(dry_run: bool) -> io::Result<()> {
    if dry_run || geteuid().is_root() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "only root may change resolv.conf"))
}

/// After a step that failed in the first enabling: what was done before it is undone, whatever that was.
fn take_back() {
    let undone = look(Path::new(ROOT)).and_then(|facts| match plan::disable(&facts, &|_| false, true) {
        Ok(plan) => carry_out(Path::new(ROOT), &plan).map(drop),
        Err(refusal) => Err(io::Error::other(refusal.to_string())),
    });
    talk(&match undone {
        Ok(()) => "evenkeel: what was done so far was taken back".to_owned(),
        Err(e) => format!("evenkeel: what was done so far could not be taken back: {e}"),
    });
}

fn refuse(exit: u8, what: &str, hint: Option<&str>) -> u8 {
    talk(&format!("evenkeel: {what}"));
    if let Some(hint) = hint {
        talk(&format!("  hint: {hint}"));
    }
    exit
}

fn exit_of(refusal: &plan::Refusal) -> u8 {
    match refusal {
        plan::Refusal::Immutable => EXIT_SYSTEM,
        _ => EXIT_FAULT,
    }
}

/// Of the tree that cannot be looked at: the record is for root's eyes.
fn look_hint(e: &io::Error) -> Option<&'static str> {
    (e.kind() == io::ErrorKind::PermissionDenied).then_some("run it as root")
}

fn hint_of(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::PermissionDenied => "run it as root; with --dry-run it only says what it would do",
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is mounted read-only: make the change where it is built"
        }
        _ => "`evenkeel stub disable` puts back what was there",
    }
}

//------------ What the running process says -------------------------------------------------------------------------

fn listening(status: &Value) -> Vec<SocketAddr> {
    let all = status["listen"].as_array().into_iter().flatten();
    all.filter(|at| at["waiting"].is_null()).filter_map(|at| at["address"].as_str()?.parse().ok()).collect()
}

/// A listener at port 53 that is on loopback or on all addresses, of IPv4 where there is one, which every stub resolver
/// speaks; else the first at port 53.
fn address(listening: &[SocketAddr]) -> Option<SocketAddr> {
    let at_53 = || listening.iter().filter(|at| at.port() == 53).map(|at| reachable(*at));
    let on_loopback = || at_53().filter(|at| at.ip().is_loopback());
    on_loopback().find(SocketAddr::is_ipv4).or_else(|| on_loopback().next()).or_else(|| at_53().next())
}

/// The name that evenkeel itself answers, which says that it is evenkeel and serves, and what the default group's
/// upstreams are probed with, which says that they answer.
fn questions(status: &Value) -> Vec<(Name, u16)> {
    let mut questions: Vec<(Name, u16)> =
        HEALTH_NAME.parse().ok().map(|name| (name, rtype::TXT)).into_iter().collect();
    let probe = list_of(status, "groups.default.health.probes").into_iter().find_map(|probe| {
        let (name, qtype) = probe.split_once(' ')?;
        Some((name.parse().ok()?, record_type(qtype.trim())?))
    });
    questions.push(probe.unwrap_or((Name::root(), rtype::NS)));
    questions
}

/// What is believed of the default group, in a word.
fn default_belief(status: &Value) -> &str {
    let mut groups = status["groups"].as_array().into_iter().flatten();
    groups.find(|group| group["name"] == "default").and_then(|group| group["belief"].as_str()).unwrap_or("")
}

/// A key in effect whose value is a list of strings.
fn list_of(status: &Value, key: &str) -> Vec<String> {
    let keys = status["config"]["keys"].as_array().into_iter().flatten();
    let value = keys.filter(|said| said["key"] == key).find_map(|said| said["value"].as_str());
    let parsed = value.and_then(|value| format!("x = {value}").parse::<toml::Table>().ok());
    let list = parsed.as_ref().and_then(|table| table["x"].as_array()).into_iter().flatten();
    list.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Where a group asks `"system"`: are servers named in its files when resolv.conf names evenkeel alone?
fn upstreams_stay(status: &Value, us: Us<'_>, facts: &Facts, plan: &Plan, server: IpAddr) -> Result<(), String> {
    let keys = status["config"]["keys"].as_array().into_iter().flatten().filter_map(|said| said["key"].as_str());
    let tiers = keys.filter(|key| {
        key.starts_with("groups.") && [".primary", ".secondary", ".tertiary"].iter().any(|tier| key.ends_with(tier))
    });
    if !tiers.into_iter().any(|key| list_of(status, key).iter().any(|upstream| upstream == "system")) {
        return Ok(());
    }
    let old = facts.text.clone().unwrap_or_default();
    let copy = plan.steps.iter().rev().find_map(|step| match step {
        Step::Put { path, place, .. } if path == Path::new(KEPT_COPY) => Some(place),
        _ => None,
    });
    let files: Vec<(PathBuf, String)> = list_of(status, "system.files")
        .into_iter()
        .filter_map(|path| {
            let text = match path.as_str() {
                RESOLV_CONF => text::resolv_conf(server, &old),
                KEPT_COPY if copy.is_some() => match copy? {
                    Place::Link(target) => fs::read_to_string(target).ok()?,
                    place => place.text()?,
                },
                path => fs::read_to_string(path).ok()?,
            };
            Some((path.into(), text))
        })
        .collect();
    let choice = system::choose(&files, us, "", &system::interface_index);
    if !choice.servers.is_empty() {
        return Ok(());
    }
    let looked_at: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    Err(format!(
        "\"system\" upstreams would be left without a server: of {} none names one besides evenkeel",
        if looked_at.is_empty() { "system.files".to_owned() } else { looked_at.join(", ") }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_on_loopback_where_one_is() {
        for (listening, want) in [
            (&["127.0.0.1:1053", "[::1]:53"][..], Some("[::1]:53")),
            (&["192.0.2.7:53", "127.0.0.1:53"], Some("127.0.0.1:53")),
            (&["[::1]:53", "127.0.0.1:53"], Some("127.0.0.1:53")),
            (&["192.0.2.7:53"], Some("192.0.2.7:53")),
            (&["0.0.0.0:53"], Some("127.0.0.1:53")),
            (&["[::]:53"], Some("[::1]:53")),
            (&["127.0.0.1:1053"], None),
            (&[], None),
        ] {
            let listening: Vec<SocketAddr> = listening.iter().map(|at| at.parse().unwrap()).collect();
            assert_eq!(address(&listening), want.map(|at| at.parse().unwrap()), "{listening:?}");
        }
    }

    #[test]
    fn the_default_groups_probe_is_asked() {
        let status = serde_json::json!({ "config": { "keys": [
            { "key": "groups.default.health.probes", "value": "[\"db.example.org AAAA\"]" },
        ] } });
        let asked = |status: &Value| questions(status)[1].0.to_string();
        assert_eq!(asked(&status), "db.example.org.");
        assert_eq!(asked(&Value::Null), ".");
    }
}
