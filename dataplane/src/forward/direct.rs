//! DR: the frame goes to the real server as it is, but for the MAC addresses
//! and one hop less to live (`ip_vs_dr_xmit`).
//!
//! The TTL is decremented as IPVS does, so that two directors which take each
//! other for real servers end a packet instead of circulating it for ever.

use crate::counters::DropReason;
use crate::service::NextHop;
use crate::wire::{ethernet, ipv4, ipv6};

/// Addresses `frame`, whose IP header is at `l3_offset`, to the next hop.
///
/// # Errors
/// The packet may not travel further; the frame is unchanged.
#[inline(always)]
pub(crate) fn forward(
    frame: &mut [u8],
    l3_offset: usize,
    is_v4: bool,
    next_hop: &NextHop,
) -> Result<(), DropReason> {
    let ip = frame.get_mut(l3_offset..).ok_or(DropReason::Truncated)?;
    let lives_on = if is_v4 {
        let header = ip.first_chunk_mut().ok_or(DropReason::Truncated)?;
        ipv4::Packet::header_mut(header).decrement_ttl()
    } else {
        let header = ip.first_chunk_mut().ok_or(DropReason::Truncated)?;
        ipv6::Packet::header_mut(header).decrement_hop_limit()
    };
    if !lives_on {
        return Err(DropReason::TtlExceeded);
    }
    let ethernet = frame.first_chunk_mut().ok_or(DropReason::Truncated)?;
    ethernet::set_addresses(ethernet, next_hop.destination, next_hop.source);
    Ok(())
}
