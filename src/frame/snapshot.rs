//! A frame's word, decoded.

#![forbid(unsafe_code)]

use core::fmt;

use super::FrameKind;

/// What a [`PageFrame`](super::PageFrame) said at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// References, pins included: 0 means free, or frozen.
    pub refs: u64,
    /// Pins.
    pub pins: u64,
    /// There is one pin, and can be no other.
    pub sole: bool,
    /// Mapped by at most one mm.
    pub exclusive: bool,
    /// Out of circulation.
    pub frozen: bool,
    /// Written other than through a live mapping.
    pub dirty: bool,
    /// What it holds.
    pub kind: FrameKind,
    /// log2 of the number of frames it stands for.
    pub order: u8,
}

impl Snapshot {
    /// No references and not frozen.
    #[must_use]
    pub const fn is_free(self) -> bool {
        self.refs == 0 && !self.frozen
    }

    /// One reference, and that is not a pin: the only mapping explains it (INV-7).
    #[must_use]
    pub const fn is_sole(self) -> bool {
        self.refs == 1 && self.pins == 0
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_free() {
            return f.write_str("Frame(free)");
        }
        if self.frozen {
            return write!(f, "Frame({:?}, frozen)", self.kind);
        }
        write!(f, "Frame({:?}, refs {}, pins {}", self.kind, self.refs, self.pins)?;
        for (set, name) in [(self.sole, ", sole"), (self.exclusive, ", exclusive"), (self.dirty, ", dirty")] {
            if set {
                f.write_str(name)?;
            }
        }
        if self.order != 0 {
            write!(f, ", order {}", self.order)?;
        }
        f.write_str(")")
    }
}
