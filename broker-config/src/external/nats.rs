//! NATS 2.9 and newer: one file. MQTT topics are subjects there: `/` is `.`, `+` is `*`, `#` is `>`.
//!
//! A subscription to `a/#` is two subjects, `a` and `a.>`, and one with QoS 1 is delivered through a
//! subject below `$MQTT.sub.`; both must be granted. Users may come by MQTT only: with a NATS client
//! they could read those subjects of others.

use std::fmt::Write as _;

use super::{
    External, ExternalError, hash,
    plan::{Account, Plan, TlsFiles, is_websocket},
};
use crate::{ClientCertificates, Listener};

/// Headers and topic beside the payload.
const OVERHEAD_BYTES: usize = 8 << 10;

/// What the server keeps for itself, but `$MQTT.sub.>`.
const INTERNAL: [&str; 9] = [
    "$SYS.>",
    "$JS.>",
    "$KV.>",
    "$O.>",
    "_INBOX.>",
    "$MQTT.JSA.>",
    "$MQTT.msgs.>",
    "$MQTT.rmsgs",
    "$MQTT.sess.>",
];

pub(super) fn files(mut plan: Plan<'_>) -> Result<External, ExternalError> {
    let (mut plain, mut web) = (None, None);
    let listeners = plan.listeners(|listener| {
        (!listener.proxies.is_empty()).then_some("NATS doesn't speak PROXY protocol v2")
    })?;
    for listener in listeners {
        let place = if is_websocket(listener) { &mut web } else { &mut plain };
        match place {
            None => *place = Some(listener),
            Some(_) => plan.note(format!(
                "listener {} is left out: NATS has one MQTT and one WebSocket listener",
                listener.address
            )),
        }
    }
    let any_tls = [plain, web].iter().flatten().any(|l| l.tls);
    let tls = if any_tls { Some(plan.tls()?) } else { None };
    if any_tls && plan.client_certificates() != ClientCertificates::Off {
        plan.note(
            "a client certificate is asked for only where it is required, and then beside the \
             password: NATS makes no user of a common name",
        );
    }
    plan.note("MQTT 3.1.1 only; a client that speaks MQTT 5 is refused");
    let mut conf = head(&plan);
    if let Some(listener) = plain {
        section(&mut conf, &plan, "mqtt", listener, tls.as_ref());
    } else {
        conf.push_str(
            "# MQTT itself only on loopback.\nmqtt { host: \"127.0.0.1\", port: 1883 }\n",
        );
    }
    if let Some(listener) = web {
        section(&mut conf, &plan, "websocket", listener, tls.as_ref());
    }
    conf.push_str(&users(&mut plan)?);
    let next = vec![
        format!("chown nats: {0} {0}/*   # the user that nats-server runs as", plan.at),
        format!("nats-server -c {}", plan.file("nats-server.conf")),
        "after a change: this again, the chown too, and nats-server --signal reload".to_owned(),
    ];
    Ok(plan.done(vec![("nats-server.conf", conf)], next))
}

fn head(plan: &Plan<'_>) -> String {
    let limits = &plan.config.limits;
    format!(
        "# Written by ridgeway broker-config nats.\n\
         server_name: \"ridgeway-{}\"\n\
         # NATS's own clients: nobody has a user for them.\n\
         host: \"127.0.0.1\"\n\
         port: 4222\n\
         max_connections: {}\n\
         max_payload: {}\n\
         jetstream {{ store_dir: \"{}\" }}\n",
        plan.config.name,
        limits.max_connections,
        limits.max_payload_bytes + OVERHEAD_BYTES,
        plan.file("jetstream"),
    )
}

fn section(
    conf: &mut String,
    plan: &Plan<'_>,
    name: &str,
    listener: &Listener,
    tls: Option<&TlsFiles>,
) {
    let address = listener.address;
    let _ = writeln!(conf, "{name} {{\n  host: \"{}\"\n  port: {}", address.ip(), address.port());
    if name == "mqtt" {
        conf.push_str("  max_ack_pending: 100\n");
    }
    if let Some(user) = &plan.config.anonymous {
        let _ = writeln!(conf, "  no_auth_user: \"{user}\"");
    }
    if name == "websocket" && !listener.origins.is_empty() {
        let origins: Vec<_> = listener.origins.iter().map(|o| format!("{o:?}")).collect();
        let _ = writeln!(conf, "  allowed_origins: [{}]", origins.join(", "));
    } else if name == "websocket" {
        conf.push_str("  same_origin: true\n");
    }
    match tls.filter(|_| listener.tls) {
        Some(tls) => {
            let _ = write!(
                conf,
                "  tls {{\n    cert_file: \"{}\"\n    key_file: \"{}\"\n",
                tls.certificate, tls.key
            );
            if let (Some(ca), ClientCertificates::Required) =
                (&tls.client_ca, plan.client_certificates())
            {
                let _ = write!(conf, "    ca_file: \"{ca}\"\n    verify: true\n");
            }
            conf.push_str("  }\n");
        }
        None if name == "websocket" => conf.push_str("  no_tls: true\n"),
        None => {}
    }
    conf.push_str("}\n");
}

fn users(plan: &mut Plan<'_>) -> Result<String, ExternalError> {
    let mut text = String::from("authorization {\n  users: [\n");
    let accounts = std::mem::take(&mut plan.accounts);
    for Account { user, publish, subscribe } in &accounts {
        let set_it = format!(
            "put the output of `nats server passwd` in the place of the password of {} in {}",
            user.name,
            plan.file("nats-server.conf")
        );
        let password = match plan.password(user, &set_it) {
            Some(password) if password.expose().len() > hash::BCRYPT_BYTES => {
                plan.note(format!(
                    "{}: its password is longer than the {} bytes that bcrypt reads; {set_it}",
                    user.name,
                    hash::BCRYPT_BYTES
                ));
                crate::Secret::random()?
            }
            Some(password) => password,
            // A user without a password would need none: this one nobody knows.
            None => crate::Secret::random()?,
        };
        let published = permission(publish.iter().flat_map(|filter| subjects(filter)).collect());
        let mut read: Vec<String> = subscribe.iter().flat_map(|filter| subjects(filter)).collect();
        if !read.is_empty() {
            read.push("$MQTT.sub.>".to_owned());
        }
        let _ = writeln!(
            text,
            "    {{\n      user: \"{}\"\n      password: \"{}\"\n      \
             allowed_connection_types: [\"MQTT\", \"MQTT_WS\"]\n      \
             permissions {{\n        publish {{ {published} }}\n        subscribe {{ {} }}\n      }}\n    }}",
            user.name,
            hash::nats(password.expose())?,
            permission(read),
        );
    }
    plan.accounts = accounts;
    text.push_str("  ]\n}\n");
    Ok(text)
}

/// No list would mean everything.
fn permission(subjects: Vec<String>) -> String {
    if subjects.is_empty() {
        return "deny: \">\"".to_owned();
    }
    let allow = format!("allow: {}", list(&subjects));
    // In MQTT a wildcard meets no name that starts with `$`; among subjects it does.
    let meets_internal = |subject: &String| subject.starts_with(['*', '>']);
    if subjects.iter().any(meets_internal) {
        return format!("{allow}, deny: {}", list(&INTERNAL.map(str::to_owned)));
    }
    allow
}

fn list(subjects: &[String]) -> String {
    let quoted: Vec<_> = subjects.iter().map(|subject| format!("\"{subject}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// What may be published below `a/#` is `a.>` and, as a topic of its own, `a`.
fn subjects(filter: &str) -> Vec<String> {
    let own = filter.strip_suffix("/#").map(subject);
    own.into_iter().chain([subject(filter)]).collect()
}

fn subject(filter: &str) -> String {
    let levels: Vec<_> = filter
        .split('/')
        .map(|level| match level {
            "+" => "*",
            "#" => ">",
            text => text,
        })
        .collect();
    levels.join(".")
}
