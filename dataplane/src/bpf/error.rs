//! What can go wrong with an XDP program, in words, with the remedy.

use std::error::Error;
use std::fmt;
use std::io;

use rustix::io::Errno;

use super::decap::TunnelEnd;
use super::{Mode, Rule};

/// The kernel's error at the bottom of a chain of errors.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    Errno::from_io_error(kernels(error)?)
}

fn kernels<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        next = error.source();
    }
    None
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Load,
    Attach(Mode),
    Add(Rule),
    Remove(Rule),
    SetMacs,
    AddEnd(TunnelEnd),
    Keep,
    RegisterSocket(u32),
    ReadCounters,
}

/// Something about an XDP program failed; the source says what the kernel
/// or the loader said.
#[derive(Debug)]
pub struct XdpError {
    pub(super) interface: String,
    pub(super) step: Step,
    pub(super) source: Box<dyn Error + Send + Sync>,
}

impl XdpError {
    pub(super) fn errno(&self) -> Option<Errno> {
        errno(self.source.as_ref())
    }

    /// True when native mode failed for a reason that generic mode may not have.
    pub(super) fn has_alternative(&self) -> bool {
        !matches!(
            self.errno(),
            Some(Errno::BUSY | Errno::EXIST | Errno::PERM | Errno::NODEV | Errno::NOMEM)
        )
    }

    /// Why native mode could not be had, in half a sentence.
    pub(super) fn reason(&self) -> String {
        match self.errno() {
            Some(Errno::OPNOTSUPP) => "the driver has no native XDP".to_owned(),
            Some(errno) => format!("the driver refused native XDP: {errno}"),
            None => format!("native XDP failed: {}", self.source),
        }
    }

    /// The likely cause and what to do about it.
    fn remedy(&self) -> Option<String> {
        let interface = &self.interface;
        Some(match (self.step, self.errno()?) {
            (Step::Keep, Errno::PERM | Errno::NOENT | Errno::INVAL) => {
                "the path is not in a BPF file system: mount -t bpf bpf /sys/fs/bpf".to_owned()
            }
            (_, Errno::PERM | Errno::ACCESS) => {
                "needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run as root or grant them".to_owned()
            }
            (_, Errno::NOMEM) => "not enough memory".to_owned(),
            (Step::Attach(_), Errno::BUSY | Errno::EXIST) => format!(
                "another XDP program is attached: stop its owner, or remove it by \
                 `ip link set dev {interface} xdp off`"
            ),
            (Step::Attach(_), Errno::NODEV) => "the interface is gone".to_owned(),
            (Step::Attach(Mode::Native), Errno::OPNOTSUPP) => {
                "the driver has no native XDP: use mode \"auto\" or \"generic\"".to_owned()
            }
            (Step::Attach(Mode::Native), _) => {
                "the driver refused it, most often for an MTU above 3500 or for LRO: \
                 lower the MTU, switch LRO off, or use mode \"auto\" or \"generic\""
                    .to_owned()
            }
            (Step::Add(rule), Errno::TOOBIG | Errno::NOSPC) => {
                format!("the table is full: it holds {}", rule.room())
            }
            (Step::AddEnd(_), Errno::TOOBIG) => {
                "the table is full; it holds 1024 protocols and ports".to_owned()
            }
            (Step::Keep, Errno::EXIST) => "it is kept already".to_owned(),
            _ => return None,
        })
    }
}

impl fmt::Display for XdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = &self.interface;
        match self.step {
            Step::Load => write!(f, "{interface}: cannot load the XDP program"),
            Step::Attach(mode) => {
                write!(
                    f,
                    "{interface}: cannot attach the XDP program in {mode} mode"
                )
            }
            Step::Add(rule) => write!(f, "{interface}: cannot steer by {rule}"),
            Step::Remove(rule) => write!(f, "{interface}: cannot stop steering by {rule}"),
            Step::AddEnd(end) => write!(f, "{interface}: cannot take packets out of {end}"),
            Step::Keep => write!(f, "{interface}: cannot keep the XDP program attached"),
            Step::SetMacs => write!(f, "{interface}: cannot set its MAC addresses"),
            Step::RegisterSocket(queue) => {
                write!(
                    f,
                    "{interface}: cannot use the AF_XDP socket of queue {queue}"
                )
            }
            Step::ReadCounters => {
                write!(
                    f,
                    "{interface}: cannot read the counters of the XDP program"
                )
            }
        }?;
        match self.remedy() {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

impl Error for XdpError {
    /// Of a right that is missing what the kernel says, without the log of its verifier: that
    /// is a hundred lines about what the program may not do, and `Debug` has it.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Some(Errno::PERM | Errno::ACCESS) = self.errno() {
            return kernels(self.source.as_ref()).map(|error| error as _);
        }
        Some(self.source.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the loader's, with the log of the verifier.
    #[derive(Debug, thiserror::Error)]
    #[error("{source}. Verifier output: 0: R1=ctx\n1: R2 pointer comparison prohibited")]
    struct Rejected {
        source: io::Error,
    }

    #[test]
    fn a_missing_right_is_said_without_the_verifiers_log() {
        let of = |errno: Errno| XdpError {
            interface: "eth0".to_owned(),
            step: Step::Load,
            source: Box::new(Rejected {
                source: errno.into(),
            }),
        };
        for errno in [Errno::ACCESS, Errno::PERM] {
            let error = of(errno);
            assert_eq!(
                error.to_string(),
                "eth0: cannot load the XDP program: needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: \
                 run as root or grant them"
            );
            let cause = error.source().unwrap().to_string();
            assert_eq!(cause, io::Error::from(errno).to_string());
            assert!(format!("{error:?}").contains("Rejected"));
        }
        let cause = of(Errno::INVAL).source().unwrap().to_string();
        assert!(cause.contains("Verifier output"), "{cause}");
    }
}
