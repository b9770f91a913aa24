//! `ridgeway template` on files of its own making.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::text;

fn template(args: &[&str]) -> (i32, String, String) {
    let (code, out, error) = template_in(Path::new("."), args);
    (code, String::from_utf8_lossy(&out).into_owned(), error)
}

/// The same from a folder of its own, with standard output as it is.
fn template_in(folder: &Path, args: &[&str]) -> (i32, Vec<u8>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ridgeway"));
    command.arg("template").args(args).current_dir(folder).stdin(Stdio::null());
    let output = command.output().expect("the ridgeway binary starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), output.stdout, error)
}

/// The same, where it must succeed.
#[track_caller]
fn done(args: &[&str]) -> String {
    let (code, out, error) = template(args);
    assert_eq!(code, 0, "{args:?}: {out}{error}");
    out
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&done(&[args, &["--json"]].concat())).unwrap()
}

/// The same, where it must fail: what it says.
#[track_caller]
fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let (exit, out, error) = template(args);
    assert_eq!(exit, code, "{args:?}: {out}{error}");
    for part in parts {
        assert!(error.contains(part), "{args:?}: no {part:?} in:\n{error}");
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A set of generated prints in `gen`.
    fn generated(fingers: &str, impressions: &str) -> Self {
        let folder = Self::new();
        let dir = folder.path("gen");
        done(&["generate", &dir, "--fingers", fingers, "--impressions", impressions]);
        folder
    }

    fn print(&self, name: &str) -> String {
        self.path(&format!("gen/{name}.png"))
    }
}

/// Read, written and run by its owner, group and others.
fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn contents(dir: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path: PathBuf| (name(&path), fs::read(&path).unwrap())).collect()
}

/// What doesn't depend on how busy the machine is, or what the files are called.
fn figures(mut report: Value) -> Value {
    let fields = report.as_object_mut().unwrap();
    for other in ["extractionMs", "comparisonUs", "dir"] {
        fields.remove(other);
    }
    for pairs in ["lowestGenuine", "highestImpostors"] {
        for pair in fields[pairs].as_array_mut().unwrap() {
            *pair = pair["score"].take();
        }
    }
    report
}

#[test]
fn a_seed_makes_the_same_bytes_however_many_are_asked_for() {
    let folder = Folder::generated("3", "2");
    let all = contents(&folder.path("gen"));
    let expected = ["1_1.png", "1_2.png", "2_1.png", "2_2.png", "3_1.png", "3_2.png"];
    assert_eq!(all.keys().collect::<Vec<_>>(), expected);
    let (other, more) = (folder.path("other"), folder.path("more"));
    done(&["generate", &other, "--fingers", "3", "--impressions", "2", "--seed", "2"]);
    let other = contents(&other);
    assert!(all.iter().all(|(name, bytes)| other[name] != *bytes), "another seed, other fingers");
    done(&["generate", &more, "--fingers", "1", "--first", "3", "--impressions", "2"]);
    let more = contents(&more);
    assert!(more.iter().all(|(name, bytes)| all[name] == *bytes), "and finger 3 is finger 3");
    assert_eq!(more.len(), 2);
    let dir = folder.path("gen");
    fails(&["generate", &dir], 1, &["1_1.png is there already", "--first"]);
    assert!(contents(&dir) == all, "nothing is touched");
}

#[test]
fn a_generated_set_is_told_apart_and_its_curve_drawn() {
    let folder = Folder::generated("6", "5");
    let (dir, det) = (folder.path("gen"), folder.path("det.png"));
    let rejection = folder.path("rejection.png");
    let report = json(&["evaluate", &dir, "--det", &det, "--rejection", &rejection]);
    assert_eq!((&report["fingers"], &report["prints"]), (&6.into(), &30.into()));
    assert_eq!((&report["genuine"], &report["impostors"]), (&60.into(), &375.into()));
    let eer = report["eer"]["value"].as_f64().unwrap();
    assert!(eer < 0.03, "{report}");
    assert!(report["eer"]["low"].as_f64().unwrap() <= eer, "{report}");
    assert!(report["atThreshold"][0]["fmr"].as_f64().unwrap() < 0.01, "{report}");
    assert!(report["extractionMs"].as_f64().unwrap() > 0.0, "{report}");
    let picture = image::open(&det).unwrap();
    assert_eq!((picture.width(), picture.height()), (1000, 900));
    assert_ne!(image::open(&rejection).unwrap(), picture);

    let three = json(&["evaluate", &dir, "--enrol", "3", "--pairs", "fvc", "--no-det"]);
    assert_eq!((&three["genuine"], &three["impostors"]), (&120.into(), &30.into()), "{three}");
    assert!(three["eer"]["value"].as_f64().unwrap() <= eer, "{three}");
    let page = done(&["evaluate", &dir, "--no-det"]);
    for part in ["30 images of 6 fingers", "60 genuine", "375 impostor", "EER", "FMR 0.1 %", "ms"] {
        assert!(page.contains(part), "no {part:?} in:\n{page}");
    }
}

/// What prints are called only says which belong together.
#[test]
fn names_that_are_shuffled_change_no_figure() {
    let folder = Folder::generated("5", "3");
    let shuffled = folder.path("shuffled");
    fs::create_dir(&shuffled).unwrap();
    for (name, bytes) in contents(&folder.path("gen")) {
        let (finger, impression) = name.strip_suffix(".png").unwrap().split_once('_').unwrap();
        let finger = ["ring", "40", "7", "thumb_left", "100"][finger.parse::<usize>().unwrap() - 1];
        let impression = ["b", "9", "12"][impression.parse::<usize>().unwrap() - 1];
        fs::write(format!("{shuffled}/{finger}_{impression}.png"), bytes).unwrap();
    }
    let generated = folder.path("gen");
    let of = |dir: &str| figures(json(&["evaluate", dir, "--no-det"]));
    assert_eq!(of(&shuffled), of(&generated));
    // Prints under another finger's name are noticed, and are as wrong under any names.
    for (from, to) in [("40_b", "ring_4"), ("thumb_left_9", "7_4"), ("100_12", "thumb_left_4")] {
        fs::rename(format!("{shuffled}/{from}.png"), format!("{shuffled}/{to}.png")).unwrap();
    }
    for (from, to) in [("2_1", "1_4"), ("4_2", "3_4"), ("5_3", "4_4")] {
        fs::rename(folder.print(from), folder.print(to)).unwrap();
    }
    assert_eq!(of(&shuffled), of(&generated));
    let wrong = json(&["evaluate", &shuffled, "--no-det"]);
    let eer = &wrong["eer"];
    assert!(eer["value"].as_f64().unwrap() > 0.01, "{wrong}");
    assert!(eer["high"].as_f64() > eer["value"].as_f64(), "{wrong}");
    let lowest = wrong["lowestGenuine"].to_string();
    assert!(lowest.contains("_4.png"), "{wrong}");
}

#[test]
fn templates_of_either_format_match_their_finger_and_no_other() {
    let folder = Folder::generated("2", "2");
    let (iso, ansi) = (folder.path("first.iso"), folder.path("second.ansi"));
    let told = json(&["extract", &folder.print("1_1"), "-o", &iso]);
    assert_eq!(told["format"], "ISO19794-2");
    assert_eq!(json(&["extract", &folder.print("1_2"), "-o", &ansi])["format"], "ANSI378");
    let bytes = fs::read(&iso).unwrap();
    assert_eq!(told["length"], bytes.len());
    assert_eq!(mode(&iso), 0o600);

    let shown = json(&["show", &iso]);
    assert_eq!((&shown["kind"], &shown["format"]), (&"template".into(), &"ISO19794-2".into()));
    assert_eq!(
        (&shown["width"], &shown["height"], &shown["dpi"]),
        (&300.into(), &400.into(), &500.into())
    );
    for same in ["sha256", "length", "minutiae", "quality"] {
        assert_eq!(shown[same], told[same], "{same}");
    }
    let view = &shown["views"][0];
    let kinds = ["endings", "bifurcations", "other"].map(|kind| view[kind].as_u64().unwrap());
    assert_eq!(kinds.iter().sum::<u64>(), view["minutiae"].as_u64().unwrap());
    let page = done(&["show", &iso]);
    for part in ["300 x 400", "500 dpi", "view 0", "endings", text(&told, "sha256")] {
        assert!(page.contains(part), "no {part:?} in:\n{page}");
    }

    let (own, stranger) = (folder.print("1_2"), folder.print("2_1"));
    for (a, b, same) in [
        (&iso, &ansi, true),
        (&iso, &own, true),
        (&own, &iso, true),
        (&iso, &stranger, false),
        (&stranger, &ansi, false),
    ] {
        let matched = json(&["match", a, b]);
        assert_eq!(matched["match"], same, "{a} {b}: {matched}");
        let reached = matched["score"].as_u64() >= matched["threshold"].as_u64();
        let confident = matched["confidence"].as_f64().unwrap() >= 70.0;
        assert_eq!((reached, confident), (same, same), "{a} {b}: {matched}");
        let page = done(&["match", a, b]);
        assert_eq!(page.contains("decision    same finger"), same, "{page}");
        // Of the two figures of 70 one is a confidence and one a score.
        for part in ["confidence of 70 is the score 50", "score 70:"] {
            assert!(page.contains(part), "no {part:?} in:\n{page}");
        }
    }
    // A record says what its image does (an ANSI one to two degrees).
    let second = folder.path("second.iso");
    done(&["extract", &own, "-o", &second]);
    assert_eq!(json(&["match", &iso, &second])["score"], json(&["match", &iso, &own])["score"]);
}

#[test]
fn every_stage_is_a_picture_of_the_print() {
    let folder = Folder::generated("1", "1");
    let dir = folder.path("stages");
    let shown = json(&["show", &folder.print("1_1"), "--stages", &dir]);
    assert_eq!((&shown["kind"], &shown["dpiFrom"]), (&"image".into(), &"file".into()));
    let names =
        ["print", "even", "mask", "orientation", "ridges", "binary", "skeleton", "minutiae"];
    assert_eq!(shown["stages"].as_array().unwrap().len(), names.len());
    let mut seen = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let path = format!("{dir}/{}-{name}.png", index + 1);
        let picture = image::open(&path).unwrap().into_rgb8();
        assert_eq!(picture.width(), 900, "{name}");
        assert!(picture.height() > 1200, "with a line of text above");
        assert!(!seen.contains(picture.as_raw()), "{name} is like another one");
        seen.push(picture.into_raw());
    }
    // Below the text, which is coloured, too.
    let minutiae = &seen.last().unwrap()[3 * 900 * 40..];
    let coloured = minutiae.chunks_exact(3).filter(|p| p[0].abs_diff(p[2]) > 80).count();
    let drawn = shown["minutiae"].as_u64().unwrap() as usize;
    assert!(coloured > 100 * drawn, "{coloured} pixels for {drawn} minutiae");
    // Of a template there are only minutiae to show.
    let iso = folder.path("a.iso");
    done(&["extract", &folder.print("1_1"), "-o", &iso]);
    let shown = json(&["show", &iso, "--stages", &dir]);
    assert_eq!(shown["stages"].as_array().unwrap().len(), 1);
    image::open(format!("{dir}/minutiae-0.png")).unwrap();
}

#[test]
fn images_are_read_whatever_they_are_called_and_say_their_resolution() {
    let folder = Folder::generated("1", "1");
    let png = folder.print("1_1");
    let grey = image::open(&png).unwrap().into_luma8();
    let expected = json(&["show", &png]);
    for ending in ["tif", "bmp", "pgm"] {
        let path = folder.path(&format!("print.{ending}"));
        grey.save(&path).unwrap();
        let renamed = folder.path(&format!("{ending}-without-its-ending"));
        fs::rename(&path, &renamed).unwrap();
        let shown = json(&["show", &renamed]);
        assert_eq!(shown["minutiae"], expected["minutiae"], "{ending}");
        assert_eq!(
            (&shown["dpi"], &shown["dpiFrom"]),
            (&500.into(), &"assumed".into()),
            "{ending}"
        );
    }
    let finer = json(&["show", &png, "--dpi", "1000"]);
    assert_eq!((&finer["dpi"], &finer["dpiFrom"]), (&1000.into(), &"option".into()));
    assert_ne!(finer["minutiae"], expected["minutiae"]);
}

#[test]
fn what_is_no_print_is_told_with_its_file_and_what_to_do() {
    let folder = Folder::generated("1", "2");
    let (png, out) = (folder.print("1_1"), folder.path("out.iso"));
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let blank = folder.path("blank.png");
    image::GrayImage::from_pixel(300, 400, image::Luma([255])).save(&blank).unwrap();
    let tiny = folder.path("tiny.png");
    image::GrayImage::from_pixel(20, 400, image::Luma([255])).save(&tiny).unwrap();
    let long = folder.path("long.png");
    image::GrayImage::from_pixel(10, 10_000, image::Luma([255])).save(&long).unwrap();
    let iso = folder.path("good.iso");
    done(&["extract", &png, "-o", &iso]);
    let whole = fs::read(&iso).unwrap();
    let mut vendors = vec![0; 64];
    vendors[2..6].copy_from_slice(b"SS21");
    vendors[8..10].copy_from_slice(&64u16.to_be_bytes());
    for (path, parts) in [
        (folder.path("nothing.png"), &["nothing.png", "No such file"][..]),
        (file("text.png", b"hello"), &["text.png", "neither a template", "nor an image"]),
        (file("empty.iso", b""), &["empty.iso is empty"]),
        (file("cut.iso", &whole[..50]), &["cut.iso", "damaged or cut off", "total length"]),
        (file("cut.png", &fs::read(&png).unwrap()[..5_000]), &["cut.png", "PNG"]),
        (file("vendors.bin", &vendors), &["vendors.bin", "ZKFinger", "SDK"]),
        (tiny, &["tiny.png", "width of 20 px"]),
        (long, &["long.png", "10 x 10000 pixels", "64 to 2048"]),
    ] {
        fails(&["show", &path], 1, parts);
        fails(&["match", &png, &path], 1, parts);
        fails(&["extract", &path, "-o", &out], 1, parts);
    }
    let hint = ["blank.png", "no fingerprint", "500 dpi was assumed", "--dpi"];
    fails(&["match", &blank, &png], 1, &hint);
    fails(&["extract", &blank, "-o", &out], 1, &hint);
    assert!(!Path::new(&out).exists(), "nothing by half");
    assert!(done(&["show", &blank]).contains("none: no fingerprint"));
    fails(&["show", &blank, "--stages", &out], 1, &hint);
    fails(&["extract", &iso, "-o", &out], 1, &["good.iso is a template already"]);
    fails(&["extract", &png, "-o", &png], 1, &["1_1.png", "is read"]);
    fails(
        &["extract", &png, "-o", &folder.path("no/where.iso")],
        1,
        &["can't write", "no/where.iso"],
    );
    fails(&["show", &png, "--dpi", "72"], 64, &["--dpi", "200..=1200"]);
    fails(&["extract", &png], 64, &["--out"]);
    fails(&["evaluate", &folder.path("gen"), "--enrol", "2"], 64, &["must be 1 or 3"]);
    // One finger has no strangers; two impressions are too few to enrol three.
    let dir = folder.path("gen");
    fails(&["evaluate", &dir], 1, &["two fingers", "2 images of 1 finger"]);
    fails(&["evaluate", &dir, "--enrol", "3"], 1, &["4 impressions", "2 images"]);
    fails(&["evaluate", &dir, "--ext", "iso"], 1, &["FINGER_IMPRESSION.iso"]);
    fails(&["evaluate", &folder.path("nowhere")], 1, &["nowhere", "No such file"]);
}

#[test]
fn an_image_without_a_print_counts_against_its_finger() {
    let folder = Folder::generated("3", "3");
    let dir = folder.path("gen");
    let good = json(&["evaluate", &dir, "--no-det"]);
    assert_eq!(good["withoutTemplate"].as_array().unwrap().len(), 0, "{good}");
    let blank = image::GrayImage::from_pixel(300, 400, image::Luma([255]));
    blank.save(folder.print("2_3")).unwrap();
    let report = json(&["evaluate", &dir, "--no-det"]);
    assert_eq!(report["withoutTemplate"], serde_json::json!(["2_3.png"]), "{report}");
    // Two of nine comparisons of one finger can't match.
    let missed = report["atThreshold"][0]["fnmr"].as_f64().unwrap();
    assert!(missed >= 2.0 / 9.0 - 1e-9, "{report}");
    assert!(done(&["evaluate", &dir, "--no-det"]).contains("2_3.png"));
}

/// Its finger is missed; the others' comparisons are worth as much as before.
#[test]
fn a_file_that_cannot_be_read_is_named_and_counts_as_an_image_without_a_print() {
    let folder = Folder::generated("3", "3");
    let dir = folder.path("gen");
    fs::write(folder.print("2_3"), b"hello").unwrap();
    let report = json(&["evaluate", &dir, "--no-det"]);
    assert_eq!(report["withoutTemplate"], serde_json::json!(["2_3.png"]), "{report}");
    let unreadable = &report["unreadable"];
    assert_eq!(
        (unreadable.as_array().unwrap().len(), text(&unreadable[0], "file")),
        (1, "2_3.png")
    );
    assert!(text(&unreadable[0], "reason").contains("nor an image"), "{report}");
    let missed = report["atThreshold"][0]["fnmr"].as_f64().unwrap();
    assert!(missed >= 2.0 / 9.0 - 1e-9, "{report}");
    let page = done(&["evaluate", &dir, "--no-det"]);
    for part in ["9 images of 3 fingers", "unreadable", "2_3.png", "nor an image"] {
        assert!(page.contains(part), "no {part:?} in:\n{page}");
    }
    for name in contents(&dir).keys() {
        fs::write(format!("{dir}/{name}"), b"hello").unwrap();
    }
    fails(&["evaluate", &dir, "--no-det"], 1, &["none of 9 images", "1_1.png", "nor an image"]);
}

/// All is computed before a picture is drawn: that it can't be written shows before.
#[test]
fn an_evaluation_is_not_lost_to_its_pictures() {
    let folder = Folder::generated("2", "2");
    let dir = folder.path("gen");
    let nowhere = folder.path("nowhere/det.png");
    // Were prints read first, these would be what is told.
    for name in contents(&dir).keys() {
        fs::write(format!("{dir}/{name}"), b"hello").unwrap();
    }
    for option in ["--det", "--rejection"] {
        fails(&["evaluate", &dir, option, &nowhere], 1, &["can't write", "nowhere/det.png"]);
    }
    let one = folder.path("one.png");
    fails(&["evaluate", &dir, "--det", &one, "--rejection", &one], 1, &["--rejection", "--det"]);
    fs::remove_file(folder.print("2_2")).unwrap();
    fs::remove_file(folder.print("2_1")).unwrap();
    fails(&["evaluate", &dir, "--no-det"], 1, &["two fingers", "2 images of 1 finger"]);
}

/// As on a disk that fills up in the meantime.
#[test]
fn a_picture_that_fails_takes_no_figure_with_it() {
    let folder = Folder::generated("2", "2");
    let (dir, det) = (folder.path("gen"), folder.path("det.png"));
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_ridgeway"));
    let output = command.args(["template", "evaluate", &dir, "--det", &det]).output().unwrap();
    let (page, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{page}{error}");
    assert!(page.contains("EER") && !page.contains("DET curve"), "{page}");
    assert!(error.contains("can't write") && error.contains("det.png"), "{error}");
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 1, "no draft stays");
}

#[test]
fn the_det_curve_is_drawn_unless_it_is_left_out() {
    let folder = Folder::generated("2", "2");
    fs::rename(folder.path("gen"), folder.path("my_set")).unwrap();
    let dir = folder.path("my_set");
    let elsewhere = folder.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let evaluate = |args: &[&str]| {
        let args = [&["evaluate", &dir], args].concat();
        let (code, out, error) = template_in(Path::new(&elsewhere), &args);
        assert_eq!(code, 0, "{args:?}: {error}");
        String::from_utf8(out).unwrap()
    };
    let without = evaluate(&["--no-det"]);
    assert!(!without.contains("DET curve") && contents(&elsewhere).is_empty(), "{without}");
    // An underscore would make it a print of a set that is evaluated in its own folder.
    let page = evaluate(&[]);
    assert!(page.contains("my-set-det.png"), "{page}");
    let report: Value = serde_json::from_str(&evaluate(&["--json"])).unwrap();
    assert_eq!(report["det"], "my-set-det.png", "{report}");
    assert_eq!(contents(&elsewhere).len(), 1);
    assert_eq!(image::open(format!("{elsewhere}/my-set-det.png")).unwrap().width(), 1000);
    fails(&["evaluate", &dir, "--no-det", "--det", "x.png"], 64, &["--no-det", "--det"]);
}

#[test]
fn nothing_but_a_regular_file_is_ever_replaced_and_no_input() {
    let folder = Folder::generated("2", "2");
    let (dir, png) = (folder.path("gen"), folder.print("1_1"));
    let before = contents(&dir);
    let pipe = folder.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let to_pipe = folder.path("to-pipe");
    symlink(&pipe, &to_pipe).unwrap();
    for (path, what) in [(&dir, "folder"), (&pipe, "pipe"), (&to_pipe, "pipe")] {
        fails(&["extract", &png, "-o", path], 1, &[path, what]);
        fails(&["evaluate", &dir, "--det", path], 1, &[path, what]);
    }
    // What is read isn't written, by whichever name.
    let alias = folder.path("alias.png");
    symlink(&png, &alias).unwrap();
    fails(&["extract", &png, "-o", &alias], 1, &["alias.png", "1_1.png", "is read"]);
    for input in [&png, &alias] {
        fails(&["evaluate", &dir, "--det", input], 1, &[input, "1_1.png", "is read"]);
        fails(&["evaluate", &dir, "--no-det", "--rejection", input], 1, &[input, "is read"]);
    }
    let stages = folder.path("stages");
    fs::create_dir(&stages).unwrap();
    let input = format!("{stages}/1-print.png");
    fs::copy(&png, &input).unwrap();
    fails(&["show", &input, "--stages", &stages], 1, &["1-print.png", "is read"]);
    assert_eq!(contents(&stages).len(), 1, "nothing is written");
    assert!(contents(&dir) == before, "nothing is touched, and no draft left");
    // A link to a file stays one; what it leads to is written.
    let (real, link) = (folder.path("real.iso"), folder.path("link.iso"));
    fs::write(&real, b"old").unwrap();
    symlink("real.iso", &link).unwrap();
    done(&["extract", &png, "-o", &link]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(json(&["show", &real])["kind"], "template");
    assert_eq!(mode(&real), 0o600);
    fs::remove_file(&real).unwrap();
    fails(&["extract", &png, "-o", &link], 1, &["link.iso", "leads nowhere"]);
}

#[test]
fn pictures_of_prints_are_for_their_owner_only() {
    let folder = Folder::generated("1", "1");
    assert_eq!(mode(&folder.print("1_1")), 0o600);
    let dir = folder.path("stages");
    json(&["show", &folder.print("1_1"), "--stages", &dir]);
    for name in contents(&dir).keys() {
        assert_eq!(mode(&format!("{dir}/{name}")), 0o600, "{name}");
    }
}

#[test]
fn a_template_goes_to_standard_output_where_that_is_asked_for() {
    let folder = Folder::generated("1", "1");
    let (png, iso) = (folder.print("1_1"), folder.path("1_1.iso"));
    let told = done(&["extract", &png, "-o", &iso]);
    for args in [&["extract", &png, "-o", "-"][..], &["extract", &png, "-o", "-", "--json"]] {
        let (code, out, error) = template_in(folder.0.path(), args);
        assert_eq!((code, &out), (0, &fs::read(&iso).unwrap()), "{error}");
        assert!(error.contains("minutiae"), "{error}");
    }
    assert!(!folder.0.path().join("-").exists());
    assert!(!told.contains("assumed"), "{told}");
}

#[test]
fn extract_says_that_a_resolution_was_assumed() {
    let folder = Folder::generated("1", "1");
    let (pgm, iso) = (folder.path("print.pgm"), folder.path("1_1.iso"));
    image::open(folder.print("1_1")).unwrap().into_luma8().save(&pgm).unwrap();
    let told = done(&["extract", &pgm, "-o", &iso]);
    assert!(told.contains("500 dpi was assumed"), "{told}");
    let told = json(&["extract", &pgm, "-o", &iso]);
    assert_eq!((&told["dpi"], &told["dpiFrom"]), (&500.into(), &"assumed".into()));
}

/// The commands of docs/template.md print what is shown there, but for what `…` stands for: figures that
/// change whenever extraction or comparison gets better.
#[test]
fn the_walk_of_the_documentation_can_be_walked() {
    let folder = Folder::new();
    let document = include_str!("../docs/template.md");
    let mut lines = document.lines().filter_map(|line| line.strip_prefix("    ")).peekable();
    let mut walked = 0;
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ ridgeway template ") else { continue };
        let args: Vec<&str> = command.split(' ').collect();
        let (code, out, error) = template_in(folder.0.path(), &args);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(code, 0, "{command}: {error}");
        let mut rest = &out[..];
        while let Some(shown) = lines.next_if(|line| !line.starts_with('$')) {
            for part in shown.split('…').map(str::trim) {
                let Some(at) = rest.find(part) else {
                    panic!("{command}: no {part:?} of {shown:?} in:\n{out}");
                };
                rest = &rest[at + part.len()..];
            }
        }
        walked += 1;
    }
    assert_eq!(walked, 6, "commands of the walk");
}
