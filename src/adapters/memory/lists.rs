//! [`Lists`]: which blocks are free. A binary buddy allocator, in plain safe code; who uses it holds its lock.
//!
//! A free block of `1 << order` frames is on one list, by zone, mobility and order. What is asked for is split off a larger
//! block, what comes back is merged with its buddy for as long as that is free as a whole. So each call does at most one
//! step for each order, and a block that was handed out as one may come back in pieces.
//!
//! **Mobility.** Page tables stay where they are, and a single one keeps a block of 2 MiB from ever being whole. So they are taken
//! from *groups* (aligned blocks of `1 << GROUP` frames) of their own while there are any, as on Linux. A group's first
//! frame says which kind it is; when all of it is free again it is neither's.
//!
//! **Single frames** are most of what is asked for. A few that lie side by side are off the lists at a time and go one by one, so
//! that splitting a block is paid once for all of it; they come back to the lists when those have nothing else.

#![forbid(unsafe_code)]

use super::allocated::Allocated;
use super::stretch::{Stretch, Stretches};
use crate::addr::Pfn;
use crate::arch::LeafSize;
use crate::env::Zone;

/// The largest blocks are those of the largest leaf.
pub(super) const MAX_ORDER: u8 = LeafSize::Size1GiB.order();
const ORDERS: usize = MAX_ORDER as usize + 1;
/// Frames of one mobility are kept together in blocks of this order.
const GROUP: u8 = LeafSize::Size2MiB.order();
/// The largest block whose frames go one by one.
const SINGLES: u8 = 5;

/// The first frames of the zones above the lowest: 1 MiB and 4 GiB.
const ZONE_STARTS: [u64; 2] = [1 << 8, 1 << 20];
const ZONES: usize = ZONE_STARTS.len() + 1;
/// Aligned blocks of up to this order lie in one zone, wherever they are.
const IN_ONE_ZONE: u8 = ZONE_STARTS[0].trailing_zeros() as u8;

/// No block.
const NONE: u32 = u32::MAX;
/// Most frames that can be numbered.
pub(super) const MAX_FRAMES: u64 = NONE as u64;

/// What is known of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    /// The blocks before and after on the list, if a free block begins here.
    previous: u32,
    next: u32,
    /// One more than its order; 0: no free block begins here.
    free: u8,
    /// Of the first frame of a group: it is for what does not move.
    unmovable: bool,
}

impl Note {
    pub(super) const NEW: Self = Self { previous: NONE, next: NONE, free: 0, unmovable: false };
}

/// Blocks of one zone and mobility.
#[derive(Clone, Copy, Debug)]
struct List {
    /// The first block of each order.
    heads: [u32; ORDERS],
    /// A bit for each order that has a block.
    filled: u32,
}

impl List {
    const EMPTY: Self = Self { heads: [NONE; ORDERS], filled: 0 };

    /// The smallest order from `order` on that has a block.
    #[inline(always)]
    fn smallest(&self, order: u8) -> Option<u8> {
        let filled = self.filled >> order;
        (filled != 0).then(|| order + filled.trailing_zeros() as u8)
    }
}

/// Where a block is.
#[derive(Clone, Copy)]
struct Block {
    number: u64,
    place: u64,
    order: u8,
}

#[derive(Debug)]
pub(super) struct Lists<'a> {
    stretches: Stretches<'a>,
    notes: &'a mut [Note],
    allocated: Allocated<'a>,
    /// By zone; in each, what moves and what does not.
    lists: [[List; 2]; ZONES],
    singles: Singles,
    free_frames: u64,
    refused: u64,
}

/// Free frames that are on no list.
#[derive(Clone, Copy, Debug)]
struct Singles {
    /// Places.
    next: u64,
    end: u64,
    /// The frame at `next`.
    number: u64,
}

impl Singles {
    const NONE: Self = Self { next: 0, end: 0, number: 0 };
}

const MOVABLE: usize = 0;
const UNMOVABLE: usize = 1;

#[inline(always)]
fn zone_of(number: u64) -> usize {
    usize::from(number >= ZONE_STARTS[0]) + usize::from(number >= ZONE_STARTS[1])
}

impl<'a> Lists<'a> {
    /// All frames of `stretches` are free. `notes` has one for each, all of them new.
    pub(super) fn new(stretches: Stretches<'a>, notes: &'a mut [Note], bits: &'a mut [u64]) -> Self {
        let (allocated, lists) = (Allocated::new(bits), [[List::EMPTY; 2]; ZONES]);
        let mut new = Self { stretches, notes, allocated, lists, singles: Singles::NONE, free_frames: 0, refused: 0 };
        for Stretch { first, frames, place } in stretches.all() {
            let mut done = 0;
            while done < frames {
                let order = largest_block(first + done, frames - done);
                new.push(zone_of(first + done), MOVABLE, Block { number: first + done, place: place + done, order });
                done += 1 << order;
            }
            new.free_frames += frames;
        }
        new
    }

    pub(super) fn free_frames(&self) -> u64 {
        self.free_frames
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes a single frame that moves out of any zone.
    #[inline(always)]
    pub(super) fn allocate_single(&mut self) -> Option<Pfn> {
        if self.singles.next == self.singles.end {
            self.refill()?;
        }
        let Singles { next, end, number } = self.singles;
        self.singles = Singles { next: next + 1, end, number: number + 1 };
        self.allocated.set(next, 1);
        self.free_frames -= 1;
        Some(Pfn::new(number))
    }

    #[inline(never)]
    fn refill(&mut self) -> Option<()> {
        let (next, order) = (0..ZONES).rev().find_map(|zone| {
            let from = |kind: usize| Some((kind, self.lists[zone][kind].smallest(0)?.min(SINGLES)));
            let (kind, order) = from(MOVABLE).or_else(|| from(UNMOVABLE))?;
            Some((self.take(zone, kind, order)?, order))
        })?;
        self.singles = Singles { next, end: next + (1 << order), number: self.stretches.frame_at(next).number() };
        Some(())
    }

    /// Takes a block of `1 << order` frames out of one of the lowest `zones` zones.
    #[inline(never)]
    pub(super) fn allocate(&mut self, order: u8, mobility: Zone, zones: usize) -> Option<Pfn> {
        if order > MAX_ORDER {
            return None;
        }
        let place = self.take_from_any(order, mobility, zones).or_else(|| {
            self.put_singles_back();
            self.take_from_any(order, mobility, zones)
        })?;
        self.allocated.set(place, 1 << order);
        self.free_frames -= 1 << order;
        Some(self.stretches.frame_at(place))
    }

    fn put_singles_back(&mut self) {
        let Singles { mut next, end, mut number } = core::mem::replace(&mut self.singles, Singles::NONE);
        while next < end {
            let order = largest_block(number, end - next);
            if let Some((&stretch, _)) = self.stretches.find(number) {
                self.merge(&stretch, Block { number, place: next, order });
            }
            (next, number) = (next + (1 << order), number + (1 << order));
        }
    }

    fn take_from_any(&mut self, order: u8, mobility: Zone, zones: usize) -> Option<u64> {
        (0..zones).rev().find_map(|zone| match mobility {
            Zone::Movable => self.take(zone, MOVABLE, order).or_else(|| self.take(zone, UNMOVABLE, order)),
            Zone::Unmovable => self
                .take(zone, UNMOVABLE, order)
                .or_else(|| self.take_a_group(zone, order))
                .or_else(|| self.take(zone, MOVABLE, order)),
        })
    }

    /// Takes a block off a list, the smallest that is large enough, and puts the rest of it back.
    fn take(&mut self, zone: usize, kind: usize, order: u8) -> Option<u64> {
        let found = self.lists[zone][kind].smallest(order)?;
        let place = self.lists[zone][kind].heads[usize::from(found)];
        self.remove(zone, kind, place, found);
        self.split(zone, kind, u64::from(place), found, order);
        Some(u64::from(place))
    }

    /// As `take` from what does not move, after a group was made so.
    #[cold]
    fn take_a_group(&mut self, zone: usize, order: u8) -> Option<u64> {
        let place = self.take(zone, MOVABLE, order.max(GROUP))?;
        if order < GROUP {
            self.notes[place as usize].unmovable = true;
            self.split(zone, UNMOVABLE, place, GROUP, order);
        }
        Some(place)
    }

    /// Puts the upper halves of the block at `place` on the list until a block of `order` is left.
    #[inline(always)]
    fn split(&mut self, zone: usize, kind: usize, place: u64, from: u8, order: u8) {
        for half in (order..from).rev() {
            self.link(zone, kind, (place + (1 << half)) as u32, half);
        }
    }

    /// Gives `1 << order` frames back. If they were not handed out, or are not one block by their alignment or since they lie in two
    /// zones, nothing is changed, and the refusal is counted.
    #[inline]
    pub(super) fn free(&mut self, frame: Pfn, order: u8) {
        if !self.try_free(frame, order) {
            self.refused += 1;
        }
    }

    /// As `free`; whether it was not refused. Nothing is counted.
    #[inline(never)]
    pub(super) fn try_free(&mut self, frame: Pfn, order: u8) -> bool {
        let number = frame.number();
        if order > MAX_ORDER || number & ((1 << order) - 1) != 0 {
            return false;
        }
        // On a list, such a block would hand out frames of the zone above.
        if order > IN_ONE_ZONE && zone_of(number) != zone_of(number | ((1 << order) - 1)) {
            return false;
        }
        let Some(&stretch) = self.stretches.find(number).map(|(stretch, _)| stretch) else { return false };
        let Some(place) = stretch.run(number, 1 << order) else { return false };
        if !self.allocated.clear(place, 1 << order) {
            return false;
        }
        self.free_frames += 1 << order;
        self.merge(&stretch, Block { number, place, order });
        true
    }

    /// Puts a block on its list, together with its buddy if that is free as a whole, and so on.
    #[inline(always)]
    fn merge(&mut self, stretch: &Stretch, mut block: Block) {
        let zone = zone_of(block.number);
        let group = self.group_of(stretch, block.number);
        let mut kind = if self.notes[group].unmovable { UNMOVABLE } else { MOVABLE };
        loop {
            if block.order >= GROUP && kind == UNMOVABLE {
                self.notes[group].unmovable = false;
                kind = MOVABLE;
            }
            let Some(buddy) = self.free_buddy(stretch, zone, block) else { break };
            self.remove(zone, kind, buddy.place as u32, block.order);
            let first = if buddy.number < block.number { buddy } else { block };
            block = Block { order: block.order + 1, ..first };
        }
        self.push(zone, kind, block);
    }

    /// The other half of the block of the next order, if it is a free block.
    #[inline(always)]
    fn free_buddy(&self, stretch: &Stretch, zone: usize, block: Block) -> Option<Block> {
        let number = block.number ^ (1 << block.order);
        // A block that begins in the stretch and is free is free as a whole, so it ends there as well.
        let place = stretch.run(number, 1)?;
        let is_free = block.order < MAX_ORDER && self.notes[place as usize].free == block.order + 1;
        (is_free && zone_of(number) == zone).then_some(Block { number, place, order: block.order })
    }

    /// The place of the note that says what the frame's group is for.
    #[inline(always)]
    fn group_of(&self, stretch: &Stretch, number: u64) -> usize {
        let first = Pfn::new(number).block_start(GROUP).number().max(stretch.first);
        (stretch.place + (first - stretch.first)) as usize
    }

    #[inline(always)]
    fn push(&mut self, zone: usize, kind: usize, block: Block) {
        self.link(zone, kind, block.place as u32, block.order);
    }

    #[inline(always)]
    fn link(&mut self, zone: usize, kind: usize, place: u32, order: u8) {
        let list = &mut self.lists[zone][kind];
        let next = core::mem::replace(&mut list.heads[usize::from(order)], place);
        list.filled |= 1 << order;
        if next != NONE {
            self.notes[next as usize].previous = place;
        }
        let note = &mut self.notes[place as usize];
        (note.previous, note.next, note.free) = (NONE, next, order + 1);
    }

    #[inline(always)]
    fn remove(&mut self, zone: usize, kind: usize, place: u32, order: u8) {
        let note = &mut self.notes[place as usize];
        let (previous, next) = (note.previous, note.next);
        note.free = 0;
        if next != NONE {
            self.notes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.notes[previous as usize].next = next;
            return;
        }
        let list = &mut self.lists[zone][kind];
        list.heads[usize::from(order)] = next;
        if next == NONE {
            list.filled &= !(1 << order);
        }
    }
}

/// The order of the largest block that begins at frame `number` and has at most `frames` frames (1 or more), all of one zone.
pub(super) fn largest_block(number: u64, frames: u64) -> u8 {
    let zone_end = ZONE_STARTS.into_iter().find(|&start| number < start).unwrap_or(u64::MAX);
    let most = frames.min(zone_end - number).min(1 << MAX_ORDER);
    let aligned = number.trailing_zeros().min(63) as u8;
    (most.ilog2() as u8).min(aligned)
}
