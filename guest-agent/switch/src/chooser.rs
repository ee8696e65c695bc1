//! What the screen shows and what a key means. It does no I/O: `screen` brings keys and answers and carries out what is
//! wanted, `draw` draws.
//!
//! ```text
//! Loading -> Choosing -- Enter --> Confirming -- y --> Asking -- the last answer --> Ended -- any key --> Loading
//!               ^  any other key      |                  | q leaves; what was asked stays with the host
//!               +---------------------+
//! ```

use agent_protocol::{Answer, Offer, Offers, local::LocalAnswer, switching::Course};

use crate::Ending;
use virt_persona_switch::text::{self, Charset};

/// A key, as far as it means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Enter,
    Escape,
    Char(char),
    /// Ctrl-C.
    Interrupt,
}

/// What is to be done after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    /// Ask again what may be chosen.
    Load,
    /// Ask for this persona.
    Switch(String),
    Leave,
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Loading,
    Choosing,
    Confirming,
    /// The host was asked; lines of what it said.
    Asking(Vec<String>),
    /// It has ended so.
    Ended(Vec<String>, Ending),
    /// There is nothing to choose from, for this reason.
    Broken(String),
}

/// The whole of it.
#[derive(Clone, Debug)]
pub(crate) struct Chooser {
    pub(crate) offers: Offers,
    pub(crate) selected: usize,
    /// Lines of the right side that are above it.
    pub(crate) scrolled: u16,
    pub(crate) stage: Stage,
    pub(crate) charset: Charset,
    ending: Ending,
}

impl Chooser {
    pub(crate) fn new(charset: Charset) -> Self {
        Self {
            offers: Offers::default(),
            selected: 0,
            scrolled: 0,
            stage: Stage::Loading,
            charset,
            ending: Ending::Done,
        }
    }

    /// The persona that is chosen at the moment.
    pub(crate) fn offer(&self) -> Option<&Offer> {
        self.offers.offers.get(self.selected)
    }

    /// How the program ends when it is left now.
    pub(crate) fn ending(&self) -> Ending {
        self.ending
    }

    /// What a key means.
    pub(crate) fn key(&mut self, key: Key) -> Wish {
        if key == Key::Interrupt {
            return Wish::Leave;
        }
        match &self.stage {
            Stage::Confirming => self.confirm(key),
            Stage::Ended(..) => match key {
                Key::Char('q') | Key::Escape => Wish::Leave,
                _ => self.load(),
            },
            _ if matches!(key, Key::Char('q') | Key::Escape) => Wish::Leave,
            Stage::Choosing => self.choose(key),
            Stage::Broken(_) if matches!(key, Key::Char('r') | Key::Enter) => self.load(),
            Stage::Loading | Stage::Asking(_) | Stage::Broken(_) => Wish::Nothing,
        }
    }

    fn choose(&mut self, key: Key) -> Wish {
        let last = self.offers.offers.len().saturating_sub(1);
        let select = match key {
            Key::Up | Key::Char('k') => Some(self.selected.saturating_sub(1)),
            Key::Down | Key::Char('j') => Some((self.selected + 1).min(last)),
            _ => None,
        };
        if let Some(selected) = select {
            self.selected = selected;
            self.scrolled = 0;
        }
        match key {
            Key::PageDown | Key::Char(' ') => self.scrolled = self.scrolled.saturating_add(5),
            Key::PageUp | Key::Char('b') => self.scrolled = self.scrolled.saturating_sub(5),
            Key::Char('r') => return self.load(),
            Key::Enter => {
                let refused = |offer: &Offer| matches!(offer.course, Course::Refused { .. });
                if self.offer().is_some_and(|offer| !refused(offer)) {
                    self.stage = Stage::Confirming;
                }
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn confirm(&mut self, key: Key) -> Wish {
        let persona = self.offer().map(|offer| offer.persona.clone());
        match (key, persona) {
            (Key::Char('y' | 'Y'), Some(persona)) => {
                self.stage = Stage::Asking(Vec::new());
                Wish::Switch(persona)
            }
            _ => {
                self.stage = Stage::Choosing;
                Wish::Nothing
            }
        }
    }

    fn load(&mut self) -> Wish {
        self.stage = Stage::Loading;
        Wish::Load
    }

    /// An answer came, or there will be none for a reason.
    pub(crate) fn heard(&mut self, answer: Result<LocalAnswer, String>) {
        let said = std::mem::replace(&mut self.stage, Stage::Choosing);
        self.stage = match (said, answer) {
            (Stage::Loading, Ok(LocalAnswer::Host(Answer::Offers(offers)))) => self.loaded(offers),
            (Stage::Loading, Ok(LocalAnswer::Host(Answer::Refused { reason }))) => {
                Stage::Broken(self.charset.shown(&reason))
            }
            (Stage::Loading, Ok(other)) => {
                Stage::Broken(self.charset.shown(&text::answer("the host", &other)))
            }
            (Stage::Loading, Err(reason)) => Stage::Broken(self.charset.shown(&reason)),
            (Stage::Asking(mut lines), Ok(answer)) => {
                let persona = self.offer().map_or("", |offer| &offer.persona);
                lines.push(self.charset.shown(&text::answer(persona, &answer)));
                if answer.is_last() {
                    let active = matches!(answer, LocalAnswer::Host(Answer::Active { .. }));
                    self.ending = if active {
                        Ending::Done
                    } else {
                        Ending::Refused
                    };
                    Stage::Ended(lines, self.ending)
                } else {
                    Stage::Asking(lines)
                }
            }
            (Stage::Asking(mut lines), Err(reason)) => {
                lines.push(self.charset.shown(&reason));
                self.ending = Ending::Unreachable;
                Stage::Ended(lines, self.ending)
            }
            // What nobody waits for any more.
            (other, _) => other,
        };
    }

    fn loaded(&mut self, offers: Offers) -> Stage {
        let before = self.offer().map(|offer| offer.persona.clone());
        let found = offers
            .offers
            .iter()
            .position(|offer| Some(&offer.persona) == before.as_ref());
        self.selected = found.unwrap_or_default();
        self.scrolled = 0;
        self.offers = offers;
        if self.offers.offers.is_empty() {
            let reason = match &self.offers.current {
                Some(name) => format!("persona {name} lets users of this guest choose no other"),
                None => "no persona is in force, so there is none to choose from".to_owned(),
            };
            return Stage::Broken(self.charset.shown(&reason));
        }
        Stage::Choosing
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use agent_protocol::{
        local::{LocalCode, LocalNo},
        switching::ChangeLine,
    };

    use super::*;

    pub(crate) fn offers() -> Offers {
        let change = |subject: &str, now: &str, then: &str| ChangeLine {
            subject: subject.to_owned(),
            now: Some(now.to_owned()),
            then: Some(then.to_owned()),
        };
        Offers {
            current: Some("day".to_owned()),
            offers: vec![
                Offer {
                    persona: "night".to_owned(),
                    description: "Batch work while nobody looks".to_owned(),
                    course: Course::AtOnce,
                    changes: vec![
                        change("environment_variables.WHO", "day", "night"),
                        ChangeLine {
                            subject: "rules".to_owned(),
                            now: None,
                            then: None,
                        },
                    ],
                    more: 3,
                },
                Offer {
                    persona: "huge".to_owned(),
                    description: String::new(),
                    course: Course::Refused {
                        reason: "this machine is too small".to_owned(),
                    },
                    changes: Vec::new(),
                    more: 0,
                },
            ],
            left_out: 0,
            under_way: None,
        }
    }

    pub(crate) fn chooser() -> Chooser {
        let mut chooser = Chooser::new(Charset::Ascii);
        chooser.heard(Ok(LocalAnswer::Host(Answer::Offers(offers()))));
        chooser
    }

    #[test]
    fn a_persona_is_asked_for_after_it_was_confirmed_and_its_end_is_kept() {
        let mut chooser = chooser();
        assert_eq!(chooser.key(Key::Enter), Wish::Nothing);
        assert_eq!(chooser.stage, Stage::Confirming);
        // Anything but a yes is a no.
        assert_eq!(chooser.key(Key::Enter), Wish::Nothing);
        assert_eq!(chooser.stage, Stage::Choosing);
        chooser.key(Key::Enter);
        assert_eq!(
            chooser.key(Key::Char('y')),
            Wish::Switch("night".to_owned())
        );
        let persona = "night".to_owned();
        chooser.heard(Ok(LocalAnswer::Host(Answer::Accepted {
            persona: persona.clone(),
        })));
        assert!(matches!(&chooser.stage, Stage::Asking(lines) if lines.len() == 1));
        chooser.heard(Ok(LocalAnswer::Host(Answer::Active {
            persona,
            remark: None,
        })));
        assert!(matches!(&chooser.stage, Stage::Ended(lines, Ending::Done) if lines.len() == 2));
        assert_eq!(chooser.key(Key::Enter), Wish::Load);
        assert_eq!(chooser.stage, Stage::Loading);
    }

    #[test]
    fn what_is_refused_anyway_is_not_asked_for() {
        let mut chooser = chooser();
        chooser.key(Key::Down);
        chooser.key(Key::Down);
        assert_eq!(chooser.selected, 1);
        assert_eq!(chooser.key(Key::Enter), Wish::Nothing);
        assert_eq!(chooser.stage, Stage::Choosing);
        chooser.key(Key::Char('k'));
        assert_eq!(chooser.selected, 0);
    }

    #[test]
    fn it_can_be_left_at_any_time_and_says_how_the_last_question_ended() {
        let mut chooser = chooser();
        assert_eq!(chooser.clone().key(Key::Escape), Wish::Leave);
        chooser.key(Key::Enter);
        assert_eq!(chooser.clone().key(Key::Interrupt), Wish::Leave);
        chooser.key(Key::Char('y'));
        chooser.heard(Ok(LocalAnswer::Host(Answer::failed("no such disk"))));
        assert_eq!(chooser.ending(), Ending::Refused);
        assert_eq!(chooser.key(Key::Char('q')), Wish::Leave);
    }

    #[test]
    fn nothing_to_choose_from_is_said_and_can_be_looked_at_again() {
        let mut chooser = Chooser::new(Charset::Ascii);
        let no = LocalNo {
            code: LocalCode::NoHost,
            reason: "the host is not connected".to_owned(),
        };
        chooser.heard(Ok(LocalAnswer::No(no)));
        assert!(matches!(&chooser.stage, Stage::Broken(why) if why.contains("not connected")));
        assert_eq!(chooser.key(Key::Char('r')), Wish::Load);
        chooser.heard(Ok(LocalAnswer::Host(Answer::Offers(Offers::default()))));
        assert!(matches!(&chooser.stage, Stage::Broken(why) if why.contains("no persona")));
    }
}
