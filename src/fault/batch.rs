//! Copies for a pin of many pages: one flush for all of them, and frames that are born pinned.
//!
//! As [`copy`](super::resolve) for each page, in the same order: prepared with nothing owned, then owned from what was seen, by
//! trying alone, then flushed, then published. Whoever is refused an entry publishes those it has and gives the other copies
//! back; so nobody waits for an entry while it owns one. The word of each copy is made with the pin in it, so no second walk
//! has to count it.

use super::resolve::{FrameRef, Unresolved, frame_for, hold, observe, observe_anonymous};
use super::{Action, Request, State, decide};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{self, Entry, LeafSize, Level};
use crate::env::{Env, FrameTable, Mm, born_pinned, release};
use crate::frame::{Dirty, Layout, PageFrame};
use crate::paging::{Slot, Tables};
use crate::vma::Terms;

/// The most pages for which others wait at a time. Also what bounds the stack that a pin needs.
const MOST: usize = 64;

/// Copies and pins the pages of `vma` from `page` on, as many as need a copy for `request`, at most `most` and to the end of a
/// table; hands each copy to `pinned`, in order. 0: the first page needs something else, or is another CPU's by now.
///
/// The caller holds the mm lock (for reading).
///
/// # Errors
/// [`Unresolved::NoMemory`]: for the page behind those that were handed over.
#[inline(never)]
pub(crate) fn copy_pinned<K: Env>(
    mm: &Mm<K>,
    vma: Terms,
    page: PageAddr,
    most: u64,
    request: Request,
    pinned: impl FnMut(Pfn),
) -> Result<u64, Unresolved> {
    // SAFETY: the caller is inside a section of the mm lock, from which it has the VMA.
    let mut tables = unsafe { Tables::under_mm_lock(mm) };
    let Some(first) = tables.find_lowest(page) else { return Ok(0) };
    if to_copy(mm.env(), &first, vma, request).is_none() {
        return Ok(0);
    }
    let mut copies = Copies::new(mm.env());
    let most = most.min(arch::ENTRIES - Level::LOWEST.index(page.address())).min(MOST as u64);
    let mut failed = None;
    for index in 0..most {
        let (at, page) = (first.at.offset(index), page.offset(index));
        let slot = Slot { at, entry: tables.load(at), page, ..first };
        match copies.prepare(&tables, slot, vma, request) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    // SAFETY: the places were found under this lock, in one table, and held leaves; published here and now.
    let broken = unsafe { tables.break_run(first.at, page, &mut copies.seen[..copies.prepared]) };
    let taken = broken.count();
    // SAFETY: each copy has a reference for its entry, and is exclusive.
    unsafe { broken.flush().publish(&copies.new) };
    copies.hand_over(taken, pinned);
    match failed {
        Some(error) if taken == copies.prepared => Err(error),
        _ => Ok(taken as u64),
    }
}

/// The frame that `slot` maps, if `request` needs a copy of it, and whether that is to be writable. No frame: the zero frame.
#[inline(always)]
fn to_copy<'k, K: Env>(
    env: &'k K,
    slot: &Slot,
    vma: Terms,
    request: Request,
) -> Option<(Option<FrameRef<'k, K>>, bool)> {
    let (state, frame) = match observe_anonymous(env, slot) {
        Some((frame, view)) => (State::Anonymous { writable: slot.entry.is_writable(), frame: view }, Some(frame)),
        // Errors are for who looks at the page by itself.
        None => observe(env, slot).ok().flatten()?,
    };
    match decide(state, vma, request) {
        Action::Copy { writable } => Some((frame, writable)),
        _ => None,
    }
}

/// The frame whose word counts what a leaf maps, which is held: its own, or the head of the block that it is a part of.
#[inline(always)]
fn head<L: Layout>(leaf: &Entry, counted: &PageFrame<L>) -> Pfn {
    let frame = leaf.leaf_frame(LeafSize::Size4KiB);
    if leaf.is_borrowed() { frame.block_start(counted.word.order()) } else { frame }
}

/// Copies that are to take their originals' places, side by side. Dropped, those that did not are given back.
struct Copies<'k, K: Env> {
    env: &'k K,
    /// What the entries were, and are to be.
    seen: [Entry; MOST],
    new: [Entry; MOST],
    /// What is copied, with a plain reference each. `None`: zeroes are.
    originals: [Option<FrameRef<'k, K>>; MOST],
    prepared: usize,
    handed_over: usize,
}

impl<'k, K: Env> Copies<'k, K> {
    #[inline(always)]
    fn new(env: &'k K) -> Self {
        let (seen, new, originals) = ([Entry::EMPTY; MOST], [Entry::EMPTY; MOST], [None; MOST]);
        Self { env, seen, new, originals, prepared: 0, handed_over: 0 }
    }

    /// A copy of what `slot` maps. `false`: it needs none, or has changed.
    #[inline(always)]
    fn prepare(
        &mut self,
        tables: &Tables<'k, K>,
        slot: Slot,
        vma: Terms,
        request: Request,
    ) -> Result<bool, Unresolved> {
        let Some((frame, writable)) = to_copy(self.env, &slot, vma, request) else { return Ok(false) };
        let original = match frame {
            None => None,
            Some(frame) if hold(tables, &slot, frame).is_err() => return Ok(false),
            Some(_) => Some(slot.entry.leaf_frame(LeafSize::Size4KiB)),
        };
        // SAFETY: the reference keeps the original allocated.
        let Some(copy) = (unsafe { born_pinned(self.env, original, frame_for(vma, LeafSize::Size4KiB).zone) }) else {
            if let Some(frame) = frame {
                release(self.env, head(&slot.entry, frame), frame.word.put());
            }
            return Err(Unresolved::NoMemory);
        };
        self.seen[self.prepared] = slot.entry;
        self.new[self.prepared] = slot.entry.of_copy(copy, LeafSize::Size4KiB, writable);
        self.originals[self.prepared] = frame;
        self.prepared += 1;
        Ok(true)
    }

    /// The first `published` are in their places: what was there goes, and the pins are the caller's.
    #[inline(always)]
    fn hand_over(&mut self, published: usize, mut pinned: impl FnMut(Pfn)) {
        self.handed_over = published;
        for ((seen, new), frame) in self.seen.iter().zip(&self.new).zip(&self.originals).take(published) {
            if let Some(frame) = frame {
                let head = head(seen, frame);
                release(self.env, head, frame.word.put_mapping_and_ref(Dirty::when(seen.is_dirty())));
            }
            pinned(new.leaf_frame(LeafSize::Size4KiB));
        }
    }

    #[cold]
    fn give_back(&mut self) {
        for index in self.handed_over..self.prepared {
            if let Some(frame) = self.originals[index] {
                release(self.env, head(&self.seen[index], frame), frame.word.put());
            }
            let copy = self.new[index].leaf_frame(LeafSize::Size4KiB);
            if let Some(frame) = self.env.frames().frame(copy) {
                release(self.env, copy, frame.word.put());
                release(self.env, copy, frame.word.unpin(Dirty::No));
            }
        }
    }
}

impl<K: Env> Drop for Copies<'_, K> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.handed_over != self.prepared {
            self.give_back();
        }
    }
}
