//! The gateway's disk fills up: it refuses what it can't record, says so, and goes on by itself when there
//! is room again. Nothing of what it told is lost.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::support::{
    account::settle,
    eventually,
    load::Touches,
    site::{Options, Site},
    text,
    told::Told,
};

/// Refusals while the disk is full.
const REFUSALS: usize = 10;

/// A small disk of its own, gone with the test.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount one.
    fn mount(at: &Path, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={mebibytes}m,mode=0700");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "ridgeway-test"])
            .arg(at)
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut ballast = File::options().append(true).create(true).open(self.ballast()).unwrap();
        while ballast.write_all(&[7; 4096]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: after a failure the gateway may still be there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_says_so_and_loses_nothing() {
    let options = Options { readers: vec!["SIM-0001", "SIM-0002"], ..Options::default() };
    let mut site = Site::new(options);
    let Some(disk) = Disk::mount(&site.folder().join("gateway"), 16) else {
        println!("skipped: only root can mount a disk to be filled");
        return;
    };
    site.start_bridge();
    site.start_gateway();
    site.connected().await;
    let (local, api) = (site.local(), site.local());
    let mut told = Told::listen(&local, &site.cloud(), &site.edge_broker());
    let touches = Touches::start(&site);
    for is_power_cut in [false, true, false] {
        disk.fill();
        // Again and again: between two failures a small commit may still find room.
        for _ in 0..REFUSALS {
            eventually("a capture is refused", async || {
                let (status, body) =
                    api.post("/api/fingerprint/capture", json!({"timeout": 1000})).await;
                let reason = &body["error"]["details"]["reason"];
                (status == 503 && reason == "disk full").then_some(())
            })
            .await;
        }
        let (status, health) = api.get("/api/health").await;
        assert_eq!((status, &health["status"]), (503, &json!("unhealthy")), "{health}");
        if is_power_cut {
            site.kill_gateway();
            site.start_gateway();
        }
        disk.empty();
        eventually("it is healthy by itself", async || {
            let (status, _) = api.get("/api/health").await;
            (status == 200).then_some(())
        })
        .await;
        let before = api.events().await.len();
        eventually("events are recorded again", async || {
            (api.events().await.len() > before + 5).then_some(())
        })
        .await;
    }
    touches.stop().await;
    told.take_edge();
    let (_, cloud) = settle(&mut site).await;
    for ids in [told.local.all(), told.edge.all(), told.cloud.all()] {
        let mut lost = ids;
        cloud.iter().for_each(|event| _ = lost.remove(text(event, "id")));
        assert!(lost.is_empty(), "told, then lost: {lost:?}");
    }
}
