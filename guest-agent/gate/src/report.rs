//! Lines on standard error, for the guest's journal. Who was refused what is said in a thread of its own, so that a journal
//! that waits makes nobody wait for an answer, and once a minute for each person and command.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use agent_protocol::message::clean_text;

use crate::{
    SMALL_STACK,
    judge::Refusal,
    person::{Person, Uid},
};

/// Refusals that wait to be said; more are not said.
const WAITING_MAX: usize = 64;
/// For so long the same person is not named again for the same command.
const QUIET: Duration = Duration::from_secs(60);
/// Persons and commands that are remembered for this; more are all named.
const REMEMBERED_MAX: usize = 1024;
/// So many other sentences are said in that time; somebody can have them made without end.
const SENTENCES_MAX: usize = 256;
/// Longest line in bytes.
const LINE_MAX: usize = 512;

/// Writes one line; control characters become spaces.
pub(crate) fn line(text: &str) {
    let text = clean_text(text, LINE_MAX).replace('\n', " ");
    // There is nowhere to tell that standard error is gone.
    let _ = writeln!(io::stderr().lock(), "virt-persona-gate: {text}");
}

/// What was said of late. Links that a user turns without end would fill the journal, which then drops lines of refusals.
#[derive(Debug, Default)]
pub(crate) struct Sentences(BTreeMap<String, Instant>);

impl Sentences {
    /// Writes a line, unless it was written within a minute or as many others were.
    pub(crate) fn line(&mut self, text: &str) {
        if self.is_due(text, Instant::now()) {
            line(text);
        }
    }

    fn is_due(&mut self, text: &str, now: Instant) -> bool {
        self.0.retain(|_, since| now.duration_since(*since) < QUIET);
        if self.0.len() >= SENTENCES_MAX || self.0.contains_key(text) {
            return false;
        }
        self.0.insert(text.to_owned(), now);
        true
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Starts the thread; it takes what is sent there.
pub(crate) fn start() -> io::Result<SyncSender<Refusal>> {
    let (sender, refusals) = sync_channel(WAITING_MAX);
    thread::Builder::new()
        .name("report".to_owned())
        .stack_size(SMALL_STACK)
        .spawn(move || say_all(&refusals))?;
    Ok(sender)
}

fn say_all(refusals: &Receiver<Refusal>) {
    let mut said = Said::default();
    for refusal in refusals {
        if let Some(text) = said.sentence(&refusal, Instant::now()) {
            line(&text);
        }
    }
}

/// What was said, when, and how often it would have been said since.
#[derive(Default)]
struct Said(BTreeMap<(Uid, Arc<str>), (Instant, u64)>);

impl Said {
    /// What is to be said of a refusal now.
    fn sentence(&mut self, refusal: &Refusal, now: Instant) -> Option<String> {
        let key = (refusal.person.uid(), Arc::clone(&refusal.name));
        let mut before = 0;
        if let Some((since, left_out)) = self.0.get_mut(&key) {
            if now.duration_since(*since) < QUIET {
                *left_out += 1;
                return None;
            }
            before = *left_out;
        }
        if self.0.len() >= REMEMBERED_MAX {
            self.0
                .retain(|_, (since, _)| now.duration_since(*since) < QUIET);
        }
        if self.0.len() < REMEMBERED_MAX {
            self.0.insert(key, (now, 0));
        }
        let who = match refusal.person {
            Person::LoggedIn(uid) => format!("user {uid}, who logged in"),
            Person::ActsAs(uid) => format!("user {uid}"),
        };
        let more = match before {
            0 => String::new(),
            count => format!(", and {count} times before"),
        };
        Some(format!("`{}` was refused to {who}{more}", refusal.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_with_how_often_it_was() {
        let mut said = Said::default();
        let start = Instant::now();
        let refusal = |uid, name: &str| Refusal {
            name: name.into(),
            person: Person::LoggedIn(uid),
        };
        let mut at = |seconds, refusal: &Refusal| {
            said.sentence(refusal, start + Duration::from_secs(seconds))
        };
        let nc = refusal(1000, "nc");
        assert_eq!(
            at(0, &nc).unwrap(),
            "`nc` was refused to user 1000, who logged in"
        );
        assert_eq!(at(1, &nc), None);
        assert_eq!(at(59, &nc), None);
        assert!(at(2, &refusal(1001, "nc")).is_some());
        assert!(at(3, &refusal(1000, "ss")).is_some());
        assert!(at(60, &nc).unwrap().ends_with(", and 2 times before"));
        assert_eq!(at(61, &nc), None);
    }

    #[test]
    fn a_sentence_is_said_once_a_minute_and_so_many_of_them() {
        let mut sentences = Sentences::default();
        let start = Instant::now();
        let mut at = |seconds, text: &str| {
            let now = start + Duration::from_secs(seconds);
            sentences.is_due(text, now)
        };
        assert!(at(0, "one") && at(1, "two"));
        assert!(!at(2, "one") && !at(59, "one"));
        assert!(at(60, "one") && !at(60, "two") && at(61, "two"));
        for other in 2..SENTENCES_MAX {
            assert!(at(61, &other.to_string()));
        }
        assert!(!at(62, "three") && at(121, "three"));
    }
}
