//! The SDK's calls as safe functions, each of them timed: the heartbeat tells the parent which
//! call the process is in, and since when.
//!
//! All are made by one thread. Nothing about thread safety is documented, and the matcher's state
//! is global.

use std::ffi::{c_int, c_uint};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::codes::{SdkCode, parameter};
use crate::library::{Functions, Handle, LoadError};
use crate::message::CurrentCall;
use crate::serial::Serial;
use crate::template::MAX_TEMPLATE_BYTES;

/// Text parameters are read into a buffer of this size.
const TEXT_BYTES: usize = 64;
/// No sensor gives larger images.
const MAX_IMAGE_BYTES: usize = 2048 * 2048;
/// What a reader that doesn't say its resolution has.
const USUAL_DPI: u16 = 500;

/// The loaded SDK.
pub(crate) struct Sdk {
    functions: Functions,
    clock: CallClock,
}

/// Which call the owner thread is in. Shared with the thread that sends heartbeats.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallClock {
    current: Arc<Mutex<Option<Started>>>,
}

#[derive(Debug, Clone)]
struct Started {
    name: &'static str,
    serial: Option<Serial>,
    at: Instant,
}

/// An open reader; closed by [`Sdk::close`], not by dropping it.
#[derive(Debug)]
pub(crate) struct OpenReader {
    handle: Handle,
    image: Vec<u8>,
}

/// The template cache of the SDK.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matcher {
    handle: Handle,
}

/// What a capture gave.
#[derive(Debug)]
pub(crate) enum Capture {
    /// A template of this many bytes; the image is in the reader's buffer.
    Print(Vec<u8>),
    /// A template whose length can't be.
    WrongLength(u64),
}

/// The image's size, as the reader says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageSize {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dpi: u16,
}

impl CallClock {
    /// The current call, for the heartbeat.
    pub(crate) fn current(&self) -> Option<CurrentCall> {
        let current = self.lock().clone()?;
        Some(CurrentCall {
            name: current.name.to_owned(),
            serial: current.serial,
            for_ms: current.at.elapsed().as_millis() as u64,
        })
    }

    fn during<T>(
        &self,
        name: &'static str,
        serial: Option<&Serial>,
        call: impl FnOnce() -> T,
    ) -> T {
        *self.lock() = Some(Started { name, serial: serial.cloned(), at: Instant::now() });
        let result = call();
        *self.lock() = None;
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Started>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sdk {
    pub(crate) fn load(path: &Path, clock: CallClock) -> Result<Sdk, LoadError> {
        Ok(Sdk { functions: Functions::load(path)?, clock })
    }

    /// Initialises; being initialised already is fine.
    pub(crate) fn init(&self) -> Result<(), SdkCode> {
        // SAFETY: takes no arguments.
        let code = self.clock.during("init", None, || unsafe { (self.functions.init)() });
        match SdkCode(code) {
            SdkCode::OK | SdkCode::ALREADY_INIT => Ok(()),
            other => Err(other),
        }
    }

    pub(crate) fn terminate(&self) {
        // SAFETY: takes no arguments; allowed also when not initialised.
        self.clock.during("terminate", None, || unsafe { (self.functions.terminate)() });
    }

    pub(crate) fn device_count(&self) -> Result<u32, SdkCode> {
        // SAFETY: takes no arguments.
        let count = self.clock.during("count", None, || unsafe { (self.functions.device_count)() });
        u32::try_from(count).map_err(|_| SdkCode(count))
    }

    pub(crate) fn open(&self, index: u32) -> Option<OpenReader> {
        let index = c_int::try_from(index).ok()?;
        // SAFETY: any index is allowed.
        let handle = self.clock.during("open", None, || unsafe { (self.functions.open)(index) });
        (!handle.is_null()).then(|| OpenReader { handle, image: Vec::new() })
    }

    pub(crate) fn close(&self, reader: OpenReader) {
        // SAFETY: the handle came from `open` and is given up here.
        self.clock.during("close", None, || unsafe { (self.functions.close)(reader.handle) });
    }

    /// A text parameter, without what isn't text.
    pub(crate) fn text(&self, reader: &OpenReader, code: i32) -> Option<String> {
        let mut buffer = [0_u8; TEXT_BYTES];
        let length = self.parameter(reader, None, code, &mut buffer).ok()?;
        let text = buffer.get(..length)?.split(|&byte| byte == 0).next()?;
        let text = String::from_utf8_lossy(text).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// The image's size, and the buffer for it. Failures come as codes and as values that can't
    /// be: both are seen on real readers.
    pub(crate) fn image_size(
        &self,
        reader: &mut OpenReader,
        serial: Option<&Serial>,
    ) -> Result<ImageSize, SdkCode> {
        let width = self.number(reader, serial, parameter::WIDTH)?;
        let height = self.number(reader, serial, parameter::HEIGHT)?;
        let stated = self.number(reader, serial, parameter::IMAGE_BYTES).ok();
        let dpi = self.number(reader, serial, parameter::DPI).ok();
        let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
            return Err(SdkCode::INVALID_PARAMETER);
        };
        let area = u64::from(width) * u64::from(height);
        let stated = stated.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(area);
        let bytes = usize::try_from(area.max(stated)).unwrap_or(usize::MAX);
        if area == 0 || bytes > MAX_IMAGE_BYTES {
            return Err(SdkCode::INVALID_PARAMETER);
        }
        reader.image.resize(bytes, 0);
        let dpi = dpi.and_then(|dpi| u16::try_from(dpi).ok()).filter(|dpi| *dpi >= 100);
        Ok(ImageSize { width, height, dpi: dpi.unwrap_or(USUAL_DPI) })
    }

    /// Asks the sensor for a finger. How long it took is part of the answer.
    pub(crate) fn acquire(
        &self,
        reader: &mut OpenReader,
        serial: &Serial,
    ) -> (Result<Capture, SdkCode>, Duration) {
        let mut template = vec![0_u8; MAX_TEMPLATE_BYTES];
        let mut length = MAX_TEMPLATE_BYTES as c_uint;
        let started = Instant::now();
        let code = self.clock.during("capture", Some(serial), || {
            // SAFETY: the image buffer is at least as large as the reader said, both lengths are
            // those of the buffers.
            unsafe {
                (self.functions.acquire)(
                    reader.handle,
                    reader.image.as_mut_ptr(),
                    reader.image.len() as c_uint,
                    template.as_mut_ptr(),
                    &raw mut length,
                )
            }
        });
        let took = started.elapsed();
        let result = match SdkCode(code) {
            SdkCode::OK if length == 0 || length as usize > MAX_TEMPLATE_BYTES => {
                Ok(Capture::WrongLength(length.into()))
            }
            SdkCode::OK => {
                template.truncate(length as usize);
                Ok(Capture::Print(template))
            }
            other => Err(other),
        };
        (result, took)
    }

    /// The matcher; it comes with the first open reader.
    pub(crate) fn matcher(&self) -> Option<Matcher> {
        // SAFETY: takes no arguments; called after a successful open.
        let handle = self.clock.during("matcher", None, || unsafe { (self.functions.db_init)() });
        (!handle.is_null()).then_some(Matcher { handle })
    }

    pub(crate) fn add(&self, matcher: Matcher, fid: u32, template: &[u8]) -> Result<(), SdkCode> {
        let mut template = template.to_vec();
        let length = template.len() as c_uint;
        // SAFETY: a live matcher; the template was validated by the parent and is as long as said.
        let code = self.clock.during("add", None, || unsafe {
            (self.functions.db_add)(matcher.handle, fid, template.as_mut_ptr(), length)
        });
        ok(code)
    }

    pub(crate) fn delete(&self, matcher: Matcher, fid: u32) -> Result<(), SdkCode> {
        // SAFETY: a live matcher.
        ok(self
            .clock
            .during("delete", None, || unsafe { (self.functions.db_delete)(matcher.handle, fid) }))
    }

    pub(crate) fn clear(&self, matcher: Matcher) -> Result<(), SdkCode> {
        // SAFETY: a live matcher.
        ok(self
            .clock
            .during("clear", None, || unsafe { (self.functions.db_clear)(matcher.handle) }))
    }

    /// The best candidate that passes the SDK's own threshold.
    pub(crate) fn identify(
        &self,
        matcher: Matcher,
        template: &[u8],
    ) -> Result<Option<(u32, u16)>, SdkCode> {
        let mut template = template.to_vec();
        let (mut fid, mut score): (c_uint, c_uint) = (0, 0);
        let code = self.clock.during("identify", None, || unsafe {
            // SAFETY: as for `add`; the outputs are locals.
            (self.functions.db_identify)(
                matcher.handle,
                template.as_mut_ptr(),
                template.len() as c_uint,
                &raw mut fid,
                &raw mut score,
            )
        });
        match SdkCode(code) {
            SdkCode::OK => Ok(Some((fid, score_in_range(score.into())))),
            SdkCode::FAILED | SdkCode::VERIFY_FAILED => Ok(None),
            other => Err(other),
        }
    }

    /// The score of two templates; 0 when they don't match.
    pub(crate) fn compare(&self, matcher: Matcher, a: &[u8], b: &[u8]) -> Result<u16, SdkCode> {
        let (mut a, mut b) = (a.to_vec(), b.to_vec());
        let code = self.clock.during("match", None, || unsafe {
            // SAFETY: as for `add`, both of them.
            (self.functions.db_match)(
                matcher.handle,
                a.as_mut_ptr(),
                a.len() as c_uint,
                b.as_mut_ptr(),
                b.len() as c_uint,
            )
        });
        match SdkCode(code) {
            SdkCode::FAILED | SdkCode::VERIFY_FAILED => Ok(0),
            SdkCode(score) if score >= 0 => Ok(score_in_range(score.into())),
            other => Err(other),
        }
    }

    /// Joins three placements.
    pub(crate) fn merge(
        &self,
        matcher: Matcher,
        templates: [&[u8]; 3],
    ) -> Result<Vec<u8>, SdkCode> {
        // Whole buffers, because this call takes no input lengths.
        let mut inputs = [[0_u8; MAX_TEMPLATE_BYTES]; 3];
        for (input, template) in inputs.iter_mut().zip(templates) {
            let place = input.get_mut(..template.len()).ok_or(SdkCode::INVALID_PARAMETER)?;
            place.copy_from_slice(template);
        }
        let [a, b, c] = &mut inputs;
        let mut merged = vec![0_u8; MAX_TEMPLATE_BYTES];
        let mut length = MAX_TEMPLATE_BYTES as c_uint;
        let code = self.clock.during("merge", None, || unsafe {
            // SAFETY: validated templates in whole buffers; the output's length is its buffer's.
            (self.functions.db_merge)(
                matcher.handle,
                a.as_mut_ptr(),
                b.as_mut_ptr(),
                c.as_mut_ptr(),
                merged.as_mut_ptr(),
                &raw mut length,
            )
        });
        ok(code)?;
        if length == 0 || length as usize > MAX_TEMPLATE_BYTES {
            return Err(SdkCode::MERGE_FAILED);
        }
        merged.truncate(length as usize);
        Ok(merged)
    }

    fn number(
        &self,
        reader: &OpenReader,
        serial: Option<&Serial>,
        code: i32,
    ) -> Result<i32, SdkCode> {
        let mut value = [0_u8; 4];
        self.parameter(reader, serial, code, &mut value)?;
        Ok(i32::from_le_bytes(value))
    }

    fn parameter(
        &self,
        reader: &OpenReader,
        serial: Option<&Serial>,
        code: i32,
        buffer: &mut [u8],
    ) -> Result<usize, SdkCode> {
        let mut length = buffer.len() as c_uint;
        let answer = self.clock.during("parameter", serial, || unsafe {
            // SAFETY: an open handle, and a buffer with its length.
            (self.functions.get_parameter)(
                reader.handle,
                code,
                buffer.as_mut_ptr(),
                &raw mut length,
            )
        });
        ok(answer)?;
        Ok((length as usize).min(buffer.len()))
    }
}

impl OpenReader {
    /// The last image, without what the buffer has in excess.
    pub(crate) fn image(&self, size: ImageSize) -> &[u8] {
        let bytes = size.width as usize * size.height as usize;
        self.image.get(..bytes).unwrap_or_default()
    }
}

fn ok(code: c_int) -> Result<(), SdkCode> {
    if code == 0 { Ok(()) } else { Err(SdkCode(code)) }
}

fn score_in_range(score: i64) -> u16 {
    score.clamp(0, 1000) as u16
}
