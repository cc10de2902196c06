//! The same by a shell script, for hosts without this program.
//!
//! POSIX sh, iproute2 and the kernel's tunnel modules. What it made it notes in
//! a file, as `up` does, and takes back that alone.

use std::fmt::Write as _;
use std::net::IpAddr;

use dataplane::service::Tunnel;

use super::{Needs, Tunnelled};

/// The part that is the same for every host.
const FUNCTIONS: &str = r#"made=${MADE:-/run/appliance-realserver.made}

hold() { # ADDRESS/LENGTH
    [ -z "$(ip -o address show to "$1")" ] || return 0
    echo "address $1" >>"$made"
    ip address add "$1" dev lo
}

tell() { # PATH BELOW /proc/sys/net/ipv4/conf, VALUE
    file=/proc/sys/net/ipv4/conf/$1
    before=$(cat "$file")
    [ "$before" != "$2" ] || return 0
    echo "setting $1 $before" >>"$made"
    echo "$2" >"$file"
}

# A strict reverse path filter would drop packets of clients.
loosen() { # INTERFACE
    if [ "$(cat "/proc/sys/net/ipv4/conf/$1/rp_filter")" = 1 ] ||
        [ "$(cat /proc/sys/net/ipv4/conf/all/rp_filter)" = 1 ]; then
        tell "$1/rp_filter" 2
    fi
}

device() { # MODULE DEVICE
    modprobe "$1"
    [ -z "$(ip link show dev "$2" up)" ] || return 0
    echo "device $2" >>"$made"
    ip link set dev "$2" up
}

gue() { # 4|6 PORT
    if [ "$1" = 4 ]; then modprobe fou; else modprobe fou6; fi
    [ -z "$(ip "-$1" fou show | grep -w "port $2")" ] || return 0
    echo "gue $1 $2" >>"$made"
    ip "-$1" fou add port "$2" gue
}

down() {
    [ -f "$made" ] || return 0
    while read -r what name value; do
        case $what in
        address) ip address del "$name" dev lo || true ;;
        setting) echo "$value" >"/proc/sys/net/ipv4/conf/$name" || true ;;
        device) ip link set dev "$name" down || true ;;
        gue) ip "-$name" fou del port "$value" || true ;;
        esac
    done <"$made"
    rm -f "$made"
}
"#;

/// A script that takes `up` or `down`. `file` is only named in a comment.
#[must_use]
pub(crate) fn script(needs: &Needs, file: &str) -> String {
    let servers: Vec<String> = needs.servers.iter().map(IpAddr::to_string).collect();
    let mut text = format!(
        "#!/bin/sh\n\
         # Makes this host the real server {} of {}.\n\
         # By `appliance realserver script`. Needs root and iproute2. Usage: up | down\n\
         set -eu\n{FUNCTIONS}\nup() {{\n",
        servers.join(", "),
        // A line break would end the comment.
        file.replace(|c: char| c.is_control(), "?"),
    );
    for step in steps(needs) {
        let _ = writeln!(text, "    {step}");
    }
    text.push_str(
        "}\n\n\
         case ${1-} in\n\
         up) up ;;\n\
         down) down ;;\n\
         *)\n    \
             echo \"usage: $0 up|down\" >&2\n    \
             exit 2\n    \
             ;;\n\
         esac\n",
    );
    text
}

fn steps(needs: &Needs) -> Vec<String> {
    let mut steps = Vec::new();
    if needs.receives_v4() {
        for link in ["all", "lo"] {
            steps.push(format!("tell {link}/arp_ignore 1"));
            steps.push(format!("tell {link}/arp_announce 2"));
        }
        for server in &needs.servers {
            steps.push(format!(
                "for interface in $(ip -o address show to {server} | awk '{{ print $2 }}'); do"
            ));
            steps.push("    loosen \"$interface\"".to_owned());
            steps.push("done".to_owned());
        }
    }
    for &one in &needs.tunnelled {
        let (module, device) = device(one);
        let mut more = vec![format!("device {module} {device}")];
        if one.inner_is_v4 {
            more.push(format!("loosen {device}"));
        }
        if let Tunnel::Gue { port } = one.end.tunnel {
            let version = if one.end.address.is_ipv4() { 4 } else { 6 };
            more.push(format!("gue {version} {port}"));
        }
        // Several tunnels may share a device.
        more.retain(|step| !steps.contains(step));
        steps.extend(more);
    }
    for address in &needs.virtuals {
        let length = if address.is_ipv4() { 32 } else { 128 };
        steps.push(format!("hold {address}/{length}"));
    }
    steps.extend(needs.ranges.iter().map(|range| {
        format!("# {range}: make the range local by `ip route add local PREFIX dev lo`")
    }));
    if !needs.translated.is_empty() {
        steps.push("# NAT: the default route has to lead to the director".to_owned());
    }
    if steps.iter().all(|step| step.starts_with('#')) {
        steps.push(":".to_owned());
    }
    steps
}

/// The module, and the device in it that takes packets of any sender.
fn device(one: Tunnelled) -> (&'static str, &'static str) {
    match (one.end.tunnel, one.end.address.is_ipv4(), one.inner_is_v4) {
        (Tunnel::Ipip | Tunnel::Gue { .. }, true, true) => ("ipip", "tunl0"),
        (Tunnel::Ipip | Tunnel::Gue { .. }, true, false) => ("sit", "sit0"),
        (Tunnel::Ipip | Tunnel::Gue { .. }, false, _) => ("ip6_tunnel", "ip6tnl0"),
        (Tunnel::Gre, true, _) => ("ip_gre", "gre0"),
        (Tunnel::Gre, false, _) => ("ip6_gre", "ip6gre0"),
    }
}
