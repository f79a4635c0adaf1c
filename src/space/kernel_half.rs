//! [`KernelHalf`]: what every root has in common.

use crate::addr::Pfn;

/// A top table whose kernel half every new root gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHalf {
    root: Pfn,
}

impl KernelHalf {
    /// # Safety
    /// `root` is a top table with as many levels as the address spaces that get its kernel half, and lives as long as the
    /// kernel. Its entries of that half are not for user code (`US` is clear), as [`Mm::new`](crate::Mm::new) demands.
    #[must_use]
    pub const unsafe fn new(root: Pfn) -> Self {
        Self { root }
    }

    pub(super) const fn root(self) -> Pfn {
        self.root
    }
}
