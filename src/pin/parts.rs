//! [`pin_user_pages_in_parts`]: a range of any length through a buffer of any length.

#![forbid(unsafe_code)]

use super::{PhysRun, PinAccess, PinError, PinFlags, PinnedRange, pin_user_pages_fast};
use crate::addr::UserRange;
use crate::env::AddressSpace;

/// Pins `range` part by part, each as long as the runs in `buffer` permit, and hands each to `transfer`, which is done with it when it
/// returns. For devices that take so many segments at a time.
///
/// ```
/// # use pagepin::{AddressSpace, UserRange, pin::*};
/// # struct Disk;
/// # impl Disk { fn read(&self, _: &mut dyn Iterator<Item = ByteRun>) -> Result<(), PinError> { Ok(()) } }
/// # fn example<S: AddressSpace>(space: &S, disk: &Disk, range: UserRange) -> Result<(), PinError> {
/// let mut four_segments = [PhysRun::default(); 4];
/// pin_user_pages_in_parts(space, Write, range, PinFlags::empty(), &mut four_segments, |part| {
///     disk.read(&mut part.byte_runs())
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`PinError`], or the first error of `transfer`. The parts before were transferred; nothing is pinned.
pub fn pin_user_pages_in_parts<S: AddressSpace + ?Sized, A: PinAccess, E: From<PinError>>(
    space: &S,
    access: A,
    range: UserRange,
    flags: PinFlags,
    buffer: &mut [PhysRun],
    mut transfer: impl FnMut(&PinnedRange<&S, A, &mut [PhysRun]>) -> Result<(), E>,
) -> Result<(), E> {
    let mut left = Some(range);
    while let Some(range) = left {
        let pinned = pin_user_pages_fast(space, access, range, flags, &mut *buffer)?;
        if let Some(stopped) = pinned.stopped().filter(|stopped| stopped.reason != PinError::BufferTooSmall) {
            return Err(stopped.reason.into());
        }
        // At least one page, so it comes to an end.
        let (part, rest) = pinned.into_part();
        transfer(&part)?;
        left = rest;
    }
    Ok(())
}
