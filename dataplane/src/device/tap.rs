//! The way back to the kernel: frames written to a tap interface, which the
//! kernel takes for received.
//!
//! What only a worker can tell is not ours goes here: a packet from a real server's port that is
//! of no connection, a fragment of something else, a service removed a
//! moment ago; and what is for a real server that is this host itself. The kernel then does what it would have done:
//! gives it to a socket or routes it onward.
//!
//! ```text
//!   interface ─► steering program ─► worker ─► Tap ─► tap interface ─► kernel
//! ```
//!
//! A frame's destination becomes the tap's MAC address, because the kernel ignores what is for
//! another; and its VLAN tags are taken off, because the tap has no VLAN
//! devices. IP does not mind, as an address is the host's and not the interface's.
//!
//! Nothing comes the other way: no route leads through the interface. What the kernel sends
//! nevertheless waits in its queue until that is full, and is dropped there.
//!
//! One system call a frame: this way is for the rare ones.

use std::fs;
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use super::{Device, DeviceStatistics};
use crate::xsk::umem::{Frame, FramePool, Umem};

pub use crate::xsk::tun::{TapError, TapInterface};

/// The name of the interface; `%d` is the first number that is free.
const NAME: &str = "appliance%d";

/// An interface without any IPv4 address receives nothing where `rp_filter` is on, strict or
/// loose. So it has the one that was set aside for what needs an address and no
/// traffic: the IPv4 dummy address (RFC 7600 §3.1.1).
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Bytes of an Ethernet header, of the addresses in it, and of a VLAN tag.
const HEADER: usize = 14;
const ADDRESSES: usize = 12;
const VLAN_TAG: usize = 4;

/// Makes the interface, in the network namespace of the calling thread.
///
/// # Errors
/// There is no `/dev/net/tun` (`modprobe tun`), or no right to use it.
pub fn create() -> Result<TapInterface, TapError> {
    TapInterface::create(NAME, ADDRESS, |name| {
        prepare(name, Path::new("/proc/sys/net"))
    })
}

/// Makes the kernel accept what comes in by the interface. A kernel without IPv6 has none of
/// its settings, so a file that cannot be written is passed over; the test of each family
/// shows that the others can.
fn prepare(name: &str, settings: &Path) {
    let set = |path: String, value: &str| drop(fs::write(settings.join(path), value));
    // No route to the sender leads through the tap, so a strict check of the path back
    // would refuse everything. The kernel takes the stricter one of this and `all`,
    // where the loose check counts as the strictest (ip-sysctl, rp_filter).
    let all = fs::read_to_string(settings.join("ipv4/conf/all/rp_filter"));
    let loose = all.is_ok_and(|all| all.trim() != "0");
    set(
        format!("ipv4/conf/{name}/rp_filter"),
        if loose { "2" } else { "0" },
    );
    // No link-local address, and no questions to routers.
    set(format!("ipv6/conf/{name}/addr_gen_mode"), "1");
    set(format!("ipv6/conf/{name}/accept_ra"), "0");
}

/// The tap interface as a device of one worker.
#[derive(Debug)]
pub struct Tap {
    interface: TapInterface,
    umem: Arc<Umem>,
    /// Written, until the next flush.
    written: Vec<Frame>,
    invalid: u64,
    dropped: u64,
}

impl Tap {
    /// A device for frames of `umem`.
    #[must_use]
    pub fn new(interface: TapInterface, umem: &Arc<Umem>) -> Self {
        Self {
            interface,
            umem: Arc::clone(umem),
            written: Vec::new(),
            invalid: 0,
            dropped: 0,
        }
    }

    /// The kernel's name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        self.interface.name()
    }

    fn write(&mut self, frame: &Frame) {
        let packet = self.umem.bytes(frame);
        let Some((addresses, rest)) = packet.split_first_chunk::<ADDRESSES>() else {
            self.invalid += 1;
            return;
        };
        let rest = without_vlan_tags(rest);
        if rest.len() < HEADER - ADDRESSES {
            self.invalid += 1;
            return;
        }
        let mut addresses = *addresses;
        addresses[..6].copy_from_slice(&self.interface.mac().0);
        let parts = [IoSlice::new(&addresses), IoSlice::new(rest)];
        // Refused when the interface is down, or gone with its namespace.
        if rustix::io::writev(&self.interface, &parts).is_err() {
            self.dropped += 1;
        }
    }
}

/// What follows the addresses, from the EtherType of the payload on.
fn without_vlan_tags(mut rest: &[u8]) -> &[u8] {
    while let [0x81, 0x00, ..] | [0x88, 0xa8, ..] = rest {
        match rest.get(VLAN_TAG..) {
            Some(inner) => rest = inner,
            None => return &[],
        }
    }
    rest
}

impl Device for Tap {
    /// Nothing: see the module.
    fn receive(&mut self, _: &mut Vec<Frame>) -> usize {
        0
    }

    /// Never refuses a frame: what the kernel does not take is counted and gone.
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        self.write(&frame);
        self.written.push(frame);
        Ok(())
    }

    fn transmit_burst(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            self.write(&frame);
            self.written.push(frame);
        }
    }

    fn flush(&mut self, pool: &mut FramePool) {
        for frame in self.written.drain(..) {
            pool.give(frame);
        }
    }

    fn has_outstanding(&self) -> bool {
        !self.written.is_empty()
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn statistics(&self) -> DeviceStatistics {
        DeviceStatistics {
            tx_invalid: self.invalid,
            tx_dropped: self.dropped,
            ..DeviceStatistics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_off_and_nothing_else() {
        let ip = [0x08, 0x00, 0x45];
        let (q, ad) = ([0x81, 0x00, 0x00, 0x05], [0x88, 0xa8, 0x00, 0x06]);
        assert_eq!(without_vlan_tags(&ip), ip);
        assert_eq!(without_vlan_tags(&[&q[..], &ip].concat()), ip);
        assert_eq!(without_vlan_tags(&[&ad[..], &q, &ip].concat()), ip);
        assert_eq!(without_vlan_tags(&q[..3]), []);
        assert_eq!(without_vlan_tags(&[]), []);
    }

    #[test]
    fn the_check_of_the_path_back_is_loose_or_off() {
        for (all, expected) in [("0\n", "0"), ("1\n", "2"), ("2\n", "2")] {
            let settings = tempfile::tempdir().unwrap();
            for conf in ["ipv4/conf/all", "ipv4/conf/tap9", "ipv6/conf/tap9"] {
                fs::create_dir_all(settings.path().join(conf)).unwrap();
            }
            fs::write(settings.path().join("ipv4/conf/all/rp_filter"), all).unwrap();
            prepare("tap9", settings.path());
            let read = |path| fs::read_to_string(settings.path().join(path)).unwrap();
            assert_eq!(read("ipv4/conf/tap9/rp_filter"), expected);
            assert_eq!(read("ipv6/conf/tap9/addr_gen_mode"), "1");
        }
    }
}
