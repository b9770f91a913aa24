//! One template against many.
//!
//! Templates are prepared once and kept by number. A search compares with all that its filter lets
//! through, shared among the machine's cores. Numbers are added and removed through a shared
//! reference, also while a search runs; the search sees what was there when it began.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, PoisonError, RwLock};

use crate::matching::{Prepared, Score, compare};

/// Fewest templates that are worth another thread.
const PER_THREAD: usize = 64;
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
    entries: RwLock<HashMap<u32, Arc<Prepared>>>,
}

impl Gallery {
    /// An empty gallery.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a template, or replaces the one under this number. Returns whether there was one.
    pub fn insert(&self, id: u32, template: Prepared) -> bool {
        self.write().insert(id, Arc::new(template)).is_some()
    }

    /// Removes a template. Returns whether there was one.
    pub fn remove(&self, id: u32) -> bool {
        self.write().remove(&id).is_some()
    }

    /// Removes all templates.
    pub fn clear(&self) {
        self.write().clear();
    }

    /// How many templates there are.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a template under this number.
    pub fn contains(&self, id: u32) -> bool {
        self.read().contains_key(&id)
    }

    /// The template most like the probe among those whose number the filter accepts; none when the
    /// filter accepts none. Whether the best is good enough is for the caller's threshold to say: see
    /// [`search_threshold`], with the number of templates searched.
    pub fn search(
        &self,
        probe: &Prepared,
        filter: Option<&dyn Fn(u32) -> bool>,
    ) -> Option<Candidate> {
        let searched = self.selected(filter);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = searched.len().div_ceil(PER_THREAD).clamp(1, cores);
        let share = searched.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let (mine, others) = searched.split_at(share.min(searched.len()));
            let running: Vec<_> = others
                .chunks(share)
                .map(|part| scope.spawn(move || best_of(part, probe)))
                .collect();
            let own = best_of(mine, probe);
            let joined = running.into_iter().map(|thread| match thread.join() {
                Ok(best) => best,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.fold(own, better)
        })
    }

    fn selected(&self, filter: Option<&dyn Fn(u32) -> bool>) -> Vec<(u32, Arc<Prepared>)> {
        self.read()
            .iter()
            .filter(|(id, _)| filter.is_none_or(|accepts| accepts(**id)))
            .map(|(id, template)| (*id, Arc::clone(template)))
            .collect()
    }

    // A panic while the lock is held can't leave the map half changed: what is poisoned is still
    // whole.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<u32, Arc<Prepared>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<u32, Arc<Prepared>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Gallery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gallery({} templates)", self.len())
    }
}

fn best_of(part: &[(u32, Arc<Prepared>)], probe: &Prepared) -> Option<Candidate> {
    part.iter()
        .map(|(id, template)| Some(Candidate { id: *id, score: compare(probe, template) }))
        .fold(None, better)
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
