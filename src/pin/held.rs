//! [`Held`]: a guard of pins that its holder can be asked for.

use core::mem::ManuallyDrop;
use core::ops::Deref;

use super::revoke::{GONE, KEPT, LOST};
use super::{Lender, Lent, PinAccess, PinFlags, PinnedRange, RegisterError, Revocable, RunBuffer};
use crate::env::AddressSpace;
use crate::primitive::safeguard;

mod sealed {
    pub trait Sealed {}
}

/// A guard that can be registered: a [`PinnedRange`], lent or not.
pub trait PinGuard: sealed::Sealed {
    /// Whether the frames are unpinned when it is dropped.
    const UNPINS: bool;
}

impl<L: Lender, A: PinAccess, B: RunBuffer> sealed::Sealed for PinnedRange<L, A, B> {}
impl<L: Lender, A: PinAccess, B: RunBuffer> sealed::Sealed for Lent<L, A, B> {}

impl<L: Lender, A: PinAccess, B: RunBuffer> PinGuard for PinnedRange<L, A, B> {
    const UNPINS: bool = true;
}

impl<L: Lender, A: PinAccess, B: RunBuffer> PinGuard for Lent<L, A, B> {
    const UNPINS: bool = false;
}

/// A pinned range, lent or not, that its holder can be asked for. The registration ends with it.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// # struct Driver;
/// # impl Revoke for Driver { fn revoke(&self, _: UserRange) -> Answer { Answer::Refused } }
/// # static PINS: RevocableSet<'static> = RevocableSet::new();
/// # static REQUEST: Revocable<'static> = Revocable::new(&PINS, &Driver);
/// let range = space.range(0x10000, 1)?;
/// let pinned = pin_user_pages(&space, Write, range, PinFlags::LONGTERM, [PhysRun::default(); 1])?.complete()?;
/// let held = pinned.register(&REQUEST, &space).map_err(|(_, error)| error)?;
/// let held = held.lend_to(3); // the device is told of the addresses
/// // SAFETY: it is not, here.
/// let held = unsafe { held.complete() };
/// let pinned = held.keep(); // nobody asks for it any more
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it gives the pins back"]
#[derive(Debug)]
pub struct Held<'a, G: PinGuard> {
    guard: ManuallyDrop<G>,
    entry: &'a Revocable<'a>,
}

impl<'a, G: PinGuard> Held<'a, G> {
    /// The guard alone; nobody asks for it any more. Whoever is asking at this moment is told [`Outcome::Refused`](super::revoke::Outcome::Refused).
    pub fn keep(self) -> G {
        let (guard, entry) = self.into_parts();
        let said = safeguard!(KeepIsNoGrant => true);
        entry.release(if said { KEPT } else { GONE });
        guard
    }

    fn into_parts(self) -> (G, &'a Revocable<'a>) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, nor used again.
        (unsafe { ManuallyDrop::take(&mut this.guard) }, this.entry)
    }
}

impl<G: PinGuard> Deref for Held<'_, G> {
    type Target = G;

    fn deref(&self) -> &G {
        &self.guard
    }
}

impl<G: PinGuard> Drop for Held<'_, G> {
    fn drop(&mut self) {
        let (entry, end) = (self.entry, if G::UNPINS { GONE } else { LOST });
        // The order matters: who asked is told that the frames are unpinned.
        let in_order = safeguard!(UnpinBeforeGrant => true);
        if !in_order {
            entry.release(end);
        }
        // SAFETY: a value is dropped once, and its guard not used after that.
        unsafe { ManuallyDrop::drop(&mut self.guard) };
        if in_order {
            entry.release(end);
        }
    }
}

impl<L: Lender, A: PinAccess, B: RunBuffer> PinnedRange<L, A, B> {
    /// Lets whoever needs the pages ask for them by `entry`. `space` is the address space that they were pinned in; of pins that are
    /// [independent](super::Pinned::into_owned) of it that is the caller's word: registered for another, they are not found.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// # struct Driver;
    /// # impl Revoke for Driver { fn revoke(&self, _: UserRange) -> Answer { Answer::Refused } }
    /// # static PINS: RevocableSet<'static> = RevocableSet::new();
    /// # static REQUEST: Revocable<'static> = Revocable::new(&PINS, &Driver);
    /// let pinned = space.pin(Write, space.range(0x10000, 1)?, [PhysRun::default(); 1])?;
    /// let Err((_, error)) = pinned.register(&REQUEST, &space) else { panic!("it is not for long") };
    /// assert_eq!(error, RegisterError::NotLongTerm);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RegisterError`], with the pins.
    pub fn register<'a, S>(self, entry: &'a Revocable<'a>, space: &S) -> Result<Held<'a, Self>, (Self, RegisterError)>
    where
        S: AddressSpace<Kernel = L::Kernel> + ?Sized,
    {
        let root = space.mm().root();
        if !self.flags().contains(PinFlags::LONGTERM) {
            return Err((self, RegisterError::NotLongTerm));
        }
        if self.lender().root().is_some_and(|lenders| lenders != root) {
            return Err((self, RegisterError::OtherSpace));
        }
        match entry.register(root, self.range()) {
            Ok(()) => Ok(Held { guard: ManuallyDrop::new(self), entry }),
            Err(error) => Err((self, error)),
        }
    }
}

impl<'a, L: Lender, A: PinAccess, B: RunBuffer> Held<'a, PinnedRange<L, A, B>> {
    /// As [`PinnedRange::lend_to`]; it stays registered. Whoever drops it then has its frames in quarantine, and who asked is told so.
    pub fn lend_to(self, device: u64) -> Held<'a, Lent<L, A, B>> {
        let (guard, entry) = self.into_parts();
        Held { guard: ManuallyDrop::new(guard.lend_to(device)), entry }
    }
}

impl<'a, L: Lender, A: PinAccess, B: RunBuffer> Held<'a, Lent<L, A, B>> {
    /// As [`Lent::complete`]; it stays registered.
    ///
    /// # Safety
    /// As [`Lent::complete`].
    pub unsafe fn complete(self) -> Held<'a, PinnedRange<L, A, B>> {
        let (guard, entry) = self.into_parts();
        // SAFETY: forwarded from the caller.
        Held { guard: ManuallyDrop::new(unsafe { guard.complete() }), entry }
    }
}
