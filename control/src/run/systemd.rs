//! What the service manager is told: systemd's notification protocol, sd_notify(3). Without a service
//! manager (`NOTIFY_SOCKET`) nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{debug, warn};

/// Traffic can flow; `status` is what `systemctl status` shows.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again; [`ready`] says when that is over.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!("the time of the reload is not known: {error}"),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How often the service manager wants to hear that the control loop turns; it is told every second.
pub(super) fn watchdog() -> Option<Duration> {
    let interval = sd_notify::watchdog_enabled()?;
    if interval < Duration::from_secs(2) {
        warn!("WatchdogSec is {interval:?}: the appliance tells every second, so set 2 s or more");
    }
    Some(interval)
}

/// The control loop turns, and every worker runs.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot tell the service manager: {error}");
    }
}
