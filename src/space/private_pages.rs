//! Operations on the private pages of a range that go on beside faults and pins: with the mm lock held shared, some pages at a time.

use super::{SpaceError, UserSpace};
use crate::addr::{PageAddr, UserRange};
use crate::arch::{Entry, LeafSize};
use crate::env::{Env, Mm, counted_frame};
use crate::frame::FrameKind;
use crate::vma::{Vma, VmaFlags};

/// Whether pages of it are a process's own to keep elsewhere: it is private, and no unmap of it waits.
pub(super) fn is_private(vma: &Vma) -> bool {
    vma.backing().is_private() && !vma.flags().contains(VmaFlags::UNMAP_DEFERRED)
}

/// Whether a leaf that is marked as borrowed is this mm's own after all, and unpinnable.
pub(super) fn maps_anonymous<K: Env>(env: &K, leaf: Entry) -> bool {
    let counted = if leaf.is_counted() { counted_frame(env, leaf, LeafSize::Size4KiB) } else { None };
    counted.is_some_and(|(_, frame)| frame.word.kind() == FrameKind::Anonymous)
}

impl<K: Env, C> UserSpace<K, C> {
    /// Runs `work` for one part of a VMA that is `wanted` after the other, each time in a section of its own in which the mm lock is held,
    /// shared, and the part lies in such a VMA of this mm. It says how far it came; nothing, if that was enough.
    pub(super) fn for_parts(
        &self,
        (start, length): (u64, u64),
        wanted: impl Fn(&Vma) -> bool,
        mut work: impl FnMut(&Mm<K>, (PageAddr, PageAddr)) -> Result<Option<PageAddr>, SpaceError>,
    ) -> Result<(), SpaceError> {
        let range = UserRange::pages_only(self.mm.levels().user_half(), start, length)?;
        let (mut next, end) = (range.first_page(), range.end_page());
        while next < end {
            let vmas = self.vmas.read(self.env().extras())?;
            let Some(vma) = vmas.touching(next, end).next() else { break };
            let (first, stop) = (vma.start().max(next), vma.end().min(end));
            let reached = if wanted(vma) { work(&self.mm, (first, stop))? } else { Some(stop) };
            let Some(reached) = reached else { break };
            next = reached;
        }
        Ok(())
    }
}
