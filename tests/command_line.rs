//! Mistakes in the configuration and on the command line.

use crate::support::process::run;

fn config(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn a_mistake_in_the_configuration_names_file_key_and_what_is_allowed_and_exits_64() {
    let good = "[gateway]\nid = \"hq\"\ndata_dir = \"/nonexistent/x\"\n";
    for (text, parts) in [
        (format!("{good}colour = \"red\"\n"), &["gateway.toml", "colour", "expected"][..]),
        (good.replace("\"hq\"", "\"HQ!\""), &["gateway.toml", "HQ!", "a-z 0-9 - _"]),
        (
            format!("{good}[mqtt]\nlisten = \"0.0.0.0:1883\"\n"),
            &["gateway.toml", "mqtt.listen", "allow_plain"],
        ),
        (
            format!("{good}[readers]\nidle_mode = \"sometimes\"\n"),
            &["gateway.toml", "sometimes", "identify", "detect", "off"],
        ),
    ] {
        let (_dir, path) = config(&text);
        let (code, _, error) = run(&["gateway", "--config", &path]);
        assert_eq!(code, 64, "{error}");
        for part in parts {
            assert!(error.contains(part), "no {part:?} in:\n{error}");
        }
    }
}

#[test]
fn a_missing_file_is_named_and_exits_64() {
    let (code, _, error) = run(&["bridge", "--config", "/nonexistent/bridge.toml"]);
    assert_eq!(code, 64);
    assert!(error.contains("/nonexistent/bridge.toml"), "{error}");
}

#[test]
fn a_wrong_flag_exits_64_and_help_exits_0() {
    assert_eq!(run(&["demo", "--colour"]).0, 64);
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for command in ["demo", "gateway", "bridge", "finger", "watch"] {
        assert!(out.contains(command), "{out}");
    }
    assert!(!out.contains("reader-host"), "an internal command is not shown");
}

#[test]
fn another_brokers_files_are_for_their_owner_only_and_the_way_there_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let (dir, path) = config("");
    let data = dir.path().join("data");
    let head = format!("[gateway]\nid = \"hq\"\ndata_dir = {data:?}\n");
    let out = dir.path().join("out");
    std::fs::write(&path, &head).unwrap();
    let args = ["broker-config", "mosquitto", "--config", &path, "--out", out.to_str().unwrap()];
    let (code, told, error) = run(&args);
    assert_eq!(code, 0, "{error}");
    assert_eq!((mode(&out), mode(&data)), (0o700, 0o700));
    for name in ["mosquitto.conf", "acl", "passwords"] {
        assert_eq!(mode(&out.join(name)), 0o600, "{name}");
    }
    // What is told is what the gateway takes, and the same command then says the same.
    let section: String = told
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[mqtt]")
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(section.contains("username = \"gateway\""), "{told}");
    std::fs::write(&path, head + &section).unwrap();
    let (code, again, error) = run(&args);
    assert_eq!(code, 0, "{error}");
    assert_eq!(again, told);
    std::fs::write(&path, "[store]\n").unwrap();
    let (code, _, error) = run(&args);
    assert_eq!((code, error.contains("--side")), (64, true), "{error}");
}
