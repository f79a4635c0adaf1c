//! [`SpaceOptions`]: what is said of an address space when it is made.

use super::KernelHalf;
use crate::arch::{KeyRights, Levels};

/// Choices that hold for an address space and its children.
///
/// ```
/// use pagepin::{Levels, space::{KernelHalf, SpaceOptions}};
/// # let kernel_half = KernelHalf::none(Levels::Four);
/// let options = SpaceOptions::new(kernel_half); // of `KernelHalf::loaded`
/// let never_loaded = SpaceOptions::without_kernel_half(Levels::Four);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SpaceOptions {
    /// The kernel half that every new root gets, and how many levels it has.
    pub kernel_half: KernelHalf,
    /// Reads the rights of the running thread's protection keys (the PKRU register), where keys are in use.
    pub key_rights: Option<fn() -> KeyRights>,
}

impl SpaceOptions {
    /// Spaces whose roots have this kernel half. Nothing else is out of the ordinary.
    #[must_use]
    pub const fn new(kernel_half: KernelHalf) -> Self {
        Self { kernel_half, key_rights: None }
    }

    /// Spaces that no processor can run in: see [`KernelHalf::none`].
    #[must_use]
    pub const fn without_kernel_half(levels: Levels) -> Self {
        Self::new(KernelHalf::none(levels))
    }

    pub(super) const fn levels(&self) -> Levels {
        self.kernel_half.levels()
    }
}
