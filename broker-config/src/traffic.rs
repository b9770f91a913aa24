//! The names in use: every topic published to and every filter subscribed since the inner broker began.
//!
//! rumqttd forgets none of them and keeps a log for each filter, so their number is bounded here, per
//! user; the owner's own clients are counted, not bounded. A name is charged to who used it first.
//!
//! Each topic numbers its messages. The number travels with a message through rumqttd, before its
//! payload, and is taken off before a client sees it (`guard/stamp`): so each connection can
//! tell how many messages rumqttd dropped because it read too slowly (`guard/losses`).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    config::{Limits, Segments},
    names,
    refusal::Refusal,
    session::lock,
};

/// What rumqttd holds for a message beside topic and payload, which alone it counts.
const MESSAGE_OVERHEAD_BYTES: u64 = 350;

/// A topic that was published to.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) id: u32,
    /// One copy for all its messages.
    pub(crate) name: Bytes,
    numbers: AtomicU64,
    filters: RwLock<Vec<Arc<FilterState>>>,
}

impl TopicState {
    /// Counts a message of `bytes`, as rumqttd counts it, and what it has beside that.
    pub(crate) fn append(&self, bytes: usize, beside: usize) {
        for filter in self.filters.read().unwrap_or_else(PoisonError::into_inner).iter() {
            filter.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            filter.messages.fetch_add(1, Ordering::Relaxed);
            filter.beside.fetch_add(beside as u64, Ordering::Relaxed);
        }
    }

    /// The number of the next message, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A filter that was subscribed.
#[derive(Debug)]
struct FilterState {
    /// Who brought it up; none for the owner's own.
    user: Option<String>,
    segments: Segments,
    bytes: AtomicU64,
    messages: AtomicU64,
    /// Bytes of properties.
    beside: AtomicU64,
}

impl FilterState {
    /// What rumqttd holds of it: all that came, up to its segments.
    fn held_bytes(&self) -> u64 {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let messages = self.messages.load(Ordering::Relaxed);
        let most = (self.segments.bytes * self.segments.count) as u64;
        let kept = bytes.min(most);
        let kept_messages =
            (messages * kept).checked_div(bytes).map_or(0, |kept| messages.min(kept + 1));
        let beside = self.beside.load(Ordering::Relaxed);
        let kept_beside = (u128::from(beside) * u128::from(kept_messages))
            .checked_div(u128::from(messages))
            .map_or(0, |kept| u64::try_from(kept).unwrap_or(u64::MAX));
        kept + kept_messages * MESSAGE_OVERHEAD_BYTES + kept_beside
    }
}

/// Whose use of a name it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum User<'a> {
    /// The owner's own.
    Own,
    Other(&'a str),
}

#[derive(Debug)]
pub(crate) struct Traffic {
    limits: Limits,
    names: RwLock<Names>,
    /// Filters that a user may bring up whose filters once held too much.
    allowances: Mutex<HashMap<String, usize>>,
}

#[derive(Debug, Default)]
struct Names {
    topics: HashMap<Bytes, Arc<TopicState>>,
    filters: HashMap<String, Arc<FilterState>>,
    topics_of: HashMap<String, usize>,
    filters_of: HashMap<String, usize>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) topics: usize,
    pub(crate) filters: usize,
    /// In rumqttd's logs, estimated from what went in.
    pub(crate) held_bytes: u64,
}

/// The logs hold too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overfull {
    pub(crate) held_bytes: u64,
    /// Whose filters hold most of it.
    pub(crate) user: Option<String>,
}

impl Traffic {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), names: RwLock::default(), allowances: Mutex::default() }
    }

    /// The topic of this name, if the user may use (one more) such.
    pub(crate) fn topic(&self, user: User<'_>, name: &Bytes) -> Result<Arc<TopicState>, Refusal> {
        if let Some(topic) = self.read().topics.get(name) {
            return Ok(topic.clone());
        }
        let mut names = self.write();
        if let Some(topic) = names.topics.get(name) {
            return Ok(topic.clone());
        }
        charge(&mut names.topics_of, user, self.limits.max_topics_per_user)
            .map_err(|Full| Refusal::TooManyTopics)?;
        let text = String::from_utf8_lossy(name);
        let filters = names
            .filters
            .iter()
            .filter(|(filter, _)| names::meets(filter, &text))
            .map(|(_, state)| state.clone())
            .collect();
        // A copy: the name is a piece of a read buffer, which it would keep alive.
        let name = Bytes::copy_from_slice(name);
        let topic = Arc::new(TopicState {
            name: name.clone(),
            id: u32::try_from(names.topics.len()).unwrap_or(u32::MAX),
            numbers: AtomicU64::new(0),
            filters: RwLock::new(filters),
        });
        names.topics.insert(name, topic.clone());
        Ok(topic)
    }

    /// Notes a filter, if the user may use (one more) such.
    pub(crate) fn subscribe(&self, user: User<'_>, filter: &str) -> Result<(), Refusal> {
        if self.read().filters.contains_key(filter) {
            return Ok(());
        }
        let mut names = self.write();
        if names.filters.contains_key(filter) {
            return Ok(());
        }
        charge(&mut names.filters_of, user, self.filters_allowed(user))
            .map_err(|Full| Refusal::TooManyFilters)?;
        let state = Arc::new(FilterState {
            user: match user {
                User::Own => None,
                User::Other(user) => Some(user.to_owned()),
            },
            segments: self.limits.segments_for(filter),
            bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            beside: AtomicU64::new(0),
        });
        for (topic, of_topic) in &names.topics {
            if names::meets(filter, &String::from_utf8_lossy(topic)) {
                let mut filters = of_topic.filters.write().unwrap_or_else(PoisonError::into_inner);
                filters.push(state.clone());
            }
        }
        names.filters.insert(filter.to_owned(), state);
        Ok(())
    }

    fn filters_allowed(&self, user: User<'_>) -> usize {
        let most = self.limits.max_filters_per_user;
        match user {
            User::Own => most,
            User::Other(user) => lock(&self.allowances).get(user).copied().unwrap_or(most),
        }
    }

    /// Whether the logs hold more than they may; then who brought most of it up, and from now on may
    /// bring up a quarter of the filters. rumqttd gives nothing back, so it is to be replaced.
    pub(crate) fn overfull(&self) -> Option<Overfull> {
        let names = self.read();
        let mut of = HashMap::<Option<&str>, (u64, usize)>::new();
        for filter in names.filters.values() {
            let (bytes, filters) = of.entry(filter.user.as_deref()).or_default();
            *bytes += filter.held_bytes();
            *filters += 1;
        }
        let held_bytes: u64 = of.values().map(|(bytes, _)| bytes).sum();
        if held_bytes <= self.limits.max_held_bytes {
            return None;
        }
        let others = of.iter().filter_map(|(user, held)| user.map(|user| (user, *held)));
        let most = others.max_by_key(|(_, (bytes, _))| *bytes);
        // With less than half of it, nobody is to blame alone; nor with a filter or two.
        let most = most.filter(|(_, (bytes, filters))| *bytes > held_bytes / 2 && *filters > 4);
        let user = most.map(|(user, (_, filters))| {
            lock(&self.allowances).insert(user.to_owned(), (filters / 4).max(1));
            user.to_owned()
        });
        Some(Overfull { held_bytes, user })
    }

    /// A new inner broker knows no names.
    pub(crate) fn forget(&self) {
        *self.write() = Names::default();
    }

    pub(crate) fn amount(&self) -> Amount {
        let names = self.read();
        Amount {
            topics: names.topics.len(),
            filters: names.filters.len(),
            held_bytes: names.filters.values().map(|filter| filter.held_bytes()).sum(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Full;

fn charge(of: &mut HashMap<String, usize>, user: User<'_>, most: usize) -> Result<(), Full> {
    let User::Other(user) = user else { return Ok(()) };
    let used = of.entry(user.to_owned()).or_default();
    if *used >= most {
        return Err(Full);
    }
    *used += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Traffic {
        let mut limits = Limits { max_topics_per_user: 2, ..Limits::default() };
        limits.max_filters_per_user = 2;
        limits.segments = Segments { bytes: 1_024, count: 2 };
        Traffic::new(&limits)
    }

    fn topic(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    #[test]
    fn each_user_has_a_share_of_names_and_known_ones_are_free() {
        let traffic = traffic();
        let (a, b) = (User::Other("a"), User::Other("b"));
        for name in ["1", "2"] {
            traffic.topic(a, &topic(name)).unwrap();
            traffic.subscribe(a, name).unwrap();
        }
        assert_eq!(traffic.topic(a, &topic("3")).unwrap_err(), Refusal::TooManyTopics);
        assert_eq!(traffic.subscribe(a, "3").unwrap_err(), Refusal::TooManyFilters);
        for name in ["1", "2", "3", "4"] {
            traffic.topic(b, &topic(name)).unwrap();
            traffic.subscribe(b, name).unwrap();
        }
        for at in 0..100 {
            traffic.topic(User::Own, &Bytes::from(format!("own/{at}"))).unwrap();
        }
        let amount = traffic.amount();
        assert_eq!((amount.topics, amount.filters), (104, 4));
        traffic.forget();
        assert_eq!(traffic.amount(), Amount::default());
        traffic.topic(a, &topic("3")).unwrap();
    }

    #[test]
    fn whose_filters_hold_too_much_may_bring_up_fewer() {
        let mut limits = Limits { max_held_bytes: 20_000, ..Limits::default() };
        limits.segments = Segments { bytes: 1_024, count: 1 };
        let traffic = Traffic::new(&limits);
        traffic.subscribe(User::Own, "x/#").unwrap();
        traffic.subscribe(User::Other("modest"), "x/+").unwrap();
        for at in 0..16 {
            traffic.subscribe(User::Other("greedy"), &format!("x/{}#", "+/".repeat(at))).ok();
            traffic.subscribe(User::Other("greedy"), &format!("+/{}#", "+/".repeat(at))).unwrap();
        }
        let x = traffic.topic(User::Own, &topic("x/1")).unwrap();
        x.append(10, 0);
        assert_eq!(traffic.overfull(), None);
        (0..200).for_each(|_| x.append(10, 0));
        let overfull = traffic.overfull().unwrap();
        assert_eq!(overfull.user.as_deref(), Some("greedy"));
        traffic.forget();
        assert_eq!(traffic.overfull(), None);
        let allowed = (0..100)
            .take_while(|at| traffic.subscribe(User::Other("greedy"), &format!("y/{at}")).is_ok())
            .count();
        assert_eq!(allowed, 7, "a quarter of the 31 that it had");
        traffic.subscribe(User::Other("modest"), "y/+").unwrap();
    }

    #[test]
    fn what_is_held_grows_with_the_messages_up_to_the_segments() {
        let traffic = traffic();
        let early = traffic.topic(User::Own, &topic("x/1")).unwrap();
        traffic.subscribe(User::Own, "x/#").unwrap();
        let late = traffic.topic(User::Own, &topic("x/2")).unwrap();
        let other = traffic.topic(User::Own, &topic("y")).unwrap();
        assert_eq!(traffic.amount().held_bytes, 0);
        for topic in [&early, &early, &late] {
            topic.append(100, 0);
        }
        assert_eq!([early.number(), early.number(), late.number()], [1, 2, 1]);
        other.append(1_000, 0);
        assert_eq!(traffic.amount().held_bytes, 300 + 3 * MESSAGE_OVERHEAD_BYTES);
        late.append(100, 5_000);
        assert_eq!(traffic.amount().held_bytes, 5_400 + 4 * MESSAGE_OVERHEAD_BYTES);
        for _ in 0..1_000 {
            late.append(100, 0);
        }
        let held = traffic.amount().held_bytes;
        let most = 2_048 + 22 * (MESSAGE_OVERHEAD_BYTES + 5);
        assert!((2_048..most).contains(&held), "{held}");
    }
}
