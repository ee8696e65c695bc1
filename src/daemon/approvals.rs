//! What waits for a person: proposals are kept, told and shown, and a person's word about them is brought to the
//! planner. Whether something is proposed, and what follows from a word, is decided there (`planner::propose`).

use persona::units::Moment;
use planner::proposal::{News, NotOpen, Proposal, Standing, Subject, Turn};
use planner::propose::Proposals;
use planner::report::Wish;
use serde::{Deserialize, Serialize};

use super::tick::json;
use super::{Daemon, show};
use crate::act::sentence_of;
use crate::audit::{AuditKind, Entry};
use crate::catalog::CatalogueError;
use crate::command::{Caller, Noun, Refusal, Reply};
use crate::hypervisor::DomainId;
use crate::store::{Batch, Store, StoreError, Stored, Tree};
use crate::view::{ProposalState, ProposalView, SampleView};

/// The only key under which the book is stored.
const BOOK: &[u8] = b"book";

/// Every proposal, as it is stored.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Book(Proposals);

impl Stored for Book {
    const TREE: Tree = Tree::Proposals;
}

/// The proposals from when the daemon last ran.
pub(super) fn stored_proposals(store: &Store) -> Result<Proposals, StoreError> {
    Ok(store.get::<Book>(BOOK)?.unwrap_or_default().0)
}

impl Daemon {
    /// Stores what has become of proposals together with the record of it.
    pub(super) fn proposals_changed(&mut self, news: &[News]) {
        if news.is_empty() {
            return;
        }
        let entries = news.iter().map(|news| {
            let proposal = &news.proposal;
            let sentence = proposal.sentence();
            let text = match news.turn {
                Turn::Made => format!(
                    "proposed as {}: {sentence}{}; the trust level for {} is {}, so it waits for a person's word for {} s",
                    proposal.id,
                    why_text(proposal),
                    proposal.class,
                    proposal.level,
                    proposal.expires.since(proposal.created).as_secs()
                ),
                turn => format!("proposal {} {turn}: {sentence}", proposal.id),
            };
            self.entry(AuditKind::Proposal, Some(proposal.domain), &text, json(news))
        });
        let entries = entries.collect();
        self.keep_proposals(entries);
        self.tell_proposals_ended(news);
    }

    /// Puts all proposals into the store with these records. A word that cannot be stored is recorded and holds until the
    /// daemon ends.
    fn keep_proposals(&mut self, entries: Vec<Entry>) {
        let mut batch = Batch::new();
        let again = entries.clone();
        let mut kept = batch.put(BOOK, &Book(self.state.proposals.clone()));
        // What was approved is struck from the book and waits for the guest in the same moment.
        let calls = self.guest_calls.changed();
        for id in &calls {
            kept = kept.and_then(|()| self.guest_calls.put(&mut batch, *id));
        }
        let kept = kept
            .map_err(CatalogueError::from)
            .and_then(|()| self.commit(batch, entries));
        if kept.is_ok() {
            for id in calls {
                self.guest_calls.is_kept(id);
            }
        }
        if let Err(error) = kept {
            let error = sentence_of(&error);
            tracing::error!(%error, "proposals could not be stored");
            self.problems.insert(
                "store-proposals",
                format!("the store could not be written: {error}"),
            );
            self.record_all(again);
        } else {
            self.problems.remove("store-proposals");
        }
    }

    pub(super) fn approve(&mut self, id: u64, caller: &Caller) -> Result<Reply, Refusal> {
        let now = self.clock.now();
        let decided = self.state.proposals.approve(id, &caller.name, now);
        let proposal = decided.cloned().map_err(|reason| not_open(id, reason))?;
        let text = format!(
            "{} approved proposal {id}: {}",
            caller.name,
            proposal.sentence()
        );
        let reply = self.decided(&proposal, &text, now);
        self.carry_out_approved_switch(&proposal, now);
        Ok(reply)
    }

    pub(super) fn reject(&mut self, id: u64, caller: &Caller) -> Result<Reply, Refusal> {
        let now = self.clock.now();
        let decided = self.state.proposals.reject(id, &caller.name, now);
        let proposal = decided.cloned().map_err(|reason| not_open(id, reason))?;
        let text = format!(
            "{} rejected proposal {id}: {}; it is proposed again when its cause was gone once and has come back",
            caller.name,
            proposal.sentence()
        );
        let why = format!("{} rejected it as proposal {id}", caller.name);
        self.switch_not_approved(proposal.domain, id, &why);
        Ok(self.decided(&proposal, &text, now))
    }

    fn decided(&mut self, proposal: &Proposal, text: &str, now: Moment) -> Reply {
        let entry = self.entry(
            AuditKind::Proposal,
            Some(proposal.domain),
            text,
            json(proposal),
        );
        self.keep_proposals(vec![entry]);
        Reply::Proposal(Box::new(self.proposal_view(proposal, now)))
    }

    /// What of a domain waits for a person, or for being carried out after a person's word.
    pub(super) fn proposal_views(&self, id: DomainId, now: Moment) -> Vec<ProposalView> {
        let open = self.state.proposals.open();
        open.filter(|proposal| proposal.domain == id)
            .map(|proposal| self.proposal_view(proposal, now))
            .collect()
    }

    fn proposal_view(&self, proposal: &Proposal, now: Moment) -> ProposalView {
        let tracked = self.domains.get(&proposal.domain);
        let bound = tracked.and_then(|tracked| tracked.persona.bound.as_ref());
        let (resource, from, to, action) = match &proposal.what {
            Subject::Step { resource, from, to } => (
                Some(show::resource(*resource)),
                Some(*from),
                Some(*to),
                None,
            ),
            Subject::Limit { knob, to, .. } => {
                let action = format!("set {knob} to {}", knob.text(*to));
                (None, None, None, Some(action))
            }
            Subject::Call { action } => (None, None, None, Some(action.clone())),
        };
        let (state, by) = match &proposal.standing {
            Standing::Open => (ProposalState::Open, None),
            Standing::Approved { by, .. } => (ProposalState::Approved, Some(by.clone())),
            Standing::Rejected { by, .. } => (ProposalState::Rejected, Some(by.clone())),
        };
        ProposalView {
            id: proposal.id,
            domain: proposal.domain,
            name: tracked.map_or_else(String::new, |tracked| tracked.description.name.clone()),
            persona: proposal.persona.clone(),
            version: bound
                .filter(|bound| bound.digest == proposal.digest.to_string())
                .map(|bound| bound.version),
            rule: match &proposal.by {
                Wish::Rule(rule) | Wish::Undo(rule) => Some(rule.clone()),
                _ => None,
            },
            class: proposal.class.to_string(),
            level: proposal.level.to_string(),
            resource,
            from,
            to,
            action,
            text: proposal.sentence(),
            why: proposal
                .why
                .iter()
                .map(|sample| SampleView {
                    comparison: sample.comparison.clone(),
                    metric: sample.metric.clone(),
                    value: sample.value,
                    unit: sample.unit,
                    source: sample.source,
                    age_ms: u64::try_from(now.since(sample.at).as_millis()).unwrap_or(u64::MAX),
                })
                .collect(),
            created: proposal.created,
            expires: proposal.expires,
            state,
            by,
        }
    }
}

/// The readings behind a proposal, as a part of a sentence.
fn why_text(proposal: &Proposal) -> String {
    let samples = proposal.why.iter().map(|sample| {
        format!(
            " {} ({:.1} by {})",
            sample.comparison, sample.value, sample.source
        )
    });
    let samples: Vec<String> = samples.collect();
    if samples.is_empty() {
        String::new()
    } else {
        format!(", which looked at{}", samples.join(","))
    }
}

fn not_open(id: u64, reason: NotOpen) -> Refusal {
    match reason {
        NotOpen::Unknown => Refusal::NotFound {
            what: Noun::Proposal,
            name: id.to_string(),
            nearest: None,
        },
        NotOpen::Approved => Refusal::Refused {
            reason: format!("proposal {id} is approved already"),
        },
        NotOpen::Rejected => Refusal::Refused {
            reason: format!("proposal {id} was rejected already"),
        },
    }
}
