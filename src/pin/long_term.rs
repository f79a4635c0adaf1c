//! Pins for as long as user space wants: of frames that may stay where they are, and of others once they have moved.
//!
//! A section of the range is pinned as usual, and then the kernel's source of frames is asked about each frame, which cannot go
//! any more. From the first on that may not stay, the section's pins are given back, the pages are relocated, and it is tried again, a bounded
//! number of times for each page: whoever pins or refers to one keeps it, and is named by the error.

use super::acquire::{MAX_FAULTS_PER_PAGE, Path, Wanted};
use super::release::release_run;
use super::run::Runs;
use super::walk::Stop;
use super::{PinAccess, PinError, PinFlags};
use crate::addr::{PageAddr, Pfn};
use crate::env::{AddressSpace, Env, FrameSource, FrameTable, Vmas, Zone};
use crate::fault::{Relocated, relocate_some};
use crate::frame::{Dirty, FrameKind};
use crate::paging::TableError;

/// How often an acquisition has tried to move the page at which it is.
#[derive(Default)]
pub(super) struct Moves {
    of: Option<PageAddr>,
    attempts: u32,
}

impl<S: AddressSpace + ?Sized> Wanted<'_, S> {
    /// The whole range, in frames that may stay where they are.
    #[cold]
    #[inline(never)]
    pub(super) fn acquire_for_long<A: PinAccess>(self, path: Path, runs: &mut Runs<'_>) -> Option<PinError> {
        if path != Path::Slow {
            let stop = match A::WRITES {
                true => self.acquire_fast::<true, true>(runs),
                false => self.acquire_fast::<false, true>(runs),
            };
            // Without its VMA nobody knows whether an object is written back.
            let frames = self.env().frames();
            let private = |frame| frames.frame(frame).is_some_and(|frame| frame.word.kind() == FrameKind::Anonymous);
            let all_stay = self.keep_what_may_stay(0, runs, |frame| !A::WRITES || private(frame));
            match stop {
                None if all_stay => return None,
                Some(Stop::Full) if all_stay => return Some(PinError::BufferTooSmall),
                Some(stop) if all_stay && path == Path::Fast && stop != Stop::Contended => return Some(stop.into()),
                _ if path == Path::Fast => return Some(PinError::WouldFault),
                _ => {}
            }
        }
        self.acquire_slow::<A, true, true>(runs)
    }

    /// Looks at what a section has pinned from `first` on, which ended with `stopped`, in the same section, and moves what may not stay. What
    /// stops the acquisition.
    #[cold]
    #[inline(never)]
    pub(super) fn move_what_may_not_stay(
        &self,
        vmas: &dyn Vmas,
        first: PageAddr,
        runs: &mut Runs<'_>,
        moves: &mut Moves,
        stopped: Option<PinError>,
    ) -> Option<PinError> {
        let before = self.range.first_page().pages_to(first);
        if self.keep_what_may_stay(before, runs, |_| true) {
            return stopped;
        }
        let page = self.range.first_page().offset(runs.pages());
        moves.attempts = if moves.of == Some(page) { moves.attempts + 1 } else { 1 };
        moves.of = Some(page);
        let is_last = moves.attempts == MAX_FAULTS_PER_PAGE;
        match self.make_stay(vmas, page, moves.attempts) {
            // It has moved, and others move it back, or the source finds no place good enough.
            Ok(()) if is_last => Some(PinError::Contended),
            Err(PinError::KeptByPin | PinError::KeptByReference | PinError::CannotMove) if !is_last => None,
            result => result.err(),
        }
    }

    /// Gives back what was collected after the first `before` pages from the first frame on that does not fit, or may not stay. False:
    /// there was one.
    pub(super) fn keep_what_may_stay(&self, before: u64, runs: &mut Runs<'_>, fits: impl Fn(Pfn) -> bool) -> bool {
        let source = self.env().source();
        let Some(first) = runs.first_unfit(before, |frame| source.may_stay(frame) && fits(frame)) else { return true };
        runs.roll_back(first, |run| release_run::<S::Kernel, true>(self.env(), &run, Dirty::No));
        false
    }

    /// Moves `page`, which the mm has where it may not stay, and on the first attempt what follows it. The caller is inside a section of
    /// the mm lock in which `vmas` are looked at.
    fn make_stay(&self, vmas: &dyn Vmas, page: PageAddr, attempt: u32) -> Result<(), PinError> {
        if self.flags.contains(PinFlags::NOFAULT) {
            return Err(PinError::WouldFault);
        }
        let vma = vmas.vma_at(page).filter(|vma| vma.backing().is_private()).ok_or(PinError::CannotMove)?;
        let end = if attempt == 1 { vma.end().min(self.range.end_page()) } else { page.offset(1) };
        let (mm, source) = (self.space.mm(), self.env().source());
        let mut out = Relocated::default();
        let leaves = |frame| !source.may_stay(frame);
        // SAFETY: the part lies in a private VMA, of which the caller holds the lock.
        let moved = unsafe { relocate_some(mm, (page, end), Zone::Unmovable, leaves, &mut out) };
        match (moved, out) {
            (_, Relocated { pages: 1.., .. }) => Ok(()),
            (_, Relocated { pinned_pages: 1.., .. }) => Err(PinError::KeptByPin),
            (_, Relocated { shared_pages: 1.., .. }) => Err(PinError::KeptByReference),
            (Err(TableError::NoMemory), _) => Err(PinError::NoPinnableMemory),
            (Err(error), _) => Err(error.into()),
            (Ok(_), _) => Err(PinError::CannotMove),
        }
    }
}
