//! What the planner carries from tick to tick, in the store: read when the daemon starts, and kept with the records of what
//! changed it. What it means is in `planner::state`.

use std::collections::BTreeMap;

use persona::units::Moment;
use planner::state::DomainState;
use planner::{Policy, State};
use serde::{Deserialize, Serialize};

use crate::act;
use crate::audit::Entry;
use crate::catalog::CatalogueError;
use crate::daemon::Daemon;
use crate::daemon::approvals::stored_proposals;
use crate::hypervisor::DomainId;
use crate::store::{Batch, Store, StoreError, Stored, Tree};

/// States in one commit, well below what the store takes at once.
const STATES_A_COMMIT: usize = 100;

/// The planner's state of one domain, as it is stored, and what tells whether it still belongs to the running machine.
/// The number of the instance alone does not: libvirt counts from 1 again after the host's boot.
#[derive(Serialize, Deserialize)]
pub(in crate::daemon) struct Carried {
    state: DomainState,
    /// The emulator's process.
    process: Option<u32>,
    /// The host's boot.
    boot: String,
}

/// What was carried when the daemon last ran.
pub(in crate::daemon) struct CarriedOver {
    pub(in crate::daemon) state: State,
    pub(in crate::daemon) processes: BTreeMap<DomainId, u32>,
}

impl Stored for Carried {
    const TREE: Tree = Tree::Planner;
}

/// The planner's state from when the daemon last ran, as far as the host has not booted since.
pub(in crate::daemon) fn carried_state(
    store: &Store,
    policy: &Policy,
    now: Moment,
) -> Result<CarriedOver, StoreError> {
    let mut state = State::default();
    let mut processes = BTreeMap::new();
    let boot = host_boot();
    for (key, carried) in store.all::<Carried>()? {
        let Ok(id) = <[u8; 16]>::try_from(key.as_slice()) else {
            continue;
        };
        if carried.boot != boot {
            // Of the machines before the host's boot nothing is left but what people said of them.
            state.domains.insert(DomainId(id), carried.state);
            state.rest(DomainId(id), now);
        } else {
            processes.extend(carried.process.map(|process| (DomainId(id), process)));
            state.domains.insert(DomainId(id), carried.state);
        }
    }
    state.proposals = stored_proposals(store)?;
    state.resume(policy, now);
    Ok(CarriedOver { state, processes })
}

/// Tells one boot of the host from another (proc_sys_kernel(5)); the same where the kernel does not say.
pub(in crate::daemon) fn host_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |boot| boot.trim().to_owned())
}

impl Daemon {
    /// Puts the planner's states of some domains and what is to be recorded of them into the store, with one wait for the
    /// disk where that is possible; the records are announced afterwards. What is carried no longer is removed from it.
    pub(in crate::daemon) fn keep_states(&mut self, domains: &[DomainId], entries: Vec<Entry>) {
        let boot = host_boot();
        let mut kept = Ok(());
        let mut entries = entries;
        let mut chunks = domains.chunks(STATES_A_COMMIT).peekable();
        while let Some(domains) = chunks.next() {
            let mut batch = Batch::new();
            for id in domains {
                // That a rule has called for something and what it called for are known together, or neither is.
                let calls = self.guest_calls.put(&mut batch, *id);
                kept = kept.and(calls.map_err(CatalogueError::from));
                let Some(state) = self.state.domain(*id) else {
                    // Nothing is carried any more, so nothing shall come back after a restart.
                    batch.remove::<Carried>(id.0);
                    continue;
                };
                let process = self
                    .domains
                    .get(id)
                    .and_then(|domain| domain.description.process);
                let carried = Carried {
                    state: state.clone(),
                    process,
                    boot: boot.clone(),
                };
                kept = kept.and(batch.put(id.0, &carried).map_err(CatalogueError::from));
            }
            // The records come with what they tell of, and the rest of them with the last.
            let last = chunks.peek().is_none();
            let of_these = |entry: &mut Entry| {
                let domain = entry.domain.as_ref();
                last || domain.is_some_and(|(id, _)| domains.contains(id))
            };
            let with: Vec<Entry> = if kept.is_ok() {
                entries.extract_if(.., of_these).collect()
            } else {
                Vec::new()
            };
            let again = with.clone();
            kept = kept.and_then(|()| {
                self.commit(batch, with)
                    .inspect_err(|_| entries.extend(again))
            });
            if kept.is_ok() {
                for id in domains {
                    self.guest_calls.is_kept(*id);
                }
            }
        }
        if let Err(error) = kept {
            let error = act::sentence_of(&error);
            tracing::error!(%error, "cooldowns and holds could not be stored");
            self.problems.insert(
                "store-write",
                format!("the store could not be written: {error}"),
            );
        } else {
            self.problems.remove("store-write");
        }
        // What is left over is recorded all the same.
        self.record_all(entries);
    }
}
