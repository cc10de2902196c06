//! The straight way of a whole burst: what [`parse_plain`] says of each packet, for eight of them at once
//! where the processor has AVX2.

use super::{parse_plain, tcp};
use crate::device::BURST;
use crate::flow::{FlowHasher, PlainKey};
use crate::processor::Processor;
use crate::xsk::umem::Packets;

/// What [`parse_burst`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlainBurst {
    /// A bit for each packet that is plain and neither begins nor ends anything: it has a key.
    pub(crate) plain: u64,
    /// One for each that would be plain, but begins or ends something: it has a key, too.
    pub(crate) changing: u64,
    /// Of all packets.
    pub(crate) bytes: u64,
}

impl PlainBurst {
    const NOTHING: Self = Self {
        plain: 0,
        changing: 0,
        bytes: 0,
    };
}

/// Keys with IPv4 addresses and their hashes, by number. Their words are apart, as several at once are
/// written, and read, by one index.
#[derive(Debug)]
pub(crate) struct Keys {
    first: [u64; BURST],
    second: [u64; BURST],
    pub(crate) hashes: [u64; BURST],
}

impl Keys {
    pub(crate) const EMPTY: Self = Self {
        first: [0; BURST],
        second: [0; BURST],
        hashes: [0; BURST],
    };

    /// Both words of the first `count`.
    #[inline(always)]
    pub(crate) fn words(&self, count: usize) -> (&[u64], &[u64]) {
        (&self.first[..count], &self.second[..count])
    }

    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> PlainKey {
        PlainKey::from_words([self.first[number], self.second[number]])
    }
}

/// Reads and hashes the keys of those packets that are plain, whether they change a state or not; the others' are anything.
///
/// # Panics
/// There are more than [`BURST`] packets.
#[inline(always)]
pub(crate) fn parse_burst(
    processor: Processor,
    packets: &Packets<'_>,
    hasher: &FlowHasher,
    keys: &mut Keys,
) -> PlainBurst {
    #[cfg(target_arch = "x86_64")]
    if processor.has_avx2() {
        #[expect(unsafe_code, reason = "the processor has the instructions")]
        // SAFETY: AVX2 was detected.
        return unsafe { eight::parse_burst(packets, hasher, keys) };
    }
    parse_rest(packets, hasher, keys, 0, PlainBurst::NOTHING)
}

/// One by one from number `first` on; `found` is what there is before it.
fn parse_rest(
    packets: &Packets<'_>,
    hasher: &FlowHasher,
    keys: &mut Keys,
    first: usize,
    found: PlainBurst,
) -> PlainBurst {
    let mut found = found;
    for number in first..packets.count() {
        let length = packets.length(number);
        found.bytes += u64::from(length);
        if let Some(read) = parse_plain(packets.head(number), length) {
            [keys.first[number], keys.second[number]] = read.key.words();
            keys.hashes[number] = hasher.hash_plain(&read.key);
            match tcp::flags::changes_state(read.tcp_flags) {
                true => found.changing |= 1 << number,
                false => found.plain |= 1 << number,
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

    use super::{Keys, Packets, PlainBurst, parse_rest};
    use crate::flow::{FlowHasher, Secret, UPPER};
    use crate::service::Protocol;
    use crate::wire::{ethernet, ipv4, tcp, udp};
    use crate::xsk::umem::HEAD;

    const LANES: usize = 8;
    const L3: usize = ethernet::HEADER_LEN;
    const L4: usize = L3 + ipv4::HEADER_LEN;

    /// As the function above.
    #[target_feature(enable = "avx2")]
    pub(super) fn parse_burst(
        packets: &Packets<'_>,
        hasher: &FlowHasher,
        keys: &mut Keys,
    ) -> PlainBurst {
        let secret = hasher.secret();
        let (mut plain, mut changing) = (0, 0);
        let (mut bytes, mut first) = (_mm256_setzero_si256(), 0);
        let eights = (keys.first.as_chunks_mut().0.iter_mut())
            .zip(keys.second.as_chunks_mut().0)
            .zip(keys.hashes.as_chunks_mut().0);
        for ((firsts, seconds), hashes) in eights {
            let Some((heads, of)) = packets.several(first) else {
                break;
            };
            let lengths = lengths(of);
            bytes = _mm256_add_epi32(bytes, lengths);
            let (is_plain, is_changing, words) = parse_eight(&heads, lengths);
            plain |= u64::from(is_plain) << first;
            changing |= u64::from(is_changing) << first;
            let [protocol, source, destination, ports] = words;
            *firsts = joined(protocol, source);
            *seconds = joined(destination, ports);
            *hashes = hash(words, &secret);
            first += LANES;
        }
        let found = PlainBurst {
            plain,
            changing,
            bytes: sum(bytes),
        };
        parse_rest(packets, hasher, keys, first, found)
    }

    /// A bit for each packet that is plain, one for each that would be but changes a state, and the words of all keys.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn parse_eight(heads: &[&[u8; HEAD]; LANES], lengths: __m256i) -> (u8, u8, [__m256i; 4]) {
        // 14: version, header length, type of service, total length. 18: identification, fragment. 22: time
        // to live, protocol, checksum. 26: source.
        let [w14, w18, w22, w26] = columns::<L3>(heads);
        // 30: destination. 34: ports. 38: of UDP length, checksum.
        let [w30, w34, w38, _] = columns::<{ L3 + 16 }>(heads);
        let total = _mm256_shuffle_epi8(w14, swapped(3, 2));

        let sums_up = sums_up([w14, w18, w22, w26, w30]);
        let is_v4 = is(_mm256_and_si256(w14, all(0xff)), 0x45);
        let is_whole = is(_mm256_and_si256(w18, all(0xff3f_0000_u32.cast_signed())), 0);
        let ends = _mm256_add_epi32(total, all(small(L3)));
        let is_longer = _mm256_cmpgt_epi32(ends, lengths);
        let usual = _mm256_and_si256(
            _mm256_and_si256(is_ipv4(heads), sums_up),
            _mm256_andnot_si256(is_longer, _mm256_and_si256(is_v4, is_whole)),
        );

        let protocol = _mm256_and_si256(w22, all(0xff00));
        let length = _mm256_shuffle_epi8(w38, swapped(1, 0));
        let udp = _mm256_and_si256(
            is(protocol, (Protocol::Udp as i32) << 8),
            fits(length, udp::HEADER_LEN, total),
        );
        let (mut plain, mut changing) = (bits(_mm256_and_si256(usual, udp)), 0);
        if plain != u8::MAX {
            let (whole, goes_on) = tcp(heads, protocol, total);
            let (whole, goes_on) = (bits(_mm256_and_si256(usual, whole)), bits(goes_on));
            plain |= whole & goes_on;
            changing = whole & !goes_on;
        }
        (plain, changing, [protocol, w26, w30, w34])
    }

    /// Those of TCP whose header fits; and of these those that neither begin nor end anything.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tcp(heads: &[&[u8; HEAD]; LANES], protocol: __m256i, total: __m256i) -> (__m256i, __m256i) {
        // Data offset and flags are the upper half.
        let w44 = column::<{ L4 + 10 }>(heads);
        let length = _mm256_and_si256(_mm256_srli_epi32::<18>(w44), all(0x3c));
        let changing = i32::from(tcp::flags::SYN | tcp::flags::FIN | tcp::flags::RST) << 24;
        let goes_on = is(_mm256_and_si256(w44, all(changing)), 0);
        let is_tcp = is(protocol, (Protocol::Tcp as i32) << 8);
        let whole = _mm256_and_si256(is_tcp, fits(length, tcp::HEADER_LEN, total));
        (whole, goes_on)
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

    /// Where the EtherType is that of IPv4.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn is_ipv4(heads: &[&[u8; HEAD]; LANES]) -> __m256i {
        let of = |lane: usize| i16::from_be_bytes([heads[lane][L3 - 2], heads[lane][L3 - 1]]);
        let found = words(std::array::from_fn(of));
        let ipv4 = _mm_set1_epi16(ethernet::ethertype::IPV4.cast_signed());
        _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(found, ipv4))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn words(of: [i16; LANES]) -> __m128i {
        let [a, b, c, d, e, f, g, h] = of;
        _mm_setr_epi16(a, b, c, d, e, f, g, h)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn lengths(of: [u16; LANES]) -> __m256i {
        _mm256_cvtepu16_epi32(words(of.map(u16::cast_signed)))
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

    /// Words of each packet, the lower and the upper half of one.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn joined(lower: __m256i, upper: __m256i) -> [u64; LANES] {
        let (a, b) = (
            _mm256_unpacklo_epi32(lower, upper),
            _mm256_unpackhi_epi32(lower, upper),
        );
        in_order(a, b)
    }

    /// From the first two of each half of the packets, and the other two.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn in_order(a: __m256i, b: __m256i) -> [u64; LANES] {
        let [low, high] = halves(_mm256_permute2x128_si256::<0x20>(a, b));
        let ([a0, a1], [b0, b1]) = (words_of(low), words_of(high));
        let [low, high] = halves(_mm256_permute2x128_si256::<0x31>(a, b));
        let ([c0, c1], [d0, d1]) = (words_of(low), words_of(high));
        [a0, a1, b0, b1, c0, c1, d0, d1]
    }

    /// What `FlowHasher::hash_plain` says of each key.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn hash(words: [__m256i; 4], secret: &Secret) -> [u64; LANES] {
        let blinded =
            |number: usize| _mm256_add_epi32(words[number], all(secret.nh[number].cast_signed()));
        let (a, b, c, d) = (blinded(0), blinded(1), blinded(2), blinded(3));
        // Of the even lanes, then of the odd ones.
        let even = nh_last([a, b, c, d], secret);
        let upper = |lanes| _mm256_srli_epi64::<32>(lanes);
        let odd = nh_last([upper(a), upper(b), upper(c), upper(d)], secret);
        in_order(
            _mm256_unpacklo_epi64(even, odd),
            _mm256_unpackhi_epi64(even, odd),
        )
    }

    /// The hashes of the even lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn nh_last([a, b, c, d]: [__m256i; 4], secret: &Secret) -> __m256i {
        let sum = _mm256_add_epi64(_mm256_mul_epu32(b, c), _mm256_mul_epu32(d, a));
        let [low, high] = secret.last.map(u64::from);
        let last = _mm256_set1_epi64x((high << 32 | low).cast_signed());
        let blinded = _mm256_add_epi32(sum, last);
        let product = _mm256_mul_epu32(blinded, _mm256_srli_epi64::<32>(blinded));
        let upper = _mm256_and_si256(product, _mm256_set1_epi64x(UPPER.cast_signed()));
        _mm256_xor_si256(_mm256_shuffle_epi32::<0b10_11_00_01>(product), upper)
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
                let (mut one_by_one, mut at_once) = (Keys::EMPTY, Keys::EMPTY);
                let hasher = FlowHasher::fixed();
                let nothing = PlainBurst::NOTHING;
                let expected = parse_rest(&packets, &hasher, &mut one_by_one, 0, nothing);
                let found = parse_burst(Processor::detect(), &packets, &hasher, &mut at_once);
                assert_eq!(found, expected, "{frame:02x?}");
                let keyed = found.plain | found.changing;
                for number in (0..17).filter(|number| keyed & 1 << number != 0) {
                    assert_eq!(at_once.get(number), one_by_one.get(number));
                    assert_eq!(at_once.hashes[number], one_by_one.hashes[number]);
                }
                umem.fill(&mut frames[place], &start).unwrap();
            }
        });
    }

    #[test]
    fn plain_packets_are_plain_at_once() {
        BETWEEN.with_borrow_mut(|Between { umem, frames }| {
            let packets = umem.packets(frames);
            let (mut keys, hasher) = (Keys::EMPTY, FlowHasher::random());
            let found = parse_burst(Processor::detect(), &packets, &hasher, &mut keys);
            assert_eq!(found.plain, (1 << 17) - 1);
            assert_eq!(found.bytes, 8 * (54 + 3) + 9 * (42 + 8));
        });
    }
}
