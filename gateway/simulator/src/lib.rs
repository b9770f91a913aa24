//! A fingerprint reader that is not there: a shared library with the SDK's own C ABI, whose world
//! is a folder.
//!
//! Everything above it, down to `dlopen`, is what runs with a real reader. The folder is named by
//! the environment variable `RIDGEWAY_SIMULATOR_DIR`, read by `ZKFPM_Init`, and is the whole
//! interface:
//!
//! | in the folder | means |
//! |---|---|
//! | a subfolder `SERIAL/` | a reader is plugged in; removing it unplugs it |
//! | names that start with a dot | ignored: write there, then rename, and no half file is seen |
//! | an image in it (`.png`, `.tif`, `.bmp`, or `.raw` with `WxH` in its name) | a finger is on the sensor until the file is gone |
//! | `NAME@1500ms.png` | the same, but it lifts by itself: 1.5 s after the sensor first saw it the file is deleted |
//! | `SERIAL/model`, `SERIAL/firmware` | one line each |
//! | `SERIAL/fault` | one of the faults below, until the file is gone |
//!
//! | fault | effect |
//! |---|---|
//! | `silent-unplug` | captures answer "no finger" for ever, the next `ZKFPM_Init` doesn't find the reader |
//! | `slow 2000` | each capture takes 2 s longer |
//! | `crash` | the next capture ends the process by a segmentation fault |
//! | `garbage-template` | captures succeed, the template is noise, and every second length is wrong |
//! | `busy` | captures answer -12 |
//! | `init -3` | `ZKFPM_Init` answers that code |
//! | `leak` | each capture loses 1 MiB of memory |
//!
//! The sensor holds one finger at a time, in the order of the files' age. Between two fingers it
//! answers "no finger" a few times, as a person does by lifting one. An image that isn't one, or
//! that shows no print, is a finger badly placed (-9).
//!
//! | module | holds |
//! |---|---|
//! | [`abi`] | the exported functions: pointers become slices, nothing else |
//! | [`codes`] | return codes and parameter codes |
//! | `sdk` | the library's state and its order of checks |
//! | `database` | the matcher: templates in, scores out |
//! | `sensor` | which finger is on the glass, and when it lifts |
//! | `picture` | an image file, fitted to the sensor |
//! | `world` | the folder |
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod abi;
pub mod codes;
mod database;
mod picture;
mod sdk;
mod sensor;
mod world;

/// The environment variable that names the world's folder.
pub const DIRECTORY_VARIABLE: &str = "RIDGEWAY_SIMULATOR_DIR";
/// The sensor's width in pixels.
pub const SENSOR_WIDTH_PX: u32 = 300;
/// The sensor's height in pixels.
pub const SENSOR_HEIGHT_PX: u32 = 400;
/// The sensor's resolution in dots per inch.
pub const SENSOR_DPI: u16 = 500;
