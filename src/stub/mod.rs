//! `evenkeel stub`: this machine's resolv.conf points at evenkeel, and back.
//!
//! Three parts: [`facts`] looks at a tree below a root directory, [`plan`] says what is to be done there (pure), and
//! [`carry`] does it. `/` is the root of the machine; tests have their own. Rules:
//!
//! - Before anything is changed, evenkeel is asked at the address that is to be written ([`ask`]), and its upstreams
//!   must still be found afterwards: a machine that resolves is not made one that does not.
//! - What was there is kept in [`KEPT`], which root alone may write: the service's user must not be able to choose what
//!   is put back. First it is kept, then other programs are told to leave resolv.conf alone, and it comes last.
//! - Who else writes /etc/resolv.conf is told not to: NetworkManager by a drop-in, dhclient by an enter hook,
//!   openresolv by its configuration. Debian's resolvconf and systemd-resolved write only what the link leads to.
//! - Where these programs still write the servers, `"system"` upstreams read them; what only resolv.conf knew they read
//!   from the copy in [`KEPT`].
//! - Enabling twice keeps what was there first. Disabling puts back what was there byte for byte, with mode, owner and
//!   time; a file that somebody else has changed is theirs and left, but for one that names nobody.
//! - Disabling never leaves a machine without names that had them: where the old link leads to no server, or evenkeel
//!   alone would be named, it is refused unless it is forced, and what was kept stays.
//! - A cut-off between any two steps is made up for by enabling again, and taken back by disabling.

pub mod ask;
pub mod carry;
pub mod facts;
pub mod place;
pub mod plan;
pub mod record;
pub mod text;

#[cfg(test)]
mod tests;

/// What is pointed at evenkeel.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Root's own directory for what was there.
pub const KEPT: &str = "/var/lib/evenkeel-stub";
/// In it: the servers that only the old resolv.conf knew, for `"system"` upstreams. Anybody may read it.
pub const KEPT_COPY: &str = "/var/lib/evenkeel-stub/resolv.conf";
/// In it: what was there and what was written ([`record::Record`]).
pub const KEPT_RECORD: &str = "/var/lib/evenkeel-stub/record.json";
/// Where dhclient's hook writes the servers of the lease, for `"system"` upstreams.
pub const LEASE: &str = "/run/evenkeel-stub/resolv.conf";
/// Tells NetworkManager to leave resolv.conf alone.
pub const NETWORK_MANAGER_FILE: &str = "/etc/NetworkManager/conf.d/90-evenkeel-stub.conf";
/// Tells dhclient the same. It sorts last, and has no dot, which dhclient-script would pass over.
pub const DHCLIENT_HOOK: &str = "/etc/dhcp/dhclient-enter-hooks.d/zz-evenkeel-stub";
/// openresolv's configuration.
pub const OPENRESOLV_FILE: &str = "/etc/resolvconf.conf";
