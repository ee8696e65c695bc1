//! How a method call becomes a command: identify, authorise, hand over to the daemon's task, await the answer, await
//! that the bus shows what changed. The three interfaces hold one [`Calls`] each and do nothing of this themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use zbus::message::Header;

use super::authorize::Authority;
use super::error::Failure;
use super::names::Action;
use crate::command::{Caller, Command, Refusal, Reply, Request};
use crate::view::View;

/// How long the daemon's task has for an answer. It answers at once in health; callers of D-Bus usually give up at 25 s.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a change may take to show on the bus before its caller gets the answer all the same.
const SHOWN: Duration = Duration::from_secs(5);

/// Asks the publishing loop to show the latest view, and to say when that is done.
pub(super) type Barrier = oneshot::Sender<()>;

/// The way from the bus to the daemon's task.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) views: watch::Receiver<Arc<View>>,
    pub(super) barriers: mpsc::Sender<Barrier>,
    pub(super) authority: Authority,
}

impl Calls {
    /// The latest view.
    pub(super) fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    /// Asks something that every local user may ask.
    pub(super) async fn ask(&self, call: &Header<'_>, command: Command) -> Result<Reply, Failure> {
        let caller = self.authority.caller(call).await?;
        self.hand_over(command, caller).await
    }

    /// Asks something that only those may ask who are allowed to, because the answer costs more than others do.
    pub(super) async fn ask_if_allowed(
        &self,
        call: &Header<'_>,
        action: Action,
        details: HashMap<&str, &str>,
        command: Command,
    ) -> Result<Reply, Failure> {
        let caller = self.authority.caller(call).await?;
        self.authority
            .check(call, &caller, action, &details)
            .await?;
        self.hand_over(command, caller).await
    }

    /// Changes something, if the caller may.
    pub(super) async fn change(
        &self,
        call: &Header<'_>,
        action: Action,
        details: HashMap<&str, &str>,
        command: Command,
    ) -> Result<Reply, Failure> {
        let reply = self.ask_if_allowed(call, action, details, command).await?;
        let (shown, wait) = oneshot::channel();
        if self.barriers.send(shown).await.is_ok() {
            // Past this time, or when the loop has ended, the change is real all the same: only its object is late.
            let _ = tokio::time::timeout(SHOWN, wait).await;
        }
        Ok(reply)
    }

    async fn hand_over(&self, command: Command, caller: Caller) -> Result<Reply, Failure> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            command,
            caller,
            reply,
        };
        self.requests.try_send(request).map_err(|error| {
            Failure::from(match error {
                mpsc::error::TrySendError::Full(_) => Refusal::Busy {
                    reason: "the daemon has more requests waiting than it takes".to_owned(),
                },
                mpsc::error::TrySendError::Closed(_) => Refusal::Stopping,
            })
        })?;
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(answer)) => answer.map_err(Failure::from),
            Ok(Err(_)) => Err(Failure::from(Refusal::Stopping)),
            Err(_) => Err(Failure::from(Refusal::Failed {
                operation: "the command".to_owned(),
                reason: format!(
                    "the daemon has not answered within {} s; whether it was carried out is not known",
                    ANSWER.as_secs()
                ),
            })),
        }
    }
}

/// A reply of a kind that does not belong to its command: a fault of the daemon.
pub(super) fn unexpected(reply: &Reply) -> Failure {
    tracing::error!(
        ?reply,
        "the daemon answered a command with the reply of another"
    );
    Failure::from(Refusal::Failed {
        operation: "the command".to_owned(),
        reason: "the daemon gave the answer to another question".to_owned(),
    })
}
