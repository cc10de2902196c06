//! What several targets do to frames.

/// Makes the header checksum of an untagged IPv4 packet right, which a fuzzer does not find by
/// itself: else it would never get past it.
pub(crate) fn repair_ipv4_checksum(frame: &mut [u8]) {
    let is_ipv4 = frame.get(12..14) == Some(&[0x08, 0x00]);
    let Some(&first) = frame.get(14).filter(|_| is_ipv4) else {
        return;
    };
    let length = usize::from(first & 0x0f).max(5) * 4;
    let Some(header) = frame.get_mut(14..14 + length) else {
        return;
    };
    header[10..12].fill(0);
    let words = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!sum).to_be_bytes()[2..]);
}
