//! Who lent the pages: where a guard finds the kernel that takes them back and the budget they are charged to.

use crate::addr::Pfn;
use crate::env::{AddressSpace, Env, PinBudget};

/// What a guard gives its pages back to: the address space they were pinned in ([`&S`](AddressSpace)), or an [`Owner`],
/// which is independent of it.
pub trait Lender: sealed::Sealed {
    /// The kernel whose frames are pinned.
    type Kernel: Env;
    /// Who pays.
    type Budget: PinBudget;

    /// The kernel whose frames are pinned.
    fn kernel(&self) -> &Self::Kernel;
    /// Who pays.
    fn budget(&self) -> &Self::Budget;
    /// The top table of the address space, where that is known.
    #[doc(hidden)]
    fn root(&self) -> Option<Pfn> {
        None
    }
}

mod sealed {
    pub trait Sealed {}
}

impl<S: AddressSpace + ?Sized> sealed::Sealed for &S {}

impl<S: AddressSpace + ?Sized> Lender for &S {
    type Kernel = S::Kernel;
    type Budget = S::Budget;

    #[inline(always)]
    fn kernel(&self) -> &S::Kernel {
        self.mm().env()
    }

    #[inline(always)]
    fn budget(&self) -> &S::Budget {
        (**self).budget()
    }

    fn root(&self) -> Option<Pfn> {
        Some(self.mm().root())
    }
}

/// A kernel and a budget of one's own: what is left of an address space for pins that may outlive it.
/// [`Pinned::into_owned`](super::Pinned::into_owned) makes one from the address space that was charged.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let pinned = pin_user_pages(&space, Write, space.range(0x10000, 1)?, PinFlags::empty(), [PhysRun::default(); 1])?;
/// let raw = pinned.into_raw();
/// drop(space);
/// // SAFETY: pinned through this kernel, and charged to nobody.
/// drop(unsafe { Pinned::from_raw(Owner::new(&kernel, Unlimited), raw) });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Owner<K, C> {
    kernel: K,
    budget: C,
}

impl<K, C> Owner<K, C> {
    /// For pins that come back through [`Pinned::from_raw`](super::Pinned::from_raw).
    pub const fn new(kernel: K, budget: C) -> Self {
        Self { kernel, budget }
    }
}

impl<K, C> sealed::Sealed for Owner<K, C> {}

impl<K: Env, C: PinBudget> Lender for Owner<K, C> {
    type Kernel = K;
    type Budget = C;

    #[inline(always)]
    fn kernel(&self) -> &K {
        &self.kernel
    }

    #[inline(always)]
    fn budget(&self) -> &C {
        &self.budget
    }
}
