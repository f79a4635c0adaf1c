//! [`PageFrame`]: a word that stands for memory.

use core::fmt;

use super::{FrameKind, FrameWord, Layout, Snapshot, Wide};
use crate::primitive::const_fn;

/// One physical frame, as a kernel's [`FrameTable`](crate::FrameTable) has them: its word, which anybody may look at.
///
/// Shared by every CPU: there is no `&mut PageFrame` to a frame in use.
#[repr(transparent)]
pub struct PageFrame<L: Layout = Wide> {
    /// For the crate, whose guards and entries own what they count.
    pub(crate) word: FrameWord<L>,
}

impl<L: Layout> PageFrame<L> {
    const_fn! {
        /// A free frame.
        #[must_use]
        pub const fn new() -> Self {
            Self { word: FrameWord::new() }
        }
    }

    /// The frame's word, to count in it for uses of one's own: a block to map, a buffer of the kernel.
    ///
    /// # Safety
    /// A count stands for somebody who uses the memory, and the last one to go frees it. The caller hands out only what
    /// the kernel's [`FrameSource`](crate::FrameSource) gave it, puts and unpins only what it took or was given, frees the
    /// frame if that was the last, and shares, claims, freezes and unfreezes only a frame of which it owns a reference and
    /// whose every entry it has under lock.
    #[must_use]
    #[inline(always)]
    pub const unsafe fn word(&self) -> &FrameWord<L> {
        &self.word
    }

    /// A decoded copy of the state. Another CPU may have changed it by the time it is looked at.
    #[must_use]
    #[inline]
    pub fn snapshot(&self) -> Snapshot {
        self.word.snapshot()
    }

    /// The frame's kind. Stable only while the caller holds a reference.
    #[must_use]
    #[inline]
    pub fn kind(&self) -> FrameKind {
        self.word.kind()
    }

    /// log2 of the number of frames this head stands for. Stable only while the caller holds a reference.
    #[must_use]
    #[inline]
    pub fn order(&self) -> u8 {
        self.word.order()
    }
}

impl<L: Layout> Default for PageFrame<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Layout> fmt::Debug for PageFrame<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.word, f)
    }
}

static_assertions::assert_impl_all!(PageFrame<Wide>: Send, Sync);
// A copy would be another word for the same frame.
static_assertions::assert_not_impl_any!(PageFrame<Wide>: Clone);
