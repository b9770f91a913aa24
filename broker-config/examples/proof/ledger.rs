//! What well-behaved clients sent and got, and whether that is all they should have got.
//!
//! A message must have been delivered to a subscriber when its PUBACK came while the subscriber was
//! there: from its SUBACK until it saw its connection end, or for ever if its session is kept.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// One publisher's message.
#[derive(Debug, Clone, Copy)]
struct Message {
    sent: Duration,
    acknowledged: Option<Duration>,
}

#[derive(Debug, Default)]
struct Subscriber {
    kept: bool,
    /// From SUBACK to the end.
    presences: Vec<(Duration, Option<Duration>)>,
    /// By publisher and number: when it came first.
    got: Vec<Vec<Option<Duration>>>,
    /// The newest number of each publisher.
    newest: Vec<Option<u64>>,
    repeated: u64,
    disordered: u64,
}

/// The whole record of a run.
#[derive(Debug)]
pub(crate) struct Ledger {
    began: Instant,
    publishers: Vec<Mutex<Vec<Message>>>,
    closed: AtomicBool,
    subscribers: Vec<Mutex<Subscriber>>,
    reconnects: Vec<Mutex<u32>>,
}

/// What the record says.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct Summary {
    pub(crate) sent: u64,
    pub(crate) unacknowledged: u64,
    /// Of these, what some subscriber got.
    pub(crate) unacknowledged_delivered: u64,
    pub(crate) owed: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) disordered: u64,
    /// Of the client that had most.
    pub(crate) reconnects: u32,
    /// From the first sending to the delivery.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

impl Ledger {
    /// For so many publishers, and subscribers whose sessions are kept or not.
    pub(crate) fn new(publishers: usize, kept: &[bool]) -> Self {
        let subscriber = |kept: &bool| {
            Mutex::new(Subscriber {
                kept: *kept,
                got: vec![Vec::new(); publishers],
                newest: vec![None; publishers],
                ..Subscriber::default()
            })
        };
        Self {
            began: Instant::now(),
            publishers: (0..publishers).map(|_| Mutex::default()).collect(),
            closed: AtomicBool::new(false),
            subscribers: kept.iter().map(subscriber).collect(),
            reconnects: (0..publishers + kept.len()).map(|_| Mutex::default()).collect(),
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// A publisher's next message is about to be sent; its number, or none once closed.
    pub(crate) fn send(&self, publisher: usize) -> Option<u64> {
        let mut messages = lock(&self.publishers[publisher]);
        if self.closed.load(Ordering::SeqCst) {
            return None;
        }
        messages.push(Message { sent: self.now(), acknowledged: None });
        Some(messages.len() as u64 - 1)
    }

    /// From now on nothing new is sent.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for publisher in &self.publishers {
            drop(lock(publisher));
        }
    }

    pub(crate) fn acknowledge(&self, publisher: usize, number: u64) {
        let now = self.now();
        if let Some(message) = lock(&self.publishers[publisher]).get_mut(number as usize) {
            message.acknowledged.get_or_insert(now);
        }
    }

    pub(crate) fn arrive(&self, subscriber: usize) {
        let now = self.now();
        lock(&self.subscribers[subscriber]).presences.push((now, None));
    }

    pub(crate) fn leave(&self, subscriber: usize) {
        let now = self.now();
        if let Some((_, end)) = lock(&self.subscribers[subscriber]).presences.last_mut() {
            end.get_or_insert(now);
        }
    }

    /// Client `at`: publishers first, then subscribers.
    pub(crate) fn reconnect(&self, at: usize) {
        *lock(&self.reconnects[at]) += 1;
    }

    pub(crate) fn receive(&self, subscriber: usize, publisher: usize, number: u64) {
        let now = self.now();
        let mut subscriber = lock(&self.subscribers[subscriber]);
        let Some(got) = subscriber.got.get_mut(publisher) else { return };
        let at = number as usize;
        if got.len() <= at {
            got.resize(at + 1, None);
        }
        let again = got[at].is_some();
        got[at].get_or_insert(now);
        let newest = subscriber.newest[publisher];
        if again {
            subscriber.repeated += 1;
        } else if newest.is_some_and(|newest| number < newest) {
            subscriber.disordered += 1;
        }
        subscriber.newest[publisher] = newest.max(Some(number));
    }

    /// Whether all that was sent is acknowledged.
    pub(crate) fn all_acknowledged(&self) -> bool {
        self.publishers
            .iter()
            .all(|messages| lock(messages).iter().all(|message| message.acknowledged.is_some()))
    }

    pub(crate) fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        let mut latencies = Vec::new();
        for (publisher, messages) in self.publishers.iter().enumerate() {
            let messages = lock(messages);
            summary.sent += messages.len() as u64;
            summary.unacknowledged +=
                messages.iter().filter(|message| message.acknowledged.is_none()).count() as u64;
            for (number, message) in messages.iter().enumerate() {
                let came = |subscriber| came(&lock(subscriber), publisher, number).is_some();
                let delivered = self.subscribers.iter().any(came);
                summary.unacknowledged_delivered +=
                    u64::from(delivered && message.acknowledged.is_none());
            }
            for subscriber in &self.subscribers {
                let subscriber = lock(subscriber);
                for (number, message) in messages.iter().enumerate() {
                    let got = came(&subscriber, publisher, number);
                    if let Some(got) = got {
                        latencies.push(got.saturating_sub(message.sent));
                    }
                    if subscriber.is_owed(message) {
                        summary.owed += 1;
                        summary.lost += u64::from(got.is_none());
                    }
                }
            }
        }
        for subscriber in &self.subscribers {
            summary.repeated += lock(subscriber).repeated;
            summary.disordered += lock(subscriber).disordered;
        }
        summary.reconnects = self.reconnects.iter().map(|count| *lock(count)).max().unwrap_or(0);
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            let latency = latencies.get(index.min(latencies.len().saturating_sub(1)));
            latency.map_or(0, |latency| latency.as_micros() as u64)
        };
        (summary.p50_us, summary.p99_us, summary.max_us) = (at(0.5), at(0.99), at(1.0));
        summary
    }
}

impl Subscriber {
    fn is_owed(&self, message: &Message) -> bool {
        let Some(acknowledged) = message.acknowledged else { return false };
        if self.kept {
            return self.presences.first().is_some_and(|(start, _)| *start <= message.sent);
        }
        self.presences
            .iter()
            .any(|(start, end)| *start <= message.sent && end.is_none_or(|end| acknowledged <= end))
    }
}

/// When this message came.
fn came(subscriber: &Subscriber, publisher: usize, number: usize) -> Option<Duration> {
    subscriber.got[publisher].get(number).copied().flatten()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
