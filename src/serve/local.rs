//! Do we own the answer?

use std::path::PathBuf;

use crate::wire::Name;

/// What is answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSettings {
    /// Answers to CH TXT id.server, version.bind and kin; `None` refuses them.
    pub identity: Option<String>,
    /// Are private reverse zones (RFC 6303) answered here with NXDOMAIN?
    pub private_reverse_nxdomain: bool,
    /// Records.
    pub records: Vec<LocalRecord>,
    /// Zones that are answered whole.
    pub zones: Vec<(Name, ZoneAction)>,
    /// Hosts files, in their order.
    pub hosts: Vec<PathBuf>,
}

/// One `[[local]]` record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRecord {
    /// Owner.
    pub name: Name,
    /// Type: A, AAAA, CNAME, PTR, TXT, MX or SRV.
    pub rtype: u16,
    /// Data in wire format, uncompressed.
    pub data: Vec<u8>,
    /// Seconds.
    pub ttl: u32,
}

/// What a local zone answers, for itself and every name below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneAction {
    /// NXDOMAIN.
    NxDomain,
    /// NOERROR without records.
    NoData,
    /// REFUSED.
    Refuse,
}
