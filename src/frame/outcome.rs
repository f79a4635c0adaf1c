//! What a transition of a frame's word is told, and what it can come to.

#![forbid(unsafe_code)]

use core::fmt;

use super::FrameKind;
use crate::errno::{EAGAIN, EBUSY, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP};

/// Whether a holder that lets go has written to the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// It has only read.
    No,
    /// It may have written: the frame is marked.
    Yes,
}

impl Dirty {
    /// `Yes` if `wrote`.
    ///
    /// ```
    /// use pagepin::frame::Dirty;
    /// assert_eq!(Dirty::when(true), Dirty::Yes);
    /// ```
    #[must_use]
    #[inline(always)]
    pub const fn when(wrote: bool) -> Self {
        if wrote { Self::Yes } else { Self::No }
    }

    #[inline(always)]
    pub(crate) const fn is_yes(self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// How a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// `EXCLUSIVE`: it is for one mm.
    Exclusive,
    /// Not.
    Shared,
}

/// Why a transition of a frame's word was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CountError {
    /// The frame has no references: free, or about to be.
    Free,
    /// The frame is frozen by a migration or split; retry later.
    Frozen,
    /// Anonymous and not `EXCLUSIVE`: unshare it first.
    NotExclusive,
    /// A zero frame, a page-table page, or a frame the crate did not hand out.
    NotPinnable,
    /// The reference or pin count is at its limit.
    Overflow,
    /// Released more often than acquired: a bug in the caller, caught before the count could wrap.
    Underflow,
    /// Pinned, so it cannot be shared, claimed or frozen.
    Pinned,
    /// There are other references than the caller accounted for; they may be momentary.
    Referenced,
    /// The frame was handed out although its word says that it is in use: a bug in the frame source.
    InUse,
    /// A word has no room for such an order.
    NoSuchOrder,
    /// Somebody pinned the frame, and one of the two wants it for itself.
    Sole,
    /// The layout of the word cannot express that there is one pinner.
    NoSole,
    /// The frame is held by gets and cannot be pinned, or the reverse: [`Split23x4x4`](super::Split23x4x4) has one kind at a time.
    OtherKind,
    /// The frame is the head of a block of another size than what named it: that is out of date, or maps a part of a block.
    OtherOrder,
    /// The block is an object's or a driver's, and not taken apart.
    NotPrivate,
}

impl CountError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Overflow => ENOMEM,
            Self::Frozen | Self::NotExclusive | Self::Referenced => EAGAIN,
            Self::Pinned | Self::OtherKind | Self::Sole => EBUSY,
            Self::NoSole | Self::NotPrivate => EOPNOTSUPP,
            Self::NotPinnable => EFAULT,
            Self::Free | Self::Underflow | Self::InUse | Self::NoSuchOrder | Self::OtherOrder => EINVAL,
        }
    }
}

impl fmt::Display for CountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "the frame is free",
            Self::Frozen => "the frame is frozen",
            Self::NotExclusive => "the frame is shared between address spaces",
            Self::NotPinnable => "frames of this kind are never pinned",
            Self::Overflow => "the count is at its limit",
            Self::Underflow => "released more often than acquired",
            Self::Pinned => "the frame is pinned",
            Self::Referenced => "the frame has other references",
            Self::InUse => "the frame source handed out a frame that is in use",
            Self::NoSuchOrder => "no block is that large",
            Self::Sole => "the frame is pinned, and one pinner wants no other",
            Self::NoSole => "the layout of the frame words knows no sole pins",
            Self::OtherKind => "the frame is held by gets and not by pins, or the reverse",
            Self::OtherOrder => "the block has another size",
            Self::NotPrivate => "the block is an object's or a driver's",
        })
    }
}

impl core::error::Error for CountError {}

/// What became of a frame when one of its references was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the caller that released the last reference owns the frame and must free it"]
pub enum Released {
    /// Others still hold it.
    Held {
        /// Some of them are pins.
        pinned: bool,
    },
    /// That was the last reference; the word is free. The caller now gives `1 << order` frames back to their source, or, if they are a
    /// [`Device`](super::FrameKind::Device)'s, to their owner.
    Last {
        /// log2 of the number of frames.
        order: u8,
        /// What they were.
        kind: FrameKind,
    },
}

/// What a successful share found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The frame was `EXCLUSIVE` until this step; an undo gives that back.
    pub was_exclusive: bool,
}
