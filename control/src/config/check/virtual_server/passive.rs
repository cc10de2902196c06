//! `max_fails` and `fail_timeout`, by their names in nginx's upstreams.

use std::ops::RangeInclusive;
use std::time::Duration;

use dataplane::service::Protocol;

use super::super::super::Passive;
use super::super::super::raw::Table;
use super::super::super::report::Report;

/// 0 switches it off for a real server.
const MAX_FAILS: RangeInclusive<i64> = 0..=65535;
const FAIL_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(86400);
/// nginx's.
const DEFAULT_FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a virtual server says for its real servers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inherited {
    max_fails: Option<u32>,
    fail_timeout: Option<Duration>,
}

impl Inherited {
    pub(super) fn overridden_by(self, table: &Table<'_>, report: &mut Report<'_>) -> Self {
        let max_fails = table.get("max_fails");
        let fail_timeout = table.get("fail_timeout");
        Self {
            max_fails: max_fails
                .and_then(|value| value.integer(&MAX_FAILS, report))
                .or(self.max_fails),
            fail_timeout: fail_timeout
                .and_then(|value| value.time(&FAIL_TIMEOUT, report))
                .or(self.fail_timeout),
        }
    }

    /// Of a real server.
    pub(super) fn checked(
        self,
        table: &Table<'_>,
        protocol: Option<Protocol>,
        report: &mut Report<'_>,
    ) -> Option<Passive> {
        let max_fails = self.max_fails.filter(|&fails| fails > 0)?;
        if protocol.is_some_and(|protocol| protocol != Protocol::Tcp) {
            report.error(
                table.at,
                &table.place,
                format_args!("max_fails = {max_fails}"),
                "it for TCP only: no other protocol begins with a SYN",
                "remove it",
            );
            return None;
        }
        Some(Passive {
            max_fails,
            fail_timeout: self.fail_timeout.unwrap_or(DEFAULT_FAIL_TIMEOUT),
        })
    }
}
