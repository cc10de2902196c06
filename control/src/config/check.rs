//! From the document as written to [`Config`]: one file per section.

mod appliance;
mod health;
mod interface;
mod scheduler;
mod virtual_server;
mod vrrp;

use std::path::Path;

use toml::de::DeTable;

use super::diagnostic::Diagnostics;
use super::raw::{Entry, Spec, Table};
use super::report::Report;
use super::{Config, syntax};

/// A configuration that can be used, and what its user should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub config: Config,
    /// All of them are warnings.
    pub warnings: Diagnostics,
}

/// Every section with its keys, in the order of the documentation.
pub(super) static SPECS: [&Spec; 14] = [
    &ROOT,
    &GLOBAL_DEFS,
    &appliance::APPLIANCE,
    &appliance::TIMEOUTS,
    &interface::INTERFACE,
    &vrrp::SCRIPT,
    &vrrp::INSTANCE,
    &vrrp::AUTHENTICATION,
    &virtual_server::VIRTUAL_SERVER,
    &virtual_server::REAL_SERVER,
    &health::PARAMETERS,
    &health::TCP_CHECK,
    &health::HTTP_GET,
    &health::URL,
];

static ROOT: Spec = Spec {
    heading: "the file",
    keys: &[
        "global_defs",
        "appliance",
        "interface",
        "vrrp_script",
        "vrrp_instance",
        "virtual_server",
    ],
    shared: &[],
    unsupported: &[
        "vrrp_sync_group",
        "static_ipaddress",
        "static_routes",
        "static_rules",
        "virtual_server_group",
        "track_file",
        "bfd_instance",
        "SSL",
    ],
};

static GLOBAL_DEFS: Spec = Spec {
    heading: "[global_defs]",
    keys: &["router_id"],
    shared: &[],
    unsupported: &[
        "enable_script_security",
        "notification_email",
        "notification_email_from",
        "script_user",
        "smtp_connect_timeout",
        "smtp_server",
        "vrrp_garp_interval",
        "vrrp_gna_interval",
        "vrrp_skip_check_adv_addr",
        "vrrp_strict",
        "vrrp_version",
    ],
};

/// Checks a configuration in TOML. `path` only names the file in diagnostics.
///
/// # Errors
///
/// Every problem of the text, warnings included, in the order of the text.
pub fn parse(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::new(path, text);
    let repaired = syntax::repair(text, &mut report);
    let (document, _) = DeTable::parse_recoverable(&repaired);
    let config = file(Entry::of_document(&document), &mut report);
    let found = report.finish();
    if found.has_errors() {
        return Err(found);
    }
    Ok(Checked {
        config,
        warnings: found,
    })
}

fn file(document: Entry<'_>, report: &mut Report<'_>) -> Config {
    let root = Table::new(document, String::new(), &ROOT, report);
    let interfaces = interface::interfaces(&root, report);
    let vrrp_scripts = vrrp::scripts(&root, report);
    let vrrp_instances = vrrp::instances(&root, report);
    Config {
        router_id: router_id(&root, report),
        appliance: appliance::appliance(&root, report),
        interfaces,
        vrrp_scripts,
        vrrp_instances,
        virtual_servers: virtual_server::virtual_servers(&root, report),
    }
}

fn router_id(root: &Table<'_>, report: &mut Report<'_>) -> Option<String> {
    let table = subsection(root, "global_defs", &GLOBAL_DEFS, report)?;
    Some(table.get("router_id")?.text(report)?.to_owned())
}

/// A `[section]` that occurs at most once.
fn subsection<'d>(
    parent: &Table<'d>,
    key: &'static str,
    spec: &'static Spec,
    report: &mut Report<'_>,
) -> Option<Table<'d>> {
    let value = parent.get(key)?;
    let Some(entries) = value.raw.as_table() else {
        value.reject("a section", format_args!("write {}", spec.heading), report);
        return None;
    };
    let entry = Entry {
        entries,
        at: value.at,
    };
    Some(Table::new(entry, value.place, spec, report))
}
