//! What a frame is used for.

#![forbid(unsafe_code)]

/// What a frame holds. Set when the frame is handed out, constant until its last reference is gone.
///
/// The large frames of a 2 MiB or 1 GiB leaf are of the same kinds; their head frame carries the order and stands
/// for the whole block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum FrameKind {
    /// Not handed out by the crate (free, or the kernel's own).
    Unmanaged = 0,
    /// Private memory of a process: may be pinned only while `EXCLUSIVE`.
    Anonymous = 1,
    /// The all-zero frame: mapped read-only any number of times, never counted (INV-6).
    Zero = 2,
    /// A page-table page: never a target of a pin.
    Table = 3,
    /// A page of an object: a file, a memfd, shared memory. `EXCLUSIVE` while it is open to pins.
    File = 4,
    /// Memory owned by a driver, which hears of its last release ([`DeviceFrames`](crate::DeviceFrames)). `EXCLUSIVE` while it is open
    /// to pins.
    Device = 5,
}

impl FrameKind {
    /// The bit that the kinds have of which there is another owner than the processes that map them, an object or a driver.
    pub(super) const LENT: u64 = 4;

    pub(super) const fn from_bits(bits: u64) -> Self {
        match bits {
            1 => Self::Anonymous,
            2 => Self::Zero,
            3 => Self::Table,
            4 => Self::File,
            5 => Self::Device,
            _ => Self::Unmanaged,
        }
    }

    /// Whether a pin needs `EXCLUSIVE` (`Some(true)`), can be had without (`Some(false)`), or never (`None`).
    pub(super) const fn pin_needs_exclusive(self) -> Option<bool> {
        match self {
            Self::Anonymous => Some(true),
            Self::File | Self::Device => Some(false),
            Self::Unmanaged | Self::Zero | Self::Table => None,
        }
    }
}

const _: () = assert!(FrameKind::File as u64 & FrameKind::Device as u64 & FrameKind::LENT != 0);
const _: () = assert!((FrameKind::Anonymous as u64 | FrameKind::Table as u64) & FrameKind::LENT == 0);
