//! Any sequence of activations, customisations, changes by hand, returns and kills leaves the files of the agent as one rule
//! says: what the persona says, over it what is customised everywhere, over that what is customised under this persona.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use agent_protocol::{Activation, Operation, Settings, message::OpStatus};
use harness::{Guest, Peer, activate, activation, debian::debian, fresh_id, ok, recovered};
use proptest::{collection::vec, option, prelude::*};

const PROFILE: &str = "etc/profile.d/50-virt-persona.sh";
const ENVIRONMENT: &str = "etc/environment.d/50-virt-persona.conf";
const PERSONAS: [&str; 2] = ["web", "db"];
/// What can be customised here; the personas say the first and the last.
const KEYS: [&str; 3] = ["environment.A", "environment.B", "sysctl.vm.swappiness"];
const SWAPPINESS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Every,
    Persona(usize),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Activate {
        persona: usize,
        value: u8,
    },
    Deactivate,
    Customize {
        key: usize,
        value: u8,
        sticky: bool,
    },
    Remove {
        key: usize,
    },
    Rollback,
    /// Somebody edits the variable that the personas say, in the file for login shells.
    Edit {
        value: u8,
    },
}

/// What a generation is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    /// The persona, with its value.
    persona: Option<(usize, u8)>,
    overlay: BTreeMap<usize, u8>,
}

/// What the rule says.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    kept: BTreeMap<u64, Held>,
    /// The generation that holds, and the newest of the host's that came about.
    holding: Option<u64>,
    newest: Option<u64>,
    now: Held,
    own: BTreeMap<(Scope, usize), u8>,
    /// A value that somebody has written into the file, and that was not looked at since.
    edited: Option<u8>,
}

/// All that can be seen.
#[derive(Debug, PartialEq)]
struct Seen {
    values: [Option<String>; 3],
    own: BTreeSet<String>,
    holding: Option<u64>,
}

impl Model {
    fn lay_over(&mut self) {
        self.now.overlay.clear();
        let Some((persona, _)) = self.now.persona else {
            return;
        };
        // What is the persona's own comes later in the order of scopes.
        for ((scope, key), value) in &self.own {
            if matches!(scope, Scope::Every) || *scope == Scope::Persona(persona) {
                self.now.overlay.insert(*key, *value);
            }
        }
    }

    /// Changes of what holds are changes of its generation, unless somebody went back to it.
    fn keep(&mut self) {
        if self.holding == self.newest
            && let Some(number) = self.holding
        {
            self.kept.insert(number, self.now.clone());
        }
    }

    fn absorb(&mut self) {
        let (Some(edited), Some((persona, value))) = (self.edited.take(), self.now.persona) else {
            return;
        };
        if edited == *self.now.overlay.get(&0).unwrap_or(&value) {
            return;
        }
        if edited == value && !self.own.contains_key(&(Scope::Every, 0)) {
            self.own.remove(&(Scope::Persona(persona), 0));
        } else {
            self.own.insert((Scope::Persona(persona), 0), edited);
        }
        self.lay_over();
        self.keep();
    }

    /// The step, as the host's next generation where it is the host's.
    fn take(&mut self, step: Step, number: u64) {
        if !matches!(step, Step::Edit { .. }) {
            self.absorb();
        }
        let active = self.now.persona.map(|(persona, _)| persona);
        match step {
            Step::Activate { persona, value } => {
                self.now.persona = Some((persona, value));
                self.lay_over();
                (self.holding, self.newest) = (Some(number), Some(number));
                self.keep();
            }
            Step::Deactivate => {
                self.now = Held::default();
                (self.holding, self.newest) = (Some(number), Some(number));
                self.keep();
            }
            Step::Customize { key, value, sticky } => {
                let scope = match active {
                    _ if sticky => Scope::Every,
                    Some(persona) => Scope::Persona(persona),
                    None => return,
                };
                if self.holding.is_none() {
                    return;
                }
                self.own.insert((scope, key), value);
                self.lay_over();
                self.keep();
            }
            Step::Remove { key } => {
                let here = active.map(Scope::Persona);
                for scope in here.into_iter().chain([Scope::Every]) {
                    if self.own.remove(&(scope, key)).is_some() {
                        self.lay_over();
                        self.keep();
                        break;
                    }
                }
            }
            Step::Rollback => {
                let Some(holding) = self.holding else { return };
                if let Some((number, held)) = self.kept.range(..holding).next_back() {
                    (self.holding, self.now) = (Some(*number), held.clone());
                }
            }
            Step::Edit { value } => {
                if self.now.persona.is_some() {
                    self.edited = Some(value);
                }
            }
        }
    }

    fn seen(&self) -> Seen {
        let said = |key: usize| match (self.now.persona, key) {
            (Some((_, value)), 0 | SWAPPINESS) => Some(value),
            _ => None,
        };
        let value = |key: usize| {
            let value = self.now.overlay.get(&key).copied().or_else(|| said(key));
            value.map(|value| value.to_string())
        };
        let own = self.own.iter().map(|((scope, key), value)| {
            let scope = match scope {
                Scope::Every => "under every persona".to_owned(),
                Scope::Persona(persona) => format!("under {}", PERSONAS[*persona]),
            };
            format!("{}={value} ({scope}", KEYS[*key])
        });
        Seen {
            values: [value(0), value(1), value(SWAPPINESS)],
            own: own.collect(),
            holding: self.holding,
        }
    }
}

/// What root in the guest is told, if it is done.
fn by_hand(guest: &Guest, words: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .args(words)
        .arg("--root")
        .arg(guest.path(""))
        .arg("--state")
        .arg(guest.path("state"))
        .output()
        .unwrap();
    let done = output.status.success();
    done.then(|| String::from_utf8(output.stdout).unwrap())
}

fn look(guest: &Guest) -> Seen {
    let line = |path: &str, begin: String, end: &str| {
        let text = guest.read(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(&*begin))?;
        Some(line.strip_suffix(end).unwrap().to_owned())
    };
    let variable = |name: &str| {
        let value = line(PROFILE, format!("export {name}='"), "'");
        assert_eq!(
            value,
            line(ENVIRONMENT, format!("{name}=\""), "\""),
            "the files differ"
        );
        value
    };
    let parameter = line(
        "etc/sysctl.d/50-virt-persona.conf",
        "vm.swappiness = ".to_owned(),
        "",
    );
    let live = guest
        .read("proc/sys/vm/swappiness")
        .unwrap()
        .trim()
        .to_owned();
    assert_eq!(parameter.clone().unwrap_or("60".to_owned()), live);
    let own = by_hand(guest, &["customize"]).unwrap();
    // How it came about is no part of the rule.
    let own = own.lines().map(|line| line.replace(", found changed", ""));
    let holding = by_hand(guest, &["history"]).unwrap();
    let holding = holding.lines().find(|line| line.ends_with(", holds"));
    let number = |line: &str| {
        let (_, rest) = line.split_once("generation ").unwrap();
        rest.split(':').next().unwrap().parse().unwrap()
    };
    Seen {
        values: [variable("A"), variable("B"), parameter],
        own: own
            .map(|line| line.trim_end_matches(')').to_owned())
            .collect(),
        holding: holding.map(number),
    }
}

fn wish(number: u64, persona: usize, value: u8) -> Activation {
    let value = value.to_string();
    Activation {
        persona: PERSONAS[persona].to_owned(),
        settings: Settings {
            sysctl: [("vm.swappiness".to_owned(), value.clone())].into(),
            ..Settings::default()
        },
        ..activation(number, &[("A", &value)])
    }
}

/// Takes the step, whatever comes of it; `ask` is how the host asks for its part of it.
fn do_it(guest: &Guest, step: Step, number: u64, ask: impl FnOnce(Operation)) {
    let op = match step {
        Step::Activate { persona, value } => activate(wish(number, persona, value)),
        Step::Deactivate => Operation::Deactivate { generation: number },
        Step::Customize { key, value, sticky } => {
            let word = format!("{}={value}", KEYS[key]);
            let words = ["customize", &word, "--sticky"];
            by_hand(guest, &words[..if sticky { 3 } else { 2 }]);
            return;
        }
        Step::Remove { key } => {
            by_hand(guest, &["customize", "--remove", KEYS[key]]);
            return;
        }
        Step::Rollback => {
            by_hand(guest, &["rollback"]);
            return;
        }
        Step::Edit { value } => {
            if let Some(text) = guest.read(PROFILE) {
                let changed = text.lines().map(|line| {
                    if line.starts_with("export A=") {
                        format!("export A='{value}'\n")
                    } else {
                        format!("{line}\n")
                    }
                });
                guest.write(PROFILE, &changed.collect::<String>());
            }
            return;
        }
    };
    ask(op);
}

/// Has the step taken by an agent that kills itself at this point, which may be while it starts.
fn do_it_doomed(guest: &Guest, step: Step, number: u64, point: u8) {
    let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
    // Who asks by hand does not wait until it listens.
    if let Ok(mut peer) = guest.try_connect(&mut agent) {
        peer.is_greeted();
    }
    do_it(guest, step, number, |op| {
        guest.ask_doomed(&mut agent, &fresh_id(), op);
    });
    agent.kill();
}

/// Waits until nothing of the start is under way.
fn settle(peer: &mut Peer) {
    recovered(peer);
    let id = fresh_id();
    ok::<OpStatus>(peer.ask(Operation::OpStatus { id }));
}

fn steps() -> impl Strategy<Value = Vec<(Step, Option<u8>)>> {
    let (key, value) = (0..KEYS.len(), 1..5u8);
    let step = prop_oneof![
        4 => (0..2usize, value.clone())
            .prop_map(|(persona, value)| Step::Activate { persona, value }),
        1 => Just(Step::Deactivate),
        4 => (key.clone(), value.clone(), any::<bool>())
            .prop_map(|(key, value, sticky)| Step::Customize { key, value, sticky }),
        2 => key.prop_map(|key| Step::Remove { key }),
        2 => Just(Step::Rollback),
        2 => value.prop_map(|value| Step::Edit { value }),
    ];
    // More generations than these are not kept.
    vec((step, option::weighted(0.3, 1..60u8)), 1..11)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_file_is_as_persona_and_customisations_say(steps in steps()) {
        let guest = debian();
        let mut model = Model::default();
        let (mut agent, mut peer, _) = guest.greet();
        settle(&mut peer);
        for (number, (step, kill)) in (1..).zip(steps) {
            // Nobody edits what an agent is at: only between.
            let kill = kill.filter(|_| !matches!(step, Step::Edit { .. }));
            let mut before = model.clone();
            model.take(step, number);
            if let Some(point) = kill {
                // What was edited before is taken up at the start, whatever becomes of the step.
                before.absorb();
                agent.kill();
                (agent, peer, _) = guest.greet();
                settle(&mut peer);
                agent.kill();
                do_it_doomed(&guest, step, number, point);
                (agent, peer, _) = guest.greet();
                settle(&mut peer);
                // All of the step, or nothing of it.
                if look(&guest) == before.seen() {
                    model = before;
                }
            } else {
                do_it(&guest, step, number, |op| drop(peer.ask(op)));
            }
            if model.edited.is_none() {
                prop_assert_eq!(look(&guest), model.seen(), "after step {} of {:?}", number, step);
            }
        }
        drop(agent);
    }
}
