//! `ridgeway watch`: follows a gateway's events on its broker.

use std::io::Write as _;

use topics::{Event, topic::Filter};

use crate::{
    announce::{Announcement, Login},
    cli::{UsageError, WatchArgs},
    feed,
    mqtt::Subscription,
};

pub(crate) async fn run(args: WatchArgs) -> anyhow::Result<()> {
    let (address, login) = broker(&args)?;
    let filters = [Filter::ReaderEvents(None), Filter::GatewayEvents(None)];
    let mut events = Subscription::open(&address, &login, &args.root, &filters).await?;
    if !args.json {
        eprintln!("Following {address}; Ctrl-C ends it.");
    }
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let payload = tokio::select! {
            payload = events.next() => payload?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        if print(&payload, args.json)? {
            left -= 1;
        }
    }
    Ok(())
}

fn broker(args: &WatchArgs) -> anyhow::Result<(String, Login)> {
    if let (Some(address), Some(user)) = (&args.mqtt, &args.user) {
        let password = std::env::var("RIDGEWAY_MQTT_PASSWORD").map_err(|_| {
            UsageError(format!("set RIDGEWAY_MQTT_PASSWORD to the password of {user}"))
        })?;
        return Ok((address.clone(), Login { mqtt_user: user.clone(), mqtt_password: password }));
    }
    let running = Announcement::find_in(&args.data_dir)?;
    match (running.gateway, running.edge) {
        (Some(gateway), Some(edge)) => Ok((gateway.mqtt, edge)),
        _ => Err(UsageError("no gateway runs there".to_owned()).into()),
    }
}

/// Prints an event; false for what is not one.
fn print(payload: &[u8], json: bool) -> anyhow::Result<bool> {
    let Ok(event) = serde_json::from_slice::<Event>(payload) else {
        tracing::warn!(bytes = payload.len(), "passed over a message that is not an event");
        return Ok(false);
    };
    let mut out = std::io::stdout().lock();
    if json {
        out.write_all(payload)?;
    } else {
        out.write_all(feed::line(&event).as_bytes())?;
    }
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(true)
}
