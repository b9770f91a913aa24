//! Valid packets in orders that no client should say them in, over a few connections that share names,
//! are cut at odd places, come again and vanish.

use std::io::Write as _;

use arbitrary::{Arbitrary, Unstructured};
use socket2::SockRef;

use crate::{
    Peer, USERS, bear,
    packets::{self, Connect, Publish, Version},
};

/// Connections at the same time.
const SLOTS: usize = 3;
const STEPS: usize = 48;

/// Names of every kind: granted to one or another, nobody's, and not valid.
const NAMES: [&str; 18] = [
    "ridgeway/v1/hq/status",
    "ridgeway/v1/hq/readers/r1/status",
    "ridgeway/v1/hq/readers/r1/events/scan/complete",
    "ridgeway/v1/hq/commands/request",
    "ridgeway/v1/g1/commands/request",
    "ridgeway/v1/g1/status",
    "ridgeway/v1/+/status",
    "ridgeway/v1/+/commands/request",
    "ridgeway/v1/#",
    "ridgeway/v1/hq/readers/#",
    "ridgeway-link/v1/00/hq/up",
    "ridgeway-link/v1/+/+/up",
    "",
    "é/x",
    "$SYS/x",
    "$share/g/ridgeway/v1/#",
    "#",
    "ridgeway-broker/beat",
];

#[derive(Debug, Arbitrary)]
pub struct Scene {
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Open {
        slot: u8,
        hello: Hello,
        wait: bool,
    },
    Say {
        slot: u8,
        packet: Packet,
        hold: bool,
    },
    /// Says what is held, cut in two.
    Cut {
        slot: u8,
        at: u8,
    },
    /// Reads what is there, and acknowledges it or not.
    Take {
        slot: u8,
        acknowledge: bool,
    },
    Close {
        slot: u8,
        how: Close,
    },
}

#[derive(Debug, Arbitrary)]
enum Close {
    Orderly,
    Reset,
    HalfWay,
}

#[derive(Debug, Arbitrary)]
struct Hello {
    v5: bool,
    user: u8,
    id: u8,
    clean: bool,
    keep_alive: u8,
    will: Option<(Name, u8)>,
}

#[derive(Debug, Arbitrary)]
enum Name {
    Known(u8),
    /// A few letters and separators.
    Made(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
struct Property {
    which: u8,
    number: u32,
}

#[derive(Debug, Arbitrary)]
enum Packet {
    Connect(Hello),
    Publish {
        topic: Name,
        flags: u8,
        id: u8,
        properties: Vec<Property>,
        payload: u16,
    },
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe {
        id: u8,
        filters: Vec<(Name, u8)>,
        properties: Vec<Property>,
    },
    Unsubscribe {
        id: u8,
        filters: Vec<Name>,
        properties: Vec<Property>,
    },
    PingReq,
    Disconnect {
        reason: Option<u8>,
        properties: Vec<Property>,
    },
    Auth {
        reason: u8,
        properties: Vec<Property>,
    },
    /// What only a server sends.
    Servers {
        which: u8,
        id: u8,
    },
}

#[derive(Debug, Arbitrary)]
struct Ack {
    id: u8,
    reason: Option<u8>,
    properties: Vec<Property>,
}

impl Name {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Name::Known(at) => NAMES[usize::from(*at) % NAMES.len()].as_bytes().to_vec(),
            Name::Made(letters) => {
                const LETTERS: &[u8] = b"abhq/+#$\xC3\xA9\0 ";
                let letter = |byte: &u8| LETTERS[usize::from(*byte) % LETTERS.len()];
                let mut name = b"ridgeway/v1/".to_vec();
                name.extend(letters.iter().take(24).map(letter));
                name
            }
        }
    }
}

fn encode(properties: &[Property], to: &mut Vec<u8>) {
    let mut all = Vec::new();
    for Property { which, number } in properties.iter().take(6) {
        // Identifiers of MQTT 5, 0x01 to 0x2A, by the type of their values.
        let which = which % 0x2B;
        all.push(which);
        match which {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => all.push(*number as u8 % 3),
            0x02 | 0x11 | 0x18 | 0x27 => all.extend(number.to_be_bytes()),
            0x0B => all.extend([*number as u8 | 0x80, 1]),
            0x13 | 0x21 => all.extend((*number as u16).to_be_bytes()),
            // Small ones are agreed on.
            0x22 | 0x23 => all.extend((*number as u16 % 20).to_be_bytes()),
            0x26 => {
                packets::text(&mut all, b"key");
                packets::text(&mut all, &number.to_be_bytes().map(|byte| b'a' + byte % 26));
            }
            _ => packets::text(&mut all, &number.to_be_bytes().map(|byte| b'a' + byte % 26)),
        }
    }
    // At most six of 14 bytes.
    to.push(all.len() as u8);
    to.extend(all);
}

impl Hello {
    fn version(&self) -> Version {
        if self.v5 { Version::V5 } else { Version::V311 }
    }

    fn bytes(&self) -> Vec<u8> {
        let user = USERS[usize::from(self.user) % USERS.len()];
        let mut connect = Connect::new(self.version(), user, format!("o{}", self.id % 3));
        connect.clean = self.clean;
        connect.keep_alive_secs = u16::from(self.keep_alive) + 30;
        connect.will =
            self.will.as_ref().map(|(topic, len)| (topic.bytes(), vec![7; usize::from(*len)]));
        connect.bytes()
    }
}

impl Packet {
    fn bytes(&self, version: Version) -> Vec<u8> {
        let v5 = version == Version::V5;
        let with_id = |id: u8| {
            let mut body = vec![0, id];
            body.reserve(64);
            body
        };
        let put = |properties: &[Property], body: &mut Vec<u8>| {
            if v5 {
                encode(properties, body);
            }
        };
        match self {
            Packet::Connect(hello) => hello.bytes(),
            Packet::Publish { topic, flags, id, properties, payload } => {
                let mut encoded = Vec::new();
                encode(properties, &mut encoded);
                let payload = vec![7; usize::from(payload % 3_000)];
                Publish {
                    version,
                    topic: &topic.bytes(),
                    qos: flags % 4,
                    id: u16::from(id % 12),
                    retain: flags & 4 != 0,
                    again: flags & 8 != 0,
                    properties: &encoded[1..],
                    payload: &payload,
                }
                .bytes()
            }
            Packet::PubAck(ack) => ack.bytes(0x40, v5),
            Packet::PubRec(ack) => ack.bytes(0x50, v5),
            Packet::PubRel(ack) => ack.bytes(0x62, v5),
            Packet::PubComp(ack) => ack.bytes(0x70, v5),
            Packet::Subscribe { id, filters, properties } => {
                let mut body = with_id(*id);
                put(properties, &mut body);
                for (filter, options) in filters.iter().take(8) {
                    packets::text(&mut body, &filter.bytes());
                    body.push(if v5 { options & 0x2F } else { options % 3 });
                }
                packets::packet(0x82, &body)
            }
            Packet::Unsubscribe { id, filters, properties } => {
                let mut body = with_id(*id);
                put(properties, &mut body);
                for filter in filters.iter().take(8) {
                    packets::text(&mut body, &filter.bytes());
                }
                packets::packet(0xA2, &body)
            }
            Packet::PingReq => packets::PINGREQ.to_vec(),
            Packet::Disconnect { reason: Some(reason), properties } if v5 => {
                let mut body = vec![*reason];
                put(properties, &mut body);
                packets::packet(0xE0, &body)
            }
            Packet::Disconnect { .. } => packets::DISCONNECT.to_vec(),
            Packet::Auth { reason, properties } => {
                let mut body = vec![*reason];
                put(properties, &mut body);
                packets::packet(0xF0, &body)
            }
            Packet::Servers { which, id } => {
                let (first, body): (u8, &[u8]) = match which % 5 {
                    0 => (0x20, &[0, 0, 0]),
                    1 => (0x90, &[0, *id, 0, 1]),
                    2 => (0xB0, &[0, *id, 0, 0]),
                    3 => (0xB0, &[0, *id]),
                    _ => (0xD0, &[]),
                };
                packets::packet(first, body)
            }
        }
    }
}

impl Ack {
    fn bytes(&self, first: u8, v5: bool) -> Vec<u8> {
        let mut body = vec![0, self.id % 110];
        if let (true, Some(reason)) = (v5, self.reason) {
            body.push(reason);
            encode(&self.properties, &mut body);
        }
        packets::packet(first, &body)
    }
}

/// A connection of the scene.
struct Actor {
    peer: Peer,
    held: Vec<u8>,
}

/// Plays the scene that `input` stands for.
pub fn orders(input: &[u8]) {
    let Ok(scene) = Scene::arbitrary_take_rest(Unstructured::new(input)) else { return };
    bear(input, |broker| {
        let mut actors: [Option<Actor>; SLOTS] = Default::default();
        for step in scene.steps.iter().take(STEPS) {
            match step {
                Step::Open { slot, hello, wait } => {
                    let peer = Peer::dial(broker, hello.version());
                    let mut actor = Actor { peer, held: Vec::new() };
                    let _ = actor.peer.say(&hello.bytes());
                    if *wait {
                        let _ = actor.peer.fill();
                    }
                    // Whoever was there is left without a word.
                    actors[usize::from(*slot) % SLOTS] = Some(actor);
                }
                Step::Say { slot, packet, hold } => {
                    let Some(actor) = &mut actors[usize::from(*slot) % SLOTS] else { continue };
                    let bytes = packet.bytes(actor.peer.version);
                    actor.held.extend(bytes);
                    if !hold {
                        actor.say(usize::MAX);
                    }
                }
                Step::Cut { slot, at } => {
                    if let Some(actor) = &mut actors[usize::from(*slot) % SLOTS] {
                        actor.say((*at).into());
                    }
                }
                Step::Take { slot, acknowledge } => {
                    if let Some(actor) = &mut actors[usize::from(*slot) % SLOTS] {
                        actor.take(*acknowledge);
                    }
                }
                Step::Close { slot, how } => {
                    let at = usize::from(*slot) % SLOTS;
                    match (how, &mut actors[at]) {
                        (Close::HalfWay, Some(actor)) => {
                            let _ = actor.peer.stream.shutdown(std::net::Shutdown::Write);
                        }
                        (Close::Reset, Some(actor)) => {
                            let stream = SockRef::from(&actor.peer.stream);
                            let _ = stream.set_linger(Some(std::time::Duration::ZERO));
                            actors[at] = None;
                        }
                        (Close::Orderly, Some(_)) => actors[at] = None,
                        (_, None) => {}
                    }
                }
            }
        }
        for mut actor in actors.into_iter().flatten() {
            actor.say(usize::MAX);
            actor.peer.end();
        }
    });
}

impl Actor {
    /// Says what is held; up to `cut` in a write of its own.
    fn say(&mut self, cut: usize) {
        let (one, two) = self.held.split_at(cut.min(self.held.len()));
        // It may have been refused long ago.
        let _ = self.peer.stream.write_all(one);
        if !two.is_empty() {
            std::thread::yield_now();
            let _ = self.peer.stream.write_all(two);
        }
        self.held.clear();
    }

    fn take(&mut self, acknowledge: bool) {
        let _ = self.peer.stream.set_nonblocking(true);
        while self.peer.fill().is_ok() {}
        let _ = self.peer.stream.set_nonblocking(false);
        while let Some((first, body)) = self.peer.take() {
            if !acknowledge {
                continue;
            }
            let version = self.peer.version;
            let id = match (first >> 4, &body[..]) {
                (packets::PUBLISH, _) => {
                    packets::read_publish(version, first, &body).map_or(0, |(_, id, _)| id)
                }
                (_, [high, low, ..]) => u16::from_be_bytes([*high, *low]),
                _ => 0,
            };
            let answer = match (first >> 4, first & 6) {
                (packets::PUBLISH, 2) => 0x40,
                (packets::PUBLISH, 4) => 0x50,
                (5, _) => 0x62,
                (6, _) => 0x70,
                _ => continue,
            };
            let _ = self.peer.stream.write_all(&packets::ack(answer, id));
        }
    }
}
