//! Mosquitto 2.0: one configuration file, an ACL file, a password file.
//!
//! It checks a subscription's topics when it delivers, not when somebody subscribes: a filter wider
//! than the grant is acknowledged and brings only what the grant covers.

use std::fmt::Write as _;

use super::{
    External, ExternalError, hash,
    plan::{Account, Plan, TlsFiles, is_websocket},
};
use crate::{BrokerConfig, ClientCertificates, Listener};

pub(super) fn files(mut plan: Plan<'_>) -> Result<External, ExternalError> {
    let listeners = plan.listeners(|listener| match listener {
        l if !l.proxies.is_empty() => Some("Mosquitto 2.0 doesn't speak the PROXY protocol"),
        _ => None,
    })?;
    let tls = if listeners.iter().any(|l| l.tls) { Some(plan.tls()?) } else { None };
    if tls.is_some() && plan.client_certificates() == ClientCertificates::Optional {
        plan.note(
            "client certificates are asked of nobody: Mosquitto knows required or off, not optional",
        );
    }
    if listeners.iter().any(|l| is_websocket(l)) {
        plan.note(
            "WebSocket needs a Mosquitto that is built with it (Debian's isn't), and the pages' \
             origins are not checked",
        );
    }
    let conf = conf(&plan, &listeners, tls.as_ref());
    let acl = acl(&plan);
    let passwords = passwords(&mut plan)?;
    let next = vec![
        format!("chown mosquitto: {0} {0}/*   # the user that Mosquitto runs as", plan.at),
        format!("mosquitto -c {}", plan.file("mosquitto.conf")),
        "after a change: this again, the chown too, and kill -HUP the broker".to_owned(),
    ];
    Ok(plan.done(vec![("mosquitto.conf", conf), ("acl", acl), ("passwords", passwords)], next))
}

fn conf(plan: &Plan<'_>, listeners: &[&Listener], tls: Option<&TlsFiles>) -> String {
    let BrokerConfig { limits, anonymous, .. } = plan.config;
    let queue_bytes = limits.segments.bytes.saturating_mul(limits.segments.count);
    let mut conf = format!(
        "# Written by ridgeway broker-config mosquitto. To keep retained messages over a restart, add\n\
         # `persistence true` and `persistence_location`.\n\
         per_listener_settings false\n\
         allow_anonymous {}\n\
         password_file {}\n\
         acl_file {}\n\
         message_size_limit {}\n\
         max_inflight_messages 100\n\
         # Without it a small packet may wait 40 ms for the acknowledgement of the one before.\n\
         set_tcp_nodelay true\n\
         # As much as the embedded broker keeps for a subscriber; 0: counted in bytes only.\n\
         max_queued_messages 0\n\
         max_queued_bytes {queue_bytes}\n",
        anonymous.is_some(),
        plan.file("passwords"),
        plan.file("acl"),
        limits.max_payload_bytes,
    );
    for listener in listeners {
        let address = listener.address;
        let _ = writeln!(conf, "\nlistener {} {}", address.port(), address.ip());
        // Each listener counts for itself.
        let _ = writeln!(conf, "max_connections {}", limits.max_connections);
        if is_websocket(listener) {
            conf.push_str("protocol websockets\n");
        }
        if let (true, Some(tls)) = (listener.tls, tls) {
            let _ = writeln!(conf, "certfile {}\nkeyfile {}", tls.certificate, tls.key);
            if let (Some(ca), ClientCertificates::Required) =
                (&tls.client_ca, plan.client_certificates())
            {
                let _ = writeln!(
                    conf,
                    "cafile {ca}\nrequire_certificate true\nuse_identity_as_username true"
                );
            }
        }
    }
    conf
}

fn acl(plan: &Plan<'_>) -> String {
    let mut acl = String::new();
    // What stands before the first user is for clients without a name.
    let anonymous = plan.config.anonymous.as_deref();
    if let Some(account) = plan.accounts.iter().find(|a| Some(a.user.name.as_str()) == anonymous) {
        grants(&mut acl, account);
    }
    for account in &plan.accounts {
        let _ = writeln!(acl, "user {}", account.user.name);
        grants(&mut acl, account);
    }
    acl
}

fn grants(acl: &mut String, account: &Account<'_>) {
    for filter in &account.publish {
        let _ = writeln!(acl, "topic write {filter}");
    }
    for filter in &account.subscribe {
        let _ = writeln!(acl, "topic read {filter}");
    }
    acl.push('\n');
}

fn passwords(plan: &mut Plan<'_>) -> Result<String, ExternalError> {
    let mut file = String::new();
    for user in &plan.config.users {
        let set_it = format!("mosquitto_passwd {} {}", plan.file("passwords"), user.name);
        if let Some(password) = plan.password(user, &set_it) {
            let _ = writeln!(file, "{}:{}", user.name, hash::mosquitto(password.expose())?);
        }
    }
    Ok(file)
}
