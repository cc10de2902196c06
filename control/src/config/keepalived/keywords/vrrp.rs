//! VRRP instances, scripts and groups.

use super::Kind::{Addresses, Lines, Routing, Section, WordList};
use super::Shape::{
    Command, Escaped, Flag, FlagOrWords, Number, Script, Text, Time, Weight, Words,
};
use super::{Block, ignored, keyword, refused, silent, value};

const PRIORITY: &str = "a changed priority alone is not written to the FIFO";
const NOTIFY: &str = "no script is run when the state changes";
const MAIL: &str = "no mail is sent";
const VMAC: &str = "addresses on other interfaces have the MAC addresses of those";
const EXTRA_INTERFACES: &str = "the interfaces of the addresses are announced on, no others";
const PROCESS: &str = "it is about keepalived's own processes, files and buffers";
const POLLING: &str = "the kernel tells when a link goes down";

pub(super) static VRRP_SCRIPT: Block = Block {
    name: "vrrp_script",
    heading: "[[vrrp_script]]",
    keywords: &[
        value("script", Command),
        value("interval", Time),
        value("timeout", Time).or_warn("a script may take as long as its interval"),
        value("weight", Weight),
        value("rise", Number).or_warn("one success is enough"),
        value("fall", Number).or_refuse("a script would count as failed after one failure"),
        value("init_fail", Flag)
            .or_warn("a script counts as one that succeeds until it has failed"),
        value("user", Words).or_warn("scripts run as the appliance's user"),
    ],
    shared: &[],
};

pub(super) static TRACK_FILE: Block = Block {
    name: "track_file",
    heading: "[[track_file]]",
    keywords: &[
        value("file", Text),
        value("weight", Weight),
        value("init_file", FlagOrWords),
    ],
    shared: &[],
};

pub(super) static TRACK_PROCESS: Block = Block {
    name: "vrrp_track_process",
    heading: "[[vrrp_track_process]]",
    keywords: &[
        value("process", Command),
        value("param_match", Text),
        value("weight", Weight),
        value("quorum", Number),
        value("quorum_max", Number),
        value("fork_delay", Time),
        value("terminate_delay", Time),
        value("delay", Time),
        value("full_command", Flag),
    ],
    shared: &[],
};

pub(super) static SYNC_GROUP: Block = Block {
    name: "vrrp_sync_group",
    heading: "[[vrrp_sync_group]]",
    keywords: &[
        keyword("group", WordList),
        keyword("track_interface", Lines),
        keyword("track_script", Lines),
        keyword("track_file", Lines),
        keyword("track_process", Lines),
        refused("track_bfd", "there is no BFD"),
        value("notify_master", Script).or_warn(NOTIFY),
        value("notify_backup", Script).or_warn(NOTIFY),
        value("notify_fault", Script).or_warn(NOTIFY),
        value("notify_stop", Script).or_warn(NOTIFY),
        value("notify", Script).or_warn(NOTIFY),
        value("notify_priority_changes", Flag).or_warn(PRIORITY),
        value("smtp_alert", Flag).or_warn(MAIL),
        value("global_tracking", Flag).named("sync_group_tracking_weight"),
        value("sync_group_tracking_weight", Flag),
    ],
    shared: &[],
};

pub(super) static VRRP_INSTANCE: Block = Block {
    name: "vrrp_instance",
    heading: "[[vrrp_instance]]",
    keywords: &[
        value("state", Text),
        value("interface", Text),
        value("virtual_router_id", Number),
        value("priority", Number),
        value("advert_int", Time),
        value("version", Number),
        keyword("authentication", Section(&AUTHENTICATION)),
        keyword("virtual_ipaddress", Addresses),
        keyword("virtual_ipaddress_excluded", Addresses),
        value("nopreempt", Flag),
        // Its opposite, which is the default.
        silent("preempt"),
        value("accept", Flag),
        value("no_accept", Flag),
        value("preempt_delay", Time),
        value("down_timer_adverts", Number),
        value("dont_track_primary", Flag),
        keyword("track_interface", Lines),
        keyword("track_script", Lines),
        keyword("track_file", Lines),
        keyword("track_process", Lines),
        refused("track_bfd", "there is no BFD"),
        value("track_src_ip", Flag).or_warn("the source address is not watched"),
        value("mcast_src_ip", Text),
        value("mcast_dst_ip", Text),
        value("unicast_src_ip", Text),
        keyword("unicast_peer", Lines),
        value("unicast_ttl", Number),
        value("unicast_fault_no_peer", Flag)
            .or_warn("an instance without unicast_peer speaks multicast"),
        value("check_unicast_src", Flag)
            .or_warn("unicast advertisements of strangers are always dropped"),
        value("old_unicast_checksum", Words).or_refuse("checksums are those of RFC 5798"),
        value("garp_master_delay", Time),
        value("garp_master_repeat", Number),
        value("garp_master_refresh", Time),
        value("garp_master_refresh_repeat", Number),
        value("garp_lower_prio_delay", Time),
        value("garp_lower_prio_repeat", Number),
        ignored("garp_extra_if", EXTRA_INTERFACES),
        ignored("vmac_garp_intvl", EXTRA_INTERFACES),
        value("lower_prio_no_advert", Flag),
        value("higher_prio_send_advert", Flag),
        value("skip_check_adv_addr", Flag)
            .or_warn("the addresses of an advertisement are always compared; it costs nothing"),
        value("strict_mode", Flag),
        value("notify_master", Script).or_warn(NOTIFY),
        value("notify_backup", Script).or_warn(NOTIFY),
        value("notify_fault", Script).or_warn(NOTIFY),
        value("notify_stop", Script).or_warn(NOTIFY),
        value("notify_deleted", Script)
            .or_warn("an instance that a reload removes is told of as FAULT, keepalived's default"),
        value("notify_master_rx_lower_pri", Script)
            .or_warn("no script is run when an advertisement of a lower priority comes"),
        value("notify", Script).or_warn(NOTIFY),
        value("notify_priority_changes", Flag).or_warn(PRIORITY),
        value("smtp_alert", Flag).or_warn(MAIL),
        value("use_vmac", FlagOrWords),
        ignored("use_vmac_addr", VMAC),
        value("vmac_xmit_base", Flag),
        refused(
            "use_ipvlan",
            "the addresses are placed on the interface itself",
        ),
        refused("vrf", "routing domains are not known"),
        keyword("virtual_routes", Routing),
        keyword("virtual_rules", Routing),
        ignored(
            "promote_secondaries",
            "set the interface's sysctl promote_secondaries",
        ),
        ignored(
            "lvs_sync_daemon_interface",
            "connections are not synchronised: after a failover clients connect again",
        ),
        ignored("linkbeat_use_polling", POLLING),
        silent("native_ipv6"),
        ignored("kernel_rx_buf_size", PROCESS),
        ignored("debug", PROCESS),
    ],
    shared: &[],
};

static AUTHENTICATION: Block = Block {
    name: "authentication",
    heading: "authentication",
    keywords: &[value("auth_type", Text), value("auth_pass", Escaped)],
    shared: &[],
};
