//! When rules of the guest fire: they are evaluated at their own interval by the channel, with or without a host, and sooner
//! when an application has said something. Nothing is done here, `hands` does it; nothing is waited for.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_protocol::{
    AppFigure, Part, Parts,
    limits::RULE_READINGS_MAX,
    rules::{RuleBy, RuleEdge, RuleReading, RuleWord, Telling},
};
use persona::{
    rule::{Action, Condition, Edge, Looked, Rule, Trail, Windows},
    units::Moment,
};

use super::{
    Hands, InForce, RuleLeave,
    compile::compile,
    figures::{self, Counts, Figures},
    hands::Firing,
    log::{Fired, Intent, Kept, Standing},
};
use crate::{
    log::{chain, log},
    telemetry::{Looks, Telemetry},
};

/// Between two evaluations, where no window is shorter.
const INTERVAL: Duration = Duration::from_secs(10);
/// Between two evaluations at least.
const SHORTEST: Duration = Duration::from_secs(1);
/// Looks within one window: a `FOR` that is looked at less often than that begins and ends by chance.
const LOOKS_IN_WINDOW: u32 = 3;

/// One rule with what is carried of it.
#[derive(Debug)]
struct Carried {
    rule: Rule,
    readings: Telling,
    windows: Windows,
    kept: Kept,
}

/// The rules that are in force.
#[derive(Debug)]
pub(crate) struct Rules {
    hands: Hands,
    leave: RuleLeave,
    boot_id: String,
    counts: Counts,
    in_force: Option<Arc<InForce>>,
    rules: Vec<Carried>,
    parts: Parts,
    interval: Duration,
    /// When they are evaluated next; `None` while there are none, so that an idle agent does not wake.
    due: Option<Instant>,
    evaluated: Option<Instant>,
    /// What the next evaluation does about disks, logs and other machines.
    looks: Looks,
}

impl Rules {
    pub(crate) fn new(hands: Hands, leave: RuleLeave, boot_id: String) -> Self {
        Self {
            hands,
            leave,
            boot_id,
            counts: Counts::default(),
            in_force: None,
            rules: Vec::new(),
            parts: Parts::NONE,
            interval: INTERVAL,
            due: None,
            evaluated: None,
            looks: Looks::Begin,
        }
    }

    /// The rules of the generation that holds; others than before begin anew, and those of the same persona go on with what
    /// was called for.
    pub(crate) fn follow(&mut self, in_force: Option<&Arc<InForce>>, now: Instant) {
        if self.in_force.as_ref() == in_force {
            return;
        }
        let before = std::mem::replace(&mut self.in_force, in_force.cloned());
        let digest = |of: Option<&Arc<InForce>>| of.map(|of| of.digest.clone());
        if digest(before.as_ref()) != digest(in_force) {
            self.counts.begin_anew();
        } else if let (Some(before), Some(in_force)) = (before, in_force)
            && before.rules == in_force.rules
            && self.due.is_some()
        {
            // The same rules of the same persona, of which something else was adjusted: their windows go on as well.
            return;
        }
        self.rules.clear();
        let Some(in_force) = in_force else {
            self.due = None;
            self.parts = Parts::NONE;
            self.counts = Counts::default();
            self.hands.log().carry(Standing::default());
            self.hands.save();
            return;
        };
        let mut standing = self.hands.log().standing(&in_force.digest);
        for (text, compiled) in compile(&in_force.rules, self.leave) {
            match compiled {
                Ok(rule) => self.rules.push(Carried {
                    kept: standing.remove(&text.name).unwrap_or_default(),
                    rule,
                    readings: text.readings,
                    windows: Windows::default(),
                }),
                Err(refusal) => log!("rule {} is not evaluated: {refusal}", text.name),
            }
        }
        let conditions = || {
            self.rules
                .iter()
                .flat_map(|carried| conditions(&carried.rule))
        };
        let window = conditions().filter_map(|condition| condition.shortest_window());
        let window = window
            .min()
            .map_or(INTERVAL, |window| window / LOOKS_IN_WINDOW);
        self.interval = window.clamp(SHORTEST, INTERVAL);
        self.parts = figures::parts(conditions());
        if !self.parts.has(Part::Logs) {
            self.counts.close_logs();
        }
        self.due = (!self.rules.is_empty()).then_some(now);
        self.looks = Looks::Begin;
        log!(
            "{} rules are in force in the guest, looked at every {} s",
            self.rules.len(),
            self.interval.as_secs()
        );
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self
            .rules
            .iter()
            .map(|carried| carried.rule.name.to_string());
        names.collect()
    }

    /// When they are to be evaluated.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// How often that is.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// The parts of a report that they look at.
    pub(crate) fn parts(&self) -> Parts {
        self.parts
    }

    /// Whether they look at what applications say.
    pub(crate) fn want_applications(&self) -> bool {
        self.parts.has(Part::Applications)
    }

    /// A look at disks, logs or other machines has ended: what they wait for is there. No other begins for it.
    pub(crate) fn looked(&mut self, now: Instant) {
        if self.due.is_some() {
            self.due = Some(now);
            self.looks = Looks::Leave;
        }
    }

    /// An application has said something: they are looked at soon.
    pub(crate) fn hear(&mut self, now: Instant) {
        if self.due.is_some() && self.want_applications() {
            let soonest = self.evaluated.map_or(now, |before| before + SHORTEST);
            self.due = self.due.map(|due| due.min(soonest.max(now)));
        }
    }

    /// Evaluates all of them, with what is measured now and what applications have said until now.
    pub(crate) fn evaluate(&mut self, telemetry: &mut Telemetry, said: &[AppFigure], now: Instant) {
        let Some(in_force) = self.in_force.clone() else {
            return;
        };
        self.due = Some(now + self.interval);
        self.evaluated = Some(now);
        let looks = std::mem::replace(&mut self.looks, Looks::Begin);
        let report = telemetry
            .report(self.parts, looks)
            .inspect_err(|error| log!("rules have no figures: {}", chain(error)))
            .ok();
        let fired = Fired::now(&self.boot_id);
        let at = Moment(fired.boot_ms);
        let figures = Figures::new(report, &mut self.counts, said, at, self.interval);
        let mut firings = Vec::new();
        for carried in &mut self.rules {
            if self.hands.take_unbegun(&carried.rule.name) {
                carried.kept.latch.called = false;
            }
            firings.extend(carried.look(&figures, at, &fired, &self.hands, &in_force));
        }
        for firing in firings {
            self.hands.fire(firing);
        }
        self.carry(&in_force.digest);
    }

    /// Has what is carried written where it has changed. What belongs to a firing that is under way goes with that: it is not
    /// on the disk before the firing's intent is.
    fn carry(&self, digest: &str) {
        let before = self.hands.log().standing(digest);
        let kept = self.rules.iter().map(|carried| {
            let name = carried.rule.name.to_string();
            if self.hands.is_free(&name) {
                (name, carried.kept.clone())
            } else {
                let kept = before.get(&name).cloned().unwrap_or_default();
                (name, kept)
            }
        });
        let rules: BTreeMap<_, _> = kept.filter(|(_, kept)| *kept != Kept::default()).collect();
        if rules != before {
            let digest = digest.to_owned();
            self.hands.log().carry(Standing { digest, rules });
            self.hands.save();
        }
    }
}

impl Carried {
    /// Evaluates the rule, and says what it calls for.
    fn look(
        &mut self,
        figures: &Figures<'_>,
        at: Moment,
        now: &Fired,
        hands: &Hands,
        in_force: &Arc<InForce>,
    ) -> Option<Firing> {
        let rule = &self.rule;
        let mut trail = Trail::recording();
        let truth = rule
            .when
            .evaluate(figures, rule.source, &mut self.windows, at, &mut trail);
        let until = rule.until.as_ref().map(|until| {
            until.evaluate(figures, rule.source, &mut self.windows, at, &mut Trail::Off)
        });
        let mut latch = self.kept.latch;
        let edge = latch.turn(truth, until);
        let Some(edge) = edge else {
            self.kept.latch = latch;
            return None;
        };
        let fired = self.kept.fired.as_ref();
        let cooling = edge == Edge::Begins && fired.is_some_and(|at| at.ago(now) < rule.cooldown);
        if cooling || !hands.is_free(&rule.name) {
            // It is asked again at the next look, as if nothing had been called for.
            return None;
        }
        self.kept.latch = latch;
        let asked = |action: &&Action| edge == Edge::Begins || action.lasts();
        let asked: Vec<&Action> = rule.then.iter().filter(asked).collect();
        if asked.is_empty() {
            return None;
        }
        if edge == Edge::Begins {
            self.kept.fired = Some(now.clone());
        }
        let actions = asked.iter().map(|action| match edge {
            Edge::Begins => (*action).clone(),
            Edge::Ends => taken_back(action),
        });
        let actions: Vec<Action> = actions.collect();
        Some(Firing {
            in_force: Arc::clone(in_force),
            intent: Intent {
                generation: in_force.generation,
                persona: in_force.persona.clone(),
                digest: in_force.digest.clone(),
                rule: rule.name.to_string(),
                edge: match edge {
                    Edge::Begins => RuleEdge::Begins,
                    Edge::Ends => RuleEdge::Ends,
                },
                actions: actions.iter().map(ToString::to_string).collect(),
                readings: readings(trail.looked(), self.readings),
                by: RuleBy::Guest,
                call: None,
                kept: Some(self.kept.clone()),
                fired: now.clone(),
                deeds: Vec::new(),
            },
            actions,
            word: RuleWord::Persona,
        })
    }
}

/// What takes an action back.
fn taken_back(action: &Action) -> Action {
    match action {
        Action::EnableFeature(name) => Action::DisableFeature(name.clone()),
        Action::DisableFeature(name) => Action::EnableFeature(name.clone()),
        other => other.clone(),
    }
}

/// What a rule looked at, as far as it may leave the guest.
fn readings(looked: &[Looked], telling: Telling) -> Vec<RuleReading> {
    let mut told: Vec<RuleReading> = Vec::new();
    for looked in looked {
        let signal = looked.signal.to_string();
        if told.len() < RULE_READINGS_MAX && told.iter().all(|before| before.signal != signal) {
            let value = looked.reading.map(|reading| reading.value);
            told.push(RuleReading {
                signal,
                value: value.filter(|_| telling == Telling::Told),
            });
        }
    }
    told
}

fn conditions(rule: &Rule) -> impl Iterator<Item = &Condition> {
    std::iter::once(&rule.when).chain(&rule.until)
}
