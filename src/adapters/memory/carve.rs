//! [`frames_from_regions`]: the memory for the words, carved out of what they are for.

use core::mem::MaybeUninit;

use spin::relax::Spin;

use super::allocated::Allocated;
use super::lists::{Lists, MAX_FRAMES, Note};
use super::region::{MemoryMap, Piece, Region, RegionError};
use super::stretch::{Stretch, Stretches};
use super::{BuddySource, SpanFrameTable};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn};
use crate::env::{Extras, FrameRequest, FrameSource, OffsetPhysMap, PhysMap, Platform};
use crate::frame::{Layout, PageFrame};

/// The kernel that [`Platform::from_regions`] makes, of a read side `R` and a shootdown `D`.
pub type BootPlatform<R, D, X = Spin, E = Extras> =
    Platform<OffsetPhysMap, SpanFrameTable<'static>, BuddySource<'static>, R, D, X, E>;

impl<P: PhysMap, R, D, X, L: Layout> Platform<P, SpanFrameTable<'static, L>, BuddySource<'static>, R, D, X> {
    /// A kernel whose frames are those of a boot loader's map: see [`frames_from_regions`].
    ///
    /// ```no_run
    /// # #[cfg(all(feature = "instructions", target_arch = "x86_64"))] {
    /// use pagepin::{BootPlatform, OffsetPhysMap, Platform, Region, RegionError, SingleCpu};
    ///
    /// type Kernel = BootPlatform<SingleCpu, SingleCpu>;
    ///
    /// /// `regions`: start, end, and whether it is usable.
    /// fn kernel(offset: u64, regions: &[(u64, u64, bool)]) -> Result<Kernel, RegionError> {
    ///     let regions = regions.iter().map(|&(start, end, is_usable)| match is_usable {
    ///         true => Region::usable(start, end),
    ///         false => Region::reserved(start, end),
    ///     });
    ///     // SAFETY: the boot loader maps all memory at `offset` and nobody uses what it says is usable; there is one CPU, in
    ///     // ring 0.
    ///     unsafe { Platform::from_regions(OffsetPhysMap::new(offset), regions, SingleCpu::new(), SingleCpu::new()) }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RegionError`]: nothing was changed.
    ///
    /// # Safety
    /// As [`frames_from_regions`] for ever, and as [`Platform::new`].
    pub unsafe fn from_regions(
        phys_map: P,
        regions: impl IntoIterator<Item = Region>,
        read_side: R,
        shootdown: D,
    ) -> Result<Self, RegionError> {
        // SAFETY: forwarded from the caller.
        let (frames, source) = unsafe { frames_from_regions(&phys_map, regions) }?;
        // SAFETY: forwarded from the caller; table and source were made for each other and for this map.
        Ok(unsafe { Self::with_relax(phys_map, frames, source, read_side, shootdown) })
    }
}

/// A frame table and a frame source of all that is usable in a boot loader's map of memory.
///
/// The words of the frames, and the notes of the allocator, take 0.5 % of the memory. They are carved out of the end of the
/// largest usable stretch, of which [`frame_ptr`](PhysMap::frame_ptr) is asked once. All other usable frames are in the table, and free.
/// Another frame of them is cleared and becomes the zero frame.
///
/// The order of the regions does not matter, and what no region covers is a hole. A heap is not needed.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # use doc_kernel::Memory;
/// let map = Memory::new();
/// // SAFETY: the memory is this code's alone.
/// let (frames, source) = unsafe { frames_from_regions::<Wide>(&map, [Region::usable(0, 1 << 20)]) }?;
/// assert!(source.free_frames() > 250);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`RegionError`]: nothing was changed.
///
/// # Safety
/// - What is usable and not taken is ordinary memory that nobody uses and nobody but the result will, for as long as `'a`
///   lasts.
/// - `map` reaches all of it, each stretch as consecutive memory.
/// - Without feature `instructions`, interrupts are off on the calling CPU whenever the source is used.
pub unsafe fn frames_from_regions<'a, L: Layout>(
    map: &impl PhysMap,
    regions: impl IntoIterator<Item = Region>,
) -> Result<(SpanFrameTable<'a, L>, BuddySource<'a>), RegionError> {
    let mut usable = MemoryMap::EMPTY;
    usable.read(regions)?;
    let most = usable.pieces().max_by_key(|piece| piece.frames).ok_or(RegionError::NoMemory)?;
    let frames: u64 = usable.pieces().map(|piece| piece.frames).sum();
    if frames > MAX_FRAMES {
        return Err(RegionError::TooMuchMemory);
    }
    let bytes = Chunk::bytes::<L>(frames, usable.pieces().count() as u64);
    let chunk_frames = bytes.div_ceil(PAGE_SIZE);
    let too_small = RegionError::TooSmall(most.region(), bytes);
    let chunk_first = (most.first + most.frames).checked_sub(chunk_frames).ok_or(too_small)?;
    // Something must be left of the piece: then there are as many as before, for which the chunk has room.
    if chunk_first <= most.first {
        return Err(too_small);
    }
    let carved = Piece { first: chunk_first, frames: chunk_frames };
    usable.take(carved);
    let largest = usable.pieces().max_by_key(|piece| piece.frames).ok_or(too_small)?;
    // SAFETY: the frames are usable, so nobody uses them and the map reaches them as consecutive memory; they are in no piece
    // that is left, so nobody will.
    let mut chunk = unsafe { Chunk::new(map, carved) };

    let mut place = largest.frames;
    let others = usable.pieces().filter(|piece| *piece != largest).map(|Piece { first, frames }| {
        place += frames;
        Stretch { first, frames, place: place - frames }
    });
    let others = chunk.take(usable.pieces().count() - 1, others);
    let largest = Stretch { first: largest.first, frames: largest.frames, place: 0 };
    let stretches = Stretches { largest, others };
    let frames = (frames - chunk_frames) as usize;
    let words = PageFrame::init_slice(chunk.room(frames));
    let bits = chunk.take(Allocated::words(frames as u64) as usize, core::iter::repeat(0));
    let notes = chunk.take(frames, core::iter::repeat(Note::NEW));
    // SAFETY: what is left is ordinary memory that nobody uses, by the caller, and the words are new.
    let table = unsafe { SpanFrameTable::new(stretches, words) };
    // SAFETY: the same frames, which the map reaches, by the caller.
    let source = unsafe { BuddySource::new(Lists::new(stretches, notes, bits)) };
    Ok((table, with_zero_frame(map, source)))
}

fn with_zero_frame<'a>(map: &impl PhysMap, source: BuddySource<'a>) -> BuddySource<'a> {
    let Some(zero) = source.allocate(FrameRequest::unmovable(0)) else { return source };
    // SAFETY: the frame was just handed out, and is never given back, so it stays as it is.
    unsafe {
        map.clear_frames(zero, 0);
        source.with_zero_frame(zero)
    }
}

/// Memory to make arrays in, one after the other: those whose elements are a multiple of 8 bytes first.
struct Chunk<'a>(&'a mut [MaybeUninit<u8>]);

impl<'a> Chunk<'a> {
    /// The size of all arrays for so many frames in so many pieces.
    const fn bytes<L: Layout>(frames: u64, pieces: u64) -> u64 {
        let each = (size_of::<PageFrame<L>>() + size_of::<Note>()) as u64;
        pieces * size_of::<Stretch>() as u64 + frames * each + Allocated::words(frames) * 8
    }

    /// # Safety
    /// Nobody uses the frames for as long as `'a` lasts, and `map` reaches them, as consecutive memory.
    unsafe fn new(map: &impl PhysMap, frames: Piece) -> Self {
        let bytes = (frames.frames << PAGE_SHIFT) as usize;
        // SAFETY: forwarded from the caller; any bytes are `MaybeUninit`.
        Self(unsafe { core::slice::from_raw_parts_mut(map.frame_ptr(Pfn::new(frames.first)).cast(), bytes) })
    }

    /// Room for `count` elements.
    fn room<T>(&mut self, count: usize) -> &'a mut [MaybeUninit<T>] {
        let (room, rest) = core::mem::take(&mut self.0).split_at_mut(count * size_of::<T>());
        self.0 = rest;
        assert!(room.as_ptr().cast::<T>().is_aligned());
        // SAFETY: the room is so long, was just looked at for its alignment, and any bytes are `MaybeUninit`.
        unsafe { core::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), count) }
    }

    /// An array of the first `count` of `values`, which has as many.
    fn take<T: Copy>(&mut self, count: usize, values: impl Iterator<Item = T>) -> &'a mut [T] {
        let room = self.room(count);
        let written = room.iter_mut().zip(values).map(|(place, value)| place.write(value)).count();
        // SAFETY: so many elements from the first on were just written; a `MaybeUninit` lies in memory as its type does.
        unsafe { &mut *(core::ptr::from_mut(&mut room[..written]) as *mut [T]) }
    }
}
