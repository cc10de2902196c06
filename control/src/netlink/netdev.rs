//! What a driver can do with XDP, as the kernel itself knows it: the generic netlink family `netdev`
//! (Linux 6.3, `include/uapi/linux/netdev.h`). Asking changes nothing, unlike attaching a program, for
//! which many drivers stop and start their queues.
//!
//! By hand: two requests of one attribute each. The crates for generic netlink know no such family.

use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// `NETLINK_GENERIC`
const NETLINK_GENERIC: i32 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// `GENL_ID_CTRL`, which knows the numbers of the other families.
const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// Length of a netlink header and of a generic netlink one.
const NETLINK_HEADER: usize = 16;
const HEADERS: usize = NETLINK_HEADER + 4;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// `enum netdev_xdp_act`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    #[cfg(test)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Programs run in the driver, and may pass packets to AF_XDP.
    #[must_use]
    pub const fn native(self) -> bool {
        // NETDEV_XDP_ACT_BASIC and _REDIRECT
        self.0 & 0b11 == 0b11
    }

    /// AF_XDP sockets without copies.
    #[must_use]
    pub const fn zero_copy(self) -> bool {
        self.0 & 1 << 3 != 0
    }
}

/// What the driver of an interface can do; `None` before Linux 6.3.
///
/// # Errors
/// What the kernel says: there is no such interface.
pub fn xdp_features(ifindex: u32) -> io::Result<Option<XdpFeatures>> {
    let domain = Domain::from(libc::AF_NETLINK);
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(NETLINK_GENERIC)))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let name = (CTRL_ATTR_FAMILY_NAME, b"netdev\0".as_slice());
    let family = match ask(&socket, CONTROLLER, CTRL_CMD_GETFAMILY, name) {
        Ok(answer) => {
            attribute(&answer, CTRL_ATTR_FAMILY_ID).and_then(|id| id.first_chunk().copied())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some(family) = family.map(u16::from_ne_bytes) else {
        return Ok(None);
    };
    let index = ifindex.to_ne_bytes();
    let answer = ask(
        &socket,
        family,
        NETDEV_CMD_DEV_GET,
        (NETDEV_A_DEV_IFINDEX, &index),
    )?;
    let features = attribute(&answer, NETDEV_A_DEV_XDP_FEATURES);
    let features = features.and_then(|bits| bits.first_chunk().copied());
    Ok(features.map(|bits| XdpFeatures(u64::from_ne_bytes(bits))))
}

/// Sends a request and returns the attributes of the answer.
fn ask(
    mut socket: &Socket,
    family: u16,
    command: u8,
    (kind, value): (u16, &[u8]),
) -> io::Result<Vec<u8>> {
    socket.write_all(&request(family, command, kind, value))?;
    let mut answer = vec![0; 8192];
    let length = socket.read(&mut answer)?;
    answer.truncate(length);
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "an answer that is cut off");
    let message_kind = answer
        .get(4..6)
        .and_then(|bytes| bytes.first_chunk().copied());
    let message_kind = u16::from_ne_bytes(message_kind.ok_or_else(bad)?);
    if message_kind == NLMSG_ERROR {
        let number = answer
            .get(NETLINK_HEADER..)
            .and_then(|bytes| bytes.first_chunk().copied());
        let number = i32::from_ne_bytes(number.ok_or_else(bad)?);
        return Err(io::Error::from_raw_os_error(number.wrapping_neg()));
    }
    answer.get(HEADERS..).map(<[u8]>::to_vec).ok_or_else(bad)
}

fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let length = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
    let mut attribute = Vec::new();
    attribute.extend(length(4 + value.len()).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let mut message = Vec::new();
    message.extend(u32::from(length(HEADERS + attribute.len())).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port, of which one request at a time needs none.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attribute);
    message
}

/// The value of the first attribute of a kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((header, rest)) = attributes.split_first_chunk::<4>() {
        let [l0, l1, k0, k1] = *header;
        let value_length = usize::from(u16::from_ne_bytes([l0, l1])).checked_sub(4)?;
        // The two highest bits are flags.
        if u16::from_ne_bytes([k0, k1]) & 0x3fff == wanted {
            return rest.get(..value_length);
        }
        attributes = rest.get(value_length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_broken_ones_are_not() {
        let message = request(7, 1, 2, b"abc");
        let attributes = &message[HEADERS..];
        assert_eq!(message[0] as usize, message.len());
        assert_eq!(attribute(attributes, 2), Some(b"abc".as_slice()));
        assert_eq!(attribute(attributes, 3), None);
        assert_eq!(attribute(&[3, 0, 2, 0, 9], 2), None);
        assert_eq!(attribute(&[9, 0, 2, 0, 9], 2), None);
        let two: Vec<u8> = attributes
            .iter()
            .chain(&[5, 0, 3, 0x80, 9, 0, 0, 0])
            .copied()
            .collect();
        assert_eq!(attribute(&two, 3), Some([9].as_slice()));
    }

    #[test]
    fn the_loopback_interface_has_no_native_xdp() {
        // Before Linux 6.3 the kernel does not say.
        if let Some(features) = xdp_features(1).unwrap() {
            assert!(!features.native() && !features.zero_copy());
        }
        assert!(xdp_features(0x7fff_fff0).map_or_else(|_| true, |found| found.is_none()));
    }
}
