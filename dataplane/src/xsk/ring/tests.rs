//! Both ends of a ring over one anonymous mapping: the test is the kernel.

use super::*;

const AT: XdpRingOffset = XdpRingOffset {
    producer: 0,
    consumer: 64,
    desc: 192,
    flags: Some(128),
};

/// The two ends of a ring whose indices start at `start`.
fn ends(size: u32, start: u32) -> (Producer<u64>, Consumer<u64>) {
    let length = 192 + size as usize * 8;
    // SAFETY: a new anonymous mapping.
    let base = unsafe {
        mm::mmap_anonymous(
            std::ptr::null_mut(),
            length,
            mm::ProtFlags::READ | mm::ProtFlags::WRITE,
            mm::MapFlags::PRIVATE,
        )
    };
    let base = NonNull::new(base.unwrap().cast()).unwrap();
    let mapping = Arc::new(Mapping { base, length });
    let ours = Shared::within(Arc::clone(&mapping), &AT, size).unwrap();
    let kernels = Shared::within(mapping, &AT, size).unwrap();
    ours.producer().store(start, Ordering::Relaxed);
    ours.consumer().store(start, Ordering::Relaxed);
    (Producer::new(ours), Consumer::new(kernels))
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let (mut producer, mut consumer) = ends(4, 0);
    assert!(producer.push(7));
    assert_eq!(consumer.burst(8).len(), 0);
    producer.publish();
    assert_eq!(consumer.burst(8).collect::<Vec<_>>(), [7]);
}

#[test]
fn a_full_ring_takes_no_more_until_entries_are_released() {
    let (mut producer, mut consumer) = ends(4, 0);
    assert!((0..4).all(|entry| producer.push(entry)));
    assert!(!producer.push(4));
    assert_eq!(producer.pending(), 4);
    producer.publish();

    let mut burst = consumer.burst(2);
    assert_eq!(burst.len(), 2);
    assert_eq!(burst.next(), Some(0));
    assert!(!producer.push(4), "taken, but not released yet");
    drop(burst);
    assert!(producer.push(4), "the one that was taken is free");
    assert!(!producer.push(5), "the one that was not taken stays");

    producer.publish();
    assert_eq!(consumer.burst(8).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(consumer.burst(8).collect::<Vec<_>>(), [4]);
    assert_eq!(producer.room(9), 4);
}

#[test]
fn indices_run_over_two_to_the_thirty_two() {
    let (mut producer, mut consumer) = ends(8, u32::MAX - 10);
    let mut expected = 0;
    for round in 0..10u64 {
        for entry in 0..5 {
            assert!(producer.push(round * 5 + entry));
        }
        producer.publish();
        for entry in consumer.burst(8) {
            assert_eq!(entry, expected);
            expected += 1;
        }
    }
    assert_eq!(expected, 50);
}

#[test]
fn any_index_of_the_other_side_stays_in_the_mapping() {
    let (mut producer, mut consumer) = ends(4, 0);
    // What no kernel does: a producer index far beyond the ring.
    producer.ring.producer().store(1 << 31, Ordering::Release);
    assert_eq!(consumer.burst(64).count(), 64);
    // And a consumer index ahead of the producer's.
    producer.ring.consumer().store(1 << 30, Ordering::Release);
    for entry in 0..64 {
        let _ = producer.push(entry);
    }
}

#[test]
fn offsets_outside_the_mapping_are_refused() {
    let (producer, _) = ends(4, 0);
    let mapping = producer.ring._mapping;
    for wrong in [
        XdpRingOffset { desc: 200, ..AT },
        XdpRingOffset {
            producer: u64::MAX,
            ..AT
        },
        XdpRingOffset { consumer: 2, ..AT },
    ] {
        let error = Shared::<u64>::within(Arc::clone(&mapping), &wrong, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn two_threads_pass_everything_in_order() {
    const ENTRIES: u64 = 200_000;
    let (mut producer, mut consumer) = ends(64, u32::MAX - 1000);
    let sender = std::thread::spawn(move || {
        let mut entry = 0;
        while entry < ENTRIES {
            while entry < ENTRIES && producer.push(entry) {
                entry += 1;
            }
            producer.publish();
            std::thread::yield_now();
        }
    });
    let mut expected = 0;
    while expected < ENTRIES {
        for entry in consumer.burst(16) {
            assert_eq!(entry, expected);
            expected += 1;
        }
        std::thread::yield_now();
    }
    sender.join().unwrap();
}
