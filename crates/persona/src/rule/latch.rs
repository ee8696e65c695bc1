//! When what a rule does once is to be done, and when it is to be taken back: at the moment at which its condition becomes
//! true, and at the one at which its `until` does. What is done is not here. The planner calls this for every rule, the agent
//! in a guest for those that it evaluates itself.

use serde::{Deserialize, Serialize};

use super::eval::Truth;

/// Whether a rule's action is to be done or to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// The rule's condition has become true.
    Begins,
    /// The rule's `until` has become true.
    Ends,
}

/// What is carried of a rule from one evaluation to the next for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    /// It was called for, and its condition has held ever since.
    #[serde(default)]
    pub called: bool,
    /// It is to be taken back when the `until` holds.
    #[serde(default)]
    pub undo: bool,
}

impl Latch {
    /// What follows from an evaluation. `until` is `None` where the rule has none.
    pub fn turn(&mut self, truth: Truth, until: Option<Truth>) -> Option<Edge> {
        let edge = if truth == Truth::True {
            self.undo = until.is_some();
            (!self.called).then_some(Edge::Begins)
        } else if self.undo && until == Some(Truth::True) {
            self.undo = false;
            Some(Edge::Ends)
        } else {
            None
        };
        self.called = truth == Truth::True;
        edge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_called_once_as_long_as_it_holds_and_taken_back_once() {
        use Truth::{False, True, Unknown};
        let mut latch = Latch::default();
        let mut seen = Vec::new();
        for (truth, until) in [
            (False, True),
            (True, False),
            (True, True),
            (Unknown, Unknown),
            (False, True),
            (False, True),
            (True, False),
        ] {
            seen.push(latch.turn(truth, Some(until)));
        }
        let (begins, ends) = (Some(Edge::Begins), Some(Edge::Ends));
        assert_eq!(seen, [None, begins, None, None, ends, None, begins]);
        assert_eq!(latch.turn(False, None), None);
    }
}
