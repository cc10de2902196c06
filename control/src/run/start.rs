//! From nothing to forwarding: what is checked and made, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use dataplane::service::MacAddress;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::clients::Page;
use super::company::Company;
use super::descriptors;
use super::effects::announce_on;
use super::interfaces::{self, Interface, Link};
use super::notifier::{self, Notifier};
use super::pace::Pace;
use super::systemd;
use super::threads::Cpus;
use super::vrrp::{Quieted, Scripts, Slip, Sockets};
use super::workers::Workers;
use super::{Appliance, Options, RESOLVE_AT_START, Signals, unpublished};
use crate::announce::{self, Announcer};
use crate::config::{Config, Known};
use crate::controller::{Controller, Port};
use crate::event::{Event, NetworkEvent};
use crate::health::Checker;
use crate::in_words::count;
use crate::netlink::{LeftRouting, Requests};
use crate::scripts::Runner;

/// Builds everything. Dropped, also before it is complete, that leaves nothing behind: no traffic is taken yet.
pub(super) async fn start(
    options: Options,
    cpus: Cpus,
    page: Page,
    events: &mut mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
) -> anyhow::Result<Appliance> {
    let Options {
        file,
        config,
        text,
        socket,
    } = options;
    let config = Arc::new(config);
    let requests = Requests::open().context("cannot talk to the kernel's network tables")?;
    let announcer = Announcer::open()?;
    let company = Company::join();
    let known = first_dump(events).await?;
    let links = interfaces::links(&known);
    let interfaces = interfaces::choose(&config.interfaces, &links, &[])?;
    let ports: Vec<Port> = interfaces.iter().map(Interface::port).collect();
    let mut controller = Controller::new(Arc::clone(&config), ports);
    for event in known {
        // Nothing is wanted yet, so nothing is to be done either.
        controller.handle(Event::Network(event), Instant::now());
    }
    refuse_unknown_interfaces(&config, controller.ports())?;
    refuse_addresses_in_use(&controller, &config, controller.ports()).await?;
    let published = unpublished();
    let cores = cpus.for_workers(&config.appliance.cores)?;
    let workers = Workers::start(&interfaces, &cores, &config.appliance, &published)?;
    // Not before: an appliance that still runs and has the interfaces needs them.
    let is_alone = company.is_alone();
    if is_alone {
        controller.own_all_marked();
    }
    let own = own_links(&config, controller.ports(), &links);
    let within = (!is_alone).then_some(&own);
    match requests.remove_left_routing(within).await {
        Ok(left) => say_left_routing(left),
        Err(error) => warn!("{error}"),
    }
    if let Some(port) = &workers.way_back {
        controller.use_way_back(port.clone());
    }
    let runner = Runner::new(config.scripts.clone());
    notifier::complain(&runner, &config);
    descriptors::make_room(&config);
    let scripts = Scripts::new(runner.clone(), sender.clone());
    let mut appliance = Appliance {
        file,
        socket,
        known: text.map(|text| Known {
            config: Arc::clone(&config),
            text,
        }),
        controller,
        published,
        retained: VecDeque::new(),
        snapshot_pace: Pace::new(Instant::now()),
        route_pace: Pace::new(Instant::now()),
        cpus,
        page,
        workers,
        used: None,
        requests,
        _company: company,
        checker: Checker::new(sender, runner.clone()),
        notifier: Notifier::new(runner.clone()),
        runner,
        announcer: Arc::new(announcer),
        announcing: JoinSet::new(),
        to_announce: Vec::new(),
        vrrp: Sockets::default(),
        slip: Slip::new(),
        scripts,
        quieted: Quieted::default(),
        announcing_instances: BTreeMap::new(),
        ticks: 0,
        is_watched: false,
    };
    appliance.set_macs(|_| true);
    appliance.notifier.take_up(&config);
    Ok(appliance)
}

/// Takes the traffic and says `ready`; or a signal came before that, and what it is.
///
/// A signal is heeded between steps only: the controller believes that what it wanted is done, so that actions
/// which are cut off halfway would leave addresses behind that it knows nothing of.
pub(super) async fn take_traffic(
    appliance: &mut Appliance,
    events: &mut mpsc::Receiver<Event>,
    signals: &mut Signals,
) -> Option<&'static str> {
    let actions = appliance.controller.start(Instant::now());
    appliance.carry_out(actions).await;
    appliance.listen_to_vrrp();
    appliance.take_up_scripts();
    appliance.settle();
    let signal = wait_for_next_hops(appliance, events, signals).await;
    if signal.is_none() {
        say_ready(appliance.controller.config());
    }
    signal
}

/// Everything that the kernel has, up to the end of the first dump.
async fn first_dump(events: &mut mpsc::Receiver<Event>) -> anyhow::Result<Vec<NetworkEvent>> {
    let mut known = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Network(NetworkEvent::RoutesChanged) => return Ok(known),
            Event::Network(event) => known.push(event),
            Event::Health { .. }
            | Event::Route { .. }
            | Event::Routes { .. }
            | Event::Vrrp(_)
            | Event::Tick => {}
        }
    }
    bail!("cannot read the kernel's network tables")
}

/// The interfaces in use, and the macvlans above them.
fn own_links(config: &Config, ports: &[Port], links: &[Link]) -> BTreeSet<u32> {
    let instances = config.vrrp_instances.iter();
    let vmacs: BTreeSet<_> = instances
        .filter_map(|instance| Some(instance.vmac.as_ref()?.name.as_str()))
        .collect();
    let vmacs = links.iter().filter(|link| vmacs.contains(&*link.name));
    let ports = ports.iter().map(|port| port.index);
    ports.chain(vmacs.map(|link| link.index)).collect()
}

fn say_left_routing(LeftRouting { removed, spared }: LeftRouting) {
    if removed != 0 {
        info!("removed {removed} routes and rules that a killed appliance left behind");
    }
    if spared != 0 {
        info!(
            "another appliance runs in this network namespace, and what may be its stays: {spared} routes and rules \
             with our mark, which do not lead over an interface in use here"
        );
    }
}

/// Interfaces that a `vrrp_instance` names must be among those in use.
pub(super) fn refuse_unknown_interfaces(config: &Config, ports: &[Port]) -> anyhow::Result<()> {
    for instance in &config.vrrp_instances {
        let others = instance
            .held()
            .filter_map(|address| address.interface.as_ref());
        for name in others.chain([&instance.interface]) {
            if !ports.iter().any(|port| port.name == *name) {
                let used: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
                bail!(
                    "vrrp_instance {}: interface {name}: not among the interfaces in use, which are {}",
                    instance.name,
                    used.join(", ")
                );
            }
        }
    }
    Ok(())
}

/// Asks the network for every address that is about to be taken.
///
/// # Errors
/// Other hosts have some of them.
pub(super) fn refuse_addresses_in_use(
    controller: &Controller,
    config: &Config,
    ports: &[Port],
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    // Whether another director has what VRRP manages is VRRP's to find out.
    let nobody = BTreeSet::new();
    let addresses = controller.addresses();
    let plan = addresses.plan(config, ports, &nobody);
    let mut probes = JoinSet::new();
    for port in ports.iter().filter(|port| port.up) {
        let missing = addresses.missing(&plan);
        let wanted = missing.filter(|wanted| wanted.index == port.index);
        let wanted: Vec<IpAddr> = wanted.map(|wanted| wanted.address).collect();
        let interface = announce_on(port);
        probes.spawn(async move {
            let answers = announce::probe(&interface, &wanted).await;
            (interface.name, answers)
        });
    }
    nobody_answers(probes)
}

/// An interface, and who has which address there.
type Probed = (
    String,
    Result<BTreeMap<IpAddr, MacAddress>, announce::Error>,
);

async fn nobody_answers(mut probes: JoinSet<Probed>) -> anyhow::Result<()> {
    while let Some(probed) = probes.join_next().await {
        let (interface, answers) = probed?;
        match answers.map(|mut claimed| claimed.pop_first()) {
            Ok(None) => {}
            Ok(Some((address, mac))) => bail!(
                "address {address} is in use on {interface} by the host with MAC address {mac}: \
                 stop it there, or if that is a real server, keep it from answering ARP for the address \
                 (arp_ignore=1, arp_announce=2)"
            ),
            Err(error) => warn!("cannot find out whether an address is in use: {error}"),
        }
    }
    Ok(())
}

/// Traffic can flow when the way to the real servers is known; those that are
/// not there are not waited for. A signal to stop ends it, and is returned.
async fn wait_for_next_hops(
    appliance: &mut Appliance,
    events: &mut mpsc::Receiver<Event>,
    signals: &mut Signals,
) -> Option<&'static str> {
    let deadline = tokio::time::Instant::now() + RESOLVE_AT_START;
    let unresolved = |controller: &Controller| {
        let next_hops = controller.next_hops();
        next_hops
            .destinations()
            .filter(|address| next_hops.next_hop(*address).is_err())
            .count()
    };
    while unresolved(&appliance.controller) > 0 {
        let event = tokio::select! {
            event = events.recv() => event,
            signal = signals.stop() => return Some(signal),
            () = tokio::time::sleep_until(deadline) => None,
        };
        let Some(event) = event else { break };
        appliance.handle(event).await;
        while let Ok(event) = events.try_recv() {
            appliance.handle(event).await;
        }
        appliance.ask_for_routes_in_time().await;
        appliance.settle_in_time();
    }
    appliance.settle();
    let next_hops = appliance.controller.next_hops();
    for address in next_hops.destinations() {
        if let Err(why) = next_hops.next_hop(address) {
            warn!(
                "real server {address}: next hop {}: packets for it wait until it is known",
                why.as_str()
            );
        }
    }
    None
}

fn say_ready(config: &Config) {
    let status = status(config);
    info!("{status}");
    // A log that cannot be written is no reason not to serve.
    let _ = writeln!(io::stderr(), "ready");
    systemd::ready(&status);
}

/// How much there is to do, in words.
pub(super) fn status(config: &Config) -> String {
    let services = &config.virtual_servers;
    let servers = services.iter().map(|service| service.real_servers.len());
    format!(
        "{}, {}",
        count(services.len(), "virtual server"),
        count(servers.sum(), "real server")
    )
}
