//! What becomes of a request of the host: refused where the guest's owner, the time or its form says so, answered from what is
//! known, or made an order. `mod` calls this for each.

use std::time::{Duration, Instant};

use agent_protocol::{
    Operation, ReplyError, Request, RequestId,
    limits::{ACTIVATIONS_WAITING_MAX, IN_FLIGHT_MAX},
    message::{ErrorCode, OpStatus, ReplyBody, Retry},
};

use super::{Conversation, Order, Size, Waiting, unencodable};
use crate::{
    activate::Wish,
    disk::expired,
    hooks::{Errand, Occasion},
    outbox::Lane,
    policy::Leave,
};

impl Conversation {
    pub(super) fn request(&mut self, request: Request, now: Instant) -> Option<Order> {
        let Request { id, ttl_ms, op } = request;
        let session = self.live.as_ref()?.session.id().clone();
        if let Some(waiting) = self.in_flight.get_mut(&id) {
            // Asked again, perhaps from a new session: one answer goes to whoever asked last.
            waiting.session = session;
            self.dropped.repeated += 1;
            return None;
        }
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return self.refuse(
                id,
                ErrorCode::Busy,
                format!("{IN_FLIGHT_MAX} requests wait already"),
                Retry::Useful,
            );
        }
        let large = matches!(op, Operation::Activate { .. });
        let lane = Lane::of(&op);
        let size = if large { Size::Large } else { Size::Small };
        let large_ones = self
            .in_flight
            .values()
            .filter(|waiting| waiting.size == Size::Large)
            .count();
        if large && large_ones >= ACTIVATIONS_WAITING_MAX {
            let message = format!("{ACTIVATIONS_WAITING_MAX} activations wait already");
            return self.refuse(id, ErrorCode::Busy, message, Retry::Useful);
        }
        if let Some((leave, name)) = self.policy.leave_for(&op)
            && leave == Leave::Denied
        {
            let message = format!("the guest's owner does not allow `{name}` in agent.toml");
            return self.refuse(id, ErrorCode::Forbidden, message, Retry::Useless);
        }
        // A far deadline is as good as none; an hour of waiting bounds what a clock can represent.
        let deadline = now + Duration::from_millis(ttl_ms.min(3_600_000));
        if ttl_ms == 0 {
            self.reply(id, expired());
            return None;
        }
        let order = match op {
            Operation::OnlineCpus { target } => Order::OnlineCpus {
                id: id.clone(),
                target,
                deadline,
            },
            Operation::Activate { activation } => {
                if let Err(refusal) = activation.check() {
                    return self.refuse(
                        id,
                        ErrorCode::Malformed,
                        refusal.to_string(),
                        Retry::Useless,
                    );
                }
                Order::Wish {
                    id: id.clone(),
                    wish: Wish::Activate(activation),
                    deadline,
                }
            }
            Operation::Deactivate { generation } => Order::Wish {
                id: id.clone(),
                wish: Wish::Deactivate { generation },
                deadline,
            },
            Operation::OpStatus { id: about } if self.in_flight.contains_key(&about) => {
                let running = serde_json::to_value(OpStatus::Running);
                self.reply(
                    id,
                    running.map_or_else(|error| ReplyBody::Err(unencodable(&error)), ReplyBody::Ok),
                );
                return None;
            }
            Operation::OpStatus { id: about } => Order::Status {
                id: id.clone(),
                about,
            },
            Operation::Report => Order::Report { id: id.clone() },
            Operation::Perform { call } => {
                if let Err(refusal) = call.check() {
                    let message = refusal.to_string();
                    return self.refuse(id, ErrorCode::Malformed, message, Retry::Useless);
                }
                Order::Perform {
                    id: id.clone(),
                    call,
                    deadline,
                }
            }
            Operation::RuleRecords { seen } => Order::RuleRecords {
                id: id.clone(),
                seen,
            },
            Operation::PrepareShrink { resize } => Order::Hooks {
                id: id.clone(),
                errand: Errand {
                    occasion: Occasion::PreShrink,
                    resize,
                },
                deadline,
            },
            Operation::Grown { resize } => Order::Hooks {
                id: id.clone(),
                errand: Errand {
                    occasion: Occasion::PostGrow,
                    resize,
                },
                deadline,
            },
            Operation::Exec { command } => {
                if let Err(refusal) = command.check() {
                    let message = refusal.to_string();
                    return self.refuse(id, ErrorCode::Malformed, message, Retry::Useless);
                }
                Order::Exec {
                    id: id.clone(),
                    command,
                    deadline,
                }
            }
            Operation::Unknown(name) => {
                let message = format!("the agent does not know the operation `{name}`");
                return self.refuse(id, ErrorCode::Unsupported, message, Retry::Useless);
            }
        };
        self.in_flight.insert(
            id,
            Waiting {
                session,
                size,
                lane,
            },
        );
        Some(order)
    }

    pub(super) fn refuse(
        &mut self,
        id: RequestId,
        code: ErrorCode,
        message: impl AsRef<str>,
        retry: Retry,
    ) -> Option<Order> {
        self.reply(id, ReplyBody::Err(ReplyError::new(code, message, retry)));
        None
    }
}
