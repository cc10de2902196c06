//! Answering `show vrrp`.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::Appliance;
use crate::api::view;
use crate::vrrp::machine::{Fault, Statistics};
use crate::vrrp::router::{Instance, RefusalCount};

impl Appliance {
    pub(in super::super) fn show_vrrp(&self) -> view::Vrrp {
        let router = self.controller.router();
        let now = Instant::now();
        let instances = router.instances().iter().map(|instance| {
            let group = router.group_of(&instance.config().name);
            show(instance, group.map(|group| group.name.clone()), now)
        });
        view::Vrrp {
            instances: instances.collect(),
            refused: refused(router.refused()),
            timer_slip: self.slip.summary(),
        }
    }
}

fn show(instance: &Instance, sync_group: Option<String>, now: Instant) -> view::VrrpInstance {
    let (config, machine) = (instance.config(), instance.machine());
    let since = machine.since();
    let milliseconds = config.advert_int.as_millis();
    let Statistics {
        adverts_sent,
        adverts_received,
        became_master,
        released_master,
        priority_zero_sent,
        priority_zero_received,
        late_adverts,
    } = machine.statistics();
    let addresses = config.held();
    view::VrrpInstance {
        name: config.name.clone(),
        state: machine.state().as_str().into(),
        since_seconds: since.map_or(0, |since| now.saturating_duration_since(since).as_secs()),
        faults: machine.faults().map(Fault::to_string).collect(),
        interface: config.interface.clone(),
        version: config.version.number(),
        virtual_router_id: config.virtual_router_id,
        priority: machine.priority(),
        configured_priority: config.priority,
        advert_int_milliseconds: u64::try_from(milliseconds).unwrap_or(u64::MAX),
        sync_group,
        source: machine.primary(),
        master: machine.master().map(|(address, _)| address),
        master_priority: machine.master().map(|(_, priority)| priority),
        addresses: addresses
            .map(|held| format!("{}/{}", held.address, held.prefix_length))
            .collect(),
        adverts_sent_total: adverts_sent,
        adverts_received_total: adverts_received,
        became_master_total: became_master,
        released_master_total: released_master,
        priority_zero_sent_total: priority_zero_sent,
        priority_zero_received_total: priority_zero_received,
        late_adverts_total: late_adverts,
        refused: refused(instance.refused()),
    }
}

fn refused(by_reason: &BTreeMap<&'static str, RefusalCount>) -> Vec<view::VrrpRefused> {
    let by_reason = by_reason.iter();
    let show = |(reason, refused): (&&'static str, &RefusalCount)| view::VrrpRefused {
        reason: (*reason).into(),
        total: refused.total,
        last: refused.last,
    };
    by_reason.map(show).collect()
}
