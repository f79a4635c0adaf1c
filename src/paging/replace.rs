//! Break -> flush -> publish, as a type rule (INV-8).
//!
//! While an old translation may sit in some TLB, another CPU can still write through it. A new entry that is published
//! before every CPU has let go of the old one gives two CPUs two different pages, and one of their writes is lost (the
//! three-thread case of golang/go issue 34988). So replacing a leaf is three values, each made only from the one before:
//!
//! [`Tables::break_leaf`] -> [`Broken`] -> [`Broken::flush`] -> [`Settled`] -> [`Settled::publish`] -> [`OldLeaf`]
//!
//! and only the last can release the old frame (INV-12). Breaking takes the place into ownership: who else meets it waits, so
//! what is decided from there on is decided about what was taken. To map the same frame again, with as many rights or more,
//! nothing has to be flushed ([`Broken::restore`]).
//!
//! ```
//! # fn right<K: pagepin::Env>(mut tables: pagepin::paging::Tables<'_, K>, slot: pagepin::paging::Slot, new: pagepin::Entry) {
//! if let Some(broken) = unsafe { tables.break_leaf(slot) } {
//!     let settled = broken.flush();
//!     let old = unsafe { settled.publish(new) };
//! #   let _ = old;
//! }
//! # }
//! ```
//!
//! Without the flush it does not compile:
//!
//! ```compile_fail,E0599
//! # fn wrong<K: pagepin::Env>(mut tables: pagepin::paging::Tables<'_, K>, slot: pagepin::paging::Slot, new: pagepin::Entry) {
//! if let Some(broken) = unsafe { tables.break_leaf(slot) } {
//!     let old = unsafe { broken.publish(new) }; // no method named `publish`
//! #   let _ = old;
//! }
//! # }
//! ```

use core::fmt;

use super::{Slot, Tables};
use crate::addr::Pfn;
use crate::arch::{Entry, LeafSize};
use crate::env::{EntryAddr, Env, ExtraParts, FlushRange, NoPreempt, OwnedFrame, PhysMap, StayGuard};
use crate::env::{counted_frame, release};
use crate::frame::Dirty;
use crate::primitive::safeguard;

/// A leaf that hardware can no longer load, but that TLBs may still hold. This CPU owns its place: nobody else changes it, and
/// those who meet it wait.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// # space.fault(Fault { address: 0x10123, access: Access::Write, key_denied: false, malformed_table: false })?;
/// # // SAFETY: one thread; nobody else has the space.
/// # let mut tables = unsafe { Tables::under_mm_lock(space.mm()) };
/// # let slot = tables.find(PageAddr::containing(0x10123))?;
///
/// // SAFETY: the slot was just found, and is published below.
/// let broken = unsafe { tables.break_leaf(slot) }.expect("nobody else changes it");
/// broken.restore(); // the same frame: nothing to flush
/// // SAFETY: as above.
/// let broken = unsafe { tables.break_leaf(slot) }.expect("nobody else changes it");
/// let settled = broken.flush(); // no CPU uses it any more
/// # let _ = settled.leave_empty().release(&&kernel);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "publish something: others wait for it"]
#[derive(Debug)]
pub struct Broken<'t, 'a, K: Env> {
    tables: &'t mut Tables<'a, K>,
    slot: Slot,
    stay: Stay<'a, K>,
}

/// A broken leaf that no CPU can use any more.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// # space.fault(Fault { address: 0x10123, access: Access::Write, key_denied: false, malformed_table: false })?;
/// # // SAFETY: one thread; nobody else has the space.
/// # let mut tables = unsafe { Tables::under_mm_lock(space.mm()) };
/// # let slot = tables.find(PageAddr::containing(0x10123))?;
///
/// // SAFETY: the slot was just found, and is published below.
/// let settled = unsafe { tables.break_leaf(slot) }.expect("nobody else changes it").flush();
/// let zero = Entry::leaf(kernel.source().zero_frame().unwrap(), LeafSize::Size4KiB, Rights::READ, 0).special();
/// // SAFETY: the zero frame is not counted.
/// let old = unsafe { settled.publish(zero) }; // or `settled.leave_empty()`
/// # let _ = old.release(&&kernel);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "publish a new entry or leave the place empty: others wait for it"]
#[derive(Debug)]
pub struct Settled<'t, 'a, K: Env> {
    tables: &'t mut Tables<'a, K>,
    slot: Slot,
    _stay: Stay<'a, K>,
}

/// The frame of a leaf that is out of use everywhere, with the reference that the entry held.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// # space.fault(Fault { address: 0x10123, access: Access::Write, key_denied: false, malformed_table: false })?;
/// # // SAFETY: one thread; nobody else has the space.
/// # let mut tables = unsafe { Tables::under_mm_lock(space.mm()) };
/// # let slot = tables.find(PageAddr::containing(0x10123))?;
///
/// // SAFETY: the slot was just found, and is published below.
/// let old = unsafe { tables.break_leaf(slot) }.expect("nobody else changes it").flush().leave_empty();
/// let (free, frame) = (kernel.source().free_frames(), old.frame());
/// assert!(!old.release(&&kernel), "no pin keeps it");
/// assert_eq!(kernel.source().free_frames(), free + 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "release it, or the frame is lost"]
#[derive(Debug)]
pub struct OldLeaf {
    entry: Entry,
    size: LeafSize,
}

/// Others spin until an owner has published, so it must run.
struct Stay<'a, K: Env + 'a>(StayGuard<'a, K>);

impl<K: Env> fmt::Debug for Stay<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stay")
    }
}

impl<K: Env> Tables<'_, K> {
    /// Takes the leaf at `at` into ownership, if it is the one that was seen, and says what was taken.
    ///
    /// # Safety
    /// As [`Tables::break_leaf`], by who stays on its CPU.
    #[inline(always)]
    pub(super) unsafe fn take(&self, at: EntryAddr, expected: Entry) -> Option<Entry> {
        let mut seen = expected;
        // Hardware sets accessed and dirty at any time, and that is no other mapping. What the exchange took is final:
        // hardware sets them only in entries that it finds present.
        // Bounded: each of the two bits is set once.
        // SAFETY: the mm lock is held, under which the caller found the slot, so the table page is alive.
        while let Err(now) = unsafe { self.map().exchange_entry(at, seen, Entry::OWNED) } {
            if !now.same_mapping(seen) {
                return None;
            }
            seen = now;
        }
        Some(if safeguard!(TakenIsFinal => true) { seen } else { expected })
    }
}

impl<'t, 'a, K: Env> Broken<'t, 'a, K> {
    /// # Safety
    /// As [`Tables::break_leaf`].
    #[inline(always)]
    pub(super) unsafe fn new(tables: &'t mut Tables<'a, K>, slot: Slot) -> Option<Self> {
        let stay = Stay(tables.env().extras().no_preempt().enter());
        // SAFETY: forwarded from the caller.
        let entry = unsafe { tables.take(slot.at, slot.entry) }?;
        Some(Self { tables, slot: Slot { entry, ..slot }, stay })
    }

    /// What was taken.
    #[inline(always)]
    pub(crate) fn entry(&self) -> Entry {
        self.slot.entry
    }

    /// Puts back what was taken.
    #[inline(always)]
    pub fn restore(self) {
        let entry = self.slot.entry;
        // SAFETY: the same leaf; whose frame it is, and whether it is exclusive, only the owner could have changed.
        unsafe { self.republish(entry) };
    }

    /// Maps the same frame again, with as many rights or more. What TLBs still hold permits no more than that, so nothing is
    /// flushed.
    ///
    /// # Safety
    /// `new` maps the frame that the entry taken did, which keeps its reference, with at least its rights; it is writable only
    /// if the frame is `EXCLUSIVE` (INV-1) or not counted.
    #[inline(always)]
    pub(crate) unsafe fn republish(self, new: Entry) {
        self.tables.before_execute(self.slot.entry, new, self.slot.size());
        debug_assert!(new.leaf_frame(self.slot.size()) == self.slot.entry.leaf_frame(self.slot.size()));
        // SAFETY: the mm lock under which the slot was found is still held through `tables`; the place is this CPU's.
        unsafe { self.tables.map().store_entry(self.slot.at, new) };
        self.tables.added();
    }

    /// Maps a frame where a token was, which no TLB can know.
    ///
    /// # Safety
    /// What was taken is a token. `new` is a leaf of the same size whose frame the caller holds a reference to, which the entry now
    /// owns, and it is read-only.
    #[inline]
    pub(crate) unsafe fn fill(self, new: Entry) {
        self.tables.before_execute(Entry::EMPTY, new, self.slot.size());
        // SAFETY: as in `republish`.
        unsafe { self.tables.map().store_entry(self.slot.at, new) };
        self.tables.added();
    }

    /// Puts a token back that was taken.
    #[inline]
    pub(crate) fn put_back(self) {
        // SAFETY: as in `republish`; the same token, which its slot has not let go.
        unsafe { self.tables.map().store_entry(self.slot.at, self.slot.entry) };
    }

    /// Returns after every CPU has acknowledged that the old translation is gone.
    #[inline(always)]
    pub fn flush(self) -> Settled<'t, 'a, K> {
        let (first, pages) = (self.slot.first_page(), self.slot.size().pages());
        safeguard!(FlushBeforePublish; self.tables.flush(FlushRange::Leaves { first, pages }));
        Settled { tables: self.tables, slot: self.slot, _stay: self.stay }
    }
}

impl<K: Env> Settled<'_, '_, K> {
    /// Maps `new` where the old leaf was.
    ///
    /// # Safety
    /// `new` is empty, or a leaf of the same size whose frame the caller holds a reference to, which the entry now owns;
    /// it is writable only if that frame is `EXCLUSIVE` (INV-1).
    #[inline(always)]
    pub unsafe fn publish(self, new: Entry) -> OldLeaf {
        self.tables.before_execute(Entry::EMPTY, new, self.slot.size());
        // SAFETY: the mm lock under which the slot was found is still held through `tables`; the place is this CPU's, and
        // what was there is flushed.
        unsafe { self.tables.map().store_entry(self.slot.at, new) };
        self.tables.added();
        OldLeaf { entry: self.slot.entry, size: self.slot.size() }
    }

    /// Maps the same frame with fewer rights.
    ///
    /// # Safety
    /// `new` maps the frame that the old leaf did, which keeps its reference, with at most its rights.
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) unsafe fn weaken(self, new: Entry) {
        debug_assert!(new.leaf_frame(self.slot.size()) == self.slot.entry.leaf_frame(self.slot.size()));
        // SAFETY: as in `publish`.
        unsafe { self.tables.map().store_entry(self.slot.at, new) };
    }

    /// Links a table where the old leaf was.
    ///
    /// # Safety
    /// The table has leaves of the next smaller size for the same memory, with at most the rights of the old leaf, and what that held.
    pub(super) unsafe fn publish_table(self, table: OwnedFrame<'_, K>) {
        // SAFETY: as in `publish`; the reference to the table goes to the entry.
        unsafe { self.tables.map().store_entry(self.slot.at, Entry::table(table.into_entry())) };
        self.tables.added();
    }

    /// Leaves nothing where the old leaf was.
    #[inline]
    pub fn leave_empty(self) -> OldLeaf {
        // SAFETY: the entry is empty.
        unsafe { self.publish(Entry::EMPTY) }
    }
}

impl OldLeaf {
    /// The first frame.
    #[must_use]
    pub fn frame(&self) -> Pfn {
        self.entry.leaf_frame(self.size)
    }

    /// Gives up the entry's reference; whether pins keep the frame alive. Frames that are not counted (the zero frame,
    /// foreign memory) are left alone.
    #[inline]
    pub fn release<K: Env>(self, env: &K) -> bool {
        if !self.entry.is_counted() {
            return false;
        }
        let Some((pfn, frame)) = counted_frame(env, self.entry, self.size) else { return false };
        release(env, pfn, frame.word.put_mapping(self.dirty()))
    }

    /// Whether the page was written through the leaf.
    #[inline(always)]
    pub(crate) fn dirty(&self) -> Dirty {
        Dirty::when(self.entry.is_dirty())
    }
}
