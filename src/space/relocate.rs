//! Relocation: private pages of a range get frames of another zone, while faults and pins go on beside it.

use super::private_pages::is_private;
use super::{SpaceError, UserSpace};
use crate::env::{Env, Zone};
pub use crate::fault::relocate::Relocated;
use crate::fault::relocate::relocate_some;
use crate::paging::TableError;

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
        let mut out = Relocated::default();
        self.for_parts((start, length), is_private, |mm, part| {
            // SAFETY: such a part, in such a section.
            match unsafe { relocate_some(mm, part, zone, |_| true, &mut out) } {
                Ok(reached) => Ok(Some(reached)),
                Err(TableError::NoMemory) if out.pages != 0 => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        Ok(out)
    }
}
