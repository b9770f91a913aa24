//! Retained messages for a filter that was subscribed, from [`crate::retained`].
//!
//! They are looked up one by one as the client has room, so nothing of them waits in memory, and what
//! comes late is what is retained then. rumqttd numbers its own messages from 1 to 100 and knows nothing
//! of these: their packet ids are greater.

use std::{sync::atomic::Ordering, time::Instant};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{Error, Packet, Publish, PublishProperties};

use crate::{retained::Message, session::lock, shared::Shared, wire};

use super::{link::Link, output::Output, subscription::Options};

/// The first packet id that rumqttd doesn't use.
const FIRST_ID: u16 = 101;
/// At most so many at a time with QoS 1 and 2, as rumqttd has of its own.
const MAX_OWN: u16 = 100;
/// What is written in one go. Other messages and acknowledgements have their turn then.
const CHUNK_BYTES: usize = 32 << 10;

/// Whether a packet id is one of ours.
pub(super) fn is_own(id: u16) -> bool {
    id >= FIRST_ID
}

/// How far one filter is.
#[derive(Debug)]
pub(super) struct Replay {
    key: usize,
    filter: String,
    /// The topic of the last one sent.
    last: Option<Bytes>,
}

impl Replay {
    pub(super) fn new(key: usize, filter: &str) -> Self {
        Self { key, filter: filter.to_owned(), last: None }
    }
}

impl Output {
    /// Begins one, in place of an earlier one for the same filter.
    pub(super) fn replay(&mut self, replay: Option<Replay>) {
        let Some(replay) = replay else { return };
        self.replays.retain(|earlier| earlier.key != replay.key);
        self.replays.push_back(replay);
    }
}

impl Link {
    /// Appends those for which the client has room.
    pub(super) fn append_retained(
        &self,
        shared: &Shared,
        buffer: &mut BytesMut,
    ) -> Result<(), Error> {
        let mut out = lock(&self.out);
        let full = buffer.len() + CHUNK_BYTES;
        while let Some(replay) = out.replays.front() {
            let options = lock(&self.session.subscriptions).by_key(replay.key);
            let next = options.and_then(|options| {
                let last = replay.last.as_ref();
                let (message, properties) =
                    shared.retained.after(last, &replay.filter, Instant::now())?;
                Some((options, message, properties))
            });
            let Some((options, message, properties)) = next else {
                out.replays.pop_front();
                continue;
            };
            if buffer.len() >= full {
                out.more = true;
                break;
            }
            let topic = message.topic.clone();
            if !self.append_one(shared, &mut out, options, message, properties, buffer)? {
                break;
            }
            if let Some(replay) = out.replays.front_mut() {
                replay.last = Some(topic);
            }
        }
        Ok(())
    }

    /// False if the client has no room.
    fn append_one(
        &self,
        shared: &Shared,
        out: &mut Output,
        options: Options,
        message: Message,
        mut properties: Option<PublishProperties>,
        buffer: &mut BytesMut,
    ) -> Result<bool, Error> {
        if let Some(id) = options.id {
            properties.get_or_insert_default().subscription_identifiers = vec![id];
        }
        let publish = Publish::new(message.topic, message.payload, true);
        let mut packet = BytesMut::new();
        wire::encode(self.session.version, Packet::Publish(publish, properties), &mut packet)?;
        let qos = options.qos.min(message.qos);
        if qos > 0 {
            let Some(id) = out.room.enter_own(FIRST_ID, MAX_OWN) else { return Ok(false) };
            packet = wire::with_id(&packet, qos, id).ok_or(Error::MalformedPacket)?;
            if !self.fits(packet.len()) {
                out.room.leave(id);
            }
        }
        if self.fits(packet.len()) {
            buffer.extend_from_slice(&packet);
            shared.counters.delivered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(true)
    }
}
