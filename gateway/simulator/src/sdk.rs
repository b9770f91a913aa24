//! The library's state, and the order in which it checks what it is given.
//!
//! Every function checks, in this order: null pointers (-5, by the caller), handles (-7), whether
//! the library is initialised (-2), sizes and values, and only then does its work.
//!
//! | state | left by |
//! |---|---|
//! | not initialised | `init` with a reader plugged in |
//! | initialised, no reader opened yet: no matcher | the first `open` |
//! | initialised, with a matcher | `terminate` (handles stay known, the cache is emptied) |

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::codes;
use crate::database::Database;
use crate::picture::Picture;
use crate::sensor::{Look, Sensor};
use crate::world::{Fault, Scan, World};
use crate::{SENSOR_DPI, SENSOR_HEIGHT_PX, SENSOR_WIDTH_PX};

/// Bytes of a captured image.
pub(crate) const IMAGE_BYTES: usize = (SENSOR_WIDTH_PX * SENSOR_HEIGHT_PX) as usize;
/// The handle of the one template cache.
pub(crate) const DATABASE_HANDLE: usize = 0x5a4b_db00;
/// Device handles count up from here.
const FIRST_DEVICE_HANDLE: usize = 0x5a4b_1000;
/// What one capture loses under the fault `leak`.
const LEAK_BYTES: usize = 1024 * 1024;
/// USB vendor of the simulated reader (low half) and a product that no reader has (high half).
const VENDOR_PRODUCT: u32 = 0xffff_1b55;

/// The process-wide library.
#[derive(Default)]
pub(crate) struct Sdk {
    session: Option<Session>,
    /// Opened and not closed, also over a `terminate`.
    devices: BTreeMap<usize, Device>,
    opened: usize,
    sensors: HashMap<String, Sensor>,
    pub(crate) database: Database,
    captures: u64,
}

/// From `init` to `terminate`.
struct Session {
    world: World,
    /// Serial numbers by index, as they were at `init`: the list isn't refreshed.
    readers: Vec<String>,
    has_matcher: bool,
}

/// An open handle.
#[derive(Debug, Clone)]
struct Device {
    serial: String,
    format: TemplateFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TemplateFormat {
    Ansi378,
    Iso19794_2,
}

/// What a capture gave: an image of [`IMAGE_BYTES`] and, if asked for, a template.
pub(crate) struct Capture {
    pub(crate) pixels: Vec<u8>,
    pub(crate) template: Vec<u8>,
    /// What the library says the template's length is. Only a fault makes it differ.
    pub(crate) stated_length: usize,
}

/// A parameter's value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    Number(u32),
    Text(String),
}

/// The library, locked.
pub(crate) fn lock() -> MutexGuard<'static, Sdk> {
    static SDK: LazyLock<Mutex<Sdk>> = LazyLock::new(Mutex::default);
    SDK.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sdk {
    pub(crate) fn init(&mut self) -> i32 {
        if self.session.is_some() {
            return codes::ALREADY_INIT;
        }
        let Some(world) = World::from_environment() else { return codes::NO_DEVICE };
        if let Some(code) = world.init_fault() {
            return code;
        }
        let readers = world.readers();
        if readers.is_empty() {
            return codes::NO_DEVICE;
        }
        self.sensors.retain(|serial, _| readers.contains(serial));
        self.session = Some(Session { world, readers, has_matcher: false });
        codes::OK
    }

    pub(crate) fn terminate(&mut self) -> i32 {
        self.session = None;
        self.database.clear();
        codes::OK
    }

    pub(crate) fn device_count(&self) -> i32 {
        self.session.as_ref().map_or(codes::NOT_INIT, |session| {
            i32::try_from(session.readers.len()).unwrap_or(i32::MAX)
        })
    }

    /// A new handle at each call, also for a reader that is open.
    pub(crate) fn open(&mut self, index: i32) -> Option<usize> {
        let session = self.session.as_mut()?;
        let serial = session.readers.get(usize::try_from(index).ok()?)?.clone();
        if !session.world.reader(&serial).exists() {
            return None;
        }
        session.has_matcher = true;
        self.opened += 1;
        let handle = FIRST_DEVICE_HANDLE + self.opened;
        self.devices.insert(handle, Device { serial, format: TemplateFormat::Iso19794_2 });
        Some(handle)
    }

    pub(crate) fn close(&mut self, handle: usize) -> i32 {
        match self.devices.remove(&handle) {
            Some(_) => codes::OK,
            None => codes::INVALID_HANDLE,
        }
    }

    /// The fault of a reader, before anything else is looked at.
    pub(crate) fn fault(&self, handle: usize) -> Option<Fault> {
        let device = self.devices.get(&handle)?;
        self.session.as_ref()?.world.reader(&device.serial).fault()
    }

    pub(crate) fn parameter(&self, handle: usize, code: i32) -> Result<Parameter, i32> {
        let (device, session) = self.checked(handle)?;
        let folder = session.world.reader(&device.serial);
        if !folder.exists() {
            return Err(codes::NO_DEVICE);
        }
        Ok(match code {
            codes::PARAM_WIDTH => Parameter::Number(SENSOR_WIDTH_PX),
            codes::PARAM_HEIGHT => Parameter::Number(SENSOR_HEIGHT_PX),
            codes::PARAM_DPI => Parameter::Number(SENSOR_DPI.into()),
            codes::PARAM_IMAGE_BYTES => Parameter::Number(IMAGE_BYTES as u32),
            codes::PARAM_VENDOR_PRODUCT => Parameter::Number(VENDOR_PRODUCT),
            codes::PARAM_MANUFACTURER => Parameter::Text("Ridgeway".to_owned()),
            codes::PARAM_PRODUCT => {
                Parameter::Text(folder.line("model").unwrap_or_else(|| "Simulator".to_owned()))
            }
            codes::PARAM_SERIAL => Parameter::Text(device.serial.clone()),
            codes::PARAM_TEMPLATE_FORMAT => Parameter::Number(match device.format {
                TemplateFormat::Ansi378 => 0,
                TemplateFormat::Iso19794_2 => 1,
            }),
            _ => return Err(codes::INVALID_PARAMETER),
        })
    }

    pub(crate) fn set_parameter(&mut self, handle: usize, code: i32, value: u32) -> i32 {
        if let Err(code) = self.checked(handle) {
            return code;
        }
        let Some(device) = self.devices.get_mut(&handle) else { return codes::INVALID_HANDLE };
        match (code, value) {
            (codes::PARAM_WHITE_LIGHT..=codes::PARAM_BUZZER, 0 | 1) => codes::OK,
            (codes::PARAM_DPI, dpi) if dpi == u32::from(SENSOR_DPI) => codes::OK,
            (codes::PARAM_DPI, _) => codes::NOT_SUPPORTED,
            (codes::PARAM_TEMPLATE_FORMAT, 0) => {
                device.format = TemplateFormat::Ansi378;
                codes::OK
            }
            (codes::PARAM_TEMPLATE_FORMAT, 1) => {
                device.format = TemplateFormat::Iso19794_2;
                codes::OK
            }
            _ => codes::INVALID_PARAMETER,
        }
    }

    /// One look at the sensor, with the template if there is one.
    pub(crate) fn acquire(&mut self, handle: usize) -> Result<Capture, i32> {
        let (format, fault, picture) = self.look(handle)?;
        self.captures += 1;
        if fault == Some(Fault::GarbageTemplate) {
            return Ok(garbage(self.captures));
        }
        match (&picture.pixels, &picture.template) {
            (Some(pixels), Some(template)) => {
                let template = match format {
                    TemplateFormat::Ansi378 => template.write_ansi(),
                    TemplateFormat::Iso19794_2 => template.write_iso(),
                };
                let stated_length = template.len();
                Ok(Capture { pixels: pixels.clone(), template, stated_length })
            }
            (Some(_) | None, Some(_) | None) => Err(codes::BAD_PLACEMENT),
        }
    }

    /// One look at the sensor, the image only.
    pub(crate) fn acquire_image(&mut self, handle: usize) -> Result<Vec<u8>, i32> {
        let (_, _, picture) = self.look(handle)?;
        picture.pixels.clone().ok_or(codes::BAD_PLACEMENT)
    }

    /// Whether a cache can be handed out: the matcher comes with the first open reader.
    pub(crate) fn has_matcher(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_matcher)
    }

    /// The checks of every call on the template cache.
    pub(crate) fn check_database(&self, handle: usize) -> Result<(), i32> {
        if handle != DATABASE_HANDLE {
            return Err(codes::INVALID_HANDLE);
        }
        if self.has_matcher() { Ok(()) } else { Err(codes::NOT_INIT) }
    }

    fn checked(&self, handle: usize) -> Result<(&Device, &Session), i32> {
        let device = self.devices.get(&handle).ok_or(codes::INVALID_HANDLE)?;
        let session = self.session.as_ref().ok_or(codes::NOT_INIT)?;
        Ok((device, session))
    }

    fn look(
        &mut self,
        handle: usize,
    ) -> Result<(TemplateFormat, Option<Fault>, Arc<Picture>), i32> {
        let (device, session) = self.checked(handle)?;
        let (serial, format) = (device.serial.clone(), device.format);
        let scan = session.world.reader(&serial).scan();
        let Scan { images, fault } = scan.ok_or(codes::NO_DEVICE)?;
        match fault {
            Some(Fault::SilentUnplug) => return Err(codes::NO_FINGER),
            Some(Fault::Busy) => return Err(codes::BUSY),
            Some(Fault::Leak) => leak(),
            Some(Fault::Slow(_) | Fault::Crash | Fault::GarbageTemplate | Fault::Init(_))
            | None => {}
        }
        let sensor = self.sensors.entry(serial).or_default();
        match sensor.look(Instant::now(), &images) {
            Look::Nothing => Err(codes::NO_FINGER),
            Look::Lifted(path) => {
                // Where it can't be deleted, the sensor remembers it as lifted.
                drop(std::fs::remove_file(path));
                Err(codes::NO_FINGER)
            }
            Look::Finger(file) => Ok((format, fault, sensor.picture(&file))),
        }
    }
}

/// Noise instead of a template; every second one with a length beyond its buffer.
fn garbage(nth: u64) -> Capture {
    let mut state = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let template: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(1200)
    .collect();
    let stated_length = if nth.is_multiple_of(2) { template.len() } else { 70_000 };
    Capture { pixels: vec![128; IMAGE_BYTES], template, stated_length }
}

/// Memory that is really used and never given back.
fn leak() {
    let block = vec![0xa5_u8; LEAK_BYTES].into_boxed_slice();
    std::hint::black_box(Box::leak(block));
}
