//! `learning_domains` and `decay_rate`: what is learnt from, and how fast it is forgotten.

use super::Reader;
use crate::document::Node;
use crate::language::{self, LEARNING};
use crate::limits;
use crate::model::{DecayRate, LearningDomain};
use crate::problem::Kind;
use crate::quantity::{exact_duration, whole_millis};
use crate::signal::Unit;

impl Reader<'_> {
    /// What may be learnt from; a set, so its order does not matter.
    pub(super) fn learning(&mut self, node: &Node) -> Vec<LearningDomain> {
        let key = "learning_domains";
        let mut found = Vec::new();
        for item in self.items(node, key, "domains", LEARNING.len()) {
            let Some(word) = self.word(item, key, LEARNING) else {
                continue;
            };
            let domain = LearningDomain::ALL.iter().find(|(_, words)| *words == word);
            found.extend(domain.map(|(domain, _)| *domain));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A half-life, or the percentage that is forgotten in a time.
    pub(super) fn decay(&mut self, node: &Node) -> Option<DecayRate> {
        let key = "decay_rate";
        let (least, most) = (limits::SHORTEST_DECAY, limits::LONGEST_LIFE);
        let text = self.text_of(node, key, limits::LONGEST_LINE)?;
        let help = || Some("write a half-life such as `7d`, or `10%/day`".to_owned());
        let Some((percent, seconds)) = language::percentage_per(&text) else {
            if text.contains(['%', '/']) {
                let message = format!("`{text}` is no rate of decay");
                self.report(Kind::BadQuantity, node, message, help());
                return None;
            }
            let half_life = self.duration(node, key, (least, most), "7d")?;
            return Some(DecayRate { half_life });
        };
        if percent <= 0.0 || percent >= 100.0 {
            let message = format!("`{text}` is out of range; it is above 0% and below 100%");
            self.report(Kind::OutOfRange, node, message, help());
            return None;
        }
        // After n times (1 - p)^n is left; half is left after ln 2 / -ln(1 - p) of them.
        let times = std::f64::consts::LN_2 / -(1.0 - percent / 100.0).ln();
        let half_life = whole_millis(times * seconds);
        if half_life < least || half_life > most {
            let message = format!(
                "`{text}` is a half-life of {}, which is out of range; it is {} to {}",
                exact_duration(half_life),
                exact_duration(least),
                exact_duration(most)
            );
            self.report(Kind::OutOfRange, node, message, help());
            return None;
        }
        Some(DecayRate { half_life })
    }

    /// A duration of the language, for how long a machine is needed.
    pub(super) fn life(&mut self, node: &Node, key: &str) -> Option<std::time::Duration> {
        let units = [Unit::Duration];
        let seconds = self.quantity(node, key, &units, "90d")?;
        let duration = whole_millis(seconds);
        if duration.is_zero() || duration > limits::LONGEST_LIFE {
            let found = node.scalar().unwrap_or_default();
            let most = exact_duration(limits::LONGEST_LIFE);
            let message =
                format!("`{key}` of {found} is out of range; it is above 0s and at most {most}");
            self.report(Kind::OutOfRange, node, message, None);
            return None;
        }
        Some(duration)
    }
}
