//! DR: the frame goes to the real server as it is, but for the MAC addresses
//! and one hop less to live (`ip_vs_dr_xmit`).
//!
//! The TTL is decremented as IPVS does, so that two directors which take each
//! other for real servers end a packet instead of circulating it for ever.

use crate::counters::DropReason;
use crate::wire::{ethernet, ipv4, ipv6};
use crate::xsk::umem::HEAD;

/// Addresses `frame`, whose IP header is at `l3_offset`, to the next hop with these MAC `addresses`.
///
/// # Errors
/// The packet may not travel further; the frame is unchanged.
pub(crate) fn forward(
    frame: &mut [u8],
    l3_offset: usize,
    is_v4: bool,
    addresses: &ethernet::Addresses,
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
    let ethernet = frame
        .first_chunk_mut::<{ ethernet::HEADER_LEN }>()
        .ok_or(DropReason::Truncated)?;
    addresses.write(ethernet);
    Ok(())
}

/// The same for how an untagged frame with an IPv4 header without options begins, of a packet that was found
/// to live on: `life` is what it leaves with.
#[inline(always)]
pub(crate) fn forward_plain(
    head: &mut [u8; HEAD],
    life: ipv4::Life,
    addresses: &ethernet::Addresses,
) {
    if let Some(ip) = head[ethernet::HEADER_LEN..].first_chunk_mut() {
        ipv4::Packet::header_mut(ip).set_life(life);
    }
    addresses.write(head);
}
