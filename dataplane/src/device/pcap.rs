//! The device over captures: packets are read from one file and transmitted ones
//! written to another, and time is what the capture says.
//!
//! Reads classic pcap of either byte order, in micro- or nanoseconds, with link
//! type Ethernet; writes little-endian pcap in nanoseconds, the same bytes on every machine. Does not read
//! pcapng.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use super::{Device, DeviceStatistics};
use crate::xsk::umem::{Frame, FramePool, Umem};

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Since the Unix epoch.
    pub timestamp: Duration,
    /// The captured bytes, from the Ethernet header on.
    pub data: Cow<'a, [u8]>,
}

/// Reads a capture packet by packet.
#[derive(Debug)]
pub struct CaptureReader {
    path: PathBuf,
    reader: PcapReader<File>,
    /// Number of the packet last read, from 1, as tcpdump and Wireshark count.
    number: u64,
}

impl CaptureReader {
    /// Opens a capture.
    ///
    /// # Errors
    /// The file cannot be read, is no pcap file, or is not of Ethernet.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CaptureError> {
        let path = path.into();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(CaptureError::Open { path, source }),
        };
        let reader = match PcapReader::new(file) {
            Ok(reader) => reader,
            Err(source) => return Err(CaptureError::NotPcap { path, source }),
        };
        let found = reader.header().datalink;
        if found != DataLink::ETHERNET {
            return Err(CaptureError::NotEthernet { path, found });
        }
        Ok(Self {
            path,
            reader,
            number: 0,
        })
    }

    /// The next packet; `None` at the end of the capture.
    ///
    /// # Errors
    /// The file ends within a packet or contradicts itself.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        self.number += 1;
        let (path, number) = (&self.path, self.number);
        let corrupt = |source| CaptureError::Corrupt {
            path: path.clone(),
            number,
            source,
        };
        let fraction = match self.reader.header().ts_resolution {
            TsResolution::MicroSecond => Duration::from_micros(1),
            TsResolution::NanoSecond => Duration::from_nanos(1),
        };
        // The library's cooked packets are refused when a packet was longer than
        // the snap length, which is what a snap length is for.
        let Some(raw) = self.reader.next_raw_packet() else {
            return Ok(None);
        };
        let raw = raw.map_err(corrupt)?;
        let timestamp = Duration::from_secs(raw.ts_sec.into()) + fraction * raw.ts_frac;
        Ok(Some(Packet {
            timestamp,
            data: raw.data,
        }))
    }
}

/// Writes a capture.
#[derive(Debug)]
pub struct CaptureWriter {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
}

impl CaptureWriter {
    /// Creates a capture, overwriting the file if there is one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, CaptureError> {
        let path = path.into();
        let file = match File::create(&path) {
            Ok(file) => file,
            Err(source) => return Err(CaptureError::Open { path, source }),
        };
        let header = PcapHeader {
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        match PcapWriter::with_header(BufWriter::new(file), header) {
            Ok(writer) => Ok(Self { path, writer }),
            Err(source) => Err(CaptureError::Write { path, source }),
        }
    }

    /// Appends a packet with its time since the Unix epoch.
    ///
    /// # Errors
    /// The file cannot be written, or the time is after the year 2106.
    pub fn write(&mut self, timestamp: Duration, packet: &[u8]) -> Result<(), CaptureError> {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        self.writer
            .write_packet(&PcapPacket::new(timestamp, length, packet))
            .map_err(|source| self.failed(source))?;
        Ok(())
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<(), CaptureError> {
        let Self { path, writer } = self;
        let flushed = writer.into_writer().flush();
        flushed.map_err(|error| CaptureError::Write {
            path,
            source: PcapError::IoError(error),
        })
    }

    fn failed(&self, source: PcapError) -> CaptureError {
        CaptureError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

/// A capture cannot be read or written; the source is the reason.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("cannot open the capture {}", path.display())]
    Open {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{}: not a pcap file; if it is pcapng, convert it: `editcap -F nsecpcap IN OUT`",
        path.display()
    )]
    NotPcap { path: PathBuf, source: PcapError },
    #[error(
        "{}: expected a capture of Ethernet, found link type {}: capture on an Ethernet interface",
        path.display(),
        u32::from(*found)
    )]
    NotEthernet { path: PathBuf, found: DataLink },
    #[error("{}: packet {number} is damaged or cut off", path.display())]
    Corrupt {
        path: PathBuf,
        /// From 1.
        number: u64,
        source: PcapError,
    },
    #[error("cannot write the capture {}", path.display())]
    Write { path: PathBuf, source: PcapError },
}

/// Receives the packets of one capture and transmits to another.
///
/// Each burst is one packet, so that [`next_time`](Self::next_time), asked before, is right for all
/// of it. After the end, or an error, nothing more is received; [`finish`](Self::finish) tells which.
#[derive(Debug)]
pub struct PcapDevice {
    umem: Arc<Umem>,
    reader: CaptureReader,
    writer: CaptureWriter,
    /// A frame to read into, while there is no packet in `ready`.
    empty: Option<Frame>,
    /// The next packet, and its timestamp.
    ready: Option<(Frame, Duration)>,
    sent: Vec<Frame>,
    /// Timestamp of the packet last received; what is transmitted gets it too.
    now: Duration,
    ended: bool,
    error: Option<CaptureError>,
    too_long: u64,
}

impl PcapDevice {
    /// A device with frames of `umem`, one of which it takes from `pool`.
    #[must_use]
    pub fn new(
        umem: &Arc<Umem>,
        pool: &mut FramePool,
        reader: CaptureReader,
        writer: CaptureWriter,
    ) -> Self {
        let mut device = Self {
            umem: Arc::clone(umem),
            reader,
            writer,
            empty: pool.take(),
            ready: None,
            sent: Vec::new(),
            now: Duration::ZERO,
            ended: false,
            error: None,
            too_long: 0,
        };
        device.read_ahead();
        device
    }

    /// Timestamp, since the Unix epoch, of the packet that will be received next; `None` at the
    /// end, or while no frame is free to read into.
    #[must_use]
    pub fn next_time(&self) -> Option<Duration> {
        self.ready.as_ref().map(|(_, time)| *time)
    }

    /// Ends the capture that was written.
    ///
    /// # Errors
    /// The first error of reading or writing.
    pub fn finish(self) -> Result<(), CaptureError> {
        let finished = self.writer.finish();
        self.error.map_or(finished, Err)
    }

    fn read_ahead(&mut self) {
        if self.ended || self.error.is_some() || self.ready.is_some() {
            return;
        }
        let Some(mut frame) = self.empty.take() else {
            return;
        };
        match self.read(&mut frame) {
            Ok(Some(time)) => {
                self.ready = Some((frame, time));
                return;
            }
            Ok(None) => self.ended = true,
            Err(error) => self.error = Some(error),
        }
        self.empty = Some(frame);
    }

    /// Reads the next packet that fits into `frame`; `None` at the end.
    fn read(&mut self, frame: &mut Frame) -> Result<Option<Duration>, CaptureError> {
        while let Some(packet) = self.reader.next_packet()? {
            if self.umem.fill(frame, &packet.data).is_ok() {
                return Ok(Some(packet.timestamp));
            }
            self.too_long += 1;
        }
        Ok(None)
    }
}

impl Device for PcapDevice {
    fn receive(&mut self, burst: &mut Vec<Frame>) -> usize {
        let Some((frame, time)) = self.ready.take() else {
            return 0;
        };
        self.now = time;
        burst.push(frame);
        1
    }

    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        let written = self.writer.write(self.now, self.umem.bytes(&frame));
        if let Err(error) = written {
            self.error.get_or_insert(error);
        }
        self.sent.push(frame);
        Ok(())
    }

    fn transmit_burst(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            let queued = self.transmit(frame);
            debug_assert!(queued.is_ok(), "a capture takes every frame");
        }
    }

    fn flush(&mut self, pool: &mut FramePool) {
        for frame in self.sent.drain(..) {
            pool.give(frame);
        }
        if self.ready.is_none() && self.empty.is_none() {
            self.empty = pool.take();
        }
        self.read_ahead();
    }

    fn has_outstanding(&self) -> bool {
        !self.sent.is_empty()
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// `rx_dropped` counts packets too long for a frame.
    fn statistics(&self) -> DeviceStatistics {
        DeviceStatistics {
            rx_dropped: self.too_long,
            ..DeviceStatistics::default()
        }
    }
}

#[cfg(test)]
mod tests;
