//! What the conversation wants done: handed to the thread whose work it is, or done here where it takes no time. `mod` calls this
//! for each order.

use agent_protocol::{
    local::LocalAnswer,
    message::{ErrorCode, ReplyBody, ReplyError, Retry},
};

use super::{Channel, ChannelError};
use crate::{commands::CommandJob, conversation::Order, disk::DiskJob, log::chain};

impl Channel {
    pub(super) fn carry_out(&mut self, order: Order) -> Result<(), ChannelError> {
        // The other threads live as long as the process; a send to them cannot fail before its end.
        match order {
            Order::Wish { id, wish, deadline } => {
                drop(self.workers.disk.send(DiskJob::Wish { id, wish, deadline }))
            }
            Order::Status { id, about } => {
                drop(self.workers.disk.send(DiskJob::Status { id, about }))
            }
            Order::OnlineCpus {
                id,
                target,
                deadline,
            } => self.workers.commands.send(CommandJob::OnlineCpus {
                id,
                target,
                deadline,
            }),
            Order::Hooks {
                id,
                errand,
                deadline,
            } => self.workers.hooks.begin(id, errand, deadline),
            Order::Exec {
                id,
                command,
                deadline,
            } => drop(self.workers.disk.send(DiskJob::Exec {
                id,
                command,
                deadline,
            })),
            Order::Tell { client, answer } => {
                if let Some(local) = &mut self.local {
                    local.tell(client, &LocalAnswer::Host(*answer));
                }
            }
            Order::Perform { id, call, deadline } => {
                drop(
                    self.workers
                        .disk
                        .send(DiskJob::Perform { id, call, deadline }),
                );
            }
            Order::RuleRecords { id, seen } => {
                let (reply, forgotten) = self
                    .workers
                    .rule_log
                    .page(seen.as_ref(), self.in_force.as_ref());
                if !forgotten.is_empty() {
                    drop(self.workers.disk.send(DiskJob::ForgetRecords(forgotten)));
                }
                let body = serde_json::to_value(reply).map(ReplyBody::Ok);
                self.conversation.finished(
                    id,
                    body.unwrap_or_else(|error| unmeasured(error.to_string())),
                );
            }
            Order::Reread => drop(self.workers.disk.send(DiskJob::Reread)),
            Order::Report { id } => {
                let body = match self.measure()? {
                    Ok(report) => serde_json::to_value(report).map(ReplyBody::Ok),
                    Err(error) => Ok(unmeasured(chain(&error))),
                };
                self.conversation.finished(
                    id,
                    body.unwrap_or_else(|error| unmeasured(error.to_string())),
                );
            }
        }
        Ok(())
    }
}

fn unmeasured(why: String) -> ReplyBody {
    ReplyBody::Err(ReplyError::new(ErrorCode::Unmeasured, why, Retry::Useful))
}
