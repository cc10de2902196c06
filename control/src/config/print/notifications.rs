//! The keys of `[global_defs]` about being told of changes.

use std::fmt;

use super::super::{Fifo, Notifications};
use super::checks::{print_script, user_text};
use super::quoted;

pub(super) fn print_notifications(
    f: &mut fmt::Formatter<'_>,
    notifications: &Notifications,
) -> fmt::Result {
    let Notifications {
        fifo,
        vrrp_fifo,
        lvs_fifo,
    } = notifications;
    print_fifo(f, "notify_fifo", fifo.as_ref())?;
    print_fifo(f, "vrrp_notify_fifo", vrrp_fifo.as_ref())?;
    print_fifo(f, "lvs_notify_fifo", lvs_fifo.as_ref())
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
