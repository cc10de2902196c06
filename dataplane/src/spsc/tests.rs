use std::rc::Rc;

use super::*;

#[test]
fn items_are_seen_after_publish_and_in_order() {
    let (mut sender, mut receiver) = ring(4);
    let mut items = Vec::new();
    sender.push('a').unwrap();
    sender.push('b').unwrap();
    assert_eq!(receiver.pop(&mut items, 9), 0);
    sender.publish();
    assert_eq!(receiver.pop(&mut items, 1), 1);
    assert_eq!(receiver.pop(&mut items, 9), 1);
    assert_eq!(items, ['a', 'b']);
}

#[test]
fn a_full_ring_gives_the_item_back() {
    let (mut sender, mut receiver) = ring(3);
    for item in 0..4 {
        sender.push(item).unwrap();
    }
    assert_eq!(sender.push(4), Err(4), "three slots round up to four");
    sender.publish();
    assert_eq!(receiver.pop(&mut Vec::new(), 1), 1);
    assert_eq!(sender.room(9), 1);
    sender.push(4).unwrap();
}

#[test]
fn what_is_left_in_a_ring_is_dropped_once() {
    let item = Rc::new(());
    let (mut sender, mut receiver) = ring(8);
    for _ in 0..5 {
        sender.push(Rc::clone(&item)).unwrap();
    }
    sender.publish();
    receiver.pop(&mut Vec::new(), 2);
    sender.push(Rc::clone(&item)).unwrap(); // never published
    drop((sender, receiver));
    assert_eq!(Rc::strong_count(&item), 1);
}

#[test]
fn two_threads_pass_everything_in_order() {
    const ITEMS: u64 = 300_000;
    let (mut sender, mut receiver) = ring(64);
    let thread = std::thread::spawn(move || {
        let mut item = 0;
        while item < ITEMS {
            while item < ITEMS && sender.push(Box::new(item)).is_ok() {
                item += 1;
            }
            sender.publish();
            std::thread::yield_now();
        }
    });
    let mut items = Vec::new();
    let mut expected = 0;
    while expected < ITEMS {
        receiver.pop(&mut items, 17);
        for item in items.drain(..) {
            assert_eq!(*item, expected);
            expected += 1;
        }
        std::thread::yield_now();
    }
    thread.join().unwrap();
}
