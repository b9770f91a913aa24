//! Polling: what the sensors say, and what of it is reported.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use minutiae::GrayImage;

use super::{Closed, Owner};
use crate::codes::SdkCode;
use crate::host::touch::{Say, Seen};
use crate::message::{Event, Problem, Up};
use crate::sdk::{Capture, ImageSize};
use crate::serial::Serial;

/// Failed captures in a row that make the SDK be initialised again.
const MAX_FAILURES: u32 = 5;
/// Pause after a capture that took the whole period, so that requests get their turn.
const BREATH: Duration = Duration::from_millis(5);

impl Owner {
    pub(super) fn poll_due(&mut self) -> Result<(), Closed> {
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
}

fn slow_problem(took: Duration) -> Problem {
    Problem::Slow { for_ms: took.as_millis() as u64 }
}
