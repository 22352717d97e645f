//! Every key of the configuration, once: name, what operators read about it, default, bounds, how it is read.
//!
//! Pure. The order here is the order of the default file. Bounds are those of `limits.rs`.
//!
//! Two keys stand where RULES.md does not put them, since TOML cannot have both a table `[local]` and the array of
//! tables `[[local]]`: `private_reverse` is in `[local_files]`, beside the other source of local answers that is no
//! list of records; and `identity` is in `[listen]`, as RULES.md says, though the judge that uses it is `serve::local`.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

use ipnet::IpNet;

use super::document::Value;
use super::group::{GROUP, HEALTH, HEDGE};
use super::key::{Key, Kind, Reader};
use super::known_good::{CANARY, GUARD};
use super::local::{LOCAL_RECORD, LOCAL_ZONE};
use super::{Config, StateDirectory};
use crate::cache::freshness::{Patience, StaleSettings, TtlSettings};
use crate::limits::{self, Bound};
use crate::observe::query_log::To;
use crate::observe::{LogFormat, LogLevel};
use crate::serve::admit::Allowed;

/// A configuration while it is read.
pub(super) struct Draft {
    pub config: Config,
    /// Of `[cache]`: what groups have that say nothing else.
    pub ttl: TtlSettings,
    /// Of `[stale]`, likewise.
    pub stale: StaleSettings,
    pub seen: Seen,
}

/// What was set, and where, as far as the whole is checked by it.
#[derive(Default)]
pub(super) struct Seen {
    pub dns: Option<Range<usize>>,
    pub access_allow: bool,
    pub admin_listen: Option<Range<usize>>,
}

/// A section of the file, as the default file and the hints need it.
pub(super) struct Section {
    /// `[listen]`, or `[[local]]` for one that may stand several times.
    pub header: &'static str,
    pub doc: &'static str,
    /// An example: commented out in the default file.
    pub example: bool,
    pub keys: Vec<Entry>,
}

/// A key, whatever it sets.
pub(super) struct Entry {
    pub name: &'static str,
    pub default: String,
    pub doc: &'static str,
}

fn entries<T>(keys: &[Key<T>]) -> impl Iterator<Item = Entry> + '_ {
    keys.iter().map(|key| Entry { name: key.name, default: key.default(), doc: key.doc })
}

/// Every section, in the order of the default file.
pub(super) fn sections() -> Vec<Section> {
    let plain = |header, keys| Section { header, doc: "", example: false, keys };
    vec![
        plain("[listen]", entries(LISTEN).collect()),
        plain("[admin]", entries(ADMIN).collect()),
        plain("[state]", entries(STATE).collect()),
        plain("[process]", entries(PROCESS).collect()),
        plain("[access]", entries(ACCESS).collect()),
        plain("[limits]", entries(LIMITS).collect()),
        plain("[system]", entries(SYSTEM).collect()),
        plain("[cache]", entries(CACHE).chain(entries(TTL)).collect()),
        plain("[stale]", entries(STALE).collect()),
        Section {
            doc: "each zone belongs to one group, the longest match wins; every group but this one names its zones\n\
                  [groups.NAME.stale] has the keys of [stale], [groups.NAME.cache] those of [cache] that bound TTLs",
            ..plain("[groups.default]", entries(GROUP).collect())
        },
        plain("[groups.default.health]", entries(HEALTH).collect()),
        plain("[groups.default.hedge]", entries(HEDGE).collect()),
        Section {
            doc: "last known good: opt-in, for names that must not vanish",
            example: true,
            ..plain("[[guard]]", entries(GUARD).collect())
        },
        Section {
            doc: "asked as a client would ask, for the metrics alone",
            example: true,
            ..plain("[[canary]]", entries(CANARY).collect())
        },
        Section {
            doc: "local answers: a record, with its PTR where it is an address",
            example: true,
            ..plain("[[local]]", entries(LOCAL_RECORD).collect())
        },
        Section {
            doc: "or a zone: this name and all below it",
            example: true,
            ..plain("[[local]]", entries(LOCAL_ZONE).collect())
        },
        plain("[local_files]", entries(LOCAL_FILES).collect()),
        plain("[log]", entries(LOG).collect()),
        Section {
            doc: "what clients asked and got, a line of JSON each: off unless `to` leads somewhere",
            ..plain("[query_log]", entries(QUERY_LOG).collect())
        },
    ]
}

/// The section that has a key of this name.
pub(super) fn section_of(key: &str) -> Option<String> {
    let section = sections().into_iter().find(|section| section.keys.iter().any(|entry| entry.name == key))?;
    Some(section.header.trim_matches(['[', ']']).replace("groups.default", "groups.NAME"))
}

//------------ Sections ----------------------------------------------------------------------------------------------

pub(super) const LISTEN: &[Key<Draft>] = &[
    Key::new(
        "dns",
        "UDP and TCP on each; sockets handed over by systemd or a predecessor are used instead",
        Kind::Own("[\"127.0.0.1:1053\", \"[::1]:1053\"]", |d, r, v| {
            d.seen.dns = Some(v.span());
            let addresses = socket_addresses(r, v);
            match addresses.as_slice() {
                [] => r.wrong(v.span(), "no address to listen on", None),
                _ => d.config.listen.dns = addresses,
            }
        }),
    ),
    Key::new(
        "workers",
        "UDP workers; 0 is the parallelism that this process may use, at most 4",
        Kind::Count(limits::WORKERS, |d, v| d.config.listen.workers = v as usize),
    ),
    Key::new(
        "drain",
        "answers go on this long after SIGTERM",
        Kind::Span(limits::DRAIN, |d, v| d.config.listen.drain = v),
    ),
    Key::new(
        "identity",
        "what CH TXT id.server, version.bind and kin are told; \"\" refuses them",
        Kind::Own("\"\"", |d, r, v| {
            let Some(text) = r.string(v) else { return };
            if text.len() > 255 {
                return r.wrong(v.span(), "more than 255 bytes", None);
            }
            d.config.local.identity = (!text.is_empty()).then_some(text);
        }),
    ),
];

pub(super) const ADMIN: &[Key<Draft>] = &[
    Key::new(
        "listen",
        "/metrics /healthz /readyz /status (JSON) / (page); \"\" is off; never fatal if taken",
        Kind::Own("\"127.0.0.1:9553\"", |d, r, v| {
            let Some(text) = r.string(v) else { return };
            d.seen.admin_listen = Some(v.span());
            if text.is_empty() {
                d.config.admin.listen = None;
            } else if let Some(address) = socket_address(r, &text, v.span()) {
                d.config.admin.listen = Some(address);
            }
        }),
    ),
    Key::new(
        "allow",
        "networks, needed for another address than loopback",
        Kind::Own("[]", |d, r, v| {
            let texts = r.strings(v);
            d.config.admin.allow = texts.into_iter().filter_map(|(text, span)| network(r, &text, span)).collect();
        }),
    ),
    Key::new(
        "socket",
        "control socket: /run/evenkeel/control.sock, else $XDG_RUNTIME_DIR; 0660, peer checked",
        Kind::Own("\"auto\"", |d, r, v| {
            let Some(text) = r.string(v) else { return };
            d.config.admin.socket = if text == "auto" { None } else { path(r, text, v.span()) };
        }),
    ),
];

pub(super) const STATE: &[Key<Draft>] = &[Key::new(
    "directory",
    "$STATE_DIRECTORY, else $XDG_STATE_HOME/evenkeel; \"\" keeps nothing",
    Kind::Own("\"auto\"", |d, r, v| {
        let Some(text) = r.string(v) else { return };
        match text.as_str() {
            "auto" => d.config.state = StateDirectory::Auto,
            "" => d.config.state = StateDirectory::Off,
            _ => {
                if let Some(path) = path(r, text, v.span()) {
                    d.config.state = StateDirectory::At(path);
                }
            }
        }
    }),
)];

pub(super) const PROCESS: &[Key<Draft>] = &[Key::new(
    "user",
    "started as root: who to become once ports are bound; \"\" stays as it is\n\
     under systemd the unit's User= does this",
    Kind::Own("\"\"", |d, r, v| {
        if let Some(text) = r.string(v) {
            d.config.user = text;
        }
    }),
)];

pub(super) const ACCESS: &[Key<Draft>] = &[
    Key::new(
        "allow",
        "networks, or \"loopback\", \"local\" (this node's own links and pods), \"private\"\n\
         others get REFUSED; listening beyond loopback without setting this is an error",
        Kind::Own("[\"loopback\"]", |d, r, v| {
            d.seen.access_allow = true;
            let texts = r.strings(v);
            d.config.admit.allow = texts
                .into_iter()
                .filter_map(|(text, span)| match text.as_str() {
                    "loopback" => Some(Allowed::Loopback),
                    "local" => Some(Allowed::Local),
                    "private" => Some(Allowed::Private),
                    _ => network(r, &text, span).map(Allowed::Net),
                })
                .collect();
        }),
    ),
    Key::new(
        "client_prefix",
        "bits of an IPv4 and of an IPv6 address that count as one client",
        Kind::Own("[32, 56]", |d, r, v| {
            let items = r.items(v);
            let [v4, v6] = items.as_slice() else {
                return r.wrong(v.span(), "two numbers are wanted here", Some("write [32, 56]"));
            };
            let v4 = r.count(v4, &Bound { default: 32, min: 1, max: 32 });
            let v6 = r.count(v6, &Bound { default: 56, min: 1, max: 128 });
            if let (Some(v4), Some(v6)) = (v4, v6) {
                d.config.admit.client_prefix = (v4 as u8, v6 as u8);
                d.config.listen.client_prefix = (v4 as u8, v6 as u8);
            }
        }),
    ),
];

pub(super) const LIMITS: &[Key<Draft>] = &[
    Key::new(
        "queries_per_second",
        "per client; 0 is none",
        Kind::Count(limits::QUERIES_PER_SECOND, |d, v| d.config.admit.queries_per_second = v as u32),
    ),
    Key::new(
        "in_flight_per_client",
        "questions of one client that wait for upstreams at once",
        Kind::Count(limits::IN_FLIGHT_PER_CLIENT, |d, v| d.config.admit.in_flight_per_client = v as u32),
    ),
    Key::new(
        "tcp_connections",
        "in all",
        Kind::Count(limits::TCP_CONNECTIONS, |d, v| d.config.listen.tcp_connections = v as usize),
    ),
    Key::new(
        "tcp_connections_per_client",
        "",
        Kind::Count(limits::TCP_CONNECTIONS_PER_CLIENT, |d, v| {
            d.config.listen.tcp_connections_per_client = v as usize
        }),
    ),
];

/// Where the programs that manage resolv.conf write servers; then the file itself; then where those are while it names
/// evenkeel (`crate::stub`).
const SYSTEM_FILES: &str = r#"[
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/resolvconf/resolv.conf",
    "/etc/resolv.conf",
    "/run/evenkeel-stub/resolv.conf",
    "/var/lib/evenkeel-stub/resolv.conf",
]"#;

pub(super) const SYSTEM: &[Key<Draft>] = &[Key::new(
    "files",
    "\"system\" upstreams: the first of these that names a server other than us",
    Kind::Own(SYSTEM_FILES, |d, r, v| d.config.system_files = paths(r, v)),
)];

pub(super) const CACHE: &[Key<Draft>] = &[
    Key::new(
        "max_bytes",
        "of all entries, overhead included",
        Kind::Size(limits::CACHE_BYTES, |d, v| d.config.cache.max_bytes = v),
    ),
    Key::new("rotate", "order of addresses turns on every hit", Kind::Flag(true, |d, v| d.config.cache.rotate = v)),
    Key::new(
        "refresh_ahead",
        "what is asked often is asked again before it runs out",
        Kind::Flag(true, |d, v| d.config.cache.refresh_ahead = v),
    ),
    Key::new(
        "snapshot",
        "in the state directory, where there is one",
        Kind::Flag(true, |d, v| d.config.cache.snapshot = v),
    ),
    Key::new(
        "snapshot_every",
        "and at the end, and at a freeze",
        Kind::Span(limits::SNAPSHOT_EVERY, |d, v| d.config.cache.snapshot_every = v),
    ),
];

/// The keys of `[cache]` that a group may have for itself.
pub(super) const TTL: &[Key<TtlSettings>] = &[
    Key::new("min_ttl", "a lower TTL is raised to this", Kind::Seconds(limits::TTL_MIN, |t, v| t.min = v)),
    Key::new("max_ttl", "a higher TTL is lowered to this", Kind::Seconds(limits::TTL_MAX, |t, v| t.max = v)),
    Key::new(
        "max_negative_ttl",
        "the same for answers that a name, or its type, does not exist",
        Kind::Seconds(limits::TTL_NEGATIVE_MAX, |t, v| t.negative_max = v),
    ),
];

pub(super) const STALE: &[Key<StaleSettings>] = &[
    Key::new(
        "max_age",
        "how long past its TTL an answer may serve; \"0s\" is off",
        Kind::Span(limits::STALE_AGE_MAX, |s, v| s.max_age = v),
    ),
    Key::new("reply_ttl", "TTL of a stale answer", Kind::Seconds(limits::STALE_REPLY_TTL, |s, v| s.reply_ttl = v)),
    Key::new(
        "patience",
        "how long a client waits for a fresh answer while the group is believed healthy:\n\
         twice the group's own p95 for names not in cache, within 150ms and 1s; or a duration;\n\
         1.8 s for data that is long past its TTL",
        Kind::Own("\"auto\"", |s, r, v| {
            if let Some(v) = r.span_or_auto(v, &limits::PATIENCE) {
                s.patience = v.map_or(Patience::Auto, Patience::Fixed);
            }
        }),
    ),
];

pub(super) const LOCAL_FILES: &[Key<Draft>] = &[
    Key::new(
        "hosts",
        "only where all listeners are loopback; loopback addresses in it go to loopback clients only",
        Kind::Own("[\"/etc/hosts\"]", |d, r, v| d.config.local.hosts = paths(r, v)),
    ),
    Key::new(
        "private_reverse",
        "reverse names of private addresses: \"forward\" them like any other, or answer \"nxdomain\" here",
        Kind::Own("\"forward\"", |d, r, v| {
            if let Some(nxdomain) = r.word(v, &[("forward", false), ("nxdomain", true)]) {
                d.config.local.private_reverse_nxdomain = nxdomain;
            }
        }),
    ),
];

pub(super) const QUERY_LOG: &[Key<Draft>] = &[
    Key::new(
        "to",
        "\"file:/PATH\" (0640, opened again when it is moved), \"journal\", or \"dnstap:/PATH\",\n\
         a collector's socket; names and client addresses are in it",
        Kind::Own("\"\"", |d, r, v| {
            let Some(text) = r.string(v) else { return };
            d.config.query_log.to = match text.split_once(':') {
                None if text.is_empty() => To::Nowhere,
                None if text == "journal" => To::Journal,
                Some(("file", file)) => match path(r, file.to_owned(), v.span()) {
                    Some(path) => To::File(path),
                    None => return,
                },
                Some(("dnstap", socket)) => match path(r, socket.to_owned(), v.span()) {
                    Some(path) => To::Dnstap(path),
                    None => return,
                },
                _ => {
                    let hint = "write \"file:/PATH\", \"journal\", \"dnstap:/PATH\", or \"\" for none";
                    return r.wrong(v.span(), format!("{text:?} is no place for a query log"), Some(hint));
                }
            };
        }),
    ),
    Key::new(
        "sample",
        "share of the questions that are logged",
        Kind::Share(limits::QUERY_LOG_SAMPLE, |d, v| d.config.query_log.sample = v),
    ),
    Key::new(
        "client_prefix",
        "bits of an IPv4 and of an IPv6 client address that are kept; [0, 0] keeps none",
        Kind::Own("[32, 128]", |d, r, v| {
            let items = r.items(v);
            let [v4, v6] = items.as_slice() else {
                return r.wrong(v.span(), "two numbers are wanted here", Some("write [24, 56]"));
            };
            let v4 = r.count(v4, &Bound { default: 32, min: 0, max: 32 });
            let v6 = r.count(v6, &Bound { default: 128, min: 0, max: 128 });
            if let (Some(v4), Some(v6)) = (v4, v6) {
                d.config.query_log.client_prefix = [v4 as u8, v6 as u8];
            }
        }),
    ),
];

pub(super) const LOG: &[Key<Draft>] = &[
    Key::new(
        "level",
        "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"; names appear from \"debug\" on",
        Kind::Own("\"info\"", |d, r, v| {
            let levels = [
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("info", LogLevel::Info),
                ("debug", LogLevel::Debug),
                ("trace", LogLevel::Trace),
            ];
            if let Some(level) = r.word(v, &levels) {
                d.config.log.level = level;
            }
        }),
    ),
    Key::new(
        "format",
        "text on a terminal, text with <priority> under journald, JSON lines otherwise;\n\
         or \"text\", \"journald\", \"json\"",
        Kind::Own("\"auto\"", |d, r, v| {
            let formats = [
                ("auto", LogFormat::Auto),
                ("text", LogFormat::Text),
                ("journald", LogFormat::Journald),
                ("json", LogFormat::Json),
            ];
            if let Some(format) = r.word(v, &formats) {
                d.config.log.format = format;
            }
        }),
    ),
];

//------------ Values ------------------------------------------------------------------------------------------------

fn socket_addresses(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for (text, span) in reader.strings(value) {
        let Some(address) = socket_address(reader, &text, span.clone()) else { continue };
        if address.port() != 0 && addresses.contains(&address) {
            reader.wrong(span, format!("{address} is given twice"), None);
        } else if addresses.len() == LISTEN_ADDRESSES_MAX {
            reader.wrong(span, "more than 64 addresses", None);
            break;
        } else {
            addresses.push(address);
        }
    }
    addresses
}

const LISTEN_ADDRESSES_MAX: usize = 64;

fn socket_address(reader: &mut Reader<'_>, text: &str, span: Range<usize>) -> Option<SocketAddr> {
    let hint = "write address and port: \"127.0.0.1:53\" or \"[::1]:53\"";
    text.parse().map_err(|_| reader.wrong(span, format!("{text:?} is no address with a port"), Some(hint))).ok()
}

fn network(reader: &mut Reader<'_>, text: &str, span: Range<usize>) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let hint = "write \"192.0.2.0/24\", \"2001:db8::/32\" or one address";
    network.map(|net| net.trunc()).map_err(|_| reader.wrong(span, format!("{text:?} is no network"), Some(hint))).ok()
}

fn path(reader: &mut Reader<'_>, text: String, span: Range<usize>) -> Option<PathBuf> {
    let path = PathBuf::from(&text);
    if path.is_absolute() && !text.contains('\0') {
        return Some(path);
    }
    reader.wrong(span, format!("{text:?} is no absolute path"), Some("write it whole, from / on"));
    None
}

fn paths(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<PathBuf> {
    let texts = reader.strings(value);
    texts.into_iter().filter_map(|(text, span)| path(reader, text, span)).collect()
}
