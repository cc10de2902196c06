//! `strict_mode`, and `accept`, which it has a say in: what goes beyond the RFCs is left out with a
//! warning, as keepalived does it.

use std::net::IpAddr;
use std::time::Duration;

use super::super::super::raw::Table;
use super::super::super::report::Report;
use super::super::super::{Authentication, VirtualAddress, Vmac};
use super::defaults::Defaults;
use super::instance::flag;
use crate::vrrp::packet::{PRIORITY_OWNER, Peer, Version};

/// An instance, and whether it is strict.
pub(super) struct Strict<'t, 'd> {
    table: &'t Table<'d>,
    is_on: bool,
}

impl<'t, 'd> Strict<'t, 'd> {
    pub(super) fn of(table: &'t Table<'d>, defaults: &Defaults, report: &mut Report<'_>) -> Self {
        let is_on = flag(table, "strict_mode", defaults.strict, report);
        Self { table, is_on }
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Says of a key of the instance, or of what it has from `[global_defs]`, that it is not followed.
    fn warn(&self, key: &'static str, what: &str, report: &mut Report<'_>) {
        let value = self.table.get(key);
        let at = value.as_ref().map_or(self.table.at, |value| value.at);
        let place = value.map_or_else(|| self.table.place.clone(), |value| value.place);
        report.warning(at, &place, format!("in strict_mode {what}"));
    }

    /// Whether the addresses take no packets but those of virtual servers.
    pub(super) fn no_accept(
        &self,
        priority: u8,
        version: Version,
        report: &mut Report<'_>,
    ) -> bool {
        let mut written = |key| {
            let value = self.table.get(key)?;
            let at = value.at;
            Some((at, value.boolean(report)?))
        };
        let (accept, no_accept) = (written("accept"), written("no_accept"));
        if let (Some((at, accept)), Some((_, no_accept))) = (accept, no_accept)
            && accept == no_accept
        {
            let found = format_args!("accept and no_accept");
            report.error(
                at,
                &self.table.place,
                found,
                "one of them",
                "remove the other",
            );
        }
        if priority == PRIORITY_OWNER {
            return false;
        }
        let no_accept = no_accept.map(|(_, refuses)| refuses);
        let accept = accept.map(|(_, accepts)| !accepts);
        match no_accept.or(accept) {
            Some(false) if self.is_on && version == Version::V2 => {
                let key = if no_accept.is_some() {
                    "no_accept"
                } else {
                    "accept"
                };
                let what =
                    "the addresses of VRRP version 2 take no packets but those of virtual servers";
                self.warn(key, what, report);
                true
            }
            Some(refuses) => refuses,
            None => self.is_on,
        }
    }

    pub(super) fn authentication(
        &self,
        authentication: Option<Authentication>,
        report: &mut Report<'_>,
    ) -> Option<Authentication> {
        if self.is_on && authentication.is_some() {
            self.warn("authentication", "there is none: it is not used", report);
            return None;
        }
        authentication
    }

    pub(super) fn preempt_delay(&self, delay: Duration, report: &mut Report<'_>) -> Duration {
        if self.is_on && !delay.is_zero() {
            self.warn("preempt_delay", "there is none: it is not used", report);
            return Duration::ZERO;
        }
        delay
    }

    pub(super) fn lower_prio_no_advert(
        &self,
        defaults: &Defaults,
        report: &mut Report<'_>,
    ) -> bool {
        let default = defaults.lower_prio_no_advert || self.is_on;
        let wanted = flag(self.table, "lower_prio_no_advert", default, report);
        if self.is_on && !wanted {
            self.warn("lower_prio_no_advert", "it is always true", report);
        }
        self.is_on || wanted
    }

    pub(super) fn higher_prio_send_advert(
        &self,
        defaults: &Defaults,
        report: &mut Report<'_>,
    ) -> bool {
        let key = "higher_prio_send_advert";
        let wanted = flag(self.table, key, defaults.higher_prio_send_advert, report);
        if self.is_on && wanted {
            self.warn(
                key,
                "a master that yields sends no last advertisement",
                report,
            );
        }
        wanted && !self.is_on
    }

    /// What cannot be left out.
    pub(super) fn check(
        &self,
        addresses: &[VirtualAddress],
        peers: &[Peer],
        report: &mut Report<'_>,
    ) {
        if !self.is_on {
            return;
        }
        if !peers.is_empty() {
            let what = "unicast_peer goes beyond the RFC; it is followed all the same";
            self.warn("unicast_peer", what, report);
        }
        let first = addresses.first().map(|first| first.address);
        if let Some(IpAddr::V6(first)) = first.filter(|_| !self.is_link_local(addresses)) {
            let value = self.table.get("virtual_ipaddress");
            report.error(
                value.map_or(self.table.at, |value| value.at),
                &self.table.place,
                format_args!("{first} as the first address"),
                "a link-local one in strict_mode (RFC 9568 §5.2.9)",
                "put one before it, such as fe80::51",
            );
        }
    }

    pub(super) fn check_vmac(&self, vmac: Option<&mut Vmac>, report: &mut Report<'_>) {
        if let Some(vmac) = vmac.filter(|vmac| self.is_on && vmac.xmit_base) {
            let what = "advertisements have the virtual router's MAC address";
            self.warn("vmac_xmit_base", what, report);
            vmac.xmit_base = false;
        }
    }

    fn is_link_local(&self, addresses: &[VirtualAddress]) -> bool {
        addresses.first().is_some_and(|first| match first.address {
            IpAddr::V6(first) => first.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        })
    }
}
