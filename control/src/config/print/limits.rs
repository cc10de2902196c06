//! The limits of a virtual server.

use std::fmt;

use dataplane::limits::{Limits, Rate, SourceLimits, SynProxy};

pub(super) fn print_limits(f: &mut fmt::Formatter<'_>, limits: &Limits) -> fmt::Result {
    let Limits {
        max_connections,
        rate,
        source,
    } = limits;
    print_pair(f, "", *max_connections, *rate)?;
    let Some(SourceLimits {
        max_connections,
        rate,
        granularity,
    }) = source
    else {
        return Ok(());
    };
    print_pair(f, "source_", *max_connections, *rate)?;
    writeln!(f, "source_granularity = {granularity}")
}

/// Nothing is written where it cannot be.
pub(super) fn print_syn_proxy(
    f: &mut fmt::Formatter<'_>,
    syn_proxy: Option<SynProxy>,
) -> fmt::Result {
    match syn_proxy {
        None => Ok(()),
        Some(SynProxy::Always) => writeln!(f, "syn_proxy = \"always\""),
        Some(SynProxy::UnderAttack { half_open }) => {
            writeln!(f, "syn_proxy = \"under-attack\"")?;
            writeln!(f, "syn_proxy_threshold = {half_open}")
        }
    }
}

fn print_pair(
    f: &mut fmt::Formatter<'_>,
    prefix: &str,
    max_connections: Option<u32>,
    rate: Option<Rate>,
) -> fmt::Result {
    if let Some(most) = max_connections {
        writeln!(f, "{prefix}max_connections = {most}")?;
    }
    if let Some(Rate { per_second, burst }) = rate {
        writeln!(f, "{prefix}new_connections_per_second = {per_second}")?;
        writeln!(f, "{prefix}new_connections_burst = {burst}")?;
    }
    Ok(())
}
