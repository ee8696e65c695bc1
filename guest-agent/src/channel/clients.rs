//! Programs of the guest that ask something on the agent's own socket: what is theirs is answered here or passed on, and whoever
//! waits for a host that goes is told. The loop of `mod` calls this.

use std::time::Instant;

use agent_protocol::{
    Asked, GuestUser,
    local::{LocalAnswer, LocalCode},
};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{CLIENTS, Channel, ChannelError};
use crate::{
    conversation::Unasked,
    disk::DiskJob,
    local::{ClientId, Heard, RollbackAsk},
    log::chain,
    users::NotAMember,
};

impl Channel {
    pub(super) fn accept_local(&mut self) -> Result<(), ChannelError> {
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let Some(local) = &mut self.local else {
            return Ok(());
        };
        while let Some((client, stream)) = local.accept() {
            self.epoll
                .add(stream, EpollEvent::new(edge, CLIENTS + client.0))
                .map_err(|error| ChannelError::Wait(error.into()))?;
        }
        Ok(())
    }

    pub(super) fn hear_client(&mut self, client: ClientId) {
        let Some(local) = &mut self.local else { return };
        match local.take(client) {
            None => self.conversation.keep_asks(|client| local.waits(client)),
            Some(Heard::Need(_, peer)) if !peer.is_owner() => {
                local.answer(client, "only root may say that memory is needed");
            }
            Some(Heard::Need(need, _)) => {
                let told = self.conversation.need(need, Instant::now());
                let refusal = told.err().map_or_else(String::new, |why| why.to_string());
                local.answer(client, &refusal);
            }
            Some(Heard::Rollback(_, peer)) if !peer.is_owner() => {
                local.answer(
                    client,
                    "only root may have the guest go back to an earlier generation",
                );
            }
            Some(Heard::Rollback(RollbackAsk { to }, _)) => {
                if let Some(client) = local.release(client) {
                    drop(self.workers.disk.send(DiskJob::Rollback { to, client }));
                }
            }
            Some(Heard::Customize(_, peer)) if !peer.is_owner() => {
                local.answer(
                    client,
                    "only root may have something otherwise than the persona says",
                );
            }
            Some(Heard::Customize(ask, _)) => {
                if let Some(client) = local.release(client) {
                    drop(self.workers.disk.send(DiskJob::Customize { ask, client }));
                }
            }
            Some(Heard::Status) => {
                let status = self.conversation.local_status();
                local.tell(client, &LocalAnswer::Status(status));
            }
            // Who asks is looked up where a disk may be waited for.
            Some(Heard::Ask(asked, peer)) => drop(self.workers.disk.send(DiskJob::Identify {
                client,
                peer,
                asked,
            })),
        }
    }

    /// It is known who asks for another persona.
    pub(super) fn ask_host(
        &mut self,
        client: ClientId,
        asked: Asked,
        user: Result<GuestUser, NotAMember>,
    ) {
        let Some(local) = self.local.as_mut().filter(|local| local.waits(client)) else {
            return;
        };
        let user = match user {
            Ok(user) => user,
            Err(error) => return local.refuse(client, LocalCode::NotAllowed, &chain(&error)),
        };
        if let Err(error) = self.conversation.ask(asked, user, client, Instant::now()) {
            let code = match error {
                Unasked::NoHost | Unasked::Deaf => LocalCode::NoHost,
                Unasked::TooSoon => LocalCode::TooSoon,
            };
            local.refuse(client, code, &error.to_string());
        }
    }

    /// Whoever waits for a host that has gone is told so.
    pub(super) fn tell_lost_clients(&mut self) {
        for client in self.conversation.take_lost() {
            if let Some(local) = &mut self.local {
                let reason = "the host has gone; what was asked for may still come about";
                local.refuse(client, LocalCode::HostLost, reason);
            }
        }
    }
}
