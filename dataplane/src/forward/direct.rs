//! DR: the frame goes to the real server as it is, but for the MAC addresses
//! and one hop less to live (`ip_vs_dr_xmit`).
//!
//! The TTL is decremented as IPVS does, so that two directors which take each
//! other for real servers end a packet instead of circulating it for ever.

use crate::counters::DropReason;
use crate::service::NextHop;
use crate::wire::{Parsed, ethernet, ipv4, ipv6};

/// Addresses `frame`, of which `parsed` was read, to the next hop.
///
/// # Errors
/// The packet may not travel further; the frame is unchanged.
#[inline(always)]
pub(crate) fn forward(
    frame: &mut [u8],
    parsed: &Parsed,
    next_hop: &NextHop,
) -> Result<(), DropReason> {
    let ip = frame
        .get_mut(usize::from(parsed.l3_offset)..)
        .ok_or(DropReason::Truncated)?;
    let lives_on = if parsed.destination.is_v4() {
        ipv4::Packet::header_mut(ip.first_chunk_mut().ok_or(DropReason::Truncated)?).decrement_ttl()
    } else {
        ipv6::Packet::header_mut(ip.first_chunk_mut().ok_or(DropReason::Truncated)?)
            .decrement_hop_limit()
    };
    if !lives_on {
        return Err(DropReason::TtlExceeded);
    }
    let ethernet = frame.first_chunk_mut().ok_or(DropReason::Truncated)?;
    ethernet::set_addresses(ethernet, next_hop.destination, next_hop.source);
    Ok(())
}
