use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::xsk::umem::{FrameSize, Umem};

/// The worker's part, with a verdict by the packet's first byte: odd is dropped.
fn work(device: &mut RingDevice, umem: &Umem, pool: &mut FramePool, burst: &mut Vec<Frame>) {
    device.receive(burst);
    for frame in burst.drain(..) {
        if umem.bytes(&frame)[0] % 2 == 1 {
            pool.give(frame);
        } else if let Err(frame) = device.transmit(frame) {
            pool.give(frame);
        }
    }
    device.flush(pool);
}

#[test]
fn as_many_frames_come_back_as_were_sent() {
    let (umem, mut theirs) = Umem::new(200, FrameSize::Bytes2048).unwrap();
    let (mut device, mut peer) = pair(64);
    let mut frames = Vec::new();
    for number in 0..100u8 {
        let mut frame = theirs.take().unwrap();
        umem.fill(&mut frame, &[number]).unwrap();
        frames.push(frame);
    }
    assert_eq!(peer.send(&mut frames), 64);
    assert_eq!(frames.len(), 36);

    let mut pool = theirs; // the worker's: 100 frames
    let (mut burst, mut back) = (Vec::new(), Vec::new());
    work(&mut device, &umem, &mut pool, &mut burst);
    assert_eq!(peer.send(&mut frames), 36);
    work(&mut device, &umem, &mut pool, &mut burst);
    assert_eq!(peer.receive(&mut back), 50);
    let numbers: Vec<_> = back.iter().map(|frame| umem.bytes(frame)[0]).collect();
    assert_eq!(numbers, (0..100).step_by(2).collect::<Vec<_>>());
    assert_eq!(peer.recycled(&mut back), 50);
    assert_eq!(pool.len(), 100);
}

#[test]
fn two_threads_lose_no_frame() {
    const FRAMES: u32 = 512;
    const HALF: usize = FRAMES as usize / 2;
    const ROUNDS: usize = 50_000;
    let (umem, mut pool) = Umem::new(FRAMES, FrameSize::Bytes2048).unwrap();
    let (mut device, mut peer) = pair(128);
    let mut frames: Vec<_> = (0..HALF).map(|_| pool.take().unwrap()).collect();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));

    let worker = std::thread::spawn({
        let (umem, stop) = (Arc::clone(&umem), Arc::clone(&stop));
        move || {
            let mut burst = Vec::new();
            // One more round after the stop, for what was sent before it.
            loop {
                let last = stop.load(Ordering::Acquire);
                work(&mut device, &umem, &mut pool, &mut burst);
                if last && device.owed == 0 {
                    return pool;
                }
                std::thread::yield_now();
            }
        }
    });

    let (mut batch, mut sent) = (Vec::new(), 0);
    while sent < ROUNDS {
        for number in 0..32u8 {
            let Some(mut frame) = frames.pop() else { break };
            umem.fill(&mut frame, &[number]).unwrap();
            batch.push(frame);
        }
        sent += peer.send(&mut batch);
        peer.receive(&mut frames);
        peer.recycled(&mut frames);
        std::thread::yield_now();
    }
    frames.append(&mut batch);
    while frames.len() < HALF {
        peer.receive(&mut frames);
        peer.recycled(&mut frames);
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Release);
    let pool = worker.join().unwrap();
    assert_eq!((frames.len(), pool.len()), (HALF, HALF));
}
