//! From lines to packets.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sctp::chunks;
use super::words::{
    Words, Wrong, duration, endpoint, extension, flags, fragment, hex, icmp_kind, mac, patch, tag,
};
use super::{
    Body, DEFAULT_TTL, DEFAULT_WINDOW, DIRECTOR, Damage, IcmpPayload, IpPacket, Names, Packet,
    ROUTER, Script, Sctp, Tcp, TcpOffer, TimedPacket, Transport, pattern,
};

/// A line that is no packet.
#[derive(Debug)]
pub struct ScriptError {
    path: PathBuf,
    /// From 1.
    line: usize,
    message: String,
}

impl Display for ScriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

impl std::error::Error for ScriptError {}

/// Reads a script; `path` is for messages only.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str, path: &Path) -> Result<Script, ScriptError> {
    let mut script = Script::default();
    for (number, line) in (1..).zip(text.lines()) {
        parse_line(line, &mut script).map_err(|message| ScriptError {
            path: path.to_owned(),
            line: number,
            message,
        })?;
    }
    Ok(script)
}

fn parse_line(line: &str, script: &mut Script) -> Result<(), Wrong> {
    let line = line.split_once('#').map_or(line, |(before, _)| before);
    let mut words = Words::of(line);
    let Some(first) = words.next() else {
        return Ok(());
    };
    if words.take_if("=") {
        return define(first, words, &mut script.names);
    }
    let previous = script
        .packets
        .last()
        .map_or(Duration::ZERO, |last| last.time);
    let time = time(first, previous)?;
    let (packet, repeat) = frame(&mut words, &script.names)?;
    for number in 0..repeat.count {
        script.packets.push(TimedPacket {
            time: time + repeat.every * u32::from(number),
            packet: repeat.step(&packet, number),
        });
    }
    Ok(())
}

fn define(name: &str, mut words: Words<'_>, names: &mut Names) -> Result<(), Wrong> {
    let address = words.value::<IpAddr>("an IP address")?;
    words.end()?;
    if name.parse::<f64>().is_ok() || name.contains([':', '.', '[']) {
        return Err(format!(
            "`{name}` looks like a time or an address, not like a name"
        ));
    }
    if names.address(name).is_some() {
        return Err(format!("`{name}` is defined twice"));
    }
    names.define(name, address);
    Ok(())
}

/// Seconds since the start, or with a plus since the packet before.
fn time(word: &str, previous: Duration) -> Result<Duration, Wrong> {
    let (start, seconds) = match word.strip_prefix('+') {
        Some(seconds) => (previous, seconds),
        None => (Duration::ZERO, word),
    };
    let time = start + duration(seconds)?;
    if time < previous {
        return Err(format!("the time {word} is before the packet above"));
    }
    Ok(time)
}

/// How often a line's packet comes and what changes from one to the next.
struct Repeat {
    count: u16,
    every: Duration,
    step_port: bool,
    step_address: bool,
}

impl Repeat {
    fn step(&self, packet: &Packet, number: u16) -> Packet {
        let mut packet = packet.clone();
        let Body::Ip(ip) = &mut packet.body else {
            return packet;
        };
        if self.step_address {
            ip.source = match ip.source {
                IpAddr::V4(address) => {
                    Ipv4Addr::from_bits(address.to_bits().wrapping_add(number.into())).into()
                }
                IpAddr::V6(address) => {
                    Ipv6Addr::from_bits(address.to_bits().wrapping_add(number.into())).into()
                }
            };
        }
        if self.step_port {
            match &mut ip.transport {
                Transport::Tcp(Tcp { source_port, .. })
                | Transport::Udp { source_port, .. }
                | Transport::Sctp(Sctp { source_port, .. }) => {
                    *source_port = source_port.wrapping_add(number);
                }
                Transport::Icmp { .. } | Transport::Other(..) => {}
            }
        }
        packet
    }
}

/// A line after its time.
fn frame(words: &mut Words<'_>, names: &Names) -> Result<(Packet, Repeat), Wrong> {
    let mut packet = Packet {
        source_mac: ROUTER,
        destination_mac: DIRECTOR,
        tags: Vec::new(),
        body: Body::Raw(Vec::new()),
        damage: Damage::default(),
    };
    let mut repeat = Repeat {
        count: 1,
        every: Duration::ZERO,
        step_port: false,
        step_address: false,
    };
    if words.peek_second() == Some("=>") {
        packet.source_mac = mac(words.expect("a MAC address")?, names)?;
        words.take_if("=>");
        packet.destination_mac = mac(words.expect("a MAC address")?, names)?;
    }
    if words.take_if("raw") {
        packet.body = Body::Raw(hex(words.expect("bytes in hexadecimal")?)?);
    } else if words.take_if("ethertype") {
        let ethertype = words.number("an EtherType")?;
        packet.body = Body::Other(ethertype, Vec::new());
    } else {
        packet.body = Body::Ip(ip_packet(words, names)?);
    }
    while let Some(word) = words.next() {
        let known = frame_word(word, words, &mut packet)?
            || repeat_word(word, words, &mut repeat)?
            || match &mut packet.body {
                Body::Ip(ip) => ip_word(word, words, ip, names)?,
                Body::Other(_, payload) => payload_word(word, words, payload)?,
                Body::Raw(_) => false,
            };
        if !known {
            return Err(unknown(word, &packet.body));
        }
    }
    Ok((packet, repeat))
}

fn unknown(word: &str, body: &Body) -> Wrong {
    let frame = "vlan, set, bad-ip-checksum, bad-checksum, pad, truncate, repeat, step-port, step-address, every";
    let ip = "ttl, tos, id, df, options, ext, frag, len, data";
    let expected = match body {
        Body::Raw(_) => "repeat, every".to_owned(),
        Body::Other(..) => format!("len, data, {frame}"),
        Body::Ip(packet) => match packet.transport {
            Transport::Tcp(_) => {
                format!("seq, ack, win, mss, sack-permitted, wscale, tcp-options, {ip}, {frame}")
            }
            Transport::Udp { .. } => format!("no-checksum, {ip}, {frame}"),
            Transport::Sctp(_) => format!("tag, {ip}, {frame}"),
            Transport::Icmp { .. } => format!("mtu, quote, about, {ip}, {frame}"),
            Transport::Other(..) => format!("{ip}, {frame}"),
        },
    };
    format!("found `{word}`, expected one of: {expected}")
}

/// Words about the frame as a whole.
fn frame_word(word: &str, words: &mut Words<'_>, packet: &mut Packet) -> Result<bool, Wrong> {
    let damage = &mut packet.damage;
    match word {
        "vlan" => {
            let list = words.expect("VLAN identifiers, such as 10 or 10,20 or 0/5")?;
            packet.tags = list.split(',').map(tag).collect::<Result<_, _>>()?;
        }
        "set" => damage.set.push(patch(words)?),
        "bad-ip-checksum" => damage.bad_ip_checksum = true,
        "bad-checksum" => damage.bad_checksum = true,
        "pad" => damage.pad = Some(words.number("a frame length")?),
        "truncate" => damage.truncate = Some(words.number("a frame length")?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn repeat_word(word: &str, words: &mut Words<'_>, repeat: &mut Repeat) -> Result<bool, Wrong> {
    match word {
        "repeat" => repeat.count = words.number("how often")?,
        "every" => repeat.every = duration(words.expect("seconds")?)?,
        "step-port" => repeat.step_port = true,
        "step-address" => repeat.step_address = true,
        _ => return Ok(false),
    }
    Ok(true)
}

/// `VIP:80 > CLIENT:40001 tcp A` and the like, up to what the protocol needs.
fn ip_packet(words: &mut Words<'_>, names: &Names) -> Result<IpPacket, Wrong> {
    let (source, source_port) = endpoint(words.expect("a source address")?, names)?;
    words.literal(">")?;
    let (destination, destination_port) = endpoint(words.expect("a destination address")?, names)?;
    let port = |port: Option<u16>, word: &str| {
        port.ok_or_else(|| format!("{word} needs ports on both addresses: ADDRESS:PORT"))
    };
    let transport = match words.expect("a protocol: tcp, udp, sctp, icmp or proto")? {
        "tcp" => Transport::Tcp(Tcp {
            source_port: port(source_port, "tcp")?,
            destination_port: port(destination_port, "tcp")?,
            flags: flags(words.expect("TCP flags, such as S, PA or none")?)?,
            sequence: 0,
            acknowledgment: 0,
            window: DEFAULT_WINDOW,
            offer: TcpOffer::default(),
            options: 0,
            payload: Vec::new(),
        }),
        "udp" => Transport::Udp {
            source_port: port(source_port, "udp")?,
            destination_port: port(destination_port, "udp")?,
            checksum: true,
            payload: Vec::new(),
        },
        "sctp" => Transport::Sctp(Sctp {
            source_port: port(source_port, "sctp")?,
            destination_port: port(destination_port, "sctp")?,
            tag: 0,
            chunks: chunks(words.expect("chunks, such as init or cookie-echo,data")?)?,
            payload: Vec::new(),
        }),
        "icmp" => {
            let (kind, code) = icmp_kind(words.expect("an ICMP message")?, source.is_ipv4())?;
            Transport::Icmp {
                kind,
                code,
                rest: 0,
                payload: IcmpPayload::Bytes(Vec::new()),
            }
        }
        "proto" => Transport::Other(words.number("an IP protocol number")?, Vec::new()),
        other => {
            return Err(format!(
                "found `{other}`, expected a protocol: tcp, udp, sctp, icmp or proto"
            ));
        }
    };
    let with_ports = matches!(
        transport,
        Transport::Tcp(_) | Transport::Udp { .. } | Transport::Sctp(_)
    );
    if !with_ports && (source_port.is_some() || destination_port.is_some()) {
        return Err("only tcp, udp and sctp have ports".to_owned());
    }
    Ok(IpPacket {
        source,
        destination,
        ttl: DEFAULT_TTL,
        tos: 0,
        id: 0,
        dont_fragment: false,
        options: 0,
        extensions: Vec::new(),
        fragment: None,
        transport,
    })
}

/// Words about the IP packet and what it carries.
fn ip_word(
    word: &str,
    words: &mut Words<'_>,
    ip: &mut IpPacket,
    names: &Names,
) -> Result<bool, Wrong> {
    match word {
        "ttl" => ip.ttl = words.number("a time to live")?,
        "tos" => ip.tos = words.number("a type of service")?,
        "id" => ip.id = words.number("an identification")?,
        "df" => ip.dont_fragment = true,
        "options" => ip.options = words.multiple(4, "bytes of options")?,
        "ext" => ip.extensions.push(extension(words)?),
        "frag" => ip.fragment = Some(fragment(words)?),
        _ => return transport_word(word, words, &mut ip.transport, names),
    }
    Ok(true)
}

fn transport_word(
    word: &str,
    words: &mut Words<'_>,
    transport: &mut Transport,
    names: &Names,
) -> Result<bool, Wrong> {
    match transport {
        Transport::Tcp(tcp) => match word {
            "seq" => tcp.sequence = words.number("a sequence number")?,
            "ack" => tcp.acknowledgment = words.number("an acknowledgment number")?,
            "win" => tcp.window = words.number("a window")?,
            "mss" => tcp.offer.maximum_segment_size = Some(words.number("a segment size")?),
            "sack-permitted" => tcp.offer.sack_permitted = true,
            "wscale" => tcp.offer.window_scale = Some(words.number("a shift of bits")?),
            "tcp-options" => tcp.options = words.multiple(4, "bytes of options")?,
            _ => return payload_word(word, words, &mut tcp.payload),
        },
        Transport::Udp {
            checksum, payload, ..
        } => match word {
            "no-checksum" => *checksum = false,
            _ => return payload_word(word, words, payload),
        },
        Transport::Sctp(sctp) => match word {
            "tag" => sctp.tag = words.number("a verification tag")?,
            _ => return payload_word(word, words, &mut sctp.payload),
        },
        Transport::Icmp { rest, payload, .. } => {
            return icmp_word(word, words, rest, payload, names);
        }
        Transport::Other(_, payload) => return payload_word(word, words, payload),
    }
    Ok(true)
}

fn icmp_word(
    word: &str,
    words: &mut Words<'_>,
    rest: &mut u32,
    payload: &mut IcmpPayload,
    names: &Names,
) -> Result<bool, Wrong> {
    match word {
        "mtu" => *rest = words.number("an MTU")?,
        "quote" => {
            let length = words.number("bytes of the quoted packet")?;
            words.literal("about")?;
            *payload = about(words, names, Some(length))?;
        }
        "about" => *payload = about(words, names, None)?,
        _ => {
            let mut bytes = Vec::new();
            let known = payload_word(word, words, &mut bytes)?;
            *payload = IcmpPayload::Bytes(bytes);
            return Ok(known);
        }
    }
    Ok(true)
}

/// The rest of the line is the quoted packet.
fn about(words: &mut Words<'_>, names: &Names, quote: Option<usize>) -> Result<IcmpPayload, Wrong> {
    let mut quoted = ip_packet(words, names)?;
    while let Some(word) = words.next() {
        if !ip_word(word, words, &mut quoted, names)? {
            return Err(format!(
                "found `{word}` in the packet after `about`; words about the frame come before it"
            ));
        }
    }
    Ok(IcmpPayload::About(Box::new(quoted), quote))
}

fn payload_word(word: &str, words: &mut Words<'_>, payload: &mut Vec<u8>) -> Result<bool, Wrong> {
    match word {
        "len" => *payload = pattern(words.number("bytes of payload")?),
        "data" => *payload = hex(words.expect("bytes in hexadecimal")?)?,
        _ => return Ok(false),
    }
    Ok(true)
}
