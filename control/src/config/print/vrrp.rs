//! The sections of VRRP.

use std::fmt::{self, Write};

use super::super::{
    AuthType, Notify, VirtualAddress, Vmac, VrrpDefaults, VrrpInstance, VrrpScript, VrrpState,
    VrrpSyncGroup,
};
use super::checks::{print_script as print_command, print_user};
use super::notifications::print_alert;
use super::tracks::print_tracks;
use super::{commas, print_ip, print_time, quoted};
use crate::routing::scope_name;
use crate::scripts::Script;
use crate::vrrp::machine::Garp;
use crate::vrrp::packet::{Peer, TTL};

fn print_notify(f: &mut fmt::Formatter<'_>, notify: &Notify) -> fmt::Result {
    let Notify {
        master,
        backup,
        fault,
        stop,
        any,
        smtp_alert,
    } = notify;
    let all = [
        ("notify_master", master),
        ("notify_backup", backup),
        ("notify_fault", fault),
        ("notify_stop", stop),
        ("notify", any),
    ];
    let mut all = all.into_iter();
    all.try_for_each(|(key, script)| print_command(f, key, script.as_ref()))?;
    print_alert(f, "smtp_alert", *smtp_alert)
}

/// Ends the section `[global_defs]`.
pub(super) fn print_defaults(f: &mut fmt::Formatter<'_>, vrrp: &VrrpDefaults) -> fmt::Result {
    let VrrpDefaults {
        startup_delay,
        garp_interval,
    } = vrrp;
    print_time(f, "vrrp_startup_delay", *startup_delay)?;
    print_time(f, "vrrp_garp_interval", *garp_interval)?;
    writeln!(f)
}

pub(super) fn print_script(f: &mut fmt::Formatter<'_>, script: &VrrpScript) -> fmt::Result {
    let VrrpScript {
        name,
        script,
        interval,
        timeout,
        rise,
        fall,
        init_fail,
        weight,
    } = script;
    writeln!(f, "\n[[vrrp_script]]\nname = {}", quoted(name))?;
    let Script { words, user } = script;
    let words = words.iter().map(|word| quoted(word));
    writeln!(f, "script = [{}]", commas(words))?;
    print_user(f, "user", user.as_ref())?;
    print_time(f, "interval", *interval)?;
    print_time(f, "timeout", *timeout)?;
    writeln!(f, "rise = {rise}\nfall = {fall}\ninit_fail = {init_fail}")?;
    writeln!(f, "weight = {weight}")
}

pub(super) fn print_sync_group(f: &mut fmt::Formatter<'_>, group: &VrrpSyncGroup) -> fmt::Result {
    let VrrpSyncGroup {
        name,
        group,
        tracks,
        notify,
    } = group;
    writeln!(f, "\n[[vrrp_sync_group]]\nname = {}", quoted(name))?;
    let members = group.iter().map(|name| quoted(name));
    writeln!(f, "group = [{}]", commas(members))?;
    print_tracks(f, tracks)?;
    print_notify(f, notify)
}

pub(super) fn print_instance(f: &mut fmt::Formatter<'_>, instance: &VrrpInstance) -> fmt::Result {
    let VrrpInstance {
        name,
        state,
        interface,
        vmac,
        version,
        virtual_router_id,
        priority,
        advert_int,
        authentication,
        virtual_ipaddress,
        virtual_ipaddress_excluded,
        virtual_routes,
        virtual_rules,
        no_accept,
        strict_mode,
        nopreempt,
        preempt_delay,
        dont_track_primary,
        mcast_src_ip,
        unicast_src_ip,
        unicast_peer,
        unicast_ttl,
        garp,
        lower_prio_no_advert,
        higher_prio_send_advert,
        tracks,
        notify,
        notify_priority_changes,
    } = instance;
    let state = match state {
        VrrpState::Master => "MASTER",
        VrrpState::Backup => "BACKUP",
    };
    writeln!(f, "\n[[vrrp_instance]]\nname = {}", quoted(name))?;
    writeln!(f, "state = \"{state}\"")?;
    writeln!(f, "interface = {}", quoted(interface))?;
    if let Some(Vmac { name, xmit_base }) = vmac {
        writeln!(f, "use_vmac = {}", quoted(name))?;
        writeln!(f, "vmac_xmit_base = {xmit_base}")?;
    }
    writeln!(f, "version = {}", version.number())?;
    writeln!(f, "virtual_router_id = {virtual_router_id}")?;
    writeln!(f, "priority = {priority}")?;
    print_time(f, "advert_int", *advert_int)?;
    if let Some(authentication) = authentication {
        let password = quoted(&authentication.auth_pass);
        let kind = match authentication.kind {
            AuthType::Pass => "PASS",
            AuthType::Ah => "AH",
        };
        writeln!(
            f,
            "authentication = {{ auth_type = \"{kind}\", auth_pass = {password} }}"
        )?;
    }
    let texts = virtual_ipaddress.iter().map(address_text);
    print_list(f, "virtual_ipaddress", texts)?;
    let texts = virtual_ipaddress_excluded.iter().map(address_text);
    print_list(f, "virtual_ipaddress_excluded", texts)?;
    let texts = virtual_routes.iter().map(ToString::to_string);
    print_list(f, "virtual_routes", texts)?;
    let texts = virtual_rules.iter().map(ToString::to_string);
    print_list(f, "virtual_rules", texts)?;
    writeln!(f, "no_accept = {no_accept}\nstrict_mode = {strict_mode}")?;
    writeln!(f, "nopreempt = {nopreempt}")?;
    print_time(f, "preempt_delay", *preempt_delay)?;
    writeln!(f, "dont_track_primary = {dont_track_primary}")?;
    let sources = [
        ("mcast_src_ip", mcast_src_ip),
        ("unicast_src_ip", unicast_src_ip),
    ];
    for (key, address) in sources {
        if let Some(address) = address {
            print_ip(f, key, *address)?;
        }
    }
    print_list(f, "unicast_peer", unicast_peer.iter().map(peer_text))?;
    if !unicast_peer.is_empty() {
        writeln!(f, "unicast_ttl = {unicast_ttl}")?;
    }
    print_garp(f, garp)?;
    writeln!(f, "lower_prio_no_advert = {lower_prio_no_advert}")?;
    writeln!(f, "higher_prio_send_advert = {higher_prio_send_advert}")?;
    print_tracks(f, tracks)?;
    writeln!(f, "notify_priority_changes = {notify_priority_changes}")?;
    print_notify(f, notify)
}

fn print_garp(f: &mut fmt::Formatter<'_>, garp: &Garp) -> fmt::Result {
    let Garp {
        master_delay,
        master_repeat,
        master_refresh,
        master_refresh_repeat,
        lower_prio_delay,
        lower_prio_repeat,
    } = garp;
    print_time(f, "garp_master_delay", *master_delay)?;
    writeln!(f, "garp_master_repeat = {master_repeat}")?;
    print_time(f, "garp_master_refresh", *master_refresh)?;
    writeln!(f, "garp_master_refresh_repeat = {master_refresh_repeat}")?;
    print_time(f, "garp_lower_prio_delay", *lower_prio_delay)?;
    writeln!(f, "garp_lower_prio_repeat = {lower_prio_repeat}")
}

/// A list of texts, unless it is empty.
pub(super) fn print_list(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    texts: impl Iterator<Item = String>,
) -> fmt::Result {
    let list = commas(texts.map(|text| quoted(&text)));
    if list.is_empty() {
        return Ok(());
    }
    writeln!(f, "{key} = [{list}]")
}

fn peer_text(peer: &Peer) -> String {
    let Peer {
        address,
        min_ttl,
        max_ttl,
    } = peer;
    if (*min_ttl, *max_ttl) == (0, TTL) {
        return address.to_string();
    }
    format!("{address} min_ttl {min_ttl} max_ttl {max_ttl}")
}

fn address_text(address: &VirtualAddress) -> String {
    let VirtualAddress {
        address,
        prefix_length,
        interface,
        label,
        scope,
        no_track,
    } = address;
    let mut text = format!("{address}/{prefix_length}");
    for (option, argument) in [("dev", interface), ("label", label)] {
        if let Some(argument) = argument {
            let _ = write!(text, " {option} {argument}");
        }
    }
    if let Some(scope) = scope.and_then(scope_name) {
        let _ = write!(text, " scope {scope}");
    }
    if *no_track {
        text.push_str(" no_track");
    }
    text
}
