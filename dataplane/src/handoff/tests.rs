use super::*;
use crate::xsk::umem::FrameSize;

const PORT: PortIndex = PortIndex(3);
const FRAMES: u32 = 4096;

/// Workers without anything else: their umems, pools and ends.
struct Bench {
    umems: Vec<Arc<Umem>>,
    pools: Vec<FramePool>,
    ends: Vec<Handoff>,
}

fn bench(workers: usize) -> Bench {
    let (umems, pools): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| Umem::new(FRAMES, FrameSize::Bytes2048).expect("memory"))
        .unzip();
    let ends = connect(&umems, 1000).expect("eventfds");
    Bench { umems, pools, ends }
}

impl Bench {
    fn frame(&mut self, worker: usize, packet: &[u8]) -> Frame {
        let mut frame = self.pools[worker].take().expect("a free frame");
        self.umems[worker].fill(&mut frame, packet).expect("fits");
        frame
    }

    /// What a worker gets from another one: packets and where they came from.
    fn receive(&mut self, worker: usize, from: u16) -> Vec<(Vec<u8>, Arrival)> {
        let (mut burst, mut arrivals) = (Vec::new(), Vec::new());
        let pool = &mut self.pools[worker];
        let end = &mut self.ends[worker];
        let umem = &self.umems[worker];
        let from = WorkerIndex(from);
        let count = end.receive(from, umem, pool, &mut burst, &mut arrivals);
        assert_eq!((burst.len(), arrivals.len()), (count, count));
        let packets = burst.drain(..).map(|frame| {
            let packet = umem.bytes(&frame).to_vec();
            pool.give(frame);
            packet
        });
        packets.zip(arrivals).collect()
    }

    fn flush(&mut self, worker: usize) {
        self.ends[worker].flush(&mut self.pools[worker]);
    }
}

#[test]
fn one_worker_needs_nothing() {
    assert!(bench(1).ends.is_empty());
    assert_eq!((frames(0), frames(1)), (0, 0));
}

#[test]
fn frames_are_set_aside_for_all_that_may_be_lent() {
    assert_eq!(
        [2, 3, 5, 17, 64].map(frames),
        [1024, 1024, 1024, 1024, 63 * 64]
    );
}

#[test]
fn a_packet_is_copied_and_its_frame_comes_back() {
    let mut bench = bench(2);
    let frame = bench.frame(0, b"reply");
    bench.ends[0]
        .send(WorkerIndex(1), frame, PORT)
        .expect("room");
    assert_eq!(bench.receive(1, 0), [], "not flushed yet");
    bench.flush(0);
    let arrival = Arrival {
        ingress: PORT,
        asked: 1,
    };
    assert_eq!(bench.receive(1, 0), [(b"reply".to_vec(), arrival)]);
    assert_eq!(bench.pools[0].len(), FRAMES as usize - 1);
    bench.flush(0);
    assert_eq!(bench.pools[0].len(), FRAMES as usize);
    assert_eq!(bench.pools[1].len(), FRAMES as usize);
}

#[test]
fn workers_are_asked_in_turn() {
    let mut bench = bench(3);
    let frame = bench.frame(2, b"whose?");
    bench.ends[2].offer(frame, Arrival::by(PORT)).expect("room");
    bench.flush(2);
    let (_, arrival) = bench.receive(0, 2)[0];
    assert_eq!(arrival.asked, 2, "itself and the next");
    let frame = bench.frame(0, b"whose?");
    bench.ends[0].offer(frame, arrival).expect("room");
    bench.flush(0);
    let (_, arrival) = bench.receive(1, 0)[0];
    assert_eq!(
        arrival,
        Arrival {
            ingress: PORT,
            asked: 3
        }
    );
}

#[test]
fn offers_leave_half_of_the_ring_to_replies() {
    let mut bench = bench(2);
    let mut room = |offer: bool| {
        (0..).find(|_| {
            let frame = bench.frame(0, b"x");
            let sent = match offer {
                true => bench.ends[0].offer(frame, Arrival::by(PORT)),
                false => bench.ends[0].send(WorkerIndex(1), frame, PORT),
            };
            sent.map_err(|frame| bench.pools[0].give(frame)).is_err()
        })
    };
    assert_eq!((room(true), room(false)), (Some(LOAN / 2), Some(LOAN / 2)));
    let nobody = bench.frame(0, b"x");
    let nobody = bench.ends[0].send(WorkerIndex(2), nobody, PORT);
    bench.pools[0].give(nobody.expect_err("there is no such worker"));

    // Frames come back one burst at a time, and then there is room again.
    bench.flush(0);
    assert_eq!(bench.receive(1, 0).len(), BURST);
    bench.flush(0);
    assert_eq!(bench.pools[0].len(), FRAMES as usize - LOAN + BURST);
    let rest: usize = std::iter::repeat_with(|| bench.receive(1, 0).len())
        .take_while(|taken| *taken > 0)
        .sum();
    assert_eq!(rest, LOAN - BURST);
    bench.flush(0);
    assert_eq!(bench.pools[0].len(), FRAMES as usize);
}

#[test]
fn what_finds_no_frame_stays_on_the_ring() {
    let mut bench = bench(2);
    for number in 0..10 {
        let frame = bench.frame(0, &[number]);
        bench.ends[0]
            .send(WorkerIndex(1), frame, PORT)
            .expect("room");
    }
    bench.flush(0);
    let pool = &mut bench.pools[1];
    let mut elsewhere: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(bench.receive(1, 0), []);
    assert!(!bench.ends[1].lie_down(), "no sleep over it");
    bench.pools[1].give(elsewhere.pop().expect("a frame"));
    let first: Vec<_> = bench
        .receive(1, 0)
        .into_iter()
        .map(|(packet, _)| packet)
        .collect();
    assert_eq!(first, [[0]]);
    bench.pools[1].give(elsewhere.pop().expect("a frame"));
    let rest = std::iter::repeat_with(|| bench.receive(1, 0).len()).take(10);
    assert_eq!(rest.sum::<usize>(), 9);
    assert!(bench.ends[1].lie_down());
}

#[test]
fn umems_of_different_frames_are_refused() {
    let (one, _pool) = Umem::new(1, FrameSize::Bytes2048).expect("memory");
    let (other, _pool) = Umem::new(1, FrameSize::Bytes4096).expect("memory");
    assert!(connect(&[one, other], 1).is_err());
}

/// Four threads hand numbered packets to one another as fast as they can: all arrive, in the order of
/// each pair, and every frame comes back.
#[test]
fn threads_lose_nothing_and_keep_the_order() {
    const WORKERS: usize = 4;
    const PACKETS: u32 = 20_000;
    let Bench { umems, pools, ends } = bench(WORKERS);
    let others = u32::try_from(WORKERS - 1).unwrap();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let run = |me: usize, mut pool: FramePool, mut end: Handoff| {
        let umem = &umems[me];
        let (mut sent, mut expected) = ([0_u32; WORKERS], [0_u32; WORKERS]);
        let (mut burst, mut arrivals) = (Vec::new(), Vec::new());
        let finished = |sent: &[u32], expected: &[u32]| {
            [sent, expected]
                .iter()
                .all(|counts| counts.iter().sum::<u32>() == others * PACKETS)
        };
        let mut said = false;
        // Until all are done: the others' frames are given back meanwhile, and ours come back.
        while done.load(std::sync::atomic::Ordering::Acquire) < WORKERS || end.lent > 0 {
            for (to, next) in sent.iter_mut().enumerate().filter(|(to, _)| *to != me) {
                while *next < PACKETS
                    && let Some(mut frame) = pool.take()
                {
                    umem.fill(&mut frame, &next.to_ne_bytes()).unwrap();
                    match end.send(WorkerIndex(u16::try_from(to).unwrap()), frame, PORT) {
                        Ok(()) => *next += 1,
                        Err(frame) => {
                            pool.give(frame);
                            break;
                        }
                    }
                }
            }
            end.flush(&mut pool);
            for (from, next) in expected.iter_mut().enumerate() {
                let number = WorkerIndex(u16::try_from(from).unwrap());
                end.receive(number, umem, &mut pool, &mut burst, &mut arrivals);
                arrivals.clear();
                for frame in burst.drain(..) {
                    assert_eq!(umem.bytes(&frame), next.to_ne_bytes());
                    *next += 1;
                    pool.give(frame);
                }
            }
            if !said && finished(&sent, &expected) {
                said = true;
                done.fetch_add(1, std::sync::atomic::Ordering::Release);
            }
            std::thread::yield_now();
        }
        (pool, end)
    };
    let run = &run;
    let left: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (pools.into_iter().zip(ends).enumerate())
            .map(|(me, (pool, end))| scope.spawn(move || run(me, pool, end)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (pool, end) in left {
        assert_eq!((pool.len(), end.lent), (FRAMES as usize, 0));
    }
}
