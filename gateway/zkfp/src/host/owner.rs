//! The thread that makes all SDK calls.
//!
//! | when | does |
//! |---|---|
//! | a request comes | answers it, between two polls |
//! | a reader's poll is due: armed, or a finger still on it | one capture; the rest of the period is slept |
//! | the presence check is due and something was plugged in or out | Close, Terminate, Init, Open |
//! | initialisation failed, or a reader keeps failing | the same, with growing pauses |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use minutiae::GrayImage;

use super::gallery::Gallery;
use super::presence::{Plugged, Presence};
use super::touch::{Glass, Say, Seen};
use super::wire::{Incoming, Outbox};
use crate::codes::{SdkCode, parameter};
use crate::event::Device;
use crate::frame::Framed;
use crate::message::{Answer, Event, Failure, Problem, Request, Settings, Up};
use crate::sdk::{Capture, ImageSize, Matcher, OpenReader, Sdk};
use crate::serial::Serial;

/// The first pause before the SDK is initialised again; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// No pause is longer.
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Failed captures in a row that make the SDK be initialised again.
const MAX_FAILURES: u32 = 5;
/// A disarmed reader is asked for so long whether the finger has gone.
const LIFT_WATCH: Duration = Duration::from_secs(10);
/// An SDK that ran for so long has started well.
const STEADY: Duration = Duration::from_secs(60);
/// Looking for readers isn't free either.
const MIN_PRESENCE: Duration = Duration::from_millis(10);
/// Pause after a capture that took the whole period, so that requests get their turn.
const BREATH: Duration = Duration::from_millis(5);

/// Everything that the owner thread owns.
pub(super) struct Owner {
    sdk: Sdk,
    presence: Presence,
    outbox: Outbox,
    poll_period: Duration,
    presence_period: Duration,
    slow_call: Duration,
    readers: BTreeMap<Serial, Reader>,
    /// Kept over a re-initialisation and an unplug: a reader that comes back goes on.
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

/// What is known of a reader that was armed once, whether it is there or not.
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

    // Plugging in and out.

    fn check_presence(&mut self) -> Result<(), Closed> {
        let now = Instant::now();
        let retry_due = self.retry.is_some_and(|at| at <= now);
        if now < self.next_presence && !retry_due {
            return Ok(());
        }
        self.next_presence = now + self.presence_period;
        let changed = self.presence.plugged() != self.plugged;
        if changed || self.started.elapsed() >= STEADY {
            self.pause = FIRST_RETRY;
        }
        if changed || retry_due {
            self.stop_sdk();
            self.start_sdk()?;
        }
        Ok(())
    }

    fn stop_sdk(&mut self) {
        self.matcher = None;
        for (_, reader) in std::mem::take(&mut self.readers) {
            self.sdk.close(reader.open);
        }
        self.sdk.terminate();
    }

    fn start_sdk(&mut self) -> Result<(), Closed> {
        (self.started, self.retry) = (Instant::now(), None);
        self.plugged = self.presence.plugged();
        let outcome = self.sdk.init().and_then(|()| self.sdk.device_count());
        let count = outcome.unwrap_or(0);
        for index in 0..count {
            self.open_reader(index);
        }
        if !self.readers.is_empty() {
            self.matcher = self.sdk.matcher();
        }
        if let Some(matcher) = self.matcher {
            for fid in self.gallery.restore(&self.sdk, matcher) {
                eprintln!("reader-host: the SDK doesn't take template {fid} again");
            }
        }
        self.forget_lost_readers();
        // Where the system knows of no reader, the SDK finds none: nothing is wrong.
        let failure = outcome.err().filter(|_| !self.plugged.is_empty());
        // One that can't be opened is given up after a while: each try interrupts the others.
        let incomplete = self.readers.len() < self.plugged.len() && self.pause < LAST_RETRY;
        if incomplete || self.readers.is_empty() {
            self.schedule_retry();
        }
        self.report_devices()?;
        self.report_init(failure)
    }

    fn open_reader(&mut self, index: u32) {
        let Some(mut open) = self.sdk.open(index) else { return };
        let size = match self.sdk.image_size(&mut open, None) {
            Ok(size) => size,
            Err(code) => {
                eprintln!("reader-host: reader {index} doesn't tell its image's size: {code}");
                return self.sdk.close(open);
            }
        };
        let said = self.sdk.text(&open, parameter::SERIAL).unwrap_or_default();
        let Some(serial) = self.unused_serial(&said, index) else { return self.sdk.close(open) };
        let device = Device {
            firmware: self.presence.firmware(&serial),
            model: self.sdk.text(&open, parameter::PRODUCT).unwrap_or_default(),
            serial: serial.clone(),
            width: size.width,
            height: size.height,
            dpi: size.dpi,
        };
        let next_poll = Instant::now();
        let reader = Reader { open, device, size, next_poll, failures: 0 };
        self.readers.insert(serial, reader);
    }

    /// What the reader says, or its place in the list; never the same for two readers.
    fn unused_serial(&self, said: &str, index: u32) -> Option<Serial> {
        let by_index = || Serial::cleaned(&format!("reader-{}", index + 1));
        let named = Serial::cleaned(said).filter(|serial| !self.readers.contains_key(serial));
        named.or_else(by_index).filter(|serial| !self.readers.contains_key(serial))
    }

    /// A reader that went away took its finger with it, and its problem.
    fn forget_lost_readers(&mut self) {
        for (serial, known) in &mut self.known {
            if !self.readers.contains_key(serial) {
                known.glass = Glass::Away;
                known.problem = None;
            }
        }
    }

    fn schedule_retry(&mut self) {
        self.retry = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LAST_RETRY);
    }

    fn report_devices(&mut self) -> Result<(), Closed> {
        let devices: Vec<Device> =
            self.readers.values().map(|reader| reader.device.clone()).collect();
        if self.reported.as_ref() == Some(&devices) {
            return Ok(());
        }
        self.reported = Some(devices.clone());
        self.say(Event::Devices(devices))
    }

    fn report_init(&mut self, failure: Option<SdkCode>) -> Result<(), Closed> {
        if self.init_failure == failure {
            return Ok(());
        }
        self.init_failure = failure;
        failure.map_or(Ok(()), |code| self.say(Event::InitFailed(code)))
    }

    // Polling.

    fn poll_due(&mut self) -> Result<(), Closed> {
        let now = Instant::now();
        let due: BTreeSet<Serial> = self
            .readers
            .iter()
            .filter(|(serial, reader)| reader.next_poll <= now && self.is_watched(serial))
            .map(|(serial, _)| serial.clone())
            .collect();
        due.iter().try_for_each(|serial| self.poll(serial))
    }

    fn poll(&mut self, serial: &Serial) -> Result<(), Closed> {
        let Some(reader) = self.readers.get_mut(serial) else { return Ok(()) };
        let started = Instant::now();
        let (result, took) = self.sdk.acquire(&mut reader.open, serial);
        reader.next_poll = (started + self.poll_period).max(Instant::now() + BREATH);
        let slow = took >= self.slow_call;
        match result {
            Ok(capture) => {
                self.report_problem(serial, slow.then(|| slow_problem(took)))?;
                self.report_capture(serial, capture)
            }
            Err(SdkCode::NO_FINGER) => {
                self.report_problem(serial, slow.then(|| slow_problem(took)))?;
                self.see(serial, Seen::Nothing).map(drop)
            }
            Err(SdkCode::BAD_PLACEMENT) => {
                self.report_problem(serial, slow.then(|| slow_problem(took)))?;
                self.see(serial, Seen::Bad).map(drop)
            }
            Err(SdkCode::BUSY) => self.report_problem(serial, Some(Problem::Busy)),
            Err(code) => self.report_failure(serial, code),
        }
    }

    fn report_capture(&mut self, serial: &Serial, capture: Capture) -> Result<(), Closed> {
        let Say::Touch { touch, capture: number } = self.see(serial, Seen::Print)? else {
            return Ok(());
        };
        let Some(reader) = self.readers.get(serial) else { return Ok(()) };
        let template = match capture {
            Capture::Print(template) => template,
            Capture::WrongLength(length) => {
                let problem = Problem::BadTemplate { length };
                return self.say(Event::Problem { serial: serial.clone(), problem });
            }
        };
        let ImageSize { width, height, dpi } = reader.size;
        let image = reader.open.image(reader.size).to_vec();
        let quality =
            GrayImage::new(width, height, dpi, image).map_or(0, |image| minutiae::quality(&image));
        let serial = serial.clone();
        let event = Event::Touch { serial, touch, capture: number, quality, width, height };
        self.send(Up::Event(event), vec![template])
    }

    /// Moves the touch on, and reports all but captures.
    fn see(&mut self, serial: &Serial, seen: Seen) -> Result<Say, Closed> {
        let Some(known) = self.known.get_mut(serial) else { return Ok(Say::Nothing) };
        let say = known.glass.see(seen, known.armed, self.touches + 1);
        match say {
            Say::Touch { touch, .. } => self.touches = self.touches.max(touch),
            Say::BadPlacement { touch } => {
                self.touches = self.touches.max(touch);
                self.say(Event::BadPlacement { serial: serial.clone(), touch })?;
            }
            Say::Lifted { touch } => self.say(Event::Lifted { serial: serial.clone(), touch })?,
            Say::Nothing => {}
        }
        Ok(say)
    }

    fn report_failure(&mut self, serial: &Serial, code: SdkCode) -> Result<(), Closed> {
        if let Some(reader) = self.readers.get_mut(serial) {
            reader.failures += 1;
            if reader.failures == MAX_FAILURES && self.retry.is_none() {
                self.schedule_retry();
            }
        }
        self.report_problem(serial, Some(Problem::Failing(code)))
    }

    /// Reports where it differs from the last report.
    fn report_problem(&mut self, serial: &Serial, now: Option<Problem>) -> Result<(), Closed> {
        let reader = self.readers.get_mut(serial);
        if let Some(reader) = reader.filter(|_| !matches!(now, Some(Problem::Failing(_)))) {
            reader.failures = 0;
        }
        let Some(known) = self.known.get_mut(serial) else { return Ok(()) };
        let same = match (&known.problem, &now) {
            (Some(Problem::Slow { .. }), Some(Problem::Slow { .. })) => true,
            (before, now) => before == now,
        };
        if same {
            return Ok(());
        }
        known.problem.clone_from(&now);
        let serial = serial.clone();
        self.say(match now {
            Some(problem) => Event::Problem { serial, problem },
            None => Event::Recovered { serial },
        })
    }

    // Requests.

    fn answer(
        &mut self,
        request: Request,
        templates: Vec<Vec<u8>>,
    ) -> Result<(Answer, Vec<Vec<u8>>), Failure> {
        let plain = |answer: Answer| Ok((answer, Vec::new()));
        match request {
            Request::Arm { serial, on } => plain(self.arm(serial, on)?),
            Request::Recapture { serial } => plain(self.recapture(&serial)?),
            Request::Test { serial } => plain(self.test(&serial)?),
            Request::Info { serial } => plain(Answer::Info(self.reader(&serial)?.device.clone())),
            Request::Match => {
                let [a, b] = exactly(templates)?;
                let matcher = self.matcher.ok_or(Failure::NoMatcher)?;
                let score = self.sdk.compare(matcher, &a, &b).map_err(Failure::Sdk)?;
                plain(Answer::Score(score))
            }
            Request::Merge => Ok((Answer::Merged, vec![self.merge(exactly(templates)?)?])),
            Request::GalleryClear { loading } => {
                self.gallery.clear(&self.sdk, self.matcher, loading)?;
                plain(Answer::Done)
            }
            Request::GalleryAdd { fids } => plain(self.add(&fids, templates)?),
            Request::GalleryLoaded => {
                self.gallery.loaded();
                plain(Answer::Done)
            }
            Request::GalleryRemove { fid } => {
                self.gallery.remove(&self.sdk, self.matcher, fid)?;
                plain(Answer::Done)
            }
            Request::Identify => {
                let [template] = exactly(templates)?;
                let found = self.gallery.identify(&self.sdk, self.matcher, &template)?;
                plain(found.map_or(Answer::Stranger, |(fid, score)| Answer::Found { fid, score }))
            }
        }
    }

    fn reader(&self, serial: &Serial) -> Result<&Reader, Failure> {
        self.readers.get(serial).ok_or(Failure::UnknownReader)
    }

    /// Disarming is done also for a reader that has gone.
    fn arm(&mut self, serial: Serial, on: bool) -> Result<Answer, Failure> {
        if on {
            self.reader(&serial)?;
            self.known.entry(serial).or_default().armed = true;
        } else if let Some(known) = self.known.get_mut(&serial).filter(|known| known.armed) {
            known.armed = false;
            known.disarmed = Some(Instant::now());
        }
        Ok(Answer::Done)
    }

    fn recapture(&mut self, serial: &Serial) -> Result<Answer, Failure> {
        self.reader(serial)?;
        let known = self.known.get_mut(serial).ok_or(Failure::NoFinger)?;
        if known.glass.want_another() { Ok(Answer::Done) } else { Err(Failure::NoFinger) }
    }

    /// Reads a parameter back: the shortest way to the reader and back.
    fn test(&mut self, serial: &Serial) -> Result<Answer, Failure> {
        let reader = self.readers.get_mut(serial).ok_or(Failure::UnknownReader)?;
        let started = Instant::now();
        self.sdk.image_size(&mut reader.open, Some(serial)).map_err(Failure::Sdk)?;
        Ok(Answer::Tested { micros: started.elapsed().as_micros() as u64 })
    }

    /// Consecutive placements are compared first, as the vendor's samples do.
    fn merge(&self, [a, b, c]: [Vec<u8>; 3]) -> Result<Vec<u8>, Failure> {
        let matcher = self.matcher.ok_or(Failure::NoMatcher)?;
        for (one, next) in [(&a, &b), (&b, &c)] {
            if self.sdk.compare(matcher, one, next).map_err(Failure::Sdk)? == 0 {
                return Err(Failure::Sdk(SdkCode::MERGE_FAILED));
            }
        }
        self.sdk.merge(matcher, [&a, &b, &c]).map_err(Failure::Sdk)
    }

    fn add(&mut self, fids: &[u32], templates: Vec<Vec<u8>>) -> Result<Answer, Failure> {
        if fids.len() != templates.len() {
            return Err(Failure::Malformed);
        }
        let mut rejected = Vec::new();
        for (&fid, template) in fids.iter().zip(templates) {
            if !self.gallery.add(&self.sdk, self.matcher, fid, template)? {
                rejected.push(fid);
            }
        }
        Ok(Answer::Added { rejected })
    }

    // To the parent.

    fn say(&self, event: Event) -> Result<(), Closed> {
        self.send(Up::Event(event), Vec::new())
    }

    fn send(&self, message: Up, templates: Vec<Vec<u8>>) -> Result<(), Closed> {
        self.outbox.send(Framed { message, templates }).map_err(|_| Closed)
    }
}

fn exactly<const N: usize>(templates: Vec<Vec<u8>>) -> Result<[Vec<u8>; N], Failure> {
    templates.try_into().map_err(|_| Failure::Malformed)
}

fn slow_problem(took: Duration) -> Problem {
    Problem::Slow { for_ms: took.as_millis() as u64 }
}
