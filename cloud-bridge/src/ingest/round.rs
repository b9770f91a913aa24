//! One round of the engine: what is to be committed, and what is to be told once it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use topics::{
    CommandId, Event, EventBody, GatewayId, Record, StoreId, Timestamp, UserId, link::Frame,
};

use super::{
    cursor::Cursor,
    link::{Accepted, Output},
};
use crate::{
    command::{Change, Command, Finish},
    secrets::{self, SealingKey},
    service::Service,
    store::{NewEvent, Round, SetAside, Template},
    view::{self, COMMAND_RESULT},
};

/// The table that a template's seal belongs to.
pub(crate) const TEMPLATES: &str = "templates-v1";
/// The private part of a `command:result`: what its seal is bound to, beside the command's id.
pub(crate) const LINK_RESULT: &str = "command-result";
/// Sealed parameters of a command: what their seal is bound to, beside the command's id.
pub(crate) const LINK_PARAMS: &str = "command-params";

/// A round under way.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) round: Round,
    /// After the commit, in this order.
    pub(super) sends: Vec<(GatewayId, Frame)>,
    /// Gateways whose batches are acknowledged after the commit.
    pub(super) acks: BTreeSet<GatewayId>,
    /// Gateways that said hello and were resumed.
    pub(super) resumed: BTreeSet<GatewayId>,
    /// Gateways whose rows change.
    pub(super) dirty: BTreeSet<GatewayId>,
    /// To be told of gateways: the kind of message.
    pub(super) told: Vec<(GatewayId, &'static str)>,
    /// Commands whose time passed.
    pub(super) ticked: Vec<CommandId>,
    /// The events of the round, parsed, in its order.
    pub(super) parsed: Vec<Event>,
    cursors: BTreeMap<(GatewayId, StoreId), Vec<Cursor>>,
}

/// What is to be committed and told of gateways' rows, and could not be. The rows themselves are the
/// engine's, so this is no more than a few words a gateway.
#[derive(Debug, Default)]
pub(super) struct Owed {
    dirty: BTreeSet<GatewayId>,
    told: Vec<(GatewayId, &'static str)>,
}

impl Owed {
    /// From a round that was not committed.
    pub(super) fn take_over(&mut self, pending: Pending) {
        self.dirty.extend(pending.dirty);
        for word in pending.told {
            // The last one counts.
            self.told.retain(|earlier| *earlier != word);
            self.told.push(word);
        }
    }

    /// The beginning of the next round.
    pub(super) fn pending(self) -> Pending {
        Pending { dirty: self.dirty, told: self.told, ..Pending::default() }
    }
}

impl Pending {
    /// Whether there is nothing to commit and nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.round.is_empty()
            && self.cursors.is_empty()
            && self.dirty.is_empty()
            && self.sends.is_empty()
            && self.acks.is_empty()
            && self.told.is_empty()
    }

    /// What the store commits.
    pub(super) fn take_round(&mut self) -> Round {
        let cursors = std::mem::take(&mut self.cursors);
        let rows = cursors.into_iter().map(|((gateway, store), rows)| (gateway, store, rows));
        self.round.cursors = rows.collect();
        std::mem::take(&mut self.round)
    }

    /// Takes in what needs no knowledge of the gateway's row.
    pub(super) fn add(
        &mut self,
        service: &Service,
        gateway: &GatewayId,
        store: StoreId,
        output: Output,
        open: &HashMap<CommandId, Command>,
        now: Timestamp,
    ) {
        match output {
            Output::Store(accepted) => self.event(service, gateway, *accepted, open, now),
            Output::SetAside { record, reason } => {
                tracing::error!(%gateway, record = ?record, reason, "a record is set aside");
                self.round.set_aside.push(set_aside(gateway, store, &record, reason, now));
            }
            Output::Cursors { store, cursors } => {
                self.cursors.insert((gateway.clone(), store), cursors);
            }
            Output::Received(received) => {
                // Another gateway's command is none of its business.
                if open.get(&received.command).is_none_or(|command| command.agent != *gateway) {
                    return;
                }
                self.round.changes.push((received.command, Change::Received(now)));
            }
            Output::Send(frame) => self.sends.push((gateway.clone(), frame)),
            Output::Alarm(text) => tracing::error!(%gateway, "{text}"),
            Output::Lost { lane, count } => {
                tracing::error!(%gateway, %lane, count, "records are lost: the gateway no longer has them");
            }
            Output::Greeted { .. } | Output::Probed { .. } => {}
        }
    }

    fn event(
        &mut self,
        service: &Service,
        gateway: &GatewayId,
        accepted: Accepted,
        open: &HashMap<CommandId, Command>,
        now: Timestamp,
    ) {
        let Accepted { record, event } = accepted;
        if let Some(id) = &event.command_id {
            match &event.body {
                EventBody::CommandResult { .. } => self.result(service, gateway, &record, &event),
                _ if open.get(id).is_some_and(|command| command.agent == *gateway) => {
                    self.round.changes.push((id.clone(), Change::Running(now)));
                }
                _ => {}
            }
        }
        // A record's JSON was parsed, so it is UTF-8, but perhaps where nobody looked.
        let json = String::from_utf8(record.json().to_vec())
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let (id, lane, gateway) = (event.id, event.lane, gateway.clone());
        self.parsed.push(event);
        self.round.events.push(NewEvent { id, gateway, lane, json });
    }

    /// A result closes the command that it belongs to, if that is one of this gateway's.
    fn result(&mut self, service: &Service, gateway: &GatewayId, record: &Record, event: &Event) {
        let EventBody::CommandResult { status, result, error, finished_at, .. } = &event.body
        else {
            return;
        };
        let Some(id) = &event.command_id else { return };
        let command = match service.store.command(id) {
            Ok(Some(command)) if command.agent == *gateway => command,
            Ok(_) => return,
            Err(error) => {
                tracing::error!(command = %id, %error, "a command can't be read");
                return;
            }
        };
        let private = record.private().and_then(|sealed| {
            let key = &service.gateways.get(gateway)?.link_key;
            let plain = key
                .open(LINK_RESULT, id.as_str(), sealed)
                .inspect_err(|error| {
                    tracing::error!(%gateway, command = %id, %error,
                    "the private part of a result can't be opened")
                })
                .ok()?;
            serde_json::from_slice(&plain).ok()
        });
        let private: Option<serde_json::Map<String, serde_json::Value>> = private;
        if let Some(template) = private.as_ref().and_then(|part| part.get("template")?.as_str())
            && let Some(row) = enrolled(&service.master, &command, event, template)
        {
            self.round.templates.push(row);
        }
        let finish = Finish {
            status: *status,
            result: result.clone(),
            sealed_result: private.and_then(|plain| {
                view::seal_json(&service.master, COMMAND_RESULT, id.as_str(), &plain)
            }),
            error: error.clone(),
            finished_at: *finished_at,
        };
        self.round.changes.push((id.clone(), Change::Finished(Box::new(finish))));
    }
}

/// The template of a finger that was enrolled from here: kept for its user, as if it had been posted.
fn enrolled(
    master: &SealingKey,
    command: &Command,
    event: &Event,
    template: &str,
) -> Option<Template> {
    let EventBody::CommandResult { result, finished_at, .. } = &event.body else { return None };
    if command.command != topics::CommandName::Enroll.as_str() {
        return None;
    }
    let user: UserId = serde_json::from_value(command.params.get("userId")?.clone()).ok()?;
    let position = command.params.get("metadata").and_then(|data| data.get("fingerPosition"));
    let position = position.or_else(|| command.params.get("fingerPosition"));
    let field = |name: &str| result.as_ref()?.get(name);
    seal_template(master, user, position.and_then(|name| name.as_str()), template)
        .map(|row| Template {
            quality: field("quality").and_then(|q| u8::try_from(q.as_u64()?).ok()),
            enrollment_id: field("enrollmentId").and_then(|id| Some(id.as_str()?.to_owned())),
            enrolled_at: *finished_at,
            ..row
        })
        .ok()
}

/// The row of a template, sealed.
pub(crate) fn seal_template(
    master: &SealingKey,
    user: UserId,
    finger: Option<&str>,
    template: &str,
) -> Result<Template, secrets::SealError> {
    use base64::Engine as _;
    let finger = finger.unwrap_or("unknown").to_owned();
    let place = format!("{user}/{finger}");
    let sealed = master.seal(TEMPLATES, &place, template.as_bytes())?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(template).unwrap_or_default();
    Ok(Template {
        user,
        finger,
        sealed: base64::engine::general_purpose::STANDARD.encode(sealed),
        sha256: hex::encode(secrets::sha256(&bytes)),
        quality: None,
        enrollment_id: None,
        enrolled_at: Timestamp::default(),
    })
}

/// The template of a row.
pub(crate) fn open_template(master: &SealingKey, row: &Template) -> Option<String> {
    use base64::Engine as _;
    let sealed = base64::engine::general_purpose::STANDARD.decode(&row.sealed).ok()?;
    let plain = master.open(TEMPLATES, &format!("{}/{}", row.user, row.finger), &sealed).ok()?;
    String::from_utf8(plain).ok()
}

fn set_aside(
    gateway: &GatewayId,
    store: StoreId,
    record: &Record,
    reason: String,
    at: Timestamp,
) -> SetAside {
    use base64::Engine as _;
    SetAside {
        gateway: gateway.clone(),
        store,
        lane: record.lane(),
        seq: record.seq(),
        reason,
        at,
        record: base64::engine::general_purpose::STANDARD.encode(record.as_bytes()),
    }
}
