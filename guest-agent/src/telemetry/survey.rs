//! Figures that cannot be had without a disk or another machine, each of which may take its time: file systems, logs, round
//! trips. They are looked at in a thread of its own that ends with it, at most every [`EVERY`] (sooner when something else is wanted) and only when a report
//! that wants them is due, so that a report never waits: it takes what was found last, with its age. While one look has not ended there is no other, so a disk
//! that hangs makes figures old, and nothing else. The host and the guest's own rules share the looks: one is for all that either
//! wants.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use agent_protocol::{DiskFigures, LogFigures, NetworkFigures, Part, Parts, Report};

use super::{
    Looks, filesystems,
    logs::Logs,
    probe::{self, Probes},
};
use crate::{
    events::{Event, Events},
    log::log,
};

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
    events: Events,
    /// What anybody wants.
    wanted: Parts,
    /// What rules want: they are told of the end of a look.
    by_rules: Parts,
    /// When the last look began, and for what.
    began: Option<(Instant, Parts)>,
    found: Option<Found>,
}

/// The parts that a look is made for.
const PARTS: [Part; 3] = [Part::Disk, Part::Logs, Part::Network];

impl Survey {
    pub(super) fn new(root: &Path, probes: Probes, events: Events) -> Self {
        let (back, results) = mpsc::channel();
        Self {
            root: root.into(),
            probes,
            memory: Some(Box::default()),
            results,
            back,
            events,
            wanted: Parts::NONE,
            by_rules: Parts::NONE,
            began: None,
            found: None,
        }
    }

    /// What is looked at from here on.
    pub(super) fn want(&mut self, host: Parts, rules: Parts) {
        self.wanted = looked_at(host.union(rules));
        self.by_rules = looked_at(rules);
        if self.wanted == Parts::NONE {
            self.take_results();
            self.rest();
        }
    }

    fn take_results(&mut self) {
        while let Ok((memory, found)) = self.results.try_recv() {
            self.memory = Some(memory);
            self.found = Some(found);
        }
    }

    /// Puts what was found last into a report, and begins another look when it is time.
    pub(super) fn add_to(&mut self, report: &mut Report, parts: Parts, looks: Looks, now: Instant) {
        self.take_results();
        if looked_at(parts) == Parts::NONE {
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
        let due = |(began, of)| now >= began + EVERY || of != self.wanted;
        if looks == Looks::Begin
            && self.began.is_none_or(due)
            && let Some(memory) = self.memory.take()
        {
            self.began = Some((now, self.wanted));
            self.begin(memory);
        }
    }

    /// Nobody wants to know: what was found is of no use any more.
    fn rest(&mut self) {
        self.found = None;
        if let Some(memory) = &mut self.memory {
            memory.logs.forget();
        }
    }

    fn begin(&mut self, mut memory: Box<Memory>) {
        let (root, probes) = (Arc::clone(&self.root), self.probes.clone());
        let (back, parts) = (self.back.clone(), self.wanted);
        let told = (self.by_rules != Parts::NONE).then(|| self.events.clone());
        let look = move || {
            let found = look(&mut memory, &root, &probes, parts);
            // The receiver lives as long as the agent.
            let _ = back.send((memory, found));
            if let Some(events) = told {
                events.send(Event::Looked);
            }
        };
        let thread = thread::Builder::new().name("survey".to_owned());
        if let Err(error) = thread.stack_size(STACK).spawn(look) {
            log!("disks, logs and round trips cannot be looked at: {error}");
            self.memory = Some(Box::default());
        }
    }
}

/// What of some parts a look is made for.
fn looked_at(parts: Parts) -> Parts {
    PARTS.into_iter().filter(|part| parts.has(*part)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn survey() -> (Survey, crate::events::FromWorkers) {
        let (events, told) = crate::events::queue().unwrap();
        let none = toml::from_str("targets = []").unwrap();
        (Survey::new(Path::new("/not-there"), none, events), told)
    }

    fn added(survey: &mut Survey, part: Part, looks: Looks, now: Instant) -> Report {
        let mut report = Report::default();
        survey.add_to(&mut report, Parts::NONE.with(part), looks, now);
        report
    }

    /// Waits for the end of the look that is under way.
    fn finish(survey: &mut Survey) {
        while survey.memory.is_none() {
            survey.take_results();
            thread::yield_now();
        }
    }

    #[test]
    fn one_look_is_for_all_that_the_host_and_rules_want_and_each_gets_what_it_asked_for() {
        let (mut survey, mut told) = survey();
        let now = Instant::now();
        let rules = Parts::NONE.with(Part::Network).with(Part::Cpu);
        survey.want(Parts::NONE.with(Part::Disk), rules);
        added(&mut survey, Part::Disk, Looks::Begin, now);
        added(&mut survey, Part::Network, Looks::Begin, now);
        finish(&mut survey);
        let disk = added(&mut survey, Part::Disk, Looks::Begin, now);
        let network = added(&mut survey, Part::Network, Looks::Begin, now);
        assert!(disk.disk.is_some() && disk.network.is_none());
        assert!(network.network.is_some() && network.disk.is_none());
        assert!(survey.memory.is_some(), "no other look has begun");
        loop {
            match told.next() {
                Some(event) => break assert!(matches!(event, Event::Looked)),
                None => thread::yield_now(),
            }
        }
        added(&mut survey, Part::Disk, Looks::Leave, now + EVERY);
        assert!(survey.memory.is_some(), "it takes what was found");
        added(&mut survey, Part::Disk, Looks::Begin, now + EVERY);
        assert!(survey.memory.is_none(), "the next has begun");
    }

    #[test]
    fn nobody_is_told_of_looks_for_the_host_and_nothing_is_kept_that_nobody_wants() {
        let (mut survey, mut told) = survey();
        let now = Instant::now();
        survey.want(Parts::NONE.with(Part::Disk), Parts::NONE);
        added(&mut survey, Part::Disk, Looks::Begin, now);
        finish(&mut survey);
        assert!(told.next().is_none());
        assert!(survey.found.is_some());
        survey.want(Parts::BASE, Parts::NONE);
        assert!(survey.found.is_none());
    }
}
