//! Virtual servers and real servers.

use super::Kind::{FileChecks, Method, RealServer, Sections, SmtpChecks};
use super::Shape::{Address, Flag, Number, Persistence, Script, Text, Upper};
use super::checks::{
    DNS_CHECK, FILE_CHECK, HTTP_GET, MISC_CHECK, PARAMETERS, PING_CHECK, SMTP_CHECK, SSL_GET,
    TCP_CHECK, UDP_CHECK,
};
use super::{Block, ignored, keyword, refused, value};

const MAIL: &str = "no mail is sent";
const NOTIFY: &str = "no script is run";
const NEVER_DOWN: &str = "a server that fails it would stay in use";

pub(in super::super) static VIRTUAL_SERVER: Block = Block {
    name: "virtual_server",
    heading: "[[virtual_server]]",
    keywords: &[
        value("lb_algo", Text),
        value("lvs_sched", Text).named("lb_algo"),
        keyword("lb_kind", Method),
        keyword("lvs_method", Method).named("lb_kind"),
        value("protocol", Upper),
        value("persistence_timeout", Persistence),
        value("persistence_granularity", Number),
        value("persistence_engine", Text),
        value("ops", Flag),
        value("sh-port", Flag),
        value("sh-fallback", Flag),
        value("mh-port", Flag),
        value("mh-fallback", Flag),
        value("flag-1", Flag),
        value("flag-2", Flag),
        value("flag-3", Flag),
        value("hashed", Flag),
        value("ip_family", Text).or_warn("the address tells the IP version"),
        value("inhibit_on_failure", Flag),
        value("virtualhost", Text),
        value("quorum", Number),
        value("hysteresis", Number),
        value("weight", Number),
        value("quorum_up", Script).or_warn(NOTIFY),
        value("quorum_down", Script).or_warn(NOTIFY),
        value("omega", Flag).or_warn("no script is run when the appliance stops"),
        value("sorry_server", Address),
        value("sorry_server_inhibit", Flag),
        keyword("sorry_server_lvs_method", Method),
        value("ha_suspend", Flag).or_warn("servers are checked whoever is master"),
        value("smtp_alert", Flag).or_warn(MAIL),
        ignored("snmp_name", "there is no SNMP"),
        keyword("real_server", RealServer),
    ],
    shared: PARAMETERS,
};

pub(in super::super) static REAL_SERVER: Block = Block {
    name: "real_server",
    heading: "[[virtual_server.real_server]]",
    keywords: &[
        value("weight", Number),
        keyword("lvs_method", Method).named("lb_kind"),
        value("inhibit_on_failure", Flag),
        value("virtualhost", Text),
        value("uthreshold", Number),
        value("lthreshold", Number),
        value("notify_up", Script).or_warn(NOTIFY),
        value("notify_down", Script).or_warn(NOTIFY),
        value("smtp_alert", Flag).or_warn(MAIL),
        ignored("snmp_name", "there is no SNMP"),
        keyword("TCP_CHECK", Sections(&TCP_CHECK)),
        keyword("HTTP_GET", Sections(&HTTP_GET)),
        keyword("SSL_GET", Sections(&SSL_GET)).or_refuse(NEVER_DOWN),
        keyword("SMTP_CHECK", SmtpChecks(&SMTP_CHECK)).or_refuse(NEVER_DOWN),
        keyword("DNS_CHECK", Sections(&DNS_CHECK)).or_refuse(NEVER_DOWN),
        keyword("MISC_CHECK", Sections(&MISC_CHECK)).or_refuse(NEVER_DOWN),
        keyword("PING_CHECK", Sections(&PING_CHECK)).or_refuse(NEVER_DOWN),
        keyword("UDP_CHECK", Sections(&UDP_CHECK)).or_refuse(NEVER_DOWN),
        keyword("FILE_CHECK", FileChecks(&FILE_CHECK)).or_refuse(NEVER_DOWN),
        refused("BFD_CHECK", "there is no BFD"),
    ],
    shared: PARAMETERS,
};
