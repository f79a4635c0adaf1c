//! Relocation: private pages of a range get frames of another zone, while faults and pins go on beside it.

use super::{SpaceError, UserSpace};
use crate::addr::UserRange;
use crate::env::{Env, Zone};
pub use crate::fault::Relocated;
use crate::fault::relocate_some;
use crate::paging::TableError;
use crate::vma::VmaFlags;

impl<K: Env, C> UserSpace<K, C> {
    /// Gives the private pages of a range frames that the kernel's [`FrameSource`](crate::FrameSource) has in `zone`, whatever zone they
    /// are in; their bytes, rights and dirty bits stay. Pages that are pinned, or to whose frame anybody else refers, keep theirs, and so do large
    /// leaves, pages of objects, and those that have no rights at the moment. Faults and pins of other threads go on beside it.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 16384, Rights::READ | Rights::WRITE)?;
    /// drop(space.pin(Write, space.range(0x10000, 12288).unwrap(), [PhysRun::default(); 3]).unwrap()); // three pages are there
    /// let pin = space.pin(Write, space.range(0x10000, 4096).unwrap(), [PhysRun::default(); 1]).unwrap();
    /// let moved = space.relocate(0x10000, 16384, Zone::Unmovable)?;
    /// assert_eq!((moved.pages, moved.pinned_pages, moved.shared_pages), (2, 1, 0));
    /// # drop(pin);
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::NoMemory`]: before any page had another frame; if some did, their number is the answer. `Range`, `MalformedTable`,
    /// `Reentered`.
    pub fn relocate(&self, start: u64, length: u64, zone: Zone) -> Result<Relocated, SpaceError> {
        let range = UserRange::pages_only(self.mm.levels().user_half(), start, length)?;
        let (mut next, end) = (range.first_page(), range.end_page());
        let mut out = Relocated::default();
        while next < end {
            let vmas = self.vmas.read(self.env().extras())?;
            let Some(vma) = vmas.touching(next, end).next() else { break };
            let (first, stop) = (vma.start().max(next), vma.end().min(end));
            next = stop;
            if vma.backing().is_private() && !vma.flags().contains(VmaFlags::UNMAP_DEFERRED) {
                // SAFETY: a part of a private VMA of this mm, whose lock is held, through `vmas`.
                next = match unsafe { relocate_some(&self.mm, (first, stop), zone, |_| true, &mut out) } {
                    Ok(reached) => reached,
                    Err(TableError::NoMemory) if out.pages != 0 => break,
                    Err(error) => return Err(error.into()),
                };
            }
        }
        Ok(out)
    }
}
