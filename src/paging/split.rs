//! Splitting a large leaf: a table of smaller leaves takes its place, and each says of its part what the leaf said.
//!
//! Break, decide, flush, publish, as for any other change ([`replace`](super::replace)). What a part holds is decided while the entry is owned,
//! by whose the block is:
//!
//! - *This mm's own* ([`FrameWord::try_split`](crate::frame::FrameWord::try_split)): the block is split with the leaf, pinned or not, and each
//!   part has a word of its own from then on.
//! - *Shared*: the block stays one, since others map it as one. Each part is borrowed from it, and holds a reference to its head.
//! - *Not counted* (foreign memory): nobody's word says anything about it.

use super::{Slot, TableError, Tables};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{self, Entry, LeafSize};
use crate::env::{EntryAddr, Env, FrameTable, OwnedFrame, PhysMap, counted_frame, is_part};
use crate::frame::CountError;

impl<K: Env> Tables<'_, K> {
    /// Splits large leaves until none that maps `page` reaches over an edge of `first..end`, in which the page lies.
    ///
    /// # Errors
    /// [`TableError`]: what was split so far stays so, which changes nothing that anybody can see but in the tables.
    pub(crate) fn split_edge(&mut self, page: PageAddr, (first, end): (PageAddr, PageAddr)) -> Result<(), TableError> {
        // Bounded under the exclusive lock: each round is about a smaller leaf.
        loop {
            let slot = self.find(page)?;
            let start = slot.first_page();
            if start >= first && start.offset(slot.size().pages()) <= end {
                return Ok(());
            }
            self.split_leaf(slot)?;
        }
    }

    /// Splits the large leaf at `slot`, which was found under this lock, into leaves of the next smaller size. False: it is not what was seen any more.
    ///
    /// # Errors
    /// [`TableError::NoMemory`]. [`TableError::LargeLeaf`]: it maps what cannot be split: an object's or a driver's block, frames that are no
    /// block, one whose count is at its limit. [`TableError::Malformed`]. Nothing was changed.
    #[cold]
    pub(crate) fn split_leaf(&mut self, slot: Slot) -> Result<bool, TableError> {
        let (env, size) = (self.env(), slot.size());
        let table = OwnedFrame::table(env).ok_or(TableError::NoMemory)?;
        // SAFETY: the slot was found under this lock, and holds a leaf; published here and now.
        let Some(broken) = (unsafe { self.break_leaf(slot) }) else { return Ok(false) };
        let part = match first_part(env, broken.entry(), size) {
            Ok(part) => part,
            Err(error) => {
                broken.restore();
                return Err(error);
            }
        };
        fill(env.phys_map(), table.frame(), part, size.part_size().pages());
        // SAFETY: the table maps what the leaf did, with the same rights, by leaves that have the references which the leaf had, or as many
        // of their own.
        unsafe { broken.flush().publish_table(table) };
        Ok(true)
    }
}

/// The first of the leaves that take the place of `leaf`, which the caller has taken: the others say the same of the frames behind it, and what all
/// of them hold is counted.
fn first_part<K: Env>(env: &K, leaf: Entry, size: LeafSize) -> Result<Entry, TableError> {
    let part = leaf.first_part(size);
    if !leaf.is_counted() {
        return Ok(part);
    }
    let (head, frame) = counted_frame(env, leaf, size).ok_or(TableError::Malformed)?;
    let part_of_larger = is_part(leaf, size, frame);
    if !part_of_larger && frame.word.is_own_or_claimed() {
        let (order, count) = (size.part_size().order(), arch::ENTRIES);
        let split = match env.frames().run(head, size.pages()) {
            Some(frames) => frame.word.try_split(order, |part| frames.get(part << order).map(|frame| &frame.word)),
            None => frame.word.try_split(order, |part| {
                let frame = env.frames().frame(head.offset((part as u64) << order));
                frame.filter(|_| (part as u64) < count).map(|frame| &frame.word)
            }),
        };
        return split.map(|()| part).map_err(|error| match error {
            CountError::InUse => TableError::Malformed,
            _ => TableError::LargeLeaf,
        });
    }
    // A block that the leaf is a part of may be larger.
    let order = if part_of_larger { frame.word.order() } else { size.order() };
    frame.word.try_get_parts(arch::ENTRIES - 1, order).map_err(|_| TableError::LargeLeaf)?;
    Ok(part.borrowed())
}

/// Fills a table that nobody knows with leaves of which `part` is the first, and each has `pages`.
///
/// Outlined: see `take_entries` of the walker. The map's fields stay in registers across the loop only if the map is an argument.
#[inline(never)]
fn fill<P: PhysMap>(map: &P, table: Pfn, part: Entry, pages: u64) {
    let mut entry = part;
    for index in 0..arch::ENTRIES {
        // SAFETY: the table was just allocated, and is the caller's.
        unsafe { map.store_entry(EntryAddr::new(table, index), entry) };
        entry = entry.further(pages);
    }
}
