//! Macvlan interfaces for `use_vmac`.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use rtnetlink::LinkMacVlan;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use rustix::io::Errno;

use super::super::Error;
use super::{Requests, is_one_of, unless};

impl Requests {
    /// Makes a macvlan above an interface, down, with this MAC address. What there is already, such as one
    /// that a killed director left, is used if it is the same, and replaced if it is another macvlan; the
    /// note that it had is returned, and taken off.
    ///
    /// # Errors
    /// What the kernel says; an interface of another kind has the name.
    pub async fn add_vmac(
        &self,
        name: &str,
        base: u32,
        mac: [u8; 6],
    ) -> Result<Option<String>, Error> {
        let doing = || format!("make the macvlan {name}");
        let link = LinkMacVlan::new(name, base, MacVlanMode::Private);
        let message = RouteNetlinkMessage::NewLink(link.address(mac.to_vec()).build());
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let refused = match self.ask(message.clone(), flags, doing).await {
            Err(error) if is_one_of(&error, &[Errno::EXIST]) => error,
            made => return made.map(|_| None),
        };
        let request = RouteNetlinkMessage::GetLink(named(name));
        let found = self.ask(request, 0, doing).await?;
        let found = found.iter().find_map(Macvlan::of);
        let found = found.ok_or(refused)?;
        if (found.base, found.mac) == (base, mac) {
            self.set_vmac(name, false, "").await?;
        } else {
            self.remove_vmac(name).await?;
            self.ask(message, flags, doing).await?;
        }
        Ok(found.note)
    }

    /// Up or down with it, and with a note that `ip link` shows as its alias. False: it is gone.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_vmac(&self, name: &str, up: bool, note: &str) -> Result<bool, Error> {
        let doing = || format!("set {name} {}", if up { "up" } else { "down" });
        let mut message = named(name);
        let note = LinkAttribute::IfAlias(note.to_owned());
        message.attributes.push(note);
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
        let message = RouteNetlinkMessage::SetLink(message);
        unless(self.ask(message, NLM_F_ACK, doing).await, &[Errno::NODEV])
    }

    /// Removes it. False: it is gone.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_vmac(&self, name: &str) -> Result<bool, Error> {
        let doing = || format!("remove {name}");
        let message = RouteNetlinkMessage::DelLink(named(name));
        unless(self.ask(message, NLM_F_ACK, doing).await, &[Errno::NODEV])
    }
}

/// A macvlan that is there.
struct Macvlan {
    base: u32,
    mac: [u8; 6],
    /// Its alias.
    note: Option<String>,
}

impl Macvlan {
    fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(message) = message else {
            return None;
        };
        let (mut base, mut mac, mut note, mut is_macvlan) = (None, None, None, false);
        for attribute in &message.attributes {
            if let LinkAttribute::Link(index) = attribute {
                base = Some(*index);
            } else if let LinkAttribute::Address(address) = attribute {
                mac = address.as_slice().try_into().ok();
            } else if let LinkAttribute::IfAlias(alias) = attribute {
                note = Some(alias.clone());
            } else if let LinkAttribute::LinkInfo(infos) = attribute {
                is_macvlan = infos.contains(&LinkInfo::Kind(InfoKind::MacVlan));
            }
        }
        let (base, mac) = base.zip(mac).filter(|_| is_macvlan)?;
        Some(Self { base, mac, note })
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message
}
