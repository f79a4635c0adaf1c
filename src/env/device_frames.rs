//! [`DeviceFrames`]: memory that belongs to drivers.

use crate::addr::Pfn;

/// Who owns frames of kind [`Device`](crate::frame::FrameKind::Device): memory of a device, or a pool that a driver keeps. Processes
/// see such memory as pages of [`Objects`](super::Objects), and pin it like any other. `()`: there is none.
///
/// A driver hands a frame out by [`FrameWord::hand_out`](crate::frame::FrameWord::hand_out), open to pins
/// ([`Exclusive`](crate::frame::Ownership::Exclusive)), and has a plain reference for as long as the page is its object's. Whoever gives
/// the last reference up, wherever that is, calls [`released`](Self::released). A driver that goes takes its pages out of its objects, lets go
/// of its references, and waits until every frame has come back. Nobody needs to keep it alive during a walk: the words of its
/// frames are the frame table's, which outlives it, and a frame that comes to be counted comes back.
///
/// ```
/// use pagepin::{DeviceFrames, Pfn};
/// struct Card; // two owners: the first has the frames below 0x1000
/// // SAFETY: nothing is handed out again before it came back here.
/// unsafe impl DeviceFrames for Card {
///     fn released(&self, _frame: Pfn, _order: u8) {
///         // into the free list of its owner
///     }
///     fn of_one_owner(&self, first: Pfn, pages: u64) -> u64 {
///         match 0x1000u64.checked_sub(first.number()) {
///             Some(left @ 1..) => left.min(pages),
///             _ => pages,
///         }
///     }
/// }
/// let extras = pagepin::Extras::new().device_frames(Card);
/// ```
///
/// # Implementation safety
/// Frames of this kind have words in the kernel's [`FrameTable`](super::FrameTable), for good, and bytes in its [`PhysMap`](super::PhysMap) as
/// long as they are handed out. A frame is handed out again only after it was released.
///
/// Both methods are called wherever pages are pinned or given back: with interrupts off, in interrupt handlers, with the mm lock held.
/// They wait for nobody who may be there, and do not call back into the crate.
pub unsafe trait DeviceFrames: Sync {
    /// Whether there are any. If not, nothing is asked.
    const EXIST: bool = true;

    /// The last reference is gone: `1 << order` frames from `frame` on are their owner's again.
    fn released(&self, frame: Pfn, order: u8);

    /// How many of the `pages` frames from `first` on, at least one, belong to the owner of the first, or to none as it does. A run of
    /// pins or gets ends there. Asked once for each stretch of a run, of frames of any kind. A block has one owner.
    fn of_one_owner(&self, first: Pfn, pages: u64) -> u64 {
        let _ = first;
        pages
    }
}

// SAFETY: there are none.
unsafe impl DeviceFrames for () {
    const EXIST: bool = false;

    fn released(&self, _: Pfn, _: u8) {}
}

// SAFETY: forwards to an implementation.
unsafe impl<T: DeviceFrames> DeviceFrames for &T {
    const EXIST: bool = T::EXIST;

    fn released(&self, frame: Pfn, order: u8) {
        (**self).released(frame, order);
    }

    fn of_one_owner(&self, first: Pfn, pages: u64) -> u64 {
        (**self).of_one_owner(first, pages)
    }
}
