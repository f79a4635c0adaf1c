//! [`PinFlags`].

use bitflags::bitflags;

use super::PinError;
use crate::env::PinTerm;

bitflags! {
    /// How to acquire pages. Whether they are written is in the type ([`Read`](super::Read), [`Write`](super::Write)),
    /// not here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PinFlags: u32 {
        /// Never fault a page in; what is not there or not this mm's own gives [`PinError::WouldFault`].
        const NOFAULT = 1 << 0;
        /// The pin lasts for as long as user space wants. The mm's budget is told, and each page lies, or is moved, where it may stay
        /// ([`FrameSource::may_stay`](crate::FrameSource::may_stay)). A form that never faults moves none
        /// ([`PinError::WouldFault`]). What is shown of an object that is written back is not pinned for writing
        /// ([`PinError::WrittenBack`]).
        const LONGTERM = 1 << 1;
        /// Write although the VMA is read-only now, within what it may be given: for debuggers. The write gets a
        /// private copy, and the page stays read-only for user code (INV-9). Write pins only.
        const FORCE = 1 << 2;
        /// One pinner at a time: all pins of each frame are taken in one step, and given back in one. A page that is pinned
        /// refuses, and so does this one everybody else, with [`PinError::Sole`]. For pins only, and not of the form that
        /// never takes a lock; [`Biased10`](crate::frame::Biased10) words cannot say it ([`PinError::NoSole`]).
        const SOLE = 1 << 3;
    }
}

impl PinFlags {
    /// From the bits of a foreign ABI.
    ///
    /// ```
    /// use pagepin::pin::{PinError, PinFlags};
    /// assert_eq!(PinFlags::from_raw(PinFlags::NOFAULT.bits()), Ok(PinFlags::NOFAULT));
    /// assert_eq!(PinFlags::from_raw(1 << 31), Err(PinError::InvalidFlags));
    /// ```
    ///
    /// # Errors
    /// [`PinError::InvalidFlags`] for unknown bits.
    pub fn from_raw(bits: u32) -> Result<Self, PinError> {
        Self::from_bits(bits).ok_or(PinError::InvalidFlags)
    }

    /// How long the pin lasts.
    #[inline(always)]
    pub(crate) fn term(self) -> PinTerm {
        if self.contains(Self::LONGTERM) { PinTerm::Long } else { PinTerm::Short }
    }

    /// Whether they need neither a check nor a path of their own, for a pin of whatever form.
    #[inline(always)]
    pub(super) fn are_usual(self) -> bool {
        self.difference(Self::NOFAULT).is_empty()
    }

    /// Refuses unknown bits and combinations without a meaning.
    #[inline]
    pub(super) fn check(self, pin: bool, write: bool, may_take_slow_path: bool) -> Result<(), PinError> {
        let unknown = !Self::all().contains(self);
        let for_pins_only = !pin && self.intersects(Self::LONGTERM | Self::FORCE | Self::SOLE);
        // A forced access is decided by the VMA, which only the slow path can ask.
        let forced = self.contains(Self::FORCE) && !(write && may_take_slow_path && !self.contains(Self::SOLE));
        let alone = self.contains(Self::SOLE) && !may_take_slow_path;
        if unknown || for_pins_only || forced || alone { Err(PinError::InvalidFlags) } else { Ok(()) }
    }
}
