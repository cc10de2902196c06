//! From the document as written to [`Config`]: one file per section.

mod appliance;
mod health;
mod interface;
mod limits;
mod notifications;
mod scheduler;
mod scripts;
mod service_options;
mod syn_proxy;
mod virtual_server;
mod vrrp;

use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::diagnostic::Diagnostics;
use super::pieces::{Known, Pieces};
use super::place::Place;
use super::raw::{Entry, Spec, Table};
use super::report::Report;
use super::{Config, syntax};

pub(super) use health::CONNECTION;

/// A configuration that can be used, and what its user should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub config: Config,
    /// All of them are warnings.
    pub warnings: Diagnostics,
    /// What was read, if that helps to read a changed one, see [`Known`].
    pub text: Option<Arc<str>>,
}

/// Every section with its keys, in the order of the documentation.
pub(super) static SPECS: [&Spec; 26] = [
    &ROOT,
    &GLOBAL_DEFS,
    &appliance::APPLIANCE,
    &appliance::TIMEOUTS,
    &interface::INTERFACE,
    &vrrp::SCRIPT,
    &vrrp::TRACK_FILE,
    &vrrp::TRACK_PROCESS,
    &vrrp::INSTANCE,
    &vrrp::AUTHENTICATION,
    &vrrp::SYNC_GROUP,
    &virtual_server::VIRTUAL_SERVER,
    &virtual_server::REAL_SERVER,
    &health::PARAMETERS,
    &health::CONNECTION,
    &health::TCP_CHECK,
    &health::SSL_GET,
    &health::HTTP_GET,
    &health::URL,
    &health::UDP_CHECK,
    &health::DNS_CHECK,
    &health::SMTP_CHECK,
    &health::PING_CHECK,
    &health::MISC_CHECK,
    &health::FILE_CHECK,
    &SCRIPT,
];

static ROOT: Spec = Spec {
    heading: "the file",
    keys: &[
        "global_defs",
        "appliance",
        "interface",
        "vrrp_script",
        "track_file",
        "vrrp_track_process",
        "vrrp_instance",
        "vrrp_sync_group",
        "virtual_server",
    ],
    shared: &[],
    unsupported: &[
        "static_ipaddress",
        "static_routes",
        "static_rules",
        "virtual_server_group",
        "bfd_instance",
        "SSL",
    ],
};

/// A script with its own user, as a table.
static SCRIPT: Spec = Spec {
    heading: "script",
    keys: &["script", "user"],
    shared: &[],
    unsupported: &[],
};

static GLOBAL_DEFS: Spec = Spec {
    heading: "[global_defs]",
    keys: &[
        "router_id",
        "script_user",
        "enable_script_security",
        "notify_fifo",
        "notify_fifo_script",
        "vrrp_notify_fifo",
        "vrrp_notify_fifo_script",
        "lvs_notify_fifo",
        "lvs_notify_fifo_script",
        "notification_email",
        "notification_email_from",
        "smtp_server",
        "smtp_helo_name",
        "smtp_connect_timeout",
        "smtp_alert",
        "smtp_alert_vrrp",
        "smtp_alert_checker",
        "no_email_faults",
        "vrrp_version",
        "vrrp_startup_delay",
        "vrrp_garp_interval",
        "vrrp_garp_master_delay",
        "vrrp_garp_master_repeat",
        "vrrp_garp_master_refresh",
        "vrrp_garp_master_refresh_repeat",
        "vrrp_garp_lower_prio_delay",
        "vrrp_garp_lower_prio_repeat",
        "vrrp_lower_prio_no_advert",
        "vrrp_higher_prio_send_advert",
        "vrrp_notify_priority_changes",
        "vrrp_strict",
    ],
    shared: &[],
    unsupported: &[
        "vrrp_gna_interval",
        "vrrp_mcast_group4",
        "vrrp_mcast_group6",
        "vrrp_skip_check_adv_addr",
    ],
};

/// Checks a configuration in TOML. `path` only names the file in diagnostics.
///
/// # Errors
///
/// Every problem of the text, warnings included, in the order of the text.
pub fn parse(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    in_pieces(text, path, None).unwrap_or_else(|| whole(text, path))
}

/// The same, sparing what is known from an earlier text.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_after(text: &str, path: &Path, known: Option<&Known>) -> Result<Checked, Diagnostics> {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(text);
    match in_pieces(bare, path, known) {
        Some(Ok(checked)) => Ok(checked),
        // Messages may name lines of what was not read.
        Some(Err(_)) | None => parse(text, path),
    }
}

/// `None`: the file has to be read as a whole.
pub(super) fn in_pieces(
    text: &str,
    path: &Path,
    known: Option<&Known>,
) -> Option<Result<Checked, Diagnostics>> {
    let mut pieces = Pieces::of(text);
    if let Some(known) = known {
        pieces = pieces.with(known);
    }
    let rest = pieces.rest();
    let document = DeTable::parse(&rest).ok()?;
    if !pieces.are_those_of(document.get_ref()) {
        return None;
    }
    let mut report = Report::new(path, text);
    let config = file(Entry::of_document(&document), &mut pieces, &mut report);
    if pieces.are_wrong() {
        return None;
    }
    let mut result = finished(config, report);
    if let Ok(checked) = &mut result {
        // What there is to say about a text is said each time that it is read.
        let is_clean = checked.warnings.is_empty();
        checked.text = is_clean.then(|| Arc::from(text));
    }
    Some(result)
}

pub(super) fn whole(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    let mut report = Report::new(path, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return checked(Entry::of_document(&document), report);
    }
    let repaired = syntax::repair(text, &mut report);
    let (document, _) = DeTable::parse_recoverable(&repaired);
    checked(Entry::of_document(&document), report)
}

/// Checks a document that is read; `report` has what was found wrong with its syntax.
///
/// # Errors
///
/// Everything that was found.
pub(super) fn checked(document: Entry<'_>, mut report: Report<'_>) -> Result<Checked, Diagnostics> {
    let config = file(document, &mut Pieces::none(), &mut report);
    finished(config, report)
}

fn finished(config: Config, report: Report<'_>) -> Result<Checked, Diagnostics> {
    let found = report.finish();
    if found.has_errors() {
        return Err(found);
    }
    Ok(Checked {
        config,
        warnings: found,
        text: None,
    })
}

fn file(document: Entry<'_>, pieces: &mut Pieces<'_>, report: &mut Report<'_>) -> Config {
    let root = Table::new(document, Place::default(), &ROOT, report);
    let interfaces = interface::interfaces(&root, report);
    let vrrp_scripts = vrrp::scripts(&root, report);
    let track_files = vrrp::track_files(&root, report);
    let track_processes = vrrp::track_processes(&root, report);
    let global = subsection(&root, "global_defs", &GLOBAL_DEFS, report);
    let scripts = global.as_ref().map(|table| scripts::policy(table, report));
    let notifications = global
        .as_ref()
        .map(|table| notifications::notifications(table, report));
    let defaults = global.as_ref().map(|table| vrrp::defaults(table, report));
    let defaults = defaults.unwrap_or_default();
    let mut vrrp_instances = vrrp::instances(&root, &defaults, report);
    let vrrp_sync_groups = vrrp::sync_groups(
        &root,
        &mut vrrp_instances,
        &vrrp_scripts,
        &track_files,
        report,
    );
    let virtual_servers = virtual_server::virtual_servers(&root, pieces, report);
    Config {
        router_id: global.as_ref().and_then(|table| router_id(table, report)),
        scripts: scripts.unwrap_or_default(),
        notifications: notifications.unwrap_or_default(),
        vrrp: defaults.vrrp,
        appliance: appliance::appliance(&root, &virtual_servers, report),
        interfaces,
        vrrp_scripts,
        track_files,
        track_processes,
        vrrp_instances,
        vrrp_sync_groups,
        virtual_servers,
    }
}

fn router_id(global: &Table<'_>, report: &mut Report<'_>) -> Option<String> {
    Some(global.get("router_id")?.text(report)?.to_owned())
}

/// A `[section]` that occurs at most once.
fn subsection<'d>(
    parent: &Table<'d>,
    key: &'static str,
    spec: &'static Spec,
    report: &mut Report<'_>,
) -> Option<Table<'d>> {
    let value = parent.get(key)?;
    let Some(entry) = value.entry() else {
        value.reject("a section", format_args!("write {}", spec.heading), report);
        return None;
    };
    Some(Table::new(entry, value.place, spec, report))
}
