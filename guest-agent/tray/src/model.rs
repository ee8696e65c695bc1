//! What the tray shows: the persona, what there is to choose from, and what has become of the last choice. It knows neither the
//! bus nor the agent's socket; `main` tells it what was heard, `item` shows it.

use agent_protocol::{
    Answer, Offer, Offers,
    local::{LocalAnswer, LocalCode, LocalNo},
    switching::Course,
};
use virt_persona_switch::text::{self, Charset};

/// Changes of a persona that its menu names; the rest is a number there, and whole in `virt-persona-switch`.
const CHANGES_SHOWN: usize = 12;
/// Characters of a line in a menu.
const LINE_LENGTH: usize = 100;

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    seen: Seen,
    choice: Option<Choice>,
}

/// What the last look showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// There was none yet.
    #[default]
    Nothing,
    /// There is this to choose from.
    Offers(Offers),
    /// Nothing can be chosen, for this reason.
    No(String),
}

/// What a user of this tray asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Choice {
    persona: String,
    line: String,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Something is still to come.
    Open,
    /// It is active.
    Done,
    /// It is not, and will not be.
    Not,
}

/// A line of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// To be read.
    Words(String),
    /// A line between groups.
    Rule,
    /// A menu of its own with what would change; at its end the persona can be asked for, where it can.
    Persona {
        label: String,
        lines: Vec<String>,
        ask: Option<String>,
    },
}

/// How much the item draws the eye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// There is nothing to choose from: many desktops hide such items.
    Rests,
    /// It is to be seen.
    Shows,
    /// A choice did not come about.
    Alerts,
}

impl Model {
    /// A look has ended.
    pub(crate) fn looked(&mut self, answer: &LocalAnswer) {
        self.seen = match answer {
            LocalAnswer::Host(Answer::Offers(offers)) => Seen::Offers(offers.clone()),
            // Too many looks are no news about the personas.
            LocalAnswer::No(LocalNo {
                code: LocalCode::TooSoon,
                ..
            }) if self.seen != Seen::Nothing => return,
            LocalAnswer::Host(Answer::Refused { reason } | Answer::Failed { reason }) => {
                Seen::No(shown(reason))
            }
            other => Seen::No(shown(&text::answer("the host", other))),
        };
    }

    /// Nobody answers.
    pub(crate) fn not_reached(&mut self, why: &str) {
        self.seen = Seen::No(shown(why));
    }

    /// A persona is asked for.
    pub(crate) fn chosen(&mut self, persona: &str) {
        self.choice = Some(Choice {
            persona: persona.to_owned(),
            line: shown(&format!("{persona}: asked for")),
            state: State::Open,
        });
    }

    /// The host, or the agent, says something to that.
    pub(crate) fn told(&mut self, persona: &str, answer: &LocalAnswer) {
        let state = match answer {
            LocalAnswer::Host(Answer::Active { .. }) => State::Done,
            LocalAnswer::Host(Answer::Refused { .. } | Answer::Failed { .. })
            | LocalAnswer::No(_) => State::Not,
            _ => State::Open,
        };
        self.becomes(persona, text::answer(persona, answer), state);
    }

    /// The connection broke before the end.
    pub(crate) fn lost(&mut self, persona: &str, why: &str) {
        self.becomes(persona, format!("{persona}: {why}"), State::Not);
    }

    fn becomes(&mut self, persona: &str, line: String, state: State) {
        // An earlier choice that ends late says nothing of the last one.
        if let Some(choice) = self
            .choice
            .as_mut()
            .filter(|choice| choice.persona == persona && choice.state == State::Open)
        {
            choice.line = shown(&line);
            choice.state = state;
        }
    }

    /// Somebody has opened the menu and so has read how the last choice ended.
    pub(crate) fn read(&mut self) {
        if let Some(choice) = self
            .choice
            .as_mut()
            .filter(|choice| choice.state == State::Not)
        {
            choice.state = State::Done;
        }
    }

    /// Whether the host has said what there is to choose from.
    pub(crate) fn knows(&self) -> bool {
        matches!(self.seen, Seen::Offers(_))
    }

    /// One line about all of it.
    pub(crate) fn title(&self) -> String {
        match &self.seen {
            Seen::Nothing => "Persona".to_owned(),
            Seen::Offers(Offers {
                current: Some(name),
                ..
            }) => shown(&format!("Persona {name}")),
            Seen::Offers(_) => "No persona is in force".to_owned(),
            Seen::No(_) => "Persona: nothing to choose from".to_owned(),
        }
    }

    /// What is to be known besides.
    pub(crate) fn remark(&self) -> String {
        let under_way = match &self.seen {
            Seen::Offers(offers) => offers.under_way.clone(),
            Seen::No(reason) => Some(reason.clone()),
            Seen::Nothing => None,
        };
        let choice = self.choice.as_ref().map(|choice| choice.line.clone());
        choice
            .or(under_way)
            .map(|line| shown(&line))
            .unwrap_or_default()
    }

    /// How much it draws the eye.
    pub(crate) fn call(&self) -> Call {
        match (&self.choice, &self.seen) {
            (Some(choice), _) if choice.state == State::Not => Call::Alerts,
            (Some(_), _) => Call::Shows,
            (None, Seen::Offers(offers)) if !offers.offers.is_empty() => Call::Shows,
            (None, _) => Call::Rests,
        }
    }

    /// The menu.
    pub(crate) fn menu(&self) -> Vec<Line> {
        let mut menu = vec![Line::Words(self.title())];
        menu.extend(
            self.choice
                .iter()
                .map(|choice| Line::Words(choice.line.clone())),
        );
        match &self.seen {
            Seen::Nothing => {}
            Seen::No(reason) => menu.push(Line::Words(reason.clone())),
            Seen::Offers(offers) => {
                menu.extend(offers.under_way.iter().map(|line| Line::Words(shown(line))));
                menu.push(Line::Rule);
                if offers.offers.is_empty() {
                    menu.push(Line::Words("There is none to choose from".to_owned()));
                }
                menu.extend(offers.offers.iter().map(persona));
                if offers.left_out > 0 {
                    menu.push(Line::Words(format!("and {} more", offers.left_out)));
                }
            }
        }
        menu.push(Line::Rule);
        menu
    }
}

fn persona(offer: &Offer) -> Line {
    let mut lines = Vec::new();
    if !offer.description.is_empty() {
        lines.push(shown(&offer.description));
    }
    lines.push(shown(&text::course(&offer.course)));
    let changes = offer.changes.iter().take(CHANGES_SHOWN);
    lines.extend(changes.map(|line| shown(&text::change(line))));
    let left = offer.changes.len().saturating_sub(CHANGES_SHOWN) + offer.more;
    if left > 0 {
        lines.push(format!("and {left} changes more"));
    }
    let can = !matches!(offer.course, Course::Refused { .. });
    Line::Persona {
        label: shown(&offer.persona),
        lines,
        ask: can.then(|| offer.persona.clone()),
    }
}

/// One line without anything that could steer, of a length that a menu has room for.
fn shown(text: &str) -> String {
    let line = Charset::Utf8.shown(text);
    let mut short: String = line.chars().take(LINE_LENGTH).collect();
    if short.len() < line.len() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(current: &str, offers: Vec<Offer>) -> LocalAnswer {
        LocalAnswer::Host(Answer::Offers(Offers {
            current: Some(current.to_owned()),
            offers,
            ..Offers::default()
        }))
    }

    fn offer(persona: &str, course: Course) -> Offer {
        Offer {
            persona: persona.to_owned(),
            description: String::new(),
            course,
            changes: Vec::new(),
            more: 0,
        }
    }

    #[test]
    fn what_cannot_be_chosen_cannot_be_asked_for_and_says_why() {
        let mut model = Model::default();
        let reason = "too small".to_owned();
        model.looked(&offers(
            "day",
            vec![
                offer("night", Course::AtOnce),
                offer("huge", Course::Refused { reason }),
            ],
        ));
        assert_eq!(model.title(), "Persona day");
        assert_eq!(model.call(), Call::Shows);
        let asks: Vec<_> = model
            .menu()
            .into_iter()
            .filter_map(|line| match line {
                Line::Persona { label, lines, ask } => Some((label, lines.join("\n"), ask)),
                Line::Words(_) | Line::Rule => None,
            })
            .collect();
        assert_eq!(asks[0].2.as_deref(), Some("night"));
        assert_eq!(asks[1].2, None);
        assert!(asks[1].1.contains("too small"), "{asks:?}");
    }

    #[test]
    fn a_choice_that_fails_draws_the_eye_until_it_was_read() {
        let mut model = Model::default();
        model.looked(&offers("day", vec![offer("night", Course::AtOnce)]));
        model.chosen("night");
        assert_eq!(model.call(), Call::Shows);
        model.told("night", &LocalAnswer::Host(Answer::failed("no room")));
        assert_eq!(model.call(), Call::Alerts);
        assert!(model.remark().contains("no room"));
        // Its connection's end is no news.
        model.lost("night", "the agent ended");
        assert!(model.remark().contains("no room"));
        model.read();
        assert_eq!(model.call(), Call::Shows);
        assert!(model.remark().contains("no room"));
    }

    #[test]
    fn an_earlier_choice_says_nothing_of_the_last() {
        let mut model = Model::default();
        model.chosen("night");
        model.chosen("dusk");
        model.told("night", &LocalAnswer::Host(Answer::failed("late")));
        assert_eq!(model.remark(), "dusk: asked for");
    }

    #[test]
    fn looks_that_are_too_many_leave_what_was_seen() {
        let mut model = Model::default();
        let too_soon = LocalAnswer::No(LocalNo {
            code: LocalCode::TooSoon,
            reason: "wait".to_owned(),
        });
        model.looked(&too_soon);
        assert!(model.remark().contains("wait"));
        model.looked(&offers("day", Vec::new()));
        model.looked(&too_soon);
        assert_eq!(model.title(), "Persona day");
        assert_eq!(model.call(), Call::Rests);
        model.not_reached("nobody is there");
        assert!(model.remark().contains("nobody is there"));
    }

    #[test]
    fn a_line_has_room_in_a_menu_and_steers_nothing() {
        let line = shown(&format!("\u{1b}[2J{}", "ä".repeat(200)));
        assert_eq!(line.chars().count(), LINE_LENGTH);
        assert!(line.ends_with('…') && !line.contains('\u{1b}'));
        assert_eq!(shown("short"), "short");
    }
}
