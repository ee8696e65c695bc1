//! The table of rules by which a change of what is held keeps what people in the guest have changed. For one resource, with
//! the base (what the agent last wrote), what is there, and what is wanted:
//!
//! | base, there | wanted | then |
//! |---|---|---|
//! | equal | another | it is written |
//! | differ | what is there | it is adopted |
//! | differ | the base | what is there is kept |
//! | differ | something else | what is there is kept; a file's wanted content is put beside it |
//!
//! What is no longer wanted goes back to what was before any persona, if it still is as the agent wrote it. No I/O but what
//! `probe` does.

use std::collections::BTreeMap;

use agent_protocol::{SettingLine, SettingOutcome};
use serde::{Deserialize, Serialize};

use super::{Holding, NEW, Once, Onces, Resource, Running, State, Wanted, Will, Wishes};

/// Why something of the guest's own stays.
pub(crate) const CHANGED: &str = "it was changed in the guest, and stays so";
const SILENT: &str = "its plugin does not say how it is; the agent's log says why";
const MASKED: &str = "the unit is masked in the guest, and stays so";

/// One change of one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deed {
    pub(crate) setting: String,
    pub(crate) resource: Resource,
    /// How it was when this was planned.
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) purpose: Purpose,
}

/// What a deed is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// The new generation wants it.
    Hold,
    /// No generation wants it any more.
    Release,
}

/// When a deed is done: what stops units before their files go, what starts them after their files have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Down,
    Files,
    Kernel,
    Up,
    /// Last, since a plugin may need what the others bring.
    Plugins,
}

impl Deed {
    pub(crate) fn phase(&self) -> Phase {
        match (&self.resource, &self.to) {
            (Resource::File(_) | Resource::Program(_) | Resource::Override(_), _) => Phase::Files,
            (Resource::Kernel(_), _) => Phase::Kernel,
            (Resource::Plugin(_), _) => Phase::Plugins,
            (Resource::Unit(_), State::Unit { running, .. }) if *running == Running::Running => {
                Phase::Up
            }
            (Resource::Unit(_), _) => Phase::Down,
        }
    }
}

/// What an activation does about settings. It is in the journal before the first deed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// In the order of doing.
    pub(crate) deeds: Vec<Deed>,
    pub(crate) once: Onces,
    /// What is held afterwards.
    pub(crate) held: Vec<Holding>,
    pub(crate) lines: Vec<SettingLine>,
    /// Variables that settings give to sessions.
    pub(crate) defaults: BTreeMap<String, String>,
}

impl Plan {
    /// Whether any of it is the work of programs, whose files nobody here makes durable.
    pub(crate) fn needs_programs(&self) -> bool {
        let by_program = |deed: &Deed| {
            matches!(
                deed.resource,
                Resource::Unit(_) | Resource::Plugin(_) | Resource::Override(_)
            )
        };
        self.deeds.iter().any(by_program) || self.onces().next().is_some()
    }
}

/// Compares what is held and what is wanted with what is there.
pub(crate) fn plan<E>(
    held: &[Holding],
    wishes: Wishes,
    boot_id: &str,
    mut probe: impl FnMut(&Resource) -> Result<State, E>,
) -> Result<Plan, E> {
    let mut plan = Plan {
        lines: wishes.lines,
        defaults: wishes.defaults,
        ..Plan::default()
    };
    let mut wanted = wishes.wanted;
    let mut next = 0;
    while let Some(item) = wanted.get(next).cloned() {
        next += 1;
        let live = probe(&item.resource)?;
        let base = held.iter().find(|held| held.resource == item.resource);
        let verdict = judge(&item, base, &live);
        plan.say(&item.setting, &verdict);
        match verdict {
            Verdict::Nothing => {
                // What already was as wanted is held all the same: a later change of it is then somebody else's.
                plan.hold(&item, base, live.clone(), live, boot_id);
            }
            Verdict::Write => {
                plan.hold(&item, base, live.clone(), item.state.clone(), boot_id);
                plan.change(
                    &item.setting,
                    &item.resource,
                    live,
                    item.state,
                    Purpose::Hold,
                );
                plan.once.extend(item.once);
            }
            Verdict::Keep(_) => {
                plan.held.extend(base.cloned());
                let is_beside =
                    matches!(&item.resource, Resource::File(path) if path.ends_with(NEW));
                if let Resource::File(path) = &item.resource
                    && !is_beside
                    && base.is_none_or(|base| base.wanted != item.state)
                {
                    wanted.push(Wanted {
                        resource: Resource::File(format!("{path}{NEW}")),
                        once: None,
                        ..item
                    });
                }
            }
        }
    }
    for gone in held {
        if wanted.iter().any(|item| item.resource == gone.resource) {
            continue;
        }
        let live = probe(&gone.resource)?;
        if gone.before.fits(&live) {
            continue;
        }
        if !gone.written.fits(&live) {
            let reason = if live == State::Unknown {
                SILENT
            } else {
                CHANGED
            };
            plan.lines.push(SettingLine::new(
                &gone.setting,
                SettingOutcome::Kept,
                reason,
            ));
            continue;
        }
        plan.lines.push(SettingLine::new(
            &gone.setting,
            SettingOutcome::Restored,
            "",
        ));
        let (resource, before) = (&gone.resource, gone.before.clone());
        plan.change(&gone.setting, resource, live, before, Purpose::Release);
        plan.once.extend(gone.once);
    }
    plan.held.extend(wishes.carried);
    // Sorting is stable, so that within a phase the plugins' order stays.
    plan.deeds.sort_by_key(Deed::phase);
    plan.lines = one_for_each(std::mem::take(&mut plan.lines));
    Ok(plan)
}

enum Verdict {
    Nothing,
    Write,
    Keep(&'static str),
}

fn judge(item: &Wanted, base: Option<&Holding>, live: &State) -> Verdict {
    use super::Enabling::Masked;
    let theirs = base.is_some_and(|base| !base.written.fits(live));
    if item.will == Will::Found && theirs {
        return Verdict::Keep(CHANGED);
    }
    let masked = matches!(live, State::Unit { enabling, .. } if *enabling == Masked);
    if item.state.fits(live) {
        return Verdict::Nothing;
    }
    if masked {
        return Verdict::Keep(MASKED);
    }
    if *live == State::Unknown {
        return Verdict::Keep(SILENT);
    }
    match base {
        Some(base) if base.written.fits(live) && base.wanted == item.state => Verdict::Nothing,
        Some(base) if base.written.fits(live) => Verdict::Write,
        Some(_) => Verdict::Keep(CHANGED),
        // A file of the agent's name that it did not write is somebody's; values and units always have a state.
        None if matches!(item.resource, Resource::File(_)) && *live != State::Absent => {
            Verdict::Keep(CHANGED)
        }
        None => Verdict::Write,
    }
}

impl Plan {
    fn say(&mut self, setting: &str, verdict: &Verdict) {
        let (outcome, reason) = match verdict {
            Verdict::Nothing => (SettingOutcome::Unchanged, ""),
            Verdict::Write => (SettingOutcome::Applied, ""),
            Verdict::Keep(reason) => (SettingOutcome::Kept, *reason),
        };
        self.lines.push(SettingLine::new(setting, outcome, reason));
    }

    fn hold(
        &mut self,
        item: &Wanted,
        base: Option<&Holding>,
        before: State,
        written: State,
        boot_id: &str,
    ) {
        self.held.push(Holding {
            setting: item.setting.clone(),
            resource: item.resource.clone(),
            before: base.map_or(before, |base| base.before.clone()),
            wanted: item.state.clone(),
            written,
            boot_id: boot_id.to_owned(),
            once: item.once,
        });
    }

    fn change(
        &mut self,
        setting: &str,
        resource: &Resource,
        from: State,
        to: State,
        purpose: Purpose,
    ) {
        self.deeds.push(Deed {
            setting: setting.to_owned(),
            resource: resource.clone(),
            from,
            to,
            purpose,
        });
    }

    /// What is still to be run for a set of deeds.
    pub(crate) fn onces(&self) -> impl Iterator<Item = Once> + '_ {
        self.once.iter().copied()
    }
}

/// Several resources can belong to one setting; what stands of their outcomes is the one that says most.
fn one_for_each(lines: Vec<SettingLine>) -> Vec<SettingLine> {
    let mut merged: Vec<SettingLine> = Vec::new();
    for line in lines {
        match merged
            .iter_mut()
            .find(|known| known.setting == line.setting)
        {
            Some(known) if known.outcome < line.outcome => *known = line,
            Some(_) => {}
            None => merged.push(line),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const PATH: &str = "/etc/x";

    fn text(text: &str) -> State {
        State::Text {
            text: text.to_owned(),
            mode: 0o644,
        }
    }

    fn wish(state: State) -> Wishes {
        let mut wishes = Wishes::default();
        wishes.resource("x", Resource::File(PATH.to_owned()), state);
        wishes
    }

    /// Carries a plan out in a tree of one's own.
    struct Tree(BTreeMap<Resource, State>, Vec<Holding>);

    impl Tree {
        fn become_(&mut self, wishes: Wishes) -> Plan {
            let live = &self.0;
            let plan = plan(&self.1, wishes, "boot", |resource| {
                Ok::<_, Infallible>(live.get(resource).cloned().unwrap_or(State::Absent))
            })
            .unwrap();
            for deed in &plan.deeds {
                self.0.insert(deed.resource.clone(), deed.to.clone());
            }
            self.0.retain(|_, state| *state != State::Absent);
            self.1 = plan.held.clone();
            plan
        }

        fn put(&mut self, state: State) {
            self.0.insert(Resource::File(PATH.to_owned()), state);
        }

        fn has(&self, path: &str) -> Option<&State> {
            self.0.get(&Resource::File(path.to_owned()))
        }
    }

    fn tree(base: &str) -> Tree {
        let mut tree = Tree(BTreeMap::new(), Vec::new());
        tree.become_(wish(text(base)));
        tree
    }

    fn outcome(plan: &Plan) -> SettingOutcome {
        plan.lines[0].outcome
    }

    #[test]
    fn what_is_as_it_was_written_is_written_anew() {
        let mut tree = tree("base");
        assert_eq!(
            outcome(&tree.become_(wish(text("new")))),
            SettingOutcome::Applied
        );
        assert_eq!(tree.has(PATH), Some(&text("new")));
    }

    #[test]
    fn what_somebody_has_made_as_wanted_is_adopted_and_goes_with_the_persona() {
        let mut tree = tree("base");
        tree.put(text("new"));
        let plan = tree.become_(wish(text("new")));
        assert_eq!(
            (outcome(&plan), plan.deeds.len()),
            (SettingOutcome::Unchanged, 0)
        );
        tree.become_(Wishes::default());
        assert_eq!(tree.0, BTreeMap::new());
    }

    #[test]
    fn a_change_by_somebody_is_kept_while_the_same_is_wanted() {
        let mut tree = tree("base");
        tree.put(text("mine"));
        assert_eq!(
            outcome(&tree.become_(wish(text("base")))),
            SettingOutcome::Kept
        );
        assert_eq!((tree.has(PATH), tree.0.len()), (Some(&text("mine")), 1));
    }

    #[test]
    fn where_all_differ_the_new_content_lies_beside_and_goes_again() {
        let mut tree = tree("base");
        tree.put(text("mine"));
        assert_eq!(
            outcome(&tree.become_(wish(text("new")))),
            SettingOutcome::Kept
        );
        assert_eq!(tree.has(PATH), Some(&text("mine")));
        assert_eq!(tree.has(&format!("{PATH}{NEW}")), Some(&text("new")));
        // The second time nothing is left to do.
        assert_eq!(tree.become_(wish(text("new"))).deeds, []);
        let plan = tree.become_(Wishes::default());
        assert_eq!(outcome(&plan), SettingOutcome::Kept);
        assert_eq!((tree.has(PATH), tree.0.len()), (Some(&text("mine")), 1));
    }

    #[test]
    fn a_file_that_was_there_before_is_somebodys() {
        let mut tree = Tree(BTreeMap::new(), Vec::new());
        tree.put(text("mine"));
        assert_eq!(
            outcome(&tree.become_(wish(text("new")))),
            SettingOutcome::Kept
        );
        assert_eq!(tree.has(PATH), Some(&text("mine")));
    }

    #[test]
    fn what_was_before_any_persona_comes_back_through_several() {
        let mut tree = Tree(BTreeMap::new(), Vec::new());
        let key = Resource::Kernel("vm/x".to_owned());
        tree.0.insert(key.clone(), State::Value("60".to_owned()));
        let value = |value: &str| {
            let mut wishes = Wishes::default();
            wishes.resource("vm.x", key.clone(), State::Value(value.to_owned()));
            wishes
        };
        tree.become_(value("1"));
        assert_eq!(tree.become_(value("1")).deeds, []);
        tree.become_(value("2"));
        let plan = tree.become_(Wishes::default());
        assert_eq!(outcome(&plan), SettingOutcome::Restored);
        assert_eq!(tree.0[&key], State::Value("60".to_owned()));
        // A value that somebody has set since stays.
        tree.become_(value("1"));
        tree.0.insert(key.clone(), State::Value("7".to_owned()));
        assert_eq!(
            outcome(&tree.become_(Wishes::default())),
            SettingOutcome::Kept
        );
        assert_eq!(tree.0[&key], State::Value("7".to_owned()));
    }
}
