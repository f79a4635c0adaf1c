//! [`MemoryType`]: how accesses to a page go through the caches (SDM vol. 3, "Page Attribute Table").

use core::fmt;

/// How accesses through a leaf use the caches, which is for the kernel to know.
///
/// Private memory is write-back: the crate itself clears and copies it through the kernel's direct map. Memory that is not the
/// crate's has the type it is mapped with. Fork, protect and a page that is without rights for a while keep it.
///
/// In an entry the type is an index (PWT, PCD and PAT, as bits 0, 1 and 2) into the eight fields of the register `IA32_PAT`,
/// and that register says what it means:
///
/// | | index | after a reset | in [`MemoryType::PAT`] | on Linux |
/// |---|---:|---|---|---|
/// | [`WRITE_BACK`](Self::WRITE_BACK) | 0 | write-back | write-back | write-back |
/// | [`WRITE_THROUGH`](Self::WRITE_THROUGH) | 1 | write-through | write-through | write-combining |
/// | | 2 | uncached unless an MTRR says write-combining | the same | the same |
/// | [`UNCACHED`](Self::UNCACHED) | 3 | uncached | uncached | uncached |
/// | | 4, 5 | as 0, 1 | as 0, 1 | write-back, write-protected |
/// | [`WRITE_COMBINING`](Self::WRITE_COMBINING) | 6 | as 2 | write-combining | as 2 |
/// | | 7 | uncached | uncached | write-through |
///
/// A kernel that leaves the register alone has all but write-combining, in place of which it gets an uncached type: slower,
/// and as right. One that wants it writes [`MemoryType::PAT`] on every CPU before the first such leaf is made, with the
/// caches written back and all translations flushed as the SDM says. One that has an order of its own names its indices by
/// [`MemoryType::from_pat_index`].
///
/// ```
/// use pagepin::MemoryType;
/// const LINUX_WRITE_COMBINING: MemoryType = MemoryType::from_pat_index(1).unwrap();
/// assert_eq!(MemoryType::from_pat_index(8), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryType {
    pat_index: u8,
}

impl MemoryType {
    /// Cached: ordinary memory.
    pub const WRITE_BACK: Self = Self { pat_index: 0 };
    /// Cached for loads; stores go to memory at once.
    pub const WRITE_THROUGH: Self = Self { pat_index: 1 };
    /// Each access reaches the device, once and in order: registers.
    pub const UNCACHED: Self = Self { pat_index: 3 };
    /// Not cached; stores are gathered and may be reordered: a frame buffer. Needs the register, see above.
    pub const WRITE_COMBINING: Self = Self { pat_index: 6 };

    /// What `IA32_PAT` (MSR 0x277) has to hold for the four: its value after a reset, with write-combining in field 6.
    pub const PAT: u64 = 0x0001_0406_0007_0406;

    /// The type that field `index` (0..8) of `IA32_PAT` holds in this kernel.
    #[must_use]
    pub const fn from_pat_index(index: u8) -> Option<Self> {
        if index < 8 { Some(Self { pat_index: index }) } else { None }
    }

    /// Its field in `IA32_PAT`.
    #[must_use]
    pub const fn pat_index(self) -> u8 {
        self.pat_index
    }
}

impl fmt::Debug for MemoryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WRITE_BACK => f.write_str("WriteBack"),
            Self::WRITE_THROUGH => f.write_str("WriteThrough"),
            Self::UNCACHED => f.write_str("Uncached"),
            Self::WRITE_COMBINING => f.write_str("WriteCombining"),
            Self { pat_index } => write!(f, "MemoryType(PAT {pat_index})"),
        }
    }
}
