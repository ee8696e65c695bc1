//! How far trust reaches: what is done by itself, what is proposed to a person, what is never done. The one place where
//! trust levels are looked at ([`permit`]), and the book of what waits for a person's word ([`Proposals`]).
//!
//! ```text
//! open -> approved -> carried out            its wish passes the trust check, and every other guard stays in force
//!      -> rejected -> forgotten              once the rule's condition was false and a cooldown has passed
//!      -> expired, or withdrawn              nobody decided in time; nothing wants it any more
//! ```
//!
//! Called by `plan` for each wish and by `settle` where others would give way. The daemon stores the book and brings the
//! words of people; it decides nothing of this.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Action, Looked, Resource, Truth};
use persona::signal::{Source, Unit};
use persona::units::Moment;
use persona::{Class, Digest, Level, Persona, TrustLevels};
use serde::{Deserialize, Serialize};

use crate::evaluate::Wanted;
use crate::plan::{Call, Edge};
use crate::policy::Policy;
use crate::report::{Clamp, Limit, Reason, RuleReport, Wish, amount_text};
use crate::snapshot::Domain;
use crate::state::DomainState;

/// So many proposals at most, decided ones that are still remembered included: nobody reads more, and the book stays
/// well below what the store takes as one entry. When it is full no further ones are made; to drop old ones would
/// only make their rules propose them again.
pub const MOST_PROPOSALS: usize = 200;

/// So many readings of a proposal are kept; a rule with more is told in full by `explain`.
const MOST_SAMPLES: usize = 8;

/// What is no rule's wish counts as one with the cooldown that rules have without their own.
const COOLDOWN: Duration = Duration::from_secs(60);

/// Something that may be done, as trust looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Its class.
    pub class: Class,
    /// Whose word it rests on: the least trusted source that was looked at.
    pub evidence: Source,
    /// Whether it can be taken back.
    pub undoing: Undoing,
    /// Who gives way for it.
    pub payer: Payer,
}

/// Whether a deed can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undoing {
    /// It brings about a state that can be changed back, or it changes nothing.
    Possible,
    /// Whatever it did has happened.
    Impossible,
}

impl Undoing {
    /// Whether an action can be taken back. A notice changes nothing; what a script or somebody else's program has
    /// done, nobody here knows.
    pub fn of(action: &Action) -> Self {
        match action {
            Action::Run(_) | Action::CallWebhook(_) => Self::Impossible,
            _ => Self::Possible,
        }
    }
}

/// Who gives way for a deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// What it takes is free.
    Nobody,
    /// Other domains want it too, or have to give it up.
    Others,
}

/// How far a deed may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It is done.
    Act,
    /// A person decides.
    Propose,
    /// It is not done.
    Never,
}

/// What the trust levels of a persona let be done.
pub fn permit(trust: &TrustLevels, deed: Deed) -> Permit {
    let measured = deed.evidence == Source::Host || deed.payer == Payer::Nobody;
    match trust.level(deed.class) {
        Level::None => Permit::Never,
        Level::Low => Permit::Propose,
        Level::Medium if measured && deed.undoing == Undoing::Possible => Permit::Act,
        Level::Medium => Permit::Propose,
        Level::High => Permit::Act,
    }
}

/// Whose word a condition rests on: the least trusted source that was looked at. What rests on no reading at all, as
/// on an event, is not better than what a guest says.
pub(crate) fn evidence(looked: &[Looked]) -> Source {
    let sources = looked.iter().filter_map(|looked| looked.reading);
    sources
        .map(|reading| reading.source)
        .min()
        .unwrap_or(Source::Agent)
}

/// What waits for a person, or was decided by one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its number: small, rising, never used again.
    pub id: u64,
    /// Which domain.
    pub domain: DomainId,
    /// Of which running instance.
    pub instance: Option<u32>,
    /// The persona whose wish it is, by what it means.
    pub digest: Digest,
    /// The persona's name.
    pub persona: String,
    /// Who wants it.
    pub by: Wish,
    /// What is to be done.
    pub what: Subject,
    /// The class whose trust level asks for a person.
    pub class: Class,
    /// That level.
    pub level: Level,
    /// What it rests on.
    pub why: Vec<Sample>,
    /// When it was made.
    pub created: Moment,
    /// When it ends, decided or not.
    pub expires: Moment,
    /// When something last wanted it.
    pub wanted_at: Moment,
    /// How far it has come.
    pub standing: Standing,
    /// What it asks to be done once was called for, and whoever carries it out has not said yet what came of it.
    #[serde(default)]
    pub called: bool,
}

/// What is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A change of a resource.
    Step {
        /// Which.
        resource: Resource,
        /// What is in force, in vCPUs or bytes.
        from: u64,
        /// What is wanted within the bounds of persona and definition.
        to: u64,
    },
    /// Something that is done once, or taken back where the wish is the `until` of a rule.
    Call {
        /// The action, as it is written.
        action: String,
    },
}

/// One reading that a proposal rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The comparison, as it is written.
    pub comparison: String,
    /// The metric.
    pub metric: String,
    /// Its value, in `unit`.
    pub value: f64,
    /// The kind of quantity.
    pub unit: Option<Unit>,
    /// Who says so.
    pub source: Source,
    /// When.
    pub at: Moment,
}

/// How far a proposal has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nobody has decided.
    Open,
    /// Somebody wants it done.
    Approved {
        /// Who.
        by: String,
        /// When.
        at: Moment,
    },
    /// Somebody does not. It is remembered so that it is not proposed again at once.
    Rejected {
        /// Who.
        by: String,
        /// When.
        at: Moment,
        /// The condition has been false since.
        over: bool,
    },
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// It was made.
    Made,
    /// It is done.
    CarriedOut,
    /// It cannot be done; the record before says why.
    Refused,
    /// Its time is over.
    Expired,
    /// Nothing has wanted it for a while.
    Unwanted,
    /// What it would bring about is there.
    There,
    /// The persona that wanted it is no longer in force, or is another version.
    PersonaChanged,
    /// The running machine that it was about has ended.
    NotRunning,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "is proposed",
            Self::CarriedOut => "is carried out",
            Self::Refused => "cannot be carried out",
            Self::Expired => "has expired",
            Self::Unwanted => "is withdrawn, because nothing has wanted it for a while",
            Self::There => "is withdrawn, because what it wants is there",
            Self::PersonaChanged => "is withdrawn, because another persona or version is in force",
            Self::NotRunning => "is withdrawn, because the machine has ended",
        })
    }
}

/// A proposal with what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct News {
    /// As it was.
    pub proposal: Proposal,
    /// What became of it.
    pub turn: Turn,
}

/// Why a person's word about a proposal changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpen {
    /// There is no such proposal, or none any more.
    Unknown,
    /// It was approved before.
    Approved,
    /// It was rejected before.
    Rejected,
}

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
        if wanted.by == Wish::Return {
            // What was taken from a guest that shows need goes back unasked: the word that let it be taken reaches as far.
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
    /// but a change of persona may have to wait or be refused, so that one ends when [`Proposals::settle`] is told.
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
            if edge == Edge::Begins && matches!(found, Action::ActivatePersona(_) | Action::Revert)
            {
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
    fn reason(self, level: Level) -> Reason {
        match self {
            Self::Waits(id) => Reason::Proposed { id, level },
            Self::Rejected(id) => Reason::Rejected { id },
            Self::Full | Self::Approved(_) => Reason::TooManyProposals,
        }
    }
}

impl Proposal {
    /// What is proposed, in words.
    pub fn sentence(&self) -> String {
        match (&self.what, &self.by) {
            (Subject::Step { resource, from, to }, by) => {
                let name = match resource {
                    Resource::Vcpus => "vCPUs",
                    Resource::Memory => "memory",
                };
                format!(
                    "{name} from {} to {}, because of {by}",
                    amount_text(*resource, *from),
                    amount_text(*resource, *to)
                )
            }
            (Subject::Call { action }, Wish::Undo(rule)) => {
                format!("take back: {action}, because of the until of rule {rule}")
            }
            (Subject::Call { action }, by) => format!("{action}, because of {by}"),
        }
    }
}

/// The same wish, with other figures perhaps.
fn same_subject(one: &Subject, other: &Subject) -> bool {
    match (one, other) {
        (Subject::Step { resource: one, .. }, Subject::Step { resource, .. }) => one == resource,
        (Subject::Call { action: one }, Subject::Call { action }) => one == action,
        _ => false,
    }
}

/// Whether growth leads further than what was proposed before.
fn leads_to_more(now: &Subject, before: &Subject) -> bool {
    match (now, before) {
        (Subject::Step { from, to, .. }, Subject::Step { to: before, .. }) => {
            to > from && to > before
        }
        _ => false,
    }
}

/// A change as a person decides on it: to where it leads in the end and not in its next step alone, within what never
/// lets it go further.
fn step_subject(domain: &Domain<'_>, resource: Resource, wanted: u64, clamps: &[Clamp]) -> Subject {
    let fixed = |clamp: &&Clamp| {
        matches!(
            clamp.limit,
            Limit::PersonaMinimum
                | Limit::PersonaMaximum
                | Limit::DomainMinimum
                | Limit::DomainMaximum
                | Limit::Reservation
        )
    };
    let from = domain.present(resource);
    let to = clamps.iter().rfind(fixed).map_or(wanted, |clamp| clamp.to);
    let block = match resource {
        Resource::Vcpus => 1,
        Resource::Memory => domain.memory.block.0.max(1),
    };
    let whole = from.abs_diff(to) / block * block;
    let to = if to > from {
        from + whole
    } else {
        from - whole
    };
    Subject::Step { resource, from, to }
}

/// The readings behind a rule's wish.
fn samples(by: &Wish, rules: &[RuleReport]) -> Vec<Sample> {
    let Wish::Rule(name) = by else {
        return Vec::new();
    };
    let looked = rules
        .iter()
        .filter(|rule| rule.name == *name)
        .flat_map(|rule| &rule.looked);
    looked
        .filter_map(|looked| {
            let reading = looked.reading?;
            Some(Sample {
                comparison: looked.comparison.clone(),
                metric: looked.signal.to_string(),
                value: reading.value,
                unit: looked.signal.unit(),
                source: reading.source,
                at: reading.at,
            })
        })
        .take(MOST_SAMPLES)
        .collect()
}

/// Whether a proposal ends now, other than by its time.
fn look_again(
    entry: &mut Proposal,
    domain: &Domain<'_>,
    persona: &Persona,
    carried: &DomainState,
    (wanted, rules): (&[Wanted], &[RuleReport]),
    policy: &Policy,
    now: Moment,
) -> Option<Turn> {
    let rule = match &entry.by {
        Wish::Rule(name) => persona.rules.iter().find(|rule| rule.name == *name),
        _ => None,
    };
    let listed = wanted.iter().any(|wanted| {
        wanted.by == entry.by
            && matches!(entry.what, Subject::Step { resource, .. } if resource == wanted.resource)
    });
    // Without its windows, so that a pause in what is known does not end what goes on.
    let holds = rule.map(|rule| rule.when.would_hold(domain.signals, now));
    if listed || holds == Some(Truth::True) {
        entry.wanted_at = now;
    }
    if holds == Some(Truth::True) && entry.standing == Standing::Open {
        entry.why = samples(&entry.by, rules);
    }
    match &mut entry.standing {
        Standing::Rejected { at, over, .. } => {
            *over |= holds.map_or(!listed, |holds| holds == Truth::False);
            let cooldown = rule.map_or(COOLDOWN, |rule| rule.cooldown);
            // Its end is told to nobody, whatever it is called.
            (*over && now.since(*at) >= cooldown).then_some(Turn::Unwanted)
        }
        standing => {
            let approved = matches!(standing, Standing::Approved { .. });
            // Until host and guest have shown what a step came to, nothing is claimed of it.
            if !is_under_way(&entry.what, carried) && is_there(&entry.what, domain, policy) {
                return Some(if approved {
                    Turn::CarriedOut
                } else {
                    Turn::There
                });
            }
            let unwanted = now.since(entry.wanted_at) >= policy.proposal_grace;
            (unwanted && !approved).then_some(Turn::Unwanted)
        }
    }
}

fn is_under_way(what: &Subject, carried: &DomainState) -> bool {
    matches!(what, Subject::Step { resource, .. } if carried.resource(*resource).in_flight.is_some())
}

/// Whether the machine has what a proposal wants, but for what is too little for a step.
fn is_there(what: &Subject, domain: &Domain<'_>, policy: &Policy) -> bool {
    let Subject::Step { resource, from, to } = what else {
        return false;
    };
    let present = domain.present(*resource);
    let left = if to > from {
        to.saturating_sub(present)
    } else {
        present.saturating_sub(*to)
    };
    let least = match resource {
        Resource::Vcpus => 1,
        Resource::Memory => domain.memory.block.0.max(policy.memory_change_minimum.0),
    };
    // A change that is smaller as a whole than the usual least one was wanted to the last byte.
    left < least.min(from.abs_diff(*to)).max(1)
}
