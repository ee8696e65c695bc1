//! Waits with eyes open: each size on which the daemon, QEMU and the guest agree is printed as it comes, and a rule
//! counts as cleared only after it has not held for a while.

use std::time::{Duration, Instant};

use virt_persona::view::{ExplainView, TruthWord};

use crate::harness::{Domain, Failure, Outcome, Witness, ensure, eventually};
use crate::screen::{Screen, seconds};
use crate::sight::{Daemon, Sight, Size};

/// The rule must be quiet for so long, which is more than its own `FOR`, before the growth counts as over.
const QUIET: Duration = Duration::from_secs(5);

/// What [`watch`] waits for.
#[derive(Clone, Copy)]
pub(crate) struct Watched {
    /// A sentence, for the failure.
    pub(crate) what: &'static str,
    /// What is shown while it is waited for.
    pub(crate) metric: &'static str,
    pub(crate) within: Duration,
}

/// Prints a row for each size on which all sides agree, until `done` says that there is nothing more to wait for. The
/// sizes, beginning with the one at the start.
pub(crate) fn watch(
    screen: &mut Screen,
    domain: &Domain,
    witness: &Witness<'_>,
    boot_memory: u64,
    watched: Watched,
    mut done: impl FnMut(&Sight) -> Outcome<()>,
) -> Outcome<Vec<Size>> {
    let began = Instant::now();
    let mut sizes: Vec<Size> = Vec::new();
    screen.columns();
    let Watched {
        what,
        metric,
        within,
    } = watched;
    eventually(what, within, || {
        let sight = Sight::take(domain, witness, Daemon::Runs)?;
        if let Some(size) = sight.size()
            && sizes.last() != Some(&size)
        {
            sizes.push(size);
            screen.row(
                &format!("+{}", seconds(began.elapsed())),
                &sight.host_text(),
                &sight.qemu_text(boot_memory),
                &sight.guest_text(),
            );
        }
        screen.progress(format!(
            "+{}  {metric} {}; {}",
            seconds(began.elapsed()),
            sight.per_cent(metric),
            sight.guest_text()
        ));
        done(&sight)
    })?;
    Ok(sizes)
}

/// For how long a rule has not held while the size stayed the same.
#[derive(Default)]
pub(crate) struct Quiet {
    since: Option<(Instant, Size)>,
}

impl Quiet {
    pub(crate) fn look(
        &mut self,
        explain: &ExplainView,
        name: &str,
        size: Option<Size>,
    ) -> Outcome<()> {
        let rule = explain
            .rules
            .iter()
            .find(|rule| rule.name == name)
            .ok_or_else(|| Failure::new(format!("the persona has no rule {name}")))?;
        let (TruthWord::False, Some(size)) = (rule.truth, size) else {
            self.since = None;
            return Err(Failure::new(format!("rule {name} is {:?}", rule.truth)));
        };
        match self.since {
            Some((since, same)) if same == size => ensure(since.elapsed() >= QUIET, || {
                format!(
                    "rule {name} no longer holds since {}",
                    seconds(since.elapsed())
                )
            }),
            _ => {
                self.since = Some((Instant::now(), size));
                Err(Failure::new(format!(
                    "rule {name} no longer holds since just now"
                )))
            }
        }
    }
}
