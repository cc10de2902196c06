//! Virtual servers: their addresses, and what keepalived takes when the file
//! does not say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::super::place::Place;
use super::super::super::raw::shorten;
use super::super::keywords::{REAL_SERVER, VIRTUAL_SERVER};
use super::super::tree::Statement;
use super::super::words::Word;
use super::value::PERSISTENCE;
use super::{Known, Mapper, push, put, table, text};

/// Of a range of a `virtual_server_group`.
const MOST_ADDRESSES: u128 = 256;

/// An address and where it is.
struct Address {
    text: String,
    at: usize,
}

impl Address {
    fn is_every_port(&self) -> bool {
        let address = self.text.parse::<SocketAddr>();
        address.is_ok_and(|address| address.port() == 0)
    }
}

impl<'d> Mapper<'d, '_, '_> {
    /// One virtual server for each address.
    pub(super) fn virtual_servers(&mut self, known: Known<'d, '_>, target: &mut DeTable<'d>) {
        let Some((statements, _)) = self.inner(known) else {
            return;
        };
        let Some((place, addresses)) = self.addresses(known) else {
            return;
        };
        // As in keepalived, one of a group is enough.
        let is_every_port = addresses.iter().any(Address::is_every_port);
        for address in addresses {
            let mut server = DeTable::new();
            let written = text(address.at, address.text);
            put(&mut server, "address", address.at, written);
            self.block(statements, &VIRTUAL_SERVER, &place, &mut server);
            self.defaults(known.at(), &place, &mut server);
            self.persistence(known.at(), &place, is_every_port, &mut server);
            self.reset_ports(&place, &mut server);
            let at = known.at();
            push(target, known.keyword.key, at, table(at, server));
        }
    }

    /// The addresses of `virtual_server`, and its place in messages.
    fn addresses(&mut self, known: Known<'d, '_>) -> Option<(Place<'d>, Vec<Address>)> {
        let first = self.first_word(known)?;
        let second = known.statement.arguments.get(1);
        match (first.text.as_str(), second) {
            ("fwmark", _) => {
                let part = "a virtual server by firewall mark";
                let why = "write one for each address and port";
                self.part_refused(known.at(), known.outer, part, why);
                None
            }
            ("group", Some(name)) => {
                let place = Place::default().named("virtual_server group", name.text.as_str());
                let addresses = self.group(name, &place)?;
                Some((place, addresses))
            }
            ("group", None) => {
                self.report.error(
                    known.at(),
                    known.outer,
                    "group without a name",
                    "one",
                    "add that of a virtual_server_group",
                );
                None
            }
            _ => {
                let address = written(first, second);
                let place = Place::default().named("virtual_server", address.text.clone());
                Some((place, vec![address]))
            }
        }
    }

    fn group(&mut self, name: &Word, place: &Place<'_>) -> Option<Vec<Address>> {
        let named = |group: &&&Statement| {
            let first = group.arguments.first();
            first.is_some_and(|word| word.text == name.text)
        };
        let Some(group) = self.groups.iter().find(named) else {
            self.report.error(
                name.at,
                place,
                format_args!("{:?}", shorten(&name.text)),
                "the name of a virtual_server_group",
                "add the group, or correct the name",
            );
            return None;
        };
        let mut addresses = Vec::new();
        for line in group.block.as_deref().unwrap_or_default() {
            let first = &line.keyword;
            let port = line.arguments.first();
            if first.text == "fwmark" {
                let why = "write its addresses and ports";
                self.part_refused(first.at, place, "a firewall mark", why);
                continue;
            }
            match range(&first.text) {
                Ok(hosts) => addresses.extend(hosts.into_iter().map(|ip| {
                    let host = Word {
                        text: ip.to_string(),
                        at: first.at,
                    };
                    written(&host, port)
                })),
                Err(expected) => self.report.error(
                    first.at,
                    place,
                    format_args!("{:?}", shorten(&first.text)),
                    expected,
                    "correct it",
                ),
            }
        }
        Some(addresses)
    }

    /// keepalived's defaults, where TOML has another or none.
    fn defaults(&mut self, at: usize, place: &Place<'_>, server: &mut DeTable<'d>) {
        if server.get("protocol").is_none() {
            let message = "no protocol: keepalived takes UDP; write it to be sure";
            self.report.warning(at, place, message);
            put(server, "protocol", at, text(at, "UDP"));
        }
        if server.get("lb_kind").is_none() {
            let message = "no lb_kind: keepalived takes NAT; write it to be sure";
            self.report.warning(at, place, message);
            put(server, "lb_kind", at, text(at, "NAT"));
        }
    }

    /// A virtual server of every port is persistent: the connections of an FTP
    /// client, or of a browser to 80 and 443, have to reach one real server.
    /// So is one whose clients are taken together by a granularity.
    fn persistence(
        &mut self,
        at: usize,
        place: &Place<'_>,
        is_every_port: bool,
        server: &mut DeTable<'d>,
    ) {
        let [what, remedy] = if server.get("persistence_timeout").is_some() {
            return;
        } else if is_every_port {
            ["port 0", "write a time, or a port"]
        } else if server.get("persistence_granularity").is_some() {
            ["persistence_granularity", "write a time"]
        } else {
            return;
        };
        let message = format!(
            "{what} without persistence_timeout: as in keepalived it is persistent, for {PERSISTENCE} s; {remedy}"
        );
        self.report.warning(at, place, message);
        if let Ok(timeout) = DeValue::parse(PERSISTENCE) {
            let timeout = Spanned::new(at..at, timeout.into_inner());
            put(server, "persistence_timeout", at, timeout);
        }
    }

    pub(super) fn real_server(&mut self, known: Known<'d, '_>, target: &mut DeTable<'d>) {
        let Some((statements, _)) = self.inner(known) else {
            return;
        };
        let Some(first) = self.first_word(known) else {
            return;
        };
        let port = known.statement.arguments.get(1);
        let address = match (port, port_of(target)) {
            (None, Some(port)) => with_port(first, &port),
            (port, _) => written(first, port),
        };
        let place = known.outer.named("real_server", address.text.clone());
        let mut server = DeTable::new();
        let written = text(address.at, address.text);
        put(&mut server, "address", address.at, written);
        self.block(statements, &REAL_SERVER, &place, &mut server);
        let at = known.at();
        push(target, known.keyword.key, at, table(at, server));
    }

    /// `sorry_server IP [PORT]`
    pub(super) fn address(&mut self, known: Known<'d, '_>) -> Option<Spanned<DeValue<'d>>> {
        let first = self.first_word(known)?;
        let address = written(first, known.statement.arguments.get(1));
        Some(text(address.at, address.text))
    }

    /// With DR and TUN a real server has the virtual server's port whatever
    /// the file says, as in keepalived; a sorry server without a port always.
    fn reset_ports(&mut self, place: &Place<'_>, server: &mut DeTable<'d>) {
        let service = address_of(server);
        let method = |table: &DeTable<'_>| {
            let value = table.get("lb_kind")?.get_ref();
            value.as_str().map(str::to_owned)
        };
        let default = method(server);
        let Some(port) = service.map(|address| address.port()) else {
            return;
        };
        let mut reset = |at: usize, found: u16| {
            if found == 0 {
                return;
            }
            let message = format!(
                "port {found} is taken for {port}, the virtual server's, as in keepalived: DR and TUN do not change ports"
            );
            self.report.warning(at, place, message);
        };
        let keeps_port = |method: Option<String>| matches!(method.as_deref(), Some("DR" | "TUN"));
        if let Some(sorry) = server.get("sorry_server") {
            let at = sorry.span().start;
            let address = sorry.get_ref().as_str().map(str::parse::<SocketAddr>);
            let own = server.get("sorry_server_lvs_method");
            let own = own.and_then(|value| value.get_ref().as_str().map(str::to_owned));
            let method = own.or_else(|| default.clone());
            if let Some(Ok(address)) = address
                && (address.port() == 0 || keeps_port(method))
                && address.port() != port
            {
                reset(at, address.port());
                let same = SocketAddr::new(address.ip(), port).to_string();
                put(server, "sorry_server", at, text(at, same));
            }
        }
        if let Some(DeValue::Array(servers)) = server.get_mut("real_server").map(Spanned::get_mut) {
            for entry in servers.iter_mut() {
                let DeValue::Table(real) = entry.get_mut() else {
                    continue;
                };
                let method = method(real).or_else(|| default.clone());
                let Some(address) = address_of(real).filter(|_| keeps_port(method)) else {
                    continue;
                };
                if address.port() != port {
                    let at = real.get("address").map_or(0, |value| value.span().start);
                    reset(at, address.port());
                    let same = SocketAddr::new(address.ip(), port).to_string();
                    put(real, "address", at, text(at, same));
                }
            }
        }
    }

    /// `DR`, or `TUN type gue port 6080 nocsum`
    pub(super) fn method(&mut self, known: Known<'d, '_>, target: &mut DeTable<'d>) {
        let Some(first) = self.first_word(known) else {
            return;
        };
        self.set(known, target, text(first.at, &first.text));
        let mut options = known.statement.arguments[1..].iter();
        let is_sorry_server = known.keyword.key != "lb_kind";
        while let Some(option) = options.next() {
            let place = known.place();
            match option.text.as_str() {
                "type" | "port" if is_sorry_server => {
                    options.next();
                    let why = "the tunnel is the virtual server's";
                    self.part_refused(option.at, &place, &option.text, why);
                }
                "type" => {
                    if let Some(kind) = options.next() {
                        put(target, "tun_type", kind.at, text(kind.at, &kind.text));
                    }
                }
                "port" => {
                    if let Some(port) = options.next() {
                        let value = DeValue::parse(&port.text).map(Spanned::into_inner);
                        let value = value.ok().filter(DeValue::is_integer);
                        let value =
                            value.unwrap_or_else(|| DeValue::String(port.text.as_str().into()));
                        put(
                            target,
                            "tun_port",
                            port.at,
                            Spanned::new(port.at..port.at, value),
                        );
                    }
                }
                "nocsum" => {}
                "csum" | "remcsum" => {
                    let why = "the tunnel's own checksum is 0";
                    self.part_refused(option.at, &place, &option.text, why);
                }
                other => self.report.error(
                    option.at,
                    &place,
                    format_args!("{:?}", shorten(other)),
                    "a method, and type, port and nocsum after TUN",
                    "remove it",
                ),
            }
        }
    }
}

/// `IP` and `PORT` as TOML writes them; what is no address stays as it is, for
/// `check` to refuse.
fn written(ip: &Word, port: Option<&Word>) -> Address {
    with_port(ip, port.map_or("0", |port| port.text.as_str()))
}

fn with_port(ip: &Word, port: &str) -> Address {
    let text = match ip.text.parse::<Ipv6Addr>() {
        Ok(v6) => format!("[{v6}]:{port}"),
        Err(_) => format!("{}:{port}", ip.text),
    };
    Address { text, at: ip.at }
}

fn address_of(table: &DeTable<'_>) -> Option<SocketAddr> {
    table.get("address")?.get_ref().as_str()?.parse().ok()
}

/// The port in the address of a virtual server, as it was written.
fn port_of(server: &DeTable<'_>) -> Option<String> {
    let address = server.get("address")?.get_ref().as_str()?;
    let (_, port) = address.rsplit_once(':')?;
    Some(port.to_owned())
}

/// `192.168.200.1`, `192.168.200.1-10`, `10.0.0.250-10.0.1.10` or
/// `192.168.202.8/29`, and the same of IPv6.
fn range(text: &str) -> Result<Vec<IpAddr>, String> {
    let expected =
        || "an address, or a range such as 192.168.200.1-10 or 192.168.202.8/29".to_owned();
    let ip = |text: &str| text.parse::<IpAddr>().map_err(|_| expected());
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        let first = ip(first)?;
        (first, last_of(first, last).ok_or_else(expected)?)
    } else if let Some((network, length)) = text.split_once('/') {
        let network = ip(network)?;
        let bits = if network.is_ipv4() { 32 } else { 128 };
        let length: u32 = length.parse().map_err(|_| expected())?;
        let host_bits = u32::checked_sub(bits, length).ok_or_else(expected)?;
        let count = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let first = number(network) & !(count - 1);
        let (first, last) = (first, first.saturating_add(count - 1));
        (
            host(first, network.is_ipv4()),
            host(last, network.is_ipv4()),
        )
    } else {
        let only = ip(text)?;
        (only, only)
    };
    if first.is_ipv4() != last.is_ipv4() || number(first) > number(last) {
        return Err("a range that ends after its start".to_owned());
    }
    if number(last) - number(first) >= MOST_ADDRESSES {
        return Err(format!("at most {MOST_ADDRESSES} addresses"));
    }
    let all = number(first)..=number(last);
    Ok(all.map(|value| host(value, first.is_ipv4())).collect())
}

/// The end of a range: an address, or what replaces the last part of `first`.
fn last_of(first: IpAddr, last: &str) -> Option<IpAddr> {
    if let Ok(last) = last.parse() {
        return Some(last);
    }
    match first {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Some(Ipv4Addr::new(a, b, c, last.parse().ok()?).into())
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, _] = v6.segments();
            let last = u16::from_str_radix(last, 16).ok()?;
            Some(Ipv6Addr::new(a, b, c, d, e, f, g, last).into())
        }
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn host(number: u128, is_v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(v4) if is_v4 => Ipv4Addr::from(v4).into(),
        Ok(_) | Err(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_of_addresses() {
        let shown = |text: &str| {
            let addresses = range(text)?;
            let first = addresses.first().map(ToString::to_string);
            let last = addresses.last().map(ToString::to_string);
            let ends = [first, last].map(Option::unwrap_or_default);
            Ok::<_, String>(format!("{} {} {}", addresses.len(), ends[0], ends[1]))
        };
        let cases = [
            ("192.168.200.1", "1 192.168.200.1 192.168.200.1"),
            ("192.168.200.1-10", "10 192.168.200.1 192.168.200.10"),
            ("10.0.0.250-10.0.1.10", "17 10.0.0.250 10.0.1.10"),
            ("192.168.202.8/29", "8 192.168.202.8 192.168.202.15"),
            ("fe80::1-f", "15 fe80::1 fe80::f"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "10.0.0.9-1",
            "10.0.0.0/8",
            "::/0",
            "10.0.0.1/33",
            "x",
            "10.0.0.1-x",
        ] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
