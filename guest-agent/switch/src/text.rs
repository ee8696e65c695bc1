//! What may be written on this terminal: no control characters, and nothing but ASCII where the locale is not UTF-8, as on
//! most serial consoles. Everything that came from elsewhere passes here before it is shown.

use agent_protocol::{
    Answer,
    local::{LocalAnswer, LocalCode, LocalNo},
    switching::{ChangeLine, Course, Offer},
};

/// Which characters the terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// All of them.
    Utf8,
    /// Those alone.
    Ascii,
}

impl Charset {
    /// What the locale of this process says.
    pub fn of_locale() -> Self {
        let first = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        Self::of(first.as_deref().unwrap_or_default())
    }

    fn of(locale: &str) -> Self {
        let locale = locale.to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") {
            Self::Utf8
        } else {
            Self::Ascii
        }
    }

    /// The text as it may be shown, on one line.
    pub fn shown(self, text: &str) -> String {
        let clean = agent_protocol::message::clean_text(text, usize::MAX);
        let shown = clean.chars().map(|character| match character {
            '\n' | '\t' => ' ',
            other if self == Self::Ascii && !other.is_ascii() => '?',
            other => other,
        });
        shown.collect()
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        line = format!("{line}: {source}");
        cause = source.source();
    }
    line
}

/// A change as a line.
pub fn change(line: &ChangeLine) -> String {
    let value = |text: &Option<String>| text.clone().unwrap_or_else(|| "(not set)".to_owned());
    match (&line.now, &line.then) {
        (None, None) => format!("{}: differs", line.subject),
        (now, then) => format!("{}: {} -> {}", line.subject, value(now), value(then)),
    }
}

/// What becomes of asking for a persona, as a sentence.
pub fn course(course: &Course) -> String {
    match course {
        Course::AtOnce => "It is made active when you ask for it.".to_owned(),
        Course::Approval => "A person of the host has to approve it first.".to_owned(),
        Course::Refused { reason } => format!("It cannot be chosen now: {reason}."),
        Course::Unknown => "The host decides when you ask for it.".to_owned(),
    }
}

/// The end of the list of changes, where it is not whole.
pub fn more(offer: &Offer) -> Option<String> {
    (offer.more > 0).then(|| format!("and {} more", offer.more))
}

/// What an answer says, as a line.
pub fn answer(persona: &str, answer: &LocalAnswer) -> String {
    match answer {
        LocalAnswer::Host(Answer::Accepted { persona }) => {
            format!("{persona}: the host makes it active")
        }
        LocalAnswer::Host(Answer::Waits {
            proposal,
            expires_in_ms,
        }) => format!(
            "{persona}: waits for a person's word on the host, as proposal {proposal}, for {} min",
            expires_in_ms.div_ceil(60_000)
        ),
        LocalAnswer::Host(Answer::Active { persona, remark }) => match remark {
            None => format!("{persona}: active"),
            Some(remark) => format!("{persona}: active; {remark}"),
        },
        LocalAnswer::Host(Answer::Refused { reason }) => format!("{persona}: refused: {reason}"),
        LocalAnswer::Host(Answer::Failed { reason }) => format!("{persona}: failed: {reason}"),
        LocalAnswer::Host(Answer::Offers(_) | Answer::Unknown) | LocalAnswer::Status(_) => {
            format!("{persona}: the host says something that this program does not know")
        }
        LocalAnswer::No(LocalNo { code, reason }) => match code {
            LocalCode::NoHost => format!("the host cannot be asked: {reason}"),
            _ => reason.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_can_steer_a_terminal() {
        let text = "a\u{1b}[2Jb\nc\u{202e}é";
        assert_eq!(Charset::Utf8.shown(text), "a [2Jb c é");
        assert_eq!(Charset::Ascii.shown(text), "a [2Jb c ?");
    }

    #[test]
    fn the_locale_says_which_characters_there_are() {
        assert_eq!(Charset::of("en_GB.UTF-8"), Charset::Utf8);
        assert_eq!(Charset::of("C.utf8"), Charset::Utf8);
        for other in ["", "C", "POSIX", "de_DE"] {
            assert_eq!(Charset::of(other), Charset::Ascii, "{other}");
        }
    }
}
