//! What the actions of each persona's rules did to the metrics that it prioritises: fed by the tick and by the ends of
//! steps, kept in the store, shown in the view. How it is measured is in `planner::impact`; no plan looks at it.

use std::collections::BTreeMap;

use agent_protocol::RuleRecord;
use agent_protocol::rules::{DeedOutcome, RuleEdge};
use persona::signal::Metric;
use persona::units::Moment;
use planner::impact::{Impacts, Measured, Tally};
use planner::snapshot::Run;
use serde::{Deserialize, Serialize};

use super::Daemon;
use crate::act::sentence_of;
use crate::catalog::CatalogueError;
use crate::hypervisor::DomainId;
use crate::store::{Batch, Store, StoreError, Stored, Tree};
use crate::view::EffectView;

/// What is known of one rule of one persona, as it is stored under the names of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RuleImpact {
    persona: String,
    rule: String,
    /// The rule as it was written: another text is another rule.
    text: String,
    /// By the metric's name.
    metrics: BTreeMap<String, Tally>,
}

impl Stored for RuleImpact {
    const TREE: Tree = Tree::Impacts;
}

/// What is being measured, and what was.
#[derive(Default)]
pub(super) struct Measurements {
    pub(super) open: Impacts,
    /// By persona and rule.
    known: BTreeMap<String, BTreeMap<String, RuleImpact>>,
}

/// The key of a rule in the store: names of personas have no zero byte in them.
fn key(persona: &str, rule: &str) -> Vec<u8> {
    let mut key = persona.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(rule.as_bytes());
    key
}

impl Measurements {
    /// What was measured before the last stop.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn stored(store: &Store) -> Result<Self, StoreError> {
        let mut known: BTreeMap<String, BTreeMap<String, RuleImpact>> = BTreeMap::new();
        for (_, impact) in store.all::<RuleImpact>()? {
            let rules = known.entry(impact.persona.clone()).or_default();
            rules.insert(impact.rule.clone(), impact);
        }
        Ok(Self {
            open: Impacts::default(),
            known,
        })
    }

    /// What is known of a persona, by rule and metric.
    pub(super) fn views(&self, persona: &str) -> Vec<EffectView> {
        let rules = self.known.get(persona).into_iter().flatten();
        rules
            .flat_map(|(rule, impact)| {
                impact.metrics.iter().filter_map(move |(metric, tally)| {
                    let known: Metric = metric.parse().ok()?;
                    Some(EffectView {
                        rule: rule.clone(),
                        metric: metric.clone(),
                        unit: known.unit(),
                        actions: tally.actions(),
                        before: tally.before(),
                        change: tally.change(),
                        margin: tally.margin(),
                        confidence: tally.confidence().percent(),
                    })
                })
            })
            .collect()
    }
}

impl Daemon {
    /// Takes a tick's readings, and keeps what was measured to its end.
    pub(super) fn measure_impacts(&mut self, now: Moment) {
        let mut measured: Vec<(String, String, Measured)> = Vec::new();
        for (id, tracked) in &self.domains {
            let Some(persona) = tracked.persona.in_force.as_ref() else {
                self.impacts.open.forget(*id);
                continue;
            };
            if tracked.run() != Run::Running {
                self.impacts.open.forget(*id);
                continue;
            }
            let instance = tracked.description.instance;
            let signals = &tracked.readings;
            let ended = self
                .impacts
                .open
                .observe(*id, instance, persona, signals, now);
            measured.extend(ended.into_iter().filter_map(|one| {
                let rule = persona.rules.iter().find(|rule| rule.name == one.rule)?;
                Some((persona.name.to_string(), rule.text.to_string(), one))
            }));
        }
        if measured.is_empty() {
            return;
        }
        let mut batch = Batch::new();
        let mut kept = Ok(());
        for (persona, text, one) in measured {
            let rules = self.impacts.known.entry(persona.clone()).or_default();
            let fresh = || RuleImpact {
                persona: persona.clone(),
                rule: one.rule.clone(),
                text: text.clone(),
                metrics: BTreeMap::new(),
            };
            let impact = rules.entry(one.rule.clone()).or_insert_with(fresh);
            if impact.text != text {
                *impact = fresh();
            }
            let tally = impact.metrics.entry(one.metric.name().to_owned());
            tally.or_default().add(one.before, one.after);
            let put = batch.put(key(&persona, &one.rule), impact);
            kept = kept.and(put.map_err(CatalogueError::from));
        }
        if let Err(error) = kept.and_then(|()| self.commit(batch, Vec::new())) {
            // It is advisory: what is lost at a restart is a few measurements.
            tracing::warn!(
                error = sentence_of(&error),
                "what actions did could not be stored"
            );
        }
    }

    /// Measures what rules did in a guest, by their record. When that was is the guest's word: one that does not fit what is
    /// measured now is not measured.
    pub(super) fn measure_firing(&mut self, id: DomainId, record: &RuleRecord, now: Moment) {
        let mut deeds = record.deeds.iter();
        if !deeds.any(|deed| deed.outcome == DeedOutcome::Done) {
            return;
        }
        let rule = (record.edge == RuleEdge::Begins).then_some(record.rule.as_str());
        let began = Moment(record.at_unix_ms);
        self.impacts.open.took_place(id, rule, began, now);
    }

    /// A persona that is deleted takes what is known of its rules with it.
    pub(super) fn forget_impacts(&mut self, persona: &str, batch: &mut Batch) {
        for rule in self.impacts.known.remove(persona).into_iter().flatten() {
            batch.remove::<RuleImpact>(key(persona, &rule.0));
        }
    }
}
