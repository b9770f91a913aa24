//! The verdicts on PUBLISH, SUBSCRIBE, UNSUBSCRIBE and on acknowledgements.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use rumqttd::protocol::{
    self, Packet, PubRec, PubRecReason, PubRel, PubRelReason, Publish, PublishProperties,
    RetainForwardRule, SubAck, Subscribe, SubscribeProperties, SubscribeReasonCode, UnsubAck,
    UnsubAckReason, Unsubscribe,
};

use crate::{
    names,
    refusal::Refusal,
    retained::{self, Full, Message},
    session::lock,
    shared::Shared,
    traffic::TopicState,
    wire::Version,
};

use super::{
    check_topic, is_command_request,
    link::{Held, Link, Stop},
    output::{ALIASES, Answer, MAX_QOS2, MAX_QOS2_BYTES, unshared},
    replay::{Replay, is_own},
    stamp::Stamp,
    subscription::{self, Options},
    window::Ack,
};

/// Granted topics remembered for each connection, so that the usual PUBLISH costs one look-up.
const REMEMBERED_TOPICS: usize = 64;

/// What a message may have beside its payload. rumqttd keeps it too, and doesn't count it.
const MAX_USER_PROPERTIES: usize = 64;
const MAX_PROPERTIES_BYTES: usize = 16 << 10;

/// Filters in one SUBSCRIBE or UNSUBSCRIBE; a client holds 64 at a time unless configured otherwise.
const MAX_FILTERS_AT_ONCE: usize = 256;

impl Link {
    pub(super) fn publish(
        &mut self,
        shared: &Shared,
        mut publish: Publish,
        mut properties: Option<PublishProperties>,
        qos: u8,
        id: Option<u16>,
    ) -> Result<(), Stop> {
        if let Some(properties) = &mut properties {
            if properties.user_properties.len() > MAX_USER_PROPERTIES
                || retained::properties_bytes(properties) > MAX_PROPERTIES_BYTES
            {
                return Err(Stop::refuse(Refusal::TooLarge, "properties of a PUBLISH"));
            }
            if !properties.subscription_identifiers.is_empty() {
                return Err(Stop::refuse(Refusal::Protocol, "subscription identifier in PUBLISH"));
            }
            if let Some(alias) = properties.topic_alias.take() {
                self.resolve_alias(&mut publish, alias)?;
            }
        }
        let topic = self.check_publish(shared, &publish)?;
        match (qos, id) {
            (2, Some(id)) if self.qos2.contains_key(&id) => {
                let again = PubRec { pkid: id, reason: PubRecReason::Success };
                self.answer(id, Packet::PubRec(again, None));
            }
            (2, Some(_))
                if self.qos2.len() >= usize::from(MAX_QOS2)
                    || self.qos2_bytes() + publish.payload.len() > MAX_QOS2_BYTES =>
            {
                return Err(Stop::refuse(Refusal::ReceiveMaximum, "QoS 2 messages in flight"));
            }
            (_, id) => {
                self.qos2.extend(id.filter(|_| qos == 2).map(|id| (id, publish.payload.len())));
                self.unsettled = true;
                self.pass_publish(shared, &topic, publish, properties, qos)?;
            }
        }
        Ok(())
    }

    fn pass_publish(
        &mut self,
        shared: &Shared,
        topic: &TopicState,
        mut publish: Publish,
        mut properties: Option<PublishProperties>,
        qos: u8,
    ) -> Result<(), Stop> {
        let qos = self.session.published_qos(qos);
        // What the packet points to are pieces of a read buffer. rumqttd would keep the whole of it in
        // memory for each message that it holds, and count the message only.
        publish.topic = topic.name.clone();
        if let Some(data) = properties.as_mut().and_then(|p| p.correlation_data.as_mut()) {
            *data = Bytes::copy_from_slice(data);
        }
        // rumqttd keeps none: see `retained`.
        let retain = std::mem::take(&mut publish.retain);
        if retain {
            let (name, user) = (topic.name.clone(), self.session.charged());
            let payload = Bytes::copy_from_slice(&publish.payload);
            let message = Message::new(name, payload, properties.clone(), qos, user);
            let noted = shared.retained.note(message, shared.limits.max_retained_bytes_per_user);
            noted.map_err(|Full| Stop::refuse(Refusal::RetainedFull, excerpt(&topic.name)))?;
        }
        // A message that expires may be missing for that reason, so it isn't looked for.
        let expires = properties.as_ref().is_some_and(|p| p.message_expiry_interval.is_some());
        let number = if expires { 0 } else { topic.number() };
        let stamp = Stamp { topic: topic.id, number, publisher: self.publisher, qos, retain };
        publish.payload = stamp.before(&publish.payload);
        if self.is_a_clients() {
            shared.counters.published.fetch_add(1, Ordering::Relaxed);
        }
        let beside = properties.as_ref().map_or(0, retained::properties_bytes);
        topic.append(publish.topic.len() + publish.payload.len(), beside);
        self.pending.push_back(Packet::Publish(publish, properties));
        Ok(())
    }

    fn qos2_bytes(&self) -> usize {
        self.qos2.values().sum()
    }

    fn resolve_alias(&mut self, publish: &mut Publish, alias: u16) -> Result<(), Stop> {
        if alias == 0 || alias > ALIASES {
            return Err(Stop::refuse(Refusal::TopicAlias, format!("alias {alias}")));
        }
        if publish.topic.is_empty() {
            let Some(topic) = self.aliases.get(&alias) else {
                return Err(Stop::refuse(Refusal::TopicAlias, format!("unknown alias {alias}")));
            };
            publish.topic = topic.clone();
        } else {
            self.aliases.insert(alias, Bytes::copy_from_slice(&publish.topic));
        }
        Ok(())
    }

    fn check_publish(
        &mut self,
        shared: &Shared,
        publish: &Publish,
    ) -> Result<Arc<TopicState>, Stop> {
        if publish.payload.len() > shared.limits.max_payload_bytes {
            let what = format!("payload of {} bytes", publish.payload.len());
            return Err(Stop::refuse(Refusal::TooLarge, what));
        }
        if publish.retain && publish.payload.len() > shared.limits.max_retained_bytes {
            let what = format!("retained payload of {} bytes", publish.payload.len());
            return Err(Stop::refuse(Refusal::TooLarge, what));
        }
        let topic = match self.granted_topics.get(&publish.topic) {
            Some(topic) => topic.clone(),
            None => self.grant_topic(shared, &publish.topic)?,
        };
        if publish.retain && is_command_request(shared, &publish.topic) {
            return Err(Stop::refuse(Refusal::RetainedCommand, excerpt(&publish.topic)));
        }
        Ok(topic)
    }

    fn grant_topic(&mut self, shared: &Shared, name: &Bytes) -> Result<Arc<TopicState>, Stop> {
        let refuse = |refusal| Stop::refuse(refusal, excerpt(name));
        check_topic(shared, &self.session.rights, name).map_err(refuse)?;
        let topic = shared.traffic.topic(self.session.charged(), name).map_err(refuse)?;
        if self.granted_topics.len() >= REMEMBERED_TOPICS {
            self.granted_topics.clear();
        }
        self.granted_topics.insert(topic.name.clone(), topic.clone());
        Ok(topic)
    }

    pub(super) fn subscribe(
        &mut self,
        shared: &Shared,
        subscribe: Subscribe,
        properties: Option<SubscribeProperties>,
    ) -> Result<(), Stop> {
        if subscribe.pkid == 0 {
            return Err(Stop::refuse(Refusal::Malformed, "packet id 0"));
        }
        if properties.as_ref().is_some_and(|p| p.id == Some(0)) {
            return Err(Stop::refuse(Refusal::Protocol, "subscription identifier 0"));
        }
        self.count_filters(subscribe.filters.len())?;
        unshared(&mut self.out).losses.forget();
        let id = properties.and_then(|properties| properties.id);
        let mut return_codes = Vec::with_capacity(subscribe.filters.len());
        for filter in subscribe.filters {
            return_codes.push(match self.check_filter(shared, &filter.path) {
                Ok(()) => self.pass_subscribe(subscribe.pkid, &filter, id),
                Err(refusal) => {
                    self.session.warn(shared, refusal, &excerpt(filter.path.as_bytes()));
                    self.failure_code(refusal)
                }
            });
        }
        let ack = SubAck { pkid: subscribe.pkid, return_codes };
        self.answer(subscribe.pkid, Packet::SubAck(ack, None));
        // Retained messages come behind that.
        self.echo(subscribe.pkid, Answer::Waiting);
        Ok(())
    }

    /// Each filter is a packet to the router, so it counts as one; and no packet may have more than is
    /// sensible.
    fn count_filters(&self, filters: usize) -> Result<(), Stop> {
        if filters > MAX_FILTERS_AT_ONCE {
            return Err(Stop::refuse(Refusal::TooManyFilters, format!("{filters} in one packet")));
        }
        let more = filters.saturating_sub(1) as u64;
        self.session.meter.packets.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }

    fn pass_subscribe(
        &mut self,
        packet_id: u16,
        filter: &protocol::Filter,
        id: Option<usize>,
    ) -> SubscribeReasonCode {
        let options = Options::new(filter, id);
        let mut held = lock(&self.session.subscriptions);
        let retained = match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => true,
            RetainForwardRule::OnNewSubscribe => !held.contains(&filter.path),
            RetainForwardRule::Never => false,
        };
        let (key, qos) = held.insert(&filter.path, options);
        let out = unshared(&mut self.out);
        if let Some((key, filter, qos)) = held.tell_apart() {
            out.answers.push_back(Answer::Subscribed(None));
            self.pending.push_back(subscription::packet(packet_id, Some(key), filter, qos));
        }
        let told = held.is_told_apart().then_some(key);
        drop(held);
        let replay = retained.then(|| Replay::new(key, &filter.path));
        out.answers.push_back(Answer::Subscribed(replay));
        self.pending.push_back(subscription::packet(packet_id, told, &filter.path, options.qos));
        match qos {
            0 => SubscribeReasonCode::QoS0,
            1 => SubscribeReasonCode::QoS1,
            _ => SubscribeReasonCode::QoS2,
        }
    }

    fn check_filter(&self, shared: &Shared, filter: &str) -> Result<(), Refusal> {
        if filter.starts_with("$share/") {
            return Err(Refusal::SharedSubscription);
        }
        if !names::is_filter(filter) {
            return Err(Refusal::TopicFilter);
        }
        if !self.session.rights.may_subscribe(&shared.root, filter) {
            return Err(Refusal::Subscribe);
        }
        let held = lock(&self.session.subscriptions);
        if held.len() >= shared.limits.max_filters && !held.contains(filter) {
            return Err(Refusal::TooManyFilters);
        }
        drop(held);
        shared.traffic.subscribe(self.session.charged(), filter)
    }

    fn failure_code(&self, refusal: Refusal) -> SubscribeReasonCode {
        match (self.session.version, refusal) {
            (Version::V311, _) => SubscribeReasonCode::Failure,
            (Version::V5, Refusal::Subscribe) => SubscribeReasonCode::NotAuthorized,
            (Version::V5, Refusal::SharedSubscription) => {
                SubscribeReasonCode::SharedSubscriptionsNotSupported
            }
            (Version::V5, Refusal::TooManyFilters) => SubscribeReasonCode::QuotaExceeded,
            (Version::V5, _) => SubscribeReasonCode::TopicFilterInvalid,
        }
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), Stop> {
        let id = unsubscribe.pkid;
        if id == 0 || unsubscribe.filters.is_empty() {
            return Err(Stop::refuse(Refusal::Malformed, "UNSUBSCRIBE without id or filter"));
        }
        self.count_filters(unsubscribe.filters.len())?;
        if std::mem::take(&mut self.unsettled) {
            // In one go with a message that it is subscribed to itself, rumqttd would forget half of
            // the subscription only: it goes on delivering, and in debug builds its router dies.
            self.held = Some(Held { unsubscribe, behind: Vec::new() });
            self.echo(id, Answer::Settled);
        } else {
            self.pass_unsubscribe(unsubscribe);
        }
        Ok(())
    }

    pub(super) fn pass_unsubscribe(&mut self, unsubscribe: Unsubscribe) {
        let id = unsubscribe.pkid;
        let mut held = lock(&self.session.subscriptions);
        let reasons = unsubscribe
            .filters
            .iter()
            .map(|filter| match held.remove(filter) {
                true => UnsubAckReason::Success,
                false => UnsubAckReason::NoSubscriptionExisted,
            })
            .collect();
        drop(held);
        unshared(&mut self.out).losses.forget();
        // rumqttd answers once for each filter that it knows, or never: `write` drops those.
        self.pending.push_back(Packet::Unsubscribe(unsubscribe, None));
        self.answer(id, Packet::UnsubAck(UnsubAck { pkid: id, reasons }, None));
    }

    pub(super) fn received(&mut self, ack: PubRec) {
        let id = ack.pkid;
        let accepted =
            matches!(ack.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers);
        if accepted && is_own(id) && unshared(&mut self.out).room.has(id) {
            let release = PubRel { pkid: id, reason: PubRelReason::Success };
            return self.answer(id, Packet::PubRel(release, None));
        }
        // If the client refuses the message, there is no second half.
        let ack = if accepted { Ack::Received(id) } else { Ack::Taken(id) };
        if self.acknowledged(id, ack) && !accepted {
            self.leave(id);
        }
    }

    /// Passes an acknowledgement on when it is its turn. Whether the client has such a message.
    pub(super) fn acknowledged(&mut self, id: u16, ack: Ack) -> bool {
        let out = unshared(&mut self.out);
        let known = out.room.has(id) && (is_own(id) || out.publishes.acknowledged(id, ack));
        if !known {
            self.session.meter.packets.fetch_add(1, Ordering::Relaxed);
        }
        self.pending.extend(std::iter::from_fn(|| out.publishes.next()).map(Packet::from));
        known
    }
}

/// The start of a name from outside, for a log line.
fn excerpt(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(120).collect()
}
