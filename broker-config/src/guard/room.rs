//! How many messages with QoS 1 and 2 the client has in hand, and those that wait for it to have room.
//!
//! rumqttd sends up to 100 before it wants an acknowledgement, whatever the client's Receive Maximum. It
//! also uses a packet id again once PUBREC has come, while the client still needs it for PUBREL and
//! PUBCOMP. Both wait here. What waits is never more than rumqttd's 100.

use std::collections::{HashSet, VecDeque};

use bytes::BytesMut;

/// What waits for one client; with a small Receive Maximum it would be a hundred of the largest messages.
const MAX_WAITING_BYTES: usize = 2 << 20;

#[derive(Debug)]
pub(super) struct Room {
    max: usize,
    /// Sent, and not wholly acknowledged.
    open: HashSet<u16>,
    waiting: VecDeque<(u16, BytesMut)>,
    waiting_bytes: usize,
}

impl Room {
    /// `max` is the client's Receive Maximum.
    pub(super) fn new(max: u16) -> Self {
        Self { max: max.into(), open: HashSet::new(), waiting: VecDeque::new(), waiting_bytes: 0 }
    }

    /// Whether a message with this packet id may go now; it counts as sent then.
    pub(super) fn enter(&mut self, id: u16) -> bool {
        let free = self.waiting.is_empty() && self.has_room_for(id);
        if free {
            self.open.insert(id);
        }
        free
    }

    /// The client has a message with this id since an earlier connection.
    pub(super) fn hold(&mut self, id: u16) {
        self.open.insert(id);
    }

    /// Keeps a message that may not go now. False when too much waits.
    pub(super) fn wait(&mut self, id: u16, packet: &[u8]) -> bool {
        self.waiting_bytes += packet.len();
        // A copy: a piece of the buffer would keep the whole of it.
        self.waiting.push_back((id, BytesMut::from(packet)));
        self.waiting_bytes <= MAX_WAITING_BYTES
    }

    /// Whether the client has a message with this id.
    pub(super) fn has(&self, id: u16) -> bool {
        self.open.contains(&id)
    }

    /// The client is through with a message. False if it has none with this id.
    pub(super) fn leave(&mut self, id: u16) -> bool {
        self.open.remove(&id)
    }

    /// Whether a message waits for room.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// One of `count` ids from `first` up, for one more message, if there is room; it counts as sent then.
    pub(super) fn enter_own(&mut self, first: u16, count: u16) -> Option<u16> {
        if self.open.len() >= self.max {
            return None;
        }
        let id = (first..first + count).find(|id| !self.open.contains(id))?;
        self.open.insert(id);
        Some(id)
    }

    /// The next one that waited and may go now.
    pub(super) fn next(&mut self) -> Option<BytesMut> {
        let (id, _) = self.waiting.front()?;
        if !self.has_room_for(*id) {
            return None;
        }
        let (id, packet) = self.waiting.pop_front()?;
        self.waiting_bytes -= packet.len();
        self.open.insert(id);
        Some(packet)
    }

    fn has_room_for(&self, id: u16) -> bool {
        self.open.len() < self.max && !self.open.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: u8) -> BytesMut {
        BytesMut::from(&[n][..])
    }

    #[test]
    fn what_has_no_room_waits_in_order() {
        let mut room = Room::new(2);
        assert!(room.enter(1) && room.enter(2) && !room.enter(3));
        room.wait(3, &packet(3));
        room.wait(4, &packet(4));
        assert!(!room.has(3));
        assert!(!room.leave(3), "nobody sent it yet");
        assert!(room.is_awaited());
        assert_eq!(room.enter_own(101, 9), None);
        assert_eq!(room.next(), None);
        assert!(room.leave(2));
        assert!(!room.enter(5), "others wait already");
        assert_eq!(room.next(), Some(packet(3)));
        assert_eq!(room.next(), None);
        assert!(room.leave(1));
        assert_eq!(room.next(), Some(packet(4)));
        assert!(!room.is_awaited());
        assert!(room.leave(3));
        assert_eq!(room.enter_own(101, 9), Some(101));
        assert_eq!(room.enter_own(101, 9), None);
    }

    #[test]
    fn an_id_in_use_is_not_used_again() {
        let mut room = Room::new(u16::MAX);
        assert!(room.enter(1) && room.enter(2));
        assert!(!room.enter(1));
        room.wait(1, &packet(1));
        room.leave(2);
        assert_eq!(room.next(), None);
        room.leave(1);
        assert_eq!(room.next(), Some(packet(1)));
    }
}
