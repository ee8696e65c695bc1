//! Figures that cannot be had without a disk or another machine, each of which may take its time: file systems, logs, round
//! trips. They are looked at in a thread of its own that ends with it, at most every [`EVERY`] (sooner when something else is wanted) and only when a report
//! that wants them is due, so that a report never waits: it takes what was found last, with its age. While one look has not ended there is no other, so a disk
//! that hangs makes figures old, and nothing else.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use agent_protocol::{DiskFigures, LogFigures, NetworkFigures, Part, Parts, Report};

use super::{
    filesystems,
    logs::Logs,
    probe::{self, Probes},
};
use crate::log::log;

/// Shortest time between the beginnings of two looks.
const EVERY: Duration = Duration::from_secs(5);
/// Bytes of the stack of the thread: it holds paths and blocks of a file, and no recursion.
const STACK: usize = 128 * 1024;

/// What was found.
#[derive(Clone, Copy, Debug)]
struct Found {
    at: Instant,
    disk: Option<DiskFigures>,
    logs: Option<LogFigures>,
    network: Option<NetworkFigures>,
}

/// What remembers from look to look; the thread has it meanwhile.
#[derive(Debug, Default)]
struct Memory {
    logs: Logs,
}

/// The looks of one agent.
#[derive(Debug)]
pub(super) struct Survey {
    root: Arc<Path>,
    probes: Probes,
    memory: Option<Box<Memory>>,
    results: mpsc::Receiver<(Box<Memory>, Found)>,
    back: mpsc::Sender<(Box<Memory>, Found)>,
    /// When the last look began, and for what.
    began: Option<(Instant, Parts)>,
    found: Option<Found>,
}

/// The parts that a look is made for.
const PARTS: [Part; 3] = [Part::Disk, Part::Logs, Part::Network];

impl Survey {
    pub(super) fn new(root: &Path, probes: Probes) -> Self {
        let (back, results) = mpsc::channel();
        Self {
            root: root.into(),
            probes,
            memory: Some(Box::default()),
            results,
            back,
            began: None,
            found: None,
        }
    }

    /// Puts what was found last into a report, and begins another look when it is time.
    pub(super) fn add_to(&mut self, report: &mut Report, parts: Parts, now: Instant) {
        while let Ok((memory, found)) = self.results.try_recv() {
            self.memory = Some(memory);
            self.found = Some(found);
        }
        if !PARTS.iter().any(|part| parts.has(*part)) {
            self.rest();
            return;
        }
        if let Some(found) = &self.found {
            let age = now.saturating_duration_since(found.at).as_millis();
            let age_ms = u64::try_from(age).unwrap_or(u64::MAX);
            let wanted = |part| parts.has(part);
            let disk = found.disk.filter(|_| wanted(Part::Disk));
            report.disk = disk.map(|disk| DiskFigures { age_ms, ..disk });
            let logs = found.logs.filter(|_| wanted(Part::Logs));
            report.logs = logs.map(|logs| LogFigures { age_ms, ..logs });
            let network = found.network.filter(|_| wanted(Part::Network));
            report.network = network.map(|network| NetworkFigures { age_ms, ..network });
        }
        let due = |(began, of)| now >= began + EVERY || of != parts;
        if self.began.is_none_or(due)
            && let Some(memory) = self.memory.take()
        {
            self.began = Some((now, parts));
            self.begin(memory, parts);
        }
    }

    /// Nobody wants to know: what was found is of no use any more.
    fn rest(&mut self) {
        self.found = None;
        if let Some(memory) = &mut self.memory {
            memory.logs.forget();
        }
    }

    fn begin(&mut self, mut memory: Box<Memory>, parts: Parts) {
        let (root, probes, back) = (
            Arc::clone(&self.root),
            self.probes.clone(),
            self.back.clone(),
        );
        let look = move || {
            let found = look(&mut memory, &root, &probes, parts);
            // The receiver lives as long as the agent.
            let _ = back.send((memory, found));
        };
        let thread = thread::Builder::new().name("survey".to_owned());
        if let Err(error) = thread.stack_size(STACK).spawn(look) {
            log!("disks, logs and round trips cannot be looked at: {error}");
            self.memory = Some(Box::default());
        }
    }
}

fn look(memory: &mut Memory, root: &Path, probes: &Probes, parts: Parts) -> Found {
    let at = Instant::now();
    if !parts.has(Part::Logs) {
        memory.logs.forget();
    }
    Found {
        at,
        disk: parts
            .has(Part::Disk)
            .then(|| filesystems::look(root).unwrap_or_default()),
        logs: parts.has(Part::Logs).then(|| memory.logs.look(root)),
        network: parts.has(Part::Network).then(|| probe::look(root, probes)),
    }
}
