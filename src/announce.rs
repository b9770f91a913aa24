//! Where everything is, and with which credentials: the line that `--json` prints, kept in the
//! demo's data directory (mode 0600) while it runs, so that the other commands find it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::secret::write_private;

/// The file's name in the data directory.
const FILE: &str = "running.json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<GatewaySide>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) edge: Option<Login>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cloud: Option<CloudSide>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewaySide {
    pub(crate) id: String,
    /// `host:port`
    pub(crate) http: String,
    /// `host:port`
    pub(crate) mqtt: String,
    pub(crate) api_key: String,
    /// Null where the readers are real.
    pub(crate) simulator_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Login {
    pub(crate) mqtt_user: String,
    pub(crate) mqtt_password: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CloudSide {
    /// `host:port`
    pub(crate) http: String,
    /// `host:port`
    pub(crate) mqtt: String,
    pub(crate) api_key: String,
    #[serde(flatten)]
    pub(crate) login: Login,
}

impl Announcement {
    /// The line that `--json` prints first.
    pub(crate) fn json_line(&self) -> anyhow::Result<String> {
        serde_json::to_string(self).context("can't encode the addresses")
    }

    /// Leaves it in `data_dir` for the other commands.
    pub(crate) fn leave_in(&self, data_dir: &Path) -> anyhow::Result<LeftBehind> {
        let path = data_dir.join(FILE);
        write_private(&path, self.json_line()?.as_bytes(), false)
            .with_context(|| format!("can't write {}", path.display()))?;
        Ok(LeftBehind { path })
    }

    /// What a running demo left in `data_dir`.
    pub(crate) fn find_in(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "no demo seems to run on {} (there is no {}); start one with `ridgeway demo`, or \
                 name its directory with --data-dir",
                data_dir.display(),
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("can't read {}", path.display()))
    }
}

/// Removes the file when the demo ends.
pub(crate) struct LeftBehind {
    path: PathBuf,
}

impl Drop for LeftBehind {
    fn drop(&mut self) {
        // At worst a later command says that it can't connect.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_documented_one() {
        let login = || Login { mqtt_user: "u".into(), mqtt_password: "p".into() };
        let all = Announcement {
            gateway: Some(GatewaySide {
                id: "demo".into(),
                http: "127.0.0.1:1".into(),
                mqtt: "127.0.0.1:2".into(),
                api_key: "ak".into(),
                simulator_dir: Some("/d".into()),
            }),
            edge: Some(login()),
            cloud: Some(CloudSide {
                http: "127.0.0.1:3".into(),
                mqtt: "127.0.0.1:4".into(),
                api_key: "ck".into(),
                login: login(),
            }),
        };
        assert_eq!(
            serde_json::to_value(&all).unwrap(),
            serde_json::json!({
                "gateway": {"id": "demo", "http": "127.0.0.1:1", "mqtt": "127.0.0.1:2",
                    "apiKey": "ak", "simulatorDir": "/d"},
                "edge": {"mqttUser": "u", "mqttPassword": "p"},
                "cloud": {"http": "127.0.0.1:3", "mqtt": "127.0.0.1:4", "apiKey": "ck",
                    "mqttUser": "u", "mqttPassword": "p"},
            })
        );
    }

    #[test]
    fn it_is_there_while_it_runs_and_gone_after() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let left = Announcement::default().leave_in(dir.path()).unwrap();
        assert_eq!(Announcement::find_in(dir.path()).unwrap(), Announcement::default());
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(left);
        let error = Announcement::find_in(dir.path()).unwrap_err().to_string();
        assert!(error.contains("ridgeway demo"), "{error}");
    }
}
