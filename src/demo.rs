//! `ridgeway demo`: everything on one machine, with two simulated readers.
//!
//! It runs the same gateway and the same bridge as `ridgeway gateway` and `ridgeway bridge` do, each
//! with its own data directory, broker and API, and configured the same way; only the readers'
//! library is another one.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use cloud_bridge::Bridge;
use gateway::Gateway;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::{announce::Announcement, cli::DemoArgs, feed, run, secret};

/// The demo's gateway.
const GATEWAY: &str = "demo";
/// The two readers that are plugged in at the first start.
const READERS: [&str; 2] = ["SIM-0001", "SIM-0002"];

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("can't make the data directory {}", args.data_dir.display()))?;
    let data_dir = args.data_dir.canonicalize()?;
    let _lock = lock(&data_dir)?;
    prepare(&data_dir)?;
    let stop = run::stop_signal()?;
    if !args.json {
        eprintln!("Starting a gateway with two simulated readers, and a cloud bridge…");
    }

    let bridge = Bridge::start(bridge_config(&args, &data_dir)?).await.map_err(naming_flags)?;
    bridge.ready().await;
    let gateway =
        Gateway::start(gateway_config(&args, &data_dir, &bridge)?).await.map_err(naming_flags)?;
    let events = gateway.events();
    let outcome = tokio::select! {
        outcome = follow(&args, &data_dir, &gateway, &bridge, events) => outcome,
        () = stop => Ok(()),
        () = gateway.failed() => Err(anyhow!("the site's MQTT broker failed again and again")),
        () = bridge.failed() => Err(anyhow!("the cloud's MQTT broker failed again and again")),
    };
    if !args.json {
        eprintln!("\nStopping…");
    }
    gateway.stop(run::GRACE).await;
    bridge.stop(run::GRACE).await;
    outcome
}

async fn follow(
    args: &DemoArgs,
    data_dir: &Path,
    gateway: &Gateway,
    bridge: &Bridge,
    mut events: tokio::sync::broadcast::Receiver<std::sync::Arc<gateway::journal::Committed>>,
) -> anyhow::Result<()> {
    gateway.ready().await;
    let (side, login) = run::gateway_side(gateway);
    let all = Announcement {
        gateway: Some(side),
        edge: Some(login),
        cloud: Some(run::cloud_side(bridge)),
    };
    let _left = all.leave_in(data_dir)?;
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", all.json_line()?)?;
    } else {
        write!(out, "{}", banner(&all, &args.data_dir)?)?;
    }
    out.flush()?;
    loop {
        match events.recv().await {
            Ok(committed) if args.json => {
                out.write_all(committed.record.json())?;
                out.write_all(b"\n")?;
            }
            Ok(committed) => writeln!(out, "{}", feed::line(&committed.record.event()?))?,
            Err(RecvError::Lagged(missed)) => {
                eprintln!("ridgeway: {missed} events are not shown: this terminal is too slow");
            }
            Err(RecvError::Closed) => bail!("the gateway ended by itself"),
        }
        out.flush()?;
    }
}

/// Held while the demo runs, so that a second one can't take the same data.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("demo.lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("can't open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            bail!(
                "another demo (process {pid}) already runs on {}; end it, or choose another \
                 directory with --data-dir",
                data_dir.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("can't lock {}", path.display()))
        }
    }
}

/// Makes what the first start needs: the readers' folders and the link's secret.
fn prepare(data_dir: &Path) -> anyhow::Result<()> {
    let simulator = simulator_dir(data_dir);
    if !simulator.exists() {
        for serial in READERS {
            let reader = simulator.join(serial);
            std::fs::create_dir_all(&reader)
                .and_then(|()| std::fs::write(reader.join("model"), "ZKTeco SLK20R (simulated)\n"))
                .and_then(|()| std::fs::write(reader.join("firmware"), "1.0.0\n"))
                .with_context(|| format!("can't make {}", reader.display()))?;
        }
    }
    let secret = secret_file(data_dir);
    if !secret.exists() {
        secret::create(&secret)?;
    }
    Ok(())
}

fn simulator_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("simulator")
}

fn secret_file(data_dir: &Path) -> PathBuf {
    data_dir.join("link-secret")
}

fn gateway_config(
    args: &DemoArgs,
    data_dir: &Path,
    bridge: &Bridge,
) -> anyhow::Result<gateway::Config> {
    let config = json!({
        "gateway": {
            "id": GATEWAY, "name": "Demo", "data_dir": path(&data_dir.join("gateway"))?
        },
        "api": { "listen": args.gateway_http },
        "readers": {
            "simulator_dir": path(&simulator_dir(data_dir))?, "idle_mode": "identify"
        },
        "mqtt": { "listen": args.edge_mqtt },
        "uplink": {
            "url": format!("mqtt://{}", bridge.mqtt_addr()),
            "secret_file": path(&secret_file(data_dir))?
        },
    });
    serde_json::from_value(config).context("the demo's own gateway configuration is wrong")
}

fn bridge_config(args: &DemoArgs, data_dir: &Path) -> anyhow::Result<cloud_bridge::Config> {
    let config = json!({
        "bridge": { "data_dir": path(&data_dir.join("bridge"))? },
        "api": { "listen": args.cloud_http },
        "mqtt": { "listen": args.cloud_mqtt },
        "gateways": [{ "id": GATEWAY, "secret_file": path(&secret_file(data_dir))? }],
    });
    serde_json::from_value(config).context("the demo's own bridge configuration is wrong")
}

fn path(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

/// Start errors name configuration keys; here they are flags.
fn naming_flags(error: impl std::error::Error) -> anyhow::Error {
    anyhow!(
        "{}\n(the demo's flags for its addresses: --gateway-http, --edge-mqtt, --cloud-http, \
         --cloud-mqtt; port 0 takes any free one)",
        run::explain(&error)
    )
}

fn banner(all: &Announcement, data_dir: &Path) -> anyhow::Result<String> {
    let (Some(gateway), Some(edge), Some(cloud)) = (&all.gateway, &all.edge, &all.cloud) else {
        bail!("the demo has a gateway and a bridge");
    };
    let ridgeway = own_name();
    let data = match data_dir.to_str() {
        Some("ridgeway-data") | None => String::new(),
        Some(dir) => format!(" --data-dir {dir}"),
    };
    let (host, port) = gateway.mqtt.rsplit_once(':').unwrap_or((&gateway.mqtt, "1883"));
    Ok(format!(
        "
  Gateway API   {http:<28} key {key}
  Edge MQTT     {mqtt:<28} {user} / {password}
  Bridge        {chttp:<28} key {ckey}
  Cloud MQTT    {cmqtt:<28} {cuser} / {cpassword}
  Data          {dir}

Try, in a second terminal:

  1. Follow the events as an IoT platform would:
     mosquitto_sub -h {host} -p {port} -u {user} -P '{password}' -t 'ridgeway/v1/#' -v

  2. Press a finger on a reader; nobody knows it yet:
     {ridgeway} finger press user-001/right-index --reader device-001{data}

  3. Open {chttp} with the bridge's API key, click Enrol for user-001, and press it
     three times; then press it once more:
     {ridgeway} finger press user-001/right-index --reader device-001 --times 3{data}

Events (Ctrl-C ends the demo; its data stays in {dir}):
",
        http = format!("http://{}/", gateway.http),
        key = gateway.api_key,
        mqtt = gateway.mqtt,
        user = edge.mqtt_user,
        password = edge.mqtt_password,
        chttp = format!("http://{}/", cloud.http),
        ckey = cloud.api_key,
        cmqtt = cloud.mqtt,
        cuser = cloud.login.mqtt_user,
        cpassword = cloud.login.mqtt_password,
        dir = data_dir.display(),
    ))
}

/// How to call this program again from this directory.
fn own_name() -> String {
    let Ok(exe) = std::env::current_exe() else { return "ridgeway".to_owned() };
    let on_path = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| Some(dir.as_path()) == exe.parent())
    });
    if on_path {
        return "ridgeway".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    exe.strip_prefix(&here).unwrap_or(&exe).display().to_string()
}
