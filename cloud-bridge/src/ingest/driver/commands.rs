//! Commands on their way down, and the clock that they expire by.

use std::time::Duration;

use topics::{
    CommandId, GatewayId, Timestamp,
    link::{CommandDown, Frame},
};

use super::{Engine, RESEND_AFTER};
use crate::{
    clock::moved,
    command::{Change, Command},
    hub::Told,
    ingest::{
        link::Link,
        round::{LINK_PARAMS, Pending},
    },
    publisher::Outgoing,
    view::{self, COMMAND_PARAMS},
};

impl Engine {
    /// Looks whether the wall clock was set. Whatever waits for a time of it is moved by as much, and
    /// gateways learn the new time by a hello. Commands are moved only where it was set back: a machine that
    /// was paused looks as if its clock was set forward, and what was asked for an hour ago must not be done.
    pub(super) async fn watch_clock(&mut self) {
        let by_ms = self.steps.look(self.service.clock.read());
        let mut pending = Pending::default();
        if by_ms != 0 {
            tracing::warn!(by_ms, "the clock was set; what waits for a time is moved with it");
            self.move_times(by_ms, &mut pending);
        }
        if self.clock_owed_ms == 0 {
            return;
        }
        let set = Change::ClockSet(self.clock_owed_ms);
        let under_way = self.open.values().filter(|command| !command.status.is_final());
        let changes = under_way.map(|command| (command.id.clone(), set.clone()));
        pending.round.changes = changes.collect();
        if self.commit(pending).await {
            self.clock_owed_ms = 0;
        }
    }

    pub(super) fn move_times(&mut self, by_ms: i64, pending: &mut Pending) {
        self.clock_owed_ms += by_ms.min(0);
        self.next_patrol = moved(self.next_patrol, by_ms);
        self.announce_at = self.announce_at.map(|at| moved(at, by_ms));
        let now = self.service.clock.wall();
        for (gateway, link) in &mut self.links {
            for output in link.clock_set(by_ms) {
                pending.add(&self.service, gateway, super::no_store(), output, &self.open, now);
            }
        }
    }

    /// Now, by the clock that open commands' times are of: where they could not be moved yet, the one
    /// before it was set.
    fn commands_now(&self, now: Timestamp) -> Timestamp {
        moved(now, self.clock_owed_ms.saturating_neg())
    }

    pub(super) fn expire(&self, now: Timestamp, pending: &mut Pending) {
        let (now, run_limit) = (self.commands_now(now), self.service.run_limit);
        let due = |command: &&Command| command.deadline(run_limit).is_some_and(|at| at <= now);
        for command in self.open.values().filter(due) {
            pending.round.changes.push((command.id.clone(), Change::Tick { now, run_limit }));
            pending.ticked.push(command.id.clone());
        }
    }

    /// When time changes commands.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Timestamp> {
        let (run_limit, owed_ms) = (self.service.run_limit, self.clock_owed_ms);
        let deadlines = self.open.values().filter_map(move |command| command.deadline(run_limit));
        deadlines.map(move |at| moved(at, owed_ms))
    }

    pub(super) fn nudged(&mut self, command: Command, now: Timestamp, pending: &mut Pending) {
        if command.status.is_final() {
            if self.open.remove(&command.id).is_some() {
                self.service.hub.tell(Told::Ended(Box::new(command.clone())));
            }
            self.answer(command);
            return;
        }
        let gateway = command.agent.clone();
        let cancel_requested = command.cancel_requested;
        let known = self.open.entry(command.id.clone()).or_insert(command);
        known.cancel_requested |= cancel_requested;
        self.send_commands(&gateway, now, RESEND_AFTER, pending);
    }

    /// Sends what waits for this gateway: never sent, or sent longer ago than `again_after`.
    pub(super) fn send_commands(
        &self,
        gateway: &GatewayId,
        now: Timestamp,
        again_after: Duration,
        pending: &mut Pending,
    ) {
        let session = self.links.get(gateway).and_then(Link::session);
        let (Some(session), true) = (session, self.client.is_some()) else { return };
        if self.clock_owed_ms != 0 {
            return; // their expiries are still of the clock as it was
        }
        let mut due: Vec<&Command> = self
            .open
            .values()
            .filter(|command| command.agent == *gateway && command.wants_sending())
            .filter(|command| now < command.expires_at)
            .filter(|command| command.sent_at.is_none_or(|at| now.since(at) >= again_after))
            .collect();
        due.sort_by_key(|command| command.created_at);
        for command in due {
            match self.command_down(command, session, now) {
                Some(down) => {
                    pending.sends.push((gateway.clone(), Frame::Command(down)));
                    pending.round.changes.push((command.id.clone(), Change::Sent(now)));
                }
                None => tracing::error!(command = %command.id, "its parameters can't be opened"),
            }
        }
    }

    pub(super) fn command_down(
        &self,
        command: &Command,
        session: u64,
        now: Timestamp,
    ) -> Option<CommandDown> {
        let id = command.id.as_str();
        let sealed = match &command.sealed_params {
            Some(sealed) => {
                let plain = view::open_json(&self.service.master, COMMAND_PARAMS, id, sealed)?;
                let key = &self.service.gateways.get(&command.agent)?.link_key;
                Some(view::seal_json(key, LINK_PARAMS, id, &plain)?)
            }
            None => None,
        };
        Some(CommandDown {
            session,
            id: command.id.clone(),
            command: command.command.clone(),
            params: command.params.clone(),
            sealed,
            issued_at: command.created_at,
            expires_at: command.expires_at,
            now,
        })
    }

    /// A command whose time passed and that did not change was ended by somebody else meanwhile.
    pub(super) fn refresh(&mut self, unchanged: impl Iterator<Item = CommandId>) {
        for id in unchanged {
            match self.service.store.command(&id) {
                Ok(Some(command)) if !command.status.is_final() => {
                    self.open.insert(id, command);
                }
                Ok(_) => {
                    self.open.remove(&id);
                }
                Err(error) => tracing::error!(command = %id, %error, "a command can't be read"),
            }
        }
    }

    pub(super) fn answer(&self, command: Command) {
        if command.wants_answer()
            && self.outbox.try_send(Outgoing::Answer(Box::new(command))).is_err()
        {
            tracing::warn!("an answer waits for the next connection: the broker is behind");
        }
    }
}
