//! [`Region`]: the boot loader's map of memory, sorted and checked.

#![forbid(unsafe_code)]

use core::fmt;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::arch::PHYSICAL_END;
use crate::errno::{EINVAL, ENOMEM, EOVERFLOW};

/// Most regions that a map may have, neighbours of one kind counted once.
pub(super) const MAX_REGIONS: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Usable,
    Reserved,
    Kernel,
    Taken,
}

/// A stretch of physical memory, from its first byte up to `end`.
///
/// ```
/// use pagepin::Region;
/// // Of a boot loader that names bytes: `bootloader` 0.11, limine. What is not whole frames stays unused.
/// let low = Region::usable(0, 0x9_fc00).whole_frames();
/// assert_eq!(low, Region::usable(0, 0x9_f000));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Region {
    start: u64,
    end: u64,
    used: Use,
}

impl Region {
    const NONE: Self = Self { start: 0, end: 0, used: Use::Reserved };

    /// The bytes from physical address `start` up to `end`: ordinary memory that nobody uses.
    #[must_use]
    pub const fn usable(start: u64, end: u64) -> Self {
        Self { start, end, used: Use::Usable }
    }

    /// What the boot loader says is anything else: the firmware's, a device's, broken. Its alignment does not matter.
    ///
    /// ```
    /// use pagepin::Region;
    /// let of_boot_loader = |start, end, is_usable| if is_usable { Region::usable(start, end) } else { Region::reserved(start, end) };
    /// assert!(!of_boot_loader(0x9_fc00, 0xa_0000, false).is_usable());
    /// ```
    #[must_use]
    pub const fn reserved(start: u64, end: u64) -> Self {
        Self { start, end, used: Use::Reserved }
    }

    /// Where the kernel is. A usable region that contains any of it is refused, in an error that says so.
    ///
    /// ```
    /// use pagepin::Region;
    /// let regions = [Region::usable(0, 1 << 20), Region::kernel(0x8000, 0x9000)]; // overlaps: refused by `from_regions`
    /// assert!(!regions[1].is_usable());
    /// ```
    #[must_use]
    pub const fn kernel(start: u64, end: u64) -> Self {
        Self { start, end, used: Use::Kernel }
    }

    /// Usable memory that somebody has taken: a heap, a boot module, the page where other CPUs start. It is cut out of the usable
    /// regions that it meets, in whole frames.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # use doc_kernel::{Memory, OneCpu};
    /// let regions = [Region::usable(0, 1 << 20), Region::taken(0x8000, 0x9000)];
    /// // SAFETY: the memory is this kernel's alone.
    /// let without: doc_kernel::Kernel = unsafe { Platform::from_regions(Memory::new(), regions, OneCpu, OneCpu) }?;
    /// assert!(without.frames().frame(Pfn::new(8)).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn taken(start: u64, end: u64) -> Self {
        Self { start, end, used: Use::Taken }
    }

    /// The whole frames within the region; empty if there are none.
    #[must_use]
    pub const fn whole_frames(self) -> Self {
        let end = self.end & !(PAGE_SIZE - 1);
        match self.start.checked_next_multiple_of(PAGE_SIZE) {
            Some(start) if start <= end => Self { start, end, ..self },
            _ => Self { start: end, end, ..self },
        }
    }

    /// Physical address of the first byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Physical address after the last byte.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Whether it was given as usable.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self.used, Use::Usable)
    }

    const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({self})")
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = match self.used {
            Use::Usable => "usable",
            Use::Reserved => "not usable",
            Use::Kernel => "the kernel",
            Use::Taken => "taken",
        };
        write!(f, "{:#x}..{:#x} {used}", self.start, self.end)
    }
}

/// What is wrong with a map of memory. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionError {
    /// The region ends before it begins.
    Backwards(Region),
    /// The usable region does not begin and end with a frame. See [`Region::whole_frames`].
    Unaligned(Region),
    /// The region ends beyond what the processor's physical addresses reach.
    BeyondPhysicalMemory(Region),
    /// A usable region overlaps another: this memory is somebody's, or would be handed out twice.
    Overlap(Region, Region),
    /// The first region is usable and contains some of the second, which is the kernel. See [`Region::taken`].
    ContainsKernel(Region, Region),
    /// The map has more regions than this.
    TooManyRegions(usize),
    /// There is more usable memory than can be numbered (16 TiB).
    TooMuchMemory,
    /// No usable region.
    NoMemory,
    /// The largest usable stretch is too small for the words of all frames, which take so many bytes.
    TooSmall(Region, u64),
}

impl RegionError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Backwards(_) | Self::Unaligned(_) | Self::BeyondPhysicalMemory(_) => EINVAL,
            Self::Overlap(..) | Self::ContainsKernel(..) => EINVAL,
            Self::TooManyRegions(_) | Self::TooMuchMemory => EOVERFLOW,
            Self::NoMemory | Self::TooSmall(..) => ENOMEM,
        }
    }
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backwards(region) => write!(f, "the region {region} ends before it begins"),
            Self::Unaligned(region) => write!(f, "the region {region} is not one of whole frames"),
            Self::BeyondPhysicalMemory(region) => write!(f, "the region {region} ends beyond physical memory"),
            Self::Overlap(one, other) => write!(f, "the regions {one} and {other} overlap"),
            Self::ContainsKernel(region, kernel) => write!(f, "the region {region} contains the kernel: {kernel}"),
            Self::TooManyRegions(most) => write!(f, "more than {most} regions"),
            Self::TooMuchMemory => f.write_str("more usable memory than can be numbered"),
            Self::NoMemory => f.write_str("no usable region"),
            Self::TooSmall(region, bytes) => {
                write!(f, "the words of all frames take {bytes} bytes, too many for {region}")
            }
        }
    }
}

impl core::error::Error for RegionError {}

/// A run of frames that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) frames: u64,
}

impl Piece {
    pub(super) const fn region(self) -> Region {
        Region::usable(self.first << PAGE_SHIFT, (self.first + self.frames) << PAGE_SHIFT)
    }
}

/// Regions in the order of their addresses, of which no usable one overlaps any other. It takes 6 KiB of a stack that may be small
/// at boot, so there is one, and it is never moved.
pub(super) struct MemoryMap {
    /// One more than may be given, for what is carved.
    regions: [Region; MAX_REGIONS + 1],
    count: usize,
}

impl MemoryMap {
    pub(super) const EMPTY: Self = Self { regions: [Region::NONE; MAX_REGIONS + 1], count: 0 };

    /// # Errors
    /// All of [`RegionError`] that can be seen by looking at the regions.
    pub(super) fn read(&mut self, regions: impl IntoIterator<Item = Region>) -> Result<(), RegionError> {
        for region in regions {
            self.add(region)?;
        }
        self.sort();
        self.reject_overlaps()
    }

    fn add(&mut self, region: Region) -> Result<(), RegionError> {
        if region.end < region.start {
            return Err(RegionError::Backwards(region));
        }
        if region.start == region.end {
            return Ok(());
        }
        if region.is_usable() && (region.start | region.end) % PAGE_SIZE != 0 {
            return Err(RegionError::Unaligned(region));
        }
        if region.is_usable() && region.end > PHYSICAL_END {
            return Err(RegionError::BeyondPhysicalMemory(region));
        }
        // Firmware likes to tell one region in many parts.
        if let Some(last) = self.regions[..self.count].last_mut() {
            if last.used == region.used && last.end == region.start {
                last.end = region.end;
                return Ok(());
            }
        }
        if self.count == MAX_REGIONS {
            return Err(RegionError::TooManyRegions(MAX_REGIONS));
        }
        self.regions[self.count] = region;
        self.count += 1;
        Ok(())
    }

    /// Takes the frames of `piece`.
    pub(super) fn take(&mut self, piece: Piece) {
        let start = piece.first << PAGE_SHIFT;
        self.regions[self.count] = Region::taken(start, start + (piece.frames << PAGE_SHIFT));
        self.count += 1;
        self.sort();
    }

    fn sort(&mut self) {
        self.regions[..self.count].sort_unstable_by_key(|region| region.start);
    }

    fn reject_overlaps(&self) -> Result<(), RegionError> {
        let regions = &self.regions[..self.count];
        for (index, region) in regions.iter().enumerate() {
            let others = regions[index + 1..].iter().take_while(|other| other.start < region.end);
            for other in others.filter(|other| region.overlaps(**other)) {
                match (region.used, other.used) {
                    (Use::Usable, Use::Kernel) => return Err(RegionError::ContainsKernel(*region, *other)),
                    (Use::Kernel, Use::Usable) => return Err(RegionError::ContainsKernel(*other, *region)),
                    (Use::Taken, _) | (_, Use::Taken) => {}
                    (Use::Usable, _) | (_, Use::Usable) => return Err(RegionError::Overlap(*region, *other)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What is usable and not taken, in the order of addresses, with no two pieces side by side.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> + Clone + '_ {
        let regions = &self.regions[..self.count];
        let mut raw = Uncut { regions, index: 0, at: 0 }.peekable();
        core::iter::from_fn(move || {
            let mut piece = raw.next()?;
            while let Some(next) = raw.next_if(|next| next.first == piece.first + piece.frames) {
                piece.frames += next.frames;
            }
            Some(piece)
        })
    }
}

/// The pieces of each usable region by itself.
#[derive(Clone)]
struct Uncut<'a> {
    regions: &'a [Region],
    /// The region that is being cut, and from which frame on.
    index: usize,
    at: u64,
}

impl Uncut<'_> {
    /// The next run of taken frames that ends after frame `at` and begins before frame `end`.
    fn taken(&self, at: u64, end: u64) -> Option<(u64, u64)> {
        let taken = self.regions.iter().filter(|region| region.used == Use::Taken);
        let frames = taken.map(|region| (region.start >> PAGE_SHIFT, region.end.div_ceil(PAGE_SIZE)));
        frames.filter(|&(first, last)| last > at && first < end).min()
    }
}

impl Iterator for Uncut<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        loop {
            let region = self.regions.get(self.index)?;
            let (start, end) = (region.start >> PAGE_SHIFT, region.end >> PAGE_SHIFT);
            let first = self.at.max(start);
            if !region.is_usable() || first >= end {
                self.index += 1;
                continue;
            }
            let (piece_end, next) = self.taken(first, end).unwrap_or((end, end));
            self.at = next;
            if piece_end > first {
                return Some(Piece { first, frames: piece_end - first });
            }
        }
    }
}
