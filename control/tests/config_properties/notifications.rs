//! Who is told of changes.

use control::config::{Fifo, Notifications};
use proptest::option;
use proptest::prelude::*;

use super::health::{script, script_user};

pub(super) fn notifications() -> impl Strategy<Value = Notifications> {
    (fifo("all"), fifo("vrrp"), fifo("lvs")).prop_map(|(fifo, vrrp_fifo, lvs_fifo)| Notifications {
        fifo,
        vrrp_fifo,
        lvs_fifo,
    })
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
