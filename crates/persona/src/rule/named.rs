//! What stands in a condition by name: metrics, functions over them, weights and levels of the document.

use std::ops::Range;
use std::time::Duration;

use super::ast::Value;
use super::check::{self, Type};
use super::lex::What;
use super::parse::{Parsed, Parser, is_keyword};
use super::value::Typed;
use super::window::Function;
use crate::limits;
use crate::model::{Class, Level};
use crate::problem::{Kind, nearest};
use crate::signal::{EventKind, Measured, Metric, MetricError, Named, Signal, Unit};

/// How far a metric is from what is usual.
const ANOMALY: &str = "anomaly";
/// What a metric will be.
const PREDICTED: &str = "predicted";
/// Shortest window of a function, and shortest look ahead: nothing measures more often.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
/// Most words of one spoken metric, and some more for the message about one that there is not.
const MOST_WORDS: usize = 8;
/// Why a comparison with something unknown does nothing.
const STAYS_UNKNOWN: &str = "it stays unknown, and a rule fires on true alone";

impl Parser<'_> {
    /// What the word that stands here names.
    pub(super) fn named(&mut self, word: &str) -> Parsed<Typed> {
        let start = self.here().start;
        let lowered = word.to_ascii_lowercase();
        if self.peek_second().is_some_and(|token| token.is_symbol("(")) {
            return self.function(&lowered, start);
        }
        if self.peek_second().is_some_and(|token| token.is_symbol("[")) {
            return self.lookup(&lowered, start);
        }
        if let Some((level, _)) = Level::ALL.iter().find(|(_, name)| *name == lowered) {
            self.advance();
            return Ok(Typed {
                value: Value::Level(*level),
                of: Type::Level,
                at: self.since(start),
            });
        }
        let signal = self.signal();
        let at = self.since(start);
        Ok(match signal {
            Some(signal) => Typed {
                of: type_of(&signal),
                value: Value::Signal(signal),
                at,
            },
            None => Typed::reported(at),
        })
    }

    /// A metric, or what an application or an external source names; `None` where it was reported.
    fn signal(&mut self) -> Option<Signal> {
        let first = self.next;
        let start = self.here().start;
        let signal = match self.peek().map(|token| &token.what) {
            Some(What::Word(word)) if Named::is_meant_by(word) => {
                self.next = self.hyphenated(first);
                let at = self.since(start);
                match self.text_at(at.clone()).parse::<Named>() {
                    Ok(named) => Signal::Named(named),
                    Err(error) => {
                        self.report(Kind::UnknownMetric, at, error.to_string());
                        return None;
                    }
                }
            }
            _ => Signal::Metric(self.metric()?),
        };
        let at = self.since(start);
        match &signal {
            Signal::Metric(metric) => {
                if let Measured::NotYet(_) = metric.measured() {
                    let message = format!("nothing in this version measures `{metric}`");
                    self.inactive(at, message, STAYS_UNKNOWN);
                }
            }
            // What applications say is collected by the guest's agent.
            Signal::Named(named) if named.source().is_none() => {}
            Signal::Named(named) => {
                let message = format!("nothing in this version delivers `{named}`");
                self.inactive(at, message, STAYS_UNKNOWN);
            }
        }
        Some(signal)
    }

    /// The number of the token behind a name with hyphens in it.
    fn hyphenated(&self, first: usize) -> usize {
        let mut next = first + 1;
        while let (Some(hyphen), Some(behind)) = (self.tokens.get(next), self.tokens.get(next + 1))
        {
            // Behind digits a point is no part of a word.
            let glued = (hyphen.is_symbol("-") || hyphen.is_symbol("."))
                && hyphen.at.start == self.tokens[next - 1].at.end
                && behind.at.start == hyphen.at.end
                && matches!(behind.what, What::Word(_) | What::Quantity(_));
            if !glued {
                break;
            }
            next += 2;
        }
        next
    }

    /// The longest run of words that names a metric; where none does, all of them up to a comparison are the unknown name.
    fn metric(&mut self) -> Option<Metric> {
        let start = self.here().start;
        let mut words = self.tokens[self.next..]
            .iter()
            .map_while(|token| match &token.what {
                What::Word(word) if !is_keyword(word) => Some(word.as_str()),
                _ => None,
            })
            .take(MOST_WORDS)
            .collect::<Vec<_>>();
        for count in (1..=words.len()).rev() {
            if let Some(metric) = Metric::named(&words[..count].join(" ")) {
                self.next += count;
                return Some(metric);
            }
        }
        let compared =
            (0..words.len()).find(|index| self.comparison_at(self.next + index).is_some());
        words.truncate(compared.unwrap_or(words.len()));
        if words.is_empty() {
            // The caller saw a word; it is one of a comparison, which names nothing.
            self.advance();
            let at = self.since(start);
            let message = format!(
                "expected a metric or a number, found `{}`",
                self.text_at(at.clone())
            );
            self.report(Kind::RuleSyntax, at, message);
            return None;
        }
        self.next += words.len();
        let asked = words.join(" ");
        let at = self.since(start);
        let help = match asked.parse::<Metric>() {
            Err(MetricError::Unknown {
                nearest: Some(near),
                ..
            }) => format!("did you mean `{near}`?"),
            _ => near_event(&asked).unwrap_or_else(|| family(&asked)),
        };
        let message = format!("there is no metric `{}`", asked.to_ascii_lowercase());
        self.report(Kind::UnknownMetric, at, message).help = Some(help);
        None
    }

    /// `avg(metric, 5m)`, `anomaly(metric)`, `predicted(metric, 10m)`.
    fn function(&mut self, name: &str, start: usize) -> Parsed<Typed> {
        self.advance();
        let name_at = self.since(start);
        let function = Function::named(name);
        if function.is_none() && name != ANOMALY && name != PREDICTED {
            self.skip_arguments();
            let at = self.since(start);
            let functions = Function::ALL.map(Function::name);
            let known = || functions.into_iter().chain([ANOMALY, PREDICTED]);
            let help = match nearest(name, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("functions are {}", known().collect::<Vec<_>>().join(", ")),
            };
            let message = format!("there is no function `{}`", self.text_at(name_at.clone()));
            self.report(Kind::UnknownMetric, name_at, message).help = Some(help);
            return Ok(Typed::reported(at));
        }
        self.take_symbol("(");
        if !matches!(self.peek().map(|token| &token.what), Some(What::Word(word)) if !is_keyword(word))
        {
            return self.expected("a metric");
        }
        let signal = self.signal();
        let window = if name == ANOMALY {
            None
        } else {
            if !self.take_symbol(",") {
                let what = format!("`,` and a window, such as `{name}(cpu.utilization, 5m)`");
                return self.expected(&what);
            }
            Some(self.duration("a window", SHORTEST_WINDOW)?)
        };
        if !self.take_symbol(")") {
            return self.expected("`)`");
        }
        let at = self.since(start);
        let Some(signal) = signal else {
            return Ok(Typed::reported(at));
        };
        let of = type_of(&signal);
        Ok(match (function, window) {
            (Some(function), Some(window)) => Typed {
                of: check::over(function, of),
                value: Value::Function {
                    function,
                    signal,
                    window,
                    slot: self.function_slot(at.clone()),
                },
                at,
            },
            (_, Some(ahead)) => {
                let message = "nothing in this version predicts metrics";
                self.inactive(at.clone(), message, STAYS_UNKNOWN);
                Typed {
                    of,
                    value: Value::Predicted { signal, ahead },
                    at,
                }
            }
            (_, None) => {
                let message = "nothing in this version learns what is usual";
                self.inactive(at.clone(), message, STAYS_UNKNOWN);
                Typed {
                    of: Type::Of(Unit::Count),
                    value: Value::Anomaly(signal),
                    at,
                }
            }
        })
    }

    /// The number of the window of one more function.
    fn function_slot(&mut self, at: Range<usize>) -> usize {
        self.functions += 1;
        if self.functions == limits::MOST_FUNCTIONS + 1 {
            let message = format!("more than {} functions in one rule", limits::MOST_FUNCTIONS);
            self.report(Kind::TooLarge, at, message);
        }
        let slot = self.slot;
        self.slot += 1;
        slot
    }

    /// `priority_metrics[NAME]`, `trust_levels[CLASS]`.
    fn lookup(&mut self, table: &str, start: usize) -> Parsed<Typed> {
        self.advance();
        let table_at = self.since(start);
        self.take_symbol("[");
        let (index, index_at) = self.index()?;
        let at = self.since(start);
        match table {
            "priority_metrics" => Ok(self.weight_of(&index, index_at, at)),
            "trust_levels" => Ok(self.trust_in(&index, index_at, at)),
            _ => {
                let near = nearest(table, ["priority_metrics", "trust_levels"]);
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "write `priority_metrics[NAME]` or `trust_levels[CLASS]`".to_owned(),
                };
                let written = self.text_at(table_at.clone());
                let message = format!("`{written}` has no parts to look up");
                self.report(Kind::UnknownMetric, table_at, message).help = Some(help);
                Ok(Typed::reported(at))
            }
        }
    }

    /// What stands between brackets, quoted or as words, up to and with the closing one.
    fn index(&mut self) -> Parsed<(String, Range<usize>)> {
        let first = self.next;
        while self.peek().is_some_and(|token| !token.is_symbol("]")) {
            self.advance();
        }
        let last = self.next;
        if last == first || self.peek().is_none() {
            return self.expected(if last == first { "a name" } else { "`]`" });
        }
        let at = self.place(first, last);
        self.advance();
        let text = match &self.tokens[first].what {
            What::Text(text) if last == first + 1 => text.as_str(),
            _ => self.text_at(at.clone()),
        };
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok((words.to_ascii_lowercase(), at))
    }

    fn weight_of(&mut self, index: &str, index_at: Range<usize>, at: Range<usize>) -> Typed {
        let metric = Metric::named(index).map(|metric| metric.name().to_owned());
        let name = metric.unwrap_or_else(|| index.to_owned());
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ');
        if name.len() > limits::LONGEST_NAME
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !name.chars().all(allowed)
        {
            let message = format!(
                "`{}` is no name in `priority_metrics`",
                self.text_at(index_at.clone())
            );
            self.report(Kind::BadName, index_at, message).help =
                Some("name a metric or a group, such as `performance`".to_owned());
            return Typed::reported(at);
        }
        Typed {
            value: Value::Priority { name, weight: None },
            of: Type::Of(Unit::Count),
            at,
        }
    }

    fn trust_in(&mut self, index: &str, index_at: Range<usize>, at: Range<usize>) -> Typed {
        let name = index.replace([' ', '-'], "_");
        if let Some((class, _)) = Class::ALL.iter().find(|(_, known)| *known == name) {
            return Typed {
                value: Value::Trust {
                    class: *class,
                    level: None,
                },
                of: Type::Level,
                at,
            };
        }
        let known = Class::ALL.map(|(_, name)| name);
        let help = match nearest(&name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("classes are {}", known.join(", ")),
        };
        let message = format!(
            "there is no class of actions `{}`",
            self.text_at(index_at.clone())
        );
        self.report(Kind::BadName, index_at, message).help = Some(help);
        Typed::reported(at)
    }
}

/// What sort of values a signal has.
fn type_of(signal: &Signal) -> Type {
    signal.unit().map_or(Type::Declared, Type::Of)
}

/// A hint where what was taken for a metric was probably meant for an event.
fn near_event(asked: &str) -> Option<String> {
    let names = EventKind::ALL.map(EventKind::name);
    let near = nearest(&asked.to_ascii_lowercase(), names)?;
    Some(format!("did you mean the event `{near}`?"))
}

/// The metrics among which the one that was meant may be.
fn family(asked: &str) -> String {
    let first = |name: &str| name.split(['.', ' ']).next().map(str::to_ascii_lowercase);
    let names = || Metric::ALL.into_iter().map(Metric::name);
    let relatives: Vec<_> = names().filter(|name| first(name) == first(asked)).collect();
    if !relatives.is_empty() {
        return format!("metrics of that kind are {}", relatives.join(", "));
    }
    let mut firsts: Vec<_> = names().filter_map(first).collect();
    firsts.dedup();
    firsts.sort();
    firsts.dedup();
    format!("names of metrics begin with {}", firsts.join(", "))
}
