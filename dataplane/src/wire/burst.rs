//! The straight way of a whole burst: what [`parse_plain`] says of each packet, for eight of them at once
//! where the processor has AVX2.

use std::array;

use super::{ethernet, ipv4, parse_plain, tcp};
use crate::device::BURST;
use crate::flow::{FlowHasher, Hashes, PlainKeys};
use crate::processor::Processor;
use crate::xsk::umem::Packets;

/// What [`parse_burst`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlainBurst {
    /// A bit for each packet that is plain and neither begins nor ends anything.
    pub(crate) plain: u64,
    /// One for each that would be plain, but begins or ends something.
    pub(crate) changing: u64,
    /// One for each of all these that may be the first of a connection.
    pub(crate) requests: u64,
    /// Of all packets.
    pub(crate) bytes: u64,
}

impl PlainBurst {
    const NOTHING: Self = Self {
        plain: 0,
        changing: 0,
        requests: 0,
        bytes: 0,
    };
}

/// What is read of plain packets, by number. Each is by itself, so that several at once are written, and
/// read.
#[derive(Debug)]
pub(crate) struct Headers {
    /// Of the packets.
    pub(crate) keys: PlainKeys<BURST>,
    /// Of the keys.
    pub(crate) hashes: Hashes<BURST>,
    /// The first words of the IP headers, up to the total length, read as if their first byte were the lowest.
    pub(crate) firsts: [u32; BURST],
    /// The second words, with identification and fragment, likewise.
    pub(crate) seconds: [u32; BURST],
    /// What the packets leave with.
    pub(crate) lives: [ipv4::Life; BURST],
}

impl Headers {
    pub(crate) const EMPTY: Self = Self {
        keys: PlainKeys::EMPTY,
        hashes: Hashes::EMPTY,
        firsts: [0; BURST],
        seconds: [0; BURST],
        lives: [ipv4::Life::OVER; BURST],
    };
}

/// Reads those packets that are plain, whether they change a state or not; what is written of the others is
/// anything.
///
/// # Panics
/// There are more than [`BURST`] packets.
#[inline(always)]
pub(crate) fn parse_burst(
    processor: Processor,
    packets: &Packets<'_>,
    hasher: &FlowHasher,
    headers: &mut Headers,
) -> PlainBurst {
    #[cfg(target_arch = "x86_64")]
    if processor.has_avx2() {
        #[expect(unsafe_code, reason = "the processor has the instructions")]
        // SAFETY: AVX2 was detected.
        return unsafe { eight::parse_burst(packets, hasher, headers) };
    }
    parse_rest(packets, hasher, headers, 0, PlainBurst::NOTHING)
}

/// One by one from number `first` on; `found` is what there is before it.
fn parse_rest(
    packets: &Packets<'_>,
    hasher: &FlowHasher,
    headers: &mut Headers,
    first: usize,
    found: PlainBurst,
) -> PlainBurst {
    let mut found = found;
    for number in first..packets.count() {
        let length = packets.length(number);
        found.bytes += u64::from(length);
        let head = packets.head(number);
        if let Some(read) = parse_plain(head, length) {
            let word = |at: usize| u32::from_le_bytes(array::from_fn(|byte| head[at + byte]));
            headers.firsts[number] = word(ethernet::HEADER_LEN);
            headers.seconds[number] = word(ethernet::HEADER_LEN + 4);
            headers.keys.set(number, read.key);
            headers.hashes.set(number, hasher.hash_plain(&read.key));
            headers.lives[number] = read.life;
            match tcp::flags::changes_state(read.tcp_flags) {
                true => found.changing |= 1 << number,
                false => found.plain |= 1 << number,
            }
            if !read.key.is_tcp() || tcp::flags::is_request(read.tcp_flags) {
                found.requests |= 1 << number;
            }
        }
    }
    found
}

/// Eight packets at once: a vector has the same four bytes of each of them, the first one in the
/// lowest. Numbers are those of the wire, read as if their first byte were the lowest.
#[cfg(target_arch = "x86_64")]
mod eight {
    use std::arch::x86_64::*;

    use super::{Headers, Packets, PlainBurst, parse_rest};
    use crate::flow::{FlowHasher, LANES, Secret};
    use crate::service::Protocol;
    use crate::wire::{ethernet, ipv4, tcp, udp};
    use crate::xsk::umem::HEAD;

    const L3: usize = ethernet::HEADER_LEN;
    const L4: usize = L3 + ipv4::HEADER_LEN;

    /// As the function above.
    #[target_feature(enable = "avx2")]
    pub(super) fn parse_burst(
        packets: &Packets<'_>,
        hasher: &FlowHasher,
        headers: &mut Headers,
    ) -> PlainBurst {
        let secret = hasher.secret();
        let (mut plain, mut changing, mut requests) = (0, 0, 0);
        let (mut bytes, mut first) = (_mm256_setzero_si256(), 0);
        let eights = (headers.hashes.upper.as_chunks_mut().0.iter_mut())
            .zip(headers.hashes.lower.as_chunks_mut().0)
            .zip(headers.firsts.as_chunks_mut().0)
            .zip(headers.seconds.as_chunks_mut().0)
            .zip(headers.lives.as_chunks_mut().0);
        let keys = (headers.keys.protocols.as_chunks_mut().0.iter_mut())
            .zip(headers.keys.sources.as_chunks_mut().0)
            .zip(headers.keys.destinations.as_chunks_mut().0)
            .zip(headers.keys.ports.as_chunks_mut().0);
        let eights = eights.zip(keys);
        for (to, (heads, words)) in eights.zip(packets.several()) {
            let (((((uppers, lowers), firsts), seconds), lives), keys) = to;
            let (((protocols, sources), destinations), ports) = keys;
            let lengths = lengths(words);
            bytes = _mm256_add_epi32(bytes, lengths);
            let read = read_eight(&heads, lengths);
            plain |= u64::from(read.plain) << first;
            changing |= u64::from(read.changing) << first;
            requests |= u64::from(read.requests) << first;
            let [upper, lower] = hash(read.key, &secret);
            (*protocols, *sources) = (numbers(read.key[0]), numbers(read.key[1]));
            (*destinations, *ports) = (numbers(read.key[2]), numbers(read.key[3]));
            (*uppers, *lowers) = (numbers(upper), numbers(lower));
            (*firsts, *seconds) = (numbers(read.words[0]), numbers(read.words[1]));
            *lives = numbers(read.life).map(ipv4::Life::from_word);
            first += LANES;
        }
        let found = PlainBurst {
            plain,
            changing,
            requests,
            bytes: sum(bytes),
        };
        parse_rest(packets, hasher, headers, first, found)
    }

    /// What is read of eight packets.
    struct Eight {
        /// A bit for each packet that is plain.
        plain: u8,
        /// One for each that would be but changes a state.
        changing: u8,
        /// One for each of these that may be the first of a connection.
        requests: u8,
        /// The words of all keys.
        key: [__m256i; 4],
        /// The first two words of all IP headers.
        words: [__m256i; 2],
        /// The words with the time to live, as packets leave.
        life: __m256i,
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn read_eight(heads: &[&[u8; HEAD]; LANES], lengths: __m256i) -> Eight {
        // 10: of the source MAC address, EtherType. 14: version, header length, type of service, total
        // length. 18: identification, fragment. 22: time to live, protocol, checksum.
        let [w10, w14, w18, w22] = columns::<{ L3 - 4 }>(heads);
        // 26: source. 30: destination. 34: ports. 38: of UDP length, checksum.
        let [w26, w30, w34, w38] = columns::<{ L3 + 12 }>(heads);
        let total = _mm256_shuffle_epi8(w14, swapped(3, 2));

        let sums_up = sums_up([w14, w18, w22, w26, w30]);
        // EtherType, and version with header length.
        let kind = _mm256_blend_epi16::<0b10_10_10_10>(w14, w10);
        let is_v4 = is(
            _mm256_and_si256(kind, all(0xffff_00ff_u32.cast_signed())),
            KIND_V4,
        );
        let is_whole = is(_mm256_and_si256(w18, all(0xff3f_0000_u32.cast_signed())), 0);
        let is_over = is(_mm256_and_si256(w22, all(0xfe)), 0);
        let ends = _mm256_add_epi32(total, all(small(L3)));
        let is_longer = _mm256_cmpgt_epi32(ends, lengths);
        let usual = _mm256_and_si256(
            _mm256_and_si256(is_v4, sums_up),
            _mm256_andnot_si256(_mm256_or_si256(is_longer, is_over), is_whole),
        );

        let protocol = _mm256_and_si256(w22, all(0xff00));
        let length = _mm256_shuffle_epi8(w38, swapped(1, 0));
        let udp = _mm256_and_si256(
            is(protocol, (Protocol::Udp as i32) << 8),
            fits(length, udp::HEADER_LEN, total),
        );
        let (mut plain, mut changing) = (bits(_mm256_and_si256(usual, udp)), 0);
        let mut requests = plain;
        if plain != u8::MAX {
            let tcp = tcp(heads, protocol, total);
            let whole = bits(_mm256_and_si256(usual, tcp.whole));
            let goes_on = bits(tcp.goes_on);
            plain |= whole & goes_on;
            changing = whole & !goes_on;
            if changing != 0 {
                requests |= changing & bits(tcp.asks);
            }
        }
        Eight {
            plain,
            changing,
            requests,
            key: [protocol, w26, w30, w34],
            words: [w14, w18],
            life: one_hop_less(w22),
        }
    }

    /// The EtherType of IPv4 in the upper half, version and header length in the lower one.
    const KIND_V4: i32 = i32::from_le_bytes({
        let [high, low] = ethernet::ethertype::IPV4.to_be_bytes();
        [ipv4::VERSION_AND_LENGTH, 0, high, low]
    });

    /// What `ipv4::Life::one_hop_less` says of each.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn one_hop_less(words: __m256i) -> __m256i {
        let next = _mm256_add_epi32(words, all(0xffff));
        let last = all(0xfffe_0000_u32.cast_signed());
        let carries = _mm256_cmpeq_epi32(_mm256_max_epu32(words, last), words);
        // All bits of a lane that carries are -1, and shifted -0x10000.
        _mm256_sub_epi32(next, _mm256_slli_epi32::<16>(carries))
    }

    /// All bits of the lanes that are so.
    struct Tcp {
        /// Of TCP, and the header fits.
        whole: __m256i,
        /// If that is so: neither begins nor ends anything.
        goes_on: __m256i,
        /// Likewise: asks for a connection.
        asks: __m256i,
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn tcp(heads: &[&[u8; HEAD]; LANES], protocol: __m256i, total: __m256i) -> Tcp {
        // Data offset and flags are the upper half.
        let w44 = column::<{ L4 + 10 }>(heads);
        let length = _mm256_and_si256(_mm256_srli_epi32::<18>(w44), all(0x3c));
        const SYN: i32 = (tcp::flags::SYN as i32) << 24;
        const ENDS: i32 = ((tcp::flags::FIN | tcp::flags::RST) as i32) << 24;
        const ACK: i32 = (tcp::flags::ACK as i32) << 24;
        let goes_on = is(_mm256_and_si256(w44, all(SYN | ENDS)), 0);
        let asks = is(_mm256_and_si256(w44, all(SYN | ENDS | ACK)), SYN);
        let is_tcp = is(protocol, (Protocol::Tcp as i32) << 8);
        let whole = _mm256_and_si256(is_tcp, fits(length, tcp::HEADER_LEN, total));
        Tcp {
            whole,
            goes_on,
            asks,
        }
    }

    /// All lanes are `value`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn all(value: i32) -> __m256i {
        _mm256_set1_epi32(value)
    }

    /// All bits of the lanes that are `value`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn is(lanes: __m256i, value: i32) -> __m256i {
        _mm256_cmpeq_epi32(lanes, all(value))
    }

    /// One bit for each lane.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn bits(lanes: __m256i) -> u8 {
        let [lowest, ..] = _mm256_movemask_ps(_mm256_castsi256_ps(lanes)).to_le_bytes();
        lowest
    }

    /// Where a transport header that says it has `length` bytes has enough of them, and they end with the
    /// IP packet or before it.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn fits(length: __m256i, least: usize, total: __m256i) -> __m256i {
        let is_enough = _mm256_cmpgt_epi32(length, all(small(least) - 1));
        let end = _mm256_add_epi32(length, all(small(ipv4::HEADER_LEN)));
        _mm256_andnot_si256(_mm256_cmpgt_epi32(end, total), is_enough)
    }

    /// Shuffles two bytes of each lane to its lower half, and 0 to its upper one.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn swapped(low: i32, high: i32) -> __m256i {
        let lane = |number| (low + number) | (high + number) << 8 | 0x8080_0000_u32.cast_signed();
        let half = [0, 4, 8, 12].map(lane);
        _mm256_setr_epi32(
            half[0], half[1], half[2], half[3], half[0], half[1], half[2], half[3],
        )
    }

    /// Where the sixteen-bit halves of the words come to a multiple of 0xffff, which is what a header with
    /// its checksum does.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sums_up(words: [__m256i; 5]) -> __m256i {
        let [mut all_of_it, mut upper] = [words[0], _mm256_srli_epi32::<16>(words[0])];
        for word in &words[1..] {
            all_of_it = _mm256_add_epi32(all_of_it, *word);
            upper = _mm256_add_epi32(upper, _mm256_srli_epi32::<16>(*word));
        }
        // What overflowed above is what the upper halves came to: the rest are the lower halves.
        let lower = _mm256_sub_epi32(all_of_it, _mm256_slli_epi32::<16>(upper));
        let sum = _mm256_add_epi32(lower, upper);
        let once = _mm256_and_si256(sum, all(0xffff));
        is(_mm256_add_epi32(once, _mm256_srli_epi32::<16>(sum)), 0xffff)
    }

    /// The third sixteen bits of each word.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn lengths(words: [u64; LANES]) -> __m256i {
        let [a, b, c, d, e, f, g, h] = words.map(u64::cast_signed);
        let (a, b) = (
            _mm256_setr_epi64x(a, b, c, d),
            _mm256_setr_epi64x(e, f, g, h),
        );
        // The upper halves: 0, 1, 4, 5, 2, 3, 6, 7.
        let uppers =
            _mm256_shuffle_ps::<0b11_01_11_01>(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
        let in_order = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_castps_si256(uppers));
        _mm256_and_si256(in_order, all(0xffff))
    }

    /// The lanes in their order.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn numbers(lanes: __m256i) -> [u32; LANES] {
        let halves = halves(lanes).map(|half| words_of(half).map(u64::to_le_bytes));
        let mut numbers = [0; LANES];
        let bytes = halves.as_flattened().as_flattened();
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
            *number = u32::from_le_bytes(*bytes);
        }
        numbers
    }

    /// The sum of all lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sum(lanes: __m256i) -> u64 {
        let [low, high] = halves(lanes);
        let [a, b] = words_of(_mm_add_epi32(low, high));
        [a, a >> 32, b, b >> 32]
            .map(|word| word & u64::from(u32::MAX))
            .iter()
            .sum()
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves(lanes: __m256i) -> [__m128i; 2] {
        let high = _mm256_extracti128_si256::<1>(lanes);
        [_mm256_castsi256_si128(lanes), high]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn words_of(half: __m128i) -> [u64; 2] {
        let [low, high] = [_mm_cvtsi128_si64(half), _mm_extract_epi64::<1>(half)];
        [low.cast_unsigned(), high.cast_unsigned()]
    }

    /// What `FlowHasher::hash_plain` says of each key: the upper halves and the lower ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn hash(words: [__m256i; 4], secret: &Secret) -> [__m256i; 2] {
        let blinded =
            |number: usize| _mm256_add_epi32(words[number], all(secret.nh[number].cast_signed()));
        let (a, b, c, d) = (blinded(0), blinded(1), blinded(2), blinded(3));
        // Of the even lanes, then of the odd ones.
        let even = nh_last([a, b, c, d], secret);
        let upper = |lanes| _mm256_srli_epi64::<32>(lanes);
        let odd = nh_last([upper(a), upper(b), upper(c), upper(d)], secret);
        // Lane by lane again.
        let low = _mm256_blend_epi32::<ODD>(even, _mm256_slli_epi64::<32>(odd));
        let high = _mm256_blend_epi32::<ODD>(upper(even), odd);
        [_mm256_xor_si256(low, high), high]
    }

    /// The odd lanes.
    const ODD: i32 = 0b1010_1010;

    /// The last products of the even lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn nh_last([a, b, c, d]: [__m256i; 4], secret: &Secret) -> __m256i {
        let sum = _mm256_add_epi64(_mm256_mul_epu32(b, c), _mm256_mul_epu32(d, a));
        let [low, high] = secret.last.map(u64::from);
        let last = _mm256_set1_epi64x((high << 32 | low).cast_signed());
        let blinded = _mm256_add_epi32(sum, last);
        _mm256_mul_epu32(blinded, _mm256_srli_epi64::<32>(blinded))
    }

    /// A small number as lanes have it.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "lengths of headers"
    )]
    const fn small(number: usize) -> i32 {
        assert!(number < 128);
        number as i32
    }

    /// The word at `AT` of each packet.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn column<const AT: usize>(heads: &[&[u8; HEAD]; LANES]) -> __m256i {
        let [a, b, c, d, e, f, g, h] = std::array::from_fn(|lane| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&heads[lane][AT..AT + 4]);
            i32::from_le_bytes(bytes)
        });
        _mm256_setr_epi32(a, b, c, d, e, f, g, h)
    }

    /// The four words from `AT` on of each packet, turned into a vector for each word.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn columns<const AT: usize>(heads: &[&[u8; HEAD]; LANES]) -> [__m256i; 4] {
        let half = |lane: usize, at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&heads[lane][AT + at..AT + at + 8]);
            i64::from_le_bytes(bytes)
        };
        // Two packets, half the lanes apart.
        let pair = |lane: usize| {
            let other = lane + LANES / 2;
            (half(lane, 0), half(lane, 8), half(other, 0), half(other, 8))
        };
        let vector = |(a, b, c, d)| _mm256_setr_epi64x(a, b, c, d);
        let (a, b) = (vector(pair(0)), vector(pair(1)));
        let (c, d) = (vector(pair(2)), vector(pair(3)));
        let [ab, cd] = [_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d)];
        let [ab_high, cd_high] = [_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d)];
        [
            _mm256_unpacklo_epi64(ab, cd),
            _mm256_unpackhi_epi64(ab, cd),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use etherparse::PacketBuilder;

    use super::*;
    use crate::xsk::umem::{Frame, FrameSize, Umem};

    /// Packets that a frame is put between.
    struct Between {
        umem: Arc<Umem>,
        frames: Vec<Frame>,
    }

    impl Between {
        /// Eight of TCP, eight of UDP, and one more.
        fn new() -> Self {
            let (umem, mut pool) = Umem::new(17, FrameSize::Bytes2048).unwrap();
            let mut frames = Vec::new();
            for number in 0..17 {
                let (mut frame, mut bytes) = (pool.take().unwrap(), Vec::new());
                let start = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(
                    [10, 0, 0, number],
                    [192, 0, 2, 1],
                    64,
                );
                if number < 8 {
                    start.tcp(1000, 80, 1, 2).ack(3).write(&mut bytes, b"GET")
                } else {
                    start.udp(1000, 53).write(&mut bytes, b"question")
                }
                .unwrap();
                umem.fill(&mut frame, &bytes).unwrap();
                frames.push(frame);
            }
            Self { umem, frames }
        }
    }

    thread_local! {
        static BETWEEN: std::cell::RefCell<Between> = std::cell::RefCell::new(Between::new());
    }

    /// A frame is to eight at once what it is by itself, wherever it is.
    pub(in crate::wire) fn agrees(frame: &[u8]) {
        BETWEEN.with_borrow_mut(|Between { umem, frames }| {
            for place in [0, 5, 11, 16] {
                let (start, length) = (umem.bytes(&frames[place]).to_vec(), frame.len());
                if length > FrameSize::Bytes2048.max_packet() {
                    return;
                }
                umem.fill(&mut frames[place], frame).unwrap();
                let packets = umem.packets(frames);
                let (mut one_by_one, mut at_once) = (Headers::EMPTY, Headers::EMPTY);
                let hasher = FlowHasher::fixed();
                let nothing = PlainBurst::NOTHING;
                let expected = parse_rest(&packets, &hasher, &mut one_by_one, 0, nothing);
                let found = parse_burst(Processor::detect(), &packets, &hasher, &mut at_once);
                assert_eq!(found, expected, "{frame:02x?}");
                let keyed = found.plain | found.changing;
                for number in (0..17).filter(|number| keyed & 1 << number != 0) {
                    assert_eq!(at_once.keys.get(number), one_by_one.keys.get(number));
                    assert_eq!(at_once.hashes.get(number), one_by_one.hashes.get(number));
                    assert_eq!(at_once.firsts[number], one_by_one.firsts[number]);
                    assert_eq!(at_once.seconds[number], one_by_one.seconds[number]);
                    assert_eq!(at_once.lives[number], one_by_one.lives[number]);
                }
                umem.fill(&mut frames[place], &start).unwrap();
            }
        });
    }

    #[test]
    fn plain_packets_are_plain_at_once() {
        BETWEEN.with_borrow_mut(|Between { umem, frames }| {
            let packets = umem.packets(frames);
            let (mut headers, hasher) = (Headers::EMPTY, FlowHasher::random());
            let found = parse_burst(Processor::detect(), &packets, &hasher, &mut headers);
            assert_eq!(found.plain, (1 << 17) - 1);
            assert_eq!(found.bytes, 8 * (54 + 3) + 9 * (42 + 8));
        });
    }
}
