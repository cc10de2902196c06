//! `vrrp_track_process`: how many processes of a kind run, by /proc (proc(5)).
//!
//! The kernel would tell of every fork and exit (`cn_proc`), but only in the first network namespace. So
//! /proc is looked through: all of it seldom, the processes that were found often, because it is an
//! end that is urgent.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{ParameterMatch, TrackProcess};

/// Bytes of a process's name that the kernel keeps (`TASK_COMM_LEN`, without the 0).
const NAME: usize = 15;

/// The processes under `proc` that are wanted.
#[must_use]
pub(crate) fn find(proc: &Path, wanted: &TrackProcess) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(proc) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let processes = names.filter_map(|name| name.parse().ok());
    processes
        .filter(|process| matches(proc, *process, wanted))
        .collect()
}

/// Whether a process runs and is one of those wanted.
#[must_use]
pub(crate) fn matches(proc: &Path, process: u32, wanted: &TrackProcess) -> bool {
    let directory = proc.join(process.to_string());
    // `1234 (name, with anything in it) S …`
    let Ok(status) = fs::read(directory.join("stat")) else {
        return false;
    };
    let status = String::from_utf8_lossy(&status);
    let Some((name, rest)) = status
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(')'))
    else {
        return false;
    };
    // A zombie serves nobody.
    if rest.trim_start().starts_with(['Z', 'X']) {
        return false;
    }
    let Some((command, parameters)) = wanted.process.split_first() else {
        return false;
    };
    if !wanted.full_command {
        let known = command.as_bytes();
        if name.as_bytes() != &known[..known.len().min(NAME)] {
            return false;
        }
        if parameters.is_empty() && wanted.param_match.is_none() {
            return true;
        }
    }
    let Ok(line) = fs::read(directory.join("cmdline")) else {
        return false;
    };
    let line = String::from_utf8_lossy(&line);
    let mut words = line.strip_suffix('\0').unwrap_or(&line).split('\0');
    let own_command = words.next().unwrap_or_default();
    if wanted.full_command && own_command != command {
        return false;
    }
    let words: Vec<_> = words.collect();
    match (wanted.param_match, parameters.split_last()) {
        (Some(ParameterMatch::Partial), Some(_)) => {
            words.len() >= parameters.len() && words.iter().zip(parameters).all(|(a, b)| a == b)
        }
        (Some(ParameterMatch::Initial), Some((last, first))) => {
            words.len() == parameters.len()
                && words.iter().zip(first).all(|(a, b)| a == b)
                && words.last().is_some_and(|word| word.starts_with(last))
        }
        (None | Some(ParameterMatch::Partial | ParameterMatch::Initial), _) => words == parameters,
    }
}

/// Whether enough processes run, and not too many, for long enough.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    fine: Option<bool>,
    /// Since when it is otherwise.
    since: Option<Instant>,
}

impl Presence {
    /// Takes note of how many run; the verdict, if that makes a difference. The first one counts at
    /// once.
    pub(crate) fn count(
        &mut self,
        running: usize,
        of: &TrackProcess,
        now: Instant,
    ) -> Option<bool> {
        let enough = u32::try_from(running).is_ok_and(|running| {
            running >= of.quorum && of.quorum_max.is_none_or(|most| running <= most)
        });
        if self.fine == Some(enough) {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let delay = match (self.fine, enough) {
            (None, _) => Duration::ZERO,
            (Some(_), true) => of.fork_delay,
            (Some(_), false) => of.terminate_delay,
        };
        if now.saturating_duration_since(since) < delay {
            return None;
        }
        self.since = None;
        self.fine = Some(enough);
        self.fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(words: &[&str]) -> TrackProcess {
        TrackProcess {
            name: "track".into(),
            process: words.iter().map(|word| (*word).to_owned()).collect(),
            param_match: None,
            weight: 1,
            quorum: 1,
            quorum_max: None,
            fork_delay: Duration::ZERO,
            terminate_delay: Duration::ZERO,
            full_command: false,
        }
    }

    #[test]
    fn processes_are_found_by_name_and_parameters() {
        let proc = tempfile::tempdir().unwrap();
        let add = |number: &str, name: &str, state: &str, line: &str| {
            let directory = proc.path().join(number);
            fs::create_dir(&directory).unwrap();
            let status = format!("{number} ({name}) {state} 1 1 1 0");
            fs::write(directory.join("stat"), status).unwrap();
            fs::write(directory.join("cmdline"), line).unwrap();
        };
        add("10", "nginx", "S", "nginx: master\0-c\0/etc/a.conf\0");
        add("11", "nginx", "Z", "");
        add(
            "12",
            "a-name-of-15-by",
            "R",
            "/opt/a-name-of-15-bytes\0-d\0",
        );
        add("13", ") R (", "S", "/bin/odd\0");
        fs::create_dir(proc.path().join("sys")).unwrap();
        fs::create_dir(proc.path().join("14")).unwrap();
        let find = |wanted: &TrackProcess| {
            let mut found = super::find(proc.path(), wanted);
            found.sort_unstable();
            found
        };
        assert_eq!(find(&wanted(&["nginx"])), [10], "without the zombie");
        assert_eq!(find(&wanted(&["a-name-of-15-bytes"])), [12]);
        assert_eq!(find(&wanted(&[") R ("])), [13]);
        assert_eq!(find(&wanted(&["ngin"])), [0; 0]);
        let cases: [(&[&str], _, bool); 9] = [
            (&["nginx", "-c", "/etc/a.conf"], None, true),
            (&["nginx", "-c"], None, false),
            (&["nginx", "-c"], Some(ParameterMatch::Partial), true),
            (&["nginx", "-d"], Some(ParameterMatch::Partial), false),
            (
                &["nginx", "-c", "/etc/"],
                Some(ParameterMatch::Initial),
                true,
            ),
            (
                &["nginx", "-c", "/usr"],
                Some(ParameterMatch::Initial),
                false,
            ),
            (&["nginx", "-"], Some(ParameterMatch::Initial), false),
            (&["nginx"], Some(ParameterMatch::Partial), false),
            (&["nginx"], None, true),
        ];
        for (words, param_match, expected) in cases {
            let mut wanted = wanted(words);
            wanted.param_match = param_match;
            assert_eq!(
                !find(&wanted).is_empty(),
                expected,
                "{words:?} {param_match:?}"
            );
        }
        let mut full = wanted(&["/opt/a-name-of-15-bytes", "-d"]);
        full.full_command = true;
        assert_eq!(find(&full), [12]);
        assert_eq!(super::find(Path::new("/nowhere"), &full), [0; 0]);
    }

    #[test]
    fn a_process_of_this_host_is_found() {
        let own = std::process::id();
        let stat = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(find(Path::new("/proc"), &wanted(&[stat.trim()])).contains(&own));
    }

    #[test]
    fn delays_are_waited_for_and_the_quorum_has_two_ends() {
        let now = Instant::now();
        let mut of = wanted(&["x"]);
        of.quorum = 2;
        of.quorum_max = Some(3);
        of.fork_delay = Duration::from_secs(2);
        of.terminate_delay = Duration::from_secs(1);
        let mut presence = Presence::default();
        let mut at =
            |seconds, running| presence.count(running, &of, now + Duration::from_secs(seconds));
        assert_eq!(at(0, 2), Some(true), "the first counts at once");
        assert_eq!(at(1, 1), None);
        assert_eq!(at(2, 1), Some(false));
        assert_eq!(at(3, 3), None);
        assert_eq!(at(4, 4), None, "too many again");
        assert_eq!(at(5, 3), None, "waited for anew");
        assert_eq!(at(7, 3), Some(true));
        assert_eq!(at(8, 4), None);
        assert_eq!(at(9, 4), Some(false));
    }

    #[test]
    fn the_unit_of_systemd_hides_no_processes() {
        let unit = include_str!("../../../packaging/appliance.service");
        let hides = ["ProtectProc=", "ProcSubset="];
        let hidden = unit
            .lines()
            .find(|line| hides.iter().any(|key| line.starts_with(key)));
        assert_eq!(hidden, None, "other users' processes would not be found");
    }
}
