//! What applications of a guest say about themselves, as a part of a report: figures with a name, no more than
//! [`APP_FIGURES_MAX`] of them. [`check`] says which of them a host may believe to be figures at all; what of them may move
//! anything is for rules and trust.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{APP_EVERY_MAX_MS, APP_FIGURES_MAX, APP_NAME_MAX, APP_VALUE_MAX};

/// One figure, as it is on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppFigure {
    /// In small letters; [`is_name`] holds.
    pub name: String,
    /// What the value is.
    pub kind: AppKind,
    /// The latest value of a gauge, the total of a counter since the agent's start.
    pub value: f64,
    /// How long ago it was said, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// How often it is said, in milliseconds; absent where it was said once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
}

/// What the value of a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppKind {
    /// How much there is now: the newest value holds.
    Gauge,
    /// How many there were: it only grows.
    Counter,
    /// A kind of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// One figure that can be.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedAppFigure {
    /// [`is_name`] holds.
    pub name: String,
    /// Gauge or counter.
    pub kind: AppKind,
    /// Finite, at most [`APP_VALUE_MAX`] from zero; not negative for a counter.
    pub value: f64,
    /// How long ago it was said.
    pub age: Duration,
    /// How often it is said, at most [`APP_EVERY_MAX_MS`]; `None` where it was said once.
    pub every: Option<Duration>,
}

/// Whether a text is the name of a figure: parts of `a-z`, `0-9`, `_` and `-` with points between, [`APP_NAME_MAX`] bytes at
/// most.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    };
    text.len() <= APP_NAME_MAX && text.split('.').all(plain)
}

/// Whether a value can be that of a figure of this kind.
#[must_use]
pub fn is_value(value: f64, kind: AppKind) -> bool {
    let least = match kind {
        AppKind::Gauge => -APP_VALUE_MAX,
        AppKind::Counter => 0.0,
        AppKind::Unknown => return false,
    };
    // Written so that a value that is no number fails.
    (least..=APP_VALUE_MAX).contains(&value)
}

/// The figures that can be, the first of each name and no more than [`APP_FIGURES_MAX`]. One that cannot be harms no other.
#[must_use]
pub fn check(figures: &[AppFigure]) -> Vec<CheckedAppFigure> {
    let mut checked: Vec<CheckedAppFigure> = Vec::new();
    for figure in figures {
        if checked.len() >= APP_FIGURES_MAX {
            break;
        }
        let known = || checked.iter().any(|known| known.name == figure.name);
        if is_name(&figure.name) && is_value(figure.value, figure.kind) && !known() {
            let every = figure.every_ms.map(|every| every.min(APP_EVERY_MAX_MS));
            checked.push(CheckedAppFigure {
                name: figure.name.clone(),
                kind: figure.kind,
                value: figure.value,
                age: Duration::from_millis(figure.age_ms),
                every: every.map(Duration::from_millis),
            });
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(name: &str, value: f64) -> AppFigure {
        AppFigure {
            name: name.to_owned(),
            kind: AppKind::Gauge,
            value,
            age_ms: 5,
            every_ms: None,
        }
    }

    #[test]
    fn figures_that_cannot_be_are_left_out_and_harm_no_other() {
        let long = "x".repeat(APP_NAME_MAX + 1);
        let counter = AppFigure {
            kind: AppKind::Counter,
            ..gauge("requests", -1.0)
        };
        let newer = AppFigure {
            kind: AppKind::Unknown,
            ..gauge("sketch", 1.0)
        };
        let mut figures = vec![counter, newer];
        for name in ["", "a..b", ".a", "A", "a b", "a\u{1b}[2J", "é", &long] {
            figures.push(gauge(name, 1.0));
        }
        for value in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e16, -1e300] {
            figures.push(gauge("odd", value));
        }
        figures.extend([gauge("queue", 7.0), gauge("queue", 8.0)]);
        let checked = check(&figures);
        let left: Vec<_> = checked
            .iter()
            .map(|figure| (figure.name.as_str(), figure.value))
            .collect();
        assert_eq!(left, [("queue", 7.0)]);
    }

    #[test]
    fn there_are_only_so_many_and_an_interval_is_bounded() {
        let mut figures: Vec<_> = (0..1000).map(|n| gauge(&format!("f{n}"), 0.0)).collect();
        figures[0].every_ms = Some(u64::MAX);
        let checked = check(&figures);
        assert_eq!(checked.len(), APP_FIGURES_MAX);
        let longest = Duration::from_millis(APP_EVERY_MAX_MS);
        assert_eq!(checked[0].every, Some(longest));
    }

    #[test]
    fn the_most_figures_with_the_longest_names_fit_a_frame() {
        let figure = AppFigure {
            kind: AppKind::Counter,
            age_ms: u64::MAX,
            every_ms: Some(u64::MAX),
            ..gauge(&"x".repeat(APP_NAME_MAX), -123_456_789_012_345.12)
        };
        let text = serde_json::to_string(&vec![figure; APP_FIGURES_MAX]).unwrap();
        assert!(
            text.len() < crate::limits::MAX_FRAME - 4096,
            "{}",
            text.len()
        );
    }
}
