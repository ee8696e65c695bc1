//! qemu-guest-agent in place of virt-persona's own agent, in guests that have no other: CPUs are brought online, variables
//! are written and scripts are run through it. It knows no transaction, no credits and no reports, so this is less than the
//! agent does, and what is left out is said. When to ask it is decided by `daemon` (activations) and `act` (CPUs).
//!
//! Only commands of its documented interface are sent (qemu-ga-ref(7)), each as text through the hypervisor. All that comes
//! back is a claim of the guest.

mod activate;
mod error;
mod program;

use std::sync::Arc;
use std::time::Duration;

use persona::domain::DomainId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::hypervisor::Hypervisor;

pub use activate::{Done, ScriptEnd};
pub use error::StandInError;

/// One command is answered at once by an agent that is there.
const ANSWER: Duration = Duration::from_secs(10);

/// The way to the qemu-guest-agents of all domains.
#[derive(Clone)]
pub struct StandIn {
    hypervisor: Arc<dyn Hypervisor>,
}

/// CPUs of a guest, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Online.
    pub online: u32,
    /// There, online or not.
    pub present: u32,
}

/// One CPU as `guest-get-vcpus` tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cpu {
    logical_id: u32,
    online: bool,
    #[serde(default)]
    can_offline: bool,
}

impl StandIn {
    /// Through this hypervisor.
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { hypervisor }
    }

    /// Makes `target` CPUs online, the lowest, and says what the guest shows then.
    ///
    /// # Errors
    /// When the guest's agent is not there or does not do it.
    pub async fn online_cpus(&self, domain: DomainId, target: u32) -> Result<Cpus, StandInError> {
        let before = self.list(domain).await?;
        let changes = changes(&before, target);
        if !changes.is_empty() {
            let vcpus: Vec<Value> = changes
                .iter()
                .map(|(cpu, online)| json!({"logical-id": cpu, "online": online}))
                .collect();
            self.ask(domain, error::SET_CPUS, json!({ "vcpus": vcpus }))
                .await?;
        }
        self.cpus(domain).await
    }

    /// What the guest shows of its CPUs.
    ///
    /// # Errors
    /// When the guest's agent is not there.
    pub async fn cpus(&self, domain: DomainId) -> Result<Cpus, StandInError> {
        Ok(count(&self.list(domain).await?))
    }

    async fn list(&self, domain: DomainId) -> Result<Vec<Cpu>, StandInError> {
        let command = "guest-get-vcpus";
        let answer = self.ask(domain, command, json!({})).await?;
        serde_json::from_value(answer).map_err(|error| StandInError::Strange {
            command,
            detail: error.to_string(),
        })
    }

    /// Sends one command and gives what it returned.
    async fn ask(
        &self,
        domain: DomainId,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, StandInError> {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        let answer = self
            .hypervisor
            .guest_agent_command(domain, text, ANSWER)
            .await
            .map_err(|source| StandInError::Unanswered { command, source })?;
        let strange = |detail: String| StandInError::Strange { command, detail };
        let mut answer: Value =
            serde_json::from_str(&answer).map_err(|error| strange(error.to_string()))?;
        answer
            .get_mut("return")
            .map(Value::take)
            .ok_or_else(|| strange("it has no `return`".into()))
    }
}

/// Which CPUs change, and to what, so that the `target` lowest are online as far as the guest lets them go.
fn changes(cpus: &[Cpu], target: u32) -> Vec<(u32, bool)> {
    let mut cpus = cpus.to_vec();
    cpus.sort_by_key(|cpu| cpu.logical_id);
    let target = usize::try_from(target).unwrap_or(usize::MAX);
    let wanted = cpus.iter().enumerate().map(|(number, cpu)| {
        let online = number < target || (cpu.online && !cpu.can_offline);
        (cpu, online)
    });
    wanted
        .filter(|(cpu, online)| cpu.online != *online)
        .map(|(cpu, online)| (cpu.logical_id, online))
        .collect()
}

fn count(cpus: &[Cpu]) -> Cpus {
    let size = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Cpus {
        online: size(cpus.iter().filter(|cpu| cpu.online).count()),
        present: size(cpus.len()),
    }
}

/// The guest's words, cut and without what could steer a terminal.
fn words(bytes: &[u8]) -> String {
    const MOST: usize = 400;
    let text = String::from_utf8_lossy(bytes);
    let clean: String = text
        .trim()
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    // What is said last is most often why.
    let skipped = clean.chars().count().saturating_sub(MOST);
    clean.chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(online: &[bool]) -> Vec<Cpu> {
        let cpu = |(number, online): (usize, &bool)| Cpu {
            logical_id: u32::try_from(number).unwrap(),
            online: *online,
            can_offline: number > 0,
        };
        online.iter().enumerate().map(cpu).rev().collect()
    }

    #[test]
    fn the_lowest_cpus_are_online_and_the_first_stays_so() {
        let four = cpus(&[true, true, false, false]);
        assert_eq!(changes(&four, 3), [(2, true)]);
        assert_eq!(changes(&four, 2), []);
        assert_eq!(changes(&four, 1), [(1, false)]);
        assert_eq!(changes(&four, 0), [(1, false)]);
        assert_eq!(changes(&four, 9), [(2, true), (3, true)]);
        assert_eq!(
            changes(&cpus(&[true, false, true]), 2),
            [(1, true), (2, false)]
        );
    }

    #[test]
    fn an_agent_that_says_nothing_of_going_offline_is_taken_to_refuse_it() {
        let answer =
            r#"[{"logical-id":0,"online":true},{"logical-id":1,"online":true,"can-offline":true}]"#;
        let cpus: Vec<Cpu> = serde_json::from_str(answer).unwrap();
        assert_eq!(changes(&cpus, 0), [(1, false)]);
        assert_eq!(
            count(&cpus),
            Cpus {
                online: 2,
                present: 2
            }
        );
    }

    #[test]
    fn words_of_a_guest_are_cut_and_steer_no_terminal() {
        assert_eq!(words(b" a\x1b[2Jb\n"), "a [2Jb");
        assert_eq!(words(&[b'x'; 5000]).len(), 400);
        assert_eq!(words(b"\xff"), "\u{fffd}");
    }
}
