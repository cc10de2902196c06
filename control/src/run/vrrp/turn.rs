//! The control loop's part in VRRP.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use dataplane::service::MacAddress;
use tracing::warn;

use super::super::Appliance;
use super::super::effects::announce_on;
use super::{Place, Sender};
use crate::announce::{Announcement, Schedule};
use crate::config::AuthType;
use crate::controller::Port;
use crate::event::{Action, Event, VrrpEvent};
use crate::vrrp::packet::Datagram;

/// How long packets are still forwarded after another director took over: it
/// adds the addresses and announces them after its first advertisement.
const AFTER_HAND_OVER: Duration = Duration::from_millis(200);
/// What is added to that for each address: of a thousand the last one may be announced long after the first.
const FOR_EACH_ADDRESS: Duration = Duration::from_millis(1);

/// Until a time, or for ever.
pub(in super::super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Appliance {
    pub(in super::super) async fn datagram(&mut self, index: u32, datagram: Datagram) {
        let event = VrrpEvent::Datagram { index, datagram };
        self.handle(Event::Vrrp(event)).await;
    }

    /// The time has come that the instances of VRRP asked for.
    pub(in super::super) async fn vrrp_timer(&mut self) {
        let actions = self.vrrp_due();
        self.carry_out(actions).await;
    }

    pub(in super::super) fn is_vrrp_due(&self) -> bool {
        let due = self.controller.router().deadline();
        due.is_some_and(|due| due <= Instant::now())
    }

    /// What the instances want now. First they see what has come in before.
    fn vrrp_due(&mut self) -> Vec<Action> {
        let due = self.controller.router().deadline();
        let slip = due.map_or(Duration::ZERO, |due| due.elapsed());
        self.slip.record(slip);
        let mut actions = Vec::new();
        for (index, datagram) in self.vrrp.drain() {
            let event = Event::Vrrp(VrrpEvent::Datagram { index, datagram });
            actions.extend(self.controller.handle(event, Instant::now()));
        }
        let late = self.controller.router().late_adverts();
        let event = Event::Vrrp(VrrpEvent::Timer);
        actions.extend(self.controller.handle(event, Instant::now()));
        if self.controller.router().late_adverts() > late {
            warn!(
                "VRRP: an advertisement is late by {slip:.1?}, more than half its interval: \
                 this thread was not scheduled, or had too much to do"
            );
        }
        actions
    }

    /// The same while `actions` are carried out that take long, as the addition of thousands of
    /// addresses: advertisements go out at once, everything else waits for its turn.
    pub(in super::super) fn vrrp_in_between(&mut self, actions: &mut VecDeque<Action>) {
        if !self.is_vrrp_due() {
            return;
        }
        for action in self.vrrp_due() {
            actions.extend(self.send_if_advert(action));
        }
    }

    /// Sends an advertisement; gives every other action back.
    pub(in super::super) fn send_if_advert(&mut self, action: Action) -> Option<Action> {
        let Action::SendAdvert {
            instance: _,
            index,
            source,
            destination,
            message,
            with_header,
            ttl,
        } = action
        else {
            return Some(action);
        };
        let from = Sender {
            index,
            source,
            with_header,
            ttl,
        };
        self.vrrp.send(from, destination, &message);
        None
    }

    /// Has a socket wherever an instance may be spoken to.
    pub(in super::super) fn listen_to_vrrp(&mut self) {
        let router = self.controller.router();
        let mut places = BTreeSet::new();
        for instance in router.instances() {
            let config = instance.config();
            let Some(index) = router.index(config) else {
                continue;
            };
            // A macvlan that is up has what comes from the MAC address of the virtual router to itself.
            let vmac = config.vmac.as_ref().filter(|vmac| router.is_up(&vmac.name));
            let vmac = vmac.and_then(|vmac| Some((&vmac.name, router.index_of(&vmac.name)?)));
            let router_id = vmac.map(|_| config.virtual_router_id);
            let (interface, own_index) = vmac.unwrap_or((&config.interface, index));
            let place = |with_header| Place {
                index,
                interface: interface.clone(),
                own_index,
                router: router_id,
                is_ipv4: config.is_ipv4(),
                with_header,
            };
            places.insert(place(false));
            let authentication = config.authentication.as_ref();
            if authentication.is_some_and(|a| a.kind == AuthType::Ah) {
                places.insert(place(true));
            }
        }
        self.vrrp.listen(&places);
    }

    /// Announces everything that an instance holds, from the beginning if it
    /// is being announced already.
    pub(in super::super) fn announce_instance(&mut self, instance: String, repeat: u32) {
        let known = self.controller.router().instance(&instance);
        let interface = known.map(|known| known.config().interface.clone());
        let held = self.controller.addresses().of_instance(&instance);
        let announcements: Vec<_> = held
            .filter_map(|wanted| {
                let mut ports = self.controller.ports().iter();
                let below = |port: &&Port| Some(&port.name) == interface.as_ref();
                let port = match wanted.mac {
                    Some(_) => ports.find(below)?,
                    None => ports.find(|port| port.index == wanted.index)?,
                };
                let mut interface = announce_on(port);
                interface.mac = wanted.mac.map_or(interface.mac, MacAddress);
                Some(Announcement {
                    interface,
                    address: wanted.address,
                })
            })
            .collect();
        let schedule = Schedule {
            repeat,
            delay: Duration::ZERO,
            interval: self.controller.config().vrrp.garp_interval,
        };
        let announced = self.announcer.announce(announcements, schedule);
        let task = self.announcing.spawn(async move {
            if let Err(error) = announced.await {
                warn!("{error}");
            }
        });
        if let Some(before) = self.announcing_instances.insert(instance, task) {
            before.abort();
        }
    }

    /// Does something that takes a while, and nothing but VRRP meanwhile:
    /// silence would cost the addresses.
    pub(in super::super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                (index, datagram) = self.vrrp.receive() => self.datagram(index, datagram).await,
                () = until(self.controller.router().deadline()) => self.vrrp_timer().await,
            }
        }
    }

    /// In the middle of long work: what VRRP has to do by now. Nothing else happens meanwhile.
    pub(in super::super) async fn give_way(&mut self) {
        if self.is_vrrp_due() {
            self.vrrp_timer().await;
        }
    }

    /// Gives up being master, once another has taken over or nobody does.
    /// The workers go on for a moment: not every packet goes the new way yet.
    pub(in super::super) async fn stop_vrrp(&mut self) {
        let held = self.controller.held_by_masters();
        let actions = self.controller.stop_vrrp(Instant::now());
        self.carry_out(actions).await;
        let was_master = !self.controller.router().has_stopped();
        while !self.controller.router().has_stopped() {
            tokio::select! {
                (index, datagram) = self.vrrp.receive() => self.datagram(index, datagram).await,
                () = until(self.controller.router().deadline()) => self.vrrp_timer().await,
            }
        }
        if was_master {
            tokio::time::sleep(AFTER_HAND_OVER + FOR_EACH_ADDRESS * held).await;
        }
    }
}
