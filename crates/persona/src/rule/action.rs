//! The actions of a rule: their grammar and the spoken forms, in one place. What an action does is not here.

use super::ast::{Action, MemoryAmount};
use super::lex::{Measured, Token, What};
use super::parse::{Parsed, Parser, Stop};
use crate::limits;
use crate::problem::Kind;
use crate::signal::Unit;
use crate::units::Bytes;

/// First words of actions on which this version does not act.
const NOT_YET: [&str; 18] = [
    "enable",
    "disable",
    "run",
    "respond",
    "apply",
    "install",
    "uninstall",
    "block",
    "unblock",
    "isolate",
    "restore",
    "redirect",
    "activate",
    "deactivate",
    "revert",
    "call",
    "update",
    "enforce",
];

/// First words of actions that it performs, for "did you mean".
const VERBS: [&str; 8] = [
    "set", "add", "remove", "scale", "increase", "decrease", "notify", "grow",
];

const CPU_WORDS: [&str; 6] = ["vcpus", "vcpu", "cores", "core", "cpus", "cpu"];
const MEMORY_WORDS: [&str; 2] = ["memory", "ram"];

/// Things that the language can set and this version cannot.
const NOT_YET_SET: [&str; 3] = ["network", "disk", "io"];

/// Which way a verb goes.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    To,
    More,
    Less,
}

impl Parser<'_> {
    pub(super) fn actions(&mut self) -> Parsed<Vec<Action>> {
        let mut found = Vec::new();
        loop {
            let start = self.here().start;
            found.extend(self.action()?);
            if found.len() > limits::MOST_ACTIONS {
                let at = self.since(start);
                self.report(
                    Kind::TooLarge,
                    at,
                    format!("a rule has at most {} actions", limits::MOST_ACTIONS),
                );
                return Err(Stop);
            }
            if !self.take_symbol(",") {
                return Ok(found);
            }
        }
    }

    /// One action; `None` where it was reported and reading goes on behind it.
    fn action(&mut self) -> Parsed<Option<Action>> {
        let Some(Token {
            what: What::Word(word),
            at,
        }) = self.peek()
        else {
            return self.expected("an action, such as `add 1 vcpus`");
        };
        let verb = word.to_ascii_lowercase();
        let package = self
            .peek_second()
            .is_some_and(|token| token.is_word("package"));
        if NOT_YET.contains(&verb.as_str()) || package {
            return Ok(self.not_yet(at.start));
        }
        self.advance();
        match verb.as_str() {
            "set" => self.set(at.start).map(Some),
            "add" => self.change_by(Change::More).map(Some),
            "remove" => self.change_by(Change::Less).map(Some),
            "scale" => self.scale().map(Some),
            "increase" | "grow" => self.spoken(at.start, Change::More).map(Some),
            "decrease" | "reduce" | "shrink" => self.spoken(at.start, Change::Less).map(Some),
            "notify" => self.notify().map(Some),
            _ => {
                let near = crate::problem::nearest(&verb, VERBS)
                    .map(|near| format!("did you mean `{near}`?"));
                let problem = self.report(
                    Kind::RuleSyntax,
                    at.clone(),
                    format!("there is no action `{word}`"),
                );
                problem.help = near.or_else(|| {
                    Some("actions are `set vcpus to N`, `add N vcpus`, `add SIZE memory`, `notify \"TEXT\"` …".to_owned())
                });
                Err(Stop)
            }
        }
    }

    /// Reports an action of the language that this version does not perform, and reads on behind it.
    fn not_yet(&mut self, start: usize) -> Option<Action> {
        let ends = |token: &Token| {
            token.is_symbol(",")
                || ["until", "cooldown", "priority"]
                    .iter()
                    .any(|word| token.is_word(word))
        };
        while self.peek().is_some_and(|token| !ends(token)) {
            self.advance();
        }
        let at = self.since(start);
        let text = self.text_at(at.clone());
        self.report(
            Kind::NotYetSupported,
            at,
            format!("this version does not perform `{text}`"),
        )
        .help = Some("it changes vcpus and memory and notifies; remove this action".to_owned());
        None
    }

    /// `set vcpus to 4`, `set memory to 2 GiB`.
    fn set(&mut self, start: usize) -> Parsed<Action> {
        let weight = self
            .peek_second()
            .is_some_and(|token| token.is_word("weight") || token.is_word("cap"));
        if weight
            || self
                .peek()
                .is_some_and(|token| NOT_YET_SET.iter().any(|word| token.is_word(word)))
        {
            // The placeholder never comes out: a reported problem withholds the rule.
            return Ok(self.not_yet(start).unwrap_or(Action::SetVcpus(1)));
        }
        if !(self.take_one_of(&CPU_WORDS) || self.take_one_of(&MEMORY_WORDS)) {
            return self.expected("`vcpus` or `memory`");
        }
        let memory = self.text_at(self.since(start)).to_ascii_lowercase();
        let memory = MEMORY_WORDS.iter().any(|word| memory.ends_with(word));
        if !self.take_word("to") {
            return self.expected("`to` and an amount");
        }
        let amount = self.amount()?;
        if memory {
            Ok(Action::SetMemory(self.size(amount)))
        } else {
            Ok(Action::SetVcpus(self.count(amount)))
        }
    }

    /// `add 2 vcpus`, `remove 25% memory`, `add 128 MiB of memory`.
    fn change_by(&mut self, change: Change) -> Parsed<Action> {
        self.take_one_of(&["another", "an"]);
        let amount = self.amount()?;
        let cpus = CPU_WORDS
            .iter()
            .any(|word| amount.0.unit.eq_ignore_ascii_case(word));
        if cpus {
            return Ok(self.vcpus(change, amount));
        }
        self.take_one_of(&["more", "additional"]);
        self.take_word("of");
        if self.take_one_of(&MEMORY_WORDS) || amount.0.of(Unit::Bytes).is_some() {
            return Ok(self.memory(change, amount));
        }
        if self.take_one_of(&CPU_WORDS) {
            return Ok(self.vcpus(change, amount));
        }
        self.expected("`vcpus` or `memory`")
    }

    /// `scale up to 16 cores`, `scale down to 2 GiB`.
    fn scale(&mut self) -> Parsed<Action> {
        self.take_one_of(&["up", "down"]);
        if !self.take_word("to") {
            return self.expected("`to` and an amount");
        }
        let amount = self.amount()?;
        if amount.0.of(Unit::Bytes).is_some() {
            self.take_word("of");
            self.take_one_of(&MEMORY_WORDS);
            return Ok(Action::SetMemory(self.size(amount)));
        }
        if amount.0.unit.is_empty() && amount.0.quantity.is_ok() {
            return self.expected("`cores` or a size of memory");
        }
        Ok(Action::SetVcpus(self.count(amount)))
    }

    /// `increase allocated cores`, `increase memory by 25%`, `decrease vcpus to 2`.
    fn spoken(&mut self, start: usize, change: Change) -> Parsed<Action> {
        self.take_one_of(&["allocated", "the"]);
        let memory = self.take_one_of(&MEMORY_WORDS);
        if !memory && !self.take_one_of(&CPU_WORDS) {
            return self.expected("`cores` or `memory`");
        }
        let change = if self.take_word("to") {
            Change::To
        } else if self.take_word("by") {
            change
        } else if memory {
            let at = self.since(start);
            let verb = self.text_at(at.clone());
            self.report(
                Kind::RuleSyntax,
                at,
                format!("`{verb}` does not say by how much"),
            )
            .help = Some(format!("write `{verb} by 25%` or `{verb} by 256 MiB`"));
            return Err(Stop);
        } else {
            // Cores are changed one at a time where nothing else is said.
            return Ok(if change == Change::More {
                Action::AddVcpus(1)
            } else {
                Action::RemoveVcpus(1)
            });
        };
        let amount = self.amount()?;
        if memory {
            return Ok(self.memory(change, amount));
        }
        Ok(self.vcpus(change, amount))
    }

    fn notify(&mut self) -> Parsed<Action> {
        let Some(Token {
            what: What::Text(text),
            at,
        }) = self.peek()
        else {
            return self.expected("a text in quotes");
        };
        self.advance();
        if text.trim().is_empty()
            || text.len() > limits::LONGEST_NOTICE
            || text.chars().any(char::is_control)
        {
            let message = format!(
                "a notice is one line of 1 to {} bytes",
                limits::LONGEST_NOTICE
            );
            self.report(Kind::OutOfRange, at.clone(), message);
        }
        Ok(Action::Notify(text.clone()))
    }

    fn amount(&mut self) -> Parsed<(Measured, std::ops::Range<usize>)> {
        let Some(Token {
            what: What::Quantity(measured),
            at,
        }) = self.peek()
        else {
            return self.expected("an amount, such as `2 vcpus` or `256 MiB`");
        };
        self.advance();
        if let Err(error) = &measured.quantity {
            self.report(Kind::BadQuantity, at.clone(), error.to_string());
        }
        Ok((measured.clone(), at.clone()))
    }

    fn vcpus(&mut self, change: Change, amount: (Measured, std::ops::Range<usize>)) -> Action {
        let count = self.count(amount);
        match change {
            Change::To => Action::SetVcpus(count),
            Change::More => Action::AddVcpus(count),
            Change::Less => Action::RemoveVcpus(count),
        }
    }

    fn memory(&mut self, change: Change, amount: (Measured, std::ops::Range<usize>)) -> Action {
        let make = match change {
            Change::To => return Action::SetMemory(self.size(amount)),
            Change::More => Action::AddMemory,
            Change::Less => Action::RemoveMemory,
        };
        let Some(percent) = amount.0.of(Unit::Percent) else {
            return make(MemoryAmount::Size(self.size(amount)));
        };
        let most = if change == Change::Less { 99.0 } else { 1000.0 };
        if percent <= 0.0 || percent > most {
            let found = self.text_at(amount.1.clone());
            let message = format!(
                "{found} is out of range; a change of memory is above 0% and at most {most}%"
            );
            self.report(Kind::OutOfRange, amount.1, message);
        }
        make(MemoryAmount::Percent(percent))
    }

    /// A whole number of vCPUs; a stand-in where it was reported.
    fn count(&mut self, (measured, at): (Measured, std::ops::Range<usize>)) -> u32 {
        let Ok(quantity) = &measured.quantity else {
            return 1;
        };
        let found = self.text_at(at.clone());
        if quantity.unit != Unit::Count {
            let message = format!("`{found}` is {}, and vCPUs are counted", quantity.unit);
            self.report(Kind::UnitMismatch, at, message);
            return 1;
        }
        let whole = quantity.value.fract() == 0.0;
        if !whole || quantity.value < 1.0 || quantity.value > f64::from(limits::MOST_VCPUS) {
            let message = format!(
                "`{found}` is out of range; vCPUs are a whole number from 1 to {}",
                limits::MOST_VCPUS
            );
            self.report(Kind::OutOfRange, at, message);
            return 1;
        }
        // Whole and in range, checked above.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        {
            quantity.value as u32
        }
    }

    /// A size of memory; a stand-in where it was reported.
    fn size(&mut self, (measured, at): (Measured, std::ops::Range<usize>)) -> Bytes {
        let Ok(quantity) = &measured.quantity else {
            return limits::LEAST_MEMORY;
        };
        let found = self.text_at(at.clone());
        if quantity.unit != Unit::Bytes {
            let help = measured
                .unit
                .is_empty()
                .then(|| format!("write the unit, such as `{found} MiB`"));
            let message = format!(
                "`{found}` is {}, and memory is measured in bytes",
                quantity.unit
            );
            self.report(Kind::UnitMismatch, at, message).help = help;
            return limits::LEAST_MEMORY;
        }
        match limits::memory(quantity.value) {
            Ok(size) => size,
            Err(range) => {
                self.report(
                    Kind::OutOfRange,
                    at,
                    format!("`{found}` is out of range; {range}"),
                );
                limits::LEAST_MEMORY
            }
        }
    }
}
