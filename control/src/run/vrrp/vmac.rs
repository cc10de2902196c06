//! What the kernel is told about a macvlan beside its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use tracing::{error, info, warn};

use super::super::Appliance;
use super::super::effects::say_failure;

/// The note on a macvlan because of which `arp_ignore` of the interface below was set: it is there while
/// the macvlan is up, so that the next start knows what one that was killed could not put back.
const NOTE: &str = "appliance set arp_ignore of the interface below, it was 0";

/// Interfaces whose `arp_ignore` was changed because of macvlans above them.
#[derive(Debug, Default)]
pub(in super::super) struct Quieted {
    /// What it was before, and who is up.
    bases: BTreeMap<String, (String, BTreeSet<String>)>,
}

impl Quieted {
    /// The interface below must not answer for addresses that are on the macvlan: its MAC address would
    /// be another. Nor the macvlan for those below. The note for the macvlan is returned.
    fn raise(&mut self, name: &str, base: &str) -> &'static str {
        write("ipv4", name, "arp_ignore", "1");
        write("ipv4", name, "rp_filter", "0");
        // No link-local address of its own, which every director would have.
        write("ipv6", name, "addr_gen_mode", "1");
        if let Some((before, up)) = self.bases.get_mut(base) {
            up.insert(name.to_owned());
            return note(before);
        }
        let before = fs::read_to_string(path("ipv4", base, "arp_ignore"));
        let before = before.unwrap_or_default().trim().to_owned();
        if before == "0" {
            write("ipv4", base, "arp_ignore", "1");
        }
        let note = note(&before);
        let up = BTreeSet::from([name.to_owned()]);
        self.bases.insert(base.to_owned(), (before, up));
        note
    }

    fn lower(&mut self, name: &str, base: &str) {
        let Some((before, up)) = self.bases.get_mut(base) else {
            return;
        };
        up.remove(name);
        if up.is_empty() {
            if before == "0" {
                write("ipv4", base, "arp_ignore", "0");
            }
            self.bases.remove(base);
        }
    }
}

fn note(before: &str) -> &'static str {
    if before == "0" { NOTE } else { "" }
}

fn path(version: &str, interface: &str, name: &str) -> std::path::PathBuf {
    let conf = Path::new("/proc/sys/net").join(version).join("conf");
    conf.join(interface).join(name)
}

fn write(version: &str, interface: &str, name: &str, value: &str) {
    let path = path(version, interface, name);
    // A kernel without IPv6.
    if version == "ipv6" && !path.exists() {
        return;
    }
    if let Err(error) = fs::write(&path, value) {
        let path = path.display();
        warn!("use_vmac: cannot set {path} to {value}: {error}: set it yourself");
    }
}

impl Appliance {
    /// A macvlan is to be there, above the interface with an index.
    pub(in super::super) async fn add_vmac(&mut self, name: &str, base: u32, mac: [u8; 6]) {
        match self.requests.add_vmac(name, base, mac).await {
            Ok(Some(note)) if note == NOTE => {
                let Ok(below) = nix::net::if_::if_indextoname(base) else {
                    return; // It is gone, and its settings with it.
                };
                let below = below.to_string_lossy();
                info!("{name} is what a killed director left: arp_ignore of {below} is 0 again");
                write("ipv4", &below, "arp_ignore", "0");
            }
            Ok(_) => {}
            Err(error) => error!("{error}"),
        }
    }

    /// A macvlan is to be up, or down.
    pub(in super::super) async fn set_vmac(&mut self, name: &str, base: &str, up: bool) {
        let note = if up {
            self.quieted.raise(name, base)
        } else {
            ""
        };
        say_failure(self.requests.set_vmac(name, up, note).await);
        if !up {
            self.quieted.lower(name, base);
        }
    }
}
