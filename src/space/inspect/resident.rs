//! [`Resident`]: how much memory an address space has, by what it is.

use super::{leaves, tables_of, user_half, word_of};
use crate::env::{Env, FrameSource};
use crate::paging::{TableError, Tables};
use crate::space::{SpaceError, UserSpace};

/// Pages of 4 KiB that an address space maps, large leaves by all of their pages, and its tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Private memory that is this mm's alone.
    pub exclusive: u64,
    /// Private memory that other mms may map, too: copied when it is written.
    pub shared: u64,
    /// Untouched memory that was read: the zero frame, which takes none.
    pub zero: u64,
    /// Foreign memory.
    pub foreign: u64,
    /// Tables, the root among them.
    pub tables: u64,
}

impl Resident {
    /// Frames that the mm uses, those of others not counted: private memory and tables.
    #[must_use]
    pub const fn frames(self) -> u64 {
        self.exclusive + self.shared + self.tables
    }
}

impl<K: Env, C> UserSpace<K, C> {
    /// What is resident now, exactly: each entry is looked at, and nothing changes meanwhile.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 16384, Rights::READ | Rights::WRITE)?;
    /// let write = Fault { address: 0x10000, access: Access::Write, key_denied: false, malformed_table: false };
    /// space.fault(write).unwrap();
    /// assert_eq!(space.resident()?, Resident { exclusive: 1, tables: 4, ..Resident::default() });
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::MalformedTable`], [`SpaceError::Reentered`].
    pub fn resident(&self) -> Result<Resident, SpaceError> {
        let _vmas = self.vmas.write(self.env().extras())?;
        // SAFETY: the mm lock is held for writing, through `_vmas`.
        let tables = unsafe { Tables::under_mm_lock(&self.mm) };
        Ok(count(&tables)?)
    }
}

/// With the mm lock held exclusively.
pub(super) fn count<K: Env>(tables: &Tables<'_, K>) -> Result<Resident, TableError> {
    let mut resident = Resident::default();
    let zero = tables.env().source().zero_frame();
    leaves(tables, user_half(tables), |leaf| {
        let counter = match word_of(tables, leaf.frame()) {
            _ if leaf.entry.is_special() && zero == Some(leaf.frame()) => &mut resident.zero,
            _ if leaf.entry.is_special() => &mut resident.foreign,
            Some(word) if word.exclusive => &mut resident.exclusive,
            _ => &mut resident.shared,
        };
        *counter += leaf.size.pages();
    })?;
    tables_of(tables, |_| resident.tables += 1)?;
    Ok(resident)
}
