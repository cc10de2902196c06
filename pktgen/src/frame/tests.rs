use super::*;

fn layout(destination: &str, protocol: Protocol) -> Layout {
    Layout {
        source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        destination: destination.parse().unwrap(),
        protocol,
    }
}

fn flows_for(destination: &str) -> Flows {
    let prefix = if destination.starts_with('[') {
        "2001:db8:ffff:ffff:ffff:ffff::/96"
    } else {
        "10.255.0.0/16"
    };
    Flows::new(prefix.parse().unwrap(), 1_000_000).unwrap()
}

/// Both checksums, verified by summing everything that they cover.
fn check(frame: &[u8]) {
    let (l4, pseudo) = match frame[12..14] {
        [0x08, 0x00] => {
            assert_eq!(fold(sum(&frame[14..34])), 0xffff, "IPv4 header");
            assert_eq!(
                usize::from(frame[17]) + usize::from(frame[16]) * 256,
                frame.len() - 14
            );
            (34, sum(&frame[26..34]) + u32::from(frame[23]))
        }
        _ => {
            assert_eq!(
                usize::from(frame[19]) + usize::from(frame[18]) * 256,
                frame.len() - 54
            );
            (54, sum(&frame[22..54]) + u32::from(frame[20]))
        }
    };
    let mut segment = frame[l4..].to_vec();
    let length = u32::try_from(segment.len()).unwrap();
    segment.resize(segment.len().next_multiple_of(2), 0);
    assert_eq!(
        fold(fold(pseudo + length + sum(&segment))),
        0xffff,
        "layer 4"
    );
}

#[test]
fn checksums_are_right_for_every_kind_length_and_flow() {
    for destination in ["192.0.2.1:80", "[2001:db8::1]:65535"] {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let (layout, flows) = (layout(destination, protocol), flows_for(destination));
            for length in [layout.shortest(), layout.payload() + STAMP, 91, 1514] {
                let length = length.max(layout.shortest());
                let template = Template::new(layout, &flows, length).unwrap();
                for flow in [0, 1, 65_535, 65_536, 999_999] {
                    for round in [0, 1, u32::MAX] {
                        let frame = template.frame(&flows, flow, round, u64::MAX - 5);
                        assert_eq!(frame.len(), length);
                        check(&frame);
                    }
                }
            }
        }
    }
}

#[test]
fn the_shortest_udp_frame_has_its_stamp() {
    let flows = flows_for("192.0.2.1:80");
    let template = Template::new(layout("192.0.2.1:80", Protocol::Udp), &flows, 60).unwrap();
    let frame = template.of_run(0xab).frame(&flows, 7, 9, u64::MAX);
    let expected = [
        0xab, 0, 0, 7, 0, 0, 0, 9, b'p', b'g', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];
    assert_eq!(frame[42..58], expected);
    let stamp = Stamp::read(&frame[42..]).unwrap();
    assert_eq!((stamp.run, stamp.flow, stamp.round), (0xab, 7, 9));
    // 48 bits of time go round.
    assert_eq!(stamp.age(4), Some(5));
    assert_eq!(stamp.age(u64::MAX - 1), None);
    assert_eq!(Stamp::read(&frame[41..]), None);
    assert_eq!(Stamp::read(&frame[42..57]), None);
}

#[test]
fn a_tag_moves_all_behind_the_ethernet_addresses() {
    for destination in ["192.0.2.1:80", "[2001:db8::1]:80"] {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let (layout, flows) = (layout(destination, protocol), flows_for(destination));
            let template = Template::new(layout, &flows, 120).unwrap();
            let mut frame = template.tagged(0x0123).frame(&flows, 7, 9, 11);
            assert_eq!(frame[12..16], [0x81, 0x00, 0x01, 0x23]);
            frame.drain(12..16);
            assert_eq!(frame, template.frame(&flows, 7, 9, 11));
        }
    }
}

#[test]
fn tcp_opens_and_then_uses_a_connection() {
    let flows = flows_for("192.0.2.1:80");
    let template = Template::new(layout("192.0.2.1:80", Protocol::Tcp), &flows, 60).unwrap();
    assert_eq!(template.frame(&flows, 3, 0, 0)[47], TCP_SYN);
    assert_eq!(template.frame(&flows, 3, 1, 0)[47], TCP_ACK);
}

#[test]
fn what_cannot_be_made_is_refused() {
    let v4 = flows_for("192.0.2.1:80");
    let error = Template::new(layout("[2001:db8::1]:80", Protocol::Udp), &v4, 100).unwrap_err();
    assert!(matches!(error, FrameError::Families { .. }));
    for length in [0, 59, 65_550] {
        let made = Template::new(layout("192.0.2.1:80", Protocol::Udp), &v4, length);
        assert!(matches!(made, Err(FrameError::Length { .. })), "{length}");
    }
}
