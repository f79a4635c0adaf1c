//! Where pins go whose device did not say that it has stopped.

#![forbid(unsafe_code)]

use super::PinTerm;
use crate::addr::{PhysRun, UserRange};
use crate::rights::Access;

/// Pins that a [`Lent`](crate::pin::Lent) left behind when it was dropped.
#[derive(Clone, Copy, Debug)]
pub struct LostLoan<'a> {
    /// Which device has them, as [`PinnedRange::lend_to`](crate::pin::PinnedRange::lend_to) was told.
    pub device: u64,
    /// The user range.
    pub range: UserRange,
    /// The frames, each still pinned as its run says.
    pub runs: &'a [PhysRun],
    /// What the device may do with them.
    pub access: Access,
    /// For how long they were pinned.
    pub term: PinTerm,
}

/// Takes over pins whose device may still be at work: nobody can give them back but who knows that it has stopped. `()` keeps them
/// for ever, and the loss is counted as a bug. [`QuarantineTable`](crate::pin::QuarantineTable) lists them, until the device is reset.
///
/// Called from wherever a guard is dropped, interrupt context included.
pub trait Quarantine: Sync {
    /// Whether there is anywhere to list them.
    const KEEPS: bool = true;

    /// The pins are the quarantine's from now on. Who has no room for them forgets about them, and they stay.
    fn hold(&self, loan: &LostLoan<'_>);
}

/// None: the frames stay pinned.
impl Quarantine for () {
    const KEEPS: bool = false;

    #[inline(always)]
    fn hold(&self, _: &LostLoan<'_>) {}
}

impl<T: Quarantine + ?Sized> Quarantine for &T {
    const KEEPS: bool = T::KEEPS;

    #[inline(always)]
    fn hold(&self, loan: &LostLoan<'_>) {
        (**self).hold(loan);
    }
}
