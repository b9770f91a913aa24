//! The exported functions. Each turns pointers into values, asks the library, and writes the
//! answer back; the rules are elsewhere.
//!
//! All are `unsafe` for one reason: pointers that aren't null must be valid for the sizes passed
//! beside them, as in C. Handles are numbers and are looked up, never followed.
#![allow(non_snake_case, clippy::missing_safety_doc, clippy::not_unsafe_ptr_arg_deref)]

pub mod old_names;

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::{ptr, slice};

use crate::codes;
use crate::database::{self, MAX_TEMPLATE_BYTES};
use crate::sdk::{self, DATABASE_HANDLE, IMAGE_BYTES, Parameter};
use crate::world::Fault;
use crate::{SENSOR_DPI, SENSOR_HEIGHT_PX, SENSOR_WIDTH_PX};

/// An opaque handle.
pub type Handle = *mut c_void;

/// Width, height and resolution, as `ZKFPM_GetCaptureParams` fills them in.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct CaptureParams {
    /// Pixels.
    pub width: c_uint,
    /// Pixels.
    pub height: c_uint,
    /// Dots per inch.
    pub dpi: c_uint,
}

/// Reads the world; 0, 1 when it was done before, -3 without a reader.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_Init() -> c_int {
    sdk::lock().init()
}

/// Empties the cache and forgets the list of readers. Always 0.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_Terminate() -> c_int {
    sdk::lock().terminate()
}

/// The number of readers at `ZKFPM_Init`.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_GetDeviceCount() -> c_int {
    sdk::lock().device_count()
}

/// Opens a reader; null on any failure.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_OpenDevice(index: c_int) -> Handle {
    sdk::lock().open(index).map_or(ptr::null_mut(), to_handle)
}

/// Closes a handle.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_CloseDevice(device: Handle) -> c_int {
    if device.is_null() {
        return codes::INVALID_PARAMETER;
    }
    sdk::lock().close(device.addr())
}

/// Sets a numeric parameter of four bytes.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_SetParameters(
    device: Handle,
    code: c_int,
    value: *mut u8,
    length: c_uint,
) -> c_int {
    if device.is_null() || value.is_null() || length != 4 {
        return codes::INVALID_PARAMETER;
    }
    // SAFETY: not null, and four bytes long by the caller's word.
    let number = unsafe { ptr::read_unaligned(value.cast::<[u8; 4]>()) };
    sdk::lock().set_parameter(device.addr(), code, u32::from_le_bytes(number))
}

/// Reads a parameter into a buffer.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_GetParameters(
    device: Handle,
    code: c_int,
    value: *mut u8,
    length: *mut c_uint,
) -> c_int {
    if device.is_null() || value.is_null() || length.is_null() {
        return codes::INVALID_PARAMETER;
    }
    let bytes = match sdk::lock().parameter(device.addr(), code) {
        Ok(Parameter::Number(number)) => number.to_le_bytes().to_vec(),
        Ok(Parameter::Text(text)) => [text.as_bytes(), b"\0"].concat(),
        Err(code) => return code,
    };
    // SAFETY: the caller's buffer and its length; checked for null above.
    unsafe { write_out(&bytes, value, length) }
}

/// Takes an image and its template; -8 without a finger.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_AcquireFingerprint(
    device: Handle,
    image: *mut u8,
    image_length: c_uint,
    template: *mut u8,
    template_length: *mut c_uint,
) -> c_int {
    if device.is_null() || image.is_null() || template.is_null() || template_length.is_null() {
        return codes::INVALID_PARAMETER;
    }
    if (image_length as usize) < IMAGE_BYTES {
        return codes::BUFFER_TOO_SMALL;
    }
    crash_if_told(device);
    sleep_if_told(device);
    let capture = match sdk::lock().acquire(device.addr()) {
        Ok(capture) => capture,
        Err(code) => return code,
    };
    // SAFETY: the caller's buffers and their lengths; checked for null above, and the image's size.
    unsafe {
        image.copy_from_nonoverlapping(capture.pixels.as_ptr(), IMAGE_BYTES);
        let code = write_out(&capture.template, template, template_length);
        if code == codes::OK {
            template_length.write(c_uint::try_from(capture.stated_length).unwrap_or(c_uint::MAX));
        }
        code
    }
}

/// Takes an image.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_AcquireFingerprintImage(
    device: Handle,
    image: *mut u8,
    image_length: c_uint,
) -> c_int {
    if device.is_null() || image.is_null() {
        return codes::INVALID_PARAMETER;
    }
    if (image_length as usize) < IMAGE_BYTES {
        return codes::BUFFER_TOO_SMALL;
    }
    crash_if_told(device);
    sleep_if_told(device);
    match sdk::lock().acquire_image(device.addr()) {
        Ok(pixels) => {
            // SAFETY: not null, and large enough by the caller's word, checked above.
            unsafe { image.copy_from_nonoverlapping(pixels.as_ptr(), IMAGE_BYTES) };
            codes::OK
        }
        Err(code) => code,
    }
}

/// The template cache: one for the process; null before the first reader is open.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_DBInit() -> Handle {
    if sdk::lock().has_matcher() { to_handle(DATABASE_HANDLE) } else { ptr::null_mut() }
}

/// Empties the cache.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_DBFree(database: Handle) -> c_int {
    ZKFPM_DBClear(database)
}

/// Joins three placements of one finger. Each template carries its own length.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_DBMerge(
    database: Handle,
    first: *mut u8,
    second: *mut u8,
    third: *mut u8,
    merged: *mut u8,
    merged_length: *mut c_uint,
) -> c_int {
    let inputs = [first, second, third];
    let any_null = inputs.iter().any(|input| input.is_null());
    if database.is_null() || any_null || merged.is_null() || merged_length.is_null() {
        return codes::INVALID_PARAMETER;
    }
    if let Err(code) = sdk::lock().check_database(database.addr()) {
        return code;
    }
    // SAFETY: not null; templates as long as their headers say, by the caller's word.
    let Some(placements) = (unsafe { self_describing(inputs) }) else {
        return codes::INVALID_PARAMETER;
    };
    match database::merge(placements) {
        // SAFETY: the caller's buffer and its length; checked for null above.
        Ok(template) => unsafe { write_out(&template.write_iso(), merged, merged_length) },
        Err(code) => code,
    }
}

/// Adds a template under a number above 0 that isn't taken.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_DBAdd(
    database: Handle,
    id: c_uint,
    template: *mut u8,
    length: c_uint,
) -> c_int {
    // SAFETY: as the caller's.
    unsafe {
        with_template(database, template, length, |sdk, template| {
            code_of(sdk.database.add(id, template))
        })
    }
}

/// Removes a template.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_DBDel(database: Handle, id: c_uint) -> c_int {
    with_database(database, |sdk| code_of(sdk.database.remove(id)))
}

/// Removes all templates.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_DBClear(database: Handle) -> c_int {
    with_database(database, |sdk| {
        sdk.database.clear();
        codes::OK
    })
}

/// Counts the templates.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_DBCount(database: Handle, count: *mut c_uint) -> c_int {
    if count.is_null() {
        return codes::INVALID_PARAMETER;
    }
    with_database(database, |sdk| {
        // SAFETY: not null, by the caller's word valid.
        unsafe { count.write(c_uint::try_from(sdk.database.len()).unwrap_or(c_uint::MAX)) };
        codes::OK
    })
}

/// The best candidate above the threshold, or -17.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_DBIdentify(
    database: Handle,
    template: *mut u8,
    length: c_uint,
    id: *mut c_uint,
    score: *mut c_uint,
) -> c_int {
    if id.is_null() || score.is_null() {
        return codes::INVALID_PARAMETER;
    }
    // SAFETY: as the caller's; both outputs were checked for null.
    unsafe {
        with_template(database, template, length, |sdk, template| {
            match sdk.database.identify(template) {
                Ok((found, its_score)) => {
                    id.write(found);
                    score.write(its_score.into());
                    codes::OK
                }
                Err(code) => code,
            }
        })
    }
}

/// The score of two templates, 0 when they don't match.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_DBMatch(
    database: Handle,
    first: *mut u8,
    first_length: c_uint,
    second: *mut u8,
    second_length: c_uint,
) -> c_int {
    if second.is_null() || second_length as usize > MAX_TEMPLATE_BYTES {
        return codes::INVALID_PARAMETER;
    }
    // SAFETY: as the caller's; the second was checked above.
    unsafe {
        let second = slice::from_raw_parts(second, second_length as usize);
        with_template(database, first, first_length, |_, first| {
            score_or_code(database::compare(first, second))
        })
    }
}

/// The score against the template of one number.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_VerifyByID(
    database: Handle,
    id: c_uint,
    template: *mut u8,
    length: c_uint,
) -> c_int {
    // SAFETY: as the caller's.
    unsafe {
        with_template(database, template, length, |sdk, template| {
            score_or_code(sdk.database.verify(id, template))
        })
    }
}

/// Not supported, as in the Linux library.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_ExtractFromImage(
    _database: Handle,
    _path: *const c_char,
    _dpi: c_uint,
    _template: *mut u8,
    _length: *mut c_uint,
) -> c_int {
    codes::NOT_SUPPORTED
}

/// Not supported, as in the Linux library. Its prototypes differ between SDKs, so that no argument
/// is looked at.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_DBSetParameter(_database: Handle, _code: c_int) -> c_int {
    codes::NOT_SUPPORTED
}

/// Not supported, for the same reason.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_DBGetParameter(_database: Handle, _code: c_int) -> c_int {
    codes::NOT_SUPPORTED
}

/// The sensor's size and resolution.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_GetCaptureParams(
    device: Handle,
    params: *mut CaptureParams,
) -> c_int {
    if device.is_null() || params.is_null() {
        return codes::INVALID_PARAMETER;
    }
    match sdk::lock().parameter(device.addr(), codes::PARAM_WIDTH) {
        Ok(_) => {
            let filled = CaptureParams {
                width: SENSOR_WIDTH_PX,
                height: SENSOR_HEIGHT_PX,
                dpi: SENSOR_DPI.into(),
            };
            // SAFETY: not null, by the caller's word valid.
            unsafe { params.write(filled) };
            codes::OK
        }
        Err(code) => code,
    }
}

/// The same as three numbers.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_GetCaptureParamsEx(
    device: Handle,
    width: *mut c_int,
    height: *mut c_int,
    dpi: *mut c_int,
) -> c_int {
    if width.is_null() || height.is_null() || dpi.is_null() {
        return codes::INVALID_PARAMETER;
    }
    let mut params = CaptureParams::default();
    // SAFETY: a local; the outputs were checked for null.
    unsafe {
        let code = ZKFPM_GetCaptureParams(device, &raw mut params);
        if code == codes::OK {
            width.write(params.width as c_int);
            height.write(params.height as c_int);
            dpi.write(params.dpi as c_int);
        }
        code
    }
}

/// Does nothing.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_SetLogLevel(_level: c_int) {}

/// Does nothing.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_ConfigLog(_level: c_int, _kind: c_int, _file: *mut c_char) {}

fn to_handle(number: usize) -> Handle {
    ptr::without_provenance_mut(number)
}

fn code_of(result: Result<(), i32>) -> c_int {
    result.err().unwrap_or(codes::OK)
}

fn score_or_code(result: Result<u16, i32>) -> c_int {
    result.map_or_else(|code| code, c_int::from)
}

fn with_database(database: Handle, work: impl FnOnce(&mut sdk::Sdk) -> c_int) -> c_int {
    if database.is_null() {
        return codes::INVALID_PARAMETER;
    }
    let mut sdk = sdk::lock();
    match sdk.check_database(database.addr()) {
        Ok(()) => work(&mut sdk),
        Err(code) => code,
    }
}

/// # Safety
/// `template` must be null or valid for `length` bytes.
unsafe fn with_template(
    database: Handle,
    template: *const u8,
    length: c_uint,
    work: impl FnOnce(&mut sdk::Sdk, &[u8]) -> c_int,
) -> c_int {
    if template.is_null() || length as usize > MAX_TEMPLATE_BYTES {
        return codes::INVALID_PARAMETER;
    }
    // SAFETY: by this function's own contract.
    let template = unsafe { slice::from_raw_parts(template, length as usize) };
    with_database(database, |sdk| work(sdk, template))
}

/// # Safety
/// None is null, each is valid for twelve bytes and for as many as these declare.
unsafe fn self_describing<'a>(inputs: [*mut u8; 3]) -> Option<[&'a [u8]; 3]> {
    let mut placements = [[].as_slice(); 3];
    for (placement, input) in placements.iter_mut().zip(inputs) {
        // SAFETY: by this function's own contract.
        let header = unsafe { ptr::read_unaligned(input.cast::<[u8; 12]>()) };
        let length = database::declared_length(&header)?;
        // SAFETY: as above.
        *placement = unsafe { slice::from_raw_parts(input, length) };
    }
    Some(placements)
}

/// Copies into the caller's buffer; `length` holds its size before and the bytes written after.
///
/// # Safety
/// Neither is null, and `buffer` is valid for `*length` bytes.
unsafe fn write_out(bytes: &[u8], buffer: *mut u8, length: *mut c_uint) -> c_int {
    // SAFETY: by this function's own contract; the size is checked before the copy.
    unsafe {
        if (length.read() as usize) < bytes.len() {
            return codes::BUFFER_TOO_SMALL;
        }
        buffer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        length.write(c_uint::try_from(bytes.len()).unwrap_or(c_uint::MAX));
    }
    codes::OK
}

/// The fault `crash`: a real one, by a write to an address that is nobody's.
fn crash_if_told(device: Handle) {
    let fault = sdk::lock().fault(device.addr());
    if fault == Some(Fault::Crash) {
        // SAFETY: there is none; that is the purpose.
        unsafe { ptr::without_provenance_mut::<u8>(64).write_volatile(0) };
    }
}

/// The fault `slow`, without holding the lock.
fn sleep_if_told(device: Handle) {
    let fault = sdk::lock().fault(device.addr());
    if let Some(Fault::Slow(time)) = fault {
        std::thread::sleep(time);
    }
}
