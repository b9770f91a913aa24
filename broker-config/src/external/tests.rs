use proptest::prelude::*;
use topics::{Role, Root};

use super::*;
use crate::{
    ClientCertificates, Credential, Limits, Listener, Tls, Transport, User, config::is_user_name,
};

const AT: &str = "/etc/ridgeway";

fn config() -> BrokerConfig {
    let mut config = BrokerConfig::new("edge", "127.0.0.1:1883".parse().unwrap());
    let gateway = || "hq".parse().unwrap();
    for (name, role) in [
        ("gateway", Role::EdgeGateway(gateway())),
        ("hq", Role::CloudGateway(gateway())),
        ("bridge", Role::Bridge),
        ("platform", Role::Platform),
        ("panel", Role::Panel(gateway())),
        ("viewer", Role::Viewer),
    ] {
        config.users.push(User::new(name, format!("{name}-password"), role));
    }
    config.limits = Limits { max_connections: 321, ..Limits::default() };
    config
}

fn made(kind: Kind, config: &BrokerConfig) -> External {
    External::new(kind, config, Path::new(AT)).unwrap()
}

fn file(made: &External, name: &str) -> String {
    made.files.iter().find(|file| file.name == name).unwrap().text.clone()
}

/// All files and notes, without what is random.
fn all(made: &External) -> String {
    let mut text = String::new();
    for file in &made.files {
        text += &format!("=== {}\n{}", file.name, file.text);
    }
    format!("{text}=== notes\n{}\n", made.notes.join("\n"))
}

/// Every listener that the embedded broker can have, with client certificates.
fn all_listeners() -> BrokerConfig {
    let mut config = config();
    let listener = |port, transport, tls| Listener {
        transport,
        tls,
        ..Listener::tcp(format!("127.0.0.1:{port}").parse().unwrap())
    };
    config.listeners = vec![
        listener(1883, Transport::Tcp, false),
        listener(8883, Transport::Tcp, true),
        listener(8083, Transport::WebSocket, false),
        listener(8084, Transport::WebSocket, true),
    ];
    config.listeners[3].origins = vec!["https://panel.example".to_owned()];
    config.tls = Some(Tls {
        certificate_file: Some("/etc/ridgeway/chain.pem".into()),
        key_file: Some("/etc/ridgeway/key.pem".into()),
        client_certificates: ClientCertificates::Required,
        client_ca_file: Some("/etc/ridgeway/clients.pem".into()),
        ..Tls::default()
    });
    config
}

/// EMQX is not packaged by Debian: no test starts it, so every change to its files is looked at.
#[test]
fn emqx_as_documented() {
    let mut config = all_listeners();
    config.users.push(User {
        name: "doors".to_owned(),
        credential: Credential::Certificate,
        role: Role::Custom {
            publish: vec!["doors/+/state".to_owned()],
            subscribe: vec!["doors/+".to_owned(), "a/${username}".to_owned()],
        },
    });
    let made = made(Kind::Emqx, &config);
    let text = all(&made);
    let (shown, users) = text.split_once("=== users.csv").unwrap();
    let (users, notes) = users.split_once("=== notes").unwrap();
    insta::assert_snapshot!(format!("{shown}=== notes{notes}"));
    for line in users.lines().skip(2) {
        let fields: Vec<_> = line.split(',').collect();
        assert_eq!((fields[1].len(), fields[2].len(), fields[3]), (128, 32, "false"), "{line}");
        assert!(is_user_name(fields[0]) && fields[0] != "doors");
    }
}

#[test]
fn listeners_and_client_certificates_of_the_others() {
    let config = all_listeners();
    let mosquitto = file(&made(Kind::Mosquitto, &config), "mosquitto.conf");
    assert_eq!(mosquitto.matches("require_certificate true\nuse_identity_as_username").count(), 2);
    assert_eq!(mosquitto.matches("protocol websockets").count(), 2);
    let nats = made(Kind::Nats, &config);
    assert!(nats.notes.iter().any(|note| note.contains("127.0.0.1:8883 is left out")));
    let rabbitmq = made(Kind::RabbitMq, &config);
    let conf = file(&rabbitmq, "rabbitmq.conf");
    for line in [
        "listeners.tcp = none",
        "mqtt.listeners.ssl.2 = 127.0.0.1:8883",
        "web_mqtt.ssl.port = 8084",
        "ssl_options.fail_if_no_peer_cert = true",
        "mqtt.ssl_cert_login = true",
    ] {
        assert!(conf.lines().any(|l| l == line), "no {line} in {conf}");
    }
    assert!(file(&rabbitmq, "enabled_plugins").contains("rabbitmq_web_mqtt"));
}

#[test]
fn what_a_broker_cannot_say_is_left_out_and_told() {
    for kind in Kind::ALL {
        let mut config = config();
        config.users.push(User {
            name: "hashed".to_owned(),
            credential: Credential::Argon2id("$argon2id$v=19$secret".to_owned()),
            role: Role::Viewer,
        });
        config.users_file = Some("users.toml".into());
        let made = made(kind, &config);
        assert!(made.notes.iter().any(|n| n.contains("hashed: only the hash")), "{kind:?}");
        assert!(made.notes.iter().any(|n| n.contains("users.toml")), "{kind:?}");
        let text = all(&made);
        assert!(!text.contains("argon2id"), "{kind:?}");
        for user in &config.users {
            assert!(!text.contains(&format!("{}-password", user.name)), "{kind:?}: no plain one");
        }
        // Behind proxies only where the broker reads who is behind them.
        config.listeners[0].proxies = vec!["127.0.0.1".parse().unwrap()];
        let proxied = External::new(kind, &config, Path::new(AT));
        let can = matches!(kind, Kind::Emqx | Kind::RabbitMq);
        assert_eq!(proxied.is_ok(), can, "{kind:?}");
        config.listeners[0] = Listener::tcp("127.0.0.1:0".parse().unwrap());
        let port = External::new(kind, &config, Path::new(AT)).err();
        assert!(matches!(port, Some(ExternalError::Port { .. })), "{kind:?}");
    }
}

#[test]
fn a_root_with_a_dot_would_be_another_one_where_topics_are_written_with_dots() {
    let mut config = config();
    config.root = Root::new("site.a/ridgeway").unwrap();
    for kind in Kind::ALL {
        let refused = External::new(kind, &config, Path::new(AT)).is_err();
        assert_eq!(refused, matches!(kind, Kind::Nats | Kind::RabbitMq), "{kind:?}");
    }
}

#[test]
fn nobody_is_anonymous_unless_configured_and_then_has_that_users_rights() {
    let mut config = config();
    assert!(file(&made(Kind::Mosquitto, &config), "mosquitto.conf").contains("anonymous false"));
    config.anonymous = Some("viewer".to_owned());
    let mosquitto = made(Kind::Mosquitto, &config);
    assert!(file(&mosquitto, "mosquitto.conf").contains("allow_anonymous true"));
    let acl = file(&mosquitto, "acl");
    let (before, _) = acl.split_once("user ").unwrap();
    assert!(before.contains("topic read ridgeway/v1/+/status") && !before.contains("write"));
    let nats = file(&made(Kind::Nats, &config), "nats-server.conf");
    assert!(nats.contains("no_auth_user: \"viewer\""));
}

/// A value that JSON, HOCON, Erlang, NATS and Mosquitto would each read differently.
fn odd_filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        Just("+".to_owned()),
        "[a-z0-9 ._*>$%{}\\[\\]()|^\"\\\\~:;,'-]{0,6}",
        "[a-zé\u{1F525}\n]{1,4}",
    ];
    (prop::collection::vec(level, 1..5), any::<bool>())
        .prop_map(|(levels, all)| levels.join("/") + if all { "/#" } else { "" })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Odd names, deep roots and an operator's odd filters never end a line or a string: each file
    /// has as many users and rights as there are, and what was left out is told.
    #[test]
    fn odd_names_stay_in_their_places(
        name in "[A-Za-z0-9_.@-]{1,64}",
        root in "[A-Za-z0-9_-]{1,9}(/[A-Za-z0-9_-]{1,9}){0,7}",
        publish in prop::collection::vec(odd_filter(), 0..4),
        subscribe in prop::collection::vec(odd_filter(), 0..4),
    ) {
        prop_assume!(!root.starts_with("ridgeway-link"));
        let mut config = BrokerConfig::new("edge", "127.0.0.1:1883".parse().unwrap());
        config.root = Root::new(root).unwrap();
        let role = Role::Custom { publish: publish.clone(), subscribe: subscribe.clone() };
        config.users = vec![User::new(name.clone(), "odd", role), User::new("next", "x", Role::Platform)];
        prop_assume!(name != "next");

        let mosquitto = made(Kind::Mosquitto, &config);
        for line in file(&mosquitto, "acl").lines().filter(|line| !line.is_empty()) {
            let known = ["topic write ", "topic read "].into_iter().find_map(|p| line.strip_prefix(p));
            let is_user = line == format!("user {name}") || line == "user next";
            let granted = |filter: &str| {
                let own = config.root.as_str();
                publish.iter().chain(&subscribe).any(|f| f == filter) || filter.starts_with(own)
            };
            prop_assert!(is_user || known.is_some_and(granted), "{line:?}");
        }
        prop_assert_eq!(file(&mosquitto, "passwords").lines().count(), 2);

        let rabbitmq = file(&made(Kind::RabbitMq, &config), "definitions.json");
        let read: serde_json::Value = serde_json::from_str(&rabbitmq).unwrap();
        prop_assert_eq!(read["users"].as_array().unwrap().len(), 2);
        for rights in read["topic_permissions"].as_array().unwrap() {
            for access in ["read", "write"] {
                let pattern = rights[access].as_str().unwrap();
                prop_assert!(pattern.starts_with('^') && pattern.ends_with('$') && !pattern.contains('\n'));
                prop_assert!(!pattern.contains("{username}"), "{pattern}");
            }
        }

        let nats = file(&made(Kind::Nats, &config), "nats-server.conf");
        prop_assert_eq!(nats.lines().filter(|line| line.trim().starts_with("user: ")).count(), 2);
        prop_assert!(nats.lines().all(|line| line.matches('"').count() % 2 == 0));
        let unquoted: String = nats.split('"').step_by(2).collect();
        prop_assert_eq!(unquoted.matches('{').count(), unquoted.matches('}').count());

        let emqx = file(&made(Kind::Emqx, &config), "acl.conf");
        let rule = |line: &str| line.starts_with("{allow, ") || line.starts_with("{deny, ");
        prop_assert!(emqx.lines().skip(1).all(|line| rule(line) && line.ends_with("}.")), "{emqx}");
    }

    /// RabbitMQ's expressions and NATS's subjects against MQTT's own matching.
    #[test]
    fn a_pattern_meets_what_the_filter_covers(
        filter in "[ab+](/[ab+]){0,3}(/#)?",
        inner in "[ab+](/[ab+]){0,3}(/#)?",
    ) {
        let role = Role::Custom { publish: vec![], subscribe: vec![filter.clone()] };
        let covered = role.may_subscribe(&Root::default(), &inner);
        let key = inner.replace('/', ".").replace('+', "*");
        prop_assert_eq!(rabbitmq::tests::meets(&filter, &key), covered, "{} {}", filter, inner);
    }
}
