//! Long operations of a [`UserSpace`], in steps: between two of them the mm lock is free, so that nobody waits
//! for it longer than one takes, however long the range is and however many VMAs it has.
//!
//! What fits into one step is done as a whole, and what cannot be done is refused before the first. Of what does not fit, others may
//! see some done and the rest not yet:
//!
//! - *Unmap.* The VMAs go in the first step, all together. From then on faults, slow pins and fork find nothing there; threads may go
//!   on using a page by its entry until its step. The addresses stay taken until the last page has gone, so that nobody maps
//!   anything there meanwhile ([`VmaMap::leave`]).
//! - *Protect, advise.* From the lowest page up; each page changes together with its VMA, which is two VMAs meanwhile.
//! - *Discard.* From the lowest page up. What is mapped there at the time of a step is discarded.
//! - *Map of foreign memory.* From the lowest page up; its range is taken from the beginning, and its VMA comes last.
//! - *Move.* From the lowest page up; each page moves together with its VMA. Both ranges are taken from the beginning, and the tables made
//!   before.
//! - *A look for pins* that forbid it comes before all of these. A pin that is taken meanwhile comes before or after.

use super::deferred;
use super::mm_lock::Section;
use super::pinned::first_pinned_of_some;
use super::protect::change_rights;
use super::vma_map::VmaMap;
use super::zap::{Zap, reject_some, split_edges};
use super::{EmptyTables, MOST_PLACES, SpaceError, Unmapped, UserSpace};
use crate::addr::{PageAddr, UserRange};
use crate::arch::{Entry, LeafSize};
use crate::env::Env;
use crate::paging::{Cursor, TableError, Tables};
use crate::primitive::{ReadWrite, RwLock};
use crate::rights::Rights;
use crate::vma::{Vma, VmaError, VmaFlags};

/// Most VMAs that one step changes.
pub(super) const MOST_VMAS: usize = 1 << 12;
/// Most stretches of pages that one step flushes.
const MOST_PARTS: usize = 32;

/// The VMAs, with the mm lock held alone.
pub(super) type Held<'a, K> =
    Section<'a, <RwLock<VmaMap, <K as Env>::Relax> as ReadWrite>::Writing<'a>, <K as Env>::Extras>;

impl<K: Env, C> UserSpace<K, C> {
    pub(super) fn hold(&self) -> Result<Held<'_, K>, SpaceError> {
        Ok(self.vmas.write(self.env().extras())?)
    }

    /// Lets others have the lock.
    pub(super) fn step_aside<'a>(&'a self, held: Held<'a, K>) -> Result<Held<'a, K>, SpaceError> {
        drop(held);
        self.hold()
    }

    /// The tables, as long as the lock is held that the VMAs are behind.
    pub(super) fn tables<'h>(&'h self, _: &'h VmaMap) -> Tables<'h, K> {
        // SAFETY: the mm lock is held for writing, for as long as the VMAs are borrowed, which are this space's: they come from `hold`.
        unsafe { Tables::under_mm_lock(&self.mm) }
    }

    /// Looks in the tables for what makes an operation on the whole range impossible, and splits large leaves at its edges.
    pub(super) fn checked<'a>(
        &'a self,
        mut held: Held<'a, K>,
        first: PageAddr,
        end: PageAddr,
    ) -> Result<Held<'a, K>, SpaceError> {
        let mut cursor = Cursor::new(first, end);
        while !reject_some(&self.tables(&held), &mut cursor)? {
            held = self.step_aside(held)?;
        }
        split_edges(&mut self.tables(&held), first, end)?;
        Ok(held)
    }

    pub(super) fn unmap_in_steps(&self, range: UserRange) -> Result<Unmapped, SpaceError> {
        let (first, end) = (range.first_page(), range.end_page());
        let mut held = self.checked(self.hold()?, first, end)?;
        held.make_room_to_change(first, end)?;
        if deferred::asks_about_pins(&held, range) {
            return self.unmap_by_policy(held, first, end);
        }
        self.take_out_in_steps(held, first, end)
    }

    /// Takes the VMAs of a range out, for which there is room, and its pages.
    pub(super) fn take_out_in_steps<'a>(
        &'a self,
        mut held: Held<'a, K>,
        first: PageAddr,
        end: PageAddr,
    ) -> Result<Unmapped, SpaceError> {
        let mut zap = Zap::new(first, end, EmptyTables::Free);
        self.tell_unmapped(&held, first, end);
        held.take_out(first, end);
        let mut taken = zap.step(&self.tables(&held), self.env());
        let mut unmapped = Unmapped::default();
        if !zap.is_done() && held.leave(first, end).is_err() {
            // Nobody could be told to keep away: so nobody comes in.
            while !zap.is_done() {
                unmapped = unmapped.and(taken.release());
                taken = zap.step(&self.tables(&held), self.env());
            }
        }
        drop(held);
        unmapped = unmapped.and(taken.release());
        while !zap.is_done() {
            let mut held = self.hold()?;
            let taken = zap.step(&self.tables(&held), self.env());
            if zap.is_done() {
                held.left(first, end);
            }
            drop(held);
            unmapped = unmapped.and(taken.release());
        }
        Ok(unmapped)
    }

    /// Takes the pages of a range out that [leaves](VmaMap::leave), and at least once steps aside.
    pub(super) fn zap_in_steps<'a>(
        &'a self,
        mut held: Held<'a, K>,
        first: PageAddr,
        end: PageAddr,
    ) -> Result<(Held<'a, K>, Unmapped), SpaceError> {
        let (mut zap, mut unmapped) = (Zap::new(first, end, EmptyTables::Free), Unmapped::default());
        while !zap.is_done() {
            let taken = zap.step(&self.tables(&held), self.env());
            drop(held);
            unmapped = unmapped.and(taken.release());
            held = self.hold()?;
        }
        Ok((held, unmapped))
    }

    /// Maps foreign memory: `vma` is there when all of its entries are, and until then its addresses are nobody else's.
    ///
    /// # Safety
    /// Each page may have the entry that `entry` makes for it: special, of 4 KiB.
    pub(super) unsafe fn map_in_steps(&self, vma: Vma, entry: impl Fn(u64) -> Entry) -> Result<(), SpaceError> {
        let (first, end) = (vma.start(), vma.end());
        let mut held = self.hold()?;
        held.make_room(&vma)?;
        held.leave(first, end)?;
        let mut filled = 0;
        let result = loop {
            let stop = (filled + MOST_PLACES).min(vma.pages());
            let mut tables = self.tables(&held);
            let result = (filled..stop).try_for_each(|index| {
                // SAFETY: the range was checked against this mm's levels; the place is of this size; the caller vouches for the entry,
                // which owns no reference. No VMA contains the page and nobody else maps anything there, so nothing is.
                unsafe {
                    let at = tables.place(first.offset(index), LeafSize::Size4KiB)?;
                    tables.fill(at, LeafSize::Size4KiB, entry(index)).map_err(|_| TableError::Malformed)?;
                }
                filled = index + 1;
                Ok::<_, TableError>(())
            });
            drop(tables);
            // Others may have taken the room meanwhile.
            let result = result.map_err(SpaceError::from);
            match result.and_then(|()| if filled == vma.pages() { held.reserve(&[first]) } else { Ok(()) }) {
                Ok(()) if filled < vma.pages() => held = self.step_aside(held)?,
                result => break result,
            }
        };
        if result.is_err() {
            held = self.zap_in_steps(held, first, first.offset(filled))?.0;
        }
        held.left(first, end);
        if result.is_ok() {
            held.insert(vma);
        }
        result
    }

    pub(super) fn discard_in_steps(&self, range: UserRange) -> Result<Unmapped, SpaceError> {
        let held = self.hold()?;
        let whole = (range.first_page(), range.end_page());
        let held = self.by_part(held, whole, is_forgotten, |tables, (first, end)| {
            let mut cursor = Cursor::new(first, end);
            let done = reject_some(tables, &mut cursor)?;
            Ok(if done { end } else { cursor.reached() })
        })?;
        let held = self.reject_pinned(held, whole, deferred::keeps_pinned)?;
        let mut unmapped = Unmapped::default();
        self.by_part(held, whole, is_forgotten, |tables, (first, end)| {
            split_edges(tables, first, end)?;
            let mut zap = Zap::new(first, end, EmptyTables::Keep);
            unmapped = unmapped.and(zap.step(tables, self.env()).release());
            Ok(zap.reached())
        })?;
        Ok(unmapped)
    }

    /// Refuses pinned pages in `whole` of VMAs that `keep` them.
    pub(super) fn reject_pinned<'a>(
        &'a self,
        held: Held<'a, K>,
        whole: (PageAddr, PageAddr),
        keep: impl Fn(&Vma) -> bool,
    ) -> Result<Held<'a, K>, SpaceError> {
        self.by_part(held, whole, keep, |tables, (first, end)| match first_pinned_of_some(tables, first, end)? {
            (Some(page), _) => Err(SpaceError::Pinned(page)),
            (None, reached) => Ok(reached),
        })
    }

    /// Runs `work` for each stretch of `wanted` VMAs of the range. It says how far it came; if that is not the end, it has done
    /// enough for one step.
    fn by_part<'a>(
        &'a self,
        mut held: Held<'a, K>,
        (mut next, end): (PageAddr, PageAddr),
        wanted: impl Fn(&Vma) -> bool,
        mut work: impl FnMut(&mut Tables<'_, K>, (PageAddr, PageAddr)) -> Result<PageAddr, SpaceError>,
    ) -> Result<Held<'a, K>, SpaceError> {
        loop {
            let mut pages = 0;
            for _ in 0..MOST_PARTS {
                let Some(part) = held.next_part(next, end, MOST_VMAS, &wanted) else { return Ok(held) };
                next = work(&mut self.tables(&held), part)?;
                if next >= end {
                    return Ok(held);
                }
                pages += part.0.pages_to(next);
                if next < part.1 || pages >= MOST_PLACES {
                    break;
                }
            }
            held = self.step_aside(held)?;
        }
    }

    /// Replaces each VMA of the range, which has no holes, by what `change` makes of it, and gives its pages these rights. Nothing is
    /// changed if a page is pinned in a VMA that `keeps` it.
    pub(super) fn change_in_steps(
        &self,
        range: UserRange,
        rights: Option<Rights>,
        keeps: impl Fn(&Vma) -> bool,
        change: impl Fn(Vma) -> Result<Vma, VmaError>,
    ) -> Result<(), SpaceError> {
        let (first, end) = (range.first_page(), range.end_page());
        let held = self.may_change(self.hold()?, (first, end), &change)?;
        let held = self.checked(held, first, end)?;
        let mut held = self.reject_pinned(held, (first, end), keeps)?;
        let mut next = first;
        loop {
            let mut stop = end_of_some_vmas(&held, next, end);
            // Each look before may have taken steps, and so has what was changed already.
            reject_change(&held, (next, stop), &change)?;
            if rights.is_some() {
                stop = end_of_some(&self.tables(&held), next, stop);
            }
            held.make_room_to_change(next, stop)?;
            if let Some(rights) = rights {
                change_rights(&mut self.tables(&held), held.touching(next, stop), (next, stop), rights)?;
            }
            held.change(next, stop, |vma| Some(change(vma).unwrap_or(vma)));
            next = stop;
            if next >= end {
                return Ok(());
            }
            held = self.step_aside(held)?;
        }
    }

    /// Looks in steps whether all VMAs of a range, which has no holes, can be changed.
    fn may_change<'a>(
        &'a self,
        mut held: Held<'a, K>,
        (mut next, end): (PageAddr, PageAddr),
        change: impl Fn(Vma) -> Result<Vma, VmaError>,
    ) -> Result<Held<'a, K>, SpaceError> {
        loop {
            let stop = end_of_some_vmas(&held, next, end);
            reject_change(&held, (next, stop), &change)?;
            if stop >= end {
                return Ok(held);
            }
            next = stop;
            held = self.step_aside(held)?;
        }
    }
}

/// Where the VMAs end, from `first` on, that one step looks at or changes.
fn end_of_some_vmas(vmas: &VmaMap, first: PageAddr, end: PageAddr) -> PageAddr {
    vmas.touching(first, end).nth(MOST_VMAS).map_or(end, |vma| vma.start().min(end))
}

/// Refuses what has holes, and VMAs that cannot be changed like that.
fn reject_change(
    vmas: &VmaMap,
    (first, end): (PageAddr, PageAddr),
    change: impl Fn(Vma) -> Result<Vma, VmaError>,
) -> Result<(), SpaceError> {
    if !vmas.covers(first, end) {
        return Err(SpaceError::NoVma);
    }
    Ok(vmas.touching(first, end).try_for_each(|vma| change(*vma).map(drop))?)
}

/// Where the places of leaves end, from `first` on, that one step visits.
pub(super) fn end_of_some<K: Env>(tables: &Tables<'_, K>, first: PageAddr, end: PageAddr) -> PageAddr {
    let (mut cursor, mut places) = (Cursor::new(first, end), 0);
    while let Ok(Some(chunk)) = cursor.next_chunk(tables) {
        places += chunk.cost();
        if places >= MOST_PLACES {
            return chunk.end().min(end);
        }
    }
    end
}

/// Whether its pages can be forgotten.
fn is_forgotten(vma: &Vma) -> bool {
    !vma.backing().is_foreign() && !vma.flags().contains(VmaFlags::UNMAP_DEFERRED)
}
