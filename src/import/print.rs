//! A [`Draft`] as TOML: only what the source says, in the order of the default file; what is left stands at the end.
//!
//! Pure. The groups are named here: the one of the root is `default`, or the first where none has the root, so that
//! names outside of all zones are refused as they were; others have the name of their first zone.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use super::draft::{Draft, Group, Local, Server, Stale, Ttl};
use super::{Format, Left};
use crate::config::human::{show_size, show_span};
use crate::wire::Name;

/// The text, and what was left, by lines.
pub(super) fn print(mut draft: Draft, format: Format, file: &str) -> (String, Vec<Left>) {
    leave_own_servers(&mut draft);
    if draft.listen.is_empty() {
        let why = "evenkeel's default is 127.0.0.1:1053 and [::1]:1053: write listen.dns";
        draft.left(1, "no address to listen on", why);
    }
    draft.left.sort_by_key(|left| left.line);
    let mut out = String::new();
    let count = draft.left.len();
    let _ =
        writeln!(out, "# From {file}, by `evenkeel import {}`. Read it, then `evenkeel check` it.", format.word());
    out += "# What it does not say has evenkeel's default (`evenkeel default-config`): among others, answers are\n\
            # served stale for a day where no upstream answers.\n";
    match count {
        0 => {}
        1 => out += "# One line has no counterpart: it stands at the end.\n",
        _ => {
            let _ = writeln!(out, "# {count} lines have no counterpart: they stand at the end.");
        }
    }
    settings(&mut out, &draft);
    for (group, name) in draft.groups.iter().zip(names(&draft.groups)) {
        print_group(&mut out, group, &name);
    }
    for local in &draft.locals {
        print_local(&mut out, local);
    }
    section(&mut out, "local_files", |s| {
        s.list("hosts", &draft.hosts, true);
        s.key("private_reverse", draft.private_reverse.map(quoted));
    });
    section(&mut out, "log", |s| s.key("level", draft.log_level.map(quoted)));
    if count > 0 {
        out += "\n# No counterpart:\n";
        for left in &draft.left {
            let _ = writeln!(out, "# line {left}");
        }
    }
    (out, draft.left)
}

fn settings(out: &mut String, draft: &Draft) {
    section(out, "listen", |s| {
        let listen: Vec<_> = draft.listen.iter().map(SocketAddr::to_string).collect();
        s.list("dns", &listen, false);
        s.key("workers", draft.workers.map(|n| n.to_string()));
        s.span("drain", draft.drain);
        s.key("identity", draft.identity.as_deref().map(quoted));
    });
    section(out, "admin", |s| s.key("listen", draft.admin.map(|a| quoted(&a.to_string()))));
    section(out, "access", |s| {
        let beyond = draft.listen.iter().any(|a| !a.ip().to_canonical().is_loopback());
        if draft.allow.is_empty() && beyond {
            s.key("allow", Some("[\"loopback\", \"local\"]".to_owned()));
        }
        s.list("allow", &draft.allow, false);
    });
    section(out, "limits", |s| s.key("queries_per_second", draft.queries_per_second.map(|n| n.to_string())));
    section(out, "system", |s| s.list("files", &draft.system_files, false));
    section(out, "cache", |s| {
        s.key("max_bytes", draft.max_bytes.map(|n| quoted(&show_size(n))));
        s.flag("rotate", draft.rotate);
        s.flag("refresh_ahead", draft.refresh_ahead);
        s.ttl(&draft.ttl);
    });
    section(out, "stale", |s| s.stale(&draft.stale));
}

/// A server where evenkeel itself will listen is refused by the configuration: it would ask itself.
fn leave_own_servers(draft: &mut Draft) {
    let listen = draft.listen.clone();
    let own = |address: SocketAddr| {
        listen.iter().any(|here| {
            let (ip, to) = (here.ip().to_canonical(), address.ip().to_canonical());
            here.port() == address.port() && (ip == to || ip.is_unspecified() && to.is_loopback())
        })
    };
    let mut left = Vec::new();
    for group in &mut draft.groups {
        group.servers.retain(|server| match server {
            Server::At { address, .. } if own(*address) => {
                left.push(*address);
                false
            }
            _ => true,
        });
    }
    for address in left {
        draft.left(1, &address.to_string(), "a server where evenkeel itself will listen: it would ask itself");
    }
}

fn names(groups: &[Group]) -> Vec<String> {
    let rooted = groups.iter().position(|g| g.zones.contains(&Name::root())).unwrap_or(0);
    let mut names: Vec<String> = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let zone = group.zones.first().map(Name::to_string).unwrap_or_default();
        let zone = zone.trim_end_matches('.');
        let word: String = zone
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
            .take(GROUP_NAME_MAX)
            .collect();
        let mut name = if at == rooted { "default".to_owned() } else { word.clone() };
        let mut n = 2;
        while name.is_empty() || names.contains(&name) || name == "default" && at != rooted {
            name = format!("{word}-{n}");
            n += 1;
        }
        names.push(name);
    }
    names
}

const GROUP_NAME_MAX: usize = 56;

fn print_group(out: &mut String, group: &Group, name: &str) {
    section(out, &format!("groups.{name}"), |s| {
        s.list("zones", &group.zones.iter().map(plain).collect::<Vec<_>>(), true);
        let servers = group.servers.iter().map(|server| match server {
            Server::System => "system".to_owned(),
            Server::At { address, tcp } => {
                let scheme = if *tcp { "tcp://" } else { "" };
                match address.port() {
                    53 if address.is_ipv4() || scheme.is_empty() => format!("{scheme}{}", address.ip()),
                    _ => format!("{scheme}{address}"),
                }
            }
        });
        s.list("primary", &servers.collect::<Vec<_>>(), true);
        for later in &group.later {
            s.comment(later);
        }
        s.key("trust_ad", group.trust_ad.then(|| "true".to_owned()));
        s.key("order", group.listed.then(|| quoted("listed")));
        s.key("source", group.source.map(|ip| quoted(&ip.to_string())));
        s.key("in_flight_max", group.in_flight_max.map(|n| n.to_string()));
    });
    section(out, &format!("groups.{name}.health"), |s| {
        s.span("every", group.every);
        s.key("fall", group.fall.map(|n| n.to_string()));
    });
    section(out, &format!("groups.{name}.cache"), |s| s.ttl(&group.ttl));
    section(out, &format!("groups.{name}.stale"), |s| s.stale(&group.stale));
}

/// A name without its last dot, but for the root.
pub(super) fn plain(name: &Name) -> String {
    match name.to_string() {
        root if root == "." => root,
        name => name.strip_suffix('.').unwrap_or(&name).to_owned(),
    }
}

/// The pattern of all names below a name.
pub(super) fn below(name: &Name) -> String {
    if *name == Name::root() { "*".to_owned() } else { format!("*.{}", plain(name)) }
}

fn print_local(out: &mut String, local: &Local) {
    out.push_str("\n[[local]]\n");
    let mut s = Section(String::new());
    match local {
        Local::Record { name, rtype, values, ttl, .. } => {
            s.key("name", Some(quoted(name)));
            s.key("type", Some(quoted(rtype)));
            match values.as_slice() {
                [one] => s.key("value", Some(quoted(one))),
                more => s.list("value", more, true),
            }
            s.span("ttl", *ttl);
        }
        Local::Zone { zone, action, .. } => {
            s.key("zone", Some(quoted(&plain(zone))));
            s.key("action", Some(quoted(action)));
        }
    }
    out.push_str(&s.0);
}

/// The keys of a section, which is left out where it has none.
struct Section(String);

fn section(out: &mut String, header: &str, fill: impl FnOnce(&mut Section)) {
    let mut section = Section(String::new());
    fill(&mut section);
    if !section.0.is_empty() {
        let _ = write!(out, "\n[{header}]\n{}", section.0);
    }
}

impl Section {
    fn key(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            let _ = writeln!(self.0, "{name} = {value}");
        }
    }

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.0, "# {text}");
    }

    fn span(&mut self, name: &str, span: Option<Duration>) {
        self.key(name, span.map(|span| quoted(&show_span(span))));
    }

    fn flag(&mut self, name: &str, flag: Option<bool>) {
        self.key(name, flag.map(|flag| flag.to_string()));
    }

    /// An empty list is written only where it means something.
    fn list(&mut self, name: &str, items: &[String], even_empty: bool) {
        if even_empty || !items.is_empty() {
            let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
            self.key(name, Some(format!("[{}]", items.join(", "))));
        }
    }

    fn ttl(&mut self, ttl: &Ttl) {
        // What the least TTL is, the greatest is at least.
        let max = match (ttl.min, ttl.max) {
            (Some(min), Some(max)) => Some(max.max(min)),
            (_, max) => max,
        };
        self.span("min_ttl", ttl.min);
        self.span("max_ttl", max);
        self.span("max_negative_ttl", ttl.max_negative);
    }

    fn stale(&mut self, stale: &Stale) {
        self.span("max_age", stale.max_age);
        self.span("reply_ttl", stale.reply_ttl);
        self.span("patience", stale.patience);
    }
}

/// A TOML string; what evenkeel would take from the environment stays as it is.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
