//! Commands that change something, as edits, and ipvsadm's words for what
//! comes of them.

use std::net::SocketAddr;

use super::command::{
    Command, Method, ServerSpec, ServiceName, ServiceSpec, SetTimeouts, TunnelChecksum, TunnelType,
};
use crate::api::edit::{Edit, EditError, ServerEdit, ServiceEdit};

/// Exit status after an error of the kernel's, which scripts expect.
const FAILED: u8 = 255;
/// Exit status when the appliance cannot do what IPVS could.
const UNSUPPORTED: u8 = 1;

/// A change that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct EditFailure {
    /// For stderr.
    pub message: String,
    /// Exit status.
    pub status: u8,
}

impl EditFailure {
    fn unsupported(what: &str) -> Self {
        Self {
            message: format!("ipvsadm: {what}"),
            status: UNSUPPORTED,
        }
    }

    /// What ipvsadm says when the kernel refuses `edit` for this reason.
    #[must_use]
    pub(crate) fn of(edit: &Edit, error: &EditError) -> Self {
        let of_server = matches!(
            edit,
            Edit::AddServer { .. } | Edit::EditServer { .. } | Edit::DeleteServer { .. }
        );
        let message = match error {
            EditError::Refused(why) => return Self::unsupported(why),
            EditError::ServiceExists => "Service already exists",
            EditError::NoSuchService if of_server => "Service not defined",
            EditError::NoSuchService => "No such service",
            EditError::ServerExists => "Destination already exists",
            EditError::NoSuchServer => "No such destination",
            EditError::NoSuchScheduler => "Scheduler or persistence engine not found",
            EditError::ThresholdOutOfRange => "Numerical result out of range",
            EditError::NotUnicast => {
                "Invalid operation.  Possibly wrong module version, address not unicast, ..."
            }
        };
        Self {
            message: message.to_owned(),
            status: FAILED,
        }
    }
}

/// The edit that a command asks for; `None`: it changes nothing.
///
/// # Errors
/// The appliance has nothing of the kind.
pub(crate) fn edit(command: &Command) -> Option<Result<Edit, EditFailure>> {
    Some(match command {
        Command::AddService(spec) => service(spec).map(Edit::AddService),
        Command::EditService(spec) => service(spec).map(Edit::EditService),
        Command::DeleteService(name) => match key(name) {
            Some(virtual_server) => Ok(Edit::DeleteService { virtual_server }),
            None => Err(no_service("No such service")),
        },
        Command::AddServer(name, spec) => {
            server(name, spec).map(|(virtual_server, real_server)| Edit::AddServer {
                virtual_server,
                real_server,
            })
        }
        Command::EditServer(name, spec) => {
            server(name, spec).map(|(virtual_server, real_server)| Edit::EditServer {
                virtual_server,
                real_server,
            })
        }
        Command::DeleteServer(name, address) => match key(name) {
            Some(virtual_server) => Ok(Edit::DeleteServer {
                virtual_server,
                real_server: *address,
            }),
            None => Err(no_service("Service not defined")),
        },
        Command::Clear => Ok(Edit::Clear),
        Command::Zero(None) => Ok(Edit::Zero {
            virtual_server: None,
        }),
        Command::Zero(Some(name)) => match key(name) {
            Some(name) => Ok(Edit::Zero {
                virtual_server: Some(name),
            }),
            None => Err(no_service("No such service")),
        },
        Command::SetTimeouts(SetTimeouts { tcp, tcp_fin, udp }) => Ok(Edit::SetTimeouts {
            tcp: *tcp,
            tcpfin: *tcp_fin,
            udp: *udp,
        }),
        Command::StartDaemon => Err(EditFailure::unsupported(
            "the appliance has no connection synchronization daemon",
        )),
        Command::StopDaemon => Err(no_service("No daemon is running")),
        Command::Help
        | Command::Version
        | Command::List(_)
        | Command::Save { .. }
        | Command::Restore => return None,
    })
}

/// What the appliance cannot have is not there.
fn no_service(message: &str) -> EditFailure {
    EditFailure {
        message: message.to_owned(),
        status: FAILED,
    }
}

/// The name that the control socket knows a virtual server by, `None` if the
/// appliance cannot have it.
#[must_use]
pub(crate) fn key(name: &ServiceName) -> Option<String> {
    match name {
        // It would be the IPv4 address.
        ServiceName::Address { address, .. } if is_mapped(*address) => None,
        ServiceName::Address {
            protocol, address, ..
        } => Some(format!("{protocol} {address}")),
        ServiceName::Firewall { .. } => None,
    }
}

fn service(spec: &ServiceSpec) -> Result<ServiceEdit, EditFailure> {
    let Some(virtual_server) = key(&spec.name) else {
        return Err(EditFailure::unsupported(match spec.name {
            ServiceName::Address { .. } => {
                "the appliance has no IPv4-mapped IPv6 addresses: \
                 write the IPv4 address in its own notation"
            }
            ServiceName::Firewall { .. } => {
                "the appliance has no virtual servers by firewall mark: \
                 add one for each address and port"
            }
        }));
    };
    let flags = spec.flags.names(&spec.scheduler);
    let flags = flags.split(',').filter(|flag| !flag.is_empty());
    let masked = spec.persistent.is_some() && !spec.netmask.is_host();
    Ok(ServiceEdit {
        virtual_server,
        lb_algo: spec.scheduler.clone(),
        flags: flags.map(str::to_owned).collect(),
        persistence_timeout: spec.persistent,
        persistence_granularity: masked.then(|| spec.netmask.to_string()),
        persistence_engine: spec.engine.clone(),
        ops: spec.one_packet,
    })
}

fn server(name: &ServiceName, spec: &ServerSpec) -> Result<(String, ServerEdit), EditFailure> {
    let key = key(name).ok_or_else(|| no_service("Service not defined"))?;
    let (lb_kind, tun_type, tun_port) = match spec.method {
        Method::Gatewaying => ("DR", None, None),
        Method::Masquerading => ("NAT", None, None),
        Method::Tunnel(_, TunnelChecksum::Checksum | TunnelChecksum::Remote) => {
            return Err(EditFailure::unsupported(
                "the appliance's tunnels have no checksum: leave --tun-csum and --tun-remcsum out",
            ));
        }
        Method::Tunnel(kind, TunnelChecksum::None) => {
            let port = match kind {
                TunnelType::Gue { port } => Some(port),
                TunnelType::Ipip | TunnelType::Gre => None,
            };
            ("TUN", Some(kind.to_string()), port)
        }
    };
    let server = ServerEdit {
        address: without_scope(spec.address),
        lb_kind: lb_kind.to_owned(),
        tun_type,
        tun_port,
        weight: spec.weight,
        uthreshold: spec.upper_threshold,
        lthreshold: spec.lower_threshold,
    };
    Ok((key, server))
}

fn is_mapped(address: SocketAddr) -> bool {
    match address {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(address) => address.ip().to_ipv4_mapped().is_some(),
    }
}

/// A name may resolve to an address with a scope, which configuration has not.
fn without_scope(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
