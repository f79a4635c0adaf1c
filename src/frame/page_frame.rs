//! [`PageFrame`]: a word that stands for memory.

use core::fmt;
use core::mem::MaybeUninit;

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

    /// Makes free frames of memory that holds nothing yet: what a kernel without a heap carved out for its words.
    ///
    /// ```
    /// use core::mem::MaybeUninit;
    /// use pagepin::{FlatFrameTable, FrameTable, Pfn, frame::PageFrame};
    ///
    /// let mut memory = [const { MaybeUninit::uninit() }; 8];
    /// let words: &[PageFrame] = PageFrame::init_slice(&mut memory);
    /// // SAFETY: nobody uses memory by these words.
    /// let table = unsafe { FlatFrameTable::new(Pfn::new(0x100), words) };
    /// assert!(table.frame(Pfn::new(0x107)).is_some_and(|frame| frame.snapshot().is_free()));
    /// // A static needs none of that.
    /// static WORDS: [PageFrame; 8] = [const { PageFrame::new() }; 8];
    /// # assert!(WORDS[7].snapshot().is_free());
    /// ```
    pub fn init_slice(memory: &mut [MaybeUninit<Self>]) -> &mut [Self] {
        for word in &mut *memory {
            word.write(Self::new());
        }
        // SAFETY: each element was just written; a `MaybeUninit` of a type lies in memory as the type does.
        unsafe { &mut *(core::ptr::from_mut(memory) as *mut [Self]) }
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
