//! What stops a bare rumqttd, over and over.
//!
//! | scenario | one attack |
//! |---|---|
//! | K1 | a topic, or a will's, that starts beyond ASCII |
//! | K2 | a QoS 0 subscriber with a backlog says goodbye |
//! | K3 | the last member of a `$share` group leaves with an unacknowledged message, its session kept |
//! | K4 | two CONNECTs with a client id that holds `/ + # $` |
//! | K5 | all places taken, more clients turned away again and again, the places given back |
//! | K6 | silent peers on every listener, some in the middle of a handshake |
//! | K7 | MQTT 5 properties, to 3.1.1 subscribers |
//! | K8 | packets that only a server sends |
//! | K9 | a reset while connecting |
//!
//! Attackers come from addresses of their own, 127.0.0.2 and up, and are users of their own, as strangers
//! would; K7 alone reaches the well-behaved subscribers, since that is its point.

use std::{collections::VecDeque, io, str::FromStr, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    client::{Client, dial},
    packets::{self, BOTH, Connect, DISCONNECT, Publish, Version},
    random::Random,
    subject::{Addresses, FEW},
};

/// Attackers at the same time.
pub(crate) const ATTACKERS: usize = 4;
/// Silent peers that one attacker holds.
const SILENT: usize = 60;
/// How long K5 holds all places.
const K5_HOLD: Duration = Duration::from_millis(150);
/// For an answer that an attacker wants to see before it goes on.
const SHORT: Duration = Duration::from_millis(500);

const FLOOD: &str = "ridgeway/v1/hq/attack/flood";
const SHARED: &str = "ridgeway/v1/hq/attack/shared";

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scenario {
    /// No attack, to compare with.
    Calm,
    K1,
    K2,
    K3,
    K4,
    K5,
    K6,
    K7,
    K8,
    K9,
    /// K1 to K9 at the same time.
    Together,
}

use Scenario::{Calm, K1, K2, K3, K4, K5, K6, K7, K8, K9, Together};

/// Each alone.
pub(crate) const ALONE: [Scenario; 9] = [K1, K2, K3, K4, K5, K6, K7, K8, K9];
/// All that a proof runs.
pub(crate) const ALL: [Scenario; 10] = [K1, K2, K3, K4, K5, K6, K7, K8, K9, Together];

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Calm => "calm",
            K1 => "k1",
            K2 => "k2",
            K3 => "k3",
            K4 => "k4",
            K5 => "k5",
            K6 => "k6",
            K7 => "k7",
            K8 => "k8",
            K9 => "k9",
            Together => "together",
        }
    }

    /// Attacks a second, of all attackers, at most.
    pub(crate) fn pace(self) -> u32 {
        match self {
            Calm => 1,
            // Each is hundreds of messages, or dozens of connections.
            K2 => 20,
            K5 => 4,
            // Each stays until the broker's time-out.
            K6 => 40,
            K1 | K3 | K4 | K7 | K8 | K9 => 200,
            Together => 100,
        }
    }

    /// How many attack at the same time. K5 takes all places by itself.
    pub(crate) fn attackers(self) -> usize {
        match self {
            Calm => 0,
            K5 => 1,
            K1 | K2 | K3 | K4 | K6 | K7 | K8 | K9 | Together => ATTACKERS,
        }
    }

    /// Refusals that our broker must have counted, or the attack wasn't one.
    pub(crate) fn refusals(self) -> &'static [&'static str] {
        match self {
            Calm | K2 | K7 | K9 => &[],
            K1 => &["topic_name", "will"],
            K3 => &["shared_subscription"],
            K4 => &["client_id"],
            K5 => &["too_many_connections"],
            K6 => &["slow_connect"],
            K8 => &["protocol"],
            Together => &["topic_name", "will", "shared_subscription", "client_id", "protocol"],
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ALL.into_iter()
            .chain([Calm])
            .find(|scenario| scenario.name() == text)
            .ok_or_else(|| format!("{text:?} is none of k1 to k9, together, calm"))
    }
}

/// One attacker.
pub(crate) struct Attacker {
    at: Addresses,
    who: usize,
    random: Random,
    silent: VecDeque<TcpStream>,
    round: usize,
}

impl Attacker {
    pub(crate) fn new(at: Addresses, who: usize, random: Random) -> Self {
        Self { at, who, random, silent: VecDeque::new(), round: 0 }
    }

    /// One attack. An error says that the broker ended it, as it should, or couldn't be reached.
    pub(crate) async fn attack(&mut self, scenario: Scenario) -> io::Result<()> {
        self.round += 1;
        let version = BOTH[self.round % 2];
        match scenario {
            Calm => Ok(()),
            K1 => self.k1(version).await,
            K2 => self.k2(version).await,
            K3 => self.k3(version).await,
            K4 => self.k4(version).await,
            K5 => self.k5().await,
            K6 => self.k6().await,
            K7 => self.k7().await,
            K8 => self.k8(version).await,
            K9 => self.k9(version).await,
            Together => {
                // K5 and K2 are heavy: now and then.
                let one = match self.random.below(40) {
                    0 if self.who == 0 => K5,
                    0..4 => K2,
                    _ => self.random.pick(&[K1, K3, K4, K6, K7, K8, K9]),
                };
                Box::pin(self.attack(one)).await
            }
        }
    }

    /// The address it comes from ends in this.
    fn from(&self) -> u8 {
        self.who as u8 + 2
    }

    fn hello(&self, version: Version, user: &str, what: &str) -> Connect {
        Connect::new(version, user, format!("{what}-{}", self.who))
    }

    async fn client(&self, version: Version, user: &str, what: &str) -> io::Result<Client> {
        let connect = self.hello(version, user, what);
        Client::connect(self.at.of(version), self.from(), &connect).await
    }

    async fn k1(&mut self, version: Version) -> io::Result<()> {
        let topic = self.random.pick(&["é", "\u{1F525}/x", "ü/v1", "ß"]);
        if self.random.below(2) == 0 {
            let mut connect = self.hello(version, "rogue", "k1-will");
            connect.will = Some((topic.into(), b"x".to_vec()));
            let stream = dial(self.at.of(version), self.from()).await?;
            let mut client = Client::over(stream, version);
            // Where the will is taken, it is published now.
            client.hello_code(&connect).await?;
            client.stream.set_zero_linger()
        } else {
            let mut client = self.client(version, "rogue", "k1").await?;
            let mut publish = Publish::new(version, topic, 1, b"x");
            publish.retain = true;
            client.send(&publish.bytes()).await?;
            let _ = timeout(SHORT, client.rest()).await;
            Ok(())
        }
    }

    async fn k2(&mut self, version: Version) -> io::Result<()> {
        let mut slow = self.client(version, "intruder", "k2-slow").await?;
        slow.subscribe(FLOOD, 0).await?;
        let mut flood = self.client(Version::V311, "rogue", "k2-flood").await?;
        let bytes = Publish::new(Version::V311, FLOOD, 0, &[7; 100]).bytes().repeat(500);
        let read_first = self.random.below(200);
        let goodbye = async {
            for _ in 0..read_first {
                slow.expect(packets::PUBLISH).await?;
            }
            slow.send(&DISCONNECT).await?;
            let _ = timeout(SHORT, slow.rest()).await;
            io::Result::Ok(())
        };
        let (sent, said) = tokio::join!(flood.send(&bytes), goodbye);
        sent?;
        said?;
        flood.send(&DISCONNECT).await
    }

    async fn k3(&mut self, version: Version) -> io::Result<()> {
        // rumqttd dies of those whose session is kept.
        let mut connect = self.hello(version, "intruder", "k3");
        connect.clean = self.random.below(4) == 0;
        let mut member = Client::connect(self.at.of(version), self.from(), &connect).await?;
        let filters = [&*format!("$share/g{}/{SHARED}", self.who), SHARED];
        member.send(&packets::subscribe(version, 1, &filters, 1)).await?;
        member.expect(packets::SUBACK).await?;
        let mut rogue = self.client(version, "rogue", "k3-rogue").await?;
        rogue.send(&Publish::new(version, SHARED, 1, b"x").bytes()).await?;
        rogue.expect(packets::PUBACK).await?;
        member.expect(packets::PUBLISH).await?;
        match self.random.below(3) {
            0 => member.send(&DISCONNECT).await,
            1 => member.stream.set_zero_linger(),
            _ => Ok(()),
        }
    }

    async fn k4(&mut self, version: Version) -> io::Result<()> {
        let id = self.random.pick(&["a/b", "a+b", "a#", "$a", "/", "+/#"]);
        for _ in 0..2 {
            let stream = dial(self.at.of(version), self.from()).await?;
            let mut client = Client::over(stream, version);
            let _ = client.hello_code(&Connect::new(version, "intruder", id)).await;
        }
        Ok(())
    }

    async fn k5(&mut self) -> io::Result<()> {
        let mut crowd = Vec::new();
        let mut turned_away = 0;
        for n in 0..FEW * 2 {
            let version = BOTH[n % 2];
            let stream = dial(self.at.of(version), self.from()).await?;
            let mut client = Client::over(stream, version);
            // The same one tries again and again once it was turned away.
            let connect = Connect::new(version, "intruder", format!("k5-{}", n - turned_away));
            match timeout(SHORT, client.hello(&connect)).await {
                Ok(Ok(())) => crowd.push(client),
                Ok(Err(_)) | Err(_) => turned_away += 1,
            }
        }
        sleep(K5_HOLD).await;
        drop(crowd);
        Ok(())
    }

    async fn k6(&mut self) -> io::Result<()> {
        let plain = self.at.of(BOTH[self.round % 2]);
        let hello = self.hello(Version::V5, "intruder", "k6").bytes();
        let (to, start): (_, &[u8]) = match (&self.at.others, self.random.below(6)) {
            (Some(others), 0) => (others.tls, &[]),
            (Some(others), 1) => (others.tls, b"\x16\x03\x01\x02\x00\x01\x00"),
            (Some(others), 2) => (others.websocket, &[]),
            (Some(others), 3) => (others.websocket, b"GET /mqtt HTTP/1.1\r\nHost: x\r\n"),
            (_, 4) => (plain, &hello[..20]),
            (_, _) => (plain, &[]),
        };
        let mut stream = dial(to, self.from()).await?;
        stream.write_all(start).await?;
        self.silent.push_back(stream);
        if self.silent.len() > SILENT {
            self.silent.pop_front();
        }
        Ok(())
    }

    async fn k7(&mut self) -> io::Result<()> {
        const TOPIC: &str = "ridgeway/v1/hq/readers/attack/events/scan/complete";
        let properties = self.random.pick(&[
            b"\x01\x01".as_slice(),
            b"\x02\x00\x00\x00\x3C",
            b"\x03\x00\x01j",
            b"\x08\x00\x01r",
            b"\x09\x00\x01c",
            b"\x23\x00\x01",
            b"\x26\x00\x01k\x00\x01v",
            b"\x01\x01\x02\x00\x00\x00\x3C\x03\x00\x01j\x26\x00\x01k\x00\x01v",
        ]);
        let mut client = self.client(Version::V5, "rogue", "k7").await?;
        let mut publish = Publish::new(Version::V5, TOPIC, 1, b"properties");
        publish.properties = properties;
        client.send(&publish.bytes()).await?;
        client.expect(packets::PUBACK).await?;
        client.send(&DISCONNECT).await
    }

    async fn k8(&mut self, version: Version) -> io::Result<()> {
        let bytes = self.random.pick(&[
            [0x20u8, 3, 0, 0, 0].as_slice(),
            &[0x90, 4, 0, 1, 0, 1],
            &[0xB0, 4, 0, 1, 0, 0],
            &[0xB0, 2, 0, 1],
            &[0xD0, 0],
            &[0xF0, 2, 0, 0],
            &[0xF0, 0],
            &[0x00, 0],
        ]);
        let user = self.random.pick(&["rogue", "intruder"]);
        let mut client = self.client(version, user, "k8").await?;
        client.send(bytes).await?;
        let _ = timeout(SHORT, client.rest()).await;
        Ok(())
    }

    async fn k9(&mut self, version: Version) -> io::Result<()> {
        let to = match (&self.at.others, self.random.below(4)) {
            (Some(others), 0) => others.tls,
            (Some(others), 1) => others.websocket,
            _ => self.at.of(version),
        };
        let mut stream = dial(to, self.from()).await?;
        stream.set_zero_linger()?;
        let hello = self.hello(version, "intruder", "k9").bytes();
        let end = match self.random.below(3) {
            0 => self.random.below(hello.len() as u64) as usize,
            _ => hello.len(),
        };
        stream.write_all(&hello[..end]).await?;
        // Somewhere between the CONNECT's arrival and the CONNACK's.
        let wait = Duration::from_micros(self.random.below(2_000));
        if self.random.below(2) == 0 {
            sleep(wait).await;
        }
        Ok(())
    }
}
