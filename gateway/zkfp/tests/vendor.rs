//! The habits of real SDKs, as seen in the field, in a small C library built by this test: captures
//! that block, readers without or with the same serial number, errors hidden in values, buffers
//! larger than the template, chatter on standard output, and a device list that only a
//! re-initialisation refreshes.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Site, serial};
use zkfp::{Fid, HostEvent, ReaderError};

#[test]
#[ignore = "not a test: the reader host that the tests start"]
fn reader_host() {
    common::be_the_host();
}

/// Two readers; `count` and `finger` beside the library steer it, `calls` tells what was called.
const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define W 100
#define H 120
static int initialised, count, opened, has_matcher, added[16];
static int read_number(const char *name) {
    char path[512]; int value = 0;
    snprintf(path, sizeof path, "%s/%s", FOLDER, name);
    FILE *file = fopen(path, "r");
    if (file) { if (fscanf(file, "%d", &value) != 1) value = 0; fclose(file); }
    return value;
}
static void call(const char *name) {
    char path[512]; snprintf(path, sizeof path, "%s/calls", FOLDER);
    FILE *file = fopen(path, "a");
    if (file) { fprintf(file, "%s\n", name); fclose(file); }
}
int ZKFPM_Init(void) {
    printf("vendor chatter on standard output\n"); fflush(stdout);
    call("init");
    if (initialised) return 1;
    count = read_number("count");
    if (count <= 0) return count ? count : -3;
    initialised = 1;
    return 0;
}
int ZKFPM_Terminate(void) { call("terminate"); initialised = 0; has_matcher = 0; memset(added, 0, sizeof added); return 0; }
int ZKFPM_GetDeviceCount(void) { return initialised ? count : -2; }
void *ZKFPM_OpenDevice(int index) {
    if (!initialised || index < 0 || index >= count) return NULL;
    call("open"); opened++; has_matcher = 1;
    int *device = malloc(sizeof *device); *device = index; return device;
}
int ZKFPM_CloseDevice(void *device) { call("close"); opened--; free(device); return 0; }
int ZKFPM_GetParameters(void *device, int code, unsigned char *value, unsigned *length) {
    int index = *(int *)device, number;
    switch (code) {
    case 1: number = W; break;
    case 2: number = index == 2 ? -5 : H; break;
    case 106: number = -5; break;
    case 1103:
        memset(value, 0, *length);
        if (index < 2) strcpy((char *)value, "  SAME\x01\n");
        return 0;
    case 1102: return -5;
    default: number = -5;
    }
    if (*length < 4) return -5;
    memcpy(value, &number, 4); *length = 4;
    return 0;
}
static const unsigned char head[] = {1, 2, 'S', 'S', '2', '1', 0, 0, 1, 44};
int ZKFPM_AcquireFingerprint(void *device, unsigned char *image, unsigned size, unsigned char *out, unsigned *length) {
    int index = *(int *)device;
    usleep(150 * 1000);
    if (size < W * H || *length != 2048) return -5;
    if (read_number("failing")) return -6;
    if (read_number("finger") != index + 1) return -8;
    memset(image, 128, size);
    memset(out, 0, *length); memcpy(out, head, sizeof head);
    return 0;
}
void *ZKFPM_CreateDBCache(void) { return has_matcher ? added : NULL; }
int ZKFPM_GenRegTemplate(void *db, unsigned char *a, unsigned char *b, unsigned char *c, unsigned char *out, unsigned *length) { memcpy(out, a, 300); *length = 300; return 0; }
int ZKFPM_AddRegTemplateToDBCache(void *db, unsigned fid, unsigned char *t, unsigned length) { if (fid > 15 || added[fid]) return -13; added[fid] = 1; return 0; }
int ZKFPM_DelRegTemplateFromDBCache(void *db, unsigned fid) { if (!added[fid]) return -14; added[fid] = 0; return 0; }
int ZKFPM_ClearDBCache(void *db) { memset(added, 0, sizeof added); return 0; }
int ZKFPM_Identify(void *db, unsigned char *t, unsigned length, unsigned *fid, unsigned *score) {
    for (unsigned i = 1; i < 16; i++) if (added[i]) { *fid = i; *score = 4000; return 0; }
    *fid = 77; return -17;
}
int ZKFPM_MatchFinger(void *db, unsigned char *a, unsigned al, unsigned char *b, unsigned bl) { return read_number("score"); }
"#;

struct Vendor {
    folder: tempfile::TempDir,
    library: PathBuf,
    usb: PathBuf,
}

impl Vendor {
    fn new() -> Vendor {
        let folder = tempfile::tempdir().expect("a folder");
        let (source, library) = (folder.path().join("sdk.c"), folder.path().join("libzkfp.so"));
        let usb = folder.path().join("usb");
        fs::create_dir(&usb).expect("a folder");
        fs::write(&source, SOURCE).expect("a file");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-w"])
            .arg(format!("-DFOLDER=\"{}\"", folder.path().display()))
            .args([Path::new("-o"), &library, &source])
            .status()
            .expect("a C compiler is needed to build this project");
        assert!(status.success());
        Vendor { folder, library, usb }
    }

    fn set(&self, name: &str, number: i32) {
        let hidden = self.folder.path().join(".new");
        fs::write(&hidden, number.to_string()).expect("a file");
        fs::rename(hidden, self.folder.path().join(name)).expect("a file");
    }

    /// What was called since the last time.
    fn calls(&self) -> Vec<String> {
        let path = self.folder.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        drop(fs::remove_file(path));
        calls.lines().map(str::to_owned).collect()
    }

    /// As the kernel shows a reader that was plugged in for the n-th time.
    fn plug(&self, port: &str, number: u32) {
        let hidden = self.folder.path().join("device");
        fs::create_dir_all(&hidden).expect("a folder");
        fs::write(hidden.join("idVendor"), "1b55\n").expect("a file");
        fs::write(hidden.join("bcdDevice"), "0203\n").expect("a file");
        fs::write(hidden.join("devnum"), format!("{number}\n")).expect("a file");
        drop(fs::remove_dir_all(self.usb.join(port)));
        fs::rename(hidden, self.usb.join(port)).expect("a folder");
    }

    fn site(&self) -> Site {
        let (library, usb_devices) = (self.library.clone(), self.usb.clone());
        Site::with(&[], |config| {
            config.simulator_dir = None;
            config.library = Some(library);
            config.usb_devices = usb_devices;
        })
    }
}

#[tokio::test]
async fn readers_with_odd_answers_are_told_apart_and_a_senseless_one_is_left_out() {
    let vendor = Vendor::new();
    vendor.set("count", 3);
    vendor.plug("1-1", 2);
    let mut site = vendor.site();
    let devices = site.devices().await;
    let names: Vec<_> = devices.iter().map(|device| device.serial.as_str()).collect();
    assert_eq!(names, ["SAME", "reader-2"], "the third gives its height as -5");
    assert_eq!((devices[0].width, devices[0].height, devices[0].dpi), (100, 120, 500));
    assert_eq!(devices[0].firmware.as_deref(), Some("2.03"));
    site.host.shutdown().await;
    let calls = vendor.calls();
    let count = |name: &str| calls.iter().filter(|call| *call == name).count();
    assert_eq!(count("open"), count("close"), "each open is closed: {calls:?}");
}

#[tokio::test]
async fn a_replug_is_close_terminate_init_open_and_templates_are_given_again() {
    let vendor = Vendor::new();
    vendor.set("count", 1);
    vendor.plug("1-1", 2);
    let mut site = vendor.site();
    site.until_connected(&["SAME"]).await;
    site.armed("SAME").await;
    vendor.set("finger", 1);
    let touch = site.touch().await;
    assert_eq!(touch.template.as_bytes().len(), 300, "without the rest of the buffer");
    assert_eq!(touch.quality, 0, "a grey image");
    let fid = Fid::new(3).expect("not 0");
    site.host.db_load([(fid, touch.template.clone())]).await.expect("loaded");
    assert_eq!(vendor.calls(), ["init", "open"]);

    vendor.plug("1-1", 3);
    common::eventually("the SDK is initialised again", || {
        let calls = fs::read_to_string(vendor.folder.path().join("calls"));
        calls.is_ok_and(|calls| calls.contains("open"))
    })
    .await;
    assert_eq!(vendor.calls(), ["close", "terminate", "init", "open"]);
    let found = site.host.db_identify(&touch.template).await.expect("a search").expect("found");
    assert_eq!((found.fid, found.score), (fid, 1000), "a score beyond the scale is cut");
    vendor.set("finger", 0);
    site.lifted().await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn scores_and_codes_of_a_comparison_are_told_apart() {
    let vendor = Vendor::new();
    vendor.set("count", 1);
    let mut site = vendor.site();
    site.until_connected(&["SAME"]).await;
    site.armed("SAME").await;
    vendor.set("finger", 1);
    let template = site.touch().await.template;
    for (answer, score) in [(120, Ok(120)), (0, Ok(0)), (-20, Ok(0)), (-17, Ok(0)), (-5, Err(2004))]
    {
        vendor.set("score", answer);
        let got = site.host.match_templates(&template, &template).await;
        assert_eq!(got.map_err(|error| error.code()), score, "{answer}");
    }
    vendor.set("score", 60);
    assert!(site.host.merge(&template, &template, &template).await.is_ok());
    vendor.set("score", 0);
    let refused = site.host.merge(&template, &template, &template).await;
    assert_eq!(refused.map_err(|error| error.code()), Err(2005));
    assert_eq!(site.host.db_load([]).await, Ok(vec![]));
    assert_eq!(
        site.host.db_identify(&template).await,
        Ok(None),
        "what it leaves behind is no find"
    );
    site.host.shutdown().await;
}

#[tokio::test]
async fn captures_that_block_leave_room_for_requests() {
    let vendor = Vendor::new();
    vendor.set("count", 2);
    let mut site = vendor.site();
    site.until_connected(&["SAME", "reader-2"]).await;
    for reader in ["SAME", "reader-2"] {
        site.armed(reader).await;
    }
    let started = Instant::now();
    for _ in 0..5 {
        site.host.test(&serial("SAME")).await.expect("an answer");
    }
    // At most one round of captures before each.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_reader_that_keeps_failing_is_reported_once_and_the_sdk_started_again() {
    let vendor = Vendor::new();
    vendor.set("count", 1);
    let mut site = vendor.site();
    site.until_connected(&["SAME"]).await;
    site.armed("SAME").await;
    vendor.calls();
    vendor.set("failing", 1);
    let error = site.event().await;
    let HostEvent::ReaderError { error, .. } = error else { panic!("{error:?}") };
    assert!(matches!(error, ReaderError::Failing { .. }) && error.code() == 1004, "{error}");
    common::eventually("the SDK is initialised again", || {
        let calls = fs::read_to_string(vendor.folder.path().join("calls"));
        calls.is_ok_and(|calls| calls.contains("open"))
    })
    .await;
    vendor.set("failing", 0);
    assert_eq!(site.event().await, HostEvent::ReaderRecovered { serial: serial("SAME") });
    site.host.shutdown().await;
}
