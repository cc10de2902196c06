//! Who is told of changes.

use control::config::{Fifo, Mail, MailServer, Notifications};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::health::{script, script_user};
use super::time;

pub(super) fn notifications() -> impl Strategy<Value = Notifications> {
    let all = (fifo("all"), fifo("vrrp"), fifo("lvs"), option::of(mail()));
    all.prop_map(|(fifo, vrrp_fifo, lvs_fifo, mail)| Notifications {
        fifo,
        vrrp_fifo,
        lvs_fifo,
        mail,
    })
}

/// `smtp_alert`
pub(super) fn alert() -> impl Strategy<Value = Option<bool>> {
    option::of(any::<bool>())
}

/// `name` keeps the paths of a configuration apart.
fn fifo(name: &'static str) -> impl Strategy<Value = Option<Fifo>> {
    let path = "[a-zü/]{0,8}".prop_map(move |middle| format!("/run/{middle}/{name}").into());
    let fifo = (path, option::of(script_user()), option::of(script()));
    option::of(fifo.prop_map(|(path, owner, script)| Fifo {
        path,
        owner,
        script,
    }))
}

fn mail() -> impl Strategy<Value = Mail> {
    let word = || "[a-z\"=@.]{1,12}";
    let server = ("[a-z0-9.:]{1,12}", 1_u16..).prop_map(|(host, port)| MailServer { host, port });
    let alerts = (alert(), alert(), alert(), any::<bool>());
    let names = (option::of(word()), option::of(word()));
    (vec(word(), 1..4), names, server, time(), alerts).prop_map(
        |(to, (from, helo_name), server, connect_timeout, alerts)| Mail {
            to,
            from,
            server,
            helo_name,
            connect_timeout,
            alert: alerts.0,
            alert_vrrp: alerts.1,
            alert_checker: alerts.2,
            no_email_faults: alerts.3,
        },
    )
}
