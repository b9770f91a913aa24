//! The way between both, and the bridge at its end.

use gateway::uplink::core::Input;
use topics::link::{Frame, Outcome};

use super::{Way, World};

impl World {
    pub(super) fn send(&mut self, frame: Frame) {
        if self.way != Way::Up || self.up.len() >= self.plan.room {
            return;
        }
        note!(self, "up   {frame:?}");
        let frame = self.packed(frame);
        self.up.push_back(frame);
    }

    pub(super) fn send_down(&mut self, frame: Frame) {
        if self.way != Way::Up || self.down.len() >= self.plan.room {
            return;
        }
        note!(self, "down {frame:?}");
        let frame = self.packed(frame);
        self.down.push_back(frame);
    }

    pub(super) fn packed(&self, frame: Frame) -> Frame {
        if !self.plan.encode {
            return frame;
        }
        let bytes = frame.encode().expect("it is small");
        let decoded = Frame::decode(&bytes).expect("it was encoded");
        assert_eq!(decoded, frame, "what was sent");
        decoded
    }

    /// A part of what was sent is at the broker already; what would come down has no way any more.
    pub(super) fn disconnect(&mut self) {
        if self.way == Way::Up {
            let kept = self.random.below(self.up.len() + 1);
            self.up.truncate(kept);
        }
        self.down.clear();
        self.way = Way::Down;
    }

    pub(super) fn cut(&mut self, reason: &str) {
        if self.way == Way::Down {
            return;
        }
        note!(self, "{reason}");
        self.disconnect();
        self.feed(Input::Disconnected { reason: reason.to_owned() });
    }

    /// The next of what comes down.
    pub(super) fn arrive(&mut self) {
        if self.way == Way::Connecting {
            if self.reachable {
                self.way = Way::Up;
                self.feed(Input::Connected);
            } else {
                self.cut("not reachable");
            }
        } else if let Some(frame) = self.down.pop_front()
            && let Some(input) = self.heard(frame)
        {
            self.feed(input);
        }
        self.tell();
    }

    pub(super) fn heard(&self, frame: Frame) -> Option<Input> {
        match frame {
            Frame::Resume(resume) => {
                let (session, bridge_now) = (resume.session, resume.now);
                Some(match resume.outcome {
                    Outcome::Resume { lanes } => Input::Resume { session, lanes, bridge_now },
                    Outcome::Forked { reason } => Input::Forked { session, reason },
                    Outcome::Refused { reason } => Input::Refused { session, reason, bridge_now },
                })
            }
            Frame::Ack(ack) => (ack.store == self.file.store).then_some(Input::Acked {
                session: ack.session,
                store: ack.store,
                lanes: ack.lanes,
            }),
            Frame::Probed(probed) => Some(Input::Probed {
                session: probed.session,
                nonce: probed.nonce,
                bridge_now: probed.now,
            }),
            Frame::AskHello(ask) => Some(Input::AskHello { session: ask.session }),
            _ => None,
        }
    }

    pub(super) fn bridge_dies(&mut self) {
        note!(self, "bridge: dies");
        self.bridge.link = None;
        let lost = self.random.below(self.up.len() + 1);
        self.up.drain(..lost);
        if !self.random.once_in(3) {
            self.start_bridge();
        }
    }

    pub(super) fn start_bridge(&mut self) {
        if self.bridge.link.is_none() {
            note!(self, "bridge: starts");
            self.bridge.start();
            self.send_down(Frame::AskHello(topics::link::AskHello { session: 0 }));
        }
    }

    pub(super) fn round(&mut self) {
        if self.bridge.link.is_none() {
            // Its subscription is gone with it.
            self.up.clear();
            return self.start_bridge();
        }
        let count = self.random.within(1, 8).min(self.up.len());
        if count == 0 {
            return;
        }
        let frames: Vec<Frame> = self.up.drain(..count).collect();
        note!(self, "bridge: a round of {count}");
        for frame in &frames {
            if let Frame::Hello(hello) = frame {
                self.answered.push((hello.session, self.bridge.restored));
            }
        }
        let now = self.bridge_wall();
        for frame in self.bridge.round(now, frames) {
            self.send_down(frame);
        }
    }
}
