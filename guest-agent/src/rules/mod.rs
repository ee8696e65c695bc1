//! Rules that this agent evaluates by itself, also while the host is away: those of the generation that holds, as the host
//! sent them with the activation. It is the language's own evaluator, of the crate `persona`, and the planner's word on trust.
//!
//! ```text
//! disk: generation holds -> channel: Rules (compile, evaluate) -> Firing -> Hands (a thread that ends with it)
//!                                                                             | begin: on the disk before the deed
//!                                                                             | run a script, switch a Feature, say a notice
//!                                                                             v
//! host <- records that it has not seen <- RuleLog <------------------------- finish
//! ```
//! While no rule is in force nothing here wakes the agent and no thread is there. What the host fetches is in `log`.

mod compile;
mod evaluate;
mod feature;
mod figures;
mod hands;
mod log;

use std::{collections::BTreeMap, sync::Arc};

use agent_protocol::{CommandTable, GuestRules};

pub(crate) use compile::{RuleLeave, lines};
pub(crate) use evaluate::Rules;
pub(crate) use feature::Features;
pub(crate) use hands::{Hands, call_begun};
pub(crate) use log::RuleLog;

use crate::store::Record;

/// The rules of the generation that holds, with what their actions need.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InForce {
    pub(crate) generation: u64,
    pub(crate) persona: String,
    /// Tells one persona from another: rules of the same one go on, those of another begin anew.
    pub(crate) digest: String,
    pub(crate) rules: GuestRules,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) commands: CommandTable,
}

impl InForce {
    /// Those of a generation; `None` where it has none.
    pub(crate) fn of(record: &Record) -> Option<Arc<Self>> {
        Self::whole(record).filter(|whole| !whole.rules.rules.is_empty())
    }

    /// The same of a generation without any, for what rules of the host call for; `None` where it has no persona.
    pub(crate) fn whole(record: &Record) -> Option<Arc<Self>> {
        let activation = record.activation.as_ref()?;
        Some(Arc::new(Self {
            generation: activation.generation,
            persona: activation.persona.clone(),
            digest: activation.identity().to_owned(),
            rules: activation.rules.clone(),
            environment: record.environment(),
            commands: activation.commands.clone(),
        }))
    }
}
