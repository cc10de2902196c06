//! The keys of `[global_defs]` about being told of changes.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::super::raw::{Table, Value};
use super::super::report::Report;
use super::super::{Fifo, Mail, MailServer, Notifications};
use super::scripts::script;
use crate::scripts::ScriptUser;

/// The keys of each FIFO: its own, and that of the script that reads it.
const FIFOS: [(&str, &str); 3] = [
    ("notify_fifo", "notify_fifo_script"),
    ("vrrp_notify_fifo", "vrrp_notify_fifo_script"),
    ("lvs_notify_fifo", "lvs_notify_fifo_script"),
];

/// keepalived's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
/// What says something about mails only.
const WITHOUT_ADDRESS: [&str; 3] = ["notification_email_from", "smtp_server", "smtp_alert"];

pub(super) fn notifications(table: &Table<'_>, report: &mut Report<'_>) -> Notifications {
    let mut seen = Vec::new();
    let [fifo, vrrp_fifo, lvs_fifo] = FIFOS.map(|keys| {
        let known = fifo(table, keys, report)?;
        let (value, fifo) = known;
        if seen.contains(&fifo.path) {
            value.reject(
                "another path than that of the other FIFOs",
                "choose another, or use notify_fifo for both",
                report,
            );
        }
        seen.push(fifo.path.clone());
        Some(fifo)
    });
    Notifications {
        fifo,
        vrrp_fifo,
        lvs_fifo,
        mail: mail(table, report),
    }
}

fn fifo<'d>(
    table: &Table<'d>,
    (key, script_key): (&'static str, &'static str),
    report: &mut Report<'_>,
) -> Option<(Value<'d>, Fifo)> {
    let reader = table.get(script_key);
    let script = reader.as_ref().and_then(|value| script(value, report));
    let Some(value) = table.get(key) else {
        if let Some(reader) = reader {
            report.error(
                reader.at,
                &table.place,
                format_args!("{script_key} without {key}"),
                "both or neither",
                format_args!("add {key} = \"/run/appliance/notify.fifo\""),
            );
        }
        return None;
    };
    let text = value.text(report)?;
    let mut words = text.split_whitespace();
    let (path, user, group, more) = (words.next(), words.next(), words.next(), words.next());
    let path = path.map(Path::new).filter(|path| path.is_absolute());
    let Some(path) = path.filter(|path| path.file_name().is_some() && more.is_none()) else {
        value.reject(
            "an absolute path, perhaps a user and a group",
            r#"write them so: "/run/appliance/notify.fifo" or "/run/appliance/notify.fifo USER GROUP""#,
            report,
        );
        return None;
    };
    let owner = user.map(|user| ScriptUser {
        user: user.to_owned(),
        group: group.map(str::to_owned),
    });
    let path = path.to_owned();
    Some((
        value,
        Fifo {
            path,
            owner,
            script,
        },
    ))
}

fn mail(table: &Table<'_>, report: &mut Report<'_>) -> Option<Mail> {
    let from = table.get("notification_email_from");
    let from = from.and_then(|value| mail_address(&value, report));
    let helo_name = table.get("smtp_helo_name");
    let helo_name = helo_name.and_then(|value| mail_word(&value, report));
    let server = table.get("smtp_server");
    let server = server.and_then(|value| mail_server(&value, report));
    let connect_timeout = table.get("smtp_connect_timeout");
    let connect_timeout = connect_timeout.and_then(|value| value.time(&TIMEOUT, report));
    let mut flag = |key| table.get(key).and_then(|value| value.boolean(report));
    let (alert, alert_vrrp) = (flag("smtp_alert"), flag("smtp_alert_vrrp"));
    let alert_checker = flag("smtp_alert_checker");
    let no_email_faults = flag("no_email_faults").unwrap_or(false);
    let Some(addresses) = table.get("notification_email") else {
        let mut unused = WITHOUT_ADDRESS.into_iter();
        if let Some(unused) = unused.find_map(|key| table.get(key)) {
            let message = "there is no notification_email: no mails are sent";
            report.warning(unused.at, &unused.place, message);
        }
        return None;
    };
    let mut to = Vec::new();
    for address in addresses.list(report)? {
        to.extend(mail_address(&address, report));
    }
    Some(Mail {
        to,
        from,
        server: server.unwrap_or_default(),
        helo_name,
        connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        alert,
        alert_vrrp,
        alert_checker,
        no_email_faults,
    })
}

/// An address of a person, of `NAME <ADDRESS>` the address alone.
fn mail_address(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = value.raw.as_str().unwrap_or_default().trim_end();
    let Some((name, address)) = text.strip_suffix('>').and_then(|text| text.split_once('<')) else {
        return mail_word(value, report);
    };
    if !is_mail_word(address) || name.contains(['<', '>', ',']) {
        return mail_word(value, report);
    }
    let message = format!("mails have the address {address} without a name");
    report.warning(value.at, &value.place, message);
    Some(address.to_owned())
}

fn is_mail_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b',');
    !text.is_empty() && text.bytes().all(is_plain)
}

/// An address of a person or the name of a host, as it is sent to the server.
fn mail_word(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = value.text(report)?;
    if !is_mail_word(text) {
        value.reject(
            "one word of ASCII characters without < > and ,",
            "write the bare address or name, such as admin@example.com",
            report,
        );
        return None;
    }
    Some(text.to_owned())
}

/// `"HOST"` or `"HOST PORT"`
fn mail_server(value: &Value<'_>, report: &mut Report<'_>) -> Option<MailServer> {
    let mut words = value.text(report)?.split_whitespace();
    let host = words.next().map(str::to_owned);
    let port = words.next().map_or(Some(25), |word| word.parse().ok());
    match (host, port, words.next()) {
        (Some(host), Some(port @ 1..), None) => Some(MailServer { host, port }),
        (_, _, _) => {
            value.reject(
                "an address or a name, perhaps a port",
                r#"write them so: "192.0.2.25" or "mail.example.com 587""#,
                report,
            );
            None
        }
    }
}
