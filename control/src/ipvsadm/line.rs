//! What the options of one command line say, taken together.

use std::net::SocketAddr;

use super::command::{
    Command, FlagError, List, Method, Netmask, Protocol, SchedulerFlags, ServerSpec, ServiceName,
    ServiceSpec, TunnelChecksum, TunnelType, What,
};
use super::names::Names;
use super::options::Word;
use super::parse::{UsageError, timeout};
use super::validity::{self, Given, Kind};
use super::value;

/// IPVS's default scheduler.
const DEFAULT_SCHEDULER: &str = "wlc";
/// Seconds of persistence when `-p` names none.
const DEFAULT_PERSISTENCE: u32 = 360;

/// What the options said so far.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) given: Given,
    service: Option<ServiceName>,
    scheduler: String,
    /// Names in `-b`, which mean something only with the scheduler.
    flag_names: Vec<String>,
    flags: SchedulerFlags,
    persistent: Option<u32>,
    netmask: Netmask,
    engine: Option<String>,
    server: Option<value::HostPort>,
    method: Forward,
    tunnel: Tunnel,
    tunnel_port: u16,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
}

/// `-g`, `-m` or `-i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forward {
    Gatewaying,
    Masquerading,
    Ipip,
}

/// `--tun-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tunnel {
    Ipip,
    Gue,
    Gre,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            given: Given::default(),
            service: None,
            scheduler: String::new(),
            flag_names: Vec::new(),
            flags: SchedulerFlags::default(),
            persistent: None,
            netmask: Netmask::host(false),
            engine: None,
            server: None,
            method: Forward::Gatewaying,
            tunnel: Tunnel::Ipip,
            tunnel_port: 0,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }
}

impl Line {
    /// Takes note of an option; `None`: the word is a command.
    pub(super) fn take(
        &mut self,
        word: Word,
        text: &str,
        has_text: bool,
        names: &dyn Names,
    ) -> Option<Result<(), UsageError>> {
        let kind = kind(word)?;
        Some(match kind {
            Some(kind) => self
                .given
                .add(kind)
                .and_then(|()| self.set(word, text, has_text, names)),
            None => self.set(word, text, has_text, names),
        })
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other words have no value: that they were given is all"
    )]
    fn set(
        &mut self,
        word: Word,
        text: &str,
        has_text: bool,
        names: &dyn Names,
    ) -> Result<(), UsageError> {
        match word {
            Word::TcpService => self.set_service(Protocol::Tcp, text, names)?,
            Word::UdpService => self.set_service(Protocol::Udp, text, names)?,
            Word::SctpService => self.set_service(Protocol::Sctp, text, names)?,
            Word::FwmarkService => {
                let mark = value::number(text, 1, u32::MAX).ok_or_else(|| {
                    UsageError::new(format!("invalid fwmark value `{text}' specified"))
                })?;
                self.service = Some(ServiceName::Firewall { mark, ipv6: false });
            }
            Word::Ipv6 => match &mut self.service {
                Some(ServiceName::Firewall { ipv6, .. }) => {
                    *ipv6 = true;
                    self.netmask = Netmask::host(true);
                }
                // With ipvsadm's own newline.
                Some(ServiceName::Address { .. }) | None => {
                    return Err(UsageError::new("-6 used before -f\n"));
                }
            },
            Word::Scheduler => self.scheduler = text.chars().take(15).collect(),
            Word::SchedFlags => self.flag_names = text.split(',').map(str::to_owned).collect(),
            Word::Persistent => {
                self.persistent = Some(match has_text {
                    true => timeout(text, 1)?,
                    false => DEFAULT_PERSISTENCE,
                });
            }
            Word::Netmask => {
                let ipv6 = self.service.is_some_and(|service| service.is_ipv6());
                self.netmask = value::netmask(text, ipv6).map_err(UsageError::new)?;
            }
            Word::Engine => self.engine = Some(text.to_owned()),
            Word::RealServer => {
                let protocol = match self.service {
                    Some(ServiceName::Address { protocol, .. }) => protocol,
                    Some(ServiceName::Firewall { .. }) | None => Protocol::Tcp,
                };
                let server = value::host_port(text, protocol, names);
                self.server = Some(server.ok_or_else(|| {
                    UsageError::new("illegal real server address[:port] specified")
                })?);
            }
            Word::Gatewaying => self.method = Forward::Gatewaying,
            Word::Masquerading => self.method = Forward::Masquerading,
            Word::Ipip => self.method = Forward::Ipip,
            Word::TunType => {
                self.tunnel = match text {
                    "ipip" => Tunnel::Ipip,
                    "gue" => Tunnel::Gue,
                    "gre" => Tunnel::Gre,
                    _ => return Err(UsageError::new("illegal tunnel type specified")),
                }
            }
            Word::TunPort => self.tunnel_port = port(text, "illegal tunnel port specified")?,
            Word::Weight => self.weight = whole(text, "illegal weight specified")?,
            Word::UThreshold => {
                self.upper_threshold = whole(text, "illegal u_threshold specified")?;
            }
            Word::LThreshold => {
                self.lower_threshold = whole(text, "illegal l_threshold specified")?;
            }
            Word::Syncid => within(text, 0, 255, "illegal syncid specified")?,
            Word::SyncMaxlen => within(text, 1, 65_507, "illegal sync-maxlen specified")?,
            Word::McastTtl => within(text, 1, 255, "illegal mcast-ttl specified")?,
            Word::McastPort => within(text, 1, 65_535, "illegal mcast-port specified")?,
            Word::McastGroup => check_group(text)?,
            _ => {}
        }
        Ok(())
    }

    fn set_service(
        &mut self,
        protocol: Protocol,
        text: &str,
        names: &dyn Names,
    ) -> Result<(), UsageError> {
        let read = value::host_port(text, protocol, names)
            .ok_or_else(|| UsageError::new("illegal virtual server address[:port] specified"))?;
        let address = SocketAddr::new(read.host, read.port.unwrap_or(0));
        if address.is_ipv6() {
            self.netmask = Netmask::host(true);
        }
        self.service = Some(ServiceName::Address { protocol, address });
        Ok(())
    }

    /// Reads the names in `-b`, whatever the command.
    pub(super) fn read_flags(&mut self) -> Result<(), UsageError> {
        for name in self.flag_names.iter().filter(|name| !name.is_empty()) {
            self.flags.add(name, &self.scheduler).map_err(|error| {
                let what = match error {
                    FlagError::Unknown => "invalid",
                    FlagError::Incompatible => "incompatible",
                };
                UsageError::new(format!("{what} scheduler flag `{name}'"))
            })?;
        }
        Ok(())
    }

    /// The command, after its options were found to go with it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`rule_of` lets commands through only"
    )]
    pub(super) fn command(self, word: Word) -> Result<Command, UsageError> {
        let service = self.service;
        let named = || service.ok_or_else(UsageError::try_help);
        Ok(match word {
            Word::AddService => Command::AddService(self.service_spec(named()?)?),
            Word::EditService => Command::EditService(self.service_spec(named()?)?),
            Word::DeleteService => Command::DeleteService(named()?),
            Word::AddServer => Command::AddServer(named()?, self.server_spec(named()?)?),
            Word::EditServer => Command::EditServer(named()?, self.server_spec(named()?)?),
            Word::DeleteServer => Command::DeleteServer(named()?, self.server_address(named()?)?),
            Word::List | Word::ListLower => Command::List(self.list(self.what()?)),
            Word::Zero => Command::Zero(service),
            Word::Clear => Command::Clear,
            Word::Restore => Command::Restore,
            Word::Save => Command::Save {
                numeric: self.given.has(Kind::Numeric),
            },
            Word::StartDaemon => Command::StartDaemon,
            Word::StopDaemon => Command::StopDaemon,
            _ => return Err(UsageError::try_help()),
        })
    }

    fn service_spec(self, name: ServiceName) -> Result<ServiceSpec, UsageError> {
        let one_packet = self.given.has(Kind::Ops);
        if let ServiceName::Address { protocol, address } = name {
            if address.port() == 0 && self.persistent.is_none() {
                return Err(UsageError::new(
                    "Zero port specified for non-persistent service",
                ));
            }
            if one_packet && protocol != Protocol::Udp {
                return Err(UsageError::new(
                    "One-Packet Scheduling is only for UDP virtual services",
                ));
            }
        }
        let scheduler = match self.scheduler.as_str() {
            "" => DEFAULT_SCHEDULER.to_owned(),
            _ => self.scheduler,
        };
        Ok(ServiceSpec {
            name,
            scheduler,
            flags: self.flags,
            persistent: self.persistent,
            netmask: self.netmask,
            one_packet,
            engine: self.engine,
        })
    }

    fn server_address(&self, service: ServiceName) -> Result<SocketAddr, UsageError> {
        let server = self.server.ok_or_else(UsageError::try_help)?;
        let port = match service {
            ServiceName::Address { address, .. } => address.port(),
            ServiceName::Firewall { .. } => 0,
        };
        Ok(SocketAddr::new(server.host, server.port.unwrap_or(port)))
    }

    fn server_spec(&self, service: ServiceName) -> Result<ServerSpec, UsageError> {
        let mut address = self.server_address(service)?;
        let method = self.method;
        // These methods leave the packet's port as it is.
        if let ServiceName::Address { address: vip, .. } = service
            && method != Forward::Masquerading
        {
            address.set_port(vip.port());
        }
        if address.is_ipv6() != service.is_ipv6() && method != Forward::Ipip {
            return Err(UsageError::new(
                "Different address family is allowed only for tunneling servers",
            ));
        }
        let of_tunnels = [
            Kind::TunType,
            Kind::TunPort,
            Kind::TunNocsum,
            Kind::TunCsum,
            Kind::TunRemcsum,
        ];
        if self.given.has_any(&of_tunnels) && method != Forward::Ipip {
            return Err(UsageError::new(
                "Tunnel options conflict with forward method",
            ));
        }
        Ok(ServerSpec {
            address,
            method: match method {
                Forward::Gatewaying => Method::Gatewaying,
                Forward::Masquerading => Method::Masquerading,
                Forward::Ipip => self.tunnel()?,
            },
            weight: self.weight,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        })
    }

    fn tunnel(&self) -> Result<Method, UsageError> {
        let (rule, kind) = match self.tunnel {
            Tunnel::Ipip => (validity::IPIP, TunnelType::Ipip),
            Tunnel::Gre => (validity::GRE, TunnelType::Gre),
            Tunnel::Gue => {
                let port = self.tunnel_port;
                (validity::GUE, TunnelType::Gue { port })
            }
        };
        rule.check_tunnel(self.given)?;
        let checksum = if self.given.has(Kind::TunCsum) {
            TunnelChecksum::Checksum
        } else if self.given.has(Kind::TunRemcsum) {
            TunnelChecksum::Remote
        } else {
            TunnelChecksum::None
        };
        Ok(Method::Tunnel(kind, checksum))
    }

    pub(super) fn list(&self, what: What) -> List {
        List {
            service: self.service,
            what,
            numeric: self.given.has(Kind::Numeric),
            exact: self.given.has(Kind::Exact),
            sorted: !self.given.has(Kind::Nosort),
        }
    }

    /// Of several kinds of columns, one goes before the others.
    fn what(&self) -> Result<What, UsageError> {
        let has = |kind| self.given.has(kind);
        let columns = [Kind::Stats, Kind::Rate, Kind::Thresholds];
        let connections = has(Kind::Connection);
        let others = has(Kind::Timeout) || has(Kind::Daemon);
        if self.given.has_any(&columns) && (connections || others)
            || has(Kind::PersistentConn) && others
        {
            return Err(UsageError::new("options conflicts in the list command"));
        }
        Ok(if connections {
            What::Connections {
                engine_data: has(Kind::PersistentConn),
            }
        } else if has(Kind::Timeout) {
            What::Timeouts
        } else if has(Kind::Daemon) {
            What::Daemons
        } else if has(Kind::Stats) {
            What::Statistics
        } else if has(Kind::Rate) {
            What::Rates
        } else if has(Kind::Thresholds) {
            What::Thresholds
        } else if has(Kind::PersistentConn) {
            What::PersistentConnections
        } else if has(Kind::TunInfo) {
            What::Tunnels
        } else {
            What::Services
        })
    }
}

/// What an option is checked as. The outer `None`: the word is a command; the
/// inner one: the option may stand anywhere, any number of times.
fn kind(word: Word) -> Option<Option<Kind>> {
    Some(Some(match word {
        Word::AddService
        | Word::EditService
        | Word::DeleteService
        | Word::Clear
        | Word::Restore
        | Word::Save
        | Word::AddServer
        | Word::EditServer
        | Word::DeleteServer
        | Word::List
        | Word::ListLower
        | Word::Zero
        | Word::Set
        | Word::StartDaemon
        | Word::StopDaemon
        | Word::Help
        | Word::Version => return None,
        Word::Ipv6 | Word::Sort => return Some(None),
        Word::TcpService | Word::UdpService | Word::SctpService | Word::FwmarkService => {
            Kind::ServiceAddress
        }
        Word::Gatewaying | Word::Ipip | Word::Masquerading => Kind::ForwardingMethod,
        Word::Scheduler => Kind::Scheduler,
        Word::Persistent => Kind::Persistent,
        Word::Netmask => Kind::Netmask,
        Word::Engine => Kind::Engine,
        Word::RealServer => Kind::RealServer,
        Word::TunType => Kind::TunType,
        Word::TunPort => Kind::TunPort,
        Word::TunNocsum => Kind::TunNocsum,
        Word::TunCsum => Kind::TunCsum,
        Word::TunRemcsum => Kind::TunRemcsum,
        Word::Weight => Kind::Weight,
        Word::UThreshold => Kind::UThreshold,
        Word::LThreshold => Kind::LThreshold,
        Word::Connection => Kind::Connection,
        Word::Timeout => Kind::Timeout,
        Word::Daemon => Kind::Daemon,
        Word::Stats => Kind::Stats,
        Word::Rate => Kind::Rate,
        Word::Exact => Kind::Exact,
        Word::Thresholds => Kind::Thresholds,
        Word::PersistentConn => Kind::PersistentConn,
        Word::TunInfo => Kind::TunInfo,
        Word::Nosort => Kind::Nosort,
        Word::Ops => Kind::Ops,
        Word::Numeric => Kind::Numeric,
        Word::SchedFlags => Kind::SchedFlags,
        Word::Syncid => Kind::Syncid,
        Word::SyncMaxlen => Kind::SyncMaxlen,
        Word::McastInterface => Kind::McastInterface,
        Word::McastGroup => Kind::McastGroup,
        Word::McastPort => Kind::McastPort,
        Word::McastTtl => Kind::McastTtl,
    }))
}

fn whole(text: &str, otherwise: &str) -> Result<u32, UsageError> {
    let highest = i32::MAX.unsigned_abs();
    value::number(text, 0, highest).ok_or_else(|| UsageError::new(otherwise))
}

fn within(text: &str, lowest: u32, highest: u32, otherwise: &str) -> Result<(), UsageError> {
    match value::number(text, lowest, highest) {
        Some(_) => Ok(()),
        None => Err(UsageError::new(otherwise)),
    }
}

fn port(text: &str, otherwise: &str) -> Result<u16, UsageError> {
    let number = value::number(text, 1, u16::MAX.into());
    let port = number.and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| UsageError::new(otherwise))
}

/// A multicast address.
fn check_group(text: &str) -> Result<(), UsageError> {
    if text.contains(':') {
        let group = text.parse::<std::net::Ipv6Addr>();
        if !group.is_ok_and(|group| group.is_multicast()) {
            return Err(UsageError::new(format!(
                "invalid IPv6 mcast-group `{text}'"
            )));
        }
    } else if !text
        .parse::<std::net::Ipv4Addr>()
        .is_ok_and(|group| group.is_multicast())
    {
        return Err(UsageError::new(format!(
            "invalid IPv4 mcast-group `{text}'"
        )));
    }
    Ok(())
}
