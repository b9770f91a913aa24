//! The same work on many things, on all cores.

use std::{
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use indicatif::ProgressBar;

/// Results in the order of the things. The first failure ends it; the bar goes on by one for each.
pub(super) fn map<T: Sync, R: Send>(
    things: &[T],
    bar: &ProgressBar,
    work: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(things.len()));
    let worker = || -> anyhow::Result<()> {
        let mut own = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(thing) = things.get(index) else { break };
            match work(thing) {
                Ok(result) => own.push((index, result)),
                Err(error) => {
                    next.store(things.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
            bar.inc(1);
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores()).map(|_| scope.spawn(worker)).collect();
        let ended = workers.into_iter().map(|worker| match worker.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect::<anyhow::Result<()>>()
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|&(index, _)| index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_first_failure_ends_it() {
        let bar = ProgressBar::hidden();
        let numbers: Vec<u64> = (0..1_000).collect();
        let doubled = map(&numbers, &bar, |n| Ok(2 * n)).unwrap();
        assert!(doubled.iter().zip(&numbers).all(|(d, n)| *d == 2 * n));
        assert_eq!((doubled.len(), bar.position()), (1_000, 1_000));
        let failing = |n: &u64| if *n == 5 { anyhow::bail!("five") } else { Ok(()) };
        assert_eq!(map(&numbers, &bar, failing).unwrap_err().to_string(), "five");
        assert!(map(&[], &bar, failing).unwrap().is_empty());
    }
}
