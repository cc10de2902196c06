//! How packets that need no closer look reach the real servers.

use super::{Server, Snapshot};
use crate::flow::PlainEnd;
use crate::forward::tunnel;
use crate::routes::Routes;
use crate::service::{ForwardingMethod, Hop};

/// How packets that need no closer look reach a real server at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// They need one: the server is not available, or its next hop is not known, or it may be that
    /// packets are too long for the way.
    None,
    /// By DR.
    Direct(Hop),
    /// By NAT or FULLNAT.
    Translated(Hop),
    /// By TUN: an index of [`Snapshot::tunnel_paths`].
    Wrapped(u32),
}

const _: () = assert!(size_of::<Path>() == 16);

/// The way to a TUN server.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct TunnelPath {
    /// What most packets get in front; where there is none, the others say what they get.
    pub front: Option<tunnel::Front>,
    pub hop: Hop,
    pub template: tunnel::Template,
}

impl Snapshot {
    /// The same with the ways to clients, without which replies go back to where the request came
    /// from, and with the interfaces, without which nothing can be tunnelled.
    #[must_use]
    pub fn with_routes(mut self, routes: Routes) -> Self {
        let largest = routes.largest_mtu();
        for path in &mut self.paths {
            if let Path::Direct(hop) | Path::Translated(hop) = path
                && routes.mtu(hop.port) < largest
            {
                *path = Path::None;
            }
        }
        self.routes = routes;
        self.build_tunnels();
        self.find_plain();
        self
    }

    fn build_tunnels(&mut self) {
        for (server, path) in self.servers.iter_mut().zip(&mut self.paths) {
            let Some(server) = server else { continue };
            let (ForwardingMethod::Tunnel(tunnel), Some(hop)) = (server.method, server.next_hop)
            else {
                continue;
            };
            let egress = self.routes.egress(hop.port);
            let source = egress.and_then(|egress| match server.address.is_v4() {
                true => egress.v4,
                false => egress.v6,
            });
            let (Some(egress), Some(source)) = (egress, source) else {
                continue;
            };
            let template = tunnel::Template::new(&tunnel::Options {
                tunnel,
                checksum: false,
                inner_is_v4: server.serves_v4,
                source,
                source_bits: 0,
                destination: server.address,
                mtu: egress.mtu,
            });
            server.tunnel = u32::try_from(self.tunnels.len()).ok();
            if let (true, Some(number)) = (server.available, server.tunnel) {
                *path = Path::Wrapped(number);
            }
            let front = tunnel::Front::new(&template, &hop.addresses);
            self.wraps_otherwise |= front.is_none();
            self.tunnels.push(TunnelPath {
                front,
                hop,
                template,
            });
        }
    }

    /// The outer headers for a TUN server; `None` while its way, or an address of our own on it, is not known.
    #[inline(always)]
    #[must_use]
    pub fn tunnel(&self, server: &Server) -> Option<&tunnel::Template> {
        Some(&self.tunnels.get(server.tunnel? as usize)?.template)
    }

    /// Those that a [`Path::Wrapped`] says the number of.
    #[inline(always)]
    #[must_use]
    pub fn tunnel_paths(&self) -> &[TunnelPath] {
        &self.tunnels
    }

    /// Where real servers of IPv4 are, by `ServerId`.
    #[inline(always)]
    pub(crate) fn ends(&self) -> &[PlainEnd] {
        &self.ends
    }

    /// How packets that need no closer look reach real servers, by `ServerId`.
    #[inline(always)]
    #[must_use]
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }
}
