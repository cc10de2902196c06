//! The values of options: numbers, addresses, masks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::command::{Netmask, Protocol};
use super::names::Names;

/// Longest timeout, in seconds: 31 days.
pub(super) const MAX_TIMEOUT: u32 = 31 * 24 * 3600;

/// A number as `strtol` reads it in base ten: blanks and a sign may come
/// first, nothing may come last.
pub(super) fn number(text: &str, lowest: u32, highest: u32) -> Option<u32> {
    let digits = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u32 = digits.parse().ok()?;
    (lowest..=highest).contains(&number).then_some(number)
}

/// What `host[:port]` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) host: IpAddr,
    pub(super) port: Option<u16>,
}

/// Reads `host[:port]`: addresses or names; an IPv6 address with a port is in
/// square brackets, and what is in brackets must have a port. A number alone is
/// none, though `inet_aton` takes it.
pub(super) fn host_port(text: &str, protocol: Protocol, names: &dyn Names) -> Option<HostPort> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        let port_text = after.strip_prefix(':')?;
        if let Ok(address) = inside.parse::<Ipv6Addr>() {
            return Some(HostPort {
                host: address.into(),
                port: Some(port(port_text, protocol, names)?),
            });
        }
        // ipvsadm takes an IPv4 address here, and forgets the port.
        return Some(HostPort {
            host: ipv4_or_name(inside, names)?,
            port: None,
        });
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(HostPort {
            host: address.into(),
            port: None,
        });
    }
    let (host, port_text) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = ipv4_or_name(host, names)?;
    let port = match port_text {
        Some(text) => Some(port(text, protocol, names)?),
        None => None,
    };
    Some(HostPort { host, port })
}

fn ipv4_or_name(text: &str, names: &dyn Names) -> Option<IpAddr> {
    // What has a scope would be found, without it.
    if text.is_empty() || text.contains('%') {
        return None;
    }
    ipv4(text).map(IpAddr::V4).or_else(|| names.host(text))
}

fn port(text: &str, protocol: Protocol, names: &dyn Names) -> Option<u16> {
    if text.is_empty() {
        return None;
    }
    let number = number(text, 0, u16::MAX.into()).and_then(|port| u16::try_from(port).ok());
    number.or_else(|| names.port(text, protocol))
}

/// An IPv4 address as `inet_aton` reads it: one to four parts, the last of
/// which fills what is left; octal after `0`, hexadecimal after `0x`.
pub(super) fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let (last, first) = parts.split_last()?;
    if first.len() > 3 {
        return None;
    }
    let mut address: u32 = 0;
    for (place, part) in first.iter().enumerate() {
        let byte = u8::try_from(part_of_ipv4(part)?).ok()?;
        address |= u32::from(byte) << (24 - 8 * place);
    }
    let bits = 32 - 8 * u32::try_from(first.len()).ok()?;
    let last = part_of_ipv4(last)?;
    if u64::from(last) >> bits != 0 {
        return None;
    }
    Some((address | last).into())
}

fn part_of_ipv4(text: &str) -> Option<u32> {
    let (digits, radix) =
        if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            (hex, 16)
        } else if text.len() > 1 && text.starts_with('0') {
            (&text[1..], 8)
        } else {
            (text, 10)
        };
    // from_str_radix would take a sign.
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// The netmask of a persistent virtual server.
///
/// # Errors
/// ipvsadm's words.
pub(super) fn netmask(text: &str, ipv6: bool) -> Result<Netmask, &'static str> {
    if ipv6 {
        let length = number(text, 1, 128).and_then(|length| u8::try_from(length).ok());
        return length
            .map(Netmask::Ipv6)
            .ok_or("illegal ipv6 netmask specified");
    }
    ipv4(text)
        .map(Netmask::Ipv4)
        .ok_or("illegal virtual server persistent mask specified")
}

#[cfg(test)]
mod tests {
    use super::super::names::Few;
    use super::*;

    #[test]
    fn numbers_as_strtol_reads_them() {
        assert_eq!(number("010", 0, 100), Some(10));
        assert_eq!(number(" +7", 0, 100), Some(7));
        for text in [
            "",
            "-1",
            "1x",
            "0x10",
            "101",
            "99999999999",
            "+",
            "+ 1",
            "1 ",
        ] {
            assert_eq!(number(text, 0, 100), None, "{text:?}");
        }
    }

    #[test]
    fn addresses_as_inet_aton_reads_them() {
        for (text, address) in [
            ("192.168.1.1", [192, 168, 1, 1]),
            ("1.2.3", [1, 2, 0, 3]),
            ("1.65535", [1, 0, 255, 255]),
            ("0x1.010.0.1", [1, 8, 0, 1]),
            ("16909060", [1, 2, 3, 4]),
        ] {
            assert_eq!(ipv4(text), Some(address.into()), "{text}");
        }
        for text in [
            "",
            "1.2.3.400",
            "1..2",
            "1.2.3.4.5",
            "08.1.1.1",
            "1.+2.3.4",
            "a",
        ] {
            assert_eq!(ipv4(text), None, "{text}");
        }
    }

    #[test]
    fn hosts_and_ports() {
        let read = |text| host_port(text, Protocol::Tcp, &Few);
        let is = |host: &str, port| {
            Some(HostPort {
                host: host.parse().unwrap(),
                port,
            })
        };
        assert_eq!(read("1.1.1.1:80"), is("1.1.1.1", Some(80)));
        assert_eq!(read("1.1.1.1:http"), is("1.1.1.1", Some(80)));
        assert_eq!(read("1.1.1.1"), is("1.1.1.1", None));
        assert_eq!(read("localhost:0"), is("127.0.0.1", Some(0)));
        assert_eq!(read("[2001:db8::1]:443"), is("2001:db8::1", Some(443)));
        assert_eq!(read("2001:db8::1:80"), is("2001:db8::1:80", None));
        assert_eq!(read("[1.1.1.1]:80"), is("1.1.1.1", None));
        assert_eq!(read("80:80"), is("0.0.0.80", Some(80)));
        for text in [
            "",
            ":80",
            "1.1.1.1:",
            "1.1.1.1:65536",
            "1.1.1.1:80:90",
            "1.1.1.1:nosuch",
            "nosuch:80",
            "[2001:db8::1]",
            "[2001:db8::1",
            "[2001:db8::1]80",
            "[localhost%lo]:80",
            "80",
            "16909060",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
