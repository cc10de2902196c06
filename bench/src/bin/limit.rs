//! The limit in memory: what a packet costs at least when there is a connection for it to be found.
//!
//! A burst is 64 frames. For each, one line of a table is chosen at random and asked for; then each line is
//! read and its time written, and the frame's Ethernet addresses are written. Nothing is parsed, hashed or compared, and the
//! lines are independent of each other, so that all misses of a burst overlap. Prints JSON.

use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;

const BURST: usize = 64;
/// Frames in turn, as in a umem.
const FRAMES: usize = 512;
const CHUNK: usize = 2048;
/// Bursts between two looks at the clock.
const SLICE: u32 = 1024;

/// Measures reading one line of a table and touching one frame for each packet.
#[derive(Debug, Parser)]
struct Arguments {
    /// Lines of the table
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    flows: u32,
    /// Seconds to measure
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    seconds: f64,
    /// CPU to run on
    #[arg(long, value_name = "CPU")]
    core: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Report {
    flows: u32,
    /// Median of slices of 65,536 packets.
    ns_per_packet: f64,
}

/// One connection's line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    key: u64,
    seen: u64,
    rest: [u64; 6],
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(core) = arguments.core {
        pktgen::cpu::pin(core)?;
    }
    let mut table: Vec<Line> = (0..u64::from(arguments.flows))
        .map(|key| Line {
            key,
            seen: 0,
            rest: [key; 6],
        })
        .collect();
    let mut frames = vec![[1_u8; CHUNK]; FRAMES];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = 0;
    let mut slices = Vec::new();
    let deadline = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut began = Instant::now();
    while began < deadline {
        for now in 0..SLICE {
            burst(&mut table, &mut frames, next, &mut random, u64::from(now));
            next = (next + BURST) % FRAMES;
        }
        let ended = Instant::now();
        slices.push((ended - began).as_secs_f64() * 1e9 / (f64::from(SLICE) * BURST as f64));
        began = ended;
    }
    black_box((&table, &frames));
    let report = Report {
        flows: arguments.flows,
        ns_per_packet: bench::Spread::of(&slices).map_or(0.0, |spread| spread.median),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

#[inline(never)]
fn burst(table: &mut [Line], frames: &mut [[u8; CHUNK]], first: usize, random: &mut u64, now: u64) {
    let mut places = [0; BURST];
    for place in &mut places {
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // The high half, scaled to the table, as an index is got from a hash.
        *place = (((*random >> 32) * table.len() as u64) >> 32) as usize;
        prefetch(table, *place);
    }
    for (number, place) in places.into_iter().enumerate() {
        let line = &mut table[place];
        line.seen = now;
        let addresses = line.key ^ line.rest[5];
        let frame = &mut frames[first + number];
        frame[..8].copy_from_slice(&addresses.to_ne_bytes());
        frame[6..12].copy_from_slice(&addresses.to_ne_bytes()[..6]);
    }
}

#[inline(always)]
fn prefetch(table: &[Line], place: usize) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the instruction has no safe name")]
    // SAFETY: PREFETCHT0 reads nothing architecturally and does not fault, whatever the address.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(table.as_ptr().wrapping_add(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (table, place);
}
