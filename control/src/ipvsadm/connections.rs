//! `-Lc`: one line a connection.

use super::command::{List, Protocol, What};
use super::names::Names;
use super::table::{Connection, shown};

/// The two lines before the connections.
#[must_use]
pub(crate) fn connection_header(list: &List) -> &'static str {
    match list.what {
        What::Connections { engine_data: true } => concat!(
            "IPVS connection entries\n",
            "pro expire state       source             virtual            destination        ",
            "pe name          pe_data\n"
        ),
        What::Connections { engine_data: false }
        | What::Services
        | What::Statistics
        | What::Rates
        | What::Thresholds
        | What::PersistentConnections
        | What::Tunnels
        | What::Timeouts
        | What::Daemons => concat!(
            "IPVS connection entries\n",
            "pro expire state       source             virtual            destination\n"
        ),
    }
}

/// The line of a connection, with its newline.
#[must_use]
pub(crate) fn connection_row(connection: &Connection, numeric: bool, names: &dyn Names) -> String {
    let protocol = Protocol::named(&connection.protocol);
    let address = |address| shown(address, protocol, numeric, names);
    let expires = connection.expires;
    let expires = format!("{:02}:{:02}", expires / 60, expires % 60);
    format!(
        "{:<3} {expires:<6} {:<11} {:<18} {:<18} {}\n",
        connection.protocol,
        connection.state,
        address(connection.client),
        address(connection.virtual_server),
        address(connection.real_server),
    )
}
