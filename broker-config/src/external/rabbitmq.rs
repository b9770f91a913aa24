//! RabbitMQ 3.10 and newer: its configuration, definitions with users and rights, the plugins.
//!
//! MQTT topics are routing keys there: `/` is `.`, `+` is `*`, `#` stays. A user's right to a topic is
//! a regular expression on the key: of the message, or of the binding that a subscription makes.

use serde_json::{Value, json};

use super::{
    External, ExternalError, hash,
    plan::{Account, Plan, TlsFiles, is_websocket},
};
use crate::{ClientCertificates, Listener};

/// The exchange that MQTT goes through.
const EXCHANGE: &str = "amq.topic";
/// A client's own queues. Only MQTT reaches them: no other protocol listens.
const QUEUES: &str = "mqtt-(subscription|will)-.*";

pub(super) fn files(mut plan: Plan<'_>) -> Result<External, ExternalError> {
    let everywhere = plan.config.listeners.iter().filter(|l| !is_websocket(l));
    let proxied =
        everywhere.clone().count() > 0 && everywhere.clone().all(|l| !l.proxies.is_empty());
    let listeners = plan.listeners(|listener| {
        (!listener.proxies.is_empty() && (!proxied || is_websocket(listener)))
            .then_some("RabbitMQ speaks the PROXY protocol on all MQTT listeners or on none")
    })?;
    if proxied {
        plan.note(
            "RabbitMQ believes a PROXY header from whoever connects: let only the proxies reach it",
        );
    }
    let tls = if listeners.iter().any(|l| l.tls) { Some(plan.tls()?) } else { None };
    if plan.config.anonymous.is_some() {
        plan.note("clients without a name are refused: RabbitMQ would need a password for them");
    }
    plan.note(
        "MQTT 3.1.1 only before RabbitMQ 3.13; retained states come only to a subscription without \
         wildcards",
    );
    let mut lines = head(&plan);
    let web = mqtt_listeners(&mut lines, &mut plan, &listeners);
    web_listeners(&mut lines, &mut plan, &web, tls.as_ref());
    if let Some(tls) = &tls {
        tls_lines(&mut lines, &plan, "ssl_options", tls);
        if plan.client_certificates() != ClientCertificates::Off {
            lines.push("mqtt.ssl_cert_login = true\nssl_cert_login_from = common_name".to_owned());
        }
    }
    if proxied {
        lines.push("mqtt.proxy_protocol = true".to_owned());
    }
    let conf = lines.join("\n") + "\n";
    let plugins =
        if web.is_empty() { "[rabbitmq_mqtt].\n" } else { "[rabbitmq_mqtt, rabbitmq_web_mqtt].\n" };
    let definitions = format!("{:#}\n", definitions(&mut plan)?);
    let next = vec![
        format!("chown rabbitmq: {0} {0}/*   # the user that RabbitMQ runs as", plan.at),
        format!(
            "RABBITMQ_CONFIG_FILE={} RABBITMQ_ENABLED_PLUGINS_FILE={} rabbitmq-server   # or both in \
             /etc/rabbitmq/rabbitmq-env.conf, without RABBITMQ_",
            plan.file("rabbitmq.conf"),
            plan.file("enabled_plugins")
        ),
        format!(
            "after a change: this again, the chown too, and rabbitmqctl import_definitions {}",
            plan.file("definitions.json")
        ),
    ];
    Ok(plan.done(
        vec![
            ("rabbitmq.conf", conf),
            ("definitions.json", definitions),
            ("enabled_plugins", plugins.to_owned()),
        ],
        next,
    ))
}

fn head(plan: &Plan<'_>) -> Vec<String> {
    vec![
        "# Written by ridgeway broker-config rabbitmq.".to_owned(),
        "# No AMQP: its clients could read the queues of MQTT's.".to_owned(),
        "listeners.tcp = none".to_owned(),
        format!("load_definitions = {}", plan.file("definitions.json")),
        format!("max_message_size = {}", plan.config.limits.max_payload_bytes),
        "mqtt.allow_anonymous = false".to_owned(),
        "mqtt.vhost = /".to_owned(),
        format!("mqtt.exchange = {EXCHANGE}"),
        "mqtt.prefetch = 100".to_owned(),
        format!("mqtt.login_timeout = {}", plan.config.limits.connect_timeout.as_millis()),
    ]
}

/// Writes those of TCP; gives back the others.
fn mqtt_listeners<'a>(
    lines: &mut Vec<String>,
    plan: &mut Plan<'_>,
    listeners: &[&'a Listener],
) -> Vec<&'a Listener> {
    let (web, tcp): (Vec<&Listener>, Vec<&Listener>) =
        listeners.iter().copied().partition(|listener| is_websocket(listener));
    for (at, listener) in tcp.iter().enumerate() {
        let kind = if listener.tls { "ssl" } else { "tcp" };
        lines.push(format!("mqtt.listeners.{kind}.{} = {}", at + 1, listener.address));
    }
    if tcp.iter().all(|l| l.tls) {
        lines.push("mqtt.listeners.tcp = none".to_owned());
    }
    if !web.is_empty() {
        plan.note("WebSocket: the pages' origins are not checked; the path is /mqtt");
    }
    web
}

fn web_listeners(
    lines: &mut Vec<String>,
    plan: &mut Plan<'_>,
    web: &[&Listener],
    tls: Option<&TlsFiles>,
) {
    for encrypted in [false, true] {
        let mut those = web.iter().filter(|listener| listener.tls == encrypted);
        if let Some(listener) = those.next() {
            let kind = if encrypted { "ssl" } else { "tcp" };
            lines.push(format!("web_mqtt.{kind}.port = {}", listener.address.port()));
            lines.push(format!("web_mqtt.{kind}.ip = {}", listener.address.ip()));
            if let (true, Some(tls)) = (encrypted, tls) {
                tls_lines(lines, plan, "web_mqtt.ssl", tls);
            }
        }
        for other in those {
            plan.note(format!(
                "listener {} is left out: RabbitMQ has one WebSocket listener with TLS and one \
                 without",
                other.address
            ));
        }
    }
    if !web.is_empty() {
        lines.push("web_mqtt.ws_path = /mqtt".to_owned());
    }
}

fn tls_lines(lines: &mut Vec<String>, plan: &Plan<'_>, prefix: &str, tls: &TlsFiles) {
    lines.push(format!("{prefix}.certfile = {}", tls.certificate));
    lines.push(format!("{prefix}.keyfile = {}", tls.key));
    let Some(ca) = &tls.client_ca else { return };
    lines.push(format!("{prefix}.cacertfile = {ca}"));
    if prefix == "ssl_options" {
        let required = plan.client_certificates() == ClientCertificates::Required;
        lines.push(format!("{prefix}.verify = verify_peer"));
        lines.push(format!("{prefix}.fail_if_no_peer_cert = {required}"));
    }
}

fn definitions(plan: &mut Plan<'_>) -> Result<Value, ExternalError> {
    let limits = &plan.config.limits;
    let accounts = std::mem::take(&mut plan.accounts);
    let (mut users, mut permissions, mut topics) = (Vec::new(), Vec::new(), Vec::new());
    for Account { user, publish, subscribe } in &accounts {
        let set_it = format!("rabbitmqctl change_password {}", user.name);
        let hash = match plan.password(user, &set_it) {
            Some(password) => hash::rabbitmq(password.expose())?,
            // Nobody gets in with an empty hash.
            None => String::new(),
        };
        users.push(json!({
            "name": user.name,
            "password_hash": hash,
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": [],
            "limits": { "max-connections": limits.max_connections_per_user },
        }));
        permissions.push(json!({
            "user": user.name,
            "vhost": "/",
            "configure": format!("^{QUEUES}$"),
            "write": format!("^(amq\\.topic|{QUEUES})$"),
            "read": format!("^(amq\\.topic|{QUEUES})$"),
        }));
        topics.push(json!({
            "user": user.name,
            "vhost": "/",
            "exchange": EXCHANGE,
            "write": WRITE.pattern(publish),
            "read": READ.pattern(subscribe),
        }));
    }
    plan.accounts = accounts;
    Ok(json!({
        "vhosts": [{ "name": "/" }],
        "users": users,
        "permissions": permissions,
        "topic_permissions": topics,
        "parameters": [{
            "vhost": "/",
            "component": "vhost-limits",
            "name": "limits",
            "value": { "max-connections": limits.max_connections },
        }],
    }))
}

/// What a filter's wildcards are in a regular expression.
struct Wildcards {
    level: &'static str,
    below: &'static str,
    everything: &'static str,
}

/// In the key of a binding, `*` stands for a level. `#` stands for any number and is only below.
const READ: Wildcards = Wildcards { level: "[^.#]*", below: "(\\..*)?", everything: ".*" };

/// A message's key has no wildcard.
const WRITE: Wildcards =
    Wildcards { level: "[^.#*]*", below: "(\\.[^#*]*)?", everything: "[^#*]*" };

impl Wildcards {
    /// An expression for the keys that these filters cover; one that meets none if there are none.
    fn pattern(&self, filters: &[String]) -> String {
        if filters.is_empty() {
            return "^$".to_owned();
        }
        let all: Vec<_> = filters.iter().map(|filter| self.one(filter)).collect();
        format!("^({})$", all.join("|"))
    }

    fn one(&self, filter: &str) -> String {
        if filter == "#" {
            return self.everything.to_owned();
        }
        let (levels, tail) = match filter.strip_suffix("/#") {
            Some(levels) => (levels, self.below),
            None => (filter, ""),
        };
        let level = |text| if text == "+" { self.level.to_owned() } else { escape(text) };
        levels.split('/').map(level).collect::<Vec<_>>().join("\\.") + tail
    }
}

/// Text that means itself in a regular expression, and no variable (`{username}`) to RabbitMQ.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if !(letter.is_alphanumeric() || letter == '-' || letter == '_' || letter == ' ') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    /// Whether a reader's expression for `filter` meets a binding's key. The few things that the
    /// expressions are made of are matched here by hand.
    pub(in super::super) fn meets(filter: &str, key: &str) -> bool {
        let pattern = super::READ.pattern(&[filter.to_owned()]);
        let inside = pattern.strip_prefix("^(").and_then(|p| p.strip_suffix(")$"));
        here(inside.expect("one alternative"), key)
    }

    fn here(pattern: &str, key: &str) -> bool {
        if pattern.is_empty() {
            return key.is_empty();
        }
        if let Some(rest) = pattern.strip_prefix("[^.#]*") {
            return (0..=key.len())
                .take_while(|&end| !key[..end].contains(['.', '#']))
                .any(|end| here(rest, &key[end..]));
        }
        if pattern == "(\\..*)?" {
            return key.is_empty() || key.starts_with('.');
        }
        let pattern = pattern.strip_prefix('\\').unwrap_or(pattern);
        key.starts_with(&pattern[..1]) && here(&pattern[1..], &key[1..])
    }
}
