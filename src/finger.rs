//! `ridgeway finger`: synthetic fingers on simulated readers. The simulator's whole interface is a
//! folder (see `gateway/simulator`); this puts images there and lets them lift by themselves.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use minutiae::synth::Finger;
use topics::{GatewayStatus, Root, topic::Filter};

use crate::{
    announce::Announcement,
    cli::{FingerAction, FingerArgs, PressArgs, SimulatorArgs},
    mqtt::Subscription,
};

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a reader may take beyond the hold time to let go of a finger.
const LIFT_PATIENCE: Duration = Duration::from_secs(10);
/// Between two presses of one call: long enough for a reader to see that the finger was lifted.
const BETWEEN_PRESSES: Duration = Duration::from_millis(500);

pub(crate) async fn run(args: FingerArgs) -> anyhow::Result<()> {
    match args.action {
        FingerAction::List(simulator) => list(&simulator).await,
        FingerAction::Press(press_args) => press(press_args).await,
    }
}

async fn list(simulator: &SimulatorArgs) -> anyhow::Result<()> {
    let dir = folder(simulator)?;
    let ids = reader_ids(simulator, None).await;
    let serials = serials(&dir)?;
    if serials.is_empty() {
        println!("No simulated reader in {}. A subfolder is a reader.", dir.display());
        return Ok(());
    }
    println!("{:<12} {:<16} on the sensor", "reader", "serial number");
    for serial in serials {
        let id = ids.iter().find(|(_, s)| **s == serial).map_or("-", |(id, _)| id.as_str());
        let finger = on_sensor(&dir.join(&serial))?.unwrap_or_else(|| "nothing".to_owned());
        println!("{id:<12} {serial:<16} {finger}");
    }
    println!(
        "\nAny name is a finger, always the same one for the same name. To press one:\n  \
         ridgeway finger press user-001/right-index --reader device-001"
    );
    Ok(())
}

async fn press(args: PressArgs) -> anyhow::Result<()> {
    let dir = folder(&args.simulator)?;
    let serial = serial_of(&args.reader, &dir, &args.simulator).await?;
    let sensor = dir.join(&serial);
    let finger = Finger::named(&args.finger);
    for turn in 0..args.times {
        if turn > 0 {
            tokio::time::sleep(BETWEEN_PRESSES).await;
        }
        let impression = match args.impression {
            Some(first) => first + u64::from(turn),
            None => random()?,
        };
        wait_until_free(&sensor, LIFT_PATIENCE).await.with_context(|| {
            format!("another finger stays on {serial}; remove it from {}", sensor.display())
        })?;
        put(&sensor, &args, &finger, impression)?;
        println!("{} on {} ({serial}), impression {impression}", args.finger, args.reader);
        wait_until_free(&sensor, args.hold + LIFT_PATIENCE).await.with_context(|| {
            format!("nothing lifts fingers from {serial}: does the gateway run?")
        })?;
    }
    Ok(())
}

fn put(sensor: &Path, args: &PressArgs, finger: &Finger, impression: u64) -> anyhow::Result<()> {
    let print = finger.impression(impression);
    let file_safe: String = args
        .finger
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .take(60)
        .collect();
    let name = format!("{file_safe}-{impression}@{}ms.png", args.hold.as_millis());
    // Written under a name that the simulator passes over, so that it never sees half a finger.
    let unfinished = sensor.join(format!(".{name}"));
    let buffer = image::GrayImage::from_raw(print.width(), print.height(), print.pixels().to_vec())
        .context("the finger's image has the wrong size")?;
    buffer
        .save_with_format(&unfinished, image::ImageFormat::Png)
        .with_context(|| format!("can't write {}", unfinished.display()))?;
    std::fs::rename(&unfinished, sensor.join(&name))
        .with_context(|| format!("can't put the finger on {}", sensor.display()))
}

async fn wait_until_free(sensor: &Path, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while let Some(finger) = on_sensor(sensor)? {
        if Instant::now() > deadline {
            bail!("{finger} is still there after {patience:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The image that lies on a sensor, by its file name.
fn on_sensor(sensor: &Path) -> anyhow::Result<Option<String>> {
    const IMAGES: [&str; 5] = ["png", "tif", "tiff", "bmp", "raw"];
    let entries = std::fs::read_dir(sensor)
        .with_context(|| format!("there is no simulated reader {}", sensor.display()))?;
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let image = name.rsplit_once('.').is_some_and(|(_, ending)| IMAGES.contains(&ending));
        if image && !name.starts_with('.') {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn folder(simulator: &SimulatorArgs) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &simulator.simulator_dir {
        return Ok(dir.clone());
    }
    let running = Announcement::find_in(&simulator.data_dir)?;
    running
        .gateway
        .and_then(|gateway| gateway.simulator_dir)
        .context("the gateway there has real readers: put a real finger on one")
}

fn serials(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut serials = Vec::new();
    let entries = std::fs::read_dir(dir)
        .with_context(|| format!("can't read the simulator's folder {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !name.starts_with('.') {
            serials.push(name);
        }
    }
    serials.sort();
    Ok(serials)
}

/// The serial number of a reader that was named by it or by its id.
async fn serial_of(reader: &str, dir: &Path, simulator: &SimulatorArgs) -> anyhow::Result<String> {
    let serials = serials(dir)?;
    if let Some(serial) = serials.iter().find(|serial| *serial == reader) {
        return Ok(serial.clone());
    }
    let ids = reader_ids(simulator, Some(reader)).await;
    match ids.get(reader) {
        Some(serial) => Ok(serial.clone()),
        None => bail!(
            "there is no simulated reader {reader:?} in {}; there is: {}",
            dir.display(),
            ids.keys().chain(&serials).cloned().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Reader ids and their serial numbers, from the running gateway's retained status; empty where no
/// gateway can be asked. Waits a moment for the one that is wanted: a gateway that has just started
/// tells of its readers as they come.
async fn reader_ids(simulator: &SimulatorArgs, wanted: Option<&str>) -> BTreeMap<String, String> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let mut ids = BTreeMap::new();
    let asked = ask_reader_ids(simulator, wanted, &mut ids);
    if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, asked).await {
        tracing::debug!("can't ask the gateway for its readers: {error:#}");
    }
    ids
}

async fn ask_reader_ids(
    simulator: &SimulatorArgs,
    wanted: Option<&str>,
    ids: &mut BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let running = Announcement::find_in(&simulator.data_dir)?;
    let (Some(gateway), Some(login)) = (running.gateway, running.edge) else {
        bail!("no gateway runs there");
    };
    let filters = [Filter::GatewayStatus(None)];
    let mut states = Subscription::open(&gateway.mqtt, &login, &Root::default(), &filters).await?;
    loop {
        let status: GatewayStatus = serde_json::from_slice(&states.next().await?)?;
        let readers = status.readers.unwrap_or_default();
        *ids = readers.into_iter().map(|r| (r.id.to_string(), r.serial_number)).collect();
        match wanted {
            Some(wanted) if ids.contains_key(wanted) => return Ok(()),
            None if !ids.is_empty() => return Ok(()),
            Some(_) | None => {}
        }
    }
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0u8; 2];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(u16::from_le_bytes(bytes).into())
}
