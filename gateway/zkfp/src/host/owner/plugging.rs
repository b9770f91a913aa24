//! Plugging in and out: which readers are open.

use std::time::{Duration, Instant};

use super::{Closed, FIRST_RETRY, Owner, Reader};
use crate::codes::{SdkCode, parameter};
use crate::event::Device;
use crate::message::Event;
use crate::serial::Serial;

/// No pause before the SDK is initialised again is longer.
const LAST_RETRY: Duration = Duration::from_secs(5);
/// An SDK that ran for so long has started well.
const STEADY: Duration = Duration::from_secs(60);

impl Owner {
    pub(super) fn check_presence(&mut self) -> Result<(), Closed> {
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

    pub(super) fn stop_sdk(&mut self) {
        self.matcher = None;
        for (_, reader) in std::mem::take(&mut self.readers) {
            self.sdk.close(reader.open);
        }
        self.sdk.terminate();
    }

    pub(super) fn start_sdk(&mut self) -> Result<(), Closed> {
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

    /// A reader that went away starts afresh when it comes back: the parent has seen it go, and
    /// says anew what it wants of it.
    fn forget_lost_readers(&mut self) {
        self.known.retain(|serial, _| self.readers.contains_key(serial));
    }

    pub(super) fn schedule_retry(&mut self) {
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
}
