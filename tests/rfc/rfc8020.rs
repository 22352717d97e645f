//! RFC 8020 is not claimed: a forwarder that does not validate must not conclude from one NXDOMAIN that nothing is
//! below, since another server may know names there.

use super::{over, zone};
use crate::support::busy;
use crate::support::message::{rcode, rtype};

#[test]
fn a_name_below_one_that_does_not_exist_is_asked_all_the_same() {
    let _busy = busy();
    let (_upstream, daemon) = over(zone().a("www.void.example.", 60, "192.0.2.5"));
    assert_eq!(daemon.ask("void.example.", rtype::A).rcode, rcode::NXDOMAIN);
    assert_eq!(daemon.ask("www.void.example.", rtype::A).addresses(), [[192, 0, 2, 5]]);
}
