//! The C interface as a C program meets it: which code for which mistake, and in which order the
//! mistakes are looked for.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::ffi::c_uint;
use std::fs;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use minutiae::synth::Finger;
use minutiae::{Format, GrayImage, Template};
use tempfile::TempDir;
use zkfp_simulator::abi::*;
use zkfp_simulator::{DIRECTORY_VARIABLE, codes};

const IMAGE_BYTES: usize = 300 * 400;
const TEMPLATE_BYTES: usize = 2048;

/// A world of its own, and the library for one test at a time: it is one per process.
struct World {
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    fn new(readers: &[&str]) -> World {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        for reader in readers {
            fs::create_dir(folder.path().join(reader)).unwrap();
        }
        // SAFETY: the other tests wait for the lock, and nothing else here reads the environment.
        unsafe { std::env::set_var(DIRECTORY_VARIABLE, folder.path()) };
        World { folder, _alone: alone }
    }

    /// With the library initialised and the first reader open.
    fn opened(readers: &[&str]) -> (World, Reader) {
        let world = World::new(readers);
        assert_eq!(ZKFPM_Init(), codes::OK);
        let reader = Reader(ZKFPM_OpenDevice(0));
        assert!(!reader.0.is_null());
        // The last test may have lifted a finger just now.
        assert!((0..10).all(|_| reader.acquire() == Err(codes::NO_FINGER)));
        (world, reader)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let hidden = self.folder.path().join(".new");
        fs::write(&hidden, content).unwrap();
        fs::rename(hidden, self.folder.path().join(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    fn exists(&self, name: &str) -> bool {
        self.folder.path().join(name).exists()
    }

    /// A raw image of the sensor's size on the reader `A`.
    fn press(&self, image: &GrayImage) -> String {
        let name = format!("A/finger-{}x{}.raw", image.width(), image.height());
        self.write(&name, image.pixels());
        name
    }
}

impl Drop for World {
    fn drop(&mut self) {
        ZKFPM_Terminate();
    }
}

/// An open reader, closed at the end.
struct Reader(Handle);

impl Reader {
    fn acquire_with(&self, image_bytes: usize, template_bytes: usize) -> Result<Vec<u8>, i32> {
        let (mut image, mut template) = (vec![0; IMAGE_BYTES], vec![0; TEMPLATE_BYTES]);
        let mut length = template_bytes as c_uint;
        // SAFETY: buffers of the largest size that is claimed here.
        let code = unsafe {
            ZKFPM_AcquireFingerprint(
                self.0,
                image.as_mut_ptr(),
                image_bytes as c_uint,
                template.as_mut_ptr(),
                &raw mut length,
            )
        };
        if code != codes::OK {
            return Err(code);
        }
        template.truncate(length as usize);
        Ok(template)
    }

    fn acquire(&self) -> Result<Vec<u8>, i32> {
        self.acquire_with(IMAGE_BYTES, TEMPLATE_BYTES)
    }

    /// Waits over the gap between two fingers.
    fn capture(&self) -> Vec<u8> {
        for _ in 0..20 {
            match self.acquire() {
                Err(codes::NO_FINGER) => {}
                other => return other.expect("a good finger"),
            }
        }
        panic!("no finger in twenty looks");
    }

    fn parameter(&self, code: i32, buffer_bytes: usize) -> Result<Vec<u8>, i32> {
        let mut buffer = vec![0; buffer_bytes.max(1)];
        let mut length = buffer_bytes as c_uint;
        // SAFETY: a buffer of that length.
        let code =
            unsafe { ZKFPM_GetParameters(self.0, code, buffer.as_mut_ptr(), &raw mut length) };
        if code != codes::OK {
            return Err(code);
        }
        buffer.truncate(length as usize);
        Ok(buffer)
    }

    fn number(&self, code: i32) -> Result<i32, i32> {
        self.parameter(code, 4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap()))
    }

    fn set(&self, code: i32, value: i32) -> i32 {
        let mut bytes = value.to_le_bytes();
        // SAFETY: four bytes.
        unsafe { ZKFPM_SetParameters(self.0, code, bytes.as_mut_ptr(), 4) }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        ZKFPM_CloseDevice(self.0);
    }
}

fn compare(a: &mut [u8], b: &mut [u8]) -> i32 {
    let (a_bytes, b_bytes) = (a.len() as c_uint, b.len() as c_uint);
    // SAFETY: slices with their lengths.
    unsafe { ZKFPM_DBMatch(ZKFPM_DBInit(), a.as_mut_ptr(), a_bytes, b.as_mut_ptr(), b_bytes) }
}

fn add(id: u32, template: &mut [u8]) -> i32 {
    // SAFETY: a slice with its length.
    unsafe { ZKFPM_DBAdd(ZKFPM_DBInit(), id, template.as_mut_ptr(), template.len() as c_uint) }
}

fn identify(template: &mut [u8]) -> Result<(u32, u32), i32> {
    let (mut id, mut score) = (0, 0);
    let bytes = template.len() as c_uint;
    // SAFETY: a slice with its length, and two locals.
    let code = unsafe {
        let template = template.as_mut_ptr();
        ZKFPM_DBIdentify(ZKFPM_DBInit(), template, bytes, &raw mut id, &raw mut score)
    };
    if code == codes::OK { Ok((id, score)) } else { Err(code) }
}

fn merge(placements: [&mut Vec<u8>; 3]) -> Result<Vec<u8>, i32> {
    let mut merged = vec![0; TEMPLATE_BYTES];
    let mut length = TEMPLATE_BYTES as c_uint;
    let [a, b, c] = placements.map(|placement| {
        placement.resize(TEMPLATE_BYTES, 0);
        placement.as_mut_ptr()
    });
    // SAFETY: whole buffers.
    let code =
        unsafe { ZKFPM_DBMerge(ZKFPM_DBInit(), a, b, c, merged.as_mut_ptr(), &raw mut length) };
    merged.truncate(length as usize);
    if code == codes::OK { Ok(merged) } else { Err(code) }
}

#[test]
fn initialising_needs_a_reader_and_twice_is_no_error() {
    let world = World::new(&[]);
    assert_eq!(ZKFPM_GetDeviceCount(), codes::NOT_INIT);
    assert!(ZKFPM_OpenDevice(0).is_null());
    assert_eq!(ZKFPM_Init(), codes::NO_DEVICE);
    fs::create_dir(world.folder.path().join("A")).unwrap();
    assert_eq!(ZKFPM_Init(), codes::OK);
    assert_eq!(ZKFPM_Init(), codes::ALREADY_INIT);
    assert_eq!(ZKFPM_GetDeviceCount(), 1);
    fs::create_dir(world.folder.path().join("B")).unwrap();
    assert_eq!(ZKFPM_GetDeviceCount(), 1, "the list isn't refreshed");
    assert_eq!((ZKFPM_Terminate(), ZKFPM_Terminate()), (codes::OK, codes::OK));
    assert_eq!((ZKFPM_Init(), ZKFPM_GetDeviceCount()), (codes::OK, 2));
    ZKFPM_Terminate();
    world.write("A/fault", "init -2");
    assert_eq!(ZKFPM_Init(), -2);
}

#[test]
fn each_open_is_a_handle_of_its_own_and_outlives_a_terminate() {
    let (world, first) = World::opened(&["A"]);
    let second = Reader(ZKFPM_OpenDevice(0));
    assert_ne!(first.0, second.0);
    assert!(ZKFPM_OpenDevice(1).is_null() && ZKFPM_OpenDevice(-1).is_null());
    assert_eq!(ZKFPM_CloseDevice(null_mut()), codes::INVALID_PARAMETER);
    assert_eq!(ZKFPM_CloseDevice(without_provenance_mut(4711)), codes::INVALID_HANDLE);
    assert_eq!(ZKFPM_CloseDevice(second.0), codes::OK);
    assert_eq!(second.acquire(), Err(codes::INVALID_HANDLE));
    ZKFPM_Terminate();
    assert_eq!(first.acquire(), Err(codes::NOT_INIT), "known, but the library isn't ready");
    assert_eq!(ZKFPM_CloseDevice(first.0), codes::OK);
    drop(world);
}

#[test]
fn null_comes_before_handle_before_initialisation() {
    let world = World::new(&["A"]);
    let foreign = Reader(without_provenance_mut(4711));
    // SAFETY: null and a number; both are refused before anything is followed.
    let null =
        unsafe { ZKFPM_AcquireFingerprint(foreign.0, null_mut(), 0, null_mut(), null_mut()) };
    assert_eq!(null, codes::INVALID_PARAMETER);
    assert_eq!(foreign.acquire(), Err(codes::INVALID_HANDLE));
    assert_eq!(foreign.number(1), Err(codes::INVALID_HANDLE));
    assert_eq!(foreign.set(101, 1), codes::INVALID_HANDLE);

    let nobody = without_provenance_mut(4712);
    // SAFETY: as above.
    let null = unsafe { ZKFPM_DBAdd(nobody, 1, null_mut(), 0) };
    assert_eq!(null, codes::INVALID_PARAMETER);
    assert_eq!(ZKFPM_DBClear(null_mut()), codes::INVALID_PARAMETER);
    assert_eq!(ZKFPM_DBClear(nobody), codes::INVALID_HANDLE);

    assert!(ZKFPM_DBInit().is_null(), "not initialised");
    assert_eq!(ZKFPM_Init(), codes::OK);
    assert!(ZKFPM_DBInit().is_null(), "no reader was opened: no matcher");
    let reader = Reader(ZKFPM_OpenDevice(0));
    let database = ZKFPM_DBInit();
    assert!(!database.is_null() && database == ZKFPM_DBInit(), "one for the process");
    ZKFPM_Terminate();
    assert_eq!(ZKFPM_DBClear(database), codes::NOT_INIT);
    drop(reader);
    drop(world);
}

#[test]
fn parameters_are_numbers_and_texts_in_buffers_that_must_be_large_enough() {
    let (world, reader) = World::opened(&["A"]);
    world.write("A/model", "Model Z\nsecond line");
    assert_eq!(reader.number(codes::PARAM_WIDTH), Ok(300));
    assert_eq!(reader.number(codes::PARAM_HEIGHT), Ok(400));
    assert_eq!(reader.number(codes::PARAM_DPI), Ok(500));
    assert_eq!(reader.number(codes::PARAM_IMAGE_BYTES), Ok(IMAGE_BYTES as i32));
    assert_eq!(reader.number(codes::PARAM_TEMPLATE_FORMAT), Ok(1));
    assert_eq!(reader.number(4711), Err(codes::INVALID_PARAMETER));
    assert_eq!(reader.parameter(codes::PARAM_SERIAL, 64), Ok(b"A\0".to_vec()));
    assert_eq!(reader.parameter(codes::PARAM_PRODUCT, 64), Ok(b"Model Z\0".to_vec()));
    assert_eq!(reader.parameter(codes::PARAM_PRODUCT, 7), Err(codes::BUFFER_TOO_SMALL));
    assert_eq!(reader.set(101, 1), codes::OK);
    assert_eq!(reader.set(codes::PARAM_DPI, 1000), codes::NOT_SUPPORTED);
    assert_eq!(reader.set(codes::PARAM_WIDTH, 1), codes::INVALID_PARAMETER);
    let mut params = CaptureParams::default();
    // SAFETY: a local.
    assert_eq!(unsafe { ZKFPM_GetCaptureParams(reader.0, &raw mut params) }, codes::OK);
    assert_eq!((params.width, params.height, params.dpi), (300, 400, 500));
}

#[test]
fn a_capture_answers_as_the_sensor_sees_it() {
    let (world, reader) = World::opened(&["A"]);
    assert_eq!(reader.acquire(), Err(codes::NO_FINGER));
    let name = world.press(&Finger::new(1).impression(1));
    assert_eq!(reader.acquire_with(IMAGE_BYTES - 1, TEMPLATE_BYTES), Err(codes::BUFFER_TOO_SMALL));
    assert_eq!(reader.acquire_with(IMAGE_BYTES, 20), Err(codes::BUFFER_TOO_SMALL));
    let iso = reader.acquire().unwrap();
    assert_eq!(Format::detect(&iso), Some(Format::Iso19794_2));
    assert_eq!(reader.acquire(), Ok(iso.clone()), "the same finger, the same capture");
    assert_eq!(reader.set(codes::PARAM_TEMPLATE_FORMAT, 0), codes::OK);
    let ansi = reader.acquire().unwrap();
    assert_eq!(Format::detect(&ansi), Some(Format::Ansi378));
    world.remove(&name);
    assert_eq!(reader.acquire(), Err(codes::NO_FINGER));

    for (name, content) in [("A/no.png", "no image"), ("A/no-9x9.raw", "short"), ("A/no.tif", "")] {
        world.write(name, content);
        let seen = (0..10).map(|_| reader.acquire()).find(|code| *code != Err(codes::NO_FINGER));
        assert_eq!(seen, Some(Err(codes::BAD_PLACEMENT)), "{name}");
        world.remove(name);
        assert_eq!(reader.acquire(), Err(codes::NO_FINGER));
    }
    fs::remove_dir_all(world.folder.path().join("A")).unwrap();
    assert_eq!(reader.acquire(), Err(codes::NO_DEVICE));
}

#[test]
fn pictures_of_other_sizes_and_kinds_are_fitted_to_the_sensor() {
    let (world, reader) = World::opened(&["A"]);
    let finger = Finger::new(1).impression(1);
    let picture =
        image::GrayImage::from_raw(finger.width(), finger.height(), finger.pixels().to_vec());
    let picture = image::DynamicImage::from(picture.unwrap());
    let mut captured = Vec::new();
    let larger = {
        let mut canvas = image::GrayImage::from_pixel(500, 600, image::Luma([255]));
        image::imageops::overlay(&mut canvas, &picture.to_luma8(), 100, 100);
        image::DynamicImage::from(canvas)
    };
    for (name, picture) in
        [("A/a.png", &picture), ("A/a.tif", &picture), ("A/a.bmp", &picture), ("A/b.png", &larger)]
    {
        let hidden = world.folder.path().join(".new.").with_extension(&name[4..]);
        picture.save(&hidden).unwrap();
        fs::rename(hidden, world.folder.path().join(name)).unwrap();
        captured.push(reader.capture());
        world.remove(name);
        assert_eq!(reader.acquire(), Err(codes::NO_FINGER));
    }
    let [png, tif, bmp, larger] = captured.as_slice() else { panic!() };
    assert!(png == tif && png == bmp, "the same pixels");
    assert!(compare(&mut png.clone(), &mut larger.clone()) >= 50, "the same finger");
}

#[test]
fn a_held_finger_is_deleted_by_the_sensor() {
    let (world, reader) = World::opened(&["A"]);
    let finger = Finger::new(1).impression(1);
    let name = format!("A/f-{}x{}@50ms.raw", finger.width(), finger.height());
    world.write(&name, finger.pixels());
    let started = Instant::now();
    reader.acquire().unwrap();
    while reader.acquire().is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert!(!world.exists(&name));
}

#[test]
fn the_cache_adds_finds_and_deletes_with_the_documented_codes() {
    let (world, reader) = World::opened(&["A"]);
    let (one, other) = (Finger::new(1), Finger::new(2));
    let mut captures = Vec::new();
    for image in [one.impression(1), one.impression(2), one.impression(3), other.impression(1)] {
        let name = world.press(&image);
        captures.push(reader.capture());
        world.remove(&name);
        assert_eq!(reader.acquire(), Err(codes::NO_FINGER));
    }
    let [a, b, c, stranger] = captures.as_mut_slice() else { panic!() };

    assert!(compare(a, b) >= 50);
    assert_eq!(compare(a, stranger), 0);
    assert_eq!(compare(a, &mut [0; 100]), codes::INVALID_PARAMETER);

    assert_eq!(add(0, a), codes::INVALID_PARAMETER);
    assert_eq!(add(1, &mut [0; 100]), codes::INVALID_PARAMETER);
    assert_eq!(identify(a), Err(codes::FAILED), "nobody there");
    assert_eq!(add(1, a), codes::OK);
    assert_eq!(add(1, b), codes::ADD_FAILED, "taken");
    let mut count = 0;
    // SAFETY: a local.
    assert_eq!(unsafe { ZKFPM_DBCount(ZKFPM_DBInit(), &raw mut count) }, codes::OK);
    assert_eq!(count, 1);
    assert!(matches!(identify(b), Ok((1, score)) if score >= 55));
    assert_eq!(identify(stranger), Err(codes::FAILED));
    // SAFETY: a slice with its length.
    let verified =
        unsafe { ZKFPM_VerifyByID(ZKFPM_DBInit(), 1, b.as_mut_ptr(), b.len() as c_uint) };
    assert!(verified >= 50);
    assert_eq!(ZKFPM_DBDel(ZKFPM_DBInit(), 2), codes::DELETE_FAILED);
    assert_eq!(ZKFPM_DBDel(ZKFPM_DBInit(), 1), codes::OK);
    assert_eq!(identify(b), Err(codes::FAILED));

    let merged = merge([a, b, c]).unwrap();
    assert_eq!(Template::read(&merged).unwrap().views().len(), 3);
    assert_eq!(merge([a, stranger, c]), Err(codes::MERGE_FAILED));
    assert_eq!(merge([a, &mut vec![0; 30], c]), Err(codes::INVALID_PARAMETER));

    ZKFPM_DBClear(ZKFPM_DBInit());
    assert_eq!(add(9, stranger), codes::OK);
    ZKFPM_Terminate();
    assert_eq!(ZKFPM_Init(), codes::OK);
    let again = Reader(ZKFPM_OpenDevice(0));
    assert_eq!(identify(stranger), Err(codes::FAILED), "a terminate empties the cache");
    drop(again);
}

#[test]
fn faults_show_in_the_capture_until_their_file_is_gone() {
    let (world, reader) = World::opened(&["A"]);
    let name = world.press(&Finger::new(1).impression(1));
    let good = reader.acquire().unwrap();
    world.write("A/fault", "busy");
    assert_eq!(reader.acquire(), Err(codes::BUSY));
    world.write("A/fault", "silent-unplug");
    assert_eq!(reader.acquire(), Err(codes::NO_FINGER));
    assert_eq!(ZKFPM_GetDeviceCount(), 1);
    world.write("A/fault", "slow 100");
    let started = Instant::now();
    assert_eq!(reader.acquire(), Ok(good.clone()));
    assert!(started.elapsed() >= Duration::from_millis(100));
    world.write("A/fault", "garbage-template");
    let lengths: Vec<usize> = (0..2)
        .map(|_| {
            let template = reader.acquire().unwrap();
            assert!(Template::read(&template).is_err());
            template.len()
        })
        .collect();
    assert!(lengths.contains(&1200), "{lengths:?}");
    world.remove("A/fault");
    assert_eq!(reader.acquire(), Ok(good));
    world.remove(&name);
}
