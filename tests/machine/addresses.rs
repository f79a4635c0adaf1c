//! Where tests map things.

/// Bytes in a page.
pub(crate) const PAGE: u64 = pagepin::PAGE_SIZE;
/// An address in the middle of the user half.
pub(crate) const A: u64 = 0x7f_1234_5000;
/// One that shares no table but the root with [`A`].
pub(crate) const FAR: u64 = 1 << 40;
/// One whose tables below the second level are its own.
pub(crate) const UNTOUCHED: u64 = 0x10_0000_0000;
/// Two pages before the end of what a table of the lowest level covers, for device registers.
pub(crate) const FOREIGN: u64 = 0x20_0020_0000 - 2 * PAGE;
/// Where leaves of 2 MiB may begin.
pub(crate) const LARGE: u64 = 1 << 30;
