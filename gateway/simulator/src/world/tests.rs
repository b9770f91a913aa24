use super::*;

fn image(name: &str) -> ImageFile {
    ImageFile { path: PathBuf::from(name), modified_ns: 0, inode: 0, size_bytes: 0 }
}

#[test]
fn a_hold_time_is_read_from_the_name() {
    assert_eq!(image("thumb@1500ms.png").hold(), Some(Duration::from_millis(1500)));
    assert_eq!(image("a@b@20ms.raw").hold(), Some(Duration::from_millis(20)));
    for without in ["thumb.png", "thumb@.png", "thumb@1500.png", "thumb@-5ms.png", "@ms.png"] {
        assert_eq!(image(without).hold(), None, "{without}");
    }
}

#[test]
fn a_raw_size_is_read_from_the_name() {
    assert_eq!(image("thumb-300x400.raw").raw_size(), Some((300, 400)));
    assert_eq!(image("300x400@1500ms.raw").raw_size(), Some((300, 400)));
    assert_eq!(image("mixed_64x65_66.raw").raw_size(), Some((64, 65)));
    for without in ["thumb.raw", "x.raw", "300x.raw", "axb.raw", "99999999999x1.raw"] {
        assert_eq!(image(without).raw_size(), None, "{without}");
    }
}

#[test]
fn faults_are_read_and_nonsense_is_no_fault() {
    assert_eq!(Fault::parse("slow 2000"), Some(Fault::Slow(Duration::from_secs(2))));
    assert_eq!(Fault::parse("init -3"), Some(Fault::Init(-3)));
    assert_eq!(Fault::parse(" crash "), Some(Fault::Crash));
    for nonsense in ["", "slow", "slow x", "init", "explode"] {
        assert_eq!(Fault::parse(nonsense), None, "{nonsense}");
    }
}

#[test]
fn a_scan_ignores_hidden_and_other_files_and_sorts_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let world = World { root: folder.path().to_owned() };
    let reader = folder.path().join("SN1");
    fs::create_dir(&reader).unwrap();
    fs::create_dir(folder.path().join(".hidden")).unwrap();
    fs::create_dir(reader.join("folder.png")).unwrap();
    for name in ["b.png", "a.PNG", ".half.png", "model", "notes.txt"] {
        fs::write(reader.join(name), "Model Z\nmore").unwrap();
    }
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    fs::File::options().write(true).open(reader.join("b.png")).unwrap().set_modified(old).unwrap();

    let scan = world.reader("SN1").scan().unwrap();
    let names: Vec<_> = scan.images.iter().map(|image| image.path.file_name().unwrap()).collect();
    assert_eq!(names, ["b.png", "a.PNG"]);
    assert_eq!(scan.fault, None);
    assert_eq!(world.readers(), ["SN1"]);
    assert_eq!(world.reader("SN1").line("model").as_deref(), Some("Model Z"));
    assert_eq!(world.reader("SN2").scan(), None);

    fs::write(reader.join("fault"), "silent-unplug\n").unwrap();
    assert!(world.readers().is_empty());
    assert_eq!(world.reader("SN1").scan().unwrap().fault, Some(Fault::SilentUnplug));
}
