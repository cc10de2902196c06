//! The keys of a burst in columns: each word of all keys by itself, so that loops over them are done for eight at once.
//!
//! Numbers are those of packets in the burst. What is computed is computed for whole eights, whichever of their
//! numbers are wanted; of the others it is anything.

use std::array;

use super::{FlowHasher, Hashes, PlainEnd, PlainKey, Reversed, halves};
use crate::processor::{Eight, double_words};
use crate::wire::checksum::Delta;

/// So many keys are treated at once.
pub(crate) const LANES: usize = 8;

/// The bits in which some IPv4 addresses agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommonBits {
    which: u32,
    value: u32,
}

impl CommonBits {
    /// Of these addresses, which are as in a packet's header; `None` if there are none.
    pub(crate) fn of(mut addresses: impl Iterator<Item = u32>) -> Option<Self> {
        let value = addresses.next()?;
        let different = addresses.fold(0, |different, other| different | other ^ value);
        Some(Self {
            which: !different,
            value,
        })
    }
}

/// Keys of IPv4.
#[derive(Debug)]
pub(crate) struct PlainKeys<const N: usize> {
    /// The first halves of the first words, with the protocol.
    pub(crate) protocols: [u32; N],
    /// Addresses as in a packet's header.
    pub(crate) sources: [u32; N],
    pub(crate) destinations: [u32; N],
    /// The source's in the first half, the destination's in the second one, as in a packet's header.
    pub(crate) ports: [u32; N],
}

impl<const N: usize> PlainKeys<N> {
    pub(crate) const EMPTY: Self = Self {
        protocols: [0; N],
        sources: [0; N],
        destinations: [0; N],
        ports: [0; N],
    };

    pub(crate) fn set(&mut self, number: usize, PlainKey(key): PlainKey) {
        let [[protocol, source], [destination, ports]] = key.map(halves);
        self.protocols[number] = protocol;
        self.sources[number] = source;
        self.destinations[number] = destination;
        self.ports[number] = ports;
    }

    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> PlainKey {
        PlainKey::from_words(double_words([
            self.protocols[number],
            self.sources[number],
            self.destinations[number],
            self.ports[number],
        ]))
    }

    /// As [`PlainKey::reversed`].
    #[inline(always)]
    pub(crate) fn reversed(&self, number: usize) -> Reversed {
        Reversed::of(
            self.sources[number],
            self.destinations[number],
            self.ports[number],
        )
    }

    /// A bit for each key whose protocol, destination and its port are those of this one: what
    /// [`PlainKey::service_word`] compares.
    #[inline(always)]
    pub(crate) fn same_service(&self, number: usize) -> u64 {
        let one = |column: &[u32; N]| column[number];
        let (protocol, destination, port) = (
            one(&self.protocols),
            one(&self.destinations),
            one(&self.ports),
        );
        let mut same = 0;
        for eight in 0..N / LANES {
            let of = |column: &[u32; N]| column.as_chunks::<LANES>().0[eight];
            let (protocols, ports) = (of(&self.protocols), of(&self.ports));
            let destinations = of(&self.destinations);
            let mut different = Eight([0; LANES]);
            for lane in 0..LANES {
                different.0[lane] = protocols[lane] ^ protocol
                    | destinations[lane] ^ destination
                    | (ports[lane] ^ port) & !FIRST_PORT;
            }
            same |= u64::from(different.zeros()) << (eight * LANES);
        }
        same
    }

    /// A bit for each key whose source has these bits.
    #[inline(always)]
    pub(crate) fn sources_with(&self, bits: CommonBits) -> u64 {
        let mut found = 0;
        for eight in 0..N / LANES {
            let sources = self.sources.as_chunks::<LANES>().0[eight];
            let different = Eight(sources.map(|source| (source ^ bits.value) & bits.which));
            found |= u64::from(different.zeros()) << (eight * LANES);
        }
        found
    }

    /// Become the keys of the replies to these requests, in the eights of `wanted`: real servers see them come from
    /// `sources`, or without these from the client. Port 0 of a real server is that of the request.
    #[inline(always)]
    pub(crate) fn answer(
        &mut self,
        requests: &Self,
        servers: &PlainEnds<N>,
        sources: Option<&PlainEnds<N>>,
        wanted: u64,
    ) {
        for eight in eights::<N>(wanted) {
            let of = |column: &[u32; N]| column.as_chunks::<LANES>().0[eight];
            let (server, server_port) = (of(&servers.addresses), of(&servers.ports));
            let ports = of(&requests.ports);
            let (source, source_port) = match sources {
                Some(sources) => (of(&sources.addresses), of(&sources.ports)),
                None => (of(&requests.sources), ports.map(|ports| ports & FIRST_PORT)),
            };
            let ports = array::from_fn(|lane| {
                let server_port = match server_port[lane] {
                    0 => ports[lane].rotate_left(16) & FIRST_PORT,
                    port => port,
                };
                server_port | source_port[lane].rotate_left(16)
            });
            let to = |column: &mut [u32; N], lanes| {
                column.as_chunks_mut::<LANES>().0[eight] = lanes;
            };
            to(&mut self.protocols, of(&requests.protocols));
            to(&mut self.sources, server);
            to(&mut self.destinations, source);
            to(&mut self.ports, ports);
        }
    }

    /// What it changes in network headers and in transport ones that packets with these keys become those of the `others`,
    /// turned round: [`Endpoints::deltas`](crate::forward::rewrite::Endpoints::deltas), in the eights of `wanted`.
    #[inline(always)]
    pub(crate) fn deltas(
        &self,
        others: &Self,
        wanted: u64,
        networks: &mut [Delta; N],
        transports: &mut [Delta; N],
    ) {
        for eight in eights::<N>(wanted) {
            let of = |column: &[u32; N]| column.as_chunks::<LANES>().0[eight].map(u64::from);
            let sums = |keys: &Self| {
                let (sources, destinations) = (of(&keys.sources), of(&keys.destinations));
                let mut sums = [0; LANES];
                for lane in 0..LANES {
                    sums[lane] = sources[lane] + destinations[lane];
                }
                sums
            };
            let (before, after) = (sums(self), sums(others));
            let (ports_before, ports_after) = (of(&self.ports), of(&others.ports));
            let (mut network, mut transport) = ([Delta::NONE; LANES], [Delta::NONE; LANES]);
            for lane in 0..LANES {
                network[lane] = Delta::of_words(before[lane], after[lane]);
                transport[lane] = Delta::of_words(
                    before[lane] + ports_before[lane],
                    after[lane] + ports_after[lane],
                );
            }
            networks.as_chunks_mut().0[eight] = network;
            transports.as_chunks_mut().0[eight] = transport;
        }
    }

    /// The hashes of the keys in the eights of `wanted`.
    #[inline(always)]
    pub(crate) fn hash(&self, hasher: &FlowHasher, hashes: &mut Hashes<N>, wanted: u64) {
        let secret = hasher.secret();
        for eight in eights::<N>(wanted) {
            let of = |column: &[u32; N]| column.as_chunks::<LANES>().0[eight];
            let (a, b) = (of(&self.protocols), of(&self.sources));
            let (c, d) = (of(&self.destinations), of(&self.ports));
            // A loop, which is done for all lanes at once where a closure for each is called.
            let (mut upper, mut lower) = ([0; LANES], [0; LANES]);
            for lane in 0..LANES {
                [upper[lane], lower[lane]] = secret.hash([[a[lane], b[lane]], [c[lane], d[lane]]]);
            }
            hashes.upper.as_chunks_mut().0[eight] = upper;
            hashes.lower.as_chunks_mut().0[eight] = lower;
        }
    }
}

/// The first of a key's ports, as the word of both has it.
const FIRST_PORT: u32 = u32::from_ne_bytes([0xff, 0xff, 0, 0]);

/// Ends of connections.
#[derive(Debug)]
pub(crate) struct PlainEnds<const N: usize> {
    addresses: [u32; N],
    /// In the first half, as a source's in [`PlainKeys`].
    ports: [u32; N],
}

impl<const N: usize> PlainEnds<N> {
    pub(crate) const EMPTY: Self = Self {
        addresses: [0; N],
        ports: [0; N],
    };

    #[inline(always)]
    pub(crate) fn set(&mut self, number: usize, end: PlainEnd) {
        self.addresses[number] = end.address;
        let [high, low] = end.port.to_ne_bytes();
        self.ports[number] = u32::from_ne_bytes([high, low, 0, 0]);
    }
}

/// The numbers of the eights that have the first `count` of `N` numbers.
#[inline(always)]
pub(crate) fn first_eights<const N: usize>(count: usize) -> impl Iterator<Item = usize> {
    (0..N / LANES).take(count.div_ceil(LANES))
}

/// The number of each eight of numbers below `N` that has a bit in `wanted`.
#[inline(always)]
pub(crate) fn eights<const N: usize>(wanted: u64) -> impl Iterator<Item = usize> {
    (0..N / LANES).filter(move |eight| wanted >> (eight * LANES) & 0xff != 0)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::flow::FlowKey;
    use crate::service::{Address, Protocol};

    const COUNT: usize = 64;

    type End = (u8, u16);

    fn key((client, client_port): End, (server, port): End, is_tcp: bool) -> PlainKey {
        let address = |last| Address::v4(Ipv4Addr::new(10, 0, 0, last).octets());
        let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
        FlowKey::new(
            address(client),
            client_port,
            address(server),
            port,
            protocol,
        )
        .plain()
    }

    fn end((last, port): End) -> PlainEnd {
        PlainEnd {
            address: u32::from_ne_bytes([10, 0, 0, last]),
            port: port.to_be(),
        }
    }

    /// Few of each, so that some are the same.
    fn keys() -> impl Strategy<Value = Vec<(End, End, bool)>> {
        let end = || (0..3_u8, prop_oneof![Just(7), Just(0x0700), any::<u16>()]);
        vec((end(), end(), any::<bool>()), COUNT)
    }

    proptest! {
        #[test]
        fn columns_say_what_each_key_does(
            parts in keys(), ends in vec((any::<u8>(), prop_oneof![Just(0), any::<u16>()]), COUNT), wanted: u64,
        ) {
            let hasher = FlowHasher::random();
            let [mut keys, mut replies, mut translated] = [const { PlainKeys::<COUNT>::EMPTY }; 3];
            let mut servers = PlainEnds::<COUNT>::EMPTY;
            for (number, ((client, service, is_tcp), server)) in parts.iter().zip(&ends).enumerate() {
                keys.set(number, key(*client, *service, *is_tcp));
                servers.set(number, end(*server));
            }
            replies.answer(&keys, &servers, None, wanted);
            translated.answer(&keys, &servers, Some(&servers), wanted);
            let mut hashes = Hashes::EMPTY;
            replies.hash(&hasher, &mut hashes, wanted);
            let some = [parts[0].0, parts[1].0].map(|client| end(client).address);
            let with = keys.sources_with(CommonBits::of(some.into_iter()).unwrap());
            let different = some[0] ^ some[1];
            for (number, (client, service, is_tcp)) in parts.iter().enumerate() {
                let is_with = (end(*client).address ^ some[0]) & !different == 0;
                prop_assert_eq!(with >> number & 1 == 1, is_with);
                let request = key(*client, *service, *is_tcp);
                prop_assert_eq!(keys.get(number), request);
                let same = keys.same_service(number);
                for (other, (_, other_service, is_other_tcp)) in parts.iter().enumerate() {
                    let is_same = (service, is_tcp) == (other_service, is_other_tcp);
                    prop_assert_eq!(same >> other & 1 == 1, is_same);
                }
                if wanted >> number & 1 == 0 {
                    continue;
                }
                let (last, port) = ends[number];
                let server = (last, if port == 0 { service.1 } else { port });
                prop_assert_eq!(replies.get(number), key(server, *client, *is_tcp));
                prop_assert_eq!(translated.get(number), key(server, (last, port), *is_tcp));
                prop_assert_eq!(hashes.get(number), hasher.hash_plain(&replies.get(number)));
                prop_assert_eq!(replies.reversed(number), replies.get(number).reversed());
            }
        }
    }
}
