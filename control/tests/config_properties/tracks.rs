//! What may be tracked.

use std::collections::BTreeMap;

use control::config::{InitFile, ParameterMatch, TrackFile, TrackProcess, VrrpScript};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{text, time, word};

/// All that an instance may track.
#[derive(Clone, Debug)]
pub(crate) struct Trackable {
    pub(crate) scripts: Vec<VrrpScript>,
    pub(crate) files: Vec<TrackFile>,
    pub(crate) processes: Vec<TrackProcess>,
}

pub(crate) struct Names {
    pub(crate) scripts: Vec<String>,
    pub(crate) files: Vec<String>,
    pub(crate) processes: Vec<String>,
}

impl Trackable {
    pub(crate) fn names(&self) -> Names {
        Names {
            scripts: self.scripts.iter().map(|one| one.name.clone()).collect(),
            files: self.files.iter().map(|one| one.name.clone()).collect(),
            processes: self.processes.iter().map(|one| one.name.clone()).collect(),
        }
    }
}

pub(crate) fn files() -> impl Strategy<Value = Vec<TrackFile>> {
    let init = (any::<i32>(), any::<bool>());
    let init = init.prop_map(|(value, overwrite)| InitFile { value, overwrite });
    let rest = (word(), -i32::MAX..=i32::MAX, option::of(init));
    btree_map(text(), rest, 0..3).prop_map(|files: BTreeMap<_, _>| {
        let file = |(name, (file, weight, init_file))| TrackFile {
            name,
            file: format!("/{file}").into(),
            weight,
            init_file,
        };
        files.into_iter().map(file).collect()
    })
}

pub(crate) fn processes() -> impl Strategy<Value = Vec<TrackProcess>> {
    let kind = select(vec![ParameterMatch::Initial, ParameterMatch::Partial]);
    let counts = (0_u32..=9, option::of(9_u32..=65535));
    let rest = (
        vec(text(), 1..4),
        option::of(kind),
        -254_i16..=254,
        counts,
        (time(), time()),
        any::<bool>(),
    );
    btree_map(text(), rest, 0..3).prop_map(|processes| {
        let process = |(name, (process, param_match, weight, counts, delays, full_command))| {
            let ((quorum, quorum_max), (fork_delay, terminate_delay)) = (counts, delays);
            TrackProcess {
                name,
                process,
                param_match,
                weight,
                quorum,
                quorum_max,
                fork_delay,
                terminate_delay,
                full_command,
            }
        };
        processes.into_iter().map(process).collect()
    })
}
