//! Answers of an agent as the daemon may use them: of the shape that was asked for, without contradictions, their text
//! cleaned. What does not pass is an [`AgentError`]. An answer stays a claim of the guest.

use std::time::Duration;

use agent_protocol::activation::{ActivationReply, Change, ScriptResult};
use agent_protocol::coordination::Consent as WireConsent;
use agent_protocol::limits::{MESSAGE_MAX, NAME_MAX, REPLY_OUTPUT_MAX, RULE_RECORDS_KEPT};
use agent_protocol::message::{
    DeactivationReply, OnlineCpusReply, OpStatus, Reply, ReplyBody, ReplyFault,
};
use agent_protocol::rules::CallReply;
use agent_protocol::{
    CheckedReport, CpuList, GrownReply, Operation, Report, RequestId, RuleRecord, RuleRecordsReply,
    RulesInForce,
};
use persona::domain::DomainId;

use super::error::{AgentError, Retry};
use super::exec::CommandEnd;
use super::settings::{SettingsEnd, settings_end};
use super::words::{GuestWords, Lines};

/// Most environment files that an answer may name; the agent writes two.
const FILES_MAX: usize = 16;

/// A checked answer; which one belongs to which operation is in the variants.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentReply {
    /// To `OnlineCpus`.
    OnlineCpus {
        /// CPUs online afterwards: at least one, all of them present.
        online: CpuList,
        /// CPUs plugged.
        present: CpuList,
        /// Whether any was switched.
        outcome: Change,
    },
    /// To `Activate`: it stands.
    Activated(Activated),
    /// To `Deactivate`: no persona is active.
    Deactivated {
        /// The generation that holds.
        generation: u64,
        /// Whether anything was active before.
        outcome: Change,
        /// Whether open sessions keep the old environment.
        needs_relogin: bool,
        /// What came of the settings that held before; `None` where there were none, or from an agent that knows none.
        settings: Option<SettingsEnd>,
    },
    /// To `OpStatus`.
    Status(RequestStatus),
    /// To `Report`.
    Report(CheckedReport),
    /// To `PrepareShrink`.
    Consent(Consent),
    /// To `Perform`: it begins.
    Called,
    /// To `RuleRecords`: what rules in the guest did, within bounds.
    RuleRecords {
        /// The oldest that have not been seen.
        records: Vec<RuleRecord>,
        /// How many more there are.
        waiting: u64,
        /// The rules that the guest evaluates now, where its agent says it.
        in_force: Option<RulesInForce>,
    },
    /// To `Exec`: it ran.
    Ran(CommandEnd),
    /// To `Grown`.
    Grown {
        /// The first of the guest's hooks that failed, in its words.
        failed: Option<GuestWords>,
    },
}

/// What a guest says about becoming smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// It agrees.
    Agreed,
    /// It does not.
    Refused {
        /// Why, in its words.
        reason: GuestWords,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
}

/// An activation that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activated {
    /// The generation that was asked for.
    pub generation: u64,
    /// Whether anything was done for it.
    pub outcome: Change,
    /// How the `pre` script ended.
    pub pre: Option<ScriptEnd>,
    /// How the `post` script ended.
    pub post: Option<ScriptEnd>,
    /// Files in the guest that hold the environment: to be shown, never opened.
    pub environment_files: Vec<GuestWords>,
    /// Whether open sessions keep the old environment.
    pub needs_relogin: bool,
    /// What came of the settings; `None` where there were none, or from an agent that knows none.
    pub settings: Option<SettingsEnd>,
}

/// How a script in the guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptEnd {
    /// Exit status; absent when a signal ended it.
    pub exit: Option<i32>,
    /// The signal.
    pub signal: Option<i32>,
    /// The end of its output, several lines.
    pub output: GuestWords,
    /// The beginning of the output was left out.
    pub output_truncated: bool,
    /// It was stopped for taking too long.
    pub timed_out: bool,
    /// Milliseconds that it ran.
    pub duration_ms: u64,
}

/// What an agent remembers of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestStatus {
    /// Nothing.
    Unknown,
    /// It is being done.
    Running,
    /// It ended; the same request under the same id gives its result.
    Done,
}

/// What was asked, as far as it says which answers fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    OnlineCpus,
    Activate { generation: u64 },
    Deactivate,
    Status,
    Report,
    PrepareShrink,
    Grown,
    Exec,
    Perform,
    RuleRecords,
    Other,
}

impl Asked {
    pub(super) fn of(operation: &Operation) -> Self {
        match operation {
            Operation::OnlineCpus { .. } => Self::OnlineCpus,
            Operation::Activate { activation } => Self::Activate {
                generation: activation.generation,
            },
            Operation::Deactivate { .. } => Self::Deactivate,
            Operation::OpStatus { .. } => Self::Status,
            Operation::Report => Self::Report,
            Operation::PrepareShrink { .. } => Self::PrepareShrink,
            Operation::Grown { .. } => Self::Grown,
            Operation::Exec { .. } => Self::Exec,
            Operation::Perform { .. } => Self::Perform,
            Operation::RuleRecords { .. } => Self::RuleRecords,
            Operation::Unknown(_) => Self::Other,
        }
    }

    /// The operation's name, for errors and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OnlineCpus => "online_cpus",
            Self::Activate { .. } => "activate",
            Self::Deactivate => "deactivate",
            Self::Status => "op_status",
            Self::Report => "report",
            Self::PrepareShrink => "prepare_shrink",
            Self::Grown => "grown",
            Self::Exec => "exec",
            Self::Perform => "perform",
            Self::RuleRecords => "rule_records",
            Self::Other => "unknown operation",
        }
    }

    /// Whether it changes the guest, so that the agent's journal has it and a second delivery is safe.
    pub(super) fn is_change(self) -> bool {
        matches!(
            self,
            Self::OnlineCpus
                | Self::Activate { .. }
                | Self::Deactivate
                | Self::Exec
                | Self::Perform
        )
    }

    /// Whether it still means the same after the guest has booted again: a persona does, a number of CPUs was computed
    /// for the machine as it was.
    pub(super) fn outlives_a_boot(self) -> bool {
        matches!(self, Self::Activate { .. } | Self::Deactivate)
    }

    /// The answer in a reply's body.
    pub(super) fn read(
        self,
        domain: DomainId,
        id: &RequestId,
        body: ReplyBody,
    ) -> Result<AgentReply, AgentError> {
        let reply = Reply {
            re: id.clone(),
            body,
        };
        let fault = |fault| self.fault(domain, fault);
        match self {
            Self::OnlineCpus => {
                let OnlineCpusReply {
                    online,
                    present,
                    outcome,
                } = reply.into_answer().map_err(fault)?;
                if online.count() == 0 || !online.iter().all(|cpu| present.contains(cpu)) {
                    return Err(self.bad(
                        domain,
                        "its CPUs online are none, or not all of them are present",
                    ));
                }
                Ok(AgentReply::OnlineCpus {
                    online,
                    present,
                    outcome,
                })
            }
            Self::Activate { generation } => {
                let answer: ActivationReply = reply.into_answer().map_err(fault)?;
                if answer.generation != generation {
                    return Err(self.bad(domain, "it speaks of another generation"));
                }
                Ok(AgentReply::Activated(activated(answer)))
            }
            Self::Deactivate => {
                let DeactivationReply {
                    generation,
                    outcome,
                    needs_relogin,
                    settings,
                } = reply.into_answer().map_err(fault)?;
                Ok(AgentReply::Deactivated {
                    generation,
                    outcome,
                    needs_relogin,
                    settings: settings.map(settings_end),
                })
            }
            Self::Status => Ok(AgentReply::Status(
                match reply.into_answer().map_err(fault)? {
                    OpStatus::Unknown => RequestStatus::Unknown,
                    OpStatus::Running => RequestStatus::Running,
                    OpStatus::Done { .. } => RequestStatus::Done,
                },
            )),
            Self::Report => {
                let report: Report = reply.into_answer().map_err(fault)?;
                report
                    .check()
                    .map(AgentReply::Report)
                    .map_err(|refusal| self.bad(domain, refusal))
            }
            Self::PrepareShrink => {
                let consent: WireConsent = reply.into_answer().map_err(fault)?;
                Ok(AgentReply::Consent(match consent.bounded(MESSAGE_MAX) {
                    WireConsent::Agreed => Consent::Agreed,
                    WireConsent::Refused {
                        reason,
                        retry_after_ms,
                    } => Consent::Refused {
                        reason: GuestWords::clean(&reason, MESSAGE_MAX, Lines::One),
                        retry_after: retry_after_ms.map(Duration::from_millis),
                    },
                }))
            }
            Self::Grown => {
                let GrownReply { failed, .. } = reply.into_answer().map_err(fault)?;
                let words = |text: String| GuestWords::clean(&text, MESSAGE_MAX, Lines::One);
                Ok(AgentReply::Grown {
                    failed: failed.map(words),
                })
            }
            Self::Exec => {
                let answer = reply.into_answer().map_err(fault)?;
                Ok(AgentReply::Ran(CommandEnd::of(answer)))
            }
            Self::Perform => {
                let CallReply { .. } = reply.into_answer().map_err(fault)?;
                Ok(AgentReply::Called)
            }
            Self::RuleRecords => {
                let reply: RuleRecordsReply = reply.into_answer().map_err(fault)?;
                let records = reply.records.into_iter().take(RULE_RECORDS_KEPT);
                Ok(AgentReply::RuleRecords {
                    records: records.map(RuleRecord::bounded).collect(),
                    waiting: reply.waiting,
                    in_force: reply.in_force.map(RulesInForce::bounded),
                })
            }
            Self::Other => match reply.into_answer::<serde::de::IgnoredAny>() {
                Ok(_) => Err(self.bad(domain, "the daemon does not know the operation either")),
                Err(cause) => Err(fault(cause)),
            },
        }
    }

    fn bad(self, domain: DomainId, detail: impl std::fmt::Display) -> AgentError {
        AgentError::BadAnswer {
            domain,
            operation: self.name(),
            detail: detail.to_string(),
        }
    }

    fn fault(self, domain: DomainId, fault: ReplyFault) -> AgentError {
        match fault {
            ReplyFault::Refused(error) => AgentError::Refused {
                domain,
                operation: self.name(),
                code: GuestWords::clean(error.code.as_str(), NAME_MAX, Lines::One),
                message: GuestWords::clean(&error.message, MESSAGE_MAX, Lines::One),
                retry: if error.retryable {
                    Retry::Later
                } else {
                    Retry::Never
                },
            },
            // The cause may quote the guest, so only its place is told.
            ReplyFault::Shape(_) => {
                self.bad(domain, "it has another shape than the operation promises")
            }
        }
    }
}

fn activated(answer: ActivationReply) -> Activated {
    let file = |path: String| GuestWords::clean(&path, NAME_MAX, Lines::One);
    Activated {
        generation: answer.generation,
        outcome: answer.outcome,
        pre: answer.pre.map(script_end),
        post: answer.post.map(script_end),
        environment_files: answer
            .environment_files
            .into_iter()
            .take(FILES_MAX)
            .map(file)
            .collect(),
        needs_relogin: answer.needs_relogin,
        settings: answer.settings.map(settings_end),
    }
}

fn script_end(result: ScriptResult) -> ScriptEnd {
    ScriptEnd {
        exit: result.exit,
        signal: result.signal,
        output: GuestWords::clean(&result.output, REPLY_OUTPUT_MAX, Lines::Several),
        output_truncated: result.output_truncated,
        timed_out: result.timed_out,
        duration_ms: result.duration_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DOMAIN: DomainId = DomainId([1; 16]);

    fn read(asked: Asked, value: serde_json::Value) -> Result<AgentReply, AgentError> {
        asked.read(DOMAIN, &RequestId::new("r").unwrap(), ReplyBody::Ok(value))
    }

    fn refused(asked: Asked, value: serde_json::Value) {
        let answer = read(asked, value.clone());
        assert!(
            matches!(answer, Err(AgentError::BadAnswer { .. })),
            "{value}: {answer:?}"
        );
    }

    #[test]
    fn contradictions_and_other_shapes_are_bad_answers() {
        refused(
            Asked::OnlineCpus,
            json!({"online": "", "present": "0", "outcome": "changed"}),
        );
        refused(
            Asked::OnlineCpus,
            json!({"online": "0-3", "present": "0-1", "outcome": "changed"}),
        );
        refused(
            Asked::OnlineCpus,
            json!({"online": "0-99999999", "present": "0", "outcome": "changed"}),
        );
        refused(Asked::OnlineCpus, json!([1, 2]));
        refused(
            Asked::Activate { generation: 7 },
            json!({"generation": 8, "outcome": "changed"}),
        );
        refused(
            Asked::Report,
            json!({"at_ms": 1, "online": "0", "online_count": 1, "present_count": 1,
            "memory_total_kib": 1, "memory_available_kib": 2}),
        );
        refused(Asked::Status, json!({"state": "dreaming"}));
    }

    #[test]
    fn an_activation_keeps_what_is_plausible_and_cleans_its_text() {
        let answer = read(
            Asked::Activate { generation: 7 },
            json!({"generation": 7, "outcome": "changed", "environment_files": vec!["/etc/\u{1b}[2Jx"; 99],
                "pre": {"exit": 0, "output": "a\u{1b}]0;owned\u{7}\nb"}}),
        );
        let Ok(AgentReply::Activated(activated)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(activated.environment_files.len(), FILES_MAX);
        assert_eq!(
            activated.environment_files[0].as_str(),
            "/etc/ [2Jx".replace(" [2J", "")
        );
        assert_eq!(activated.pre.unwrap().output.as_str(), "a\nb");
    }

    #[test]
    fn a_guests_no_is_one_clean_line_and_its_wait_is_bounded() {
        let answer = read(
            Asked::PrepareShrink,
            json!({"answer": "refused", "reason": format!("no\u{1b}[2J\nnever {}", "x".repeat(9999)), "retry_after_ms": u64::MAX}),
        );
        let Ok(AgentReply::Consent(Consent::Refused {
            reason,
            retry_after,
        })) = answer
        else {
            panic!("{answer:?}")
        };
        assert!(reason.as_str().starts_with("no") && reason.as_str().len() <= MESSAGE_MAX);
        assert!(!reason.as_str().chars().any(char::is_control));
        assert_eq!(retry_after, Some(Duration::from_secs(3600)));
        refused(Asked::PrepareShrink, json!({"answer": "perhaps"}));
        refused(Asked::Grown, json!({"ran": -1}));
    }

    #[test]
    fn a_refusal_carries_the_guests_words_without_their_teeth() {
        let body: ReplyBody = serde_json::from_value(
            json!({"err": {"code": "x\n\u{1b}[1m", "message": format!("no\r\nforged {}", "y".repeat(9999)), "retryable": true}}),
        )
        .unwrap();
        let error = Asked::Deactivate
            .read(DOMAIN, &RequestId::new("r").unwrap(), body)
            .unwrap_err();
        let text = error.to_string();
        assert!(
            !text.chars().any(char::is_control) && text.len() < 1000,
            "{text}"
        );
        assert!(matches!(
            error,
            AgentError::Refused {
                retry: Retry::Later,
                ..
            }
        ));
    }
}
