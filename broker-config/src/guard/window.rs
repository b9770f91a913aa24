//! Acknowledgements in the order in which rumqttd wants them.
//!
//! rumqttd ends the session of a client that acknowledges out of order or something it never got, and
//! its router dies when such a client's task speaks once more (the same cause as K2). MQTT allows a
//! client to be quick with one message and slow with another. So: what was sent is remembered, and an
//! acknowledgement is held back until all before it are there.

use std::collections::VecDeque;

use rumqttd::protocol::{
    Packet, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason,
};

/// An acknowledgement of the client's. A [`Packet`] has some hundred bytes, whatever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    /// PUBACK.
    Taken(u16),
    /// PUBREC.
    Received(u16),
    /// PUBCOMP.
    Complete(u16),
}

impl From<Ack> for Packet {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Taken(pkid) => {
                Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None)
            }
            Ack::Received(pkid) => {
                Packet::PubRec(PubRec { pkid, reason: PubRecReason::Success }, None)
            }
            Ack::Complete(pkid) => {
                Packet::PubComp(PubComp { pkid, reason: PubCompReason::Success }, None)
            }
        }
    }
}

/// What was sent and waits for an acknowledgement; `A` is the acknowledgement.
#[derive(Debug)]
pub(super) struct Window<A> {
    waiting: VecDeque<(u16, Option<A>)>,
}

impl<A> Default for Window<A> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<A> Window<A> {
    pub(super) fn sent(&mut self, id: u16) {
        self.waiting.push_back((id, None));
    }

    /// Takes an acknowledgement. False if nothing waits for it.
    pub(super) fn acknowledged(&mut self, id: u16, ack: A) -> bool {
        match self.waiting.iter_mut().find(|(sent, held)| *sent == id && held.is_none()) {
            Some((_, held)) => {
                *held = Some(ack);
                true
            }
            None => false,
        }
    }

    /// The next acknowledgement whose turn it is.
    pub(super) fn next(&mut self) -> Option<A> {
        let ready = matches!(self.waiting.front(), Some((_, Some(_))));
        if ready { self.waiting.pop_front().and_then(|(_, ack)| ack) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn acknowledgements_come_out_in_the_order_of_sending(
            order in Just((1u16..=40).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut window = Window::default();
            (1..=40).for_each(|id| window.sent(id));
            let mut out = Vec::new();
            for id in order {
                prop_assert!(window.acknowledged(id, id));
                prop_assert!(!window.acknowledged(id, id), "a repeat is nobody's");
                out.extend(std::iter::from_fn(|| window.next()));
            }
            prop_assert_eq!(out, (1..=40).collect::<Vec<u16>>());
        }
    }

    #[test]
    fn what_was_never_sent_is_nobodys() {
        let mut window = Window::default();
        window.sent(7);
        assert!(!window.acknowledged(8, ()));
        assert_eq!(window.next(), None);
    }
}
