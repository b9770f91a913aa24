//! One template against many.
//!
//! Templates are prepared once and kept by number. Among few, all are compared in full. Among many,
//! two steps choose what is: votes of an index (`index`), which cost next to nothing, say which
//! templates the first steps of a comparison are worth, and these (`Probe::promise`) which a full one.
//! Cores share each step. Numbers are added and removed through a shared reference, also while a search
//! runs; the search compares with what was there when it began.

mod index;

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::matching::{Prepared, Probe, Score, compare};
use index::{Index, Slot, Vote};

/// Fewest templates that are worth another thread.
const PER_THREAD: usize = 32;
/// Up to this many templates are all compared in full.
const COMPARED_IN_FULL: usize = 400;
/// Of more, so many in a hundred are listed by the index's votes, and so many in a thousand of all are
/// compared in full by what the first steps promise; never fewer than these. Of enrolled fingers touched
/// as hard as in the public sets, the index alone loses one in fifty among the best tenth, two in a thousand
/// among a third: these are found nowhere before the middle.
const LISTED_PERCENT: usize = 33;
const LISTED_FEWEST: usize = 1_200;
const PROMISING_PER_THOUSAND: usize = 25;
const PROMISING_FEWEST: usize = 250;
/// The lowest threshold of a search: the vendor's own for 1:N.
const FLOOR: u16 = 70;

/// The best of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The number it was inserted under.
    pub id: u32,
    /// How alike it is.
    pub score: Score,
}

/// The score from which a search's best candidate counts as found, among `n` templates.
///
/// A stranger is taken for somebody in at most one search of a thousand: each comparison may err
/// only once in `1000 * n`, which is 20 points for each power of ten. Never below 70.
pub fn search_threshold(n: usize) -> u16 {
    let decades = (n.max(1) as f64).log10();
    let threshold = (50.0 + 20.0 * decades).ceil() as u16;
    threshold.clamp(FLOOR, Score::MAX.get())
}

/// Prepared templates by number.
#[derive(Default)]
pub struct Gallery {
    store: RwLock<Store>,
}

#[derive(Default)]
struct Store {
    entries: HashMap<u32, Entry>,
    index: Index,
}

struct Entry {
    template: Arc<Prepared>,
    slots: Vec<Slot>,
}

type Searched = (u32, Arc<Prepared>);

/// What the index lists, of so many that the filter accepts.
struct Listed {
    listed: Vec<Searched>,
    of: usize,
}

impl Gallery {
    /// An empty gallery.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a template, or replaces the one under this number. Returns whether there was one.
    pub fn insert(&self, id: u32, template: Prepared) -> bool {
        let mut store = self.write();
        let replaced = store.remove(id);
        let slots = store.index.insert(id, &template);
        store.entries.insert(id, Entry { template: Arc::new(template), slots });
        replaced
    }

    /// Removes a template. Returns whether there was one.
    pub fn remove(&self, id: u32) -> bool {
        self.write().remove(id)
    }

    /// Removes all templates.
    pub fn clear(&self) {
        *self.write() = Store::default();
    }

    /// How many templates there are.
    pub fn len(&self) -> usize {
        self.read().entries.len()
    }

    /// Bytes of memory that the templates and their index take.
    pub fn memory_bytes(&self) -> usize {
        let store = self.read();
        let entry = |e: &Entry| {
            e.template.memory_bytes() + e.slots.capacity() * size_of::<Slot>() + size_of::<Entry>()
        };
        store.entries.values().map(entry).sum::<usize>() + store.index.memory_bytes()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a template under this number.
    pub fn contains(&self, id: u32) -> bool {
        self.read().entries.contains_key(&id)
    }

    /// The template most like the probe among those whose number the filter accepts; none when the
    /// filter accepts none. The filter is called once for each number, and may use the gallery. Whether
    /// the best is good enough is for the caller's threshold to say: see
    /// [`search_threshold`], with the number of templates searched.
    pub fn search(
        &self,
        probe: &Prepared,
        filter: Option<&dyn Fn(u32) -> bool>,
    ) -> Option<Candidate> {
        let mut numbers: Vec<u32> = self.read().entries.keys().copied().collect();
        numbers.retain(|&id| filter.is_none_or(|accepts| accepts(id)));
        let mut compared = self.read().listed(probe, numbers);
        let most = (compared.of * PROMISING_PER_THOUSAND / 1_000).max(PROMISING_FEWEST);
        if compared.of > COMPARED_IN_FULL && compared.listed.len() > most {
            compared.listed = promising(probe, &compared.listed, most);
        }
        let parts = by_cores(&compared.listed, |part| {
            part.iter().fold(None, |best, (id, template)| {
                let score = compare(probe, template);
                better(best, Some(Candidate { id: *id, score }))
            })
        });
        parts.into_iter().fold(None, better)
    }

    // A panic while the lock is held is a bug of ours, and one search or insertion fewer is all that
    // it costs: the maps stay usable.
    fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn remove(&mut self, id: u32) -> bool {
        let Some(entry) = self.entries.remove(&id) else { return false };
        self.index.remove(&entry.slots, &entry.template);
        true
    }

    /// What may be compared: all of these numbers, or the best of them by the index.
    fn listed(&self, probe: &Prepared, mut ids: Vec<u32>) -> Listed {
        let of = ids.len();
        if of > COMPARED_IN_FULL {
            let most = (of * LISTED_PERCENT / 100).max(LISTED_FEWEST);
            ids = self.voted(probe, ids.into_iter().collect(), most);
        }
        let listed = ids
            .iter()
            .filter_map(|id| Some((*id, Arc::clone(&self.entries.get(id)?.template))))
            .collect();
        Listed { listed, of }
    }

    /// The numbers with most votes, of these.
    fn voted(&self, probe: &Prepared, mut left: HashSet<u32>, most: usize) -> Vec<u32> {
        let shards: Vec<usize> = (0..self.index.shard_count()).collect();
        let parts = shared_out(&shards, shards.len(), |part| self.index.votes(part, probe));
        let mut votes: Vec<Vote> = parts.into_iter().flatten().collect();
        votes.sort_unstable_by(|a, b| b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id)));
        let mut chosen = Vec::with_capacity(most);
        for vote in votes {
            if chosen.len() == most {
                break;
            }
            // A template of several views has a vote for each.
            if left.remove(&vote.id) {
                chosen.push(vote.id);
            }
        }
        chosen
    }
}

/// The templates that promise most.
fn promising(probe: &Prepared, listed: &[Searched], most: usize) -> Vec<Searched> {
    let probe = Probe::new(probe);
    let parts = by_cores(listed, |part| {
        part.iter().map(|(_, template)| probe.promise(template)).collect::<Vec<f32>>()
    });
    let mut promises: Vec<(f32, &Searched)> = parts.into_iter().flatten().zip(listed).collect();
    promises.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.0.cmp(&b.1.0)));
    promises.truncate(most);
    promises.into_iter().map(|(_, searched)| searched.clone()).collect()
}

fn by_cores<R: Send>(searched: &[Searched], work: impl Fn(&[Searched]) -> R + Sync) -> Vec<R> {
    shared_out(searched, searched.len().div_ceil(PER_THREAD), work)
}

/// Does the work on at most one part a core, the first part on this thread.
fn shared_out<T: Sync, R: Send>(
    items: &[T],
    most_parts: usize,
    work: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(most_parts.clamp(1, cores)).max(1);
    let (mine, others) = items.split_at(share.min(items.len()));
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> =
            others.chunks(share).map(|part| scope.spawn(move || work(part))).collect();
        let mut results = vec![work(mine)];
        for thread in running {
            match thread.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

impl std::fmt::Debug for Gallery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gallery({} templates)", self.len())
    }
}

/// Of equal scores the lower number, so that a search repeats.
fn better(a: Option<Candidate>, b: Option<Candidate>) -> Option<Candidate> {
    match (a, b) {
        (Some(a), Some(b)) if (b.score, a.id) > (a.score, b.id) => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    }
}

#[cfg(test)]
mod tests;
