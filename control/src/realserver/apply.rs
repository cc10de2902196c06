//! Making what is missing, and taking it back.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use dataplane::bpf::decap::{self, TunnelEnd};
use dataplane::xsk::socket::BindMode;

use super::findings::{OWN_ADDRESS_ONLY, device, is_silent};
use super::host::setting_path;
use super::{Host, Needs, Record, record};
use crate::netlink::{HostLink, NewAddress, Requests};

const LOOPBACK: &str = "lo";

/// Files that outlive the command.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The record of what was made.
    pub state: PathBuf,
    /// A BPF file system, for decapsulators.
    pub bpffs: PathBuf,
}

/// Makes what `needs` names and `host` lacks, and takes back what an earlier
/// `up` made and is no longer needed. `done` gets a line for each thing done; none
/// if everything was there.
///
/// # Errors
///
/// The first step that failed. What was done until then is in the record, and in `done`.
pub(crate) async fn up(
    requests: &Requests,
    needs: &Needs,
    host: &Host,
    places: &Places,
    done: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut work = Work {
        requests,
        state: &places.state,
        record: Record::load(&places.state)?,
        done,
    };
    work.remove_addresses(|made| !needs.virtuals.contains(&made.address))
        .await?;
    // Silence first: nobody may be told of an address that comes next.
    if needs.receives_v4() {
        for link in ["all", LOOPBACK] {
            if !is_silent(host.setting(link, "arp_ignore")) {
                work.set(host, link, "arp_ignore", 1)?;
            }
            if host.setting(link, "arp_announce") != OWN_ADDRESS_ONLY {
                work.set(host, link, "arp_announce", OWN_ADDRESS_ONLY)?;
            }
        }
        for link in host.arrivals(&needs.servers) {
            if host.filters_clients(link) {
                work.set(host, &link.name, "rp_filter", 2)?;
            }
        }
    }
    work.decapsulate(needs, host, &places.bpffs)?;
    for &address in &needs.virtuals {
        if host.holders(address).next().is_none() {
            work.add_address(host, address).await?;
        }
    }
    Ok(())
}

/// Takes back what the record has. `done` gets a line for each thing done.
///
/// # Errors
///
/// The first step that failed; the record still has what is left.
pub(crate) async fn down(
    requests: &Requests,
    state: &Path,
    done: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut work = Work {
        requests,
        state,
        record: Record::load(state)?,
        done,
    };
    work.remove_addresses(|_| true).await?;
    while let Some(made) = work.record.decapsulators.last().cloned() {
        work.release(&made)?;
    }
    while let Some(made) = work.record.settings.last().cloned() {
        work.restore(&made)?;
    }
    Ok(())
}

struct Work<'a> {
    requests: &'a Requests,
    state: &'a Path,
    record: Record,
    done: &'a mut Vec<String>,
}

impl Work<'_> {
    fn save(&self) -> anyhow::Result<()> {
        self.record.save(self.state)
    }

    fn set(
        &mut self,
        host: &Host,
        link: &str,
        name: &'static str,
        value: u32,
    ) -> anyhow::Result<()> {
        let before = host.setting(link, name);
        let settings = &mut self.record.settings;
        // What was there before the first `up` is what `down` goes back to.
        match settings
            .iter_mut()
            .find(|s| s.link == link && s.name == name)
        {
            Some(known) => known.set = value,
            None => settings.push(record::Setting {
                link: link.to_owned(),
                name: name.to_owned(),
                before,
                set: value,
            }),
        }
        self.save()?;
        write_setting(link, name, value)?;
        self.done
            .push(format!("set {link} {name} to {value}, was {before}"));
        Ok(())
    }

    fn restore(&mut self, made: &record::Setting) -> anyhow::Result<()> {
        let record::Setting {
            link,
            name,
            before,
            set,
        } = made;
        let path = setting_path(link, name);
        let now = fs::read_to_string(&path).ok();
        let now: Option<u32> = now.and_then(|text| text.trim().parse().ok());
        match now {
            Some(now) if now == *set => {
                write_setting(link, name, *before)?;
                self.done
                    .push(format!("set {link} {name} back to {before}"));
            }
            Some(now) if now == *before => {}
            Some(now) => {
                let left = format!("left {link} {name} at {now}: somebody changed it since");
                self.done.push(left);
            }
            // The link is gone.
            None => {}
        }
        self.record.settings.pop();
        self.save()
    }

    async fn add_address(&mut self, host: &Host, address: IpAddr) -> anyhow::Result<()> {
        let mut links = host.links.iter();
        let loopback = links
            .find(|link| link.loopback)
            .ok_or_else(|| anyhow!("this host has no loopback interface"))?;
        let prefix_length = if address.is_ipv4() { 32 } else { 128 };
        self.record.addresses.push(record::Address {
            interface: loopback.name.clone(),
            address,
            prefix_length,
        });
        self.save()?;
        let new = NewAddress {
            index: loopback.index,
            address,
            prefix_length,
            label: None,
            scope: None,
            nodad: true,
        };
        self.requests.add_static_address(&new).await?;
        let name = &loopback.name;
        self.done
            .push(format!("added {address}/{prefix_length} to {name}"));
        Ok(())
    }

    async fn remove_addresses(
        &mut self,
        unwanted: impl Fn(&record::Address) -> bool,
    ) -> anyhow::Result<()> {
        let made: Vec<_> = self.record.addresses.clone();
        for made in made.into_iter().rev().filter(|made| unwanted(made)) {
            let record::Address {
                interface,
                address,
                prefix_length,
            } = &made;
            let index = nix::net::if_::if_nametoindex(interface.as_str())
                .with_context(|| format!("no interface {interface}"))?;
            let removed = self
                .requests
                .remove_address(index, *address, *prefix_length);
            if removed.await? {
                let line = format!("removed {address}/{prefix_length} from {interface}");
                self.done.push(line);
            }
            self.record.addresses.retain(|known| *known != made);
            self.save()?;
        }
        Ok(())
    }

    /// One program for each interface that tunnels end at, where the kernel
    /// has no device for them.
    fn decapsulate(&mut self, needs: &Needs, host: &Host, bpffs: &Path) -> anyhow::Result<()> {
        let mut wanted: Vec<(&HostLink, Vec<TunnelEnd>)> = Vec::new();
        for &one in &needs.tunnelled {
            let end = one.end;
            let known = wanted.iter().any(|(_, ends)| ends.contains(&end));
            // Another's decapsulator is as good as one of the record, and an interface has one program.
            let is_others = |link: &HostLink| {
                let mut own = self.record.decapsulators.iter();
                !own.any(|made| made.is_kept() && made.index == link.index)
            };
            let others = host.decapsulator(&end).filter(|link| is_others(link));
            if known || device(host, one).is_some() || others.is_some() {
                continue;
            }
            let (link, _) = host.holders(end.address).next().ok_or_else(|| {
                anyhow!(
                    "no interface has {}, where the tunnel ends: the decapsulator needs one",
                    end.address
                )
            })?;
            match wanted
                .iter_mut()
                .find(|(known, _)| known.index == link.index)
            {
                Some((_, ends)) => ends.push(end),
                None => wanted.push((link, vec![end])),
            }
        }
        let in_words =
            |ends: &[TunnelEnd]| -> Vec<String> { ends.iter().map(TunnelEnd::to_string).collect() };
        let is_right = |made: &record::Decapsulator| {
            made.is_kept()
                && wanted.iter().any(|(link, ends)| {
                    (link.index, &link.name) == (made.index, &made.interface)
                        && link.xdp
                        && in_words(ends) == made.ends
                })
        };
        let known = self.record.decapsulators.clone();
        for made in known.iter().filter(|made| !is_right(made)) {
            self.release(made)?;
        }
        for (link, ends) in &wanted {
            let name = &link.name;
            let mut known = self.record.decapsulators.iter();
            if known.any(|made| made.index == link.index) {
                continue;
            }
            let pin = bpffs.join(format!("appliance-decap-{name}"));
            let attached = decap::attach(link.index, name, BindMode::Auto, ends)?;
            let how = attached.attached().mode;
            self.record.decapsulators.push(record::Decapsulator {
                interface: name.clone(),
                index: link.index,
                pin: pin.clone(),
                ends: in_words(ends),
            });
            // Kept first, recorded after: a record must not name the file of another.
            attached.keep(&pin)?;
            self.save()?;
            let ends = in_words(ends).join(", ");
            self.done.push(format!(
                "attached the decapsulator to {name} ({how}): {ends}"
            ));
        }
        Ok(())
    }

    fn release(&mut self, made: &record::Decapsulator) -> anyhow::Result<()> {
        let released = decap::release(&made.pin)
            .with_context(|| format!("cannot remove {}", made.pin.display()))?;
        if released {
            let name = &made.interface;
            self.done
                .push(format!("detached the decapsulator from {name}"));
        }
        self.record.decapsulators.retain(|known| known != made);
        self.save()
    }
}

fn write_setting(link: &str, name: &str, value: u32) -> anyhow::Result<()> {
    let path = setting_path(link, name);
    fs::write(&path, value.to_string())
        .with_context(|| format!("cannot set {} to {value}", path.display()))
}
