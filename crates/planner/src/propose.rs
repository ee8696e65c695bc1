//! The book of what waits for a person's word ([`Proposals`]). What has to wait is decided in `trust`; what one proposal
//! is made of is in `proposal`.
//!
//! ```text
//! open -> approved -> carried out            its wish passes the trust check, and every other guard stays in force
//!      -> rejected -> forgotten              once the rule's condition was false and a cooldown has passed
//!      -> expired, or withdrawn              nobody decided in time; nothing wants it any more
//! ```
//!
//! Called by `plan` for each wish and by `settle` where others would give way. The daemon stores the book and brings the
//! words of people; it decides nothing of this.

mod guest;

use std::collections::BTreeMap;

use persona::domain::DomainId;
use persona::rule::{Action, Resource};
use persona::signal::Source;
use persona::units::Moment;
use persona::{Class, Digest, Level, Persona};
use serde::{Deserialize, Serialize};

use crate::evaluate::Wanted;
use crate::plan::{Call, Edge};
use crate::policy::Policy;
use crate::proposal::{
    News, NotOpen, Proposal, Sample, Standing, Subject, Turn, leads_to_more, look_again,
    same_subject, samples, step_subject,
};
use crate::report::{Clamp, Limit, Reason, RuleReport, Wish};
use crate::snapshot::Domain;
use crate::state::{DomainState, waits_for_its_turn};
use crate::trust::{Deed, Payer, Permit, Undoing, evidence, permit};

pub use guest::{GuestSwitch, GuestSwitchAnswer, MOST_OF_A_GUEST, guest_switch_permit};

/// So many proposals at most, decided ones that are still remembered included: nobody reads more, and the book stays
/// well below what the store takes as one entry. When it is full no further ones are made; to drop old ones would
/// only make their rules propose them again.
pub const MOST_PROPOSALS: usize = 200;

/// A lasting action that a person approved, so that its end has something to take back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Granted {
    domain: DomainId,
    digest: Digest,
    rule: String,
    action: String,
}

/// Every proposal of every domain. It is carried from tick to tick and stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proposals {
    /// The number of the last one.
    last: u64,
    entries: BTreeMap<u64, Proposal>,
    #[serde(default)]
    granted: Vec<Granted>,
    #[serde(skip)]
    news: Vec<News>,
}

/// Somebody's wish that trust lets only be proposed.
pub(crate) struct Ask<'a> {
    pub(crate) domain: &'a Domain<'a>,
    pub(crate) persona: &'a Persona,
    pub(crate) by: &'a Wish,
    pub(crate) what: Subject,
    /// Whose word the wish rests on.
    pub(crate) evidence: Source,
    pub(crate) class: Class,
    pub(crate) why: Vec<Sample>,
}

/// What a person has said to a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It may be done, as far as it was approved.
    Approved(Subject),
    /// Nothing yet.
    Waits(u64),
    /// It shall not be done.
    Rejected(u64),
    /// Nobody was asked: too much waits already.
    Full,
}

impl Proposals {
    /// Every proposal that waits for a word, or was approved and waits to be carried out.
    pub fn open(&self) -> impl Iterator<Item = &Proposal> {
        let decided = |entry: &&Proposal| !matches!(entry.standing, Standing::Rejected { .. });
        self.entries.values().filter(decided)
    }

    /// One of them, also one that was rejected.
    pub fn get(&self, id: u64) -> Option<&Proposal> {
        self.entries.get(&id)
    }

    /// A person's word: do it.
    ///
    /// # Errors
    /// Where it is not open.
    pub fn approve(&mut self, id: u64, by: &str, now: Moment) -> Result<&Proposal, NotOpen> {
        let by = by.to_owned();
        self.decide(id, Standing::Approved { by, at: now })
    }

    /// A person's word: do not do it, and do not ask again at once.
    ///
    /// # Errors
    /// Where it is not open; what was approved and is not carried out yet can still be rejected.
    pub fn reject(&mut self, id: u64, by: &str, now: Moment) -> Result<&Proposal, NotOpen> {
        let (by, over) = (by.to_owned(), false);
        self.decide(id, Standing::Rejected { by, at: now, over })
    }

    fn decide(&mut self, id: u64, standing: Standing) -> Result<&Proposal, NotOpen> {
        let entry = self.entries.get_mut(&id).ok_or(NotOpen::Unknown)?;
        match (&entry.standing, &standing) {
            (Standing::Rejected { .. }, _) => return Err(NotOpen::Rejected),
            (Standing::Approved { .. }, Standing::Approved { .. }) => {
                return Err(NotOpen::Approved);
            }
            _ => entry.standing = standing,
        }
        Ok(entry)
    }

    /// Whoever carries out what was approved says what came of it: it has begun, is there, or cannot be done. What there is to
    /// tell of it; nothing where it is not waited for any more.
    pub fn settle(&mut self, id: u64, turn: Turn) -> Option<News> {
        if !self.is_approved(id) {
            return None;
        }
        let proposal = self.entries.remove(&id)?;
        Some(News { proposal, turn })
    }

    /// Whether a person's word that it be done still stands.
    pub fn is_approved(&self, id: u64) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| matches!(entry.standing, Standing::Approved { .. }))
    }

    /// Makes a stored book fit for going on with: no date lies further ahead than it can, what nobody could want while
    /// nothing was looked at has its time again, and what was called for and not begun is called for once more.
    pub(crate) fn resume(&mut self, policy: &Policy, now: Moment) {
        for entry in self.entries.values_mut() {
            entry.created = entry.created.min(now);
            entry.expires = entry.expires.min(now.after(policy.proposal_expiry));
            entry.wanted_at = now;
            entry.called = false;
            if let Standing::Approved { at, .. } | Standing::Rejected { at, .. } =
                &mut entry.standing
            {
                *at = (*at).min(now);
            }
        }
    }

    /// What has happened since this was asked last.
    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Ends what has waited too long.
    pub(crate) fn expire(&mut self, now: Moment) {
        let over = |entry: &Proposal| {
            entry.expires <= now && !matches!(entry.standing, Standing::Rejected { .. })
        };
        self.end_where(Turn::Expired, over);
    }

    /// Ends all of a domain.
    pub fn leave(&mut self, domain: DomainId, turn: Turn) {
        self.granted.retain(|granted| granted.domain != domain);
        self.end_where(turn, |entry| entry.domain == domain);
    }

    fn end_where(&mut self, turn: Turn, over: impl Fn(&Proposal) -> bool) {
        let ended: Vec<u64> = self
            .entries
            .values()
            .filter(|entry| over(entry))
            .map(|entry| entry.id)
            .collect();
        for id in ended {
            self.end(id, turn);
        }
    }

    /// Nobody waits for one that was rejected, so its end is no news.
    fn end(&mut self, id: u64, turn: Turn) {
        if let Some(proposal) = self.entries.remove(&id)
            && !matches!(proposal.standing, Standing::Rejected { .. })
        {
            self.news.push(News { proposal, turn });
        }
    }

    /// Ends what belongs to another persona or machine than the ones that are there now.
    pub(crate) fn keep_to(&mut self, domain: &Domain<'_>, persona: &Persona) {
        let ours = |id: &DomainId| *id == domain.id;
        self.granted
            .retain(|granted| !ours(&granted.domain) || granted.digest == persona.digest);
        self.end_where(Turn::NotRunning, |entry| {
            ours(&entry.domain) && entry.instance != domain.instance
        });
        self.end_where(Turn::PersonaChanged, |entry| {
            ours(&entry.domain) && entry.digest != persona.digest
        });
    }

    /// Looks through the proposals of a domain whose rules have just been evaluated: what is there ends, and so does what
    /// nothing has wanted for a while.
    pub(crate) fn review(
        &mut self,
        domain: &Domain<'_>,
        persona: &Persona,
        carried: &DomainState,
        evaluation: (&[Wanted], &[RuleReport]),
        policy: &Policy,
        now: Moment,
    ) {
        let mut ended = Vec::new();
        for entry in self
            .entries
            .values_mut()
            .filter(|entry| entry.domain == domain.id)
        {
            let turn = look_again(entry, domain, persona, carried, evaluation, policy, now);
            ended.extend(turn.map(|turn| (entry.id, turn)));
        }
        for (id, turn) in ended {
            self.end(id, turn);
        }
    }

    /// Asks a person, or finds what a person has said. A proposal keeps its number while its figures are brought up to
    /// date, but for one thing: what a guest says never makes it lead to more than a person may have read.
    pub(crate) fn ask(&mut self, ask: Ask<'_>, policy: &Policy, now: Moment) -> Answer {
        let same = |entry: &&mut Proposal| {
            entry.domain == ask.domain.id
                && entry.by == *ask.by
                && same_subject(&entry.what, &ask.what)
        };
        if let Some(entry) = self.entries.values_mut().find(same) {
            entry.wanted_at = now;
            return match &entry.standing {
                Standing::Open => {
                    if ask.evidence == Source::Host || !leads_to_more(&ask.what, &entry.what) {
                        entry.what = ask.what;
                    }
                    entry.why = ask.why;
                    Answer::Waits(entry.id)
                }
                Standing::Approved { .. } => Answer::Approved(entry.what.clone()),
                Standing::Rejected { .. } => Answer::Rejected(entry.id),
            };
        }
        if self.entries.len() >= MOST_PROPOSALS {
            return Answer::Full;
        }
        self.last += 1;
        let proposal = Proposal {
            id: self.last,
            domain: ask.domain.id,
            instance: ask.domain.instance,
            digest: ask.persona.digest.clone(),
            persona: ask.persona.name.to_string(),
            by: ask.by.clone(),
            what: ask.what,
            class: ask.class,
            level: ask.persona.trust.level(ask.class),
            why: ask.why,
            created: now,
            expires: now.after(policy.proposal_expiry),
            wanted_at: now,
            standing: Standing::Open,
            called: false,
        };
        self.news.push(News {
            proposal: proposal.clone(),
            turn: Turn::Made,
        });
        self.entries.insert(proposal.id, proposal);
        Answer::Waits(self.last)
    }

    /// What trust lets become of a wish that its own limits let pass: how far it may go, or why it may not. A wish that a
    /// person approved rests on that person's word from then on, and goes no further than what was approved.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn step(
        &mut self,
        domain: &Domain<'_>,
        persona: &Persona,
        wanted: &mut Wanted,
        to: u64,
        clamps: &mut Vec<Clamp>,
        rules: &[RuleReport],
        policy: &Policy,
        now: Moment,
    ) -> Result<u64, Reason> {
        let class = Class::ResourceScaling;
        let level = persona.trust.level(class);
        if matches!(wanted.by, Wish::Return | Wish::BackOnline) {
            // What was taken from a guest that shows need goes back unasked: the word that let it be taken reaches as far.
            // So it does where what was taken comes back by itself.
            return Ok(to);
        }
        let deed = Deed {
            class,
            evidence: wanted.evidence,
            undoing: Undoing::Possible,
            // Whether others want it too shows when all wishes are known.
            payer: Payer::Nobody,
        };
        let permit = permit(&persona.trust, deed);
        let goal = match permit {
            Permit::Never => return Err(Reason::NotTrusted(level)),
            Permit::Act => match self.approved(domain.id, &wanted.by, wanted.resource) {
                Some(goal) => goal,
                None => return Ok(to),
            },
            Permit::Propose => {
                let what = step_subject(domain, wanted.resource, wanted.to, clamps);
                let ask = Ask {
                    domain,
                    persona,
                    by: &wanted.by,
                    what,
                    evidence: wanted.evidence,
                    class,
                    why: samples(&wanted.by, rules),
                };
                match self.ask(ask, policy, now) {
                    Answer::Approved(Subject::Step { to, .. }) => to,
                    answer => return Err(answer.reason(level)),
                }
            }
        };
        wanted.evidence = Source::Host;
        let present = domain.present(wanted.resource);
        let limited = if to > present {
            to.min(goal)
        } else {
            to.max(goal)
        };
        if (limited > present) != (to > present) || limited == present {
            return Err(Reason::AtLimit(Limit::Approval));
        }
        if limited != to {
            clamps.push(Clamp {
                limit: Limit::Approval,
                from: to,
                to: limited,
            });
        }
        Ok(limited)
    }

    /// How far a person has approved a wish.
    fn approved(&self, domain: DomainId, by: &Wish, wanted: Resource) -> Option<u64> {
        self.entries.values().find_map(|entry| match entry.what {
            Subject::Step { resource, to, .. }
                if entry.domain == domain
                    && resource == wanted
                    && entry.by == *by
                    && matches!(entry.standing, Standing::Approved { .. }) =>
            {
                Some(to)
            }
            _ => None,
        })
    }

    /// A claim for which others would give way is put to a person, where trust is not enough to act on it.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn claim(
        &mut self,
        domain: &Domain<'_>,
        persona: &Persona,
        (by, resource, wanted): (&Wish, Resource, u64),
        clamps: &[Clamp],
        rules: &[RuleReport],
        policy: &Policy,
        now: Moment,
    ) -> Reason {
        let class = Class::ResourceScaling;
        let ask = Ask {
            domain,
            persona,
            by,
            what: step_subject(domain, resource, wanted, clamps),
            // What the host itself measured needs nobody's word here.
            evidence: Source::Agent,
            class,
            why: samples(by, rules),
        };
        match self.ask(ask, policy, now) {
            // Once it is approved it does not come here any more.
            Answer::Approved(_) => Reason::GuestClaim,
            answer => answer.reason(persona.trust.level(class)),
        }
    }

    /// What becomes of something that a rule calls for once: whether it is called for now.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn call(
        &mut self,
        domain: &Domain<'_>,
        persona: &Persona,
        (rule, action, edge): (&str, &Action, Edge),
        rules: &[RuleReport],
        policy: &Policy,
        now: Moment,
    ) -> Permit {
        let begins = Wish::Rule(rule.to_owned());
        let looked = rules.iter().find(|report| report.name == rule);
        let deed = Deed {
            class: action.class(),
            evidence: looked.map_or(Source::Agent, |report| evidence(&report.looked)),
            undoing: Undoing::of(action),
            payer: Payer::Nobody,
        };
        let permit = permit(&persona.trust, deed);
        if permit != Permit::Propose {
            return permit;
        }
        let text = action.to_string();
        let what = Subject::Call {
            action: text.clone(),
        };
        let by = match edge {
            Edge::Begins => begins,
            Edge::Ends => {
                // What never began has nothing to take back.
                self.end_where(Turn::Unwanted, |entry| {
                    entry.domain == domain.id && entry.by == begins && entry.what == what
                });
                let granted = self.granted.iter().any(|granted| {
                    granted.domain == domain.id && granted.rule == rule && granted.action == text
                });
                if !granted {
                    return Permit::Never;
                }
                Wish::Undo(rule.to_owned())
            }
        };
        let ask = Ask {
            domain,
            persona,
            why: samples(&by, rules),
            by: &by,
            what,
            evidence: deed.evidence,
            class: action.class(),
        };
        // What was approved is called for by `approved_calls`, whatever the rule says meanwhile.
        let _ = self.ask(ask, policy, now);
        Permit::Propose
    }

    /// What people have approved to be done once. It is called for at most once, and from here on counts as carried out;
    /// but a change of persona, or of what is otherwise in it, may have to wait or be refused, so that one ends when
    /// [`Proposals::settle`] is told.
    pub(crate) fn approved_calls(&mut self, domain: DomainId, persona: &Persona) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut done = Vec::new();
        for entry in self.entries.values_mut() {
            let (Subject::Call { action }, Standing::Approved { .. }, false) =
                (&entry.what, &entry.standing, entry.called)
            else {
                continue;
            };
            let (rule, edge) = match &entry.by {
                Wish::Rule(rule) => (rule, Edge::Begins),
                Wish::Undo(rule) => (rule, Edge::Ends),
                _ => continue,
            };
            let of = |known: &&persona::rule::Rule| known.name == *rule;
            let found = persona.rules.iter().find(of).and_then(|known| {
                persona
                    .actions(known)
                    .find(|known| known.to_string() == *action)
            });
            let Some(found) = found.filter(|_| entry.domain == domain) else {
                continue;
            };
            let granted = Granted {
                domain,
                digest: entry.digest.clone(),
                rule: rule.clone(),
                action: action.clone(),
            };
            self.granted.retain(|known| *known != granted);
            if edge == Edge::Begins && found.lasts() {
                self.granted.push(granted);
            }
            calls.push(Call {
                domain,
                rule: rule.clone(),
                action: found.clone(),
                edge,
                approved: Some(entry.id),
            });
            if edge == Edge::Begins && waits_for_its_turn(found) {
                entry.called = true;
            } else {
                done.push(entry.id);
            }
        }
        for id in done {
            self.end(id, Turn::CarriedOut);
        }
        calls
    }
}

impl Answer {
    /// Why a wish with this answer is not followed.
    pub(crate) fn reason(self, level: Level) -> Reason {
        match self {
            Self::Waits(id) => Reason::Proposed { id, level },
            Self::Rejected(id) => Reason::Rejected { id },
            Self::Full | Self::Approved(_) => Reason::TooManyProposals,
        }
    }
}
