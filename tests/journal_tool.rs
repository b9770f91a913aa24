//! `ridgeway journal` on a gateway that runs, and on what it leaves.

use std::{
    collections::BTreeSet,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
};

use serde_json::Value;

use crate::support::{
    eventually,
    process::{Process, run},
    site::{GATEWAY, Options, Site},
    text,
};

/// Runs `ridgeway journal` on the site's gateway.
fn journal(site: &Site, args: &[&str]) -> (i32, String, String) {
    let config = site.path("gateway.toml");
    run(&[&["journal"], args, &["--config", &config]].concat())
}

/// The same, where it must succeed.
#[track_caller]
fn done(site: &Site, args: &[&str]) -> String {
    let (code, out, error) = journal(site, args);
    assert_eq!(code, 0, "{args:?}: {out}{error}");
    out
}

#[track_caller]
fn json(site: &Site, args: &[&str]) -> Value {
    serde_json::from_str(&done(site, args)).unwrap()
}

fn events(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| text(event, "id").to_owned()).collect()
}

fn file(site: &Site) -> String {
    site.path("gateway/journal.redb")
}

/// A site where something happened.
async fn busy_site() -> Site {
    let site = Site::start(Options::default()).await;
    for round in 0..3 {
        site.sensor(0).press(&format!("visitor-{round}/left-index"), 1).await;
    }
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_is_asked_and_a_stopped_ones_file_says_the_same() {
    let mut site = busy_site().await;
    let told = eventually("the bridge has everything", async || {
        let status = json(&site, &["status", "--json"]);
        (status["queued"] == 0).then_some(status)
    })
    .await;
    assert_eq!((&told["running"], &told["gateway"]), (&Value::Bool(true), &GATEWAY.into()));
    assert_eq!(told["addsUp"], true, "{told}");
    assert_eq!(told["live"]["process"], site.gateway.as_ref().unwrap().pid());
    assert_eq!(told["live"]["uplink"]["state"], "connected");
    assert!(told["live"]["lastCommit"].is_string(), "{told}");
    let lane = &told["lanes"][2];
    assert_eq!(lane["lane"], "events");
    assert!(lane["next"].as_u64() > Some(3) && lane["watermark"].as_u64() > Some(2), "{lane}");
    let page = done(&site, &["status"]);
    for part in [text(&told, "store"), "the bridge has everything", "connected", "KiB", "adds up"] {
        assert!(page.contains(part), "no {part:?} in:\n{page}");
    }

    let report = json(&site, &["verify", "--json"]);
    assert_eq!((&report["sound"], &report["running"]), (&true.into(), &true.into()), "{report}");
    // As the local API tells them.
    let local = site.local().events().await;
    let tail = events(&done(&site, &["tail", "-n", "10000"]));
    assert_eq!(ids(&tail), ids(&local));
    assert_eq!(tail, local, "as they were told");
    let latest = events(&done(&site, &["tail", "-n", "2", "--lane", "events"]));
    let of_lane: Vec<Value> = tail.iter().filter(|e| e["lane"] == "events").cloned().collect();
    assert_eq!(latest, of_lane[of_lane.len() - 2..]);
    let export = site.path("live.jsonl");
    done(&site, &["export", &export]);
    let exported = std::fs::read_to_string(&export).unwrap();
    let all: BTreeSet<String> = ids(&events(&exported)).into_iter().collect();
    assert!(ids(&local).iter().all(|id| all.contains(id)), "every event is in it");
    let (code, _, error) = journal(&site, &["compact"]);
    assert_eq!((code, error.contains("stop the gateway first")), (1, true), "{error}");

    let status = site.gateway.take().unwrap().terminate();
    assert!(status.success());
    let bytes = std::fs::read(file(&site)).unwrap();
    let stopped = json(&site, &["status", "--json"]);
    assert_eq!((&stopped["running"], &stopped["live"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(stopped["store"], told["store"]);
    assert_eq!(stopped["bounds"], told["bounds"]);
    assert!(done(&site, &["status"]).contains("not running"));
    let report = json(&site, &["verify", "--json"]);
    assert_eq!((&report["sound"], &report["pagesChecked"]), (&true.into(), &true.into()));
    let after = events(&done(&site, &["tail", "-n", "10000"]));
    assert_eq!(after[..tail.len()], tail, "and then what came since");
    assert_eq!(text(after.last().unwrap(), "status"), "stopping");
    let (code, _, error) = journal(&site, &["tail", "--follow"]);
    assert_eq!((code, error.contains("isn't running")), (1, true), "{error}");
    let again = done(&site, &["export", "-"]);
    assert_eq!(events(&again).len(), after.len());
    assert!(std::fs::read(file(&site)).unwrap() == bytes, "looking changes nothing");

    let compacted = json(&site, &["compact", "--json"]);
    assert!(compacted["bytesAfter"].as_u64() <= compacted["bytesBefore"].as_u64(), "{compacted}");
    let status = json(&site, &["status", "--json"]);
    assert_eq!((&status["store"], &status["lanes"]), (&stopped["store"], &stopped["lanes"]));
    assert_eq!(json(&site, &["verify", "--json"])["sound"], true);
    site.start_gateway();
    assert_eq!(json(&site, &["status", "--json"])["store"], told["store"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_follows_what_happens_and_ends_with_the_gateway() {
    let mut site = Site::start(Options::default()).await;
    let config = site.path("gateway.toml");
    let args = ["journal", "tail", "-n", "1", "--follow", "--config", &config];
    let mut follower = Process::start("tail", &args);
    let first = follower.json();
    site.sensor(0).press("visitor-1/left-index", 1).await;
    let mut seen = vec![first];
    while seen.last().unwrap()["type"] != "identification:result" {
        seen.push(follower.json());
    }
    let local = ids(&site.local().events().await);
    let from = local.iter().position(|id| id == text(&seen[0], "id")).unwrap();
    let in_order: BTreeSet<&String> = local[from..from + seen.len()].iter().collect();
    assert_eq!(ids(&seen).iter().collect::<BTreeSet<_>>(), in_order, "none is left out");
    site.kill_gateway();
    assert!(!follower.wait().success());
    assert!(follower.log().contains("the gateway has stopped"), "{}", follower.log());
    // Killed, so the file is unclean: it is read all the same, and stays as it is.
    let bytes = std::fs::read(file(&site)).unwrap();
    let report = json(&site, &["verify", "--json"]);
    assert_eq!(report["sound"], true, "{report}");
    assert!(std::fs::read(file(&site)).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_a_changed_byte_and_the_gateway_gives_it_to_nobody() {
    let mut site = busy_site().await;
    assert!(site.gateway.take().unwrap().terminate().success());
    // A stranger is made somebody, from behind.
    let path = file(&site);
    let changed = overwrite(Path::new(&path), b"\"match\":false", b"\"match\":true ");
    assert!(changed > 0, "there is such a record");
    let (code, out, error) = journal(&site, &["verify"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("unreadable") && out.contains("its check differs"), "{out}");
    assert!(out.contains("redb's own check"), "{out}");
    assert!(error.contains("damaged"), "{error}");
    let (code, out, _) = journal(&site, &["verify", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["sound"]), (1, &false.into()));
    let mut findings = report["findings"].as_array().unwrap().iter();
    let damaged = findings.find(|finding| finding["problem"] == "unreadable");
    assert!(damaged.is_some_and(|found| found["seq"].is_u64() && found["lane"] == "events"));

    // Gaps stand there from the start, and are told like any event.
    site.start_gateway();
    let (code, out, _) = journal(&site, &["verify", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["running"]), (0, &true.into()), "{report}");
    let (code, out, _) = journal(&site, &["tail", "-n", "1000"]);
    let gaps = out.matches(r#""reason":"corrupt""#).count();
    assert!(code == 0 && (1..=changed).contains(&gaps), "{out}");
    assert!(!out.contains(r#""match":true ,"#), "{out}");
}

/// Replaces every occurrence within the file; how many.
fn overwrite(path: &Path, needle: &[u8], forged: &[u8]) -> usize {
    let bytes = std::fs::read(path).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let places = bytes.windows(needle.len()).enumerate().filter(|(_, part)| *part == needle);
    places.map(|(at, _)| file.write_all_at(forged, at as u64).unwrap()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_told_and_left_alone() {
    let mut site = busy_site().await;
    let store = std::fs::read_to_string(site.path("gateway/journal.redb.store")).unwrap();
    assert!(site.gateway.take().unwrap().terminate().success());
    let path = file(&site);
    for garbage in [vec![], vec![0x5a; 70_000]] {
        std::fs::write(&path, &garbage).unwrap();
        for command in [&["status"][..], &["tail"], &["verify"], &["export", "-"], &["compact"]] {
            let (code, out, error) = journal(&site, command);
            assert_eq!(code, 1, "{command:?}");
            let said = format!("{out}{error}");
            for part in ["journal.redb", "Copy the file before the gateway starts"] {
                assert!(said.contains(part), "{command:?}: no {part:?} in {said}");
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), garbage);
    }
    std::fs::remove_file(&path).unwrap();
    for command in [&["status"][..], &["tail"], &["verify"], &["export", "-"], &["compact"]] {
        let (code, _, error) = journal(&site, command);
        assert_eq!((code, error.contains("there is no journal at")), (1, true), "{error}");
    }
    assert!(!Path::new(&path).exists(), "none is made");
    let aside = std::fs::read_dir(site.path("gateway")).unwrap();
    let names: Vec<String> =
        aside.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.contains("unreadable")), "{names:?}");
    let note = std::fs::read_to_string(site.path("gateway/journal.redb.store")).unwrap();
    assert_eq!(note, store);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_its_owners_complete_and_never_in_the_place_of_another_file() {
    let site = busy_site().await;
    let export = site.path("export.jsonl");
    let told = json(&site, &["export", &export, "--json"]);
    let lines = std::fs::read_to_string(&export).unwrap();
    assert_eq!(told["records"], lines.lines().count());
    let mode = std::fs::metadata(&export).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, _, error) = journal(&site, &["export", &export]);
    assert_eq!((code, error.contains("is there already")), (1, true), "{error}");
    assert_eq!(std::fs::read_to_string(&export).unwrap(), lines);
    let (code, _, error) = journal(&site, &["export", "/nonexistent/folder/x"]);
    assert_eq!((code, error.contains("/nonexistent/folder")), (1, true), "{error}");
    let left = std::fs::read_dir(Path::new(&export).parent().unwrap()).unwrap();
    let drafts = left.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".export")
    });
    assert_eq!(drafts.count(), 0, "nothing unfinished is left");
}

/// A command's result carries the template in its sealed part, which stays closed.
#[tokio::test(flavor = "multi_thread")]
async fn no_template_leaves_the_journal() {
    let site = Site::start(Options::default()).await;
    let command = serde_json::json!({ "command": "capture", "params": {}, "ttlMs": 30_000 });
    let path = format!("/api/agents/{GATEWAY}/commands");
    let (status, accepted) = site.cloud().post(&path, command).await;
    assert_eq!(status, 202, "{accepted}");
    let id = text(&accepted, "commandId");
    let result = eventually("the command ends", async || {
        // Until then a touch may be the idle reader's.
        site.sensor(0).press("visitor-1/left-index", 1).await;
        let command = site.cloud().ok(&format!("/api/commands/{id}")).await;
        (command["status"] == "completed").then_some(command)
    })
    .await;
    let template = text(&result["result"], "template");
    assert!(template.len() > 100, "{result}");
    for args in [&["tail", "-n", "10000"][..], &["export", "-"], &["status", "--json"]] {
        let out = done(&site, args);
        assert!(!out.contains(template), "{args:?}");
        assert!(!out.contains("\"template\""), "{args:?}");
        // Sealed bytes would be none of these.
        assert!(!events(&out).is_empty());
        if args[0] == "tail" {
            assert!(out.contains("command:result"), "{out}");
        }
    }
}

#[test]
fn what_is_wrong_with_the_command_line_is_told() {
    let (code, _, error) = run(&["journal", "tail", "--lane", "doors"]);
    assert_eq!((code, error.contains("access, results, events or telemetry")), (64, true));
    let (code, _, error) = run(&["journal", "status", "--data-dir", "/nonexistent/data"]);
    assert_eq!((code, error.contains("--data-dir")), (1, true), "{error}");
}

/// A site without its bridge, its journal nearly full.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_journal_drops_is_told_once_to_who_follows_and_adds_up() {
    const MOST: u64 = 1_000;
    let gateway_extra = format!("[journal]\nmax_records = {MOST}");
    let mut site = Site::new(Options { gateway_extra, ..Options::default() });
    fill(&site, MOST).await;
    site.start_gateway();
    let config = site.path("gateway.toml");
    let args = ["journal", "tail", "--follow", "-n", "1", "--lane", "events", "--config", &config];
    let follower = Process::start("tail", &args);
    // With it, it follows.
    let mut seen: Vec<Value> = vec![follower.json()];
    let mut gaps = 0;
    while gaps == 0 {
        site.sensor(0).press("visitor-1/left-index", 1).await;
        let told = done(&site, &["tail", "--lane", "events", "-n", "1"]);
        let last = events(&told).remove(0);
        while !seen.iter().any(|event| event["id"] == last["id"]) {
            seen.push(follower.json());
        }
        gaps = seen[1..].iter().filter(|event| event["type"] == "journal:gap").count();
    }
    let unique: BTreeSet<String> = ids(&seen).into_iter().collect();
    assert_eq!(unique.len(), seen.len(), "each once");
    // The start dropped some, too: that was told before.
    assert!(seen[1..].iter().all(|event| text(event, "id") > text(&seen[0], "id")), "{seen:#?}");

    let status = json(&site, &["status", "--json"]);
    let lane = &status["lanes"][2];
    assert_eq!((&status["addsUp"], &status["bounds"]["maxRecords"]), (&true.into(), &MOST.into()));
    assert!(lane["dropped"].as_u64() > Some(0) && lane["gaps"].as_u64() > Some(0), "{lane}");
    assert!(status["oldestQueuedAgeSeconds"].is_u64(), "{status}");
    for running in [true, false] {
        let report = json(&site, &["verify", "--json"]);
        assert_eq!((&report["sound"], &report["running"]), (&true.into(), &running.into()));
        if running {
            site.kill_gateway();
        }
    }
}

/// Records that happened before.
async fn fill(site: &Site, records: u64) {
    use gateway::journal::{Attachment, Batch, Journal, JournalConfig, moment};
    use topics::{Draft, EventBody, record::Cause};
    std::fs::create_dir_all(site.path("gateway")).unwrap();
    let config = JournalConfig::new(file(site), GATEWAY.parse().unwrap());
    let (journal, _) = Journal::open(config).unwrap();
    let batch = (0..records).fold(Batch::new(), |batch, scan| {
        let scan_id = format!("scan-{scan}");
        let body = EventBody::ScanStarted { device_id: "device-001".parse().unwrap(), scan_id };
        let draft = Draft::new(&body, &moment(), &Cause::default()).unwrap();
        batch.event(draft, Attachment::default())
    });
    journal.commit(batch).await.unwrap();
    journal.close().await.unwrap();
}
