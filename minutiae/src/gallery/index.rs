//! Which templates are worth a full comparison: votes of edges between neighbouring minutiae.
//!
//! An edge joins a minutia to one of its nearest neighbours. Its length and the two directions
//! measured against it don't change when the finger is turned or shifted; quantised, they name a
//! bucket. A probe's edges vote for whatever lies in their buckets, and since all edges of one finger
//! are turned alike, votes count only together with others of about the same turn.
//!
//! Slots (one a view) come in shards, so that cores can share a search and a shard's counters stay in
//! a fast cache.

use std::f32::consts::{PI, TAU};

use crate::matching::{Place, Prepared};

/// Slots of one shard.
const SHARD_SLOTS: usize = 2048;
const NEIGHBOURS: usize = 6;
/// Lengths in pixels that are told apart, and where they end.
const LENGTH_STEP: f32 = 8.0;
const LENGTH_BUCKETS: usize = 12;
const SHORTEST: f32 = 8.0;
/// Directions that are told apart: 15 degrees each.
const ANGLE_BUCKETS: usize = 24;
const BUCKETS: usize = LENGTH_BUCKETS * ANGLE_BUCKETS * ANGLE_BUCKETS;
/// Turns that are told apart when votes are counted.
const TURNS: usize = 16;
/// Chance votes that a view is taken to have more, so that one with few isn't found by chance.
const CHANCE_MORE: f32 = 30.0;

/// Where a template's views are in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot(u32);

/// The index of a gallery.
#[derive(Default)]
pub(super) struct Index {
    shards: Vec<Shard>,
    free: Vec<Slot>,
}

struct Shard {
    /// Whose each slot is; free ones are nobody's.
    owners: Vec<Option<u32>>,
    buckets: Vec<Vec<Posting>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Posting {
    slot: u16,
    /// Direction of the edge in 256ths of a turn.
    direction: u8,
}

/// A candidate of the index with its votes on a scale of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vote {
    pub(super) id: u32,
    pub(super) weight: f32,
}

/// An edge as its first minutia sees it.
#[derive(Clone)]
struct Edge {
    length: f32,
    /// Directions of both minutiae against the edge, 0 to 1 turn.
    first: f32,
    second: f32,
    /// Direction of the edge itself, 0 to 1 turn.
    direction: f32,
}

impl Index {
    pub(super) fn insert(&mut self, id: u32, template: &Prepared) -> Vec<Slot> {
        template.places().map(|places| self.insert_view(id, &edges(&places))).collect()
    }

    fn insert_view(&mut self, id: u32, edges: &[Edge]) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| self.grown());
        let (shard, inner) = self.locate(slot);
        shard.owners[inner] = Some(id);
        for (bucket, posting) in postings(edges, inner as u16) {
            shard.buckets[bucket].push(posting);
        }
        slot
    }

    pub(super) fn remove(&mut self, slots: &[Slot], template: &Prepared) {
        for (&slot, places) in slots.iter().zip(template.places()) {
            let (shard, inner) = self.locate(slot);
            shard.owners[inner] = None;
            for (bucket, _) in postings(&edges(&places), inner as u16) {
                shard.buckets[bucket].retain(|p| usize::from(p.slot) != inner);
            }
            self.free.push(slot);
        }
    }

    /// Votes for every view that is in use, from these shards.
    pub(super) fn votes(&self, shards: &[usize], probe: &Prepared) -> Vec<Vote> {
        let mut votes = Vec::new();
        for places in probe.places() {
            let edges = edges(&places);
            for &shard in shards {
                self.shards[shard].votes(&edges, &mut votes);
            }
        }
        votes
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let bucket = |b: &Vec<Posting>| size_of_val(b) + b.capacity() * size_of::<Posting>();
        let shard = |s: &Shard| {
            let buckets: usize = s.buckets.iter().map(bucket).sum();
            buckets + s.owners.capacity() * size_of::<Option<u32>>()
        };
        self.shards.iter().map(shard).sum()
    }

    pub(super) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    fn grown(&mut self) -> Slot {
        if self.shards.last().is_none_or(|s| s.owners.len() == SHARD_SLOTS) {
            let (owners, buckets) = (Vec::new(), vec![Vec::new(); BUCKETS]);
            self.shards.push(Shard { owners, buckets });
        }
        let shard = self.shards.len() - 1;
        let inner = self.shards[shard].owners.len();
        self.shards[shard].owners.push(None);
        Slot((shard * SHARD_SLOTS + inner) as u32)
    }

    fn locate(&mut self, slot: Slot) -> (&mut Shard, usize) {
        let at = slot.0 as usize;
        (&mut self.shards[at / SHARD_SLOTS], at % SHARD_SLOTS)
    }
}

impl Shard {
    fn votes(&self, probe: &[Edge], votes: &mut Vec<Vote>) {
        let mut counts = vec![0u16; self.owners.len() * TURNS];
        for edge in probe {
            for seen in [edge.clone(), edge.reversed()] {
                let direction = (seen.direction * 256.0) as u8;
                for bucket in seen.nearby_buckets() {
                    let bucket = &self.buckets[bucket];
                    let weight = rarity(bucket.len(), self.owners.len());
                    for posting in bucket {
                        let turn = posting.direction.wrapping_sub(direction);
                        let turn = usize::from(turn) * TURNS / 256;
                        let count = &mut counts[usize::from(posting.slot) * TURNS + turn];
                        *count = count.saturating_add(weight);
                    }
                }
            }
        }
        for (owner, turns) in self.owners.iter().zip(counts.chunks_exact(TURNS)) {
            if let Some(id) = *owner {
                votes.push(Vote { id, weight: beyond_chance(turns) });
            }
        }
    }
}

/// How far the votes of the best turn are beyond what two turns get by chance, in deviations of
/// chance: votes of strangers are spread over all turns.
fn beyond_chance(turns: &[u16]) -> f32 {
    let pair = |i: usize| turns[i].saturating_add(turns[(i + 1) % TURNS]);
    let most = (0..TURNS).map(pair).max().unwrap_or(0);
    let all: f32 = turns.iter().copied().map(f32::from).sum();
    let chance = all * 2.0 / TURNS as f32;
    (f32::from(most) - chance) / (chance + CHANCE_MORE).sqrt()
}

/// What a vote from a bucket is worth: the fewer templates share it, the more it says.
fn rarity(postings: usize, slots: usize) -> u16 {
    let share = slots as f32 / (postings as f32 + 1.0);
    (4.0 * share.max(1.0).log2()) as u16 + 1
}

fn postings(edges: &[Edge], slot: u16) -> impl Iterator<Item = (usize, Posting)> + '_ {
    edges.iter().map(move |edge| {
        let direction = (edge.direction * 256.0) as u8;
        (edge.bucket(), Posting { slot, direction })
    })
}

/// Each minutia with its nearest neighbours; no edge twice.
fn edges(places: &[Place]) -> Vec<Edge> {
    let mut joined: Vec<(usize, usize)> = Vec::with_capacity(places.len() * NEIGHBOURS);
    for (i, from) in places.iter().enumerate() {
        let mut near: Vec<(f32, usize)> = places
            .iter()
            .enumerate()
            .map(|(j, to)| ((to.x - from.x).hypot(to.y - from.y), j))
            .filter(|&(length, j)| j != i && length >= SHORTEST)
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        joined.extend(near.iter().take(NEIGHBOURS).map(|&(_, j)| (i.min(j), i.max(j))));
    }
    joined.sort_unstable();
    joined.dedup();
    joined.into_iter().filter_map(|(i, j)| Edge::between(&places[i], &places[j])).collect()
}

impl Edge {
    fn between(from: &Place, to: &Place) -> Option<Self> {
        let length = (to.x - from.x).hypot(to.y - from.y);
        let longest = SHORTEST + LENGTH_STEP * LENGTH_BUCKETS as f32;
        let heading = (to.y - from.y).atan2(to.x - from.x);
        (length < longest).then(|| Self {
            length,
            first: turns(from.direction - heading),
            second: turns(to.direction - heading),
            direction: turns(heading),
        })
    }

    /// The edge as its other end sees it.
    fn reversed(&self) -> Self {
        Self {
            length: self.length,
            first: (self.second + 0.5).fract(),
            second: (self.first + 0.5).fract(),
            direction: (self.direction + 0.5).fract(),
        }
    }

    fn steps(&self) -> [f32; 3] {
        let angles = ANGLE_BUCKETS as f32;
        [(self.length - SHORTEST) / LENGTH_STEP, self.first * angles, self.second * angles]
    }

    fn bucket(&self) -> usize {
        let [length, first, second] = self.steps().map(|s| s as usize);
        bucket(length, first, second)
    }

    /// Its own bucket and those on the near side of each limit.
    fn nearby_buckets(&self) -> impl Iterator<Item = usize> {
        let [length, first, second] = self.steps().map(|step| {
            let own = step.floor();
            let beside = if step - own < 0.5 { own - 1.0 } else { own + 1.0 };
            [own as isize, beside as isize]
        });
        let around = |i: isize| i.rem_euclid(ANGLE_BUCKETS as isize) as usize;
        (0..8usize).filter_map(move |k| {
            let length = usize::try_from(length[k & 1]).ok().filter(|&l| l < LENGTH_BUCKETS)?;
            Some(bucket(length, around(first[k >> 1 & 1]), around(second[k >> 2])))
        })
    }
}

fn bucket(length: usize, first: usize, second: usize) -> usize {
    let first = first.min(ANGLE_BUCKETS - 1);
    let second = second.min(ANGLE_BUCKETS - 1);
    (length.min(LENGTH_BUCKETS - 1) * ANGLE_BUCKETS + first) * ANGLE_BUCKETS + second
}

fn turns(angle: f32) -> f32 {
    let turns = (angle + PI).rem_euclid(TAU) / TAU;
    if turns < 1.0 { turns } else { 0.0 }
}
