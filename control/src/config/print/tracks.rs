//! What is tracked.

use std::fmt;

use super::super::{ParameterMatch, TrackFile, TrackProcess, Tracked, Tracks};
use super::vrrp::print_list;
use super::{commas, print_time, quoted};

pub(super) fn print_file(f: &mut fmt::Formatter<'_>, file: &TrackFile) -> fmt::Result {
    let TrackFile {
        name,
        file,
        weight,
        init_file,
    } = file;
    writeln!(f, "\n[[track_file]]\nname = {}", quoted(name))?;
    writeln!(f, "file = {}", quoted(&file.to_string_lossy()))?;
    writeln!(f, "weight = {weight}")?;
    if let Some(init) = init_file {
        let overwrite = if init.overwrite { " overwrite" } else { "" };
        writeln!(f, "init_file = \"{}{overwrite}\"", init.value)?;
    }
    Ok(())
}

pub(super) fn print_process(f: &mut fmt::Formatter<'_>, process: &TrackProcess) -> fmt::Result {
    let TrackProcess {
        name,
        process,
        param_match,
        weight,
        quorum,
        quorum_max,
        fork_delay,
        terminate_delay,
        full_command,
    } = process;
    writeln!(f, "\n[[vrrp_track_process]]\nname = {}", quoted(name))?;
    let words = process.iter().map(|word| quoted(word));
    writeln!(f, "process = [{}]", commas(words))?;
    if let Some(kind) = param_match {
        let kind = match kind {
            ParameterMatch::Initial => "initial",
            ParameterMatch::Partial => "partial",
        };
        writeln!(f, "param_match = \"{kind}\"")?;
    }
    writeln!(f, "weight = {weight}\nquorum = {quorum}")?;
    if let Some(most) = quorum_max {
        writeln!(f, "quorum_max = {most}")?;
    }
    print_time(f, "fork_delay", *fork_delay)?;
    print_time(f, "terminate_delay", *terminate_delay)?;
    writeln!(f, "full_command = {full_command}")
}

pub(super) fn print_tracks(f: &mut fmt::Formatter<'_>, tracks: &Tracks) -> fmt::Result {
    let Tracks {
        script,
        interface,
        file,
        process,
    } = tracks;
    let all = [
        ("track_script", script),
        ("track_interface", interface),
        ("track_file", file),
        ("track_process", process),
    ];
    let mut all = all.into_iter();
    all.try_for_each(|(key, tracked)| print_list(f, key, tracked.iter().map(tracked_text)))
}

fn tracked_text(tracked: &Tracked) -> String {
    let Tracked {
        name,
        weight,
        reverse,
    } = tracked;
    let reverse = if *reverse { " reverse" } else { "" };
    match weight {
        Some(weight) => format!("{name} weight {weight}{reverse}"),
        None => name.clone(),
    }
}
