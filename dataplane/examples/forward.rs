//! The least that a worker does: UDP to a service of one interface is sent out of
//! another, with no look at the packet. A worked example of the devices, and the
//! yardstick for what the director adds to them.
//!
//! ```text
//! forward IN OUT ADDRESS:PORT [auto|zero-copy|copy|generic]
//! ```

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dataplane::bpf::{Rule, Steering};
use dataplane::device::af_xdp::{BindMode, FRAMES_PER_QUEUE, QueueSpec, open_worker};
use dataplane::device::{BURST, Device};
use dataplane::service::{MacAddress, Protocol, ServiceKey};
use dataplane::xsk::umem::{FrameSize, Umem};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (input, output, service, mode) = match arguments.as_slice() {
        [input, output, service] => (input, output, service, "auto"),
        [input, output, service, mode] => (input, output, service, mode.as_str()),
        _ => return Err("usage: forward IN OUT ADDRESS:PORT [MODE]".into()),
    };
    let service: SocketAddr = service.parse()?;
    let (_, mode) = BindMode::NAMES
        .into_iter()
        .find(|&(name, _)| name == mode)
        .ok_or("MODE is one of auto, zero-copy, copy, generic")?;

    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let queue = |interface: &String| -> Result<QueueSpec, Box<dyn Error>> {
        Ok(QueueSpec {
            ifindex: rustix::net::netdevice::name_to_index(&socket, interface)?,
            interface: interface.clone(),
            queue: 0,
        })
    };
    let queues = [queue(input)?, queue(output)?];

    let mut steering = Steering::attach(queues[0].ifindex, input, mode)?;
    let (umem, mut pool) = Umem::new(2 * FRAMES_PER_QUEUE, FrameSize::Bytes2048)?;
    let mut devices = open_worker(&umem, &mut pool, &queues, mode)?;
    steering.register_socket(0, &devices[0])?;
    steering.set_macs(&[mac_of(input)?])?;
    steering.add(&Rule::VirtualServer(ServiceKey {
        address: service.ip().into(),
        port: service.port(),
        protocol: Protocol::Udp,
    }))?;
    eprintln!("{:?}", steering.attached());

    let mut burst = Vec::with_capacity(BURST);
    let (mut received, mut dropped) = (0, 0);
    let mut next = Instant::now() + Duration::from_secs(1);
    loop {
        for _ in 0..1024 {
            received += devices[0].receive(&mut burst);
            for frame in burst.drain(..) {
                if let Err(frame) = devices[1].transmit(frame) {
                    dropped += 1;
                    pool.give(frame);
                }
            }
            for device in &mut devices {
                device.flush(&mut pool);
            }
        }
        if Instant::now() >= next {
            let counters = steering.counters()?;
            println!("received {received}, dropped {dropped}, {counters:?}");
            println!("  in:  {:?}", devices[0].statistics());
            println!("  out: {:?}", devices[1].statistics());
            (received, dropped) = (0, 0);
            next += Duration::from_secs(1);
        }
    }
}

/// As sysfs writes it: `02:00:00:00:00:01`.
fn mac_of(interface: &str) -> Result<MacAddress, Box<dyn Error>> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/address"))?;
    let mut mac = MacAddress::default();
    for (byte, digits) in mac.0.iter_mut().zip(text.trim().split(':')) {
        *byte = u8::from_str_radix(digits, 16)?;
    }
    Ok(mac)
}
