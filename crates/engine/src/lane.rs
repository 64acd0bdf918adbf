//! Workers in the order of how full they are, searched without looking at each: blocks of
//! entries that know the most that is free in them. Knows nothing of shapes, pools or holds.

use crate::room::Room;

/// Entries of a block at most: few enough to move, many enough that skipping one pays.
const BLOCK_ENTRIES_MAX: usize = 64;

/// After so many removals a block finds out anew what is free in it at most; until then it may claim too much,
/// which costs a look and is never wrong.
const BLOCK_REMOVALS_MAX: u8 = 16;

/// Index of a worker in its view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u32);

/// A worker in a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// The free share: smaller is fuller.
    pub(crate) share: u32,
    /// Its name's hash, for ties.
    pub(crate) tie: u64,
    pub(crate) slot: Slot,
    pub(crate) class: u32,
    pub(crate) held: bool,
    pub(crate) room: Room,
}

impl Entry {
    fn place(&self) -> (u32, u64, Slot) {
        (self.share, self.tie, self.slot)
    }
}

/// A position in a lane, valid while the lane does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pos {
    block: usize,
    index: usize,
}

#[derive(Debug, Clone)]
struct Block {
    /// The most that is free in any entry.
    most: Room,
    /// The last entry's place, here so that a search for a block reads only these.
    last: (u32, u64, Slot),
    removals: u8,
    /// Never empty.
    entries: Vec<Entry>,
}

impl Block {
    fn of(entries: &[Entry]) -> Self {
        let mut own = Vec::with_capacity(BLOCK_ENTRIES_MAX + 1);
        own.extend_from_slice(entries);
        let mut block = Self { most: Room::default(), last: own[own.len() - 1].place(), removals: 0, entries: own };
        block.refresh();
        block
    }

    fn refresh(&mut self) {
        self.most = Room::default();
        self.removals = 0;
        for entry in &self.entries {
            self.most.join(&entry.room);
        }
    }
}

/// The order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lane {
    blocks: Vec<Block>,
    len: usize,
}

impl Lane {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        let place = entry.place();
        let block = self.blocks.partition_point(|b| b.last < place).min(self.blocks.len().saturating_sub(1));
        let Some(found) = self.blocks.get_mut(block) else {
            self.blocks.push(Block::of(&[entry]));
            return;
        };
        let index = found.entries.partition_point(|e| e.place() < place);
        found.entries.insert(index, entry);
        found.last = found.last.max(place);
        found.most.join(&entry.room);
        if found.entries.len() > BLOCK_ENTRIES_MAX {
            let upper = Block::of(&found.entries[BLOCK_ENTRIES_MAX / 2..]);
            found.entries.truncate(BLOCK_ENTRIES_MAX / 2);
            found.last = found.entries[BLOCK_ENTRIES_MAX / 2 - 1].place();
            found.refresh();
            self.blocks.insert(block + 1, upper);
        }
    }

    /// Takes an entry out by its place. Returns false when it is not there.
    pub(crate) fn remove(&mut self, share: u32, tie: u64, slot: Slot) -> bool {
        let place = (share, tie, slot);
        let block = self.blocks.partition_point(|b| b.last < place);
        let Some(found) = self.blocks.get_mut(block) else { return false };
        let Ok(index) = found.entries.binary_search_by_key(&place, Entry::place) else { return false };
        found.entries.remove(index);
        found.removals += 1;
        self.len -= 1;
        match found.entries.last() {
            None => {
                self.blocks.remove(block);
            }
            Some(last) => {
                found.last = last.place();
                if found.removals >= BLOCK_REMOVALS_MAX {
                    found.refresh();
                }
            }
        }
        true
    }

    pub(crate) fn start(&self) -> Pos {
        Pos { block: 0, index: 0 }
    }

    pub(crate) fn end(&self) -> Pos {
        Pos { block: self.blocks.len(), index: 0 }
    }

    pub(crate) fn get(&self, pos: Pos) -> &Entry {
        &self.blocks[pos.block].entries[pos.index]
    }

    pub(crate) fn after(&self, pos: Pos) -> Pos {
        if pos.index + 1 < self.blocks[pos.block].entries.len() {
            return Pos { block: pos.block, index: pos.index + 1 };
        }
        Pos { block: pos.block + 1, index: 0 }
    }

    /// The first entry at or after this share and tie.
    pub(crate) fn lower_bound(&self, share: u32, tie: u64) -> Pos {
        let place = (share, tie, Slot(0));
        let block = self.blocks.partition_point(|b| b.last < place);
        let index = self.blocks.get(block).map_or(0, |b| b.entries.partition_point(|e| e.place() < place));
        Pos { block, index }
    }

    /// The first entry in `from..to` that covers `need` and is accepted.
    pub(crate) fn first_fit(
        &self,
        from: Pos,
        to: Pos,
        need: &Room,
        mut accept: impl FnMut(&Entry) -> bool,
    ) -> Option<Pos> {
        let mut index = from.index;
        for (block, found) in self.blocks.iter().enumerate().take(to.block + 1).skip(from.block) {
            let end = if block == to.block { to.index } else { found.entries.len() };
            if index < end && found.most.covers(need) {
                let entries = &found.entries[index..end];
                if let Some(hit) = entries.iter().position(|e| e.room.covers(need) && accept(e)) {
                    return Some(Pos { block, index: index + hit });
                }
            }
            index = 0;
        }
        None
    }

    /// The last entry in `from..to` that covers `need` and is accepted.
    pub(crate) fn last_fit(
        &self,
        from: Pos,
        to: Pos,
        need: &Room,
        mut accept: impl FnMut(&Entry) -> bool,
    ) -> Option<Pos> {
        for (block, found) in self.blocks.iter().enumerate().take(to.block + 1).skip(from.block).rev() {
            let end = if block == to.block { to.index } else { found.entries.len() };
            let index = if block == from.block { from.index } else { 0 };
            if index < end && found.most.covers(need) {
                let entries = &found.entries[index..end];
                if let Some(hit) = entries.iter().rposition(|e| e.room.covers(need) && accept(e)) {
                    return Some(Pos { block, index: index + hit });
                }
            }
        }
        None
    }

    /// All entries, the fullest first.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.blocks.iter().flat_map(|b| &b.entries)
    }

    /// The most that is free in each block, and how many entries it has.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (&Room, usize)> {
        self.blocks.iter().map(|b| (&b.most, b.entries.len()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use volley_model::{Bytes, CpuMilli};

    use super::*;

    fn entry(share: u32, slot: u32, cpu: u64) -> Entry {
        let room = Room { cpu: CpuMilli(cpu), memory: Bytes(u64::from(share)), slots: 1, gpu_whole: 0, gpu_part: 0 };
        Entry { share, tie: u64::from(slot) * 7 % 11, slot: Slot(slot), class: 0, held: false, room }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn searches_like_a_sorted_list(
            steps in prop::collection::vec((any::<bool>(), 0..20_u32, 0..50_u64), 1..400),
            cpu in 0..60_u64,
            share in 0..22_u32,
        ) {
            let mut lane = Lane::default();
            let mut list: Vec<Entry> = Vec::new();
            for (number, (remove, share, cpu)) in steps.into_iter().enumerate() {
                if remove && !list.is_empty() {
                    let gone = list.remove(cpu as usize % list.len());
                    prop_assert!(lane.remove(gone.share, gone.tie, gone.slot));
                    prop_assert!(!lane.remove(gone.share, gone.tie, gone.slot));
                } else {
                    let new = entry(share, number as u32, cpu);
                    lane.insert(new);
                    list.push(new);
                }
            }
            list.sort_by_key(Entry::place);
            let slots: Vec<Slot> = list.iter().map(|e| e.slot).collect();
            prop_assert_eq!(lane.entries().map(|e| e.slot).collect::<Vec<_>>(), slots);
            prop_assert_eq!(lane.len(), list.len());
            let need = Room { cpu: CpuMilli(cpu), ..Room::default() };
            let from = lane.lower_bound(share, 0);
            let odd = |e: &Entry| e.slot.0 % 2 == 1;
            let fits = |e: &&Entry| e.room.covers(&need) && odd(e);
            let first = lane.first_fit(from, lane.end(), &need, odd).map(|p| lane.get(p).slot);
            prop_assert_eq!(first, list.iter().filter(|e| e.share >= share).find(fits).map(|e| e.slot));
            let last = lane.last_fit(lane.start(), from, &need, odd).map(|p| lane.get(p).slot);
            prop_assert_eq!(last, list.iter().rev().filter(|e| e.share < share).find(fits).map(|e| e.slot));
        }
    }
}
