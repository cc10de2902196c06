//! Looks at the files and processes that instances track.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::warn;

use crate::config::{Config, TrackFile, TrackProcess};
use crate::event::{Event, VrrpEvent};
use crate::in_words::in_words;
use crate::track::process::Presence;
use crate::track::{file, process};

/// How often a file is read, and a process that was found is looked at.
const OFTEN: Duration = Duration::from_millis(200);
/// Every so many times all processes are looked through.
const SELDOM: u32 = 5;

/// What is looked at now.
#[derive(Debug)]
pub(in super::super) struct Tracks {
    events: mpsc::Sender<Event>,
    files: Vec<TrackFile>,
    processes: Vec<TrackProcess>,
    /// Cancelled with this.
    tasks: JoinSet<()>,
}

impl Tracks {
    pub(in super::super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            files: Vec::new(),
            processes: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Looks at what `config` tracks and nothing else.
    pub(in super::super) fn take_up(&mut self, config: &Config) {
        let files = config.track_files.iter();
        let files: Vec<_> = files
            .filter(|file| {
                config
                    .tracks()
                    .any(|t| t.file.iter().any(|t| t.name == file.name))
            })
            .cloned()
            .collect();
        let processes = config.track_processes.iter();
        let processes: Vec<_> = processes
            .filter(|one| {
                config
                    .tracks()
                    .any(|t| t.process.iter().any(|t| t.name == one.name))
            })
            .cloned()
            .collect();
        if (&self.files, &self.processes) == (&files, &processes) {
            return;
        }
        self.tasks = JoinSet::new();
        for file in &files {
            self.tasks
                .spawn(follow_file(file.clone(), self.events.clone()));
        }
        if !processes.is_empty() {
            let follow = follow_processes(processes.clone(), self.events.clone());
            self.tasks.spawn(follow);
        }
        (self.files, self.processes) = (files, processes);
    }
}

/// Says what number is in a file, when it changes.
async fn follow_file(track: TrackFile, events: mpsc::Sender<Event>) {
    let TrackFile { name, file, .. } = track.clone();
    let initialized = spawn_blocking(move || file::initialize(&track)).await;
    if let Ok(Err(error)) = initialized {
        let file = file.display();
        warn!(
            "track_file {name}: cannot write {file}: {}",
            in_words(&error)
        );
    }
    let (mut known, mut complained) = (None, false);
    loop {
        let path: PathBuf = file.clone();
        let Ok(read) = spawn_blocking(move || file::number(&path)).await else {
            return;
        };
        let value = match read {
            Ok(value) => {
                complained = false;
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    let file = file.display();
                    warn!(
                        "track_file {name}: {file}: {}: it counts as before",
                        in_words(&error)
                    );
                }
                None
            }
        };
        if let Some(value) = value.filter(|value| known != Some(*value)) {
            known = Some(value);
            let name = name.clone();
            let event = VrrpEvent::File { name, value };
            if events.send(Event::Vrrp(event)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(OFTEN).await;
    }
}

/// Says when enough processes run and when not.
async fn follow_processes(tracks: Vec<TrackProcess>, events: mpsc::Sender<Event>) {
    let mut followed: Vec<_> = tracks
        .into_iter()
        .map(|track| (track, Presence::default(), Vec::new()))
        .collect();
    for round in 0_u32.. {
        let all = round.is_multiple_of(SELDOM);
        let looked = spawn_blocking(move || {
            for (track, _, found) in &mut followed {
                let proc = Path::new("/proc");
                match all {
                    true => *found = process::find(proc, track),
                    false => found.retain(|one| process::matches(proc, *one, track)),
                }
            }
            followed
        });
        let Ok(looked) = looked.await else { return };
        followed = looked;
        for (track, presence, found) in &mut followed {
            let Some(fine) = presence.count(found.len(), track, Instant::now()) else {
                continue;
            };
            let event = VrrpEvent::Process {
                name: track.name.clone(),
                fine,
                running: found.len(),
            };
            if events.send(Event::Vrrp(event)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(OFTEN).await;
    }
}
