//! [`Mm`]: the tables of one address space.
//!
//! Order of waiting: mm lock (the kernel's, or `UserSpace`'s) -> an entry that another CPU owns -> the frame source's own lock.
//! Who owns an entry waits for acknowledgements of a flush alone.

use super::Env;
use crate::addr::Pfn;
use crate::arch::Levels;
use crate::primitive::const_fn;

/// The page tables of one address space. They change under its mm lock: see [`Tables`](crate::paging::Tables).
pub struct Mm<K: Env> {
    env: K,
    root: Pfn,
    levels: Levels,
}

impl<K: Env> Mm<K> {
    const_fn! {
        /// The tables below `root`, in kernel `env` (usually a reference to it).
        ///
        /// # Safety
        /// `root` is a valid top table for `levels`, reachable through the kernel's `PhysMap`, and lives as long as this
        /// value; from now on the user half below it changes only through the crate. Its entries of the other half are not
        /// for user code (`US` is clear): a walk that is led there ends there.
        #[must_use]
        pub const unsafe fn new(env: K, root: Pfn, levels: Levels) -> Self {
            Self { env, root, levels }
        }
    }

    /// The kernel that this mm belongs to.
    #[inline(always)]
    pub const fn env(&self) -> &K {
        &self.env
    }

    /// The top table: what goes into `CR3`.
    #[must_use]
    #[inline(always)]
    pub const fn root(&self) -> Pfn {
        self.root
    }

    /// The number of levels.
    #[must_use]
    #[inline(always)]
    pub const fn levels(&self) -> Levels {
        self.levels
    }
}

impl<K: Env> core::fmt::Debug for Mm<K> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mm").field("root", &self.root).field("levels", &self.levels).finish_non_exhaustive()
    }
}
