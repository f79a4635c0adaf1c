//! Unmaps that a VMA's policy refuses or defers because of pinned pages.

use super::objects::tell_unmapped;
use super::pinned::{find_pinned, wait_for_walks};
use super::protect::withdraw;
use super::steps::Held;
use super::vma_map::VmaMap;
use super::zap::split_edges;
use super::{SpaceError, Unmapped, UserSpace};
use crate::addr::{PageAddr, UserRange};
use crate::env::Env;
use crate::primitive::{Ordering, safeguard};
use crate::vma::{Vma, VmaFlags};

/// A part of a VMA: first page and end.
type Part = (PageAddr, PageAddr);

/// The parts in `first..end` of the VMAs that are `wanted`.
fn parts(vmas: &VmaMap, (first, end): Part, wanted: fn(&Vma) -> bool) -> impl Iterator<Item = Part> + Clone + '_ {
    let wanted = vmas.touching(first, end).filter(move |vma| wanted(vma));
    wanted.map(move |vma| (vma.start().max(first), vma.end().min(end)))
}

/// The first part of `whole` that waits.
fn first_waiting(vmas: &VmaMap, whole: Part) -> Option<Part> {
    parts(vmas, whole, is_deferred).next()
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

/// Whether it keeps pinned pages from a discard: by either policy, since what is discarded comes back as something else, so that
/// there is nothing to defer.
pub(super) fn keeps_pinned(vma: &Vma) -> bool {
    refuses(vma) || (defers(vma) && !is_deferred(vma))
}

impl<K: Env, C> UserSpace<K, C> {
    /// Unmaps a range in which some VMA [asks about pins](asks_about_pins).
    pub(super) fn unmap_by_policy<'a>(
        &'a self,
        held: Held<'a, K>,
        first: PageAddr,
        end: PageAddr,
    ) -> Result<Unmapped, SpaceError> {
        let mut held = self.reject_pinned(held, (first, end), refuses)?;
        split_edges(&mut self.tables(&held), first, end)?;
        held.make_room_to_change(first, end)?;
        if parts(&held, (first, end), defers).next().is_none() {
            return self.take_out_in_steps(held, first, end);
        }
        held.leave(first, end)?;
        // From here on nothing is refused. Nobody may access what is unmapped, now or when its pins are gone, and once the
        // walks of this moment have ended nobody else will pin it. So what is not pinned then can go.
        held.begin_deferral();
        tell_unmapped(self.env(), held.touching(first, end).filter(|vma| !defers(vma)), (first, end));
        held.change(first, end, |vma| defers(&vma).then(|| vma.with_unmap_deferred()));
        let (mut next, mut unmapped) = (first, Unmapped::default());
        loop {
            // Nobody maps anything here, so all VMAs that are left wait.
            let waiting = first_waiting(&held, (next, end));
            match waiting {
                Some((start, stop)) if start == next => next = withdraw(&mut self.tables(&held), start, stop),
                _ => {
                    let stop = waiting.map_or(end, |(start, _)| start);
                    let zapped;
                    (held, zapped) = self.zap_in_steps(held, next, stop)?;
                    (next, unmapped) = (stop, unmapped.and(zapped));
                }
            }
            if next >= end {
                break;
            }
            held = self.step_aside(held)?;
        }
        safeguard!(DeferralWaits; wait_for_walks(&self.tables(&held), first));
        held.end_deferral();
        let finished = self.finish_in(held, (first, end));
        self.hold()?.left(first, end);
        let finished = finished?;
        if finished.deferred_pages != 0 {
            self.deferrals.fetch_add(1, Ordering::Relaxed);
        }
        Ok(unmapped.and(finished))
    }

    /// Completes the unmaps in `whole` that wait, were withdrawn, and need not wait any more.
    fn finish_in<'a>(&'a self, mut held: Held<'a, K>, whole: Part) -> Result<Unmapped, SpaceError> {
        let (mut next, end) = whole;
        let (mut unmapped, mut looked) = (Unmapped::default(), None);
        while let Some(part) = first_waiting(&held, (next, end)) {
            // Nobody pins what waits. So a page without pins stays without, and a look may take steps, as long as this is one part.
            let from = looked.filter(|(of, _)| *of == part).map_or(part.0, |(_, reached)| reached);
            let (pinned, reached) = find_pinned(&self.tables(&held), from, part.1)?;
            if pinned.is_none() && reached < part.1 {
                looked = Some((part, reached));
            } else {
                next = part.1;
                // Where an end of the range cuts a VMA, and there is no room for two, it waits as a whole.
                if pinned.is_some() || held.make_room_to_change(part.0, part.1).is_err() {
                    unmapped.deferred_pages += part.0.pages_to(part.1);
                } else {
                    unmapped = unmapped.and(self.take_out_in_steps(held, part.0, part.1)?);
                    held = self.hold()?;
                    continue;
                }
            }
            held = self.step_aside(held)?;
        }
        Ok(unmapped)
    }

    /// Completes the unmaps that were [deferred](VmaFlags::DEFER_UNMAP_PINNED) and whose pages nobody has pinned any more;
    /// [`Unmapped::deferred_pages`] says how much still waits. Nothing calls this but the kernel: a release of a pin, which may come
    /// from an interrupt, takes no lock and tells nobody. A kernel calls it when a thread of the process enters or leaves, after
    /// completions, or by a timer; while nothing waits, that is one load. It leaves the mm lock between VMAs, and between steps of a long one; while another thread defers an unmap, it
    /// completes nothing. The end of the address space
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
        let deferrals = self.deferrals.load(Ordering::Relaxed);
        if deferrals == 0 {
            return Ok(Unmapped::default());
        }
        let half = self.mm.levels().user_half().range();
        let whole = (half.first_page(), half.end_page());
        let held = self.hold()?;
        if held.is_deferring() {
            // Some of what waits may be pinned by its entries yet.
            let deferred_pages = parts(&held, whole, is_deferred).map(|(first, end)| first.pages_to(end)).sum();
            return Ok(Unmapped { deferred_pages, ..Unmapped::default() });
        }
        let unmapped = self.finish_in(held, whole)?;
        if unmapped.deferred_pages == 0 {
            // If another unmap was deferred meanwhile, it is found next time.
            let _ = self.deferrals.compare_exchange(deferrals, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(unmapped)
    }
}
