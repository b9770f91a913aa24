//! A live broker to feed with what nobody should send, and a pair of witnesses who must not notice.
//!
//! The broker starts once in the process and is replaced by a fresh one now and then, since it keeps what
//! some users send by design. After each input: the inner broker was never replaced. After every
//! [`WITNESS_EVERY`]th: a message goes from one witness to the other in time. A panic anywhere but in
//! rumqttd's codecs, which the guard contains, ends the process.

use std::{
    backtrace::Backtrace,
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use broker_config::{Broker, BrokerConfig, User};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use topics::Role;

pub mod orders;
#[path = "../../examples/proof/packets.rs"]
#[allow(dead_code, unreachable_pub)]
pub(crate) mod packets;

use packets::{Connect, Publish, Version};

/// What the broker may take for anything: its own longest time-outs, and some more.
const PATIENCE: Duration = Duration::from_secs(20);
/// Worth a word when a connection takes so long to end.
const SLOW: Duration = Duration::from_millis(700);
const WITNESS_EVERY: u64 = 16;
/// Inputs for one broker.
const LIFETIME: u64 = 20_000;
/// Who the fuzzed clients are; the password of `x` is `x-password`.
pub const USERS: [&str; 6] = ["edge", "platform", "bridge", "cloud", "panel", "viewer"];

const WITNESS_TOPIC: &str = "ridgeway/v1/hq/readers/witness/events/scan/complete";

static LIVE: Mutex<Option<Live>> = Mutex::new(None);

struct Live {
    runtime: Runtime,
    broker: Broker,
    witness: Witness,
    inputs: u64,
    recent: VecDeque<Vec<u8>>,
    slowest: Duration,
}

/// Does one input's deeds, given the broker's address, and checks that the broker has borne them.
pub fn bear(input: &[u8], deeds: impl FnOnce(SocketAddr)) {
    let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    if live.as_ref().is_some_and(|live| live.inputs >= LIFETIME)
        && let Some(old) = live.take()
    {
        old.end();
    }
    let live = live.get_or_insert_with(Live::start);
    live.inputs += 1;
    live.recent.push_back(input.to_vec());
    if live.recent.len() > 2 * WITNESS_EVERY as usize {
        live.recent.pop_front();
    }
    let began = Instant::now();
    deeds(live.broker.local_addr());
    let took = began.elapsed();
    if took > SLOW.max(live.slowest) {
        live.slowest = took;
        eprintln!("slow: {took:?} for {}", hex(input));
    }
    let rebuilds = live.broker.stats().rebuilds;
    let witnessed = match live.inputs.is_multiple_of(WITNESS_EVERY) {
        true => live.witness.exchange(),
        false => Ok(()),
    };
    if rebuilds > 0 || witnessed.is_err() {
        for (at, recent) in live.recent.iter().enumerate() {
            eprintln!("recent {at}: {}", hex(recent));
        }
        panic!("rebuilds: {rebuilds}, witnesses: {witnessed:?}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Live {
    fn start() -> Self {
        watch_panics();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        {
            // A program with a `main` of Rust's ignores it; this one is libFuzzer's, and would end.
            let _entered = runtime.enter();
            drop(signal(SignalKind::pipe()).expect("a handler for SIGPIPE"));
        }
        let mut config = BrokerConfig::new("fuzzed", (Ipv4Addr::LOCALHOST, 0).into());
        let hq: topics::GatewayId = "hq".parse().expect("an id");
        let roles = [
            Role::EdgeGateway(hq.clone()),
            Role::Platform,
            Role::Bridge,
            Role::CloudGateway(hq.clone()),
            Role::Panel(hq.clone()),
            Role::Viewer,
        ];
        let fuzzed = USERS.into_iter().zip(roles);
        let witnesses = [("w-edge", Role::EdgeGateway(hq)), ("w-platform", Role::Platform)];
        config.users = fuzzed
            .chain(witnesses)
            .map(|(name, role)| User::new(name, format!("{name}-password"), role))
            .collect();
        let broker = runtime.block_on(Broker::start(config)).expect("a broker");
        let witness = Witness::start(broker.local_addr()).expect("witnesses");
        let (recent, slowest) = (VecDeque::new(), Duration::ZERO);
        Self { runtime, broker, witness, inputs: 0, recent, slowest }
    }

    fn end(self) {
        self.runtime.block_on(self.broker.shutdown());
        self.runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

/// In place of libFuzzer's hook, which takes a contained panic for a crash.
fn watch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let trace = Backtrace::force_capture().to_string();
        let contained = ["broker_config::wire::decode", "broker_config::wire::encode"]
            .map(|f| trace.contains(f));
        if contained != [false, false] {
            return;
        }
        eprintln!("{panic}\n{trace}");
        std::process::abort();
    }));
}

/// A publisher of 3.1.1 and a subscriber of 5.
struct Witness {
    publisher: Peer,
    subscriber: Peer,
    number: u64,
}

impl Witness {
    fn start(broker: SocketAddr) -> io::Result<Self> {
        let mut publisher = Peer::dial(broker, Version::V311);
        publisher.hello(&Connect::new(Version::V311, "w-edge", "w"))?;
        let mut subscriber = Peer::dial(broker, Version::V5);
        subscriber.hello(&Connect::new(Version::V5, "w-platform", "w"))?;
        subscriber.say(&packets::subscribe(Version::V5, 1, &[WITNESS_TOPIC], 1))?;
        subscriber.expect(|first, _| first >> 4 == packets::SUBACK)?;
        Ok(Self { publisher, subscriber, number: 0 })
    }

    fn exchange(&mut self) -> io::Result<()> {
        self.number += 1;
        let payload = format!("witness {}", self.number).into_bytes();
        let publish = Publish::new(Version::V311, WITNESS_TOPIC, 1, &payload);
        self.publisher.say(&publish.bytes())?;
        self.publisher.expect(|first, _| first >> 4 == packets::PUBACK)?;
        // Others may publish there too.
        loop {
            let (first, body) =
                self.subscriber.expect(|first, _| first >> 4 == packets::PUBLISH)?;
            let (_, id, got) = packets::read_publish(Version::V5, first, &body)
                .ok_or(io::ErrorKind::InvalidData)?;
            let is_ours = got == payload;
            if id > 0 {
                self.subscriber.say(&packets::ack(0x40, id))?;
            }
            if is_ours {
                return Ok(());
            }
        }
    }
}

/// A client whose calls block.
pub(crate) struct Peer {
    stream: TcpStream,
    version: Version,
    buffer: Vec<u8>,
}

impl Peer {
    /// From an address of 127.0.0.0/8 that wasn't used just now: ports of closed connections rest for a
    /// minute.
    /// A connection; there must be one to be had.
    pub(crate) fn dial(broker: SocketAddr, version: Version) -> Self {
        loop {
            match Self::try_dial(broker, version) {
                Ok(peer) => return peer,
                // libFuzzer's clock interrupts what takes long.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("nobody listens: {error}"),
            }
        }
    }

    fn try_dial(broker: SocketAddr, version: Version) -> io::Result<Self> {
        static NEXT: Mutex<u32> = Mutex::new(0);
        let n = {
            let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
            *next = (*next + 1) % 50_000;
            *next
        };
        let from = Ipv4Addr::new(127, 1, (n / 250) as u8, (n % 250) as u8 + 2);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SockAddr::from(SocketAddr::from((from, 0))))?;
        socket.connect(&SockAddr::from(broker))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, version, buffer: Vec::new() })
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn hello(&mut self, connect: &Connect) -> io::Result<()> {
        self.say(&connect.bytes())?;
        match self.expect(|first, _| first >> 4 == packets::CONNACK)?.1.get(1) {
            Some(0) => Ok(()),
            code => Err(io::Error::other(format!("CONNACK says {code:?}"))),
        }
    }

    /// Reads up to a packet like that.
    fn expect(&mut self, mut like: impl FnMut(u8, &[u8]) -> bool) -> io::Result<(u8, Vec<u8>)> {
        loop {
            while let Some((first, body)) = self.take() {
                if like(first, &body) {
                    return Ok((first, body));
                }
            }
            self.fill()?;
        }
    }

    /// The next packet, if it is there as a whole.
    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let (body, end) = packets::frame(&self.buffer)?;
        let packet = (self.buffer[0], self.buffer[body..end].to_vec());
        self.buffer.drain(..end);
        Some(packet)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 8_192];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.buffer.extend(&chunk[..read]);
                    return Ok(());
                }
                // libFuzzer's clock is a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says no more, and waits for the broker to end it: then it has read everything.
    pub(crate) fn end(mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        loop {
            match self.fill() {
                Ok(()) => self.buffer.clear(),
                Err(error) if is_time_out(&error) => {
                    panic!("the broker neither says anything nor ends the connection")
                }
                Err(_) => return,
            }
        }
    }
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Bytes as they are. The first says what comes before the others:
///
/// | bits | meaning |
/// |---|---|
/// | 0 | nothing comes before: they begin the connection |
/// | 1 | a good CONNECT of MQTT 5, else of 3.1.1 |
/// | 2 to 4 | of this user |
/// | 5 | whose session is kept |
/// | 6 | the rest comes with the CONNECT in one write, else after the CONNACK |
/// | 7 | in two writes |
pub fn bytes(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    bear(input, |broker| {
        let version = if how & 2 == 0 { Version::V311 } else { Version::V5 };
        let mut peer = Peer::dial(broker, version);
        let mut start = Vec::new();
        if how & 1 == 0 {
            let user = USERS[usize::from(how >> 2 & 7) % USERS.len()];
            let mut connect = Connect::new(version, user, "bytes");
            connect.clean = how & 0x20 == 0;
            if how & 0x40 == 0 {
                peer.hello(&connect).expect("a good CONNECT gets in");
            } else {
                start = connect.bytes();
            }
        }
        start.extend(rest);
        let (one, two) = start.split_at(if how & 0x80 == 0 { 0 } else { start.len() / 2 });
        // The broker may have heard enough before the end.
        if peer.say(one).and_then(|()| peer.say(two)).is_ok() {
            peer.end();
        }
    });
}
