//! [`KernelHalf`]: what every root has in common, and what to look at before one is loaded.
//!
//! The moment after a root is loaded, the next instruction, the stack, the tables of the processor and the direct map are
//! looked for through it. Whatever of them has no entry in the kernel half of the kernel's own root is gone, and the machine
//! with it, without a word: [`KernelHalf::check`] says so beforehand, and which address it is.

use core::fmt;

use crate::addr::{PageAddr, Pfn};
use crate::arch::{ENTRIES, Entry, Levels};
use crate::env::{EntryAddr, Env, OwnedFrame, PhysMap};
use crate::errno::{EFAULT, EINVAL};
use crate::frame::FrameKind;

/// What the processor needs while it runs in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vital {
    /// The instructions that run.
    Code,
    /// The stack.
    Stack,
    /// The global descriptor table.
    Gdt,
    /// The interrupt descriptor table.
    Idt,
    /// The direct map, through which tables are changed.
    DirectMap,
    /// Memory that the kernel names: its heap, a device's registers.
    Other,
}

impl fmt::Display for Vital {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Code => "the code that runs",
            Self::Stack => "the stack",
            Self::Gdt => "the global descriptor table",
            Self::Idt => "the interrupt descriptor table",
            Self::DirectMap => "the direct map",
            Self::Other => "memory of the kernel",
        })
    }
}

/// Why a root cannot be loaded, or would not be what a kernel expects. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelHalfError {
    /// Of this, at this address, no other root would have anything: it is no address of the kernel half, or has no
    /// entry in the kernel's root.
    WouldVanish(Vital, u64),
    /// The kernel's own root maps this address, which is for processes: a null pointer may not fault, and what lies there
    /// is there only until the first process runs.
    UserHalfInUse(u64),
    /// The space was made [without a kernel](KernelHalf::none).
    NoKernel,
    /// The kernel's root maps this address by an entry that it got after the space was made. See [`KernelHalf::fill`].
    Outdated(u64),
}

impl KernelHalfError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NoKernel => EINVAL,
            Self::WouldVanish(..) | Self::UserHalfInUse(_) | Self::Outdated(_) => EFAULT,
        }
    }
}

impl fmt::Display for KernelHalfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldVanish(what, address) => write!(f, "{what} at {address:#x} would not be mapped by another root"),
            Self::UserHalfInUse(address) => write!(f, "the kernel's root maps the user address {address:#x}"),
            Self::NoKernel => f.write_str("the space was made without a kernel half"),
            Self::Outdated(address) => write!(f, "the kernel's root maps {address:#x} since the space was made"),
        }
    }
}

impl core::error::Error for KernelHalfError {}

/// A top table whose kernel half every new root gets.
///
/// Roots have copies of its entries, so they share all tables below, but not the entries of the root: one that the kernel adds
/// later is missing in the spaces that live. [`KernelHalf::fill`] takes care of that.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// // A root of the kernel's own, in which it maps something at the start of the upper half.
/// let (root, table) = (kernel.source().allocate_within(Reach::Anywhere, 0).unwrap(), Pfn::new(0x42));
/// // SAFETY: the frame is a table of this code's own.
/// unsafe { kernel.phys_map().frame_ptr(root).write_bytes(0, 4096) };
/// // SAFETY: as above.
/// unsafe { kernel.phys_map().store_entry(EntryAddr::new(root, 256), Entry::from_bits(table.address() | 0b11)) };
/// // SAFETY: the root lives as long as the kernel.
/// let half = unsafe { KernelHalf::new(root, Levels::Four) };
/// assert_eq!(half.check(kernel.phys_map(), [(Vital::Code, 0xffff_8000_0020_0000)]), Ok(()));
/// let vga = (Vital::Other, 0xb8000);
/// assert_eq!(half.check(kernel.phys_map(), [vga]), Err(KernelHalfError::WouldVanish(Vital::Other, 0xb8000)));
/// // SAFETY: nobody else changes the root.
/// assert!(unsafe { half.fill(&kernel) }.is_err()); // 255 tables: as much memory as this machine has
/// // SAFETY: nobody uses the lower half.
/// unsafe { half.clear_user_half(kernel.phys_map(), []) }?;
/// assert!(KernelHalf::none(Levels::Four).root().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHalf {
    root: Option<Pfn>,
    levels: Levels,
}

impl KernelHalf {
    /// The upper half of `root`, which has `levels` levels: as many as the processors were told.
    ///
    /// On the running processor, `KernelHalf::loaded` (feature `instructions`) finds both and looks whether it can be right.
    ///
    /// # Safety
    /// `root` is a top table with so many levels, which the kernel's `PhysMap` reaches. It lives as long as the kernel, and so do the
    /// tables that it leads to; those of its lower half, until that is empty.
    #[must_use]
    pub const unsafe fn new(root: Pfn, levels: Levels) -> Self {
        Self { root: Some(root), levels }
    }

    /// No kernel: the roots map nothing but user memory. Such a root stops the machine when it is loaded. It is for tests,
    /// and for spaces that no processor ever runs in, such as those of a device.
    #[must_use]
    pub const fn none(levels: Levels) -> Self {
        Self { root: None, levels }
    }

    /// The levels of the tables.
    #[must_use]
    pub const fn levels(self) -> Levels {
        self.levels
    }

    /// The kernel's root, if there is one.
    #[must_use]
    pub const fn root(self) -> Option<Pfn> {
        self.root
    }

    /// Whether roots made from this one can be loaded: each address in `vital` has an entry in the kernel half, and the user half
    /// is empty.
    ///
    /// # Errors
    /// The first of [`KernelHalfError::NoKernel`], `WouldVanish`, `UserHalfInUse` that applies.
    pub fn check(
        self,
        map: &impl PhysMap,
        vital: impl IntoIterator<Item = (Vital, u64)>,
    ) -> Result<(), KernelHalfError> {
        let root = self.root.ok_or(KernelHalfError::NoKernel)?;
        for (what, address) in vital {
            let in_half = address >= self.levels.user_half().kernel_start();
            let index = self.levels.top().index(address);
            if !in_half || !entry(map, root, index).is_present() {
                return Err(KernelHalfError::WouldVanish(what, address));
            }
        }
        match (0..self.levels.user_root_entries()).find(|index| entry(map, root, *index).is_present()) {
            Some(index) => Err(KernelHalfError::UserHalfInUse(first_mapped(map, root, self.levels, index))),
            None => Ok(()),
        }
    }

    /// Empties the user half of the kernel's root: what a boot loader mapped there for itself. Null pointers of the kernel fault
    /// from then on.
    ///
    /// Translations stay cached until the root is loaded again.
    ///
    /// # Errors
    /// [`KernelHalfError`], as [`KernelHalf::check`] finds: something vital is there, and nothing was changed.
    ///
    /// # Safety
    /// Nobody uses what is mapped there, nor its tables, and nobody else changes the root meanwhile.
    pub unsafe fn clear_user_half(
        self,
        map: &impl PhysMap,
        vital: impl IntoIterator<Item = (Vital, u64)>,
    ) -> Result<(), KernelHalfError> {
        let root = self.root.ok_or(KernelHalfError::NoKernel)?;
        match self.check(map, vital) {
            Ok(()) | Err(KernelHalfError::UserHalfInUse(_)) => {}
            error => return error,
        }
        for index in 0..self.levels.user_root_entries() {
            // SAFETY: the root is a table that lives, by this value's maker, and nobody else changes it or uses what the
            // entry maps, by the caller.
            unsafe { map.store_entry(EntryAddr::new(root, index), Entry::EMPTY) };
        }
        Ok(())
    }

    /// Gives each empty entry of the kernel half a table of its own, with nothing in it, so that whatever the kernel maps later
    /// it maps in tables that all roots share. Returns how many tables that took: up to 256, 1 MiB, which stay.
    ///
    /// Before the first space is made; spaces that exist do not get the tables.
    ///
    /// # Errors
    /// [`OutOfTables`]: memory ran out. Some entries have their tables.
    ///
    /// # Safety
    /// Nobody else changes the root meanwhile, and `kernel` is the one whose root it is.
    pub unsafe fn fill<K: Env>(self, kernel: &K) -> Result<u64, OutOfTables> {
        let Some(root) = self.root else { return Ok(0) };
        let mut filled = 0;
        for index in self.levels.user_root_entries()..ENTRIES {
            if entry(kernel.phys_map(), root, index).is_empty() {
                let table = OwnedFrame::staying(kernel, FrameKind::Table).ok_or(OutOfTables)?.into_entry();
                // SAFETY: the root is a table that lives, by this value's maker; the entry was empty and nobody else changes
                // it, by the caller; the new table is empty.
                unsafe { kernel.phys_map().store_entry(EntryAddr::new(root, index), Entry::kernel_table(table)) };
                filled += 1;
            }
        }
        Ok(filled)
    }

    /// The entries of the kernel half, as a new root gets them: not for user code, whatever they say.
    #[cfg(feature = "alloc")]
    pub(super) fn entries(self, map: &impl PhysMap) -> impl Iterator<Item = (u64, Entry)> {
        let indices = self.levels.user_root_entries()..ENTRIES;
        let root = self.root.into_iter();
        root.flat_map(move |root| indices.clone().map(move |index| (index, entry(map, root, index).not_for_users())))
    }

    /// Whether `root`, made from this, still has all that the kernel's root has.
    #[cfg(feature = "alloc")]
    pub(super) fn compare(self, map: &impl PhysMap, root: Pfn) -> Result<(), KernelHalfError> {
        if self.root.is_none() {
            return Err(KernelHalfError::NoKernel);
        }
        match self.entries(map).find(|(index, wanted)| !entry(map, root, *index).same_mapping(*wanted)) {
            Some((index, _)) => Err(KernelHalfError::Outdated(address_of(self.levels, index))),
            None => Ok(()),
        }
    }
}

/// There was no memory for the tables of a kernel half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfTables;

impl OutOfTables {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        crate::errno::ENOMEM
    }
}

impl fmt::Display for OutOfTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory for tables of the kernel half")
    }
}

impl core::error::Error for OutOfTables {}

/// An entry of a root that lives.
fn entry(map: &impl PhysMap, root: Pfn, index: u64) -> Entry {
    // SAFETY: whoever made the `KernelHalf` or the space says that the root is a table and lives; the index is below 512.
    unsafe { map.load_entry(EntryAddr::new(root, index)) }
}

/// The first address below a root entry.
fn address_of(levels: Levels, index: u64) -> u64 {
    let address = index * levels.top().span();
    if index < levels.user_root_entries() { address } else { address | levels.user_half().kernel_start() }
}

/// The first address that is mapped below entry `index` of the root, by the first entries that are present.
fn first_mapped(map: &impl PhysMap, root: Pfn, levels: Levels, index: u64) -> u64 {
    let (mut level, mut address) = (levels.top(), address_of(levels, index));
    let mut above = entry(map, root, index);
    while level.leaf_size().is_none() || !above.is_leaf_at(level) {
        level = level.below();
        // SAFETY: a present entry of a root that lives leads to a table that does, by this value's maker; the index is
        // below 512.
        let at = |index| unsafe { map.load_entry(EntryAddr::below(above, index)) };
        let Some(index) = (0..ENTRIES).find(|index| at(*index).is_present()) else { break };
        address += index * level.span();
        above = at(index);
    }
    PageAddr::containing(address).address()
}
