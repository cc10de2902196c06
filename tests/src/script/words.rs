//! The words of a line, and what single words say.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::{
    Anchor, DIRECTOR, Extension, FLAGS, ICMP_KINDS, Mac, Names, Patch, ROUTER, Tag, mac_of,
};

/// What is wrong with a line: what was found and what was expected.
pub(super) type Wrong = String;

/// The words of a line and how far they are read.
pub(super) struct Words<'a>(Vec<&'a str>, usize);

impl<'a> Words<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        Self(line.split_whitespace().collect(), 0)
    }

    pub(super) fn next(&mut self) -> Option<&'a str> {
        let word = self.0.get(self.1).copied();
        self.1 += 1;
        word
    }

    pub(super) fn peek_second(&self) -> Option<&'a str> {
        self.0.get(self.1 + 1).copied()
    }

    pub(super) fn take_if(&mut self, word: &str) -> bool {
        let found = self.0.get(self.1) == Some(&word);
        self.1 += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, what: &str) -> Result<&'a str, Wrong> {
        self.next()
            .ok_or_else(|| format!("the line ends where {what} was expected"))
    }

    pub(super) fn literal(&mut self, word: &str) -> Result<(), Wrong> {
        match self.next() {
            Some(found) if found == word => Ok(()),
            Some(found) => Err(format!("found `{found}`, expected `{word}`")),
            None => Err(format!("the line ends where `{word}` was expected")),
        }
    }

    pub(super) fn value<T: FromStr>(&mut self, what: &str) -> Result<T, Wrong> {
        let word = self.expect(what)?;
        word.parse()
            .map_err(|_| format!("found `{word}`, expected {what}"))
    }

    /// A number, decimal or with 0x.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, what: &str) -> Result<T, Wrong> {
        let word = self.expect(what)?;
        let number = match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("found `{word}`, expected {what} in its range"))
    }

    pub(super) fn multiple(&mut self, of: u8, what: &str) -> Result<u8, Wrong> {
        let number: u8 = self.number(what)?;
        if number.is_multiple_of(of) && number <= 40 {
            Ok(number)
        } else {
            Err(format!(
                "found {number}, expected {what}: a multiple of {of} up to 40"
            ))
        }
    }

    pub(super) fn end(&mut self) -> Result<(), Wrong> {
        match self.next() {
            None => Ok(()),
            Some(word) => Err(format!("found `{word}`, expected the end of the line")),
        }
    }
}

/// Seconds.
pub(super) fn duration(word: &str) -> Result<Duration, Wrong> {
    let seconds: Option<f64> = word.parse().ok();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let duration = duration.ok_or_else(|| format!("`{word}` is no time in seconds"))?;
    // Whole microseconds: what is written is what is meant.
    let micros = (duration.as_nanos() + 500) / 1000;
    u64::try_from(micros)
        .map(Duration::from_micros)
        .map_err(|_| format!("`{word}` is too long a time"))
}

/// An address, by name or not, with or without a port.
pub(super) fn endpoint(word: &str, names: &Names) -> Result<(IpAddr, Option<u16>), Wrong> {
    let address = |host: &str| {
        let host = host.trim_matches(['[', ']']);
        names.address(host).or_else(|| host.parse().ok())
    };
    if let Some(address) = address(word) {
        return Ok((address, None));
    }
    let (host, port) = word.rsplit_once(':').unwrap_or((word, ""));
    match (address(host), port.parse()) {
        (Some(address), Ok(port)) => Ok((address, Some(port))),
        (Some(_), Err(_)) => Err(format!("`{port}` is no port, in `{word}`")),
        (None, _) => Err(format!(
            "`{host}` is no address and no name defined above; names are defined by a line `NAME = ADDRESS`"
        )),
    }
}

/// `director`, `router`, a real server's name or address, or a MAC address.
pub(super) fn mac(word: &str, names: &Names) -> Result<Mac, Wrong> {
    match word {
        "director" => return Ok(DIRECTOR),
        "router" => return Ok(ROUTER),
        _ => {}
    }
    let address = names.address(word).or_else(|| word.parse().ok());
    if let Some(address) = address {
        return Ok(mac_of(address));
    }
    let bytes: Option<Vec<u8>> = word
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes
        .and_then(|bytes| Mac::try_from(bytes).ok())
        .ok_or_else(|| {
            format!("`{word}` is none of: director, router, a name, an IP address, a MAC address")
        })
}

pub(super) fn tag(word: &str) -> Result<Tag, Wrong> {
    let (id, priority) = word.split_once('/').unwrap_or((word, "0"));
    match (id.parse(), priority.parse()) {
        (Ok(id @ 0..=4095), Ok(priority @ 0..=7)) => Ok(Tag { id, priority }),
        _ => Err(format!(
            "`{word}` is no VLAN: expected ID or ID/PRIORITY, 0 to 4095 and 0 to 7"
        )),
    }
}

pub(super) fn flags(word: &str) -> Result<u8, Wrong> {
    if word == "none" {
        return Ok(0);
    }
    word.chars().try_fold(0, |flags, letter| {
        let known = FLAGS.iter().find(|(known, _)| *known == letter);
        known
            .map(|(_, flag)| flags | flag)
            .ok_or_else(|| format!("`{word}` are no TCP flags: letters of CEUSFRPA, or none"))
    })
}

pub(super) fn icmp_kind(word: &str, is_v4: bool) -> Result<(u8, u8), Wrong> {
    let known = ICMP_KINDS.iter().find(|(known, ..)| *known == word);
    let kind = match known {
        Some((_, v4, v6)) => *if is_v4 { v4 } else { v6 },
        None => word
            .split_once('/')
            .and_then(|(kind, code)| Some((kind.parse().ok()?, code.parse().ok()?))),
    };
    let names = || ICMP_KINDS.map(|(name, ..)| name).join(", ");
    kind.ok_or_else(|| {
        format!(
            "`{word}` is no message of this ICMP version: expected TYPE/CODE or one of {}",
            names()
        )
    })
}

pub(super) fn extension(words: &mut Words<'_>) -> Result<Extension, Wrong> {
    match words.expect("an extension header")? {
        "hop-by-hop" => Ok(Extension::HopByHop),
        "routing" => Ok(Extension::Routing),
        "destination" => Ok(Extension::DestinationOptions),
        "fragment" => Ok(Extension::AtomicFragment),
        other => Err(format!(
            "found `{other}`, expected one of: hop-by-hop, routing, destination, fragment"
        )),
    }
}

/// `FROM..TO` or `FROM..`
pub(super) fn fragment(words: &mut Words<'_>) -> Result<(u16, Option<u16>), Wrong> {
    let word = words.expect("the bytes of the fragment, such as 0..1480 or 1480..")?;
    let wrong = || format!("`{word}` is no fragment: FROM..TO or FROM.., multiples of 8");
    let multiple = |word: &str| {
        let number = word.parse::<u16>().ok()?;
        number.is_multiple_of(8).then_some(number)
    };
    let (from, to) = word.split_once("..").ok_or_else(wrong)?;
    let from = multiple(from).ok_or_else(wrong)?;
    if to.is_empty() {
        return Ok((from, None));
    }
    let to = multiple(to).filter(|to| *to > from).ok_or_else(wrong)?;
    Ok((from, Some(to)))
}

/// `ip+2 ffff`
pub(super) fn patch(words: &mut Words<'_>) -> Result<Patch, Wrong> {
    let place = words.expect("a place, such as frame+12, ip+2 or l4+12")?;
    let anchor = |name: &str| match name {
        "frame" => Some(Anchor::Frame),
        "ip" => Some(Anchor::Ip),
        "l4" => Some(Anchor::Transport),
        _ => None,
    };
    let (from, offset) = place
        .split_once('+')
        .and_then(|(name, offset)| Some((anchor(name)?, offset.parse().ok()?)))
        .ok_or_else(|| format!("`{place}` is no place: frame+N, ip+N or l4+N"))?;
    Ok(Patch {
        from,
        offset,
        bytes: hex(words.expect("bytes in hexadecimal")?)?,
    })
}

pub(super) fn hex(word: &str) -> Result<Vec<u8>, Wrong> {
    let digits = word.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = digits
        .map(|pair| match std::str::from_utf8(pair) {
            Ok(pair) if pair.len() == 2 => u8::from_str_radix(pair, 16).ok(),
            _ => None,
        })
        .collect();
    bytes.ok_or_else(|| format!("`{word}` are no bytes in hexadecimal"))
}
