//! Mosquitto's own clients and broker, as processes.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use serde_json::Value;

use super::PATIENCE;

/// Which MQTT a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

impl Version {
    fn flag(self) -> &'static str {
        match self {
            Version::V311 => "mqttv311",
            Version::V5 => "mqttv5",
        }
    }
}

/// Where a broker is, and who we are there.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) address: String,
    pub(crate) user: String,
    pub(crate) password: String,
    /// More arguments for the clients, such as `--cafile`.
    pub(crate) extra: Vec<String>,
}

impl Broker {
    fn client(&self, program: &str, version: Version) -> Command {
        let (host, port) = self.address.rsplit_once(':').unwrap();
        // Line by line, also into a pipe.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-h", host, "-p", port, "-V", version.flag()]);
        if !self.user.is_empty() {
            command.args(["-u", &self.user, "-P", &self.password]);
        }
        command.args(&self.extra);
        command
    }

    /// Starts `mosquitto_sub` and waits until it is subscribed.
    pub(crate) fn subscribe(&self, filter: &str, version: Version) -> Subscriber {
        let mut command = self.client("mosquitto_sub", version);
        command.args(["-q", "1", "-t", filter, "-F", "%r %t %p", "-d"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub is installed (test.sh does it)");
        let out = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let subscriber = Subscriber { child, lines };
        subscriber.wait_for_line(|line| line.contains("SUBACK").then_some(()));
        subscriber
    }

    /// The first message on a topic; none if the broker lets the client not in, or not subscribe.
    pub(crate) fn subscribe_once(&self, topic: &str) -> Option<Message> {
        let mut command = self.client("mosquitto_sub", Version::V5);
        command.args(["-q", "1", "-t", topic, "-F", "%r %t %p", "-C", "1", "-W", "10"]);
        let output = command.output().expect("mosquitto_sub is installed (test.sh does it)");
        String::from_utf8_lossy(&output.stdout).lines().find_map(parse)
    }

    /// Publishes with `mosquitto_pub`; whether it was accepted.
    pub(crate) fn publish(&self, topic: &str, payload: &str, version: Version) -> bool {
        let mut command = self.client("mosquitto_pub", version);
        command.args(["-q", "1", "-t", topic, "-m", payload]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("mosquitto_pub is installed (test.sh does it)").success()
    }
}

/// A message as a subscriber saw it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) retained: bool,
    pub(crate) payload: String,
}

impl Message {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// A running `mosquitto_sub`.
pub(crate) struct Subscriber {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Subscriber {
    /// Waits for the next message that `wanted` takes; others are passed over.
    #[track_caller]
    pub(crate) fn wait_for(&self, mut wanted: impl FnMut(&Message) -> bool) -> Message {
        self.wait_for_line(|line| parse(line).filter(|message| wanted(message)))
    }

    /// What has arrived until now and was not yet taken.
    pub(crate) fn drain(&self) -> Vec<Message> {
        self.lines.try_iter().filter_map(|line| parse(&line)).collect()
    }

    #[track_caller]
    fn wait_for_line<T>(&self, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let line = self.lines.recv_timeout(left).expect("the message arrives in time");
            if let Some(found) = wanted(&line) {
                return found;
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `0 ridgeway/v1/… {…}`; lines of `-d` are something else.
fn parse(line: &str) -> Option<Message> {
    let mut parts = line.splitn(3, ' ');
    let (retained, topic, payload) = (parts.next()?, parts.next()?, parts.next()?);
    let retained = match retained {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    Some(Message { topic: topic.to_owned(), retained, payload: payload.to_owned() })
}
