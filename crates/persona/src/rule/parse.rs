//! Rule text into rules: the grammar, and the kinds of quantities while it is read. Each problem has its place in the
//! text; the document reader turns that into a place in the file. Actions are in `action`.

use std::ops::Range;
use std::time::Duration;

use super::ast::{Action, Arithmetic, Comparison, Condition, Expr, Value};
use super::check;
use super::lex::{Measured, Token, What, tokens};
use crate::problem::Kind;
use crate::signal::{Metric, MetricError, Unit};

/// Longest rule text, in bytes. A person reads rules; this is far beyond what one reads.
pub(crate) const LONGEST_TEXT: usize = 4096;
/// Deepest nesting of parentheses, so that recursion is bounded.
const DEEPEST: usize = 32;
/// Most arithmetic operations in one text, so that trees of them are bounded, too.
const MOST_OPERATIONS: usize = 64;
/// Longest `FOR` window and cooldown.
const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// A problem with its place in the rule text, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextProblem {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) at: Range<usize>,
    pub(crate) label: Option<String>,
    pub(crate) help: Option<String>,
}

/// What one rule text says; what it leaves out has no value yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleParts {
    pub(crate) when: Condition,
    pub(crate) then: Vec<Action>,
    pub(crate) until: Option<Condition>,
    pub(crate) cooldown: Option<Duration>,
    pub(crate) priority: Option<i32>,
}

/// A whole rule: `IF … THEN … UNTIL … COOLDOWN … PRIORITY …`.
pub(crate) fn rule(text: &str, problems: &mut Vec<TextProblem>) -> Option<RuleParts> {
    run(text, &mut 0, problems, |parser| parser.rule())
}

/// A condition alone; `slot` is the number of the next `FOR` window of the rule that it belongs to.
pub(crate) fn condition(
    text: &str,
    slot: &mut usize,
    problems: &mut Vec<TextProblem>,
) -> Option<Condition> {
    run(text, slot, problems, |parser| {
        parser.take_word("if");
        parser.condition()
    })
}

/// One or more actions alone.
pub(crate) fn actions(text: &str, problems: &mut Vec<TextProblem>) -> Option<Vec<Action>> {
    run(text, &mut 0, problems, |parser| parser.actions())
}

/// A duration alone, within the limits of cooldowns.
pub(crate) fn cooldown(text: &str, problems: &mut Vec<TextProblem>) -> Option<Duration> {
    run(text, &mut 0, problems, |parser| {
        parser.duration("a cooldown", Duration::ZERO)
    })
}

/// A priority alone.
pub(crate) fn priority(text: &str, problems: &mut Vec<TextProblem>) -> Option<i32> {
    run(text, &mut 0, problems, |parser| parser.priority())
}

/// Reads all of `text` with `part`; nothing comes out where there was any problem.
fn run<T>(
    text: &str,
    slot: &mut usize,
    problems: &mut Vec<TextProblem>,
    part: impl FnOnce(&mut Parser<'_>) -> Parsed<T>,
) -> Option<T> {
    if text.len() > LONGEST_TEXT {
        let message = format!(
            "{} bytes are too long for a rule; at most {LONGEST_TEXT} are read",
            text.len()
        );
        problems.push(TextProblem {
            kind: Kind::TooLarge,
            message,
            at: 0..1,
            label: None,
            help: None,
        });
        return None;
    }
    let before = problems.len();
    let tokens = tokens(text);
    let mut parser = Parser {
        text,
        tokens: &tokens,
        next: 0,
        depth: 0,
        operations: 0,
        slot: *slot,
        problems,
    };
    let parsed = part(&mut parser).and_then(|value| parser.end().map(|()| value));
    *slot = parser.slot;
    parsed.ok().filter(|_| problems.len() == before)
}

/// A syntax error ends the reading of one text; it has been reported when this is returned.
pub(crate) struct Stop;
/// What a part of the grammar yields.
pub(crate) type Parsed<T> = Result<T, Stop>;

/// Words that end a name of several words.
const KEYWORDS: [&str; 10] = [
    "if", "then", "until", "cooldown", "priority", "and", "or", "not", "between", "for",
];

/// Functions of the language that this version does not compute.
const FUNCTIONS: [&str; 11] = [
    "avg",
    "min",
    "max",
    "p50",
    "p90",
    "p95",
    "p99",
    "rate",
    "delta",
    "anomaly",
    "predicted",
];

/// Events of the language to which this version does not listen.
const EVENTS: [&str; 8] = [
    "domain.started",
    "domain.rebooted",
    "agent.lost",
    "migration.finished",
    "guest.oom",
    "login.failed",
    "feed.changed",
    "event",
];

/// A value with its kind and place.
struct Typed {
    value: Value,
    kind: check::Kind,
    at: Range<usize>,
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token],
    next: usize,
    depth: usize,
    operations: usize,
    slot: usize,
    problems: &'a mut Vec<TextProblem>,
}

impl<'a> Parser<'a> {
    pub(crate) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next)
    }

    pub(crate) fn peek_second(&self) -> Option<&'a Token> {
        self.tokens.get(self.next + 1)
    }

    pub(crate) fn advance(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.next)?;
        self.next += 1;
        Some(token)
    }

    pub(crate) fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is_word(word));
        self.next += usize::from(found);
        found
    }

    pub(crate) fn take_one_of(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.take_word(word))
    }

    pub(crate) fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is_symbol(symbol));
        self.next += usize::from(found);
        found
    }

    /// The place of the next token, or the end of the text.
    pub(crate) fn here(&self) -> Range<usize> {
        let end = self.text.trim_end().len();
        self.peek().map_or(end..end, |token| token.at.clone())
    }

    /// From `start` to the end of the last token that was read.
    pub(crate) fn since(&self, start: usize) -> Range<usize> {
        let end = self
            .next
            .checked_sub(1)
            .and_then(|last| self.tokens.get(last))
            .map_or(start, |token| token.at.end);
        start..end.max(start)
    }

    pub(crate) fn report(
        &mut self,
        kind: Kind,
        at: Range<usize>,
        message: impl Into<String>,
    ) -> &mut TextProblem {
        let at_index = self.problems.len();
        self.problems.push(TextProblem {
            kind,
            message: message.into(),
            at,
            label: None,
            help: None,
        });
        &mut self.problems[at_index]
    }

    /// Reports what was expected at the next token instead of what is there.
    pub(crate) fn expected<T>(&mut self, what: &str) -> Parsed<T> {
        let at = self.here();
        let help = self.peek().and_then(|token| match token.what {
            What::Symbol("=") => Some("write `==` to compare"),
            What::Symbol("&&") => Some("write AND"),
            What::Symbol("||") => Some("write OR"),
            What::Symbol("!") => Some("write NOT"),
            What::Stray('≥') => Some("write `>=`"),
            What::Stray('≤') => Some("write `<=`"),
            What::OpenQuote => Some("close the quotes"),
            _ => None,
        });
        let message = match self.text.get(at.clone()) {
            Some(found) if !found.is_empty() => format!("expected {what}, found `{found}`"),
            _ => format!("expected {what}, but the rule ends here"),
        };
        let problem = self.report(Kind::RuleSyntax, at, message);
        problem.help = help.map(str::to_owned);
        Err(Stop)
    }

    fn end(&mut self) -> Parsed<()> {
        self.take_symbol(".");
        if self.peek().is_none() {
            return Ok(());
        }
        self.expected("the end of the rule")
    }

    fn rule(&mut self) -> Parsed<RuleParts> {
        self.take_word("if");
        let when = self.condition()?;
        if !self.take_word("then") {
            return self.expected("THEN and an action, or AND, OR, FOR");
        }
        let then = self.actions()?;
        let mut parts = RuleParts {
            when,
            then,
            until: None,
            cooldown: None,
            priority: None,
        };
        while let Some(token) = self.peek() {
            let at = token.at.clone();
            let twice = if self.take_word("until") {
                let until = self.condition()?;
                parts.until.replace(until).is_some()
            } else if self.take_word("cooldown") {
                let cooldown = self.duration("a cooldown", Duration::ZERO)?;
                parts.cooldown.replace(cooldown).is_some()
            } else if self.take_word("priority") {
                let priority = self.priority()?;
                parts.priority.replace(priority).is_some()
            } else {
                break;
            };
            if twice {
                let message = format!("`{}` stands here twice", &self.text[at.clone()]);
                self.report(Kind::Duplicate, at, message);
            }
        }
        Ok(parts)
    }

    fn condition(&mut self) -> Parsed<Condition> {
        let start = self.here().start;
        let before = self.problems.len();
        let expr = self.or()?;
        let condition = Condition { expr };
        if self.problems.len() == before && condition.metrics().next().is_none() {
            let at = self.since(start);
            self.report(
                Kind::RuleSyntax,
                at,
                "this compares numbers with numbers and measures nothing",
            )
            .help = Some("name a metric, such as `cpu.utilization`".to_owned());
        }
        Ok(condition)
    }

    fn or(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.and()?];
        while self.take_word("or") {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.not()?];
        while self.take_word("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn not(&mut self) -> Parsed<Expr> {
        if self.take_word("not") {
            return Ok(Expr::Not(Box::new(self.held()?)));
        }
        self.held()
    }

    fn held(&mut self) -> Parsed<Expr> {
        let opens = self.peek().is_some_and(|token| token.is_symbol("("));
        let inner = if opens && self.is_condition_group() {
            self.nested(|parser| {
                let inner = parser.or()?;
                if parser.take_symbol(")") {
                    Ok(inner)
                } else {
                    parser.expected("`)`, AND, OR or FOR")
                }
            })?
        } else {
            self.comparison()?
        };
        if !self.take_word("for") {
            return Ok(inner);
        }
        let window = self.duration("a FOR window", Duration::from_millis(1))?;
        let slot = self.slot;
        self.slot += 1;
        Ok(Expr::Held {
            inner: Box::new(inner),
            window,
            slot,
        })
    }

    /// Whether the parenthesis that opens here holds a condition and not a sum: a comparison stands in it.
    fn is_condition_group(&self) -> bool {
        let mut open = 0_usize;
        for token in &self.tokens[self.next..] {
            match token.what {
                What::Symbol("(") => open += 1,
                What::Symbol(")") if open <= 1 => return false,
                What::Symbol(")") => open -= 1,
                What::Symbol("<" | "<=" | ">" | ">=" | "==" | "!=" | "=" | "&&" | "||" | "!") => {
                    return true;
                }
                _ if ["between", "and", "or", "not", "for"]
                    .iter()
                    .any(|word| token.is_word(word)) =>
                {
                    return true;
                }
                _ => {}
            }
        }
        true
    }

    /// Steps over the opening parenthesis and reads what is in it, one level deeper.
    fn nested<T>(&mut self, part: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let at = self.here();
        self.depth += 1;
        if self.depth > DEEPEST {
            self.report(
                Kind::TooLarge,
                at,
                format!("parentheses nest deeper than {DEEPEST} levels"),
            );
            return Err(Stop);
        }
        self.advance();
        let inner = part(self)?;
        self.depth -= 1;
        Ok(inner)
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        if let Some(event) = self.event() {
            return Ok(event);
        }
        let left = self.sum()?;
        if self.take_word("between") {
            let low = self.sum()?;
            if !self.take_word("and") {
                return self.expected("AND and the upper end of BETWEEN");
            }
            let high = self.sum()?;
            self.comparable(&left, &low);
            self.comparable(&left, &high);
            if let (Value::Number { value: from, .. }, Value::Number { value: to, .. }) =
                (&low.value, &high.value)
                && from > to
                && low.kind == high.kind
            {
                let (from, to) = (&self.text[low.at.clone()], &self.text[high.at.clone()]);
                let message =
                    format!("nothing is BETWEEN {from} and {to}: the lower end comes first");
                self.report(Kind::Contradiction, low.at.start..high.at.end, message);
            }
            return Ok(Expr::Between {
                value: left.value,
                low: low.value,
                high: high.value,
            });
        }
        let op = match self.peek().map(|token| &token.what) {
            Some(What::Symbol("<")) => Comparison::Less,
            Some(What::Symbol("<=")) => Comparison::LessOrEqual,
            Some(What::Symbol(">")) => Comparison::Greater,
            Some(What::Symbol(">=")) => Comparison::GreaterOrEqual,
            Some(What::Symbol("==")) => Comparison::Equal,
            Some(What::Symbol("!=")) => Comparison::NotEqual,
            _ => return self.expected("a comparison (<, <=, >, >=, ==, != or BETWEEN)"),
        };
        self.advance();
        let right = self.sum()?;
        self.comparable(&left, &right);
        Ok(Expr::Compare {
            left: left.value,
            op,
            right: right.value,
        })
    }

    /// An event, which stands without a comparison. It is reported, and the rest of the rule is read on.
    fn event(&mut self) -> Option<Expr> {
        let What::Word(word) = &self.peek()?.what else {
            return None;
        };
        let lowered = word.to_ascii_lowercase();
        if !EVENTS.contains(&lowered.as_str()) {
            return None;
        }
        let start = self.here().start;
        self.advance();
        self.skip_arguments();
        let at = self.since(start);
        self.report(
            Kind::NotYetSupported,
            at,
            format!("this version does not react to the event `{word}`"),
        )
        .help = Some("compare a metric, such as `cpu.utilization > 80%`".to_owned());
        let nothing = || Value::Number {
            value: 0.0,
            unit: Unit::Count,
        };
        Some(Expr::Compare {
            left: nothing(),
            op: Comparison::Equal,
            right: nothing(),
        })
    }

    fn comparable(&mut self, left: &Typed, right: &Typed) {
        let (Some(one), Some(other)) = (left.kind, right.kind) else {
            return;
        };
        if one == other {
            return;
        }
        let (left_text, right_text) = (&self.text[left.at.clone()], &self.text[right.at.clone()]);
        let message =
            format!("`{left_text}` is {one} and `{right_text}` is {other}; they do not compare");
        // A number without a unit is the one that was forgotten; else the right one is shown.
        let bare = |typed: &Typed, text: &str| {
            typed.kind == Some(Unit::Count) && text.parse::<f64>().is_ok()
        };
        let (at, kind, help) = if bare(right, right_text) {
            (
                right.at.clone(),
                other,
                Some(check::example(right_text, one)),
            )
        } else if bare(left, left_text) {
            (left.at.clone(), one, Some(check::example(left_text, other)))
        } else {
            (right.at.clone(), other, None)
        };
        let problem = self.report(Kind::UnitMismatch, at, message);
        problem.label = Some(kind.to_string());
        problem.help = help.map(|example| format!("write the unit, such as `{example}`"));
    }

    fn sum(&mut self) -> Parsed<Typed> {
        self.joined(
            &[("+", Arithmetic::Add), ("-", Arithmetic::Subtract)],
            Self::term,
        )
    }

    fn term(&mut self) -> Parsed<Typed> {
        self.joined(
            &[("*", Arithmetic::Multiply), ("/", Arithmetic::Divide)],
            Self::factor,
        )
    }

    fn joined(
        &mut self,
        symbols: &[(&str, Arithmetic)],
        part: impl Fn(&mut Self) -> Parsed<Typed>,
    ) -> Parsed<Typed> {
        let mut left = part(self)?;
        while let Some(op) = symbols
            .iter()
            .find(|(symbol, _)| self.take_symbol(symbol))
            .map(|(_, op)| *op)
        {
            let right = part(self)?;
            let at = left.at.start..right.at.end;
            self.operations += 1;
            if self.operations > MOST_OPERATIONS {
                self.report(
                    Kind::TooLarge,
                    at,
                    format!("more than {MOST_OPERATIONS} operations in one rule"),
                );
                return Err(Stop);
            }
            let kind = match check::combine(left.kind, op, right.kind) {
                Ok(kind) => kind,
                Err(message) => {
                    self.report(Kind::UnitMismatch, at.clone(), message);
                    None
                }
            };
            let value = Value::Binary {
                left: Box::new(left.value),
                op,
                right: Box::new(right.value),
            };
            left = Typed { value, kind, at };
        }
        Ok(left)
    }

    fn factor(&mut self) -> Parsed<Typed> {
        let start = self.here().start;
        let negative = self.take_symbol("-");
        let inner = if self.peek().is_some_and(|token| token.is_symbol("(")) {
            self.nested(|parser| {
                let inner = parser.sum()?;
                if parser.take_symbol(")") {
                    Ok(inner)
                } else {
                    parser.expected("`)`")
                }
            })?
        } else {
            self.value()?
        };
        let value = if negative {
            Value::Negate(Box::new(inner.value))
        } else {
            inner.value
        };
        Ok(Typed {
            value,
            kind: inner.kind,
            at: self.since(start),
        })
    }

    fn value(&mut self) -> Parsed<Typed> {
        let Some(token) = self.peek() else {
            return self.expected("a metric or a number");
        };
        match &token.what {
            What::Quantity(measured) => {
                self.advance();
                Ok(self.measured(measured, token.at.clone()))
            }
            What::Word(word) if !is_keyword(word) => Ok(self.name(word, token.at.start)),
            _ => self.expected("a metric or a number"),
        }
    }

    fn measured(&mut self, measured: &Measured, at: Range<usize>) -> Typed {
        match &measured.quantity {
            Ok(quantity) => {
                let value = Value::Number {
                    value: quantity.value,
                    unit: quantity.unit,
                };
                Typed {
                    value,
                    kind: Some(quantity.unit),
                    at,
                }
            }
            Err(error) => {
                self.report(Kind::BadQuantity, at.clone(), error.to_string());
                unknown(at)
            }
        }
    }

    /// A metric, of one word or several, or something of the language that has no value in this version.
    fn name(&mut self, word: &str, start: usize) -> Typed {
        let lowered = word.to_ascii_lowercase();
        let second = self.peek_second();
        let called = second.is_some_and(|token| token.is_symbol("("));
        let indexed = second.is_some_and(|token| token.is_symbol("["));
        let looked_up = indexed && ["priority_metrics", "trust_levels"].contains(&lowered.as_str());
        if called || looked_up {
            self.advance();
            self.skip_arguments();
            let at = self.since(start);
            if looked_up {
                self.report(
                    Kind::NotYetSupported,
                    at.clone(),
                    format!("this version does not read `{lowered}` in rules"),
                );
            } else if FUNCTIONS.contains(&lowered.as_str()) {
                let message = format!("this version does not compute the function `{lowered}`");
                self.report(Kind::NotYetSupported, at.clone(), message).help = Some(
                    "compare the metric itself and let a FOR window ride out short peaks"
                        .to_owned(),
                );
            } else {
                let near = crate::problem::nearest(&lowered, FUNCTIONS);
                let help = near.map(|near| format!("did you mean `{near}`?"));
                self.report(
                    Kind::UnknownMetric,
                    at.clone(),
                    format!("there is no function `{word}`"),
                )
                .help = help;
            }
            return unknown(at);
        }
        self.metric(start)
    }

    /// The longest run of words that names a metric; where none does, all of them are the unknown name.
    fn metric(&mut self, start: usize) -> Typed {
        let words = self.tokens[self.next..]
            .iter()
            .map_while(|token| match &token.what {
                What::Word(word) if !is_keyword(word) => Some(word.as_str()),
                _ => None,
            })
            .take(8)
            .collect::<Vec<_>>();
        for count in (1..=words.len()).rev() {
            let error = match words[..count].join(" ").parse::<Metric>() {
                Ok(metric) => {
                    self.next += count;
                    return Typed {
                        value: Value::Metric(metric),
                        kind: Some(metric.unit()),
                        at: self.since(start),
                    };
                }
                Err(MetricError::Unknown { .. }) if count > 1 => continue,
                Err(error @ MetricError::NotMeasured(_)) => {
                    self.next += count;
                    error
                }
                Err(_) => {
                    self.next += words.len();
                    match words.join(" ").parse::<Metric>() {
                        Err(error) => error,
                        Ok(_) => continue,
                    }
                }
            };
            let at = self.since(start);
            self.report_metric(&error, at.clone());
            return unknown(at);
        }
        unknown(self.since(start))
    }

    fn report_metric(&mut self, error: &MetricError, at: Range<usize>) {
        let names = || Metric::ALL.map(Metric::name).join(", ");
        let (kind, message, help) = match error {
            MetricError::NotMeasured(_) => (
                Kind::NotYetSupported,
                error.to_string(),
                format!("it measures {}", names()),
            ),
            MetricError::Unknown { name, nearest } => {
                let message = format!("there is no metric `{name}`");
                let help = match nearest {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("metrics are {}", names()),
                };
                (Kind::UnknownMetric, message, help)
            }
        };
        self.report(kind, at, message).help = Some(help);
    }

    /// Steps over `(…)` or `[…]`, if one stands here.
    fn skip_arguments(&mut self) {
        let Some(close) = self.peek().and_then(|token| match token.what {
            What::Symbol("(") => Some(("(", ")")),
            What::Symbol("[") => Some(("[", "]")),
            _ => None,
        }) else {
            return;
        };
        let mut open = 0_usize;
        while let Some(token) = self.advance() {
            if token.is_symbol(close.0) {
                open += 1;
            } else if token.is_symbol(close.1) {
                open -= 1;
                if open == 0 {
                    return;
                }
            }
        }
    }

    /// A duration from `least` up to the longest window.
    fn duration(&mut self, what: &str, least: Duration) -> Parsed<Duration> {
        let Some(Token {
            what: What::Quantity(measured),
            at,
        }) = self.peek()
        else {
            return self.expected("a duration, such as 5m");
        };
        self.advance();
        if let Err(error) = &measured.quantity {
            self.report(Kind::BadQuantity, at.clone(), error.to_string());
            return Ok(least);
        }
        let Some(seconds) = measured.of(Unit::Duration) else {
            let found = &self.text[at.clone()];
            let help = measured
                .unit
                .is_empty()
                .then(|| format!("write the unit, such as `{found}s` or `{found}m`"));
            self.report(
                Kind::UnitMismatch,
                at.clone(),
                format!("{what} is a duration, not `{found}`"),
            )
            .help = help;
            return Ok(least);
        };
        let duration = crate::quantity::whole_millis(seconds);
        if duration < least || duration > LONGEST_WINDOW {
            let found = &self.text[at.clone()];
            let from = if least.is_zero() { "0s" } else { "1ms" };
            let message = format!("{what} of {found} is out of range; it is {from} to 30d");
            self.report(Kind::OutOfRange, at.clone(), message);
            return Ok(least);
        }
        Ok(duration)
    }

    fn priority(&mut self) -> Parsed<i32> {
        let start = self.here().start;
        let negative = self.take_symbol("-");
        let Some(Token {
            what: What::Quantity(measured),
            ..
        }) = self.peek()
        else {
            return self.expected("a priority, a whole number");
        };
        self.advance();
        let at = self.since(start);
        let found = &self.text[at.clone()];
        let whole = measured
            .of(Unit::Count)
            .filter(|value| measured.unit.is_empty() && value.fract() == 0.0);
        match whole.filter(|value| *value <= 1000.0) {
            Some(value) => {
                // At most 1000, checked above.
                #[allow(clippy::cast_possible_truncation)]
                let value = value as i32;
                Ok(if negative { -value } else { value })
            }
            None => {
                let message =
                    format!("a priority is a whole number from -1000 to 1000, not `{found}`");
                self.report(Kind::OutOfRange, at, message);
                Ok(0)
            }
        }
    }

    pub(crate) fn text_at(&self, at: Range<usize>) -> &'a str {
        self.text.get(at).unwrap_or_default()
    }
}

pub(crate) fn is_keyword(word: &str) -> bool {
    KEYWORDS
        .iter()
        .any(|keyword| word.eq_ignore_ascii_case(keyword))
}

fn one_or(mut parts: Vec<Expr>, join: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            join(parts)
        }
    }
}

/// Stands for what was reported; the rule never comes out.
fn unknown(at: Range<usize>) -> Typed {
    Typed {
        value: Value::Number {
            value: 0.0,
            unit: Unit::Count,
        },
        kind: None,
        at,
    }
}
