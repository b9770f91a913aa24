//! Touches without end, on all readers of a site.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use super::{finger::Sensor, site::Site};

const HOLD: Duration = Duration::from_millis(120);
/// A reader whose process was killed comes back within this, back-off and all.
const PATIENCE: Duration = Duration::from_secs(20);

/// They end with [`stop`](Self::stop), or when dropped.
pub(crate) struct Touches {
    is_over: Arc<AtomicBool>,
    fingers: JoinSet<u64>,
}

impl Touches {
    pub(crate) fn start(site: &Site) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut fingers = JoinSet::new();
        for sensor in site.sensors() {
            fingers.spawn(touch(sensor, Arc::clone(&is_over)));
        }
        Self { is_over, fingers }
    }

    /// How many fingers the readers took.
    pub(crate) async fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.fingers.join_all().await.into_iter().sum()
    }
}

async fn touch(sensor: Sensor, is_over: Arc<AtomicBool>) -> u64 {
    let (mut round, mut taken) = (0u64, 0);
    while !is_over.load(Ordering::Relaxed) {
        // Few different images: making them is the test's cost, not the gateway's.
        let finger = format!("visitor-{}/left-index", round % 3);
        taken += u64::from(sensor.try_press(&finger, HOLD, PATIENCE).await);
        round += 1;
    }
    taken
}
