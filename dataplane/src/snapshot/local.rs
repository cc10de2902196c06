//! Local addresses of FULLNAT, of all virtual servers. They are the director's own: a packet that comes from one was
//! forged, and real servers would answer it to the director.

use hashbrown::HashSet;

use super::Snapshot;
use crate::flow::CommonBits;
use crate::service::Address;

/// What sources of packets are compared with.
#[derive(Debug, Default)]
pub(super) struct LocalAddresses {
    all: HashSet<Address>,
    /// Of those of IPv4.
    common: Option<CommonBits>,
}

impl LocalAddresses {
    pub(super) fn new(all: HashSet<Address>) -> Self {
        let v4 = all.iter().filter(|address| address.is_v4());
        let common = CommonBits::of(v4.map(|own| u32::from_ne_bytes(own.last_octets())));
        Self { all, common }
    }
}

impl Snapshot {
    /// True if it is a local address of any virtual server.
    #[must_use]
    pub fn is_local(&self, address: Address) -> bool {
        self.local.all.contains(&address)
    }

    /// What the local addresses of IPv4 have in common, if there are any: what has not got it is none of them.
    #[inline(always)]
    pub(crate) fn common_of_local(&self) -> Option<CommonBits> {
        self.local.common
    }
}
