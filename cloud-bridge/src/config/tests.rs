use super::*;

fn read(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn problem(text: &str) -> ConfigError {
    read(text).validate().unwrap_err()
}

#[test]
fn an_empty_file_is_a_whole_configuration() {
    let config = read("");
    config.validate().unwrap();
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.mqtt.listen.to_string(), "127.0.0.1:1884");
    assert_eq!(config.mqtt_users()[0].name, "platform");
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let error = toml::from_str::<Config>("[api]\nlisten = \"127.0.0.1:1\"\nprot = 1").unwrap_err();
    assert!(error.to_string().contains("prot"), "{error}");
}

#[test]
fn mistakes_name_the_key_and_what_is_allowed() {
    let external = "[mqtt]\nmode = \"external\"\n";
    for (text, key) in [
        ("[api]\nlisten = \"0.0.0.0:9090\"", "api.listen"),
        ("[mqtt]\nlisten = \"0.0.0.0:1884\"", "mqtt.listen"),
        ("[store]\nmax_events = 3", "store.max_events"),
        ("[[api.keys]]\nname = \"a\"", "api.keys"),
        ("[[api.keys]]\nname = \"main\"\nkey = \"0123456789abcdef\"", "api.keys.name"),
        (external, "mqtt.url"),
        (&format!("{external}url = \"http://x\""), "mqtt.url"),
        (&format!("{external}url = \"mqtt://broker.example\""), "mqtt.url"),
        (&format!("{external}url = \"mqtts://broker.example\""), "mqtt.ca_file"),
    ] {
        let error = problem(text);
        assert_eq!(error.key, key, "{error}");
        assert!(!error.allowed.is_empty());
    }
}

#[test]
fn a_gateway_stands_there_once_and_keeps_its_name() {
    let gateway = "[[gateways]]\nid = \"hq\"\nsecret_file = \"hq.key\"\n";
    read(gateway).validate().unwrap();
    assert_eq!(problem(&gateway.repeat(2)).key, "gateways.id");
    let user = "[[mqtt.users]]\nname = \"hq\"\nrole = \"viewer\"\npassword_file = \"x\"\n";
    assert_eq!(problem(&format!("{gateway}{user}")).key, "mqtt.users.name");
}

#[test]
fn beyond_loopback_needs_saying_so() {
    read("[api]\nlisten = \"0.0.0.0:9090\"\nallow_plain = true").validate().unwrap();
}

#[test]
fn broker_urls() {
    let url = |text: &str| BrokerUrl::parse(text).map(|url| (url.tls, url.host, url.port));
    assert_eq!(url("mqtt://localhost"), Some((false, "localhost".into(), 1883)));
    assert_eq!(url("mqtts://b.example:99/"), Some((true, "b.example".into(), 99)));
    assert_eq!(url("mqtt://[::1]:5"), Some((false, "::1".into(), 5)));
    for bad in ["localhost", "mqtt://", "ws://x", "mqtt://u:p@host", "mqtt://h:port"] {
        assert_eq!(url(bad), None, "{bad}");
    }
}

#[test]
fn the_sample_says_the_defaults() {
    let sample = read(SAMPLE);
    sample.validate().unwrap();
    assert_eq!(format!("{sample:?}"), format!("{:?}", Config::default()));
}

#[test]
fn every_line_of_the_sample_that_is_commented_out_is_a_key() {
    let is_key = |line: &&str| line.starts_with('[') || line.contains(" = ");
    let text: String = SAMPLE
        .lines()
        .map(|line| line.strip_prefix("# ").filter(is_key).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let config = read(&text);
    assert_eq!((config.gateways.len(), config.api.keys.len(), config.mqtt.users.len()), (1, 1, 1));
}
