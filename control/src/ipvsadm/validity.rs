//! Which options go with which command, and ipvsadm's words when they do not.

use super::parse::UsageError;

/// What is checked as one option: `-t`, `-u` and `-f` are all `service-address`.
/// The order decides which of several mistakes is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Numeric,
    Connection,
    ServiceAddress,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    ForwardingMethod,
    Weight,
    UThreshold,
    LThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    Nosort,
    Syncid,
    Exact,
    Ops,
    Engine,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
}

use Kind::{
    Connection, Daemon, Engine, Exact, ForwardingMethod, LThreshold, McastGroup, McastInterface,
    McastPort, McastTtl, Netmask, Nosort, Numeric, Ops, Persistent, PersistentConn, Rate,
    RealServer, SchedFlags, Scheduler, ServiceAddress, Stats, SyncMaxlen, Syncid, Thresholds,
    Timeout, TunCsum, TunInfo, TunNocsum, TunPort, TunRemcsum, TunType, UThreshold, Weight,
};

impl Kind {
    const ALL: [(Self, &'static str); 34] = [
        (Numeric, "numeric"),
        (Connection, "connection"),
        (ServiceAddress, "service-address"),
        (Scheduler, "scheduler"),
        (Persistent, "persistent"),
        (Netmask, "netmask"),
        (RealServer, "real-server"),
        (ForwardingMethod, "forwarding-method"),
        (Weight, "weight"),
        (UThreshold, "u-threshold"),
        (LThreshold, "l-threshold"),
        (McastInterface, "mcast-interface"),
        (Timeout, "timeout"),
        (Daemon, "daemon"),
        (Stats, "stats"),
        (Rate, "rate"),
        (Thresholds, "thresholds"),
        (PersistentConn, "persistent-conn"),
        (Nosort, "nosort"),
        (Syncid, "syncid"),
        (Exact, "exact"),
        (Ops, "ops"),
        (Engine, "pe"),
        (SchedFlags, "sched-flags"),
        (McastGroup, "mcast-group"),
        (McastPort, "mcast-port"),
        (McastTtl, "mcast-ttl"),
        (SyncMaxlen, "sync-maxlen"),
        (TunInfo, "tun-info"),
        (TunType, "tun-type"),
        (TunPort, "tun-port"),
        (TunNocsum, "tun-nocsum"),
        (TunCsum, "tun-csum"),
        (TunRemcsum, "tun-remcsum"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The kinds of options that a command line has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given(u64);

impl Given {
    pub(super) fn has(self, kind: Kind) -> bool {
        self.0 & (1 << (kind as u8)) != 0
    }

    pub(super) fn has_any(self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|kind| self.has(*kind))
    }

    /// # Errors
    /// It was given before.
    pub(super) fn add(&mut self, kind: Kind) -> Result<(), UsageError> {
        if self.has(kind) {
            return Err(UsageError::new(format!(
                "multiple '{}' options specified",
                kind.name()
            )));
        }
        self.0 |= 1 << (kind as u8);
        Ok(())
    }
}

/// What a command, or a type of tunnel, makes of the options.
#[derive(Debug)]
pub(super) struct Rule {
    name: &'static str,
    required: &'static [Kind],
    allowed: &'static [Kind],
    /// At most one of these.
    exclusive: &'static [Kind],
}

pub(super) const ADD_SERVICE: Rule = of_service("add-service");
pub(super) const EDIT_SERVICE: Rule = of_service("edit-service");
pub(super) const DELETE_SERVICE: Rule = rule("delete-service", &[ServiceAddress], &[]);
pub(super) const CLEAR: Rule = rule("flush", &[], &[]);
pub(super) const LIST: Rule = Rule {
    name: "list",
    required: &[],
    allowed: &[
        Numeric,
        Stats,
        Rate,
        Thresholds,
        PersistentConn,
        Nosort,
        Exact,
        TunInfo,
        Syncid, // and ignored
    ],
    exclusive: &[Connection, ServiceAddress, Timeout, Daemon],
};
pub(super) const ADD_SERVER: Rule = of_server("add-server");
pub(super) const EDIT_SERVER: Rule = of_server("edit-server");
pub(super) const DELETE_SERVER: Rule = rule("delete-server", &[ServiceAddress, RealServer], &[]);
pub(super) const SET: Rule = rule("set", &[], &[]);
pub(super) const START_DAEMON: Rule = rule(
    "start-daemon",
    &[],
    &[
        McastInterface,
        Syncid,
        McastGroup,
        McastPort,
        McastTtl,
        SyncMaxlen,
    ],
);
pub(super) const STOP_DAEMON: Rule = rule("stop-daemon", &[], &[Syncid]);
pub(super) const RESTORE: Rule = rule("restore", &[], &[]);
pub(super) const SAVE: Rule = rule("save", &[], &[Numeric]);
pub(super) const ZERO: Rule = rule("zero", &[], &[ServiceAddress]);

pub(super) const IPIP: Rule = rule("ipip", &[], &[]);
pub(super) const GUE: Rule = Rule {
    name: "gue",
    required: &[TunPort],
    allowed: &[],
    exclusive: &[TunNocsum, TunCsum, TunRemcsum],
};
pub(super) const GRE: Rule = Rule {
    name: "gre",
    required: &[],
    allowed: &[],
    exclusive: &[TunNocsum, TunCsum],
};

/// What is looked at for a type of tunnel.
const OF_TUNNELS: [Kind; 4] = [TunPort, TunNocsum, TunCsum, TunRemcsum];

const fn rule(name: &'static str, required: &'static [Kind], allowed: &'static [Kind]) -> Rule {
    Rule {
        name,
        required,
        allowed,
        exclusive: &[],
    }
}

const fn of_service(name: &'static str) -> Rule {
    let allowed = &[Scheduler, Persistent, Netmask, Ops, Engine, SchedFlags];
    rule(name, &[ServiceAddress], allowed)
}

const fn of_server(name: &'static str) -> Rule {
    let allowed = &[
        ForwardingMethod,
        Weight,
        UThreshold,
        LThreshold,
        TunType,
        TunPort,
        TunNocsum,
        TunCsum,
        TunRemcsum,
    ];
    rule(name, &[ServiceAddress, RealServer], allowed)
}

impl Rule {
    /// Whether these options go with the command.
    ///
    /// # Errors
    /// The first that does not, or is missing.
    pub(super) fn check(&self, given: Given) -> Result<(), UsageError> {
        self.check_kinds(given, Kind::ALL.iter().map(|(kind, _)| *kind), "command")
    }

    /// Whether the options of a tunnel go with its type.
    ///
    /// # Errors
    /// The first that does not, or is missing.
    pub(super) fn check_tunnel(&self, given: Given) -> Result<(), UsageError> {
        self.check_kinds(given, OF_TUNNELS.into_iter(), "tunnel type")
    }

    fn check_kinds(
        &self,
        given: Given,
        kinds: impl Iterator<Item = Kind>,
        what: &str,
    ) -> Result<(), UsageError> {
        let name = self.name;
        let mut exclusive: Option<Kind> = None;
        for kind in kinds {
            let option = kind.name();
            if !given.has(kind) {
                if self.required.contains(&kind) {
                    return Err(UsageError::new(format!(
                        "You need to supply the '{option}' option for the '{name}' {what}"
                    )));
                }
            } else if self.exclusive.contains(&kind) {
                if let Some(before) = exclusive.replace(kind) {
                    return Err(UsageError::new(format!(
                        "The option '{option}' conflicts with the '{}' option in the '{name}' {what}",
                        before.name()
                    )));
                }
            } else if !self.required.contains(&kind) && !self.allowed.contains(&kind) {
                return Err(UsageError::new(format!(
                    "Illegal '{option}' option with the '{name}' {what}"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_the_order_of_their_numbers() {
        for (place, (kind, _)) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }
}
