//! One entry of `virtual_ipaddress`: `192.168.1.100/24 dev eth0 label eth0:0`.

use std::net::IpAddr;

use super::super::super::VirtualAddress;
use super::super::super::raw::Value;
use super::super::super::report::Report;
use super::super::interface::is_interface_name;
use crate::routing::scope_of;

/// keepalived's options of an address that this version does not carry out.
const UNSUPPORTED: [&str; 10] = [
    "-nodad",
    "autojoin",
    "brd",
    "broadcast",
    "home",
    "mngtmpaddr",
    "noprefixroute",
    "peer",
    "preferred_lft",
    "use_vmac",
];

const SYNTAX: &str = "ADDRESS[/PREFIX] [dev NAME] [label LABEL] [scope SCOPE] [no_track]";

pub(super) fn virtual_address(
    value: &Value<'_>,
    report: &mut Report<'_>,
) -> Option<VirtualAddress> {
    let text = value.text(report)?;
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let (address, prefix) = match first.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (first, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        value.reject(SYNTAX, r#"write it, such as "192.168.1.100/24""#, report);
        return None;
    };
    let address = value.check_host(address, report)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix_length = match prefix.map(str::parse) {
        None => longest,
        Some(Ok(length)) if (1..=longest).contains(&length) => length,
        Some(_) => {
            let expected = format!("a prefix length of 1 to {longest}");
            value.reject(expected, "correct the number after the \"/\"", report);
            return None;
        }
    };
    let mut result = VirtualAddress {
        address,
        prefix_length,
        interface: None,
        label: None,
        scope: None,
        no_track: false,
    };
    while let Some(option) = words.next() {
        if option == "no_track" {
            result.no_track = true;
        } else {
            read_option(option, words.next(), &mut result, value, report)?;
        }
    }
    Some(result)
}

fn read_option(
    option: &str,
    argument: Option<&str>,
    result: &mut VirtualAddress,
    value: &Value<'_>,
    report: &mut Report<'_>,
) -> Option<()> {
    match (option, argument) {
        ("dev", Some(name)) if is_interface_name(name) => result.interface = Some(name.into()),
        // A label has the length of an interface's name, and a colon.
        ("label", Some(label)) if label.len() <= 15 && result.address.is_ipv4() => {
            result.label = Some(label.into());
        }
        ("label", Some(_)) => {
            value.reject(
                "a label of at most 15 bytes, and of an IPv4 address",
                "shorten or remove it",
                report,
            );
            return None;
        }
        ("scope", Some(name)) => {
            result.scope = scope_of(name);
            if result.scope.is_none() {
                let expected = "global, site, link or host after scope";
                value.reject(expected, format_args!("correct {name:?}"), report);
                return None;
            }
        }
        (option, _) if UNSUPPORTED.contains(&option) => {
            report.unsupported(
                value.at,
                &value.place,
                format_args!("the option {option}"),
                "dev, label, scope and no_track only",
                "remove it",
            );
            return None;
        }
        _ => {
            value.reject(SYNTAX, format_args!("correct or remove {option:?}"), report);
            return None;
        }
    }
    Some(())
}
