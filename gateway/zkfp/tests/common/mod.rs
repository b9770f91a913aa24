//! A reader host as a real child process, on the real simulator library, in a world of its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use minutiae::GrayImage;
use minutiae::synth::Finger;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zkfp::{Device, HostConfig, HostEvent, ReaderHost, Serial, Touch};

/// Nothing that is waited for takes longer on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What a test binary does instead of testing when the parent starts it as a host. Started by
/// hand it does nothing: there is no parent to talk to.
pub(crate) fn be_the_host() {
    let code = zkfp::host::run(&[]);
    if code != ExitCode::from(zkfp::host::EXIT_USAGE) {
        std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
    }
}

/// A simulated world and a host in it.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) host: ReaderHost,
    pub(crate) events: mpsc::Receiver<HostEvent>,
}

impl Site {
    /// A host in a world with these readers.
    pub(crate) fn new(readers: &[&str]) -> Site {
        Site::with(readers, |_| {})
    }

    /// The same with another configuration.
    pub(crate) fn with(readers: &[&str], change: impl FnOnce(&mut HostConfig)) -> Site {
        let folder = tempfile::tempdir().unwrap();
        for reader in readers {
            fs::create_dir(folder.path().join(reader)).unwrap();
        }
        let mut config = config(folder.path());
        change(&mut config);
        let (sender, events) = mpsc::channel(256);
        let host = ReaderHost::spawn(config, sender);
        Site { folder, host, events }
    }

    pub(crate) fn path(&self, reader: &str) -> PathBuf {
        self.folder.path().join(reader)
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> HostEvent {
        timeout(DEADLINE, self.events.recv()).await.expect("no event in time").expect("host ended")
    }

    /// Skips events until one fits.
    pub(crate) async fn until<T>(&mut self, mut fits: impl FnMut(HostEvent) -> Option<T>) -> T {
        let mut skipped = Vec::new();
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            match timeout(DEADLINE, self.events.recv()).await {
                Ok(Some(event)) => {
                    skipped.push(format!("{event:?}"));
                    if let Some(found) = fits(event) {
                        return found;
                    }
                }
                Ok(None) | Err(_) => break,
            }
        }
        panic!("what was waited for didn't come, but: {skipped:#?}");
    }

    pub(crate) async fn up(&mut self) -> u32 {
        self.until(|event| match event {
            HostEvent::Up { pid, .. } => Some(pid),
            _ => None,
        })
        .await
    }

    pub(crate) async fn devices(&mut self) -> Vec<Device> {
        self.until(|event| match event {
            HostEvent::Devices(devices) => Some(devices),
            _ => None,
        })
        .await
    }

    /// Until exactly these readers are connected.
    pub(crate) async fn until_connected(&mut self, readers: &[&str]) {
        self.until(|event| match event {
            HostEvent::Devices(devices) => {
                let names: Vec<_> = devices.iter().map(|it| it.serial.as_str()).collect();
                (names == readers).then_some(())
            }
            _ => None,
        })
        .await;
    }

    pub(crate) async fn touch(&mut self) -> Touch {
        self.until(|event| match event {
            HostEvent::Touch(touch) => Some(touch),
            _ => None,
        })
        .await
    }

    pub(crate) async fn lifted(&mut self) {
        self.until(|event| matches!(event, HostEvent::Lifted { .. }).then_some(())).await;
    }

    pub(crate) async fn armed(&mut self, reader: &str) -> Serial {
        let serial = serial(reader);
        self.host.arm(&serial, true).await.unwrap();
        serial
    }

    /// One touch of a finger: put, captured, taken away, lifted.
    pub(crate) async fn press(&mut self, reader: &str, finger: &Finger, impression: u64) -> Touch {
        let file = self.put(reader, "press.png", finger, impression);
        let touch = self.touch().await;
        fs::remove_file(file).unwrap();
        self.lifted().await;
        touch
    }

    /// Puts a finger on a reader.
    pub(crate) fn put(
        &self,
        reader: &str,
        name: &str,
        finger: &Finger,
        impression: u64,
    ) -> PathBuf {
        self.put_image(reader, name, &finger.impression(impression))
    }

    pub(crate) fn put_image(&self, reader: &str, name: &str, image: &GrayImage) -> PathBuf {
        let (hidden, file) = (self.path(reader).join(".new"), self.path(reader).join(name));
        if name.ends_with(".raw") {
            fs::write(&hidden, image.pixels()).unwrap();
        } else {
            let (width, height) = (image.width(), image.height());
            image::GrayImage::from_raw(width, height, image.pixels().to_vec())
                .unwrap()
                .save_with_format(&hidden, image::ImageFormat::Png)
                .unwrap();
        }
        fs::rename(&hidden, &file).unwrap();
        file
    }

    /// Switches a fault on.
    pub(crate) fn fault(&self, reader: &str, fault: &str) {
        let hidden = self.folder.path().join(".fault");
        fs::write(&hidden, fault).unwrap();
        fs::rename(hidden, self.path(reader).join("fault")).unwrap();
    }

    /// Switches it off.
    pub(crate) fn repair(&self, reader: &str) {
        fs::remove_file(self.path(reader).join("fault")).unwrap();
    }
}

/// This test binary as the host, in a world.
pub(crate) fn config(world: &Path) -> HostConfig {
    HostConfig {
        exe: std::env::current_exe().unwrap(),
        args: ["--exact", "reader_host", "--ignored", "--nocapture"].map(Into::into).into(),
        simulator_dir: Some(world.to_owned()),
        poll_period: Duration::from_millis(20),
        presence_period: Duration::from_millis(50),
        first_restart: Duration::from_millis(50),
        last_restart: Duration::from_millis(500),
        ..HostConfig::default()
    }
}

pub(crate) fn serial(text: &str) -> Serial {
    Serial::new(text).unwrap()
}

/// Whether a process is there and isn't a zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    state(Path::new(&format!("/proc/{pid}/stat"))).is_some_and(|state| state != 'Z')
}

/// Whether a signal has stopped all threads of a process.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map_while(Result::ok).all(|thread| state(&thread.path().join("stat")) == Some('T'))
}

fn state(stat: &Path) -> Option<char> {
    fs::read_to_string(stat).ok()?.rsplit_once(") ")?.1.chars().next()
}

/// Waits for a condition that no event tells.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = SystemTime::now();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while !condition() {
        assert!(started.elapsed().unwrap() < DEADLINE, "{what}: not in time");
        tick.tick().await;
    }
}
