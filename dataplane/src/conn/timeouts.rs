//! How long a connection may be silent, by state.

use std::time::Duration;

use super::{Association, State};

/// Idle timeouts by state; the defaults are IPVS's
/// (`net/netfilter/ipvs/ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`, `ip_vs_proto_sctp.c`).
///
/// All of IPVS's states are here although some are never reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub established: Duration,
    pub syn_sent: Duration,
    pub syn_recv: Duration,
    pub fin_wait: Duration,
    pub time_wait: Duration,
    pub close: Duration,
    pub close_wait: Duration,
    pub last_ack: Duration,
    pub listen: Duration,
    pub synack: Duration,
    pub udp: Duration,
    /// Indexed by `Association as usize`.
    pub sctp: [Duration; Association::ALL.len()],
}

impl Timeouts {
    /// The longest timeout accepted: the table's clock must be able to tell
    /// it from the past.
    pub const MAX: Duration = Duration::from_secs(7 * 24 * 3600);

    /// Milliseconds by state, in the order of [`State::all`], for the workers.
    #[must_use]
    pub fn by_state(&self) -> [u32; State::COUNT] {
        State::all().map(|state| {
            let timeout = match state {
                State::Established => self.established,
                State::SynRecv => self.syn_recv,
                State::FinWait => self.fin_wait,
                State::TimeWait => self.time_wait,
                State::Close => self.close,
                State::CloseWait => self.close_wait,
                State::Udp => self.udp,
                State::Sctp(association) => self.sctp[association as usize],
            };
            u32::try_from(timeout.min(Self::MAX).as_millis()).unwrap_or(u32::MAX)
        })
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            established: seconds(15 * 60),
            syn_sent: seconds(120),
            syn_recv: seconds(60),
            fin_wait: seconds(120),
            time_wait: seconds(120),
            close: seconds(10),
            close_wait: seconds(60),
            last_ack: seconds(30),
            listen: seconds(120),
            synack: seconds(120),
            udp: seconds(300),
            sctp: Association::ALL.map(|(_, _, timeout)| timeout),
        }
    }
}
