//! What a user of a guest wants of the machine's persona, as trust looks at it. The user is the guest's claim, so nothing of
//! it decides; the book keeps one entry a domain and persona, whoever asks, and few of them a domain.

use persona::domain::DomainId;
use persona::rule::Action;
use persona::signal::Source;
use persona::units::Moment;
use persona::{Class, Level, Persona, PersonaName};

use super::{MOST_PROPOSALS, Proposals};
use crate::policy::Policy;
use crate::proposal::{News, Proposal, Standing, Subject, Turn};
use crate::report::Wish;
use crate::trust::{Deed, Payer, Permit, Undoing, permit};

/// Entries of one domain's users: a guest cannot fill the book of the whole host.
pub const MOST_OF_A_GUEST: usize = 4;

/// A user's wish for another persona, which the persona in force lists.
#[derive(Clone, Copy, Debug)]
pub struct GuestSwitch<'a> {
    /// The domain.
    pub domain: DomainId,
    /// Its running instance.
    pub instance: Option<u32>,
    /// The persona in force, whose trust level decides.
    pub persona: &'a Persona,
    /// Who asks, in words.
    pub user: &'a str,
    /// The persona that is asked for.
    pub to: &'a PersonaName,
}

/// What trust says to it.
#[derive(Clone, Debug, PartialEq)]
pub enum GuestSwitchAnswer {
    /// It is done.
    Act,
    /// It is never done.
    Never(Level),
    /// A person is asked; this is to be told and stored.
    Asked(Box<News>),
    /// It waits for a person's word already, under this number and until then.
    Waits(u64, Moment),
    /// A person did not want it, a short while ago.
    Rejected(u64),
    /// Too much of this guest, or of the host, waits already.
    Full,
}

/// How far trust lets a user's wish for another persona go, without asking anybody. What it takes is nothing of another
/// domain's, and the one before can be given back.
pub fn guest_switch_permit(persona: &Persona) -> Permit {
    let deed = Deed {
        class: Class::PersonaChange,
        evidence: Source::Agent,
        undoing: Undoing::Possible,
        payer: Payer::Nobody,
    };
    permit(&persona.trust, deed)
}

impl Proposals {
    /// Asks trust, and where it says so a person, about a user's wish for another persona.
    pub fn guest_switch(
        &mut self,
        ask: GuestSwitch<'_>,
        policy: &Policy,
        now: Moment,
    ) -> GuestSwitchAnswer {
        let level = ask.persona.trust.level(Class::PersonaChange);
        match guest_switch_permit(ask.persona) {
            Permit::Act => return GuestSwitchAnswer::Act,
            Permit::Never => return GuestSwitchAnswer::Never(level),
            Permit::Propose => {}
        }
        let what = Subject::Call {
            action: Action::ActivatePersona(ask.to.clone()).to_string(),
        };
        let of_guest =
            |entry: &&Proposal| entry.domain == ask.domain && matches!(entry.by, Wish::Guest(_));
        let mut known = self.entries.values().filter(of_guest);
        if let Some(entry) = known.find(|entry| entry.what == what) {
            return match entry.standing {
                Standing::Open => GuestSwitchAnswer::Waits(entry.id, entry.expires),
                // Whoever carries it out is about to.
                Standing::Approved { .. } => GuestSwitchAnswer::Act,
                Standing::Rejected { .. } => GuestSwitchAnswer::Rejected(entry.id),
            };
        }
        if self.entries.len() >= MOST_PROPOSALS
            || self.entries.values().filter(of_guest).count() >= MOST_OF_A_GUEST
        {
            return GuestSwitchAnswer::Full;
        }
        self.last += 1;
        let proposal = Proposal {
            id: self.last,
            domain: ask.domain,
            instance: ask.instance,
            digest: ask.persona.digest.clone(),
            persona: ask.persona.name.to_string(),
            by: Wish::Guest(ask.user.to_owned()),
            what,
            class: Class::PersonaChange,
            level,
            why: Vec::new(),
            created: now,
            expires: now.after(policy.proposal_expiry),
            wanted_at: now,
            standing: Standing::Open,
            called: false,
        };
        self.entries.insert(proposal.id, proposal.clone());
        GuestSwitchAnswer::Asked(Box::new(News {
            proposal,
            turn: Turn::Made,
        }))
    }
}

impl Proposal {
    /// The persona that a user of the guest asked for; nothing where it is something else that is proposed.
    pub fn guest_switch(&self) -> Option<PersonaName> {
        let (Wish::Guest(_), Subject::Call { action }) = (&self.by, &self.what) else {
            return None;
        };
        action.strip_prefix("activate persona ")?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn persona(text: &str) -> Persona {
        let source = persona::SourceText {
            name: "test.yaml",
            text: text.as_bytes(),
            format: persona::Format::Yaml,
            persona_name: None,
        };
        persona::load(&source).unwrap().persona
    }

    const LOW: &str =
        "name: day\nallowed_switches: [night, a, b, c, d]\ntrust_levels: {persona_change: low}\n";

    fn ask(book: &mut Proposals, text: &str, user: &str, to: &str, now: u64) -> GuestSwitchAnswer {
        let ask = GuestSwitch {
            domain: DomainId([1; 16]),
            instance: Some(1),
            persona: &persona(text),
            user,
            to: &to.parse().unwrap(),
        };
        book.guest_switch(ask, &Policy::default(), Moment(now))
    }

    #[test]
    fn trust_decides_between_acting_asking_and_never() {
        let mut book = Proposals::default();
        for level in ["high", "medium"] {
            let text = LOW.replace(": low", &format!(": {level}"));
            assert_eq!(
                ask(&mut book, &text, "ada", "night", 0),
                GuestSwitchAnswer::Act
            );
        }
        let never = LOW.replace(": low", ": none");
        assert_eq!(
            ask(&mut book, &never, "ada", "night", 0),
            GuestSwitchAnswer::Never(Level::None)
        );
        assert_eq!(book.open().count(), 0);
        assert!(matches!(
            ask(&mut book, LOW, "ada", "night", 0),
            GuestSwitchAnswer::Asked(_)
        ));
        assert_eq!(book.open().count(), 1);
    }

    #[test]
    fn one_wish_is_one_entry_whoever_repeats_it_and_a_guest_cannot_fill_the_book() {
        let mut book = Proposals::default();
        let GuestSwitchAnswer::Asked(news) = ask(&mut book, LOW, "ada", "night", 0) else {
            panic!("it is asked")
        };
        let id = news.proposal.id;
        assert_eq!(news.proposal.guest_switch().unwrap().as_str(), "night");
        assert!(matches!(
            ask(&mut book, LOW, "eve", "night", 5),
            GuestSwitchAnswer::Waits(same, _) if same == id
        ));
        for other in ["a", "b", "c"] {
            ask(&mut book, LOW, "ada", other, 6);
        }
        assert_eq!(ask(&mut book, LOW, "ada", "d", 7), GuestSwitchAnswer::Full);
        assert_eq!(book.open().count(), MOST_OF_A_GUEST);
        book.reject(id, "root", Moment(8)).unwrap();
        assert_eq!(
            ask(&mut book, LOW, "ada", "night", 9),
            GuestSwitchAnswer::Rejected(id)
        );
    }
}
