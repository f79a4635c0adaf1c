//! [`FrameSource`]: where frames come from and go back to.

use super::{Env, FrameTable, PhysMap};
use crate::addr::Pfn;
use crate::frame::{CountError, FrameKind, Ownership, Released};

/// The kernel's physical allocator.
///
/// # Implementation safety
/// `allocate` returns `1 << order` consecutive frames, aligned to that number, used by nobody, reachable through the
/// kernel's [`PhysMap`] and present in its [`FrameTable`]. `zero_frame` is always the
/// same, and what it says.
///
/// Both methods are called with the crate's table lock held and must not call back into the crate. `free` is also
/// called from interrupt context and with interrupts off: the last holder of a frame may be a completion interrupt, or
/// a lockless walker that undoes a reference.
pub unsafe trait FrameSource {
    /// Takes a block of `1 << order` frames; its contents are arbitrary. `None`: out of memory, or no such order.
    fn allocate(&self, order: u8) -> Option<Pfn>;

    /// Takes a block back.
    ///
    /// # Safety
    /// It came from [`FrameSource::allocate`] with the same order, and nobody uses it.
    unsafe fn free(&self, frame: Pfn, order: u8);

    /// A frame of zeroes that nobody ever writes, to map where untouched memory is read. `None`: such a read gets a
    /// frame of its own.
    fn zero_frame(&self) -> Option<Pfn> {
        None
    }
}

// SAFETY: forwards to an implementation.
unsafe impl<T: FrameSource + ?Sized> FrameSource for &T {
    fn allocate(&self, order: u8) -> Option<Pfn> {
        (**self).allocate(order)
    }

    unsafe fn free(&self, frame: Pfn, order: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).free(frame, order) }
    }

    fn zero_frame(&self) -> Option<Pfn> {
        (**self).zero_frame()
    }
}

/// A frame taken from the source and not yet mapped. Dropping it gives it back.
pub(crate) struct OwnedFrame<'k, K: Env> {
    env: &'k K,
    pfn: Pfn,
}

impl<'k, K: Env> OwnedFrame<'k, K> {
    /// Takes a block of `1 << order` frames with one reference. `None`: out of memory.
    pub(crate) fn allocate(env: &'k K, kind: FrameKind, order: u8) -> Option<Self> {
        let pfn = env.source().allocate(order)?;
        let ownership = if kind == FrameKind::Anonymous { Ownership::Exclusive } else { Ownership::Shared };
        match env.frames().frame(pfn).map(|frame| frame.word.hand_out(kind, order, ownership)) {
            Some(Ok(())) => Some(Self { env, pfn }),
            // The source handed out a frame that is in use or that the frame table does not know. Leaving it alone
            // is the only safe answer.
            Some(Err(_)) | None => {
                env.counters().bug_caught();
                None
            }
        }
    }

    /// The same, cleared.
    pub(crate) fn zeroed(env: &'k K, kind: FrameKind, order: u8) -> Option<Self> {
        let owned = Self::allocate(env, kind, order)?;
        // SAFETY: the block was just allocated, in this order, and is ours.
        unsafe { env.phys_map().clear_frames(owned.pfn, order) };
        Some(owned)
    }

    /// The same, with the bytes of the block at `from`.
    ///
    /// # Safety
    /// The block at `from` is this kernel's, of the same order, and stays allocated meanwhile.
    pub(crate) unsafe fn copied(env: &'k K, from: Pfn, order: u8) -> Option<Self> {
        let owned = Self::allocate(env, FrameKind::Anonymous, order)?;
        // SAFETY: the target was just allocated, in this order, and is ours; the caller keeps the source.
        unsafe { env.phys_map().copy_frames(from, owned.pfn, order) };
        Some(owned)
    }

    /// The first frame.
    pub(crate) fn frame(&self) -> Pfn {
        self.pfn
    }

    /// Hands the reference over to a page-table entry.
    pub(crate) fn into_entry(self) -> Pfn {
        let pfn = self.pfn;
        core::mem::forget(self);
        pfn
    }
}

impl<K: Env> Drop for OwnedFrame<'_, K> {
    fn drop(&mut self) {
        if let Some(frame) = self.env.frames().frame(self.pfn) {
            release(self.env, self.pfn, frame.word.put());
        }
    }
}

/// Acts on the outcome of a `put` or `unpin`: gives the block back to the source if that was its last reference.
/// Returns whether pins remain.
#[inline(always)]
pub(crate) fn release<K: Env>(env: &K, frame: Pfn, outcome: Result<Released, CountError>) -> bool {
    match outcome {
        Ok(Released::Held { pinned }) => pinned,
        Ok(Released::Last { order }) => {
            // SAFETY: the word said that this was the last reference, and with which order the block was handed out; only
            // what came from the source is handed out.
            unsafe { env.source().free(frame, order) };
            false
        }
        Err(_) => {
            env.counters().bug_caught();
            false
        }
    }
}
