//! Looking at resources and changing them: files through the durable writer, kernel parameters below `/proc/sys`, units by
//! `systemctl` ([`super::unit`]), plugins ([`super::external`]). Each change is verified by looking again. What shall change is decided elsewhere ([`super::plan()`]);
//! the file tree is `guest`, and its programs are run in `programs`.

mod guest;
mod programs;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use agent_protocol::{RequestId, SettingLine, SettingOutcome};

use super::{
    Deed, Holding, Once, Phase, Plan, Programs, Resource, SettingError, State, external,
    plan::Purpose,
};
use crate::{
    durable::{Writer, crash_point},
    log::{chain, log},
};

pub(crate) use guest::Guest;
pub(super) use programs::Errand;

/// Where a release cannot be done, since the kernel takes no way back.
const ONE_WAY: &str = "the kernel does not take it back before the guest is restarted";
/// Where a release cannot be done, since its plugin fails.
const NOT_UNDONE: &str = "its plugin does not bring back what was before; the agent's log says why";
/// Where a program cannot be opened again, or its entry cannot be taken away.
const STAYS_CLOSED: &str = "it cannot be put back; the agent's log says why";
/// Parameters of which one rules and the other is 0, below `/proc/sys`.
const PAIRS: [(&str, &str); 3] = [
    ("vm/dirty_bytes", "vm/dirty_ratio"),
    ("vm/dirty_background_bytes", "vm/dirty_background_ratio"),
    ("vm/overcommit_kbytes", "vm/overcommit_ratio"),
];

/// The guest, to be looked at and changed on behalf of one request.
pub(crate) struct Machine<'a> {
    pub(super) guest: Guest<'a>,
    writer: Writer,
    programs: &'a mut dyn Programs,
    request: RequestId,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(
        root: &'a Path,
        writer: Writer,
        programs: &'a mut dyn Programs,
        request: RequestId,
    ) -> Self {
        Self {
            guest: Guest::new(root),
            writer,
            programs,
            request,
        }
    }

    /// How a resource is.
    pub(crate) fn probe(&mut self, resource: &Resource) -> Result<State, SettingError> {
        match resource {
            Resource::File(path) => self.probe_file(path),
            Resource::Kernel(parameter) => self.probe_kernel(parameter),
            Resource::Unit(unit) => Ok(self.unit(unit)?.state),
            Resource::Program(path) => self.probe_program(path),
            Resource::Override(path) => self.probe_override(path),
            Resource::Plugin(key) => Ok(external::probe(self, key)),
        }
    }

    fn probe_file(&self, path: &str) -> Result<State, SettingError> {
        let path = self.guest.path(path);
        let failed = |source| SettingError::Read {
            path: path.clone(),
            source,
        };
        match fs::read(&path) {
            Ok(bytes) => {
                // What the agent writes is UTF-8, so what is not is never taken for its own, and never written back.
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let mode = fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o7777;
                Ok(State::Text { text, mode })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::Absent),
            Err(source) => Err(failed(source)),
        }
    }

    fn probe_kernel(&self, parameter: &str) -> Result<State, SettingError> {
        let path = self.kernel_path(parameter);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(State::Value(text.trim().to_owned())),
            // It went with its module or device.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::Absent),
            Err(source) => Err(SettingError::Read { path, source }),
        }
    }

    /// Replaces pre-images that cannot be written back by the way in which they can.
    pub(crate) fn make_reversible(&self, plan: &mut Plan) {
        let before = plan
            .held
            .iter_mut()
            .map(|held| (&held.resource, &mut held.before));
        let from = plan
            .deeds
            .iter_mut()
            .map(|deed| (&deed.resource, &mut deed.from));
        for (resource, state) in before.chain(from) {
            let Resource::Kernel(parameter) = resource else {
                continue;
            };
            let counterpart = PAIRS.iter().find_map(|(one, other)| match parameter {
                name if name == one => Some(*other),
                name if name == other => Some(*one),
                _ => None,
            });
            if let Some(counterpart) = counterpart
                && *state == State::Value("0".to_owned())
                && let Ok(State::Value(value)) = self.probe_kernel(counterpart)
                && value != "0"
            {
                let counterpart = counterpart.to_owned();
                *state = State::Through { counterpart, value };
            }
        }
    }

    /// Does what a plan says, from wherever it stands, and enters what the guest made of it.
    pub(crate) fn carry_out(&mut self, plan: &mut Plan) -> Result<(), SettingError> {
        for phase in [
            Phase::Down,
            Phase::Files,
            Phase::Kernel,
            Phase::Up,
            Phase::Plugins,
        ] {
            for deed in plan.deeds.clone() {
                if deed.phase() == phase {
                    self.carry_out_one(&deed, &mut plan.lines)?;
                }
            }
            if phase == Phase::Files {
                let onces: Vec<Once> = plan.onces().collect();
                for once in onces {
                    self.run_once(once)?;
                }
            }
        }
        for held in &mut plan.held {
            let changed = |deed: &Deed| deed.resource == held.resource;
            // What a plugin has made of it was compared with what was wanted, to the letter.
            let is_exact = matches!(held.resource, Resource::Plugin(_));
            if !is_exact && plan.deeds.iter().any(changed) {
                let live = self.probe(&held.resource)?;
                held.written = if held.wanted.is_another_than(&live) {
                    held.wanted.clone()
                } else {
                    live
                };
            }
        }
        Ok(())
    }

    fn carry_out_one(
        &mut self,
        deed: &Deed,
        lines: &mut [SettingLine],
    ) -> Result<(), SettingError> {
        let done = match self.probe(&deed.resource) {
            Ok(live) if deed.to.fits(&live) => return Ok(()),
            // Its permissions are not those that this was planned for; who looks out for upgrades looks at it next.
            Ok(live) if deed.from.is_another_than(&live) => return Ok(()),
            Ok(live) => self.put(&deed.resource, &deed.to.of_file(&live), deed.purpose),
            Err(error) => Err(error),
        };
        match done {
            Err(error) if deed.purpose == Purpose::Release => {
                let reason = match deed.resource {
                    // Some parameters can only be made stricter, and some go with their module or device.
                    Resource::Kernel(_) => ONE_WAY,
                    // A program of somebody's shall not hold a persona fast.
                    Resource::Plugin(_) => NOT_UNDONE,
                    Resource::Program(_) | Resource::Override(_) => STAYS_CLOSED,
                    Resource::File(_) | Resource::Unit(_) => return Err(error),
                };
                log!("{}: {}", deed.setting, chain(&error));
                if let Some(line) = lines.iter_mut().find(|line| line.setting == deed.setting) {
                    *line = SettingLine::new(&deed.setting, SettingOutcome::Kept, reason);
                }
                Ok(())
            }
            done => done,
        }
    }

    /// Undoes what was done of a plan. What cannot be undone is said in a sentence each.
    pub(crate) fn undo(&mut self, plan: &Plan) -> Vec<String> {
        let mut failures = Vec::new();
        for phase in [
            Phase::Plugins,
            Phase::Up,
            Phase::Kernel,
            Phase::Files,
            Phase::Down,
        ] {
            for deed in plan.deeds.iter().rev().filter(|deed| deed.phase() == phase) {
                if let Err(error) = self.undo_one(deed) {
                    failures.push(format!("{}: {}", deed.setting, chain(&error)));
                }
            }
            if phase == Phase::Files {
                for once in plan.onces() {
                    if let Err(error) = self.run_once(once) {
                        failures.push(chain(&error));
                    }
                }
            }
        }
        failures
    }

    fn undo_one(&mut self, deed: &Deed) -> Result<(), SettingError> {
        let live = self.probe(&deed.resource)?;
        if deed.from.fits(&live) || deed.from.is_another_than(&live) {
            return Ok(());
        }
        // A unit can be half way, and so can what a plugin does; of the others each is as before, as wanted, or changed by somebody
        // else meanwhile.
        let gradual = matches!(deed.resource, Resource::Unit(_) | Resource::Plugin(_));
        if gradual || deed.to.fits(&live) {
            self.put(&deed.resource, &deed.from, Purpose::Release)
        } else {
            log!(
                "{} was changed in the guest meanwhile, and stays so",
                deed.setting
            );
            Ok(())
        }
    }

    /// Values that a kernel lost with its last boot are set again, with what this boot had before as the way back.
    pub(crate) fn renew(&mut self, held: &mut [Holding], boot_id: &str) -> Renewed {
        let mut renewed = Renewed::Nothing;
        for holding in held {
            let Resource::Kernel(parameter) = &holding.resource else {
                continue;
            };
            if holding.boot_id == boot_id {
                continue;
            }
            renewed = Renewed::Something;
            boot_id.clone_into(&mut holding.boot_id);
            let done = self.probe(&holding.resource).and_then(|live| {
                if holding.wanted.fits(&live) {
                    return Ok(());
                }
                self.put(&holding.resource, &holding.wanted, Purpose::Hold)?;
                holding.before = live;
                holding.written = self.probe(&holding.resource)?;
                Ok(())
            });
            if let Err(error) = done {
                log!("{parameter} does not hold in this boot: {}", chain(&error));
                // What this boot has instead is nobody's change.
                if let Ok(live) = self.probe(&holding.resource) {
                    holding.written = live;
                }
            }
        }
        renewed
    }

    fn put(
        &mut self,
        resource: &Resource,
        state: &State,
        purpose: Purpose,
    ) -> Result<(), SettingError> {
        match (resource, state) {
            (Resource::File(path), State::Text { text, mode }) => {
                let path = self.guest.path(path);
                if let Some(directory) = path.parent() {
                    self.writer.directory(directory, 0o755)?;
                }
                Ok(self.writer.replace(&path, text.as_bytes(), *mode)?)
            }
            (Resource::File(path), _) => Ok(self.writer.remove(&self.guest.path(path))?),
            (Resource::Kernel(parameter), State::Value(value)) => {
                self.set_kernel(parameter, value)?;
                match self.probe_kernel(parameter)? {
                    found if state.fits(&found) => Ok(()),
                    State::Value(found) => Err(SettingError::NotTaken {
                        parameter: parameter.clone(),
                        value: value.clone(),
                        found,
                    }),
                    _ => Ok(()),
                }
            }
            (Resource::Kernel(_), State::Through { counterpart, value }) => {
                self.set_kernel(counterpart, value)
            }
            (Resource::Unit(unit), State::Unit { enabling, running }) => {
                self.put_unit(unit, *enabling, *running)
            }
            (Resource::Program(path), State::Program { mode, file }) => {
                self.put_program(path, *mode, *file)
            }
            (Resource::Override(path), state) => self.put_override(path, state),
            (Resource::Plugin(key), State::Opaque(wanted)) => {
                external::settle(self, key, wanted, purpose)
            }
            // Kernel parameters, units and plugins have no other states.
            _ => Ok(()),
        }
    }

    fn set_kernel(&self, parameter: &str, value: &str) -> Result<(), SettingError> {
        let write = || {
            // A parameter that does not exist is never created.
            let mut file = OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(self.kernel_path(parameter))?;
            // One write: the kernel takes each for a whole value.
            file.write_all(format!("{value}\n").as_bytes())
        };
        crash_point();
        let written = write();
        crash_point();
        written.map_err(|source| SettingError::Kernel {
            parameter: parameter.replace('/', "."),
            value: value.to_owned(),
            source,
        })
    }

    fn kernel_path(&self, parameter: &str) -> PathBuf {
        self.guest.path("/proc/sys").join(parameter)
    }
}

/// Whether anything of what is held was entered anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    Nothing,
    Something,
}
