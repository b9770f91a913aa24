//! The thread that makes all SDK calls.
//!
//! | when | does |
//! |---|---|
//! | a request comes | answers it, between two polls |
//! | a reader's poll is due: armed, or a finger still on it | one capture; the rest of the period is slept |
//! | the presence check is due and something was plugged in or out | Close, Terminate, Init, Open |
//! | initialisation failed, or a reader keeps failing | the same, with growing pauses |
//!
//! `requests`, `polling` and `plugging` hold the three parts; this module waits, in one place.

mod plugging;
mod polling;
mod requests;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::gallery::Gallery;
use super::presence::{Plugged, Presence};
use super::touch::Glass;
use super::wire::{Incoming, Outbox};
use crate::codes::SdkCode;
use crate::event::Device;
use crate::frame::Framed;
use crate::message::{Event, Problem, Settings, Up};
use crate::sdk::{ImageSize, Matcher, OpenReader, Sdk};
use crate::serial::Serial;

/// The first pause before the SDK is initialised again; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// A disarmed reader is asked for so long whether the finger has gone.
const LIFT_WATCH: Duration = Duration::from_secs(10);
/// Looking for readers isn't free either.
const MIN_PRESENCE: Duration = Duration::from_millis(10);

/// Everything that the owner thread owns.
pub(super) struct Owner {
    sdk: Sdk,
    presence: Presence,
    outbox: Outbox,
    poll_period: Duration,
    presence_period: Duration,
    slow_call: Duration,
    readers: BTreeMap<Serial, Reader>,
    /// Kept over a re-initialisation, for readers that are there before and after.
    known: BTreeMap<Serial, Known>,
    matcher: Option<Matcher>,
    gallery: Gallery,
    touches: u64,
    plugged: Plugged,
    reported: Option<Vec<Device>>,
    init_failure: Option<SdkCode>,
    next_presence: Instant,
    retry: Option<Instant>,
    /// The next pause before the SDK is initialised again.
    pause: Duration,
    started: Instant,
}

/// An open reader.
struct Reader {
    open: OpenReader,
    device: Device,
    size: ImageSize,
    next_poll: Instant,
    failures: u32,
}

/// What is known of a reader that was armed once.
#[derive(Debug, Default)]
struct Known {
    armed: bool,
    glass: Glass,
    /// Since when the reader isn't armed any more.
    disarmed: Option<Instant>,
    /// As it was reported.
    problem: Option<Problem>,
}

/// The parent is stuck or gone; the reader thread ends the process when it is gone.
struct Closed;

impl Owner {
    pub(super) fn new(sdk: Sdk, settings: &Settings, outbox: Outbox) -> Owner {
        let presence = match &settings.simulator_dir {
            Some(folder) => Presence::Simulator(folder.clone()),
            None => Presence::Usb(settings.usb_devices.clone()),
        };
        Owner {
            sdk,
            presence,
            outbox,
            poll_period: Duration::from_millis(settings.poll_period_ms),
            presence_period: MIN_PRESENCE.max(Duration::from_millis(settings.presence_period_ms)),
            slow_call: Duration::from_millis(settings.slow_call_ms),
            readers: BTreeMap::new(),
            known: BTreeMap::new(),
            matcher: None,
            gallery: Gallery::default(),
            touches: 0,
            plugged: Plugged::new(),
            reported: None,
            init_failure: None,
            next_presence: Instant::now(),
            retry: None,
            pause: FIRST_RETRY,
            started: Instant::now(),
        }
    }

    /// Works until the parent says stop.
    pub(super) fn run(mut self, inbox: &Receiver<Incoming>) {
        if self.start_sdk().is_ok() {
            while self.step(inbox).is_ok() {}
        }
        self.stop_sdk();
    }

    fn step(&mut self, inbox: &Receiver<Incoming>) -> Result<(), Closed> {
        let wait = self.next_deadline().saturating_duration_since(Instant::now());
        match inbox.recv_timeout(wait) {
            Ok(Incoming::Request { id, request, templates }) => {
                let (result, templates) = match self.answer(request, templates) {
                    Ok((answer, templates)) => (Ok(answer), templates),
                    Err(failure) => (Err(failure), Vec::new()),
                };
                self.send(Up::Reply { id, result }, templates)?;
            }
            Ok(Incoming::Stop) | Err(RecvTimeoutError::Disconnected) => return Err(Closed),
            Err(RecvTimeoutError::Timeout) => {}
        }
        self.check_presence()?;
        self.poll_due()
    }

    fn next_deadline(&self) -> Instant {
        let polls = self.readers.iter().filter(|(serial, _)| self.is_watched(serial));
        polls
            .map(|(_, reader)| reader.next_poll)
            .chain(self.retry)
            .fold(self.next_presence, Instant::min)
    }

    /// Armed, or with a finger whose lift is still to be reported.
    fn is_watched(&self, serial: &Serial) -> bool {
        self.known.get(serial).is_some_and(|known| {
            let lately = known.disarmed.is_some_and(|since| since.elapsed() < LIFT_WATCH);
            known.armed || (known.glass.is_resting() && lately)
        })
    }

    fn say(&self, event: Event) -> Result<(), Closed> {
        self.send(Up::Event(event), Vec::new())
    }

    fn send(&self, message: Up, templates: Vec<Vec<u8>>) -> Result<(), Closed> {
        self.outbox.send(Framed { message, templates }).map_err(|_| Closed)
    }
}
