//! The retained states on the cloud's broker: of the gateway and of its readers.

use std::{collections::HashMap, time::Instant};

use serde::Serialize;
use topics::{
    ConnectionState, GatewayStatus, ReaderId, ReaderState, ReaderSummary, Timestamp, Topic,
    UplinkState,
};

use super::UplinkConfig;

/// What was told, so that only what changed is told again.
#[derive(Debug)]
pub(super) struct Board {
    started: Instant,
    since: Timestamp,
    readers: HashMap<ReaderId, (ReaderState, Timestamp)>,
}

/// A retained packet.
#[derive(Debug)]
pub(super) struct Retained {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

impl Board {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { started: Instant::now(), since: now, readers: HashMap::new() }
    }

    /// A new connection: everything is told again.
    pub(super) fn connected(&mut self, now: Timestamp) {
        self.since = now;
        self.readers.clear();
    }

    pub(super) fn gateway(
        &self,
        config: &UplinkConfig,
        uplink: UplinkState,
        readers: &[ReaderSummary],
    ) -> Retained {
        let status = GatewayStatus {
            gateway: config.gateway.clone(),
            state: ConnectionState::Online,
            since: Some(self.since),
            version: Some(config.agent.version.clone()),
            uptime_seconds: Some(self.started.elapsed().as_secs()),
            uplink: Some(uplink),
            readers: Some(readers.to_vec()),
        };
        let topic = Topic::GatewayStatus { gateway: config.gateway.clone() };
        Retained { topic: topic.format(&config.root), payload: encode(&status) }
    }

    pub(super) fn offline(&self, config: &UplinkConfig, now: Timestamp) -> Retained {
        let status =
            GatewayStatus { since: Some(now), ..GatewayStatus::offline(config.gateway.clone()) };
        let topic = Topic::GatewayStatus { gateway: config.gateway.clone() };
        Retained { topic: topic.format(&config.root), payload: encode(&status) }
    }

    /// The readers whose state changed.
    pub(super) fn readers(
        &mut self,
        config: &UplinkConfig,
        readers: &[ReaderSummary],
        now: Timestamp,
    ) -> Vec<Retained> {
        let changed = readers.iter().filter_map(|reader| {
            let told = self.readers.get(&reader.id);
            if told.is_some_and(|(status, _)| *status == reader.status) {
                return None;
            }
            let since = reader.since.unwrap_or(now);
            self.readers.insert(reader.id.clone(), (reader.status, since));
            let summary = ReaderSummary { since: Some(since), ..reader.clone() };
            let (gateway, reader) = (config.gateway.clone(), reader.id.clone());
            let topic = Topic::ReaderStatus { gateway, reader };
            Some(Retained { topic: topic.format(&config.root), payload: encode(&summary) })
        });
        changed.collect()
    }
}

pub(super) fn encode(status: &impl Serialize) -> Vec<u8> {
    // Texts and numbers: this can't fail.
    serde_json::to_vec(status).unwrap_or_default()
}
