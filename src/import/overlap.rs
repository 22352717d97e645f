//! Which local answers of a [`Draft`] would take names from a group that its source asks for them.
//!
//! Pure. evenkeel looks into `[[local]]` before it looks for a group, however long the group's zone is. Others weigh
//! them together: dnsmasq takes the longest match of both, CoreDNS has local answers per server block, unbound has
//! zones that are open within closed ones. Each format says which of its zones are forwarded; what follows is one:
//!
//! - A local zone that is a forwarded one, or has one below it, is left out whole, and said with both names. That
//!   other names of it are forwarded then is seen and mended; a forwarded zone that is gone would be an outage.
//! - Records of `*.x` likewise, where a forwarded zone is below x. Records of single names stay: they are meant.
//! - Private reverse zones (RFC 6303 §4, RFC 7793) are all answered or all forwarded: one that is forwarded decides.
//! - What is local below a forwarded zone stays, since it is the longer match everywhere.

use std::collections::HashMap;

use ipnet::IpNet;

use super::draft::{Draft, Local, Place};
use super::print::{below, plain};
use super::words::reverse_zones;
use crate::wire::Name;
use crate::wire::name::suffixes;

/// Leaves out what would answer in the place of a `forwarded` zone. `yields` is asked of a local zone and a forwarded
/// one in it: does the source forward it in spite of the local zone?
pub(super) fn give_way(draft: &mut Draft, forwarded: &[Name], yields: impl Fn(&Name, &Name) -> bool) {
    // Each name that is a forwarded zone or above one, with those zones.
    let mut within: HashMap<&[u8], Vec<&Name>> = HashMap::new();
    for zone in forwarded {
        suffixes(zone.as_wire()).for_each(|above| within.entry(above).or_default().push(zone));
    }
    let mut left: Vec<(Place, String)> = Vec::new();
    draft.locals.retain(|local| {
        let Some(Cover { zone, only_below, at }) = cover(local) else { return true };
        let inside = within.get(zone.as_wire()).map_or(&[][..], Vec::as_slice);
        let Some(open) = inside.iter().find(|open| !(only_below && zone == ***open) && yields(&zone, open)) else {
            return true;
        };
        let shown = if only_below { below(&zone) } else { plain(&zone) };
        let open_shown = plain(open);
        let why = if zone == **open {
            format!("{shown} is forwarded, and a local zone would answer before its servers: it is left out")
        } else {
            format!(
                "{shown} is left out: it would answer for {open_shown} too, which is forwarded; all names of {shown} \
                 that have no records are forwarded with it"
            )
        };
        let said = (at.clone(), why);
        // A and AAAA of one line stand side by side.
        if left.last() != Some(&said) {
            left.push(said);
        }
        false
    });
    for (at, why) in left {
        draft.left(at.line, &at.what, why);
    }
}

/// A name and those above it, to the root.
pub(super) fn and_above(name: &Name) -> impl Iterator<Item = Name> {
    suffixes(name.as_wire()).filter_map(Name::from_wire)
}

/// Forwards all private reverse zones, where they were answered here, for the sake of `open`.
pub(super) fn open_private_reverse(draft: &mut Draft, (line, what): (usize, &str), open: &Name) {
    if draft.private_reverse == Some("nxdomain") {
        draft.private_reverse = Some("forward");
        let why = format!(
            "{} is asked of servers, and private reverse zones are answered here all or none: all are forwarded \
             (local_files.private_reverse)",
            plain(open)
        );
        draft.left(line, what, why);
    }
}

/// The private reverse zones, each for itself.
pub(super) fn private_reverse_zones() -> Vec<Name> {
    PRIVATE.iter().filter_map(|net| net.parse::<IpNet>().ok()).flat_map(reverse_zones).collect()
}

const PRIVATE: [&str; 15] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "0.0.0.0/8",
    "169.254.0.0/16",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "255.255.255.255/32",
    "::/128",
    "fc00::/8",
    "fd00::/8",
    "fe80::/10",
    "2001:db8::/32",
];

/// What a local entry answers beyond one name.
struct Cover<'l> {
    zone: Name,
    only_below: bool,
    at: &'l Place,
}

fn cover(local: &Local) -> Option<Cover<'_>> {
    match local {
        Local::Zone { zone, at, .. } => Some(Cover { zone: zone.clone(), only_below: false, at }),
        Local::Record { name, at, .. } => {
            let pattern = name.parse::<Name>().ok()?;
            let above = pattern.as_wire().strip_prefix(b"\x01*")?;
            Some(Cover { zone: Name::from_wire(above)?, only_below: true, at })
        }
    }
}

#[cfg(test)]
mod tests;
