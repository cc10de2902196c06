use std::error::Error;
use std::path::Path;

use super::*;
use crate::xsk::umem::FrameSize;

fn write(path: &Path, packets: &[(Duration, &[u8])]) {
    let mut writer = CaptureWriter::create(path).unwrap();
    for (timestamp, packet) in packets {
        writer.write(*timestamp, packet).unwrap();
    }
    writer.finish().unwrap();
}

fn read(path: &Path) -> Vec<(Duration, Vec<u8>)> {
    let mut reader = CaptureReader::open(path).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet().unwrap() {
        packets.push((packet.timestamp, packet.data.into_owned()));
    }
    packets
}

#[test]
fn nanoseconds_survive_writing_and_reading() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcap");
    let time = Duration::new(1_700_000_000, 123_456_789);
    write(&path, &[(time, b"one"), (time * 2, b"two")]);
    let expected = [(time, b"one".to_vec()), (time * 2, b"two".to_vec())];
    assert_eq!(read(&path), expected);
}

/// A classic big-endian capture in microseconds whose only packet was cut to a snap
/// length of 4.
fn microseconds() -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0002_0004, 0, 0, 4, 1] {
        file.extend_from_slice(&u32::to_be_bytes(word));
    }
    for word in [7, 5, 4, 60] {
        file.extend_from_slice(&u32::to_be_bytes(word));
    }
    file.extend_from_slice(b"head");
    file
}

#[test]
fn microseconds_and_cut_packets_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcap");
    std::fs::write(&path, microseconds()).unwrap();
    let time = Duration::from_micros(7_000_005);
    assert_eq!(read(&path), [(time, b"head".to_vec())]);
}

#[test]
fn errors_name_the_file_and_the_packet() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.pcap");

    let missing = CaptureReader::open(&path).unwrap_err();
    assert!(missing.to_string().contains("bad.pcap"), "{missing}");
    assert!(missing.source().is_some());

    std::fs::write(
        &path,
        b"\x0a\x0d\x0d\x0a pcapng, or so it seems, of 40 bytes",
    )
    .unwrap();
    let error = CaptureReader::open(&path).unwrap_err().to_string();
    assert!(error.contains("bad.pcap: not a pcap file"), "{error}");

    let mut loopback = microseconds();
    loopback[23] = 0;
    std::fs::write(&path, &loopback).unwrap();
    let error = CaptureReader::open(&path).unwrap_err().to_string();
    assert!(error.contains("found link type 0"), "{error}");

    let whole = microseconds();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let mut reader = CaptureReader::open(&path).unwrap();
    let error = reader.next_packet().unwrap_err().to_string();
    assert!(error.contains("bad.pcap: packet 1 is damaged"), "{error}");
}

#[test]
fn a_capture_is_received_packet_by_packet_and_sent_at_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in"), directory.path().join("out"));
    let times = [1, 2, 3].map(Duration::from_secs);
    let long = vec![0; 1900];
    write(
        &input,
        &[(times[0], b"one"), (times[1], &long), (times[2], b"three")],
    );

    let (umem, mut pool) = Umem::new(2, FrameSize::Bytes2048).unwrap();
    let reader = CaptureReader::open(&input).unwrap();
    let writer = CaptureWriter::create(&output).unwrap();
    let mut device = PcapDevice::new(&umem, &mut pool, reader, writer);
    let (mut burst, mut seen) = (Vec::new(), Vec::new());
    while let Some(time) = device.next_time() {
        assert_eq!(device.receive(&mut burst), 1);
        for mut frame in burst.drain(..) {
            seen.push(time);
            umem.bytes_mut(&mut frame)[0] = b'X';
            device.transmit(frame).unwrap();
        }
        device.flush(&mut pool);
    }
    assert_eq!(seen, [times[0], times[2]]);
    assert_eq!(device.statistics().rx_dropped, 1);
    assert_eq!(pool.len(), 1, "the device keeps one frame to receive into");
    device.finish().unwrap();
    let expected = [(times[0], b"Xne".to_vec()), (times[2], b"Xhree".to_vec())];
    assert_eq!(read(&output), expected);
}

#[test]
fn a_damaged_capture_ends_the_device_with_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in");
    let whole = microseconds();
    std::fs::write(&input, &whole[..whole.len() - 1]).unwrap();
    let (umem, mut pool) = Umem::new(1, FrameSize::Bytes2048).unwrap();
    let reader = CaptureReader::open(&input).unwrap();
    let writer = CaptureWriter::create(directory.path().join("out")).unwrap();
    let mut device = PcapDevice::new(&umem, &mut pool, reader, writer);
    assert_eq!(device.receive(&mut Vec::new()), 0);
    assert_eq!(device.next_time(), None);
    assert!(matches!(
        device.finish(),
        Err(CaptureError::Corrupt { number: 1, .. })
    ));
}
