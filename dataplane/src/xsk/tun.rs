//! Making a tap interface: `/dev/net/tun` and the three requests it takes
//! (`include/uapi/linux/if_tun.h`, netdevice(7)).
//!
//! The interface is gone with its last descriptor: neither an exit nor a SIGKILL leaves
//! one behind.

use std::ffi::c_char;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::service::MacAddress;

/// `IFF_TAP`, `IFF_NO_PI` and `IFF_UP`, which `libc` has in a wider type than `ifr_flags`.
const TAP: libc::c_short = 0x0002;
const NO_PACKET_INFORMATION: libc::c_short = 0x1000;
const UP: libc::c_short = 0x0001;

/// `struct ifreq` with the members of its union that are used here.
#[repr(C)]
struct Request {
    name: [c_char; libc::IFNAMSIZ],
    data: Data,
}

#[repr(C)]
union Data {
    flags: libc::c_short,
    address: libc::sockaddr,
    internet: libc::sockaddr_in,
    /// As long as the longest member.
    all: [u8; 24],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// A tap interface that is up, for as long as this and its clones live.
#[derive(Debug)]
pub struct TapInterface {
    queue: OwnedFd,
    name: String,
    mac: MacAddress,
}

impl TapInterface {
    /// Makes an interface with one IPv4 host address in the network namespace of the calling
    /// thread, and calls `prepare` with its name before it is up. In `name`, `%d` is replaced by
    /// the first number that is free.
    ///
    /// # Errors
    /// There is no `/dev/net/tun`, no right to use it (CAP_NET_ADMIN), or the name is
    /// taken.
    pub fn create(
        name: &str,
        address: Ipv4Addr,
        prepare: impl FnOnce(&str),
    ) -> Result<Self, TapError> {
        let failed = |what| {
            move |source: io::Error| TapError {
                name: name.to_owned(),
                what,
                source,
            }
        };
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let queue = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
            .map_err(|errno| failed("open /dev/net/tun")(errno.into()))?;
        let mut request = Request {
            name: [0; libc::IFNAMSIZ],
            data: Data { all: [0; 24] },
        };
        // One byte stays zero.
        for (to, from) in request.name[..libc::IFNAMSIZ - 1]
            .iter_mut()
            .zip(name.bytes())
        {
            *to = from as c_char;
        }
        request.data.flags = TAP | NO_PACKET_INFORMATION;
        call(&queue, libc::TUNSETIFF as _, &mut request).map_err(failed("make the interface"))?;
        let bytes = request.name.iter().map(|&byte| byte as u8);
        let bytes: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
        let own_name = String::from_utf8_lossy(&bytes).into_owned();
        prepare(&own_name);

        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
            .map_err(|errno| failed("open a socket to set it up")(errno.into()))?;
        request.data.internet = internet(address);
        call(&socket, libc::SIOCSIFADDR as _, &mut request).map_err(failed("set its address"))?;
        request.data.internet = internet(Ipv4Addr::BROADCAST);
        call(&socket, libc::SIOCSIFNETMASK as _, &mut request)
            .map_err(failed("set its address's mask"))?;
        request.data.flags = UP;
        call(&socket, libc::SIOCSIFFLAGS as _, &mut request).map_err(failed("set it up"))?;
        request.data = Data { all: [0; 24] };
        call(&socket, libc::SIOCGIFHWADDR as _, &mut request)
            .map_err(failed("read its MAC address"))?;
        // SAFETY: the kernel has just filled this member in, and all of its bytes were
        // initialised before.
        let address = unsafe { request.data.address };
        let mut mac = MacAddress::default();
        for (to, from) in mac.0.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok(Self {
            queue,
            name: own_name,
            mac,
        })
    }

    /// Another handle to the same interface, for another thread.
    ///
    /// # Errors
    /// Too many open files.
    pub fn try_clone(&self) -> Result<Self, TapError> {
        let queue = self.queue.try_clone().map_err(|source| TapError {
            name: self.name.clone(),
            what: "open it again",
            source,
        })?;
        Ok(Self {
            queue,
            name: self.name.clone(),
            mac: self.mac,
        })
    }

    /// What the kernel called it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that the kernel takes frames for its own by.
    #[must_use]
    pub fn mac(&self) -> MacAddress {
        self.mac
    }
}

impl AsFd for TapInterface {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

fn internet(address: Ipv4Addr) -> libc::sockaddr_in {
    libc::sockaddr_in {
        // The constant, 2, is wider in `libc` than the member it is for.
        sin_family: 2,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        sin_zero: [0; 8],
    }
}

fn call(fd: &OwnedFd, command: libc::Ioctl, request: &mut Request) -> io::Result<()> {
    // SAFETY: `request` has the size of `struct ifreq` and lives until the call returns; the
    // commands used here read and write that structure only.
    match unsafe { libc::ioctl(fd.as_raw_fd(), command, std::ptr::from_mut(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A tap interface could not be made; the source is the kernel's error.
#[derive(Debug, thiserror::Error)]
#[error("tap {name}: cannot {what}")]
pub struct TapError {
    name: String,
    what: &'static str,
    source: io::Error,
}
