//! The frames that claim an address and those that ask who has it, for either
//! IP version.

use std::net::IpAddr;

use dataplane::service::MacAddress;
use dataplane::wire::{arp, ndisc};

/// Claims `address` for `mac`: makes everyone on the link send it there. `is_router` is of no meaning
/// to IPv4.
pub(super) fn claim(mac: MacAddress, address: IpAddr, is_router: bool) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp::announcement(mac, address).into(),
        IpAddr::V6(address) => ndisc::announcement(mac, address, is_router).into(),
    }
}

/// Asks who has `address` without claiming anything.
pub(super) fn question(mac: MacAddress, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp::probe(mac, address).into(),
        IpAddr::V6(address) => ndisc::probe(mac, address).into(),
    }
}

/// Who claims `address` by sending `frame`, or is about to because it asks the
/// same question; `None` for ourselves and for every other frame.
pub(super) fn claimant(frame: &[u8], own: MacAddress, address: IpAddr) -> Option<MacAddress> {
    let claimant = match address {
        IpAddr::V4(address) => arp::claimant(frame, address),
        IpAddr::V6(address) => ndisc::claimant(frame, address),
    };
    claimant.filter(|mac| *mac != own)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    #[test]
    fn claims_of_others_are_conflicts() {
        for (vip, another) in [("10.0.0.9", "10.0.0.8"), ("fd00::9", "fd00::8")] {
            let [vip, another]: [IpAddr; 2] = [vip, another].map(|text| text.parse().unwrap());
            for frame in [claim(OTHER, vip, true), question(OTHER, vip)] {
                assert_eq!(claimant(&frame, OWN, vip), Some(OTHER), "{vip}");
                assert_eq!(claimant(&frame, OTHER, vip), None, "{vip}: own frame");
                assert_eq!(claimant(&frame, OWN, another), None, "{vip}");
            }
        }
    }
}
