//! [`FrameSource`]: where frames come from and go back to.

use super::{DeviceFrames, Env, ExtraParts, FrameTable, PhysMap, bug_caught};
use crate::addr::Pfn;
use crate::arch::{Entry, LeafSize};
use crate::frame::{CountError, FrameKind, FrameWord, Layout, Ownership, PageFrame, Released};

/// Where an allocator that keeps zones takes a block from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Among what can be moved: the pages of processes.
    Movable,
    /// Among what stays where it is until it is freed: page tables, and pages that are pinned for long
    /// ([`PinFlags::LONGTERM`](crate::pin::PinFlags::LONGTERM)).
    Unmovable,
}

/// What is asked of a [`FrameSource`]. Made by the crate; more may be asked one day.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// let table = kernel.source().allocate(FrameRequest::unmovable(0)).unwrap();
/// let page = kernel.source().allocate(FrameRequest::movable(0)).unwrap();
/// // SAFETY: each was just taken.
/// unsafe {
///     kernel.source().free(table, 0);
///     kernel.source().free(page, 0);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameRequest {
    /// log2 of the number of frames.
    pub order: u8,
    /// Where from: a hint, which a kernel without zones ignores.
    pub zone: Zone,
}

impl FrameRequest {
    /// A block of `1 << order` frames for a process.
    #[must_use]
    pub const fn movable(order: u8) -> Self {
        Self { order, zone: Zone::Movable }
    }

    /// A block of `1 << order` frames that stays.
    #[must_use]
    pub const fn unmovable(order: u8) -> Self {
        Self { order, zone: Zone::Unmovable }
    }
}

/// The kernel's physical allocator.
///
/// # Implementation safety
/// `allocate` returns `1 << order` consecutive frames, aligned to that number, used by nobody, reachable through the
/// kernel's [`PhysMap`] and present in its [`FrameTable`]. `zero_frame` is always the same, and what it says.
///
/// A block may come back in pieces: each a power of two of frames, aligned to its size, in any order and at any time. So an
/// allocator that writes down what it handed out writes it down for frames, not for blocks, or splits its note.
///
/// All methods may be called with the mm lock held, and must not call back into the crate. `free` is also
/// called from interrupt context and with interrupts off: the last holder of a frame may be a completion interrupt, or
/// a lockless walker that undoes a reference.
pub unsafe trait FrameSource {
    /// Takes a block; its contents are arbitrary. `None`: out of memory, or no such order.
    fn allocate(&self, request: FrameRequest) -> Option<Pfn>;

    /// Takes back `1 << order` frames from `frame` on, which is aligned to that number.
    ///
    /// # Safety
    /// They are a block from [`FrameSource::allocate`], or a part of one, and nobody uses them.
    unsafe fn free(&self, frame: Pfn, order: u8);

    /// Takes back `count` consecutive frames, anyhow aligned: what an unmap found side by side. An allocator that can do so
    /// under one hold of its lock says how.
    ///
    /// # Safety
    /// Each is a block of order 0 from [`FrameSource::allocate`], or a part of a block, and nobody uses them.
    unsafe fn free_run(&self, first: Pfn, count: u64) {
        for index in 0..count {
            // SAFETY: forwarded from the caller.
            unsafe { self.free(first.offset(index), 0) };
        }
    }

    /// A frame of zeroes that nobody ever writes, to map where untouched memory is read. `None`: such a read gets a
    /// frame of its own.
    fn zero_frame(&self) -> Option<Pfn> {
        None
    }

    /// Whether `frame`, a page of a process or an object, may be pinned for as long as user space wants
    /// ([`PinFlags::LONGTERM`](crate::pin::PinFlags::LONGTERM)). If not, the page gets a frame of [`Zone::Unmovable`] first. A kernel without
    /// zones needs to say nothing: every frame may.
    ///
    /// What decides is asked when the frame is pinned already; of a large leaf, for its first frame. So who wants to empty a part of
    /// memory answers no from then on, as under a lock held for a moment, and looks for pins afterwards: no pin is missed.
    fn may_stay(&self, frame: Pfn) -> bool {
        let _ = frame;
        true
    }
}

// SAFETY: forwards to an implementation.
unsafe impl<T: FrameSource + ?Sized> FrameSource for &T {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        (**self).allocate(request)
    }

    unsafe fn free(&self, frame: Pfn, order: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).free(frame, order) }
    }

    unsafe fn free_run(&self, first: Pfn, count: u64) {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).free_run(first, count) }
    }

    fn zero_frame(&self) -> Option<Pfn> {
        (**self).zero_frame()
    }

    fn may_stay(&self, frame: Pfn) -> bool {
        (**self).may_stay(frame)
    }
}

/// A block from the source, whose head's word `hand_out` makes. `None`: out of memory.
#[inline(always)]
fn take<K: Env>(
    env: &K,
    request: FrameRequest,
    hand_out: impl FnOnce(&FrameWord<<K::Frames as FrameTable>::Layout>) -> Result<(), CountError>,
) -> Option<Pfn> {
    let pfn = env.source().allocate(request)?;
    match env.frames().frame(pfn).map(|frame| hand_out(&frame.word)) {
        Some(Ok(())) => Some(pfn),
        // The source handed out a frame that is in use or that the frame table does not know. Leaving it alone
        // is the only safe answer.
        Some(Err(_)) | None => {
            bug_caught(env);
            None
        }
    }
}

/// A frame of `zone` for a process, exclusive, with one reference for the entry that is to map it and one pin, with the bytes of the
/// frame at `from`, or cleared. `None`: out of memory.
///
/// # Safety
/// The frame at `from` is this kernel's and stays allocated meanwhile.
#[inline(always)]
pub(crate) unsafe fn born_pinned<K: Env>(env: &K, from: Option<Pfn>, zone: Zone) -> Option<Pfn> {
    let pfn = take(env, FrameRequest { order: 0, zone }, FrameWord::hand_out_pinned)?;
    // SAFETY: the frame was just allocated and is ours; the caller keeps the source.
    unsafe {
        match from {
            Some(from) => env.phys_map().copy_frames(from, pfn, 0),
            None => env.phys_map().clear_frames(pfn, 0),
        }
    }
    Some(pfn)
}

/// A frame taken from the source and not yet mapped. Dropping it gives it back.
pub(crate) struct OwnedFrame<'k, K: Env> {
    env: &'k K,
    pfn: Pfn,
}

impl<'k, K: Env> OwnedFrame<'k, K> {
    #[inline(always)]
    fn take(env: &'k K, kind: FrameKind, request: FrameRequest, ownership: Ownership) -> Option<Self> {
        let pfn = take(env, request, |word| word.hand_out(kind, request.order, ownership))?;
        Some(Self { env, pfn })
    }

    /// Takes a block for pages of a process, exclusive, with one reference. `None`: out of memory.
    #[inline(always)]
    pub(crate) fn allocate(env: &'k K, request: FrameRequest) -> Option<Self> {
        Self::take(env, FrameKind::Anonymous, request, Ownership::Exclusive)
    }

    /// The same, cleared.
    #[inline(always)]
    pub(crate) fn zeroed(env: &'k K, request: FrameRequest) -> Option<Self> {
        let owned = Self::allocate(env, request)?;
        // SAFETY: the block was just allocated, in this order, and is ours.
        unsafe { env.phys_map().clear_frames(owned.pfn, request.order) };
        Some(owned)
    }

    /// A cleared frame that is no process's own, a table or a page of an object, with one reference. `None`: out of memory.
    pub(crate) fn staying(env: &'k K, kind: FrameKind) -> Option<Self> {
        let owned = Self::take(env, kind, FrameRequest::unmovable(0), Ownership::Shared)?;
        // SAFETY: the frame was just allocated, and is ours.
        unsafe { env.phys_map().clear_frames(owned.pfn, 0) };
        Some(owned)
    }

    /// A frame for a table, with one reference. Its bytes are what they are. `None`: out of memory.
    pub(crate) fn table(env: &'k K) -> Option<Self> {
        Self::take(env, FrameKind::Table, FrameRequest::unmovable(0), Ownership::Shared)
    }

    /// As [`allocate`](Self::allocate), with the bytes of the block at `from`.
    ///
    /// # Safety
    /// The block at `from` is this kernel's, of the same order, and stays allocated meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn copied(env: &'k K, from: Pfn, request: FrameRequest) -> Option<Self> {
        let owned = Self::allocate(env, request)?;
        // SAFETY: the target was just allocated, in this order, and is ours; the caller keeps the source.
        unsafe { env.phys_map().copy_frames(from, owned.pfn, request.order) };
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

/// Frames whose last reference is gone, on their way back to the source: neighbours go together.
pub(crate) struct FreedRun<'k, K: Env> {
    env: &'k K,
    first: Pfn,
    count: u64,
}

impl<'k, K: Env> FreedRun<'k, K> {
    /// No leaf names it.
    const NONE: Pfn = Pfn::containing(u64::MAX);

    pub(crate) fn new(env: &'k K) -> Self {
        Self { env, first: Self::NONE, count: 0 }
    }

    /// The kernel.
    #[inline(always)]
    pub(crate) fn env(&self) -> &'k K {
        self.env
    }

    /// The frame that would be the next of the run.
    #[inline(always)]
    pub(crate) fn next(&self) -> Pfn {
        self.first.offset(self.count)
    }

    /// The `count` frames from `next` on have no reference left: each was a block of its own.
    #[inline(always)]
    pub(crate) fn extend(&mut self, count: u64) {
        self.count += count;
    }

    /// As [`release`], of a frame that may be one of many.
    #[inline(always)]
    pub(crate) fn release(&mut self, frame: Pfn, outcome: Result<Released, CountError>) -> bool {
        match outcome {
            Ok(Released::Held { pinned }) => pinned,
            Ok(Released::Last { order: 0, kind }) if !is_drivers::<K>(kind) => {
                if frame != self.next() {
                    self.give_back();
                    self.first = frame;
                }
                self.count += 1;
                false
            }
            outcome => release(self.env, frame, outcome),
        }
    }

    #[inline(never)]
    fn give_back(&mut self) {
        let first = core::mem::replace(&mut self.first, Self::NONE);
        match core::mem::take(&mut self.count) {
            0 => {}
            // SAFETY: as in `release`, for each.
            1 => unsafe { self.env.source().free(first, 0) },
            // SAFETY: as in `release`, for each.
            count => unsafe { self.env.source().free_run(first, count) },
        }
    }
}

impl<K: Env> Drop for FreedRun<'_, K> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Gives back what is held of a block that had `order` when it was taken: one count, or one of each part that it has been split into
/// since. Each word says for how many frames it stood in the step that gave its count back.
#[inline(never)]
pub(crate) fn release_block<K: Env>(
    env: &K,
    head: Pfn,
    order: u8,
    give_back: impl Fn(&FrameWord<<K::Frames as FrameTable>::Layout>) -> Result<(Released, u8), CountError>,
) {
    let (mut next, end) = (head, head.offset(1 << order));
    let mut freed = FreedRun::new(env);
    while next < end {
        match env.frames().frame(next).map(|frame| give_back(&frame.word)) {
            Some(Ok((outcome, order))) => {
                freed.release(next, Ok(outcome));
                next = next.offset(1 << order);
            }
            // Of what then follows nobody knows what it is.
            Some(Err(_)) | None => return bug_caught(env),
        }
    }
}

/// The frame whose word counts what a leaf of `size` holds, present or prot-none: the first that it maps, or, of a part of a block that is borrowed, the
/// block's head. That is in use as long as the leaf is there, and no other frame of the block is.
#[inline(always)]
pub(crate) fn counted_frame<K: Env>(
    env: &K,
    leaf: Entry,
    size: LeafSize,
) -> Option<(Pfn, &PageFrame<<K::Frames as FrameTable>::Layout>)> {
    let first = leaf.leaf_frame(size);
    if leaf.was_borrowed() {
        return head_of(env, first);
    }
    Some((first, env.frames().frame(first)?))
}

/// Whether a leaf of `size`, which `counted` counts, is a part of a block that is borrowed.
#[inline(always)]
pub(crate) fn is_part<L: Layout>(leaf: Entry, size: LeafSize, counted: &PageFrame<L>) -> bool {
    leaf.is_borrowed() && counted.word.order() > size.order()
}

#[cold]
fn head_of<K: Env>(env: &K, frame: Pfn) -> Option<(Pfn, &PageFrame<<K::Frames as FrameTable>::Layout>)> {
    [LeafSize::Size4KiB, LeafSize::Size2MiB, LeafSize::Size1GiB].into_iter().find_map(|size| {
        let head = frame.block_start(size.order());
        let word = env.frames().frame(head)?;
        (!word.snapshot().is_free() && word.order() >= size.order()).then_some((head, word))
    })
}

/// Whether a frame of this kind goes back to a driver.
#[inline(always)]
fn is_drivers<K: Env>(kind: FrameKind) -> bool {
    <<K::Extras as ExtraParts>::DeviceFrames as DeviceFrames>::EXIST && kind == FrameKind::Device
}

/// Acts on the outcome of a `put` or `unpin`: gives the block back to the source, or to its driver, if that was its last reference.
/// Returns whether pins remain.
#[inline(always)]
pub(crate) fn release<K: Env>(env: &K, frame: Pfn, outcome: Result<Released, CountError>) -> bool {
    match outcome {
        Ok(Released::Held { pinned }) => pinned,
        Ok(Released::Last { order, kind }) if is_drivers::<K>(kind) => {
            env.extras().device_frames().released(frame, order);
            false
        }
        Ok(Released::Last { order, .. }) => {
            // SAFETY: the word said that this was the last reference, and with which order the block was handed out; only
            // what came from the source, or is a driver's, is handed out.
            unsafe { env.source().free(frame, order) };
            false
        }
        Err(_) => {
            bug_caught(env);
            false
        }
    }
}
