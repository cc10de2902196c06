//! What sysfs says of an interface, in the network namespace of this process.

use std::fs;
use std::io;
use std::path::PathBuf;

use dataplane::service::MacAddress;

/// A network interface.
#[derive(Clone, Debug)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub mac: MacAddress,
    /// Longest IP packet in bytes.
    pub mtu: usize,
}

impl Interface {
    /// Looks `name` up and sees that it can send.
    ///
    /// # Errors
    /// There is no such interface, it is down, or it has no Ethernet address.
    pub fn find(name: &str) -> Result<Self, InterfaceError> {
        let read = |what: &str| {
            read(name, what).map_err(|source| {
                if source.kind() == io::ErrorKind::NotFound {
                    InterfaceError::Absent(name.to_owned())
                } else {
                    InterfaceError::Read {
                        path: path(name, what),
                        source,
                    }
                }
            })
        };
        let number = |what: &str| -> Result<u64, InterfaceError> {
            let text = read(what)?;
            let digits = text.strip_prefix("0x");
            digits
                .map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16))
                .map_err(|_| InterfaceError::Read {
                    path: path(name, what),
                    source: io::ErrorKind::InvalidData.into(),
                })
        };
        const ETHERNET: u64 = 1; // ARPHRD_ETHER
        const UP: u64 = 1; // IFF_UP
        let index = u32::try_from(number("ifindex")?).unwrap_or(0);
        let mac = parse_mac(&read("address")?);
        let mac = mac
            .ok()
            .filter(|_| number("type").is_ok_and(|kind| kind == ETHERNET));
        let mac = mac.ok_or_else(|| InterfaceError::NotEthernet(name.to_owned()))?;
        if number("flags")? & UP == 0 {
            return Err(InterfaceError::Down(name.to_owned()));
        }
        let mtu = usize::try_from(number("mtu")?).unwrap_or(usize::MAX);
        Ok(Self {
            name: name.to_owned(),
            index,
            mac,
            mtu,
        })
    }

    /// Queues that it receives by.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn receive_queues(&self) -> Result<u32, InterfaceError> {
        let path = path(&self.name, "queues");
        let entries =
            fs::read_dir(&path).map_err(|source| InterfaceError::Read { path, source })?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let queues = names.filter(|name| name.as_encoded_bytes().starts_with(b"rx-"));
        Ok(u32::try_from(queues.count()).unwrap_or(u32::MAX))
    }

    /// Frames that the interface has sent, by its own count.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn sent(&self) -> Result<u64, InterfaceError> {
        let what = "statistics/tx_packets";
        let error = |source| InterfaceError::Read {
            path: path(&self.name, what),
            source,
        };
        let text = read(&self.name, what).map_err(error)?;
        text.parse()
            .map_err(|_| error(io::ErrorKind::InvalidData.into()))
    }
}

fn path(name: &str, what: &str) -> PathBuf {
    ["/sys/class/net", name, what].iter().collect()
}

fn read(name: &str, what: &str) -> io::Result<String> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(fs::read_to_string(path(name, what))?.trim().to_owned())
}

/// Reads `02:00:00:00:00:01`.
///
/// # Errors
/// A sentence that says how to write it.
pub fn parse_mac(text: &str) -> Result<MacAddress, String> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        *octet = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|part| u8::from_str_radix(part, 16).ok())
            .ok_or("write six hexadecimal octets, such as 02:00:00:00:00:01")?;
    }
    match parts.next() {
        None => Ok(MacAddress(octets)),
        Some(_) => Err("an Ethernet address has six octets".to_owned()),
    }
}

/// The interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    #[error(
        "there is no interface {0:?} here: `ip -br link` lists those of this network namespace"
    )]
    Absent(String),
    #[error("interface {0} is down: `ip link set {0} up`")]
    Down(String),
    #[error("interface {0} is no Ethernet interface")]
    NotEthernet(String),
    #[error("cannot read {path:?}")]
    Read { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_addresses() {
        assert_eq!(
            parse_mac("02:00:ab:CD:00:01"),
            Ok(MacAddress([2, 0, 0xab, 0xcd, 0, 1]))
        );
        for text in [
            "",
            "02:00",
            "02:00:00:00:00:00:00",
            "02-00-00-00-00-00",
            "2:0:0:0:0:1",
            "+2:00:00:00:00:01",
        ] {
            assert!(parse_mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_is_refused_and_the_absent_are_named() {
        assert!(matches!(
            Interface::find("lo"),
            Err(InterfaceError::NotEthernet(_))
        ));
        let error = Interface::find("nope0").unwrap_err();
        assert!(error.to_string().contains("nope0"));
        assert!(matches!(
            Interface::find("../lo"),
            Err(InterfaceError::Absent(_))
        ));
    }
}
