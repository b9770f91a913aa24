//! Sets of sequence numbers.

use std::collections::BTreeMap;

/// A set of sequence numbers, as ranges that don't touch: first number to last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(BTreeMap<u64, u64>);

impl Spans {
    /// Adds `first..=last`.
    pub(super) fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        while let Some((&from, &to)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if to.saturating_add(1) < first {
                break;
            }
            (first, last) = (first.min(from), last.max(to));
            self.0.remove(&from);
        }
        self.0.insert(first, last);
    }

    /// The end of the range that holds `seq`.
    fn end_at(&self, seq: u64) -> Option<u64> {
        let (_, &last) = self.0.range(..=seq).next_back()?;
        (last >= seq).then_some(last)
    }

    pub(super) fn holds_all(&self, first: u64, last: u64) -> bool {
        self.end_at(first).is_some_and(|end| end >= last)
    }

    fn next_start(&self, after: u64) -> Option<u64> {
        self.0.range(after..).next().map(|(&first, _)| first)
    }

    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(&first, &last)| (first, last))
    }
}

/// The lowest run of `first..=last` that is in neither set.
pub(super) fn lowest_missing(a: &Spans, b: &Spans, first: u64, last: u64) -> Option<(u64, u64)> {
    let mut from = first;
    while from <= last {
        match a.end_at(from).into_iter().chain(b.end_at(from)).max() {
            Some(end) => from = end.saturating_add(1),
            None => {
                let starts = a.next_start(from).into_iter().chain(b.next_start(from));
                let end = starts.min().map_or(last, |start| last.min(start - 1));
                return Some((from, end));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(ranges: &[(u64, u64)]) -> Spans {
        let mut spans = Spans::default();
        ranges.iter().for_each(|&(first, last)| spans.insert(first, last));
        spans
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let joined = spans(&[(5, 6), (1, 2), (3, 4), (9, 9), (2, 3)]);
        assert_eq!(joined.iter().collect::<Vec<_>>(), [(1, 6), (9, 9)]);
        assert_eq!(spans(&[(1, 9), (3, 4)]).iter().collect::<Vec<_>>(), [(1, 9)]);
        assert!(joined.holds_all(2, 6) && !joined.holds_all(2, 7) && !joined.holds_all(8, 9));
    }

    #[test]
    fn the_lowest_missing() {
        let (a, b) = (spans(&[(1, 3), (8, 9)]), spans(&[(4, 4), (12, 12)]));
        assert_eq!(lowest_missing(&a, &b, 1, 20), Some((5, 7)));
        assert_eq!(lowest_missing(&a, &b, 8, 20), Some((10, 11)));
        assert_eq!(lowest_missing(&a, &b, 12, 20), Some((13, 20)));
        assert_eq!(lowest_missing(&a, &b, 1, 4), None);
        assert_eq!(lowest_missing(&a, &b, 5, 4), None);
    }
}
