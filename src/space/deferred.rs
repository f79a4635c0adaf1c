//! Unmaps that a VMA's policy refuses or defers because of pinned pages.

use super::pinned::{find_pinned, first_pinned, wait_for_walks};
use super::protect::withdraw;
use super::vma_map::VmaMap;
use super::zap::reject_split_leaves;
use super::{EmptyTables, SpaceError, Unmapped, UserSpace, zap_pages};
use crate::addr::{PageAddr, UserRange};
use crate::env::Env;
use crate::paging::Tables;
use crate::primitive::{Ordering, safeguard};
use crate::vma::{Vma, VmaFlags};

/// A part of a VMA: first page and end.
type Part = (PageAddr, PageAddr);

/// The parts in `first..end` of the VMAs that are `wanted`.
fn parts(vmas: &VmaMap, (first, end): Part, wanted: fn(&Vma) -> bool) -> impl Iterator<Item = Part> + Clone + '_ {
    let wanted = vmas.touching(first, end).filter(move |vma| wanted(vma));
    wanted.map(move |vma| (vma.start().max(first), vma.end().min(end)))
}

fn refuses(vma: &Vma) -> bool {
    vma.flags().contains(VmaFlags::REFUSE_UNMAP_PINNED)
}

/// Pages of it that are pinned stay.
fn defers(vma: &Vma) -> bool {
    vma.flags().intersects(VmaFlags::DEFER_UNMAP_PINNED.union(VmaFlags::UNMAP_DEFERRED))
}

fn is_deferred(vma: &Vma) -> bool {
    vma.flags().contains(VmaFlags::UNMAP_DEFERRED)
}

/// Whether an unmap of `range` has to ask about pins.
pub(super) fn asks_about_pins(vmas: &VmaMap, range: UserRange) -> bool {
    parts(vmas, (range.first_page(), range.end_page()), |vma| refuses(vma) || defers(vma)).next().is_some()
}

/// Refuses to discard pinned pages by either policy: what is discarded comes back as something else, so there is nothing to defer.
pub(super) fn reject_pinned<K: Env>(tables: &Tables<'_, K>, vmas: &VmaMap, range: UserRange) -> Result<(), SpaceError> {
    let keeps = |vma: &Vma| refuses(vma) || (defers(vma) && !is_deferred(vma));
    let pinned = first_pinned(tables, parts(vmas, (range.first_page(), range.end_page()), keeps))?;
    pinned.map_or(Ok(()), |page| Err(SpaceError::Pinned(page)))
}

/// Whether a page of it is pinned.
fn is_pinned<K: Env>(tables: &Tables<'_, K>, vma: &Vma) -> Result<bool, SpaceError> {
    Ok(find_pinned(tables, core::iter::once((vma.start(), vma.end())))?.is_some())
}

impl<K: Env, C> UserSpace<K, C> {
    /// Unmaps a range in which some VMA [asks about pins](asks_about_pins). There is room for the change.
    pub(super) fn unmap_by_policy(&self, vmas: &mut VmaMap, range: UserRange) -> Result<Unmapped, SpaceError> {
        let (first, end) = (range.first_page(), range.end_page());
        // SAFETY: the mm lock is held for writing: the caller has the VMAs from it.
        let mut tables = unsafe { Tables::under_mm_lock(&self.mm) };
        reject_split_leaves(&tables, first, end)?;
        let refusing = parts(vmas, (first, end), refuses);
        if let Some(page) = first_pinned(&tables, refusing)? {
            return Err(SpaceError::Pinned(page));
        }
        // From here on nothing is refused. Nobody may access what is unmapped, now or when its pins are gone, and once the
        // walks of this moment have ended nobody else will pin it. So what is not pinned then can go.
        let mut withdrawn = false;
        for part in parts(vmas, (first, end), defers) {
            withdrawn |= withdraw(&mut tables, part);
        }
        if withdrawn {
            safeguard!(DeferralWaits; wait_for_walks(&tables, first));
        }
        let stays = |vma: &Vma| defers(vma) && is_pinned(&tables, vma) == Ok(true);
        vmas.change(first, end, |vma| stays(&vma).then(|| vma.with_unmap_deferred()));
        drop(tables);

        let mut unmapped = Unmapped::default();
        let mut next = first;
        for vma in vmas.touching(first, end) {
            let (start, stop) = (vma.start().max(first), vma.end().min(end));
            unmapped.deferred_pages += start.pages_to(stop);
            unmapped = unmapped.and(self.zap_between(next, start)?);
            next = stop;
        }
        unmapped = unmapped.and(self.zap_between(next, end)?);
        if unmapped.deferred_pages != 0 {
            self.deferrals.fetch_add(1, Ordering::Relaxed);
        }
        Ok(unmapped)
    }

    /// Unmaps the pages between, if there are any.
    fn zap_between(&self, first: PageAddr, end: PageAddr) -> Result<Unmapped, SpaceError> {
        if first >= end {
            return Ok(Unmapped::default());
        }
        // SAFETY: a part of a range that was checked; the caller holds the mm lock for writing.
        Ok(unsafe { zap_pages(&self.mm, UserRange::of_pages(first, end), EmptyTables::Free) }?)
    }

    /// Completes the unmaps that were [deferred](VmaFlags::DEFER_UNMAP_PINNED) and whose pages nobody has pinned any more;
    /// [`Unmapped::deferred_pages`] says how much still waits. Nothing calls this but the kernel: a release of a pin, which may come
    /// from an interrupt, takes no lock and tells nobody. A kernel calls it when a thread of the process enters or leaves, after
    /// completions, or by a timer; while nothing waits, that is one load. It holds the mm lock for one VMA at a time. The end of the address space
    /// completes everything.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// # let rw = Rights::READ | Rights::WRITE;
    /// space.map(0x10000, 8192, MapOptions::new(rw).flags(VmaFlags::DEFER_UNMAP_PINNED))?;
    /// let pinned = space.pin(Write, space.range(0x10000, 4096)?, [PhysRun::default(); 1]).unwrap();
    /// assert_eq!(space.unmap(0x10000, 8192)?.deferred_pages, 2);
    /// assert_eq!(space.map(0x10000, 4096, rw), Err(SpaceError::Overlap)); // the addresses are taken
    /// drop(pinned);
    /// assert_eq!(space.finish_deferred()?.pages, 1);
    /// assert_eq!(space.map(0x10000, 4096, rw), Ok(()));
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::Reentered`], `MalformedTable`.
    pub fn finish_deferred(&self) -> Result<Unmapped, SpaceError> {
        let mut unmapped = Unmapped::default();
        let deferrals = self.deferrals.load(Ordering::Relaxed);
        if deferrals == 0 {
            return Ok(unmapped);
        }
        let half = self.mm.levels().user_half().range();
        let (mut next, end) = (half.first_page(), half.end_page());
        loop {
            let mut vmas = self.vmas.write(self.env().extras())?;
            let Some(vma) = vmas.touching(next, end).find(|vma| is_deferred(vma)).copied() else { break };
            next = vma.end();
            // SAFETY: the mm lock is held for writing, through `vmas`.
            let tables = unsafe { Tables::under_mm_lock(&self.mm) };
            if is_pinned(&tables, &vma)? {
                unmapped.deferred_pages += vma.pages();
                continue;
            }
            drop(tables);
            unmapped = unmapped.and(self.zap_between(vma.start(), vma.end())?);
            vmas.change(vma.start(), vma.end(), |_| None);
        }
        if unmapped.deferred_pages == 0 {
            // If another unmap was deferred meanwhile, it is found next time.
            let _ = self.deferrals.compare_exchange(deferrals, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(unmapped)
    }
}
