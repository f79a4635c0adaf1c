//! What an IOMMU says about a device.

/// An access that was blocked, or that none was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockedAccess {
    None,
    /// By the device, to this page of its addresses.
    OfDevice {
        page: u64,
        write: bool,
        reason: u8,
    },
    /// By another one.
    OfOther,
}

impl BlockedAccess {
    const SOME: u64 = 1 << 0;
    const WRITE: u64 = 1 << 1;
    const OTHER: u64 = 1 << 2;
    /// Up to where a page's address begins.
    const REASON_SHIFT: u32 = 4;

    /// As [`Call::DevBlocked`](crate::Call::DevBlocked) returns it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::None => 0,
            Self::OfOther => Self::SOME | Self::OTHER,
            Self::OfDevice { page, write, reason } => {
                let write = if write { Self::WRITE } else { 0 };
                page & !0xfff | (reason as u64) << Self::REASON_SHIFT | write | Self::SOME
            }
        }
    }

    /// Inverse of [`BlockedAccess::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        if bits & Self::SOME == 0 {
            Self::None
        } else if bits & Self::OTHER != 0 {
            Self::OfOther
        } else {
            let reason = (bits >> Self::REASON_SHIFT) as u8;
            Self::OfDevice { page: bits & !0xfff, write: bits & Self::WRITE != 0, reason }
        }
    }
}
