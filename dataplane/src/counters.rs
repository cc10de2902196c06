//! What workers count, and every reason for which a packet is dropped.
//!
//! Each worker is the only writer of its [`WorkerStatistics`]; anyone may
//! read them at any time. Counters only grow; gauges are marked as such.
//!
//! Invariant, asserted by the tests:
//! `rx_packets + handed_off_rx + fragments_made = tx_packets + handed_off_tx + Σ drops + waiting`,
//! and over all workers `handed_off_tx` is `handed_off_rx` but for what is on its way.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::device::DeviceStatistics;
use crate::limits::ServiceStatistics;
use crate::service::{MAX_VIRTUAL_SERVERS, ServerId, VirtualServerId};
use crate::wire::Malformed;

macro_rules! drop_reasons {
    ($($(#[$attribute:meta])* $variant:ident = $name:literal, $description:literal;)*) => {
        /// Why a packet was dropped. Every dropped packet has exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $description] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// Number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// The name used in output, metrics and documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)* }
            }
        }
    };
}

drop_reasons! {
    Truncated = "truncated", "The frame ends inside a header.";
    BadIpVersion = "bad_ip_version", "The IP version is not the one that the Ethernet type says.";
    BadIpHeaderLength = "bad_ip_header_length", "The IPv4 header length is below 20 bytes or beyond the packet.";
    BadIpTotalLength = "bad_ip_total_length", "The IP length is below the header's or beyond the frame.";
    BadIpChecksum = "bad_ip_checksum", "The IPv4 header checksum is wrong.";
    BadExtensionHeader = "bad_extension_header", "The IPv6 extension headers are too many or reach beyond the packet.";
    MappedAddress = "mapped_address", "An IPv6 packet carries an IPv4-mapped address, which never belongs on the wire.";
    BadTcpHeader = "bad_tcp_header", "The TCP header is cut off, or its data offset is wrong.";
    BadUdpHeader = "bad_udp_header", "The UDP header is cut off, or its length is wrong.";
    BadSctpHeader = "bad_sctp_header", "The SCTP header is cut off.";
    BadIcmp = "bad_icmp", "The ICMP header, or the packet that it quotes, is cut off or broken.";
    NotIp = "not_ip", "Neither IPv4 nor IPv6.";
    OtherProtocol = "other_protocol", "Neither TCP nor UDP nor SCTP, nor an ICMP error about one of them.";
    Fragment = "fragment", "A fragment of an IP datagram whose first one did not come in time.";
    NoVirtualServer = "no_virtual_server", "No virtual server has this address, port and protocol.";
    NoRealServer = "no_real_server", "The virtual server has no real server that takes new connections.";
    TcpMidstream = "tcp_midstream", "A TCP packet of no known connection, and tcp_midstream is \"drop\" or the packet is itself a RST.";
    SctpMidstream = "sctp_midstream", "An SCTP packet, other than INIT, of no known association.";
    SctpFragment = "sctp_fragment", "NAT to another port: the checksum of SCTP covers the whole packet, of which this is a fragment.";
    SynFragment = "syn_fragment", "A SYN in fragments, to a virtual server whose SYNs the director answers.";
    ServerSilent = "server_silent", "SYN proxy: the real server did not accept the connection in time.";
    ServerUnavailable = "server_unavailable", "The connection's real server is down or was removed.";
    NextHopUnresolved = "next_hop_unresolved", "The real server's MAC address did not become known in time.";
    TtlExceeded = "ttl_exceeded", "The TTL or hop limit does not allow one more hop.";
    IcmpNoConnection = "icmp_no_connection", "An ICMP error about no known connection.";
    MaxConnections = "max_connections", "The virtual server has as many connections as its max_connections allows.";
    ConnectionRate = "new_connection_rate", "More new connections than the virtual server's new_connections_per_second allows.";
    SourceMaxConnections = "source_max_connections", "The client's source has as many connections as source_max_connections allows.";
    SourceConnectionRate = "source_new_connection_rate", "More new connections of the client's source than source_new_connections_per_second allows.";
    IcmpNotRelayed = "icmp_not_relayed", "An ICMP error about a packet in a tunnel of which the client need not know, or more than may be sent in a second.";
    TableFull = "table_full", "The connection table is full of connections that may not be evicted, or full and table_full is \"drop-new\".";
    TranslationConflict = "translation_conflict", "NAT: the real server could not tell the new connection from another one of the same client, made by another virtual server.";
    NoLocalPort = "no_local_port", "FULLNAT: every port of the virtual server's local addresses serves a connection.";
    LocalSource = "local_source", "It would begin a connection, but its source is a local address of FULLNAT: the director's own.";
    TooBig = "too_big", "Longer than its way allows, and not to be fragmented; the sender could not be told.";
    TxRingFull = "tx_ring_full", "The transmit ring of the outgoing interface is full.";
    HandoffRingFull = "handoff_ring_full", "The packet is of another worker's connection, and too many are on their way there.";
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated => Self::Truncated,
            Malformed::BadIpVersion => Self::BadIpVersion,
            Malformed::BadIpHeaderLength => Self::BadIpHeaderLength,
            Malformed::BadIpTotalLength => Self::BadIpTotalLength,
            Malformed::BadIpChecksum => Self::BadIpChecksum,
            Malformed::BadExtensionHeader => Self::BadExtensionHeader,
            Malformed::MappedAddress => Self::MappedAddress,
            Malformed::BadTcpHeader => Self::BadTcpHeader,
            Malformed::BadUdpHeader => Self::BadUdpHeader,
            Malformed::BadSctpHeader => Self::BadSctpHeader,
            Malformed::BadIcmp => Self::BadIcmp,
        }
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// A worker's counters as plain numbers: the worker counts in its own copy
        /// and publishes it once a burst; readers get a copy by
        /// [`WorkerStatistics::counters`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)*
            /// Indexed by [`DropReason`].
            pub drops: [u64; DropReason::COUNT],
        }

        // Arrays have a default up to 32 elements only.
        impl Default for Counters {
            fn default() -> Self {
                Self {
                    $($name: 0,)*
                    drops: [0; DropReason::COUNT],
                }
            }
        }

        impl Counters {
            /// Names of the counters other than the drops, in the order of declaration.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];
            /// What each counts, in the same order; of a gauge it says `(gauge)`.
            pub const DESCRIPTIONS: &'static [&'static str] = &[$(concat!($($doc),+),)*];

            /// Counters other than the drops, by name.
            #[must_use]
            pub fn named(&self) -> [(&'static str, u64); Self::NAMES.len()] {
                [$((stringify!($name), self.$name),)*]
            }

            fn from_values(values: [u64; Self::NAMES.len()], drops: [u64; DropReason::COUNT]) -> Self {
                let [$($name,)*] = values;
                Self { $($name,)* drops }
            }
        }
    };
}

counters! {
    /// Packets received.
    rx_packets,
    /// Bytes received. With Ethernet headers, without frame check sequences.
    rx_bytes,
    /// Packets transmitted, those returned to the kernel among them.
    tx_packets,
    /// Bytes transmitted, counted like those received.
    tx_bytes,
    /// Packets that wait for their next hop's MAC address (gauge).
    waiting,
    /// Connections that began.
    connections_created,
    /// Connections that ended by their timeouts.
    connections_expired,
    /// Half-open connections, and those for one packet, removed to make room in a full table.
    connections_evicted,
    /// Connections closed early because a SYN began a new one on the tuple.
    connections_reused,
    /// Connections in the table (gauge).
    connections,
    /// Persistence templates removed to make room in a full table.
    templates_evicted,
    /// Fragmented datagrams whose decision was forgotten to make room for another's.
    fragments_evicted,
    /// Sources of clients whose limits were forgotten to make room in a full table.
    sources_evicted,
    /// Transmitted packets that are RSTs made here, for `tcp_midstream`.
    resets_sent,
    /// Transmitted packets that are SYN-ACKs made here, by the SYN proxy.
    syn_cookies_sent,
    /// Clients that answered such a SYN-ACK.
    syn_cookies_accepted,
    /// ACKs of no connection that answered none, while the SYN proxy was at work.
    syn_cookies_refused,
    /// Transmitted packets that are ICMP errors made here.
    icmp_sent,
    /// Transmitted packets that were no connection's and no virtual server's, and went to the kernel.
    returned_to_kernel,
    /// Fragments made of packets that were longer than their way allows, beyond the first of each.
    fragments_made,
    /// Received packets of another worker's connections, handed to it.
    handed_off_tx,
    /// Packets that other workers handed to this one; they are not in `rx_packets`.
    handed_off_rx,
    /// Received replies of another worker's connections, translated and transmitted by this one.
    replies_for_others,
}

impl Counters {
    /// Counts one dropped packet.
    #[inline(always)]
    pub fn drop_packet(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Packets dropped, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }
}

/// What one worker publishes.
#[derive(Debug)]
pub struct WorkerStatistics {
    named: [AtomicU64; Counters::NAMES.len()],
    drops: [AtomicU64; DropReason::COUNT],
    /// Generation of the snapshot that the worker works with.
    pub generation: AtomicU64,
    servers: Box<[ServerStatistics]>,
    services: Box<[ServiceStatistics]>,
    devices: Box<[[AtomicU64; DeviceStatistics::NAMES.len()]]>,
}

impl WorkerStatistics {
    /// Room for the server ids `0..servers`, for as many virtual servers, [`MAX_VIRTUAL_SERVERS`] at
    /// most, and for a number of devices.
    #[must_use]
    pub fn new(servers: usize, devices: usize) -> Self {
        Self {
            devices: (0..devices).map(|_| Default::default()).collect(),
            named: std::array::from_fn(|_| AtomicU64::new(0)),
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
            generation: AtomicU64::new(0),
            servers: (0..servers).map(|_| ServerStatistics::default()).collect(),
            services: (0..servers.min(MAX_VIRTUAL_SERVERS))
                .map(|_| ServiceStatistics::default())
                .collect(),
        }
    }

    /// Publishes the worker's counters. Called by the worker only.
    pub fn publish(&self, counters: &Counters) {
        for (shared, (_, value)) in self.named.iter().zip(counters.named()) {
            shared.store(value, Ordering::Relaxed);
        }
        for (shared, value) in self.drops.iter().zip(counters.drops) {
            shared.store(value, Ordering::Relaxed);
        }
    }

    /// A copy of the counters as last published.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Counters::from_values(
            self.named.each_ref().map(load),
            self.drops.each_ref().map(load),
        )
    }

    /// Publishes what a device counted; does nothing for a number out of range. Called by the
    /// worker only.
    pub fn publish_device(&self, device: usize, statistics: &DeviceStatistics) {
        for (shared, value) in self
            .devices
            .get(device)
            .into_iter()
            .flatten()
            .zip(statistics.values())
        {
            shared.store(value, Ordering::Relaxed);
        }
    }

    /// What a device had counted about a second ago.
    #[must_use]
    pub fn device(&self, device: usize) -> DeviceStatistics {
        let Some(shared) = self.devices.get(device) else {
            return DeviceStatistics::default();
        };
        let values = shared.each_ref().map(|value| value.load(Ordering::Relaxed));
        DeviceStatistics::from_values(values)
    }

    /// The statistics of all real servers on this worker, by `ServerId`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn servers(&self) -> &[ServerStatistics] {
        &self.servers
    }

    /// The statistics of a real server on this worker; `None` for an id out
    /// of range.
    #[inline(always)]
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&ServerStatistics> {
        self.servers.get(id.0 as usize)
    }

    /// The statistics of a virtual server on this worker; `None` for an id out of range.
    #[must_use]
    pub fn service(&self, id: VirtualServerId) -> Option<&ServiceStatistics> {
        self.services.get(id.0 as usize)
    }
}

/// What a worker counts for one real server. Written by that worker only, so
/// that plain loads and stores are enough.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServerStatistics {
    /// Connections in state ESTABLISHED (gauge).
    active: AtomicU32,
    /// Connections in any other state (gauge); all of UDP's, as in IPVS.
    inactive: AtomicU32,
    /// Connections scheduled to the server, ever.
    connections: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    reply_packets: AtomicU64,
    reply_bytes: AtomicU64,
    /// SYNs that clients had to repeat.
    unanswered: AtomicU64,
    /// Handshakes that clients completed.
    answered: AtomicU64,
}

/// A copy of a [`ServerStatistics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerTotals {
    pub active: u32,
    pub inactive: u32,
    pub connections: u64,
    pub packets: u64,
    /// IP bytes, as IPVS counts them: without the Ethernet header.
    pub bytes: u64,
    /// Packets from the real server, which only NAT and FULLNAT see.
    pub reply_packets: u64,
    /// IP bytes of these.
    pub reply_bytes: u64,
    /// SYNs that clients had to repeat: the server did not answer, or its answer was lost.
    pub unanswered: u64,
    /// Handshakes that clients completed.
    pub answered: u64,
}

impl AddAssign for ServerTotals {
    fn add_assign(&mut self, other: Self) {
        // Whole, so that a new counter is not forgotten.
        let Self {
            active,
            inactive,
            connections,
            packets,
            bytes,
            reply_packets,
            reply_bytes,
            unanswered,
            answered,
        } = other;
        self.active += active;
        self.inactive += inactive;
        self.connections += connections;
        self.packets += packets;
        self.bytes += bytes;
        self.reply_packets += reply_packets;
        self.reply_bytes += reply_bytes;
        self.unanswered += unanswered;
        self.answered += answered;
    }
}

impl ServerStatistics {
    /// A copy.
    #[must_use]
    pub fn totals(&self) -> ServerTotals {
        ServerTotals {
            active: self.active.load(Ordering::Relaxed),
            inactive: self.inactive.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            reply_packets: self.reply_packets.load(Ordering::Relaxed),
            reply_bytes: self.reply_bytes.load(Ordering::Relaxed),
            unanswered: self.unanswered.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
        }
    }

    /// Counts a packet of `bytes` IP bytes.
    #[inline(always)]
    pub(crate) fn count_packet(&self, bytes: u64) {
        add(&self.packets, 1);
        add(&self.bytes, bytes);
    }

    /// Counts a packet of `bytes` IP bytes from the real server.
    #[inline(always)]
    pub(crate) fn count_reply(&self, bytes: u64) {
        add(&self.reply_packets, 1);
        add(&self.reply_bytes, bytes);
    }

    /// Counts a SYN that a client repeats.
    pub(crate) fn count_unanswered(&self) {
        add(&self.unanswered, 1);
    }

    /// Counts a handshake that a client completes.
    pub(crate) fn count_answered(&self) {
        add(&self.answered, 1);
    }

    /// Counts a new connection.
    pub(crate) fn count_connection(&self) {
        add(&self.connections, 1);
    }

    /// Counts a new connection and its first packet, of `bytes` IP bytes.
    #[inline(always)]
    pub(crate) fn count_first(&self, bytes: u64) {
        self.count_connection();
        self.count_packet(bytes);
    }

    /// Moves the gauges when a connection starts (`from: None`), changes
    /// between active (`Some(true)`) and inactive, or ends (`to: None`).
    pub(crate) fn shift(&self, from: Option<bool>, to: Option<bool>) {
        if from == to {
            return;
        }
        let gauge = |active: bool| if active { &self.active } else { &self.inactive };
        if let Some(active) = from {
            let gauge = gauge(active);
            gauge.store(
                gauge.load(Ordering::Relaxed).wrapping_sub(1),
                Ordering::Relaxed,
            );
        }
        if let Some(active) = to {
            let gauge = gauge(active);
            gauge.store(
                gauge.load(Ordering::Relaxed).wrapping_add(1),
                Ordering::Relaxed,
            );
        }
    }
}

/// Adds to a counter that no other thread writes.
#[inline(always)]
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(amount),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_counters_read_back() {
        let shared = WorkerStatistics::new(1, 1);
        let mut counters = Counters {
            rx_packets: 7,
            tx_bytes: 9,
            resets_sent: 3,
            ..Counters::default()
        };
        counters.drop_packet(DropReason::TableFull);
        shared.publish(&counters);
        assert_eq!(shared.counters(), counters);
        assert_eq!(counters.dropped(), 1);
        let device = DeviceStatistics {
            rx_ring_full: 4,
            ..DeviceStatistics::default()
        };
        shared.publish_device(0, &device);
        assert_eq!(shared.device(0), device);
    }

    #[test]
    fn drop_reasons_have_distinct_names_and_a_sentence() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.description().ends_with('.'));
        }
    }

    #[test]
    fn gauges_follow_a_connection() {
        let server = ServerStatistics::default();
        server.shift(None, Some(false));
        server.shift(Some(false), Some(true));
        assert_eq!((server.totals().active, server.totals().inactive), (1, 0));
        server.shift(Some(true), None);
        assert_eq!(server.totals(), ServerTotals::default());
    }
}
