//! The fast path of a guest that is short of memory: its word reaches the planner's state at once, and a plan is made
//! before the next tick, of the figures that are at hand. Plans for needs keep a distance, so that guests, however many
//! and however loud, cannot keep the daemon busy; needs that come within it share one plan. What a guest only repeats
//! waits for the tick.

use std::time::Duration;

use persona::units::{Bytes, Moment};
use planner::Heard;
use tokio::time::{Instant, sleep_until};

use super::Daemon;
use super::event::Event;
use crate::agent::GuestWords;
use crate::hypervisor::DomainId;

/// Between two plans for needs: five a second at most, each of which costs what a tick's does.
const DISTANCE: Duration = Duration::from_millis(200);

/// When there was last a plan for a need.
#[derive(Debug, Default)]
pub(super) struct Urgency {
    last: Option<Instant>,
    due: bool,
}

impl Daemon {
    /// A guest says that it needs memory.
    pub(super) fn guest_needs(
        &mut self,
        id: DomainId,
        more: Bytes,
        reason: &GuestWords,
        now: Moment,
    ) {
        let managed = self
            .domains
            .get(&id)
            .and_then(|tracked| tracked.persona.in_force.as_ref())
            .is_some_and(|persona| persona.base.memory.is_some());
        if !managed {
            tracing::debug!(domain = %id, %more, "a guest needs memory, and its persona does not manage it");
            return;
        }
        let heard = self.state.need(id, more, &self.policy, now);
        self.recording.needed(id, more, now);
        if heard != Heard::Taken {
            tracing::debug!(domain = %id, %more, %reason, ?heard, "the guest says again that it needs memory");
            return;
        }
        tracing::info!(domain = %id, %more, %reason, "the guest needs memory");
        if self.needed.due {
            return;
        }
        self.needed.due = true;
        let at = self
            .needed
            .last
            .map_or_else(Instant::now, |last| last + DISTANCE);
        self.spawn(async move {
            sleep_until(at).await;
            Event::Needed
        });
    }

    /// The plan that is due.
    pub(super) fn plan_for_need(&mut self) {
        self.needed = Urgency {
            last: Some(Instant::now()),
            due: false,
        };
        self.plan_and_begin(self.clock.now());
        self.publish_soon();
    }
}
