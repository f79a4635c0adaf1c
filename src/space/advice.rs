//! [`Advice`]: what user space says about its memory.

#![forbid(unsafe_code)]

use crate::vma::VmaFlags;

/// What fork is to do with some pages; see [`VmaFlags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// A child does not get them (`MADV_DONTFORK`).
    DontFork,
    /// It does again (`MADV_DOFORK`).
    DoFork,
    /// A child finds zeroes there (`MADV_WIPEONFORK`).
    WipeOnFork,
    /// It finds the contents again (`MADV_KEEPONFORK`).
    KeepOnFork,
}

impl Advice {
    pub(super) const fn applied_to(self, flags: VmaFlags) -> VmaFlags {
        match self {
            Self::DontFork => flags.union(VmaFlags::DONT_FORK),
            Self::DoFork => flags.difference(VmaFlags::DONT_FORK),
            Self::WipeOnFork => flags.union(VmaFlags::WIPE_ON_FORK),
            Self::KeepOnFork => flags.difference(VmaFlags::WIPE_ON_FORK),
        }
    }
}
