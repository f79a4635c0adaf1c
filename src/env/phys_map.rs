//! [`PhysMap`]: from a frame number to memory, and the only way to touch a page-table entry.

use crate::addr::{self, Pfn};
use crate::arch::{self, Entry, EntryChange};
use crate::primitive::{AtomicU64, Ordering, safeguard};

/// The place of one entry: a table page and an index below 512.
///
/// ```
/// use pagepin::{EntryAddr, Pfn};
/// let at = EntryAddr::new(Pfn::new(0x42), 256).offset(1);
/// assert_eq!((at.table(), at.address()), (Pfn::new(0x42), 0x42000 + 257 * 8));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryAddr {
    /// Physical address of the table: one mask away from the entry that pointed there.
    table: u64,
    index: u64,
}

impl EntryAddr {
    /// Entry `index` (0..512) of `table`.
    #[inline(always)]
    #[must_use]
    pub const fn new(table: Pfn, index: u64) -> Self {
        debug_assert!(index < arch::ENTRIES);
        Self { table: table.address(), index }
    }

    /// Entry `index` (0..512) of the table that the upper entry `above` points to.
    #[inline(always)]
    pub(crate) const fn below(above: Entry, index: u64) -> Self {
        Self { table: above.table_address(), index }
    }

    /// The entry `entries` further on in the same table.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self, entries: u64) -> Self {
        debug_assert!(self.index + entries < arch::ENTRIES);
        Self { table: self.table, index: self.index + entries }
    }

    /// The table page.
    #[must_use]
    #[inline(always)]
    pub const fn table(self) -> Pfn {
        Pfn::containing(self.table)
    }

    /// The physical address of the entry.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.table + self.index * 8
    }
}

/// The kernel's direct map of physical memory.
///
/// The provided methods access page-table entries, which hardware and other CPUs change at any time, as atomics in
/// place. They may be overridden by a checker or an emulated machine; a kernel leaves them alone.
///
/// # Implementation safety
/// [`PhysMap::frame_ptr`] of every frame that the kernel's [`FrameSource`](crate::FrameSource) hands out, and of every
/// table page it gives to the crate, points to that frame's 4096 bytes, mapped readable and writable, page-aligned, for
/// as long as the implementation lives; consecutive frames of one block are consecutive in memory. No Rust reference to
/// those bytes exists while the crate, user code or a device may access them.
pub unsafe trait PhysMap {
    /// The first byte of `frame` in the direct map. Makes no claim about who may access it; of a frame that the kernel
    /// never gave to the crate, anything.
    fn frame_ptr(&self, frame: Pfn) -> *mut u8;

    /// Loads an entry (acquire: what it points to is initialised).
    ///
    /// # Safety
    /// The table page is one of this kernel's and cannot be freed meanwhile; the index lies within it.
    #[inline(always)]
    unsafe fn load_entry(&self, at: EntryAddr) -> Entry {
        // SAFETY: forwarded from the caller.
        unsafe { in_place(self, at) }.load()
    }

    /// Stores an entry (release) and gives no care to what was there.
    ///
    /// # Safety
    /// As [`PhysMap::load_entry`], and the entry is the caller's to change: it owns it, or holds the mm lock exclusively, or is the only one who knows the table. No CPU uses
    /// the entry that was there: it was not present, or the tables are in no CPU.
    #[inline(always)]
    unsafe fn store_entry(&self, at: EntryAddr, entry: Entry) {
        // SAFETY: forwarded from the caller.
        unsafe { in_place(self, at) }.store(entry);
    }

    /// Clears or sets some bits in one step, in which nothing is lost that hardware sets; returns the entry before.
    ///
    /// # Safety
    /// As [`PhysMap::load_entry`], and the caller holds the mm lock exclusively.
    #[inline(always)]
    unsafe fn change_entry(&self, at: EntryAddr, change: EntryChange) -> Entry {
        // SAFETY: forwarded from the caller.
        unsafe { in_place(self, at) }.change(change)
    }

    /// Replaces `old` by `new`; on failure returns what is there (hardware may have set accessed or dirty).
    ///
    /// # Errors
    /// The entry found, if it is not `old`.
    ///
    /// # Safety
    /// As [`PhysMap::load_entry`]. The caller holds the mm lock: exclusively, or shared, for one of the changes that
    /// [`Tables`](crate::paging::Tables) names.
    #[inline(always)]
    unsafe fn exchange_entry(&self, at: EntryAddr, old: Entry, new: Entry) -> Result<(), Entry> {
        // SAFETY: forwarded from the caller.
        unsafe { in_place(self, at) }.exchange(old, new)
    }

    /// Copies `1 << order` frames. Another party may write the source meanwhile; then the copy holds some of it.
    ///
    /// # Safety
    /// Both blocks are frames of this kernel that stay allocated; the caller owns `to`.
    unsafe fn copy_frames(&self, from: Pfn, to: Pfn, order: u8) {
        // SAFETY: both blocks are mapped, page-aligned and contiguous by the implementation's contract; `to` is the caller's
        // own, so nobody else accesses it and it is not a part of `from`.
        unsafe { arch::copy_frames(self.frame_ptr(from), self.frame_ptr(to), Pfn::new(1 << order).address()) };
    }

    /// Clears `1 << order` frames.
    ///
    /// # Safety
    /// The block is frames of this kernel and the caller owns it.
    unsafe fn clear_frames(&self, frame: Pfn, order: u8) {
        // SAFETY: the block is mapped, page-aligned and contiguous by the implementation's contract, and the caller's own.
        unsafe { arch::zero_frames(self.frame_ptr(frame), Pfn::new(1 << order).address()) };
    }

    /// Whether two frames hold the same bytes.
    ///
    /// # Safety
    /// Both are frames of this kernel that stay allocated, and nobody writes to either meanwhile.
    unsafe fn same_bytes(&self, one: Pfn, other: Pfn) -> bool {
        // SAFETY: frames are mapped whole by the implementation's contract; the caller keeps both, as they are.
        let bytes = |frame| unsafe { core::slice::from_raw_parts(self.frame_ptr(frame), addr::PAGE_SIZE as usize) };
        bytes(one) == bytes(other)
    }
}

// SAFETY: forwards to an implementation, the entry accessors too: it may have its own.
unsafe impl<T: PhysMap + ?Sized> PhysMap for &T {
    #[inline(always)]
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        (**self).frame_ptr(frame)
    }

    #[inline(always)]
    unsafe fn load_entry(&self, at: EntryAddr) -> Entry {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).load_entry(at) }
    }

    #[inline(always)]
    unsafe fn store_entry(&self, at: EntryAddr, entry: Entry) {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).store_entry(at, entry) }
    }

    #[inline(always)]
    unsafe fn change_entry(&self, at: EntryAddr, change: EntryChange) -> Entry {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).change_entry(at, change) }
    }

    #[inline(always)]
    unsafe fn exchange_entry(&self, at: EntryAddr, old: Entry, new: Entry) -> Result<(), Entry> {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).exchange_entry(at, old, new) }
    }

    unsafe fn copy_frames(&self, from: Pfn, to: Pfn, order: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).copy_frames(from, to, order) }
    }

    unsafe fn clear_frames(&self, frame: Pfn, order: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).clear_frames(frame, order) }
    }

    unsafe fn same_bytes(&self, one: Pfn, other: Pfn) -> bool {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).same_bytes(one, other) }
    }
}

/// The atomic of one entry, and with which orderings it is accessed. For who overrides the accessors of [`PhysMap`]: a
/// checker keeps its atomics elsewhere, but their orderings are these.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct EntryCell<'a>(&'a AtomicU64);

impl<'a> EntryCell<'a> {
    #[inline(always)]
    #[must_use]
    pub const fn new(atomic: &'a AtomicU64) -> Self {
        Self(atomic)
    }

    /// Acquire: pairs with the release of `store`, so that a table is found as it was when it was linked.
    #[inline(always)]
    #[must_use]
    pub fn load(self) -> Entry {
        Entry::from_bits(self.0.load(safeguard!(EntryAcquire: Ordering::Acquire)))
    }

    /// Release: pairs with the acquire of `load`.
    #[inline(always)]
    pub fn store(self, entry: Entry) {
        self.0.store(entry.bits(), safeguard!(EntryRelease: Ordering::Release));
    }

    /// Both: what comes back is acted on, and what was prepared is found by who sees the change.
    #[inline(always)]
    #[must_use]
    pub fn change(self, change: EntryChange) -> Entry {
        Entry::from_bits(match change {
            EntryChange::Clear(bits) => self.0.fetch_and(!bits, Ordering::AcqRel),
            EntryChange::Set(bits) => self.0.fetch_or(bits, Ordering::AcqRel),
        })
    }

    /// As `change`, or a load.
    #[inline(always)]
    #[expect(clippy::missing_errors_doc, reason = "see `PhysMap::exchange_entry`")]
    pub fn exchange(self, old: Entry, new: Entry) -> Result<(), Entry> {
        let success = safeguard!(EntryRelease: Ordering::AcqRel);
        match self.0.compare_exchange(old.bits(), new.bits(), success, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(Entry::from_bits(now)),
        }
    }
}

/// # Safety
/// The table page is one of this kernel's and cannot be freed while the result is in use; the index lies within it.
#[cfg(not(pagepin_checker))]
#[inline(always)]
unsafe fn in_place<P: PhysMap + ?Sized>(map: &P, at: EntryAddr) -> EntryCell<'_> {
    // SAFETY: the implementation vouches for the pointer to the page, the caller for the page and the index: the entry lies
    // within it, aligned. Every access to an entry of a table in use goes through here, or is hardware's: all are atomic.
    EntryCell(unsafe { AtomicU64::from_ptr(map.frame_ptr(at.table()).cast::<u64>().add(at.index as usize)) })
}

/// A checker's atomics do not live in memory that is given: a model's `PhysMap` says where, and goes on as above.
#[cfg(pagepin_checker)]
unsafe fn in_place<P: PhysMap + ?Sized>(_: &P, _: EntryAddr) -> EntryCell<'_> {
    unreachable!("a model's entries are not in memory")
}

/// All physical memory, mapped at a fixed offset (`physical_memory_offset` of a boot loader).
///
/// ```
/// use pagepin::{OffsetPhysMap, Pfn, PhysMap};
/// // SAFETY: nothing is accessed here.
/// let map = unsafe { OffsetPhysMap::new(0xffff_8000_0000_0000) };
/// assert_eq!(map.frame_ptr(Pfn::new(2)) as usize, 0xffff_8000_0000_2000);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OffsetPhysMap {
    offset: u64,
}

impl OffsetPhysMap {
    /// # Safety
    /// All physical memory that the kernel gives to the crate is mapped, readable and writable, at virtual address
    /// `offset` + physical address, from now on, and no Rust reference to it exists while the crate, user code or a
    /// device may access it; `offset` is page-aligned and not 0.
    #[must_use]
    pub const unsafe fn new(offset: u64) -> Self {
        assert!(offset != 0 && offset % crate::addr::PAGE_SIZE == 0, "the direct map's offset is not a page address");
        Self { offset }
    }
}

// SAFETY: the constructor's caller vouches for the mapping.
unsafe impl PhysMap for OffsetPhysMap {
    #[inline(always)]
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.offset.wrapping_add(frame.address()) as usize)
    }
}
