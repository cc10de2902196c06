//! The keys of `[global_defs]` about being told of changes.

use std::fmt;

use super::super::{Fifo, Mail, Notifications};
use super::checks::{print_script, user_text};
use super::{commas, print_time, quoted};

pub(super) fn print_notifications(
    f: &mut fmt::Formatter<'_>,
    notifications: &Notifications,
) -> fmt::Result {
    let Notifications {
        fifo,
        vrrp_fifo,
        lvs_fifo,
        mail,
    } = notifications;
    print_fifo(f, "notify_fifo", fifo.as_ref())?;
    print_fifo(f, "vrrp_notify_fifo", vrrp_fifo.as_ref())?;
    print_fifo(f, "lvs_notify_fifo", lvs_fifo.as_ref())?;
    mail.as_ref().map_or(Ok(()), |mail| print_mail(f, mail))
}

fn print_fifo(f: &mut fmt::Formatter<'_>, key: &str, fifo: Option<&Fifo>) -> fmt::Result {
    let Some(fifo) = fifo else { return Ok(()) };
    let Fifo {
        path,
        owner,
        script,
    } = fifo;
    let mut text = path.to_string_lossy().into_owned();
    if let Some(owner) = owner {
        text.push(' ');
        text.push_str(&user_text(owner));
    }
    writeln!(f, "{key} = {}", quoted(&text))?;
    print_script(f, &format!("{key}_script"), script.as_ref())
}

fn print_mail(f: &mut fmt::Formatter<'_>, mail: &Mail) -> fmt::Result {
    let Mail {
        to,
        from,
        server,
        helo_name,
        connect_timeout,
        alert,
        alert_vrrp,
        alert_checker,
        no_email_faults,
    } = mail;
    let to = commas(to.iter().map(|address| quoted(address)));
    writeln!(f, "notification_email = [{to}]")?;
    if let Some(from) = from {
        writeln!(f, "notification_email_from = {}", quoted(from))?;
    }
    writeln!(f, "smtp_server = {}", quoted(&server.to_string()))?;
    if let Some(name) = helo_name {
        writeln!(f, "smtp_helo_name = {}", quoted(name))?;
    }
    print_time(f, "smtp_connect_timeout", *connect_timeout)?;
    print_alert(f, "smtp_alert", *alert)?;
    print_alert(f, "smtp_alert_vrrp", *alert_vrrp)?;
    print_alert(f, "smtp_alert_checker", *alert_checker)?;
    writeln!(f, "no_email_faults = {no_email_faults}")
}

/// A flag that may be left to others.
pub(super) fn print_alert(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    alert: Option<bool>,
) -> fmt::Result {
    alert.map_or(Ok(()), |alert| writeln!(f, "{key} = {alert}"))
}
