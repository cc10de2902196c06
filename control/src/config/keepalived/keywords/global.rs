//! The top of the file, and `global_defs`.

use super::Kind::{Group, Named, Section, Timeouts, VirtualServer, WordList};
use super::Shape::{Escaped, Flag, Number, Script, Text, Time, Words};
use super::vrrp::{SYNC_GROUP, TRACK_FILE, TRACK_PROCESS, VRRP_INSTANCE, VRRP_SCRIPT};
use super::{Block, ignored, keyword, refused, silent, value};

const MAIL: &str = "no mail is sent";
const NAMESPACE: &str = "start the appliance in the namespace: ip netns exec NAME appliance run …";
const SYSTEM: &str = "set it up with the system's own network configuration";
const SNMP: &str = "there is no SNMP; the same numbers are under /metrics";
const PROCESS: &str = "it is about keepalived's own processes, files and buffers";
const BFD: &str = "there is no BFD";

/// Keywords that stand in no block.
pub(in super::super) static ROOT: Block = Block {
    name: "the file",
    heading: "the file",
    keywords: &[
        keyword("global_defs", Section(&GLOBAL_DEFS)),
        keyword("vrrp_script", Named(&VRRP_SCRIPT)),
        keyword("vrrp_instance", Named(&VRRP_INSTANCE)),
        keyword("vrrp_sync_group", Named(&SYNC_GROUP))
            .or_refuse("instances would fail over one by one"),
        keyword("virtual_server", VirtualServer),
        keyword("virtual_server_group", Group),
        keyword("track_file", Named(&TRACK_FILE)),
        keyword("vrrp_track_file", Named(&TRACK_FILE)).named("track_file"),
        keyword("vrrp_track_process", Named(&TRACK_PROCESS)),
        refused("bfd_instance", BFD),
        ignored("static_ipaddress", SYSTEM),
        ignored("static_routes", SYSTEM),
        ignored("static_rules", SYSTEM),
        ignored(
            "track_group",
            "static addresses are not set, so none is tracked",
        ),
        ignored(
            "garp_group",
            "gratuitous ARP is not slowed down by interface",
        ),
        ignored(
            "interface_up_down_delays",
            "an interface counts as down at once",
        ),
        ignored(
            "linkbeat_interfaces",
            "the kernel tells when a link goes down",
        ),
        ignored(
            "linkbeat_use_polling",
            "the kernel tells when a link goes down",
        ),
        ignored("SSL", "SSL_GET takes any certificate and sends none"),
        refused("net_namespace", NAMESPACE),
        refused("net_namespace_ipvs", NAMESPACE),
        ignored("namespace_with_ipsets", PROCESS),
        ignored("instance", PROCESS),
        ignored("use_pid_dir", PROCESS),
        ignored("child_wait_time", PROCESS),
    ],
    shared: &[],
};

const SYSTEMD: &str = "let the service manager run it";
const FIFO: &str = "no FIFO is written";
const PRIORITY: &str = "a changed priority alone is not written to the FIFO";
const FIREWALL: &str = "no firewall rule is written, and none is needed";

static GLOBAL_DEFS: Block = Block {
    name: "global_defs",
    heading: "[global_defs]",
    keywords: &[
        value("router_id", Text).or_warn("it only names the machine in mails"),
        value("script_user", Words).or_warn("scripts run as the appliance's user"),
        value("enable_script_security", Flag).or_warn("who may write to a script is not looked at"),
        keyword("lvs_timeouts", Timeouts),
        ignored(
            "lvs_sync_daemon",
            "connections are not synchronised: after a failover clients connect again",
        ),
        ignored(
            "lvs_sync_daemon_interface",
            "connections are not synchronised: after a failover clients connect again",
        ),
        silent("lvs_flush"),
        silent("lvs_flush_on_stop"),
        silent("lvs_flush_onstop"),
        value("checker_log_all_failures", Flag).or_warn("the log has changes only"),
        value("rs_init_notifies", Flag)
            .or_warn("notify_up and notify_down are run on changes only"),
        // VRRP: what instances take when they say nothing themselves.
        value("vrrp_version", Number),
        value("vrrp_startup_delay", Time),
        value("vrrp_garp_master_delay", Time),
        value("vrrp_garp_master_repeat", Number),
        value("vrrp_garp_master_refresh", Time),
        value("vrrp_garp_master_refresh_repeat", Number),
        value("vrrp_garp_lower_prio_delay", Time),
        value("vrrp_garp_lower_prio_repeat", Number),
        value("vrrp_garp_interval", Time).or_warn("announcements are sent without a pause"),
        value("vrrp_gna_interval", Time)
            .or_warn("between all announcements there is vrrp_garp_interval"),
        value("vrrp_garp_extra_if", Words)
            .or_warn("the interfaces of the addresses are announced on, no others"),
        value("vrrp_vmac_garp_intvl", Words)
            .or_warn("the interfaces of the addresses are announced on, no others"),
        value("vrrp_min_garp", Flag).or_warn("announcements are sent several times"),
        value("vrrp_lower_prio_no_advert", Flag),
        value("vrrp_higher_prio_send_advert", Flag),
        value("vrrp_down_timer_adverts", Number),
        value("vrrp_mcast_group4", Text),
        value("vrrp_mcast_group6", Text),
        value("vrrp_check_unicast_src", Flag)
            .or_warn("unicast advertisements of strangers are always dropped"),
        value("vrrp_skip_check_adv_addr", Flag)
            .or_warn("the addresses of an advertisement are always compared; it costs nothing"),
        value("vrrp_strict", Flag),
        value("vrrp_notify_priority_changes", Flag).or_warn(PRIORITY),
        value("dynamic_interfaces", Flag)
            .or_warn("interfaces have to exist when the appliance starts"),
        value("default_interface", Text).or_warn("every instance names its interface"),
        value("log_unknown_vrids", Flag).or_warn("advertisements of other routers are not logged"),
        ignored("vrrp_iptables", FIREWALL),
        ignored("vrrp_ipsets", FIREWALL),
        ignored("nftables", FIREWALL),
        ignored("nftables_priority", PROCESS),
        ignored("nftables_counters", PROCESS),
        ignored("nftables_ifindex", PROCESS),
        refused(
            "nftables_ipvs",
            "packets are not marked; write a virtual server for each address",
        ),
        ignored("nftables_ipvs_priority", PROCESS),
        ignored("nftables_ipvs_start_fwmark", PROCESS),
        ignored("disable_local_igmp", "the system's IGMP is left alone"),
        ignored("vmac_prefix", PROCESS),
        ignored("vmac_addr_prefix", PROCESS),
        // Mail, SNMP, D-Bus.
        keyword("notification_email", WordList).or_warn(MAIL),
        value("notification_email_from", Text).or_warn(MAIL),
        value("smtp_server", Words).or_warn(MAIL),
        value("smtp_helo_name", Escaped).or_warn(MAIL),
        value("smtp_connect_timeout", Time).or_warn(MAIL),
        value("smtp_alert", Flag).or_warn(MAIL),
        value("smtp_alert_vrrp", Flag).or_warn(MAIL),
        value("smtp_alert_checker", Flag).or_warn(MAIL),
        value("no_email_faults", Flag).or_warn(MAIL),
        // There is one mail when a server goes up or down, never one for each check.
        silent("no_checker_emails"),
        ignored("snmp_socket", SNMP),
        ignored("enable_snmp_vrrp", SNMP),
        ignored("enable_snmp_checker", SNMP),
        ignored("enable_snmp_keepalived", SNMP),
        ignored("enable_snmp_rfc", SNMP),
        ignored("enable_snmp_rfcv2", SNMP),
        ignored("enable_snmp_rfcv3", SNMP),
        ignored("enable_traps", SNMP),
        ignored(
            "enable_dbus",
            "there is no D-Bus interface; use the control socket",
        ),
        ignored("dbus_service_name", PROCESS),
        // Scripts and FIFOs of the whole process.
        value("notify_fifo", Words).or_warn(FIFO),
        value("notify_fifo_script", Script).or_warn(FIFO),
        value("vrrp_notify_fifo", Words).or_warn(FIFO),
        value("vrrp_notify_fifo_script", Script).or_warn(FIFO),
        value("lvs_notify_fifo", Words).or_warn(FIFO),
        value("lvs_notify_fifo_script", Script).or_warn(FIFO),
        ignored(
            "fifo_write_vrrp_states_on_reload",
            "a reload writes only what changes",
        ),
        ignored("startup_script", SYSTEMD),
        ignored("startup_script_timeout", PROCESS),
        ignored("shutdown_script", SYSTEMD),
        ignored("shutdown_script_timeout", PROCESS),
        ignored(
            "reload_time_file",
            "reload with SIGHUP or appliance reload, from a timer",
        ),
        ignored("reload_repeat", PROCESS),
        ignored(
            "reload_file",
            "no file says that the configuration is being read",
        ),
        // A reload is always checked first, includes are read with their own rules.
        silent("reload_check_config"),
        silent("include_check"),
        ignored("random_seed", PROCESS),
        // Processes, priorities and buffers: this is another program.
        ignored("tmp_config_directory", PROCESS),
        ignored("config_save_dir", PROCESS),
        ignored("data_use_instance", PROCESS),
        ignored("umask", PROCESS),
        ignored("use_pid_dir", PROCESS),
        ignored("process_names", PROCESS),
        ignored("process_name", PROCESS),
        ignored("vrrp_process_name", PROCESS),
        ignored("checker_process_name", PROCESS),
        ignored("bfd_process_name", PROCESS),
        ignored("lvs_process_name", PROCESS),
        ignored("max_auto_priority", PROCESS),
        ignored("min_auto_priority_delay", PROCESS),
        ignored("vrrp_priority", PROCESS),
        ignored("checker_priority", PROCESS),
        ignored("bfd_priority", PROCESS),
        ignored("vrrp_no_swap", PROCESS),
        ignored("checker_no_swap", PROCESS),
        ignored("bfd_no_swap", PROCESS),
        ignored("vrrp_cpu_affinity", PROCESS),
        ignored("checker_cpu_affinity", PROCESS),
        ignored("bfd_cpu_affinity", PROCESS),
        ignored("vrrp_rt_priority", PROCESS),
        ignored("checker_rt_priority", PROCESS),
        ignored("bfd_rt_priority", PROCESS),
        ignored("vrrp_rlimit_rttime", PROCESS),
        ignored("checker_rlimit_rttime", PROCESS),
        ignored("bfd_rlimit_rttime", PROCESS),
        ignored("vrrp_rlimit_rtime", PROCESS),
        ignored("checker_rlimit_rtime", PROCESS),
        ignored("bfd_rlimit_rtime", PROCESS),
        ignored("vrrp_netlink_cmd_rcv_bufs", PROCESS),
        ignored("vrrp_netlink_cmd_rcv_bufs_force", PROCESS),
        ignored("vrrp_netlink_monitor_rcv_bufs", PROCESS),
        ignored("vrrp_netlink_monitor_rcv_bufs_force", PROCESS),
        ignored("lvs_netlink_cmd_rcv_bufs", PROCESS),
        ignored("lvs_netlink_cmd_rcv_bufs_force", PROCESS),
        ignored("lvs_netlink_monitor_rcv_bufs", PROCESS),
        ignored("lvs_netlink_monitor_rcv_bufs_force", PROCESS),
        ignored("process_monitor_rcv_bufs", PROCESS),
        ignored("process_monitor_rcv_bufs_force", PROCESS),
        ignored("vrrp_rx_bufs_policy", PROCESS),
        ignored("vrrp_rx_bufs_multiplier", PROCESS),
    ],
    shared: &[],
};
