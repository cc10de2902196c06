//! Whether other appliances run in this network namespace.
//!
//! What an appliance adds is marked, but all of them mark alike: what a killed one left looks as what a running one
//! has. Each holds one of some abstract Unix sockets, whose names are a network namespace's own and are
//! free again when the process ends, however it does. Nothing is ever sent by them.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// More than there are interfaces for.
const PLACES: usize = 64;

/// This appliance's place among them, until it is dropped.
#[derive(Debug)]
pub(super) struct Company {
    /// `None`: there was none that is free.
    own: Option<(usize, UnixDatagram)>,
}

impl Company {
    /// Takes a place. To be called before anything is added that others could take for a leftover.
    pub(super) fn join() -> Self {
        let mut places = 0..PLACES;
        let own = places.find_map(|place| {
            let socket = UnixDatagram::bind_addr(&address(place).ok()?).ok()?;
            Some((place, socket))
        });
        Self { own }
    }

    /// True if no other appliance runs here. One that joins while this is found out is not seen: it has added nothing yet.
    pub(super) fn is_alone(&self) -> bool {
        let Some((own, _)) = &self.own else {
            return false;
        };
        let mut others = (0..PLACES).filter(|place| place != own);
        others.all(|place| is_free(place).unwrap_or(false))
    }
}

fn is_free(place: usize) -> io::Result<bool> {
    let connected = UnixDatagram::unbound()?.connect_addr(&address(place)?);
    // All else than that nobody is there may mean that somebody is.
    Ok(connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

fn address(place: usize) -> io::Result<SocketAddr> {
    // Tests run beside each other, and beside appliances.
    let name = match cfg!(test) {
        true => format!("appliance-test-{}/{place}", std::process::id()),
        false => format!("appliance/{place}"),
    };
    SocketAddr::from_abstract_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sees_the_others_as_long_as_they_are_there() {
        let first = Company::join();
        assert!(first.is_alone());
        let second = Company::join();
        assert!(!first.is_alone());
        assert!(!second.is_alone());
        drop(first);
        assert!(second.is_alone(), "the first place is free again");
        let third = Company::join();
        assert!(!second.is_alone());
        assert!(!third.is_alone());
        let crowd: Vec<_> = (0..PLACES).map(|_| Company::join()).collect();
        let last = crowd.last().expect("some");
        assert!(last.own.is_none());
        assert!(!last.is_alone(), "without a place nothing is known");
        drop(crowd);
        drop(second);
        assert!(third.is_alone());
    }
}
