//! Break -> flush -> publish, as a type rule (INV-8).
//!
//! While an old translation may sit in some TLB, another CPU can still write through it. A new entry that is published
//! before every CPU has let go of the old one gives two CPUs two different pages, and one of their writes is lost (the
//! three-thread case of golang/go issue 34988). So replacing a leaf is three values, each made only from the one before:
//!
//! [`Tables::break_leaf`] -> [`Broken`] -> [`Broken::flush`] -> [`Settled`] -> [`Settled::publish`] -> [`OldLeaf`]
//!
//! and only the last can release the old frame (INV-12).
//!
//! ```
//! # fn right<K: pagepin::Env>(mut tables: pagepin::paging::Tables<'_, K>, slot: pagepin::paging::Slot, new: pagepin::Entry) {
//! let settled = unsafe { tables.break_leaf(slot) }.flush();
//! let old = unsafe { settled.publish(new) };
//! # let _ = old;
//! # }
//! ```
//!
//! Without the flush it does not compile:
//!
//! ```compile_fail,E0599
//! # fn wrong<K: pagepin::Env>(mut tables: pagepin::paging::Tables<'_, K>, slot: pagepin::paging::Slot, new: pagepin::Entry) {
//! let broken = unsafe { tables.break_leaf(slot) };
//! let old = unsafe { broken.publish(new) }; // no method named `publish`
//! # let _ = old;
//! # }
//! ```

use super::{Slot, Tables};
use crate::addr::Pfn;
use crate::arch::{Entry, LeafSize};
use crate::env::{Env, FlushRange, FrameTable, PhysMap, release};
use crate::frame::Dirty;
use crate::primitive::safeguard;

/// A leaf that hardware can no longer load, but that TLBs may still hold.
#[must_use = "flush it: until every CPU has acknowledged, the old translation may be in use"]
#[derive(Debug)]
pub struct Broken<'t, 'a, K: Env> {
    tables: &'t mut Tables<'a, K>,
    slot: Slot,
}

/// A broken leaf that no CPU can use any more.
#[must_use = "publish a new entry or leave the place empty"]
#[derive(Debug)]
pub struct Settled<'t, 'a, K: Env> {
    tables: &'t mut Tables<'a, K>,
    slot: Slot,
}

/// The frame of a leaf that is out of use everywhere, with the reference that the entry held.
#[must_use = "release it, or the frame is lost"]
#[derive(Debug)]
pub struct OldLeaf {
    entry: Entry,
    size: LeafSize,
}

impl<'t, 'a, K: Env> Broken<'t, 'a, K> {
    /// # Safety
    /// As [`Tables::break_leaf`].
    pub(super) unsafe fn new(tables: &'t mut Tables<'a, K>, slot: Slot) -> Self {
        // One step: hardware sets accessed and dirty only in entries it finds present, so what comes back is final and
        // no bit that it sets can be lost.
        // SAFETY: the lock is held through `tables`, and under it the caller found the slot, so the table page is alive.
        let entry = unsafe { tables.env().phys_map().change_entry(slot.at, Entry::BREAK) };
        Self { tables, slot: Slot { entry, ..slot } }
    }

    /// Returns after every CPU has acknowledged that the old translation is gone.
    pub fn flush(self) -> Settled<'t, 'a, K> {
        let (first, pages) = (self.slot.first_page(), self.slot.size().pages());
        safeguard!(FlushBeforePublish; self.tables.flush(FlushRange::Leaves { first, pages }));
        Settled { tables: self.tables, slot: self.slot }
    }
}

impl<K: Env> Settled<'_, '_, K> {
    /// Maps `new` where the old leaf was.
    ///
    /// # Safety
    /// `new` is empty, or a leaf of the same size whose frame the caller holds a reference to, which the entry now owns;
    /// it is writable only if that frame is `EXCLUSIVE` (INV-1).
    pub unsafe fn publish(self, new: Entry) -> OldLeaf {
        self.tables.before_execute(Entry::EMPTY, new, self.slot.size());
        // SAFETY: the lock under which the slot was found is still held through `tables`; what was there is broken and
        // flushed.
        unsafe { self.tables.env().phys_map().store_entry(self.slot.at, new) };
        self.tables.added();
        OldLeaf { entry: self.slot.entry, size: self.slot.size() }
    }

    /// Leaves nothing where the old leaf was.
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
        if self.entry.is_special() {
            return false;
        }
        let pfn = self.frame();
        let Some(frame) = env.frames().frame(pfn) else { return false };
        release(env, pfn, frame.word.put_mapping(Dirty::when(self.entry.is_dirty())))
    }
}
