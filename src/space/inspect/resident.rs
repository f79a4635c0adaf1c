//! [`Resident`]: how much memory an address space has, by what it is.

use super::{counted, leaves_of, user_half};
use crate::arch::{LeafSize, Level};
use crate::env::{Env, FrameSource};
use crate::frame::FrameKind;
use crate::paging::{Chunk, Cursor, Tables};
use crate::space::{MOST_PLACES, SpaceError, UserSpace};

/// Most tables that one step finds.
const MOST_TABLES: u64 = 64;

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
    /// Pages of objects: those that are shared, and those of private VMAs that were only read.
    pub object: u64,
    /// Pages that are elsewhere: tokens.
    pub swapped: u64,
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
    /// What is resident now: each entry is looked at, from the lowest page up. Of a large space step by step: what others change
    /// between two of them is counted as it was or as it is.
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
        let mut resident = Resident { tables: 1, ..Resident::default() };
        let mut held = self.hold()?;
        let ((first, end), top) = (user_half(&self.tables(&held)), self.mm.levels().top());
        let (mut cursor, mut places) = (Cursor::new(first, end), 0);
        while let Some(chunk) = cursor.next_chunk(&self.tables(&held))? {
            resident.add(&self.tables(&held), chunk);
            places += chunk.cost();
            if places >= MOST_PLACES {
                (held, places) = (self.step_aside(held)?, 0);
            }
        }
        // Those of the lowest level were counted with their leaves.
        for level in core::iter::successors(Some(top), |level| Some(level.below())) {
            if level.below() == Level::LOWEST {
                break;
            }
            held = self.step_aside(held)?;
            let mut cursor = Cursor::new(first, end);
            while cursor.next_table(&self.tables(&held), level)?.is_some() {
                resident.tables += 1;
                if resident.tables % MOST_TABLES == 0 {
                    held = self.step_aside(held)?;
                }
            }
        }
        Ok(resident)
    }
}

impl Resident {
    fn add<K: Env>(&mut self, tables: &Tables<'_, K>, chunk: Chunk) {
        let zero = tables.env().source().zero_frame();
        self.tables += u64::from(chunk.size == LeafSize::Size4KiB);
        for leaf in leaves_of(tables, chunk) {
            let counter = match counted(tables, &leaf).1 {
                _ if leaf.entry.is_token() => &mut self.swapped,
                Some(word) if leaf.entry.is_borrowed() && word.kind != FrameKind::Anonymous => &mut self.object,
                _ if leaf.entry.is_special() && !leaf.entry.is_borrowed() && zero == Some(leaf.frame()) => {
                    &mut self.zero
                }
                _ if leaf.entry.is_special() && !leaf.entry.is_borrowed() => &mut self.foreign,
                Some(word) if matches!(word.kind, FrameKind::File | FrameKind::Device) => &mut self.object,
                Some(word) if word.exclusive => &mut self.exclusive,
                _ => &mut self.shared,
            };
            *counter += leaf.size.pages();
        }
    }
}
