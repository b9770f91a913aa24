//! EMQX 5: a HOCON file to be included, an ACL file of Erlang terms, a CSV file with the first users.
//!
//! Its ACL matches a filter that somebody subscribes as if it were a topic, so a `+` in a grant also
//! meets a `#` at a subscription's end. Where that would widen a grant, a rule before it denies that.

use std::fmt::Write as _;

use super::{
    External, ExternalError, hash,
    plan::{Account, Plan, TlsFiles, is_websocket},
};
use crate::{ClientCertificates, Listener};

/// What topic, properties and header may take beside the payload.
const OVERHEAD_BYTES: usize = 8 << 10;

pub(super) fn files(mut plan: Plan<'_>) -> Result<External, ExternalError> {
    let listeners = plan.listeners(|_| None)?;
    let tls = if listeners.iter().any(|l| l.tls) { Some(plan.tls()?) } else { None };
    if listeners.iter().any(|l| !l.proxies.is_empty()) {
        plan.note(
            "EMQX believes a PROXY header from whoever connects: let only the proxies reach that port",
        );
    }
    if plan.config.anonymous.is_some() {
        plan.note("clients without a name are refused: EMQX has no user to make of them");
    }
    match plan.client_certificates() {
        ClientCertificates::Optional if tls.is_some() => {
            plan.note("client certificates are asked of nobody: EMQX would still want a password");
        }
        // Without it a certificate that has no common name would be whoever it says in CONNECT.
        ClientCertificates::Required if tls.is_some() => {
            plan.note("beside a client's certificate, EMQX wants the password of its common name");
        }
        _ => {}
    }
    let conf = conf(&plan, &listeners, tls.as_ref());
    let acl = acl(&plan);
    let users = users(&mut plan)?;
    let next = vec![
        format!("chown emqx: {0} {0}/*   # the user that EMQX runs as", plan.at),
        format!("echo 'include \"{}\"' >> /etc/emqx/emqx.conf", plan.file("ridgeway.hocon")),
        "emqx stop; emqx start   # data/configs/cluster.hocon, if there is one, stands above it"
            .to_owned(),
    ];
    Ok(plan.done(vec![("ridgeway.hocon", conf), ("acl.conf", acl), ("users.csv", users)], next))
}

fn conf(plan: &Plan<'_>, listeners: &[&Listener], tls: Option<&TlsFiles>) -> String {
    let limits = &plan.config.limits;
    let mut conf = format!(
        "# Written by ridgeway broker-config emqx.\n\
         mqtt {{\n  \
           max_packet_size = {}\n  \
           max_subscriptions = {}\n  \
           max_inflight = 100\n  \
           idle_timeout = {}ms\n\
         }}\n\
         authentication = [{{\n  \
           mechanism = password_based\n  \
           backend = built_in_database\n  \
           user_id_type = username\n  \
           password_hash_algorithm {{ name = pbkdf2, mac_fun = sha512, iterations = {}, dk_length = 64 }}\n  \
           bootstrap_file = \"{}\"\n  \
           bootstrap_type = hash\n\
         }}]\n\
         authorization {{\n  \
           no_match = deny\n  \
           deny_action = ignore\n  \
           sources = [{{ type = file, enable = true, path = \"{}\" }}]\n\
         }}\n",
        limits.max_payload_bytes + OVERHEAD_BYTES,
        limits.max_filters,
        limits.connect_timeout.as_millis(),
        hash::ROUNDS,
        plan.file("users.csv"),
        plan.file("acl.conf"),
    );
    // Those that it has by itself.
    for kind in ["tcp", "ssl", "ws", "wss"] {
        let _ = writeln!(conf, "listeners.{kind}.default.enable = false");
    }
    for (at, listener) in listeners.iter().enumerate() {
        self::listener(&mut conf, plan, at, listener, tls);
    }
    conf
}

fn listener(
    conf: &mut String,
    plan: &Plan<'_>,
    at: usize,
    listener: &Listener,
    tls: Option<&TlsFiles>,
) {
    let kind = match (is_websocket(listener), listener.tls) {
        (false, false) => "tcp",
        (false, true) => "ssl",
        (true, false) => "ws",
        (true, true) => "wss",
    };
    let _ = writeln!(
        conf,
        "listeners.{kind}.ridgeway{at} {{\n  bind = \"{}\"\n  max_connections = {}",
        listener.address, plan.config.limits.max_connections
    );
    if !listener.proxies.is_empty() {
        conf.push_str("  proxy_protocol = true\n");
    }
    if is_websocket(listener) {
        let origins = if listener.origins.is_empty() {
            // No page may; a client that is no browser names no origin.
            "https://none.invalid".to_owned()
        } else {
            listener.origins.join(", ")
        };
        let _ = writeln!(
            conf,
            "  websocket {{ check_origin_enable = true, allow_origin_absence = true, \
             check_origins = \"{origins}\" }}"
        );
    }
    let mut by_certificate = false;
    if let (true, Some(tls)) = (listener.tls, tls) {
        let _ = write!(
            conf,
            "  ssl_options {{\n    certfile = \"{}\"\n    keyfile = \"{}\"\n",
            tls.certificate, tls.key
        );
        if let (Some(ca), ClientCertificates::Required) =
            (&tls.client_ca, plan.client_certificates())
        {
            by_certificate = true;
            let _ = write!(
                conf,
                "    cacertfile = \"{ca}\"\n    verify = verify_peer\n    \
                 fail_if_no_peer_cert = true\n"
            );
        }
        conf.push_str("  }\n");
    }
    if by_certificate {
        conf.push_str("  zone = certificates\n");
    }
    conf.push_str("}\n");
    if by_certificate && !conf.contains("zones.certificates") {
        conf.push_str("zones.certificates.mqtt.peer_cert_as_username = cn\n");
    }
}

fn acl(plan: &Plan<'_>) -> String {
    let mut acl = String::from("%% Written by ridgeway broker-config emqx.\n");
    // A command that stays would be carried out again by whoever connects later.
    let requests = format!("{}/+/commands/request", plan.config.root);
    let _ = writeln!(acl, "{{deny, all, {{publish, [{{retain, true}}]}}, [\"{requests}\"]}}.");
    for account in &plan.accounts {
        grants(&mut acl, plan, account);
    }
    acl.push_str("{deny, all}.\n");
    acl
}

fn grants(acl: &mut String, plan: &Plan<'_>, account: &Account<'_>) {
    let name = &account.user.name;
    for filter in &account.subscribe {
        let Some(parent) = filter.strip_suffix('+') else { continue };
        let wider = format!("{parent}#");
        if !account.user.role.may_subscribe(&plan.config.root, &wider) {
            let _ = writeln!(
                acl,
                "{{deny, {{username, \"{name}\"}}, subscribe, [{{eq, \"{wider}\"}}]}}."
            );
        }
    }
    for (access, filters) in [("publish", &account.publish), ("subscribe", &account.subscribe)] {
        if !filters.is_empty() {
            let list: Vec<_> = filters.iter().map(|filter| format!("{filter:?}")).collect();
            let list = list.join(", ");
            let _ = writeln!(acl, "{{allow, {{username, \"{name}\"}}, {access}, [{list}]}}.");
        }
    }
}

fn users(plan: &mut Plan<'_>) -> Result<String, ExternalError> {
    let mut file = String::from("user_id,password_hash,salt,is_superuser\n");
    for user in &plan.config.users {
        let set_it = format!("in the dashboard, Access Control, Authentication, add {}", user.name);
        if let Some(password) = plan.password(user, &set_it) {
            let (hash, salt) = hash::emqx(password.expose())?;
            let _ = writeln!(file, "{},{hash},{salt},false", user.name);
        }
    }
    Ok(file)
}
