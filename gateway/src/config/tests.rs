use super::*;

fn parse(text: &str) -> Result<Config, String> {
    let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn the_sample_says_the_defaults() {
    let sample = parse(SAMPLE).unwrap();
    assert_eq!(format!("{sample:?}"), format!("{:?}", Config::default()));
}

#[test]
fn every_line_of_the_sample_that_is_commented_out_is_a_key() {
    let text: String = SAMPLE
        .lines()
        .map(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let key = bare.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            let section = bare.starts_with('[') && bare.ends_with(']');
            format!("{}\n", if key || section { bare } else { line })
        })
        .collect();
    let config: Config = toml::from_str(&text).unwrap();
    assert!(config.uplink.is_some());
    assert_eq!(config.api.keys.len(), 1);
    assert_eq!(config.mqtt.users[0].role, MqttRole::Panel);
}

#[test]
fn a_mistake_names_its_key_and_what_is_allowed() {
    for (text, key, allowed) in [
        ("[gateway]\nid = \"HQ Lobby\"", "HQ Lobby", "a-z 0-9"),
        ("[gateway]\ncolour = 1", "colour", "data_dir"),
        ("[readers]\nidle_mode = \"sleep\"", "sleep", "identify"),
        ("[readers]\npoll_ms = 1", "readers.poll_ms", "10 to 1000"),
        ("[mqtt]\nlisten = \"0.0.0.0:1883\"", "mqtt.listen", "allow_plain"),
        ("[mqtt]\nmode = \"external\"", "mqtt.url", "mqtts://host:port"),
        ("[mqtt]\nmode = \"external\"\nurl = \"http://x\"", "mqtt.url", "mqtts://host:port"),
        ("[mqtt]\nmode = \"external\"\nurl = \"mqtt://10.0.0.1\"", "mqtt.url", "allow_plain"),
        ("[mqtt]\nurl = \"mqtt://localhost\"", "mqtt.url", "external"),
        ("[uplink]\nurl = \"mqtt://cloud:1883\"\nsecret_file = \"x\"", "uplink.url", "mqtts://"),
        ("[api]\nrequests_per_minute = 0", "api.requests_per_minute", "1 or more"),
        ("[api]\ncors_origins = [\"*\"]", "api.cors_origins", "wildcard"),
        ("[[api.keys]]\nname = \"default\"\nkey = \"12345678\"", "api.keys[0].name", "once"),
        ("[[api.keys]]\nname = \"a\"\nkey = \"short\"", "api.keys[0].key", "8 to 200"),
        ("[[api.keys]]\nname = \"a\"\nkey = \"x\"\npermissions = [\"all\"]", "all", "device:read"),
        ("[journal]\nmax_bytes = 1", "journal.max_bytes", "1048576"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(key) && error.contains(allowed), "{text}\n{error}");
    }
}

#[test]
fn an_error_about_a_key_does_not_show_it() {
    let config = "[[api.keys]]\nname = \"a\"\nkey = \"s3cret\"";
    assert!(!parse(config).unwrap_err().contains("s3cret"));
    let good = parse("[[api.keys]]\nname = \"a\"\nkey = \"s3cret-and-long\"").unwrap();
    assert!(!format!("{good:?}").contains("s3cret"));
}

#[test]
fn broker_urls() {
    let url = |text| BrokerUrl::parse("k", text);
    let is = |host: &str, port, tls| Ok(BrokerUrl { host: host.to_owned(), port, tls });
    assert_eq!(url("mqtt://localhost"), is("localhost", 1883, false));
    assert_eq!(url("mqtts://b.example.org/"), is("b.example.org", 8883, true));
    assert_eq!(url("mqtt://[::1]:99"), is("::1", 99, false));
    assert_eq!(url("mqtt://[::1]"), is("::1", 1883, false));
    for bad in ["b:1883", "mqtt://", "mqtt://u:p@h:1", "mqtt://h:1/x", "mqtt://h:99999", "ws://h"] {
        assert!(url(bad).is_err(), "{bad}");
    }
}
