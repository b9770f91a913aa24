//! What a request does within its transaction.

use redb::{ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};
use topics::CommandId;

use super::{
    A_COMMAND, AGENT_COMMANDS, AGENT_EVENTS, AGENTS, COMMAND_AGES, COMMANDS, CURSORS, Done,
    EVENT_IDS, EVENTS, Limits, NewEvent, OPEN_COMMANDS, PROBES, PRUNE_STEP, PUBLISHED, Round,
    SET_ASIDE, SET_ASIDE_LIMIT, SETTINGS, StoreError, StoredEvent, TEMPLATES, Template, json,
    parse, readable,
};
use crate::command::{Change, Command};

pub(super) fn apply_round(
    tx: &WriteTransaction,
    round: Round,
    limits: Limits,
) -> Result<Done, StoreError> {
    let mut done = Done { events: add_events(tx, round.events, limits)?, commands: Vec::new() };
    for row in &round.set_aside {
        let mut table = tx.open_table(SET_ASIDE)?;
        let next = table.last()?.map_or(1, |row| row.0.value() + 1);
        table.insert(next, json(row)?.as_slice())?;
        if table.len()? > SET_ASIDE_LIMIT {
            table.pop_first()?;
        }
    }
    for (gateway, store, cursors) in &round.cursors {
        let mut table = tx.open_table(CURSORS)?;
        for cursor in cursors {
            let key = (gateway.as_str(), *store.as_bytes(), cursor.lane.index() as u8);
            table.insert(key, json(cursor)?.as_slice())?;
        }
    }
    for agent in &round.agents {
        tx.open_table(AGENTS)?.insert(agent.id.as_str(), json(agent)?.as_slice())?;
    }
    for (gateway, nonce) in &round.probes {
        tx.open_table(PROBES)?.insert(gateway.as_str(), nonce)?;
    }
    for (id, change) in &round.changes {
        let Some(command) = change_command(tx, id, change)? else { continue };
        done.commands.retain(|earlier| earlier.id != command.id);
        done.commands.push(command);
    }
    for template in &round.templates {
        put_template(tx, template)?;
    }
    Ok(done)
}

/// An id that is there already is the same event come another way (a journal that took a new store
/// id): it is stored once.
fn add_events(
    tx: &WriteTransaction,
    events: Vec<NewEvent>,
    limits: Limits,
) -> Result<Vec<StoredEvent>, StoreError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut table = tx.open_table(EVENTS)?;
    let mut ids = tx.open_table(EVENT_IDS)?;
    let mut by_agent = tx.open_table(AGENT_EVENTS)?;
    let published = tx.open_table(SETTINGS)?.get(PUBLISHED)?.map_or(0, |row| row.value());
    let mut next = table.last()?.map_or(published, |row| row.0.value()) + 1;
    let mut stored = Vec::with_capacity(events.len());
    for event in events {
        // One way down the tree rather than two: nearly all are new.
        let id = *event.id.as_bytes();
        let before = ids.insert(id, next)?.map(|row| row.value());
        if let Some(before) = before {
            tracing::warn!(gateway = %event.gateway, id = %event.id, "this event is stored already");
            ids.insert(id, before)?;
            continue;
        }
        table.insert(next, event.encode().as_slice())?;
        by_agent.insert((event.gateway.as_str(), next), ())?;
        stored.push(StoredEvent { index: next, event });
        next += 1;
    }
    let mut excess = table.len()?.saturating_sub(limits.max_events);
    excess = excess.min(stored.len() as u64 + PRUNE_STEP);
    for _ in 0..excess {
        let Some((index, bytes)) = table.first()?.map(|(i, b)| (i.value(), b.value().to_vec()))
        else {
            break;
        };
        if index > published {
            break;
        }
        table.remove(index)?;
        // What points to one that can't be read stays, and is passed over.
        let Some(old) = readable(NewEvent::decode(&bytes)).transpose()? else { continue };
        ids.remove(*old.id.as_bytes())?;
        by_agent.remove((old.gateway.as_str(), index))?;
    }
    Ok(stored)
}

pub(super) fn create_command(
    tx: &WriteTransaction,
    command: Command,
    limits: Limits,
) -> Result<(Command, bool), StoreError> {
    let mut table = tx.open_table(COMMANDS)?;
    if let Some(row) = table.get(command.id.as_str())? {
        return Ok((parse(row.value(), A_COMMAND)?, false));
    }
    let (id, created) = (command.id.as_str(), command.created_at.as_millis());
    table.insert(id, json(&command)?.as_slice())?;
    let mut ages = tx.open_table(COMMAND_AGES)?;
    let mut by_agent = tx.open_table(AGENT_COMMANDS)?;
    let mut open = tx.open_table(OPEN_COMMANDS)?;
    ages.insert((created, id), ())?;
    by_agent.insert((command.agent.as_str(), created, id), ())?;
    if command.is_open() {
        open.insert(id, ())?;
    }
    if table.len()? > limits.max_commands {
        let oldest = ages.first()?.map(|row| {
            let (at, id) = row.0.value();
            (at, id.to_owned())
        });
        if let Some((at, old)) = oldest.filter(|(_, old)| old != id)
            && open.get(old.as_str())?.is_none()
        {
            let row = table.remove(old.as_str())?;
            let row = row.and_then(|row| readable(parse(row.value(), A_COMMAND)));
            let row: Option<Command> = row.transpose()?;
            ages.remove((at, old.as_str()))?;
            if let Some(row) = row {
                by_agent.remove((row.agent.as_str(), at, old.as_str()))?;
            }
        }
    }
    Ok((command, true))
}

pub(super) fn change_command(
    tx: &WriteTransaction,
    id: &CommandId,
    change: &Change,
) -> Result<Option<Command>, StoreError> {
    let mut table = tx.open_table(COMMANDS)?;
    // One that can't be read must not hold up what else its gateway sent.
    let row = table.get(id.as_str())?.and_then(|row| readable(parse(row.value(), A_COMMAND)));
    let row: Option<Command> = row.transpose()?;
    let Some(next) = row.and_then(|command| command.after(change)) else { return Ok(None) };
    table.insert(id.as_str(), json(&next)?.as_slice())?;
    let mut open = tx.open_table(OPEN_COMMANDS)?;
    if next.is_open() {
        open.insert(id.as_str(), ())?;
    } else {
        open.remove(id.as_str())?;
    }
    Ok(Some(next))
}

pub(super) fn put_template(tx: &WriteTransaction, template: &Template) -> Result<(), StoreError> {
    let key = (template.user.as_str(), template.finger.as_str());
    tx.open_table(TEMPLATES)?.insert(key, json(template)?.as_slice())?;
    Ok(())
}
