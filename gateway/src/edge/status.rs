//! The retained states.

use std::{collections::HashMap, time::Instant};

use topics::{
    ConnectionState, GatewayId, GatewayStatus, ReaderId, ReaderSummary, Root, Timestamp, Topic,
    UplinkState,
};

/// A retained message.
pub(super) type Retained = (String, Vec<u8>);

/// What is said about the gateway and its readers.
pub(super) struct Board {
    gateway: GatewayId,
    root: Root,
    since: Timestamp,
    started: Instant,
    told: HashMap<ReaderId, ReaderSummary>,
}

impl Board {
    pub(super) fn new(gateway: GatewayId, root: Root, since: Timestamp, started: Instant) -> Self {
        Self { gateway, root, since, started, told: HashMap::new() }
    }

    fn topic(&self) -> String {
        Topic::GatewayStatus { gateway: self.gateway.clone() }.format(&self.root)
    }

    /// A new connection: the broker may have forgotten all that was said.
    pub(super) fn restart(&mut self) {
        self.told.clear();
    }

    /// The gateway as it is now.
    pub(super) fn online(&self, readers: &[ReaderSummary], uplink: &UplinkState) -> Retained {
        let readers =
            readers.iter().map(|reader| ReaderSummary { since: None, ..reader.clone() }).collect();
        let status = GatewayStatus {
            gateway: self.gateway.clone(),
            state: ConnectionState::Online,
            since: Some(self.since),
            version: Some(crate::VERSION.to_owned()),
            uptime_seconds: Some(self.started.elapsed().as_secs()),
            uplink: Some(uplink.clone()),
            readers: Some(readers),
        };
        (self.topic(), encode(&status))
    }

    /// What the Last Will says.
    pub(super) fn will(&self) -> Retained {
        (self.topic(), encode(&GatewayStatus::offline(self.gateway.clone())))
    }

    /// The last word at a clean stop.
    pub(super) fn offline(&self, now: Timestamp) -> Retained {
        let status =
            GatewayStatus { since: Some(now), ..GatewayStatus::offline(self.gateway.clone()) };
        (self.topic(), encode(&status))
    }

    /// The readers whose state is not what was last said.
    pub(super) fn changed(&mut self, readers: &[ReaderSummary]) -> Vec<Retained> {
        let mut changed = Vec::new();
        for reader in readers {
            if self.told.get(&reader.id) == Some(reader) {
                continue;
            }
            let topic =
                Topic::ReaderStatus { gateway: self.gateway.clone(), reader: reader.id.clone() };
            changed.push((topic.format(&self.root), encode(reader)));
            self.told.insert(reader.id.clone(), reader.clone());
        }
        changed
    }
}

fn encode<T: serde::Serialize>(status: &T) -> Vec<u8> {
    // Texts, numbers and options: nothing in a status can fail to encode.
    serde_json::to_vec(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use topics::ReaderState;

    use super::*;

    #[test]
    fn a_readers_state_is_told_once_a_change_and_again_after_a_reconnect() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut board = Board::new("hq".parse().unwrap(), Root::default(), now, Instant::now());
        let mut reader = ReaderSummary {
            id: "device-001".parse().unwrap(),
            serial_number: "S".to_owned(),
            model: "M".to_owned(),
            status: ReaderState::Idle,
            since: Some(now),
        };
        let told = board.changed(std::slice::from_ref(&reader));
        assert_eq!(told[0].0, "ridgeway/v1/hq/readers/device-001/status");
        assert!(board.changed(std::slice::from_ref(&reader)).is_empty());
        reader.status = ReaderState::Busy;
        assert_eq!(board.changed(std::slice::from_ref(&reader)).len(), 1);
        board.restart();
        assert_eq!(board.changed(&[reader]).len(), 1);
    }

    #[test]
    fn the_last_will_says_two_things() {
        let now = Timestamp::from_millis(0);
        let board = Board::new("hq".parse().unwrap(), Root::default(), now, Instant::now());
        let (topic, will) = board.will();
        assert_eq!(topic, "ridgeway/v1/hq/status");
        assert_eq!(will, br#"{"gateway":"hq","state":"offline"}"#);
    }
}
