//! From the file to checked, normalized settings.
//!
//! Pure; `cli::source` finds and reads the files. [`parse`] takes the text of a file, the environment and what
//! `--set` gave, and returns a [`Config`] that every judge can rely on, or every mistake in it at once:
//!
//! - Where the TOML itself is broken, all mistakes of syntax are reported and nothing else, since what was meant
//!   behind them is a guess.
//! - Unknown keys are mistakes, with the nearest known name.
//! - A value outside its bounds (`limits.rs`) is refused with both ends named; nothing is clamped.
//! - `${NAME}` in a string is taken from the environment, one that is not set is a mistake.
//! - Where a list is wanted, one value alone is a list of one.
//!
//! `keys.rs`, `group.rs`, `upstream.rs`, `known_good.rs` and `local.rs` define the keys, each once; reading, hints and
//! the commented default file ([`default_text`]) follow from the definitions. `keys.rs` says which keys stand
//! elsewhere than in RULES.md, and why.

pub(crate) mod document;
mod effective;
mod group;
pub mod human;
pub(crate) mod key;
mod keys;
mod known_good;
mod local;
pub(crate) mod mistake;
mod text;
mod upstream;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cache::CacheSettings;
use crate::cache::freshness::{Patience, StaleSettings, TtlSettings};
use crate::cache::guard::GuardSettings;
use crate::listen::ListenSettings;
use crate::observe::query_log::{QueryLogSettings, To};
use crate::observe::{AdminSettings, CanarySettings, LogFormat, LogLevel, LogSettings};
use crate::serve::admit::{AdmitSettings, Allowed};
use crate::serve::local::LocalSettings;
use crate::upstream::{GroupSettings, ServerSettings};

use self::document::Value;
use self::key::{Keys, Part, REPORTED_MAX, Reader, set_defaults};
use self::keys::{Draft, Seen};
use self::mistake::Places;

pub use self::effective::{Said, effective};
pub use self::local::record_type;
pub use self::mistake::{Mistake, Place, Warning};
pub use self::text::default_text;

/// Reads a configuration. `env` looks up a variable of the environment; `sets` are `key=value` pairs that stand in
/// the place of what `text` says.
///
/// At most 100 mistakes, and 100 warnings, are reported, in the order of the file.
pub fn parse(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    sets: &[(String, String)],
) -> Result<(Config, Vec<Warning>), Vec<Mistake>> {
    let (config, warnings, mistakes) = read(text, env, sets);
    if mistakes.is_empty() { Ok((config, warnings)) } else { Err(mistakes) }
}

/// A configuration as far as it can be read, even where it is refused: it still says where the last accepted one is,
/// and whose.
pub fn as_far_as_read(text: &str, env: &dyn Fn(&str) -> Option<String>, sets: &[(String, String)]) -> Config {
    read(text, env, sets).0
}

fn read(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    sets: &[(String, String)],
) -> (Config, Vec<Warning>, Vec<Mistake>) {
    let places = Places::new(text, sets);
    let (root, mut mistakes) = document::read(text, sets, &places);
    let mut reader = Reader::new(&places, env);
    let mut draft = Draft::default();
    for (name, value) in &root {
        let key = name.get_ref().as_ref();
        let known = reader.within(key, |reader| section(reader, key, value, &mut draft));
        if !known {
            reader.unknown(name.span(), key, SECTIONS.into_iter());
        }
    }
    finish(&mut reader, &mut draft, &root);
    if mistakes.is_empty() {
        mistakes = reader.mistakes;
    }
    mistakes.sort_by(|a, b| a.place.cmp(&b.place));
    mistakes.truncate(REPORTED_MAX);
    reader.warnings.sort_by(|a, b| a.place.cmp(&b.place));
    (draft.config, reader.warnings, mistakes)
}

/// The top level of the file.
const SECTIONS: [&str; 16] = [
    "listen",
    "admin",
    "state",
    "process",
    "access",
    "limits",
    "system",
    "cache",
    "stale",
    "groups",
    "guard",
    "canary",
    "local",
    "local_files",
    "log",
    "query_log",
];

/// Reads the section `name`; false where there is none of this name. Groups come later, since what they do not say
/// is taken from other sections.
fn section(reader: &mut Reader<'_>, name: &str, value: &Value<'_>, draft: &mut Draft) -> bool {
    let keys = match name {
        "listen" => keys::LISTEN,
        "admin" => keys::ADMIN,
        "state" => keys::STATE,
        "process" => keys::PROCESS,
        "access" => keys::ACCESS,
        "limits" => keys::LIMITS,
        "system" => keys::SYSTEM,
        "local_files" => keys::LOCAL_FILES,
        "log" => keys::LOG,
        "query_log" => keys::QUERY_LOG,
        "cache" => {
            let mut ttl = draft.ttl;
            let parts: &mut [&mut dyn Keys] = &mut [&mut Part(keys::CACHE, draft), &mut Part(keys::TTL, &mut ttl)];
            reader.table(value, parts, &[]);
            group::check_ttl(reader, value, ttl);
            draft.ttl = ttl;
            return true;
        }
        "stale" => {
            reader.table(value, &mut [&mut Part(keys::STALE, &mut draft.stale)], &[]);
            return true;
        }
        "guard" => {
            draft.config.guards = known_good::read_guards(reader, value);
            return true;
        }
        "canary" => {
            draft.config.canaries = known_good::read_canaries(reader, value);
            return true;
        }
        "local" => {
            local::read(reader, value, &mut draft.config.local);
            return true;
        }
        "groups" => return true,
        _ => return false,
    };
    reader.table(value, &mut [&mut Part(keys, draft)], &[]);
    true
}

fn finish(reader: &mut Reader<'_>, draft: &mut Draft, root: &toml::de::DeTable<'_>) {
    let (ttl, stale) = (draft.ttl, draft.stale);
    let listen = draft.config.listen.dns.clone();
    draft.config.groups = reader.within("groups", |reader| {
        let groups = root.get("groups").map_or_else(Vec::new, |value| group::read(reader, value, ttl, stale));
        group::finish(reader, groups, &listen, ttl, stale)
    });
    let beyond = listen.iter().find(|address| !address.ip().to_canonical().is_loopback());
    if let (Some(address), Some(span), false) = (beyond, draft.seen.dns.clone(), draft.seen.access_allow) {
        reader.wrong(
            span,
            format!("listen.dns: {address} is beyond loopback, and access.allow is not set"),
            Some("say who may ask: [access] allow = [\"loopback\", \"local\"]"),
        );
    }
    if let (Some(first), Some(canaries)) = (listen.first(), root.get("canary"))
        && !may_ask_itself(first.ip().to_canonical(), &draft.config.admit.allow)
    {
        let what =
            format!("canary: access.allow has no place for {first}, from which canaries ask: they are refused");
        reader.warn(canaries.span(), what);
    }
    if let (Some(address), Some(span)) = (draft.config.admin.listen, draft.seen.admin_listen.clone())
        && !address.ip().to_canonical().is_loopback()
        && draft.config.admin.allow.is_empty()
    {
        reader.wrong(
            span,
            format!("admin.listen: {address} is beyond loopback, and admin.allow is empty"),
            Some("say who may look: allow = [\"192.0.2.0/24\"]"),
        );
    }
}

/// May this node ask from the address that it listens on, as far as the file tells? Loopback always may.
fn may_ask_itself(address: IpAddr, allow: &[Allowed]) -> bool {
    let allows = |allowed: &Allowed| match allowed {
        Allowed::Loopback => false,
        Allowed::Local | Allowed::Private => true,
        Allowed::Net(net) => net.contains(&address),
    };
    address.is_loopback() || address.is_unspecified() || allow.iter().any(allows)
}

/// A checked configuration. Each judge owns its own settings; this only holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Sockets and workers.
    pub listen: ListenSettings,
    /// Admin listener and control socket.
    pub admin: AdminSettings,
    /// State directory.
    pub state: StateDirectory,
    /// Who to become once the ports are bound; empty for nobody else.
    pub user: String,
    /// Who may ask.
    pub admit: AdmitSettings,
    /// resolv.conf files of `"system"` upstreams, the first that names a server other than us.
    pub system_files: Vec<PathBuf>,
    /// The cache.
    pub cache: CacheSettings,
    /// Groups; one of them, `default`, has the root among its zones unless the file says otherwise.
    pub groups: Vec<GroupConfig>,
    /// Names that must not vanish.
    pub guards: Vec<GuardSettings>,
    /// Names that are asked as a client would.
    pub canaries: Vec<CanarySettings>,
    /// Local answers.
    pub local: LocalSettings,
    /// Logs.
    pub log: LogSettings,
    /// The query log.
    pub query_log: QueryLogSettings,
}

impl Default for Config {
    /// What an empty file means.
    fn default() -> Self {
        read("", &|_| None, &[]).0
    }
}

impl Config {
    /// Keys in which `new` differs and that only a restart changes: sockets, threads and what is sized once. All
    /// others take effect by a reload.
    pub fn restart_differences(&self, new: &Config) -> Vec<&'static str> {
        let (old_listen, new_listen) = (&self.listen, &new.listen);
        let differs = [
            ("listen.dns", old_listen.dns != new_listen.dns),
            ("listen.workers", old_listen.workers != new_listen.workers),
            ("limits.tcp_connections", old_listen.tcp_connections != new_listen.tcp_connections),
            (
                "limits.tcp_connections_per_client",
                old_listen.tcp_connections_per_client != new_listen.tcp_connections_per_client,
            ),
            ("access.client_prefix", old_listen.client_prefix != new_listen.client_prefix),
            ("admin.listen", self.admin.listen != new.admin.listen),
            ("admin.allow", self.admin.allow != new.admin.allow),
            ("admin.socket", self.admin.socket != new.admin.socket),
            ("process.user", self.user != new.user),
            ("state.directory", self.state != new.state),
            ("cache.max_bytes", self.cache.max_bytes != new.cache.max_bytes),
            ("log.format", self.log.format != new.log.format),
        ];
        differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

impl Default for Draft {
    /// Every key at its default; no group is there yet.
    fn default() -> Self {
        let config = Config {
            listen: ListenSettings {
                dns: Vec::new(),
                workers: 0,
                drain: Duration::ZERO,
                tcp_connections: 0,
                tcp_connections_per_client: 0,
                client_prefix: (0, 0),
            },
            admin: AdminSettings { listen: None, allow: Vec::new(), socket: None },
            state: StateDirectory::Auto,
            user: String::new(),
            admit: AdmitSettings {
                allow: Vec::new(),
                client_prefix: (0, 0),
                queries_per_second: 0,
                in_flight_per_client: 0,
            },
            system_files: Vec::new(),
            cache: CacheSettings {
                max_bytes: 0,
                rotate: false,
                refresh_ahead: false,
                snapshot: false,
                snapshot_every: Duration::ZERO,
            },
            groups: Vec::new(),
            guards: Vec::new(),
            canaries: Vec::new(),
            local: LocalSettings {
                identity: None,
                private_reverse_nxdomain: false,
                records: Vec::new(),
                zones: Vec::new(),
                hosts: Vec::new(),
            },
            log: LogSettings { level: LogLevel::Info, format: LogFormat::Auto },
            query_log: QueryLogSettings { to: To::Nowhere, sample: 0.0, client_prefix: [0, 0] },
        };
        let mut draft = Draft {
            config,
            ttl: TtlSettings { min: 0, max: 0, negative_max: 0 },
            stale: StaleSettings { max_age: Duration::ZERO, reply_ttl: 0, patience: Patience::Auto },
            seen: Seen::default(),
        };
        for keys in [
            keys::LISTEN,
            keys::ADMIN,
            keys::STATE,
            keys::PROCESS,
            keys::ACCESS,
            keys::LIMITS,
            keys::SYSTEM,
            keys::CACHE,
            keys::LOCAL_FILES,
            keys::LOG,
            keys::QUERY_LOG,
        ] {
            set_defaults(keys, &mut draft);
        }
        set_defaults(keys::TTL, &mut draft.ttl);
        set_defaults(keys::STALE, &mut draft.stale);
        // What the defaults set was not set by an operator.
        draft.seen = Seen::default();
        draft
    }
}

/// Where things are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateDirectory {
    /// $STATE_DIRECTORY, else $XDG_STATE_HOME/evenkeel, else ~/.local/state/evenkeel.
    Auto,
    /// Here.
    At(PathBuf),
    /// Nothing is kept.
    Off,
}

/// A group as configured: its tiers may still say `"system"`.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// The settings; `settings.tiers` is empty until `tiers` is resolved.
    pub settings: GroupSettings,
    /// Primary, secondary, tertiary.
    pub tiers: [Vec<UpstreamConfig>; 3],
    /// `trust_ad` as configured; `None` is `"auto"`.
    pub trust_ad: Option<bool>,
}

/// One upstream as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamConfig {
    /// What resolv.conf names.
    System,
    /// A server.
    Server(ServerSettings),
}

#[cfg(test)]
mod tests;
