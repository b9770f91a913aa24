//! Return codes and parameter codes of the SDK, by their meaning. Only those the simulator uses.

/// Done.
pub const OK: i32 = 0;
/// `ZKFPM_Init` was called before: not an error.
pub const ALREADY_INIT: i32 = 1;
/// The capture library isn't initialised.
pub const NOT_INIT: i32 = -2;
/// No reader.
pub const NO_DEVICE: i32 = -3;
/// The function or the parameter isn't supported.
pub const NOT_SUPPORTED: i32 = -4;
/// A null pointer, a wrong size, a malformed template.
pub const INVALID_PARAMETER: i32 = -5;
/// A handle that isn't one.
pub const INVALID_HANDLE: i32 = -7;
/// No image: the normal answer without a finger.
pub const NO_FINGER: i32 = -8;
/// An image, but no usable template.
pub const BAD_PLACEMENT: i32 = -9;
/// The output buffer is too small.
pub const BUFFER_TOO_SMALL: i32 = -11;
/// A capture is in progress elsewhere.
pub const BUSY: i32 = -12;
/// The template wasn't added: its number is taken, or the cache is full.
pub const ADD_FAILED: i32 = -13;
/// There is no template of that number.
pub const DELETE_FAILED: i32 = -14;
/// Generic failure; an identification without a match.
pub const FAILED: i32 = -17;
/// The three placements aren't of one finger.
pub const MERGE_FAILED: i32 = -22;

/// Image width in pixels, read only.
pub const PARAM_WIDTH: i32 = 1;
/// Image height in pixels, read only.
pub const PARAM_HEIGHT: i32 = 2;
/// Dots per inch.
pub const PARAM_DPI: i32 = 3;
/// White light, 1 on, 0 off.
pub const PARAM_WHITE_LIGHT: i32 = 101;
/// Buzzer, 1 on, 0 off. Between it and the white light: the green and the red LED.
pub const PARAM_BUZZER: i32 = 104;
/// Size of the image buffer in bytes, read only.
pub const PARAM_IMAGE_BYTES: i32 = 106;
/// Low 16 bits the USB vendor, high 16 bits the product, read only.
pub const PARAM_VENDOR_PRODUCT: i32 = 1015;
/// Manufacturer, text, read only.
pub const PARAM_MANUFACTURER: i32 = 1101;
/// Product name, text, read only.
pub const PARAM_PRODUCT: i32 = 1102;
/// Serial number, text, read only.
pub const PARAM_SERIAL: i32 = 1103;
/// Template format: 0 ANSI 378, 1 ISO 19794-2.
pub const PARAM_TEMPLATE_FORMAT: i32 = 10001;
