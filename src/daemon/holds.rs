//! A person's word that a domain's resources and limits be left alone, or be changed again. What a hold keeps from happening is in
//! the planner; called by `requests`.

use std::time::Duration;

use persona::rule::Resource;

use super::{Daemon, tick};
use crate::audit::AuditKind;
use crate::command::{Caller, DomainName, Refusal, Reply};
use crate::view::{Change, Held};

impl Daemon {
    pub(super) fn hold(
        &mut self,
        domain: &DomainName,
        only: Option<Held>,
        length: Duration,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let id = self.domain(domain)?;
        let longest = self.policy.longest_hold;
        if length < Duration::from_secs(1) || length > longest {
            return Err(Refusal::BadArgument {
                argument: "seconds".into(),
                reason: format!(
                    "a hold lasts 1 s to {} s, which is {} days, and {} s are asked for",
                    longest.as_secs(),
                    longest.as_secs() / 86_400,
                    length.as_secs()
                ),
            });
        }
        let parts = match only {
            None => vec![Held::Vcpus, Held::Memory, Held::Limits],
            Some(part) => vec![part],
        };
        let now = self.clock.now();
        let until = now.after(length);
        for part in &parts {
            let by = &caller.name;
            match part {
                Held::Vcpus => self.state.hold(id, Resource::Vcpus, until, by),
                Held::Memory => self.state.hold(id, Resource::Memory, until, by),
                Held::Limits => self.state.hold_limits(id, until, by),
            }
        }
        self.recording.touched(id);
        let what = match only {
            None => "vCPUs, memory and limits",
            Some(Held::Vcpus) => tick::resource_name(Resource::Vcpus),
            Some(Held::Memory) => tick::resource_name(Resource::Memory),
            Some(Held::Limits) => "limits",
        };
        let text = format!(
            "{} wants {what} left alone for {} s",
            caller.name,
            length.as_secs()
        );
        let detail = serde_json::json!({ "resources": parts, "until": until });
        let entry = self.entry(AuditKind::Hold, Some(id), &text, detail);
        self.keep_states(&[id], vec![entry]);
        Ok(Reply::Held(self.hold_views(id, now)))
    }

    pub(super) fn release(
        &mut self,
        domain: &DomainName,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let id = self.domain(domain)?;
        let held = self.hold_views(id, self.clock.now());
        if !self.state.release(id) {
            return Ok(Reply::Done(Change::Unchanged));
        }
        self.recording.touched(id);
        let text = format!(
            "{} ended every hold, quarantine and wait after a failure",
            caller.name
        );
        let entry = self.entry(AuditKind::Hold, Some(id), &text, tick::json(&held));
        self.keep_states(&[id], vec![entry]);
        Ok(Reply::Done(Change::Changed))
    }
}
