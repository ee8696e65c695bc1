//! Phrases: patterns of words with slots in them, and how a text is held against them. Which phrases there are is in
//! `action` (the written ones) and `spoken`; what a matched one comes to is theirs, too.
//!
//! A pattern is words with single spaces between them: `word` or `one|other` stands for itself, `[word]` may be left
//! out, `vcpus` and `memory` stand for every spelling of them, and what is in capitals is a slot.

use std::ops::Range;

use super::ast::{Action, Performed};
use super::lex::{Measured, What};
use super::parse::{Parsed, Parser, Stop};
use super::{action, spoken};
use crate::limits;
use crate::problem::{Kind, nearest};
use crate::quantity::QuantityError;
use crate::signal::Unit;

/// One way to say an action.
#[derive(Clone, Copy, Debug)]
pub struct Phrase {
    /// What is said.
    pub pattern: &'static str,
    /// The written phrase that means the same; the pattern itself where this is a written one.
    pub means: &'static str,
    pub(super) make: Make,
}

impl Phrase {
    /// Whether it is said as rules print it.
    fn is_written(&self) -> bool {
        self.pattern == self.means
    }
}

/// What fills the slots of a phrase in order, as numbers of tokens.
pub(super) type Slots<'a> = &'a [Range<usize>];
/// Makes the action of a phrase; reports slots that hold what cannot be.
pub(super) type Make = fn(&mut Parser<'_>, Slots<'_>) -> Action;

/// Every phrase, the written ones first.
pub fn phrases() -> impl Iterator<Item = &'static Phrase> {
    action::WRITTEN.iter().chain(&spoken::ACTIONS)
}

pub(super) const CPU_WORDS: [&str; 6] = ["vcpus", "vcpu", "cores", "core", "cpus", "cpu"];
const MEMORY_WORDS: [&str; 2] = ["memory", "ram"];
/// Most phrases that are shown to whoever wrote one that there is not.
const MOST_ADVISED: usize = 3;
/// What is never the first word of a feature: who writes these after `enable` or `activate` means something else.
const NO_FEATURES: [&str; 2] = ["feature", "persona"];

/// Where a text stops to be a phrase.
struct Miss {
    at: usize,
    wanted: Vec<String>,
    phrase: &'static Phrase,
    hint: Option<String>,
}

impl Parser<'_> {
    /// All actions of a rule.
    pub(super) fn actions(&mut self) -> Parsed<Vec<Action>> {
        let mut found = Vec::new();
        loop {
            let start = self.here().start;
            found.extend(self.action()?);
            if found.len() > limits::MOST_ACTIONS {
                let at = self.since(start);
                let message = format!("a rule has at most {} actions", limits::MOST_ACTIONS);
                self.report(Kind::TooLarge, at, message);
                return Err(Stop);
            }
            if !self.take_symbol(",") {
                return Ok(found);
            }
        }
    }

    /// One action; `None` where it was reported and reading goes on behind it.
    fn action(&mut self) -> Parsed<Option<Action>> {
        let Some(What::Word(verb)) = self.peek().map(|token| &token.what) else {
            return self.expected("an action, such as `add 1 vcpus`");
        };
        let first = self.next;
        let before = self.problems.len();
        let mut misses = Vec::new();
        for phrase in phrases().filter(|phrase| begins_with(phrase.pattern, verb)) {
            match self.hold_against(phrase, first) {
                Ok((next, slots)) => {
                    self.next = next;
                    let action = (phrase.make)(self, &slots);
                    if let Performed::NotYet(follows) = action.performed()
                        && !self.failed_since(before)
                    {
                        let at = self.place(first, next);
                        let message = format!(
                            "this version does not perform `{}`",
                            self.text_at(at.clone())
                        );
                        self.inactive(at, message, follows);
                    }
                    return Ok(Some(action));
                }
                Err(miss) => misses.push(miss),
            }
        }
        if misses.is_empty() {
            self.unknown_action(verb);
        } else {
            self.no_phrase(misses);
        }
        while !self.ends_action(self.next) {
            self.next += 1;
        }
        Ok(None)
    }

    fn unknown_action(&mut self, verb: &str) {
        let verbs = phrases().flat_map(|phrase| alternatives(first_part(phrase.pattern)));
        let help = match nearest(&verb.to_ascii_lowercase(), verbs) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "actions are `set vcpus to N`, `add N vcpus`, `add SIZE memory`, `notify \"TEXT\"` …".to_owned(),
        };
        let at = self.here();
        self.report(Kind::RuleSyntax, at, format!("there is no action `{verb}`"))
            .help = Some(help);
    }

    /// Reports what would have gone on the phrases that the text followed farthest.
    fn no_phrase(&mut self, misses: Vec<Miss>) {
        let farthest = misses.iter().map(|miss| miss.at).max().unwrap_or_default();
        let mut misses: Vec<_> = misses
            .into_iter()
            .filter(|miss| miss.at == farthest)
            .collect();
        // The written phrases are what there is to learn; the spoken ones would only make the list long.
        if misses.iter().any(|miss| miss.phrase.is_written()) {
            misses.retain(|miss| miss.phrase.is_written());
        }
        let (mut wanted, mut patterns, mut hint) = (Vec::new(), Vec::new(), None);
        for miss in misses {
            for what in miss.wanted {
                if !wanted.contains(&what) {
                    wanted.push(what);
                }
            }
            let pattern = format!("`{}`", shortest(miss.phrase.pattern));
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
            hint = hint.or(miss.hint);
        }
        patterns.truncate(MOST_ADVISED);
        self.next = farthest;
        // Reading goes on behind the action, so the word to stop is not passed on.
        let _ = self.expected::<()>(&either(&wanted));
        if let Some(problem) = self.problems.last_mut()
            && problem.help.is_none()
        {
            problem.help = Some(hint.unwrap_or_else(|| format!("write {}", either(&patterns))));
        }
    }

    /// The slots of a pattern, and the number of the token behind it.
    fn hold_against(
        &self,
        phrase: &'static Phrase,
        first: usize,
    ) -> Result<(usize, Vec<Range<usize>>), Miss> {
        let mut next = first;
        let mut slots: Vec<Range<usize>> = Vec::new();
        let miss = |at, wanted| Miss {
            at,
            wanted,
            phrase,
            hint: None,
        };
        for part in phrase.pattern.split(' ') {
            if let Some(optional) = part
                .strip_prefix('[')
                .and_then(|part| part.strip_suffix(']'))
            {
                next += usize::from(self.is_any_of(next, optional));
            } else if is_slot(part) {
                let end = self.slot_end(part, next).map_err(|hint| Miss {
                    hint,
                    ..miss(next, vec![describe(part).to_owned()])
                })?;
                slots.push(next..end);
                next = end;
            } else if part == "vcpus"
                && slots
                    .last()
                    .is_some_and(|slot| slot.end == next && self.counts_vcpus(slot))
            {
                // `16 cores` is one token: the number has said the word already.
            } else if self.is_any_of(next, part) {
                next += 1;
            } else {
                let words = alternatives(part).map(|word| format!("`{word}`"));
                return Err(Miss {
                    hint: self.slip(next, part),
                    ..miss(next, words.collect())
                });
            }
        }
        if self.ends_action(next) {
            Ok((next, slots))
        } else {
            let end = ["`,`", "the end of the action"].map(str::to_owned);
            Err(miss(next, end.to_vec()))
        }
    }

    fn is_any_of(&self, index: usize, part: &str) -> bool {
        let Some(token) = self.tokens.get(index) else {
            return false;
        };
        let same = |word: &str| token.is_word(word) || token.is_symbol(word);
        match part {
            "vcpus" => CPU_WORDS.into_iter().any(same),
            "memory" => MEMORY_WORDS.into_iter().any(same),
            _ => alternatives(part).any(same),
        }
    }

    /// What the word was probably meant to be.
    fn slip(&self, index: usize, part: &str) -> Option<String> {
        let What::Word(word) = &self.tokens.get(index)?.what else {
            return None;
        };
        let near = nearest(&word.to_ascii_lowercase(), alternatives(part))?;
        Some(format!("did you mean `{near}`?"))
    }

    fn counts_vcpus(&self, slot: &Range<usize>) -> bool {
        let is_cpu = |measured: &Measured| {
            CPU_WORDS
                .iter()
                .any(|word| measured.unit.eq_ignore_ascii_case(word))
        };
        matches!(&self.tokens[slot.start].what, What::Quantity(measured) if is_cpu(measured))
    }

    /// The number of the token behind what fills a slot; a hint where nothing does and something else was meant.
    fn slot_end(&self, slot: &str, first: usize) -> Result<usize, Option<String>> {
        let token = self.tokens.get(first).ok_or(None)?;
        match (slot, &token.what) {
            ("BYTES", What::Quantity(measured)) => {
                let fits = measured.of(Unit::Bytes).is_some() || measured.quantity.is_err();
                fits.then_some(first + 1).ok_or(None)
            }
            ("N" | "SIZE" | "SIZE|P%" | "P%" | "RATE", What::Quantity(_)) => Ok(first + 1),
            ("\"TEXT\"", What::Text(_)) => Ok(first + 1),
            ("BYTES" | "N" | "SIZE" | "SIZE|P%" | "P%" | "RATE" | "\"TEXT\"", _) => Err(None),
            ("WORDS", What::Word(word)) => {
                let lowered = word.to_ascii_lowercase();
                if let Some(meant) = nearest(&lowered, NO_FEATURES) {
                    return Err((meant != lowered).then(|| format!("did you mean `{meant}`?")));
                }
                let mut next = self.glued(first).ok_or(None)?;
                while let (Some(What::Word(_) | What::Quantity(_)), Some(end)) = (
                    self.tokens.get(next).map(|token| &token.what),
                    self.glued(next),
                ) {
                    next = end;
                }
                Ok(next)
            }
            ("WORDS", _) => Err(None),
            // Whatever is a name may stand in quotes.
            (_, What::Text(_)) => Ok(first + 1),
            _ => self.glued(first).ok_or(None),
        }
    }

    /// The quantity in a slot, with its place.
    pub(super) fn quantity_in(&mut self, slot: &Range<usize>) -> (Measured, Range<usize>) {
        let token = &self.tokens[slot.start];
        let measured = match &token.what {
            What::Quantity(measured) => measured.clone(),
            // A slot for quantities takes nothing else, so this says what a new kind of slot forgot.
            _ => Measured {
                quantity: Err(QuantityError::NotANumber(
                    self.text_at(token.at.clone()).to_owned(),
                )),
                unit: String::new(),
            },
        };
        if let Err(error) = &measured.quantity {
            self.report(Kind::BadQuantity, token.at.clone(), error.to_string());
        }
        (measured, token.at.clone())
    }

    /// The text in a slot, without quotes, with its place.
    pub(super) fn text_in(&self, slot: &Range<usize>) -> (String, Range<usize>) {
        let at = self.place(slot.start, slot.end);
        let text = match &self.tokens[slot.start].what {
            What::Text(text) => text.clone(),
            _ => self.text_at(at.clone()).to_owned(),
        };
        (text, at)
    }
}

fn is_slot(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_uppercase() || c == '"')
}

fn alternatives(part: &str) -> impl Iterator<Item = &str> {
    part.split('|')
}

fn first_part(pattern: &str) -> &str {
    pattern.split(' ').next().unwrap_or(pattern)
}

fn begins_with(pattern: &str, verb: &str) -> bool {
    alternatives(first_part(pattern)).any(|word| word.eq_ignore_ascii_case(verb))
}

/// A pattern without what may be left out, and with the first of what stands for the same.
fn shortest(pattern: &str) -> String {
    let parts = pattern.split(' ').filter(|part| !part.starts_with('['));
    let first = |part| alternatives(part).next().unwrap_or(part);
    parts.map(first).collect::<Vec<_>>().join(" ")
}

fn describe(slot: &str) -> &'static str {
    match slot {
        "N" => "a number",
        "SIZE" | "BYTES" => "a size, such as `512 MiB`",
        "SIZE|P%" => "an amount, such as `256 MiB` or `25%`",
        "P%" => "a percentage",
        "RATE" => "a rate, such as `100 Mbit/s`",
        "\"TEXT\"" => "a text in quotes",
        "KEY" => "a setting, such as `os_settings.theme`",
        "VALUE" => "a word, a number or a text in quotes",
        "HOST:PORT" => "a host and its port, such as `10.0.0.1:8080`",
        "PACKAGE" => "the name of a package",
        "SOURCE" => "the name of an external source",
        _ => "a name",
    }
}

/// `a`, `a or b`, `a, b or c`.
fn either(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
