//! What a driver says of its interface, and the one setting that AF_XDP on veth
//! needs changed: transmit checksum offload.
//!
//! A veth whose checksum offload is on sends packets with unfinished checksums,
//! as its peer is the same kernel. Received through AF_XDP and
//! forwarded, such a packet is corrupt; the cure is to switch the offload off at
//! the *sending* end.
//!
//! Facts come by `SIOCETHTOOL` (`include/uapi/linux/ethtool.h`), and not by
//! sysfs where that can be avoided: sysfs shows the namespace it was mounted in.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRXCSUM: u32 = 0x14;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GRSSH: u32 = 0x46;

/// Bits of `ETHTOOL_GFLAGS`.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;
/// What `ETHTOOL_GRXFH` asks about, and the bits of both ports in its answer.
const UDP_V4_FLOW: u32 = 2;
const RXH_PORTS: u64 = 1 << 6 | 1 << 7;
/// `RXH_XFRM_SYM_XOR` and `RXH_XFRM_SYM_OR_XOR`: both directions of a flow hash alike.
const RXH_XFRM_SYMMETRIC: u8 = 1 << 0 | 1 << 1;

/// A structure that begins with its command and that `SIOCETHTOOL` reads and
/// fills.
///
/// # Safety
/// `repr(C)`, of the layout that the kernel has for the command in it, and valid
/// for any bits.
unsafe trait Request {}

/// `struct ethtool_drvinfo`
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    /// Versions and the bus address.
    texts: [u8; 128],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_channels`
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    /// The most there can be: rx, tx, other, combined.
    limits: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    value: u32,
}

/// The begin of `struct ethtool_rxnfc`, which has 192 bytes.
#[repr(C)]
struct FlowHash {
    command: u32,
    flow_type: u32,
    data: u64,
    rest: [u64; 30],
}

/// `struct ethtool_rxfh` without table and key, which the kernel leaves out if asked for none.
#[repr(C)]
#[derive(Default)]
struct Spreading {
    command: u32,
    context: u32,
    table_size: u32,
    key_size: u32,
    function: u8,
    transformation: u8,
    reserved: [u8; 2],
    reserved_too: u32,
}

// SAFETY: the kernel's layout, integers only; longer than what the kernel writes.
unsafe impl Request for FlowHash {}
// SAFETY: the kernel's layout, integers only.
unsafe impl Request for Spreading {}
// SAFETY: the kernel's layout, integers only.
unsafe impl Request for DriverInfo {}
// SAFETY: as above.
unsafe impl Request for Channels {}
// SAFETY: as above.
unsafe impl Request for Value {}

const _: () = assert!(size_of::<DriverInfo>() == 196 && size_of::<Channels>() == 36);
const _: () = assert!(size_of::<FlowHash>() >= 192 && size_of::<Spreading>() == 24);

/// What an interface does to packets on its own that AF_XDP would not see as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// VLAN tags are taken out of received frames.
    pub rx_vlan: bool,
    /// Received TCP segments are joined.
    pub large_receive: bool,
}

/// Asks the driver of one interface, in the network namespace of the thread that
/// opened it.
#[derive(Debug)]
pub struct Ethtool {
    socket: OwnedFd,
    interface: String,
}

impl Ethtool {
    /// Prepares to ask about `interface`.
    ///
    /// # Errors
    /// The name is longer than 15 bytes, or there can be no socket.
    pub fn open(interface: &str) -> Result<Self, EthtoolError> {
        let failed = |source: io::Error| EthtoolError {
            interface: interface.to_owned(),
            what: "open a socket to ask about it",
            source,
        };
        if interface.len() >= libc::IFNAMSIZ {
            return Err(failed(Errno::NAMETOOLONG.into()));
        }
        let (family, flags) = (AddressFamily::INET, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)
            .map_err(|errno| failed(errno.into()))?;
        Ok(Self {
            socket,
            interface: interface.to_owned(),
        })
    }

    /// Name of the driver, such as `veth` or `mlx5_core`.
    ///
    /// # Errors
    /// No such interface, or its driver does not say.
    pub fn driver(&self) -> Result<String, EthtoolError> {
        let mut info = DriverInfo {
            command: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            texts: [0; 128],
            reserved: [0; 12],
            counts: [0; 5],
        };
        self.call(&mut info, "read its driver's name")?;
        let name = info.driver.split(|&byte| byte == 0).next();
        Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
    }

    /// Number of receive queues in use, at least 1.
    ///
    /// # Errors
    /// No such interface, or neither its driver nor sysfs says.
    pub fn rx_queues(&self) -> Result<u32, EthtoolError> {
        let what = "count its receive queues";
        let mut channels = Channels {
            command: ETHTOOL_GCHANNELS,
            ..Channels::default()
        };
        match self.call(&mut channels, what) {
            Ok(()) => Ok((channels.rx + channels.combined).max(1)),
            Err(error) if Errno::from_io_error(&error.source) == Some(Errno::OPNOTSUPP) => self
                .rx_queues_of_sysfs()
                .map_err(|source| EthtoolError { source, ..error }),
            Err(error) => Err(error),
        }
    }

    fn rx_queues_of_sysfs(&self) -> io::Result<u32> {
        let mut queues = 0;
        for entry in std::fs::read_dir(format!("/sys/class/net/{}/queues", self.interface))? {
            let name = entry?.file_name();
            queues += u32::from(name.as_encoded_bytes().starts_with(b"rx-"));
        }
        Ok(queues.max(1))
    }

    /// True when the interface's hardware verifies the checksums of what it receives.
    ///
    /// # Errors
    /// No such interface, or its driver does not say.
    pub fn rx_checksum_offload(&self) -> Result<bool, EthtoolError> {
        let mut value = Value {
            command: ETHTOOL_GRXCSUM,
            value: 0,
        };
        self.call(&mut value, "read its receive checksum offload")?;
        Ok(value.value != 0)
    }

    /// True when the interface leaves transmit checksums to its hardware, or a veth
    /// to nobody.
    ///
    /// # Errors
    /// No such interface, or its driver does not say.
    pub fn tx_checksum_offload(&self) -> Result<bool, EthtoolError> {
        let mut value = Value {
            command: ETHTOOL_GTXCSUM,
            value: 0,
        };
        self.call(&mut value, "read its transmit checksum offload")?;
        Ok(value.value != 0)
    }

    /// What it does to received packets.
    ///
    /// # Errors
    /// No such interface, or its driver does not say.
    pub fn offloads(&self) -> Result<Offloads, EthtoolError> {
        let mut value = Value {
            command: ETHTOOL_GFLAGS,
            value: 0,
        };
        self.call(&mut value, "read its offloads")?;
        Ok(Offloads {
            rx_vlan: value.value & ETH_FLAG_RXVLAN != 0,
            large_receive: value.value & ETH_FLAG_LRO != 0,
        })
    }

    /// True when IPv4 UDP packets are spread over its queues by their ports, too; false: by
    /// addresses alone.
    ///
    /// # Errors
    /// No such interface, or its driver does not say.
    pub fn spreads_udp_by_ports(&self) -> Result<bool, EthtoolError> {
        let mut hash = FlowHash {
            command: ETHTOOL_GRXFH,
            flow_type: UDP_V4_FLOW,
            data: 0,
            rest: [0; 30],
        };
        self.call(&mut hash, "read how it spreads UDP")?;
        Ok(hash.data & RXH_PORTS == RXH_PORTS)
    }

    /// True when both directions of a flow come to one queue.
    ///
    /// # Errors
    /// No such interface, or its driver does not say.
    pub fn spreads_symmetrically(&self) -> Result<bool, EthtoolError> {
        let mut spreading = Spreading {
            command: ETHTOOL_GRSSH,
            ..Spreading::default()
        };
        self.call(&mut spreading, "read how it spreads flows")?;
        Ok(spreading.transformation & RXH_XFRM_SYMMETRIC != 0)
    }

    /// Switches transmit checksum offload, as `ethtool -K IF tx on|off`.
    ///
    /// # Errors
    /// No such interface, no right (CAP_NET_ADMIN), or the driver cannot.
    pub fn set_tx_checksum_offload(&self, on: bool) -> Result<(), EthtoolError> {
        let mut value = Value {
            command: ETHTOOL_STXCSUM,
            value: on.into(),
        };
        self.call(&mut value, "switch its transmit checksum offload")
    }

    fn call<T: Request>(&self, request: &mut T, what: &'static str) -> Result<(), EthtoolError> {
        /// `struct ifreq` with the union's pointer member.
        #[repr(C)]
        struct InterfaceRequest {
            name: [c_char; libc::IFNAMSIZ],
            data: *mut libc::c_void,
            /// The rest of the union, whose longest member has 24 bytes.
            rest: [u8; 16],
        }
        let mut name = [0; libc::IFNAMSIZ];
        // `open` refused names without room for the final zero.
        for (to, from) in name.iter_mut().zip(self.interface.bytes()) {
            *to = from as c_char;
        }
        let mut interface = InterfaceRequest {
            name,
            data: std::ptr::from_mut(request).cast(),
            rest: [0; 16],
        };
        // SAFETY: `interface` has the size and layout of `struct ifreq`, and its
        // pointer is to a structure that the command in it may fill (`Request`);
        // both live until the call returns.
        let result = unsafe {
            libc::ioctl(
                self.socket.as_raw_fd(),
                libc::SIOCETHTOOL as _,
                &raw mut interface,
            )
        };
        if result == 0 {
            return Ok(());
        }
        Err(EthtoolError {
            interface: self.interface.clone(),
            what,
            source: io::Error::last_os_error(),
        })
    }
}

/// A driver did not answer; the source is the kernel's error.
#[derive(Debug, thiserror::Error)]
#[error("interface {interface}: cannot {what}")]
pub struct EthtoolError {
    interface: String,
    what: &'static str,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn the_loopback_interface_has_a_queue() {
        assert_eq!(Ethtool::open("lo").unwrap().rx_queues().unwrap(), 1);
    }

    #[test]
    fn errors_name_the_interface() {
        let error = Ethtool::open("xsk-absent").unwrap().driver().unwrap_err();
        let message = error.to_string();
        assert_eq!(
            message,
            "interface xsk-absent: cannot read its driver's name"
        );
        let source = error.source().unwrap().downcast_ref().unwrap();
        assert_eq!(Errno::from_io_error(source), Some(Errno::NODEV));

        let error = Ethtool::open("a-name-of-17-char").unwrap_err();
        assert!(error.to_string().contains("a-name-of-17-char"));
    }
}
