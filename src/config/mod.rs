//! From the file to checked, normalized settings.

use std::path::PathBuf;

use crate::cache::CacheSettings;
use crate::listen::ListenSettings;
use crate::observe::{AdminSettings, LogSettings};
use crate::serve::admit::AdmitSettings;
use crate::serve::local::LocalSettings;
use crate::upstream::{GroupSettings, ServerSettings};

/// A checked configuration. Each judge owns its own settings; this only holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Sockets and workers.
    pub listen: ListenSettings,
    /// Admin listener and control socket.
    pub admin: AdminSettings,
    /// State directory.
    pub state: StateDirectory,
    /// Who may ask.
    pub admit: AdmitSettings,
    /// resolv.conf files of `"system"` upstreams, the first that names a server other than us.
    pub system_files: Vec<PathBuf>,
    /// The cache.
    pub cache: CacheSettings,
    /// Groups; one of them, `default`, has the root among its zones unless the file says otherwise.
    pub groups: Vec<GroupConfig>,
    /// Local answers.
    pub local: LocalSettings,
    /// Logs.
    pub log: LogSettings,
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
