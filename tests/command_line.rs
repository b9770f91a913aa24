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
