//! Fingers on simulated sensors: images in folders.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

use minutiae::synth::Finger;

use super::eventually;

/// A simulated sensor.
#[derive(Clone)]
pub(crate) struct Sensor {
    folder: PathBuf,
}

/// Making a finger takes a while and is the same every time: keep them.
static IMAGES: LazyLock<Mutex<Images>> = LazyLock::new(Mutex::default);

/// PNG by finger and impression.
type Images = HashMap<(String, u64), Vec<u8>>;

fn image(name: &str, impression: u64) -> Vec<u8> {
    let key = (name.to_owned(), impression);
    if let Some(found) = IMAGES.lock().unwrap().get(&key) {
        return found.clone();
    }
    let print = Finger::named(name).impression(impression);
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::from_raw(print.width(), print.height(), print.pixels().to_vec())
        .unwrap()
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let png = png.into_inner();
    IMAGES.lock().unwrap().insert(key, png.clone());
    png
}

impl Sensor {
    pub(crate) fn new(simulator: &Path, serial: &str) -> Self {
        Self { folder: simulator.join(serial) }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts a finger down and waits until the reader has lifted it.
    pub(crate) async fn press(&self, finger: &str, impression: u64) {
        self.press_for(finger, impression, Duration::from_millis(250)).await;
    }

    pub(crate) async fn press_for(&self, finger: &str, impression: u64, hold: Duration) {
        let path = self.put(finger, impression, Some(hold));
        // The simulator shows an empty sensor between two fingers, however close they follow.
        eventually("the finger is lifted", async || (!path.exists()).then_some(())).await;
    }

    /// The same where the reader may be dead meanwhile: whether it took the finger within `patience`.
    pub(crate) async fn try_press(&self, finger: &str, hold: Duration, patience: Duration) -> bool {
        let path = self.put(finger, 1, Some(hold));
        let deadline = Instant::now() + patience;
        while path.exists() {
            if Instant::now() >= deadline {
                // The reader may lift it at this very moment.
                let _ = std::fs::remove_file(&path);
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Puts a finger down and leaves it there.
    pub(crate) fn put(&self, finger: &str, impression: u64, hold: Option<Duration>) -> PathBuf {
        let flat = finger.replace('/', "_");
        let name = match hold {
            Some(hold) => format!("{flat}-{impression}@{}ms.png", hold.as_millis()),
            None => format!("{flat}-{impression}.png"),
        };
        let unfinished = self.folder.join(format!(".{name}"));
        std::fs::write(&unfinished, image(finger, impression)).unwrap();
        let path = self.folder.join(&name);
        std::fs::rename(unfinished, &path).unwrap();
        path
    }

    pub(crate) fn fault(&self, fault: Option<&str>) {
        let path = self.folder.join("fault");
        match fault {
            Some(fault) => {
                let unfinished = self.folder.join(".fault");
                std::fs::write(&unfinished, fault).unwrap();
                std::fs::rename(unfinished, path).unwrap();
            }
            None => std::fs::remove_file(path).unwrap(),
        }
    }
}
