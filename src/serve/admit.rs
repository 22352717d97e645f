//! May this client ask, now?

use ipnet::IpNet;

/// Who may ask, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmitSettings {
    /// Who may ask.
    pub allow: Vec<Allowed>,
    /// Bits of an IPv4 and of an IPv6 address that make one client.
    pub client_prefix: (u8, u8),
    /// Questions a second of one client; 0 is no limit.
    pub queries_per_second: u32,
    /// Questions of one client that wait at once.
    pub in_flight_per_client: u32,
}

/// One entry of `access.allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// This node's own networks: those of its interfaces.
    Local,
    /// RFC 1918, RFC 6598, RFC 4193 and link-local addresses.
    Private,
    /// One network.
    Net(IpNet),
}
