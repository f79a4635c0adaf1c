//! Read pins and write pins are different types.

use crate::rights::Access;

mod sealed {
    pub trait Sealed {}
}

/// What a pin's holder, or its device, does with the pages: [`Read`] or [`Write`].
///
/// Drivers that pinned for reading and then let a device write are a bug class of their own (CVE-2021-28664,
/// CVE-2022-22706): here a [`Read`] pin has no way to give out a device-writable view.
pub trait PinAccess: sealed::Sealed + Copy + Default + Send + Sync + 'static {
    /// What is done with them.
    const ACCESS: Access;
    /// Pages are written.
    const WRITES: bool = matches!(Self::ACCESS, Access::Write);
}

/// The holder only reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read;

/// The holder writes, and may read. Pages are marked dirty on release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Write;

impl sealed::Sealed for Read {}
impl sealed::Sealed for Write {}

impl PinAccess for Read {
    const ACCESS: Access = Access::Read;
}
impl PinAccess for Write {
    const ACCESS: Access = Access::Write;
}
